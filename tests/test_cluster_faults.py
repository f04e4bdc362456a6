"""What breaks in a cluster, over real raylets of this machine whose GPUs are the fake driver's."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import faults_record
import pytest
import raylets
from test_cluster_driver import SHORT, TINY, a_matrix

from bench.asked import CPU, Cell
from bench.measured import Measurement, Outcome, Placement
from cluster import driver
from cluster.session import session

QUICK = replace(SHORT, energy="quick", latency_min_s=2, latency_max_s=3)
LOST = "fault = nvmlDevice*:0:15:0"  # the first GPU of the node, in each process, from the start
# Nobody can measure the energy of a virtual GPU: the rows come sooner.
VIRTUAL = "virtualization = 2\nenergy = 0"
TYPES = ("T4", "P100", "V100", "L4", "A10G", "H100")
EXCLUDED = (Cell("L4", "bf16"), Cell("A10G", "bf16"), Cell("H100", "bf16"))  # one row says it all


@pytest.fixture(scope="module")
def cluster(fakenvml_library: Path) -> Iterator[raylets.Raylets]:
    """A cluster to which this process is connected."""
    with raylets.started(fakenvml_library) as nodes:
        nodes.add("T4", f"gpu = t4\n{VIRTUAL}", f"gpu = t4\n{VIRTUAL}")
        nodes.add("P100", f"gpu = p100\n{LOST}", f"gpu = p100\n{VIRTUAL}")
        nodes.add("V100", f"gpu = v100\n{LOST}")
        nodes.add("L4", f"gpu = l4\n{VIRTUAL}")
        nodes.add("L4", f"gpu = l4\n{VIRTUAL}")
        hungry = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
        nodes.add("A10G", "gpu = NVIDIA A10G", environment=hungry)
        with session(nodes.address):
            yield nodes


@dataclass
class Story:
    """A sweep in which things break, as its rows tell it."""

    rows: list[Measurement] = field(default_factory=list)
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


def assert_nothing_is_left() -> None:
    """No placement, process or GPU in use; processes end, and GPUs come back, a little later."""
    import ray
    from ray.util import placement_group_table

    def in_use() -> float:
        present, free = ray.cluster_resources()["GPU"], ray.available_resources()["GPU"]
        return float(present - free)

    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
    deadline = time.monotonic() + 60
    while (raylets.measuring_processes() or in_use()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert raylets.measuring_processes() == []
    assert in_use() == 0


def where(row: Measurement) -> Placement:
    return row.placement or Placement("", "", 0)


@pytest.fixture(scope="module")
def story(cluster: raylets.Raylets) -> Story:
    """One sweep, in which a process, two GPUs and a raylet are lost and a node lacks memory."""
    told = Story()
    settle = driver._Sweep._settle

    def watched(self, block, row, of_the_cluster):  # type: ignore[no-untyped-def]
        if of_the_cluster:
            now, kind = time.monotonic(), row.cell.gpu_type
            told.noticed.setdefault(kind, now - told.broke.get(kind, now))
        return settle(self, block, row, of_the_cluster)

    matrix = a_matrix(TINY, precisions=("fp32", "bf16"))
    matrix = replace(matrix, sampling=QUICK, gpu_types=TYPES, exclude=EXCLUDED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver._Sweep, "_settle", watched)
        for event in driver.sweep("test/run", matrix, (), simulated=True):
            kind = event.cell.gpu_type
            if isinstance(event, Measurement):
                told.rows.append(event)
            elif event.name == "latency" and kind not in told.broke:
                # Of the T4, the second cell: the first says which GPU it was.
                if kind == "T4" and told.of("T4"):
                    pid, _ = cluster.measuring(kind)
                    told.broke[kind] = time.monotonic()
                    os.kill(pid, signal.SIGKILL)
                if kind == "L4":
                    _, node = cluster.measuring(kind)
                    told.broke[kind] = time.monotonic()
                    cluster.kill(node)
    return told


def test_no_row_is_lost_and_none_doubled(story: Story) -> None:
    every = {Cell(kind, precision) for kind in TYPES for precision in ("fp32", "bf16")}
    assert collections.Counter(m.cell for m in story.rows) == dict.fromkeys(
        every.difference(EXCLUDED), 1
    )


def test_a_killed_process_is_tried_again_on_another_gpu(story: Story) -> None:
    first, second = story.of("T4")
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert (where(first).attempt, where(second).attempt) == (1, 2)
    assert "the process died in stage latency" in where(second).earlier[0]
    assert first.device is not None
    assert second.device is not None
    assert {first.device.uuid, second.device.uuid} == {"GPU-T4-0-0", "GPU-T4-0-1"}
    story.record("process killed", "T4")


def test_a_lost_gpu_is_left_alone_and_the_rest_comes_onto_another(story: Story) -> None:
    first, second = story.of("P100")
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert where(first).attempt == 2
    assert "LOST: " in where(first).earlier[0]
    assert where(second).attempt == 1
    for row in (first, second):
        assert row.device is not None
        assert row.device.uuid == "GPU-P100-1-1"  # paired: both on what was left
    story.record("GPU lost", "P100")


def test_without_another_gpu_the_lost_one_is_the_reason(story: Story) -> None:
    first, second = story.of("V100")
    assert (first.outcome, second.outcome) == (Outcome.LOST, Outcome.UNPLACED)
    assert "no other attempt: the last V100 of the cluster was lost" in str(first.reason)
    assert where(first).attempt == 1
    assert "the last V100 of the cluster was lost" in str(second.reason)


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


def test_an_absent_type_is_unplaced(story: Story) -> None:
    (row,) = story.of("H100")
    assert row.outcome == Outcome.UNPLACED
    assert "no H100 here" in str(row.reason)


def test_rows_say_what_shared_their_host(story: Story) -> None:
    first, _ = story.of("T4")
    assert any(name.startswith("P100 ") for name in where(first).neighbours)


def test_nothing_is_left_of_a_sweep(story: Story) -> None:
    assert_nothing_is_left()


def test_a_fault_of_the_cluster_while_evidence_is_gathered_costs_no_row_and_no_attempt(
    cluster: raylets.Raylets,
) -> None:
    cluster.add("L4", "gpu = l4")
    matrix = a_matrix(TINY, precisions=("fp32", "bf16"))
    sampling = replace(QUICK, profile=True, latency_min_s=0.1)
    matrix = replace(matrix, sampling=sampling, gpu_types=("T4", "L4"))
    told: dict[object, list[Measurement]] = {}
    broken: dict[str, object] = {}  # the row whose evidence was in work, by GPU type
    for event in driver.sweep("r", matrix, (), simulated=True):
        kind = event.cell.gpu_type
        if isinstance(event, Measurement):
            told.setdefault(event.key, []).append(event)
        elif event.name == "profile" and kind not in broken:
            broken[kind] = (event.cell, event.workload, event.replicate)
            pid, node = cluster.measuring(kind)
            if kind == "L4":
                cluster.kill(node)
            else:
                os.kill(pid, signal.SIGKILL)
    assert len(told) == 4
    assert len(broken) == 2
    for key, rows in told.items():
        assert {(m.outcome, where(m).attempt) for m in rows} == {(Outcome.OK, 1)}
        assert rows[0].trace is not None
        assert "the process ended before its evidence" in str(rows[0].kernels.reason)
        assert len(rows) == (1 if key in broken.values() else 2)
    for kind in broken:
        one, other = (rows[-1] for key, rows in told.items() if rows[0].cell.gpu_type == kind)
        assert one.device is not None
        assert other.device is not None
        assert one.device.uuid != other.device.uuid  # the rest went to another GPU
    assert_nothing_is_left()


def test_alone_on_a_host_types_take_turns(cluster: raylets.Raylets, story: Story) -> None:
    matrix = a_matrix(TINY, precisions=("fp32",), replicates=2)
    sampling = replace(QUICK, replicates=2)
    plan = replace(matrix.placement, exclusive="host")
    matrix = replace(matrix, sampling=sampling, gpu_types=("T4",), placement=plan)
    rows = [e for e in driver.sweep("r", matrix, (), simulated=True) if isinstance(e, Measurement)]
    assert [m.outcome for m in rows] == [Outcome.OK] * 2
    assert [where(m).neighbours for m in rows] == [(), ()]  # though the host has two GPUs


def test_without_the_option_a_gpu_cell_needs_cuda(cluster: raylets.Raylets, story: Story) -> None:
    matrix = replace(a_matrix(TINY), gpu_types=("T4",))
    (row,) = [e for e in driver.sweep("r", matrix, {CPU}) if isinstance(e, Measurement)]
    assert row.outcome == Outcome.UNSUPPORTED
    assert "torch" in str(row.reason)
