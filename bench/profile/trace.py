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

from bench.measured import KERNEL_CLASSES, Trace
from bench.outcomes import is_out_of_memory
from bench.profile.classes import attention, kernel_class, op_class, uses_tensor_cores

NOT_TRACED = "none"
_NAMES = 8
_TRACED = "tensorgap: traced requests"
# As C++ names its types (c10::demangle), alike in torch 2.9 to 2.14 on Linux.
_TYPE_BYTES = {
    "double": 8,
    "float": 4,
    "c10::Half": 2,
    "c10::BFloat16": 2,
    "long int": 8,
    "int": 4,
    "short int": 2,
    "signed char": 1,
    "unsigned char": 1,
    "bool": 1,
}
_NO_TYPES = "the bytes of the casts are unknown: the profiler does not tell their types"
# A trace and the latency are two measurements; beyond so much more than all of it, they contradict.
_ALL_BUSY = 1.1
_LONGEST_NAME = 200  # letters: a template of C++ has no end


class Op(Protocol):
    """What of a profiler's FunctionEvent is needed to place an operation."""

    name: str
    self_cpu_time_total: float  # us
    cpu_parent: Op | None
    cpu_children: list[Op]


class Recorded(Protocol):
    """What of a profiler's Kineto event is needed to count the bytes of a cast.

    A FunctionEvent tells the types of its inputs in some releases only; 2.11 is none of them.
    """

    def name(self) -> str:
        """As aten::copy_."""

    def start_ns(self) -> int:
        """Wall clock."""

    def dtypes(self) -> list[str]:
        """Of each input; empty where it is no tensor."""

    def shapes(self) -> list[list[int]]:
        """Of each input."""


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


def cast_bytes(events: Iterable[Recorded]) -> int | None:
    """Bytes that copies between two types read and write; None where a type is unknown."""
    total = 0
    for event in events:
        if event.name() != "aten::copy_":
            continue
        types, shapes = event.dtypes()[:2], event.shapes()[:2]
        if len({*types}) == 1:
            continue
        if not {*types} <= {*_TYPE_BYTES}:
            return None
        total += sum(
            math.prod(shape) * _TYPE_BYTES[kind] for kind, shape in zip(types, shapes, strict=True)
        )
    return total


def summarise(items: Iterable[Item], requests: int) -> dict[str, Any]:
    """The fields of a Trace record that follow from its items, per request."""
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
) -> Trace:
    """Trace some requests; what the profiler cannot see is a reason in the record, not an error.

    Args:
        run: enqueues one request.
        synchronise: waits until all is done.
        device_type: `cuda` or `cpu`.
        requests: how many.
        latency_ms: median latency without the profiler.
        fused: a compiler made casts a part of other kernels, so that nobody can count their bytes.
    """
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
        return _kernels(profiler, device_type, requests, latency_ms, fused)
    except Exception as error:
        # The model's fault and not the profiler's, whatever the profiler made of it at its end.
        for cause in (error, error.__context__):
            if cause and (is_out_of_memory(cause) or (on_cuda and "CUDA error" in str(cause))):
                raise cause from None
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        named = first if isinstance(error, RuntimeError) else f"{type(error).__name__}: {first}"
        return Trace(NOT_TRACED, reason=f"the profiler cannot run: {named}")


def _kernels(
    profiler: Any, device_type: str, requests: int, latency_ms: float | None, fused: bool
) -> Trace:
    """What a profiler has seen of the marked requests."""
    from torch.autograd import DeviceType

    events = profiler.events() or []
    starts = [e.time_range.start for e in events if e.name == _TRACED]
    if not starts:
        raise RuntimeError("it saw no requests")
    # Without annotations, which stand on both devices and do nothing.
    start = min(starts)
    events = [e for e in events if e.time_range.start >= start and not e.is_user_annotation]
    moved = None if fused else _cast_bytes(profiler)
    per_request = None if moved is None else round(moved / requests)
    reason = None if fused or moved is not None else _NO_TYPES
    if device_type == "cpu":
        ops = [event for event in events if event.device_type == DeviceType.CPU]
        return Trace(
            "op",
            reason,
            **summarise(op_items(ops), requests),
            cast_bytes=per_request,
            attention=attention(event.name for event in ops),
        )
    ran = [event for event in events if event.device_type == DeviceType.CUDA]
    if not ran:
        return Trace(
            NOT_TRACED,
            reason="the profiler saw no kernels: CUPTI is not permitted here, or another tool"
            " (DCGM, Nsight) holds it",
        )
    items = [
        Item(e.name, kernel_class(e.name), (e.time_range.end - e.time_range.start) / 1e3)
        for e in ran
    ]
    busy_ms = union((e.time_range.start, e.time_range.end) for e in ran) / 1e3 / requests
    share = busy_ms / latency_ms if latency_ms else None
    if share is not None and share > _ALL_BUSY:
        told = f"no busy share: the traced kernels take {share:.2f} times the latency without it"
        reason, share = "; ".join(filter(None, (reason, told))), None
    return Trace(
        "kernel",
        reason,
        **summarise(items, requests),
        cast_bytes=per_request,
        busy_share=None if share is None else min(1.0, share),
        tensor_cores=uses_tensor_cores(item.name for item in items),
        attention=attention(item.name for item in items),
    )


def _cast_bytes(profiler: Any) -> int | None:
    """Of the marked requests; None also where this torch keeps its events in another way."""
    try:
        recorded: list[Recorded] = list(profiler.profiler.kineto_results.events())
        start_ns = min(event.start_ns() for event in recorded if event.name() == _TRACED)
        return cast_bytes(event for event in recorded if event.start_ns() >= start_ns)
    except (AttributeError, TypeError, ValueError):
        return None
