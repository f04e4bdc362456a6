"""What surrounds a measurement, and what of it weakens the row."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.device import nvml
from bench.measured import Conditions
from bench.warnings import RowWarning

# Other processes that take more of the host's CPU time than this slow what is measured there.
QUIET_SHARE = 0.05
# Bits of nvmlClocksEventReasons that hold the clocks below what was set (nvml.h).
SLOWDOWNS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Observation:
    """The surroundings at one moment."""

    load: float
    host_busy_s: float | None
    own_busy_s: float
    host_s: float
    sm_mhz: float | None
    memory_mhz: float | None
    temperature_c: float | None
    memory_temperature_c: float | None
    pcie_generation: int | None
    pcie_width: int | None
    throttled_s: float | None
    clocks_event_reasons: int | None
    performance_state: int | None
    foreign_processes: tuple[int, ...] | None


def observe(gpu: nvml.Gpu | None) -> Observation:
    """Read the surroundings now."""
    times = os.times()
    throttled = gpu.throttled_s() if gpu else None
    return Observation(
        load=os.getloadavg()[0],
        host_busy_s=_host_busy_s(),
        own_busy_s=times.user + times.system,
        host_s=time.monotonic() * (os.cpu_count() or 1),
        sm_mhz=gpu.sm_mhz() if gpu else None,
        memory_mhz=gpu.memory_mhz() if gpu else None,
        temperature_c=gpu.temperature_c() if gpu else None,
        memory_temperature_c=gpu.memory_temperature_c() if gpu else None,
        pcie_generation=gpu.pcie_generation() if gpu else None,
        pcie_width=gpu.pcie_width() if gpu else None,
        throttled_s=None if throttled is None else sum(throttled.values()),
        clocks_event_reasons=gpu.clocks_event_reasons() if gpu else None,
        performance_state=gpu.performance_state() if gpu else None,
        foreign_processes=gpu.foreign_processes({os.getpid()}) if gpu else None,
    )


def between(before: Observation, after: Observation) -> Conditions:
    """What surrounded a measurement, from an observation on either side of it."""
    other = None
    if before.host_busy_s is not None and after.host_busy_s is not None:
        busy = after.host_busy_s - before.host_busy_s
        own = after.own_busy_s - before.own_busy_s
        total = after.host_s - before.host_s
        other = min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None
    throttled_s = None
    if before.throttled_s is not None and after.throttled_s is not None:
        throttled_s = after.throttled_s - before.throttled_s
    foreign = after.foreign_processes
    return Conditions(
        load_before=before.load,
        load_after=after.load,
        other_cpu_share=other,
        sm_mhz_before=before.sm_mhz,
        sm_mhz_after=after.sm_mhz,
        memory_mhz_after=after.memory_mhz,
        temperature_c_before=before.temperature_c,
        temperature_c_after=after.temperature_c,
        memory_temperature_c_after=after.memory_temperature_c,
        pcie_generation=after.pcie_generation,
        pcie_width=after.pcie_width,
        throttled_s=throttled_s,
        clocks_event_reasons=after.clocks_event_reasons,
        performance_state=after.performance_state,
        other_processes=None if foreign is None else len(foreign),
    )


def warnings(found: Conditions) -> list[RowWarning]:
    """What in the surroundings weakens a measurement."""
    told = []
    if found.other_cpu_share is not None and found.other_cpu_share > QUIET_SHARE:
        told.append(RowWarning("host-busy", {"share": found.other_cpu_share}))
    if found.other_processes:
        told.append(RowWarning("gpu-shared", {"processes": found.other_processes}))
    slowed = [name for bit, name in SLOWDOWNS.items() if (found.clocks_event_reasons or 0) & bit]
    seconds = found.throttled_s
    if slowed or (seconds is not None and seconds > nvml.THROTTLED_S):
        told.append(RowWarning("throttled", {"causes": ", ".join(slowed), "seconds": seconds}))
    return told


def _host_busy_s() -> float | None:
    """CPU time that all processes of the host have used, in s; None where Linux's /proc is not."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
