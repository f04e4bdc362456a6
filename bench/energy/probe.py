"""How does this GPU's power sensor work? Found out by watching it under a load that is known.

NVIDIA does not say how often a reading is published, over how long it averages, or whether the
energy counter integrates the power or adds up those readings. It matters: an A100's readings see
25 ms of each 100 ms (Yang, Adamek, Armour, SC'24), and a load in step with them is metered wrong
by up to its whole swing. So the probe, once for a GPU and a driver:

    look    LOOK_S         busy and idle in irregular turns: how often do readings and counter tick
    watch   TICKS ticks    the same in turns of about a tick: over how long does each tick average
    steady  SETTLE_S + HOLD_S, busy and again idle: do counter and readings agree

The window is the one whose running mean of the load (0 or 1) explains the readings best, by least
squares over windows, delays and lags. A lag, as that of a filter before the sensor, is not taken
for a window: readings of a V100 rise over three or four of their ticks (SC'24). The steps of the
counter are treated as readings too: a counter that integrates has a window as long as its period,
one that adds up part-time readings has theirs. The turns are irregular, so that no ratio of periods
can mislead.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from bench.device.nvml import Gpu
from bench.energy.protocol import SETTLE_S
from bench.energy.ticks import Clock, Reading, SystemClock, period_s, ticks
from bench.measured import Sensor

Floats = NDArray[np.float64]

INTEGRATING, PART_TIME = "integrating", "part-time"
INCONSISTENT, UNKNOWN, ABSENT = "inconsistent", "unknown", "absent"

POLL_S = 0.001
LOOK_S = 3.0
TICKS = 160
HOLD_S = 2.0
AGREEMENT = 0.05  # counter against readings: the gain error of many boards' sensors
AGREEMENT_W = 1.0  # where 5 % of an idle GPU's power is less than the sensor resolves
# From 1 ms, below any sensor known, to a register of 1 s.
_WINDOWS_S = np.geomspace(0.001, 1.5, 80)
_DELAYS_S = np.linspace(0, 0.05, 11)
_KEPT = np.linspace(0.1, 0.9, 17)  # of the reading before, where readings are smoothed
_REMEMBERED = 20  # ticks that such a reading may still show
_LAGS_S = np.geomspace(0.005, 0.16, 6)
_LEFT = 0.5  # a fit with more to it must leave less than this share of what is not explained
_EXPLAINED = 0.8  # least share of the variance for a window to be believed
_WHOLE = 0.8  # a window of at least this share of the period sees all of it


@dataclass(frozen=True)
class Fit:
    """The window that explains a meter best."""

    window_s: float
    delay_s: float
    explained: float
    lag_s: float = 0.0


@dataclass
class _Watch:
    """What was seen while the load was known."""

    watts: list[Reading]
    joules: list[Reading]
    edges_s: list[float]  # the load's turns: busy first, then idle, ...


def power_reader(gpu: Gpu) -> tuple[str, Callable[[], float | None]] | None:
    """The quickest reading of power that the GPU gives, and its name; None where it gives none."""
    if gpu.instant_power_w() is not None:
        return "instant", gpu.reader("instant_power_w")
    if gpu.power_w() is not None:
        return "usage", gpu.reader("power_w")
    return None


def agree(counter_w: float, readings_w: float, chance_w: float = 0.0) -> bool:
    """Whether the counter and the readings tell of the same power, but for what chance may do."""
    return abs(counter_w - readings_w) <= max(AGREEMENT_W, AGREEMENT * readings_w) + chance_w


def probe(gpu: Gpu, busy: Callable[[float], object], clock: Clock | None = None) -> Sensor:
    """Find out how the sensor works; takes half a minute.

    Args:
        gpu: The GPU; nothing else may run on it.
        busy: Keeps it busy for about so many seconds and returns when it is idle again.
        clock: The system's, or the tests' virtual one.

    Raises:
        GpuLostError: The GPU was lost meanwhile.
    """
    clock = clock or SystemClock()
    start_s = clock.now()
    reader = power_reader(gpu)
    counts = gpu.total_energy_j() is not None
    if reader is None:
        return Sensor(
            UNKNOWN if counts else ABSENT, reason=f"no power reading: {gpu.reasons['power_w']}"
        )
    name, read_w = reader
    read_j = gpu.total_energy_j if counts else None
    found = _Probe(read_w, read_j, busy, clock).find()
    if not counts:
        found = replace(found, counter=ABSENT, reason=gpu.reasons.get("total_energy_j"))
    return replace(found, reading=name, probe_s=clock.now() - start_s)


def matrix_products(device: str) -> Callable[[float], None]:
    """A load for `probe`: a torch device, such as cuda:0, multiplies matrices for so long."""
    import torch

    square = torch.ones(1024, 1024, device=device)

    def busy(seconds: float) -> None:
        end_s = time.perf_counter() + seconds
        with torch.inference_mode():
            while time.perf_counter() < end_s:
                torch.mm(square, square)
                if square.is_cuda:
                    torch.cuda.synchronize(device)

    return busy


def boxcar(seen: Sequence[Reading], edges_s: Sequence[float]) -> Fit | None:
    """The window, delay and lag whose running mean of the load explains the values best.

    Args:
        seen: Values, each at the time when it was published.
        edges_s: When the load turned: on at the first, off at the second, and so on.
    """
    longest_s = float(_WINDOWS_S[-1] + _DELAYS_S[-1])
    inside = [r for r in seen if edges_s[0] + longest_s <= r.time_s <= edges_s[-1]]
    values = np.array([reading.value for reading in inside])
    if len(values) < 20 or not values.std():
        return None
    times_s = np.array([reading.time_s for reading in inside])

    def fit(windows_s: Floats, delays_s: Floats, lags_s: Sequence[float] | Floats) -> Fit:
        best = Fit(0, 0, -1)
        for lag_s in lags_s:
            busy_s = _busy_s(edges_s, lag_s)
            for delay_s in delays_s:
                until = busy_s(times_s - delay_s)
                for window_s in windows_s:
                    share = (until - busy_s(times_s - delay_s - window_s)) / window_s
                    if share.std():
                        explained = float(np.corrcoef(share, values)[0, 1]) ** 2
                        if explained > best.explained:
                            best = Fit(float(window_s), float(delay_s), explained, float(lag_s))
        return best

    def near(coarse: Fit) -> Fit:
        windows_s = np.geomspace(coarse.window_s / step, coarse.window_s * step, 15)
        delays_s = np.linspace(max(0.0, coarse.delay_s - 0.005), coarse.delay_s + 0.005, 11)
        lags_s = coarse.lag_s * np.geomspace(0.7, 1.4, 9) if coarse.lag_s else [0.0]
        return fit(windows_s, delays_s, lags_s)

    step = _WINDOWS_S[1] / _WINDOWS_S[0]
    at_once = near(fit(_WINDOWS_S, _DELAYS_S, [0.0]))
    lagging = near(near(fit(_WINDOWS_S, _DELAYS_S, _LAGS_S)))
    if not _explains_more(lagging, at_once):
        return at_once
    smoothed = _smoothed(times_s, values, edges_s)
    return lagging if _explains_more(lagging, smoothed) else smoothed


def _believed(fit: Fit | None) -> Fit | None:
    return fit if fit and fit.explained >= _EXPLAINED else None


def _explains_more(one: Fit, other: Fit) -> bool:
    return 1 - one.explained < _LEFT * (1 - other.explained)


def _smoothed(times_s: Floats, values: Floats, edges_s: Sequence[float]) -> Fit:
    """The fit of a sensor that sees all, and smooths what it publishes from tick to tick."""
    period_s = float(np.median(np.diff(times_s)))
    busy_s = _busy_s(edges_s, 0.0)
    before_s = times_s[0] - period_s * np.arange(_REMEMBERED, 0, -1)
    every_s = np.concatenate([before_s, times_s])
    best = Fit(period_s, 0, -1)
    for delay_s in np.linspace(0, _DELAYS_S[-1], 51):
        share = (busy_s(every_s - delay_s) - busy_s(every_s - delay_s - period_s)) / period_s
        for kept in _KEPT:
            shown = list(accumulate(share, partial(_mixed, kept)))
            explained = float(np.corrcoef(shown[_REMEMBERED:], values)[0, 1]) ** 2
            if explained > best.explained:
                best = Fit(period_s, float(delay_s), explained, float(-period_s / np.log(kept)))
    return best


def _mixed(kept: float, last: float, new: float) -> float:
    return kept * last + (1 - kept) * new


def _busy_s(edges_s: Sequence[float], lag_s: float) -> Callable[[Floats], Floats]:
    """How long the load had been on until a time, seen through a lag of the first order."""
    edges = np.array(edges_s)
    turns_s = np.diff(edges)
    on = np.arange(len(turns_s)) % 2 == 0
    on_s = np.concatenate([[0.0], np.cumsum(turns_s * on)])
    if not lag_s:
        return lambda times_s: np.interp(times_s, edges, on_s)
    behind = [0.0]  # what the lag shows at each edge
    for turn_s, target in zip(turns_s, on, strict=True):
        behind.append(target + (behind[-1] - target) * np.exp(-turn_s / lag_s))
    shown = np.array(behind)

    def busy_s(times_s: Floats) -> Floats:
        at = np.clip(np.searchsorted(edges, times_s, "right") - 1, 0, len(on) - 1)
        since_s = np.clip(times_s, edges[0], edges[-1]) - edges[at]
        now = on[at] + (shown[at] - on[at]) * np.exp(-since_s / lag_s)
        # What went in, less what the lag still holds back.
        through: Floats = on_s[at] + on[at] * since_s - lag_s * now
        return through

    return busy_s


@dataclass(frozen=True)
class _Probe:
    """The meters, the load and the clock that belong together."""

    read_w: Callable[[], float | None]
    read_j: Callable[[], float | None] | None
    busy: Callable[[float], object]
    clock: Clock

    def find(self) -> Sensor:
        """Look, watch, and hold steady."""
        turns = random.Random(0)
        look = self._watch(LOOK_S, lambda: turns.uniform(0.01, 0.15))
        reading_s, counter_s = period_s(ticks(look.watts)), period_s(ticks(look.joules))
        if reading_s is None:
            return Sensor(UNKNOWN, reason="the power reading hardly changed while the load did")
        slowest_s = max(reading_s, counter_s or 0)
        seconds = float(_WINDOWS_S[-1]) + TICKS * slowest_s
        watch = self._watch(seconds, lambda: turns.uniform(0.15, 1.6) * slowest_s)
        seen = ticks(watch.watts)
        fit = boxcar([Reading(tick.time_s, tick.value) for tick in seen], watch.edges_s)
        known = _believed(fit)
        found = Sensor(
            UNKNOWN,
            reading_period_s=period_s(seen),
            reading_window_s=known.window_s if known else None,
            reading_lag_s=known.lag_s if known else None,
            reading_fit=fit.explained if fit else None,
            reason=None if known else "the readings do not follow the load",
        )
        return found if self.read_j is None else self._counter(found, watch)

    def _counter(self, found: Sensor, watch: _Watch) -> Sensor:
        """What kind of counter it is."""
        seen = ticks(watch.joules)
        period = period_s(seen)
        if period is None:
            return replace(found, counter=INCONSISTENT, reason="the energy counter hardly moved")
        if any(after.value < before.value for before, after in pairwise(seen)):
            return replace(found, counter=INCONSISTENT, reason="the energy counter went backwards")
        steps = [
            Reading(after.time_s, (after.value - before.value) / (after.time_s - before.time_s))
            for before, after in pairwise(seen)
        ]
        known = _believed(boxcar(steps, watch.edges_s))
        watts = {
            "under load": self._both_w(self.busy),
            "while idle": self._both_w(self.clock.sleep),
        }
        ratios = {when: both and both[0] / both[1] for when, both in watts.items()}
        found = replace(
            found,
            counter_period_s=period,
            counter_window_s=known.window_s if known else None,
            counter_lag_s=known.lag_s if known else None,
            counter_ratio=ratios["under load"],
            counter_ratio_idle=ratios["while idle"],
        )
        for when, both in watts.items():
            if both and not agree(*both):
                times = f"{ratios[when]:.2f} times"
                reason = f"{when} the counter gives {times} the power of the readings"
                return replace(found, counter=INCONSISTENT, reason=reason)
        if found.counter_window_s is None:
            return replace(found, reason="the energy counter does not follow the load")
        whole = found.counter_window_s >= _WHOLE * period
        return replace(found, counter=INTEGRATING if whole else PART_TIME)

    def _watch(self, seconds: float, turn_s: Callable[[], float]) -> _Watch:
        """Read both meters while the load goes on and off in turns."""
        with self._polled() as seen:
            end_s = self.clock.now() + seconds
            while self.clock.now() < end_s:
                for pass_time in (self.busy, self.clock.sleep):
                    seen.edges_s.append(self.clock.now())
                    pass_time(turn_s())
            seen.edges_s.append(self.clock.now())
        return seen

    def _both_w(self, pass_time: Callable[[float], object]) -> tuple[float, float] | None:
        """Mean power by the counter and by the readings, at one steady load."""
        pass_time(SETTLE_S)
        with self._polled() as seen:
            pass_time(HOLD_S)
        counted, watts = ticks(seen.joules), [reading.value for reading in seen.watts]
        if len(counted) < 2 or not sum(watts):
            return None
        first, last = counted[0], counted[-1]
        counter_w = (last.value - first.value) / (last.time_s - first.time_s)
        return counter_w, sum(watts) / len(watts)

    @contextmanager
    def _polled(self) -> Iterator[_Watch]:
        seen = _Watch([], [], [])

        def poll() -> None:
            for read, readings in ((self.read_w, seen.watts), (self.read_j, seen.joules)):
                before_s = self.clock.now()
                value = read() if read else None
                if value is not None:
                    readings.append(Reading((before_s + self.clock.now()) / 2, value))

        with self.clock.polling(poll, POLL_S):
            yield seen
