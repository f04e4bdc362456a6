"""An attempt: one process on one seat, what it says as it goes, and what its end means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.asked import Workload
from bench.device.kinds import Card
from bench.errors import WrongDevice
from bench.measured import Event, Measurement, Outcome, Stage
from bench.outcomes import PERPLEXITY, Request, classify, failed
from cluster.actor import CellActor
from cluster.lease import Seat

STARTING = "starting"
# A process whose interpreter or packages are missing on its node never starts, and Ray raises
# nothing (Ray 2.60); a node that loads Python from a slow network disk needs a minute.
_START_LIMIT_S = 180.0
_GET_TIMEOUT_S = 60.0  # a row whose node went away after it was announced
_NODE_DEATH = re.compile(r"node (has died|was terminated)")


@dataclass(frozen=True)
class End:
    """How an attempt ended before its time.

    The cluster's faults (a dead process, node or GPU) are worth another attempt; what the
    measurement itself did is not. A GPU of another type than was asked for is no attempt at all.
    """

    outcome: Outcome
    reason: str
    of_the_cluster: bool = False
    given: Card | None = None  # the GPU of another type


@dataclass
class Attempt:
    """A process that measures, and what is known of it so far."""

    request: Request
    actor: Any
    stream: Any
    since: float  # of the last event
    left: list[Workload]
    stage: str = STARTING
    ended: bool = False  # no more events: done, or the process is not to be used any longer
    neighbours: set[str] = field(default_factory=set)  # what shared the host with the row in work


def start(request: Request, seat: Seat, now: float) -> Attempt:
    """Start a process on a seat."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    # A measuring actor is never restarted by Ray: a silent second run would be another measurement.
    actor = (
        ray.remote(CellActor)
        .options(
            num_cpus=seat.offer.num_cpus,
            num_gpus=seat.offer.num_gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(seat.group, 0),
            max_restarts=0,
            max_task_retries=0,
        )
        .remote()
    )
    stream = actor.run.options(num_returns="streaming").remote(request)
    return Attempt(request, actor, stream, now, list(request.workloads))


def stop(attempt: Attempt) -> None:
    """End the process; it may be dead already."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError, ValueError):
        ray.kill(attempt.actor)


def ready(attempts: Sequence[Attempt], timeout_s: float) -> list[Attempt]:
    """All whose next event is there; waits for the first, but no longer than this."""
    import ray

    streams = [attempt.stream for attempt in attempts]
    ray.wait(streams, num_returns=1, timeout=timeout_s, fetch_local=False)
    found, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
    return [attempt for attempt in attempts if any(attempt.stream is stream for stream in found)]


def next_event(attempt: Attempt, now: float) -> Event | End | None:
    """The next event of an attempt that is ready; None at its regular end."""
    import ray

    attempt.since = now
    try:
        event: Event = ray.get(next(attempt.stream), timeout=_GET_TIMEOUT_S)
    except StopIteration:
        attempt.ended = True
        if len(attempt.left) == len(attempt.request.workloads):
            return End(Outcome.FAILED, "the process ended without a row")
        return None
    except ray.exceptions.RayError as error:
        attempt.ended = True
        return explain(error, attempt.stage)
    if isinstance(event, Stage):
        attempt.stage = event.name
    return event


def overdue(attempt: Attempt, now: float) -> End | None:
    """The end of an attempt whose stage takes too long."""
    request = attempt.request
    if attempt.stage == STARTING:
        if now - attempt.since <= _START_LIMIT_S:
            return None
        reason = (
            f"the process did not start within {_START_LIMIT_S:g} s; raylet.err and the"
            " runtime_env logs in session_latest/logs of Ray's --temp-dir on its node say why"
        )
        return End(Outcome.TIMED_OUT, reason, of_the_cluster=True)
    quality = attempt.stage == PERPLEXITY
    limit_s = request.quality.timeout_s if quality else request.sampling.timeout_s
    if now - attempt.since <= limit_s:
        return None
    key = "quality" if quality else "sampling"
    reason = f"stage {attempt.stage} took longer than {key}.timeout_s = {limit_s:g}"
    return End(Outcome.TIMED_OUT, reason)


def row(attempt: Attempt, end: End) -> Measurement:
    """The row that a forced end leaves of what was being measured."""
    return failed(attempt.request, attempt.left[0], end.outcome, end.reason)


def explain(error: Exception, stage: str) -> End:
    """What an error of Ray means for the row that was being measured, and the reason in words."""
    import ray

    errors = ray.exceptions
    if isinstance(error, errors.RayTaskError):
        outcome, reason = classify(error.cause)
        if isinstance(error.cause, WrongDevice):
            return End(outcome, reason, of_the_cluster=True, given=error.cause.given)
        return End(outcome, f"{reason} (in stage {stage})", outcome == Outcome.LOST)
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    if isinstance(error, errors.OutOfMemoryError) or "OutOfMemory" in text:
        reason = f"Ray ended the process for memory in stage {stage}: {first}"
        return End(Outcome.OUT_OF_MEMORY, reason, of_the_cluster=True)
    if isinstance(error, errors.ActorUnschedulableError):
        return End(Outcome.UNPLACED, first)
    # Ray says ActorUnavailable while it cannot reach a node, ActorDied once it knows; a process
    # that dies on a living node is ActorDied at once (measured on Ray 2.60).
    lost = (
        errors.ActorUnavailableError,
        errors.GetTimeoutError,
        errors.ObjectLostError,
        errors.NodeDiedError,
        errors.ActorPlacementGroupRemoved,
    )
    if isinstance(error, lost) or _NODE_DEATH.search(text):
        return End(Outcome.LOST, f"the node went away in stage {stage}", of_the_cluster=True)
    if isinstance(error, errors.ActorDiedError) and "creation task" not in text:
        reason = (
            f"the process died in stage {stage}: it crashed or was killed, perhaps for memory;"
            " the kernel's log (dmesg) on its node tells"
        )
        return End(Outcome.FAILED, reason, of_the_cluster=True)
    reason = f"{type(error).__name__} in stage {stage}: {text.splitlines()[-1]}"
    return End(Outcome.FAILED, reason)
