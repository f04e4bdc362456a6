"""benchmarks/fidelity.py: both sides under one rule, and a bound that its own spread justifies."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch

from bench.asked import Workload

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import fidelity


def test_no_garbage_is_collected_within_the_plain_loop_and_before_it_is() -> None:
    enabled: list[bool] = []
    collected: list[str] = []

    def forward(ids: torch.Tensor) -> torch.Tensor:
        enabled.append(gc.isenabled())
        return ids

    def note(phase: str, _: object) -> None:
        collected.append(phase)

    gc.callbacks.append(note)
    try:
        times = fidelity.plain_loop(forward, torch.zeros(1), 7)
    finally:
        gc.callbacks.remove(note)
    assert enabled == [False] * 7 and len(times) == 7
    assert collected == ["start", "stop"]
    assert gc.isenabled()


def test_a_slow_forward_has_fewer_of_a_round() -> None:
    assert fidelity.afford(5, 45) == 100
    assert fidelity.afford(300, 45) == 15
    assert fidelity.afford(3000, 45) == 10


@pytest.mark.parametrize(
    ("ratios", "holds"),
    [
        ([1.001, 0.999, 1.002, 1.0, 0.998], True),
        ([1.021, 1.019, 1.022, 1.02, 1.018], False),
        ([0.981, 0.979, 0.982, 0.98, 0.978], False),
        ([0.97, 1.03, 1.04, 1.01, 1.02], True),  # 2 % apart, and known within 3 %
        ([0.8, 1.2, 1.1, 0.9, 1.0], False),  # tells nothing
    ],
)
def test_the_goal_is_a_percent_or_the_interval(ratios: list[float], holds: bool) -> None:
    assert fidelity.figure(ratios, 100).holds is holds


def test_the_table_comes_before_the_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "WORKLOAD", Workload("tiny", "eager", 1, 128))
    monkeypatch.setattr(sys, "argv", ["fidelity.py", "--rounds", "3", "--seconds", "1"])
    code = fidelity.main()
    lines = capsys.readouterr().out.splitlines()
    assert code in (0, 1)
    assert lines[2].split() == ["round", "tensorgap", "ms", "by", "hand", "ms", "ratio"]
    assert sum(line.lstrip()[:1].isdigit() for line in lines[3:-3]) == 3
    assert lines[-1].startswith("latency of tensorgap / by hand: ")
