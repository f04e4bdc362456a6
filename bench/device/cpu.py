"""The host's CPU, as Linux tells of it."""

from __future__ import annotations

import platform
from pathlib import Path


def name() -> str:
    """The host CPU's model name; on ARM, who made it and which, in the numbers that Linux gives."""
    found: dict[str, str] = {}
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "model name" in found:
        return found["model name"]
    machine = platform.processor() or platform.machine()
    if "CPU part" in found:
        return f"{machine} implementer {found.get('CPU implementer')} part {found['CPU part']}"
    return machine


def flags() -> frozenset[str]:
    """The host CPU's instruction sets, as Linux names them; empty where it does not tell."""
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
