"""How does this GPU's power sensor work? Found out by watching it under a load that is known.

NVIDIA does not say, and it matters: an A100's readings see 25 ms of each 100 ms (Yang, Adamek,
Armour, SC'24), and a load that aliases with them is metered wrong by up to its whole swing. So the
probe, once for a GPU and a driver:

    look    LOOK_S         busy and idle in irregular turns: how often do readings and counter tick
    watch   TICKS ticks    the same in turns of about a tick: over how long does each tick average
    steady  SETTLE_S + HOLD_S, busy and again idle: do counter and readings agree

The steps of the counter are treated as readings too: a counter that integrates has a window as long
as its period, one that adds up sampled readings has theirs. The turns are irregular, so that no
ratio of periods can mislead.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from bench.device.nvml import Gpu
from bench.energy import meter
from bench.energy.durations import SETTLE_S
from bench.energy.fit import WINDOWS_S, boxcar
from bench.energy.poll import Clock, recorded
from bench.energy.ticks import Reading, mean_w, period_s, ticks
from bench.measured import Sensor

POLL_S = 0.001
LOOK_S = 3.0
TICKS = 160
HOLD_S = 2.0
EXPLAINED = 0.8  # least share of the variance for a window to be believed
WHOLE = 0.8  # a window of at least this share of the period sees all of it


def matrix_products(device: str) -> Callable[[float], None]:
    """A load for `probe`: a torch device, such as cuda:0, multiplies matrices for so long."""
    square = torch.ones(1024, 1024, device=device)

    def busy(seconds: float) -> None:
        end_s = time.perf_counter() + seconds
        with torch.inference_mode():
            while time.perf_counter() < end_s:
                torch.mm(square, square)
                if square.is_cuda:
                    torch.cuda.synchronize(device)

    return busy


def probe(gpu: Gpu, busy: Callable[[float], object], clock: Clock | None = None) -> Sensor:
    """Find out how the sensor works, in half a minute, on a GPU on which nothing else runs.

    `busy` keeps it busy for about so many seconds and returns when it is idle again. Raises
    GpuLostError where the GPU was lost meanwhile.
    """
    clock = clock or Clock()
    start_s = clock.now()
    reader, counts = meter.power_reader(gpu), gpu.total_energy_j() is not None
    if reader is None:
        why = f"no power reading: {gpu.reasons['power_w']}"
        return Sensor(meter.UNKNOWN if counts else meter.ABSENT, reason=why)
    name, read_w = reader
    read_j = gpu.total_energy_j if counts else None
    found = Probe(meter.Meter(meter.COUNTER, read_j, read_w), busy, clock).sensor()
    if not counts:
        found = replace(found, counter=meter.ABSENT, reason=gpu.reasons.get("total_energy_j"))
    return replace(found, reading=name, probe_s=clock.now() - start_s)


@dataclass(frozen=True)
class Probe:
    """The meter, the load and the clock that belong together."""

    meters: meter.Meter
    busy: Callable[[float], object]
    clock: Clock

    def sensor(self) -> Sensor:
        """Look, watch, and hold steady."""
        turns = random.Random(0)
        look, _ = self.in_turns(LOOK_S, lambda: turns.uniform(0.01, 0.15))
        reading_s, counter_s = period_s(ticks(look.watts)), period_s(ticks(look.joules))
        if reading_s is None:
            why = "the power reading hardly changed while the load did"
            return Sensor(meter.UNKNOWN, reason=why)
        slowest_s = max(reading_s, counter_s or 0)
        seconds = float(WINDOWS_S[-1]) + TICKS * slowest_s
        seen, edges_s = self.in_turns(seconds, lambda: turns.uniform(0.15, 1.6) * slowest_s)
        shown = ticks(seen.watts)
        fit = boxcar([Reading(tick.time_s, tick.value) for tick in shown], edges_s)
        known = fit if fit and fit.explained >= EXPLAINED else None
        found = Sensor(
            meter.UNKNOWN,
            reading_period_s=period_s(shown),
            reading_window_s=known.window_s if known else None,
            reading_lag_s=known.lag_s if known else None,
            reading_fit=fit.explained if fit else None,
            reason=None if known else "the readings do not follow the load",
        )
        return self.with_counter(found, seen, edges_s) if self.meters.read_j else found

    def with_counter(self, found: Sensor, seen: meter.Recording, edges_s: list[float]) -> Sensor:
        """What kind of counter it is, of a sensor whose readings are known."""

        def inconsistent(why: str) -> Sensor:
            return replace(found, counter=meter.INCONSISTENT, reason=why)

        moved = ticks(seen.joules)
        steps, period = list(pairwise(moved)), period_s(moved)
        if period is None:
            return inconsistent("the energy counter hardly moved")
        if any(after.value < before.value for before, after in steps):
            return inconsistent("the energy counter went backwards")
        fit = boxcar([Reading(step[1].time_s, mean_w(step)) for step in steps], edges_s)
        known = fit if fit and fit.explained >= EXPLAINED else None
        watts = {
            "under load": self.steady_w(self.busy),
            "while idle": self.steady_w(self.clock.sleep),
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
            if both and not meter.agree(*both):
                times = f"{ratios[when]:.2f} times the power of the readings"
                return inconsistent(f"{when} the counter gives {times}")
        if known is None:
            return replace(found, reason="the energy counter does not follow the load")
        whole = known.window_s >= WHOLE * period
        return replace(found, counter=meter.INTEGRATING if whole else meter.SAMPLED)

    def in_turns(
        self, seconds: float, turn_s: Callable[[], float]
    ) -> tuple[meter.Recording, list[float]]:
        """Read both meters while the load goes on and off; the turns' times, in s, on first."""
        edges_s = []
        with recorded(self.meters, self.clock, POLL_S, both_every=1) as seen:
            end_s = self.clock.now() + seconds
            while self.clock.now() < end_s:
                for pass_time in (self.busy, self.clock.sleep):
                    edges_s.append(self.clock.now())
                    pass_time(turn_s())
            edges_s.append(self.clock.now())
        return seen, edges_s

    def steady_w(self, pass_time: Callable[[float], object]) -> tuple[float, float] | None:
        """Mean power by the counter and by the readings, at one steady load, in W."""
        pass_time(SETTLE_S)
        with recorded(self.meters, self.clock, POLL_S, both_every=1) as seen:
            pass_time(HOLD_S)
        counted = ticks(seen.joules)
        return (mean_w(counted), seen.readings_w) if len(counted) > 1 and seen.readings_w else None
