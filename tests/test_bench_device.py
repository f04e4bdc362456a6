"""bench.device: why torch has no GPU, what disturbs a measurement, and the names of CPUs."""

from __future__ import annotations

import platform
from collections.abc import Callable

import fakenvml
import pytest
import torch

from bench import errors
from bench.asked import Cell
from bench.device import acquire as device
from bench.device import nvml
from bench.errors import Unsupported
from bench.measured import Conditions

FakeNvml = Callable[..., fakenvml.FakeDriver]

# torch/csrc/cuda/Module.cpp and c10/cuda/CUDAFunctions.cpp
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update"
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"
BUSY = "CUDA error: all CUDA-capable devices are busy or unavailable"


@pytest.fixture
def cuda_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes torch one with CUDA whose initialisation fails with a text."""

    def says(text: str) -> None:
        def init() -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "init", init)

    return says


def acquire(gpu_type: str) -> device.Found:
    with nvml.driver() as driver:
        return device.acquire(Cell(gpu_type, "fp32"), driver)


@pytest.mark.parametrize("gpu_type", ["P100", "H100"])  # the build of an H100 needs a new one
@pytest.mark.parametrize("text", [TOO_OLD, NO_DRIVER])
def test_a_driver_that_is_too_old_or_absent_is_unsupported_with_the_build_to_install(
    cuda_says: Callable[[str], None], text: str, gpu_type: str
) -> None:
    cuda_says(text)
    with pytest.raises(Unsupported, match=r"update the driver, or try: pip install 'torch<2\.15'"):
        acquire(gpu_type)


def test_any_other_reason_that_torch_has_no_gpu_is_torch_s_own(
    fake_nvml: FakeNvml, cuda_says: Callable[[str], None]
) -> None:
    fake_nvml("gpu = p100")
    cuda_says(BUSY)
    with pytest.raises(RuntimeError, match="busy or unavailable"):
        acquire("P100")


@pytest.mark.parametrize("visible", [None, "1", "GPU-second"])
def test_a_lost_gpu_is_why_torch_has_none(
    fake_nvml: FakeNvml,
    cuda_says: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
) -> None:
    index = 1 if visible else 0
    fake_nvml("gpu = p100", "gpu = p100", "uuid = GPU-second", f"fault = nvmlDevice*:{index}:15:0")
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cuda_says(BUSY)
    with pytest.raises(errors.GpuLostError):
        acquire("P100")


@pytest.mark.parametrize(
    ("seconds", "doubts"), [(None, []), (0.04, []), (0.16, ["clocks held down for 0.2 s"])]
)
def test_clocks_that_were_held_down_for_a_moment_are_no_doubt(
    seconds: float | None, doubts: list[str]
) -> None:
    assert device.doubts(Conditions(load_before=0.0, throttled_s=seconds)) == doubts


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (["processor : 0", "model name : AMD EPYC 7B13"], "AMD EPYC 7B13"),
        (["CPU implementer : 0x41", "CPU part : 0xd4f"], "aarch64 implementer 0x41 part 0xd4f"),
        ([], "aarch64"),
    ],
)
def test_a_cpu_has_a_name(monkeypatch: pytest.MonkeyPatch, lines: list[str], name: str) -> None:
    monkeypatch.setattr(device, "_cpuinfo", lambda: lines)
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert device.cpu_name() == name
