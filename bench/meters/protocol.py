"""How long the energy of a row takes. Standard library only, for who reads a matrix."""

from __future__ import annotations

from bench.records import Sampling

SETTLE_S = 1.5  # Hopper's power register averages 1 s and is published every 100 ms.
WARM_MAX_S = 120.0
WINDOWS = 5
CERTIFIED_S = 10.0
CERTIFIED_MAX_S = 20.0  # of one window, however slow a forward is


def longest_s(sampling: Sampling) -> float:
    """How long the energy of one row takes at most, with every window measured again."""
    if sampling.energy == "quick":
        return sampling.idle_s + sampling.energy_s
    each_s, warm_s = sampling.energy_s / WINDOWS, SETTLE_S
    if sampling.energy == "certified":
        each_s, warm_s = min(max(each_s, CERTIFIED_S), CERTIFIED_MAX_S), WARM_MAX_S
    return 2 * sampling.idle_s + warm_s + 2 * WINDOWS * each_s
