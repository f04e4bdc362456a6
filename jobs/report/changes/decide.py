"""Which changes are more than chance, decided over all of them together.

Processes of one cell differ by more than the samples within one do, so that only replicates tell
how far a change reaches beyond them: each metric is the mean of their logarithms, compared by
`stats.log_ratio`. The interval within a single process says nothing of the next one, and decides
nothing. The perplexity is the same in each process, and compared window by window. The error rate
holds over all comparisons of all metrics together, by Holm's procedure.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from bench import stats
from bench.asked import ENERGY_NOT_MEASURED
from bench.stats import CONFIDENCE, Ratio
from jobs.report.changes.pairs import Measured
from jobs.report.changes.records import Change, Decision, Metric
from jobs.report.facts import Case
from jobs.report.from_rows import PROTOCOL

ALPHA = 0.05  # of all comparisons together
POWER = 0.9  # with which a `detectable` change is found
REPLICATES = 5  # that a remedy asks for
# Perplexities within so much, 0.1 %, are no difference worth a word: below what two protocols, or
# the storage type of the logits, change by themselves. Rounding alone is decided by the windows.
SMALLEST_NATS = 0.001
Values = tuple[float, ...]  # of each replicate
Labels = tuple[str, str]  # of the first run and of the other


def changes(old: Measured, new: Measured, labels: Labels = ("old", "new")) -> list[Change]:
    """What can be compared of a cell and workload that is OK in both runs, not decided yet.

    `labels` are what reasons call the runs.
    """
    cases = old.case, new.case
    latencies = tuple(tuple(median.value for median in case.latencies_ms) for case in cases)
    found = [
        of_replicates(Metric.LATENCY, latencies, labels),
        of_replicates(Metric.THROUGHPUT, tuple(c.throughputs_per_s for c in cases), labels),
        of_energy(old, new, labels),
        of_perplexity(*cases, labels),
    ]
    return [change for change in found if change.old is not None or change.new is not None]


def of_replicates(metric: Metric, sides: tuple[Values, ...], labels: Labels) -> Change:
    """A metric of which each replicate of the two runs has a value above 0."""
    old, new = (statistics.geometric_mean(side) if side else None for side in sides)
    change = Change(metric, old, new)
    if old is None or new is None:
        return replace(change, reason=f"not measured in {labels[new is None]}")
    single = Ratio(*[stats.exp(math.log(new) - math.log(old))] * 3)
    few = [label for label, side in zip(labels, sides, strict=True) if len(side) < 2]
    if few:
        which = "each" if len(few) == 2 else f"in {few[0]}"
        return replace(change, ratio=single, reason=f"one process {which}")
    return replace(change, ratio=single, estimate=stats.log_ratio(sides[1], sides[0]))


def of_energy(old: Measured, new: Measured, labels: Labels) -> Change:
    """Energy: where it was read by other sensors, their own errors do not cancel."""
    sides = old.case.energies_mj, new.case.energies_mj
    if any(value <= 0 for side in sides for value in side):
        before, after = (statistics.fmean(side) if side else None for side in sides)
        return Change(Metric.ENERGY, before, after, reason="an energy is not above 0")
    change = of_replicates(Metric.ENERGY, sides, labels)
    if change.estimate is None:
        return change
    methods = [
        [name for name in one.case.energy_methods if name != ENERGY_NOT_MEASURED]
        for one in (old, new)
    ]
    if methods[0] != methods[1]:
        told = " -> ".join(", ".join(several) for several in methods)
        return replace(change, estimate=None, reason=f"read by another method ({told})")
    if sensors(old) == sensors(new):
        return change
    errors = [one.case.energy_systematic for one in (old, new)]
    if None in errors:
        reason = "another sensor, of unknown error"
        return replace(change, estimate=None, reason=reason)
    # Each is half a 95 % interval of a sensor's own error, the same in every replicate.
    error = math.hypot(*(float(one or 0) for one in errors))
    error /= statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return replace(change, estimate=stats.with_known_error(change.estimate, error))


def sensors(one: Measured) -> set[object]:
    """What read the energy: the GPU, or the host of a CPU."""
    devices = [row.device for row in one.rows if row.device]
    return {device.uuid or device.hostname for device in devices}


def of_perplexity(old: Case, new: Case, labels: Labels) -> Change:
    """Perplexity: windows as pairs, where both read the same text in the same way."""
    change = Change(Metric.PERPLEXITY, old.perplexity, new.perplexity)
    if old.perplexity is None or new.perplexity is None:
        return replace(change, reason=f"not measured in {labels[new.perplexity is None]}")
    if old.perplexity_protocol != new.perplexity_protocol or old.window_tokens != new.window_tokens:
        both = zip(
            PROTOCOL, old.perplexity_protocol or (), new.perplexity_protocol or (), strict=False
        )
        others = [path.rpartition(".")[2].removesuffix("_sha256") for path, a, b in both if a != b]
        return replace(change, reason=f"another {' and '.join(others) or 'set of windows'}")
    sizes = new.window_tokens or ()
    if len(sizes) != len(new.window_nats or ()) or len(sizes) != len(old.window_nats or ()):
        return replace(change, reason="its windows are not whole")
    if old.perplexity == new.perplexity and old.window_nats == new.window_nats:
        return replace(change, ratio=Ratio(1.0, 1.0, 1.0), decision=Decision.IDENTICAL)
    if not old.window_nats or not new.window_nats or min(sizes) < 1:
        return replace(change, reason="its windows are not known")
    found = stats.paired_difference(new.window_nats, old.window_nats, sizes)
    single = Ratio(*[stats.exp(found.mean)] * 3)
    if found.error is None:
        return replace(change, ratio=single, reason="one window")
    estimate = stats.Estimate(found.mean, found.error, len(sizes) - 1)
    return replace(change, ratio=single, estimate=estimate)


def decided(found: Sequence[Change], alpha: float) -> list[Change]:
    """The changes with a decision: a false alarm anywhere in them has probability `alpha` at most.

    What is equal to the last bit needs no decision and is not counted.
    """
    estimates = [change.estimate for change in found if change.estimate]
    shared = iter(stats.holm([estimate.p for estimate in estimates], alpha))
    every = len(estimates)
    return [
        with_decision(change, alpha, next(shared), every) if change.estimate else change
        for change in found
    ]


def with_decision(change: Change, alpha: float, shared: int, every: int) -> Change:
    """A change decided as one of `shared` that are still open, of `every` comparison."""
    estimate = change.estimate
    assert estimate is not None
    higher = estimate.value > 0
    if estimate.p * shared > alpha:
        decision = Decision.SAME
    elif change.metric is Metric.PERPLEXITY and abs(estimate.value) < SMALLEST_NATS:
        decision = Decision.NEGLIGIBLE
    else:
        decision = Decision.BETTER if higher == change.metric.more_is_better else Decision.WORSE
    tail = alpha / 2
    return replace(
        change,
        decision=decision,
        ratio=estimate.ratio(tail / shared),
        detectable=stats.exp(estimate.detectable(tail / every, POWER)) - 1,
    )


def count(found: Sequence[Change]) -> int:
    """How many comparisons can be a false alarm."""
    return sum(change.estimate is not None for change in found)
