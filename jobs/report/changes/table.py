"""A comparison for a terminal and as Markdown: what it comes to, what changed, then each metric."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from bench.asked import AUTO
from jobs.report import words
from jobs.report.changes import summary
from jobs.report.changes.records import (
    Change,
    Comparison,
    Decision,
    Metric,
    PairedRow,
    RowPlace,
)
from jobs.report.facts import each
from jobs.report.table import MARK, RULE, aligned, escaped
from jobs.report.words import NOTHING
from jobs.terminal import clean

STYLES = {Decision.WORSE: "red", Decision.BETTER: "green"}
PLACES, MOST_PLACES = 3, 6  # decimals of a ratio
UNCHANGED = "nothing that the rows tell of: software, device and matrix are the same"
OF_MODEL = ("GPU", "board", "precision", "model")  # what a perplexity belongs to
Shown = tuple[PairedRow, Change | None]


@dataclass(frozen=True)
class Section:
    """One table; `decisions` has what was decided of each line."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    decisions: tuple[tuple[Decision, ...], ...]
    texts: frozenset[int]  # columns that are texts, and stand to the left


def shown(found: Comparison, width: int = words.READABLE, color: bool = False) -> str:
    """Text for a terminal."""
    texts = [Text(clean(summary.headline(found)), style="bold")]
    told = summary.findings(found)
    texts += [
        Text(f"  {clean(line)}", style=STYLES[how]) for how, line in told[: summary.MOST_FINDINGS]
    ]
    texts += more(told)
    parts: list[RenderableType] = [*words.narrowed(texts, width), ""]
    parts += listed("", summary.runs(found), width)
    parts += listed("changed", summary.what_changed(found) or [UNCHANGED], width)
    for section in sections(found):
        parts += [drawn(section), ""]
    parts += words.narrowed([Text(clean(note)) for note in summary.notes(found)], width)
    return words.page(parts, color)


def more(told: Sequence[summary.Finding]) -> list[Text]:
    """How many findings are not listed."""
    left = len(told) - summary.MOST_FINDINGS
    return [Text(f"  ... and {left} more, in the tables", style="dim")] if left > 0 else []


def listed(title: str, lines: Sequence[str], width: int) -> list[RenderableType]:
    """Lines below a title, and an empty one."""
    texts = [Padding(Text(clean(line)), (0, 0, 0, 2 if title else 0)) for line in lines]
    head = [Text(title, style="bold")] if title else []
    return [*head, *words.narrowed(texts, width), ""]


def drawn(section: Section) -> Text:
    """One table, as wide as it needs to be: a number is never cut."""
    rows = [tuple(map(clean, row)) for row in (section.headings, *section.lines)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    text = Text(no_wrap=True, overflow="ignore").append(clean(section.title), style="bold")
    text.append("\n\n")
    for at, row in enumerate(rows):
        line = "".join(
            f"  {aligned(cell, wide, left=index in section.texts)} "
            for index, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        styles = [STYLES[one] for one in section.decisions[at - 1] if one in STYLES] if at else []
        text.append(f"{line}\n", style=(styles[0] if styles else "") if at else "bold")
        if not at:
            text.append(f" {RULE * (sum(widths) + 3 * len(widths) - 1)}\n")
    text.right_crop(1)
    return text


def markdown(found: Comparison) -> str:
    """The same as Markdown."""
    told = summary.findings(found)
    parts = [f"**{escaped(summary.headline(found))}**", *([""] if told else [])]
    parts += [f"- {escaped(line)}" for _, line in told[: summary.MOST_FINDINGS]]
    parts += [f"- {line.plain.strip()}" for line in more(told)]
    parts += ["", *(f"- {escaped(line)}" for line in summary.runs(found)), "", "Changed:", ""]
    changed = summary.what_changed(found) or [UNCHANGED]
    parts += [f"- {escaped(line)}" for line in changed]
    for section in sections(found):
        parts += as_markdown(section)
    parts += ["", *(f"- {escaped(note)}" for note in summary.notes(found))]
    return "\n".join(parts).rstrip()


def as_markdown(section: Section) -> list[str]:
    """The lines of one table in Markdown."""
    rule = ["---" if at in section.texts else "---:" for at in range(len(section.headings))]
    rows = [list(map(escaped, section.headings)), rule]
    rows += [[escaped(cell) for cell in line] for line in section.lines]
    return ["", f"**{escaped(section.title)}**", "", *(f"| {' | '.join(row)} |" for row in rows)]


def sections(found: Comparison) -> Iterator[Section]:
    """A table for each metric that any pair has, but where all of it is identical."""
    places = each(row.place for one in found.others for row in one.rows)
    for metric in Metric:
        by_run = [
            {
                row.place: (row, next((c for c in row.changes if c.metric == metric), None))
                for row in one.rows
            }
            for one in found.others
        ]
        here = [p for p in places if any(run.get(p, (None, None))[1] for run in by_run)]
        rows = {place: [run.get(place) for run in by_run] for place in here}
        decisions = {
            place: tuple(found[1].decision for found in of if found and found[1])
            for place, of in rows.items()
        }
        if set().union(*decisions.values()) <= {Decision.IDENTICAL}:
            continue
        names, common = headings_of(places, metric)
        lines = tuple(line(place, names, rows[place]) for place in here)
        first = found.first.label
        headings = [*names, first]
        for one in found.others:
            headings += [one.run.label, f"{one.run.label} / {first}", "change"]
        texts = {*range(len(names)), *range(len(names) + 3, len(headings), 3)}
        title = "   ".join([str(metric), *common])
        yield Section(title, tuple(headings), lines, tuple(decisions.values()), frozenset(texts))


def line(place: RowPlace, names: Sequence[str], rows: Sequence[Shown | None]) -> tuple[str, ...]:
    """The cells of one place: what it is, the first run's value, and those of the others.

    Args:
        place: Of the line.
        names: Headings that tell it apart.
        rows: Of each other run, its row with the change of this metric; None: it has none.
    """
    first = next(change for _, change in filter(None, rows) if change)
    cells = [*(about(place)[name] for name in names), summary.value(first, first.old)]
    for found in rows:
        row, change = found or (None, None)
        if row is None or change is None:
            cells += [str(row.new.outcome) if row else NOTHING, NOTHING, NOTHING]
            continue
        mark = MARK if row.old.warnings or row.new.warnings else ""
        same = change.decision == Decision.SAME and len(rows) > 1
        text = summary.NO_SIGN if same else summary.told(change)
        cells += [summary.value(change, change.new), ratio(change, mark), text]
    return tuple(cells)


def ratio(change: Change, mark: str = "") -> str:
    """New / old with its interval, in as many decimals as show on which side of 1 it lies."""
    found = change.ratio
    if found is None:
        return NOTHING
    if found.low == found.high:
        return f"{beyond(found.value, PLACES)}{mark}"
    places = PLACES
    while 1 in (round(found.low, places), round(found.high, places)) and places < MOST_PLACES:
        places += 1
    low, value, high = (beyond(end, places) for end in (found.low, found.value, found.high))
    return f"{value}{mark} [{low}, {high}]"


def beyond(ratio_or_end: float, places: int) -> str:
    """A ratio in decimals; of one beyond a hundredfold only that it is.

    >>> beyond(1.0871, 3), beyond(1e300, 3), beyond(0.0, 3)
    ('1.087', '>100', '<0.01')
    """
    if ratio_or_end > 100:
        return ">100"
    return "<0.01" if ratio_or_end < 0.01 else f"{ratio_or_end:.{places}f}"


def about(place: RowPlace) -> dict[str, str]:
    """What a row is about, by the headings of the table."""
    asked = place.workload
    return {
        "GPU": place.gpu,
        "board": place.board or "",
        "precision": place.precision,
        "model": asked.model,
        "engine": asked.engine,
        "batch": str(asked.batch_size),
        "tokens": f"{asked.prompt_tokens}" + (f"+{asked.new_tokens}" if asked.new_tokens else ""),
        "attention": "" if asked.attention == AUTO else asked.attention,
    }


def headings_of(places: Sequence[RowPlace], metric: Metric) -> tuple[list[str], list[str]]:
    """Which headings tell the rows of a metric apart, and what all of them have in common."""
    texts = [about(place) for place in places]
    every = OF_MODEL if metric is Metric.PERPLEXITY else tuple(texts[0])
    values = {name: {text[name] for text in texts} for name in every}
    boards = {(text["GPU"], text["board"]) for text in texts}
    names = [name for name in every if name == "precision" or len(values[name]) > 1]
    if len(boards) == len(values["GPU"]) and "board" in names:
        names.remove("board")  # each GPU type has one
    common = [name for name in every if len(values[name]) == 1 and texts[0][name]]
    numbered = ("batch", "tokens")
    return names, [
        f"{name} {texts[0][name]}" if name in numbered else texts[0][name]
        for name in common
        if name != "precision"
    ]
