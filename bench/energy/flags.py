"""What weakens an energy or one of its windows: pure functions that give warnings.

Whether a window is measured again is decided by the codes and causes of its flags.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import fmean, stdev

from bench import stats
from bench.asked import ENERGY_NOT_MEASURED
from bench.device.conditions import THROTTLED_S
from bench.energy import durations
from bench.energy.evaluate import Findings
from bench.energy.meter import Channel, Recording, State, agree
from bench.energy.ticks import counted_ticks, mean_w, period_s, regular, ticks
from bench.energy.windows import Course, Window, star_discrepancy
from bench.measured import Energy
from bench.warnings import RowWarning

HIGH_UNCERTAINTY = 0.03
CLOCK_SPREAD, DRIFT_C, MISSED_SHARE = 0.02, 3.0, 0.02
EVEN_PHASES, EVEN_PAUSED_PHASES = 0.1, 0.25
# Over the root of their number: so uneven are random phases in 1 of 100 cases (Kolmogorov).
RANDOM_PHASES = 1.63
ALIASED_ERROR = 0.2  # beyond it, readings that alias with the load check nothing
SURE = 3.0  # standard errors of the readings' mean


def warnings(found: Energy) -> list[RowWarning]:
    """What weakens this energy; one that was not measured at all says so in its reason."""
    if found.method == ENERGY_NOT_MEASURED:
        return []
    told = list(found.flags or ())
    if found.uncertainty is not None and found.uncertainty > HIGH_UNCERTAINTY:
        values = {
            "uncertainty": found.uncertainty,
            "window_s": found.window_s,
            "resolution_s": found.resolution_s,
        }
        told.insert(0, RowWarning("energy-uncertain", values))
    return told


def of_surroundings(states: Sequence[State]) -> Iterator[RowWarning]:
    """What around the meter weakens a window."""
    if not states:
        return
    before, after = states[0].throttled_s or {}, states[-1].throttled_s or {}
    for cause, total_s in after.items():
        seconds = total_s - before.get(cause, 0.0)
        if seconds > THROTTLED_S:
            yield RowWarning("throttled", {"causes": cause, "seconds": seconds})
    if clock_spread(states) > CLOCK_SPREAD:
        yield RowWarning("clock-moved", {"share": clock_spread(states)})
    if drift_c(states) > DRIFT_C:
        yield RowWarning("temperature-moved", {"celsius": drift_c(states)})
    foreign = {pid for state in states for pid in state.foreign or ()}
    if foreign:
        yield RowWarning("gpu-shared", {"processes": len(foreign)})


def clock_spread(states: Sequence[State]) -> float:
    """How far, relative, the SM clock fell below its highest."""
    clocks = [state.sm_mhz for state in states if state.sm_mhz]
    return 1 - min(clocks) / max(clocks) if clocks else 0.0


def drift_c(states: Sequence[State]) -> float:
    """How far the temperature moved, in C."""
    celsius = [state.temperature_c for state in states if state.temperature_c is not None]
    return max(celsius) - min(celsius) if celsius else 0.0


def of_meter(recording: Recording, window: Window, found: Findings) -> Iterator[RowWarning]:
    """What in the meter weakens a window."""
    readings = recording.readings(found.channel.method)
    seen = ticks(readings)
    every_s = found.channel.tick_s or period_s(seen)
    certified = found.sampling.energy == durations.CERTIFIED
    if len(seen) < 2:
        yield RowWarning("meter-stuck")
    elif len(seen) < (durations.CERTIFIED_TICKS if certified else durations.FEWEST_TICKS):
        yield RowWarning("few-ticks", {"ticks": len(seen)})
    elif every_s and window.resolution_s > found.channel.still_ticks * every_s:
        yield RowWarning("meter-stood-still", {"seconds": window.resolution_s})
    if recording.failed:
        yield RowWarning("readings-failed", {"count": recording.failed})
    if every_s:
        gaps_s = [after.time_s - before.time_s for before, after in pairwise(readings)]
        unseen_s = sum(max(0.0, gap_s - every_s) for gap_s in gaps_s)
        share = unseen_s / (window.seconds + window.pause_s)
        if share > MISSED_SHARE:
            yield RowWarning("ticks-missed", {"share": share})
    # With pauses there are some 16 phases, of many ticks each.
    random_phases = max(EVEN_PHASES, RANDOM_PHASES / window.ticks**0.5)
    uneven = EVEN_PAUSED_PHASES if window.pause_s else random_phases
    if found.aliases and window.discrepancy > uneven:
        yield RowWarning("aliasing", {"discrepancy": window.discrepancy})


def disagreement(found: Findings, power: Channel) -> Iterator[RowWarning]:
    """Whether counter and readings differ under load by more than they may by chance.

    Both tell of the same times, without what the first readings show of the time before. The
    readings differ by what the parts of a forward draw, and windows by the phases that they
    saw. Readings that alias with long forwards tell of a part of each, and so nothing here.
    """
    # As far back as any reading known shows, if it was not probed.
    reach_s = power.trail_s + power.window_s if power.window_s else durations.AVERAGED_RESTART_S
    # Of a reading's window only what is left beside whole forwards can mislead: at most half of a
    # forward, if half of it drew twice the mean and half of it nothing. Of the sensors known, none
    # sees less than a quarter of its period, nor 10 ms.
    least_s = power.window_s or max(0.01, found.channel.period_s / 4)
    aliased_error = found.iteration_s / 2 / least_s
    pairs, values, aliased = [], [], 0.0
    for recording in found.kept:
        start_s = recording.marks[0].time_s + reach_s
        watts, joules = (
            [reading for reading in readings if reading.time_s >= start_s]
            for readings in (recording.watts, recording.joules)
        )
        if len(ticks(joules)) < 2 or not watts:
            continue
        if found.iteration_s > power.aliases_above_s and not saw_all(
            recording, found.channel, power
        ):
            if aliased_error > ALIASED_ERROR:
                continue
            aliased = aliased_error
        values += [tick.value for tick in ticks(watts)]
        pairs.append((mean_w(counted_ticks(joules)), fmean(reading.value for reading in watts)))
    if len(values) < durations.FEWEST_TICKS:
        return
    counted_w, read_w = map(fmean, zip(*pairs, strict=True))
    chance_w = SURE * stdev(values) / len(values) ** 0.5
    if len(pairs) > 1:
        chance_w = max(chance_w, stats.student_interval([one - other for one, other in pairs]))
    if read_w and not agree(counted_w, read_w, chance_w + aliased * read_w):
        yield RowWarning("counter-disagrees", {"ratio": counted_w / read_w})


def saw_all(recording: Recording, counter: Channel, power: Channel) -> bool:
    """Whether the ticks of counter and readings fell on all parts of a forward alike."""
    # Readings that come more often than they are polled have their times from the counter, which
    # is of the same sensor.
    course = Course(recording.marks)
    for seen in (counter.energy(recording), regular(ticks(recording.watts), power.tick_s)):
        phases = course.phases([tick.time_s for tick in seen])
        random_phases = RANDOM_PHASES / max(1, len(phases)) ** 0.5
        if not phases or star_discrepancy(phases) > min(EVEN_PAUSED_PHASES, random_phases):
            return False
    return True
