"""bench.energy.rapl: over files like those of Linux's powercap."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.asked import Sampling
from bench.energy import protocol as energy
from bench.energy import rapl
from bench.energy.meter import NoMeter, find_meter
from bench.model import requests as queues

ReadJ = Callable[[], float | None]


def found(reader: ReadJ | str) -> ReadJ:
    assert not isinstance(reader, str), reader
    return reader


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
    read_j = found(rapl.reader(tmp_path))
    assert read_j() == 0
    for counter in packages:
        counter.write_text(str(5 + 2_000_000))
    for counter in others:
        counter.write_text(str(9_000_000))
    assert read_j() == 2 * 2


def test_a_counter_that_starts_again_loses_nothing(tmp_path: Path) -> None:
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 262_143_328_850 - 1_000_000)
    read_j = found(rapl.reader(tmp_path))
    for energy_uj in (500_000, 262_143_328_849, 999_999):
        counter.write_text(str(energy_uj))
        total_j = read_j()
    assert total_j == pytest.approx(1 + 262_143.328850 + 1, abs=1e-5)


def test_a_counter_that_fails_once_leaves_a_gap(tmp_path: Path) -> None:
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 0)
    read_j = found(rapl.reader(tmp_path))
    counter.unlink()
    assert read_j() is None
    counter.write_text("3000000")
    assert read_j() == 3


def test_a_machine_without_rapl_says_so(tmp_path: Path) -> None:
    reason = rapl.reader(tmp_path / "absent")
    assert isinstance(reason, str)
    assert reason.startswith("no CPU energy counter (RAPL)")
    assert find_meter(None, tmp_path / "absent") == NoMeter(reason)


def test_a_name_that_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    (add_domain(tmp_path, "intel-rapl:0", "package-0", 0).parent / "name").unlink()
    reason = rapl.reader(tmp_path)
    assert isinstance(reason, str)
    assert "does not answer" in reason


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
    reason = rapl.reader(tmp_path)
    assert isinstance(reason, str)
    assert f"sudo chmod a+r {counter}" in reason


def test_the_protocol_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SETTLE_S", 0.1)
    counter = add_domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = find_meter(None, tmp_path)
    steps = itertools.count(1)
    joules_per_step = 0.5

    def step() -> None:
        time.sleep(0.005)
        # As the kernel's file, it is never seen half written.
        written = counter.with_suffix(".new")
        written.write_text(str(round(next(steps) * joules_per_step * 1e6)))
        written.replace(counter)

    found_energy = energy.measure_energy(
        queues.CpuQueue(step),
        samples_per_step=4,
        tokens_per_step=512,
        sampling=Sampling(energy="quick", energy_s=0.6, idle_s=0.2),
        meter=meter,
    )
    assert found_energy.method == "rapl"
    assert found_energy.per_sample_mj is not None
    assert found_energy.uncertainty is not None
    assert found_energy.per_sample_mj == pytest.approx(
        1000 * joules_per_step / 4, rel=found_energy.uncertainty
    )
    # Nothing was drawn while it idled: this counter moves with the steps only.
    assert found_energy.idle_w is None
    assert found_energy.reason == (
        "no idle power: the energy counter ticked 0 times, too few for a window"
    )
    # Neither clocks nor power readings: those are a GPU's.
    assert found_energy.trace_w is found_energy.systematic is found_energy.discrepancy is None
