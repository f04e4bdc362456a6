"""The GPU and its surroundings."""

from bench import warnings
from bench.device.conditions import POWER_CAP, QUIET_SHARE, SLOWDOWNS, THROTTLED_S
from bench.measured import Conditions
from jobs.report import compare
from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import alike

_CLOCK_SHARE = 0.75  # nvbench discards samples below this share of the usual clock
_CAP_SHARE = 0.98


@rule(
    Verdict.FIX,
    Verdict.ACCEPT,
    undermines="effects",
    cause="The GPU was throttled, so times and energies are not representative of its type.",
    do=[
        "Cool it, or lock a clock that it can hold: nvidia-smi --lock-gpu-clocks.",
        "Measure again; compare only rows at the same clock.",
    ],
)
def gpu_throttled(case: Case, group: Group) -> Hit | None:
    """Clocks were throttled.

    For more than 0.1 s, NVML's mask has a reason for it, or the SM clock was below 75 % of the
    highest. Accept: the vendor's own power limit is the only reason.
    """
    slowed = {found: why for found in case.conditions if (why := slowed_by(found, case))}
    if not slowed:
        return None
    full_power = case.power_limit_w and case.default_power_limit_w and not is_capped(case)
    if not full_power or any(reasons_of(found) != [POWER_CAP] for found in slowed):
        return Hit([one for why in slowed.values() for one in why])
    clocks = tuple(found.sm_mhz_after for found in slowed if found.sm_mhz_after)
    ran = "The board ran at its power limit of {power_limit_w:2 W}"
    of = " ({clock:4} of {max_sm_mhz:g MHz})" if clocks and case.max_sm_mhz else ""
    return Hit(
        ["the limit is the vendor's, and the only reason that the driver gives"],
        {"clock": clocks},
        verdict=Verdict.ACCEPT,
        cause=f"{ran}, which sets its clock{of}.",
        do=(),
    )


def slowed_by(found: Conditions, case: Case) -> list[Note]:
    """What throttled one replicate, and how far."""
    why = []
    if (found.throttled_s or 0.0) > THROTTLED_S:
        why.append(note("clocks were throttled for {seconds:s}", seconds=found.throttled_s))
    why += [note("reason: {reason}", reason=SLOWDOWNS[bit]) for bit in reasons_of(found)]
    top, clock = case.max_sm_mhz, found.sm_mhz_after
    if top and clock and clock < _CLOCK_SHARE * top:
        why.append(note("SM clock {clock:g} of {max_sm_mhz:g MHz} under load", clock=clock))
    return why


def reasons_of(found: Conditions) -> list[int]:
    """The slowdowns in NVML's mask."""
    return [bit for bit in SLOWDOWNS if (found.clocks_event_reasons or 0) & bit]


def is_capped(case: Case) -> bool:
    """Whether the power limit is known to be below the vendor's."""
    limit, vendors = case.power_limit_w, case.default_power_limit_w
    return bool(limit and vendors and limit < _CAP_SHARE * vendors)


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="The device or its host was shared while it was measured.",
    do=["Measure again with exclusive use of the device and its host."],
)
def gpu_shared(case: Case, group: Group) -> Hit | None:
    """Processes on the GPU, a MIG slice, a virtual GPU, or over 5 % of the host's CPU time."""
    why = sharing(case)
    by_sweep = any("cells" in one.values for one in why)
    exclusive = 'Set placement.exclusive = "host": the others were cells of the same sweep.'
    return Hit(why, do=[exclusive] if by_sweep else None) if why else None


def sharing(case: Case) -> list[Note]:
    """Who shared the device or its host with a case."""
    processes = max((c.other_processes or 0 for c in case.conditions), default=0)
    share = max((c.other_cpu_share or 0.0 for c in case.conditions), default=0.0)
    busy, cells = share > QUIET_SHARE, case.neighbours
    every = [
        (processes, note("{processes} other processes on the GPU", processes=processes)),
        (case.mig, note("a MIG slice")),
        (case.vgpu, note("a virtual GPU")),
        (busy, note("other processes took {share:.0%} of the host's CPU time", share=share)),
        (cells, note("cells of this sweep on the same host: {cells}", cells=cells)),
    ]
    return [why for is_so, why in every if is_so]


@rule(
    Verdict.FIX,
    minor=True,
    cause="The power limit of {power_limit_w:g W} is below the vendor's"
    " {default_power_limit_w:g W}: under full load this is a slower GPU.",
    do=["Say so beside the numbers, or set the vendor's limit: nvidia-smi --power-limit."],
)
def gpu_capped(case: Case, group: Group) -> Hit | None:
    """The power limit is below the vendor's."""
    return Hit() if is_capped(case) else None


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="The rows differ in more than the precision, so their ratio has several causes.",
    do=["Measure both in one sweep, on the same GPU, host and versions."],
)
def confounded(case: Case, group: Group) -> Hit | None:
    """Rows that are compared differ in a column of `MUST_AGREE` (`jobs/report/from_rows.py`)."""
    found = [note("{text}", text=one.text) for one in case.disagreements if one.must]
    return Hit(found) if found else None


@rule(
    Verdict.FIX,
    cause="The precision and fp32 ran different attention kernels, so their ratio is of both.",
    do=['Set attention = "efficient", which runs in each precision, to compare precisions alone.'],
)
def attention_differs(case: Case, group: Group) -> Hit | None:
    """Traces show another attention kernel of a precision than of fp32, as torch chooses them."""
    ran = {one.precision: tuple(sorted(one.seen(compare.ATTENTION))) for one in group.cases}
    # Of a row that was not traced no one knows it.
    notes = [note("{of}: {kernels}", of=of, kernels=seen) for of, seen in ran.items() if seen]
    differing = (compare.ATTENTION, BASELINE)
    return Hit(notes) if differing in [(d.column, d.others) for d in case.disagreements] else None


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="Timing began before the latency was steady: its interval does not cover the drift.",
    do=["Raise sampling.warmup_max_s, or find what moves: heat, clocks, other work."],
)
def warm_up_unsteady(case: Case, group: Group) -> Hit | None:
    """The warm-up ended before two medians of 1 s agreed within 1 %; says how far it drifted."""
    told = warnings.having(case.warnings, "warm-up-not-steady")
    return Hit(["{precision}: {told}"], {"told": "; ".join(alike(told))}) if told else None


@rule(
    Verdict.FIX,
    minor=True,
    cause="The median is known less narrowly than the matrix asks; the wider intervals hold.",
    do=["Raise sampling.latency_max_s and max_samples, or ask for less (median_within)."],
)
def latency_not_converged(case: Case, group: Group) -> Hit | None:
    """Sampling ended before a latency or time to first token was known as narrowly as asked."""
    told = warnings.having(case.warnings, "latency-not-converged", "first-token-not-converged")
    return Hit(["{precision}: {told}"], {"told": "; ".join(alike(told))}) if told else None
