"""The host's CPU, as Linux tells of it."""

import os
import platform
from pathlib import Path


def name() -> str:
    """The host CPU's model name; on ARM, who made it and which, in the numbers that Linux gives."""
    found = info()
    if "model name" in found:
        return found["model name"]
    machine = platform.processor() or platform.machine()
    if "CPU part" in found:
        return f"{machine} implementer {found.get('CPU implementer')} part {found['CPU part']}"
    return machine


def flags() -> frozenset[str]:
    """The host CPU's instruction sets, as Linux names them; empty where it does not tell."""
    found = info()
    return frozenset(found.get("flags", found.get("Features", "")).split())


def memory_bytes() -> int:
    """The host's memory, in B."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def busy_s() -> float | None:
    """CPU time that all processes have used, in s; None where Linux's /proc is not."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def info() -> dict[str, str]:
    """/proc/cpuinfo of the first CPU; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    # Reversed, so that the first of several values stays.
    parts = (line.partition(":") for line in reversed(lines))
    return {key.strip(): value.strip() for key, _, value in parts}
