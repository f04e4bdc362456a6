"""Blocks of lines in a log that each say what one configuration measured.

A block begins with a line that names it (`Running FP32 Inference`, `- fp16`), with a mark before
each of its lines (`[FP32] Time: 0.42s`), before its numbers (`DeepSpeed model: latency (ms) - 8.1;
...`), or where a name is repeated. What stands above all blocks (`GPU: A800`) is said of each.
Where no line names a known precision, engine or batch, a title (`sdpa_kernel:`) begins a block.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.report.foreign import names, phrases, units
from jobs.report.foreign.columns import cell_unit
from jobs.report.foreign.grid import MOST_COLUMNS, SAMPLE_LINES, Grid, gpu_above, of_pairs
from jobs.report.foreign.headers import heading_of, tags_in
from jobs.report.foreign.unit_words import split

_MOST_LINES, _LONGEST = 20_000, 400  # lines of a log, and characters of one
_LOOKED_AT = 2_000  # lines, of which too few say something
_MOST_WORDS = 6  # of a line that names a block, and of a value that is a name
_LEAST, _LEAST_OF_ONE = 0.2, 0.4  # of the lines that are written, of several blocks and of one
_LOGGED = re.compile(  # 2023-12-06 09:45:25,251 - INFO -, or [2023-12-06 09:45:25,251][x][INFO] -
    r"(?:\d{4}-\d\d-\d\d[T ][\d:.,]{5,18}Z?[\s|-]{1,9})?"
    r"(?:(?:DEBUG|INFO|WARNING)\b[\w.:]{0,60}[\s|-]{1,9}|(?:\[[^\]]{1,60}\]){2,9}[\s-]{1,9})"
)
_MARK = re.compile(r"\[([^\]]{1,40})\]\s{0,9}")
_LEVELS = {"info", "debug", "warning", "warn", "error", "i", "w", "v"}
_BULLET = re.compile(r"^[-*+\u2022>]{1,3}\s{1,9}")
_PAIR = re.compile(r"([A-Za-z][\w .()/%-]{0,60}?)\s{0,9}(?:[:=]|\s[-\u2013]\s)\s{0,9}(\S.{0,80})")
_NAMED = re.compile(r"([A-Za-z][^:]{1,60}):\s(.{1,300})")
_BETWEEN = re.compile(r"\s\|\s|,\s|;\s?")
_IN_BRACKETS = re.compile(r"([-+\d.eE]{1,30})\s?\(([\w/ ]{1,20})\)")  # 1.22e-02 (s)
# What says nothing beside the name of a quantity, and is one alone: forward pass latency.
_BESIDE = re.compile(
    r"\b(?:inference|forward(?: pass)?) (?=(?:latency|throughput|time|speed|energy|power)\b)",
    re.IGNORECASE,
)
_LABELS = (
    "model", "gpu", "engine", "precision", "attention", "batch_size", "prompt_tokens",
    "new_tokens", "context", "text",
)  # fmt: skip
_COUNTS = _LABELS[5:9]
_NAMES_A_BLOCK = ("precision", "engine", "batch_size")
_TITLE = re.compile(r"[A-Za-z][\w .()/+-]{0,60}:")  # of a block, such as `sdpa_kernel:`
_MOST_OF_A_TITLE = 4  # words
_heading = functools.lru_cache(10_000)(heading_of)


@dataclass
class Blocks:
    """The blocks of a log, as its lines are read."""

    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    common: dict[str, str] = field(default_factory=dict)
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    inherited: dict[str, str] = field(default_factory=dict)  # labels of the block before
    numbers: dict[str, str] = field(default_factory=dict)
    first: int = 0
    read: int = 0  # lines that say something
    names: set[str] = field(default_factory=set)  # of numbers
    by_phrase: bool = True  # whether no line but one such as `HF took 3 s` named the block
    lists: bool = False  # whether a number is the median of a list
    titled: bool = False  # whether each title begins a block
    titles: set[str] = field(default_factory=set)

    def begin(self, name: str) -> None:
        """Another block begins."""
        self.end()
        self.name, self.labels, self.inherited, self.by_phrase = name, {}, {}, False

    def end(self) -> None:
        """What was measured until here is of one configuration."""
        if self.numbers:
            about = {"configuration": self.name} if self.name else {}
            said = {**self.common, **self.inherited, **self.labels}
            self.rows.append((self.first, {**about, **said, **self.numbers}))
        self.numbers = {}

    def label(self, name: str, value: str) -> None:
        """A name, such as that of a model; one that is repeated begins another block."""
        if self.numbers and name in {*self.common, *self.labels}:
            self.end()
        above = not (self.name or self.rows or self.numbers)
        (self.common if above else self.labels)[name] = value

    def number(self, line: int, name: str, value: str) -> None:
        """A measured number; one that is repeated is of a further run."""
        if name in self.numbers:
            self.end()
        self.names.add(name)
        self.first = self.first if self.numbers else line
        self.numbers[name] = value

    def take(self, line: int, phrase: phrases.Phrase) -> None:
        """What a line says that is no pair."""
        self.read += 1
        self.lists |= phrase.is_list
        if phrase.block is not None and (names_a_block(phrase.block) or self.by_phrase):
            tags = tags_in(split(phrase.block))[0]
            kept = {**self.inherited, **self.labels}
            self.begin(phrase.block)
            self.inherited = {n: v for n, v in kept.items() if _heading(n).field not in tags}
            self.by_phrase = True
        said = {_heading(name).field for name in (*self.common, *self.labels)}
        for name, value in phrase.labels.items():
            if name in {*self.common, *self.labels} or _heading(name).field not in said:
                self.label(name, value)
        for name, value in phrase.numbers.items():
            self.number(line, name, value)

    def is_begun_by(self, title: str) -> bool:
        """Whether a title, which is noted, begins a block."""
        self.titles.add(title)
        return self.titled

    @property
    def several(self) -> bool:
        """Whether there are blocks that differ in what they say of themselves."""
        about = {
            tuple(v for k, v in cells.items() if not _heading(k).is_quantity)
            for _, cells in self.rows
        }
        return len(about) > 1


def of_log(rows: Sequence[str], alone: bool = False) -> Grid | None:
    """The blocks of a log as a table; None where there are not several, or `alone`, not even one.

    One block has at least two numbers.
    """
    if len(rows) > _MOST_LINES:
        return None
    blocks, written = blocks_of(rows)
    if not (alone or blocks.several) and len(blocks.titles) > 1:
        titled, written_of_titled = blocks_of(rows, titled=True)
        if are_alike(titled):
            blocks, written = titled, written_of_titled
    count = sum(_heading(name).is_quantity for _, cells in blocks.rows for name in cells)
    least = _LEAST if blocks.several else _LEAST_OF_ONE
    if not (blocks.several or alone) or count < 2 or blocks.read < least * written:
        return None
    gpu = gpu_above(rows[: blocks.rows[0][0]][-SAMPLE_LINES:])
    how = "lines of a log" + (", lists by their medians" if blocks.lists else "")
    return of_pairs(blocks.rows, how, written - blocks.read, gpu)


def blocks_of(rows: Sequence[str], titled: bool = False) -> tuple[Blocks, int]:
    """The blocks of a log, and how many lines are written; none where too few say something."""
    blocks, written = Blocks(titled=titled), 0
    for number, row in enumerate(rows, start=1):
        told, logged = told_of(row)
        before = blocks.read
        read_line(blocks, number, told)
        written += bool(told) and any(one.isalnum() for one in told) and not logged
        written += logged and blocks.read > before
        too_few = number == _LOOKED_AT and blocks.read < _LEAST * written
        if too_few or len(blocks.names) > MOST_COLUMNS:
            return Blocks(), written
    blocks.end()
    return blocks, written


def are_alike(blocks: Blocks) -> bool:
    """Whether blocks below titles measure the same of things that differ by more than a count."""
    measured = [{name for name in cells if _heading(name).is_quantity} for _, cells in blocks.rows]
    about = {re.sub(r"\d", "", cells.get("configuration", "")) for _, cells in blocks.rows}
    same = measured and set.intersection(*measured)
    return bool(same) and len(about) > 1 and "" not in about


def told_of(row: str) -> tuple[str, bool]:
    """A line without what a logger and Markdown set before it, and whether a logger did.

    >>> told_of("[2023-12-06 09:45:35,501][inference][INFO] -    + Forward pass latency: 12 ms")
    ('Forward pass latency: 12 ms', True)
    >>> told_of("   - FP16 throughput\uff1a  35 tokens /sec")
    ('FP16 throughput:  35 tokens /sec', False)
    """
    told = row.strip()[:_LONGEST].replace("\uff1a", ":").replace("+\\-", "\u00b1")
    logged = _LOGGED.match(told)
    told = told[logged.end() :] if logged else told
    return _BULLET.sub("", told.strip(), count=1).strip("*# "), bool(logged)


def read_line(blocks: Blocks, number: int, told: str) -> None:
    """Takes what one line says."""
    mark = _MARK.match(told)
    if mark and mark[1].lower() not in _LEVELS and not mark[1][:1].isdigit():
        told, name = told[mark.end() :], mark[1].strip()
        if list(pairs_in(told)) and name != blocks.name:
            blocks.begin(name)
    if pairs := list(pairs_in(told)):
        blocks.read += 1
    elif (named := _NAMED.fullmatch(told)) and (pairs := list(pairs_in(named[2]))):
        blocks.read += 1
        blocks.begin(named[1].strip())
    elif blocks.name and cell_unit(told) and told[:1].isdigit():
        blocks.read += 1
        for unit, value in by_unit(told).items():
            blocks.number(number, unit, value)
    elif phrase := phrases.phrase_of(told, bool(blocks.name)):
        blocks.take(number, phrase)
    elif names_a_block(told) or (is_title(told) and blocks.is_begun_by(told)):
        blocks.read += 1
        blocks.begin(told.strip("=-_:` "))
    for name, value, is_number in pairs:
        if is_number:
            blocks.number(number, name, value)
        else:
            blocks.label(name, value)


def pairs_in(told: str) -> Iterator[tuple[str, str, bool]]:
    """The pairs that make up a line: name, value, and whether it is a measured number.

    Nothing where any part of the line is none.

    >>> list(pairs_in("P95 latency (ms) - 85.2; Average latency (ms) - 85.1"))
    [('P95 latency (ms)', '85.2', True), ('Average latency (ms)', '85.1', True)]
    >>> list(pairs_in("batch size: 8")), list(pairs_in("Time: 3 runs"))
    ([('batch size', '8', False)], [])
    """
    found = []
    for part in _BETWEEN.split(told.rstrip(";,. ")):
        pair = _PAIR.fullmatch(part.strip())
        name = _BESIDE.sub("", pair[1].strip()) if pair else ""
        kind = kind_of(name, pair[2]) if pair else None
        if pair is None or kind is None:
            return
        found.append((name, _IN_BRACKETS.sub(r"\1 \2", pair[2].strip()), kind))
    yield from found


def kind_of(name: str, value: str) -> bool | None:
    """Whether a pair is a measured number; None: neither that nor a label."""
    heading = _heading(name)
    number = units.number_of(_IN_BRACKETS.sub(r"\1 \2", value.strip()))
    if heading.is_quantity and number:
        behind = number.rest.partition("(")[0].strip()
        return True if not behind or cell_unit(value) or cell_unit(f"1 {behind}") else None
    if heading.field not in _LABELS:
        return None
    if heading.field in _COUNTS:
        return False if number and not number.rest else None
    if heading.field == "text" and names.text_of(value) not in names.TEXT.values():
        return None
    return False if len(value.split()) <= _MOST_WORDS and not _PAIR.fullmatch(value) else None


def names_a_block(told: str) -> bool:
    """Whether a line names a configuration, and says nothing else.

    >>> names_a_block("=== Running FP32 Inference ==="), names_a_block("Results:")
    (True, False)
    """
    if "|" in told or "\t" in told or max(told.count(","), told.count(";")) > 1:
        return False  # a line of a table
    words = split(told.strip("=-_: "))
    if not 0 < len(words) <= _MOST_WORDS or len(told) > _LONGEST / 4:
        return False
    return not {*_NAMES_A_BLOCK}.isdisjoint(tags_in(words)[0])


def is_title(told: str) -> bool:
    """Whether a line is a title, which names neither a quantity nor a GPU nor only what follows.

    >>> [is_title(one) for one in ("sdpa_kernel:", "Latency:", "Results on a T4:", "Model:")]
    [True, False, False, False]
    """
    if not _TITLE.fullmatch(told) or len(told.split()) > _MOST_OF_A_TITLE:
        return False
    heading = _heading(told.rstrip(":"))
    of_a_value = heading.field is not None and not heading.rest
    is_measured = heading.is_quantity or heading.field in ("ratio", "spread")
    return not of_a_value and not is_measured and "gpu" not in heading.tags


def by_unit(told: str) -> dict[str, str]:
    """Several numbers by the name of what their units measure.

    >>> by_unit("139.2 it/s, 350 W")
    {'it/s': '139.2 it/s', 'power (W)': '350 W'}
    """
    found = {}
    for part in re.split(r",\s+", told):
        unit = part.lstrip("0123456789.,").strip()
        dimension = units.DIMENSION.get(units.UNIT.get(units.spelled(unit), ""))
        name = {"time": "latency", "memory": "memory"}.get(dimension or "", dimension)
        found[f"{name} ({unit})" if name else unit] = part
    return found
