"""What a fault means: an error of Ray, a stage that takes too long, and what each costs; pure.

A fault of the cluster (a dead process, node or GPU) is worth another attempt on another GPU; what
the measurement itself did is the row. A GPU of another type than was asked for is no attempt.
"""

import enum
import re
from dataclasses import dataclass

from ray import exceptions

from bench.device.kinds import Card
from bench.errors import ProcessDied, WrongDevice
from bench.measured import Outcome
from bench.outcomes import PERPLEXITY, PROFILE, Request, classify

STARTING = "starting"  # the stage before a process has said anything
# A process whose interpreter or packages are missing on its node never starts, and Ray raises
# nothing (Ray 2.60); a node that loads Python from a slow network disk needs a minute.
START_LIMIT_S = 180.0
_NODE_DEATH = re.compile(r"node (has died|was terminated)")
# Ray says ActorUnavailable while it cannot reach a node, ActorDied once it knows; a process that
# dies on a living node is ActorDied at once (measured on Ray 2.60).
_NODE_ERRORS = (
    exceptions.ActorUnavailableError,
    exceptions.GetTimeoutError,
    exceptions.ObjectLostError,
    exceptions.NodeDiedError,
    exceptions.ActorPlacementGroupRemoved,
)


@dataclass(frozen=True)
class End:
    """How an attempt ended before its time."""

    outcome: Outcome
    reason: str
    of_the_cluster: bool = False
    given: Card | None = None  # the GPU, if it is of another type than was asked for


class Cost(enum.Enum):
    """What an end before its time costs."""

    SEAT = enum.auto()  # nothing was measured on a GPU of the wrong type
    NOTHING = enum.auto()  # every row that had begun is there
    ATTEMPT = enum.auto()  # the row in progress is tried again
    PERPLEXITY = enum.auto()  # its row can still be measured
    ROW = enum.auto()  # the row in progress says how it ended


def cost(end: End, stage: str, rows_left: int, may_try: bool) -> Cost:
    """What an end costs a process in this stage, which has so many rows left to measure.

    A profile comes after all rows that the process measures: what is left then had not begun.
    """
    if end.given:
        return Cost.SEAT
    if not rows_left or stage == PROFILE:
        return Cost.NOTHING
    if end.of_the_cluster and may_try:
        return Cost.ATTEMPT
    return Cost.PERPLEXITY if stage == PERPLEXITY else Cost.ROW


def overdue(request: Request, stage: str, waited_s: float) -> End | None:
    """The end of an attempt whose stage takes too long."""
    if stage == STARTING:
        reason = (
            f"the process did not start within {START_LIMIT_S:g} s; raylet.err and the"
            " runtime_env logs in session_latest/logs of Ray's --temp-dir on its node say why"
        )
        late = waited_s > START_LIMIT_S
        return End(Outcome.TIMED_OUT, reason, of_the_cluster=True) if late else None
    key = "quality" if stage == PERPLEXITY else "sampling"
    limit_s = getattr(request, key).timeout_s
    reason = f"stage {stage} took longer than {key}.timeout_s = {limit_s:g}"
    return End(Outcome.TIMED_OUT, reason) if waited_s > limit_s else None


def explain(error: Exception, stage: str) -> End:
    """What an error of Ray means for the row in progress, and the reason in words."""
    if isinstance(error, exceptions.RayTaskError):
        if isinstance(error.cause, ProcessDied):
            reason = f"the process died in stage {stage}: {error.cause}"
            return End(Outcome.FAILED, reason, of_the_cluster=True)
        outcome, reason = classify(error.cause)
        if isinstance(error.cause, WrongDevice):
            return End(outcome, reason, of_the_cluster=True, given=error.cause.given)
        return End(outcome, f"{reason} (in stage {stage})", outcome == Outcome.LOST)
    text = str(error).strip() or type(error).__name__
    first, *_, last = (*text.splitlines(), text.splitlines()[-1])
    if isinstance(error, exceptions.OutOfMemoryError) or "OutOfMemory" in text:
        reason = f"Ray ended the process for memory in stage {stage}: {first}"
        return End(Outcome.OUT_OF_MEMORY, reason, of_the_cluster=True)
    if isinstance(error, exceptions.ActorUnschedulableError):
        return End(Outcome.UNPLACED, first)
    if isinstance(error, _NODE_ERRORS) or _NODE_DEATH.search(text):
        return End(Outcome.LOST, f"the node went away in stage {stage}", of_the_cluster=True)
    if isinstance(error, exceptions.ActorDiedError) and "creation task" not in text:
        reason = (
            f"the actor died in stage {stage}: it crashed or was killed, perhaps for memory;"
            " the kernel's log (dmesg) on its node tells"
        )
        return End(Outcome.FAILED, reason, of_the_cluster=True)
    return End(Outcome.FAILED, f"{type(error).__name__} in stage {stage}: {last}")
