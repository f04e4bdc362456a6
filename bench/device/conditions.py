"""What surrounds a measurement, and what of it weakens the row."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.device import cpu, nvml
from bench.measured import Conditions
from bench.warnings import RowWarning

# Other processes that take more of the host's CPU time than this slow what is measured there.
QUIET_SHARE = 0.05
# Clocks throttled for less hardly change what lasts for seconds.
THROTTLED_S = 0.1
# Bits of nvmlClocksEventReasons that hold the clocks below what was set (nvml.h).
POWER_CAP = 0x04
SLOWDOWNS = {
    POWER_CAP: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
# What is read after a measurement: the field, and the method of `bench.device.nvml.Gpu`.
_AFTER = {
    "sm_mhz_after": "sm_mhz",
    "memory_mhz_after": "memory_mhz",
    "temperature_c_after": "temperature_c",
    "memory_temperature_c_after": "memory_temperature_c",
    "pcie_generation": "pcie_generation",
    "pcie_width": "pcie_width",
    "clocks_event_reasons": "clocks_event_reasons",
    "performance_state": "performance_state",
}


@dataclass(frozen=True)
class Observation:
    """The surroundings at one moment."""

    load: float
    host_busy_s: float | None
    own_busy_s: float
    host_s: float
    gpu: Mapping[str, Any]  # what each method of `bench.device.nvml.Gpu` gave; empty of a CPU
    foreign_processes: int | None = None


def observe(gpu: nvml.Gpu | None) -> Observation:
    """Read the surroundings now."""
    times = os.times()
    foreign = gpu.foreign_processes({os.getpid()}) if gpu else None
    return Observation(
        load=os.getloadavg()[0],
        host_busy_s=cpu.busy_s(),
        own_busy_s=times.user + times.system,
        host_s=time.monotonic() * (os.cpu_count() or 1),
        gpu={name: getattr(gpu, name)() for name in (*_AFTER.values(), "throttled_s")}
        if gpu
        else {},
        foreign_processes=None if foreign is None else len(foreign),
    )


def between(before: Observation, after: Observation) -> Conditions:
    """What surrounded a measurement, from an observation on either side of it."""
    other = throttled_s = None
    if before.host_busy_s is not None and after.host_busy_s is not None:
        busy = after.host_busy_s - before.host_busy_s
        own = after.own_busy_s - before.own_busy_s
        total = after.host_s - before.host_s
        other = min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None
    first, last = before.gpu.get, after.gpu.get
    if (began := first("throttled_s")) is not None and (ended := last("throttled_s")) is not None:
        throttled_s = sum(ended.values()) - sum(began.values())
    return Conditions(
        load_before=before.load,
        load_after=after.load,
        other_cpu_share=other,
        sm_mhz_before=first("sm_mhz"),
        temperature_c_before=first("temperature_c"),
        throttled_s=throttled_s,
        **{field: last(name) for field, name in _AFTER.items()},
        other_processes=after.foreign_processes,
    )


def slowdowns(clocks_event_reasons: int | None) -> list[str]:
    """The names of what throttles the clocks, in NVML's bit mask.

    >>> slowdowns(0x24), slowdowns(0x01), slowdowns(None)
    (['power cap', 'software thermal'], [], [])
    """
    return [name for bit, name in SLOWDOWNS.items() if (clocks_event_reasons or 0) & bit]


def warnings(found: Conditions) -> list[RowWarning]:
    """What in the surroundings weakens a measurement."""
    told = []
    if found.other_cpu_share is not None and found.other_cpu_share > QUIET_SHARE:
        told.append(RowWarning("host-busy", {"share": found.other_cpu_share}))
    if found.other_processes:
        told.append(RowWarning("gpu-shared", {"processes": found.other_processes}))
    causes, seconds = slowdowns(found.clocks_event_reasons), found.throttled_s
    if causes or (seconds is not None and seconds > THROTTLED_S):
        told.append(RowWarning("throttled", {"causes": ", ".join(causes), "seconds": seconds}))
    return told
