"""A grid as records: one for each measured thing, however the table lies.

A table may have a column for each precision or engine, stand on its side (a line for each metric),
or be long (columns `metric` and `value`). A record has, by field, the text of a cell and the
heading of its column.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.device import gpu_names
from jobs.report import words
from jobs.report.foreign import names, units
from jobs.report.foreign.grid import Grid, Line
from jobs.report.foreign.headers import (
    BY_DIMENSION,
    LABELS,
    PREFERRED,
    STATISTIC,
    Heading,
    heading_of,
    split,
    tags_in,
    unit_in,
)

_MOST_ON_ITS_SIDE = 60  # lines of a table whose columns are configurations
_MOST = 0.75  # of the cells of a column that must be of a kind
_LOOKED_AT = 200  # cells of a column
_OF = ("sample", None, "batch", "token", "word", "byte")  # the first of these is read
_MAIN = ("latency_ms", "throughput_per_s", "energy_mj", "mean_w", "perplexity")
_INTEGER = ("batch_size", "prompt_tokens", "new_tokens", "context", "stride")
_ON = {"1", "true", "yes", "on"}
_FLAGS = _ON | {"0", "false", "no", "off"}
_DECIMAL_COMMA = re.compile(r"[~\u2248]?-?\d+,(\d{1,2}|\d{4,})( ?[a-zA-Z/%]+)?")
_POINT = re.compile(r"\d\.\d")
_RATIO = re.compile(r"[-+]?[\d.]+\s*(x\b.*|×.*|%.*)", re.IGNORECASE)
AXES = ("precision", "engine", "gpu", "batch_size", "prompt_tokens")  # that a header can name
_LABELS_BY_VALUE = ("precision", "gpu", "engine", "model")
_DOMAIN = re.compile(r"(nvidia_gpu|package|core|dram|uncore)_\d+")  # of a log of pyJoules


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
        labels: Columns that name a configuration.
    """

    headings: tuple[Heading, ...]
    records: Callable[[], Iterator[Record]]
    unknown: tuple[str, ...] = ()
    set_aside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    how: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def shaped(grid: Grid) -> Shaped:
    """The records of a grid; none where its first line holds numbers in the place of names."""
    how: list[str] = []
    numbers = sum(name[:1].isdigit() and units.number_of(name) is not None for name in grid.names)
    if 2 * numbers >= len(grid.names):
        return Shaped((), lambda: iter(()), grid.names)
    if lies_on_its_side(grid):
        grid = turned(grid)
        how.append("each column is a configuration, each line a metric")
    grid = with_points(with_one_head(grid))
    headings = refined([heading_of(name) for name in grid.names], grid.lines)
    if log := energy_log(grid):
        headings = log
        how.append("a log of energies, not a table of latencies: the rows have no precision")
    grid, headings = without_flags(grid, headings)
    fields = [heading.field for heading in headings]
    if "metric" in fields and "value" in fields:
        grid, headings = widened(grid, headings)
        how.append("a line for each metric")
    return melted(grid, headings, how)


def without_flags(grid: Grid, headings: Sequence[Heading]) -> tuple[Grid, list[Heading]]:
    """A grid whose columns `fp16` and `bf16` of 0 and 1 are one column of precisions."""
    flags = {
        index: heading.tags["precision"]
        for index, heading in enumerate(headings)
        if heading.field is None
        and set(heading.tags) == {"precision"}
        and {row[index].lower() for _, row in grid.lines} <= _FLAGS
    }
    if not flags or "precision" in [heading.field for heading in headings]:
        return grid, list(headings)
    rest = [index for index in range(len(headings)) if index not in flags]
    lines = []
    for number, row in grid.lines:
        on = [name for index, name in flags.items() if row[index].lower() in _ON]
        lines.append((number, (*(row[i] for i in rest), on[0] if on else "fp32")))
    names_of = (*(grid.names[i] for i in rest), "precision")
    kept = [*(headings[i] for i in rest), heading_of("precision")]
    return replace(grid, names=names_of, lines=tuple(lines)), kept


def energy_log(grid: Grid) -> list[Heading] | None:
    """The headings of pyJoules' log: timestamp, tag, duration, and a column for each meter."""
    if not {"timestamp", "tag", "duration"} <= set(grid.names):
        return None
    found = []
    for name in grid.names:
        known = {"duration": "duration_s", "tag": "trial"}.get(name)
        known = "energy_mj" if _DOMAIN.fullmatch(name) else known
        gpus = [one for one in grid.names if one.startswith("nvidia_gpu")]
        if known == "energy_mj" and gpus and not name.startswith("nvidia_gpu"):
            known = "ratio"  # of the CPU
        found.append(Heading(name, known or "ratio", "s" if known == "duration_s" else None))
    return found


def lies_on_its_side(grid: Grid) -> bool:
    """Whether the first column names quantities, and the header what they are of."""
    if len(grid.lines) > _MOST_ON_ITS_SIDE or len(grid.names) < 2:
        return False
    down = [heading_of(cells[0]) for _, cells in grid.lines]
    across = [heading_of(name) for name in grid.names[1:]]
    measured = sum(one.is_quantity for one in down)
    if any(one.is_quantity or (one.field in LABELS and not one.tags) for one in across):
        return False
    tagged = sum(bool(one.tags) for one in across)
    return bool(measured) and (tagged > 0 or measured >= len(down) / 2)


def with_one_head(grid: Grid) -> Grid:
    """The grid with the statistics of a second head (pandas writes such) in its first."""
    if not grid.lines:
        return grid
    (_, second), *lines = grid.lines
    told = [text for text in second if text]
    if not told or not all(text.lower() in STATISTIC for text in told):
        return grid
    heads = tuple(f"{one} {two}".strip() for one, two in zip(grid.names, second, strict=True))
    if lines and not any(lines[0][1][1:]):  # the name of the first column alone
        heads = (lines[0][1][0], *heads[1:])
        lines = lines[1:]
    return replace(grid, names=heads, lines=tuple(lines))


def with_points(grid: Grid) -> Grid:
    """The grid with decimal points where a column has decimal commas: `11,7`."""
    commas = [
        index
        for index in range(len(grid.names))
        if any(_DECIMAL_COMMA.fullmatch(row[index]) for _, row in grid.lines[:_LOOKED_AT])
        and not any(_POINT.search(row[index]) for _, row in grid.lines[:_LOOKED_AT])
    ]
    if not commas:
        return grid
    lines = tuple(
        (n, tuple(c.replace(",", ".") if i in commas else c for i, c in enumerate(row)))
        for n, row in grid.lines
    )
    return replace(grid, lines=lines)


def turned(grid: Grid) -> Grid:
    """The grid with its columns as lines; the header becomes a column of its own."""
    heads = [cells[0] for _, cells in grid.lines]
    lines = tuple(
        (1, (name, *(cells[index] for _, cells in grid.lines)))
        for index, name in enumerate(grid.names)
        if index
    )
    return replace(grid, names=("configuration", *heads), lines=lines)


def refined(headings: Sequence[Heading], lines: Sequence[Line]) -> list[Heading]:
    """The headings, with what only the cells of a column tell."""
    found = []
    for index, heading in enumerate(headings):
        cells = [text for _, row in lines[:_LOOKED_AT] if not ignored(text := row[index])]
        found.append(by_values(heading, cells))
    taken = {one.field for one in found}
    for index, heading in enumerate(found):
        if heading.field in (None, "configuration") and not heading.tags:
            cells = [text for _, row in lines[:_LOOKED_AT] if not ignored(text := row[index])]
            label = label_by_values(cells, taken)
            if label:
                taken.add(label)
                found[index] = replace(heading, field=label, rest=())
    return found


def ignored(text: str) -> bool:
    """Whether a cell says nothing of its column."""
    return units.is_empty(text) or units.failure(text) is not None


def most(cells: Sequence[str], of: Callable[[str], object]) -> bool:
    """Whether nearly all cells are of a kind."""
    return bool(cells) and sum(bool(of(text)) for text in cells) >= _MOST * len(cells)


def by_values(heading: Heading, cells: Sequence[str]) -> Heading:
    """A heading that its cells contradict, or say more of."""
    numbers = most(cells, units.number_of)
    if heading.field == "engine" and numbers and most(cells, cell_unit):  # Runtime: 1.29s
        heading = replace(heading, field=None)
    if heading.is_quantity or heading.field in (None, "value"):
        if most(cells, lambda text: _RATIO.fullmatch(units.plain(text))):
            return replace(heading, field="ratio")
        told = {cell_unit(text) for text in cells} - {None}
        if len(told) == 1 and heading.field != "value":
            (one,) = told
            assert one
            if heading.is_quantity and one.dimension == heading.dimension:
                return replace(heading, unit=None, per=one.per or heading.per)
            if heading.field is None and not heading.rest[1:] and one.field:
                return replace(one, name=heading.name, tags=heading.tags)
    if heading.is_quantity and cells and not numbers and heading.unit is None:
        return replace(heading, field=None)
    if heading.field in _INTEGER and cells and not most(cells, units.number_of):
        return replace(heading, field=None)
    plain = {"precision", "dtype"}.isdisjoint(split(heading.name))
    if heading.field == "precision" and cells and plain and not most(cells, is_precision):
        return replace(heading, field="configuration", rest=())
    if heading.field == "gpu" and cells and all(text.isdigit() for text in cells):
        return replace(heading, field=None, rest=(heading.name,))
    return heading


def cell_unit(text: str) -> Heading | None:
    """What the unit in a cell says: `96 samp/s` is a throughput."""
    number = units.number_of(text)
    if not number or not number.rest:
        return None
    unit, per, dimension, rest = unit_in(split(number.rest))
    if alone := units.UNIT.get(units.spelled(number.rest)):
        unit, per, dimension, rest = alone, None, units.DIMENSION[alone], []
    if not dimension or rest:
        return None
    if dimension == "time" and per == "token":
        return Heading("", "per_output_token_ms", unit, per)
    return Heading("", BY_DIMENSION[dimension], None, per)


def is_precision(text: str) -> bool:
    """Whether a cell of a column of precisions names one, of ours or another."""
    return names.precision_in(names.words_of(text), alone=True).what is not None


def label_by_values(cells: Sequence[str], taken: Iterable[str | None]) -> str | None:
    """What kind of name the cells of a column without a known header are."""
    is_a: dict[str, Callable[[str], object]] = {
        "precision": is_precision,
        "gpu": lambda text: gpu_names.boards(text) or gpu_names.among(names.words_of(text)),
        "engine": lambda text: names.engine_in(names.words_of(text)).what,
        "model": lambda text: not text[:1].isdigit() and names.model_of(text),
    }
    if not cells or most(cells, lambda text: text[:1].isdigit()):
        return None
    for label in _LABELS_BY_VALUE:
        if label not in taken and most(cells, is_a[label]):
            return label
    if most(cells, lambda text: tags_in(split(units.plain(text)))[0]):
        return "configuration"
    return None


def widened(grid: Grid, headings: Sequence[Heading]) -> tuple[Grid, list[Heading]]:
    """A long table with a column for each metric."""
    at = {heading.field: index for index, heading in enumerate(headings)}
    metric, value = at["metric"], at["value"]
    unit = at.get("unit")
    rest = [i for i in range(len(headings)) if i not in (metric, value, unit)]
    metrics = list(
        dict.fromkeys(
            (cells[metric], cells[unit] if unit is not None else "") for _, cells in grid.lines
        )
    )
    by_key: dict[tuple[str, ...], list[tuple[int, dict[tuple[str, str], str]]]] = {}
    for number, cells in grid.lines:
        key = tuple(cells[i] for i in rest)
        column = cells[metric], cells[unit] if unit is not None else ""
        several = by_key.setdefault(key, [(number, {})])
        if column in several[-1][1]:  # a further run of the same
            several.append((number, {}))
        several[-1][1][column] = cells[value]
    lines = tuple(
        (number, (*key, *(found.get(column, "") for column in metrics)))
        for key, several in by_key.items()
        for number, found in several
    )
    new = [f"{name} ({unit})" if unit else name for name, unit in metrics]
    wide = replace(grid, names=(*(grid.names[i] for i in rest), *new), lines=lines)
    return wide, refined([heading_of(name) for name in wide.names], wide.lines)


def melted(grid: Grid, headings: Sequence[Heading], how: list[str]) -> Shaped:
    """One record for each line, or for each group of columns that are about another thing."""
    set_aside: dict[str, list[str]] = {}
    unknown: list[str] = []
    keys: dict[str, int] = {}
    quantities: list[tuple[int, Heading]] = []
    for index, heading in enumerate(headings):
        name = heading.name or f"column {index + 1}"
        if heading.field in ("ratio", "spread"):
            why = "derived from others" if heading.field == "ratio" else "spread"
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
    if dropped:
        set_aside.setdefault("other statistics", []).extend(dropped)
    if len(groups) > 1:
        varying = [a for a in AXES if len({group.tags.get(a) for group in groups}) > 1]
        how.append(f"a column for each {words.listed(a.replace('_', ' ') for a in varying)}")
    telling = (None, "configuration")
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
    labels = tuple(grid.names[i] for i, h in enumerate(headings) if h.field == "configuration")
    return Shaped(tuple(by_name.values()), records, tuple(unknown), aside, tuple(how), labels)


@dataclass(frozen=True)
class Columns:
    """The quantities that a line has of one thing, by where they stand, and which thing it is."""

    tags: Mapping[str, str]
    columns: tuple[tuple[int, Heading], ...]


def grouped(quantities: Sequence[tuple[int, Heading]]) -> tuple[list[Columns], list[str]]:
    """The columns by what they are about, and the names of those that are not read.

    Of several statistics of one quantity one is read. What else tells columns of one quantity apart
    is another program, or another way to run it. A quantity that has no such mark is all others'.
    """
    kept: list[tuple[int, Heading]] = []
    dropped: list[str] = []
    for _, same in gathered_by(quantities, lambda h: (h.field, *sorted(h.tags.items()), h.rest)):
        same.sort(key=lambda pair: (_OF.index(pair[1].per), PREFERRED.index(pair[1].statistic)))
        dropped += [heading.name for _, heading in same[1:]]
        kept.append(same[0])
    marked: list[tuple[int, Heading]] = []
    for (field_of,), several in gathered_by(kept, lambda h: (h.field,)):
        programs = {heading.tags.get("engine") or heading.rest for _, heading in several}
        bare = {tuple(sorted(heading.tags.items())) for _, heading in several}
        for index, heading in several:
            tags = dict(heading.tags)
            if len(programs) > 1 and heading.rest and field_of in _MAIN:
                tags["engine"] = "-".join([*filter(None, [tags.get("engine")]), *heading.rest])
            elif len(programs) > 1 and heading.rest and len(bare) < len(several):
                dropped.append(heading.name)
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
