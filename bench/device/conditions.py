"""What surrounds a measurement, and what of it weakens the row."""

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
# Methods of `bench.device.nvml.Gpu` that are read after a measurement: for the field NAME_after,
# and for the field of this name.
_AFTER = ("sm_mhz", "memory_mhz", "temperature_c", "memory_temperature_c")
_ALSO = ("pcie_generation", "pcie_width", "clocks_event_reasons", "performance_state")


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
    names = (*_AFTER, *_ALSO, "throttled_s") if gpu else ()
    return Observation(
        load=os.getloadavg()[0],
        host_busy_s=cpu.busy_s(),
        own_busy_s=times.user + times.system,
        host_s=time.monotonic() * (os.cpu_count() or 1),
        gpu={name: getattr(gpu, name)() for name in names},
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
        other_processes=after.foreign_processes,
        **{f"{name}_after": last(name) for name in _AFTER},
        **{name: last(name) for name in _ALSO},
    )


def warnings(found: Conditions) -> list[RowWarning]:
    """What in the surroundings weakens a measurement."""
    told = []
    if found.other_cpu_share is not None and found.other_cpu_share > QUIET_SHARE:
        told.append(RowWarning("host-busy", {"share": found.other_cpu_share}))
    if found.other_processes:
        told.append(RowWarning("gpu-shared", {"processes": found.other_processes}))
    reasons, seconds = found.clocks_event_reasons or 0, found.throttled_s
    causes = [name for bit, name in SLOWDOWNS.items() if reasons & bit]
    if causes or (seconds or 0.0) > THROTTLED_S:
        told.append(RowWarning("throttled", {"causes": ", ".join(causes), "seconds": seconds}))
    return told
