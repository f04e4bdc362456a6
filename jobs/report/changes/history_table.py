"""Runs over time for a terminal, as Markdown, CSV and JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from jobs.report import export as plain
from jobs.report import words
from jobs.report.changes import summary
from jobs.report.changes.export import as_csv, numbers
from jobs.report.changes.history import CellOverTime, Point, RunsOverTime
from jobs.report.changes.records import Change, Decision, Metric
from jobs.report.changes.table import Section, as_markdown, drawn, listed
from jobs.report.table import escaped
from jobs.report.words import NOTHING
from jobs.terminal import clean

DECIDED = "!"  # of a ratio that is more than chance
FOUND = (Decision.WORSE, Decision.BETTER)
LEGEND = (
    "Each ratio is to the run before in which the row was OK; an ! marks those that are more than"
    " chance."
)


def shown(found: RunsOverTime, width: int = words.READABLE, color: bool = False) -> str:
    """Text for a terminal."""
    parts: list[RenderableType] = listed("runs", runs(found), width)
    parts += listed("changes", changes(found), width) if changes(found) else []
    for section in sections(found):
        parts += [drawn(section), ""]
    parts += words.narrowed([Text(clean(note)) for note in notes(found)], width)
    return words.page(parts, color)


def markdown(found: RunsOverTime) -> str:
    """The same as Markdown."""
    parts = ["**runs**", "", *(f"- {escaped(line)}" for line in runs(found))]
    if told := changes(found):
        parts += ["", "**changes**", "", *(f"- {escaped(line)}" for line in told)]
    for section in sections(found):
        parts += as_markdown(section)
    return "\n".join([*parts, "", *(f"- {escaped(note)}" for note in notes(found))])


def runs(found: RunsOverTime) -> list[str]:
    """Each run, with what differs from the one before."""
    lines = []
    for run, conditions in zip(found.runs, found.conditions, strict=True):
        told = [one.text for one in conditions]
        lines.append("; ".join([summary.run(run), *told]))
    return lines


def changes(found: RunsOverTime) -> list[str]:
    """What is more than chance, and rows that are OK no longer or again, in the order of time."""
    lines: list[tuple[int, str]] = []
    for course in found.courses:
        for before, point in zip((None, *course.points), course.points, strict=False):
            where = f"run {found.runs[point.run].label}: {course.place.text}: "
            if before and before.seen.is_ok != point.seen.is_ok:
                why = f" ({point.seen.reason})" if point.seen.reason else ""
                outcome = f"{before.seen.outcome} -> {point.seen.outcome}{why}"
                lines.append((point.run, where + outcome))
            told = [f"{c.metric} {summary.told(c)}" for c in point.changes if c.decision in FOUND]
            if told:
                lines.append((point.run, where + ", ".join(told)))
    return [text for _, text in sorted(lines, key=lambda line: line[0])]


def sections(found: RunsOverTime) -> Iterator[Section]:
    """A table for each GPU and workload: its precisions, each run in a line."""
    metrics = [
        metric
        for metric in Metric
        if any(c.metric == metric for one in found.courses for p in one.points for c in p.changes)
    ]
    headings = ["precision", "run"]
    for metric in metrics:
        headings += [str(metric)] + (["ratio"] if metric is not Metric.PERPLEXITY else [])
    for courses in words.gathered(
        found.courses, lambda one: (one.place.gpu, one.place.board, one.place.workload)
    ):
        place = courses[0].place
        lines = [line(one, p, metrics, found) for one in courses for p in one.points]
        decisions = tuple(
            tuple(c.decision for c in p.changes) for one in courses for p in one.points
        )
        title = "   ".join(filter(None, (place.gpu, place.board, str(place.workload))))
        yield Section(title, tuple(headings), tuple(lines), decisions, frozenset({0, 1}))


def line(
    course: CellOverTime, point: Point, metrics: Sequence[Metric], found: RunsOverTime
) -> tuple[str, ...]:
    """A row in one run."""
    first = point is course.points[0]
    cells = [course.place.precision if first else "", found.runs[point.run].label]
    by_metric = {change.metric: change for change in point.changes}
    for metric in metrics:
        change = by_metric.get(metric)
        failed = not point.seen.is_ok and metric is metrics[0]
        nothing = str(point.seen.outcome) if failed else NOTHING
        cells.append(summary.value(change, change.new) if change else nothing)
        if metric is not Metric.PERPLEXITY:
            cells.append(ratio(change))
    return tuple(cells)


def ratio(change: Change | None) -> str:
    """A ratio to the run before, with a mark where it is more than chance."""
    if change is None or change.ratio is None:
        return NOTHING
    mark = f" {DECIDED}" if change.decision in FOUND else "  "
    return f"{change.ratio.value:.3f}{mark}"


def notes(found: RunsOverTime) -> list[str]:
    """How to read the tables."""
    lines = [LEGEND]
    if found.count:
        lines.append(
            f"{found.count} comparisons; a false alarm anywhere in them: at most"
            f" {100 * found.alpha:.3g}%."
        )
    if any("one process" in str(c.reason) for c in every(found)):
        lines.append(
            "Where a run has one process per cell nothing is decided: sampling.replicates shows how"
            " processes differ."
        )
    return lines


def every(found: RunsOverTime) -> Iterator[Change]:
    """All changes."""
    return (c for one in found.courses for point in one.points for c in point.changes)


def to_csv(found: RunsOverTime) -> str:
    """A line for each metric of each row of each run."""
    return as_csv(list(records(found)))


def records(found: RunsOverTime) -> Iterator[dict[str, Any]]:
    """Plain values of each metric of each row; a row that is not OK has its outcome alone."""
    for course in found.courses:
        place = course.place
        about = {"gpu_type": place.gpu, "board": place.board, "precision": place.precision}
        for point in course.points:
            run = found.runs[point.run]
            of_row = {
                "run": run.label,
                "name": "; ".join(run.names),
                **about,
                **plain.plain(place.workload),
                "outcome": str(point.seen.outcome),
                "outcome_reason": point.seen.reason,
            }
            nothing = dict.fromkeys(numbers(Change(Metric.LATENCY, None, None)))
            for change in map(numbers, point.changes):
                yield {**of_row, **change}
            if not point.changes:
                yield {**of_row, **nothing}


def to_json(found: RunsOverTime) -> str:
    """All of it."""
    return plain.to_json(
        {
            "alpha": found.alpha,
            "comparisons": found.count,
            "runs": [
                {**plain.plain(run), "conditions": conditions}
                for run, conditions in zip(found.runs, found.conditions, strict=True)
            ],
            "rows": list(records(found)),
        }
    )
