"""An attempt: one fresh process on one seat, and what it says as it goes.

A seat has one actor of Ray, which holds its GPU and nothing else: it asks the template of its node
for a process for each cell and replicate (`bench.fresh`), and hands on what that one finds. So a
process starts in 10 ms where an actor takes 1 s, a row is the same whether a cluster or one desk
made it, and what breaks a process leaves the actor alone.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from bench import fresh, outcomes
from bench.asked import Workload
from bench.errors import Unplaced
from bench.files import private
from bench.measured import Event, Measurement, Outcome, Profile, Stage
from bench.measured.profiled import Trace
from bench.outcomes import Request
from cluster import faults, folders
from cluster.faults import End
from cluster.lease import Seat
from cluster.schedule import Task

_GET_TIMEOUT_S = 60.0  # a row whose node went away after it was announced
_CONTROL = "control"


class SeatActor:
    """Has each Request measured in a fresh process; Ray makes an actor of this plain class."""

    _process: fresh.Fresh | None = None

    def run(self, measure: str, request: Request) -> Iterator[Event]:
        """Yield each stage, row and profile of `measure` (MODULE:FUNCTION) as it comes.

        Raises:
            WrongDevice: the GPU is of another type than was asked for.
            ProcessDied: the process crashed or was killed.
            Unplaced: other users of this host could have changed what runs here: on a node that
                joined later than `folders.refuse_shared` asked.
        """
        why = private.why_writable(Path(__file__).parent)
        if why and folders.TRUSTING not in os.environ:
            raise Unplaced(f"other users of this host can change the code that runs: {why}")
        # Python runs, so its limit ends: torch from a slow disk may take longer than that.
        yield outcomes.stage(request, request.workloads[0], outcomes.DEVICE)
        node = ray.get_runtime_context().get_node_id()
        name = os.environ.get(fresh.TEMPLATE) or fresh.name_for(node)
        # The actor's parent is its raylet: a template does not outlast its node.
        self._process = fresh.Fresh(name, measure, request, owner=os.getppid())
        yield from self._process.events()

    def end(self) -> None:
        """Kill the process, however it hangs."""
        if self._process:
            self._process.end()


@dataclass
class Attempt:
    """A process that measures, and what is known of it so far."""

    request: Request
    actor: Any
    stream: Any
    since: float  # of the last event
    left: list[Workload]
    stage: str = faults.STARTING
    ended: bool = False  # no more events: done, or the process is not to be used any longer
    orphaned: bool = False  # its actor is gone
    neighbours: set[str] = field(
        default_factory=set
    )  # what shared the host with the row in progress
    unprofiled: list[Workload] = field(default_factory=list)  # rows whose profile is to come

    def note(self, found: Measurement | Profile) -> None:
        """Keep of which rows the profile is to come, if any was asked for."""
        if isinstance(found, Profile):
            self.unprofiled = [w for w in self.unprofiled if w != found.workload]
        elif found.outcome == Outcome.OK and self.request.sampling.profile:
            self.unprofiled.append(found.workload)

    def lost_profiles(self, reason: str) -> Iterator[Profile]:
        """The profiles that do not come any longer, each with the reason."""
        run, cell, replicate = self.request.run, self.request.cell, self.request.replicate
        while self.unprofiled:
            workload, trace = self.unprofiled.pop(0), Trace("none", reason=reason)
            yield Profile(run, cell, workload, replicate, trace, measured_at=outcomes.now())

    def __str__(self) -> str:
        return f"{self.request.cell}, replicate {self.request.replicate}"


@dataclass(eq=False)
class AtWork:
    """A block that has, or waits for, its seat."""

    tasks: deque[Task]
    seat: Seat
    actor: Any = None
    attempt: Attempt | None = None
    said: bool = False  # that it waits

    def rest(self) -> tuple[Task, ...]:
        """The tasks that are left after what the process has measured."""
        if self.attempt is None:
            return tuple(self.tasks)
        first, *others = self.tasks
        left = tuple(self.attempt.left)
        return (replace(first, workloads=left), *others) if left else tuple(others)


def hire(seat: Seat) -> Any:
    """An actor on a seat."""
    # It is never restarted by Ray: a silent second run would be another measurement.
    options = {
        "num_cpus": seat.offer.num_cpus,
        "num_gpus": seat.offer.num_gpus,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(seat.group, 0),
        "max_restarts": 0,
        "max_task_retries": 0,
        "concurrency_groups": {_CONTROL: 1},  # so that `end` need not wait for `run`
    }
    return ray.remote(**options)(SeatActor).remote()


def start(actor: Any, request: Request, measure: str, now: float) -> Attempt:
    """Start a process on the seat of an actor."""
    stream = actor.run.options(num_returns="streaming").remote(measure, request)
    return Attempt(request, actor, stream, now, list(request.workloads))


def end(attempt: Attempt) -> None:
    """Kill the process of an attempt; its actor can start another."""
    with contextlib.suppress(exceptions.RayError, ValueError):
        attempt.actor.end.options(concurrency_group=_CONTROL).remote()


def dismiss(actor: Any) -> None:
    """End an actor, which may be dead already, and its process."""
    with contextlib.suppress(exceptions.RayError, ValueError):
        ray.kill(actor)


def ready(attempts: Sequence[Attempt], timeout_s: float) -> list[Attempt]:
    """All whose next event is there; waits for the first, but no longer than this."""
    streams = [attempt.stream for attempt in attempts]
    ray.wait(streams, num_returns=1, timeout=timeout_s, fetch_local=False)
    found, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
    return [attempt for attempt in attempts if any(attempt.stream is stream for stream in found)]


def next_event(attempt: Attempt, now: float) -> Event | End | None:
    """The next event of an attempt that is ready; None at its regular end."""
    attempt.since = now
    try:
        event: Event = ray.get(next(attempt.stream), timeout=_GET_TIMEOUT_S)
    except StopIteration:
        attempt.ended = True
        if len(attempt.left) == len(attempt.request.workloads):
            return End(Outcome.FAILED, "the process ended without a row")
        return None
    except exceptions.RayError as error:
        attempt.ended = True
        attempt.orphaned = not isinstance(error, exceptions.RayTaskError)
        return faults.explain(error, attempt.stage)
    if isinstance(event, Stage):
        attempt.stage = event.name
    return event
