"""Numbers, lists and warnings in words that a person can read, and pages of them for a terminal."""

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Self, TypeVar

from rich.console import Console, RenderableType
from rich.constrain import Constrain

from bench.warnings import RowWarning

NOTHING = "-"
READABLE, NARROWEST = 100, 60  # columns of text
LONGEST_ENERGY = 10_000  # of its unit
ANY_WIDTH = 1000  # of tables, whose numbers are never cut
T = TypeVar("T")


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A number with so many significant digits, without an exponent.

    >>> number(0.01234), number(11.72, " ms"), number(580.4), number(12345.6), number(None)
    ('0.0123', '11.7 ms', '580', '12346', '-')
    """
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}{unit}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}{unit}"


def energy_scale(value_mj: float) -> tuple[float, str]:
    """How many mJ are the unit in which an energy is short, and that unit.

    >>> energy_scale(9_999), energy_scale(45_000), energy_scale(116_100_000)
    ((1.0, 'mJ'), (1000.0, 'J'), (1000000.0, 'kJ'))
    """
    if abs(value_mj) < LONGEST_ENERGY:
        return 1.0, "mJ"
    return (1e3, "J") if abs(value_mj) < 1e3 * LONGEST_ENERGY else (1e6, "kJ")


def energy(value_mj: float) -> str:
    """An energy for people; columns of tables that are compared stay in mJ.

    >>> energy(580.4), energy(45_000), energy(116_100_000)
    ('580 mJ', '45.0 J', '116 kJ')
    """
    scale, unit = energy_scale(value_mj)
    return number(value_mj / scale, f" {unit}")


def shortened(text: str, most: int = 24) -> str:
    """A text of at most so many characters, cut in the middle: names differ at their ends.

    >>> shortened("modelled/20261128T112451Z-e7bb9c"), shortened("study/now")
    ('modelled/202…451Z-e7bb9c', 'study/now')
    """
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}\u2026{text[-half:]}"


def times(ratio: float) -> str:
    """A ratio with two decimals, halves rounded up as people do.

    >>> times(11.7 / 10.4), times(0.8666)
    ('1.13x', '0.87x')
    """
    return f"{math.floor(ratio * 100 + 0.5 + 1e-9) / 100:.2f}x"


def with_article(name: str) -> str:
    """A GPU's name with a or an, as its first letter is said.

    >>> with_article("A100"), with_article("T4"), with_article("RTX 3090"), with_article("Tesla T4")
    ('an A100', 'a T4', 'an RTX 3090', 'a Tesla T4')
    """
    letters = name[:2].upper() == name[:2]
    return f"{'an' if letters and name[:1] in 'AEFHILMNORSX8' else 'a'} {name}"


def listed(words: Iterable[str]) -> str:
    """Words with commas and an `and`.

    >>> listed(["fp16"]), listed(["fp16", "mixed"]), listed(["a", "b", "c"])
    ('fp16', 'fp16 and mixed', 'a, b and c')
    """
    every = list(words)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def some_of(names: Iterable[str], most: int) -> str:
    """The first of some names, each once, and how many more there are.

    >>> some_of(["a", "b", "a", "c"], 2), some_of(["a", "b"], 2)
    ('a, b and 1 more', 'a and b')
    """
    distinct = list(dict.fromkeys(names))
    more = len(distinct) - most
    return listed([*distinct[:most], *([f"{more} more"] if more > 0 else [])])


def gathered(items: Iterable[T], key: Callable[[T], object]) -> list[list[T]]:
    """Items of an equal key together, in the order of the first of each."""
    by_key: dict[object, list[T]] = {}
    for item in items:
        by_key.setdefault(key(item), []).append(item)
    return list(by_key.values())


class Spread(float):
    """Several numbers in the place of one, which a format writes as their range."""

    ends: tuple[float, float]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Self:
        """The least of them, with both ends as they were: a whole number stays one."""
        known = sorted(values)
        least = cls(known[0])
        least.ends = known[0], known[-1]
        return least

    def __format__(self, spec: str) -> str:
        low, high = (format(end, spec) for end in self.ends)
        return low if low == high else f"{low} to {high}"


def is_number(value: object) -> bool:
    """Whether it can be part of a range."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def alike(warnings: Iterable[RowWarning]) -> list[str]:
    """Each warning once; those that differ in numbers alone as one, with the range of each.

    >>> alike(RowWarning("host-busy", {"share": share}) for share in (0.07, 0.1))
    ['other processes used 7% to 10% of the host CPU time']
    """

    def fixed_part(warning: RowWarning) -> object:
        # A type stands for a number: one that is None in some replicates is no part of a range.
        fixed = ((k, float if is_number(v) else v) for k, v in warning.values.items())
        return warning.code, tuple(fixed)

    texts = []
    for first, *others in gathered(warnings, fixed_part):
        numbers = {
            name: Spread.of(one.values[name] for one in (first, *others))
            for name, value in first.values.items()
            if is_number(value)
        }
        texts.append(replace(first, values={**first.values, **numbers}).text)
    return texts


def narrowed(parts: Iterable[RenderableType], width: int) -> list[Constrain]:
    """Parts of a page, no wider than is read with ease."""
    return [Constrain(part, max(NARROWEST, min(READABLE, width))) for part in parts]


def page(parts: Iterable[RenderableType], color: bool = False) -> str:
    """What rich makes of some parts, of any width, without blanks at the ends of lines."""
    stream = io.StringIO()
    console = Console(file=stream, width=ANY_WIDTH, force_terminal=color, highlight=False)
    for part in parts:  # one by one: what rich holds of all is ten times their text
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")
