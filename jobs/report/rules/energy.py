"""How the energy was read: whether a number of joules can be compared at all."""

from __future__ import annotations

from collections.abc import Iterator

from bench.asked import ENERGY_NOT_MEASURED
from bench.measured import Energy
from jobs.report.cases import Case, Group
from jobs.report.comparison import BASELINE
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.words import listed, number, span

_FEWEST_TICKS = 10
_WORST = 0.10  # relative uncertainty
_SHORTEST_S = 1.0  # a sensor's window; 1 s on Ampere and newer


def energy_window_too_short(group: Group) -> Iterator[Finding]:
    """A sensor that ticks every 20 to 100 ms sees nothing of a short window; or windows differ."""
    short: dict[str, list[str]] = {}
    scattered: dict[str, list[str]] = {}
    for case in group.cases:
        for m in case.rows:
            found = m.energy
            if found is None or found.per_sample_mj is None:
                continue
            if found.ticks is not None and found.ticks < _FEWEST_TICKS:
                text = f"{found.ticks} ticks of the meter in {number(found.window_s, ' s')}"
                short.setdefault(case.precision, []).append(text)
            if found.uncertainty is not None and found.uncertainty > _WORST:
                which = scattered if _scatters(found) else short
                text = f"uncertain by {found.uncertainty:.0%}"
                which.setdefault(case.precision, []).append(text)
        window = case.stated.energy_window_s if case.stated else None
        if window is not None and window < _SHORTEST_S:
            short[case.precision] = [f"a window of {number(window, ' s')}"]
    for told, cause, action in (
        (
            short,
            "The energy was read over too short a time.",
            'Use sampling.energy = "standard" with energy_s = 30, or "certified".',
        ),
        (
            scattered,
            "The energy differs from window to window: something else moves (clocks, heat, other"
            " work).",
            "Find what moves, and measure again.",
        ),
    ):
        if told:
            yield Finding(
                Code.ENERGY_WINDOW_TOO_SHORT,
                Verdict.FIX,
                group.title,
                tuple(told),
                cause,
                evidence=tuple(
                    f"{precision}: {'; '.join(dict.fromkeys(why))}"
                    for precision, why in told.items()
                ),
                actions=(action,),
            )


def _scatters(found: Energy) -> bool:
    """Whether a tick at either edge of each window is not even half of the uncertainty."""
    windows = max(1, len(found.per_sample_mj_samples or ()))
    edges = 2 * windows / found.ticks if found.ticks else 1.0
    return edges < (found.uncertainty or 0.0) / 2


def energy_methods_differ(group: Group) -> Iterator[Finding]:
    """A counter and integrated readings err in different ways."""
    methods: dict[str, list[str]] = {}
    for case in group.cases:
        found = {
            m.energy.method
            for m in case.rows
            if m.energy and m.energy.method != ENERGY_NOT_MEASURED
        }
        if case.stated and case.stated.energy_method:
            found.add(case.stated.energy_method)
        for method in found:
            methods.setdefault(method, []).append(case.precision)
    if len(methods) > 1:
        yield Finding(
            Code.ENERGY_METHODS_DIFFER,
            Verdict.FIX,
            group.title,
            tuple(dict.fromkeys(p for every in methods.values() for p in every)),
            f"The energies were read in different ways ({listed(sorted(methods))}), so their ratio"
            " is no property of the precision.",
            evidence=tuple(f"{method}: {listed(every)}" for method, every in methods.items()),
            actions=("Measure all of them in one sweep with one method.",),
        )


def energy_method_unknown(group: Group) -> Iterator[Finding]:
    """A table with energies that does not say how they were read."""
    asked = [
        case
        for case in group.cases
        if case.stated and case.line.energy_mj and not case.stated.energy_method
    ]
    if not asked:
        return
    evidence = []
    latencies = [case.latency_ms for case in asked if case.latency_ms]
    if latencies:
        evidence.append(
            f"a forward takes {span(latencies, ' ms')}; a sensor publishes every 20 ms (P100, V100)"
            " to 100 ms (T4, A100, H100), so two readings around a forward say nothing"
        )
    evidence.append(
        "a logger that starts before the load and stops after it counts idle time as the load's"
    )
    types = dict.fromkeys(gpu.gpu_type for gpu in group.boards)
    without = [gpu.gpu_type for gpu in group.boards if not gpu.energy_counter]
    if not types:
        evidence.append("P100 and P40 have no energy counter in NVML; V100, T4 and newer ones have")
    for kind in types:
        if kind in without:
            evidence.append(
                f"NVML has no energy counter on a {kind} (it is for Volta or newer), so this is"
                " power readings x time, or it is not a " + kind
            )
        else:
            evidence.append(f"NVML has an energy counter on a {kind}: was it the one used?")
    yield Finding(
        Code.ENERGY_METHOD_UNKNOWN,
        Verdict.CANNOT_TELL,
        group.title,
        tuple(case.precision for case in asked),
        "How the energy was read is not known, so its error is not either.",
        evidence=tuple(evidence),
        missing=(
            "the method (counter, or power x time), how often it was read, over how many seconds,"
            " and how many of these were idle",
            "the idle power, to tell what the computing itself cost",
        ),
        actions=(
            "Ask for the method. Or measure again: windows of 10 s and more, from tick to tick,"
            " idle power before and after.",
        ),
    )


def doubted(group: Group, case: Case) -> list[Code]:
    """What is found of how the energies of a case and of its baseline were read."""
    rules = (energy_window_too_short, energy_methods_differ, energy_method_unknown)
    codes = (
        finding.code
        for rule in rules
        for finding in rule(group)
        if {case.precision, BASELINE} & {*finding.precisions}
    )
    return list(dict.fromkeys(codes))
