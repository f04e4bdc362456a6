"""Latency in a closed loop, throughput of a full queue.

Latency: the host's clock around enqueue and synchronise, with device events beside it on CUDA; one
forward at a time, as a single user would wait for it. Throughput: forwards are enqueued without
waiting, with one synchronise at the end; tokens per second are those of the prompts, also where new
ones are generated, which are counted apart. No cache is flushed: GPT-2's weights (250 to 500 MB)
exceed every L2. Nothing here knows torch, so that the rules are tested on a virtual clock.
"""

import contextlib
import dataclasses
import functools
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bench import stats
from bench.asked import Sampling, Workload
from bench.measured import Timing
from bench.warnings import RowWarning

FEWEST_WARMUP_ITERATIONS = 3
FEWEST_STEADY_ITERATIONS = 10
# The interval of the median is computed again after this growth of the sample, not after each one.
GROWTH = 1.25
CHECK_EVERY_S = 0.25  # looking at the medians takes time in which the device would idle
NOT_CONVERGED = ("latency-not-converged", "first-token-not-converged")
Clock = Callable[[], int]  # ns, monotonic


class Queue(Protocol):
    """A device that runs forwards in the order in which they are enqueued."""

    def enqueue(self) -> None:
        """Start one forward; may return before it is done."""

    def synchronise(self) -> None:
        """Return when all is done."""

    def timed(self) -> None:
        """Enqueue and synchronise; the device's own clock runs along, if it has one."""

    def device_ms(self) -> float | None:
        """What the device's own clock says of the last `timed`."""

    def stretch(self) -> Callable[[], float]:
        """A function that waits for all that is enqueued from now on, and tells how long it took.

        In s, by the device's own clock if it has one, from the end of what was enqueued before.
        """


class WarmUp(NamedTuple):
    """How long the device was warmed up, and whether it became steady."""

    elapsed_s: float
    iterations: int
    steady: bool


@dataclass(frozen=True)
class Latencies:
    """Every sample in the order taken."""

    host_ms: tuple[float, ...]
    device_ms: tuple[float, ...] | None
    converged: bool

    @functools.cached_property
    def summary(self) -> stats.Summary:
        """Statistics of the host's times."""
        return stats.summarise(self.host_ms)


class Throughput(NamedTuple):
    """Forwards completed in a time."""

    iterations: int
    elapsed_s: float


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, and none while the block runs."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@no_garbage_collection()
def warm_up(queue: Queue, sampling: Sampling, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Run forwards until the medians of two windows of 1 s agree within 1 %, or time is over."""
    durations_s: list[float] = []
    steady, next_check_s = False, sampling.warmup_min_s
    start = last = clock()
    while True:
        queue.enqueue()
        queue.synchronise()
        now = clock()
        durations_s.append((now - last) / 1e9)
        last, elapsed_s, count = now, (now - start) / 1e9, len(durations_s)
        if elapsed_s >= next_check_s and count >= FEWEST_STEADY_ITERATIONS:
            steady = stats.steady(durations_s)
            next_check_s = elapsed_s + CHECK_EVERY_S
        over = elapsed_s >= sampling.warmup_max_s and count >= FEWEST_WARMUP_ITERATIONS
        if steady or over:
            return WarmUp(elapsed_s, count, steady)


@no_garbage_collection()
def sample_latency(
    queue: Queue, sampling: Sampling, clock: Clock = time.perf_counter_ns
) -> Latencies:
    """Time single forwards until their median is known well enough, or a cap is reached."""
    host_ms: list[float] = []
    device_ms: list[float] = []
    next_check = sampling.min_samples
    start = clock()
    while True:
        before = clock()
        queue.timed()
        after = clock()
        on_device = queue.device_ms()
        host_ms.append((after - before) / 1e6)
        if on_device is not None:
            device_ms.append(on_device)
        count, elapsed_s = len(host_ms), (after - start) / 1e9
        capped = count >= sampling.max_samples or elapsed_s >= sampling.latency_max_s
        due = count >= next_check and elapsed_s >= sampling.latency_min_s
        if not (capped or due):
            continue
        half = stats.summarise(host_ms).half_width
        enough = half is not None and half <= sampling.median_within
        converged = enough and count >= sampling.min_samples
        if converged or capped:
            return Latencies(tuple(host_ms), tuple(device_ms) or None, converged)
        next_check = max(count + 1, round(count * GROWTH))


@no_garbage_collection()
def run_throughput(
    queue: Queue, sampling: Sampling, latency_ms: float, clock: Clock = time.perf_counter_ns
) -> Throughput:
    """Keep the queue full for `throughput_s` and wait at the end."""
    queue.synchronise()
    start = now = clock()
    end, iterations = start + sampling.throughput_s * 1e9, 0
    while now < end:
        # No more than fit into the time at the pace of one forward alone, the slowest of a full
        # queue, before the device is waited for: CUDA bounds the launches of a queue, and a
        # replayed graph is one, so that slow ones would take minutes more.
        for _ in range(math.ceil((end - now) / 1e6 / latency_ms)):
            queue.enqueue()
            iterations += 1
            if clock() >= end:
                break
        queue.synchronise()
        now = clock()
    return Throughput(iterations, (now - start) / 1e9)


def timing(
    warm: WarmUp,
    latencies: Latencies,
    throughput: Throughput,
    workload: Workload,
    first_token: Latencies | None,
    peak_memory_bytes: int | None,
) -> Timing:
    """The record of all of them."""
    device_ms, summary = latencies.device_ms, dataclasses.asdict(latencies.summary)
    per_s = throughput.iterations * workload.batch_size / throughput.elapsed_s
    first_p50 = first_token.summary.p50 if first_token else None
    per_output_token = None
    if first_p50 is not None and workload.new_tokens > 1:
        per_output_token = (summary["p50"] - first_p50) / (workload.new_tokens - 1)
    return Timing(
        latency_ms_samples=latencies.host_ms,
        latency_count=summary.pop("count"),
        **{f"latency_ms_{name}": value for name, value in summary.items()},
        converged=latencies.converged,
        warmup_s=warm.elapsed_s,
        warmup_iterations=warm.iterations,
        device_ms_samples=device_ms,
        device_ms_p50=statistics.median(device_ms) if device_ms else None,
        first_token_ms_samples=first_token.host_ms if first_token else None,
        first_token_ms_p50=first_p50,
        per_output_token_ms=per_output_token,
        throughput_samples_per_s=per_s,
        throughput_tokens_per_s=per_s * workload.prompt_tokens,
        throughput_output_tokens_per_s=per_s * workload.new_tokens or None,
        throughput_iterations=throughput.iterations,
        throughput_s=throughput.elapsed_s,
        peak_memory_bytes=peak_memory_bytes,
    )


def warnings(
    warm: WarmUp, latencies: Latencies, sampling: Sampling, first_token: Latencies | None = None
) -> list[RowWarning]:
    """What weakens these times."""
    found = []
    if not warm.steady:
        drift = stats.drift(latencies.host_ms)
        found.append(RowWarning("warm-up-not-steady", {"seconds": warm.elapsed_s, "drift": drift}))
    for code, sampled in zip(NOT_CONVERGED, (latencies, first_token), strict=True):
        if sampled and not sampled.converged:
            values = {
                "samples": sampled.summary.count,
                "half_width": sampled.summary.half_width,
                "min_samples": sampling.min_samples,
                "median_within": sampling.median_within,
            }
            found.append(RowWarning(code, values))
    return found
