"""Rows compared, with each ratio's interval: precisions against fp32, GPU types against one.

Each interval holds by itself at 95 %: of twenty, one misses its truth by chance. `together` widens
one so that all of a number of them hold at once.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace

from bench import stats
from bench.asked import ENERGY_NOT_MEASURED, PRECISIONS, Workload
from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome
from bench.stats import CONFIDENCE, Difference, Ratio

NO_MATTER = 0.02  # a ratio within so much of 1 is one of nothing
BASELINE = "fp32"
ITSELF = Ratio(1.0, 1.0, 1.0)  # the baseline's ratio to itself: no estimate, so no interval
_METHOD, _ATTENTION = "energy_method", "trace_attention"
_CAPABILITY = "device_compute_capability"
# Columns that must agree for two rows to be compared: each changes the time or the energy by
# itself. Where they differ, the ratio carries the doubt.
MUST_AGREE: dict[str, Callable[[Measurement], object]] = {
    "device_name": lambda m: m.device and m.device.name,
    _CAPABILITY: lambda m: m.device and m.device.compute_capability,
    "device_cpu": lambda m: m.device and m.device.cpu,
    "device_threads": lambda m: m.device and m.device.threads,
    "device_power_limit_w": lambda m: m.device and m.device.power_limit_w,
    "device_simulated": lambda m: m.device and m.device.simulated,
    "device_mig": lambda m: m.device and m.device.mig,
    "software_torch": lambda m: m.software and m.software.torch,
    "software_transformers": lambda m: m.software and m.software.transformers,
    "software_cuda": lambda m: m.software and m.software.cuda,
    "software_driver": lambda m: m.software and m.software.driver,
    "software_tensorgap": lambda m: m.software and m.software.tensorgap,
    "weights_attention": lambda m: m.weights and m.weights.attention,
    "weights_sha256": lambda m: m.weights and m.weights.sha256,
    _METHOD: lambda m: m.energy and m.energy.method,
}
# Not forbidden, because two GPUs of a type are alike, but they are not the same.
# Nor are two kernels of attention, which torch chooses by precision and GPU.
SHOULD_AGREE: dict[str, Callable[[Measurement], object]] = {
    "device_uuid": lambda m: m.device and m.device.uuid,
    "device_hostname": lambda m: m.device and m.device.hostname,
    _ATTENTION: lambda m: m.trace and m.trace.attention,
}
# What two GPU types differ in by being two types.
_BY_TYPE = ("device_name", _CAPABILITY, "device_power_limit_w", "device_uuid", "device_hostname")


@dataclass(frozen=True)
class Line:
    """One line of the table: the replicates of one (cell, workload) of one run, together."""

    run: str
    gpu_type: str
    workload: Workload
    precision: str
    outcome: Outcome
    replicates: int  # that were measured
    latency_ms: float | None = None
    speedup: Ratio | None = None
    energy_mj: float | None = None
    energy_ratio: Ratio | None = None
    throughput_per_s: float | None = None
    perplexity: float | None = None
    floor_perplexity: float | None = None
    nats_difference: Difference | None = None  # per token, against the baseline
    logit_rounding_nats: float | None = None  # nats per token of it that stored logits account for
    logit_rounding_error_nats: float | None = None
    size_mb: float | None = None
    first_token_ms: float | None = None  # as the next one, with new tokens
    per_output_token_ms: float | None = None
    device_name: str | None = None
    torch: str | None = None
    driver: str | None = None
    reason: str | None = None
    doubts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # what has no value although the row is OK, and why


def compare(rows: Iterable[Measurement]) -> list[Line]:
    """The lines of the table, in the order run, GPU type, workload, precision."""
    ordered = sorted(rows, key=_order)
    lines: list[Line] = []
    for (run, gpu_type, workload), group in itertools.groupby(ordered, key=_group):
        by_precision = {
            precision: list(replicates)
            for precision, replicates in itertools.groupby(group, key=lambda m: m.cell.precision)
        }
        baseline = _measured(by_precision.get(BASELINE, []))
        for precision, replicates in by_precision.items():
            lines.append(_line(run, gpu_type, workload, precision, replicates, baseline))
    return lines


@dataclass(frozen=True)
class Against:
    """One GPU type against a chosen one: the same run, workload and precision."""

    run: str
    workload: Workload
    precision: str
    gpu_type: str
    chosen: str
    speedup: Ratio | None  # above 1: faster than the chosen one
    energy_ratio: Ratio | None  # below 1: thriftier
    doubts: tuple[str, ...] = ()
    sensor_errors: bool = False  # whether the sensors' own errors are known, and in its interval


def against(rows: Iterable[Measurement], chosen: str) -> list[Against]:
    """Each GPU type against the chosen one, in the order run, workload, precision, GPU type.

    Raises TensorgapError where the chosen type has no row that is OK, or nothing beside it.
    """
    measured = sorted(_measured(list(rows)), key=_order)
    if not any(m.cell.gpu_type == chosen for m in measured):
        known = dict.fromkeys(m.cell.gpu_type for m in measured)
        raise TensorgapError(
            f"--against {chosen}: no row of it is OK; there are {', '.join(known) or 'none'}"
        )
    by_case: dict[tuple[str, Workload, str], dict[str, list[Measurement]]] = {}
    for m in measured:
        types = by_case.setdefault((m.run, m.workload, m.cell.precision), {})
        types.setdefault(m.cell.gpu_type, []).append(m)
    found = [
        Against(
            run,
            workload,
            precision,
            gpu_type,
            chosen,
            _speedup(ours, types[chosen]),
            _energy_ratio(ours, types[chosen], between_types=True),
            tuple(
                _differences(
                    f"compared with {chosen}",
                    ours,
                    types[chosen],
                    _BY_TYPE,
                )
            ),
            all(_systematic(side) > 0 for side in (ours, types[chosen])),
        )
        for (run, workload, precision), types in by_case.items()
        for gpu_type, ours in types.items()
        if gpu_type != chosen and chosen in types
    ]
    if not found:
        raise TensorgapError(
            f"--against {chosen}: no other type in the same run as {chosen}, with the same workload"
            f" and precision; types: {', '.join(dict.fromkeys(m.cell.gpu_type for m in measured))}"
        )
    return found


def same(ratio: Ratio) -> bool:
    """Whether the interval says that there is no difference worth a word.

    >>> same(Ratio(1.0, 0.99, 1.01)), same(Ratio(1.0, 0.9, 1.1)), same(Ratio(1.03, 1.02, 1.04))
    (True, False, False)
    """
    return 1 - NO_MATTER <= ratio.low <= ratio.high <= 1 + NO_MATTER


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
    tail = (1 - CONFIDENCE) / 2
    freedom = ratio.freedom or math.inf
    factor = stats.t_quantile(freedom, tail / count) / stats.t_quantile(freedom, tail)
    below = (ratio.value / ratio.low) ** factor
    above = (ratio.high / ratio.value) ** factor
    if not (math.isfinite(below) and math.isfinite(above)):
        return ratio
    return replace(ratio, low=ratio.value / below, high=ratio.value * above)


def intervals(lines: Iterable[Line]) -> int:
    """How many ratios of a table have an interval, and so can miss their truth by chance."""
    ratios = itertools.chain.from_iterable((line.speedup, line.energy_ratio) for line in lines)
    return sum(ratio is not None and ratio.low < ratio.high for ratio in ratios)


def must_agree(rows: Sequence[Measurement], others: Sequence[Measurement]) -> list[str]:
    """The columns in which two sets of rows differ although they must agree, with the values."""
    return [
        f"{name}: {', '.join(sorted(values))}"
        for name, value in MUST_AGREE.items()
        if len(values := _values(name, value, (*rows, *others))) > 1
    ]


def attentions(rows: Iterable[Measurement]) -> list[str]:
    """What ran the attention of rows, as far as it was traced."""
    return sorted(_values(_ATTENTION, SHOULD_AGREE[_ATTENTION], rows))


def _values(
    name: str, value: Callable[[Measurement], object], rows: Iterable[Measurement]
) -> set[str]:
    """What stands in a column. A row without energy confounds no speed: it has no method.

    Nor does one that was not traced: which attention ran there is not known.
    """
    found = {value(m) for m in rows}
    if name == _METHOD:
        found -= {None, ENERGY_NOT_MEASURED}
    if name == _ATTENTION:
        found -= {None}
    return {*map(str, found)}


def _line(
    run: str,
    gpu_type: str,
    workload: Workload,
    precision: str,
    replicates: Sequence[Measurement],
    baseline: Sequence[Measurement],
) -> Line:
    measured = _measured(replicates)
    failed = [m for m in replicates if m.outcome != Outcome.OK]
    doubts = list(
        dict.fromkeys(
            itertools.chain.from_iterable([w.text for w in m.warnings] for m in replicates)
        )
    )
    reasons = list(dict.fromkeys(m.reason for m in failed if m.reason))
    if not measured:
        return Line(
            run=run,
            gpu_type=gpu_type,
            workload=workload,
            precision=precision,
            outcome=failed[0].outcome,
            replicates=0,
            reason="; ".join(reasons) or None,
            doubts=tuple(doubts),
        )
    if failed:
        doubts.append(f"{len(failed)} of {len(replicates)} replicates failed: {'; '.join(reasons)}")
    doubts.extend(_differences("replicates", measured, measured))
    if baseline and precision != BASELINE:
        for ours, theirs in _pairs(measured, baseline):
            doubts.extend(_differences(f"compared with {BASELINE}", ours, theirs))
        doubts = list(dict.fromkeys(doubts))
    energy_mj = _mean(m.energy.per_sample_mj for m in measured if m.energy)
    quality = next((m.quality for m in measured if m.quality), None)
    return Line(
        run=run,
        gpu_type=gpu_type,
        workload=workload,
        precision=precision,
        outcome=Outcome.OK,
        replicates=len(measured),
        latency_ms=_mean(m.timing.latency_ms_p50 for m in measured if m.timing),
        speedup=_speedup(measured, baseline),
        energy_mj=energy_mj,
        energy_ratio=_energy_ratio(measured, baseline),
        throughput_per_s=_mean(m.timing.throughput_samples_per_s for m in measured if m.timing),
        perplexity=quality.perplexity if quality else None,
        floor_perplexity=quality.floor_perplexity if quality else None,
        nats_difference=_nats_difference(measured, baseline),
        logit_rounding_nats=quality.logit_rounding_nats if quality else None,
        logit_rounding_error_nats=quality.logit_rounding_error_nats if quality else None,
        size_mb=_mean(m.weights.size_bytes / 1e6 for m in measured if m.weights),
        first_token_ms=_mean(m.timing.first_token_ms_p50 for m in measured if m.timing),
        per_output_token_ms=_mean(m.timing.per_output_token_ms for m in measured if m.timing),
        device_name=_each(m.device.name for m in measured if m.device),
        torch=_each(m.software.torch for m in measured if m.software),
        driver=_each(m.software.driver for m in measured if m.software),
        doubts=tuple(doubts),
        missing=tuple(_missing(measured)),
    )


def _pairs(
    measured: Sequence[Measurement], baseline: Sequence[Measurement]
) -> list[tuple[Sequence[Measurement], Sequence[Measurement]]]:
    """Each replicate beside the same one of the baseline; all together where one lacks its other.

    What differs from pair to pair cancels in the ratio, as the GPU does where there are several.
    """
    ours, theirs = ({m.replicate: m for m in rows} for rows in (measured, baseline))
    if ours.keys() != theirs.keys():
        return [(measured, baseline)]
    return [([ours[replicate]], [theirs[replicate]]) for replicate in sorted(ours)]


def _speedup(measured: Sequence[Measurement], baseline: Sequence[Measurement]) -> Ratio | None:
    """Latency of the baseline over this one: above 1 is faster."""
    if measured == baseline:
        return ITSELF
    ours = [m.timing.latency_ms_samples for m in measured if m.timing]
    theirs = [m.timing.latency_ms_samples for m in baseline if m.timing]
    if not ours or not theirs:
        return None
    paired = len(ours) == len(theirs) and _is_paired(measured, baseline)
    return stats.ratio_of_medians(theirs, ours, paired=paired)


def _is_paired(measured: Sequence[Measurement], baseline: Sequence[Measurement]) -> bool:
    """Whether each replicate was measured beside its other on one of several GPUs."""
    pairs = _pairs(measured, baseline)
    gpus = [{m.device and m.device.uuid for m in (*ours, *theirs)} for ours, theirs in pairs]
    return all(len(of_pair) == 1 for of_pair in gpus) and len(set.union(*gpus)) > 1


def _energy_ratio(
    measured: Sequence[Measurement], baseline: Sequence[Measurement], between_types: bool = False
) -> Ratio | None:
    """Energy of this one over the baseline's: below 1 is thriftier.

    A sensor's own error cancels on one GPU type, but not `between_types`.
    """
    ours, theirs = _pooled(measured), _pooled(baseline)
    if ours is None or theirs is None or theirs[0] <= 0:
        return None
    if measured == baseline:
        return ITSELF
    parts = [ours[1], theirs[1]]
    if between_types:
        parts += [(_systematic(rows), None) for rows in (measured, baseline)]
    spread = math.hypot(*(half for half, _ in parts))
    found = stats.ratio_of_uncertain(ours[0], spread, theirs[0], 0.0)
    return replace(found, freedom=_freedom(parts))


def _nats_difference(
    measured: Sequence[Measurement], baseline: Sequence[Measurement]
) -> Difference | None:
    """Nats per token above the baseline, window by window; None where they read otherwise."""
    ours = next((m for m in measured if m.quality and m.quality.window_nats), None)
    theirs = next((m for m in baseline if m.quality and m.quality.window_nats), None)
    if measured == baseline or ours is None or theirs is None:
        return None
    a, b = ours.quality, theirs.quality
    assert a and b and a.window_nats and b.window_nats and a.window_tokens
    same = ("mode", "context", "stride", "text_sha256", "tokens_sha256", "window_tokens")
    weights = [m.weights and m.weights.sha256 for m in (ours, theirs)]
    if weights[0] != weights[1] or any(getattr(a, name) != getattr(b, name) for name in same):
        return None
    return stats.paired_difference(a.window_nats, b.window_nats, a.window_tokens)


_Part = tuple[float, float | None]  # half a relative 95 % interval, its degrees of freedom


def _pooled(rows: Iterable[Measurement]) -> tuple[float, _Part] | None:
    """The mean energy, and how far it is known: by the meter, or by the replicates if less."""
    found = [m.energy for m in rows if m.energy and m.energy.per_sample_mj is not None]
    if not found:
        return None
    values = [energy.per_sample_mj or 0.0 for energy in found]
    mean = statistics.fmean(values)
    worst = max(found, key=lambda energy: energy.uncertainty or 0.0)
    windows = len(worst.per_sample_mj_samples or ())
    part: _Part = (worst.uncertainty or 0.0, windows - 1 if windows > 1 else None)
    if len(values) > 1 and mean > 0:
        spread = statistics.stdev(values) / mean / len(values) ** 0.5
        freedom = len(values) - 1
        part = max(part, (stats.t_quantile(freedom) * spread, freedom), key=lambda p: p[0])
    return mean, part


def _systematic(rows: Iterable[Measurement]) -> float:
    """The sensor's own error, relative; 0 where nobody knows it."""
    return max((m.energy.systematic or 0.0 for m in rows if m.energy), default=0.0)


def _freedom(parts: Iterable[_Part]) -> float | None:
    """Degrees of freedom of a sum (Welch and Satterthwaite); None where no part has any."""
    errors = [(half / stats.t_quantile(freedom or math.inf), freedom) for half, freedom in parts]
    shares = sum(error**4 / freedom for error, freedom in errors if freedom)
    return sum(error**2 for error, _ in errors) ** 2 / shares if shares else None


def _differences(
    what: str,
    rows: Sequence[Measurement],
    others: Sequence[Measurement],
    besides: Container[str] = (),
) -> list[str]:
    """The columns in which two sets of rows differ although they must, or should, agree."""
    found = []
    for columns, word in ((MUST_AGREE, "must"), (SHOULD_AGREE, "should")):
        for name, value in columns.items():
            if name in besides:
                continue
            values = _values(name, value, (*rows, *others))
            if len(values) > 1:
                found.append(f"{what}: {name} {word} agree: {', '.join(sorted(values))}")
    return found


def _missing(measured: Sequence[Measurement]) -> list[str]:
    reasons = []
    for row in measured:
        if row.energy and row.energy.method == ENERGY_NOT_MEASURED:
            reasons.append(f"no energy: {row.energy.reason}")
        if row.quality and row.quality.reason:
            reasons.append(f"no perplexity of {row.workload.model}: {row.quality.reason}")
    return list(dict.fromkeys(reasons))


def _measured(rows: Sequence[Measurement]) -> list[Measurement]:
    return [m for m in rows if m.outcome == Outcome.OK]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _each(words: Iterable[str | None]) -> str | None:
    """What the replicates say, each once: it should be one."""
    return "; ".join(dict.fromkeys(word for word in words if word)) or None


def _group(row: Measurement) -> tuple[str, str, Workload]:
    return row.run, row.cell.gpu_type, row.workload


def _order(row: Measurement) -> tuple[object, ...]:
    known = PRECISIONS.index(row.cell.precision) if row.cell.precision in PRECISIONS else 99
    return *_group(row), known, row.cell.precision, row.replicate
