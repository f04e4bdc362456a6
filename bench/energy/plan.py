"""How long windows are and where pauses lie: what follows from protocol, channel and forward.

A sensor that sees a part of the time only, as an A100's 25 ms of each 100 ms, can sample in step
with the load and see the same part of each forward (aliasing): errors of 30 % in simulation. Where
that can be, short pauses move the phase of the load by the golden ratio of a period, which covers
all phases evenly. Ticks that saw a pause do not count, and the discrepancy tells how even the
phases became. After a pause the device waits for the host, 0.2 ms for a graph and 1 to 1.5 ms in
eager mode, so that the first forward belongs to the pause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.asked import Sampling
from bench.energy import protocol
from bench.energy.meter import Channel
from bench.energy.poll import poll_every_s
from bench.energy.ticks import Reading, latest_s, ticks
from bench.energy.windows import golden_pause_s

SILVER = 2**0.5 - 1
# A pause is half a period long on average: one in ten periods costs 5 % of the time. But a window
# shall have so many phases, and a phase so many ticks.
PAUSE_EVERY_PERIODS, PHASES, PAUSE_EVERY_TICKS = 10, 16, 3
RECENT_S = 2.0  # whose ticks tell the time of the next one


@dataclass(frozen=True)
class Plan:
    """Lengths and pauses of the windows, for forwards of `iteration_s` that a channel reads."""

    sampling: Sampling
    channel: Channel
    iteration_s: float

    @property
    def certified(self) -> bool:
        """Whether this is the certified protocol."""
        return self.sampling.energy == protocol.CERTIFIED

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return 1 if self.sampling.energy == protocol.QUICK else protocol.WINDOWS

    @property
    def window_s(self) -> float:
        """How long each is, in s."""
        each_s = self.sampling.energy_s / self.windows
        if not self.certified:
            return each_s
        ticks_s = protocol.CERTIFIED_TICKS * self.channel.period_s
        iterations_s = protocol.CERTIFIED_ITERATIONS * self.iteration_s
        least_s = max(each_s, protocol.CERTIFIED_S, 1.05 * ticks_s, 1.05 * iterations_s)
        return min(least_s, protocol.CERTIFIED_MAX_S)

    @property
    def fewest_ticks(self) -> int:
        """How many ticks of the meter a window should have."""
        return protocol.CERTIFIED_TICKS if self.certified else protocol.FEWEST_TICKS

    @property
    def aliases(self) -> bool:
        """Whether sensor and load could be in step."""
        return self.channel.aliases(self.iteration_s)

    @property
    def pauses(self) -> bool:
        """Whether pauses are needed; one is aimed at a tick, so that its time must be known."""
        return self.aliases and self.channel.tick_s is not None

    @property
    def modulus_s(self) -> float:
        """The time after which all phases of sensor and load have come."""
        return min(self.channel.period_s, self.iteration_s)


@dataclass
class Pauses:
    """The pauses of one measurement, each of which finds the sensor a phase that is new."""

    number: int = 0
    aimed_s: float = 0.0  # the tick that the last one was meant for

    def next_s(self, plan: Plan, now_s: float, readings: Sequence[Reading]) -> float:
        """How long to pause, so that the load begins at a phase of the ticks not yet had."""
        period_s, modulus_s = plan.channel.period_s, plan.modulus_s
        recent = ticks(readings[-math.ceil(RECENT_S / poll_every_s(plan.channel.tick_s)) :])
        last_s = latest_s(recent, period_s) if recent else now_s
        # The first tick that comes after the pause, however long that is.
        tick_s = last_s + math.ceil((now_s + modulus_s - last_s) / period_s) * period_s
        if tick_s - self.aimed_s > period_s / 2:
            self.number += 1
            self.aimed_s = tick_s
        return golden_pause_s(now_s, tick_s, self.number, modulus_s)

    def forwards(self, plan: Plan, left_s: float) -> int:
        """How many forwards come before the next one, in a window of which so much is left.

        Also the ticks' places among the pauses are spread evenly.
        """
        period_s = plan.channel.period_s
        seldom_s = min(PAUSE_EVERY_PERIODS * plan.modulus_s, plan.window_s / PHASES)
        least_s = max(seldom_s, PAUSE_EVERY_TICKS * period_s) + plan.channel.trail_s
        due_s = least_s + (self.number * SILVER % 1 - 0.5) * period_s
        # Two, so that each part of a forward is seen by a tick that does not see the pause.
        return max(2, round(min(due_s, left_s) / plan.iteration_s))
