"""Cases compared, with the interval of each ratio: precisions against fp32, GPU types against one.

Each interval holds by itself at 95 %: about 1 in 20 misses the true value. `together` widens one so
that all of a number of them hold at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench import stats
from bench.asked import Workload
from bench.errors import TensorgapError
from bench.measured import Outcome
from bench.stats import CONFIDENCE, Difference, Ratio
from jobs.report.facts import BASELINE, Case, Disagreement
from jobs.report.from_rows import COLUMNS

NEGLIGIBLE = 0.02  # a ratio within so much of 1 is no difference worth a word
ITSELF = Ratio(1.0, 1.0, 1.0)  # the baseline's ratio to itself: no estimate, so no interval
ATTENTION = "trace_attention"
# Not forbidden to differ, because two GPUs of a type are alike, but they are not the same. Nor are
# two attention kernels, which torch chooses by precision and GPU.
SHOULD_AGREE = ("device_uuid", "device_hostname", ATTENTION)
# Columns that must agree for two rows to be compared: each changes the time or the energy by
# itself. Where they differ, the ratio carries the disagreement.
MUST_AGREE = tuple(column for column in COLUMNS if column not in SHOULD_AGREE)
# What two GPU types differ in by being two types.
_BY_TYPE = (
    "device_name",
    "device_compute_capability",
    "device_power_limit_w",
    "device_uuid",
    "device_hostname",
)
_Part = tuple[float, float | None]  # half a relative 95 % interval, its degrees of freedom


@dataclass(frozen=True)
class Against:
    """One GPU type against a chosen one: the same run, workload and precision.

    Attributes:
        speedup: Above 1 is faster than the chosen one.
        energy_ratio: Below 1 needs less energy.
        sensor_errors: Whether the sensors' own errors are known, and in its interval.
    """

    run: str
    workload: Workload
    precision: str
    gpu_type: str
    chosen: str
    speedup: Ratio | None
    energy_ratio: Ratio | None
    disagreements: tuple[Disagreement, ...] = ()
    sensor_errors: bool = False


def with_ratios(cases: Sequence[Case]) -> list[Case]:
    """The cases with what compares them with fp32 of the same workload on the same GPU."""
    baselines = {
        case.key: case for case in cases if case.is_baseline and case.outcome == Outcome.OK
    }
    return [_compared(case, baselines.get(case.key)) for case in cases]


def against(cases: Iterable[Case], chosen: str) -> list[Against]:
    """Each GPU type against the chosen one, in the order run, workload, precision, GPU type.

    Raises TensorgapError where the chosen type has no case that is OK, or nothing beside it.
    """
    measured = [case for case in cases if case.outcome == Outcome.OK]
    known = ", ".join(dict.fromkeys(case.gpu for case in measured)) or "none"
    by_key: dict[tuple[str, Workload, str], dict[str, Case]] = {}
    for case in measured:
        by_key.setdefault((case.run, case.workload, case.precision), {})[case.gpu] = case
    if not any(chosen in types for types in by_key.values()):
        raise TensorgapError(f"--against {chosen}: no row of it is OK; there are {known}")
    pairs = [
        (key, case, types[chosen])
        for key, types in by_key.items()
        for gpu, case in types.items()
        if gpu != chosen and chosen in types
    ]
    if not pairs:
        raise TensorgapError(
            f"--against {chosen}: no other type in the same run as {chosen}, with the same workload"
            f" and precision; types: {known}"
        )
    return [
        Against(
            *key,
            gpu_type=case.gpu,
            chosen=chosen,
            speedup=_speedup(case, base),
            energy_ratio=_energy_ratio(case, base, between_types=True),
            disagreements=tuple(
                _disagreements(chosen, _values(case), _values(base), besides=_BY_TYPE)
            ),
            sensor_errors=bool(case.energy_systematic and base.energy_systematic),
        )
        for key, case, base in pairs
    ]


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


def _compared(case: Case, base: Case | None) -> Case:
    if case.outcome != Outcome.OK:
        return case
    disagreements = list(_disagreements("replicates", _values(case), {}))
    if base is not None and not case.is_baseline:
        for index, other in _pairs(case, base):
            ours, theirs = _values(case, index), _values(base, other)
            disagreements += _disagreements(BASELINE, ours, theirs)
    found = replace(case, disagreements=tuple(dict.fromkeys(disagreements)))
    if base is None:
        return found
    return replace(
        found,
        speedup=_speedup(case, base),
        energy_ratio=_energy_ratio(case, base),
        nats_difference=_nats_difference(case, base),
    )


def _values(case: Case, index: int | None = None) -> dict[str, set[str]]:
    """The values of each column: of one replicate by its place, or of all.

    Known beside not known is a difference. But a row without energy has no method of one, and of a
    row that was not traced nobody knows which attention ran.
    """
    found = {}
    for column, values in case.columns.items():
        chosen = values if index is None else values[index : index + 1]
        may_lack = column in ("energy_method", ATTENTION)
        known = {"not known" if value is None else value for value in chosen}
        found[column] = known - {"not known"} if may_lack else known
    return found


def _disagreements(
    others: str,
    ours: dict[str, set[str]],
    theirs: dict[str, set[str]],
    besides: Container[str] = (),
) -> Iterator[Disagreement]:
    """The columns in which values differ although they must, or should, agree."""
    for column in (*MUST_AGREE, *SHOULD_AGREE):
        found = ours.get(column, set()) | theirs.get(column, set())
        if len(found) > 1 and column not in besides:
            yield Disagreement(others, column, column in MUST_AGREE, tuple(sorted(found)))


def _pairs(case: Case, base: Case) -> list[tuple[int | None, int | None]]:
    """The places of the same replicate in both; None, all together, where one lacks its other.

    What differs from pair to pair cancels in the ratio, as the GPU does where there are several.
    """
    if sorted(case.replicates) != sorted(base.replicates):
        return [(None, None)]
    return [(i, base.replicates.index(number)) for i, number in enumerate(case.replicates)]


def _speedup(case: Case, base: Case) -> Ratio | None:
    """Latency of the baseline over this one: above 1 is faster."""
    if not case.latency_ms or not base.latency_ms:
        return None
    if case is base:
        return ITSELF
    if case.foreign:
        return _stated(base.latency_ms / case.latency_ms, case.speedup_ends)
    return stats.ratio_of_medians(
        base.latency_ms_samples, case.latency_ms_samples, paired=_is_paired(case, base)
    )


def _is_paired(case: Case, base: Case) -> bool:
    """Whether each replicate was measured beside its other on one of several GPUs."""
    if len(case.latency_ms_samples) != len(base.latency_ms_samples):
        return False
    of_pairs = [
        _values(case, i).get("device_uuid", set()) | _values(base, j).get("device_uuid", set())
        for i, j in _pairs(case, base)
    ]
    return all(len(uuids) == 1 for uuids in of_pairs) and len(set.union(*of_pairs)) > 1


def _energy_ratio(case: Case, base: Case, between_types: bool = False) -> Ratio | None:
    """Energy of this one over the baseline's: below 1 needs less.

    A sensor's own error cancels on one GPU type, but not `between_types`.
    """
    if case.energy_mj is None or not base.energy_mj or base.energy_mj < 0:
        return None
    if case.foreign:
        return _stated(case.energy_mj / base.energy_mj, case.energy_ratio_ends)
    if case is base:
        return ITSELF
    parts = [_energy_part(case), _energy_part(base)]
    if between_types:
        parts += [(side.energy_systematic or 0.0, None) for side in (case, base)]
    spread = math.hypot(*(half for half, _ in parts))
    found = stats.ratio_of_uncertain(case.energy_mj, spread, base.energy_mj, 0.0)
    return replace(found, freedom=_freedom(parts))


def _stated(value: float, ends: tuple[float, float] | None) -> Ratio:
    """A ratio with the interval that a table states, or without one."""
    low, high = ends or (value, value)
    return Ratio(value, min(low, value), max(high, value))


def _energy_part(case: Case) -> _Part:
    """How far an energy is known: by the meter, or by the replicates if less."""
    windows = case.energy_windows or 0
    part: _Part = (case.energy_uncertainty or 0.0, windows - 1 if windows > 1 else None)
    if len(case.energies_mj) > 1 and case.energy_mj and case.energy_mj > 0:
        freedom = len(case.energies_mj) - 1
        error = statistics.stdev(case.energies_mj) / case.energy_mj / (freedom + 1) ** 0.5
        part = max(part, (stats.t_quantile(freedom) * error, freedom), key=lambda p: p[0])
    return part


def _freedom(parts: Iterable[_Part]) -> float | None:
    """Degrees of freedom of a sum (Welch and Satterthwaite); None where no part has any."""
    errors = [(half / stats.t_quantile(freedom or math.inf), freedom) for half, freedom in parts]
    shares = sum(error**4 / freedom for error, freedom in errors if freedom)
    return sum(error**2 for error, _ in errors) ** 2 / shares if shares else None


def _nats_difference(case: Case, base: Case) -> Difference | None:
    """Nats per token above the baseline, window by window; None where they read otherwise."""
    if case is base or not case.window_nats or not base.window_nats or not case.window_tokens:
        return None
    same = case.perplexity_protocol == base.perplexity_protocol
    if not same or case.window_tokens != base.window_tokens:
        return None
    return stats.paired_difference(case.window_nats, base.window_nats, case.window_tokens)
