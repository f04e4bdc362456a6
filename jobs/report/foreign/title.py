"""What the line above a table says of all of it: `GPT-2 medium, fp16 latency (ms), batch 8`."""

import re
from collections.abc import Collection
from dataclasses import dataclass, fields, replace

from jobs.report.foreign import names, units
from jobs.report.foreign.columns import told_by
from jobs.report.foreign.grid import Grid
from jobs.report.foreign.headers import heading_of
from jobs.report.foreign.understood import Told

_WORDS_OF_RATIOS = 4
_RATIOS = ("speedup", "speedups", "ratio", "ratios", "relative", "normalized", "normalised")
_MOST_WORDS, _LONGEST = 26, 300  # words and characters: more is a sentence of prose
# A number that is not the first of several.
_ONE = r"\s*[=: ]?\s*([1-9]\d{0,6})\b(?!\s*(?:,|and|or|to|/|-)\s*\d)"
_BATCH = re.compile(r"\b(?:batch(?:[ _-]?size)?|bs)" + _ONE, re.IGNORECASE)
_LENGTH = r"\b(?:seq(?:uence)?(?:[ _-]?len(?:gth)?)?|prompt[ _-]len(?:gth)?)" + _ONE
_TOKENS = re.compile(
    _LENGTH + r"|\binput[: ]+([1-9]\d{0,6})\b|\b([1-9]\d{0,6})[ -](?:(?:prompt|input) )?tokens?\b",
    re.IGNORECASE,
)
_NEW = re.compile(
    r"\b([1-9]\d{0,6}) (?:new|generated|output) tokens\b"
    r"|\b([1-9]\d{0,6})[ -]tokens? (?:generation|generated|output)\b"
    r"|\b(?:output|generated|new)[: ]+([1-9]\d{0,6})(?: tokens?)?\b",
    re.IGNORECASE,
)
_BESIDE = {"vs", "versus", "against", "compared", "over", "baseline", "relative", "than"}
_MODEL = re.compile(
    r"(?<![\w/-])(?:distil-?)?gpt-?2(?:[ -](?:small|medium|large|xl))?(?![\w-])", re.IGNORECASE
)
# Others, of which only the name is known; a size may stand behind it.
_OTHER_MODEL = re.compile(
    r"(?<![\w-])(?:[\w.-]{1,40}/)?((?:distil|tiny|code)?(?:bert|roberta|llama(?!\.cpp)|qwen|opt-|mistral|mixtral"
    r"|bloom|falcon|t5|phi-|phi\d|gemma|smollm|smolvlm|pythia|mamba|mpt-|gpt-|deepseek|vicuna|stablelm)"
    r"[\w.-]{0,40}(?: (?:base|large|small|medium|tiny|xl)(?![\w-]))?)", re.IGNORECASE
)  # fmt: skip


@dataclass(frozen=True)
class Title:
    """What a line says: fields of `Told`, and the quantity that the cells hold."""

    model: str | None = None
    precision: str | None = None
    engine: str | None = None
    batch_size: int | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    quantity: str | None = None

    def within(self, told: Told) -> Told:
        """What the command line says, and where it says nothing, the line."""
        known = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name != "quantity" and getattr(told, one.name) is None
        }
        return replace(told, **known)

    def sentences(self, used: Collection[str]) -> list[str]:
        """What it says that some line needed, in words."""
        shown = {
            "model": self.model,
            "precision": self.precision,
            "engine": self.engine,
            "batch_size": self.batch_size and f"batch {self.batch_size}",
            "prompt_tokens": self.prompt_tokens and f"{self.prompt_tokens} tokens",
            "new_tokens": self.new_tokens and f"{self.new_tokens} new tokens",
        }
        said = [words for name, words in shown.items() if name in used and words]
        told = ", ".join([*said, *filter(None, [self.quantity])])
        return [f"{told}, by the text above it"] if told else []


def title_of(text: str) -> Title:
    """What the lines above a table say; of what two say, the first of them holds.

    >>> found = title_of("GPT-2 medium fp16, batch size 16, seq len 128:")
    >>> found.model, found.precision, found.batch_size, found.prompt_tokens
    ('gpt2-medium', 'fp16', 16, 128)
    >>> title_of("fp16, latency (ms) compared with eager").precision is None
    True
    >>> title_of("GPT-2, batch size 8 and 16").batch_size is None
    True
    >>> found = title_of("Latency\\n## BERT Large\\nOutput: 64 tokens")
    >>> found.model, found.new_tokens
    ('BERT Large', 64)
    """
    found = Title()
    for line in text.split("\n"):
        said = of_line(line)
        known = {
            one.name: value
            for one in fields(Title)
            if (value := getattr(said, one.name)) is not None and getattr(found, one.name) is None
        }
        if found != Title():
            known.pop("quantity", None)  # of the nearest line alone
        found = replace(found, **known)
    return found


def of_line(line: str) -> Title:
    """What one line says."""
    line = units.plain(line[:_LONGEST].lstrip("#*- "))
    words = names.words_of(line)
    if not words or len(words) > _MOST_WORDS:
        return Title()
    precision = names.precision_in(words)
    beside = not _BESIDE.isdisjoint(words)
    several = names.precision_in(precision.rest).what or beside
    if precision.what and several:
        precision = names.Named(None, words)
    heading = heading_of(line.rstrip(": "))
    return Title(
        model=model_in(line),
        precision=precision.what,
        engine=None if beside else engine_in(words),
        batch_size=_number(_BATCH.search(line)),
        new_tokens=_number(_NEW.search(line)),
        prompt_tokens=_number(_TOKENS.search(_NEW.sub(" ", line))),
        quantity=quantity_in(line) if heading.unit or heading.per or "(" in line else None,
    )


def is_of_ratios(text: str) -> bool:
    """Whether the line above a table says that its numbers are ratios, which are worked out anew.

    >>> is_of_ratios("Speedup:"), is_of_ratios("a quality-vs-traffic table"), is_of_ratios("")
    (True, False, False)
    """
    words = names.words_of(text.partition("\n")[0])
    return words[:1] != () and len(words) <= _WORDS_OF_RATIOS and words[0] in _RATIOS


def model_in(line: str) -> str | None:
    """The one model that a line names; None: none, or several.

    >>> model_in("GPT-2 on a T4"), model_in("Phi-3-mini-4k-instruct (3.8B)"), model_in("BERT vs T5")
    ('gpt2', 'Phi-3-mini-4k-instruct', None)
    """
    known = {names.model_of(found[0]) for found in _MODEL.finditer(line)}
    known |= {found[1].rstrip(".-") for found in _OTHER_MODEL.finditer(_MODEL.sub(" ", line))}
    return known.pop() if len(known) == 1 else None


def engine_in(words: tuple[str, ...]) -> str | None:
    """The one engine, other than PyTorch itself, that words name."""
    first = names.engine_in(words)
    if first.what in (None, "eager") or names.engine_in(first.rest).what:
        return None
    return first.what


def _number(found: re.Match[str] | None) -> int | None:
    """The number that was found; None: there is none."""
    return int(next(filter(None, found.groups()))) if found else None


def quantity_in(line: str) -> str | None:
    """The header that a line makes of the cells below it: `latency (ms)`.

    >>> quantity_in("GPT-2 latency (ms) by GPU, batch size 16:"), quantity_in("Results (all)")
    ('latency (ms)', None)
    """
    whole = heading_of(line.rstrip(": "))
    if whole.is_quantity and whole.dimension == "rate" and not whole.rest[1:]:  # Images per second
        return line.rstrip(": ")
    for found in re.finditer(r"(\w+) \(([^()]{1,12})\)|(\w+) in (\w+)", line):
        name = f"{found[1] or found[3]} ({found[2] or found[4]})"
        heading = heading_of(name)
        if heading.is_quantity and heading.unit:
            return name
    return None


def with_quantity(grid: Grid, quantity: str | None, of_any: bool = False) -> Grid:
    """A grid whose columns of numbers without a quantity (`T4`, `fp16`) have the title's."""
    if quantity is None or any(heading_of(name).is_quantity for name in grid.names):
        return grid
    bare = bare_columns(grid, of_any)
    heads = (of_quantity(n, quantity) if i in bare else n for i, n in enumerate(grid.names))
    return replace(grid, names=tuple(heads))


def of_quantity(name: str, quantity: str) -> str:
    """The header of a column with what it holds; one that begins with a number looks like a cell.

    >>> of_quantity("fp16", "tok/s"), of_quantity("7B", "latency (ms)")
    ('fp16 tok/s', 'latency (ms) 7B')
    """
    return f"{quantity} {name}" if name[:1].isdigit() else f"{name} {quantity}"


def bare_columns(grid: Grid, of_any: bool) -> list[int]:
    """The columns of numbers whose names say whom they are about; with `of_any`, else any others.

    Of those the first column is none, which tells the lines apart.
    """

    def is_bare(index: int) -> bool:
        cells = told_by(grid.lines, index)
        numbers = bool(cells) and all(units.number_of(cell) for cell in cells)
        return numbers and heading_of(grid.names[index]).field is None

    bare = [index for index in range(len(grid.names)) if is_bare(index)]
    tagged = [index for index in bare if heading_of(grid.names[index]).tags]
    return tagged or [index for index in bare if index and of_any]
