"""Watching a meter beside the work: the clock, the thread that polls, and the ticks that it saw.

A meter publishes a new value every 10 to 100 ms. Whoever polls it learns of a tick only that it
lies between two polls, so its time is taken as halfway between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from statistics import quantiles
from threading import Event
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """Time, in s; the tests put a virtual one in the place of the system's."""

    def now(self) -> float:
        """Monotonic time."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""

    def polling(self, poll: Callable[[], None], every_s: float) -> AbstractContextManager[None]:
        """Call `poll` again and again while the block runs."""


class SystemClock:
    """The clock of `time.perf_counter`; polls in a thread of its own."""

    def now(self) -> float:
        """Monotonic time."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    @contextmanager
    def polling(self, poll: Callable[[], None], every_s: float) -> Iterator[None]:
        """Call `poll` again and again while the block runs; raises what `poll` raised."""
        done = Event()

        def run() -> None:
            while not done.wait(every_s):
                poll()

        with ThreadPoolExecutor(max_workers=1) as pool:
            running = pool.submit(run)
            try:
                yield
            finally:
                done.set()
                running.result()


class Reading(NamedTuple):
    """What a meter showed, in J or W, at a time, in s."""

    time_s: float
    value: float


class Tick(NamedTuple):
    """A new value of a meter, which came within +- half of `within_s` of a time, in s."""

    time_s: float
    value: float
    within_s: float


def ticks(readings: Sequence[Reading]) -> list[Tick]:
    """Each change of value.

    >>> ticks([Reading(0, 5.0), Reading(1, 5.0), Reading(2, 7.0)])
    [Tick(time_s=1.5, value=7.0, within_s=1)]
    """
    return [
        Tick((before.time_s + after.time_s) / 2, after.value, after.time_s - before.time_s)
        for before, after in pairwise(readings)
        if after.value != before.value
    ]


def period_s(seen: Sequence[Tick]) -> float | None:
    """How often a meter ticks; None where it ticked too seldom to tell.

    A value that comes twice in a row hides a tick, so that a gap is a multiple of the period, and
    which multiple is told by the short gaps.

    >>> period_s([Tick(t, 0, 0) for t in (0, 0.1, 0.2, 0.4, 0.5, 0.9, 1.0)])
    0.1
    """
    gaps = [after.time_s - before.time_s for before, after in pairwise(seen)]
    if len(gaps) < 5:
        return None
    period = quantiles(gaps, n=5)[0]
    for _ in range(3):
        period = sum(gaps) / sum(max(1, round(gap / period)) for gap in gaps)
    return period
