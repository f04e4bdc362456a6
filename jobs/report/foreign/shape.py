"""A grid as records: one for each measured thing, however the table lies.

A record has, by field, the text of a cell and the heading of its column.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.asked import CPU
from jobs.report import words
from jobs.report.foreign import layout, units
from jobs.report.foreign.columns import refined
from jobs.report.foreign.grid import Grid
from jobs.report.foreign.headers import Heading, headings_of
from jobs.report.foreign.unit_words import split
from jobs.report.foreign.vocabulary import LABELS, PREFERRED

_MEASURED = re.compile(r"\d+\.\d+ ?[A-Za-z]")  # what no header begins with
AXES = ("precision", "engine", "gpu", "batch_size", "prompt_tokens")  # that a header can name
_OF = ("sample", None, "batch", "token", "word", "byte", "every token")  # the first is read
_MAIN = (
    "latency_ms", "throughput_per_s", "energy_mj", "mean_w", "perplexity", "per_output_token_ms",
    "first_token_ms",
)  # fmt: skip
NAMING = ("configuration", "engine", "precision")  # whose whole text is a thing's name


@dataclass(frozen=True)
class Record:
    """What one measured thing says: field -> text of the cell, and the heading of its column."""

    line: int
    cells: Mapping[str, tuple[str, Heading]]
    others: Mapping[str, str] = field(default_factory=dict)  # of columns that are not understood

    def text(self, name: str) -> str:
        """The text of a field; empty where there is none."""
        return self.cells[name][0] if name in self.cells else ""


@dataclass(frozen=True)
class Shaped:
    """The records of a table.

    Attributes:
        headings: Of the columns that are read.
        records: Makes the records, one by one: a table may have 100,000.
        unknown: Columns that are not understood.
        set_aside: Columns that are understood and not read, and why.
        how: How the table lies, where not one row for each thing.
        labels: Columns whose texts name a thing: configuration, engine or precision.
    """

    headings: tuple[Heading, ...]
    records: Callable[[], Iterator[Record]]
    unknown: tuple[str, ...] = ()
    set_aside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    how: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def shaped(grid: Grid) -> Shaped:
    """The records of a grid; none where its first line holds numbers in the place of names."""
    how: list[str] = []
    numbers = sum(name[:1].isdigit() and units.number_of(name) is not None for name in grid.names)
    if 2 * numbers >= len(grid.names) or any(_MEASURED.match(name) for name in grid.names):
        return Shaped((), lambda: iter(()), grid.names)
    if layout.lies_on_its_side(grid):
        grid = layout.turned(grid)
        how.append("each column is a configuration, each line a metric")
    grid = layout.parted(layout.with_points(layout.with_one_head(grid)))
    headings = refined(headings_of(grid.names), grid.lines)
    if log := layout.energy_log(grid):
        headings = log
        how.append(
            "a log of energies, not a table of latencies: each row is a run, whose power is judged"
        )
    grid, headings = layout.without_flags(grid, headings)
    grid, filled = layout.filled_down(grid, headings)
    if filled:
        how.append(f"an empty {words.listed(filled)} is that of the line above")
    fields = [heading.field for heading in headings]
    if "metric" in fields and "value" in fields:
        grid, headings = layout.widened(grid, headings)
        how.append("a line for each metric")
    fields = [heading.field for heading in headings]
    if not {"perplexity", "bits_per_byte", "prompt_tokens"} & {*fields}:  # nothing else has one
        headings = [
            replace(one, field="prompt_tokens") if one.field == "context" else one
            for one in headings
        ]
    return melted(grid, headings, how)


def melted(grid: Grid, headings: Sequence[Heading], how: list[str]) -> Shaped:
    """One record for each line, or for each group of columns that are about another thing."""
    set_aside: dict[str, list[str]] = {}
    unknown: list[str] = []
    keys: dict[str, int] = {}
    quantities: list[tuple[int, Heading]] = []
    for index, heading in enumerate(headings):
        name = heading.name or f"column {index + 1}"
        if heading.field in ("ratio", "spread"):
            why = "a ratio, or not compared" if heading.field == "ratio" else "spread"
            set_aside.setdefault(why, []).append(name)
        elif heading.is_quantity and heading.statistic != "tail":
            quantities.append((index, heading))
        elif heading.is_quantity:
            set_aside.setdefault("other statistics", []).append(name)
        elif heading.field in (*LABELS, "configuration") and heading.field not in keys:
            keys[heading.field] = index
        elif heading.field is None or heading.field in LABELS:
            unknown.append(name)
    groups, dropped = grouped(quantities)
    for name, why in dropped:
        set_aside.setdefault(why, []).append(name)
    if len(groups) > 1:
        varying = [a for a in (*AXES, "run") if len({group.tags.get(a) for group in groups}) > 1]
        how.append(f"a column for each {words.listed(a.replace('_', ' ') for a in varying)}")
    telling = (None, *NAMING)
    others = {grid.names[i]: i for i, h in enumerate(headings) if h.field in telling and h.name}

    def records() -> Iterator[Record]:
        for number, row in grid.lines:
            apart = {name: row[i] for name, i in others.items()}
            for cells in records_of(row, keys, groups, headings):
                yield Record(number, cells, apart)

    used = [headings[i] for i in keys.values()]
    used += [heading for group in groups for _, heading in group.columns]
    aside = {why: tuple(columns) for why, columns in set_aside.items()}
    by_name = {heading.name: heading for heading in used}
    labels = {grid.names[i]: str(h.field) for i, h in enumerate(headings) if h.field in NAMING}
    return Shaped(tuple(by_name.values()), records, tuple(unknown), aside, tuple(how), labels)


@dataclass(frozen=True)
class Columns:
    """The quantities that a line has of one thing, by where they stand, and which thing it is."""

    tags: Mapping[str, str]
    columns: tuple[tuple[int, Heading], ...]


def grouped(
    quantities: Sequence[tuple[int, Heading]],
) -> tuple[list[Columns], list[tuple[str, str]]]:
    """The columns by what they are about, and the names of those that are not read, and why.

    Of several statistics of one quantity one is read. What else tells columns of one quantity apart
    is another program, or another way to run it; beside a column without such a mark, only a
    program that is known. A quantity that has no such mark is all others'.
    """
    kept: list[tuple[int, Heading]] = []
    dropped: list[tuple[str, str]] = []
    quantities, of_cpu = without_other_meters(quantities)
    dropped += [(heading.name, "of the CPU") for _, heading in of_cpu]
    for _, same in gathered_by(quantities, lambda h: (h.field, *sorted(h.tags.items()), h.rest)):
        same.sort(key=lambda pair: preference(pair[1]))
        read = same[0][1]
        for _, heading in same[1:]:
            alike = (heading.statistic, heading.per) == (read.statistic, read.per)
            beside = f"beside {units.plain(read.name)}" if alike else "other statistics"
            dropped.append((heading.name, beside))
        kept.append(same[0])
    marked: list[tuple[int, Heading]] = []
    for (field_of,), several in gathered_by(kept, lambda h: (h.field,)):
        programs = {heading.tags.get("engine") or heading.rest for _, heading in several}
        plain = {tuple(sorted(h.tags.items())) for _, h in several if not h.rest}
        bare = {tuple(sorted(heading.tags.items())) for _, heading in several}
        for index, heading in several:
            tags = dict(heading.tags)
            is_beside = tuple(sorted(tags.items())) in plain
            if len(programs) > 1 and heading.rest and field_of in _MAIN and not is_beside:
                condition = any(len(word) == 1 or word[0].isdigit() for word in heading.rest)
                if condition:
                    tags["run"] = units.plain(heading.name)  # J/token @ 1.5 kW
                else:
                    parts = [*filter(None, [tags.get("engine")]), *heading.rest]
                    tags["engine"] = "-".join(parts)
            elif len(programs) > 1 and heading.rest and (is_beside or len(bare) < len(several)):
                dropped.append((heading.name, "of something else"))
                continue
            marked.append((index, replace(heading, tags=tags)))
    of_tags = gathered_by(marked, lambda h: tuple(sorted(h.tags.items())))
    tagged = {heading.field for _, heading in marked if heading.tags}
    shared = [pair for pair in marked if not pair[1].tags and pair[1].field not in tagged]
    groups = []
    for tags, columns in of_tags:
        own = [pair for pair in columns if pair not in shared]
        if own or len(of_tags) == 1:
            groups.append(Columns(dict(tags), tuple([*own, *shared])))
    return sorted(groups, key=lambda group: min(index for index, _ in group.columns)), dropped


def without_other_meters(
    quantities: Sequence[tuple[int, Heading]],
) -> tuple[list[tuple[int, Heading]], list[tuple[int, Heading]]]:
    """The columns without an energy or a power of the CPU that stands beside that of a GPU."""
    timed = any(
        h.tags.get("gpu") == CPU for _, h in quantities if h.dimension not in ("energy", "power")
    )
    if timed:
        return list(quantities), []
    of_cpu = [
        pair
        for pair in quantities
        if pair[1].tags.get("gpu") == CPU and pair[1].dimension in ("energy", "power")
    ]
    if len(of_cpu) == len(quantities):
        return list(quantities), []
    return [pair for pair in quantities if pair not in of_cpu], of_cpu


def preference(heading: Heading) -> tuple[bool, bool, int, int, bool, bool]:
    """Which of several columns of one quantity is read.

    One with numbers, of a prompt, a median; one that is called latency, and that has a unit.
    """
    words_of = {*split(heading.name)}
    return (
        heading.is_empty,
        {"total", "time"} <= words_of,  # of a whole run, where another column is not
        _OF.index(heading.per),
        PREFERRED.index(heading.statistic),
        words_of.isdisjoint({"latency", "lat", "energy", "throughput"}),
        heading.unit is None,
    )


def gathered_by(
    pairs: Iterable[tuple[int, Heading]], key: Callable[[Heading], tuple[object, ...]]
) -> list[tuple[Any, list[tuple[int, Heading]]]]:
    """Columns of an equal key together."""
    found: dict[tuple[object, ...], list[tuple[int, Heading]]] = {}
    for pair in pairs:
        found.setdefault(key(pair[1]), []).append(pair)
    return list(found.items())


def records_of(
    row: Sequence[str],
    keys: Mapping[str, int],
    groups: Sequence[Columns],
    headings: Sequence[Heading],
) -> Iterator[dict[str, tuple[str, Heading]]]:
    """The cells of each thing that a line is about; nothing of one that it leaves empty."""
    about = {name: (row[index], headings[index]) for name, index in keys.items()}
    for group in groups or [Columns({}, ())]:
        measured = {str(h.field): (row[index], h) for index, h in group.columns}
        empty = all(units.is_empty(text) for text, _ in measured.values())
        if len(groups) > 1 and empty:
            continue
        tags = {axis: (value, Heading("", axis)) for axis, value in group.tags.items()}
        yield {**about, **tags, **measured}
