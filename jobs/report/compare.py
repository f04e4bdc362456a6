"""Cases compared, with the interval of each ratio: precisions against fp32, GPU types against one.

Each interval holds by itself at 95 %: about 1 in 20 misses the true value. `together` widens one so
that all of a number of them hold at once.
"""

import itertools
import math
import statistics
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace

from bench import stats
from bench.device.gpus import FIRST_BF16_AND_TF32
from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome
from bench.stats import CONFIDENCE, Difference, Ratio
from jobs.report import from_rows
from jobs.report.facts import BASELINE, BASELINES, NO_PRECISION, Case, Disagreement, rank
from jobs.report.from_rows import MUST_AGREE, SHOULD_AGREE

NEGLIGIBLE = 0.02  # a ratio within so much of 1 is no difference worth a word
ITSELF = Ratio(1.0, 1.0, 1.0)  # the baseline's ratio to itself: no estimate, so no interval
ATTENTION = "trace_attention"
# What two GPU types differ in by being two types.
BY_TYPE = ("device.name", "device.compute_capability", "device.power_limit_w", *SHOULD_AGREE[:2])
Part = tuple[float, float | None]  # half a relative 95 % interval, its degrees of freedom


def compared(rows: Iterable[Measurement]) -> list[Case]:
    """Cases with ratios, of rows in the order of the results: what compares stands together.

    Windows are let go: no more than those of one workload on one GPU type are held.
    """

    def place(row: Measurement) -> tuple[object, ...]:
        return row.run, row.cell.gpu_type, row.workload

    return [
        replace(case, window_nats=None, window_tokens=None)
        for _, members in itertools.groupby(rows, place)
        for case in with_ratios(from_rows.cases(members))
    ]


def with_ratios(cases: Sequence[Case]) -> list[Case]:
    """The cases with what compares them with fp32 of the same workload on the same GPU.

    Where a table has no fp32, they compare with the best of `BASELINES` that it has.
    """
    present: dict[object, set[str]] = {}
    for case in cases:
        if case.outcome == Outcome.OK:
            present.setdefault(case.key, set()).add(case.precision)

    def baseline(case: Case) -> str:
        there = present.get(case.key, set())
        if "fp16" in there and case.capability and case.capability < FIRST_BF16_AND_TF32:
            there = there - {"bf16"}  # which is emulated here
        found = next((name for name in BASELINES if name in there), BASELINE)
        return found if case.foreign else BASELINE

    named = [(case, baseline(case)) for case in cases]
    cases = [case if case.baseline == of else replace(case, baseline=of) for case, of in named]
    bases = {case.key: case for case in cases if case.is_baseline and case.outcome == Outcome.OK}
    return [with_ratio(case, case if case.is_baseline else bases.get(case.key)) for case in cases]


def with_ratio(case: Case, base: Case | None) -> Case:
    """A case with what compares it with its baseline, which may be itself."""
    if base is not None and NO_PRECISION in (case.precision, base.precision):
        base = None
    differing = list(disagreements("replicates", case, case)) if len(case.replicates) > 1 else []
    if base is not None and base is not case:
        differing += disagreements(BASELINE, case, base, paired=True)
    told = replace(case, disagreements=tuple(dict.fromkeys(differing)))
    if base is None or case.outcome != Outcome.OK:
        return told
    return replace(
        told,
        speedup=speedup(case, base),
        energy_ratio=energy_ratio(case, base),
        nats_difference=nats_difference(case, base),
    )


def against(cases: Iterable[Case], chosen: str) -> list[Case]:
    """Each GPU type with its ratios to a chosen one, at the same run, workload and precision.

    `energy_systematic` is left where the sensors' own errors of both are known, and so are in the
    interval of the energy ratio.

    Raises TensorgapError where the chosen type has no case that is OK, or nothing beside it.
    """

    def place(case: Case) -> tuple[object, ...]:
        return case.run, case.workload, rank(case.precision)

    measured = sorted((case for case in cases if case.outcome == Outcome.OK), key=place)
    known = ", ".join(sorted({case.gpu for case in measured})) or "none"
    bases = {place(case): case for case in measured if case.gpu == chosen}
    if not bases:
        raise TensorgapError(f"--against {chosen}: no row of it is OK; there are {known}")
    found = [
        replace(
            case,
            speedup=speedup(case, base),
            energy_ratio=energy_ratio(case, base, between_types=True),
            disagreements=tuple(disagreements(chosen, case, base, besides=BY_TYPE)),
            energy_systematic=base.energy_systematic and case.energy_systematic,
        )
        for case in measured
        if case.gpu != chosen and (base := bases.get(place(case)))
    ]
    if not found:
        raise TensorgapError(
            f"--against {chosen}: no other type in the same run as {chosen}, with the same workload"
            f" and precision; types: {known}"
        )
    return found


def negligible(ratio: Ratio) -> bool:
    """Whether the interval says that there is no difference worth a word.

    >>> [negligible(Ratio(1.0, low, 2 - low)) for low in (0.99, 0.9)]
    [True, False]
    """
    return 1 - NEGLIGIBLE <= ratio.low <= ratio.high <= 1 + NEGLIGIBLE


def decided(ratio: Ratio | None, count: int) -> float | None:
    """A ratio whose interval is without 1, as one of `count`, or that has no interval."""
    if ratio is None:
        return None
    wide = together(ratio, count)
    return None if wide.low <= 1 <= wide.high and ratio.low < ratio.high else ratio.value


def together(ratio: Ratio, count: int) -> Ratio:
    """The ratio's interval, widened so that `count` such intervals hold at once at 95 %.

    Bonferroni's bound on the logarithm of the ratio, as if it were normal, or Student's where the
    interval is: with few degrees of freedom its far tail is much wider.

    >>> together(Ratio(1.1, 1.05, 1.15), 1)
    Ratio(value=1.1, low=1.05, high=1.15)
    >>> wide = together(Ratio(1.1, 1.05, 1.15), 20)
    >>> round(wide.low, 3), round(wide.high, 3)
    (1.024, 1.178)
    >>> round(together(Ratio(1.1, 1.05, 1.15, freedom=2), 20).low, 3)
    0.886
    """
    if count <= 1 or ratio.low <= 0:
        return ratio
    tail, freedom = (1 - CONFIDENCE) / 2, ratio.freedom or math.inf
    factor = stats.t_quantile(freedom, tail / count) / stats.t_quantile(freedom, tail)
    below = (ratio.value / ratio.low) ** factor
    above = (ratio.high / ratio.value) ** factor
    if not (math.isfinite(below) and math.isfinite(above)):
        return ratio
    return replace(ratio, low=ratio.value / below, high=ratio.value * above)


def disagreements(
    others: str, case: Case, other: Case, paired: bool = False, besides: Container[str] = ()
) -> Iterator[Disagreement]:
    """The columns in which two cases differ but should agree."""
    if not case.columns and not other.columns:
        return  # of a table, which has none of them
    for path in (*MUST_AGREE, *SHOULD_AGREE):
        column = path.replace(".", "_")
        for found in values(column, case, other, paired):
            if len(found) > 1 and path not in besides:
                yield Disagreement(others, column, path in MUST_AGREE, tuple(sorted(found)))


def values(column: str, case: Case, other: Case, paired: bool) -> list[set[str]]:
    """What stands in a column of both: together, or `paired` of each replicate beside its other.

    What differs from pair to pair cancels in the ratio, as the GPU does where there are several;
    all are together where one lacks its other. Known beside not known is a difference. But a row
    without energy has no method of one, and of a row that was not traced no one knows which
    attention ran.
    """
    mine, theirs = (one.columns.get(column, ()) for one in (case, other))
    found = [{*mine, *theirs}]
    if paired and sorted(case.replicates) == sorted(other.replicates):
        by_number = dict(zip(other.replicates, theirs, strict=False))
        found = [{value, by_number.get(n)} for n, value in zip(case.replicates, mine, strict=False)]
    if column in ("energy_method", ATTENTION):
        found = [several - {None} for several in found]
    return [{"not known" if value is None else value for value in several} for several in found]


def speedup(case: Case, base: Case) -> Ratio | None:
    """Latency of the baseline over this one: above 1 is faster."""
    if (
        not case.pace_ms
        or not base.pace_ms
        or (case.latency_ms is None) != (base.latency_ms is None)
    ):
        return None
    if case is base:
        return ITSELF
    if case.foreign:
        return stated(base.pace_ms / case.pace_ms, case.speedup_ends)
    # Each replicate beside its other on one of several GPUs.
    uuids = values("device_uuid", case, base, paired=True)
    paired = all(len(pair) == 1 for pair in uuids) and len(set().union(*uuids)) > 1
    medians = base.latencies_ms, case.latencies_ms
    return stats.ratio_of_medians(*medians, paired and len(medians[0]) == len(medians[1]))


def energy_ratio(case: Case, base: Case, between_types: bool = False) -> Ratio | None:
    """Energy of this one over the baseline's: below 1 needs less.

    A sensor's own error cancels on one GPU type, but not `between_types`.
    """
    if case.energy_per_token_mj and base.energy_per_token_mj and not case.energy_mj:
        ratio = stated(case.energy_per_token_mj / base.energy_per_token_mj, None)
        return ITSELF if case is base else ratio
    if case.energy_mj is None or not base.energy_mj or base.energy_mj < 0:
        return None
    if case is base:
        return ITSELF
    if case.foreign:
        return stated(case.energy_mj / base.energy_mj, case.energy_ratio_ends)
    parts = [energy_part(case), energy_part(base)]
    if between_types:
        parts += [(side.energy_systematic or 0.0, None) for side in (case, base)]
    spread = math.hypot(*(half for half, _ in parts))
    found = stats.ratio_of_uncertain(case.energy_mj, spread, base.energy_mj, 0.0)
    return replace(found, freedom=freedom_of(parts))


def stated(value: float, ends: tuple[float, float] | None) -> Ratio:
    """A ratio with the interval that a table states, or without one."""
    low, high = ends or (value, value)
    return Ratio(value, min(low, value), max(high, value))


def energy_part(case: Case) -> Part:
    """How far an energy is known: by the meter, or by the replicates if less."""
    windows = case.energy_windows or 0
    part: Part = (case.energy_uncertainty or 0.0, windows - 1 if windows > 1 else None)
    if len(case.energies_mj) > 1 and case.energy_mj and case.energy_mj > 0:
        freedom = len(case.energies_mj) - 1
        error = statistics.stdev(case.energies_mj) / case.energy_mj / (freedom + 1) ** 0.5
        part = max(part, (stats.t_quantile(freedom) * error, freedom), key=lambda p: p[0])
    return part


def freedom_of(parts: Iterable[Part]) -> float | None:
    """Degrees of freedom of a sum (Welch and Satterthwaite); None where no part has any."""
    errors = [(half / stats.t_quantile(freedom or math.inf), freedom) for half, freedom in parts]
    shares = sum(error**4 / freedom for error, freedom in errors if freedom)
    return sum(error**2 for error, _ in errors) ** 2 / shares if shares else None


def nats_difference(case: Case, base: Case) -> Difference | None:
    """Nats per token above the baseline, window by window; None where they read otherwise."""
    if case is base or not case.window_nats or not base.window_nats or not case.window_tokens:
        return None
    same = case.perplexity_protocol == base.perplexity_protocol
    if not same or case.window_tokens != base.window_tokens:
        return None
    return stats.paired_difference(case.window_nats, base.window_nats, case.window_tokens)
