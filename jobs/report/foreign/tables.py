"""The tables in a text: of LaTeX or Markdown, of the lines of a log, or the whole text as a CSV."""

import csv
import itertools
import re
from collections.abc import Sequence

from bench.errors import TensorgapError
from jobs.report.foreign import bare, codecarbon, lm_eval, logs, programs, tgi
from jobs.report.foreign.grid import (
    BARS,
    MOST_COLUMNS,
    MOST_LINES,
    SAMPLE_LINES,
    Grid,
    of_csv,
    of_markdown,
    parts_of,
)
from jobs.report.foreign.headers import heading_of
from jobs.report.foreign.latex import of_latex

_LONGEST = 400  # characters of a line that are looked at
_LONGEST_HEAD = 20_000
_SENTENCE = 6  # words, or more: no name of a column
_NO_NAME = re.compile(r"[:=]|\d\.\d")  # a part of a line of a log, and no name of a column
_CELL = re.compile(r"[,;\t|]| {2,}")
_NUMBER = re.compile(r"\d\.\d|:\s\S")
_BARE = re.compile(r"([A-Za-z][^:=]{1,60}?)\s{0,9}[:=]\s{0,9}(\d[\d.]{0,20})")  # py fp32: 21.78
_UNCOUNTED = re.compile(r"(\w[\w .-]{0,40}?)[\s:=]{1,9}(\d[\d.,]{0,15} ?[kK]?)/s(?:ec)?")  # 7.5k/s
_VALUE = re.compile(r".{0,80}[:=]\s{0,9}\S|.{0,80}\d ?[A-Za-z]{1,3}\b.{0,80} \w")


def grids(text: str, name: str) -> list[Grid]:
    """The tables in a text: those of LaTeX or Markdown where there are any, or the whole text.

    Raises TensorgapError where it holds no table, or more than is read.
    """
    text = text.translate(BARS)
    rows = [row.rstrip("\r") for row in text.split("\n")]
    found = list(of_latex(rows)) or list(of_markdown(rows))
    if not found and not is_csv(rows):
        found = list(logs.of_log(rows))
    found = found or of_whole(text, name)
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
    tables = [programs.of_table(grid, name) for grid in of_lm_eval(tgi.of_tables(found), name)]
    return [bare.named(grid, rows) for grid in tables]


def is_csv(rows: Sequence[str]) -> bool:
    """Whether the first line names columns between commas, semicolons or tabs.

    >>> is_csv(["precision,latency_ms", "fp32,11.7"]), is_csv(["dtype: fp16, latency: 11 ms"])
    (True, False)
    """
    first, second, *_ = [*(row for row in rows[:SAMPLE_LINES] if row.strip()), "", ""]
    for separator in ",;\t":
        two = [first[:_LONGEST_HEAD], second[:_LONGEST_HEAD]]
        read = list(csv.reader(two, delimiter=separator))
        names = read[0] if len(read) > 1 and len(read[0]) == len(read[1]) > 1 else []
        if names and not any(_NO_NAME.search(name) for name in names):
            return any(heading_of(name).is_quantity for name in names[:MOST_COLUMNS])
    return False


def of_lm_eval(found: Sequence[Grid], name: str) -> list[Grid]:
    """The tables, of which those that lm-eval printed have a line for each perplexity.

    Raises TensorgapError where all are lm-eval's, and none has a perplexity.
    """
    tables = []
    for grid in found:
        if not lm_eval.is_table(grid):
            tables.append(grid)
        else:
            tables += lm_eval.of_table(grid)
    if not tables:
        raise TensorgapError(f"{name}: {lm_eval.WITHOUT}")
    return tables


def of_whole(text: str, name: str) -> list[Grid]:
    """A text as one table, or as one for each of its heads; TensorgapError where it is none."""
    bare = [
        found for row in text.split("\n")[:SAMPLE_LINES] if (found := _BARE.fullmatch(row.strip()))
    ]
    if len(bare) > 1 and not any(heading_of(found[1]).is_quantity for found in bare):
        label, number = bare[0].groups()
        raise TensorgapError(
            f"{name}: `{bare[0][0]}` does not say what its number is; write it behind the name and"
            f" its unit behind it, such as `{label} latency: {number} ms` or"
            f" `{label} throughput: {number} tok/s`"
        )
    if problem := uncounted(text):
        raise TensorgapError(f"{name}: {problem}")
    others = codecarbon.without(text)
    if others != text and (not others.strip() or is_prose(others)):
        raise TensorgapError(f"{name}: {codecarbon.WITHOUT}")
    text = others
    if is_prose(text):
        raise TensorgapError(
            f"{name}: neither a table nor a log that is known; looked for a first line that names"
            " the columns, such as precision,latency_ms,energy_mj,throughput,perplexity, and for"
            " lines such as `fp16 latency: 10.4 ms` or `[FP16] Time: 0.26s`"
        )
    return [of_csv(part, name) for part in parts_of(text)]


def uncounted(text: str) -> str | None:
    """Why lines such as `A10  7.5k/s` are not read; None: there are none, or a head above them."""
    above = ""
    found = []
    for row in text.split("\n")[: 4 * SAMPLE_LINES]:
        told = row.strip()[:_LONGEST]
        if one := _UNCOUNTED.fullmatch(told):
            found.append(one)
        elif told and not found:
            above = told
    head = _CELL.split(above)
    if len(found) < 2 or (len(head) > 1 and heading_of(head[-1]).is_quantity):
        return None
    label, number = found[0].groups()
    return (
        f"`{' '.join(found[0][0].split())}` does not say what is counted; tokens, samples and"
        " batches are read, and no characters or words; where it is one of them, write each line"
        f" such as `{label} throughput: {number.strip()} tok/s`"
    )


def is_prose(text: str) -> bool:
    r"""Whether no line of the begin of a text can be one that names columns.

    >>> is_prose("precision,latncy\nfp32,11.7"), is_prose("It took 3 s on my GPU: nice")
    (False, True)
    """
    said = [row for row in text.split("\n")[: 4 * SAMPLE_LINES] if row.strip(" \t#*=-")]
    rows = [row for row in said if not row.startswith("#")][:SAMPLE_LINES]
    parts = [_CELL.split(row[:1000]) for row in rows]
    for cells, below in itertools.pairwise([*parts, []]):
        same = len(cells) == len(below) > 1
        heads = [one for one in cells[:MOST_COLUMNS] if same or len(one.split()) <= _SENTENCE]
        if any(heading_of(one).is_quantity for one in heads if not _NUMBER.search(one)):
            return False
    first = [one for row in parts[:1] for one in row]
    return any(len(one.split()) > _SENTENCE or _VALUE.match(one.strip()) for one in first)
