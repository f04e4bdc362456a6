"""bench.energy.windows and .ticks: what ticks, marks and phases say, as formulas."""

from __future__ import annotations

import bisect
import itertools
import random
import tracemalloc
from collections.abc import Sequence

import hypothesis
import hypothesis.strategies as st
import pytest

from bench.energy import windows
from bench.energy.ticks import (
    Mark,
    Reading,
    Tick,
    UnusableError,
    counted_ticks,
    period_s,
    regular,
    summed_ticks,
    ticks,
)
from bench.energy.windows import Course


def steady(seconds: float, watts: float, every_s: float = 0.1) -> list[Tick]:
    """A meter of steady power that ticks regularly from time 0 on."""
    return [
        Tick(i * every_s, i * every_s * watts, 0.01) for i in range(round(seconds / every_s) + 1)
    ]


def marks(
    iterations: int, each_s: float, pause_after: int | None = None, pause_s: float = 0
) -> Course:
    """Iterations from time 0 on, with one pause if told."""
    found = [Mark(0.0, 0)]
    for i in range(iterations):
        found.append(Mark(found[-1].time_s + each_s, i + 1))
        if i + 1 == pause_after:
            found.append(Mark(found[-1].time_s + pause_s, i + 1))
    return Course(found)


def test_a_counter_that_goes_backwards_is_no_meter() -> None:
    readings = [Reading(0, 1.0), Reading(1, 2.0), Reading(2, 1.0), Reading(3, 3.0)]
    with pytest.raises(UnusableError, match="backwards, from 2 J to 1 J"):
        counted_ticks(readings)


def test_a_counter_needs_two_ticks() -> None:
    readings = [Reading(0, 1.0), Reading(1, 1.0), Reading(2, 2.0), Reading(3, 2.0)]
    with pytest.raises(UnusableError, match="ticked 1 times"):
        counted_ticks(readings)


def test_a_sensor_that_reads_nothing_is_no_meter() -> None:
    with pytest.raises(UnusableError, match="0 W"):
        summed_ticks([Reading(0, 0.0), Reading(1, 0.0)])
    with pytest.raises(UnusableError, match="too few"):
        summed_ticks([Reading(0, 100.0)])


def test_readings_that_never_change_are_added_up() -> None:
    summed = summed_ticks([Reading(i / 10, 200.0) for i in range(11)])
    assert summed[-1].value - summed[0].value == pytest.approx(200 * 1.0)


def test_a_reading_tells_of_the_time_before_it() -> None:
    polled = [Reading(0.0, 100.0), *(Reading(t, w) for t, w in ((1, 100.0), (2, 300.0), (3, 50.0)))]
    assert [tick.value for tick in summed_ticks(polled, 1.0)] == [0.0, 50.0]


def test_a_reading_that_comes_twice_holds_for_both() -> None:
    # Ticks each second: 100, 300, 300, 50; the third changes nothing that could be seen.
    polled = [Reading(t + 0.5, w) for t, w in enumerate((7.0, 100.0, 300.0, 300.0, 50.0))]
    summed = summed_ticks(polled, 1.0)
    assert summed[-1].value - summed[0].value == 300 + 300 + 50


@hypothesis.given(
    st.integers(20, 40).map(lambda ms: ms / 1000), st.lists(st.booleans(), min_size=30, max_size=60)
)
def test_a_period_is_found_though_ticks_are_hidden(every_s: float, shown: Sequence[bool]) -> None:
    # At most every third is hidden, as by readings that are equal by chance.
    times = [i * every_s for i, keep in enumerate(shown) if keep or i % 3]
    found = period_s([Tick(time_s, 0.0, 0.0) for time_s in times])
    assert found == pytest.approx(every_s, rel=1e-6)


def test_too_few_ticks_have_no_period() -> None:
    assert period_s(ticks([Reading(0, 1.0), Reading(1, 2.0)])) is None


def test_a_window_of_steady_power_is_exact() -> None:
    window = windows.cut(steady(10, 200), marks(1000, 0.01), 0.1)
    assert window.joules / window.seconds == pytest.approx(200)
    assert window.joules / window.iterations == pytest.approx(200 * 0.01)
    assert (window.edge_s, window.pause_s) == (0.01, 0)
    assert window.resolution_s == pytest.approx(0.1)


def test_a_window_ends_where_the_forward_is_as_it_was_at_the_start() -> None:
    # Forwards of 0.37 s, ticks of 0.1 s: of the last tenth, one tick lies within 0.01 of a whole.
    window = windows.cut(steady(20, 200), marks(54, 0.37), 0.1)
    assert abs(window.iterations - round(window.iterations)) <= 0.03
    assert window.seconds >= 0.9 * 19.9


def test_a_pause_is_in_neither_energy_nor_time() -> None:
    busy_w, idle_w, pause_s = 200.0, 40.0, 0.5
    course = marks(1000, 0.01, pause_after=400, pause_s=pause_s)
    energy = [
        Tick(t, busy_w * t - (busy_w - idle_w) * min(max(t - 4.0, 0), pause_s), 0.0)
        for t in (i / 10 for i in range(106))
    ]
    window = windows.cut(energy, course, reach_s=0.1)
    assert window.pause_s == pytest.approx(pause_s)
    assert window.joules / window.seconds == pytest.approx(busy_w)
    assert window.joules / window.iterations == pytest.approx(busy_w * 0.01)


def test_what_is_seen_in_a_pause_has_no_phase() -> None:
    course = marks(4, 1.0, pause_after=2, pause_s=0.5)
    assert course.phases([-1, 0.25, 1.5, 2.1, 2.4, 2.75, 4.5, 5]) == [0.25, 0.5, 0.25, 0.0]


def test_a_phase_that_is_seen_more_often_weighs_no_more() -> None:
    # Forwards of 1 s, half at 200 W and half at 100 W, with a pause after the third. The ticks see
    # the first half ten times as often as the second, and one sees nothing but the pause.
    course = marks(10, 1.0, pause_after=3, pause_s=0.2)
    done = [n + (i + 0.5) / 20 for n in range(10) for i in range(20) if i < 10 or n == 5]
    seen = [(at + 0.2 * (at > 3), 200.0 if at % 1 < 0.5 else 100.0) for at in done]
    energy = [Tick(0.0, 0.0, 0.0)]
    for time_s, watts in sorted([*seen, (3.1, 40.0)]):
        last = energy[-1]
        energy.append(Tick(time_s, last.value + watts * (time_s - last.time_s), 0.0))
    window = windows.cut(energy, course, reach_s=0.01)
    assert window.pause_s == pytest.approx(0.2)
    # A plain mean would be 191 W.
    assert window.joules / window.seconds == pytest.approx(150, rel=0.1)


@hypothesis.given(st.integers(0, 2**32))
def test_ticks_are_told_apart_though_polls_are_far_apart_and_late(seed: int) -> None:
    # 501 ticks of 20 ms with a jitter of 1 ms, polls as far apart as on a busy host: a tick and
    # the next are seen early and late by up to 16 ms together, and after a long gap by more.
    rng = random.Random(seed)
    ticked_s = [0.02 * k + rng.uniform(-0.0005, 0.0005) for k in range(501)]
    readings, time_s = [], 0.0
    while time_s < 10:
        readings.append(Reading(time_s, bisect.bisect(ticked_s, time_s)))
        late_s = 0.02 if rng.random() < 0.004 else rng.uniform(0, 0.004)
        time_s += 0.0124 + late_s
    fitted = regular(ticks(readings), 0.02)
    # The value is the number of the tick. After a long gap one may be taken for its neighbour.
    off_s = sorted(abs(tick.time_s - ticked_s[int(tick.value) - 1]) for tick in fitted)
    assert off_s[-3] < 0.002
    assert off_s[-1] < 0.022


def test_a_long_window_needs_little_memory() -> None:
    rng = random.Random(0)
    count = 20_000  # 400 s, of a meter that is a little slower than is known of it
    seen = [Tick(0.0201 * k + rng.uniform(-0.004, 0.004), k, 0.008) for k in range(count)]
    tracemalloc.start()
    try:
        fitted = regular(seen, 0.02)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6
    assert max(abs(tick.time_s - 0.0201 * tick.value) for tick in fitted) < 0.001


@pytest.mark.parametrize(
    ("length_s", "reason"), [(0.05, "ticked 1 times in a window of 0.05 s"), (0.0999, "ticked 1")]
)
def test_a_window_without_two_ticks_is_no_measurement(length_s: float, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        windows.cut(steady(1, 200), marks(1, length_s), 0.1)


@hypothesis.given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 3)), min_size=2, max_size=20)
)
def test_the_course_passes_through_its_marks(pieces: list[tuple[float, int]]) -> None:
    ends_s = list(itertools.accumulate((seconds for seconds, _ in pieces), initial=0.0))
    done = list(itertools.accumulate((count for _, count in pieces), initial=0))
    course = Course([Mark(*mark) for mark in zip(ends_s, done, strict=True)])
    assert course.done(ends_s) == pytest.approx(done)
    paused = sum(seconds for seconds, count in pieces if not count)
    assert course.paused_s(0, ends_s[-1]) == pytest.approx(paused)
    assert course.paused_s(-1, ends_s[-1] + 1) == pytest.approx(paused)


@hypothesis.given(st.integers(1, 300), st.floats(0, 1, exclude_max=True))
def test_the_golden_ratio_spreads_phases_evenly_whatever_their_number(
    count: int, at: float
) -> None:
    modulus_s, tick_s = 0.02, 5.0
    now_s = 4.0 + at
    phases = []
    for number in range(1, count + 1):
        pause_s = windows.golden_pause_s(now_s, tick_s, number, modulus_s)
        assert 0 <= pause_s < modulus_s
        phases.append((tick_s - now_s - pause_s) / modulus_s % 1)
    # Far less than random phases, which are off by about 1 / sqrt(count). At 0 the phase wraps.
    assert windows.star_discrepancy([phase % (1 - 1e-9) for phase in phases]) <= 3 / count + 0.02


@hypothesis.given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50))
def test_a_discrepancy_lies_between_even_and_alike(phases: list[float]) -> None:
    assert 1 / (2 * len(phases)) - 1e-9 <= windows.star_discrepancy(phases) <= 1 + 1e-9


@hypothesis.given(st.lists(st.floats(0, 500), min_size=1, max_size=3000))
def test_a_thinned_trace_keeps_its_mean_and_its_length(watts: list[float]) -> None:
    readings = [Reading(i * 0.005, w) for i, w in enumerate(watts)]
    thin = windows.thinned(readings, 50)
    assert len(thin) <= 50
    # Bins hold nearly equally many readings, of at most 500 W.
    assert sum(r.value for r in thin) / len(thin) == pytest.approx(
        sum(watts) / len(watts), abs=500 * 50 / len(watts) + 1e-9
    )
    assert thin[0].time_s >= readings[0].time_s
    assert thin[-1].time_s <= readings[-1].time_s
