"""Numbers in words that a person can read."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

NOTHING = "-"
# A number that stands by itself: no part of a name, a version or an identifier.
_NUMBER = re.compile(r"(?:(?<=\+-)|(?<![\w.-]))\d+(?:\.\d+)?(?!\w|\.\d|-\w)")


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


def times(ratio: float) -> str:
    """A ratio with two decimals, halves rounded up as people do.

    >>> times(11.7 / 10.4), times(0.8666)
    ('1.13x', '0.87x')
    """
    return f"{math.floor(ratio * 100 + 0.5 + 1e-9) / 100:.2f}x"


def span(values: Iterable[float], unit: str = "", digits: int = 3) -> str:
    """The least and the greatest of some numbers; one of them where they read alike.

    >>> span([36.2, 49.6], " W"), span([9.3]), span([4.0, 4.001])
    ('36.2 to 49.6 W', '9.30', '4.00')
    """
    known = list(values)
    low, high = number(min(known), digits=digits), number(max(known), digits=digits)
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def ratio(value: float) -> str:
    """A ratio with two decimals; beyond 100-fold either way only that it is beyond.

    >>> ratio(0.87), ratio(1.005), ratio(4e8), ratio(0.0)
    ('0.87', '1.00', '>100', '<0.01')
    """
    if value > 100:
        return ">100"
    return "<0.01" if value < 0.01 else f"{value:.2f}"


def alike(texts: Iterable[str]) -> list[str]:
    """Each text once; those that differ in numbers alone as one, with the range of each.

    >>> alike(["steady after 3.7 s", "torch 2.13.0", "steady after 12 s", "torch 2.12.1"])
    ['steady after 3.7 to 12 s', 'torch 2.13.0', 'torch 2.12.1']
    """
    numbers: dict[tuple[str, ...], list[list[str]]] = {}
    for text in dict.fromkeys(texts):
        numbers.setdefault(tuple(_NUMBER.split(text)), []).append(_NUMBER.findall(text))
    joined = []
    for between, found in numbers.items():
        ranges = [_range(slot) for slot in zip(*found, strict=True)]
        parts = itertools.zip_longest(between, ranges, fillvalue="")
        joined.append("".join(itertools.chain.from_iterable(parts)))
    return joined


def _range(numbers: Iterable[str]) -> str:
    known = sorted(numbers, key=float)
    return known[0] if float(known[0]) == float(known[-1]) else f"{known[0]} to {known[-1]}"


def listed(words: Iterable[str]) -> str:
    """Words with commas and an `and`.

    >>> listed(["fp16"]), listed(["fp16", "mixed"]), listed(["a", "b", "c"])
    ('fp16', 'fp16 and mixed', 'a, b and c')
    """
    every = list(words)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
