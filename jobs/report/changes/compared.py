"""Runs compared: rows paired, conditions beside each other, everything decided together."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.errors import TensorgapError
from bench.results.columns import Source
from jobs.report.changes import conditions, decide, pairs
from jobs.report.changes.records import (
    Against,
    Change,
    Comparison,
    Metric,
    PairedRow,
    RunCompared,
)


@dataclass(frozen=True)
class Input:
    """One run that is compared: what it has at each place, and the sweeps that it is of."""

    about: RunCompared
    measured: pairs.Run
    sources: tuple[Source, ...] = ()


def compare(
    first: Input,
    others: Sequence[Input],
    alpha: float = decide.ALPHA,
    metrics: Collection[Metric] = tuple(Metric),
) -> Comparison:
    """Each run against the first by some metrics; all decisions hold together at `alpha`.

    Raises TensorgapError where two runs have nothing in common.
    """
    found = [against(first, other, metrics) for other in others]
    changes = [c for one in found for row in one.rows for c in row.changes]
    decisions = iter(decide.decided(changes, alpha))
    told = [
        replace(
            one,
            rows=tuple(
                replace(row, changes=tuple(itertools.islice(decisions, len(row.changes))))
                for row in one.rows
            ),
        )
        for one in found
    ]
    return Comparison(alpha, decide.count(changes), first.about, tuple(told))


def against(first: Input, other: Input, metrics: Collection[Metric]) -> Against:
    """A run against the first, not decided yet."""
    found = pairs.paired(first.measured, other.measured)
    if not found:
        has = [next(iter(one.measured)).text for one in (first, other)]
        told = f"the first has {has[0]} and others, the second {has[1]} and others"
        texts = pairs.unpaired(first.measured, other.measured, ())
        # Of one cell on two boards the text has both.
        told = next((text for text in texts if pairs.ELSEWHERE in text), told)
        raise TensorgapError(
            f"{first.about.location} and {other.about.location} have no cell and workload in"
            f" common: {told}; rows are paired by GPU type, precision, workload and board"
        )
    labels = first.about.label, other.about.label
    known = [{pair[side].place for pair in found} for side in (0, 1)]
    return Against(
        other.about,
        tuple(rows_of(found, labels, metrics)),
        tuple(conditions.changed(found, first.sources, other.sources)),
        pairs.unpaired(first.measured, other.measured, known[0]),
        pairs.unpaired(other.measured, first.measured, known[1]),
    )


def rows_of(
    found: conditions.Pairs, labels: decide.Labels, metrics: Collection[Metric]
) -> Iterator[PairedRow]:
    """The pairs with what can be compared; one perplexity for all workloads of a cell and model.

    It is measured once there, and stands in each of their rows.
    """
    told: set[object] = set()
    for old, new in found:
        changes: list[Change] = []
        if old.seen.is_ok and new.seen.is_ok:
            changes = [c for c in decide.changes(old, new, labels) if c.metric in metrics]
        kept = []
        for change in changes:
            place = old.place
            key = (place.gpu, place.board, place.precision, place.workload.model, change)
            if change.metric is not Metric.PERPLEXITY or key not in told:
                kept.append(change)
                told.add(key)
        yield PairedRow(old.place, old.seen, new.seen, tuple(kept))
