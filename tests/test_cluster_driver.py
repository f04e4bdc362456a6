"""The driver over a real local Ray: real actors, whose processes are really killed and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import examples
import faults_record
import pytest
from raylets import measuring_processes

from bench.asked import CPU, Cell, Matrix, PlacementPlan, QualityPlan, Sampling, Workload
from bench.measured import Device, Measurement, Outcome, Quality, Sensor, Software, Stage
from cluster import driver
from cluster.placement import Offer
from cluster.session import session

SHORT = Sampling(
    warmup_min_s=0,
    warmup_max_s=0.1,
    latency_min_s=0,
    latency_max_s=0.2,
    min_samples=11,
    throughput_s=0.05,
    energy_s=0.05,
    idle_s=0,
    profile=False,
    timeout_s=300,
)
TINY = Workload("tiny", "eager", 1, 32)
TINY_8 = Workload("tiny", "eager", 8, 32)
LONG = {"latency_min_s": 2.0, "latency_max_s": 4.0}  # in which a signal surely arrives


def a_matrix(
    *workloads: Workload, precisions: tuple[str, ...] = ("fp32",), **sampling: float
) -> Matrix:
    return Matrix(
        name="test",
        gpu_types=(CPU,),
        precisions=precisions,
        include=(),
        exclude=(),
        workloads=workloads,
        sampling=replace(SHORT, **sampling),  # type: ignore[arg-type]
        quality=QualityPlan(enabled=False),
        text="",
    )


@pytest.fixture(scope="module")
def offers() -> Iterator[dict[str, Offer]]:
    with session():
        yield driver.offers()


def rows_of(
    matrix: Matrix,
    offers: dict[str, Offer],
    on_stage: Callable[[Stage], None] = lambda stage: None,
    **options: object,
) -> list[Measurement]:
    rows = []
    for event in driver.sweep("test/run", matrix, offers, **options):  # type: ignore[arg-type]
        if isinstance(event, Stage):
            on_stage(event)
        else:
            rows.append(event)
    return rows


def signal_actor_at(name: str, workload: Workload, number: int) -> Callable[[Stage], None]:
    """Send a signal to the first measuring process when a workload reaches a stage."""
    found: list[int] = []
    sent: list[int] = []

    def on_stage(stage: Stage) -> None:
        found[:] = found or measuring_processes()  # before it is urgent
        if stage.name == name and stage.workload == workload and not sent:
            (pid,) = found
            os.kill(pid, number)
            sent.append(pid)

    return on_stage


@dataclass
class Measured:
    """A sweep in which nothing breaks: its matrix, what it told, and which processes measured."""

    matrix: Matrix
    rows: list[Measurement]
    stages: list[Stage]
    processes: dict[tuple[Cell, int], set[int]]  # seen while a cell and replicate was in work


@pytest.fixture(scope="module")
def measured(offers: dict[str, Offer]) -> Measured:
    """Two cells, two replicates, two workloads of one model."""
    stages: list[Stage] = []
    seen: dict[tuple[Cell, int], set[int]] = {}

    def note(stage: Stage) -> None:
        stages.append(stage)
        if stage.name == "warm-up":
            seen.setdefault((stage.cell, stage.replicate), set()).update(measuring_processes())

    matrix = a_matrix(TINY, TINY_8, precisions=("fp32", "bf16"), replicates=2, latency_min_s=0.1)
    matrix = replace(matrix, quality=QualityPlan(context=256))
    return Measured(matrix, rows_of(matrix, offers, note), stages, seen)


def test_each_cell_and_replicate_is_a_fresh_process(measured: Measured) -> None:
    assert [m.outcome for m in measured.rows] == [Outcome.OK] * 8
    assert len({m.key for m in measured.rows}) == 8
    processes = [pids for pids in measured.processes.values() if pids]
    assert len(processes) == 4
    assert len(set.union(*processes)) == sum(len(pids) for pids in processes)


def test_perplexity_is_measured_once_per_cell_and_model(measured: Measured) -> None:
    assert sum(stage.name == "perplexity" for stage in measured.stages) == 2
    qualities = {(m.cell, m.quality) for m in measured.rows}
    assert len(qualities) == 2
    assert all(isinstance(quality, Quality) for _, quality in qualities)


def test_a_cpu_cell_computes_with_every_cpu_of_its_node(measured: Measured) -> None:
    assert {m.device and m.device.threads for m in measured.rows} == {os.cpu_count()}


def test_what_is_done_is_not_measured_again(measured: Measured, offers: dict[str, Offer]) -> None:
    assert rows_of(measured.matrix, offers, done=measured.rows) == []
    (again,) = rows_of(measured.matrix, offers, done=measured.rows[1:])
    assert again.key == measured.rows[0].key
    assert again.quality == measured.rows[0].quality


def test_a_type_that_the_cluster_lacks_is_unplaced_at_once(offers: dict[str, Offer]) -> None:
    matrix = replace(a_matrix(TINY, TINY_8), gpu_types=("A100",))
    start = time.monotonic()
    rows = rows_of(matrix, offers, placement_timeout_s=600)
    assert time.monotonic() - start < 60
    assert [m.outcome for m in rows] == [Outcome.UNPLACED] * 2
    assert "no A100" in str(rows[0].reason)


def test_a_killed_process_costs_one_row_and_the_rest_goes_on(offers: dict[str, Offer]) -> None:
    matrix = a_matrix(TINY, TINY_8, **LONG)
    matrix = replace(matrix, placement=PlacementPlan(retries=0))
    rows = rows_of(matrix, offers, signal_actor_at("latency", TINY, signal.SIGKILL))
    assert [(m.workload, m.outcome) for m in rows] == [
        (TINY, Outcome.FAILED),
        (TINY_8, Outcome.OK),
    ]
    assert "the process died in stage latency" in str(rows[0].reason)


def test_a_hanging_process_is_timed_out_and_the_rest_goes_on(offers: dict[str, Offer]) -> None:
    # The limit leaves a busy machine time to import torch; once it hangs, the clock is put forward.
    matrix = a_matrix(TINY, TINY_8, **LONG, timeout_s=120)
    stop = signal_actor_at("latency", TINY, signal.SIGSTOP)
    over: list[float] = []  # when the limit was over

    def clock() -> float:
        return time.monotonic() + (120 if over else 0)

    rows, noticed_s = [], 0.0
    for event in driver.sweep("test/run", matrix, offers, clock=clock):
        if isinstance(event, Measurement):
            noticed_s = noticed_s or time.monotonic() - over[0]
            rows.append(event)
            continue
        stop(event)
        if event.name == "latency" and not over:
            over.append(time.monotonic())
    assert [(m.workload, m.outcome) for m in rows] == [
        (TINY, Outcome.TIMED_OUT),
        (TINY_8, Outcome.OK),
    ]
    assert "stage latency took longer than sampling.timeout_s = 120" in str(rows[0].reason)
    said = f"TIMED_OUT: {rows[0].reason} (noticed so long after that)"
    faults_record.note("process hangs", noticed_s, said)


def test_what_cannot_be_measured_is_a_row_and_the_rest_goes_on(offers: dict[str, Offer]) -> None:
    # 65,536 prompts x 1,024 tokens x 50,257 logits x 4 B = 13 PB.
    huge = Workload("gpt2:random", "eager", 65_536, 1024)
    broken = Workload("./no-such-model", "eager", 1, 32)
    rows = rows_of(a_matrix(huge, broken, TINY, precisions=("tf32", "fp32")), offers)
    found = {(m.cell.precision, m.workload): m for m in rows}
    assert {key: row.outcome for key, row in found.items()} == {
        ("tf32", huge): Outcome.UNSUPPORTED,
        ("tf32", broken): Outcome.UNSUPPORTED,
        ("tf32", TINY): Outcome.UNSUPPORTED,
        ("fp32", huge): Outcome.OUT_OF_MEMORY,
        ("fp32", broken): Outcome.FAILED,
        ("fp32", TINY): Outcome.OK,
    }
    assert "there is no such folder" in str(found["fp32", broken].reason)
    faults_record.note("out of memory", 0, "OUT_OF_MEMORY; the rest is measured")


def test_a_perplexity_that_ends_by_force_costs_no_row(offers: dict[str, Offer]) -> None:
    matrix = replace(
        a_matrix(TINY),
        quality=QualityPlan(context=256, stride=16),  # long enough to be killed in
        placement=PlacementPlan(retries=0),
    )
    (row,) = rows_of(matrix, offers, signal_actor_at("perplexity", TINY, signal.SIGKILL))
    assert row.outcome == Outcome.OK
    assert row.quality is not None
    assert row.quality.nats is None
    assert "the process died in stage perplexity" in str(row.quality.reason)
    assert any("no perplexity" in doubt for doubt in row.doubts)


def test_evidence_that_ends_by_force_costs_no_row(offers: dict[str, Offer]) -> None:
    big = Workload("tiny", "eager", 64, 256)  # whose evidence takes long enough to be killed in
    matrix = a_matrix(big, TINY_8, profile=True)
    rows = rows_of(matrix, offers, signal_actor_at("profile", big, signal.SIGKILL))
    # The workload that was measured last comes again first; the other's process was killed.
    assert [m.workload for m in rows] == [big, TINY_8, TINY_8]
    assert {m.outcome for m in rows} == {Outcome.OK}
    one, _, two = rows
    assert one.trace is not None
    assert one.trace.level == "none"
    assert "the process ended before its evidence" in str(one.trace.reason)
    assert two.trace is not None
    assert two.trace.level == "op"


def test_cells_wait_for_a_device_that_others_hold_but_not_for_ever(
    offers: dict[str, Offer],
) -> None:
    import ray

    class Holder:
        def held(self) -> bool:
            return True

    holder = ray.remote(Holder).options(num_cpus=offers[CPU].num_cpus).remote()
    assert ray.get(holder.held.remote())
    try:
        rows = rows_of(a_matrix(TINY, TINY_8, replicates=3), offers, placement_timeout_s=2)
    finally:
        ray.kill(holder)
    assert [m.outcome for m in rows] == [Outcome.UNPLACED] * 6
    assert len({m.key for m in rows}) == 6
    assert "--placement-timeout 2" in str(rows[0].reason)


def test_no_process_is_left_behind(offers: dict[str, Offer]) -> None:
    events = driver.sweep("test/run", a_matrix(TINY, latency_min_s=5, latency_max_s=9), offers)
    for event in events:
        if isinstance(event, Stage) and event.name == "latency":
            break
    events.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while measuring_processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert measuring_processes() == []


def test_a_probe_is_kept_for_its_gpu_and_driver_unless_it_failed() -> None:
    here = Device("V100", "V100", "host", "cpu", 1, uuid="GPU-1")
    versions = Software("3.12", "2.13", "5.24", "0.1", driver="580.65.06")
    row = examples.measurement(device=here, software=versions)
    known = driver._Known()
    known.learn(replace(row, sensor=Sensor("unknown", reason="the probe failed: no memory")))
    assert not known.sensors
    found = Sensor("integrating", probe_s=20.0)
    known.learn(replace(row, sensor=found))
    assert known.sensors == {("GPU-1", "580.65.06"): found}
