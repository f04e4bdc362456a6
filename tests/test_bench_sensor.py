"""bench.energy.probe: what the probe finds is what the fake was told to be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import fakenvml
import numpy as np
import pytest

from bench import errors
from bench.device import nvml
from bench.energy import probe as sensor
from bench.energy.fit import boxcar, busy_until
from bench.energy.ticks import Reading
from bench.measured import Sensor

OpenGpu = Callable[..., tuple[fakenvml.FakeDriver, nvml.Gpu]]

# T4's window is not known; of Turing, the Quadro RTX 8000 was metered: 20 ms of each 100 ms.
CONFIGURATIONS = [
    ("p100", 0.020, 0.010, "absent"),
    ("v100", 0.020, 0.010, "integrating"),
    ("v100", 0.020, 0.010, "sampled"),
    ("t4", 0.100, 0.020, "integrating"),
    ("t4", 0.100, 0.020, "sampled"),
    ("a100", 0.100, 0.025, "integrating"),
    ("a100", 0.100, 0.025, "sampled"),
    ("h100", 0.100, 0.025, "integrating"),
    ("h100", 0.100, 0.025, "sampled"),
]


def probe(open_gpu: OpenGpu, *lines: str) -> Sensor:
    fake, gpu = open_gpu(*lines, "virtual = 1")
    clock = fakenvml.VirtualClock(fake)
    return sensor.probe(gpu, fakenvml.Load(fake, clock, (0.01, 250.0)).busy, clock)


@pytest.mark.parametrize(("preset", "period_s", "window_s", "counter"), CONFIGURATIONS)
def test_the_probe_recovers_each_known_sensor(
    open_gpu: OpenGpu, preset: str, period_s: float, window_s: float, counter: str
) -> None:
    sampled = int(counter == "sampled")
    found = probe(
        open_gpu,
        f"gpu = {preset}",
        f"window_ms = {1000 * window_s}",
        f"energy_sampled = {sampled}",
        "phase_ms = 7.3",
        "energy_phase_ms = 3.1",
        "jitter_ms = 1",
    )
    assert found.counter == counter
    assert found.reading == "instant"
    assert found.reading_period_s == pytest.approx(period_s, rel=0.01)
    assert found.reading_window_s == pytest.approx(window_s, rel=0.05)
    assert found.probe_s is not None
    assert found.probe_s < 60
    if counter == "absent":
        assert found.reason == "Not Supported"
        assert found.counter_period_s is found.counter_window_s is found.counter_ratio is None
    else:
        assert found.reason is None
        assert found.counter_period_s == pytest.approx(period_s, rel=0.01)
        seen_s = window_s if sampled else period_s
        assert found.counter_window_s == pytest.approx(seen_s, rel=0.05)
        assert found.counter_ratio == pytest.approx(1, abs=0.01)
        assert found.counter_ratio_idle == pytest.approx(1, abs=0.01)


def test_a_sampled_counter_whose_readings_see_all_misses_nothing(open_gpu: OpenGpu) -> None:
    assert probe(open_gpu, "gpu = l4", "energy_sampled = 1").counter == "integrating"


def test_an_average_of_a_second_is_recognised(open_gpu: OpenGpu) -> None:
    found = probe(open_gpu, "gpu = h100", "driver = 525.60.13", "energy = 0")
    assert (found.counter, found.reading) == ("absent", "usage")
    assert found.reading_window_s == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("energy_scale = 0.5",), "under load the counter gives 0.50 times the power"),
        (("energy_update_ms = 1e9",), "hardly moved"),
        (("reset_s = 10",), "went backwards"),
    ],
)
def test_a_counter_that_disagrees_is_inconsistent(
    open_gpu: OpenGpu, lines: tuple[str, ...], reason: str
) -> None:
    found = probe(open_gpu, "gpu = a100", *lines)
    assert found.counter == "inconsistent"
    assert reason in (found.reason or "")


def test_a_fraction_of_a_watt_while_idle_is_no_disagreement(open_gpu: OpenGpu) -> None:
    fake, gpu = open_gpu("gpu = v100", "module_w = 0.6", "virtual = 1")
    clock = fakenvml.VirtualClock(fake)
    load = fakenvml.Load(fake, clock, (0.01, 250.0), idle_w=8)
    found = sensor.probe(gpu, load.busy, clock)
    assert found.counter_ratio_idle == pytest.approx(8.6 / 8, abs=0.01)
    assert found.counter == "integrating"


def test_readings_that_do_not_follow_the_load_leave_the_window_unknown(open_gpu: OpenGpu) -> None:
    fake, gpu = open_gpu("gpu = a100", "virtual = 1")
    clock = fakenvml.VirtualClock(fake)
    found = sensor.probe(gpu, clock.sleep, clock)  # a load that draws nothing
    assert (found.counter, found.reading_window_s) == ("unknown", None)
    assert found.reason is not None


def test_a_stuck_reading_is_told(open_gpu: OpenGpu) -> None:
    found = probe(open_gpu, "gpu = p100", "stuck_to_s = 1e9")
    assert found.counter == "absent"
    assert found.reading_period_s is None


def test_a_gpu_without_readings_cannot_be_probed(open_gpu: OpenGpu) -> None:
    lines = [f"fault = nvmlDeviceGet{name}:-1:3:0" for name in ("PowerUsage", "FieldValues")]
    found = probe(open_gpu, "gpu = v100", *lines)
    assert found == Sensor("unknown", reason="no power reading: Not Supported")


def test_a_gpu_lost_while_it_is_probed_is_lost(open_gpu: OpenGpu) -> None:
    with pytest.raises(errors.GpuLostError):
        probe(open_gpu, "gpu = v100", "fault = nvmlDevice*:-1:15:5")


@pytest.mark.parametrize(("preset", "period_s", "window_s", "counter"), CONFIGURATIONS[:7])
def test_a_lag_is_not_taken_for_a_window(
    open_gpu: OpenGpu, preset: str, period_s: float, window_s: float, counter: str
) -> None:
    found = probe(
        open_gpu,
        f"gpu = {preset}",
        f"window_ms = {1000 * window_s}",
        f"energy_sampled = {int(counter == 'sampled')}",
        "lag_ms = 40",
    )
    assert found.counter == counter
    assert found.reading_lag_s == pytest.approx(0.04, rel=0.1)
    assert found.reading_window_s == pytest.approx(window_s, rel=0.25)
    assert (found.reading_fit or 0) > 0.99
    if counter != "absent":
        assert found.counter_lag_s == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("kept", [0.3, 0.6])
@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_a_sensor_that_sees_all_and_smooths_its_readings_is_not_sampled(
    period_s: float, kept: float
) -> None:
    chance = random.Random(0)
    edges_s = [0.0]
    while edges_s[-1] < 1.5 + 160 * period_s:
        edges_s.append(edges_s[-1] + chance.uniform(0.15, 1.6) * period_s)
    busy_s = busy_until(edges_s, 0.0)
    times_s = np.arange(period_s, edges_s[-1], period_s)
    share = np.diff(busy_s(times_s), prepend=0.0) / period_s
    shown = itertools.accumulate(share, lambda last, new: kept * last + (1 - kept) * new)
    seen = [
        Reading(time_s, 50 + 200 * value + chance.gauss(0, 0.5))
        for time_s, value in zip(times_s, shown, strict=True)
    ]
    fit = boxcar(seen, edges_s)
    assert fit is not None
    assert fit.window_s >= sensor.WHOLE * period_s
    assert fit.lag_s == pytest.approx(-period_s / np.log(kept), rel=0.2)
