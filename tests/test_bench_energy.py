"""bench.energy.protocol: the expected energy is a formula of the power that the fake GPU draws."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace

import examples
import fakenvml
import kept_rows
import pytest

from bench import timing
from bench.asked import Sampling
from bench.device import nvml
from bench.energy import durations, flags
from bench.energy import meter as meters
from bench.energy import protocol as energy
from bench.energy.meter import Meter, NoMeter, find_meter
from bench.energy.poll import Clock
from bench.energy.probe import probe
from bench.energy.ticks import Mark, Reading
from bench.measured import Energy, Sensor
from bench.model.requests import CpuQueue
from bench.warnings import RowWarning, having

OpenGpu = Callable[..., tuple[fakenvml.FakeDriver, nvml.Gpu]]

LOAD_W, IDLE_W = 250.0, 40.0
SAMPLES, TOKENS = 4, 512
CONSTANT = ((0.010, LOAD_W),)
QUICK = Sampling(energy="quick", energy_s=6, idle_s=2)
STANDARD = Sampling(energy="standard", energy_s=10, idle_s=2)
LONG = Sampling(energy="standard", energy_s=30, idle_s=2)
CERTIFIED = Sampling(energy="certified", energy_s=10, idle_s=2)


def measure(
    meter: Meter | NoMeter,
    queue: timing.Queue,
    sampling: Sampling,
    clock: Clock | None = None,
) -> Energy:
    return energy.measure_energy(
        queue,
        samples_per_step=SAMPLES,
        tokens_per_step=TOKENS,
        sampling=sampling,
        meter=meter,
        clock=clock,
    )


def virtually(
    open_gpu: OpenGpu,
    *lines: str,
    pieces: tuple[tuple[float, float], ...] = CONSTANT,
    sampling: Sampling = STANDARD,
    probed: bool = False,
    restart_s: float = 0.0,
) -> tuple[Energy, float]:
    """The energy by the protocol in virtual time, and the true mJ per sample."""
    fake, gpu = open_gpu(*lines, "virtual = 1", f"idle_w = {IDLE_W}", "jitter_ms = 1")
    clock = fakenvml.VirtualClock(fake, random.Random(1))
    load = fakenvml.Load(fake, clock, *pieces, idle_w=IDLE_W, restart_s=restart_s)
    found = probe(gpu, load.busy, clock) if probed else None
    used = measure(find_meter(gpu, sensor=found), load, sampling, clock)
    return used, 1000 * load.joules / SAMPLES


# ------------------------------------------------------------------------- which meter there is


@pytest.mark.parametrize(
    ("preset", "method"),
    [
        ("p100", "power"),
        ("p40", "power"),
        ("v100", "counter"),
        ("t4", "counter"),
        ("a100", "counter"),
        ("l4", "counter"),
        ("h100", "counter"),
        ("h200", "counter"),
    ],
)
def test_the_best_meter_of_each_generation(open_gpu: OpenGpu, preset: str, method: str) -> None:
    _, gpu = open_gpu(f"gpu = {preset}")
    meter = find_meter(gpu)
    assert isinstance(meter, Meter)
    assert meter.method == method


def test_a_gpu_that_tells_nothing_gives_both_reasons(open_gpu: OpenGpu) -> None:
    _, gpu = open_gpu(
        "gpu = p100",
        "fault = nvmlDeviceGetPowerUsage:-1:4:0",
        "fault = nvmlDeviceGetFieldValues:-1:3:0",
    )
    meter = find_meter(gpu)
    assert meter == NoMeter(
        "NVML gives neither the energy of this GPU (Not Supported) "
        "nor its power (Insufficient Permissions)"
    )
    assert measure(meter, lambda: None, QUICK) == Energy("none", reason=meter.reason)


@pytest.mark.parametrize("uuid", ["GPU-fa4e0000-0000-4000-8000-", "MIG-fa4e0000-0000-5000-8000-"])
def test_a_mig_slice_has_no_energy_of_its_own(
    fake_nvml: Callable[..., fakenvml.FakeDriver], uuid: str
) -> None:
    fake_nvml("gpu = a100", "mig = 1")
    with nvml.driver() as driver:
        meter = find_meter(driver.gpu(uuid + "0" * 12))
    assert isinstance(meter, NoMeter)
    assert "MIG" in meter.reason


def test_a_virtual_gpu_has_no_energy_of_its_own(open_gpu: OpenGpu) -> None:
    _, gpu = open_gpu("gpu = t4", "virtualization = 2")
    meter = find_meter(gpu)
    assert isinstance(meter, NoMeter)
    assert "virtual GPUs share" in meter.reason


def test_an_inconsistent_counter_is_not_used_where_there_are_readings(open_gpu: OpenGpu) -> None:
    _, gpu = open_gpu("gpu = a100")
    meter = find_meter(gpu, sensor=Sensor("inconsistent", reason="it is off by half"))
    assert isinstance(meter, Meter)
    assert (meter.method, meter.reason) == ("power", "it is off by half")


# ------------------------------------------------------------------ the protocol, in virtual time


@pytest.mark.parametrize("preset", ["v100", "t4", "a100", "l4", "h100", "h200"])
@pytest.mark.parametrize("sampling", [QUICK, STANDARD], ids=lambda s: s.energy)
def test_a_counter_that_integrates(open_gpu: OpenGpu, preset: str, sampling: Sampling) -> None:
    used, true_mj = virtually(open_gpu, f"gpu = {preset}", sampling=sampling)
    assert used.method == "counter"
    # An edge is late by at most half the time between two polls, some of which come 20 ms late.
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.03 / (sampling.energy_s / 5))
    assert used.uncertainty is not None
    assert used.per_sample_mj == pytest.approx(true_mj, rel=used.uncertainty)
    assert used.discrepancy is None
    assert used.pause_share == 0


@pytest.mark.parametrize("preset", ["p100", "p40"])
@pytest.mark.parametrize("sampling", [QUICK, STANDARD, CERTIFIED], ids=lambda s: s.energy)
def test_pascal_has_an_energy_and_its_uncertainty(
    open_gpu: OpenGpu, preset: str, sampling: Sampling
) -> None:
    used, true_mj = virtually(open_gpu, f"gpu = {preset}", sampling=sampling)
    assert used.method == "power"
    assert used.uncertainty
    assert used.per_sample_mj == pytest.approx(true_mj, rel=max(0.005, used.uncertainty))
    assert used.systematic == (0.01 if preset == "p100" else 0.05)


@pytest.mark.parametrize("preset", ["p100", "p40"])
def test_readings_that_never_change_are_energy_all_the_same(open_gpu: OpenGpu, preset: str) -> None:
    used, true_mj = virtually(open_gpu, f"gpu = {preset}", "noise_w = 0", sampling=QUICK)
    # How often it ticks cannot be told, so neither how much of a pause it saw.
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.03)


@pytest.mark.parametrize(
    "kind", ["energy_sampled = 0", "energy_sampled = 1", "energy = 0"], ids=["whole", "part", "no"]
)
def test_a_load_of_the_sensors_own_period_does_not_alias(open_gpu: OpenGpu, kind: str) -> None:
    pieces = ((0.010, LOAD_W), (0.010, 60.0))  # Five of them are a tick of the sensor.
    used, true_mj = virtually(
        open_gpu, "gpu = a100", kind, pieces=pieces, sampling=CERTIFIED, probed=True
    )
    whole = kind == "energy_sampled = 0"
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.001 if whole else 0.03)
    assert (used.discrepancy is None) is whole
    assert used.pause_share == pytest.approx(0 if whole else 0.08, abs=0.02)
    if not whole:
        assert used.discrepancy is not None
        assert used.discrepancy < flags.EVEN_PAUSED_PHASES
    assert used.flags is None


def test_what_a_window_tells(open_gpu: OpenGpu) -> None:
    used, _ = virtually(open_gpu, "gpu = v100")
    # Typed as optional: a cell without a meter has none of them.
    joules, seconds, iterations = used.window_j or 0, used.window_s or 0, used.iterations or 0
    assert seconds == pytest.approx(STANDARD.energy_s, rel=0.1)
    assert iterations == pytest.approx(seconds / 0.010, rel=0.001)
    assert used.mean_w == pytest.approx(joules / seconds)
    assert used.mean_w == pytest.approx(LOAD_W, rel=0.005)
    assert used.idle_w == pytest.approx(IDLE_W, rel=0.02)
    assert used.idle_w == pytest.approx(((used.idle_w_before or 0) + (used.idle_w_after or 0)) / 2)
    each = used.per_sample_mj_samples or ()
    assert len(each) == durations.WINDOWS
    mean_mj = used.per_sample_mj or 0
    assert mean_mj == pytest.approx(1000 * joules / (iterations * SAMPLES))
    assert mean_mj == pytest.approx(sum(each) / len(each), rel=0.001)
    assert used.per_token_mj == pytest.approx(mean_mj * SAMPLES / TOKENS)
    assert used.net_per_sample_mj == pytest.approx(
        mean_mj - 1000 * (used.idle_w or 0) * seconds / (iterations * SAMPLES)
    )
    assert used.net_per_token_mj == pytest.approx((used.net_per_sample_mj or 0) * SAMPLES / TOKENS)
    half_mj = mean_mj * (used.uncertainty or 0)
    assert used.per_sample_mj_high == pytest.approx(mean_mj + half_mj)
    assert used.per_sample_mj_low == pytest.approx(mean_mj - half_mj)
    assert used.protocol == "standard"
    assert used.ticks == pytest.approx(seconds / 0.020, rel=0.02)


@pytest.mark.parametrize("kind", ["energy_sampled = 0", "energy_sampled = 1", "energy = 0"])
@pytest.mark.parametrize(("preset", "seconds"), [("v100", 0.010), ("a100", 0.040)])
def test_what_a_lagging_meter_shows_of_a_pause_is_left_out(
    open_gpu: OpenGpu, preset: str, seconds: float, kind: str
) -> None:
    used, true_mj = virtually(
        open_gpu,
        f"gpu = {preset}",
        kind,
        "lag_ms = 40",
        pieces=((seconds, LOAD_W),),
        sampling=LONG,
        probed=True,
    )
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.002)
    assert not having(used.flags or (), "aliasing")


@pytest.mark.parametrize("seconds", [0.0053, 0.012, 0.04, 0.159])
@pytest.mark.parametrize(
    "gpu", ["gpu = p100", "gpu = v100; energy_sampled = 1", "gpu = a100; energy_sampled = 1"]
)
def test_that_a_gpu_waits_after_a_pause_is_no_part_of_a_forward(
    open_gpu: OpenGpu, gpu: str, seconds: float
) -> None:
    used, true_mj = virtually(
        open_gpu,
        *gpu.split("; "),
        pieces=((seconds, LOAD_W),),
        sampling=LONG,
        probed=True,
        restart_s=0.0015,
    )
    assert used.pause_share
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.002)


class Uneven(fakenvml.Load):
    """Forwards of which every second, by chance, waits for its host on the way."""

    chance = random.Random(7)

    def enqueue(self) -> None:
        before_s = self.chance.uniform(0, self.seconds)
        self.driver.set_power(LOAD_W)
        self.clock.sleep(before_s)
        self.driver.set_power(IDLE_W)
        self.clock.sleep(self.chance.choice((0.0, 0.006)))
        self.driver.set_power(LOAD_W)
        self.clock.sleep(self.seconds - before_s)
        self.driver.set_power(IDLE_W)


def test_one_window_tells_what_sampled_readings_may_have_missed(open_gpu: OpenGpu) -> None:
    inside = 0
    for _ in range(20):
        fake, gpu = open_gpu("gpu = p100", "virtual = 1", f"idle_w = {IDLE_W}")
        clock = fakenvml.VirtualClock(fake, random.Random(1))
        load = Uneven(fake, clock, (0.0066, LOAD_W), idle_w=IDLE_W)
        used = measure(find_meter(gpu), load, QUICK, clock)
        assert used.iterations
        assert used.window_s
        waited_s = used.window_s / used.iterations - load.seconds
        true_mj = 1000 * (load.joules + waited_s * IDLE_W) / SAMPLES
        assert used.per_sample_mj
        inside += abs(used.per_sample_mj / true_mj - 1) <= (used.uncertainty or 0)
    assert inside >= 17  # 19 are expected


def test_a_trace_is_kept_thinned(open_gpu: OpenGpu) -> None:
    used, _ = virtually(open_gpu, "gpu = v100")
    assert used.trace_s is not None
    assert used.trace_w is not None
    assert 100 < len(used.trace_s) == len(used.trace_w) <= 512
    assert sorted(used.trace_s) == list(used.trace_s)
    assert sum(used.trace_w) / len(used.trace_w) == pytest.approx(LOAD_W, rel=0.01)


def test_certified_windows_are_long_enough_for_a_slow_meter(open_gpu: OpenGpu) -> None:
    used, _ = virtually(open_gpu, "gpu = a100", sampling=CERTIFIED, probed=True)
    assert (used.ticks or 0) >= durations.WINDOWS * durations.CERTIFIED_TICKS * 0.85
    assert (used.window_s or 0) >= durations.WINDOWS * durations.CERTIFIED_S * 0.85
    assert used.flags is None


def test_without_idle_there_is_no_net_energy(open_gpu: OpenGpu) -> None:
    sampling = Sampling(energy="quick", energy_s=3, idle_s=0)
    used, true_mj = virtually(open_gpu, "gpu = v100", sampling=sampling)
    assert used.idle_w is used.net_per_sample_mj is None
    assert (used.flags or ())[-1] == RowWarning("no-idle-power", {"reason": "idle_s is 0"})
    assert used.reason == "no idle power: idle_s is 0"
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.02)


def test_a_short_window_is_very_uncertain(open_gpu: OpenGpu) -> None:
    sampling = Sampling(energy="quick", energy_s=0.5, idle_s=0)
    used, _ = virtually(open_gpu, "gpu = t4", sampling=sampling)
    # Five ticks of 100 ms: one tick at either edge is two fifths.
    assert (used.uncertainty or 0) >= 0.4
    (few,) = having(used.flags or (), "few-ticks")
    assert few.values == {"ticks": 5, "window": 1, "repeated": False}
    assert few.text == "energy window 1: only 5 ticks of the meter"
    uncertain, *others = flags.warnings(used)
    assert uncertain.code == "energy-uncertain"
    assert tuple(others) == used.flags


def test_what_weakens_a_window_again_is_not_measured_a_third_time(open_gpu: OpenGpu) -> None:
    used, _ = virtually(open_gpu, "gpu = a100", "extra_pid = 4194000", "heat_c_per_w = 0")
    found = [(flag.values["window"], flag.values["repeated"]) for flag in used.flags or ()]
    assert found == [(1, True), *((number, False) for number in range(1, 6))]
    assert {flag.code for flag in used.flags or ()} == {"gpu-shared"}
    row = examples.measurement(energy=used)
    (again,), _ = kept_rows.from_table(kept_rows.to_table([row], []), "test")
    assert again.energy == used


def test_a_forward_of_many_per_tick_and_one_of_many_ticks(open_gpu: OpenGpu) -> None:
    for seconds in (0.0003, 0.7):
        used, true_mj = virtually(open_gpu, "gpu = v100", pieces=((seconds, LOAD_W),))
        assert used.per_sample_mj == pytest.approx(true_mj, rel=0.01)


@pytest.mark.parametrize("sampling", [QUICK, STANDARD, CERTIFIED], ids=lambda s: s.energy)
def test_no_row_takes_longer_than_is_told(open_gpu: OpenGpu, sampling: Sampling) -> None:
    fake, gpu = open_gpu("gpu = a100", "virtual = 1", "extra_pid = 4194000")
    clock = fakenvml.VirtualClock(fake)
    load = fakenvml.Load(fake, clock, *CONSTANT)
    averages = Sensor("integrating", reading="usage")
    meter = find_meter(gpu, sensor=None if sampling.energy == "quick" else averages)
    begun_s = clock.now()
    measure(meter, load, sampling, clock)
    assert clock.now() - begun_s <= durations.longest_s(sampling)


# In no ratio of small numbers to any period of a sensor; the second draws less for a third of it.
UNEVEN = ((0.00737, LOAD_W),)
PARTS = ((0.00491, LOAD_W), (0.00246, 120.0))


@pytest.mark.parametrize("pieces", [UNEVEN, PARTS], ids=["even", "parts"])
@pytest.mark.parametrize("sampling", [QUICK, STANDARD], ids=lambda s: s.energy)
@pytest.mark.parametrize(
    "gpu", ["gpu = v100", "gpu = t4", "gpu = a100", "gpu = h100", "gpu = h100; instant_field = 0"]
)
def test_a_counter_is_held_against_the_readings_under_load(
    open_gpu: OpenGpu, gpu: str, sampling: Sampling, pieces: tuple[tuple[float, float], ...]
) -> None:
    for scale in (0.7, 0.9, 1.0, 1.1, 1.3):
        used, _ = virtually(
            open_gpu,
            *gpu.split("; "),
            f"energy_scale = {scale}",
            pieces=pieces,
            sampling=replace(sampling, idle_s=0.0),
        )
        told = having(flags.warnings(used), "counter-disagrees")
        assert used.method == "counter"
        assert [flag.values["ratio"] for flag in told] == (
            [] if scale == 1.0 else [pytest.approx(scale, abs=0.01)]
        )


@pytest.mark.parametrize("sampling", [QUICK, STANDARD], ids=lambda s: s.energy)
@pytest.mark.parametrize("gpu", ["v100", "a100", "h100"])
@pytest.mark.parametrize("seconds", [0.010, 0.0113, 0.083, 0.31])
def test_readings_that_see_a_part_of_a_forward_hold_nothing_against_a_counter(
    open_gpu: OpenGpu, gpu: str, sampling: Sampling, seconds: float
) -> None:
    pieces = ((seconds, LOAD_W), (0.02 * math.ceil(seconds / 0.02) - seconds, 60.0))
    used, true_mj = virtually(open_gpu, f"gpu = {gpu}", pieces=pieces, sampling=sampling)
    assert not having(used.flags or (), "counter-disagrees")
    assert used.per_sample_mj == pytest.approx(true_mj, rel=0.05)


# ----------------------------------------------------------------- the whole protocol, real time


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Sampling:
    """Short windows: the instant readings of the fakes settle within two updates."""
    monkeypatch.setattr(energy, "SETTLE_S", 0.25)
    return Sampling(energy="quick", energy_s=0.6, idle_s=1)


@pytest.mark.parametrize("preset", ["p100", "v100", "a100"])
def test_the_protocol_in_real_time(open_gpu: OpenGpu, hasty: Sampling, preset: str) -> None:
    fake, gpu = open_gpu(f"gpu = {preset}", f"idle_w = {IDLE_W}")

    def step() -> None:
        fake.set_power(LOAD_W)
        time.sleep(0.004)

    used = measure(find_meter(gpu), CpuQueue(step), hasty)
    assert used.method == ("power" if preset == "p100" else "counter")
    assert used.reason is None
    # However slowly the thread was served, the result is within what it says of itself.
    assert used.window_j == pytest.approx(LOAD_W * (used.window_s or 0), rel=used.uncertainty)
    edges = 2 * (used.resolution_s or 0) / (used.window_s or 1)
    if preset == "p100":  # Its readings see a part of the time and differ.
        assert edges <= (used.uncertainty or 0) < edges + 0.1
    else:
        assert used.uncertainty == pytest.approx(edges)
    assert used.idle_w == pytest.approx(IDLE_W, rel=0.5)


def test_a_lost_gpu_is_told_even_if_the_forward_fails_first(
    open_gpu: OpenGpu, hasty: Sampling
) -> None:
    fake, gpu = open_gpu("gpu = v100")
    steps = itertools.count()

    def step() -> None:
        time.sleep(0.005)
        if next(steps) == 120:
            fake.fault("nvmlDevice*:-1:15:0")
            raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(energy.LostError):
        measure(find_meter(gpu), CpuQueue(step), Sampling(energy="quick", energy_s=30, idle_s=0))


def test_a_forward_that_fails_is_its_own_error(open_gpu: OpenGpu, hasty: Sampling) -> None:
    _, gpu = open_gpu("gpu = v100")
    steps = itertools.count()

    def step() -> None:
        time.sleep(0.005)
        if next(steps) == 120:
            raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        measure(find_meter(gpu), CpuQueue(step), Sampling(energy="quick", energy_s=30, idle_s=0))


def test_rapl_whose_polls_come_later_under_load_has_no_missed_ticks() -> None:
    """RAPL ticks each millisecond, more often than it is polled: polls are no ticks of its own."""

    def polled(every_s: float) -> meters.Recording:
        times = [every_s * number for number in range(400)]
        return meters.Recording(
            joules=[Reading(time_s, 50.0 * time_s) for time_s in times],
            marks=[Mark(0.0, 0), Mark(times[-1], 100)],
        )

    rapl = meters.Meter(meters.RAPL, read_j=lambda: 0.0)
    channel = meters.channel(rapl, meters.RAPL, polled(0.0051))
    assert channel.tick_s is None
    assert channel.period_s == durations.SLOWEST_TICK_S
