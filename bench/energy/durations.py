"""The energy protocol in numbers, and how long a row's energy takes. Standard library only."""

from bench.asked import Sampling

QUICK, CERTIFIED = "quick", "certified"  # of `sampling.energy`; the third is standard

SLOWEST_TICK_S = 0.1
DRAIN_EVERY_S = 0.1  # Rare enough that waiting for the device costs well under 0.1 % of the load.
SETTLE_S = 1.5  # Hopper's power register averages 1 s and is published every 100 ms.
WINDOWS = 5  # one of quick
FEWEST_TICKS = 10  # of a window
RESTART_S = 3 * SLOWEST_TICK_S  # of load before a window
AVERAGED_RESTART_S = 1.0  # where a reading averages that much
# Certified: the load lasts WARM_S, and clock and temperature were steady for STEADY_S.
WARM_S, STEADY_S, WARM_MAX_S = 30.0, 10.0, 120.0
CERTIFIED_S, CERTIFIED_TICKS, CERTIFIED_ITERATIONS = 10.0, 50, 400  # a window has at least
CERTIFIED_MAX_S = 20.0  # of one window, however slow a forward is


def window_s(sampling: Sampling, tick_s: float, iteration_s: float) -> float:
    """How long a window is, in s, for a meter that ticks so often and forwards of this length."""
    if sampling.energy == QUICK:
        return sampling.energy_s
    each_s = sampling.energy_s / WINDOWS
    if sampling.energy != CERTIFIED:
        return each_s
    longest_s = max(CERTIFIED_TICKS * tick_s, CERTIFIED_ITERATIONS * iteration_s)
    return min(max(each_s, CERTIFIED_S, 1.05 * longest_s), CERTIFIED_MAX_S)


def longest_s(sampling: Sampling) -> float:
    """How long the energy of one row takes at most, in s, with every window measured again.

    Forwards longer than DRAIN_EVERY_S may add some to each stage, and a sensor that lags by more
    than a quarter of AVERAGED_RESTART_S some seconds.
    """
    quick, certified = sampling.energy == QUICK, sampling.energy == CERTIFIED
    idle_s = SETTLE_S + sampling.idle_s if sampling.idle_s else 0.0
    warm_s = 6 * DRAIN_EVERY_S + SETTLE_S + (WARM_MAX_S + 1.0 if certified else 0.0)
    # Before a window the wait for a phase of the meter, after it a last pause and three forwards.
    around_s = 2 * SLOWEST_TICK_S + 4 * DRAIN_EVERY_S
    if quick:
        return idle_s + warm_s + RESTART_S + sampling.energy_s + around_s
    each_s = CERTIFIED_MAX_S if certified else sampling.energy_s / WINDOWS
    return 2 * idle_s + warm_s + 2 * WINDOWS * (AVERAGED_RESTART_S + each_s + around_s)
