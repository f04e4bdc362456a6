"""What a request makes the device do: kernels (CUDA) or operations of torch (CPU), by class.

Profiling slows a process for good (pytorch/pytorch#144455), so a trace is taken after all timing.
Where the profiler cannot run, the trace is missing with its reason and nothing else is lost.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function

from bench.measured.profiled import KERNEL_CLASSES, Trace
from bench.outcomes import is_out_of_memory
from bench.profile.classes import attention, kernel_class, op_class, uses_tensor_cores
from bench.timing import Queue

_NAMES = 8
_TRACED = "tensorgap: traced requests"
# As C++ names its types (c10::demangle), alike in torch 2.9 to 2.14 on Linux.
_TYPE_BYTES = {
    "double": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2, "c10::BFloat16": 2,
    "short int": 2, "signed char": 1, "unsigned char": 1, "bool": 1,
}  # fmt: skip
_NO_TYPES = "the bytes of the casts are unknown: the profiler does not tell their types"
_NO_KERNELS = (
    "the profiler saw no kernels: CUPTI is not permitted here, or another tool (DCGM, Nsight)"
    " holds it"
)
# A trace and the latency are two measurements; beyond so much more than all of it, they contradict.
_ALL_BUSY = 1.1
_LONGEST_NAME = 200  # letters: a template of C++ has no end


class Item(NamedTuple):
    """A kernel or op: its name and class, its time, and whether it counts as one."""

    name: str
    kind: str
    ms: float
    counts: bool = True


def trace(
    queue: Queue, device_type: str, requests: int, latency_ms: float | None, fused: bool = False
) -> Trace:
    """Trace some requests; what the profiler cannot see is a reason in the record, not an error.

    `latency_ms` is the median without the profiler; `fused`: a compiler made casts a part of other
    kernels, so that their bytes cannot be counted.
    """
    on_cuda = device_type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    queue.enqueue()
    queue.synchronise()
    try:
        with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
            if on_cuda:
                # CUPTI loses the first kernels of a session, and in each session of a process more
                # (pytorch/pytorch#192021): those of a request that is not counted.
                queue.enqueue()
                queue.synchronise()
            with record_function(_TRACED):
                for _ in range(requests):
                    queue.enqueue()
                queue.synchronise()
        return read(profiler, on_cuda, requests, latency_ms, fused)
    except Exception as error:
        # The model's fault and not the profiler's, whatever the profiler made of it at its end.
        for cause in (error, error.__context__):
            if cause and (is_out_of_memory(cause) or (on_cuda and "CUDA error" in str(cause))):
                raise cause from None
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        named = first if isinstance(error, RuntimeError) else f"{type(error).__name__}: {first}"
        return Trace("none", reason=f"the profiler cannot run: {named}")


def read(
    profiler: Any, on_cuda: bool, requests: int, latency_ms: float | None, fused: bool
) -> Trace:
    """What a profiler has seen of the marked requests; arguments are those of `trace`."""
    events = profiler.events() or []
    start = min((e.time_range.start for e in events if e.name == _TRACED), default=None)
    if start is None:
        raise RuntimeError("it saw no requests")
    wanted = DeviceType.CUDA if on_cuda else DeviceType.CPU
    ran = [e for e in events if e.time_range.start >= start and e.device_type == wanted]
    # Annotations stand on both devices and do nothing.
    ran = [event for event in ran if not event.is_user_annotation]
    if on_cuda and not ran:
        return Trace("none", reason=_NO_KERNELS)
    moved = None if fused else cast_bytes(profiler)
    reasons = [_NO_TYPES] if moved is None and not fused else []
    times = [(event.time_range.start, event.time_range.end) for event in ran]
    busy_share = union(times) / 1e3 / requests / latency_ms if on_cuda and latency_ms else None
    if busy_share is not None and busy_share > _ALL_BUSY:
        reasons.append(
            f"no busy share: the traced kernels take {busy_share:.2f} times the latency without it"
        )
        busy_share = None
    items = kernel_items(ran) if on_cuda else op_items(ran)
    return Trace(
        "kernel" if on_cuda else "op",
        "; ".join(reasons) or None,
        **summarise(items, requests),
        cast_bytes=None if moved is None else round(moved / requests),
        busy_share=None if busy_share is None else min(1.0, busy_share),
        tensor_cores=uses_tensor_cores(event.name for event in ran) if on_cuda else None,
        attention=attention(event.name for event in ran),
    )


def kernel_items(events: Iterable[Any]) -> list[Item]:
    """Every kernel's time on the device."""
    return [
        Item(e.name, kernel_class(e.name), (e.time_range.end - e.time_range.start) / 1e3)
        for e in events
    ]


def op_items(events: Iterable[Any]) -> list[Item]:
    """Every operation's own time, given to the innermost operation around it that has a class.

    An operation counts if none within it is of its class: `linear` that calls `addmm` is one.
    """

    def placed(event: Any) -> str | None:
        """The class of an operation where it stands: a copy within a cast is the cast."""
        kind, parent = op_class(event.name), event.cpu_parent
        return "cast" if kind == "copy" and parent and op_class(parent.name) == "cast" else kind

    def within(event: Any) -> Iterator[Any]:
        for child in event.cpu_children:
            yield child
            yield from within(child)

    items = []
    for event in events:
        ms, owner, kind = event.self_cpu_time_total / 1e3, event, placed(event)
        while kind is None and owner.cpu_parent:
            owner = owner.cpu_parent
            kind = placed(owner)
        if kind is None:
            items.append(Item(event.name, "other", ms, counts=False))
            continue
        counts = owner is event and all(placed(inner) != kind for inner in within(event))
        items.append(Item(owner.name, kind, ms, counts))
    return items


def cast_bytes(profiler: Any) -> int | None:
    """Bytes that copies between two types read and write in the marked requests.

    By the profiler's Kineto events: a FunctionEvent tells the types of its inputs in some releases
    only; 2.11 is none of them. None where a type is unknown, or where this torch keeps its events
    in another way.
    """
    total = 0
    try:
        recorded = list(profiler.profiler.kineto_results.events())
        start_ns = min(event.start_ns() for event in recorded if event.name() == _TRACED)
        for event in recorded:
            if event.start_ns() < start_ns or event.name() != "aten::copy_":
                continue
            types, shapes = event.dtypes()[:2], event.shapes()[:2]
            if len({*types}) > 1:
                sizes = [_TYPE_BYTES[kind] for kind in types]
                total += sum(math.prod(s) * size for s, size in zip(shapes, sizes, strict=True))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return total


def summarise(items: Sequence[Item], requests: int) -> dict[str, Any]:
    """The fields of a Trace record that follow from its items, per request."""
    ms, counts = dict.fromkeys(KERNEL_CLASSES, 0.0), dict.fromkeys(KERNEL_CLASSES, 0)
    by_name: dict[str, float] = {}
    for item in items:
        ms[item.kind] += item.ms / requests
        counts[item.kind] += item.counts
        by_name[item.name] = by_name.get(item.name, 0.0) + item.ms / requests
    by_time = sorted(by_name, key=by_name.__getitem__, reverse=True)
    top, products = by_time[:_NAMES], {item.name for item in items if item.kind == "matmul"}
    return {
        **{f"{kind}_ms": ms[kind] for kind in KERNEL_CLASSES},
        **{f"{kind}_count": counts[kind] / requests for kind in KERNEL_CLASSES},
        "requests": requests,
        "traced_ms": sum(ms.values()),
        "count": sum(counts.values()) / requests,
        "products": shortened([name for name in by_time if name in products][:_NAMES]),
        "names": shortened(top),
        "names_ms": tuple(by_name[name] for name in top),
    }


def shortened(names: Iterable[str]) -> tuple[str, ...]:
    """Names of kernels as they are kept."""
    return tuple(name[:_LONGEST_NAME] for name in names)


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
