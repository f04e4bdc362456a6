"""A text as a grid of cells: CSV with any separator, or a table of Markdown within a text."""

import collections
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.device import gpu_names
from bench.errors import TensorgapError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MOST_LINES, MOST_COLUMNS = 100_000, 1000
SAMPLE_LINES = 50
_LEAST_SHARE = 0.4  # of the first lines that are of the table
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")  # below the head of a table
BARS = str.maketrans("│┃║", "|||")
_BOX = re.compile(r"[\s+|=─━│┃┼╋═║-]*")  # a line that only draws
_RULED = re.compile(r"[=_*~-]{5,}")  # a cell that only draws, as on both sides of a title
_ALIGNED = re.compile(r"(?<=\S) {2,}(?=\S)")  # between the columns of a terminal
_WORDS_OF_A_SENTENCE = 30
_CAPTION = re.compile(r"[A-Z][\w ()/-]{2,60}:")  # of a further table with the same head
_TITLES = 15  # lines above a table that may say something of it
_TITLE = re.compile(r"\s*(#{1,6} |[-*]* ?[*_]*[A-Za-z][\w ]{1,24}[*_]*(?:[:=]| = ))")
_MOST_PARTS = 500  # tables of one text
_LONGEST_TEXT = 500  # characters of a cell or of a name of a column
_DIGITS = re.compile(r"[-+\d.eE]+")
_LONGEST_LINE = 400  # characters that are looked at
_ABOVE = 60  # lines of text above a table that may name its GPU
_KEY_OF_GPU = re.compile(
    r"\W{0,4}(?:gpus?|device|hardware|accelerator|card)(?: name| model| type)?\W{0,4}",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9_-]+|[^\W\d_A-Za-z]+")  # one of another script is another word
Line = tuple[int, tuple[str, ...]]  # its number in the file, its cells


@dataclass(frozen=True)
class Grid:
    """Names of columns, and lines of as many cells.

    Attributes:
        separator: What stands between the cells, in words.
        left_out: How many lines around the table are text.
        gpu: That a short line above the table names; empty: none does.
        title: The line right above the table, or else right below it.
        ragged: How many lines had more cells than there are names, and were set aside.
        of_records: It was made of records: what one does not say, the record before it does not
            say for it.
    """

    names: tuple[str, ...]
    lines: tuple[Line, ...]
    separator: str
    left_out: int = 0
    gpu: str = ""
    ragged: int = 0
    title: str = ""
    of_records: bool = False

    @property
    def plain_names(self) -> tuple[str, ...]:
        """The names of the columns in lower case, without blanks around."""
        return tuple(name.strip().lower() for name in self.names)


def bounded(grid: Grid) -> Grid:
    """The grid without the ends of long texts: no name is as long, and no number but of digits."""
    rows = [grid.names, *(row for _, row in grid.lines)]
    if all(len(text) <= _LONGEST_TEXT for row in rows for text in row):
        return grid
    lines = tuple((n, tuple(map(begin_of, row))) for n, row in grid.lines)
    return replace(grid, names=tuple(map(begin_of, grid.names)), lines=lines)


def written_in(rows: Iterable[str]) -> int:
    """How many lines are not empty."""
    return sum(bool(row.strip()) for row in rows)


def begin_of(text: str) -> str:
    """The begin of a long text; a number is not cut."""
    is_short = len(text) <= _LONGEST_TEXT or _DIGITS.fullmatch(text)
    return text if is_short else text[:_LONGEST_TEXT]


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


def of_markdown(rows: Sequence[str]) -> Iterator[Grid]:
    """Each table of Markdown: a line with bars, a rule below it, lines with bars."""
    inside = {
        index
        for index, row in enumerate(rows)
        if "|" in row and index + 1 < len(rows) and is_rule(rows[index + 1])
    }
    used = 0
    found = []
    of_tables: set[int] = set()
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
        of_tables |= {begin, *(number - 1 for number, _ in lines)}
    left_out = written_in(rows) - used
    for names, lines in found:
        if lines:
            above = rows[: lines[0][0] - 2]
            gpu = gpu_above([row for at, row in enumerate(above) if is_said(row, at in of_tables)])
            found_grid = fitted(names, lines, "bars", max(0, left_out), gpu)
            yield replace(found_grid, title=title_above(above[:-1]))
            left_out = 0


def is_said(row: str, of_a_table: bool) -> bool:
    """Whether a line above a table may name its GPU: a row of another table names its own.

    >>> is_said("on a T4", False), is_said("| T4 | 11.7 ms |", True), is_said("|GPU|T4|", True)
    (True, False, True)
    """
    key, *values = cells_of(row)
    return not of_a_table or (len(values) == 1 and bool(_KEY_OF_GPU.fullmatch(key[:_LONGEST_LINE])))


def gpu_above(rows: Sequence[str]) -> str:
    """The GPU that the last short line of some text names; empty: none does."""
    return next((named for row in reversed(rows[-_ABOVE:]) if (named := gpu_named_in(row))), "")


def title_above(rows: Sequence[str]) -> str:
    """The last line of some text, then the headings and `key: value` above it, up to a table.

    Of the last line at most one empty line is below it; empty: there is none.
    """
    last = [row for row in rows[-2:] if row.strip()][-1:]
    found = last if last and "|" not in last[0] else [""]
    for row in reversed(rows[-_TITLES:]):
        if "|" in row:
            break
        if row not in found and _TITLE.match(row[:_LONGEST_LINE]):
            found.append(row)
    return "\n".join(found).rstrip()


def gpu_named_in(row: str) -> str:
    """The GPU that a short line of text names, such as a heading; empty: none.

    >>> gpu_named_in("### GPU Nvidia RTX 3090"), gpu_named_in("Inference done on Tesla T4")
    ('Nvidia RTX 3090', 'Tesla T4')
    >>> gpu_named_in("### \u5728 RTX 5090\u4e0a")
    'RTX 5090'
    """
    named = []
    for sentence in re.split(r"(?<=[.;!?])\s", row[:_LONGEST_LINE]):
        if len(re.findall(r"[\w-]+", sentence)) > _WORDS_OF_A_SENTENCE:
            continue
        words = _WORD.findall(sentence)
        while found := _longest_gpu(words):
            begin, count = found
            named.append(" ".join(words[begin : begin + count]))
            words = [*words[:begin], "and", *words[begin + count :]]
    named = named or gpu_names.UNKNOWN.findall(row[:_LONGEST_LINE])
    return named[0] if len({*named}) == 1 else ""


def _longest_gpu(words: Sequence[str]) -> tuple[int, int] | None:
    """Where the longest name of a GPU among words begins, and of how many words it is."""
    for count in (3, 2, 1):
        for begin in range(len(words) - count + 1):
            name = " ".join(words[begin : begin + count])
            if words[begin].lower() != "gpu" and gpu_names.is_exactly(name):
                return begin, count
    return None


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
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # raw samples in one cell
    separator = separator_of(text)
    told = SEPARATORS[separator or ","]
    if separator is None and _ALIGNED.search(text):
        separator, told = "\t", "columns apart by blanks"
        text = _ALIGNED.sub("\t", "\n".join(line.strip() for line in text.split("\n")))
    rows = list(rows_of(text, separator or ","))
    rows = without_index(with_head_apart(rows) if separator == "\t" else rows)
    several = [row for row in rows if len(row[1]) > 1]
    usual = collections.Counter(len(cells) for _, cells in several[:SAMPLE_LINES])
    least = usual.most_common(1)[0][0] if separator and usual else 1
    head = next((at for at, (_, cells) in enumerate(rows) if len(cells) >= least), None)
    if head is None:
        raise TensorgapError(
            f"{name}: it is empty; the first line must name the columns, such as"
            " precision,latency_ms,energy_mj,throughput,perplexity"
        )
    names, below = rows[head][1], rows[head + 1 :]
    lines = [
        row for row in below if (not separator or len(row[1]) > 1) and row[1] != names
    ]  # a head that is repeated is none
    counts = {len(cells) for _, cells in lines}
    if len(counts) == 1 and len(lines) > 1 and max(counts) < len(names):
        raise TensorgapError(
            f"{name}: its first line names {len(names)} columns, and each row has {max(counts)}"
            " cells: which are they? Give each column its name"
        )
    left_out = head + len(below) - len(lines)
    above = [", ".join(cells) for _, cells in rows[:head]]
    after = [cells[0] for _, cells in below if separator and len(cells) == 1]
    found = fitted(names, lines, told, left_out, gpu_above(above) or gpu_above(after[:1]))
    return replace(found, title=(above[-1:] or after[:1] or [""])[0])


def parts_of(text: str) -> list[str]:
    """A text cut before each further head of a table: most of its cells are those of the first.

    All of them, where a caption stands above it: else a long log repeats its head.

    PyTorchBenchmark of transformers writes a table of times, and one of memory below it. The parts
    have empty lines in the place of those before them, so that each line keeps its number.
    """
    rows = text.split("\n")
    heads: list[int] = []
    first: list[str] = []
    for at, row in enumerate(rows[:MOST_LINES]):
        cells = [cell for cell in re.split(r"\s{2,}|[,;\t|]", row.strip().lower()) if cell]
        if len(cells) < 3 or any(c[:1].isdigit() or _RULED.fullmatch(c) for c in cells):
            continue
        same = len({*cells} & {*first})
        if not first:
            first = cells
            heads.append(at)
        elif len(cells) == len(first) and len(first) / 2 <= same:
            above = next((n for n in reversed(range(at)) if rows[n].strip()), at)
            has_caption = bool(_CAPTION.fullmatch(rows[above].strip()))
            if same < len(first) or has_caption:
                heads.append(above if has_caption else at)
    if not 2 <= len(heads) <= _MOST_PARTS:
        return [text]
    begins = [0, *heads[1:]]
    ends = [*heads[1:], len(rows)]
    return ["\n" * b + "\n".join(rows[b:e]) for b, e in zip(begins, ends, strict=True)]


def with_head_apart(rows: Sequence[Line]) -> list[Line]:
    """Rows whose head is cut at each blank, where it then has as many names as there are cells.

    pandas sets names to the right of their columns, so that one blank may stand between two.
    """
    at = next((i for i, (_, cells) in enumerate(rows) if len(cells) > 1), None)
    if at is None or at + 1 >= len(rows):
        return list(rows)
    head = tuple(" ".join(rows[at][1]).split())
    count = len(rows[at + 1][1])
    if len(rows[at][1]) < count and len(head) in (count, count - 1):
        return [*rows[:at], (rows[at][0], head), *rows[at + 1 :]]
    return list(rows)


def without_index(rows: Sequence[Line]) -> list[Line]:
    """Rows without the numbers that pandas prints before each, to which its head has no name."""
    several = [cells for _, cells in rows if len(cells) > 1]
    if len(several) < 2:
        return list(rows)
    head, *below = several
    counted = all(
        len(cells) == len(head) + 1 and cells[0] == str(at) for at, cells in enumerate(below)
    )
    if not counted:
        return list(rows)
    return [(n, cells[1:] if len(cells) == len(head) + 1 else cells) for n, cells in rows]


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
        comment = count < SAMPLE_LINES and bool(cells) and cells[0].startswith("#")
        if any(cells) and not drawn and not comment:
            yield reader.line_num, cells
        if count > 2 * MOST_LINES:
            return


def fitted(
    names: tuple[str, ...], lines: Iterable[Line], separator: str, left_out: int, gpu: str = ""
) -> Grid:
    """A grid whose lines have as many cells as there are names.

    A line with more cells is set aside: which of them is too much cannot be known. One that only
    parts two blocks of a table, without any text, is none.
    """
    count, fitting, ragged = len(names), [], 0
    for number, cells in lines:
        if not any(cells):
            continue
        if any(cells[count:]):
            ragged += 1
        else:
            fitting.append((number, tuple(cells[:count]) + ("",) * (count - len(cells))))
    return Grid(names, tuple(fitting), separator, left_out, gpu, ragged)


def of_pairs(
    pairs: Iterable[tuple[int, Mapping[str, str]]],
    separator: str,
    left_out: int = 0,
    gpu: str = "",
) -> Grid:
    """A grid of records: the number of each one's line, and its cells by the names of columns.

    >>> of_pairs([(1, {"dtype": "fp16"}), (3, {"ms": "9"})], "lines of a log").lines
    ((1, ('fp16', '')), (3, ('', '9')))
    """
    told = list(pairs)
    names = tuple(dict.fromkeys(name for _, cells in told for name in cells))
    lines = tuple((n, tuple(cells.get(name, "") for name in names)) for n, cells in told)
    return Grid(names, lines, separator, max(0, left_out), gpu, of_records=True)


def separator_of(text: str) -> str | None:
    """The separator that cuts the first lines into the most columns, equally many in each.

    None where there is none.
    """
    begin = "".join(itertools.islice(io.StringIO(text, newline=""), SAMPLE_LINES))

    def fit(separator: str) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(begin, newline=""), delimiter=separator)
        counts = [len(row) for row in reader if any(cell.strip() for cell in row)]
        several = [count for count in counts if count > 1]
        usual = max(set(several), key=several.count, default=0)
        share = several.count(usual) / len(counts) if several else 0.0
        return (round(share, 1), usual) if share > _LEAST_SHARE else (0.0, 0)

    best = max(SEPARATORS, key=fit)
    return best if fit(best)[0] else None
