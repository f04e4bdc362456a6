"""Energy."""

from __future__ import annotations

from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule

_FEWEST_TICKS = 10
_WORST = 0.10  # relative uncertainty
_SHORTEST_S = 1.0  # a sensor's window; 1 s on Ampere and newer


@rule(
    "energy-window-too-short",
    Verdict.FIX,
    undermines_energy=True,
    cause="The energy was read over too short a time.",
    do=['Use sampling.energy = "standard" with energy_s = 30, or "certified".'],
)
def energy_window_too_short(case: Case, group: Group) -> Hit | None:
    """The meter ticked fewer than 10 times, or the energy is uncertain by over 10 %.

    Or a table states a window below 1 s. Says so where the windows differ although each had ticks
    enough.
    """
    ticks, window, evidence = case.energy_ticks, case.energy_window_s, []
    if ticks is not None and ticks < _FEWEST_TICKS:
        evidence.append("{precision}: {energy_ticks} ticks of the meter in {energy_window_s:s}")
    elif case.foreign and window is not None and window < _SHORTEST_S:
        evidence.append("{precision}: a window of {energy_window_s:s}")
    uncertainty, scattered = case.energy_uncertainty or 0.0, False
    if uncertainty > _WORST:
        # A tick at either edge of each window is not even half of the uncertainty.
        edges = case.energy_edge_error
        scattered = not evidence and edges is not None and edges < uncertainty / 2
        evidence.append("{precision}: known within {energy_uncertainty:.0%}")
    if scattered:
        return Hit(
            evidence=evidence,
            cause="The energy differs from window to window: something else changes (clocks,"
            " temperature, other work).",
            do=["Find what changes, and measure again."],
        )
    return Hit(evidence=evidence) if evidence else None


@rule(
    "energy-methods-differ",
    Verdict.FIX,
    undermines_energy=True,
    cause="The energies were read in different ways ({methods}), so their ratio is no property of"
    " the precision.",
    do=["Measure all of them in one sweep with one method."],
)
def energy_methods_differ(case: Case, group: Group) -> Hit | None:
    """Energies of one comparison were read in different ways."""
    by_method: dict[str, list[str]] = {}
    for one in group.cases:
        for method in one.energy_methods:
            by_method.setdefault(method, []).append(one.precision)
    if len(by_method) < 2 or not case.energy_methods:
        return None
    return Hit(
        {"methods": tuple(sorted(by_method))},
        [note("{method}: {by}", method=m, by=tuple(every)) for m, every in by_method.items()],
    )


@rule(
    "energy-method-unknown",
    Verdict.INCONCLUSIVE,
    undermines_energy=True,
    cause="How the energy was read is not known, so its error is not known either.",
    missing=[
        "the method (counter, or power x time), how often it was read, over how many seconds, and"
        " how many of these were idle",
        "the idle power, to tell what the computing itself cost",
    ],
    do=[
        "Ask for the method. Or measure again: windows of 10 s and more, from tick to tick, idle"
        " power before and after."
    ],
)
def energy_method_unknown(case: Case, group: Group) -> Hit | None:
    """A table gives energies and not how they were read."""
    if not case.foreign or not case.energy_mj or case.energy_methods:
        return None
    evidence: list[str | Note] = [
        "a logger that starts before the load and stops after it includes idle time"
    ]
    if case.latency_ms:
        evidence.append(
            "a forward pass takes {latency_ms:ms}; a sensor publishes every 20 ms (P100, V100) to"
            " 100 ms (T4, A100, H100), so two readings around one say nothing"
        )
    counters = {board.gpu_type: board.energy_counter for board in case.boards}
    if not counters:
        have = "P100 and P40 have no energy counter in NVML; V100, T4 and newer GPUs have one"
        evidence.append(have)
    for kind, has_counter in counters.items():
        text = (
            "NVML has an energy counter on a {kind}: was it the one used?"
            if has_counter
            else "NVML has no energy counter on a {kind} (only on Volta or newer), so this is power"
            " readings x time, or the GPU is no {kind}"
        )
        evidence.append(note(text, kind=kind))
    return Hit(evidence=evidence)
