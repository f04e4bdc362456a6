"""The lines of a log that say what was measured, in the forms that people print.

`[Pytorch (FP32)] mean=6.31ms, sd=1.32ms` and `tf fp32 time: 20.79 ms` are a configuration each, and
so is `Model: gpt2 | dtype: fp16 | latency: 11.8 ms`; a report has a number of one run in each line.
"""

import re
from collections.abc import Iterator, Sequence

from jobs.report.foreign import (
    blocks,
    codecarbon,
    dicts,
    energies,
    llama,
    megatron,
    series,
    serving,
    webui,
)
from jobs.report.foreign.blocks import by_unit
from jobs.report.foreign.grid import MOST_COLUMNS, SAMPLE_LINES, Grid, gpu_above, written_in
from jobs.report.foreign.headers import heading_of

_PAIR = re.compile(r"([\w%]+)=([-+.\w]+)")
_SAID = re.compile(
    r"([\w .()/+=-]{2,60}?)\s*[:=]\s*"
    r"(\d[\d.,]*\s*(?:[mun\u00b5]?s|sec|seconds|(?:k\s)?tok\w*/s|it/s))(?:/per)?"
)
_EACH = re.compile(
    r"([\w .()/+=-]{2,60}?)\s*[:=]\s*(\d[\d.,]*\s*[A-Za-z\u00b5][\w/ ]{0,16}(?:,\s+\d.{1,24})+)"
)
_STATISTIC = re.compile(r"(\w+(?:\(\d+%\))?) ?= ?([\d.]+(?: ?[a-z]{1,3})?)(?:, |$)")  # min = 1.2 ms
_TAGGED = re.compile(r"^(\[[^\]]{1,40}\]\s*)+")  # [11/28/2026-10:03:11] [I]
_KEYED = re.compile(r"([A-Za-z][\w .()/%-]{0,60}?)\s*[:=]\s*(\S.{0,60})")  # dtype: fp16
_BETWEEN = re.compile(r"\s+\|\s+|,\s+|;\s+|\s{2,}")  # such pairs in a line
_MOST_OF_LOG, _LONGEST_OF_LOG = 20_000, 400  # lines, and characters of one
_LEAST_OF_LOG = 0.2  # of the lines that are written
_LEAST_OF_REPORT = 0.6
_OF_PROGRAMS = (
    dicts.of_log,
    serving.of_report,
    llama.of_timings,
    energies.of_log,
    megatron.of_log,
    series.of_log,
    webui.of_log,
)


def of_log(rows: Sequence[str]) -> Iterator[Grid]:
    """The tables of a log, by the first reader that knows its form."""
    if len(rows) > _MOST_OF_LOG:
        return
    yield from of_program(["" if codecarbon.is_line(row) else row for row in rows])
    if found := codecarbon.of_log(rows):
        yield found


def of_program(rows: Sequence[str]) -> Iterator[Grid]:
    """The tables of the log of one program."""
    readers = (*_OF_PROGRAMS, of_keyed, blocks.of_log, of_report)
    if whole := next((grid for reader in readers if (grid := reader(rows))), None):
        yield whole
        return
    if found := list(of_lines(rows)):
        yield from found
    elif one := blocks.of_log(rows, alone=True):
        yield one


def of_lines(rows: Sequence[str]) -> Iterator[Grid]:
    """A table of lines that each say what one configuration measured, for each GPU above them.

    That of `[Pytorch (FP32)] mean=6.31ms, sd=1.32ms` has a column for each key, one of `tf fp32
    time: 20.79 ms` the unit's quantity.
    """
    lines: list[tuple[int, str, dict[str, str]]] = []
    for number, row in enumerate(rows):
        told = row.strip().strip("*# ")[:_LONGEST_OF_LOG]
        pairs = dict(_PAIR.findall(told[told.find("]") + 1 :])) if told.startswith("[") else {}
        if len(pairs) > 1:
            lines.append((number, told[1 : told.find("]")], pairs))
        elif found := _SAID.fullmatch(told):
            lines.append((number, found[1].strip(), {"": found[2]}))
        elif found := _EACH.fullmatch(told):  # fp32: 139.2 it/s, 350 W
            lines.append((number, found[1].strip(), by_unit(found[2])))
    written = written_in(rows)
    if len(lines) < 2 or len(lines) < _LEAST_OF_LOG * min(written, SAMPLE_LINES):
        return
    by_line, gpu, last = [], "", 0
    for number, _, _ in lines:
        gpu = gpu_above(rows[last:number]) or gpu
        by_line.append(gpu)
        last = number
    keys = list(dict.fromkeys(key for _, _, pairs in lines for key in pairs))
    if len(keys) > MOST_COLUMNS:
        return
    bare = [key and "=" not in key and not heading_of(key).is_quantity for key in keys]
    heads = [f"latency {k}" if is_bare else k for k, is_bare in zip(keys, bare, strict=True)]
    for about in dict.fromkeys(by_line):
        cells = tuple(
            (n + 1, (label, *(pairs.get(key, "") for key in keys)))
            for (n, label, pairs), named in zip(lines, by_line, strict=True)
            if named == about
        )
        heads_of = ("configuration", *heads)
        yield Grid(heads_of, cells, "lines of a log", written - len(lines), about)
        written = len(lines)


def of_keyed(rows: Sequence[str]) -> Grid | None:
    """The lines `Model: gpt2 | dtype: fp16 | latency: 11.8 ms` of a log, each a configuration."""
    lines: list[tuple[int, dict[str, str]]] = []
    for number, row in enumerate(rows):
        parts = _BETWEEN.split(row.strip()[:_LONGEST_OF_LOG])
        pairs = [found for part in parts if (found := _KEYED.fullmatch(part.strip()))]
        if len(pairs) > 1 and len(pairs) == len(parts):
            lines.append((number, {pair[1].strip(): pair[2].strip() for pair in pairs}))
    written = written_in(rows)
    if len(lines) < 2 or len(lines) < _LEAST_OF_LOG * min(written, SAMPLE_LINES):
        return None
    names = tuple(dict.fromkeys(name for _, pairs in lines for name in pairs))
    if len(names) > MOST_COLUMNS or not any(heading_of(name).is_quantity for name in names):
        return None
    cells = tuple((n + 1, tuple(pairs.get(name, "") for name in names)) for n, pairs in lines)
    gpu = gpu_above(rows[: lines[0][0]])
    return Grid(names, cells, "lines of a log", written - len(lines), gpu)


def of_report(rows: Sequence[str]) -> Grid | None:
    """A report of a single run, with a number in each line: `Mean TTFT (ms):   32.5`."""
    pairs: dict[str, str] = {}
    drawn = 0
    for row in rows:
        told = _TAGGED.sub("", row.strip()[:_LONGEST_OF_LOG])
        found = _KEYED.match(told)
        statistics = _STATISTIC.findall(told.partition(":")[2].strip())
        if found and len(statistics) > 1:  # of trtexec: Latency: min = 1.2 ms, median = 1.3 ms
            for statistic, value in statistics:
                pairs.setdefault(f"{found[1].strip()} {statistic}", value)
            continue
        found = _KEYED.fullmatch(told)
        is_title = told.startswith(("===", "---"))
        drawn += bool(told) and (is_title or not any(one.isalnum() for one in told))
        if found and "|" not in row and "," not in found[2]:
            pairs.setdefault(found[1].strip(), found[2].strip())
    if len(pairs) > MOST_COLUMNS:
        return None
    written = written_in(rows) - drawn
    fields = {heading.field for heading in map(heading_of, pairs) if heading.is_quantity}
    if len(pairs) < max(3, _LEAST_OF_REPORT * written) or len(fields) < 2:
        return None
    line = (1, tuple(pairs.values()))
    return Grid(tuple(pairs), (line,), "a report of one run", max(0, written - len(pairs)))
