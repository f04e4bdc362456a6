"""Energy of a forward pass: a window of steady load, read from the best meter that answers.

What happens, in order:

    pause SETTLE_S                 a register may still average the work before
    idle  sampling.idle_s          the context alive, nothing running: idle power
    load  SETTLE_S                 clocks, temperature and averaging registers settle
    load  sampling.energy_s        the window
    load  TAIL_S                   the meter ticks past the end of the window

A meter publishes a new value every 10 to 100 ms and hides what lies between, so the difference of
two readings taken at will is wrong by up to a tick at either end: simulated sensors lost 59 to 81 %
of one 10 ms forward, and 4 % of the first second. Here a thread polls the meter, energy is known at
the ticks that it saw and linear between them, and the window runs from the end of one iteration to
the end of another, so that the iterations in it are whole.

Energy is gross (all that the device drew) and net (less idle power for as long). The sensor's own
gain error, about 5 % on many boards (Yang, Adamek, Armour, SC'24), is in both and is not part of
`uncertainty`. An unusable meter gives the method "none" and the reason, never a number.
"""

from __future__ import annotations

import bisect
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import NamedTuple

from bench.nvml import Gpu
from bench.records import ENERGY_NOT_MEASURED, Energy, Sampling

POLL_S = 0.01  # The fastest GPU sensor known ticks every 20 ms (P100, V100).
SETTLE_S = 1.5  # Hopper's power register averages 1 s and is published every 100 ms.
DOUBTFUL_UNCERTAINTY = 0.05  # As large as the gain error of many boards' sensors.
TAIL_S = 0.3  # Three ticks of the slowest counter known, 100 ms.
DRAIN_EVERY_S = 0.1  # Rare enough that waiting for the device costs well under 0.1 % of the load.


class UnusableError(Exception):
    """What the meter gave is no measurement; the text says why."""


class Reading(NamedTuple):
    """What the meter showed, in J or W, at a time of `time.perf_counter`, in s."""

    time_s: float
    value: float


class Mark(NamedTuple):
    """How many iterations the device had finished at a time of `time.perf_counter`, in s."""

    time_s: float
    iterations: int


@dataclass(frozen=True)
class Curve:
    """Energy since some beginning, in J, known at `times_s` and taken as linear between them."""

    times_s: tuple[float, ...]
    joules: tuple[float, ...]
    ticks_s: tuple[float, ...]  # when the meter published a new value

    def at(self, time_s: float) -> float:
        """Energy until a time within the curve, in J."""
        after = min(max(bisect.bisect_right(self.times_s, time_s), 1), len(self.times_s) - 1)
        (start, end), (low, high) = (x[after - 1 : after + 1] for x in (self.times_s, self.joules))
        return low + (high - low) * (time_s - start) / (end - start)

    def resolution_s(self, start_s: float, end_s: float) -> float:
        """Longest gap between two ticks from the one before `start_s` to the one after `end_s`.

        A meter that never ticked leaves the whole curve as one gap: it may be stuck.
        """
        ticks = (self.times_s[0], *self.ticks_s, self.times_s[-1])
        first = bisect.bisect_right(ticks, start_s) - 1
        last = bisect.bisect_left(ticks, end_s)
        return max(after - before for before, after in pairwise(ticks[first : last + 1]))


@dataclass(frozen=True)
class Meter:
    """A sensor of energy: what `read` gives, in J or W or None, is made into energy by `curve`."""

    method: str
    read: Callable[[], float | None]
    curve: Callable[[Sequence[Reading]], Curve]


@dataclass(frozen=True)
class NoMeter:
    """Nothing here measures the energy of the device, and why."""

    reason: str


@dataclass(frozen=True)
class Window:
    """Energy of a whole number of iterations."""

    joules: float
    seconds: float
    iterations: int
    resolution_s: float


def find_meter(gpu: Gpu | None, powercap: Path = Path("/sys/class/powercap")) -> Meter | NoMeter:
    """The best meter that answers: of the GPU, or of the CPU packages where `gpu` is None.

    Raises:
        GpuLostError: The GPU is lost.
    """
    if gpu is None:
        return _find_rapl(powercap)
    if gpu.mig:
        return NoMeter("NVML measures the energy of the whole GPU, which MIG slices share")
    if gpu.total_energy_j() is not None:
        return Meter("counter", gpu.total_energy_j, counter_curve)
    if gpu.power_w() is not None:
        return Meter("power", gpu.power_w, power_curve)
    return NoMeter(
        f"NVML gives neither the energy of this GPU ({gpu.reasons['total_energy_j']}) "
        f"nor its power ({gpu.reasons['power_w']})"
    )


def measure_energy(
    step: Callable[[], object],
    drain: Callable[[], object],
    *,
    samples_per_step: int,
    tokens_per_step: int,
    sampling: Sampling,
    meter: Meter | NoMeter,
) -> Energy:
    """Measure the energy of `step`, which enqueues one forward; `drain` waits for the device.

    Raises:
        GpuLostError: The GPU was lost meanwhile.
    """
    if isinstance(meter, NoMeter):
        return Energy(ENERGY_NOT_MEASURED, reason=meter.reason)
    drain()
    idle_w, idle_reason = _idle_power(meter, sampling.idle_s)
    one_by_one = _load(step, drain, DRAIN_EVERY_S, per_drain=1)
    per_drain = one_by_one[-1].iterations
    with _polled(meter) as readings:
        _load(step, drain, SETTLE_S, per_drain)
        marks = _load(step, drain, sampling.energy_s, per_drain)
        _load(step, drain, TAIL_S, per_drain)
    try:
        window = whole_iterations(meter.curve(readings), marks)
    except UnusableError as error:
        return Energy(ENERGY_NOT_MEASURED, reason=str(error))

    samples = window.iterations * samples_per_step
    return Energy(
        method=meter.method,
        reason=idle_reason,
        per_sample_mj=1000 * window.joules / samples,
        per_token_mj=1000 * window.joules / (window.iterations * tokens_per_step),
        net_per_sample_mj=(
            None if idle_w is None else 1000 * (window.joules - idle_w * window.seconds) / samples
        ),
        window_j=window.joules,
        window_s=window.seconds,
        iterations=window.iterations,
        mean_w=window.joules / window.seconds,
        idle_w=idle_w,
        resolution_s=window.resolution_s,
        # Either edge lies somewhere within a gap between two ticks.
        uncertainty=2 * window.resolution_s / window.seconds,
    )


def doubts(found: Energy) -> list[str]:
    """What weakens this energy; one that was not measured at all says so in its reason."""
    if found.method == ENERGY_NOT_MEASURED:
        return []
    weak = [found.reason] if found.reason else []
    if found.uncertainty is not None and found.uncertainty > DOUBTFUL_UNCERTAINTY:
        weak.append(
            f"energy within +-{found.uncertainty:.0%}: the window of {found.window_s:.1f} s is "
            f"short for a meter that ticks every {found.resolution_s:.2f} s (sampling.energy_s)"
        )
    return weak


def counter_curve(readings: Sequence[Reading]) -> Curve:
    """Energy from a counter, in J, at its ticks: halfway between the old value and the new one.

    Raises:
        UnusableError: The counter went backwards, or ticked less than twice.
    """
    ticks = []
    for before, after in pairwise(readings):
        if after.value < before.value:
            raise UnusableError(
                f"the energy counter went backwards, from {before.value} J to {after.value} J"
            )
        if after.value > before.value:
            ticks.append(Reading((before.time_s + after.time_s) / 2, after.value))
    if len(ticks) < 2:
        raise UnusableError(f"the energy counter ticked {len(ticks)} times, too few for a window")
    times_s, joules = zip(*ticks, strict=True)
    return Curve(times_s, joules, ticks_s=times_s)


def power_curve(readings: Sequence[Reading]) -> Curve:
    """Energy from readings of power, in W: each holds until the next one (trapezoids).

    A reading tells of the time before it, so the curve lags by up to a tick; under a steady load
    that shifts the edges only. Readings that do not change are added up all the same.

    Raises:
        UnusableError: The sensor gave fewer than two readings, or nothing but 0 W.
    """
    if len(readings) < 2:
        raise UnusableError(f"the power sensor gave {len(readings)} readings, too few for a window")
    if not any(reading.value for reading in readings):
        raise UnusableError("the power sensor read 0 W all the time")
    joules, ticks = [0.0], []
    for before, after in pairwise(readings):
        mean_w = (before.value + after.value) / 2
        joules.append(joules[-1] + mean_w * (after.time_s - before.time_s))
        if after.value != before.value:
            ticks.append((before.time_s + after.time_s) / 2)
    return Curve(tuple(reading.time_s for reading in readings), tuple(joules), tuple(ticks))


def whole_iterations(curve: Curve, marks: Sequence[Mark]) -> Window:
    """The longest window from mark to mark that lies within the curve.

    Raises:
        UnusableError: There is none, or the meter published nothing within it.
    """
    inside = [mark for mark in marks if curve.times_s[0] <= mark.time_s <= curve.times_s[-1]]
    if len(inside) < 2:
        raise UnusableError("the meter's ticks do not enclose an iteration")
    (start_s, done_before), (end_s, done_after) = inside[0], inside[-1]
    if not any(start_s <= time_s <= end_s for time_s in curve.times_s):
        raise UnusableError(f"the meter did not tick in the window of {end_s - start_s:.3g} s")
    return Window(
        joules=curve.at(end_s) - curve.at(start_s),
        seconds=end_s - start_s,
        iterations=done_after - done_before,
        resolution_s=curve.resolution_s(start_s, end_s),
    )


def _idle_power(meter: Meter, idle_s: float) -> tuple[float | None, str | None]:
    """Mean power in W while nothing runs, or None and the reason."""
    if not idle_s:
        return None, "no idle power: idle_s is 0"
    time.sleep(SETTLE_S)
    with _polled(meter) as readings:
        time.sleep(idle_s)
    try:
        curve = meter.curve(readings)
    except UnusableError as error:
        return None, f"no idle power: {error}"
    seconds = curve.times_s[-1] - curve.times_s[0]
    return (curve.joules[-1] - curve.joules[0]) / seconds, None


def _load(
    step: Callable[[], object], drain: Callable[[], object], seconds: float, per_drain: int
) -> list[Mark]:
    """Keep the device busy for some time; mark where it stands whenever it is drained."""
    marks = [Mark(time.perf_counter(), 0)]
    while marks[-1].time_s < marks[0].time_s + seconds:
        for _ in range(per_drain):
            step()
        drain()
        marks.append(Mark(time.perf_counter(), marks[-1].iterations + per_drain))
    return marks


@contextmanager
def _polled(meter: Meter) -> Iterator[list[Reading]]:
    """Poll the meter in a thread while the block runs; the readings are complete after it.

    Raises:
        GpuLostError: The GPU was lost meanwhile.
    """
    readings: list[Reading] = []
    done = Event()

    def poll() -> None:
        while not done.wait(POLL_S):
            before_s = time.perf_counter()
            value = meter.read()
            # A reading that failed leaves a gap, which `resolution_s` shows.
            if value is not None:
                readings.append(Reading((before_s + time.perf_counter()) / 2, value))

    with ThreadPoolExecutor(max_workers=1) as pool:
        polling = pool.submit(poll)
        try:
            yield readings
        finally:
            done.set()
            # Here, because a lost GPU also fails the block, in less clear words.
            polling.result()


def _find_rapl(powercap: Path) -> Meter | NoMeter:
    """The energy counters of all CPU packages, added up: Linux's powercap, for Intel and AMD."""
    # Only intel-rapl:N that are packages: intel-rapl:N:M are parts of one, and psys is the board.
    packages = [
        domain
        for domain in sorted(powercap.glob("intel-rapl:*"))
        if re.fullmatch(r"intel-rapl:\d+", domain.name)
        and (domain / "name").read_text().startswith("package")
    ]
    if not packages:
        return NoMeter(f"no CPU energy counter (RAPL) in {powercap}; virtual machines have none")
    try:
        read_j = _rapl_reader(packages)
    except PermissionError as error:
        return NoMeter(
            f"{error.filename} may not be read; `sudo chmod a+r {error.filename}` permits it "
            "until the next boot"
        )
    except OSError as error:
        return NoMeter(f"the CPU energy counter (RAPL) does not answer: {error}")
    return Meter("rapl", read_j, counter_curve)


def _rapl_reader(packages: Sequence[Path]) -> Callable[[], float | None]:
    """A function that gives the energy of the packages since now, in J.

    The counters start again from 0 at their range, some 260 kJ or minutes at full load, so it must
    be called more often than that.

    Raises:
        OSError: A counter may not or cannot be read.
    """
    counters = [package / "energy_uj" for package in packages]
    ranges_uj = [int((package / "max_energy_range_uj").read_text()) for package in packages]
    last_uj = [int(counter.read_text()) for counter in counters]
    total_uj = 0

    def read_j() -> float | None:
        nonlocal last_uj, total_uj
        try:
            now_uj = [int(counter.read_text()) for counter in counters]
        except OSError:
            return None
        total_uj += sum(
            (now - last) % range_uj
            for now, last, range_uj in zip(now_uj, last_uj, ranges_uj, strict=True)
        )
        last_uj = now_uj
        return total_uj / 1e6

    return read_j
