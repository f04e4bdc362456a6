"""The profile of a workload: measured peaks with the lower bounds that follow, and a trace."""

from dataclasses import replace

from bench.asked import Workload
from bench.device import acquire as device
from bench.measured.profiled import Roofline, Trace
from bench.model.load import Model
from bench.model.requests import forward_queue
from bench.profile.peaks import measured_roofline, with_launches
from bench.profile.trace import trace
from bench.profile.work import work_of

_TRACED_FORWARDS = 3
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
    """Measure the peaks, then trace some requests: what is measured after a trace is slower.

    The caller has switched the process to the precision; `latency_ms` is the median without a
    profiler.
    """
    size = workload.batch_size, workload.prompt_tokens, workload.new_tokens
    work = work_of(model.shape, *size)
    limits = measured_roofline(work, precision_name, found.type, found.device.l2_bytes, latency_ms)
    as_graph = workload.engine == "graph"
    seen = replace(workload, engine="eager") if as_graph else workload
    traced = trace(
        forward_queue(found.type, model, seen),
        found.type,
        requests=1 if workload.new_tokens else _TRACED_FORWARDS,
        # The time of kernels that are launched one by one, over the latency of a replay in one
        # launch, is no share of anything.
        latency_ms=None if as_graph else latency_ms,
        fused=workload.engine == "compile",
    )
    if not as_graph:
        return traced, with_launches(limits, traced.count)
    if traced.traced_ms:
        traced = replace(traced, reason="; ".join(filter(None, (traced.reason, _OF_A_GRAPH))))
    return traced, limits
