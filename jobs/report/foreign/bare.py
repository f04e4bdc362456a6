"""Tables whose columns are named by what was run, and not by what was measured.

The cells have their units (`in=1,out=64 | 3532 it/s`), or a line above says what they hold (`Total
inference time for one batch:` above `mb=1 | mb=2`, `WikiText2 perplexity` above `7B | 13B`).
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from jobs.report.foreign import names, title, units
from jobs.report.foreign.columns import cell_unit, is_precision, most, refined, told_by
from jobs.report.foreign.grid import Grid, Line
from jobs.report.foreign.headers import heading_of, headings_of
from jobs.report.foreign.layout import lies_on_its_side
from jobs.report.foreign.vocabulary import RATIO

_MOST_LINES = 1_000  # of such a table, which people write by hand
_MOST_CELLS = 10_000
_ABOVE = 40  # lines above a table that may say the unit of its times
_LONGEST, _MOST_WORDS = 400, 26  # characters of a line, and words of a sentence
_SIZE = re.compile(r"\d{1,4}(?:\.\d{1,3})? ?[BM]", re.IGNORECASE)
_TIMES_IN = re.compile(
    r"\b(?:times?|latency|latencies) (?:(?:is|are|given|measured|reported) ){0,2}in"
    r" (ms|milliseconds?|s|sec|seconds?|us|microseconds?)\b",
    re.IGNORECASE,
)
_PERPLEXITY = re.compile(r"\b(?:perplexity|perplexities|ppl)\b", re.IGNORECASE)
_BESIDE = {"one", "each", "every", "single", "batch", "overall", "results", "result", "comparison"}
_NAMED_BY = {"time": "latency", "rate": "throughput", "energy": "energy", "power": "power"}


def named(grid: Grid, rows: Sequence[str]) -> Grid:
    """The grid with a column of what was measured, where one is not and its cells or text say it.

    `rows` are the lines of the whole text.
    """
    several = 0 < len(grid.lines) <= _MOST_LINES and len(grid.names) > 1
    if not several or len(grid.lines) * len(grid.names) > _MOST_CELLS or lies_on_its_side(grid):
        return grid
    grid = with_first_named(grid)
    if any(heading.is_quantity for heading in refined(headings_of(grid.names), grid.lines)):
        return grid
    if found := by_units(grid):
        return found
    quantity = quantity_of(grid.title, rows[max(0, grid.lines[0][0] - _ABOVE) : grid.lines[0][0]])
    return by_text(grid, quantity) if quantity else grid


def by_units(grid: Grid) -> Grid | None:
    """A line for each cell that has a unit, where all such are of one kind; None: they are not."""
    kinds = {i: kind for i in range(len(grid.names)) if (kind := kind_of(grid, i))}
    if len({*kinds.values()}) != 1 or not kinds or len(kinds) == len(grid.names):
        return None
    (kind,) = {*kinds.values()}
    return melted(grid, list(kinds), "configuration", list(grid.names), kind)


def kind_of(grid: Grid, index: int) -> str | None:
    """What the units of a column's cells measure, where its name says nothing of it."""
    cells = told_by(grid.lines, index)
    kinds = {_NAMED_BY.get(unit.dimension) for cell in cells if (unit := cell_unit(cell))}
    if heading_of(grid.names[index]).field is not None or not most(cells, cell_unit):
        return None
    return kinds.pop() if len(kinds) == 1 else None


def by_text(grid: Grid, quantity: str) -> Grid:
    """The grid whose columns of bare numbers hold what the text above it says."""
    others = range(1, len(grid.names))
    beside = "" if grid.separator == "bars" else f"{grid.separator}; "
    said = f"{beside}{quantity}, by the text above it"
    if all(_SIZE.fullmatch(grid.names[i].strip()) and is_bare(grid, i) for i in others):
        family = title.model_in(grid.names[0])
        models = [f"{family}-{name}" if family else name for name in grid.names]
        found = melted(grid, list(others), "model", models, quantity)
        first = "configuration" if family else grid.names[0]
        return replace(found, names=(first, *found.names[1:]), separator=said)
    if not all(heading_of(grid.names[i]).tags and is_bare(grid, i) for i in others):
        return grid
    heads = (grid.names[0], *(title.of_quantity(name, quantity) for name in grid.names[1:]))
    return replace(grid, names=heads, separator=said)


def is_bare(grid: Grid, index: int) -> bool:
    """Whether the cells of a column are numbers without units."""
    cells = told_by(grid.lines, index)
    numbers = [units.number_of(cell) for cell in cells]
    return bool(cells) and all(one and (not one.rest or one.rest in units.TIMES) for one in numbers)


def with_first_named(grid: Grid) -> Grid:
    """The grid, whose first column has a name where it has none and its cells are distinct names.

    Without one, its lines would be runs of one thing.
    """
    cells = [row[0] for _, row in grid.lines]
    if grid.names[0] or len({*cells}) < len(cells) or any(map(units.number_of, cells)):
        return grid
    first = "precision" if are_precisions(grid) else "configuration"
    return replace(grid, names=(first, *grid.names[1:]))


def are_precisions(grid: Grid) -> bool:
    """Whether the lines of a table are named by precisions, and what is derived from them."""
    cells = [row[0] for _, row in grid.lines]
    of_precisions = [cell for cell in cells if is_precision(cell)]
    others = [names.words_of(cell) for cell in cells if cell not in of_precisions]
    return len(of_precisions) > 1 and all(not RATIO.isdisjoint(words) for words in others)


def melted(
    grid: Grid, columns: Sequence[int], label: str, labels: Sequence[str], quantity: str
) -> Grid:
    """A line for each cell of some columns, whose names are cells of a column of their own."""
    rest = [i for i in range(len(grid.names)) if i not in columns]
    lines: list[Line] = [
        (number, (*(row[i] for i in rest), labels[column], row[column]))
        for number, row in grid.lines
        for column in columns
    ]
    heads = (*(grid.names[i] for i in rest), label, quantity)
    return replace(grid, names=heads, lines=tuple(lines))


def quantity_of(text: str, above: Sequence[str]) -> str | None:
    """What the line above a table says that its bare numbers are; None: it does not say it.

    >>> quantity_of("Total inference time for one batch:", ["All times are in s."])
    'latency (s)'
    >>> quantity_of("Total time spent on conv op for one batch:", []) is None
    True
    >>> quantity_of("It is late. Here are the WikiText2 perplexity results for Llama-2.", [])
    'perplexity'
    """
    line = text.partition("\n")[0][:_LONGEST]
    for sentence in re.split(r"(?<=[.;!?:])\s", line):
        if _PERPLEXITY.search(sentence) and len(sentence.split()) <= _MOST_WORDS:
            return "perplexity"
    heading = heading_of(line.rstrip(": "))
    if heading.field != "latency_ms" or set(heading.rest) - _BESIDE:
        return None
    units_of = {found[1].lower() for row in above if (found := _TIMES_IN.search(row[:_LONGEST]))}
    unit = heading.unit or (units_of.pop() if len(units_of) == 1 else None)
    return f"latency ({unit})" if unit else "latency"
