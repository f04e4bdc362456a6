"""The GPU and its surroundings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench import warnings
from bench.device.conditions import QUIET_SHARE, SLOWDOWNS
from bench.measured import Conditions
from jobs.report import compare
from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import alike

_POWER_CAP = 0x04  # of nvmlClocksEventReasons, as the keys of SLOWDOWNS
_THROTTLED_S = 0.1
_CLOCK_SHARE = 0.75  # nvbench discards samples below this share of the usual clock
_CAP_SHARE = 0.98


@rule(
    "gpu-throttled",
    Verdict.FIX,
    or_else=(Verdict.ACCEPT,),
    undermines_effects=True,
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
    slowed = [found for found in case.conditions if slowed_by(found, case)]
    if not slowed:
        return None
    limit, vendors = case.power_limit_w, case.default_power_limit_w
    if (
        all(reasons_of(found) == [_POWER_CAP] for found in slowed)
        and limit
        and vendors
        and limit >= _CAP_SHARE * vendors
    ):
        clocks = tuple(found.sm_mhz_after for found in slowed if found.sm_mhz_after)
        of = " ({clock:4} of {max_sm_mhz:g MHz})" if clocks and case.max_sm_mhz else ""
        return Hit(
            {"clock": clocks},
            ["the limit is the vendor's, and the only reason that the driver gives"],
            verdict=Verdict.ACCEPT,
            cause="The board ran at its power limit of {power_limit_w:2 W}, which sets its"
            f" clock{of}.",
            do=(),
        )
    return Hit(evidence=[why for found in slowed for why in slowed_by(found, case)])


def slowed_by(found: Conditions, case: Case) -> list[Note]:
    """What throttled one replicate, and how far."""
    why = []
    if (found.throttled_s or 0.0) > _THROTTLED_S:
        why.append(note("clocks were throttled for {seconds:s}", seconds=found.throttled_s))
    why += [note("reason: {reason}", reason=SLOWDOWNS[bit]) for bit in reasons_of(found)]
    top, clock = case.max_sm_mhz, found.sm_mhz_after
    if top and clock and clock < _CLOCK_SHARE * top:
        why.append(note("SM clock {clock:g} of {max_sm_mhz:g MHz} under load", clock=clock))
    return why


def reasons_of(found: Conditions) -> list[int]:
    """The slowdowns in NVML's mask."""
    return [bit for bit in SLOWDOWNS if (found.clocks_event_reasons or 0) & bit]


@rule(
    "gpu-shared",
    Verdict.FIX,
    undermines_effects=True,
    cause="The device or its host was shared while it was measured.",
    do=["Measure again with exclusive use of the device and its host."],
)
def gpu_shared(case: Case, group: Group) -> Hit | None:
    """Others used the GPU or its host.

    Processes on the GPU, a MIG slice, a virtual GPU, or over 5 % of the host's CPU time; names the
    cells of the sweep that ran there meanwhile.
    """
    why = sharing(case)
    if not why:
        return None
    by_sweep = any("neighbours" in one.values for one in why)
    exclusive = 'Set placement.exclusive = "host": the others were cells of the same sweep.'
    return Hit(evidence=why, do=[exclusive] if by_sweep else None)


def sharing(case: Case) -> list[Note]:
    """Who shared the device or its host with a case."""
    why = []
    processes = max((c.other_processes or 0 for c in case.conditions), default=0)
    if processes:
        why.append(note("{processes} other processes on the GPU", processes=processes))
    if case.mig:
        why.append(note("a MIG slice"))
    if case.vgpu:
        why.append(note("a virtual GPU"))
    share = max((c.other_cpu_share or 0.0 for c in case.conditions), default=0.0)
    if share > QUIET_SHARE:
        why.append(note("other processes took {share:.0%} of the host's CPU time", share=share))
        if case.neighbours:
            cells = "cells of this sweep on the same host: {neighbours}"
            why.append(note(cells, neighbours=case.neighbours))
    return why


@rule(
    "gpu-capped",
    Verdict.FIX,
    cause="The power limit of {power_limit_w:g W} is below the vendor's"
    " {default_power_limit_w:g W}: under full load this is a slower GPU.",
    do=["Say so beside the numbers, or set the vendor's limit: nvidia-smi --power-limit."],
)
def gpu_capped(case: Case, group: Group) -> Hit | None:
    """The power limit is below the vendor's."""
    limit, vendors = case.power_limit_w, case.default_power_limit_w
    return Hit() if limit and vendors and limit < _CAP_SHARE * vendors else None


@rule(
    "confounded",
    Verdict.FIX,
    undermines_effects=True,
    cause="The rows differ in more than the precision, so their ratio has several causes.",
    do=["Measure both in one sweep, on the same GPU, host and versions."],
)
def confounded(case: Case, group: Group) -> Hit | None:
    """Rows that are compared differ in a column that must agree.

    `MUST_AGREE` in `jobs/report/from_rows.py` has them.
    """
    found = [note("{text}", text=one.text) for one in case.disagreements if one.must]
    return Hit(evidence=found) if found else None


@rule(
    "attention-differs",
    Verdict.FIX,
    cause="The precision and fp32 ran different attention kernels: their ratio is that of the"
    " precision and of these together, which is what changing the precision gives in torch.",
    do=[
        'Set attention = "efficient" in the matrix to compare precisions alone: it runs in each of'
        " them, with a mask as well."
    ],
)
def attention_differs(case: Case, group: Group) -> Hit | None:
    """A trace shows that a precision and fp32 ran different attention kernels.

    Flash, efficient, cudnn or math, as torch chooses them on an A100 or an H100. It takes nothing
    away from an effect, which is what changing the precision gives; the next matrix pins one for
    both. Silent where either was not traced.
    """
    differing = (compare.ATTENTION, BASELINE)
    if differing not in [(one.column, one.others) for one in case.disagreements]:
        return None
    ran = [
        note(
            "{of}: {kernels}", of=one.precision, kernels=tuple(sorted(one.seen(compare.ATTENTION)))
        )
        for one in group.cases
    ]
    return Hit(evidence=ran)


@rule(
    "warm-up-unsteady",
    Verdict.FIX,
    undermines_effects=True,
    cause="Timing began before two medians of 1 s agreed within 1 %, so the latency is that of the"
    " moment, and its interval does not cover the drift.",
    do=["Raise sampling.warmup_max_s, or find what moves: heat, clocks, other work."],
)
def warm_up_unsteady(case: Case, group: Group) -> Hit | None:
    """The warm-up ended before two medians of 1 s agreed within 1 %.

    Says how far the samples drifted afterwards; no interval covers a drift.
    """
    told = warnings.having(case.warnings, "warm-up-not-steady")
    if not told:
        return None
    drifts = tuple(drift_of(samples) for samples in case.latency_ms_samples)
    return Hit(
        {"told": "; ".join(alike(told)), "drift": drifts},
        [
            "{precision}: {told}; the median of the last third of the samples is {drift:.3f}x that"
            " of the first"
        ],
    )


def drift_of(samples: Sequence[float]) -> float:
    """Median of the last third over that of the first."""
    third = max(1, len(samples) // 3)
    return statistics.median(samples[-third:]) / statistics.median(samples[:third])


@rule(
    "latency-not-converged",
    Verdict.FIX,
    cause="Sampling ended before the median was known as narrowly as the matrix asks; the intervals"
    " are wider for it, and still hold.",
    do=["Raise sampling.latency_max_s and max_samples, or ask for less (median_within)."],
)
def latency_not_converged(case: Case, group: Group) -> Hit | None:
    """Sampling ended before a median was known as narrowly as the matrix asks.

    Of latency or time to first token; takes nothing away from an effect.
    """
    told = warnings.having(case.warnings, "latency-not-converged", "first-token-not-converged")
    return Hit({"told": "; ".join(alike(told))}, ["{precision}: {told}"]) if told else None
