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
from statistics import linear_regression, quantiles
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
            # Half as dear as done.wait(every_s), and short enough to wait for at the end.
            while not done.is_set():
                time.sleep(every_s)
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


def regular(seen: Sequence[Tick], every_s: float | None = None) -> list[Tick]:
    """Ticks of a meter that ticks regularly, at times that no poll has coarsened.

    A line through their numbers and times, by least squares, knows the time of each far better than
    the two polls around it. Ticks that are not regular stay as they were seen.

    >>> [round(t.time_s, 3) for t in regular([Tick(t, 0, 0.1) for t in (0.02, 0.98, 2.0, 3.0)], 1)]
    [0.006, 1.002, 1.998, 2.994]
    """
    every_s = every_s or period_s(seen)
    if not every_s or len(seen) < 3:
        return list(seen)
    times_s = [tick.time_s for tick in seen]
    numbers = _numbers(times_s, every_s)
    slope_s, start_s = linear_regression(numbers, times_s)
    fitted_s = [start_s + slope_s * number for number in numbers]
    off_s = [abs(fit_s - time_s) for fit_s, time_s in zip(fitted_s, times_s, strict=True)]
    if any(off > (every_s + t.within_s) / 2 for off, t in zip(off_s, seen, strict=True)):
        return list(seen)
    within_s = 2 * (sum(off * off for off in off_s) / len(off_s)) ** 0.5
    return [Tick(fit_s, t.value, within_s) for fit_s, t in zip(fitted_s, seen, strict=True)]


def latest_s(seen: Sequence[Tick], every_s: float) -> float:
    """When the last of a few ticks came, with the help of those before it.

    >>> round(latest_s([Tick(t, 0, 0) for t in (0.01, 0.99, 2.0, 3.04)], 1.0), 3)
    3.01
    """
    times_s = [tick.time_s for tick in seen]
    numbers = _numbers(times_s, every_s)
    late_s = [t - number * every_s for t, number in zip(times_s, numbers, strict=True)]
    return numbers[-1] * every_s + sum(late_s) / len(late_s)


def _numbers(times_s: Sequence[float], every_s: float) -> list[int]:
    """Which tick each is, counted from the first."""
    numbers, late_s = [0], [times_s[0]]
    for time_s in times_s[1:]:
        # By the recent ones, because one alone may be seen late by more than half a period.
        base_s = sum(late_s[-20:]) / len(late_s[-20:])
        numbers.append(max(numbers[-1] + 1, round((time_s - base_s) / every_s)))
        late_s.append(time_s - numbers[-1] * every_s)
    return numbers


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
