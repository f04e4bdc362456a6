"""What a GPU is called: one name, one compute capability."""

from __future__ import annotations

import pytest
from test_bench_gpus import DRIVER_NAMES

from bench.device import gpus, kinds
from bench.device.boards import GPUS, Board
from bench.device.kinds import Card

# By the driver's name: NVIDIA's numbers come again in later generations.
CAPABILITIES = {
    "Quadro RTX 3000": "7.5",
    "NVIDIA RTX 3000 Ada Generation Laptop GPU": "8.9",
    "Quadro RTX 4000": "7.5",
    "NVIDIA RTX 4000 Ada Generation": "8.9",
    "NVIDIA RTX 4000 SFF Ada Generation": "8.9",
    "Quadro RTX 5000": "7.5",
    "NVIDIA RTX 5000 Ada Generation": "8.9",
    "Quadro RTX 6000": "7.5",
    "NVIDIA RTX 6000 Ada Generation": "8.9",
    "GRID RTX6000-8Q": "7.5",
    "NVIDIA RTX6000-Ada-8Q": "8.9",
    "Quadro RTX 8000": "7.5",
    "NVIDIA RTX A4000": "8.6",
    "NVIDIA RTX A6000": "8.6",
    "NVIDIA RTX PRO 4000 Blackwell SFF Edition": "12.0",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "12.0",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "12.0",
    "Quadro M4000": "5.2",
    "Quadro P4000": "6.1",
    "Quadro P6000": "6.1",
    "Quadro GP100": "6.0",
    "Quadro GV100": "7.0",
    "Tesla P4": "6.1",
    "Tesla P40": "6.1",
    "Tesla T4": "7.5",
    "NVIDIA T4G": "7.5",
    "GRID T4-16Q": "7.5",
    "NVIDIA T400": "7.5",
    "NVIDIA T1000": "7.5",
    "NVIDIA A10": "8.6",
    "NVIDIA A10G": "8.6",
    "NVIDIA A100-SXM4-40GB": "8.0",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb": "8.0",
    "NVIDIA L4": "8.9",
    "NVIDIA L40": "8.9",
    "NVIDIA H100 PCIe": "9.0",
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb": "9.0",
    "NVIDIA GH200 480GB": "9.0",
    "NVIDIA B200": "10.0",
    "NVIDIA GB200": "10.0",
    "TITAN Xp": "6.1",
    "NVIDIA TITAN Xp": "6.1",
    "NVIDIA TITAN V": "7.0",
    "NVIDIA TITAN RTX": "7.5",
    "GeForce GTX 1080 Ti": "6.1",
    "NVIDIA GeForce RTX 2060": "7.5",
    "NVIDIA GeForce RTX 4090": "8.9",
}


def test_no_type_has_two_compute_capabilities() -> None:
    found: dict[str, set[str]] = {}
    for name, capability in CAPABILITIES.items():
        found.setdefault(kinds.gpu_type(name), set()).add(capability)
    assert {name: each for name, each in found.items() if len(each) > 1} == {}


@pytest.mark.parametrize(
    ("name", "gpu_type"),
    [
        ("Quadro RTX 6000", "RTX-6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX-4000-Ada"),
        ("NVIDIA RTX6000-Ada-8Q", "RTX6000-Ada"),
    ],
)
def test_the_ada_generation_is_a_type_of_its_own(name: str, gpu_type: str) -> None:
    assert kinds.gpu_type(name) == gpu_type
    assert Card(name, "GPU-1").is_a(gpu_type)
    assert Card(name, "GPU-1").is_a("RTX-6000") == (gpu_type == "RTX-6000")


@pytest.mark.parametrize("board", GPUS, ids=lambda gpu: gpu.name)
def test_the_facts_of_a_type_are_those_of_the_board_that_the_driver_names(
    board: Board,
) -> None:
    card = Card(DRIVER_NAMES[board.name], "GPU-1", int(board.memory_gb * 2**30))
    assert card.gpu_type == board.gpu_type
    assert gpus.capability_of(card.gpu_type) == board.capability
    finer = f"{board.gpu_type}-{board.memory_gb:.0f}G"
    assert card.is_a(finer)
    assert gpus.capability_of(finer) == board.capability


@pytest.mark.parametrize(
    ("asked", "is_one"),
    [("V100-32G", True), ("V100-16G", False), ("V100-0G", False), ("V100-sm70", True)],
)
def test_a_finer_type_is_one_of_memory_or_compute_capability(asked: str, is_one: bool) -> None:
    card = Card("Tesla V100-SXM2-32GB", "GPU-1", 32510 * 2**20, "7.0")
    assert card.is_a(asked) is is_one
    assert Card("Tesla V100-SXM2-32GB", "GPU-1").is_a(asked) is False  # not known


def test_sizes_that_one_word_covers_are_one_type() -> None:
    def t4(gib: float) -> Card:
        return Card("Tesla T4", f"GPU-{gib}", int(gib * 2**30), "7.5")

    assert kinds.told_apart([t4(15), t4(15.6), t4(16)]) == {"T4"}
    assert kinds.told_apart([t4(15), t4(16), t4(32)]) == {"T4-16G", "T4-32G"}
    # What one does not tell, none is told apart by.
    assert kinds.told_apart([t4(16), t4(32), Card("Tesla T4", "GPU-1")]) == {"T4"}
