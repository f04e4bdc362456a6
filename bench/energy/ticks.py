"""When a meter ticked, and what had been used until then: from what was polled to ticks.

A meter publishes a new value every 20 to 100 ms. Whoever polls it learns of a tick only that it
lies between two polls, so its time is taken as halfway between them.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import linear_regression, quantiles
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNSURE = 0.01  # how far a period may be off that was told from some ticks
TELLING_TICKS = 2000  # as many tell the grid of all
CHUNK = 1_000_000  # terms of a periodogram held at once: 16 MB


class UnusableError(Exception):
    """What the meter gave is no measurement; the text says why."""


class Reading(NamedTuple):
    """What a meter showed, in J or W."""

    time_s: float
    value: float


class Tick(NamedTuple):
    """A new value of a meter, which came within +- half of `within_s` of a time."""

    time_s: float
    value: float
    within_s: float


class Mark(NamedTuple):
    """How many iterations were finished at a time; two with the same number enclose a pause."""

    time_s: float
    iterations: int


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
    seen = last_of_each_gap(seen, every_s)
    times_s, _, withins_s = np.array(seen).T
    numbers = grid_numbers(times_s, every_s)
    slope_s, start_s = linear_regression(numbers, times_s)
    fitted_s = start_s + slope_s * np.array(numbers)
    off_s = np.abs(fitted_s - times_s)
    if (off_s > (every_s + withins_s) / 2).any():
        return list(seen)
    within_s = 2 * float((off_s**2).mean()) ** 0.5
    return [Tick(at_s, t.value, within_s) for at_s, t in zip(fitted_s.tolist(), seen, strict=True)]


def latest_s(seen: Sequence[Tick], every_s: float) -> float:
    """When the last of a few ticks came, with the help of those before it.

    >>> round(latest_s([Tick(t, 0, 0) for t in (0.01, 0.99, 2.0, 3.04)], 1.0), 3)
    3.01
    """
    times_s = [tick.time_s for tick in last_of_each_gap(seen, every_s)]
    numbers = grid_numbers(times_s, every_s)
    late_s = [t - number * every_s for t, number in zip(times_s, numbers, strict=True)]
    return numbers[-1] * every_s + sum(late_s) / len(late_s)


def last_of_each_gap(seen: Sequence[Tick], every_s: float) -> list[Tick]:
    """The same ticks; where a poll came so late that several hid before it, the last is meant."""
    return [
        Tick(t.time_s + (t.within_s - every_s) / 2, t.value, every_s) if t.within_s > every_s else t
        for t in seen
    ]


def grid_numbers(times_s: Sequence[float] | Floats, every_s: float) -> list[int]:
    """Which tick each is, counted from the first.

    By the one grid that fits all best, of periods near `every_s`: the peak of a periodogram.
    For two neighbours may be seen early and late by more than half a period together.
    """
    since_s = np.array(times_s) - times_s[0]
    # A tenth of a tick over all of them from one period to the next.
    steps = int(max(2.0, 10 * UNSURE * since_s[-1] / every_s))
    periods_s = every_s * (1 + UNSURE * np.arange(-steps, steps + 1) / steps)
    some_s = since_s
    if len(since_s) > TELLING_TICKS:
        # At random: evenly chosen ones would fit the grids of other periods, too.
        some_s = np.random.default_rng(0).choice(since_s, TELLING_TICKS, replace=False)
    chunks = np.array_split(periods_s, math.ceil(len(periods_s) * len(some_s) / CHUNK))
    turns = np.concatenate(
        [np.exp(2j * np.pi * some_s / chunk_s[:, None]).sum(axis=1) for chunk_s in chunks]
    )
    best = int(np.abs(turns).argmax())
    phase_s = np.angle(turns[best]) / (2 * np.pi) * periods_s[best]
    numbers = np.rint((since_s - phase_s) / periods_s[best]).astype(int)
    found: list[int] = (numbers - numbers[0]).tolist()
    return found


def period_s(seen: Sequence[Tick]) -> float | None:
    """How often a meter ticks; None where it ticked too seldom to tell.

    A value that comes twice in a row hides a tick, so that a gap is a multiple of the period, and
    which multiple is told by the short gaps.

    >>> round(period_s([Tick(t, 0, 0) for t in (0, 0.1, 0.2, 0.4, 0.5, 0.9, 1.0)]), 6)
    0.1
    """
    if len(seen) < 6:
        return None
    gaps_s = np.diff([tick.time_s for tick in seen])
    period = quantiles(gaps_s, n=5)[0]
    for _ in range(3):
        period = float(gaps_s.sum() / np.maximum(1, np.rint(gaps_s / period)).sum())
        times_s = [tick.time_s for tick in last_of_each_gap(seen, period)]
        gaps_s = np.diff(times_s)
    return linear_regression(grid_numbers(times_s, period), times_s).slope


def counted_ticks(readings: Sequence[Reading], every_s: float | None = None) -> list[Tick]:
    """Ticks of a counter, in J, `every_s` if known; UnusableError if it fell or stood still."""
    for before, after in pairwise(readings):
        if after.value < before.value:
            fall = f"from {before.value:.0f} J to {after.value:.0f} J"
            raise UnusableError(f"the energy counter went backwards, {fall}")
    seen = regular(ticks(readings), every_s)
    if len(seen) < 2:
        raise UnusableError(f"the energy counter ticked {len(seen)} times, too few for a window")
    return seen


def summed_ticks(readings: Sequence[Reading], every_s: float | None = None) -> list[Tick]:
    """Ticks of readings of power, in W, made into energy, in J: each tells of the time before it.

    A reading is published `every_s`, if known: where a gap is longer, the one before came again. A
    reading that never changes is added up poll by poll. Raises UnusableError where the sensor gave
    fewer than two readings, or nothing but 0 W.
    """
    if len(readings) < 2:
        raise UnusableError(f"the power sensor gave {len(readings)} readings, too few for a window")
    if not any(reading.value for reading in readings):
        raise UnusableError("the power sensor read 0 W all the time")
    seen = ticks(readings)
    if len(seen) < 2:
        seen = [Tick(*reading, 0.0) for reading in readings]
    every_s = every_s or period_s(seen)
    seen = regular(seen, every_s)
    joules, summed = 0.0, [seen[0]._replace(value=0.0)]
    for before, after in pairwise(seen):
        gap_s = after.time_s - before.time_s
        last_s = gap_s / max(1, round(gap_s / every_s)) if every_s else gap_s
        joules += before.value * (gap_s - last_s) + after.value * last_s
        summed.append(after._replace(value=joules))
    return summed


def mean_w(energy: Sequence[Tick]) -> float:
    """Mean power from the first tick of an energy in J to the last, in W."""
    first, last = energy[0], energy[-1]
    return (last.value - first.value) / (last.time_s - first.time_s)
