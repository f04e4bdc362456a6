"""Measured peaks: what this device reaches at one precision, and so the least time of a request.

    lower bound     a request cannot be quicker than
    compute         its floating-point operations at the higher matrix-product peak
    memory          the bytes that no cache can keep at the higher of copy and read
    launch          its kernels, each launched like an empty one (CUDA, but not a replayed graph)

Peaks are measured, not read from a datasheet: at this power limit, in this slot, with this torch
build. Each is the best of several tries, since a disturbance makes it lower and a bound higher.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.device import precision
from bench.measured import Roofline
from bench.outcomes import is_out_of_memory
from bench.profile.work import Product, Work, lower_bounds_ms

# Multiplied by itself: large enough to be at the peak, small enough to take a moment.
SQUARES = {"cuda": (4096, 8192), "cpu": (2048,)}
LEAST_COPY_BYTES = 256 * 2**20
_CACHES_PER_COPY = 4
_TRIES = 5
_TRIES_S = 0.5  # for all tries of one peak, where a try takes long
_MORE_PEAKS = 2  # tries of all peaks
_CALLS = 10  # of which the launches take some 0.1 ms, and the kernels of an H100 less
_AHEAD_CYCLES = 2_000_000  # 1 ms at 2 GHz
_LAUNCHES = 1000  # about as many as a queue of CUDA holds
_CPU_CACHES = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Peaks:
    """What one device reaches at one precision."""

    matmul_tflops: float
    copy_gb_per_s: float
    read_gb_per_s: float
    cache_bytes: int | None
    launch_us: float | None


def launch() -> None:
    """Launch kernels that do nothing, without the work of an operation, and wait for them."""
    for _ in range(_LAUNCHES):
        torch.cuda._sleep(1)  # one cycle
    torch.cuda.synchronize()


@functools.cache
def peaks(precision_name: str, device_type: str, l2_bytes: int | None) -> Peaks:
    """Measure the peaks; once in a process for each device and precision."""
    dtype = precision.arithmetic(precision_name, device_type)
    cache_bytes = l2_bytes if device_type == "cuda" else cpu_cache_bytes()
    squares = [Product(side, side, side, 1) for side in SQUARES[device_type]]
    numbers = max(LEAST_COPY_BYTES, _CACHES_PER_COPY * (cache_bytes or 0)) // 4
    source = torch.zeros(numbers, device=device_type)
    target = torch.empty_like(source)
    launch_us = None
    if device_type == "cuda":
        launch_us = best_s(launch, "cpu") / _LAUNCHES * 1e6  # by the host's clock
    return Peaks(
        matmul_tflops=max(p.flops / product_s(p, dtype, device_type) / 1e12 for p in squares),
        copy_gb_per_s=8 * numbers / best_s(lambda: target.copy_(source), device_type) / 1e9,
        read_gb_per_s=4 * numbers / best_s(source.sum, device_type) / 1e9,
        cache_bytes=cache_bytes,
        launch_us=launch_us,
    )


def model_tflops(work: Work, precision_name: str, device_type: str) -> float:
    """The rate of the model's own matrix products, weighted as they occur."""
    dtype = precision.arithmetic(precision_name, device_type)
    seconds = sum(product_s(p, dtype, device_type) * p.times for p in work.products)
    return sum(product.flops for product in work.products) / seconds / 1e12


def measured_roofline(
    work: Work,
    precision_name: str,
    device_type: str,
    l2_bytes: int | None,
    latency_ms: float | None,
) -> Roofline:
    """The lower bounds of a request by the peaks of this device, but for that of launches.

    The caller has switched the process to the precision. Where a bound is above the measured
    `latency_ms`, something disturbed the device meanwhile, or else the latency is impossible: the
    peaks are measured again.
    """
    weight_bytes = precision.storage(precision_name).itemsize
    result_bytes = precision.arithmetic(precision_name, device_type).itemsize
    moved = work.forward_bytes(weight_bytes, result_bytes)
    tries_left = _MORE_PEAKS
    while True:
        try:
            peak = peaks(precision_name, device_type, l2_bytes)
            rate = model_tflops(work, precision_name, device_type)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = "no memory is left to measure peaks in"
            return Roofline(work.flops, sum(moved), reason=reason)
        limits = roofline(work, moved, peak, rate, precision_name)
        possible = latency_ms is None or (limits.lower_bound_ms or 0.0) <= latency_ms
        if possible or not tries_left:
            return limits
        tries_left -= 1
        peaks.cache_clear()


def roofline(
    work: Work, moved: Sequence[int], peak: Peaks, model_rate: float, precision_name: str
) -> Roofline:
    """The lower bounds that follow from work and peaks.

    `moved` are the least bytes of each forward; `model_rate` the TFLOP/s of the model's products.
    """
    flops = work.least_flops
    if precision_name == "fp32":
        # From compute capability 8.0 on fused attention multiplies float32 on Tensor Cores, three
        # TF32 products for one (CUTLASS, OpMultiplyAddFastF32), whatever the switch of TF32 says.
        flops -= work.least_attention_flops
    tflops = max(peak.matmul_tflops, model_rate)
    gb_per_s = max(peak.copy_gb_per_s, peak.read_gb_per_s)
    compute_ms, beyond_ms = lower_bounds_ms(flops, moved, tflops, gb_per_s, peak.cache_bytes or 0)
    memory_ms = reason = None
    if peak.cache_bytes is None:
        reason = "no lower bound of memory: the size of the last-level cache is unknown"
    else:
        memory_ms = beyond_ms
    return Roofline(
        flops=work.flops,
        bytes_moved=sum(moved),
        reason=reason,
        **dataclasses.asdict(peak),
        matmul_model_tflops=model_rate,
        lower_bound_compute_ms=compute_ms,
        lower_bound_memory_ms=memory_ms,
        lower_bound_ms=max(compute_ms, memory_ms or 0.0),
    )


def with_launches(limits: Roofline, launches: float | None) -> Roofline:
    """The lower bounds with that of launching a request's kernels one by one.

    `launches` is None where they are unknown, or where a graph is one launch.
    """
    if limits.launch_us is None or launches is None:
        return limits
    launch_ms = launches * limits.launch_us / 1e3
    lower_bound_ms = max(limits.lower_bound_ms or 0.0, launch_ms)
    return replace(limits, lower_bound_launch_ms=launch_ms, lower_bound_ms=lower_bound_ms)


def cpu_cache_bytes(root: Path = _CPU_CACHES) -> int | None:
    """The last-level caches of all CPUs together; None where Linux does not tell."""
    found: dict[tuple[int, str], int] = {}
    for index in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level = int((index / "level").read_text())
            shared = (index / "shared_cpu_list").read_text()
            size = (index / "size").read_text().strip()
            found[level, shared] = int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):  # a virtual machine may leave any of them out
            continue
    last = max((level for level, _ in found), default=None)
    return sum(size for (level, _), size in found.items() if level == last) or None


def product_s(product: Product, dtype: torch.dtype, device_type: str) -> float:
    """The time of one matrix product, in the layout in which the model computes it."""
    like: dict[str, Any] = {"device": device_type, "dtype": dtype}
    left = torch.randn(product.rows, product.inner, **like)
    if product.transposed:
        right = torch.randn(product.columns, product.inner, **like)
        return best_s(lambda: torch.nn.functional.linear(left, right), device_type)
    right = torch.randn(product.inner, product.columns, **like)
    bias = torch.randn(product.columns, **like)
    return best_s(lambda: torch.addmm(bias, left, right), device_type)


def best_s(run: Callable[[], object], device_type: str) -> float:
    """The least time of one call of some tries, after one that warms up.

    On CUDA of a call in a full queue, by the device's own clock.
    """
    run()
    found_s, end_s = float("inf"), time.perf_counter() + _TRIES_S
    for _ in range(_TRIES):
        start_s = time.perf_counter()
        if device_type == "cuda":
            once_s = queued_s(run)
        else:
            run()
            once_s = time.perf_counter() - start_s
        found_s = min(found_s, once_s)
        if time.perf_counter() > end_s:
            break
    return found_s


def queued_s(run: Callable[[], object]) -> float:
    """The time of one of some calls in a full queue of CUDA."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(_AHEAD_CYCLES)  # what follows is launched meanwhile
    start.record()
    for _ in range(_CALLS):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / _CALLS
