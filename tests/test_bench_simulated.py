"""bench.measure: a CPU cell over a simulated GPU, from the driver to the row."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import fakenvml
import kept_rows
import pytest

from bench import errors, inventory, measure, outcomes, warnings
from bench.asked import CPU, Cell, QualityPlan, Sampling, Workload
from bench.device import nvml
from bench.energy import meter
from bench.energy import protocol as energy
from bench.errors import REAL_GPU
from bench.measured import Measurement, Outcome, Sensor, Stage
from bench.model import engines
from bench.warnings import RowWarning

FakeNvml = Callable[..., fakenvml.FakeDriver]

SAMPLING = Sampling(
    warmup_min_s=0,
    warmup_max_s=0.1,
    latency_min_s=0,
    latency_max_s=0.2,
    min_samples=5,
    throughput_s=0.05,
    energy="quick",
    energy_s=0.8,
    idle_s=0.3,
    profile=False,
)

ON_CPU = Cell(CPU, "fp32")
pytestmark = pytest.mark.usefixtures("one_thread", "frozen_heap")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SETTLE_S", 0.2)


def request_of(
    *workloads: Workload,
    sampling: Sampling = SAMPLING,
    cell: Cell = ON_CPU,
    simulated: bool = False,
    sensors: Mapping[tuple[str, str | None], Sensor] | None = None,
) -> outcomes.Request:
    return outcomes.Request(
        run="test/20261124T120000Z",
        cell=cell,
        replicate=0,
        workloads=workloads or (Workload("tiny", "eager", 1, 32),),
        sampling=sampling,
        quality=QualityPlan(enabled=False),
        known_sensors=sensors or {},
        simulated=simulated,
    )


def rows(*workloads: Workload, **asked: Any) -> list[Measurement]:
    events = measure.measure(request_of(*workloads, **asked))
    return [event for event in events if isinstance(event, Measurement)]


@pytest.mark.parametrize(("preset", "method"), [("p100", "power"), ("v100", "counter")])
def test_the_row_has_an_energy_and_says_that_it_is_simulated(
    fake_nvml: FakeNvml, preset: str, method: str
) -> None:
    fake_nvml(f"gpu = {preset}", "idle_w = 50")
    (row,) = rows()
    assert row.outcome is Outcome.OK
    assert row.device is not None
    assert row.device.simulated
    assert warnings.having(row.warnings, "simulated-meter")
    assert row.energy is not None
    assert row.energy.method == method
    # The fake draws its idle power whatever the CPU does.
    assert row.energy.mean_w == pytest.approx(50, rel=row.energy.uncertainty)
    assert row.energy.per_sample_mj
    assert row.conditions is not None
    assert (row.conditions.pcie_generation, row.conditions.throttled_s) == (3, 0)
    assert row.conditions.performance_state == 0
    (again,), _ = kept_rows.from_table(kept_rows.to_table([row], []), "test")
    assert again == row


def test_a_gpu_lost_in_the_window_keeps_the_times(fake_nvml: FakeNvml) -> None:
    fake = fake_nvml("gpu = v100")
    workloads = [Workload("tiny", "eager", 1, tokens) for tokens in (32, 64)]
    find_meter = meter.find_meter
    asked: list[object] = []

    def find(*args: object, **kwargs: object) -> object:
        asked.append(args)
        if len(asked) == 2:  # what follows is the energy
            fake.fault(f"nvmlDevice*:-1:15:{fake.elapsed() + 2}")
        return find_meter(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "find_meter", find)
        # The process is not trusted with the second workload.
        (row,) = rows(*workloads, sampling=dataclasses.replace(SAMPLING, energy_s=5))
    assert row.outcome is Outcome.LOST
    assert "lost" in (row.reason or "")
    assert row.timing is not None
    assert row.energy is not None
    assert row.energy.method == "counter"  # what there was of the window
    assert row.energy.idle_w is not None
    # A fresh process measures the rest; here, the same with a fresh driver.
    fake_nvml("gpu = v100")
    (other,) = rows(workloads[1])
    assert other.outcome is Outcome.OK


@pytest.mark.parametrize(("lost", "outcome"), [(True, Outcome.LOST), (False, Outcome.FAILED)])
@pytest.mark.parametrize("stage", ["loading", "warm-up"])
def test_torch_s_error_for_a_lost_gpu_is_told_from_any_other(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, stage: str, lost: bool, outcome: Outcome
) -> None:
    fake = fake_nvml("gpu = v100")

    def fail(*_: object) -> None:
        if lost:
            fake.fault("nvmlDevice*:-1:15:0")
        raise RuntimeError("CUDA error: unspecified launch failure")

    if stage == "loading":
        monkeypatch.setattr("bench.measure.load_model", fail)
    else:
        monkeypatch.setattr(engines, "forward", lambda *_: fail)
    (row,) = rows()
    assert row.outcome == outcome
    assert ("lost" in str(row.reason)) is lost


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: misaligned"), MemoryError()], ids=lambda e: type(e).__name__
)
def test_whatever_breaks_in_the_energy_leaves_the_times(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(measure, "measure_energy", fail)
    fake_nvml("gpu = v100")
    out_of_memory = isinstance(error, MemoryError)
    row, *others = rows(Workload("tiny", "eager", 1, 32), Workload("tiny", "eager", 1, 16))
    assert row.outcome is (Outcome.OUT_OF_MEMORY if out_of_memory else Outcome.FAILED)
    assert row.timing is not None
    assert row.energy is not None
    assert (row.energy.method, row.energy.reason) == ("none", row.reason)
    # A process in which CUDA failed is not trusted with the second workload.
    assert len(others) == out_of_memory


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("gpu = a100", "mig = 1"), "MIG slices share"),
        (("gpu = t4", "virtualization = 2", "energy = 0"), "virtual GPUs share"),
        (
            (
                "gpu = a100",
                "fault = nvmlDeviceGetTotalEnergyConsumption:-1:4:0",
                "fault = nvmlDeviceGetPowerUsage:-1:4:0",
                "fault = nvmlDeviceGetFieldValues:-1:4:0",
            ),
            "Insufficient Permissions",
        ),
    ],
)
def test_a_row_without_an_energy_has_the_reason(
    fake_nvml: FakeNvml, lines: tuple[str, ...], reason: str
) -> None:
    fake_nvml(*lines)
    (row,) = rows()
    assert row.outcome is Outcome.OK
    assert row.energy is not None
    assert row.energy.method == "none"
    assert reason in (row.energy.reason or "")
    assert row.energy.per_sample_mj is None


def test_a_probe_that_fails_is_a_warning_and_the_energy_is_re_phased(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: out of luck")

    monkeypatch.setattr(measure, "probe", fail)
    monkeypatch.setattr(energy, "RESTART_S", 0.1)
    fake_nvml("gpu = v100")
    (row,) = rows(sampling=dataclasses.replace(SAMPLING, energy="standard", energy_s=3))
    assert row.outcome is Outcome.OK
    reason = "the probe failed: RuntimeError: CUDA error: out of luck"
    assert row.sensor == Sensor("unknown", reason=reason)
    assert RowWarning("sensor-unknown", {"reason": reason}) in row.warnings
    assert row.energy is not None
    assert row.energy.method == "counter"
    # Whether the counter sees all is not known, so that the load was kept out of step with it.
    assert row.energy.discrepancy is not None


@pytest.mark.parametrize(("version", "stage"), [("580.65.06", "loading"), ("570.1", "sensor")])
def test_a_sensor_is_known_for_one_gpu_and_driver(
    fake_nvml: FakeNvml, version: str, stage: str
) -> None:
    fake_nvml("gpu = v100", "uuid = GPU-1", "driver = 580.65.06")
    sampling = dataclasses.replace(SAMPLING, energy="standard")
    known = {("GPU-1", version): Sensor("integrating", probe_s=20.0)}
    events = measure.measure(request_of(sampling=sampling, sensors=known))
    stages = [event.name for event in itertools.islice(events, 2) if isinstance(event, Stage)]
    assert stages == ["device", stage]


@pytest.mark.parametrize("line", ["mig = 1", "virtualization = 2"])
def test_a_sensor_whose_energy_is_not_told_is_not_probed(fake_nvml: FakeNvml, line: str) -> None:
    fake_nvml("gpu = a100", line)
    events = measure.measure(request_of(sampling=dataclasses.replace(SAMPLING, energy="standard")))
    stages = [event.name for event in itertools.islice(events, 2) if isinstance(event, Stage)]
    assert stages == ["device", "loading"]


def test_a_node_without_transformers_is_told_by_its_name() -> None:
    """No process measures there: what the import raises becomes the rows, in cluster.process."""
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from bench.outcomes import classify\n"
        "try: import bench.measure\n"
        "except ImportError as error: print(*classify(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("FAILED ModuleNotFoundError: ")
    assert "transformers" in done.stdout


def test_a_driver_that_is_not_loaded_leaves_a_plain_cpu_cell(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100", "fault = nvmlInit*:-1:9:0")
    (row,) = rows()
    assert row.outcome is Outcome.OK
    assert row.device is not None
    assert not row.device.simulated
    assert row.energy is not None
    assert row.energy.method in ("none", "rapl")


@pytest.mark.parametrize(
    ("precision", "outcome"),
    [("fp32", Outcome.OK), ("fp16", Outcome.OK), ("mixed", Outcome.OK), ("tf32", "UNSUPPORTED")],
)
def test_a_gpu_cell_computes_on_the_cpu_and_says_so(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, precision: str, outcome: str
) -> None:
    fake_nvml("gpu = v100", "gpu = a100", "uuid = GPU-second")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # as Ray tells a process its GPU
    (row,) = rows(cell=Cell("A100", precision), simulated=True)
    assert row.outcome == outcome, row.reason
    if outcome == Outcome.OK:
        assert row.device is not None
        assert row.device.simulated
        assert (row.device.gpu_type, row.device.uuid) == ("A100", "GPU-second")
        assert row.warnings[0].code == "simulated-gpu"
        assert "in place of a NVIDIA A100" in row.warnings[0].text
        assert row.energy is not None
        assert row.energy.method == "counter"
    else:
        assert "a CPU has none" in str(row.reason)


def test_without_the_option_a_gpu_cell_needs_a_gpu(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100")
    (row,) = rows(cell=Cell("A100", "fp32"))
    assert row.outcome is Outcome.UNSUPPORTED


def test_a_simulation_needs_a_gpu_of_its_type_in_the_driver(fake_nvml: FakeNvml) -> None:
    (row,) = rows(cell=Cell("A100", "fp32"), simulated=True)
    assert row.outcome is Outcome.FAILED
    assert "nothing to be simulated by: no NVIDIA driver" in str(row.reason)
    fake_nvml("gpu = v100")
    with pytest.raises(errors.WrongDevice, match="asked for A100, found Tesla V100"):
        rows(cell=Cell("A100", "fp32"), simulated=True)


def test_a_simulation_is_refused_where_a_gpu_is_real(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml("gpu = a100")
    assert not inventory.real_gpu()
    monkeypatch.setattr(nvml, "_SIMULATION", "no_such_function")
    assert inventory.real_gpu()
    (row,) = rows(cell=Cell("A100", "fp32"), simulated=True)
    assert row.outcome is Outcome.FAILED
    assert row.reason == REAL_GPU


def test_a_type_with_its_memory_is_checked_on_the_gpu(fake_nvml: FakeNvml) -> None:
    fake_nvml("gpu = a100", "mem_gib = 80", "virtualization = 2")
    (row,) = rows(cell=Cell("A100-80G", "fp32"), simulated=True)
    assert row.outcome is Outcome.OK
    assert row.device is not None
    assert row.device.gpu_type == "A100"
    fake_nvml("gpu = a100", "mem_gib = 40")
    with pytest.raises(errors.WrongDevice, match=r"asked for A100-80G, found .* \(A100, 40 GiB\)"):
        rows(cell=Cell("A100-80G", "fp32"), simulated=True)
