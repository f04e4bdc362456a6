"""The tables in a text: of Markdown, of the lines of a log, or the whole text as a CSV."""

import re
from collections.abc import Iterator, Sequence

from bench.errors import TensorgapError
from jobs.report.foreign import optimum
from jobs.report.foreign.grid import (
    BARS,
    MOST_LINES,
    SAMPLE_LINES,
    Grid,
    gpu_above,
    of_csv,
    of_markdown,
    parts_of,
)
from jobs.report.foreign.headers import heading_of

MOST_COLUMNS = 1000
_PAIR = re.compile(r"([\w%]+)=([-+.\w]+)")
_SAID = re.compile(
    r"([\w .()/+=-]{2,60}?)\s*[:=]\s*(\d[\d.,]*\s*(?:[mun\u00b5]?s|sec|seconds|tok\w*/s|it/s))"
)
_KEYED = re.compile(r"([A-Za-z][\w .()/%-]{0,60}?)\s*[:=]\s*(\S.{0,60})")  # dtype: fp16
_BETWEEN = re.compile(r"\s+\|\s+|,\s+|;\s+|\s{2,}")  # such pairs in a line
_MOST_OF_LOG, _LONGEST_OF_LOG = 20_000, 400  # lines, and characters of one
_LEAST_OF_LOG = 0.2  # of the lines that are written
_LEAST_OF_REPORT = 0.6


def grids(text: str, name: str) -> list[Grid]:
    """The tables in a text: those of Markdown where there are any, or else the whole text.

    Raises TensorgapError where it holds no table, or more than is read.
    """
    text = text.translate(BARS)
    rows = [row.rstrip("\r") for row in text.split("\n")]
    found = (
        list(of_markdown(rows))
        or list(of_log(rows))
        or [of_csv(part, name) for part in parts_of(text)]
    )
    for grid in found:
        if len(grid.names) > MOST_COLUMNS:
            raise TensorgapError(
                f"{name}: {len(grid.names):,} columns; at most {MOST_COLUMNS} are read; keep those"
                " that say what was measured (tensorgap explain --help)"
            )
        if len(grid.lines) > MOST_LINES:
            raise TensorgapError(
                f"{name}: more than {MOST_LINES:,} rows; split the table, or summarise its runs"
            )
    return [optimum.of_table(grid) or grid for grid in found]


def of_log(rows: Sequence[str]) -> Iterator[Grid]:
    """The lines `[Pytorch (FP32)] mean=6.31ms, sd=1.32ms` or `tf fp32 time: 20.79 ms` of a log.

    A table of the former has a column for each key, one of the latter the unit's quantity.
    """
    if len(rows) > _MOST_OF_LOG:
        return
    if whole := of_pairs(rows) or of_report(rows):
        yield whole
        return
    lines: list[tuple[int, str, dict[str, str]]] = []
    for number, row in enumerate(rows):
        told = row.strip().strip("*# ")[:_LONGEST_OF_LOG]
        pairs = dict(_PAIR.findall(told[told.find("]") + 1 :])) if told.startswith("[") else {}
        if len(pairs) > 1:
            lines.append((number, told[1 : told.find("]")], pairs))
        elif found := _SAID.fullmatch(told):
            lines.append((number, found[1].strip(), {"": found[2]}))
    written = sum(bool(row.strip()) for row in rows)
    if len(lines) < 2 or len(lines) < _LEAST_OF_LOG * min(written, SAMPLE_LINES):
        return
    by_line, gpu, last = [], "", 0
    for number, _, _ in lines:
        gpu = gpu_above(rows[last:number]) or gpu
        by_line.append(gpu)
        last = number
    keys = list(dict.fromkeys(key for _, _, pairs in lines for key in pairs))
    heads = [f"latency {key}" if key and "=" not in key else key for key in keys]
    for about in dict.fromkeys(by_line):
        cells = tuple(
            (n + 1, (label, *(pairs.get(key, "") for key in keys)))
            for (n, label, pairs), named in zip(lines, by_line, strict=True)
            if named == about
        )
        heads_of = ("configuration", *heads)
        yield Grid(heads_of, cells, "lines of a log", written - len(lines), about)
        written = len(lines)


def of_pairs(rows: Sequence[str]) -> Grid | None:
    """The lines `Model: gpt2 | dtype: fp16 | latency: 11.8 ms` of a log, each a configuration."""
    lines: list[tuple[int, dict[str, str]]] = []
    for number, row in enumerate(rows):
        parts = _BETWEEN.split(row.strip()[:_LONGEST_OF_LOG])
        pairs = [found for part in parts if (found := _KEYED.fullmatch(part.strip()))]
        if len(pairs) > 1 and len(pairs) == len(parts):
            lines.append((number, {pair[1].strip(): pair[2].strip() for pair in pairs}))
    written = sum(bool(row.strip()) for row in rows)
    if len(lines) < 2 or len(lines) < _LEAST_OF_LOG * min(written, SAMPLE_LINES):
        return None
    names = tuple(dict.fromkeys(name for _, pairs in lines for name in pairs))
    if not any(heading_of(name).is_quantity for name in names):
        return None
    cells = tuple((n + 1, tuple(pairs.get(name, "") for name in names)) for n, pairs in lines)
    gpu = gpu_above(rows[: lines[0][0]])
    return Grid(names, cells, "lines of a log", written - len(lines), gpu)


def of_report(rows: Sequence[str]) -> Grid | None:
    """A report of a single run, with a number in each line: `Mean TTFT (ms):   32.5`."""
    pairs: dict[str, str] = {}
    drawn = 0
    for row in rows:
        found = _KEYED.fullmatch(row.strip()[:_LONGEST_OF_LOG])
        told = row.strip()
        is_title = told.startswith(("===", "---"))
        drawn += bool(told) and (is_title or not any(one.isalnum() for one in told))
        if found and "|" not in row and "," not in found[2]:
            pairs.setdefault(found[1].strip(), found[2].strip())
    written = sum(bool(row.strip()) for row in rows) - drawn
    fields = {heading.field for heading in map(heading_of, pairs) if heading.is_quantity}
    if len(pairs) < max(3, _LEAST_OF_REPORT * written) or len(fields) < 2:
        return None
    line = (1, tuple(pairs.values()))
    return Grid(tuple(pairs), (line,), "a report of one run", max(0, written - len(pairs)))
