"""What a profile found: the trace of a request, and the peaks of its device.

Standard library only; `bench.measured` has the rest of a row.
"""

from dataclasses import dataclass

from bench.asked import doc, maybe

KERNEL_CLASSES = (
    *("matmul", "attention", "normalisation", "activation"),
    *("cast", "copy", "embedding", "other"),
)

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Trace:
    """What one request makes the device do, traced after all timing; times and counts per request.

    The classes add up to `traced_ms` and `count`.
    """

    level: str = doc("what is traced: kernel (CUDA), op (operations of torch on a CPU) or none")
    reason: str | None = maybe("why there is no trace, or a part of it is missing")
    requests: int | None = maybe("requests traced")
    traced_ms: float | None = maybe("sum of the times of all kernels or ops", "ms")
    count: float | None = maybe("kernels or ops")
    matmul_ms: float | None = maybe("time in matrix products", "ms")
    matmul_count: float | None = maybe("matrix products")
    attention_ms: float | None = maybe("time in fused attention", "ms")
    attention_count: float | None = maybe("fused attention")
    normalisation_ms: float | None = maybe("time in layer norms and softmax", "ms")
    normalisation_count: float | None = maybe("layer norms and softmax")
    activation_ms: float | None = maybe("time in other element-wise arithmetic, GELU", "ms")
    activation_count: float | None = maybe("other element-wise arithmetic, GELU")
    cast_ms: float | None = maybe("time in changes of type", "ms")
    cast_count: float | None = maybe("changes of type")
    copy_ms: float | None = maybe("time in copies and fills without a change of type", "ms")
    copy_count: float | None = maybe("copies and fills without a change of type")
    embedding_ms: float | None = maybe("time in embeddings", "ms")
    embedding_count: float | None = maybe("embeddings")
    other_ms: float | None = maybe("time in all else", "ms")
    other_count: float | None = maybe("all else")
    cast_bytes: int | None = maybe("bytes of changes of type; None if fused or unknown", "B")
    busy_share: float | None = maybe(
        "time in which a kernel ran / median latency without the profiler, at most 1; None on a"
        " CPU, which is host and device in one, and for a graph, whose kernels are traced launched"
        " one by one and run at another pace"
    )
    tensor_cores: str | None = maybe("yes, no or unknown, by kernel names; None on a CPU")
    attention: str | None = maybe("by kernel names: flash, efficient, cudnn, math or several")
    products: tuple[str, ...] | None = maybe(
        "kernels or ops of matrix products, longest first", since=2
    )
    names: tuple[str, ...] | None = maybe("kernels or ops that take most time, longest first")
    names_ms: Numbers | None = maybe("their times", "ms")


@dataclass(frozen=True)
class Roofline:
    """What this device can reach at most, measured on it, and the least time a request can take.

    Peaks belong to (device, precision); each is the best of several tries.
    """

    flops: int = doc("floating-point operations of a request, by formula", "FLOP")
    bytes_moved: int = doc("least bytes: weights once per forward, logits, keys and values", "B")
    reason: str | None = maybe("why there is no measured peak, or a lower bound is missing")
    matmul_tflops: float | None = maybe("large square matrix product at this precision", "TFLOP/s")
    matmul_model_tflops: float | None = maybe("the model's own products in sequence", "TFLOP/s")
    copy_gb_per_s: float | None = maybe("memory read and written by a copy beyond caches", "GB/s")
    read_gb_per_s: float | None = maybe("memory read by a sum beyond every cache", "GB/s")
    cache_bytes: int | None = maybe("last-level cache of the device", "B")
    launch_us: float | None = maybe("launch of an empty kernel, full queue; None on a CPU", "us")
    lower_bound_compute_ms: float | None = maybe("causal flops / the higher matmul peak", "ms")
    lower_bound_memory_ms: float | None = maybe("uncached bytes_moved / faster of copy, read", "ms")
    lower_bound_launch_ms: float | None = maybe("kernels x launch_us; None for graph, CPU", "ms")
    lower_bound_ms: float | None = maybe("the largest of them: no latency can be less", "ms")
