"""bench.meters.energy: the expected energy is a formula of the power that the fake GPU draws."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import fakenvml
import hypothesis
import hypothesis.strategies as st
import pytest

from bench import nvml
from bench.meters import energy
from bench.meters.energy import Mark, Meter, NoMeter, Reading
from bench.records import Energy, Sampling

OpenGpu = Callable[..., tuple[fakenvml.FakeDriver, nvml.Gpu]]

LOAD_W = 200.0
SAMPLES, TOKENS = 4, 512


@pytest.fixture
def open_gpu(fake_nvml: Callable[..., fakenvml.FakeDriver]) -> Iterator[OpenGpu]:
    """A function that gives a fake driver with its only GPU, for as long as the test lasts."""
    with ExitStack() as stack:

        def open_gpu(*lines: str) -> tuple[fakenvml.FakeDriver, nvml.Gpu]:
            fake = fake_nvml(*lines)
            (gpu,) = stack.enter_context(nvml.driver()).gpus()
            return fake, gpu

        yield open_gpu


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Sampling:
    """Short windows: the instant readings of the fakes settle within two updates."""
    monkeypatch.setattr(energy, "SETTLE_S", 0.25)
    return Sampling(energy_s=0.6, idle_s=0.4)


def found(meter: Meter | NoMeter) -> Meter:
    assert isinstance(meter, Meter), meter.reason
    return meter


def poll(
    fake: fakenvml.FakeDriver, meter: Meter, seconds: float, load_w: Callable[[float], float]
) -> tuple[list[Reading], list[Mark]]:
    """What the polling thread would see, and the ends of 1 ms iterations, in virtual time."""
    readings, marks = [], []
    for ms in range(round(seconds * 1000)):
        fake.set_power(load_w(ms / 1000))
        if ms % 10 == 3:
            value = meter.read()
            assert value is not None
            readings.append(Reading(fake.now(), value))
        marks.append(Mark(fake.now(), ms))
        fake.advance(0.001)
    return readings, marks


def measure(meter: Meter | NoMeter, step: Callable[[], object], sampling: Sampling) -> Energy:
    return energy.measure_energy(
        step,
        lambda: None,
        samples_per_step=SAMPLES,
        tokens_per_step=TOKENS,
        sampling=sampling,
        meter=meter,
    )


# ------------------------------------------------------------------------- which meter there is


@pytest.mark.parametrize(
    ("preset", "method"),
    [
        ("p100", "power"),
        ("p40", "power"),
        ("v100", "counter"),
        ("t4", "counter"),
        ("a100", "counter"),
        ("h100", "counter"),
    ],
)
def test_the_best_meter_of_each_generation(open_gpu: OpenGpu, preset: str, method: str) -> None:
    _, gpu = open_gpu(f"gpu = {preset}")
    assert found(energy.find_meter(gpu)).method == method


def test_a_gpu_that_tells_nothing_gives_both_reasons(open_gpu: OpenGpu, hasty: Sampling) -> None:
    _, gpu = open_gpu("gpu = p100", "fault = nvmlDeviceGetPowerUsage:-1:4:0")
    meter = energy.find_meter(gpu)
    assert meter == NoMeter(
        "NVML gives neither the energy of this GPU (Not Supported) "
        "nor its power (Insufficient Permissions)"
    )
    assert measure(meter, lambda: None, hasty) == Energy("none", reason=meter.reason)


@pytest.mark.parametrize("uuid", ["GPU-fa4e0000-0000-4000-8000-", "MIG-fa4e0000-0000-5000-8000-"])
def test_a_mig_slice_has_no_energy_of_its_own(
    fake_nvml: Callable[..., fakenvml.FakeDriver], uuid: str
) -> None:
    fake_nvml("gpu = a100", "mig = 1")
    with nvml.driver() as driver:
        meter = energy.find_meter(driver.gpu(uuid + "0" * 12))
    assert isinstance(meter, NoMeter)
    assert "MIG" in meter.reason


# ---------------------------------------------------------------- arithmetic, in virtual time


@pytest.mark.parametrize("preset", ["v100", "t4", "a100", "h100"])
@pytest.mark.parametrize("phase_ms", [0, 7.7, 19.1])
def test_a_counter_under_a_steady_load(open_gpu: OpenGpu, preset: str, phase_ms: float) -> None:
    fake, gpu = open_gpu(f"gpu = {preset}", "virtual = 1", f"energy_phase_ms = {phase_ms}")
    meter = found(energy.find_meter(gpu))
    readings, marks = poll(fake, meter, 2, lambda _: LOAD_W)
    window = energy.whole_iterations(meter.curve(readings), marks)
    # Either edge is late by up to half the time between two polls.
    assert window.joules == pytest.approx(LOAD_W * window.seconds, abs=LOAD_W * energy.POLL_S)
    # All but a tick at either end.
    assert window.seconds > 2 - 2 * 0.1 - 2 * energy.POLL_S
    assert window.iterations == pytest.approx(window.seconds / 0.001)


@pytest.mark.parametrize("preset", ["v100", "a100"])
def test_a_counter_sees_what_happens_between_its_ticks(open_gpu: OpenGpu, preset: str) -> None:
    fake, gpu = open_gpu(f"gpu = {preset}", "virtual = 1")
    meter = found(energy.find_meter(gpu))
    period_s, busy_s = 0.023, 0.011

    def load_w(time_s: float) -> float:
        return 300.0 if time_s % period_s < busy_s else 100.0

    readings, marks = poll(fake, meter, 3, load_w)
    window = energy.whole_iterations(meter.curve(readings), marks)
    start_s = next(mark.time_s for mark in marks if mark.time_s >= meter.curve(readings).times_s[0])
    true_j = fake.true_energy_j(start_s + window.seconds) - fake.true_energy_j(start_s)
    # An edge may cut a period anywhere, and is late by up to half the time between two polls.
    assert window.joules == pytest.approx(
        true_j, abs=2 * (300 - 100) * period_s + 300 * energy.POLL_S
    )


@pytest.mark.parametrize("preset", ["p100", "p40"])
def test_power_that_never_changes_is_energy_all_the_same(open_gpu: OpenGpu, preset: str) -> None:
    fake, gpu = open_gpu(f"gpu = {preset}", "virtual = 1", "noise_w = 0")
    meter = found(energy.find_meter(gpu))
    poll(fake, meter, 0.1, lambda _: LOAD_W)
    readings, marks = poll(fake, meter, 2, lambda _: LOAD_W)
    window = energy.whole_iterations(meter.curve(readings), marks)
    assert window.joules == pytest.approx(LOAD_W * window.seconds, rel=1e-9)
    # It might as well be stuck: the edges are as uncertain as all that was seen.
    assert window.resolution_s >= window.seconds


def test_noise_of_the_sensor_averages_out_and_shows_its_ticks(open_gpu: OpenGpu) -> None:
    fake, gpu = open_gpu("gpu = p100", "virtual = 1", "noise_w = 2")
    meter = found(energy.find_meter(gpu))
    poll(fake, meter, 0.1, lambda _: LOAD_W)
    readings, marks = poll(fake, meter, 4, lambda _: LOAD_W)
    window = energy.whole_iterations(meter.curve(readings), marks)
    # Uniform in +-2 W, once per tick of 20 ms: four standard errors of the mean.
    standard_error_w = 2 / 3**0.5 / (window.seconds / 0.020) ** 0.5
    assert window.joules / window.seconds == pytest.approx(LOAD_W, abs=4 * standard_error_w)
    assert 0.020 <= window.resolution_s <= 0.020 + 2 * energy.POLL_S


def test_power_follows_a_changing_load(open_gpu: OpenGpu) -> None:
    fake, gpu = open_gpu("gpu = p100", "virtual = 1", "noise_w = 0")
    meter = found(energy.find_meter(gpu))
    poll(fake, meter, 0.1, lambda _: 100)
    readings, marks = poll(fake, meter, 3, lambda time_s: 250 if 1 <= time_s < 2 else 100)
    window = energy.whole_iterations(meter.curve(readings), marks)
    # Both steps are seen late by the same time, to within a tick and a poll.
    true_j = 100 * window.seconds + 150 * 1
    assert window.joules == pytest.approx(true_j, abs=150 * (0.020 + energy.POLL_S))


def test_settling_is_long_enough_for_a_register_of_one_second(open_gpu: OpenGpu) -> None:
    fake, gpu = open_gpu("gpu = h100", "energy = 0", "virtual = 1", "noise_w = 0")
    meter = found(energy.find_meter(gpu))
    assert meter.method == "power"
    poll(fake, meter, energy.SETTLE_S, lambda _: LOAD_W)
    readings, marks = poll(fake, meter, 1, lambda _: LOAD_W)
    window = energy.whole_iterations(meter.curve(readings), marks)
    assert window.joules == pytest.approx(LOAD_W * window.seconds, rel=1e-9)


@hypothesis.given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.1, 400)), min_size=2, max_size=20),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted),
)
def test_energy_adds_up_along_a_curve(
    pieces: list[tuple[float, float]], shares: Sequence[float]
) -> None:
    ends_s = list(itertools.accumulate(seconds for seconds, _ in pieces))
    joules = list(itertools.accumulate(seconds * watts for seconds, watts in pieces))
    curve = energy.counter_curve(
        [Reading(0, 0.0), *map(Reading, ends_s, joules), Reading(ends_s[-1] + 1, joules[-1] + 1)]
    )
    first, middle, last = (
        curve.times_s[0] + share * (curve.times_s[-1] - curve.times_s[0]) for share in shares
    )
    whole = curve.at(last) - curve.at(first)
    parts = (curve.at(middle) - curve.at(first)) + (curve.at(last) - curve.at(middle))
    assert parts == pytest.approx(whole, abs=1e-6)
    assert whole >= 0
    assert [curve.at(time_s) for time_s in curve.times_s] == pytest.approx(curve.joules)


# ----------------------------------------------------------------------- what is no measurement


def test_a_counter_that_goes_backwards_is_no_meter() -> None:
    readings = [Reading(0, 1.0), Reading(1, 2.0), Reading(2, 1.5), Reading(3, 3.0)]
    with pytest.raises(energy.UnusableError, match=r"backwards, from 2.0 J to 1.5 J"):
        energy.counter_curve(readings)


def test_a_counter_needs_two_ticks() -> None:
    readings = [Reading(0, 1.0), Reading(1, 1.0), Reading(2, 2.0), Reading(3, 2.0)]
    with pytest.raises(energy.UnusableError, match="ticked 1 times"):
        energy.counter_curve(readings)


def test_a_sensor_that_reads_nothing_is_no_meter() -> None:
    with pytest.raises(energy.UnusableError, match="0 W"):
        energy.power_curve([Reading(0, 0.0), Reading(1, 0.0)])
    with pytest.raises(energy.UnusableError, match="too few"):
        energy.power_curve([Reading(0, 100.0)])


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ([Mark(0.1, 0), Mark(1.5, 1)], "do not enclose an iteration"),
        ([Mark(1.1, 0), Mark(1.2, 1)], "did not tick in the window of 0.1 s"),
    ],
)
def test_a_window_without_a_tick_is_no_measurement(marks: list[Mark], reason: str) -> None:
    ticks = (1.0, 2.0, 3.0)
    with pytest.raises(energy.UnusableError, match=reason):
        energy.whole_iterations(energy.Curve(ticks, ticks, ticks), marks)


def test_the_longest_gap_that_touches_the_window_counts() -> None:
    ticks = (0.0, 0.1, 0.4, 0.5, 0.6, 1.6)
    curve = energy.Curve(ticks, ticks, ticks)
    assert curve.resolution_s(0.4, 0.6) == pytest.approx(0.1)
    assert curve.resolution_s(0.3, 0.6) == pytest.approx(0.3)
    assert curve.resolution_s(0.4, 0.7) == pytest.approx(1.0)


# ----------------------------------------------------------------- the whole protocol, real time


@pytest.mark.parametrize("preset", ["p100", "v100", "a100"])
def test_the_protocol(open_gpu: OpenGpu, hasty: Sampling, preset: str) -> None:
    fake, gpu = open_gpu(f"gpu = {preset}", "idle_w = 50")

    def step() -> None:
        fake.set_power(LOAD_W)
        time.sleep(0.004)

    found_energy = measure(energy.find_meter(gpu), step, hasty)
    assert found_energy.method == ("power" if preset == "p100" else "counter")
    assert found_energy.reason is None
    # Typed as optional: a cell without a meter has none of them.
    window_j, window_s, iterations = (
        found_energy.window_j or 0,
        found_energy.window_s or 0,
        found_energy.iterations or 0,
    )
    resolution_s, idle_w = found_energy.resolution_s or 0, found_energy.idle_w or 0
    uncertainty = found_energy.uncertainty or 0

    # However slowly the thread was served, the result is within what it says of itself.
    assert window_j == pytest.approx(LOAD_W * window_s, rel=uncertainty)
    assert uncertainty == pytest.approx(2 * resolution_s / window_s)
    assert window_s == pytest.approx(hasty.energy_s, abs=0.3)
    assert iterations * 0.004 <= window_s
    # Between two ticks, each of which is seen up to a poll late.
    assert idle_w == pytest.approx(50, rel=2 * resolution_s / hasty.idle_s)

    assert found_energy.mean_w == pytest.approx(window_j / window_s)
    assert found_energy.per_sample_mj == pytest.approx(1000 * window_j / (iterations * SAMPLES))
    assert found_energy.per_token_mj == pytest.approx(1000 * window_j / (iterations * TOKENS))
    assert found_energy.net_per_sample_mj == pytest.approx(
        1000 * (window_j - idle_w * window_s) / (iterations * SAMPLES)
    )


def test_a_short_window_is_very_uncertain(open_gpu: OpenGpu, hasty: Sampling) -> None:
    _, gpu = open_gpu("gpu = t4")
    sampling = Sampling(energy_s=0.35, idle_s=0)
    found_energy = measure(energy.find_meter(gpu), lambda: time.sleep(0.002), sampling)
    # Fewer than 10 ticks of 100 ms: either edge is a tenth of the window, or more.
    assert found_energy.uncertainty is not None
    assert found_energy.uncertainty >= 0.2
    assert found_energy.idle_w is found_energy.net_per_sample_mj is None
    assert found_energy.reason == "no idle power: idle_s is 0"


def test_a_stopped_counter_gives_the_reason(open_gpu: OpenGpu, hasty: Sampling) -> None:
    _, gpu = open_gpu("gpu = a100", "energy_update_ms = 1e9")
    found_energy = measure(energy.find_meter(gpu), lambda: time.sleep(0.002), hasty)
    assert found_energy == Energy(
        "none", reason="the energy counter ticked 0 times, too few for a window"
    )


def test_a_lost_gpu_is_told_even_if_the_forward_fails_first(
    open_gpu: OpenGpu, hasty: Sampling
) -> None:
    fake, gpu = open_gpu("gpu = v100")
    steps = itertools.count()

    def step() -> None:
        time.sleep(0.005)
        if next(steps) == 40:
            fake.fault("nvmlDevice*:-1:15:0")
            time.sleep(5 * energy.POLL_S)
            raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(nvml.GpuLostError):
        measure(energy.find_meter(gpu), step, Sampling(energy_s=30, idle_s=0))


# ------------------------------------------------------------------------------------- RAPL


def add_domain(powercap: Path, domain: str, name: str, energy_uj: int) -> Path:
    folder = powercap / domain
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_only_packages_are_added_up(tmp_path: Path) -> None:
    packages = [add_domain(tmp_path, f"intel-rapl:{i}", f"package-{i}", 5) for i in (0, 1)]
    others = [
        add_domain(tmp_path, "intel-rapl:0:0", "core", 5),
        add_domain(tmp_path, "intel-rapl:2", "psys", 5),
        add_domain(tmp_path, "intel-rapl-mmio:0", "package-0", 5),
    ]
    meter = found(energy.find_meter(None, tmp_path))
    assert (meter.method, meter.read()) == ("rapl", 0)
    for counter in packages:
        counter.write_text(str(5 + 2_000_000))
    for counter in others:
        counter.write_text(str(9_000_000))
    assert meter.read() == 2 * 2


def test_a_counter_that_starts_again_loses_nothing(tmp_path: Path) -> None:
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 262_143_328_850 - 1_000_000)
    meter = found(energy.find_meter(None, tmp_path))
    for energy_uj in (500_000, 262_143_328_849, 999_999):
        counter.write_text(str(energy_uj))
        total_j = meter.read()
    assert total_j == pytest.approx(1 + 262_143.328850 + 1, abs=1e-5)


def test_a_counter_that_fails_once_leaves_a_gap(tmp_path: Path) -> None:
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = found(energy.find_meter(None, tmp_path))
    counter.unlink()
    assert meter.read() is None
    counter.write_text("3000000")
    assert meter.read() == 3


def test_a_machine_without_rapl_says_so(tmp_path: Path) -> None:
    meter = energy.find_meter(None, tmp_path / "absent")
    assert isinstance(meter, NoMeter)
    assert meter.reason.startswith("no CPU energy counter (RAPL)")


def test_a_forbidden_counter_says_how_to_permit_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 0)
    read_text = Path.read_text

    def read(path: Path) -> str:  # The tests may run as root, whom no mode keeps out.
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", read)
    meter = energy.find_meter(None, tmp_path)
    assert isinstance(meter, NoMeter)
    assert f"sudo chmod a+r {counter}" in meter.reason


def test_the_protocol_on_a_cpu(tmp_path: Path, hasty: Sampling) -> None:
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = found(energy.find_meter(None, tmp_path))
    steps = itertools.count(1)
    joules_per_step = 0.5

    def step() -> None:
        time.sleep(0.005)
        # As the kernel's file, it is never seen half written.
        written = counter.with_suffix(".new")
        written.write_text(str(round(next(steps) * joules_per_step * 1e6)))
        written.replace(counter)

    found_energy = measure(meter, step, hasty)
    assert found_energy.method == "rapl"
    assert found_energy.per_sample_mj is not None
    assert found_energy.uncertainty is not None
    assert found_energy.per_sample_mj == pytest.approx(
        1000 * joules_per_step / SAMPLES, rel=found_energy.uncertainty
    )
    # Nothing was drawn while it idled: this counter moves with the steps only.
    assert found_energy.idle_w is None
    assert found_energy.reason == (
        "no idle power: the energy counter ticked 0 times, too few for a window"
    )
