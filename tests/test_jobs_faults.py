"""`tensorgap sweep` on a cluster: two at once, stopped, killed and resumed, the head lost."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import faults_record
import pytest
import raylets
from sweeps import SAMPLING, command, rows_in, scripted, start, wait_for_rows

from bench.measured import Measurement, Outcome

MATRIX = f"""
[cells]
gpu_types = ["P100"]
precisions = ["fp32"]
[[workloads]]
model = "tiny"
prompt_tokens = 32
[sampling]
replicates = 2
{SAMPLING}[quality]
enabled = false
"""
# What cannot all be done between a first row and what a test does then.
MANY = 6
LONG = MATRIX.replace("replicates = 2", f"replicates = {MANY}").replace("min_s = 0.3", "min_s = 2")


@pytest.fixture(scope="module")
def cluster(fakenvml_library: Path) -> Iterator[raylets.Raylets]:
    """A cluster with one P100, whose label is wrong; this process is not connected to it."""
    with raylets.started(fakenvml_library, num_cpus=1) as nodes:
        nodes.add("P100", "gpu = p100", label="L4")
        yield nodes


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(MATRIX)
    return path


def begin(cluster: raylets.Raylets, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    """A scripted sweep on the cluster, in a process of its own; `before` is run in it first."""
    # Quicker without the question who can write on the nodes, for which each starts a process.
    arguments = (*arguments, "--trust-local-users", "--address", cluster.address)
    given = scripted("sweep", *arguments, before=before)
    return start(given, cluster.environment)


def overlap(one: Measurement, other: Measurement) -> bool:
    """Whether two rows were measured on one GPU at the same time."""
    same = one.device and other.device and one.device.uuid == other.device.uuid
    assert one.started_at and one.finished_at and other.started_at and other.finished_at
    return bool(same) and one.started_at < other.finished_at and other.started_at < one.finished_at


def test_two_sweeps_share_a_gpu_in_turns_and_a_killed_one_is_resumed(
    cluster: raylets.Raylets, matrix: Path, tmp_path: Path
) -> None:
    matrix.write_text(LONG.replace(f"replicates = {MANY}", "replicates = 3"))
    first = begin(cluster, matrix, "--simulated", "--output", tmp_path / "a")
    second = begin(cluster, matrix, "--simulated", "--output", tmp_path / "b")
    folder = wait_for_rows(tmp_path / "a", 1)
    third = begin(cluster, "--resume", folder)
    _, errors = third.communicate(timeout=400)
    first.kill()
    first.communicate(timeout=400)
    assert third.returncode == 2
    assert "another sweep is writing here" in errors
    before = rows_in(folder)
    resumed = begin(cluster, "--resume", folder)
    _, errors = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, errors
    _, errors = second.communicate(timeout=600)
    assert second.returncode == 0, errors

    ours = rows_in(folder / "results.parquet")
    theirs = rows_in(next(tmp_path.glob("b/short/*/results.parquet")))
    assert ours.keys() == theirs.keys()
    assert len(ours) == 3
    assert {m.outcome for m in (*ours.values(), *theirs.values())} == {Outcome.OK}
    # With their times: they were not measured again.
    assert all(ours[key] == row for key, row in before.items())
    every = [*ours.values(), *theirs.values()]
    assert not [pair for pair in itertools.combinations(every, 2) if overlap(*pair)]
    faults_record.note("driver killed", None, "rows are kept; the resumed sweep measures the rest")


@pytest.mark.parametrize("numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_interrupted_twice_or_terminated_it_stops_and_keeps_its_rows(
    cluster: raylets.Raylets, matrix: Path, tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    matrix.write_text(LONG)
    process = begin(cluster, matrix, "--simulated", "--output", tmp_path)
    folder = wait_for_rows(tmp_path, 1)
    assert process.stderr is not None
    broke = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        if number != numbers[-1]:
            while "finishing" not in process.stderr.readline():
                pass
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 130, errors
    assert f"go on with: tensorgap sweep --resume {folder}" in errors
    assert "Traceback" not in errors
    assert 1 <= len(rows_in(folder / "results.parquet")) < MANY
    assert output.splitlines()[-1] == str(folder / "results.parquet")
    if len(numbers) == 2:
        took_s = time.monotonic() - broke
        faults_record.note("Ctrl-C twice", took_s, "what was measured before; exit code 130")


def test_plan_and_doctor_tell_of_places_and_of_wrong_labels_before_anything_starts(
    cluster: raylets.Raylets, matrix: Path
) -> None:
    matrix.write_text(
        MATRIX.replace('"P100"', '"P100", "L4", "H100"').replace('"fp32"', '"fp32", "bf16"')
    )
    shown = {}
    for given in (("plan", matrix), ("doctor",)):
        done = subprocess.run(
            command(*given, "--trust-local-users", "--address", cluster.address),
            capture_output=True,
            text=True,
            env=cluster.environment | {"HF_HUB_OFFLINE": "1"},
        )
        shown[given[0]] = done
    plan, doctor = shown["plan"], shown["doctor"]
    assert (plan.returncode, doctor.returncode) == (1, 0), plan.stderr + doctor.stderr
    assert f"the cluster at {cluster.address} has 1 CPU, 1 P100\n" in plan.stdout
    assert "UNPLACED: no H100 here" in plan.stdout
    assert "UNPLACED: no L4 here" in plan.stdout
    assert "paired: all precisions of a replicate on one GPU" in plan.stdout
    assert "at once: 1 P100\n" in plan.stdout
    assert "tried again after a lost process, GPU or node: once" in plan.stdout
    assert "at most about" in plan.stdout
    for done in (plan, doctor):
        assert (
            " is labelled L4, but its driver has Tesla P100-PCIE-16GB: measured as P100"
            in done.stdout
        )


# In the sweep's own process: the head dies in the moment in which it is asked whether anyone waits
# for the GPU, so that Ray's own call waits for it. 2 s and not 20: the message is the same.
HEAD_DIES = """
import os
from cluster import head, lease
head.LIMIT_S = head.TURN_S = 2
ask = lease.anything_waits
def ask_in_vain():
    os.kill({head}, 9)
    return ask()
lease.anything_waits = ask_in_vain
"""


def test_a_head_that_is_lost_ends_the_sweep_with_what_it_has(
    cluster: raylets.Raylets, matrix: Path, tmp_path: Path
) -> None:
    before = HEAD_DIES.format(head=cluster.head_pid)
    sweep = begin(cluster, matrix, "--simulated", "--output", tmp_path, before=before)
    folder = wait_for_rows(tmp_path, 1)
    broke = time.monotonic()
    output, errors = sweep.communicate(timeout=400)
    noticed_s = time.monotonic() - broke
    assert sweep.returncode == 130, errors
    assert "Ray's head has not answered for 2 s" in errors
    assert f"go on with: tensorgap sweep --resume {folder}" in errors
    assert "Traceback" not in errors
    assert len(rows_in(folder / "results.parquet")) == 1
    assert output.splitlines()[-1] == str(folder / "results.parquet")
    text = "what was measured before; exit code 130 (the limit is 2 s in the test, 20 s else)"
    faults_record.note("head lost", noticed_s, text)
