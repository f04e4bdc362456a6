"""The driver: places the cells, waits, times out, turns failures into rows, frees the GPUs.

A Task is one fresh process: one cell, one replicate, and the workloads that are still to measure.
Tasks of one GPU type run one after the other, replicate by replicate, and within a replicate the
cells come in random order, so that a slow drift of the machine does not favour a precision.
Different types run at the same time.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench import matrix as matrices
from bench.measure import PERPLEXITY, Request, classify, failed
from bench.records import (
    CPU,
    Cell,
    Matrix,
    Measurement,
    Outcome,
    Quality,
    Sensor,
    Stage,
    Workload,
)
from cluster import placement
from cluster.actor import CellActor

Key = tuple[Cell, Workload, int]
_POLL_S = 1.0
_GET_TIMEOUT_S = 60.0  # a row whose node went away after it was announced
_NODE_DEATH = re.compile(r"node (has died|was terminated)")


@dataclass(frozen=True)
class Task:
    """What one fresh process is to measure."""

    cell: Cell
    replicate: int
    workloads: tuple[Workload, ...]


@dataclass
class _Running:
    """A task in its actor, and what is known of it so far."""

    request: Request
    actor: Any
    stream: Any
    since: float  # of the last event
    left: list[Workload]
    started: bool = False
    ended: bool = False  # no more events: done, or the process is not to be used any longer
    stage: str = "starting"

    @property
    def cell(self) -> Cell:
        return self.request.cell


@dataclass
class _Known:
    """What one process measured and the next ones need not measure again."""

    qualities: dict[tuple[Cell, str], Quality] = field(default_factory=dict)  # by cell and model
    sensors: dict[str, Sensor] = field(default_factory=dict)  # by the UUID of the GPU

    def learn(self, row: Measurement) -> None:
        if row.quality is not None:
            self.qualities[row.cell, row.workload.model] = row.quality
        if row.sensor is not None and row.device is not None and row.device.uuid is not None:
            self.sensors[row.device.uuid] = row.sensor


def sweep(
    run: str,
    matrix: Matrix,
    types: Collection[str],
    *,
    done: Sequence[Measurement] = (),
    placement_timeout_s: float = 600.0,
    simulated: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Stage | Measurement, None, None]:
    """Measure a matrix on the connected cluster; each row as it is done, each stage as it begins.

    Close the iterator before the connection to Ray: it ends the actors that still run.

    Args:
        run: the name that the rows carry.
        matrix: what to measure.
        types: GPU types that `auto` stands for.
        done: rows that exist already; they are not measured again, and their quality is used.
        placement_timeout_s: how long a type may wait for a device that others hold.
        simulated: GPU cells may compute on the CPU of nodes with a stand-in for the driver.
        clock: monotonic seconds.
    """
    cells = matrices.cells(matrix, types)
    known = _Known()
    for old in done:
        # Only what was measured: why there was no perplexity last time may not hold any longer.
        known.learn(old if old.quality and old.quality.nats else replace(old, quality=None))
    queues = plan(cells, matrix, {m.key for m in done})
    running: dict[str, _Running] = {}
    last_end = clock()
    try:
        while running or any(queues.values()):
            present = offers()
            for gpu_type, queue in queues.items():
                if queue and gpu_type not in running:
                    if gpu_type not in present:
                        reason = placement.why_unplaced(gpu_type, present)
                        yield from _unplaced(run, matrix, queue, reason)
                        continue
                    request = _request(run, queue.popleft(), matrix, known, present[gpu_type])
                    request = replace(request, simulated=simulated)
                    running[gpu_type] = _start(request, present[gpu_type], clock())
            ready = _ready(list(running.values()))
            for current in ready:
                event = _next_event(current, known, clock())
                if event is not None:
                    yield event
            for gpu_type, current in list(running.items()):
                if not current.ended and current not in ready:
                    if not current.started:
                        # Counted from when our own cells last freed a device.
                        waited_s = clock() - max(current.since, last_end)
                        vain = _why_not_started(gpu_type, waited_s, placement_timeout_s)
                        if vain:
                            queues[gpu_type].appendleft(_rest(current))
                            yield from _unplaced(run, matrix, queues[gpu_type], vain)
                            current.left.clear()
                            current.ended = True
                    elif clock() - current.since > _limit_s(current):
                        row = _timed_out(current, known)
                        if row is not None:
                            yield row
                if current.ended:
                    _end(running.pop(gpu_type))
                    last_end = clock()
                    if current.left:
                        queues[gpu_type].appendleft(_rest(current))
    finally:
        for current in running.values():
            _end(current)


def offers() -> dict[str, placement.Offer]:
    """What the connected cluster offers of each GPU type."""
    import ray

    return placement.offers(ray.nodes())


def plan(cells: Sequence[Cell], matrix: Matrix, done: Collection[Key]) -> dict[str, deque[Task]]:
    """Tasks for each GPU type, without what is done, in the order to run them."""
    shuffled = random.Random(matrix.text)
    tasks: dict[str, deque[Task]] = {}
    for replicate in range(matrix.sampling.replicates):
        order = list(cells)
        shuffled.shuffle(order)
        for cell in order:
            left = [w for w in matrix.workloads if (cell, w, replicate) not in done]
            # One load per model: its workloads stand together.
            left.sort(key=lambda w: _first_of_model(matrix, w))
            if left:
                task = Task(cell, replicate, tuple(left))
                tasks.setdefault(cell.gpu_type, deque()).append(task)
    return tasks


def _unplaced(run: str, matrix: Matrix, queue: deque[Task], reason: str) -> Iterator[Measurement]:
    """Empty a queue: a row for each measurement that has no place."""
    while queue:
        task = queue.popleft()
        request = _request(run, task, matrix, _Known(), None)
        for workload in task.workloads:
            yield failed(request, workload, Outcome.UNPLACED, reason)


def _why_not_started(gpu_type: str, waited_s: float, limit_s: float) -> str | None:
    """Why a task that still waits for its device waits in vain; None while it may come."""
    present = offers()
    if gpu_type not in present:
        return placement.why_unplaced(gpu_type, present)
    if waited_s > limit_s:
        return (
            f"no {gpu_type} became free within --placement-timeout {limit_s:g}; resume later, or"
            " raise it"
        )
    return None


def _limit_s(current: _Running) -> float:
    if current.stage == PERPLEXITY:
        return current.request.quality.timeout_s
    return current.request.sampling.timeout_s


def _rest(current: _Running) -> Task:
    request = current.request
    return Task(request.cell, request.replicate, tuple(current.left))


def _end(current: _Running) -> None:
    import ray

    # One that is dead already must not keep the others alive.
    with contextlib.suppress(ray.exceptions.RayError, ValueError):
        ray.kill(current.actor)


def _first_of_model(matrix: Matrix, workload: Workload) -> int:
    return next(i for i, w in enumerate(matrix.workloads) if w.model == workload.model)


def _request(
    run: str,
    task: Task,
    matrix: Matrix,
    known: _Known,
    offer: placement.Offer | None,
) -> Request:
    return Request(
        run=run,
        cell=task.cell,
        replicate=task.replicate,
        workloads=task.workloads,
        sampling=matrix.sampling,
        quality=matrix.quality,
        known_quality={m: q for (cell, m), q in known.qualities.items() if cell == task.cell},
        known_sensors=dict(known.sensors),
        threads=offer.num_cpus if offer and task.cell.gpu_type == CPU else None,
    )


def _start(request: Request, offer: placement.Offer, now: float) -> _Running:
    import ray

    # A measuring actor is never restarted by Ray: a silent second run would be another measurement.
    actor = (
        ray.remote(CellActor)
        .options(
            num_cpus=offer.num_cpus,
            num_gpus=offer.num_gpus,
            label_selector=dict(offer.label_selector),
            resources=dict(offer.resources),
            max_restarts=0,
            max_task_retries=0,
        )
        .remote()
    )
    stream = actor.run.options(num_returns="streaming").remote(request)
    return _Running(request, actor, stream, now, list(request.workloads))


def _ready(running: Sequence[_Running]) -> list[_Running]:
    """All whose next event is there; waits a moment for the first."""
    import ray

    streams = [current.stream for current in running]
    if not streams:
        return []
    ray.wait(streams, num_returns=1, timeout=_POLL_S, fetch_local=False)
    ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
    return [current for current in running if any(current.stream is stream for stream in ready)]


def _next_event(current: _Running, known: _Known, now: float) -> Stage | Measurement | None:
    """The next event of a task; an error of its actor becomes the row of what it was measuring."""
    import ray

    current.since = now
    try:
        event: Stage | Measurement = ray.get(next(current.stream), timeout=_GET_TIMEOUT_S)
    except StopIteration:
        current.ended = True
        if len(current.left) == len(current.request.workloads):
            reason = "the process ended without a row"
            return failed(current.request, current.left.pop(0), Outcome.FAILED, reason)
        return None
    except ray.exceptions.RayError as error:
        current.ended = True
        outcome, reason = explain(error, current.stage)
        return _given_up(current, known, outcome, reason)
    current.started = True
    if isinstance(event, Stage):
        current.stage = event.name
        return event
    known.learn(event)
    current.left.remove(event.workload)
    current.ended = not current.left
    return event


def _timed_out(current: _Running, known: _Known) -> Measurement | None:
    current.ended = True
    key = "quality" if current.stage == PERPLEXITY else "sampling"
    reason = f"stage {current.stage} took longer than {key}.timeout_s = {_limit_s(current):g}"
    return _given_up(current, known, Outcome.TIMED_OUT, reason)


def _given_up(
    current: _Running, known: _Known, outcome: Outcome, reason: str
) -> Measurement | None:
    """The row that a forced end costs; a perplexity costs none: its times can still be measured."""
    workload = current.left[0]
    if current.stage == PERPLEXITY:
        text = current.request.quality.text
        known.qualities[current.cell, workload.model] = Quality(text, reason=f"{outcome}: {reason}")
        return None
    return failed(current.request, current.left.pop(0), outcome, reason)


def explain(error: Exception, stage: str) -> tuple[Outcome, str]:
    """What an error of Ray means for the row that was being measured, and the reason in words."""
    import ray

    errors = ray.exceptions
    if isinstance(error, errors.RayTaskError):
        outcome, reason = classify(error.cause)
        return outcome, f"{reason} (in stage {stage})"
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    if isinstance(error, errors.OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY, f"Ray ended the process for memory in stage {stage}: {first}"
    if isinstance(error, errors.ActorUnschedulableError):
        return Outcome.UNPLACED, first
    # Ray says ActorUnavailable while it cannot reach a node, ActorDied once it knows; a process
    # that dies on a living node is ActorDied at once (measured on Ray 2.60).
    lost = (
        errors.ActorUnavailableError,
        errors.GetTimeoutError,
        errors.ObjectLostError,
        errors.NodeDiedError,
    )
    if isinstance(error, lost) or _NODE_DEATH.search(text):
        return Outcome.LOST, f"the node went away in stage {stage}"
    if isinstance(error, errors.ActorDiedError) and "creation task" not in text:
        return Outcome.FAILED, (
            f"the process died in stage {stage}: it crashed or was killed, perhaps for memory;"
            " the kernel's log (dmesg) on its node tells"
        )
    return Outcome.FAILED, f"{type(error).__name__} in stage {stage}: {text.splitlines()[-1]}"
