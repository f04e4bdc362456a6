"""benchmarks/compare.py: noise that is what it says, and the figure at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import compare

from bench.measured import Measurement


def latencies(rows: list[Measurement]) -> list[float]:
    return [row.timing.latency_ms_p50 for row in rows if row.timing]


def test_a_run_scatters_as_it_says_and_its_first_cell_is_slower() -> None:
    rows = list(compare.rows(np.random.default_rng(0), 400, 0.02, slower=1.5))
    logs = np.log(latencies(rows)).reshape(12, 400)
    assert np.std(logs, axis=1) == pytest.approx(np.full(12, 0.02), rel=0.15)
    assert np.exp(logs.mean(axis=1)) == pytest.approx([15.0] + [10.0] * 11, rel=0.01)


def test_outliers_are_slower_processes() -> None:
    rng = np.random.default_rng(0)
    logs = np.log(latencies(list(compare.rows(rng, 1000, 0.01, outliers=True)))) - np.log(10)
    assert np.mean(logs > 0.04) == pytest.approx(0.1 * np.exp(-4 / 3), rel=0.2)


def test_a_family_has_every_comparison_and_is_the_same_for_the_same_seed() -> None:
    noise = compare.Noise(3, 3, 0.01, 0.01)
    found = compare.compared_runs(1, noise)
    assert found.count == 12 * 3 + 6
    assert found == compare.compared_runs(1, noise)
    assert found != compare.compared_runs(2, noise)


def test_the_figure_is_the_last_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "ALIKE", (compare.Noise(5, 5, 0.01, 0.01),))
    monkeypatch.setattr(compare, "ODD", ())
    monkeypatch.setattr(compare, "UNEVEN", ())
    monkeypatch.setattr(compare, "COUNTS", (5,))
    monkeypatch.setattr(compare, "APART", ())
    monkeypatch.setattr(sys, "argv", ["compare.py", "--seeds", "3", "--power-seeds", "2"])
    assert compare.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "false alarms in at most 0.0% of 3 families of noise (promised: 5%)"
    alarms, quiet, noisy = [line for line in lines if line.startswith("  5 replicates")]
    assert alarms.split()[-3:] == ["42", "comparisons", "0.0%"]
    assert quiet.split()[-4:] == ["100.0%"] * 4
    assert "scatter 2%" in noisy


def test_more_false_alarms_than_chance_allows_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare.most(1000) == pytest.approx(0.0707, abs=1e-3)
    monkeypatch.setattr(compare, "false_alarms", lambda noise, seeds: 0.08)
    monkeypatch.setattr(compare, "power", lambda *asked: 0.5)
    monkeypatch.setattr(sys, "argv", ["compare.py"])
    assert compare.main() == 1
