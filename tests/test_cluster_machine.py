"""How a machine with GPUs of several types is divided; tests/hosts has sweeps on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given
from test_cluster_placement import CARDS

from bench import inventory
from bench.device.kinds import Card, told_apart
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
