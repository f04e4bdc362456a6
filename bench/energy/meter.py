"""What a meter of energy is, which one there is here, and through which channel it is read.

A GPU has an energy counter, readings of power, or both; a CPU has the counter RAPL.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from bench.device import gpus
from bench.device.nvml import Gpu
from bench.energy import rapl
from bench.energy.durations import SLOWEST_TICK_S
from bench.energy.ticks import Mark, Reading, Tick, counted_ticks, period_s, summed_ticks, ticks
from bench.errors import GpuLostError
from bench.measured import Sensor

COUNTER, POWER, RAPL = "counter", "power", "rapl"  # methods
# Kinds of a sensor's counter. SAMPLED: it adds up readings that see a part of the time only.
INTEGRATING, SAMPLED = "integrating", "sampled"
INCONSISTENT, UNKNOWN, ABSENT = "inconsistent", "unknown", "absent"

AGREEMENT = 0.05  # counter against readings: the gain error of many boards' sensors
AGREEMENT_W = 1.0  # where 5 % of an idle GPU's power is less than the sensor resolves
LAGS = 4  # after so many of its lags, a meter shows 2 % of a change
# The shortest window of a reading known, for a sensor that was not probed (P100, V100).
SHORTEST_READING_S = 0.01

Read = Callable[[], float | None]


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
    read_j: Read | None = None  # a counter, in J
    read_w: Read | None = None
    look: Callable[[], State] | None = None
    systematic: float | None = None
    sensor: Sensor | None = None
    reason: str | None = None  # why it is not a better one, or not a good one


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

    def readings(self, method: str) -> list[Reading]:
        """What the meter of this method read, in J or W."""
        return self.watts if method == POWER else self.joules

    @property
    def readings_w(self) -> float | None:
        """Mean of the power readings, in W."""
        return fmean(reading.value for reading in self.watts) if self.watts else None


@dataclass(frozen=True)
class Channel:
    """Where the energy is read: a counter or readings of power, and what is known of it."""

    method: str
    tick_s: float | None  # how often a new value comes; None: not known
    period_s: float  # the same; the slowest known, if that is not known
    window_s: float | None  # the length of load that a value tells of; None: not known
    trail_s: float  # for how long it still shows what was before, as it lags
    aliases_above_s: float  # forwards that are longer can alias with it
    still_ticks: int  # after so many ticks without a new value it stood still

    def energy(self, recording: Recording) -> list[Tick]:
        """Its ticks, with the energy since some beginning, in J; UnusableError if it has none."""
        ticked = summed_ticks if self.method == POWER else counted_ticks
        return ticked(recording.readings(self.method), self.tick_s)


def channel(meter: Meter, method: str, idle: Recording | None = None) -> Channel:
    """A channel as the sensor was probed; how often it ticks also as was seen while `idle`."""
    known = meter.sensor or Sensor(UNKNOWN)
    lag_s, tick_s, window_s = known.reading_lag_s, known.reading_period_s, known.reading_window_s
    if method == POWER:
        sees_all = bool(window_s and tick_s and window_s >= 0.9 * tick_s)
    else:
        tick_s, window_s = known.counter_period_s, known.counter_window_s
        sees_all = meter.sensor is None or known.counter == INTEGRATING
        # Both are behind the same filter; that of the readings is better known.
        lag_s = lag_s if known.counter_lag_s is None else known.counter_lag_s
    # RAPL ticks more often than it is polled: its ticks would be those of the polls.
    if idle and not tick_s and method != RAPL:
        tick_s = period_s(ticks(idle.readings(method)))
    # A hundred forwards in one reading leave a hundredth of one to chance.
    some_s = (known.reading_window_s or SHORTEST_READING_S) / 100
    return Channel(
        method,
        tick_s,
        period_s=tick_s or SLOWEST_TICK_S,
        window_s=window_s,
        trail_s=LAGS * (lag_s or 0.0),
        aliases_above_s=math.inf if sees_all else some_s,
        # A reading may well come twice; a counter that moves seldom does not.
        still_ticks=10 if method == POWER else 3,
    )


def power_reader(gpu: Gpu) -> tuple[str, Read] | None:
    """The quickest reading of power that the GPU gives, and its name; None where it gives none."""
    if gpu.instant_power_w() is not None:
        return "instant", gpu.reader("instant_power_w")
    return None if gpu.power_w() is None else ("usage", gpu.reader("power_w"))


def agree(counter_w: float, readings_w: float, chance_w: float = 0.0) -> bool:
    """Whether the counter and the readings tell of the same power, but for what chance may do."""
    return abs(counter_w - readings_w) <= max(AGREEMENT_W, AGREEMENT * readings_w) + chance_w


def find_meter(
    gpu: Gpu | None, powercap: Path = rapl.POWERCAP, sensor: Sensor | None = None
) -> Meter | NoMeter:
    """The best meter that answers: of the GPU, or of the CPU packages where `gpu` is None.

    Raises GpuLostError where the GPU is lost.
    """
    if gpu is None:
        read_j = rapl.reader(powercap)
        return NoMeter(read_j) if isinstance(read_j, str) else Meter(RAPL, read_j=read_j)
    if gpu.mig or gpu.vgpu:
        sharers = "MIG slices" if gpu.mig else "virtual GPUs"
        return NoMeter(f"NVML measures the energy of the whole GPU, which {sharers} share")
    reader, counts = power_reader(gpu), gpu.total_energy_j() is not None
    if not (reader or counts):
        return NoMeter(
            f"NVML gives neither the energy of this GPU ({gpu.reasons['total_energy_j']}) "
            f"nor its power ({gpu.reasons['power_w']})"
        )
    why = sensor.reason if sensor and sensor.counter == INCONSISTENT else None
    if counts and gpu.module:
        why = "the energy counter counts the whole module, with its CPU"
    found = Meter(
        POWER,
        read_w=reader[1] if reader else None,
        look=lambda: State(
            gpu.sm_mhz(),
            gpu.temperature_c(),
            gpu.throttled_s(),
            gpu.foreign_processes({os.getpid()}),
        ),
        systematic=gpus.SENSOR_ERROR.get(gpu.gpu_type, gpus.USUAL_SENSOR_ERROR),
        sensor=sensor,
        reason=why,
    )
    if not counts or (why and reader):
        return found
    return replace(found, method=COUNTER, read_j=gpu.reader("total_energy_j"))
