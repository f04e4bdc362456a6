"""What surrounded the rows: a GPU held down, shared or capped; what else differed; noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from bench.measured import Measurement
from bench.stats import Ratio
from jobs.report import comparison, words
from jobs.report.cases import Case, Group
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.words import listed, number

# NVML's reasons that mean less than full clocks: software power cap, hardware slowdown, software
# and hardware thermal slowdown, power brake.
_POWER_CAP = 0x4
_SLOWED = {
    _POWER_CAP: "power limit",
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
_THROTTLED_S = 0.1
_CLOCK_SHARE = 0.75  # nvbench discards samples below this share of the usual clock
_CAP_SHARE = 0.98
QUIET_SHARE = 0.05  # of the host's CPU time that others may take, as bench.device doubts it
_NEIGHBOURS = "cells of this sweep on the host:"


def gpu_held_down(group: Group) -> Iterator[Finding]:
    """Clocks below what the GPU can hold make another GPU of it, unless the vendor's limit does."""
    held, limited = {}, []
    for case in group.cases:
        why = [text for m in case.rows for text in _slowed(m)]
        if why and all(_at_its_limit(m) for m in case.rows if _slowed(m)):
            limited.append(case)
        elif why:
            held[case.precision] = f"{case.precision}: {'; '.join(dict.fromkeys(why))}"
    if held:
        yield Finding(
            Code.GPU_THROTTLED,
            Verdict.FIX,
            group.title,
            tuple(held),
            "The GPU was held below its clocks, so that times and energies are not the type's own.",
            evidence=tuple(held.values()),
            actions=(
                "Cool it, or lock a clock that it can hold: nvidia-smi --lock-gpu-clocks.",
                "Measure again; compare only rows at the same clock.",
            ),
        )
    if limited:
        yield Finding(
            Code.GPU_THROTTLED,
            Verdict.ACCEPT,
            group.title,
            tuple(case.precision for case in limited),
            f"The board worked at its power limit{_limit_and_clock(limited)} is what that leaves.",
            evidence=("the limit is the vendor's, and the only reason that the driver gives",),
        )


def _slowed(m: Measurement) -> list[str]:
    """What held the clocks of a row down, and how far."""
    found = m.conditions
    if found is None:
        return []
    why = []
    if (found.throttled_s or 0.0) > _THROTTLED_S:
        why.append(f"clocks held down for {number(found.throttled_s, ' s')}")
    bits = found.clocks_event_reasons or 0
    why.extend(f"reason: {word}" for bit, word in _SLOWED.items() if bits & bit)
    top, clock = m.device.max_sm_mhz if m.device else None, found.sm_mhz_after
    if top and clock and clock < _CLOCK_SHARE * top:
        why.append(f"SM clock {clock:g} of {top:g} MHz under load")
    return why


def _at_its_limit(m: Measurement) -> bool:
    """Whether nothing but the vendor's own power limit held the clocks down."""
    if not (m.conditions and m.device and m.device.power_limit_w):
        return False
    bits = m.conditions.clocks_event_reasons or 0
    vendors = m.device.default_power_limit_w
    return (
        [bit for bit in _SLOWED if bits & bit] == [_POWER_CAP]
        and vendors is not None
        and m.device.power_limit_w >= _CAP_SHARE * vendors
    )


def _limit_and_clock(cases: Sequence[Case]) -> str:
    rows = [m for case in cases for m in case.rows if _slowed(m)]
    limits = [m.device.power_limit_w for m in rows if m.device and m.device.power_limit_w]
    clocks = [c for m in rows if m.conditions and (c := m.conditions.sm_mhz_after)]
    tops = [m.device.max_sm_mhz for m in rows if m.device and m.device.max_sm_mhz]
    of = f" ({words.span(clocks, digits=4)} of {max(tops):g} MHz)" if clocks and tops else ""
    return f" of {words.span(limits, ' W', 2)}: its clock{of}"


def gpu_shared(group: Group) -> Iterator[Finding]:
    """Others who compute at the same time are in every number."""
    sharers = {case.precision: why for case in group.cases if (why := shared_with(case))}
    if sharers:
        yield Finding(
            Code.GPU_SHARED,
            Verdict.FIX,
            group.title,
            tuple(sharers),
            "The device or its host was shared while it was measured.",
            evidence=tuple(
                f"{precision}: {'; '.join(words.alike(why))}" for precision, why in sharers.items()
            ),
            actions=(
                'Set placement.exclusive = "host": other cells of the sweep were the others.'
                if any(_NEIGHBOURS in text for why in sharers.values() for text in why)
                else "Measure again with the device and its host to yourself.",
            ),
        )


def shared_with(case: Case) -> list[str]:
    """Who shared the device or its host with a case."""
    why = []
    for m in case.rows:
        if m.conditions and m.conditions.other_processes:
            why.append(f"{m.conditions.other_processes} other processes on the GPU")
        if m.device and m.device.mig:
            why.append("a MIG slice")
        if m.device and m.device.vgpu:
            why.append("a virtual GPU")
        share = m.conditions.other_cpu_share if m.conditions else None
        if share is not None and share > QUIET_SHARE:
            why.append(f"others took {share:.0%} of the host's CPU time")
            if m.placement and m.placement.neighbours:
                why.append(f"{_NEIGHBOURS} {listed(m.placement.neighbours)}")
    return list(dict.fromkeys(why))


def gpu_capped(group: Group) -> Iterator[Finding]:
    """A power limit below the vendor's."""
    capped = {
        (m.device.power_limit_w, m.device.default_power_limit_w)
        for case in group.cases
        for m in case.rows
        if m.device
        and m.device.power_limit_w
        and m.device.default_power_limit_w
        and m.device.power_limit_w < _CAP_SHARE * m.device.default_power_limit_w
    }
    if capped:
        yield Finding(
            Code.GPU_CAPPED,
            Verdict.FIX,
            group.title,
            tuple(case.precision for case in group.cases),
            "The power limit is below the vendor's: under full load this is a slower GPU.",
            evidence=tuple(
                f"limit {limit:g} W; the vendor's is {default:g} W" for limit, default in capped
            ),
            actions=("Say so beside the numbers, or set the vendor's: nvidia-smi --power-limit.",),
        )


def confounded(group: Group) -> Iterator[Finding]:
    """Two rows that differ in more than the precision say nothing of the precision."""
    differing: dict[str, list[str]] = {}
    for case, base in group.pairs():
        for difference in comparison.must_agree(case.rows, base.rows):
            differing.setdefault(difference, []).append(case.precision)
    for case in group.cases:
        for difference in comparison.must_agree(case.rows, case.rows):
            differing.setdefault(f"between replicates: {difference}", []).append(case.precision)
    if differing:
        precisions = dict.fromkeys(p for every in differing.values() for p in every)
        yield Finding(
            Code.CONFOUNDED,
            Verdict.FIX,
            group.title,
            tuple(precisions),
            f"{listed(precisions)} and fp32 differ in more than the precision: their ratio has"
            " several causes.",
            evidence=tuple(differing),
            actions=("Measure both in one sweep, on the same GPU, host and versions.",),
        )


def attention_differs(group: Group) -> Iterator[Finding]:
    """Two precisions whose attention two libraries computed: torch chooses by precision."""
    ran = {case.precision: comparison.attentions(case.rows) for case in group.cases}
    mixed = [
        case.precision
        for case, base in group.pairs()
        if len(comparison.attentions((*case.rows, *base.rows))) > 1
    ]
    if mixed:
        yield Finding(
            Code.ATTENTION_DIFFERS,
            Verdict.FIX,
            group.title,
            tuple(mixed),
            f"{listed(mixed)} and fp32 ran other kernels of attention: their ratio is that of the"
            " precision and of these together, as torch gives both to whoever changes the"
            " precision.",
            evidence=tuple(f"{precision}: {listed(names)}" for precision, names in ran.items()),
            actions=(
                'Set attention = "efficient" in the matrix to compare precisions alone: it runs in'
                " each of them, with a mask as well.",
            ),
        )


def warm_up_unsteady(group: Group) -> Iterator[Finding]:
    """A device that still warms up gives the median of that moment; no interval knows a drift."""
    told = {}
    for case in group.cases:
        doubts = [w.text for m in case.rows for w in m.warnings if w.code == "warm-up-not-steady"]
        if doubts:
            drifts = [_drift(m.timing.latency_ms_samples) for m in case.rows if m.timing]
            told[case.precision] = (
                f"{'; '.join(words.alike(doubts))}; the median of the last third of the samples is"
                f" {words.span(drifts, 'x')} that of the first"
            )
    if told:
        yield Finding(
            Code.WARM_UP_UNSTEADY,
            Verdict.FIX,
            group.title,
            tuple(told),
            "Timing began before two medians of 1 s agreed within 1 %, so that the latency is of"
            " that moment, and its interval knows nothing of the drift.",
            evidence=tuple(f"{precision}: {text}" for precision, text in told.items()),
            actions=("Raise sampling.warmup_max_s, or find what moves: heat, clocks, other work.",),
        )


def _drift(samples: Sequence[float]) -> float:
    third = max(1, len(samples) // 3)
    return statistics.median(samples[-third:]) / statistics.median(samples[:third])


def latency_not_converged(group: Group) -> Iterator[Finding]:
    """Fewer samples than the matrix asks for: known less narrowly, and known to be."""
    told = {
        case.precision: "; ".join(words.alike(doubts))
        for case in group.cases
        if (
            doubts := [
                w.text
                for m in case.rows
                for w in m.warnings
                if w.code in ("latency-not-converged", "first-token-not-converged")
            ]
        )
    }
    if told:
        yield Finding(
            Code.LATENCY_NOT_CONVERGED,
            Verdict.FIX,
            group.title,
            tuple(told),
            "Sampling ended before the median was known as narrowly as the matrix asks; the"
            " intervals are wider for it, and still hold.",
            evidence=tuple(f"{precision}: {text}" for precision, text in told.items()),
            actions=(
                "Raise sampling.latency_max_s and max_samples, or ask for less (median_within).",
            ),
        )


def noise_hides_effect(group: Group) -> Iterator[Finding]:
    """An interval that contains 1 decides nothing, nor one that would among so many."""
    noisy: dict[str, list[str]] = {}
    evidence = []
    for case, _ in group.pairs():
        for what, name, ratio in (
            ("speed", "speedup", case.line.speedup),
            ("energy", "energy ratio", case.line.energy_ratio),
        ):
            if ratio is None or comparison.same(ratio) or group.decided(ratio) is not None:
                continue
            shown = f"{case.precision}: {name} {_three(ratio.value)} {_interval(ratio)}"
            if ratio.low <= 1 <= ratio.high:
                evidence.append(f"{shown}: it contains 1")
            else:
                wide = comparison.together(ratio, group.family)
                evidence.append(
                    f"{shown}: alone it excludes 1; among {group.family} ratios it must be"
                    f" {_interval(wide)}, which contains 1"
                )
            noisy.setdefault(what, []).append(case.precision)
    if noisy:
        effects = listed(f"{what} ({listed(every)})" for what, every in noisy.items())
        yield Finding(
            Code.NOISE_HIDES_EFFECT,
            Verdict.CANNOT_TELL,
            group.title,
            tuple(dict.fromkeys(p for every in noisy.values() for p in every)),
            f"Noise is larger than the effect on {effects}.",
            evidence=tuple(evidence),
            missing=("more fresh processes",),
            actions=("Raise sampling.replicates; say nothing of a difference until then.",),
        )


def _interval(ratio: Ratio) -> str:
    return f"[{_three(ratio.low)}, {_three(ratio.high)}]"


def _three(value: float) -> str:
    """With three decimals, as long as these mean anything."""
    return f"{value:.3f}" if 0.01 <= value <= 100 else words.ratio(value)
