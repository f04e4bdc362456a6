"""Measured peaks: what this device reaches at one precision, and so the least time of a request.

    lower bound     a request cannot be quicker than
    compute         its floating-point operations at the higher matrix-product peak
    memory          the bytes that no cache can keep at the higher of copy and read
    launch          its kernels, each launched like an empty one (CUDA, but not a replayed graph)

Peaks are measured, not read from a datasheet: at this power limit, in this slot, with this torch
build. Each is the best of several tries, since a disturbance makes it lower and a bound higher.
"""

import functools
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from bench.asked import QUANTISED
from bench.device import precision
from bench.measured.profiled import Roofline
from bench.outcomes import is_out_of_memory
from bench.profile import quantised
from bench.profile.work import Product, Work, lower_bounds_ms, stored_bytes

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
    """What one device reaches at one precision: fields of a Roofline."""

    matmul_tflops: float
    copy_gb_per_s: float
    read_gb_per_s: float
    cache_bytes: int | None
    launch_us: float | None


@functools.cache
def peaks(precision_name: str, device_type: str, l2_bytes: int | None) -> Peaks:
    """Measure the peaks; once in a process for each device and precision."""
    on_cuda = device_type == "cuda"
    dtype = precision.arithmetic(precision_name, device_type)
    cache_bytes = l2_bytes if on_cuda else cpu_cache_bytes()
    squares = [Product(side, side, side, 1) for side in SQUARES[device_type]]
    rates = [p.flops / product_s(p, dtype, device_type) for p in squares]
    for square in squares:
        kernels = quantised.kernels(square, precision_name, device_type)
        rates += [square.flops / best_s(kernel, device_type) for kernel in kernels]
    numbers = max(LEAST_COPY_BYTES, _CACHES_PER_COPY * (cache_bytes or 0)) // 8 * 2
    every = torch.zeros(numbers, device=device_type)
    source, target = every.chunk(2)

    def launch() -> None:
        """Launch kernels that do nothing, without the work of an operation, and wait for them."""
        for _ in range(_LAUNCHES):
            torch.cuda._sleep(1)  # one cycle
        torch.cuda.synchronize()

    return Peaks(
        matmul_tflops=max(rates) / 1e12,
        copy_gb_per_s=4 * numbers / best_s(lambda: target.copy_(source), device_type) / 1e9,
        read_gb_per_s=4 * numbers / best_s(every.sum, device_type) / 1e9,
        cache_bytes=cache_bytes,
        # Last, at the clocks of the load; by the clock of the host.
        launch_us=best_s(launch, "cpu") / _LAUNCHES * 1e6 if on_cuda else None,
    )


def model_tflops(work: Work, precision_name: str, device_type: str) -> float:
    """The rate of the model's own matrix products, weighted as they occur."""
    dtype = precision.arithmetic(precision_name, device_type)
    seconds = 0.0
    for one in work.products:
        is_head = one.inner * one.columns == work.head_weights
        if precision_name in QUANTISED and not is_head:
            run = quantised.product(one, precision_name, device_type)
            seconds += one.times * best_s(run, device_type)
        else:
            seconds += one.times * product_s(one, dtype, device_type)
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
    rest_bytes: float = precision.storage(precision_name, device_type).itemsize
    weight_bytes = stored_bytes(precision_name) if precision_name in QUANTISED else rest_bytes
    result_bytes = precision.arithmetic(precision_name, device_type).itemsize
    moved = work.forward_bytes(weight_bytes, result_bytes, rest_bytes)
    for attempt in range(1 + _MORE_PEAKS):
        if attempt:
            peaks.cache_clear()
        try:
            peak = peaks(precision_name, device_type, l2_bytes)
            rate = model_tflops(work, precision_name, device_type)
        except RuntimeError as error:
            reason = "no memory is left to measure peaks in"
            if not is_out_of_memory(error):
                if precision_name not in QUANTISED:
                    raise
                first = str(error).partition("\n")[0]
                reason = f"no peak of the quantised product: {first}"
            return Roofline(work.flops, sum(moved), reason=reason)
        limits = roofline(work, moved, peak, rate, precision_name)
        if latency_ms is None or (limits.lower_bound_ms or 0.0) <= latency_ms:
            break
    return limits


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
    compute_ms, memory_ms = lower_bounds_ms(flops, moved, tflops, gb_per_s, peak.cache_bytes or 0)
    limits = Roofline(
        flops=work.flops,
        bytes_moved=sum(moved),
        **asdict(peak),
        matmul_model_tflops=model_rate,
        lower_bound_compute_ms=compute_ms,
        lower_bound_ms=compute_ms,
    )
    if peak.cache_bytes is None:
        reason = "no lower bound of memory: the size of the last-level cache is unknown"
        return replace(limits, reason=reason)
    least_ms = max(compute_ms, memory_ms)
    return replace(limits, lower_bound_memory_ms=memory_ms, lower_bound_ms=least_ms)


def with_launches(limits: Roofline, launches: float | None) -> Roofline:
    """The lower bounds with that of launching a request's kernels one by one.

    `launches` is None where they are unknown, or where a graph is one launch.
    """
    if limits.launch_us is None or launches is None:
        return limits
    launch_ms = launches * limits.launch_us / 1e3
    least_ms = max(limits.lower_bound_ms or 0.0, launch_ms)
    return replace(limits, lower_bound_launch_ms=launch_ms, lower_bound_ms=least_ms)


def cpu_cache_bytes(root: Path = _CPU_CACHES) -> int | None:
    """The last-level caches of all CPUs together; None where Linux does not tell."""
    found: dict[tuple[int, str], int] = {}
    for index in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level, shared, size = (
                (index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size")
            )
            found[int(level), shared] = int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):  # a virtual machine may leave any of them out
            continue
    last = max((level for level, _ in found), default=None)
    return sum(size for (level, _), size in found.items() if level == last) or None


def product_s(product: Product, dtype: torch.dtype, device_type: str) -> float:
    """The time of one matrix product, in the layout in which the model computes it."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device_type, dtype=dtype)

    left = random(product.rows, product.inner)
    plain = product.transposed and not product.bias
    bias = None if plain else random(product.columns)
    if product.transposed:
        right = random(product.columns, product.inner)
        return best_s(lambda: torch.nn.functional.linear(left, right, bias), device_type)
    right = random(product.inner, product.columns)
    return best_s(lambda: torch.addmm(bias, left, right), device_type)


def best_s(run: Callable[[], object], device_type: str) -> float:
    """The least time of one call of some tries, after one that warms up.

    On CUDA of a call in a full queue, by the device's own clock.
    """
    run()
    tries_s: list[float] = []
    end_s = timeit.default_timer() + _TRIES_S
    while len(tries_s) < _TRIES and (not tries_s or timeit.default_timer() < end_s):
        tries_s.append(queued_s(run) if device_type == "cuda" else timeit.timeit(run, number=1))
    return min(tries_s)


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
