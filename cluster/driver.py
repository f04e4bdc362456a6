"""The driver: places the cells, waits, times out, turns failures into rows, frees the GPUs.

A Task is one fresh process: one cell, one replicate, and the workloads that are still to measure.
Tasks of one GPU type run one after the other, replicate by replicate, and within a replicate the
cells come in random order, so that a slow drift of the machine does not favour a precision.
Different types run at the same time.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import matrix as matrices
from bench.measure import Request, classify, failed
from bench.records import Cell, Matrix, Measurement, Outcome, Quality, Stage, Workload
from cluster import placement
from cluster.actor import CellActor

Key = tuple[Cell, Workload, int]
_POLL_S = 1.0
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
    def task(self) -> Task:
        return Task(self.request.cell, self.request.replicate, self.request.workloads)


def sweep(
    run: str,
    matrix: Matrix,
    offers: Mapping[str, placement.Offer],
    *,
    done: Sequence[Measurement] = (),
    placement_timeout_s: float = 600.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Stage | Measurement]:
    """Measure a matrix on the connected cluster; each row as it is done, each stage as it begins.

    Args:
        run: the name that the rows carry.
        matrix: what to measure.
        offers: what the cluster has, from `offers`.
        done: rows that exist already; they are not measured again, and their quality is used.
        placement_timeout_s: how long a cell may wait for a GPU that others hold.
        clock: monotonic seconds.
    """
    import ray

    cells = matrices.cells(matrix, offers)
    yield from unplaced(run, cells, matrix, offers, done)
    known = {(m.cell, m.workload.model): m.quality for m in done if m.quality is not None}
    queues = {
        gpu_type: deque(tasks)
        for gpu_type, tasks in plan(cells, matrix, offers, {m.key for m in done}).items()
    }
    running: list[_Running] = []
    last_end = clock()
    try:
        while running or any(queues.values()):
            for gpu_type, queue in queues.items():
                if queue and not any(r.task.cell.gpu_type == gpu_type for r in running):
                    request = _request(run, queue.popleft(), matrix, known)
                    running.append(_start(request, offers[gpu_type], clock()))
            for current in _ready(running):
                event = _next_event(current, clock())
                if isinstance(event, Measurement) and event.quality is not None:
                    known[event.cell, event.workload.model] = event.quality
                if event is not None:
                    yield event
            for current in list(running):
                if not current.ended:
                    # Waiting for a device is counted from when our own cells last freed one.
                    since = current.since if current.started else max(current.since, last_end)
                    limit = matrix.sampling.timeout_s if current.started else placement_timeout_s
                    if clock() - since <= limit:
                        continue
                    yield _timed_out(current, limit)
                ray.kill(current.actor)
                running.remove(current)
                last_end = clock()
                if current.left:
                    rest = replace(current.task, workloads=tuple(current.left))
                    queues[rest.cell.gpu_type].appendleft(rest)
    finally:
        for current in running:
            ray.kill(current.actor)


def offers() -> dict[str, placement.Offer]:
    """What the connected cluster offers of each GPU type."""
    import ray

    return placement.offers(ray.nodes())


def plan(
    cells: Sequence[Cell], matrix: Matrix, present: Collection[str], done: Collection[Key]
) -> dict[str, list[Task]]:
    """Tasks for each GPU type that is present, without what is done, in the order to run them."""
    shuffled = random.Random(matrix.text)
    tasks: dict[str, list[Task]] = {}
    for replicate in range(matrix.sampling.replicates):
        order = list(cells)
        shuffled.shuffle(order)
        for cell in order:
            left = tuple(w for w in matrix.workloads if (cell, w, replicate) not in done)
            # One load per model: its workloads stand together.
            by_model = sorted(left, key=lambda w: _first_of_model(matrix, w))
            if by_model and cell.gpu_type in present:
                task = Task(cell, replicate, tuple(by_model))
                tasks.setdefault(cell.gpu_type, []).append(task)
    return tasks


def unplaced(
    run: str,
    cells: Sequence[Cell],
    matrix: Matrix,
    present: Collection[str],
    done: Sequence[Measurement],
) -> Iterator[Measurement]:
    """A row for each measurement whose GPU type the cluster does not have."""
    finished = {m.key for m in done}
    replicates = range(matrix.sampling.replicates)
    for cell, workload, replicate in itertools.product(cells, matrix.workloads, replicates):
        if cell.gpu_type not in present and (cell, workload, replicate) not in finished:
            request = _request(run, Task(cell, replicate, (workload,)), matrix, {})
            reason = placement.why_unplaced(cell, present)
            yield failed(request, workload, Outcome.UNPLACED, reason)


def _first_of_model(matrix: Matrix, workload: Workload) -> int:
    return next(i for i, w in enumerate(matrix.workloads) if w.model == workload.model)


def _request(
    run: str, task: Task, matrix: Matrix, known: Mapping[tuple[Cell, str], Quality]
) -> Request:
    return Request(
        run=run,
        cell=task.cell,
        replicate=task.replicate,
        workloads=task.workloads,
        sampling=matrix.sampling,
        quality=matrix.quality,
        known_quality={model: q for (cell, model), q in known.items() if cell == task.cell},
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
        .remote(offer.num_cpus)
    )
    stream = actor.run.options(num_returns="streaming").remote(request)
    return _Running(request, actor, stream, now, list(request.workloads))


def _ready(running: Sequence[_Running]) -> list[_Running]:
    """Those whose next event is there; waits a moment for one."""
    import ray

    streams = [current.stream for current in running]
    ready, _ = ray.wait(streams, num_returns=1, timeout=_POLL_S, fetch_local=False)
    return [current for current in running if any(current.stream is stream for stream in ready)]


def _next_event(current: _Running, now: float) -> Stage | Measurement | None:
    """The next event of a task; an error of its actor becomes the row of what it was measuring."""
    import ray

    current.since = now
    try:
        event: Stage | Measurement = ray.get(next(current.stream))
    except StopIteration:
        current.ended = True
        return None
    except ray.exceptions.RayError as error:
        current.ended = True
        outcome, reason = explain(error, current.stage)
        return failed(current.request, current.left.pop(0), outcome, reason)
    current.started = True
    if isinstance(event, Stage):
        current.stage = event.name
    else:
        current.left.remove(event.workload)
        current.ended = not current.left
    return event


def _timed_out(current: _Running, limit_s: float) -> Measurement:
    workload = current.left.pop(0)
    if current.started:
        reason = f"stage {current.stage} took longer than sampling.timeout_s = {limit_s:g}"
        return failed(current.request, workload, Outcome.TIMED_OUT, reason)
    reason = (
        f"no {current.request.cell.gpu_type} became free within --placement-timeout {limit_s:g};"
        " resume later, or raise it"
    )
    return failed(current.request, workload, Outcome.UNPLACED, reason)


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
    if isinstance(error, errors.ActorUnavailableError) or _NODE_DEATH.search(text):
        return Outcome.LOST, f"the node went away in stage {stage}"
    if isinstance(error, errors.ActorDiedError) and "creation task" not in text:
        return Outcome.FAILED, (
            f"the process died in stage {stage}: it crashed or was killed, perhaps for memory;"
            " the kernel's log (dmesg) on its node tells"
        )
    return Outcome.FAILED, f"{type(error).__name__} in stage {stage}: {text.splitlines()[-1]}"
