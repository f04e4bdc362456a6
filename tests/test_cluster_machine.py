"""A machine with GPUs of several types: how it is divided, and real sweeps on its own Ray."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fakenvml
import hypothesis.strategies as st
import processes
import pytest
import sweeps
from hypothesis import given
from sweeps import SAMPLING, rows_in, wait_for_rows
from test_cluster_placement import CARDS

from bench import inventory
from bench.asked import CPU
from bench.device.kinds import Card, told_apart
from bench.measured import Measurement, Outcome
from cluster import machine
from cluster.machine import Part
from cluster.placement import TYPE_LABEL

T4, L4 = Part("T4", ("GPU-1", "GPU-3"), first=True), Part("L4", ("GPU-2",), first=False)


# --------------------------------------------------------------------------------- the division


@given(st.lists(CARDS, max_size=8, unique_by=lambda card: card.uuid))
def test_every_gpu_is_in_exactly_one_node_that_bears_its_type(cards: list[Card]) -> None:
    parts = machine.divide(cards)
    if len(told_apart(cards)) < 2:
        assert parts == ()  # as Ray itself starts it
        return
    by_uuid = {card.uuid: card for card in cards}
    assert sorted(uuid for part in parts for uuid in part.uuids) == sorted(by_uuid)
    assert len({part.gpu_type for part in parts}) == len(parts)
    for part in parts:
        assert all(by_uuid[uuid].is_a(part.gpu_type) for uuid in part.uuids)
        # In the order of the machine's, by which the driver and Ray number them.
        assert list(part.uuids) == [card.uuid for card in cards if card.uuid in part.uuids]
    assert parts[0].uuids[0] == cards[0].uuid
    # The first has all CPUs of the machine, so that a CPU cell has them; the others enough.
    assert [part.num_cpus for part in parts] == [None, *(len(it.uuids) for it in parts[1:])]


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-a", None, "GPU-c", "GPU-d"]),
        ("3,0", ["GPU-d", "GPU-a"]),
        ("GPU-d,GPU-a", ["GPU-d", "GPU-a"]),
        ("1,2", [None, "GPU-c"]),  # the first is lost
        ("", []),
    ],
)
def test_gpus_are_numbered_as_ray_gives_them_away(
    visible: str | None,
    uuids: list[str | None],
    fake_nvml: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = "fault = nvmlDeviceGetHandleByIndex*:1:15:0"
    fake_nvml(*(f"gpu = t4\nuuid = GPU-{name}" for name in "abcd"), lost)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card and card.uuid for card in inventory.numbered_gpus()] == uuids


# ------------------------------------------------------------------- what is run on a GPU host


def options_of(command: Sequence[str]) -> dict[str, str]:
    """The options of `ray start`, of which the last of a name counts."""
    assert command[2:4] == ["ray.scripts.scripts", "start"]
    pairs = [option.removeprefix("--").partition("=") for option in command[4:]]
    return {name: value for name, _, value in pairs}


def test_a_machine_of_one_type_is_started_as_it_is_asked_for() -> None:
    asked = ["--address=head:6379", "--num-gpus", "2", "--block"]
    ((command, part),) = machine.commands(asked, ())
    assert (command[4:], part) == (asked, None)


def test_each_type_is_a_node_of_its_own_and_the_first_is_started_last() -> None:
    asked = ["--address=head:6379", "--num-cpus=16", "--labels=rack=7", "--block"]
    (other, second), (command, first) = machine.commands(asked, (T4, L4))
    assert (first, second) == (T4, L4)
    assert T4.environment == {"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-3"}
    mine, theirs = options_of(command), options_of(other)
    assert mine["address"] == theirs["address"] == "head:6379"
    assert (mine["num-cpus"], mine["num-gpus"]) == ("16", "2")
    assert (theirs["num-cpus"], theirs["num-gpus"]) == ("1", "1")
    assert mine["labels"] == f"rack=7,{TYPE_LABEL}=T4,{machine.NODES_LABEL}=2"
    assert theirs["labels"] == f"rack=7,{TYPE_LABEL}=L4,{machine.NODES_LABEL}=2"
    assert "block" in mine
    assert "block" not in theirs  # it would hold up the first


@given(st.integers(2, 8), st.integers(1024, 60_000), st.integers(100, 5_000))
def test_nodes_of_a_machine_have_no_port_in_common(number: int, lowest: int, ports: int) -> None:
    parts = [Part(f"type-{n}", (f"GPU-{n}",), first=n == 0) for n in range(number)]
    highest = lowest + ports - 1
    fixed = ["--node-manager-port=7000", f"--min-worker-port={lowest}"]
    found = machine.commands([*fixed, f"--max-worker-port={highest}"], parts)
    each = [options_of(command) for command, _ in found]
    spans = sorted((int(it["min-worker-port"]), int(it["max-worker-port"])) for it in each)
    assert all(lowest <= low <= high <= highest for low, high in spans)
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(spans))
    assert [it["node-manager-port"] for it in each] == ["0"] * (number - 1) + ["7000"]


@pytest.mark.parametrize("option", ["--head", "--num-gpus=1"])
def test_what_cannot_be_said_of_several_nodes_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        machine.commands(["--address=head:6379", option], (T4, L4))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"{option.partition('=')[0]}: this machine has GPUs of 2 types" in told
    assert "start that with ray start --head --num-cpus=0 --num-gpus=0" in told


# ---------------------------------------------------------------------------- sweeps on its own

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
