"""bench.device: why torch has no GPU, which one is given, what weakens a row, names of CPUs."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fakenvml
import pytest
import torch

from bench import errors
from bench.asked import CPU, Cell
from bench.device import acquire as device
from bench.device import conditions, cpu, nvml
from bench.errors import Unsupported, WrongDevice
from bench.measured import Conditions, Device

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


def test_clocks_that_were_throttled_for_a_moment_are_no_warning() -> None:
    for seconds in (None, 0.04):
        assert not conditions.warnings(Conditions(load_before=0.0, throttled_s=seconds))


def test_what_disturbed_a_measurement_is_a_warning() -> None:
    found = Conditions(
        load_before=0.0,
        other_cpu_share=0.07,
        other_processes=1,
        throttled_s=0.16,
        clocks_event_reasons=0x25,
    )
    assert [(warning.code, warning.values) for warning in conditions.warnings(found)] == [
        ("host-busy", {"share": 0.07}),
        ("gpu-shared", {"processes": 1}),
        ("throttled", {"causes": "power cap, software thermal", "seconds": 0.16}),
    ]


def test_what_surrounds_a_measurement_is_read_on_either_side(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1", "throttle = 24:0:5", "extra_pid = 4194000")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        fake.advance(1)
        before = conditions.observe(gpu)
        fake.advance(6)
        found = conditions.between(before, conditions.observe(gpu))
    # Both causes, a power cap and heat, lasted for the 4 s that were left of 5.
    assert found.throttled_s == pytest.approx(8)
    assert (found.sm_mhz_before, found.sm_mhz_after) == (690, 1380)
    assert (found.clocks_event_reasons, found.performance_state) == (1, 0)  # idle
    assert (found.pcie_generation, found.pcie_width, found.other_processes) == (3, 16, 1)
    assert found.temperature_c_before and found.temperature_c_after
    assert found.other_cpu_share is None or 0 <= found.other_cpu_share <= 1


def test_a_cpu_has_no_gpu_s_surroundings() -> None:
    found = conditions.between(conditions.observe(None), conditions.observe(None))
    assert (found.sm_mhz_after, found.throttled_s, found.other_processes) == (None, None, None)
    assert found.load_after is not None


def test_facts_and_the_inventory_are_had_without_torch() -> None:
    names = "conditions, cpu, gpus, kinds, nvml, software, support, visible"
    imports = f"import sys, bench.inventory\nfrom bench.device import {names}"
    program = f"{imports}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_gpu_of_another_type_is_found_out_before_torch_starts(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml("gpu = t4", "gpu = v100", "uuid = GPU-second")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # as Ray tells a process its GPU
    monkeypatch.delattr(torch.cuda, "init")
    with pytest.raises(WrongDevice) as caught:
        acquire("T4")
    assert (caught.value.given.uuid, caught.value.given.gpu_type) == ("GPU-second", "V100")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("CUDA error: no kernel image is available", r"has no kernels for GPU \(sm_60; it has"),
        ("CUBLAS_STATUS_NOT_SUPPORTED when calling", "cuBLAS has no fp32 on GPU"),
    ],
)
def test_a_gpu_without_kernels_or_products_is_unsupported(
    monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    def ones(*_: object, **__: object) -> None:
        raise RuntimeError(f"{text}\nmore")

    gpu = Device("GPU", "P100", "host", "CPU", 1, compute_capability="6.0")
    monkeypatch.setattr(device, "on_cpu", lambda *_: device.Found("cuda", gpu, None, ()))
    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(Unsupported, match=told):
        acquire(CPU)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name : AMD EPYC 7B13\n\nmodel name : other", "AMD EPYC 7B13"),
        ("CPU implementer : 0x41\nCPU part : 0xd4f", "aarch64 implementer 0x41 part 0xd4f"),
        ("", "aarch64"),
    ],
)
def test_a_cpu_has_a_name(monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: text)
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert cpu.name() == name
