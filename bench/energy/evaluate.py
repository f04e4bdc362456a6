"""From recordings to an Energy: gross (all that was drawn) and net (less idle power for as long).

It is of all windows over all their forwards: each weighs alike, also where the host slowed some.
The interval is Student's over the windows, with the uncertainty of the edges in quadrature. The
sensor's own error, about 5 % on many boards (Yang, Adamek, Armour, SC'24), is the same in every
window and stands apart in `systematic`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bench import stats
from bench.asked import ENERGY_NOT_MEASURED, Sampling
from bench.energy.meter import Channel, Meter, Recording
from bench.energy.ticks import UnusableError, mean_w
from bench.energy.windows import Course, Window, cut, thinned
from bench.measured import Energy
from bench.warnings import RowWarning

T = TypeVar("T")


@dataclass
class Findings:
    """What a measurement has found so far, which stays if the GPU is lost."""

    meter: Meter
    sampling: Sampling
    channel: Channel
    iteration_s: float = 0.0
    idle: list[Recording] = field(default_factory=list)
    kept: list[Recording] = field(default_factory=list)  # of the windows
    flags: list[RowWarning] = field(default_factory=list)

    @property
    def aliases(self) -> bool:
        """Whether the sensor could alias with the load."""
        return self.iteration_s > self.channel.aliases_above_s

    def idle_w(self, recording: Recording) -> float:
        """Mean power, in W; UnusableError where the meter gave none."""
        return mean_w(self.channel.energy(recording))

    def window(self, recording: Recording) -> Window:
        """The window in a recording; UnusableError where there is none."""
        meter = self.channel
        # A tick sees back all of its period, as far as is known.
        reach_s = (meter.window_s or meter.period_s) + meter.trail_s
        return cut(meter.energy(recording), Course(recording.marks), reach_s)


def energy(found: Findings, samples_per_step: int, tokens_per_step: int) -> Energy:
    """The record of what was found."""
    begun = [recording for recording in found.kept if len(recording.marks) > 1]
    evaluated, unusable = usable(found.window, begun)
    windows = [window for window in evaluated if window]
    told = list(found.flags)
    if not windows:
        why = unusable or "the GPU was lost before a window was complete"
        return Energy(ENERGY_NOT_MEASURED, reason=why, flags=tuple(told) or None)
    joules, seconds = sum(w.joules for w in windows), sum(w.seconds for w in windows)
    iterations, pause_s = sum(w.iterations for w in windows), sum(w.pause_s for w in windows)
    samples, tokens = iterations * samples_per_step, iterations * tokens_per_step
    mean_mj = 1000 * joules / samples
    each_mj = [1000 * w.joules / (w.iterations * samples_per_step) for w in windows]
    uncertainty = relative_uncertainty(windows, each_mj, mean_mj)
    idles_w, no_idle = usable(found.idle_w, found.idle)
    before_w, after_w = (*idles_w, None, None)[:2]
    known_w = [watts for watts in idles_w if watts is not None]
    idle_w = sum(known_w) / len(known_w) if known_w else None
    net_mj = None if idle_w is None else 1000 * (joules - idle_w * seconds)
    if idle_w is None:
        told.append(RowWarning("no-idle-power", {"reason": no_idle or "idle_s is 0"}))
    readings = [reading for recording in found.kept for reading in recording.watts]
    trace = thinned(readings)
    return Energy(
        method=found.channel.method,
        reason=told[-1].text if idle_w is None else None,
        protocol=found.sampling.energy,
        per_sample_mj=mean_mj,
        per_sample_mj_low=mean_mj * (1 - uncertainty),
        per_sample_mj_high=mean_mj * (1 + uncertainty),
        per_sample_mj_samples=tuple(each_mj),
        per_token_mj=mean_mj * samples_per_step / tokens_per_step,
        net_per_sample_mj=None if net_mj is None else net_mj / samples,
        net_per_token_mj=None if net_mj is None else net_mj / tokens,
        window_j=joules,
        window_s=seconds,
        iterations=iterations,
        mean_w=joules / seconds,
        idle_w=idle_w,
        idle_w_before=before_w,
        idle_w_after=after_w,
        resolution_s=max(w.resolution_s for w in windows),
        ticks=sum(w.ticks for w in windows),
        uncertainty=uncertainty,
        systematic=found.meter.systematic,
        pause_share=pause_s / (seconds + pause_s),
        discrepancy=max(w.discrepancy for w in windows) if found.aliases else None,
        flags=tuple(told) or None,
        trace_s=tuple(reading.time_s - readings[0].time_s for reading in trace) or None,
        trace_w=tuple(reading.value for reading in trace) or None,
    )


def usable(
    evaluate: Callable[[Recording], T], recordings: Iterable[Recording]
) -> tuple[list[T | None], str | None]:
    """What each recording gives, None where it is unusable, and why the last of those is."""
    values: list[T | None] = []
    why = None
    for recording in recordings:
        try:
            values.append(evaluate(recording))
        except UnusableError as error:
            values.append(None)
            why = str(error)
    return values, why


def relative_uncertainty(
    windows: Sequence[Window], each_mj: Sequence[float], mean_mj: float
) -> float:
    """Half the 95 % interval over the mean."""
    if len(windows) > 1:
        edge = sum(w.edge_s / w.seconds for w in windows) / len(windows)
        return math.hypot(stats.student_interval(each_mj) / mean_mj, edge)
    # Nothing tells how windows scatter. A tick at either edge is the most that it can be, and
    # where the meter saw only a part, how much that differs from what it did not see.
    (window,) = windows
    return math.hypot(2 * window.resolution_s / window.seconds, window.chance)
