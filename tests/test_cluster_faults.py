"""What an error of Ray means, what an end costs, and what the rows so far spare the next ones."""

from __future__ import annotations

from dataclasses import replace

import examples
import pytest
from ray import exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from sweeps import TINY, TINY_8, a_matrix

from bench.asked import CPU, Cell, PlacementPlan
from bench.device.kinds import Card
from bench.errors import GpuLostError, ProcessDied, WrongDevice
from bench.measured import Device, Outcome, Quality, Sensor, Software
from bench.outcomes import DEVICE, PERPLEXITY, PROFILE, Request
from cluster import faults
from cluster.attempts import History
from cluster.faults import STARTING, Cost, End
from cluster.schedule import Task

CARD = Card("Tesla T4", "GPU-1")
TASK = Task(Cell(CPU, "fp32"), 0, (TINY, TINY_8))


def of_a_task(cause: Exception) -> exceptions.RayTaskError:
    return exceptions.RayTaskError("run", "traceback", cause)


def died(message: str) -> exceptions.ActorDiedError:
    return exceptions.ActorDiedError(
        ActorDiedErrorContext(actor_id=bytes(16), error_message=message)
    )


@pytest.mark.parametrize(
    ("error", "outcome", "words", "of_the_cluster"),
    [
        (of_a_task(ValueError("no")), Outcome.FAILED, "ValueError: no (in stage latency)", False),
        (of_a_task(MemoryError()), Outcome.OUT_OF_MEMORY, "out of memory (in stage", False),
        (of_a_task(ProcessDied(-11)), Outcome.FAILED, "stage latency: SIGSEGV: it crashed", True),
        (of_a_task(ProcessDied(-9)), Outcome.FAILED, "SIGKILL: it was killed, perhaps for", True),
        (of_a_task(ProcessDied(3)), Outcome.FAILED, "in stage latency: exit status 3", True),
        (of_a_task(ProcessDied(None)), Outcome.FAILED, "so did the template process", True),
        (of_a_task(GpuLostError("GPU is lost")), Outcome.LOST, "GPU is lost (in stage", True),
        (exceptions.OutOfMemoryError("full\nmore"), Outcome.OUT_OF_MEMORY, "latency: full", True),
        (exceptions.ActorUnschedulableError("no"), Outcome.UNPLACED, "no", False),
        (exceptions.ActorUnavailableError("gone", None), Outcome.LOST, "node went away", True),
        (exceptions.GetTimeoutError("late"), Outcome.LOST, "the node went away in stage", True),
        (died("the actor's node was terminated"), Outcome.LOST, "the node went away", True),
        (died("connection error code 2"), Outcome.FAILED, "the actor died in stage", True),
        (
            exceptions.ActorDiedError(of_a_task(ValueError("no"))),
            Outcome.FAILED,
            "ActorDiedError in stage latency: ",
            False,
        ),
    ],
)
def test_an_error_of_ray_is_an_outcome_and_a_fault_of_the_cluster_or_not(
    error: Exception, outcome: Outcome, words: str, of_the_cluster: bool
) -> None:
    found = faults.explain(error, "latency")
    assert (found.outcome, found.of_the_cluster, found.given) == (outcome, of_the_cluster, None)
    assert words in found.reason


def test_a_gpu_of_another_type_says_which_it_is() -> None:
    found = faults.explain(of_a_task(WrongDevice("V100", CARD, "host")), DEVICE)
    assert found.given == CARD
    assert "asked for V100, found Tesla T4" in found.reason


OURS, CLUSTERS = End(Outcome.FAILED, ""), End(Outcome.LOST, "", of_the_cluster=True)


@pytest.mark.parametrize(
    ("end", "stage", "rows_left", "may_try", "cost"),
    [
        (replace(CLUSTERS, given=CARD), DEVICE, 2, True, Cost.SEAT),
        (CLUSTERS, "latency", 2, True, Cost.ATTEMPT),
        (CLUSTERS, "latency", 2, False, Cost.ROW),
        (OURS, "latency", 2, True, Cost.ROW),
        (CLUSTERS, PERPLEXITY, 2, True, Cost.ATTEMPT),
        (CLUSTERS, PERPLEXITY, 2, False, Cost.PERPLEXITY),
        (OURS, PERPLEXITY, 2, True, Cost.PERPLEXITY),
        (CLUSTERS, PROFILE, 0, True, Cost.NOTHING),
        (OURS, PROFILE, 1, True, Cost.NOTHING),
        (OURS, "latency", 0, True, Cost.NOTHING),
    ],
)
def test_what_an_end_costs(end: End, stage: str, rows_left: int, may_try: bool, cost: Cost) -> None:
    assert faults.cost(end, stage, rows_left, may_try) is cost


def test_each_stage_has_its_limit() -> None:
    matrix = a_matrix(TINY, timeout_s=100)
    request = Request("", TASK.cell, 0, TASK.workloads, matrix.sampling, matrix.quality)
    limit_s = matrix.quality.timeout_s
    for stage, most_s, words in (
        (STARTING, 180, "the process did not start within 180 s; raylet.err"),
        ("latency", 100, "stage latency took longer than sampling.timeout_s = 100"),
        (PERPLEXITY, limit_s, f"perplexity took longer than quality.timeout_s = {limit_s:g}"),
    ):
        assert faults.overdue(request, stage, most_s - 1) is None
        end = faults.overdue(request, stage, most_s + 1)
        assert end is not None
        assert (end.outcome, end.of_the_cluster) == (Outcome.TIMED_OUT, stage == STARTING)
        assert words in end.reason


def test_a_probe_is_kept_for_its_gpu_and_driver_unless_it_failed() -> None:
    here = Device("V100", "V100", "host", "cpu", 1, uuid="GPU-1")
    versions = Software("3.12", "2.13", "5.24", "0.1", driver="580.65.06")
    row = examples.measurement(device=here, software=versions)
    history = History("run", a_matrix(TINY), False, [])
    history.learn(replace(row, sensor=Sensor("unknown", reason="the probe failed: no memory")))
    assert not history.request(TASK).known_sensors
    found = Sensor("integrating", probe_s=20.0)
    history.learn(replace(row, sensor=found))
    assert history.request(TASK).known_sensors == {("GPU-1", "580.65.06"): found}


def test_of_rows_that_are_there_only_a_perplexity_that_was_measured_is_known() -> None:
    measured, failed = Quality("text", nats=1.0), Quality("text", reason="no text")
    rows = [examples.measurement(quality=measured), examples.measurement(quality=failed)]
    for row, known in zip(rows, ({"tiny": measured}, {}), strict=True):
        assert History("run", a_matrix(TINY), False, [row]).request(TASK).known_quality == known


def test_a_row_tells_of_its_earlier_attempts_and_of_more_than_that_it_has_no_place() -> None:
    matrix = replace(a_matrix(TINY), placement=PlacementPlan(retries=1))
    history = History("run", matrix, False, [])
    request = history.request(TASK)
    lost = examples.measurement(
        cell=TASK.cell, workload=TINY, outcome=Outcome.LOST, reason="the node went away"
    )
    first = history.placed(lost, "node", "host", {"b", "a"})
    assert first.placement
    assert (first.placement.attempt, first.placement.neighbours) == (1, ("a", "b"))
    assert history.may_try(request, [TINY])
    history.put_off(first)
    assert not history.may_try(request, [TINY])
    assert history.may_try(request, [TINY_8])
    assert not history.may_try(request, [])
    second = history.placed(replace(lost, outcome=Outcome.OK), "node", "host", set())
    assert second.placement
    assert second.placement.attempt == 2
    assert second.placement.earlier == ("LOST: the node went away",)
    told, other = history.unplaced(TASK, "no T4 here")
    assert told.outcome == Outcome.LOST
    assert told.reason == "the node went away; no other attempt: no T4 here"
    assert (other.outcome, other.reason) == (Outcome.UNPLACED, "no T4 here")
