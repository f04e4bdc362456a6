"""tensorgap doctor: on a fleet of simulated GPUs, and without the driver of any."""

from __future__ import annotations

from collections.abc import Callable

import fakenvml
import pytest
import torch
from click.testing import CliRunner

from bench import inventory
from bench.asked import PRECISIONS
from bench.device import nvml
from bench.energy import probe as sensor
from jobs import doctor

FLEET = ("p100", "p40", "v100", "t4", "a100", "l4", "h100", "h200")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(doctor.command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def section(output: str, gpu_type: str) -> str:
    return output.partition(f"\n  {gpu_type}  ")[2].partition("\n  CPU  ")[0]


def test_a_fleet_of_every_generation(fake_nvml: Callable[..., fakenvml.FakeDriver]) -> None:
    fake_nvml(*(f"gpu = {preset}" for preset in FLEET), "driver = 580.65.06")
    output = shown()
    assert "NVIDIA driver  580.65.06  (simulated: no GPU here is real)" in output
    for preset in FLEET:
        assert f"  {preset.upper()}  " in output
    assert "energy      power" in section(output, "P100").split("P40")[0]
    assert "energy      counter" in section(output, "H200")
    assert "sensor" not in output  # a probe takes time, so it is made only if asked for


def test_what_is_the_same_is_said_once(
    fake_nvml: Callable[..., fakenvml.FakeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory.software, "installed", lambda name: "2.13.0+cpu")
    monkeypatch.setattr(inventory.support, "installed", lambda name: "0.18.0")
    fake_nvml("gpu = p100", "gpu = a100", "gpu = a100")
    output = shown()
    hint = f"unsupported {', '.join(PRECISIONS)}: torch 2.13.0+cpu has no CUDA; try: pip"
    assert output.count(hint) == output.count("has no CUDA") == 2
    assert "precisions  none" in section(output, "P100")
    assert "limit 400 W)  x 2\n" in section(output, "A100")


def test_a_gpu_cut_into_slices_says_why_it_has_no_energy(
    fake_nvml: Callable[..., fakenvml.FakeDriver],
) -> None:
    fake_nvml("gpu = a100", "mig = 1")
    assert "energy      none: NVML measures the energy of the whole GPU, which MIG" in shown()


@pytest.mark.parametrize(
    ("code", "words"),
    [(9, "installed but not loaded"), (4, "permissions of /dev/nvidia"), (18, "reboot")],
)
def test_a_driver_that_does_not_answer_says_why(
    fake_nvml: Callable[..., fakenvml.FakeDriver], code: int, words: str
) -> None:
    fake_nvml("gpu = a100", f"fault = nvmlInit*:-1:{code}:0")
    output = shown()
    assert "NVIDIA driver  none: " in output
    assert words in output


def test_a_machine_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def load(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", load)
    output = shown("--probe")
    assert "NVIDIA driver  none: no NVIDIA driver on this machine" in output
    assert "  CPU  " in output


def test_a_probe_shows_how_the_sensor_works(
    fake_nvml: Callable[..., fakenvml.FakeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_nvml("gpu = a100", "virtual = 1", "energy_sampled = 1")
    clock = fakenvml.VirtualClock(fake)
    load = fakenvml.Load(fake, clock, (0.01, 250.0))

    def probe(gpu: nvml.Gpu) -> object:
        return sensor.probe(gpu, load.busy, clock)

    monkeypatch.setattr(inventory, "probed", probe)  # no torch can load a GPU that is not there
    assert (
        "sensor      counter sampled, every 100 ms; instant readings every 100 ms,"
        " each the mean of 25 ms"
    ) in shown("--probe")


def test_a_gpu_that_torch_cannot_load_is_not_probed(
    fake_nvml: Callable[..., fakenvml.FakeDriver],
) -> None:
    fake_nvml("gpu = a100")
    assert "sensor      not probed: torch " in shown("--probe")


def test_why_torch_cannot_load_a_gpu_is_shown(
    fake_nvml: Callable[..., fakenvml.FakeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    fake_nvml("gpu = a100")
    monkeypatch.setattr(torch.cuda, "device_count", count)
    assert "sensor      not probed: CUDA error: no kernel image is available\n" in shown("--probe")


@pytest.mark.parametrize("function", ["nvmlDevice*", "nvmlDeviceGetMemoryInfo"])
def test_a_lost_gpu_is_listed_with_its_error(
    fake_nvml: Callable[..., fakenvml.FakeDriver], function: str
) -> None:
    fake_nvml("gpu = a100", "gpu = p100", f"fault = {function}:0:15:0")
    output = shown()
    assert "lost           GPU 0: GPU is lost" in output
    assert "P100" in output


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--address", "auto"], {}), ([], {"RAY_ADDRESS": "auto"})]
)
def test_only_this_machine_is_probed(arguments: list[str], environment: dict[str, str]) -> None:
    result = CliRunner().invoke(doctor.command, ["--probe", *arguments], env=environment)
    assert result.exit_code == 2
    assert "leave out --address (or unset RAY_ADDRESS)" in result.output
