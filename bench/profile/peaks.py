"""What this device can reach at most, and so the least time that a request can take.

    floor           a request cannot be quicker than
    compute         its floating-point operations at the higher matrix-product peak
    memory          the bytes that no cache can keep at the higher of copy and read
    launch          its kernels, each launched like an empty one (CUDA, but not a replayed graph)

Peaks are measured, not read from a datasheet: at this power limit, in this slot, with this torch
build. Each is the best of several tries, since a disturbance makes it lower and a floor higher.
Counts are formulas of the architecture, and lower bounds wherever a kernel may spare work.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.asked import Workload
from bench.device import precision
from bench.measured import Roofline, Trace

if TYPE_CHECKING:
    import torch

# Multiplied by itself: large enough to be at the peak, small enough to take a moment.
_SIDES = {"cuda": (4096, 8192), "cpu": (2048,)}
_LEAST_COPY_BYTES = 256 * 2**20
_CACHES_PER_COPY = 4
_TRIES = 5
_TRIES_S = 0.5  # for all tries of one peak, where a try takes long
_CALLS = 10  # of which the launches take some 0.1 ms, and the kernels of an H100 less
_AHEAD_CYCLES = 2_000_000  # 1 ms at 2 GHz
_LAUNCHES = 1000  # about as many as a queue of CUDA holds
_CPU_CACHES = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Product:
    """One matrix product, (rows, inner) by (inner, columns), and how often it is computed.

    `transposed` is the head, which multiplies by the transposed embedding and has no bias.
    """

    rows: int
    inner: int
    columns: int
    times: int
    transposed: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions of all times."""
        return 2 * self.rows * self.inner * self.columns * self.times


@dataclass(frozen=True)
class Work:
    """What a request computes and moves."""

    products: tuple[Product, ...]
    attention_flops: int  # over every pair of positions that a kernel may look at
    least_attention_flops: int  # over those that the causal mask leaves
    forward_bytes: tuple[int, ...]  # least bytes, forward by forward

    @property
    def flops(self) -> int:
        """As torch.utils.flop_counter counts: attention in full."""
        return sum(product.flops for product in self.products) + self.attention_flops

    @property
    def least_flops(self) -> int:
        """What no kernel can spare."""
        return self.flops - self.attention_flops + self.least_attention_flops


@dataclass(frozen=True)
class Peaks:
    """What one device reaches at one precision."""

    matmul_tflops: float
    copy_gb_per_s: float
    read_gb_per_s: float
    cache_bytes: int | None
    launch_us: float | None


def work(config: Any, workload: Workload, storage_bytes: int, logit_bytes: int) -> Work:
    """The work of one request by formula.

    Args:
        config: transformers' GPT2Config.
        workload: batch, prompt and new tokens.
        storage_bytes: of one weight.
        logit_bytes: of one logit, key or value.
    """
    width, layers, vocabulary = config.n_embd, config.n_layer, config.vocab_size
    inner = config.n_inner or 4 * width
    batch, prompt, new = workload.batch_size, workload.prompt_tokens, workload.new_tokens
    # (rows, rows with logits, pairs, pairs under the mask, positions kept) of each forward
    full = prompt * prompt
    forwards = [(prompt, 1 if new else prompt, full, (full + prompt) // 2, prompt if new else 0)]
    for kept in range(prompt + 1, prompt + new):
        forwards.append((1, 1, prompt + new, kept, kept))
    shapes = ((width, 3 * width), (width, width), (width, inner), (inner, width))
    weights = layers * sum(k * n for k, n in shapes) + vocabulary * width
    per_pair = 4 * width * layers * batch  # query by key, and weight by value
    return Work(
        products=tuple(
            product
            for rows, times in ((prompt, 1), (1, max(0, new - 1)))
            if times
            for product in (
                *(Product(batch * rows, k, n, layers * times) for k, n in shapes),
                Product(batch * (1 if new else rows), width, vocabulary, times, transposed=True),
            )
        ),
        attention_flops=per_pair * sum(pairs for _, _, pairs, _, _ in forwards),
        least_attention_flops=per_pair * sum(least for _, _, _, least, _ in forwards),
        forward_bytes=tuple(
            weights * storage_bytes
            + batch * (logits * vocabulary + 2 * layers * width * kept) * logit_bytes
            for _, logits, _, _, kept in forwards
        ),
    )


@functools.cache
def peaks(precision_name: str, device_type: str, l2_bytes: int | None) -> Peaks:
    """Measure the peaks; once in a process for each device and precision."""
    import torch

    dtype = precision.arithmetic(precision_name, device_type)
    cache_bytes = l2_bytes if device_type == "cuda" else cpu_cache_bytes()
    squares = [Product(side, side, side, 1) for side in _SIDES[device_type]]
    numbers = max(_LEAST_COPY_BYTES, _CACHES_PER_COPY * (cache_bytes or 0)) // 4
    source = torch.zeros(numbers, device=device_type)
    target = torch.empty_like(source)
    return Peaks(
        matmul_tflops=max(p.flops / _seconds(p, dtype, device_type) / 1e12 for p in squares),
        copy_gb_per_s=8 * numbers / _best_s(lambda: target.copy_(source), device_type) / 1e9,
        read_gb_per_s=4 * numbers / _best_s(source.sum, device_type) / 1e9,
        cache_bytes=cache_bytes,
        launch_us=_launch_us() if device_type == "cuda" else None,
    )


def model_tflops(found: Work, precision_name: str, device_type: str) -> float:
    """The rate of the model's own matrix products, weighted as they occur."""
    dtype = precision.arithmetic(precision_name, device_type)
    seconds = sum(_seconds(p, dtype, device_type) * p.times for p in found.products)
    return sum(product.flops for product in found.products) / seconds / 1e12


def ceiling(found: Work, peak: Peaks, model_rate: float, precision_name: str) -> Roofline:
    """The floors that follow from work, peaks and the rate of the model's products in TFLOP/s."""
    flops = found.least_flops
    if precision_name == "fp32":
        # From compute capability 8.0 on fused attention multiplies float32 on Tensor Cores, three
        # TF32 products for one (CUTLASS, OpMultiplyAddFastF32), whatever the switch of TF32 says.
        flops -= found.least_attention_flops
    compute_ms = flops / max(peak.matmul_tflops, model_rate) / 1e9
    memory_ms = reason = None
    if peak.cache_bytes is None:
        reason = "no floor of memory: the size of the last-level cache is unknown"
    else:
        beyond = sum(max(0, size - peak.cache_bytes) for size in found.forward_bytes)
        memory_ms = beyond / max(peak.copy_gb_per_s, peak.read_gb_per_s) / 1e6
    return Roofline(
        flops=found.flops,
        bytes_moved=sum(found.forward_bytes),
        reason=reason,
        matmul_tflops=peak.matmul_tflops,
        matmul_model_tflops=model_rate,
        copy_gb_per_s=peak.copy_gb_per_s,
        read_gb_per_s=peak.read_gb_per_s,
        cache_bytes=peak.cache_bytes,
        launch_us=peak.launch_us,
        lower_bound_compute_ms=compute_ms,
        lower_bound_memory_ms=memory_ms,
        lower_bound_ms=max(compute_ms, memory_ms or 0.0),
    )


def with_launches(limits: Roofline, engine: str, kernels: Trace) -> Roofline:
    """The floors with that of launching a request's kernels, where each is launched by itself."""
    if limits.launch_us is None or kernels.count is None or engine == "graph":
        return limits
    launch_ms = kernels.count * limits.launch_us / 1e3
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


def _seconds(product: Product, dtype: torch.dtype, device_type: str) -> float:
    """The time of one matrix product, in the layout in which the model computes it."""
    import torch

    like: dict[str, Any] = {"device": device_type, "dtype": dtype}
    left = torch.randn(product.rows, product.inner, **like)
    if product.transposed:
        right = torch.randn(product.columns, product.inner, **like)
        return _best_s(lambda: torch.nn.functional.linear(left, right), device_type)
    right = torch.randn(product.inner, product.columns, **like)
    bias = torch.randn(product.columns, **like)
    return _best_s(lambda: torch.addmm(bias, left, right), device_type)


def _best_s(run: Callable[[], object], device_type: str) -> float:
    """The least time of one call; on CUDA of a call in a full queue, by the device's own clock."""
    return _least_s(run, _queued_s if device_type == "cuda" else _called_s)


def _least_s(run: Callable[[], object], once_s: Callable[[Callable[[], object]], float]) -> float:
    """The least of some tries, after one that warms up."""
    run()
    best_s, end_s = float("inf"), time.perf_counter() + _TRIES_S
    for _ in range(_TRIES):
        best_s = min(best_s, once_s(run))
        if time.perf_counter() > end_s:
            break
    return best_s


def _called_s(run: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    run()
    return time.perf_counter() - start_s


def _queued_s(run: Callable[[], object]) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(_AHEAD_CYCLES)  # what follows is launched meanwhile
    start.record()
    for _ in range(_CALLS):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / _CALLS


def _launch_us() -> float:
    """The time per launch of a kernel that does nothing, without the work of an operation."""
    import torch

    def launch() -> None:
        for _ in range(_LAUNCHES):
            torch.cuda._sleep(1)  # one cycle
        torch.cuda.synchronize()

    return _least_s(launch, _called_s) / _LAUNCHES * 1e6
