"""bench.timing: the protocol on a virtual clock, so that every number is a formula."""

from __future__ import annotations

import gc
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bench import stats, timing
from bench.asked import Sampling, Workload
from bench.measured import Timing
from bench.timing import Latencies, Throughput, WarmUp

MS = 1_000_000  # ns


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> Iterator[None]:
    """Each run collects garbage first: quick where all that is imported lies aside."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class VirtualDevice:
    """A device with a clock of its own: forwards last what they are told, waiting takes no time."""

    def __init__(self, forwards_ms: Iterable[float], launch_ms: float = 0, clock: bool = False):
        self._forwards_ms = iter(forwards_ms)
        self._launch_ns = round(launch_ms * MS)
        self._has_clock = clock
        self._now_ns = self._free_ns = 0
        self.reading_ms = 0.0  # how long its own clock takes to tell
        self.enqueued = self.synchronised = 0
        self.collecting: set[bool] = set()

    def clock(self) -> int:
        return self._now_ns

    def pause(self, pause_ms: float) -> None:
        self._now_ns += round(pause_ms * MS)

    def enqueue(self) -> None:
        self.collecting.add(gc.isenabled())
        self.enqueued += 1
        forward_ns = round(next(self._forwards_ms) * MS)
        self._now_ns += self._launch_ns
        self._free_ns = max(self._free_ns, self._now_ns) + forward_ns

    def synchronise(self) -> None:
        self.synchronised += 1
        self._now_ns = max(self._now_ns, self._free_ns)

    def timed(self) -> None:
        self._begun_ns = self._now_ns
        self.enqueue()
        self.synchronise()

    def device_ms(self) -> float | None:
        found_ms = (self._now_ns - self._begun_ns - self._launch_ns) / MS
        self._now_ns += round(self.reading_ms * MS)
        return found_ms if self._has_clock else None


def latencies(host_ms: tuple[float, ...], device_ms: tuple[float, ...] | None = None) -> Latencies:
    """Latencies that have converged."""
    return Latencies(host_ms, device_ms, converged=True)


def constant(forward_ms: float) -> Iterator[float]:
    return itertools.repeat(forward_ms)


def noisy(median_ms: float, spread: float) -> Iterator[float]:
    """Log-normal latencies, always the same ones."""
    rng = np.random.default_rng(0)
    while True:
        yield median_ms * float(rng.lognormal(0, spread))


def warm_up(device: VirtualDevice, **sampling: float) -> WarmUp:
    return timing.warm_up(device, replace(Sampling(), **sampling), device.clock)


def sample(device: VirtualDevice, **sampling: float) -> Latencies:
    return timing.sample_latency(device, replace(Sampling(), **sampling), device.clock)


# ------------------------------------------------------------------------------- warm-up


def test_a_steady_device_is_warm_after_the_shortest_time() -> None:
    warm = warm_up(VirtualDevice(constant(10)), warmup_min_s=2)
    assert warm == WarmUp(elapsed_s=2.0, iterations=200, steady=True)


def test_two_windows_of_a_second_are_needed_even_if_the_matrix_asks_for_less() -> None:
    warm = warm_up(VirtualDevice(constant(10)), warmup_min_s=0.5)
    assert warm.steady
    assert 2.0 <= warm.elapsed_s <= 2.0 + 0.25 + 0.01


def test_warm_up_lasts_until_the_device_is_steady() -> None:
    """Clocks rise for 3 s: each forward is 1 % faster than the one before, then all are equal."""
    rising = [100 * 0.99**index for index in range(50)]
    rise_s = sum(rising) / 1000
    warm = warm_up(VirtualDevice([*rising, *[rising[-1]] * 1000]), warmup_min_s=0)
    assert warm.steady
    # Within the older of the two windows the median must already be that of steady forwards.
    assert rise_s + 1.4 < warm.elapsed_s < rise_s + 2.5


def test_warm_up_of_a_restless_device_ends_at_the_cap() -> None:
    falling = (10 * 1.001**index for index in itertools.count())
    warm = warm_up(VirtualDevice(falling), warmup_min_s=1, warmup_max_s=5)
    assert not warm.steady
    assert 5.0 <= warm.elapsed_s < 5.0 + 0.02 * 1.001**500
    sampled = latencies((2.0,) * 10 + (1.0,) * 10)
    (warning,) = timing.warnings(warm, sampled, Sampling())
    values = {"seconds": warm.elapsed_s, "drift": 0.5}
    assert (warning.code, warning.values) == ("warm-up-not-steady", values)


def test_forwards_longer_than_the_cap_still_run_three_times() -> None:
    warm = warm_up(VirtualDevice(constant(40_000)), warmup_min_s=2, warmup_max_s=30)
    assert warm == WarmUp(elapsed_s=120.0, iterations=3, steady=False)


def test_ten_forwards_are_needed_to_be_steady_however_long_they_are() -> None:
    warm = warm_up(VirtualDevice(constant(2000)), warmup_min_s=2, warmup_max_s=30)
    assert warm == WarmUp(elapsed_s=20.0, iterations=10, steady=True)


def test_a_cap_below_the_steady_time_says_so() -> None:
    warm = warm_up(VirtualDevice(constant(10)), warmup_min_s=0, warmup_max_s=1.5)
    assert warm == WarmUp(elapsed_s=1.5, iterations=150, steady=False)


def test_each_forward_of_the_warm_up_is_awaited() -> None:
    device = VirtualDevice(constant(10))
    warm = warm_up(device)
    assert device.synchronised == device.enqueued == warm.iterations


# ------------------------------------------------------------------------------- latency


def test_every_sample_is_kept_in_order() -> None:
    forwards_ms = [float(5 + (7 * index) % 11) for index in range(20)]
    found = sample(VirtualDevice(forwards_ms), min_samples=20, max_samples=20)
    assert found.host_ms == tuple(forwards_ms)
    assert found.summary == stats.summarise(forwards_ms)


def test_latency_holds_the_launch_and_the_forward() -> None:
    found = sample(VirtualDevice(constant(10), launch_ms=2), min_samples=12, latency_min_s=0)
    assert set(found.host_ms) == {12.0}


def test_the_time_of_device_events_stands_beside_the_host_clock() -> None:
    device = VirtualDevice(constant(10), launch_ms=2, clock=True)
    device.reading_ms = 1  # in no sample
    found = sample(device, min_samples=12, latency_min_s=0)
    assert found.device_ms == (10.0,) * 12
    assert found.host_ms == (12.0,) * 12


def test_a_device_without_a_clock_has_no_time_of_its_own() -> None:
    found = sample(VirtualDevice(constant(10)), min_samples=12, latency_min_s=0)
    assert found.device_ms is None


def test_an_interval_needs_11_samples_even_if_the_matrix_asks_for_fewer() -> None:
    found = sample(VirtualDevice(constant(10)), min_samples=5, latency_min_s=0)
    assert found.converged
    assert 11 <= len(found.host_ms) <= 11 * 1.25


def test_sampling_stops_at_the_fewest_samples_where_the_median_is_known() -> None:
    found = sample(VirtualDevice(constant(20)), min_samples=662, latency_min_s=10)
    assert (len(found.host_ms), found.converged) == (662, True)


def test_sampling_lasts_the_shortest_time_where_the_fewest_samples_take_less() -> None:
    found = sample(VirtualDevice(constant(1)), min_samples=662, latency_min_s=10)
    assert (len(found.host_ms), found.converged) == (10_000, True)


def test_sampling_goes_on_until_the_interval_is_narrow() -> None:
    asked = {"min_samples": 20, "latency_min_s": 0, "median_within": 0.02}
    found = sample(VirtualDevice(noisy(10, 0.2)), **asked)
    # The interval is +- 1.96 * 0.2 * sqrt(pi / 2 n), so that 2 % need about 600 samples.
    assert found.converged
    assert 300 < len(found.host_ms) < 1200


def test_a_noisier_device_takes_more_samples() -> None:
    asked = {"min_samples": 20, "latency_min_s": 0, "median_within": 0.03}
    counts = [len(sample(VirtualDevice(noisy(5, s)), **asked).host_ms) for s in (0.05, 0.2)]
    assert counts[0] < counts[1]


def test_sampling_ends_at_the_most_samples() -> None:
    found = sample(VirtualDevice(noisy(1, 1.0)), min_samples=50, max_samples=120, latency_min_s=0)
    assert (len(found.host_ms), found.converged) == (120, False)


def test_sampling_ends_at_the_longest_time() -> None:
    device = VirtualDevice(noisy(100, 0.5))
    found = sample(device, min_samples=50, latency_min_s=1, latency_max_s=20)
    assert not found.converged
    elapsed_s = device.clock() / 1e9
    assert 20 <= elapsed_s < 20 + max(found.host_ms) / 1000


def test_too_few_samples_have_not_converged_however_narrow_they_are() -> None:
    found = sample(VirtualDevice(constant(1000)), min_samples=662, latency_max_s=60)
    assert (len(found.host_ms), found.converged) == (60, False)


def test_the_samples_at_a_cap_may_have_converged() -> None:
    found = sample(VirtualDevice(constant(10)), min_samples=50, max_samples=50)
    assert (len(found.host_ms), found.converged) == (50, True)


def test_one_forward_longer_than_the_cap_is_a_sample() -> None:
    found = sample(VirtualDevice(constant(90_000)), latency_max_s=60)
    assert (found.host_ms, found.converged) == ((90_000.0,), False)


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=10),
    st.integers(5, 60),
    st.integers(0, 60),
    st.floats(0, 1),
    st.floats(0, 2),
)
def test_sampling_keeps_all_its_promises(
    pattern_ms: list[int], fewest: int, more: int, shortest_s: float, longer_s: float
) -> None:
    asked = Sampling(
        min_samples=fewest,
        max_samples=fewest + more,
        latency_min_s=shortest_s,
        latency_max_s=max(0.01, shortest_s + longer_s),
    )
    device = VirtualDevice(itertools.cycle(map(float, pattern_ms)))
    found = timing.sample_latency(device, asked, device.clock)
    count, elapsed_s = len(found.host_ms), device.clock() / 1e9
    capped = count == asked.max_samples or elapsed_s >= asked.latency_max_s
    assert device.enqueued == count <= asked.max_samples
    assert elapsed_s < asked.latency_max_s + max(pattern_ms) / 1000
    if found.converged:
        assert count >= asked.min_samples
        assert capped or elapsed_s >= asked.latency_min_s
    else:
        assert capped


def test_a_wide_interval_is_a_warning_that_says_how_wide_and_what_was_asked() -> None:
    asked = Sampling(min_samples=50, max_samples=120, latency_min_s=0)
    device = VirtualDevice(noisy(1, 1.0))
    found = timing.sample_latency(device, asked, device.clock)
    (warning,) = timing.warnings(WarmUp(2, 200, True), found, asked)
    assert warning.code == "latency-not-converged"
    assert warning.values == {
        "samples": 120,
        "half_width": found.summary.half_width,
        "min_samples": 50,
        "median_within": asked.median_within,
    }


def test_steady_and_converged_times_have_no_warning() -> None:
    assert timing.warnings(WarmUp(2, 200, True), latencies((1.0,) * 20), Sampling()) == []


def test_too_few_samples_for_an_interval_are_a_warning_without_a_width() -> None:
    found = sample(VirtualDevice(constant(10_000)), min_samples=662, latency_max_s=60)
    first = latencies((1.0,) * 5)
    (warning,) = timing.warnings(WarmUp(2, 200, True), found, Sampling(), first)
    assert (warning.values["samples"], warning.values["half_width"]) == (6, None)
    (of_first,) = timing.warnings(WarmUp(2, 200, True), first, Sampling(), found)
    assert of_first.code == "first-token-not-converged"


# ------------------------------------------------------------------------------- throughput


def throughput(device: VirtualDevice, throughput_s: float, latency_ms: float = 1.0) -> Throughput:
    sampling = Sampling(throughput_s=throughput_s)
    return timing.run_throughput(device, sampling, latency_ms, device.clock)


def test_throughput_of_a_device_that_blocks_is_forwards_over_time() -> None:
    device = VirtualDevice(constant(0), launch_ms=10)
    assert throughput(device, 1) == Throughput(iterations=100, elapsed_s=1.0)


def test_throughput_counts_until_the_last_forward_is_done() -> None:
    """The host enqueues every 1 ms what takes the device 10 ms: 100 in 0.1 s, done after 1 s."""
    device = VirtualDevice(constant(10), launch_ms=1)
    found = throughput(device, 0.1)
    assert found.iterations == 100
    assert found.elapsed_s == pytest.approx(0.001 + 100 * 0.010)


def test_no_more_is_enqueued_than_the_device_can_do_in_time() -> None:
    """As a replayed graph of 1 s that the host launches in 10 us."""
    found = throughput(VirtualDevice(constant(1000), launch_ms=0.01), 10, latency_ms=1000)
    assert found.iterations == 10
    assert found.elapsed_s == pytest.approx(10, abs=0.01)


def test_throughput_has_a_forward_however_long_it_is() -> None:
    assert throughput(VirtualDevice(constant(5000)), 1, latency_ms=5000).iterations == 1


def test_a_queue_that_is_quicker_than_one_forward_alone_is_filled_again() -> None:
    device = VirtualDevice(constant(1), launch_ms=0.1)
    found = throughput(device, 1, latency_ms=2)
    assert found.iterations == pytest.approx(1000, abs=10)
    assert found.elapsed_s == pytest.approx(1, abs=0.01)


def test_throughput_waits_once_at_either_end() -> None:
    device = VirtualDevice(constant(1), launch_ms=1)
    throughput(device, 1)
    assert device.synchronised == 2


def test_work_from_before_is_not_counted() -> None:
    device = VirtualDevice(itertools.chain([5000], constant(0)), launch_ms=10)
    device.enqueue()
    assert throughput(device, 1) == Throughput(iterations=100, elapsed_s=1.0)


# ------------------------------------------------------------------------------- garbage collection

RUNS: dict[str, Callable[[VirtualDevice], object]] = {
    "warm-up": lambda device: warm_up(device),
    "latency": lambda device: sample(device, min_samples=12, latency_min_s=0),
    "throughput": lambda device: throughput(device, 0.1),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_no_garbage_is_collected_meanwhile(run: Callable[[VirtualDevice], object]) -> None:
    device = VirtualDevice(constant(10), launch_ms=1)
    assert gc.isenabled()
    run(device)
    assert device.collecting == {False}
    assert gc.isenabled()


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_collection_goes_on_after_a_forward_that_fails(
    run: Callable[[VirtualDevice], object],
) -> None:
    device = VirtualDevice([10.0, 10.0])
    with pytest.raises(StopIteration):
        run(device)
    assert gc.isenabled()


def test_collecting_before_a_run_is_not_part_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    device = VirtualDevice(constant(10))
    monkeypatch.setattr(gc, "collect", lambda: device.pause(1000))
    assert warm_up(device, warmup_min_s=2).elapsed_s == 2.0
    found = sample(device, min_samples=12, latency_min_s=0, latency_max_s=0.5)
    assert (len(found.host_ms), found.converged) == (12, True)
    blocking = VirtualDevice(constant(0), launch_ms=10)
    monkeypatch.setattr(gc, "collect", lambda: blocking.pause(1000))
    assert throughput(blocking, 1) == Throughput(iterations=100, elapsed_s=1.0)


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        warm_up(VirtualDevice(constant(10)))
        assert not gc.isenabled()
    finally:
        gc.enable()


# ------------------------------------------------------------------------------- the record


def record(host_ms: tuple[float, ...], device_ms: tuple[float, ...] | None = None) -> Timing:
    return timing.timing(
        WarmUp(2.5, 250, True),
        latencies(host_ms, device_ms),
        Throughput(iterations=50, elapsed_s=2.0),
        Workload("tiny", batch_size=8, prompt_tokens=128),
        first_token=None,
        peak_memory_bytes=None,
    )


def test_the_record_holds_what_was_seen() -> None:
    host_ms = tuple(itertools.islice(noisy(10, 0.1), 40))
    found = record(host_ms)
    assert found.latency_ms_samples == host_ms
    assert found.latency_count == 40
    assert found.latency_ms_p50 == pytest.approx(statistics.median(host_ms))
    assert found.latency_ms_min == min(host_ms)
    assert found.latency_ms_p50_low and found.latency_ms_p50_high
    assert found.latency_ms_p50_low < found.latency_ms_p50 < found.latency_ms_p50_high
    assert (found.warmup_s, found.warmup_iterations, found.converged) == (2.5, 250, True)


def test_time_per_output_token_is_what_the_first_one_leaves() -> None:
    def record(new_tokens: int) -> Timing:
        return timing.timing(
            WarmUp(2.5, 250, True),
            latencies((9.0, 10.0, 11.0)),
            Throughput(iterations=50, elapsed_s=2.0),
            Workload("tiny", new_tokens=new_tokens),
            first_token=latencies((3.0, 4.0, 5.0)),
            peak_memory_bytes=None,
        )

    found = record(new_tokens=4)
    assert found.first_token_ms_samples == (3.0, 4.0, 5.0)
    assert (found.first_token_ms_p50, found.per_output_token_ms) == (4.0, 2.0)
    assert found.throughput_output_tokens_per_s == 50 * 4 / 2.0
    assert record(new_tokens=1).per_output_token_ms is None


def test_throughput_counts_prompts_and_their_tokens() -> None:
    found = record((1.0,) * 5)
    assert found.throughput_samples_per_s == 50 * 8 / 2.0
    assert found.throughput_tokens_per_s == 50 * 8 * 128 / 2.0
    assert found.throughput_output_tokens_per_s is None
    assert (found.throughput_iterations, found.throughput_s) == (50, 2.0)


def test_device_events_have_a_median_of_their_own() -> None:
    found = record((3.0, 4.0, 5.0), device_ms=(1.0, 2.0, 9.0))
    assert (found.device_ms_samples, found.device_ms_p50) == ((1.0, 2.0, 9.0), 2.0)


def test_no_device_events_are_no_median() -> None:
    found = record((3.0, 4.0, 5.0))
    assert (found.device_ms_samples, found.device_ms_p50) == (None, None)


def test_quantiles_stand_in_the_record_where_enough_samples_do() -> None:
    for count, names in ((10, ""), (64, "p90"), (130, "p90 p95"), (662, "p90 p95 p99")):
        found = record(tuple(float(index) for index in range(count)))
        bounds = (found.latency_ms_p50_low, found.latency_ms_p50_high)
        assert [bound is None for bound in bounds] == [count < 11] * 2
        for name in ("p90", "p95", "p99"):
            value = getattr(found, f"latency_ms_{name}")
            if name in names.split():
                assert value == pytest.approx(int(name[1:]) / 100 * (count - 1))
            else:
                assert value is None
