"""What explains a latency: the kernels behind it, and the least time that the device needs."""

from __future__ import annotations

from dataclasses import replace

from bench.asked import Workload
from bench.device import acquire as device
from bench.device import precision
from bench.measured import Roofline, Trace
from bench.model import requests as queues
from bench.model.load import Model
from bench.outcomes import is_out_of_memory
from bench.profile import peaks as ceiling
from bench.profile import trace as kernels

_TRACED_FORWARDS = 3
_MORE_TRIES = 2
_OF_A_GRAPH = (
    "traced in eager mode, which launches the same kernels: traces of replayed graphs can be wrong"
    " (pytorch/kineto#1165), and no busy share follows for kernels that run back to back"
)


def gather(
    workload: Workload,
    precision_name: str,
    model: Model,
    found: device.Found,
    latency_ms: float | None,
) -> tuple[Trace, Roofline]:
    """Measure the ceilings, then trace some requests: what is measured after a trace is slower.

    Args:
        workload: what was timed.
        precision_name: at which the caller has switched the process to.
        model: loaded at that precision.
        found: the device.
        latency_ms: median latency without a profiler.
    """
    limits = _limits(workload, precision_name, model, found)
    for _ in range(_MORE_TRIES):
        if (
            latency_ms is None
            or limits.lower_bound_ms is None
            or limits.lower_bound_ms <= latency_ms
        ):
            break
        # Something disturbed the device meanwhile, or else the latency is impossible.
        ceiling.peaks.cache_clear()
        limits = _limits(workload, precision_name, model, found)
    traced = _trace(workload, model, found, latency_ms)
    return traced, ceiling.with_launches(limits, workload.engine, traced)


def _limits(workload: Workload, precision_name: str, model: Model, found: device.Found) -> Roofline:
    """The floors of compute and memory; where the peaks cannot be measured, the work alone."""
    work = ceiling.work(
        model.module.config,
        workload,
        storage_bytes=precision.storage(precision_name).itemsize,
        logit_bytes=precision.arithmetic(precision_name, found.type).itemsize,
    )
    try:
        peak = ceiling.peaks(precision_name, found.type, found.device.l2_bytes)
        rate = ceiling.model_tflops(work, precision_name, found.type)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Roofline(
            work.flops, sum(work.forward_bytes), reason="no memory is left to measure peaks in"
        )
    return ceiling.ceiling(work, peak, rate, precision_name)


def _trace(
    workload: Workload, model: Model, found: device.Found, latency_ms: float | None
) -> Trace:
    """The kernels of a request, in eager mode where a graph replays them."""
    as_graph = workload.engine == "graph"
    seen = replace(workload, engine="eager") if as_graph else workload
    queue = queues.forward_queue(found.type, model, seen)
    traced = kernels.trace(
        queue.enqueue,
        queue.synchronise,
        found.type,
        requests=1 if workload.new_tokens else _TRACED_FORWARDS,
        # Trace that a host launches one by one, over the latency of others in one launch, would
        # be the share of nothing.
        latency_ms=None if as_graph else latency_ms,
        fused=workload.engine == "compile",
    )
    if not as_graph:
        return traced
    reason = "; ".join(filter(None, (traced.reason, _OF_A_GRAPH)))
    return replace(traced, reason=reason if traced.traced_ms else traced.reason)
