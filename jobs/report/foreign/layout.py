"""Grids set upright: a column for each quantity, and a line for each thing.

A table may stand on its side (a line for each metric), be long (columns `metric` and `value`), have
two heads, decimal commas, or a precision as columns of 0 and 1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.report.foreign.columns import LOOKED_AT, refined
from jobs.report.foreign.grid import Grid
from jobs.report.foreign.headers import Heading, heading_of
from jobs.report.foreign.vocabulary import LABELS, STATISTIC

_MOST_ON_ITS_SIDE = 60  # lines of a table whose columns are configurations
_ON = {"1", "true", "yes", "on"}
_FLAGS = _ON | {"0", "false", "no", "off"}
_DOMAIN = re.compile(r"(nvidia_gpu|package|core|dram|uncore)_\d+")  # of a log of pyJoules
# A column of emissions.csv -> what it holds, and its unit.
_CODECARBON: Mapping[str, tuple[str, str | None]] = {
    "gpu_energy": ("energy_mj", "kwh"),
    "duration": ("duration_s", "s"),
    "gpu_model": ("gpu", None),
    "project_name": ("configuration", None),
}
_DECIMAL_COMMA = re.compile(r"[~\u2248]?-?\d+,(\d{1,2}|\d{4,})( ?[a-zA-Z/%]+)?")
_POINT = re.compile(r"\d\.\d")


def energy_log(grid: Grid) -> list[Heading] | None:
    """The headings of a log of energies, of which each line is one run; None: it is no such log.

    pyJoules writes timestamp, tag, duration and a column for each meter; codecarbon's emissions.csv
    has seconds and kWh.
    """
    if {"emissions", "energy_consumed", "duration"} <= set(grid.names):
        return [Heading(name, *_CODECARBON.get(name, ("ratio", None))) for name in grid.names]
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


def turned(grid: Grid) -> Grid:
    """The grid with its columns as lines; the header becomes a column of its own."""
    heads = [cells[0] for _, cells in grid.lines]
    lines = tuple(
        (1, (name, *(cells[index] for _, cells in grid.lines)))
        for index, name in enumerate(grid.names)
        if index
    )
    return replace(grid, names=("configuration", *heads), lines=lines)


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
        if any(_DECIMAL_COMMA.fullmatch(row[index]) for _, row in grid.lines[:LOOKED_AT])
        and not any(_POINT.search(row[index]) for _, row in grid.lines[:LOOKED_AT])
    ]
    if not commas:
        return grid
    lines = tuple(
        (n, tuple(c.replace(",", ".") if i in commas else c for i, c in enumerate(row)))
        for n, row in grid.lines
    )
    return replace(grid, lines=lines)


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
