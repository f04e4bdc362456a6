"""Sweeps on one machine with GPUs of two types, and on its own Ray."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fakenvml
import processes
import pytest
import sweeps
from sweeps import SAMPLING, rows_in, wait_for_rows

from bench.asked import CPU
from bench.measured import Measurement, Outcome

GPUS = {"P100": "GPU-P100-first", "T4": "GPU-T4-second"}
MATRIX = f"""
[cells]
gpu_types = ["P100", "T4", "CPU"]
precisions = ["fp32", "fp16"]

[[workloads]]
model = "tiny"
prompt_tokens = 32

[placement]
exclusive = "EXCLUSIVE"

[sampling]
replicates = 2
{SAMPLING}
[quality]
enabled = false
""".replace("latency_min_s = 0.3", "latency_min_s = 1")
ROWS = 3 * 2 * 2


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder, near enough to the root for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def surroundings(fakenvml_library: Path, temporary: Path) -> dict[str, str]:
    """The environment of a machine with a P100 that draws 40 W and a T4 that draws 11 W."""
    watts = {"P100": 40, "T4": 11}
    gpus = [
        f"gpu = {kind.lower()}\nuuid = {uuid}\nidle_w = {watts[kind]}\nenergy_update_ms = 20"
        for kind, uuid in GPUS.items()
    ]
    fake = fakenvml.environment(fakenvml_library, *gpus)
    own = {"TMPDIR": str(temporary), "PYTHONPATH": sweeps.TESTS}
    return processes.without_cache() | fake | own


def overlap(one: Measurement, other: Measurement) -> bool:
    """Whether two rows were measured at the same time."""
    assert one.started_at and one.finished_at and other.started_at and other.finished_at
    return one.started_at < other.finished_at and other.started_at < one.finished_at


@pytest.mark.parametrize(
    ("exclusive", "number"), [("gpu", signal.SIGKILL), ("host", signal.SIGTERM)]
)
def test_a_sweep_of_two_types_that_is_ended_in_the_middle_is_resumed(
    exclusive: str,
    number: signal.Signals,
    surroundings: dict[str, str],
    tmp_path: Path,
    temporary: Path,
) -> None:
    matrix = tmp_path / "mixed.toml"
    matrix.write_text(MATRIX.replace("EXCLUSIVE", exclusive))
    output = ("--simulated", "--output", tmp_path / "out")
    process = sweeps.start(sweeps.scripted("sweep", matrix, *output), surroundings)
    folder = wait_for_rows(tmp_path / "out", 3)
    # Of a head that is killed, Ray's agents look for 60 s; those of one node, too.
    agents = "Agent" if number == signal.SIGKILL else "no such name"
    below = [pid for pid in processes.family(process.pid) if not processes.runs(pid, agents)]
    assert sum(processes.runs(pid, "raylet/raylet") for pid in below) == 2
    process.send_signal(number)
    process.communicate(timeout=100)
    assert processes.ended(below)
    before = rows_in(folder)
    assert 3 <= len(before) < ROWS
    if number != signal.SIGKILL:
        assert list(temporary.iterdir()) == []

    resumed = sweeps.start(sweeps.scripted("sweep", "--resume", folder), surroundings)
    _, errors = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, errors
    rows = rows_in(folder / "results.parquet")
    assert len(rows) == ROWS
    assert all(rows[key] == row for key, row in before.items())
    for row in rows.values():
        assert (row.outcome, row.reason) == (Outcome.OK, None)
        assert row.device and row.placement
        assert (row.device.uuid, row.placement.attempt) == (GPUS.get(row.cell.gpu_type), 1)
        if row.cell.gpu_type == CPU:
            assert row.device.threads == os.cpu_count()
    pairs = [pair for pair in itertools.combinations(rows.values(), 2) if overlap(*pair)]
    together = {frozenset(row.cell.gpu_type for row in pair) for pair in pairs}
    # A CPU cell is alone on the machine, and no GPU is ever shared.
    assert together == ({frozenset(GPUS)} if exclusive == "gpu" else set())


def test_terminated_while_its_second_node_starts_a_sweep_ends_with_a_word_and_leaves_nothing(
    surroundings: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    matrix = tmp_path / "mixed.toml"
    matrix.write_text(MATRIX.replace("EXCLUSIVE", "gpu"))
    output = ("--simulated", "--output", tmp_path / "out")
    process = sweeps.start(sweeps.scripted("sweep", matrix, *output), surroundings)
    below: list[int] = []
    while sum(processes.runs(pid, "raylet/raylet") for pid in below) < 2:
        assert process.poll() is None
        below = processes.family(process.pid)
    process.send_signal(signal.SIGTERM)
    shown, errors = process.communicate(timeout=100)
    assert (process.returncode, shown) == (130, "")
    # Ray's own handler, which would end here too, writes a stack of C++.
    assert errors == "tensorgap: starting Ray ...\ntensorgap: interrupted\n"
    assert processes.ended(below)
    assert list(temporary.iterdir()) == []


def test_each_row_has_the_energy_of_its_own_gpu(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    matrix = tmp_path / "mixed.toml"
    short = MATRIX.replace("EXCLUSIVE", "gpu").replace("replicates = 2", "replicates = 1")
    longer = short.replace("energy_s = 0.05", "energy_s = 0.5")
    matrix.write_text(longer.replace("latency_min_s = 1", "latency_min_s = 0"))
    gpus = ("--gpu-type", "P100", "--gpu-type", "T4")
    output = ("--simulated", "--output", tmp_path / "out", *gpus)
    process = sweeps.start(sweeps.command("sweep", matrix, *output), surroundings)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    (parquet,) = tmp_path.glob("out/mixed/*/results.parquet")
    rows = rows_in(parquet).values()
    assert len(rows) == 4
    for row in rows:
        assert row.device and row.energy
        assert row.device.uuid == GPUS[row.cell.gpu_type]
        assert row.energy.mean_w == pytest.approx(
            {"P100": 40, "T4": 11}[row.cell.gpu_type], rel=0.1
        )
