from __future__ import annotations

import dataclasses

import pytest

from bench.device import gpus
from bench.device.boards import GPUS, LEAST_IDLE_W, Board

ABOUT = ("name", "sources")
DRIVER_NAMES = {
    "P100-PCIE": "Tesla P100-PCIE-16GB",
    "P100-SXM2": "Tesla P100-SXM2-16GB",
    "P40": "Tesla P40",
    "V100-PCIE": "Tesla V100-PCIE-32GB",
    "V100-SXM2": "Tesla V100-SXM2-16GB",
    "T4": "Tesla T4",
    "A10G": "NVIDIA A10G",
    "A100-PCIE-40GB": "NVIDIA A100-PCIE-40GB",
    "A100-PCIE-80GB": "NVIDIA A100 80GB PCIe",
    "A100-SXM-40GB": "NVIDIA A100-SXM4-40GB",
    "A100-SXM-80GB": "NVIDIA A100-SXM4-80GB",
    "L4": "NVIDIA L4",
    "H100-PCIE": "NVIDIA H100 PCIe",
    "H100-SXM": "NVIDIA H100 80GB HBM3",
    "H200": "NVIDIA H200",
    "B200": "NVIDIA B200",
    "M60": "Tesla M60",
    "P4": "Tesla P4",
    "TITAN-V": "NVIDIA TITAN V",
    "TITAN-RTX": "NVIDIA TITAN RTX",
    "A30": "NVIDIA A30",
    "A10": "NVIDIA A10",
    "A40": "NVIDIA A40",
    "RTX-A6000": "NVIDIA RTX A6000",
    "L40": "NVIDIA L40",
    "L40S": "NVIDIA L40S",
    "RTX-6000-Ada": "NVIDIA RTX 6000 Ada Generation",
    "GH200-480GB": "NVIDIA GH200 480GB",
    "GH200-144G-HBM3e": "NVIDIA GH200 144G HBM3e",
}
for board in GPUS:
    DRIVER_NAMES.setdefault(board.name, "NVIDIA " + board.name.replace("-", " "))


def test_every_value_has_a_source_and_every_source_a_value() -> None:
    for gpu in GPUS:
        names = {f.name for f in dataclasses.fields(gpu)} - set(ABOUT)
        assert gpu.sources[""]  # of every value without a source of its own
        assert set(gpu.sources) - {""} <= {n for n in names if getattr(gpu, n) is not None}


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_the_facts_of_a_board_agree_with_each_other(gpu: Board) -> None:
    low, high = gpu.idle_w or (LEAST_IDLE_W, LEAST_IDLE_W)
    assert LEAST_IDLE_W <= low <= high < gpu.tdp_w
    # NVML counts energy from Volta on, which is also the first with Tensor Cores; but for GTX 16.
    bare = gpu.gpu_type.startswith("GeForce-GTX-16")
    assert gpu.energy_counter == (gpu.tensor_cores is not None or bare)
    assert (gpu.fp16_tensor_tflops is not None) == (gpu.tensor_cores is not None)
    assert (gpu.bf16_tensor_tflops is not None) == (gpu.capability >= (8, 0))
    assert (gpu.tf32_tensor_tflops is not None) == (gpu.capability >= (8, 0))
    for precision in ("fp32", "fp16", "bf16", "mixed"):
        peak = gpus.peak_tflops(gpu, precision)
        assert peak is not None
        assert gpu.fp32_tflops <= peak <= gpus.hardware_peak_tflops(gpu, precision)


def test_the_driver_s_name_tells_the_board() -> None:
    assert {gpu.name for gpu in GPUS} == set(DRIVER_NAMES)
    for gpu in GPUS:
        assert gpus.boards(gpu.gpu_type, DRIVER_NAMES[gpu.name]) == (gpu,)


def test_all_boards_of_a_type_have_one_capability() -> None:
    for name, capability in gpus.COMPUTE_CAPABILITY.items():
        assert {gpu.capability for gpu in gpus.named(name)} == {capability}


def test_a_foreign_type_has_no_facts() -> None:
    assert gpus.boards("Z9", "NVIDIA Z9") == ()


def test_legacy_types_get_the_last_build_for_them() -> None:
    legacy = {g.gpu_type for g in GPUS if gpus.install_hint(g.capability) == gpus.LEGACY_INSTALL}
    assert legacy == {
        "P100", "P40", "V100", "M60", "P4", "TITAN-V", "GeForce-GTX-1050-Ti", "GeForce-GTX-1060",
        "GeForce-GTX-1070", "GeForce-GTX-1080", "GeForce-GTX-1080-Ti",
    }  # fmt: skip
    assert set(gpus.SENSOR_ERROR) <= set(gpus.COMPUTE_CAPABILITY)


@pytest.mark.parametrize(
    ("precision", "board", "kind", "peak"),
    [
        ("fp16", "P100-PCIE", "storage only", 9.3),  # not 18.7: PyTorch computes in float32
        ("mixed", "P40", "storage only", 11.8),
        ("bf16", "V100-SXM2", "emulated", 15.7),
        ("tf32", "T4", "absent", None),
        ("fp16", "T4", "tensor cores", 65),
        ("tf32", "A100-SXM-40GB", "tensor cores", 156),
        ("fp32", "H200", "native", 67),
        ("fp16", "GeForce-GTX-1650", "native", 5.97),
        ("int8", "GeForce-GTX-1650", "native", 5.97),
        ("int8-dynamic", "GeForce-GTX-1650", "absent", None),
        ("fp16", "GeForce-RTX-4090", "tensor cores", 330.3),
        ("fp16", "M60", "storage only", 4.83),
    ],
)
def test_what_a_precision_really_is(
    precision: str, board: str, kind: str, peak: float | None
) -> None:
    (gpu,) = gpus.named(board)
    found = gpus.arithmetic_on(gpu, precision)
    assert found.kind == kind
    assert found.text and found.source
    assert gpus.peak_tflops(gpu, precision) == peak
