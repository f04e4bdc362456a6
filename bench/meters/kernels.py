"""What a request makes the device do: kernels (CUDA) or operations of torch (CPU), by class.

Profiling slows a process for good (pytorch/pytorch#144455), so a trace is taken after all timing.
Where the profiler cannot run, the evidence is missing with its reason and nothing else is lost.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from bench.meters.classes import kernel_class, op_class, uses_tensor_cores
from bench.records import KERNEL_CLASSES, Kernels

NOT_TRACED = "none"
_NAMES = 8
_TRACED = "tensorgap: traced requests"
_TYPE_BYTES = {
    "double": 8,
    "float": 4,
    "c10::Half": 2,
    "c10::BFloat16": 2,
    "long int": 8,
    "int": 4,
    "bool": 1,
}
_LONGEST_NAME = 200  # letters: a template of C++ has no end


class Op(Protocol):
    """What of a profiler's FunctionEvent is needed to place an operation."""

    name: str
    self_cpu_time_total: float  # us
    cpu_parent: Op | None
    cpu_children: list[Op]
    input_shapes: list[list[int]]


@dataclass(frozen=True)
class Item:
    """A kernel or op: its name and class, its time, and whether it counts as one."""

    name: str
    kind: str
    ms: float
    counts: bool = True


def op_items(events: Iterable[Op]) -> list[Item]:
    """Every operation's own time, given to the innermost operation around it that has a class.

    An operation counts if none within it is of its class: `linear` that calls `addmm` is one.
    """
    return [_item(event) for event in events]


def _item(event: Op) -> Item:
    ms = event.self_cpu_time_total / 1e3
    owner: Op | None = event
    while owner is not None:
        kind = _placed(owner)
        if kind is not None:
            inner = any(_placed(child) == kind for child in _descendants(owner))
            return Item(owner.name, kind, ms, counts=owner is event and not inner)
        owner = owner.cpu_parent
    return Item(event.name, "other", ms, counts=False)


def _placed(event: Op) -> str | None:
    """The class of an operation where it stands: a copy within a cast is the cast."""
    kind = op_class(event.name)
    parent = event.cpu_parent
    return "cast" if kind == "copy" and parent and op_class(parent.name) == "cast" else kind


def _descendants(event: Op) -> Iterable[Op]:
    for child in event.cpu_children:
        yield child
        yield from _descendants(child)


def cast_bytes(events: Iterable[Op]) -> int | None:
    """Bytes that copies between two types read and write; None where the trace tells no types."""
    total = 0
    for event in events:
        types = getattr(event, "input_dtypes", None)  # not in every torch from 2.9 on
        if types is None:
            return None
        if event.name == "aten::copy_" and types[0] != types[1]:
            for kind, shape in zip(types[:2], event.input_shapes[:2], strict=True):
                if kind not in _TYPE_BYTES:
                    return None
                total += math.prod(shape) * _TYPE_BYTES[kind]
    return total


def summarise(items: Iterable[Item], requests: int) -> dict[str, Any]:
    """The fields of a Kernels record that follow from its items, per request."""
    ms, counts = dict.fromkeys(KERNEL_CLASSES, 0.0), dict.fromkeys(KERNEL_CLASSES, 0)
    by_name: dict[str, float] = defaultdict(float)
    for item in items:
        ms[item.kind] += item.ms / requests
        counts[item.kind] += item.counts
        by_name[item.name] += item.ms / requests
    top = Counter(by_name).most_common(_NAMES)
    return {
        **{f"{kind}_ms": ms[kind] for kind in KERNEL_CLASSES},
        **{f"{kind}_count": counts[kind] / requests for kind in KERNEL_CLASSES},
        "requests": requests,
        "traced_ms": sum(ms.values()),
        "count": sum(counts.values()) / requests,
        "names": tuple(name[:_LONGEST_NAME] for name, _ in top),
        "names_ms": tuple(time for _, time in top),
    }


def union(intervals: Iterable[tuple[float, float]]) -> float:
    """The length that intervals cover together; kernels of two streams may overlap.

    >>> union([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    covered, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        covered += max(0.0, last - max(first, end))
        end = max(end, last)
    return covered


def trace(
    run: Callable[[], object],
    synchronise: Callable[[], object],
    device_type: str,
    requests: int,
    latency_ms: float | None,
    fused: bool = False,
) -> Kernels:
    """Trace some requests; what the profiler cannot see is a reason in the record, not an error.

    Args:
        run: enqueues one request.
        synchronise: waits until all is done.
        device_type: `cuda` or `cpu`.
        requests: how many.
        latency_ms: median latency without the profiler.
        fused: a compiler made casts a part of other kernels, so that nobody can count their bytes.
    """
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile, record_function

    on_cuda = device_type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    run()
    synchronise()
    try:
        with profile(activities=activities, record_shapes=True) as profiler:
            if on_cuda:
                # CUPTI loses the first kernels of a session, and in each session of a process more
                # (pytorch/pytorch#192021): those of a request that is not counted.
                run()
                synchronise()
            with record_function(_TRACED):
                for _ in range(requests):
                    run()
                synchronise()
        events = profiler.events() or []
        starts = [e.time_range.start for e in events if e.name == _TRACED]
        if not starts:
            raise RuntimeError("it saw no requests")
        # Without annotations, which stand on both devices and do nothing.
        start = min(starts)
        events = [e for e in events if e.time_range.start >= start and not e.is_user_annotation]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if on_cuda and "CUDA error" in str(error):
            raise  # The GPU's fault, after which no more can be measured.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Kernels(NOT_TRACED, reason=f"the profiler cannot run: {first}")
    ops = [event for event in events if event.device_type == DeviceType.CPU]
    moved = None if fused else cast_bytes(ops)
    per_request = None if moved is None else round(moved / requests)
    if not on_cuda:
        return Kernels("op", **summarise(op_items(ops), requests), cast_bytes=per_request)
    ran = [event for event in events if event.device_type == DeviceType.CUDA]
    if not ran:
        return Kernels(
            NOT_TRACED,
            reason="the profiler saw no kernels: CUPTI is not permitted here, or another tool"
            " (DCGM, Nsight) holds it",
        )
    items = [
        Item(e.name, kernel_class(e.name), (e.time_range.end - e.time_range.start) / 1e3)
        for e in ran
    ]
    busy_ms = union((e.time_range.start, e.time_range.end) for e in ran) / 1e3 / requests
    return Kernels(
        "kernel",
        **summarise(items, requests),
        cast_bytes=per_request,
        busy_share=busy_ms / latency_ms if latency_ms else None,
        tensor_cores=uses_tensor_cores(item.name for item in items),
    )
