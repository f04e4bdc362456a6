"""The driver over real raylets, whose GPUs are the fake driver's, and what breaks in them.

Its processes are real and are really killed and stopped; what they measure is `scripted.measure`.
"""

from __future__ import annotations

import collections
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import faults_record
import pytest
import ray
import raylets
from ray.util import placement_group_table
from raylets import VIRTUAL, Raylets, measuring_processes, template_of
from sweeps import SCRIPTED, TINY, TINY_8, a_matrix

from bench.asked import CPU, Cell, Matrix, PlacementPlan, QualityPlan, Workload
from bench.errors import ProcessDied
from bench.measured import TRIED_AGAIN, Event, Measurement, Outcome, Placement, Profile, Stage
from cluster import driver, nodes, placement
from cluster.session import session

LOST = "fault = nvmlDevice*:0:15:0"  # the first GPU of the node, in each process, from the start
SLOW = {"latency_min_s": 2.0}  # in which a signal surely arrives
ONCE = PlacementPlan(retries=0)
FAULTY = ("T4", "P100", "L4", "A10G")
MIXED = ("A100-40G", "A100-80G", "L40S")
ABSENT = ("H200", "A40")
# One row says it all.
EXCLUDED = tuple(Cell(kind, "bf16") for kind in ("L4", "A10G", *MIXED, *ABSENT))


@pytest.fixture(scope="module")
def cluster(fakenvml_library: Path) -> Iterator[Raylets]:
    """A cluster to which this process is connected, whose head measures the CPU."""
    with raylets.started(fakenvml_library, num_cpus=2) as started:
        started.add("T4", f"gpu = t4\n{VIRTUAL}", f"gpu = t4\n{VIRTUAL}")
        started.add("P100", f"gpu = p100\n{LOST}", f"gpu = p100\n{VIRTUAL}")
        started.add("L4", f"gpu = l4\n{VIRTUAL}")
        started.add("L4", f"gpu = l4\n{VIRTUAL}")
        hungry = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
        started.add("A10G", "gpu = NVIDIA A10G", environment=hungry)
        gib_40, gib_80 = (f"gpu = a100\nmem_gib = {gib}\n{VIRTUAL}" for gib in (40, 80))
        started.add("mixed", gib_40, gib_80, "gpu = NVIDIA L40S", label="A40")
        with session(started.address, trust_local_users=True):  # quicker; see test_cluster_session
            yield started


def events(matrix: Matrix, **options: object) -> Iterator[Event]:
    """What the driver says of a sweep."""
    given = {"simulated": True, "measure": SCRIPTED, **options}
    return driver.sweep("test/run", matrix, (CPU,), **given)  # type: ignore[arg-type]


def rows_of(
    matrix: Matrix, on_stage: Callable[[Stage], None] = lambda stage: None, **options: object
) -> list[Measurement]:
    rows = []
    for event in events(matrix, **options):
        if isinstance(event, Stage):
            on_stage(event)
        elif isinstance(event, Measurement):
            rows.append(event)
    return rows


def signal_process_at(name: str, workload: Workload, number: int) -> Callable[[Stage], None]:
    """Send a signal to the measuring process when a workload first reaches a stage."""
    sent: list[int] = []

    def on_stage(stage: Stage) -> None:
        if stage.name == name and stage.workload == workload and not sent:
            sent.extend(measuring_processes())
            (pid,) = sent
            os.kill(pid, number)

    return on_stage


def where(row: Measurement) -> Placement:
    return row.placement or Placement("", "", 0)


def uuid(row: Measurement) -> str | None:
    return row.device.uuid if row.device else None


def assert_nothing_is_left() -> None:
    """No placement, process or GPU in use; processes end, and GPUs come back, a little later."""

    def in_use() -> float:
        present, free = ray.cluster_resources()["GPU"], ray.available_resources()["GPU"]
        return float(present - free)

    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
    deadline = time.monotonic() + 60
    while (measuring_processes() or in_use()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert measuring_processes() == []
    assert in_use() == 0


# ---------------------------------------------------------------- a sweep in which much breaks


@dataclass
class Story:
    """A sweep in which a process, a GPU and a raylet are lost, a node lacks memory, labels lie."""

    rows: list[Measurement] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)  # why a type was tried again
    broke: dict[str, float] = field(default_factory=dict)  # when, by GPU type
    noticed: dict[str, float] = field(default_factory=dict)  # how long after, in s

    def of(self, gpu_type: str) -> list[Measurement]:
        return [row for row in self.rows if row.cell.gpu_type == gpu_type]

    def record(self, fault: str, gpu_type: str) -> None:
        """Note how it ended for the row with the most attempts."""
        row = max(self.of(gpu_type), key=lambda m: where(m).attempt)
        reasons = "; ".join([*where(row).earlier, *filter(None, [row.reason])])
        text = f"{row.outcome} in attempt {where(row).attempt}; before: {reasons}"
        faults_record.note(fault, self.noticed.get(gpu_type), text)


@pytest.fixture(scope="module")
def story(cluster: Raylets) -> Story:
    told = Story()
    types = (*FAULTY, *MIXED, *ABSENT)
    matrix = a_matrix(TINY, gpu_types=types, precisions=("fp32", "bf16"), **SLOW)
    for event in events(replace(matrix, exclude=EXCLUDED)):
        kind, now = event.cell.gpu_type, time.monotonic()
        if isinstance(event, Measurement):
            told.rows.append(event)
        elif isinstance(event, Stage) and event.name == TRIED_AGAIN:
            told.again[kind] = event.host
            told.noticed[kind] = now - told.broke.get(kind, now)
        elif isinstance(event, Stage) and event.name == "latency" and kind not in told.broke:
            # Of the T4, the second cell: the first says which GPU it was.
            if kind == "T4" and told.of("T4"):
                pid, _ = cluster.measuring(kind)
                told.broke[kind] = now
                os.kill(pid, signal.SIGKILL)
            if kind == "L4":
                _, node = cluster.measuring(kind)
                told.broke[kind] = now
                cluster.kill(node)
    cluster.kill(cluster.of_type["A10G"])  # it would not answer the next sweeps either
    return told


def test_no_row_is_lost_and_none_doubled(story: Story) -> None:
    types = (*FAULTY, *MIXED, *ABSENT)
    every = {Cell(kind, precision) for kind in types for precision in ("fp32", "bf16")}
    assert collections.Counter(m.cell for m in story.rows) == dict.fromkeys(
        every.difference(EXCLUDED), 1
    )


def test_a_killed_process_is_tried_again_on_another_gpu(story: Story) -> None:
    first, second = story.of("T4")
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert (where(first).attempt, where(second).attempt) == (1, 2)
    assert "the process died in stage latency" in where(second).earlier[0]
    assert {uuid(first), uuid(second)} == {"GPU-T4-0-0", "GPU-T4-0-1"}
    story.record("process killed", "T4")


def test_a_lost_gpu_is_left_alone_and_the_rest_comes_onto_another(story: Story) -> None:
    first, second = story.of("P100")
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert "LOST: " in where(first).earlier[0]
    assert (where(first).attempt, where(second).attempt) == (2, 1)
    assert uuid(first) == uuid(second) == "GPU-P100-1-1"  # paired: both on what was left
    story.record("GPU lost", "P100")


def test_a_killed_raylet_costs_an_attempt(story: Story) -> None:
    (row,) = story.of("L4")
    assert (row.outcome, where(row).attempt) == (Outcome.OK, 2)
    assert "LOST: the node went away in stage latency" in where(row).earlier[0]
    story.record("raylet killed", "L4")


def test_a_process_that_is_killed_for_memory_is_out_of_memory(story: Story) -> None:
    (row,) = story.of("A10G")
    assert row.outcome == Outcome.OUT_OF_MEMORY
    assert "Ray ended the process for memory" in str(row.reason)
    assert (where(row).attempt, len(where(row).earlier)) == (2, 1)
    story.record("killed for memory", "A10G")


def test_types_that_no_node_has_are_unplaced_and_say_whose_label_is_wrong(story: Story) -> None:
    (absent,), (wrong,) = (story.of(kind) for kind in ABSENT)
    assert absent.outcome == wrong.outcome == Outcome.UNPLACED
    assert "no H200 here" in str(absent.reason)
    assert ("no A40 here (only A100-40G, A100-80G, A10G, CPU, L4, L40S, P100, T4): join") in str(
        wrong.reason
    )
    assert f"{socket.gethostname()} is labelled A40, but its driver has NVIDIA A100" in str(
        wrong.reason
    )


def test_on_nodes_of_several_types_each_cell_comes_onto_its_own(story: Story) -> None:
    for kind in MIXED:
        (row,) = story.of(kind)
        assert (row.outcome, where(row).attempt) == (Outcome.OK, 1), row.reason
        assert row.device
        assert row.device.gpu_type == kind.split("-")[0]
        memory_gib = {"A100-40G": 40, "A100-80G": 80}.get(kind)
        assert memory_gib is None or row.device.memory_bytes == memory_gib * 2**30
        assert kind not in story.again  # the drivers told it before


def test_rows_say_what_shared_their_host(story: Story) -> None:
    first, _ = story.of("T4")
    assert any(name.startswith("P100 ") for name in where(first).neighbours)


def test_what_stands_for_auto_is_what_the_drivers_have(story: Story) -> None:
    present, told = nodes.present()
    named = placement.offers(present, told, ["A100"])
    # That one is gone, and the head may have to find out yet.
    assert {*driver.offers(), "A10G"} == {*named, "A10G"} - {"A100"}
    counts = {name: offer.devices for name, offer in named.items() if name.startswith("A100")}
    assert counts == {"A100-40G": 1, "A100-80G": 1, "A100": 2}
    (wrong,) = map(str, placement.mislabelled(present, told))
    assert wrong == (
        f"{socket.gethostname()} is labelled A40, but its driver has NVIDIA A100-SXM4-40GB, NVIDIA"
        " L40S: measured as A100-40G, A100-80G, L40S; to mend it: python -m cluster.machine start,"
        " a node for each type"
    )


def test_nothing_is_left_of_a_sweep(story: Story) -> None:
    assert_nothing_is_left()


# ------------------------------------------------------------------------------ one at a time


@dataclass
class Measured:
    """A sweep in which nothing breaks: its matrix, what it told, and which processes measured."""

    matrix: Matrix
    rows: list[Measurement]
    stages: list[Stage]
    processes: dict[tuple[Cell, int], set[int]]  # seen while a cell and replicate was in work


@pytest.fixture(scope="module")
def measured(cluster: Raylets) -> Measured:
    """Two cells, two replicates, two workloads of one model."""
    stages: list[Stage] = []
    seen: dict[tuple[Cell, int], set[int]] = {}

    def note(stage: Stage) -> None:
        stages.append(stage)
        if stage.name == "latency":
            seen.setdefault((stage.cell, stage.replicate), set()).update(measuring_processes())

    two = ("fp32", "bf16")
    matrix = a_matrix(TINY, TINY_8, precisions=two, replicates=2, latency_min_s=0.3)
    matrix = replace(matrix, quality=QualityPlan())
    return Measured(matrix, rows_of(matrix, note), stages, seen)


def test_each_cell_and_replicate_is_a_fresh_process(measured: Measured) -> None:
    assert [m.outcome for m in measured.rows] == [Outcome.OK] * 8
    assert len({m.key for m in measured.rows}) == 8
    assert len(measured.processes) == 4
    assert sum(map(len, measured.processes.values())) == 4
    assert len(set.union(*measured.processes.values())) == 4


def test_perplexity_is_measured_once_per_cell_and_model(measured: Measured) -> None:
    assert sum(stage.name == "perplexity" for stage in measured.stages) == 2
    assert all(row.quality and row.quality.nats for row in measured.rows)


def test_a_cpu_cell_computes_with_every_cpu_of_its_node(measured: Measured) -> None:
    assert {m.device and m.device.threads for m in measured.rows} == {2}


def test_what_is_done_is_not_measured_again(measured: Measured) -> None:
    stages: list[Stage] = []
    assert rows_of(measured.matrix, done=measured.rows) == []
    (again,) = rows_of(measured.matrix, stages.append, done=measured.rows[1:])
    assert again.key == measured.rows[0].key
    assert again.quality == measured.rows[0].quality
    assert "perplexity" not in {stage.name for stage in stages}


def test_a_killed_process_costs_one_row_and_the_rest_goes_on(cluster: Raylets) -> None:
    matrix = replace(a_matrix(TINY, TINY_8, **SLOW), placement=ONCE)
    rows = rows_of(matrix, signal_process_at("latency", TINY, signal.SIGKILL))
    assert [(m.workload, m.outcome) for m in rows] == [
        (TINY, Outcome.FAILED),
        (TINY_8, Outcome.OK),
    ]
    assert "the process died in stage latency" in str(rows[0].reason)


def test_a_hanging_process_is_timed_out_and_the_rest_goes_on(cluster: Raylets) -> None:
    # Once it hangs, the clock is put forward.
    stop = signal_process_at("latency", TINY, signal.SIGSTOP)
    over: list[float] = []  # when the limit was over

    def clock() -> float:
        return time.monotonic() + (120 if over else 0)

    rows, noticed_s = [], 0.0
    for event in events(a_matrix(TINY, TINY_8, timeout_s=120, **SLOW), clock=clock):
        if isinstance(event, Measurement):
            noticed_s = noticed_s or time.monotonic() - over[0]
            rows.append(event)
        elif isinstance(event, Stage):
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


def test_what_cannot_be_measured_is_a_row_and_the_rest_goes_on(cluster: Raylets) -> None:
    huge, broken = (Workload(name, "eager", 1, 32) for name in ("./huge", "./broken"))
    rows = rows_of(a_matrix(huge, broken, TINY, precisions=("tf32", "fp32")))
    found = {(m.cell.precision, m.workload): m for m in rows}
    assert {key: row.outcome for key, row in found.items()} == {
        ("tf32", huge): Outcome.UNSUPPORTED,
        ("tf32", broken): Outcome.UNSUPPORTED,
        ("tf32", TINY): Outcome.UNSUPPORTED,
        ("fp32", huge): Outcome.OUT_OF_MEMORY,
        ("fp32", broken): Outcome.FAILED,
        ("fp32", TINY): Outcome.OK,  # of a fresh process
    }
    assert "there is no such folder" in str(found["fp32", broken].reason)
    faults_record.note("out of memory", 0, "OUT_OF_MEMORY; the rest is measured")


def kill_at(
    name: str, matrix: Matrix, victim: Callable[[int], int]
) -> tuple[list[Measurement], float]:
    """The rows of a sweep in which a process dies in a stage; how soon it was tried again, in s.

    `victim` is which one, given the one that measures.
    """
    rows: list[Measurement] = []
    killed_s = noticed_s = 0.0
    for event in events(matrix):
        if isinstance(event, Measurement):
            rows.append(event)
        elif event.name == name and not killed_s:
            (pid,) = measuring_processes()
            os.kill(victim(pid), signal.SIGKILL)
            killed_s = time.monotonic()
        elif event.name == TRIED_AGAIN:
            noticed_s = time.monotonic() - killed_s
    return rows, noticed_s


def test_a_process_that_is_killed_before_its_first_sample_is_tried_again(cluster: Raylets) -> None:
    matrix = a_matrix(Workload("./slow", "eager", 1, 32), **SLOW)
    (row,), noticed_s = kill_at("loading", matrix, lambda pid: pid)
    assert (row.outcome, where(row).attempt) == (Outcome.OK, 2)
    why = f"FAILED: the process died in stage loading: {ProcessDied(-signal.SIGKILL)}"
    assert where(row).earlier == (why,)
    faults_record.note("killed while it loads", noticed_s, f"OK in attempt 2; before: {why}")


def test_a_template_that_is_killed_takes_its_process_along_and_another_takes_its_place(
    cluster: Raylets,
) -> None:
    matrix = a_matrix(TINY, precisions=("fp32", "bf16"), **SLOW)
    rows, noticed_s = kill_at("latency", matrix, template_of)
    assert [(m.outcome, where(m).attempt) for m in rows] == [(Outcome.OK, 2), (Outcome.OK, 1)]
    why = f"FAILED: the process died in stage latency: {ProcessDied(None)}"
    assert where(rows[0]).earlier == (why,)
    faults_record.note("template killed", noticed_s, f"OK in attempt 2; before: {why}")


def test_a_perplexity_that_ends_by_force_costs_no_row(cluster: Raylets) -> None:
    matrix = replace(a_matrix(TINY, **SLOW), quality=QualityPlan(), placement=ONCE)
    (row,) = rows_of(matrix, signal_process_at("perplexity", TINY, signal.SIGKILL))
    assert row.outcome == Outcome.OK
    assert row.quality is not None
    assert row.quality.nats is None
    assert "FAILED: the process died in stage perplexity" in str(row.quality.reason)


def test_a_fault_while_a_profile_is_made_costs_no_row_and_no_attempt(cluster: Raylets) -> None:
    matrix = a_matrix(TINY, TINY_8, precisions=("fp32", "bf16"), profile=True, **SLOW)
    told: list[Event] = []
    broken: Cell | None = None
    for event in events(replace(matrix, gpu_types=("T4",))):
        if isinstance(event, Stage) and event.name == "profile" and broken is None:
            broken = event.cell
            (pid, _, _) = cluster.measurements()[0]
            os.kill(pid, signal.SIGKILL)
        told.append(event)
    rows = [event for event in told if isinstance(event, Measurement)]
    profiles = [event for event in told if isinstance(event, Profile)]
    assert len(rows) == len({row.key for row in rows}) == 4
    assert {(m.outcome, where(m).attempt) for m in rows} == {(Outcome.OK, 1)}
    assert broken == rows[0].cell
    # The first process, whose other profile was to come, lost both.
    assert {p.key: p.trace.level for p in profiles} == {
        row.key: "none" if row.cell == broken else "op" for row in rows
    }
    why = "FAILED: the process died in stage profile"
    assert all(why in str(p.trace.reason) for p in profiles if p.cell == broken)
    assert uuid(rows[0]) != uuid(rows[2])  # the rest went to another GPU
    assert_nothing_is_left()


def test_cells_wait_for_a_device_that_others_hold_but_not_for_ever(cluster: Raylets) -> None:
    class Holder:
        def held(self) -> bool:
            return True

    holder = ray.remote(Holder).options(num_cpus=2).remote()
    assert ray.get(holder.held.remote())
    try:
        rows = rows_of(a_matrix(TINY, TINY_8, replicates=3), placement_timeout_s=2)
    finally:
        ray.kill(holder)
    assert [m.outcome for m in rows] == [Outcome.UNPLACED] * 6
    assert len({m.key for m in rows}) == 6
    assert "--placement-timeout 2" in str(rows[0].reason)


def test_no_process_is_left_behind_and_only_a_simulation_takes_such_a_gpu(
    cluster: Raylets,
) -> None:
    stream = events(a_matrix(TINY, gpu_types=("T4", CPU), latency_min_s=60), simulated=False)
    unsupported = next(event for event in stream if isinstance(event, Measurement))
    assert (unsupported.cell.gpu_type, unsupported.outcome) == ("T4", Outcome.UNSUPPORTED)
    stream.close()  # type: ignore[attr-defined]
    assert_nothing_is_left()


def test_of_a_node_that_gives_away_some_of_its_gpus_these_are_told(cluster: Raylets) -> None:
    node = cluster.add("fewer", "gpu = NVIDIA A2", "gpu = NVIDIA L40S", label="L40S", num_gpus=1)
    (card,) = nodes.told(ray.nodes())[node.node_id]
    assert card.gpu_type == "A2"


def test_a_wrong_gpu_that_only_its_process_could_find_costs_no_attempt_and_no_row(
    cluster: Raylets, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.add("hidden", "gpu = NVIDIA A16", label="L40S")
    # As of a node that did not answer in time.
    monkeypatch.setitem(nodes._answered, node.node_id, ())
    stages: list[Stage] = []
    rows = rows_of(a_matrix(TINY, gpu_types=("L40S",), replicates=2), stages.append)
    assert [(m.outcome, where(m).attempt) for m in rows] == [(Outcome.OK, 1)] * 2
    assert {str(uuid(m))[:10] for m in rows} == {"GPU-mixed-"}
    (again,) = [stage.host for stage in stages if stage.name == TRIED_AGAIN]
    assert "found NVIDIA A16 (A16, " in again
    assert f" on {socket.gethostname()}: GPU-hidden-" in again
    assert "the label of its node is wrong" in again
    assert_nothing_is_left()


def test_alone_on_a_host_types_take_turns(cluster: Raylets) -> None:
    matrix = a_matrix(TINY, gpu_types=("T4", "A100-40G"), latency_min_s=0.5, replicates=2)
    rows = rows_of(replace(matrix, placement=PlacementPlan(exclusive="host")))
    assert [m.outcome for m in rows] == [Outcome.OK] * 4
    assert {where(m).neighbours for m in rows} == {()}
    spans = sorted((m.started_at, m.finished_at) for m in rows if m.started_at and m.finished_at)
    assert len(spans) == 4
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_alone_on_a_host_another_one_is_asked_for_meanwhile(
    cluster: Raylets, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray takes the node with most that is free: both times this one, were it not excluded.
    cluster.add("T4", *[f"gpu = t4\n{VIRTUAL}"] * 4)
    monkeypatch.setattr(placement, "host_of", lambda node: node["NodeID"])  # a host each
    matrix = a_matrix(TINY, gpu_types=("T4",), replicates=2, **SLOW)
    first, second = rows_of(replace(matrix, placement=PlacementPlan(exclusive="host")))
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert where(first).node != where(second).node
    assert where(first).neighbours == where(second).neighbours == ()
