"""What the line above a table says of all of it: `GPT-2 medium, fp16 latency (ms), batch 8`."""

import re
from dataclasses import dataclass, fields, replace

from jobs.report.foreign import names, units
from jobs.report.foreign.columns import ignored
from jobs.report.foreign.grid import Grid
from jobs.report.foreign.headers import heading_of
from jobs.report.foreign.understood import Told

_MOST_WORDS, _LONGEST = 18, 300  # words and characters: more is a sentence of prose
# A number that is not the first of several.
_ONE = r"\s*[=: ]?\s*([1-9]\d{0,6})\b(?!\s*(?:,|and|or|to|/|-)\s*\d)"
_BATCH = re.compile(r"\b(?:batch(?:[ _-]?size)?|bs)" + _ONE, re.IGNORECASE)
_LENGTH = r"\b(?:seq(?:uence)?(?:[ _-]?len(?:gth)?)?|prompt[ _-]len(?:gth)?)" + _ONE
_TOKENS = re.compile(
    _LENGTH + r"|\b([1-9]\d{0,6})[ -](?:(?:prompt|input) )?tokens?\b", re.IGNORECASE
)
_NEW = re.compile(r"\b([1-9]\d{0,6}) (?:new|generated|output) tokens\b", re.IGNORECASE)
_BESIDE = {"vs", "versus", "against", "compared", "over", "baseline", "relative", "than"}
_MODEL = re.compile(
    r"(?<![\w/-])(?:distil-?)?gpt-?2(?:[ -](?:small|medium|large|xl))?(?![\w-])", re.IGNORECASE
)


@dataclass(frozen=True)
class Title:
    """What a line says: fields of `Told`, and the quantity that the cells hold."""

    model: str | None = None
    precision: str | None = None
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

    def sentences(self) -> list[str]:
        """What it says, in words."""
        said = [self.model, self.precision, self.batch_size and f"batch {self.batch_size}"]
        said.append(self.prompt_tokens and f"{self.prompt_tokens} tokens")
        said.append(self.new_tokens and f"{self.new_tokens} new tokens")
        said.append(self.quantity)
        told = ", ".join(str(one) for one in said if one)
        return [f"{told}, by the text above it"] if told else []


def title_of(line: str) -> Title:
    """What a line says.

    >>> found = title_of("GPT-2 medium fp16, batch size 16, seq len 128:")
    >>> found.model, found.precision, found.batch_size, found.prompt_tokens
    ('gpt2-medium', 'fp16', 16, 128)
    >>> title_of("fp16, latency (ms) compared with eager").precision is None
    True
    >>> title_of("GPT-2, batch size 8 and 16").batch_size is None
    True
    """
    line = units.plain(line[:_LONGEST])
    words = names.words_of(line)
    if not words or len(words) > _MOST_WORDS:
        return Title()
    models = {names.model_of(found[0]) for found in _MODEL.finditer(line)}
    precision = names.precision_in(words)
    several = names.precision_in(precision.rest).what or not _BESIDE.isdisjoint(words)
    if precision.what and several:
        precision = names.Named(None, words)
    heading = heading_of(line.rstrip(": "))
    return Title(
        model=models.pop() if len(models) == 1 else None,
        precision=precision.what,
        batch_size=_number(_BATCH.search(line)),
        new_tokens=_number(_NEW.search(line)),
        prompt_tokens=_number(_TOKENS.search(_NEW.sub(" ", line))),
        quantity=quantity_in(line) if heading.unit or "(" in line else None,
    )


def _number(found: re.Match[str] | None) -> int | None:
    """The number that was found; None: there is none."""
    return int(next(filter(None, found.groups()))) if found else None


def quantity_in(line: str) -> str | None:
    """The header that a line makes of the cells below it: `latency (ms)`.

    >>> quantity_in("GPT-2 latency (ms) by GPU, batch size 16:"), quantity_in("Results (all)")
    ('latency (ms)', None)
    """
    for found in re.finditer(r"(\w+) \(([^()]{1,12})\)|(\w+) in (\w+)", line):
        name = f"{found[1] or found[3]} ({found[2] or found[4]})"
        heading = heading_of(name)
        if heading.is_quantity and heading.unit:
            return name
    return None


def with_quantity(grid: Grid, quantity: str | None) -> Grid:
    """A grid whose columns of numbers without a quantity (`T4`, `fp16`) have the title's."""
    if quantity is None or any(heading_of(name).is_quantity for name in grid.names):
        return grid

    def is_bare(index: int, name: str) -> bool:
        cells = [row[index] for _, row in grid.lines if not ignored(row[index])]
        numbers = bool(cells) and all(units.number_of(cell) for cell in cells)
        return numbers and bool(heading_of(name).tags) and heading_of(name).field is None

    heads = tuple(
        f"{name} {quantity}" if is_bare(index, name) else name
        for index, name in enumerate(grid.names)
    )
    return replace(grid, names=heads)
