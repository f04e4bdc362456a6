"""Many runs over time: each cell in each of them, against the run before that measured it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jobs.report.changes import conditions, decide, pairs
from jobs.report.changes.compared import Input
from jobs.report.changes.pairs import Measured, Run, cell_of
from jobs.report.changes.records import Change, Condition, Metric, RowPlace, RunCompared, Seen
from jobs.report.facts import rank


@dataclass(frozen=True)
class Point:
    """A cell and workload in one run.

    Attributes:
        run: Which one, counted from 0.
        changes: Its metrics; `old` and all that is decided are against the run before in which it
            was OK, and None in the first.
    """

    run: int
    seen: Seen
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class CellOverTime:
    """A cell and workload over time."""

    place: RowPlace
    points: tuple[Point, ...]


@dataclass(frozen=True)
class RunsOverTime:
    """Runs in the order of their time.

    Attributes:
        conditions: Of each run, what differs from the run before; none for the first.
        count: How many comparisons there are: a false alarm in any has probability `alpha`.
    """

    alpha: float
    count: int
    runs: tuple[RunCompared, ...]
    conditions: tuple[tuple[Condition, ...], ...]
    courses: tuple[CellOverTime, ...]


def of_runs(runs: Sequence[Input], alpha: float = decide.ALPHA) -> RunsOverTime:
    """The history of some runs, each cell decided against the run before that measured it."""
    ordered = sorted(runs, key=begun)
    changed: list[tuple[Condition, ...]] = [()]
    for before, after in itertools.pairwise(ordered):
        common = pairs.paired(before.measured, after.measured)
        changed.append(tuple(conditions.changed(common, before.sources, after.sources)))
    courses = list(undecided([run.measured for run in ordered]))
    changes = [change for course in courses for point in course.points for change in point.changes]
    decisions = iter(decide.decided(changes, alpha))
    told = tuple(
        replace(
            course,
            points=tuple(
                replace(point, changes=tuple(next(decisions) for _ in point.changes))
                for point in course.points
            ),
        )
        for course in courses
    )
    about = tuple(replace(run.about, label=str(n)) for n, run in enumerate(ordered, start=1))
    return RunsOverTime(alpha, decide.count(changes), about, tuple(changed), told)


def begun(run: Input) -> tuple[str, ...]:
    """When a run began, as its name says, and then the name."""
    name = min(run.about.names)
    return name.partition("/")[2], name


def undecided(runs: Sequence[Run]) -> Iterator[CellOverTime]:
    """Each cell in each run that has it, not decided yet."""
    boards: dict[object, set[str]] = {}
    for place in (place for run in runs for place in run if place.board):
        boards.setdefault(cell_of(place), set()).add(str(place.board))

    def at(place: RowPlace) -> RowPlace:
        """The place with the cell's only board, where none of its replicates was measured."""
        known = boards.get(cell_of(place), set())
        return replace(place, board=min(known)) if len(known) == 1 else place

    found: dict[RowPlace, list[tuple[int, Measured]]] = {}
    for number, run in enumerate(runs):
        for place, measured in run.items():
            found.setdefault(at(place), []).append((number, measured))
    told: set[object] = set()
    order = sorted(found, key=lambda p: (p.gpu, p.workload, rank(p.precision), p.board or ""))
    for place in order:
        before: Measured | None = None
        points = []
        for number, measured in found[place]:
            changes: list[Change] = []
            if measured.seen.is_ok:
                changes = [once(c, place, number, told) for c in since(before, measured)]
                before = measured
            points.append(Point(number, measured.seen, tuple(changes)))
        yield CellOverTime(place, tuple(points))


def since(before: Measured | None, measured: Measured) -> list[Change]:
    """The metrics of a cell, against the run before it; of the first one only its values."""
    if before is not None:
        return decide.changes(before, measured, ("before", "this run"))
    alone = decide.changes(measured, measured)
    return [Change(change.metric, None, change.new, reason="the first") for change in alone]


def once(change: Change, place: RowPlace, run: int, told: set[object]) -> Change:
    """A perplexity is compared once for all workloads of its cell and model."""
    key = run, place.gpu, place.board, place.precision, place.workload.model, change
    if change.metric is Metric.PERPLEXITY and change.estimate and key in told:
        return replace(change, estimate=None, reason="as of another workload")
    told.add(key)
    return change
