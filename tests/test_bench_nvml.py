"""bench.device.nvml through pynvml itself, over a fake driver library: tests/fakenvml/README.md."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import fakenvml
import hypothesis
import hypothesis.strategies as st
import pynvml
import pytest
from ray._private.accelerators import nvidia_gpu

from bench import errors
from bench.device import kinds, nvml
from bench.energy import meter
from bench.errors import TensorgapError

FakeNvml = Callable[..., fakenvml.FakeDriver]

UUID = "GPU-fa4e0000-0000-4000-8000-000000000000"
SLICE_UUID = "MIG-fa4e0000-0000-5000-8000-000000000000"
GIB = 2**30

# From NVML or from vendors' lists: data centre, consumer, workstation, MIG, and odd ones.
NAMES = """\
Tesla P100-PCIE-16GB
Tesla P100-SXM2-16GB
Tesla P40
Tesla V100-SXM2-16GB
Tesla V100S-PCIE-32GB
Tesla T4
Tesla K80
Tesla M60
NVIDIA A10
NVIDIA A10G
NVIDIA A100-SXM4-40GB
NVIDIA A100-SXM4-40GB MIG 1g.5gb
NVIDIA A100 80GB PCIe
NVIDIA A30
NVIDIA L4
NVIDIA L40S
NVIDIA H100 PCIe
NVIDIA H100 80GB HBM3
NVIDIA H200
NVIDIA H200 NVL
NVIDIA GH200 480GB
NVIDIA B200
NVIDIA GB200
NVIDIA TITAN RTX
TITAN Xp
Quadro RTX 8000
NVIDIA RTX A6000
NVIDIA RTX 6000 Ada Generation
NVIDIA RTX PRO 6000 Blackwell Server Edition
NVIDIA GeForce RTX 4090
GeForce GTX 1080 Ti
NVIDIA GeForce RTX 3080 Laptop GPU
NVIDIA Graphics Device
GRID T4-16Q
Orin (nvgpu)
NVIDIA
X 4
""".splitlines()


def rays_type(name: str) -> str | None:
    manager: Any = nvidia_gpu.NvidiaGPUAcceleratorManager
    found: str | None = manager._gpu_name_to_accelerator_type(name)
    return found


# ------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_type_is_what_ray_calls_it(name: str) -> None:
    assert kinds.rays_label(name) == rays_type(name)
    assert kinds.gpu_type(name) == f"{rays_type(name)}{'-Ada' if 'Ada' in name else ''}"


@hypothesis.given(
    st.lists(
        st.sampled_from(["NVIDIA", "Tesla", "GeForce", "RTX", "PRO", "A", "A100", "H100-80GB", "4"])
        | st.text("aA1 -", max_size=5),
        max_size=5,
    ).map(" ".join)
)
def test_every_gpu_type_is_what_ray_calls_it(name: str) -> None:
    # Ray gives None to a name with nothing in it, which no driver reports.
    assert (kinds.rays_label(name) or None) == rays_type(name)
    assert kinds.gpu_type(name) == kinds.rays_label(name)  # but for Ada


# ----------------------------------------------------------------------------------- driver


def test_importing_does_not_open_the_driver() -> None:
    program = "import bench.device.nvml, pynvml; assert pynvml.nvmlLib is None"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


def test_a_machine_without_a_driver_has_no_gpus_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", load)
    with nvml.driver() as driver:
        assert driver == nvml.Driver(reason="no NVIDIA driver on this machine")
        assert driver.gpus() == ()
        with pytest.raises(TensorgapError, match="no NVIDIA driver on this machine"):
            driver.gpu(UUID)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (4, "permissions of /dev/nvidia"),
        (9, "installed but not loaded"),
        (18, "reboot"),
        (999, "does not answer: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_open_says_why(fake_nvml: FakeNvml, code: int, reason: str) -> None:
    fake_nvml("gpu = a100", f"fault = nvmlInit*:-1:{code}:0")
    with nvml.driver() as driver:
        assert driver.reason is not None
        assert reason in driver.reason
        assert driver.gpus() == ()


def test_an_open_driver_gives_its_versions(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100", "driver = 580.1.2")
    with nvml.driver() as driver:
        assert (driver.version, driver.nvml_version) == ("580.1.2", "12.580.1.2")
        assert driver.reason is None


def test_the_driver_is_closed_after_its_block(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        gpu.power_w()


def test_a_new_process_finds_the_library_as_it_finds_the_real_one(fakenvml_library: Path) -> None:
    program = (
        "from bench.device.nvml import driver\n"
        "with driver() as opened: print([gpu.name for gpu in opened.gpus()])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=os.environ | fakenvml.environment(fakenvml_library, "gpu = p100", "gpu = h200"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed == "['Tesla P100-PCIE-16GB', 'NVIDIA H200']\n"


# ------------------------------------------------------------------------------- finding one


@pytest.mark.parametrize("uuid", [UUID, UUID.removeprefix("GPU-")])
def test_a_gpu_is_found_by_its_uuid(fake_nvml: FakeNvml, uuid: str) -> None:
    fake_nvml("gpu = t4", "uuid = GPU-other", "gpu = a100", f"uuid = {UUID}")
    with nvml.driver() as driver:
        gpu = driver.gpu(uuid)
        assert (gpu.gpu_type, gpu.uuid, gpu.pci_bus_id) == ("A100", UUID, "00000000:02:00.0")


def test_an_unknown_uuid_is_named(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100")
    with (
        nvml.driver() as driver,
        pytest.raises(TensorgapError, match=r"no GPU 12-34 \(Not Found\)"),
    ):
        driver.gpu("12-34")


def test_a_gpu_is_found_by_its_index(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = t4", "gpu = a100")
    with nvml.driver() as driver:
        assert [driver.gpu(index).gpu_type for index in ("0", "1")] == ["T4", "A100"]
        with pytest.raises(TensorgapError, match=r"no GPU 2 \(Invalid Argument\)"):
            driver.gpu("2")


def test_withheld_gpus_are_left_out(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = t4", "gpu = a100", "fault = nvmlDeviceGetHandleByIndex_v2:0:4:0")
    with nvml.driver() as driver:
        assert [gpu.gpu_type for gpu in driver.gpus()] == ["A100"]


# ---------------------------------------------------------------------------- what one tells


@pytest.mark.parametrize(
    ("preset", "gpu_type", "compute_capability", "gib", "limit_w", "counter", "mig"),
    [
        ("p100", "P100", "6.0", 16, 250, False, None),
        ("p40", "P40", "6.1", 24, 250, False, None),
        ("v100", "V100", "7.0", 16, 300, True, None),
        ("t4", "T4", "7.5", 16, 70, True, None),
        ("a100", "A100", "8.0", 40, 400, True, False),
        ("l4", "L4", "8.9", 24, 72, True, None),
        ("h100", "H100", "9.0", 80, 350, True, False),
        ("h200", "H200", "9.0", 141, 700, True, False),
    ],
)
def test_each_generation_tells_what_it_has(
    fake_nvml: FakeNvml,
    preset: str,
    gpu_type: str,
    compute_capability: str,
    gib: int,
    limit_w: float,
    counter: bool,
    mig: bool | None,
) -> None:
    fake_nvml(f"gpu = {preset}", "virtual = 1")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert (gpu.gpu_type, gpu.compute_capability) == (gpu_type, compute_capability)
        assert (gpu.memory_bytes, gpu.power_limit_w) == (gib * GIB, limit_w)
        assert (gpu.total_energy_j() is not None) is counter
        assert gpu.mig is mig
        assert (gpu.vgpu, gpu.ecc, gpu.persistence) == (False, True, True)
        assert (gpu.default_power_limit_w, gpu.max_sm_mhz) == (limit_w, 1380)
        assert (gpu.serial, gpu.vbios) == ("1320000000000", "88.00.41.00.0D")
        assert (gpu.performance_state(), gpu.module) == (0, False)
        assert (gpu.pcie_generation(), gpu.pcie_width()) == (
            {"8": 4, "9": 5}.get(compute_capability[0], 3),
            16,
        )
        assert gpu.instant_power_w() is not None
        assert ("total_energy_j" in gpu.reasons) is not counter
        assert ("mig" in gpu.reasons) is (mig is None)


def test_units_are_si(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1", "noise_w = 0", "sm_mhz = 1380", "mem_mhz = 877")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        before_j = gpu.total_energy_j()
        fake.set_power(250)
        fake.advance(20)
        after_j = gpu.total_energy_j()
        assert before_j is not None
        assert after_j is not None
        assert gpu.power_w() == 250
        assert after_j - before_j == pytest.approx(250 * 20, abs=0.001)
        assert (gpu.sm_mhz(), gpu.memory_mhz()) == (1380, 877)
        # The fake heats by 0.1 C per W above its idle 42 W, beginning at 45 C.
        assert gpu.temperature_c() == int(45 + 0.1 * (250 - 42))


@pytest.mark.parametrize(
    ("function", "name", "code", "reason"),
    [
        ("GetPowerUsage", "power_w", 3, "Not Supported"),
        ("GetEnforcedPowerLimit", "power_limit_w", 3, "Not Supported"),
        ("GetEccMode", "ecc", 3, "Not Supported"),
        ("GetPersistenceMode", "persistence", 4, "Insufficient Permissions"),
        ("GetVirtualizationMode", "vgpu", 3, "Not Supported"),
        ("GetPowerManagementDefaultLimit", "default_power_limit_w", 3, "Not Supported"),
        ("GetMaxClockInfo", "max_sm_mhz", 3, "Not Supported"),
        ("GetCurrPcieLinkGeneration", "pcie_generation", 3, "Not Supported"),
        ("GetCurrPcieLinkWidth", "pcie_width", 13, "Function Not Found"),
        ("GetFieldValues", "instant_power_w", 13, "Function Not Found"),
        ("GetFieldValues", "memory_temperature_c", 3, "Not Supported"),
        ("GetClockInfo", "sm_mhz", 4, "Insufficient Permissions"),
        ("GetClockInfo", "memory_mhz", 999, "Unknown Error"),
        ("GetTemperature*", "temperature_c", 3, "Not Supported"),
        ("GetSerial", "serial", 3, "Not Supported"),
        ("GetVbiosVersion", "vbios", 4, "Insufficient Permissions"),
        ("GetPerformanceState", "performance_state", 3, "Not Supported"),
        ("GetCurrentClocks*", "clocks_event_reasons", 3, "Not Supported"),
        ("GetPowerUsage", "power_w", 10, "Timeout"),
    ],
)
def test_what_a_gpu_cannot_tell_is_none_with_the_reason(
    fake_nvml: FakeNvml, function: str, name: str, code: int, reason: str
) -> None:
    fake_nvml("gpu = a100", f"fault = nvmlDevice{function}:-1:{code}:0")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        value = getattr(gpu, name)
        assert (value() if callable(value) else value) is None
        assert gpu.reasons[name] == reason


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("GetTemperatureV", "temperature_c"),
        ("GetCurrentClocksEventReasons", "clocks_event_reasons"),
        ("GetTotalEnergyConsumption", "total_energy_j"),
        ("GetFieldValues", "throttled_s"),
    ],
)
def test_an_older_driver_is_asked_in_its_own_words(
    fake_nvml: FakeNvml, function: str, name: str
) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1", "throttle = 4:0:100")
    fake.set_power(200)
    fake.advance(10)
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        expected = getattr(gpu, name)()
        if name == "throttled_s":  # The older call knows neither kind of heat apart.
            expected = {"power cap": 10, "heat": 0, "sync boost": 0}
        fake.fault(f"nvmlDevice{function}:-1:13:0")
        assert getattr(gpu, name)() == expected is not None
        assert name not in gpu.reasons


def test_each_cause_that_throttles_the_clocks_is_timed(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1", "throttle = 24:2:5")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        fake.advance(4)
        throttled_s = gpu.throttled_s()
        # 0x4 and 0x20: power cap and heat by software, for 2 of these 4 s.
        assert throttled_s == pytest.approx(
            {
                "power cap": 2,
                "sync boost": 0,
                "software thermal": 2,
                "hardware thermal": 0,
                "power brake": 0,
            }
        )
        fake.advance(6)
        assert gpu.throttled_s() == pytest.approx({c: s and 3 for c, s in throttled_s.items()})


@pytest.mark.parametrize(
    ("version", "instant", "heat"),
    [
        ("470.82.01", False, {"heat"}),
        ("510.47.03", False, {"heat"}),
        ("530.30.02", True, {"heat"}),
        ("550.54.15", True, {"heat"}),
        ("580.65.06", True, {"software thermal", "hardware thermal", "power brake"}),
    ],
)
def test_every_driver_from_470_on_tells_what_it_knows(
    fake_nvml: FakeNvml, version: str, instant: bool, heat: set[str]
) -> None:
    fake = fake_nvml("gpu = a100", "virtual = 1", f"driver = {version}", "extra_pid = 4194000")
    fake.set_power(200)
    fake.advance(10)
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert (gpu.instant_power_w() is not None) is instant
        assert set(gpu.throttled_s() or ()) == {"power cap", "sync boost"} | heat
        for ask in (gpu.power_w, gpu.total_energy_j, gpu.temperature_c, gpu.clocks_event_reasons):
            assert ask() is not None
        assert gpu.foreign_processes({os.getpid()}) == (4194000,)


@pytest.mark.parametrize(
    ("driver", "mean_of_1_s"), [("525.60.13", True), ("530.30.02", False), ("580.65.06", True)]
)
def test_adas_usage_is_as_its_driver_gives_it(
    fake_nvml: FakeNvml, driver: str, mean_of_1_s: bool
) -> None:
    fake = fake_nvml("gpu = l4", "virtual = 1", f"driver = {driver}", "noise_w = 0", "idle_w = 16")
    fake.advance(2)
    fake.set_power(66)
    fake.advance(0.5)
    with nvml.driver() as opened:
        watts = opened.gpus()[0].power_w()
    assert watts == pytest.approx(16 + 50 * 0.5 if mean_of_1_s else 66, abs=5)


def test_the_simulation_says_that_it_is_one(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100")
    with nvml.driver() as driver:
        assert driver.simulated


def test_pynvml_and_the_fake_agree_on_the_structs() -> None:
    # The fake asserts the same sizes when it is compiled.
    sizes = {
        pynvml.c_nvmlFieldValue_t: 40,
        pynvml.c_nvmlProcessInfo_v3_t: 24,
        pynvml.nvmlPciInfo_t: 68,
        pynvml.c_nvmlMemory_v2_t: 40,
        pynvml.c_nvmlTemperature_v1_t: 12,
        pynvml.c_nvmlViolationTime_t: 16,
    }
    assert {kind: ctypes.sizeof(kind) for kind in sizes} == sizes
    value = pynvml.c_nvmlFieldValue_t
    assert (value.valueType.offset, value.nvmlReturn.offset, value.value.offset) == (24, 28, 32)


def test_grace_hopper_is_one_module_with_its_cpu(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = gh200")
    with nvml.driver() as driver:
        assert driver.gpus()[0].module


def test_a_module_that_draws_0_w_is_none(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = gh200", "module_w = 1e-6", "idle_w = 0", "noise_w = 0")
    with nvml.driver() as driver:
        gpu = driver.gpus()[0]
        assert (gpu.module, gpu.reasons.get("module")) == (False, None)


@pytest.mark.parametrize("preset", ["t4", "a100", "h100"])
def test_a_board_is_no_module_because_it_answers_as_one(fake_nvml: FakeNvml, preset: str) -> None:
    fake_nvml(f"gpu = {preset}", "module_w = 100")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert gpu.module is False
        found = meter.find_meter(gpu)
        assert isinstance(found, meter.Meter)
        assert (found.method, found.reason) == ("counter", None)


# What nvidia-ml-py 11.525 lacks; 12.560 has all but the last.
OLD = (
    "NVML_ERROR_NOT_READY",
    "NVML_POWER_SCOPE_MODULE",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetTemperatureV",
)


def test_an_old_nvidia_ml_py_is_asked_what_it_knows(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml("gpu = gh200")
    for name in (*OLD, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetSerial"):
        monkeypatch.delattr(pynvml, name)
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert gpu.temperature_c() is not None
        assert gpu.clocks_event_reasons() is not None
        assert gpu.foreign_processes(()) is not None
        assert (gpu.serial, gpu.module) == (None, True)
        version = metadata.version("nvidia-ml-py")
        assert gpu.reasons["serial"] == f"nvidia-ml-py {version} lacks nvmlDeviceGetSerial"


def test_an_old_nvidia_ml_py_is_imported() -> None:
    code = f"import pynvml\nfor name in {OLD}: delattr(pynvml, name)\nimport bench.device.nvml"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_mistake_of_ours_is_none_of_nvidia_ml_py(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml("gpu = t4")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetSerial", lambda handle: handle.no_such_attribute)
    with nvml.driver() as driver, pytest.raises(AttributeError, match="no_such_attribute"):
        print(driver.gpus()[0].serial)


def test_an_unknown_performance_state_is_none(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = t4", "pstate = 32")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert gpu.performance_state() is None
        assert gpu.reasons["performance_state"] == "the driver does not know it"


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["computes", "draws", "MPS"])
@pytest.mark.parametrize("driver", ["470.82.01", "580.65.06"])
def test_a_foreign_process_is_seen_whatever_it_does(
    fake_nvml: FakeNvml, kind: int, driver: str
) -> None:
    fake_nvml("gpu = a100", f"driver = {driver}", "extra_pid = 4194000", f"extra_kind = {kind}")
    with nvml.driver() as opened:
        assert opened.gpus()[0].foreign_processes({os.getpid()}) == (4194000,)


def test_an_unknown_error_after_an_answer_is_a_lost_gpu(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert gpu.power_w() is not None
        fake.fault("nvmlDeviceGetPowerUsage:-1:999:0:1e9:2")  # every second call
        assert gpu.power_w() is not None
        fake.fault("nvmlDeviceGetPowerUsage:-1:999:0")
        with pytest.raises(errors.GpuLostError, match="the driver failed, power_w: Unknown Error"):
            gpu.power_w()


def test_the_mask_of_the_clocks_passes_through(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1", "throttle = 24:0:5")
    fake.set_power(200)
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        fake.advance(1)
        # 0x4 and 0x20: power cap and heat, at which the fake halves its clock.
        assert (gpu.clocks_event_reasons(), gpu.sm_mhz()) == (0x24, 1380 / 2)
        fake.advance(5)
        assert (gpu.clocks_event_reasons(), gpu.sm_mhz()) == (0, 1380)


def test_what_passes_is_tried_again(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100", "virtual = 1", "noise_w = 0")
    fake.set_power(200)
    fake.advance(1)
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        for code in (10, 21, 27):
            fake.fault(f"nvmlDeviceGetPowerUsage:-1:{code}:0:1e9:2")  # every second call
        assert [gpu.power_w() for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("code", [15, 16])
def test_a_lost_gpu_is_an_error(fake_nvml: FakeNvml, code: int) -> None:
    fake = fake_nvml("gpu = a100")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        fake.fault(f"nvmlDevice*:-1:{code}:0")
        for ask in (gpu.power_w, gpu.total_energy_j, gpu.temperature_c, driver.gpus):
            with pytest.raises(errors.GpuLostError):
                ask()
        with pytest.raises(errors.GpuLostError):
            driver.gpu(UUID)


def test_foreign_processes_are_told_from_our_own(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100", "extra_pid = 4194000")
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        assert gpu.foreign_processes({os.getpid()}) == (4194000,)
        assert gpu.foreign_processes({os.getpid(), 4194000}) == ()


@pytest.mark.parametrize("others", [0, 1])
def test_a_container_that_sees_the_hosts_numbers_is_not_foreign_to_itself(
    fake_nvml: FakeNvml, others: int
) -> None:
    fake_nvml("gpu = a100", "extra_pid = 4194000" if others else "extra_pid = 0")
    number_in_the_container = 4194001  # the driver gives another, the host's
    with nvml.driver() as driver:
        (gpu,) = driver.gpus()
        foreign = gpu.foreign_processes({number_in_the_container})
        assert foreign is not None and len(foreign) == others


# -------------------------------------------------------------------------------------- MIG


@pytest.mark.parametrize("uuid", [SLICE_UUID, SLICE_UUID.removeprefix("MIG-")])
def test_a_mig_slice_has_its_own_memory_and_its_boards_telemetry(
    fake_nvml: FakeNvml, uuid: str
) -> None:
    fake = fake_nvml("gpu = a100", "mig = 1", "virtual = 1", "noise_w = 0")
    fake.set_power(300)
    fake.advance(1)
    with nvml.driver() as driver:
        gpu = driver.gpu(uuid)
        assert (gpu.uuid, gpu.mig) == (SLICE_UUID, True)
        assert (gpu.name, gpu.gpu_type) == ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A100")
        assert gpu.memory_bytes == 40 * GIB // 8
        assert (gpu.compute_capability, gpu.pci_bus_id) == ("8.0", "00000000:01:00.0")
        assert gpu.power_w() == 300


def test_a_gpu_cut_into_slices_says_so(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100", "mig = 1")
    with nvml.driver() as driver:
        assert driver.gpu(UUID).mig is True
