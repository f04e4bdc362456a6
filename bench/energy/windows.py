"""Windows: where pauses lie in them, and what energy of how many forwards.

A window begins and ends at ticks of the meter that were seen, and the forwards between them are
counted with their fractions. `bench.energy.protocol` says why.

A sensor that sees a part of the time only, as an A100's 25 ms of each 100 ms, can alias
with the load and see the same part of each forward (aliasing): errors of 30 % in simulation. Where
that can be, short pauses move the phase of the load by the golden ratio of a period, which covers
all phases evenly. Ticks that saw a pause do not count, and the discrepancy tells how even the
phases became. After a pause the device waits for the host, 0.2 ms for a graph and 1 to 1.5 ms in
eager mode, so that the first forward belongs to the pause.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike

from bench import stats
from bench.energy.ticks import Floats, Mark, Reading, Tick, UnusableError, mean_w

GOLDEN = (5**0.5 - 1) / 2
TRACE_POINTS = 512
NEAR = 16  # a phase speaks for a sixteenth of all on either side


def golden_pause_s(now_s: float, tick_s: float, number: int, modulus_s: float) -> float:
    """The pause after which a coming tick finds the load at the golden ratio's next phase.

    Its multiples modulo 1 cover all phases evenly, however many there are (the sequence of least
    discrepancy of its kind: Niederreiter 1992, section 3.1).

    >>> round(golden_pause_s(now_s=0.31, tick_s=0.4, number=1, modulus_s=0.05), 4)
    0.0091
    >>> round((0.4 - 0.31 - 0.0091) / 0.05 % 1, 3)  # the phase at the tick: the golden ratio
    0.618
    """
    return (tick_s - now_s - number * GOLDEN % 1 * modulus_s) % modulus_s


@dataclass(frozen=True)
class Window:
    """Energy of some iterations, from tick to tick, without the pauses between them."""

    joules: float
    seconds: float
    iterations: float
    ticks: int
    edge_s: float  # how far its length may be wrong
    resolution_s: float  # longest gap between two ticks
    pause_s: float
    discrepancy: float  # of the phases in which the ticks that count found a forward
    chance: float  # half the 95 % interval of their mean, relative; 0 where they saw all


class Course:
    """How far the load had come, and how long it had paused, at any time between its marks."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self.times_s, self.iterations = np.array(marks, dtype=float).T
        self.pauses = np.diff(self.iterations) == 0  # between each mark and the next
        self.paused = np.append(0.0, np.cumsum(np.diff(self.times_s) * self.pauses))

    def done(self, times_s: ArrayLike) -> Floats:
        """Iterations finished, with a fraction."""
        found: Floats = np.interp(np.asarray(times_s, float), self.times_s, self.iterations)
        return found

    def paused_s(self, start_s: float, end_s: float) -> float:
        """How much of a time lies in pauses."""
        before_s, after_s = np.interp([start_s, end_s], self.times_s, self.paused)
        return float(after_s - before_s)

    def phases(self, times_s: ArrayLike) -> list[float]:
        """The part of an iteration that was done at each time between the marks, not in a pause."""
        times = np.asarray(times_s, float)
        after = np.clip(np.searchsorted(self.times_s, times, "right"), 1, len(self.pauses))
        within = (self.times_s[0] <= times) & (times <= self.times_s[-1])
        phases: list[float] = (self.done(times) % 1)[within & ~self.pauses[after - 1]].tolist()
        return phases


def cut(energy: Sequence[Tick], course: Course, reach_s: float) -> Window:
    """The window from the first tick within the course of the load to one near the last.

    Of the ticks in its last tenth, it ends at the one where the forward is in the phase most like
    that at the beginning, so that what a part of a forward draws hardly matters. Where it has
    pauses, what the ticks saw of them is taken off both the energy and the time: a tick sees back
    `reach_s`. Raises UnusableError where not two ticks saw anything but pauses.
    """
    first_s, last_s = course.times_s[[0, -1]]
    inside = [tick for tick in energy if first_s <= tick.time_s <= last_s]
    if len(inside) < 2:
        ticked = f"{len(inside)} times in a window of {last_s - first_s:.3g} s"
        raise UnusableError(f"the meter ticked {ticked}")
    times_s = np.array([tick.time_s for tick in inside])
    done = course.done(times_s) - course.done(times_s[0])
    late = times_s >= times_s[-1] - 0.1 * (times_s[-1] - times_s[0])
    late[0] = False
    off = np.where(late, np.abs(done - np.rint(done)).round(2), np.inf)
    last = int(np.flatnonzero(off == off.min())[-1])  # Of those that are alike, the last.
    within, iterations = inside[: last + 1], float(done[last])
    start, end = within[0], within[-1]
    joules, seconds = end.value - start.value, end.time_s - start.time_s
    pause_s = course.paused_s(start.time_s, end.time_s)
    phases, chance = course.phases(times_s[1 : last + 1]), 0.0
    if pause_s:
        phases, values = outside_pauses(within, course, reach_s)
        seconds -= pause_s
        joules = seconds * mean_over_phases(phases, values)
        chance = stats.student_interval(values) / fmean(values) if len(values) > 1 else 0.0
    if iterations <= 0 or not joules:
        raise UnusableError("the meter's ticks enclose nothing but a pause")
    return Window(
        joules=joules,
        seconds=seconds,
        iterations=iterations,
        ticks=last,
        edge_s=(start.within_s + end.within_s) / 2,
        resolution_s=float(np.diff(times_s[: last + 1]).max()),
        pause_s=pause_s,
        discrepancy=star_discrepancy(phases),
        chance=chance,
    )


def outside_pauses(
    within: Sequence[Tick], course: Course, reach_s: float
) -> tuple[list[float], list[float]]:
    """The phases of the ticks that saw no pause, and their powers, in W; UnusableError if none."""
    seen = [
        (before, after)
        for before, after in pairwise(within)
        if after.time_s > before.time_s
        and not course.paused_s(after.time_s - reach_s, after.time_s)
    ]
    if not seen:
        raise UnusableError("each tick of the meter saw a pause")
    phases: list[float] = (course.done([after.time_s for _, after in seen]) % 1).tolist()
    return phases, [mean_w(both) for both in seen]


def mean_over_phases(phases: Sequence[float], values: Sequence[float]) -> float:
    """The mean of what was seen at some phases in [0, 1), however often at each.

    Which ticks a pause meets depends on its phase, so that some phases are seen more often: a plain
    mean was wrong by 0.6 % in simulation, in each window alike.
    """
    at_phase, seen = np.array(sorted(zip(phases, values, strict=True))).T
    count = len(seen)
    near = max(1, count // NEAR)
    # The weight of each is how far its neighbours lie apart, on the circle.
    around = np.concatenate([at_phase - 1, at_phase, at_phase + 1])
    at = np.arange(count, 2 * count)
    return float(seen @ (around[at + near] - around[at - near])) / (2 * near)


def star_discrepancy(phases: Sequence[float]) -> float:
    """How far phases in [0, 1) are from even: 1 / 2n for n even ones, near 1 if all are alike.

    The greatest distance between their distribution and the uniform one (Niederreiter 1992, Random
    Number Generation and Quasi-Monte Carlo Methods, theorem 2.6).

    >>> star_discrepancy([0.125, 0.375, 0.625, 0.875]), star_discrepancy([0.25] * 4)
    (0.125, 0.75)
    """
    count = len(phases)
    even = (np.arange(count) + 0.5) / count
    return float(1 / (2 * count) + np.abs(np.sort(phases) - even).max())


def thinned(readings: Sequence[Reading], points: int = TRACE_POINTS) -> list[Reading]:
    """At most so many readings: the means of as many equal spans of time, of those that have any.

    >>> thinned([Reading(0, 1.0), Reading(1, 3.0), Reading(2, 5.0), Reading(3, 7.0)], 2)
    [Reading(time_s=0.5, value=2.0), Reading(time_s=2.5, value=6.0)]
    """
    if len(readings) <= points:
        return list(readings)
    times_s, values = np.array(readings).T
    span = (times_s - times_s[0]) / (times_s[-1] - times_s[0]) * points
    at = np.minimum(span.astype(int), points - 1)
    counts = np.bincount(at)
    means = [(np.bincount(at, each)[counts > 0] / counts[counts > 0]) for each in (times_s, values)]
    return [Reading(*each) for each in np.array(means).T.tolist()]
