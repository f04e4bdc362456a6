"""A text as a grid of cells: CSV with any separator, or a table of Markdown within a text."""

import collections
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.device import gpu_names
from bench.errors import TensorgapError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MOST_COLUMNS, MOST_LINES = 1000, 100_000
_SAMPLE_LINES = 50
_LEAST_SHARE = 0.4  # of the first lines that are of the table
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")  # below the head of a table
_BARS = str.maketrans("│┃║", "|||")
_BOX = re.compile(r"[\s+|=─━│┃┼╋═║-]*")  # a line that only draws
_RULED = re.compile(r"[=_*~-]{5,}")  # a cell that only draws, as on both sides of a title
_ALIGNED = re.compile(r"(?<=\S) {2,}(?=\S)")  # between the columns of a terminal
_PAIR = re.compile(r"([\w%]+)=([-+.\w]+)")
_SAID = re.compile(
    r"([\w .()/+-]{2,60}?)\s*[:=]\s*(\d[\d.,]*\s*(?:[mun\u00b5]?s|sec|seconds|tok\w*/s|it/s))"
)
_WORDS_OF_A_HEADING = 6
_ABOVE = 60  # lines of text above a table that may name its GPU
_MOST_OF_LOG, _LONGEST_OF_LOG = 20_000, 400  # lines, and characters of one
_LEAST_OF_LOG = 0.2  # of the lines that are written
Line = tuple[int, tuple[str, ...]]  # its number in the file, its cells


@dataclass(frozen=True)
class Grid:
    """Names of columns, and lines of as many cells.

    Attributes:
        separator: What stands between the cells, in words.
        left_out: How many lines around the table are text.
        gpu: That a short line above the table names; empty: none does.
        ragged: How many lines had more cells than there are names, and were set aside.
    """

    names: tuple[str, ...]
    lines: tuple[Line, ...]
    separator: str
    left_out: int = 0
    gpu: str = ""
    ragged: int = 0


def decoded(content: bytes, name: str) -> str:
    """The text of a file, in UTF-8 or what its first bytes say; TensorgapError where in neither."""
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif content[:200].count(0) > len(content[:200]) // 3:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text ({error.reason}); save it as UTF-8"
        if encoding == "utf-8-sig":
            # Of Excel: a degree or a micro sign outside of UTF-8. No control character stands
            # there.
            told = content.decode("cp1252", errors="replace")
            if (
                not {"\0", "\ufffd"} & set(told)
                and sum(not one.isprintable() for one in told) <= len(told) / 10
            ):
                return told
        raise TensorgapError(f"{name}: {reason}") from None


def grids(text: str, name: str) -> list[Grid]:
    """The tables in a text: those of Markdown where there are any, or else the whole text.

    Raises TensorgapError where it holds no table, or more than is read.
    """
    text = text.translate(_BARS)
    rows = [row.rstrip("\r") for row in text.split("\n")]
    found = list(of_markdown(rows)) or list(of_log(rows)) or [of_csv(text, name)]
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
    return found


def of_markdown(rows: Sequence[str]) -> Iterator[Grid]:
    """Each table of Markdown: a line with bars, a rule below it, lines with bars."""
    inside = {
        index
        for index, row in enumerate(rows)
        if "|" in row and index + 1 < len(rows) and is_rule(rows[index + 1])
    }
    used = 0
    found = []
    for begin in sorted(inside):
        lines = [
            (index + 1, cells_of(rows[index]))
            for index in itertools.takewhile(
                lambda index: "|" in rows[index] and index not in inside,
                range(begin + 2, len(rows)),
            )
            if not is_rule(rows[index])
        ]
        names = cells_of(rows[begin])
        used += len(lines) + 2
        found.append((names, lines))
    left_out = sum(bool(row.strip()) for row in rows) - used
    for names, lines in found:
        if lines:
            gpu = gpu_above(rows[: lines[0][0] - 2])
            yield fitted(names, lines, "bars", max(0, left_out), gpu)
            left_out = 0


def of_log(rows: Sequence[str]) -> Iterator[Grid]:
    """The lines `[Pytorch (FP32)] mean=6.31ms, sd=1.32ms` or `tf fp32 time: 20.79 ms` of a log.

    A table of the former has a column for each key, one of the latter the unit's quantity.
    """
    if len(rows) > _MOST_OF_LOG:
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
    if len(lines) < 2 or len(lines) < _LEAST_OF_LOG * min(written, _SAMPLE_LINES):
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


def gpu_above(rows: Sequence[str]) -> str:
    """The GPU that the last short line of some text names; empty: none does."""
    return next((named for row in reversed(rows[-_ABOVE:]) if (named := gpu_named_in(row))), "")


def gpu_named_in(row: str) -> str:
    """The GPU that a short line of text names, such as a heading; empty: none.

    >>> gpu_named_in("### GPU Nvidia RTX 3090"), gpu_named_in("Inference done on Tesla T4")
    ('Nvidia RTX 3090', 'Tesla T4')
    """
    words = re.findall(r"[\w-]+", row[:_LONGEST_OF_LOG])
    if len(words) > _WORDS_OF_A_HEADING:
        return ""
    for count in (3, 2, 1):
        for begin in range(len(words) - count + 1):
            name = " ".join(words[begin : begin + count])
            if words[begin].lower() != "gpu" and gpu_names.is_exactly(name):
                return name
    return ""


def is_rule(row: str) -> bool:
    """Whether a line is the rule below a table's head."""
    return "|" in row and bool(_RULE.fullmatch(row.strip()))


def cells_of(row: str) -> tuple[str, ...]:
    r"""The cells of a line of Markdown.

    >>> cells_of(r"| fp32 | 11.7 \| 12 |")
    ('fp32', '11.7 | 12')
    """
    inner = row.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    cells = re.split(r"(?<!\\)\|", inner)
    return tuple(cell.replace("\\|", "|").strip() for cell in cells)


def of_csv(text: str, name: str) -> Grid:
    """A text with one separator between its cells, which is found by what fits best.

    Lines above the head with fewer cells than the table has, and single words, are text around it.
    """
    separator = separator_of(text)
    told = SEPARATORS[separator or ","]
    if separator is None and _ALIGNED.search(text):
        separator, told = "\t", "columns apart by blanks"
        text = _ALIGNED.sub("\t", "\n".join(line.strip() for line in text.split("\n")))
    try:
        rows = list(rows_of(text, separator or ","))
    except csv.Error as error:
        raise TensorgapError(f"{name}: not a readable table: {error}") from None
    several = [row for row in rows if len(row[1]) > 1]
    usual = collections.Counter(len(cells) for _, cells in several[:_SAMPLE_LINES])
    least = usual.most_common(1)[0][0] if separator and usual else 1
    head = next((at for at, (_, cells) in enumerate(rows) if len(cells) >= least), None)
    if head is None:
        raise TensorgapError(
            f"{name}: it is empty; the first line must name the columns, such as"
            " precision,latency_ms,energy_mj,throughput,perplexity"
        )
    names, below = rows[head][1], rows[head + 1 :]
    lines = [row for row in below if not separator or len(row[1]) > 1]
    counts = {len(cells) for _, cells in lines}
    if len(counts) == 1 and len(lines) > 1 and max(counts) < len(names):
        raise TensorgapError(
            f"{name}: its first line names {len(names)} columns, and each row has {max(counts)}"
            " cells: which are they? Give each column its name"
        )
    left_out = head + len(below) - len(lines)
    return fitted(names, lines, told, left_out)


def rows_of(text: str, separator: str) -> Iterator[Line]:
    """The cells of each line that is neither empty nor only drawn nor a comment above the table."""
    # Its own line ends only: others, such as U+2028, are part of a text.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    for count, row in enumerate(reader):
        cells = tuple(cell.strip() for cell in row)
        if separator == "|":
            cells = cells_of("|".join(cells))
        drawn = any(_RULED.fullmatch(cell) for cell in cells)
        drawn |= separator in "|\t" and bool(_BOX.fullmatch("".join(cells)))
        comment = count < _SAMPLE_LINES and bool(cells) and cells[0].startswith("#")
        if any(cells) and not drawn and not comment:
            yield reader.line_num, cells
        if count > 2 * MOST_LINES:
            return


def fitted(
    names: tuple[str, ...], lines: Iterable[Line], separator: str, left_out: int, gpu: str = ""
) -> Grid:
    """A grid whose lines have as many cells as there are names.

    A line with more cells is set aside: which of them is too much cannot be known.
    """
    count, fitting, ragged = len(names), [], 0
    for number, cells in lines:
        if any(cells[count:]):
            ragged += 1
        else:
            fitting.append((number, tuple(cells[:count]) + ("",) * (count - len(cells))))
    return Grid(names, tuple(fitting), separator, left_out, gpu, ragged)


def separator_of(text: str) -> str | None:
    """The separator that cuts the first lines into the most columns, equally many in each.

    None where there is none.
    """
    begin = "".join(itertools.islice(io.StringIO(text, newline=""), _SAMPLE_LINES))

    def fit(separator: str) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(begin, newline=""), delimiter=separator)
        try:
            counts = [len(row) for row in reader if any(cell.strip() for cell in row)]
        except csv.Error:
            return 0.0, 0
        several = [count for count in counts if count > 1]
        usual = max(set(several), key=several.count, default=0)
        share = several.count(usual) / len(counts) if several else 0.0
        return (round(share, 1), usual) if share > _LEAST_SHARE else (0.0, 0)

    best = max(SEPARATORS, key=fit)
    return best if fit(best)[0] else None
