"""Energy."""

import math
import statistics
from dataclasses import replace

from bench.energy.durations import FEWEST_TICKS
from jobs.report import bounds, pace, slips
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import with_article

_APART = 2.5  # net energies are less than that below the mean power's
_FITS = 0.1
_SHARED = 0.05  # of a factor: how a meter and a clock differ from row to row
_ROWS = 3
_LONGEST = 10_000  # tokens: few requests are longer
_WORST = 0.10  # relative uncertainty
_LONGER = ['Use sampling.energy = "standard" with energy_s = 30, or "certified".']
_SHORTEST_S = 1.0  # a sensor's window; 1 s on Ampere and newer


@rule(
    Verdict.FIX,
    undermines="energy",
    cause="The energy was read over too short a time.",
    do=_LONGER,
)
def energy_window_too_short(case: Case, group: Group) -> Hit | None:
    """Fewer than 10 ticks of the meter, an uncertainty over 10 %, or a window stated below 1 s.

    The fewest ticks and the largest uncertainty may be those of two replicates.
    """
    ticks, window, short = case.energy_ticks, case.energy_window_s, []
    if ticks is not None and ticks < FEWEST_TICKS:
        short.append("{precision}: {energy_ticks} ticks of the meter in {energy_window_s:s}")
    elif case.foreign and window is not None and window < _SHORTEST_S:
        short.append("{precision}: a window of {energy_window_s:s}")
    uncertainty, edges = case.energy_uncertainty or 0.0, case.energy_edge_error
    if uncertainty <= _WORST:
        return Hit(short) if short else None
    evidence = [*short, "{precision}: known within {energy_uncertainty:.0%}"]
    # A tick at either edge of each window is not even half of the uncertainty.
    if edges is None or edges >= uncertainty / 2:
        return Hit(evidence)
    begin = "The energy was read over too short a time, and" if short else "The energy"
    cause = f"{begin} differs from window to window: something else changes (clocks, temperature,"
    do = [*(_LONGER if short else ()), "Find what changes, and measure again."]
    return Hit(evidence, cause=f"{cause} other work).", do=do)


@rule(
    Verdict.FIX,
    undermines="energy",
    cause="The energies were read in different ways ({methods}), so their ratio says nothing.",
    do=["Measure all of them in one sweep with one method."],
)
def energy_methods_differ(case: Case, group: Group) -> Hit | None:
    """Energies of one comparison were read in different ways."""
    methods = tuple(sorted({method for one in group.cases for method in one.energy_methods}))
    if len(methods) < 2 or not case.energy_methods:
        return None
    by_method = {
        method: tuple(one.precision for one in group.cases if method in one.energy_methods)
        for method in methods
    }
    notes = [note("{method}: {by}", method=m, by=by) for m, by in by_method.items()]
    return Hit(notes, {"methods": methods})


@rule(
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    undermines="energy",
    cause="An energy of {energy:mJ} in {latency_ms:ms} is {implied:W}, and the power beside it"
    " says {mean_w:W}: {times:.4g} times apart{likely}.",
    missing=["of what the energy is, and over what time the power"],
    do=["Write the unit into both names, and whether the energy is of a prompt or of a batch."],
)
def energy_contradicts_power(case: Case, group: Group) -> Hit | None:
    """In a table energy x batch size / latency is over 2.5 times off the power beside it.

    Inconclusive: a batch that the table does not say would explain it. Silent where only the time
    of a token is known, and not how many a request has. What all rows share is told: of N runs.
    """
    ratio, batch = times_apart(case), case.workload.batch_size
    if ratio is None or 1 / _APART <= ratio <= _APART:
        return None
    fitting = 2 ** max(0, round(math.log2(1 / ratio)))
    unsaid = "batch_size" in case.assumed and fitting > 1 and abs(ratio * fitting - 1) < _FITS
    what = what_fits(ratio, case)
    if runs := shared_runs(case, group):
        what = f"the energy is of {runs} runs, as in each row of this table"
    likely = f"; it fits where {what}" if what else ""
    if unsaid:
        likely = f"; a batch of {fitting} would fit: was that the batch size?"
    energy = energy_of_prompt(case) or 0.0
    implied = energy * batch / (case.latency_ms or math.inf)
    values: dict[str, Value] = {"energy": energy, "implied": implied, "likely": likely}
    return Hit(
        values={**values, "times": max(ratio, 1 / ratio)},
        verdict=Verdict.INCONCLUSIVE if unsaid else None,
        do=["Say it: --batch N."] if unsaid else None,
        rejects=["energy_mj", "energy_per_token_mj"],
    )


def energy_of_prompt(case: Case) -> float | None:
    """The energy of a prompt, where a table says it or that of each of its tokens."""
    if case.energy_mj is None and case.energy_per_token_mj and "prompt_tokens" not in case.assumed:
        return case.energy_per_token_mj * case.workload.prompt_tokens
    return case.energy_mj


def times_apart(case: Case) -> float | None:
    """Energy / latency over the power that a table gives beside them; None: one is missing."""
    energy = energy_of_prompt(case)
    if not case.foreign or not energy or not case.latency_ms or not case.mean_w:
        return None
    if pace.is_of_a_token(case):
        return None
    return energy * case.workload.batch_size / case.latency_ms / case.mean_w


def what_fits(ratio: float, case: Case) -> str:
    """What makes an energy so many times that of the power; empty: nothing known does."""
    tokens = case.workload.new_tokens or case.workload.prompt_tokens
    slips = {
        1000.0: "the energy is in uJ, or of 1000 runs",
        0.001: "the energy is in J",
        float(case.workload.batch_size): "the energy is of the whole batch",
        1.0 / tokens: "the energy is of one token",
        float(tokens): "the energy is of all tokens",
    }
    near = [what for factor, what in slips.items() if factor != 1 and 0.7 <= ratio / factor <= 1.4]
    return near[0] if near else ""


def shared_runs(case: Case, group: Group) -> int | None:
    """How many runs an energy is of, by a factor that rows of other lengths or batches share.

    None where they differ, or where one of the factors of a single row explains all of them.
    """
    rows = [one for g in (group, *group.lengths, *group.others) for one in g.cases]
    found = [(ratio, one) for one in rows if (ratio := times_apart(one)) is not None]
    if len({one.latency_ms for _, one in found}) < _ROWS:
        return None
    middle = statistics.median(ratio for ratio, _ in found)
    runs = round(middle)
    alike = all(abs(ratio / middle - 1) <= _SHARED for ratio, _ in found)
    if not alike or middle <= _APART or abs(runs / middle - 1) > _SHARED:
        return None
    return None if all(what_fits(ratio, one) for ratio, one in found) else runs


@rule(
    Verdict.INCONCLUSIVE,
    undermines="energy",
    cause="An energy of {energy_mj:mJ} beside {mean_w:W} is that of {seconds:s}, or of"
    " {made:.0f} {what} at the throughput beside it: probably of a whole run, not of one request.",
    missing=["of what the energy is, and over what time it was read"],
    do=["Divide it by the requests or tokens of the run, and write into its name of what it is."],
)
def energy_of_a_run(case: Case, group: Group) -> Hit | None:
    """In a table without latencies, energy / power is the time of many requests.

    Of over 2.5 at the throughput beside them, or of over 10,000 tokens.
    """
    if not case.foreign or case.latency_ms or not case.energy_mj or not case.mean_w:
        return None
    seconds = case.energy_mj / 1e3 / case.mean_w
    requests, tokens = (seconds * (r or 0.0) for r in (case.throughput_per_s, case.tokens_per_s))
    batches = requests / case.workload.batch_size
    if batches <= _APART and (requests or tokens <= _LONGEST):
        return None
    what = "requests" if requests else "tokens"
    return Hit(values={"seconds": seconds, "made": requests or tokens, "what": what})


@rule(
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    undermines="energy",
    cause="An energy of {energy_mj:mJ} takes {seconds:s} or more at the power limit of {whose};"
    " {what} takes {most:ms} at most on a slow host.",
    missing=["of what the energy is, its unit, and over what time it was read"],
    do=["Write into the name of the column of what the energy is, and its unit."],
)
def energy_implausibly_high(case: Case, group: Group) -> Hit | None:
    """A table's energy that stands alone takes longer than a request can, at the power limit.

    Inconclusive: its model is assumed.
    """
    if not case.foreign or not case.energy_mj or case.pace_ms or case.mean_w:
        return None
    boards = bounds.in_question(case)
    limits = slips.plausible_ms(case) if boards else None
    ms = case.energy_mj / max((board.tdp_w for board in boards), default=math.inf)
    if limits is None or not slips.is_far_above(replace(case, latency_ms=ms)):
        return None
    steps = case.workload.new_tokens
    what = f"generating {steps} tokens" if steps else f"a forward pass of {case.workload.model}"
    whose = with_article(case.gpu) if case.boards else "any known board"
    values: dict[str, Value] = {"seconds": ms / 1e3, "most": limits[1], "what": what}
    values["whose"] = whose
    is_open = "model" in case.assumed
    return Hit(values=values, verdict=Verdict.INCONCLUSIVE if is_open else None)


@rule(
    Verdict.INCONCLUSIVE,
    undermines="energy",
    cause="How the energy was read is not known, so its error is not known either.",
    missing=[
        "the method (counter, or power x time), how often it was read, over how many seconds, and"
        " how many of these seconds were idle",
        "the idle power, to tell what the computing itself cost",
    ],
    do=["Ask for the method, or measure again with the matrix below."],
)
def energy_method_unknown(case: Case, group: Group) -> Hit | None:
    """A table gives energies and not how they were read."""
    energy = case.energy_mj or case.energy_per_token_mj
    if not case.foreign or not energy or case.energy_methods:
        return None
    evidence: list[str | Note] = [
        "a logger that starts before the load and stops after it includes idle time"
    ]
    if case.latency_ms:
        evidence.append(
            "two readings around a forward pass of {latency_ms:ms} say nothing: a sensor publishes"
            " every 20 ms (P100, V100) to 100 ms (T4, A100, H100)"
        )
    if not case.boards:
        evidence.append("P100 and P40 have no energy counter in NVML; V100, T4 and newer have one")
    for kind, counts in {board.gpu_type: board.energy_counter for board in case.boards}.items():
        text = "NVML has an energy counter on {whom}: was it the one used?"
        if not counts:
            text = "NVML has no energy counter on {whom}: this is power x time, or another GPU"
        evidence.append(note(text, kind=kind, whom=with_article(kind)))
    return Hit(evidence)
