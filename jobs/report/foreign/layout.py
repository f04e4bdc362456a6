"""Grids set upright: a column for each quantity, and a line for each thing.

A table may stand on its side (a line for each metric), be long (columns `metric` and `value`), have
two heads, decimal commas, or a precision as columns of 0 and 1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.report.foreign import units
from jobs.report.foreign.columns import LOOKED_AT, refined
from jobs.report.foreign.grid import SEPARATORS, Grid
from jobs.report.foreign.headers import Heading, heading_of, headings_of
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
_DECIMAL_COMMA = re.compile(
    r"[~\u2248]?-?(\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+)( ?[a-zA-Z/%]+)?"
)
_COMMA = re.compile(
    r"[~\u2248]?-?(\d+|\d{1,3}(\.\d{3})+),\d+( ?[a-zA-Z/%]+)?"
)  # of a file of semicolons
_GROUPED = re.compile(r"[~\u2248]?-?\d{1,3}(\.\d{3})+(,\d+)?( ?[a-zA-Z/%]+)?")
_PARTS = re.compile(r"(?:\s*[/|]\s*|,\s+)(?=[~\u2248]?\d|OOM|-(?!\S)|N/?A\b)", re.IGNORECASE)
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
        if index and heading_of(name).field != "ratio"
    )
    return replace(grid, names=("configuration", *heads), lines=lines)


def with_one_head(grid: Grid) -> Grid:
    """The grid with the statistics of a second head (pandas writes such) in its first."""
    if not grid.lines:
        return grid
    (_, second), *lines = grid.lines
    told = [text for text in second if text]
    if spans := spanned(grid.names, second):
        return replace(grid, names=spans, lines=tuple(lines))
    if not told or not all(text.lower() in STATISTIC for text in told):
        return grid
    heads = tuple(f"{one} {two}".strip() for one, two in zip(grid.names, second, strict=True))
    if lines and not any(lines[0][1][1:]):  # the name of the first column alone
        heads = (lines[0][1][0], *heads[1:])
        lines = lines[1:]
    return replace(grid, names=heads, lines=tuple(lines))


def parted(grid: Grid) -> Grid:
    """The grid with a column for each part of what holds several: `Latency / Throughput`.

    Each cell that says something has as many numbers as the name has parts.
    """
    heads_of = {name: heads for name in grid.names if len(heads := parts_of_name(name)) > 1}
    if not heads_of:
        return grid
    columns: list[tuple[str, list[str]]] = []
    for index, name in enumerate(grid.names):
        cells = [row[index] for _, row in grid.lines]
        heads = heads_of.get(name, [name])
        told = [[cell] * len(heads) if says_nothing(cell) else _PARTS.split(cell) for cell in cells]
        if all(len(parts) == len(heads) for parts in told) and not all(map(says_nothing, cells)):
            columns += [(head, [parts[at] for parts in told]) for at, head in enumerate(heads)]
        else:
            columns.append((name, cells))
    lines = zip(*(cells for _, cells in columns), strict=True)
    numbered = tuple((number, cells) for (number, _), cells in zip(grid.lines, lines, strict=True))
    return replace(grid, names=tuple(name for name, _ in columns), lines=numbered)


def says_nothing(cell: str) -> bool:
    """Whether a cell is empty, or says that all of it failed."""
    return units.is_empty(cell) or (units.failure(cell) is not None and not _PARTS.search(cell))


def parts_of_name(name: str) -> list[str]:
    """The parts of a name that stands for several columns; a unit behind all is that of each.

    >>> parts_of_name("Latency / Throughput"), parts_of_name("fp32 / fp16 (ms)")
    (['Latency', 'Throughput'], ['fp32 (ms)', 'fp16 (ms)'])
    >>> parts_of_name("tok/s"), parts_of_name("Energy (J/tok)")
    (['tok/s'], ['Energy (J/tok)'])
    """
    if listed := re.fullmatch(r"(.*)\(([^()]*,[^()]*)\)", name):  # Main (requests/s, tokens/s)
        parts = [f"{listed[1]}({part.strip()})" for part in listed[2].split(",")]
        return parts if all(heading_of(part).is_quantity for part in parts) else [name]
    parts = [part.strip() for part in re.split(r"[/|](?![^(\[]*[)\]])", name)]
    unit = re.search(r"[(\[][^()\[\]]*[)\]]$", parts[-1])
    if unit and not any(heading_of(part).unit for part in parts[:-1]):
        parts = [*(f"{part} {unit[0]}" for part in parts[:-1]), parts[-1]]
    return parts if all(heading_of(part).is_quantity for part in parts) else [name]


def spanned(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...] | None:
    """One head of two, of which the first names several columns at once; None: it does not.

    >>> spanned(["", "fp32", "", "fp16", ""], ["batch", "ms", "power (W)", "ms", "power (W)"])
    ('batch', 'fp32 ms', 'fp32 power (W)', 'fp16 ms', 'fp16 power (W)')
    """
    known = [heading_of(name) for name in second]
    if not all(second) or sum(one.is_quantity for one in known) < len(second) / 2:
        return None
    if "" not in first[1:] and len({*first}) == len(first):
        return None
    above = from_above(first)
    return tuple(
        name if one.field in LABELS else f"{whom} {name}".strip()
        for whom, name, one in zip(above, second, known, strict=True)
    )


def with_points(grid: Grid) -> Grid:
    """The grid with decimal points where a column has decimal commas: `11,7`, `1.021,5`.

    A file whose cells stand between semicolons has them throughout, if anywhere.
    """
    semicolons = grid.separator == SEPARATORS[";"]
    columns = [
        [row[index] for _, row in grid.lines[:LOOKED_AT] if row[index][-1:].isalnum()]
        for index in range(len(grid.names))
    ]
    comma = _COMMA if semicolons else _DECIMAL_COMMA
    commas = [
        any(comma.fullmatch(cell) for cell in cells)
        and not any(_POINT.search(cell) and not _GROUPED.fullmatch(cell) for cell in cells)
        for cells in columns
    ]
    if not any(commas):
        return grid
    if semicolons:
        commas = [
            found or (bool(cells) and all(_GROUPED.fullmatch(c) or "." not in c for c in cells))
            for found, cells in zip(commas, columns, strict=True)
        ]

    def pointed(cell: str) -> str:
        cell = cell.replace(".", "") if _GROUPED.fullmatch(cell) else cell
        return cell.replace(",", ".")

    lines = tuple(
        (n, tuple(pointed(c) if commas[i] else c for i, c in enumerate(row)))
        for n, row in grid.lines
    )
    return replace(grid, lines=lines)


def from_above(cells: Sequence[str]) -> list[str]:
    """Cells, of which each empty one is that before it.

    >>> from_above(["gpt2", "", "gpt2-medium"])
    ['gpt2', 'gpt2', 'gpt2-medium']
    """
    found: list[str] = []
    for cell in cells:
        found.append(cell or (found[-1] if found else ""))
    return found


def filled_down(grid: Grid, headings: Sequence[Heading]) -> tuple[Grid, list[str]]:
    """The grid with empty names filled from above, and the names of these columns.

    As in a table whose groups are named once. Only where it leaves no two lines of equal names.
    """
    if grid.of_records:
        return grid, []
    labels = [
        i
        for i, h in enumerate(headings)
        if h.field in LABELS and h.field not in ("run", "trial", "value", "energy_methods")
    ]
    others = [i for i, h in enumerate(headings) if h.field is None]
    columns = {i: [row[i] for _, row in grid.lines] for i in (*labels, *others)}
    gaps = [i for i, cells in columns.items() if cells and cells[0] and not all(cells)]
    labels += [i for i in gaps if i == 0 and i in others]  # of groups, whatever they are
    if not set(gaps) & set(labels):
        return grid, []
    for i in gaps:
        columns[i] = from_above(columns[i])
    names = list(zip(*(columns[i] for i in labels), strict=True))
    if len(set(names)) < len(names):
        return grid, []
    lines = tuple(
        (number, tuple(columns[i][at] if i in gaps else cell for i, cell in enumerate(row)))
        for at, (number, row) in enumerate(grid.lines)
    )
    return replace(grid, lines=lines), [grid.names[i] for i in gaps if i in labels]


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
    return wide, refined(headings_of(wide.names), wide.lines)
