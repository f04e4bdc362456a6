"""How long the energy of a row takes. Standard library only, for who reads a matrix."""

from __future__ import annotations

from bench.asked import Sampling

SLOWEST_TICK_S = 0.1
DRAIN_EVERY_S = 0.1  # Rare enough that waiting for the device costs well under 0.1 % of the load.
SETTLE_S = 1.5  # Hopper's power register averages 1 s and is published every 100 ms.
WARM_MAX_S = 120.0
WINDOWS = 5
CERTIFIED_S = 10.0
RESTART_S = 3 * SLOWEST_TICK_S  # of load before a window
AVERAGED_RESTART_S = 1.0  # where a reading averages that much
CERTIFIED_MAX_S = 20.0  # of one window, however slow a forward is


def longest_s(sampling: Sampling) -> float:
    """How long the energy of one row takes at most, with every window measured again.

    Forwards longer than DRAIN_EVERY_S may add some to each stage, and a sensor that lags by more
    than a quarter of AVERAGED_RESTART_S some seconds.
    """
    quick, certified = (sampling.energy == name for name in ("quick", "certified"))
    idle_s = SETTLE_S + sampling.idle_s if sampling.idle_s else 0.0
    warm_s = 6 * DRAIN_EVERY_S + SETTLE_S + (WARM_MAX_S + 1.0 if certified else 0.0)
    if quick:
        return idle_s + warm_s + _window_s(sampling.energy_s, RESTART_S)
    each_s = CERTIFIED_MAX_S if certified else sampling.energy_s / WINDOWS
    return 2 * idle_s + warm_s + 2 * WINDOWS * _window_s(each_s, AVERAGED_RESTART_S)


def _window_s(window_s: float, restart_s: float) -> float:
    """At most, with the wait for a phase before it, a last pause and three forwards after it."""
    return 2 * SLOWEST_TICK_S + restart_s + window_s + 4 * DRAIN_EVERY_S
