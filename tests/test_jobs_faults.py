"""`tensorgap sweep` on a cluster of raylets: two at once, a driver killed, the head lost."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import faults_record
import pytest
import raylets
from test_jobs_sweep import rows_in, wait_for_rows

from bench.measured import Measurement, Outcome

MATRIX = """
[cells]
gpu_types = ["P100"]
precisions = ["fp32"]
[[workloads]]
model = "tiny"
prompt_tokens = 32
[sampling]
replicates = 2
warmup_min_s = 0
warmup_max_s = 0.1
latency_min_s = 0.3
latency_max_s = 0.5
min_samples = 11
throughput_s = 0.05
energy = "quick"
energy_s = 0.05
idle_s = 0
profile = false
[quality]
enabled = false
"""
ROWS = 2


@pytest.fixture(scope="module")
def cluster(fakenvml_library: Path) -> Iterator[raylets.Raylets]:
    """A cluster with one P100; this process is not connected to it."""
    with raylets.started(fakenvml_library) as nodes:
        nodes.add("P100", "gpu = p100")
        yield nodes


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(MATRIX)
    return path


def start(cluster: raylets.Raylets, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    """A sweep on the cluster, in a process of its own; `before` is run in it first."""
    code = f"import sys; from jobs.cli import main; {before}\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", code, "sweep", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--address", cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=cluster.environment,
    )


def overlap(one: Measurement, other: Measurement) -> bool:
    """Whether two rows were measured on one GPU at the same time."""
    same = one.device and other.device and one.device.uuid == other.device.uuid
    assert one.started_at and one.finished_at and other.started_at and other.finished_at
    return bool(same) and one.started_at < other.finished_at and other.started_at < one.finished_at


def test_a_plan_says_what_shares_a_gpu_and_what_has_no_place(
    cluster: raylets.Raylets, matrix: Path
) -> None:
    matrix.write_text(
        MATRIX.replace('"P100"', '"P100", "H100"').replace('"fp32"', '"fp32", "bf16"')
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "plan", str(matrix), "--address", cluster.address],
        capture_output=True,
        text=True,
        env=cluster.environment,
    )
    assert done.returncode == 1, done.stderr
    assert f"the cluster at {cluster.address} has 1 CPU, 1 P100" in done.stdout
    assert "UNPLACED: no H100 here" in done.stdout
    assert "paired: all precisions of a replicate on one GPU" in done.stdout
    assert "at once: 1 P100\n" in done.stdout
    assert "tried again after a lost process, GPU or node: once" in done.stdout
    assert "at the longest" in done.stdout


def test_two_sweeps_share_a_gpu_in_turns_and_a_killed_one_is_resumed(
    cluster: raylets.Raylets, matrix: Path, tmp_path: Path
) -> None:
    first = start(cluster, matrix, "--simulated", "--output", tmp_path / "a")
    second = start(cluster, matrix, "--simulated", "--output", tmp_path / "b")
    folder = wait_for_rows(tmp_path / "a", 1)
    first.kill()
    first.communicate(timeout=400)
    before = rows_in(folder)
    resumed = start(cluster, "--resume", folder)
    _, errors = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, errors
    _, errors = second.communicate(timeout=600)
    assert second.returncode == 0, errors

    ours = rows_in(folder / "results.parquet")
    theirs = rows_in(next(tmp_path.glob("b/short/*/results.parquet")))
    assert ours.keys() == theirs.keys()
    assert len(ours) == ROWS
    assert {m.outcome for m in (*ours.values(), *theirs.values())} == {Outcome.OK}
    assert all(m.device and m.device.simulated for m in ours.values())
    assert all(ours[key] == row for key, row in before.items())
    every = [*ours.values(), *theirs.values()]
    assert not [pair for pair in itertools.combinations(every, 2) if overlap(*pair)]
    faults_record.note("driver killed", None, "rows are kept; the resumed sweep measures the rest")


# In the sweep's own process: the head dies in the moment in which it is asked for the second place,
# so that Ray's own call waits for it. 2 s and not 20: the message is the same.
HEAD_DIES = """
import os
from cluster import driver, seats
driver._HEAD_LIMIT_S = driver._TURN_S = 2
ask, asked = seats.ask, []
def ask_in_vain(*arguments):
    asked.append(arguments)
    if len(asked) == 2:
        os.kill({head}, 9)
    return ask(*arguments)
seats.ask = ask_in_vain
"""


def test_a_head_that_is_lost_ends_the_sweep_with_what_it_has(
    cluster: raylets.Raylets, matrix: Path, tmp_path: Path
) -> None:
    before = HEAD_DIES.format(head=cluster.head_pid)
    sweep = start(cluster, matrix, "--simulated", "--output", tmp_path, before=before)
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
