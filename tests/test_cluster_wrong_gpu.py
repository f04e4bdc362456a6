"""Nodes whose labels are wrong, or that have GPUs of two types, over real raylets."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import raylets
from test_cluster_driver import TINY, a_matrix
from test_cluster_faults import QUICK, VIRTUAL, assert_nothing_is_left, where
from test_jobs_faults import MATRIX

from bench.asked import Matrix, PlacementPlan
from bench.measured import TRIED_AGAIN, Measurement, Outcome, Stage
from cluster import driver, nodes, placement
from cluster.session import session

SHORT = replace(QUICK, latency_min_s=0.1, latency_max_s=0.2)
GIB_40, GIB_80 = f"gpu = a100\nmem_gib = 40\n{VIRTUAL}", f"gpu = a100\nmem_gib = 80\n{VIRTUAL}"
T4, V100, P100, H100 = (f"gpu = {n}\n{VIRTUAL}" for n in ("t4", "v100", "p100", "h100"))
ABSENT = "L4"


@pytest.fixture(scope="module")
def cluster(fakenvml_library: Path) -> Iterator[raylets.Raylets]:
    """Six nodes: a third have a wrong label, a third GPUs of two kinds."""
    with raylets.started(fakenvml_library) as started:
        started.add("T4", T4)
        started.add("V100", V100, label="T4")
        started.add("mixed", T4, V100, label="T4")
        started.add("A100", GIB_40, GIB_80)
        started.add("P100", P100, label=ABSENT)
        started.add("V100", V100)
        with session(started.address):
            yield started


def a_sweep(*gpu_types: str, replicates: int = 1) -> Matrix:
    # A busy machine may kill a process, which is not what is tested here.
    plan = PlacementPlan(retries=3)
    matrix = replace(a_matrix(TINY), gpu_types=gpu_types, placement=plan)
    return replace(matrix, sampling=replace(SHORT, replicates=replicates))


def rows(matrix: Matrix) -> tuple[list[Measurement], list[Stage]]:
    events = list(driver.sweep("r", matrix, (), simulated=True))
    found = [event for event in events if isinstance(event, Measurement)]
    return found, [event for event in events if isinstance(event, Stage)]


def test_every_row_that_a_true_gpu_could_give_is_ok_where_a_third_is_mislabelled(
    cluster: raylets.Raylets,
) -> None:
    types = ("T4", "V100", "A100-40G", "A100-80G", "P100", ABSENT)
    found, stages = rows(a_sweep(*types, replicates=2))
    assert len({row.key for row in found}) == len(found) == 2 * len(types)
    by_type = {name: [row for row in found if row.cell.gpu_type == name] for name in types}
    for row in by_type.pop(ABSENT):
        assert row.outcome == Outcome.UNPLACED
        assert (
            f"{socket.gethostname()} is labelled L4, but its driver has Tesla P100-PCIE-16GB:"
            " measured as P100"
        ) in str(row.reason)
    for name, measured in by_type.items():
        assert {row.outcome for row in measured} == {Outcome.OK}, [row.reason for row in measured]
        assert not [told for row in measured for told in where(row).earlier if "asked for" in told]
        assert {row.device.gpu_type for row in measured if row.device} == {name.split("-")[0]}
    for name, memory_gib in (("A100-40G", 40), ("A100-80G", 80)):
        memories = {row.device.memory_bytes for row in by_type[name] if row.device}
        assert memories == {memory_gib * 2**30}
    again = [stage.host for stage in stages if stage.name == TRIED_AGAIN]
    assert not [why for why in again if "asked for" in why]  # the drivers told it before
    assert_nothing_is_left()


def test_what_stands_for_auto_is_what_the_drivers_have(cluster: raylets.Raylets) -> None:
    present, told = nodes.present()
    offers = placement.offers(present, told, ["A100"])
    assert driver.offers() == {name: o for name, o in offers.items() if name != "A100"}
    counts = {name: offer.devices for name, offer in offers.items() if offer.num_gpus}
    assert counts == {"T4": 2, "V100": 3, "P100": 1, "A100-40G": 1, "A100-80G": 1, "A100": 2}
    wrong = [str(node) for node in placement.mislabelled(present, told)]
    mend = "; to mend it: ray start --labels ray.io/accelerator-type"
    assert sorted(words.partition(" is labelled ")[2] for words in wrong) == [
        f"L4, but its driver has Tesla P100-PCIE-16GB: measured as P100{mend}=P100",
        "T4, but its driver has Tesla T4, Tesla V100-SXM2-16GB: measured as T4, V100",
        f"T4, but its driver has Tesla V100-SXM2-16GB: measured as V100{mend}=V100",
    ]


def shown(cluster: raylets.Raylets, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments, "--address", cluster.address],
        capture_output=True,
        text=True,
        env=cluster.environment | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_plan_and_doctor_tell_of_a_wrong_label_before_anything_starts(
    cluster: raylets.Raylets, tmp_path: Path
) -> None:
    matrix = tmp_path / "m.toml"
    matrix.write_text(MATRIX.replace('"P100"', '"T4", "A100-80G", "L4"'))
    warning = f"warning: {socket.gethostname()} is labelled T4, but its driver has Tesla V100"
    planned = shown(cluster, "plan", str(matrix))
    assert "has 1 A100-40G, 1 A100-80G, 1 CPU, 1 P100, 2 T4, 3 V100\n" in planned
    assert warning in planned
    assert "at once: 2 T4, 1 A100-80G" in planned
    assert "UNPLACED: no L4 here" in planned
    assert warning in shown(cluster, "doctor")


def test_a_wrong_gpu_that_only_its_process_could_find_costs_no_attempt_and_no_row(
    cluster: raylets.Raylets,
) -> None:
    # The driver has more than Ray gives away: what runs there is given the T4.
    cluster.add("hidden", T4, H100, label="H100", num_gpus=1)
    (row,), stages = rows(a_sweep("H100"))
    assert row.outcome == Outcome.UNPLACED
    assert "labelled H100, but its driver has Tesla T4: measured as T4" in str(row.reason)
    (again,) = [stage.host for stage in stages if stage.name == TRIED_AGAIN]
    assert f"found Tesla T4 (T4, 16 GiB) on {socket.gethostname()}: GPU-hidden-6-0" in again
    cluster.add("H100", H100)
    found, _ = rows(a_sweep("H100", replicates=2))
    assert [m.outcome for m in found] == [Outcome.OK] * 2
    assert {m.device.uuid for m in found if m.device} == {"GPU-H100-7-0"}
    assert_nothing_is_left()
