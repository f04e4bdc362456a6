"""What can go wrong with a GPU's energy, fault by fault: the right number, warning, or reason."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import fakenvml
import pytest

from bench.asked import Sampling
from bench.device import nvml
from bench.energy import durations, flags
from bench.energy import protocol as energy
from bench.energy.meter import find_meter

OpenGpu = Callable[..., tuple[fakenvml.FakeDriver, nvml.Gpu]]

LOAD_W, IDLE_W = 250.0, 40.0
# When what happens: idle from 1.5 to 3.5 s, windows of 2 s from about 5.5, 7.8, 10.2, 12.5 and
# 14.8 s on, idle from about 18.5 to 20.5 s. A window that is measured again shifts the rest.
SAMPLING = Sampling(energy="standard", energy_s=10, idle_s=2)
RIGHT = 0.01  # how near the truth an energy must be that has no warning
NO_FIELDS = "fault = nvmlDeviceGetFieldValues:-1:3:0"


@dataclass(frozen=True)
class Fault:
    """A fault, and what must come of it."""

    name: str
    lines: str  # of the fake's configuration, separated by semicolons
    method: str
    warning: str | None = None  # a pattern for one of the warnings with its code, or for the reason
    within: float | None = RIGHT  # of the truth; None: it may be wrong, for the warning says so
    lost: bool = False
    windows: int = durations.WINDOWS
    sampling: Sampling = SAMPLING
    pieces: tuple[tuple[float, float], ...] = ((0.010, LOAD_W),)


FAULTS = [
    Fault("nothing", "gpu = a100", "counter"),
    # The GPU goes away: what was measured before stays.
    Fault("lost while idle", "gpu = a100; fault = nvmlDevice*:-1:15:2", "none", "lost", lost=True),
    Fault(
        "lost in the first window",
        "gpu = v100; fault = nvmlDevice*:-1:15:6.8",
        "counter",
        within=0.03,
        lost=True,
        windows=1,
    ),
    Fault(
        "lost in the third window",
        "gpu = v100; fault = nvmlDevice*:-1:15:11",
        "counter",
        within=0.03,
        lost=True,
        windows=3,
    ),
    Fault(
        "lost without a counter",
        "gpu = p100; fault = nvmlDevice*:-1:15:11",
        "power",
        within=0.03,
        lost=True,
        windows=3,
    ),
    Fault(
        "reset required",
        "gpu = a100; fault = nvmlDevice*:-1:16:11",
        "counter",
        within=0.05,
        lost=True,
        windows=3,
    ),
    Fault(
        "lost after the last window",
        "gpu = a100; fault = nvmlDevice*:-1:15:19.5",
        "counter",
        lost=True,
    ),
    Fault(
        "only one call says that it is lost",
        "gpu = a100; fault = nvmlDeviceGetClockInfo:-1:15:11",
        "counter",
        within=0.05,
        lost=True,
        windows=3,
    ),
    # What this user, GPU or driver does not give.
    Fault(
        "no permission for the counter",
        f"gpu = v100; fault = nvmlDeviceGetTotalEnergyConsumption:-1:4:0; {NO_FIELDS}",
        "power",
    ),
    Fault(
        "no permission for anything",
        f"gpu = v100; {NO_FIELDS}; fault = nvmlDeviceGetTotal*:-1:4:0;"
        "fault = nvmlDeviceGetPowerUsage:-1:4:0",
        "none",
        r"neither the energy of this GPU \(.*\) nor its power \(Insufficient Permissions\)",
    ),
    Fault(
        "no counter and no power",
        f"gpu = p100; {NO_FIELDS}; fault = nvmlDeviceGetPowerUsage:-1:3:0",
        "none",
        r"nor its power \(Not Supported\)",
    ),
    Fault("a driver without field 186", "gpu = p100; driver = 525.60.13", "power"),
    Fault("the oldest driver", "gpu = p100; driver = 470.82.01", "power"),
    Fault("the oldest driver, with a counter", "gpu = a100; driver = 470.82.01", "counter"),
    Fault(
        "the counter only as a field",
        "gpu = v100; fault = nvmlDeviceGetTotalEnergyConsumption:-1:13:0",
        "counter",
    ),
    Fault("no fields at all", "gpu = v100; fault = nvmlDeviceGetFieldValues:-1:13:0", "counter"),
    Fault(
        "no fields and no violations",
        f"gpu = v100; {NO_FIELDS}; fault = nvmlDeviceGetViolationStatus:-1:3:0",
        "counter",
    ),
    Fault("no temperature", "gpu = v100; fault = nvmlDeviceGetTemperature*:-1:3:0", "counter"),
    Fault("no clocks", "gpu = v100; fault = nvmlDeviceGetClockInfo:-1:999:0", "counter"),
    Fault(
        "no list of processes",
        "gpu = v100; fault = nvmlDeviceGetComputeRunningProcesses*:-1:4:0",
        "counter",
    ),
    Fault("MIG", "gpu = a100-mig", "none", "MIG slices share"),
    Fault("vGPU", "gpu = t4; virtualization = 2", "none", "virtual GPUs share"),
    Fault("vGPU without a counter", "gpu = t4; virtualization = 2; energy = 0", "none", "virtual"),
    Fault("passed through", "gpu = t4; virtualization = 1", "counter"),
    # Meters that lie.
    Fault(
        "a counter that goes backwards",
        "gpu = a100; reset_s = 9",
        "power",
        r"went backwards, from \d+ J to \d+ J: power readings are used instead",
        within=0.05,
    ),
    Fault(
        "a counter that stands still",
        "gpu = a100; energy_update_ms = 1e9",
        "power",
        "ticked 0 times, too few for a window: power readings are used instead",
        within=0.05,
    ),
    Fault("a counter of half", "gpu = a100; energy_scale = 0.5", "counter", "while idle", None),
    Fault("a counter of more", "gpu = h100; energy_scale = 1.2", "counter", "while idle", None),
    Fault(
        "a counter that ticks each second",
        "gpu = a100; energy_update_ms = 900",
        "counter",
        r"only \d ticks of the meter",
        within=0.2,
    ),
    Fault(
        "a stuck reading",
        "gpu = p100; stuck_to_s = 1e9",
        "power",
        "the power reading never changed: the sensor may be stuck",
        None,
    ),
    Fault(
        "a reading that sticks for a while",
        "gpu = p100; stuck_from_s = 8.5; stuck_to_s = 9.3",
        "power",
        r"energy window 2 \(measured again\): the meter did not change for 0.8\d s",
        within=0.03,
    ),
    Fault(
        "a counter that sticks for a while",
        "gpu = v100; stuck_from_s = 8.5; stuck_to_s = 9.3",
        "counter",
        r"energy window 2 \(measured again\): the meter did not change for 0.8\d s",
    ),
    Fault(
        "all stuck",
        "gpu = v100; stuck_to_s = 1e9",
        "power",
        "the power reading never changed: the sensor may be stuck",
        None,
    ),
    Fault("a reading of 0 W", "gpu = p100; gain = 0; noise_w = 0", "none", "read 0 W all the time"),
    Fault("a noisy reading", "gpu = p100; noise_w = 20", "power", within=0.03),
    Fault(
        "a load in step with a sensor whose ticks are not known",
        "gpu = p100; jitter_ms = 0",
        "power",
        r"aliasing: the sensor sampled in phase with the load \(0.\d\d\)",
        None,
        sampling=Sampling(energy="standard", energy_s=10, idle_s=0),
        pieces=((0.010, LOAD_W), (0.010, 60.0)),
    ),
    # Errors that pass.
    Fault(
        "a timeout now and then",
        "gpu = v100; fault = nvmlDeviceGetTotalEnergyConsumption:-1:10:0:1e9:97",
        "counter",
    ),
    Fault(
        "no data for a while, but as a field",
        "gpu = v100; fault = nvmlDeviceGetTotalEnergyConsumption:-1:21:8.5:8.7",
        "counter",
    ),
    Fault(
        "an unknown error now and then",
        "gpu = v100; fault = nvmlDeviceGetTotalEnergyConsumption:-1:999:0:1e9:97",
        "counter",
    ),
    Fault(
        "an unknown error that does not pass",
        "gpu = v100; fault = nvmlDeviceGet*:-1:999:11",
        "counter",
        "the driver failed, total_energy_j: Unknown Error",
        within=0.03,
        lost=True,
        windows=3,
    ),
    # A counter that counts more than the GPU.
    Fault(
        "Grace Hopper",
        "gpu = gh200",
        "power",
        "counts the whole module, with its CPU: power readings are used instead",
    ),
    Fault(
        "Grace Hopper without readings",
        "gpu = gh200; instant_field = 0; fault = nvmlDeviceGetPowerUsage:-1:3:0",
        "counter",
        "energy-meter: energy: the energy counter counts the whole module, with its CPU",
        within=None,
    ),
    # What disturbs.
    Fault(
        "a foreign process",
        "gpu = a100; extra_pid = 4194000",
        "counter",
        r"gpu-shared: energy window 1 \(measured again\): ",
    ),
    Fault(
        "a process that draws",
        "gpu = a100; extra_pid = 4194000; extra_kind = 1",
        "counter",
        r"gpu-shared: energy window 1 \(measured again\): ",
    ),
    Fault(
        "a foreign process that comes later",
        "gpu = a100; extra_pid = 4194000; extra_pid_from_s = 11",
        "counter",
        r"gpu-shared: energy window 3 \(measured again\): ",
    ),
    Fault(
        "the power cap, for a while",
        "gpu = v100; throttle = 4:8.5:8.8",
        "counter",
        r"window 2 \(measured again\): clocks were throttled \(power cap\) for 0.3 s",
    ),
    Fault("the power cap, for a moment", "gpu = v100; throttle = 4:8.5:8.52", "counter"),
    Fault(
        "heat, all the time",
        "gpu = v100; throttle = 40:0:1e9",
        "counter",
        r"window 1: clocks were throttled \(hardware thermal\) for \d.\d s",
    ),
    Fault(
        "heat, as an old driver tells it",
        "gpu = v100; driver = 470.82.01; throttle = 40:0:1e9",
        "counter",
        r"window 1: clocks were throttled \(heat\) for \d.\d s",
    ),
    Fault(
        "a clock that moves",
        f"gpu = v100; {NO_FIELDS}; throttle = 2:8.5:9.5",
        "counter",
        r"window 2 \(measured again\): the SM clock moved by 50%",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_the_right_outcome(open_gpu: OpenGpu, fault: Fault) -> None:
    lines = [line.strip() for line in fault.lines.split(";")]
    # Nothing heats it, so that only the fault is a reason for a warning.
    fake, gpu = open_gpu(*lines, "virtual = 1", f"idle_w = {IDLE_W}", "heat_c_per_w = 0")
    clock = fakenvml.VirtualClock(fake, random.Random(1))
    load = fakenvml.Load(fake, clock, *fault.pieces, idle_w=IDLE_W)
    lost = None
    try:
        used = energy.measure_energy(
            load,
            samples_per_step=1,
            tokens_per_step=128,
            sampling=fault.sampling,
            meter=find_meter(gpu),
            clock=clock,
        )
    except energy.LostError as error:
        used, lost = error.energy, str(error)

    told = [f"{warning.code}: {warning}" for warning in flags.warnings(used)]
    reasons = [lost or "", used.reason or ""]
    assert (used.method, lost is not None) == (fault.method, fault.lost), told
    if fault.warning is not None:
        assert any(re.search(fault.warning, text) for text in [*told, *reasons]), told
    elif not fault.lost:
        assert not any([*told, *reasons])
    if used.method == "none":
        assert used.per_sample_mj is used.window_j is used.uncertainty is None
        assert used.reason
        return
    assert used.per_sample_mj is not None
    assert used.uncertainty is not None
    assert len(used.per_sample_mj_samples or ()) == fault.windows
    if fault.within is not None:
        assert used.per_sample_mj == pytest.approx(1000 * load.joules, rel=fault.within)


def test_there_are_enough_faults() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 30
