"""Numbers in words that a person can read."""

from __future__ import annotations

import math
from collections.abc import Iterable

NOTHING = "-"


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


def listed(words: Iterable[str]) -> str:
    """Words with commas and an `and`.

    >>> listed(["fp16"]), listed(["fp16", "mixed"]), listed(["a", "b", "c"])
    ('fp16', 'fp16 and mixed', 'a, b and c')
    """
    every = list(words)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
