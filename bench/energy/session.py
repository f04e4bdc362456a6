"""Energy of a forward pass: windows of steady load, read from the best meter that answers.

What happens, in order, and how long by `sampling.energy`:

    idle     idle_s                the context alive, nothing running: idle power
    load     SETTLE_S              certified: at least WARM_S and until clock and heat are steady
    window   energy_s              standard: five of a fifth of it; certified: five of at least
                                   10 s, 50 ticks of the meter and 400 forwards
    idle     idle_s                not quick

A meter publishes a new value every 20 to 100 ms and hides what lies between, so the difference of
two readings taken at will is wrong by up to a tick at either end: simulated sensors lost 59 to 81 %
of one 10 ms forward, and 4 % of the first second. Here a window begins and ends at ticks that were
seen, and the forwards between them are counted with their fractions.

A sensor that sees a part of the time only, as an A100's 25 ms of each 100 ms, can fall in step
with the load and see the same part of each forward: errors of 30 % in simulation. Where that can
be, short pauses move the phase of the load by the golden ratio of a period, which covers all phases
evenly. Ticks that saw one do not count, and `discrepancy` tells how even the phases became. After a
pause the device waits for the host, 0.2 ms for a graph and 1 to 1.5 ms in eager mode, so that the
first forward belongs to the pause.

Energy is gross (all that the device drew) and net (less idle power for as long), of all windows
over all their forwards: each weighs alike, also where the host slowed some. The interval is
Student's over the windows, with the uncertainty of the edges in quadrature. The sensor's own error,
about 5 % on many boards (Yang, Adamek, Armour, SC'24), is the same in every window and stands apart
in `systematic`. What weakens a window is a flag; such a window is measured once more, then kept
with its flag. An unusable meter gives the method "none" and the reason, never a number.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import NamedTuple

from bench import stats
from bench.asked import ENERGY_NOT_MEASURED, Sampling
from bench.device import gpus
from bench.device.conditions import THROTTLED_S
from bench.device.nvml import Gpu
from bench.energy import probe as sensors
from bench.energy import rapl
from bench.energy.protocol import (
    AVERAGED_RESTART_S,
    CERTIFIED_MAX_S,
    CERTIFIED_S,
    DRAIN_EVERY_S,
    RESTART_S,
    SETTLE_S,
    SLOWEST_TICK_S,
    WARM_MAX_S,
    WINDOWS,
)
from bench.energy.ticks import Clock, Reading, SystemClock, Tick, latest_s, period_s, regular, ticks
from bench.energy.windows import (
    GOLDEN,
    Course,
    Mark,
    UnusableError,
    Window,
    counted_ticks,
    cut,
    golden_pause_s,
    star_discrepancy,
    summed_ticks,
    thinned,
)
from bench.errors import GpuLostError
from bench.measured import Energy, Sensor
from bench.timing import Queue
from bench.warnings import RowWarning

COUNTER, POWER, RAPL = "counter", "power", "rapl"

FASTEST_TICK_S = 0.02  # of the GPU sensors known (P100, V100)
LOOK_S = 0.5  # Clocks and temperature change slowly, and each look is some six more calls.
WARM_S = 30.0
STEADY_S = 10.0  # clocks and heat are steady if they were for so long

CERTIFIED_TICKS, CERTIFIED_ITERATIONS = 50, 400

SILVER = 2**0.5 - 1
# A pause is half a period long on average: one in ten periods costs 5 % of the time. But a window
# shall have so many phases, and a phase so many ticks.
PAUSE_EVERY_PERIODS, PHASES, PAUSE_EVERY_TICKS = 10, 16, 3
LAGS = 4  # after so many of its lags, a meter shows 2 % of a change
RECENT_S = 2.0  # whose ticks tell the time of the next one
# The shortest window of a reading known, for a sensor that was not probed (P100, V100).
SHORTEST_READING_S = 0.01

DOUBTFUL_UNCERTAINTY = 0.03
FEWEST_TICKS = 10
CLOCK_SPREAD, DRIFT_C, MISSED_SHARE = 0.02, 3.0, 0.02
EVEN_PHASES, EVEN_PAUSED_PHASES = 0.1, 0.25
# Over the root of their number: so uneven are random phases in 1 of 100 cases (Kolmogorov).
RANDOM_PHASES = 1.63
IN_STEP_ERROR = 0.2  # beyond it, readings in step check nothing
SURE = 3.0  # standard errors of the readings' mean


class LostError(GpuLostError):
    """The GPU was lost; `energy` is what had been measured until then."""

    def __init__(self, text: str, energy: Energy) -> None:
        super().__init__(text)
        self.energy = energy


class State(NamedTuple):
    """What a GPU tells beside its energy; None where it does not."""

    sm_mhz: float | None
    temperature_c: float | None
    throttled_s: dict[str, float] | None
    foreign: tuple[int, ...] | None


@dataclass(frozen=True)
class Meter:
    """A sensor of energy: what it reads, and what is known of it."""

    method: str
    read_j: Callable[[], float | None] | None = None  # a counter, in J
    read_w: Callable[[], float | None] | None = None
    look: Callable[[], State] | None = None
    systematic: float | None = None
    sensor: Sensor | None = None
    reason: str | None = None  # why it is not a better one, or not a good one

    def sees_all(self, method: str) -> bool:
        """Whether no part of the load escapes it."""
        if method == RAPL or (method == COUNTER and self.sensor is None):
            return True
        if self.sensor is None:
            return False
        if method == COUNTER:
            return self.sensor.counter == sensors.INTEGRATING
        window_s, every_s = self.sensor.reading_window_s, self.sensor.reading_period_s
        return bool(window_s and every_s and window_s >= 0.9 * every_s)

    def may_lock(self, iteration_s: float) -> bool:
        """Whether forwards of this length are long enough for its readings to tell apart."""
        window_s = self.sensor.reading_window_s if self.sensor else None
        # A hundred forwards in one reading leave a hundredth of one to chance.
        return iteration_s > (window_s or SHORTEST_READING_S) / 100


@dataclass(frozen=True)
class NoMeter:
    """Nothing here measures the energy of the device, and why."""

    reason: str


@dataclass
class Recording:
    """What was read while something ran."""

    joules: list[Reading] = field(default_factory=list)
    watts: list[Reading] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    failed: int = 0
    lost: GpuLostError | None = None


def find_meter(
    gpu: Gpu | None, powercap: Path = rapl.POWERCAP, sensor: Sensor | None = None
) -> Meter | NoMeter:
    """The best meter that answers: of the GPU, or of the CPU packages where `gpu` is None.

    Raises:
        GpuLostError: The GPU is lost.
    """
    if gpu is None:
        read_j = rapl.reader(powercap)
        return NoMeter(read_j) if isinstance(read_j, str) else Meter(RAPL, read_j=read_j)
    if gpu.mig:
        return NoMeter("NVML measures the energy of the whole GPU, which MIG slices share")
    if gpu.vgpu:
        return NoMeter("NVML measures the energy of the whole GPU, which virtual GPUs share")
    reader = sensors.power_reader(gpu)
    counter = Meter(
        COUNTER,
        read_j=gpu.reader("total_energy_j"),
        read_w=reader[1] if reader else None,
        look=lambda: _look(gpu),
        systematic=gpus.SENSOR_ERROR.get(gpu.gpu_type, gpus.USUAL_SENSOR_ERROR),
        sensor=sensor,
    )
    counts = gpu.total_energy_j() is not None
    why = sensor.reason if sensor and sensor.counter == sensors.INCONSISTENT else None
    if counts and gpu.module:
        why = "the energy counter counts the whole module, with its CPU"
    if counts and not (why and reader):
        return replace(counter, reason=why)
    if reader:
        return replace(counter, method=POWER, read_j=None, reason=why)
    return NoMeter(
        f"NVML gives neither the energy of this GPU ({gpu.reasons['total_energy_j']}) "
        f"nor its power ({gpu.reasons['power_w']})"
    )


def measure_energy(
    queue: Queue,
    *,
    samples_per_step: int,
    tokens_per_step: int,
    sampling: Sampling,
    meter: Meter | NoMeter,
    clock: Clock | None = None,
) -> Energy:
    """Measure the energy of a forward.

    Args:
        queue: What runs.
        samples_per_step: Samples in one forward.
        tokens_per_step: Tokens in one forward.
        sampling: How long.
        meter: What is read meanwhile.
        clock: The system's, if not told otherwise.

    Raises:
        LostError: The GPU was lost meanwhile.
    """
    if isinstance(meter, NoMeter):
        return Energy(ENERGY_NOT_MEASURED, reason=meter.reason)
    session = _Session(queue, meter, sampling, clock or SystemClock())
    try:
        session.run()
    except Exception as error:
        lost = error if isinstance(error, GpuLostError) else session.lost()
        if lost is None:
            raise
        raise LostError(str(lost), session.energy(samples_per_step, tokens_per_step)) from error
    return session.energy(samples_per_step, tokens_per_step)


def warnings(found: Energy) -> list[RowWarning]:
    """What weakens this energy; one that was not measured at all says so in its reason."""
    if found.method == ENERGY_NOT_MEASURED:
        return []
    weak = [RowWarning("energy-meter", {"reason": found.reason})] if found.reason else []
    if found.uncertainty is not None and found.uncertainty > DOUBTFUL_UNCERTAINTY:
        values = {
            "uncertainty": found.uncertainty,
            "window_s": found.window_s,
            "resolution_s": found.resolution_s,
        }
        weak.append(RowWarning("energy-uncertain", values))
    return weak + [RowWarning("energy-meter", {"reason": flag}) for flag in found.flags or ()]


# ----------------------------------------------------------------------------- the protocol


@dataclass
class _Session:
    """One measurement while it goes on: what it has found stays if the GPU is lost."""

    queue: Queue
    meter: Meter
    sampling: Sampling
    clock: Clock
    method: str = ""
    per_drain: int = 1
    iteration_s: float = 0.0
    idle: list[Recording] = field(default_factory=list)
    kept: list[Recording] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    unusable: str | None = None
    ticks_s: dict[str, float | None] = field(default_factory=dict)  # by method, as seen while idle
    pauses: int = 0
    aimed_s: float = 0.0  # the tick that the last pause was meant for
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self) -> None:
        """Idle, load, windows, idle."""
        self.method = self.meter.method
        if self.meter.reason:
            instead = ": readings of power are used instead" if self.method == POWER else ""
            self.flags.append(self.meter.reason + instead)
        quick, certified = (self.sampling.energy == name for name in ("quick", "certified"))
        self.queue.synchronise()
        self._idle()
        self._pace()
        self._warm_up(certified)
        hopeless: set[str] = set()
        for number in range(1, self._windows() + 1):
            recording = self._window()
            found = self._flags_of(recording)
            if not quick and not hopeless.issuperset(map(_kind, found)):
                self.flags += [f"window {number}, measured again: {flag}" for flag in found]
                self.kept.remove(recording)
                found = self._flags_of(self._window())
                # What came again will come again: no third time, nor in the windows to come.
                hopeless.update(map(_kind, found))
            self.flags += [f"window {number}: {flag}" for flag in found]
        if self.method == COUNTER:
            self.flags += self._disagreement()
        if not quick:
            self._idle()

    def lost(self) -> GpuLostError | None:
        """Whether the GPU is lost, which also fails the forward, in less clear words."""
        try:
            for read in (self.meter.read_j, self.meter.read_w):
                if read:
                    read()
        except GpuLostError as error:
            return error
        return None

    def energy(self, samples_per_step: int, tokens_per_step: int) -> Energy:
        """The record of what was found so far."""
        windows = [window for window in map(self._evaluated, self.kept) if window]
        if not windows:
            why = self.unusable or "the GPU was lost before a window was complete"
            return Energy(ENERGY_NOT_MEASURED, reason=why, flags=tuple(self.flags) or None)
        joules, seconds = sum(w.joules for w in windows), sum(w.seconds for w in windows)
        iterations = sum(w.iterations for w in windows)
        samples, tokens = iterations * samples_per_step, iterations * tokens_per_step
        each_mj = [1000 * w.joules / (w.iterations * samples_per_step) for w in windows]
        mean_mj = 1000 * joules / samples
        resolution_s = max(w.resolution_s for w in windows)
        if len(windows) == 1:
            # Nothing tells how windows scatter. A tick at either edge is the most that it can be,
            # and where the meter saw only a part, how much that differs from what it did not see.
            uncertainty = math.hypot(2 * resolution_s / seconds, windows[0].chance)
        else:
            edge = sum(w.edge_s / w.seconds for w in windows) / len(windows)
            uncertainty = math.hypot(stats.student_interval(each_mj) / mean_mj, edge)
        idle_w, idle_reason = self._idle_w()
        net_j = None if idle_w is None else joules - idle_w * seconds
        pause_s = sum(w.pause_s for w in windows)
        readings = [reading for recording in self.kept for reading in recording.watts]
        trace = thinned(readings) if readings else None
        return Energy(
            method=self.method,
            reason=idle_reason,
            protocol=self.sampling.energy,
            per_sample_mj=mean_mj,
            per_sample_mj_low=mean_mj * (1 - uncertainty),
            per_sample_mj_high=mean_mj * (1 + uncertainty),
            per_sample_mj_samples=tuple(each_mj),
            per_token_mj=mean_mj * samples_per_step / tokens_per_step,
            net_per_sample_mj=None if net_j is None else 1000 * net_j / samples,
            net_per_token_mj=None if net_j is None else 1000 * net_j / tokens,
            window_j=joules,
            window_s=seconds,
            iterations=iterations,
            mean_w=joules / seconds,
            idle_w=idle_w,
            idle_w_before=self._mean_w(self.idle[0]) if self.idle else None,
            idle_w_after=self._mean_w(self.idle[1]) if len(self.idle) > 1 else None,
            resolution_s=resolution_s,
            ticks=sum(w.ticks for w in windows),
            uncertainty=uncertainty,
            systematic=self.meter.systematic,
            pause_share=pause_s / (seconds + pause_s),
            discrepancy=max(w.discrepancy for w in windows)
            if self._lockable(self.method)
            else None,
            flags=tuple(self.flags) or None,
            trace_s=tuple(r.time_s - readings[0].time_s for r in trace) if trace else None,
            trace_w=tuple(r.value for r in trace) if trace else None,
        )

    def _idle(self) -> None:
        if not self.sampling.idle_s:
            return
        self.clock.sleep(SETTLE_S)
        with self._recorded() as recording:
            self.clock.sleep(self.sampling.idle_s)
        self.idle.append(recording)
        counter_w, readings_w = self._mean_w(recording), _mean(recording.watts)
        if self.method != COUNTER or counter_w is None or readings_w is None:
            return
        if not sensors.agree(counter_w, readings_w):
            each = f"the counter gave {counter_w:.1f} W, the readings {readings_w:.1f} W"
            self.flags.append(f"while idle {each}")

    def _pace(self) -> None:
        """How long a forward takes, and how often to wait for the device."""
        marks = self._busy(DRAIN_EVERY_S)
        # Each of these began late, since the device was waited for before it.
        count = marks[-1].iterations
        self.iteration_s = self._stretch(count) / count
        self.per_drain = max(1, int(DRAIN_EVERY_S / self.iteration_s))

    @property
    def period_s(self) -> float:
        """How often the meter ticks; the slowest known, if that is not known."""
        return self._tick_s() or SLOWEST_TICK_S

    def _tick_s(self) -> float | None:
        """How often the meter ticks: as probed, or as seen while idle; None if neither."""
        sensor = self.meter.sensor
        probed_s = sensor and (
            sensor.counter_period_s if self.method == COUNTER else sensor.reading_period_s
        )
        if probed_s:
            return probed_s
        if self.method not in self.ticks_s and self.idle:
            idle = self.idle[0]
            readings = idle.joules if self.method == COUNTER else idle.watts
            self.ticks_s[self.method] = period_s(ticks(readings))
        return self.ticks_s.get(self.method)

    def _warm_up(self, thoroughly: bool) -> None:
        self._busy(SETTLE_S)
        if not (thoroughly and self.meter.look):
            return
        looks = [(self.clock.now(), self.meter.look())]
        start_s = looks[0][0]
        while True:
            self._busy(1.0)
            now_s = self.clock.now()
            looks.append((now_s, self.meter.look()))
            recent = [state for time_s, state in looks if time_s >= now_s - STEADY_S]
            steady = _clock_spread(recent) <= CLOCK_SPREAD and _drift_c(recent) <= 1.0
            if now_s >= start_s + WARM_S and steady:
                return
            if now_s >= start_s + WARM_MAX_S:
                self.flags.append(f"clock and temperature not steady after {WARM_MAX_S:.0f} s")
                return

    def _windows(self) -> int:
        return 1 if self.sampling.energy == "quick" else WINDOWS

    def _window(self) -> Recording:
        """One window, at a phase of the meter that is left to chance."""
        self.clock.sleep(self.random.uniform(0, self.period_s))
        averaged = self.meter.sensor is not None and self.meter.sensor.reading == "usage"
        self._busy(max(AVERAGED_RESTART_S if averaged else RESTART_S, self._trail_s()))
        with self._recorded() as recording:
            self.kept.append(recording)  # What there is of it stays if the GPU is lost.
            load = self._busy_with_pauses if self._rephases() else self._busy
            load(self._window_s(), recording)
        return recording

    def _window_s(self) -> float:
        each_s = self.sampling.energy_s / self._windows()
        if self.sampling.energy != "certified":
            return each_s
        ticks_s = CERTIFIED_TICKS * self.period_s
        iterations_s = CERTIFIED_ITERATIONS * self.iteration_s
        return min(max(each_s, CERTIFIED_S, 1.05 * ticks_s, 1.05 * iterations_s), CERTIFIED_MAX_S)

    def _rephases(self) -> bool:
        """Whether pauses are needed; one is aimed at a tick, so that its time must be known."""
        return self._lockable(self.method) and self._tick_s() is not None

    def _modulus_s(self) -> float:
        return min(self.period_s, self.iteration_s)

    def _until_pause(self, left_s: float) -> int:
        """How many forwards come before the next pause, in a window of which so much is left.

        Also the ticks' places among the pauses are spread evenly.
        """
        seldom_s = min(PAUSE_EVERY_PERIODS * self._modulus_s(), self._window_s() / PHASES)
        least_s = max(seldom_s, PAUSE_EVERY_TICKS * self.period_s) + self._trail_s()
        due_s = least_s + (self.pauses * SILVER % 1 - 0.5) * self.period_s
        # Two, so that each part of a forward is seen by a tick that does not see the pause.
        return max(2, round(min(due_s, left_s) / self.iteration_s))

    def _pause(self, readings: Sequence[Reading]) -> None:
        """Let the load begin again at a phase of the meter's ticks that it had not yet."""
        now_s, modulus_s = self.clock.now(), self._modulus_s()
        recent = ticks(readings[-math.ceil(RECENT_S / poll_every_s(self._tick_s())) :])
        last_s = latest_s(recent, self.period_s) if recent else now_s
        # The first tick that comes after the pause, however long that is.
        coming = math.ceil((now_s + modulus_s - last_s) / self.period_s)
        tick_s = last_s + coming * self.period_s
        if tick_s - self.aimed_s > self.period_s / 2:
            self.pauses += 1
            self.aimed_s = tick_s
        self.clock.sleep(golden_pause_s(now_s, tick_s, self.pauses, modulus_s))

    def _busy(self, seconds: float, recording: Recording | None = None) -> list[Mark]:
        """Keep the device busy for some time; mark where it stands whenever it is drained."""
        marks = recording.marks if recording else []
        marks.append(Mark(self.clock.now(), 0))
        while marks[-1].time_s < marks[0].time_s + seconds:
            if recording and recording.lost:
                raise recording.lost
            for _ in range(self.per_drain):
                self.queue.enqueue()
            self.queue.synchronise()
            marks.append(Mark(self.clock.now(), marks[-1].iterations + self.per_drain))
        return marks

    def _busy_with_pauses(self, seconds: float, recording: Recording) -> None:
        """Keep the device busy for some time, with pauses; mark where each begins and ends."""
        marks = recording.marks
        marks.append(Mark(self.clock.now(), 0))
        end_s = marks[0].time_s + seconds
        while marks[-1].time_s < end_s:
            if recording.lost:
                raise recording.lost
            self._pause(recording.joules if self.method == COUNTER else recording.watts)
            count = self._until_pause(end_s - self.clock.now())
            took_s = self._stretch(count)
            now_s, done = self.clock.now(), marks[-1].iterations
            marks += [Mark(now_s - took_s, done), Mark(now_s, done + count)]

    def _stretch(self, count: int) -> float:
        """Run so many forwards after another one; how long they took, in s."""
        self.queue.enqueue()
        took_s = self.queue.stretch()
        for _ in range(count):
            self.queue.enqueue()
        return took_s()

    @contextmanager
    def _recorded(self) -> Iterator[Recording]:
        """Read the meter while the block runs; the recording is complete after it.

        Raises:
            GpuLostError: The GPU was lost meanwhile.
        """
        recording = Recording()
        poll = poller(self.meter, recording, self.clock)
        with self.clock.polling(poll, poll_every_s(self._tick_s())):
            yield recording
        poll(last=True)
        if recording.lost:
            raise recording.lost

    def _flags_of(self, recording: Recording) -> tuple[str, ...]:
        """What weakens a window."""
        window = self._evaluated(recording)
        if window is None and self.method == COUNTER and self.meter.read_w:
            self.flags.append(f"{self.unusable}: readings of power are used instead")
            self.method = POWER
            window = self._evaluated(recording)
        return (self.unusable or "",) if window is None else window.flags

    def _evaluated(self, recording: Recording) -> Window | None:
        if len(recording.marks) < 2:
            return None  # The GPU was lost at once.
        try:
            energy = self._energy_ticks(recording)
            window = cut(energy, Course(recording.marks), self._reach_s())
        except UnusableError as error:
            self.unusable = str(error)
            return None
        flags = (*_surroundings(recording.states), *self._weaknesses(recording, window))
        return replace(window, flags=flags)

    def _energy_ticks(self, recording: Recording) -> list[Tick]:
        if self.method == POWER:
            return summed_ticks(recording.watts, self._tick_s())
        return counted_ticks(recording.joules, self._tick_s())

    def _reach_s(self) -> float:
        """How far back a tick of the meter sees; all of its period, as far as is known."""
        sensor = self.meter.sensor
        window_s = sensor and (
            sensor.counter_window_s if self.method == COUNTER else sensor.reading_window_s
        )
        return (window_s or self.period_s) + self._trail_s()

    def _trail_s(self) -> float:
        """For how long a meter that lags still shows what was before."""
        sensor = self.meter.sensor
        if sensor is None:
            return 0.0
        lag_s = sensor.counter_lag_s if self.method == COUNTER else None
        # Both are behind the same filter; that of the readings is better known.
        return LAGS * ((sensor.reading_lag_s if lag_s is None else lag_s) or 0.0)

    def _weaknesses(self, recording: Recording, window: Window) -> Iterator[str]:
        """What in the meter weakens a window."""
        readings = recording.watts if self.method == POWER else recording.joules
        fewest = CERTIFIED_TICKS if self.sampling.energy == "certified" else FEWEST_TICKS
        seen = ticks(readings)
        every_s = self._tick_s() or period_s(seen)
        length_s = window.seconds + window.pause_s
        if len(seen) < 2:
            yield "the power reading never changed: it may be stuck"
        elif len(seen) < fewest:
            yield f"only {len(seen)} ticks of the meter"
        # A reading may well come twice; a counter that moves seldom does not.
        elif every_s and window.resolution_s > (10 if self.method == POWER else 3) * every_s:
            yield f"the meter stood still for {window.resolution_s:.2f} s"
        if recording.failed:
            yield f"{recording.failed} readings failed"
        if every_s:
            unseen_s = sum(
                max(0.0, after.time_s - before.time_s - every_s)
                for before, after in pairwise(readings)
            )
            if unseen_s > MISSED_SHARE * length_s:
                yield f"{unseen_s / length_s:.0%} of the meter's ticks were missed"
        # With pauses there are some 16 phases, of many ticks each.
        random_phases = max(EVEN_PHASES, RANDOM_PHASES / window.ticks**0.5)
        uneven = EVEN_PAUSED_PHASES if window.pause_s else random_phases
        if self._lockable(self.method) and window.discrepancy > uneven:
            yield f"sensor and load were in step (discrepancy {window.discrepancy:.2f})"

    def _disagreement(self) -> Iterator[str]:
        """Whether counter and readings differ by more than they may by chance.

        Both tell of the same times, without what the first readings show of the time before. The
        readings differ by what the parts of a forward draw, and windows by the phases that they
        saw. Readings in step with long forwards tell of a part of each, and so nothing here.
        """
        pairs, values, in_step = [], [], 0.0
        for recording in self.kept:
            start_s = recording.marks[0].time_s + self._readings_reach_s()
            watts = [reading for reading in recording.watts if reading.time_s >= start_s]
            joules = [reading for reading in recording.joules if reading.time_s >= start_s]
            if len(ticks(joules)) < 2 or not watts:
                continue
            if not self._saw_all(recording):
                if self._in_step_error() > IN_STEP_ERROR:
                    continue
                in_step = self._in_step_error()
            values += [tick.value for tick in ticks(watts)]
            pairs.append((_mean_w(counted_ticks(joules)), _mean(watts) or 0.0))
        if len(values) < FEWEST_TICKS:
            return
        counted_w, read_w = (sum(each) / len(pairs) for each in zip(*pairs, strict=True))
        chance_w = SURE * stdev(values) / len(values) ** 0.5
        if len(pairs) > 1:
            apart_w = [counted - read for counted, read in pairs]
            chance_w = max(chance_w, stats.student_interval(apart_w))
        if read_w and not sensors.agree(counted_w, read_w, chance_w + in_step * read_w):
            yield f"the counter gave {counted_w / read_w:.2f} times the power of the readings"

    def _in_step_error(self) -> float:
        """How far, relative, readings in step may be from the mean of a forward.

        Of a reading's window only what is left beside whole forwards can mislead: at most half of a
        forward, if half of it drew twice the mean and half of it nothing.
        """
        sensor = self.meter.sensor
        window_s = sensor.reading_window_s if sensor else None
        # Of the sensors known, none sees less than a quarter of its period, nor 10 ms.
        return self.iteration_s / 2 / (window_s or max(SHORTEST_READING_S, self.period_s / 4))

    def _saw_all(self, recording: Recording) -> bool:
        """Whether the ticks of counter and readings fell on all parts of a forward alike.

        Readings that come more often than they are polled have their times from the counter, which
        is of the same sensor.
        """
        if not self._lockable(POWER):
            return True
        course = Course(recording.marks)
        every_s = self.meter.sensor.reading_period_s if self.meter.sensor else None
        for seen in (
            counted_ticks(recording.joules, self._tick_s()),
            regular(ticks(recording.watts), every_s),
        ):
            phases = course.phases(tick.time_s for tick in seen)
            random_phases = RANDOM_PHASES / max(1, len(phases)) ** 0.5
            if not phases or star_discrepancy(phases) > min(EVEN_PAUSED_PHASES, random_phases):
                return False
        return True

    def _readings_reach_s(self) -> float:
        """How far back a reading of power shows; as far as any known does, if it was not probed."""
        sensor = self.meter.sensor
        if sensor is None or sensor.reading_window_s is None:
            return AVERAGED_RESTART_S
        return sensor.reading_window_s + LAGS * (sensor.reading_lag_s or 0.0)

    def _lockable(self, method: str) -> bool:
        """Whether a method could fall in step with the load."""
        return not self.meter.sees_all(method) and self.meter.may_lock(self.iteration_s)

    def _idle_w(self) -> tuple[float | None, str | None]:
        """Mean idle power in W, or None and the reason."""
        if not self.sampling.idle_s:
            return None, "no idle power: idle_s is 0"
        watts = [w for w in map(self._mean_w, self.idle) if w is not None]
        if watts:
            return sum(watts) / len(watts), None
        return None, f"no idle power: {self.unusable}"

    def _mean_w(self, idle: Recording) -> float | None:
        try:
            energy = self._energy_ticks(idle)
        except UnusableError as error:
            self.unusable = str(error)
            return None
        return _mean_w(energy)


def poll_every_s(tick_s: float | None) -> float:
    """How far apart polls are, in s, for a meter that ticks this often; None: not known yet.

    Each costs some 0.1 ms of a core, half of it for waking up. A golden ratio of the fastest tick
    apart they miss no reading and find ticks at all phases, so that many together tell the time of
    each better than any one does. Only to find out how often a meter ticks they must be closer.
    """
    if tick_s is None or tick_s < 0.75 * FASTEST_TICK_S:
        return FASTEST_TICK_S / 4
    return GOLDEN * FASTEST_TICK_S


def poller(meter: Meter, recording: Recording, clock: Clock) -> Callable[..., None]:
    """A function that reads the meter once, and looks at its GPU now and then and at the `last`."""
    # The work beside it takes the caches between two polls, so that each call within one is dear.
    look_due_s, polls, now = 0.0, 0, clock.now
    both = [(meter.read_j, recording.joules.append), (meter.read_w, recording.watts.append)]
    meters = [(read, keep) for read, keep in both if read]
    first = meters[:1]

    def poll(last: bool = False) -> None:
        nonlocal look_due_s, polls
        if recording.lost:
            return
        polls += 1
        try:
            # Beside a counter, readings of power only check it and make the trace.
            for read, keep in first if polls % 4 else meters:
                before_s = now()
                value = read()
                if value is None:
                    recording.failed += 1
                else:
                    keep(Reading((before_s + now()) / 2, value))
            if meter.look and (last or now() >= look_due_s):
                recording.states.append(meter.look())
                look_due_s = now() + LOOK_S
        except GpuLostError as error:
            recording.lost = error

    return poll


def _kind(flag: str) -> str:
    """A flag without its numbers."""
    return re.sub(r"[\d.]+", "", flag)


def _look(gpu: Gpu) -> State:
    return State(
        gpu.sm_mhz(),
        gpu.temperature_c(),
        gpu.throttled_s(),
        gpu.foreign_processes({os.getpid()}),
    )


def _surroundings(states: Sequence[State]) -> Iterator[str]:
    """What around the meter weakens a window."""
    if not states:
        return
    before, after = states[0].throttled_s or {}, states[-1].throttled_s or {}
    held = {cause: after[cause] - before.get(cause, 0.0) for cause in after}
    slowed = [
        f"{cause} {seconds:.1f} s" for cause, seconds in held.items() if seconds > THROTTLED_S
    ]
    if slowed:
        yield f"clocks held down: {', '.join(slowed)}"
    if _clock_spread(states) > CLOCK_SPREAD:
        yield f"the SM clock moved by {_clock_spread(states):.0%}"
    if _drift_c(states) > DRIFT_C:
        yield f"the temperature moved by {_drift_c(states):.0f} C"
    foreign = {pid for state in states for pid in state.foreign or ()}
    if foreign:
        yield f"{len(foreign)} other processes used the same GPU"


def _clock_spread(states: Sequence[State]) -> float:
    clocks = [state.sm_mhz for state in states if state.sm_mhz]
    return 1 - min(clocks) / max(clocks) if clocks else 0.0


def _drift_c(states: Sequence[State]) -> float:
    celsius = [state.temperature_c for state in states if state.temperature_c is not None]
    return max(celsius) - min(celsius) if celsius else 0.0


def _mean_w(energy: Sequence[Tick]) -> float:
    first, last = energy[0], energy[-1]
    return (last.value - first.value) / (last.time_s - first.time_s)


def _mean(readings: Sequence[Reading]) -> float | None:
    return sum(reading.value for reading in readings) / len(readings) if readings else None
