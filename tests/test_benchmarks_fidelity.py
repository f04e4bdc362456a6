"""benchmarks/fidelity.py: turn by turn under one rule, and a figure that tells 0.5 % from none."""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.asked import CPU, Cell, QualityPlan, Sampling
from bench.measured import Outcome
from bench.model.requests import CpuQueue
from bench.outcomes import Request

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import fidelity


def rounds(ratio: float, spread: float, count: int = 200) -> list[float]:
    """Values of rounds, some of them hit by what others compute."""
    rng = np.random.default_rng(0)
    hit = np.where(rng.random(count) < 0.1, 20, 1)
    return list(np.log(ratio) + spread * hit * rng.standard_normal(count))


@pytest.mark.parametrize("seed", range(5))
def test_the_two_take_turns_and_half_of_the_pairs_begin_by_hand(seed: int) -> None:
    random.seed(seed)
    order: list[str] = []
    by_hand_ms = itertools.count(100.0)

    def by_hand() -> float:
        order.append("hand")
        return next(by_hand_ms)

    found = fidelity.paired(CpuQueue(lambda: order.append("ours")), by_hand, 20)
    assert [hand_ms for _, hand_ms in found] == [100.0 + index for index in range(20)]
    pairs = [tuple(order[index : index + 2]) for index in range(0, 40, 2)]
    assert sorted(pairs) == [("hand", "ours")] * 10 + [("ours", "hand")] * 10


def test_the_turn_by_hand_is_in_no_latency_of_tensorgap() -> None:
    def by_hand() -> float:
        time.sleep(0.02)
        return 20.0

    found = fidelity.paired(CpuQueue(lambda: None), by_hand, 10)
    assert max(ours_ms for ours_ms, _ in found) < 20


def test_garbage_is_collected_before_the_turns_of_both_and_not_within() -> None:
    enabled: list[bool] = []
    collected: list[str] = []

    def note(phase: str, _: object) -> None:
        collected.append(phase)

    gc.callbacks.append(note)
    try:
        fidelity.paired(
            CpuQueue(lambda: enabled.append(gc.isenabled())),
            lambda: float(not enabled.append(gc.isenabled())),
            7,
        )
    finally:
        gc.callbacks.remove(note)
    assert enabled == [False] * 14 and collected == ["start", "stop"]
    assert gc.isenabled()


def test_the_loop_by_hand_times_one_forward_of_each_prompt_in_turn() -> None:
    seen: list[int] = []

    def forward(ids: torch.Tensor) -> torch.Tensor:
        seen.append(int(ids))
        time.sleep(0.002)
        return ids

    turn = fidelity.plain_loop(forward, torch.arange(3))
    assert min(turn() for _ in range(7)) >= 2
    assert seen == [0, 1, 2, 0, 1, 2, 0]


def test_a_delay_is_a_share_of_the_forward() -> None:
    start_s = time.perf_counter()
    fidelity.delayed(lambda: time.sleep(0.01), 0.5)()
    assert time.perf_counter() - start_s >= 0.015


def test_a_slow_forward_has_fewer_pairs_in_a_round() -> None:
    assert fidelity.afford(2, 120) == 200
    assert fidelity.afford(20, 12) == 7
    assert fidelity.afford(300, 120) == 4


@pytest.mark.parametrize(
    ("ratio", "spread", "verdict"),
    [
        (1.0, 0.01, fidelity.PASSES),
        (1.002, 0.01, fidelity.PASSES),
        (0.998, 0.01, fidelity.PASSES),
        (1.005, 0.01, fidelity.FAILS),
        (0.995, 0.01, fidelity.FAILS),
        (1.0, 0.2, fidelity.INCONCLUSIVE),
        (1.1, 0.2, fidelity.INCONCLUSIVE),
    ],
)
def test_half_a_percent_is_told_from_none(ratio: float, spread: float, verdict: str) -> None:
    found = fidelity.figure(rounds(ratio, spread), 200, 2.0)
    assert found.verdict == verdict and verdict in found.text
    assert found.holds is (verdict == fidelity.PASSES)


def test_the_interval_holds_whatever_hits_single_rounds() -> None:
    """It covers the true value of 20 rounds in 95 % of cases, and is narrower than Student's."""
    values = rounds(1.0, 0.01, 20_000)
    covered, half = 0, []
    for start in range(0, len(values), 20):
        low, high = fidelity.interval(values[start : start + 20])
        covered += low <= 0 <= high
        half.append((high - low) / 2)
    assert 0.93 <= covered / 1000 <= 0.97
    assert np.median(half) < 0.4 * 1.96 * np.std(values) / 20**0.5


def test_rounds_go_on_until_they_tell() -> None:
    values = rounds(1.0, 0.005)
    first = next(count for count in range(1, 200) if fidelity.decided(values[:count]))
    assert fidelity.FEWEST_ROUNDS < first < 200
    low, high = fidelity.interval(values[:first])
    assert high - low <= 2 * fidelity.NARROW


def test_runs_drawn_from_rounds_fail_with_the_delay_and_not_without() -> None:
    recorded = rounds(1.0, 0.005, 400)
    assert fidelity.share_failed(recorded, fidelity.GOAL, runs=100) >= 0.95
    assert fidelity.share_failed(recorded, 0.0, runs=100) <= 0.05


def test_the_drivers_process_leaves_its_figure_where_the_run_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fidelity.figure(rounds(1.0, 0.01), 200, 2.0)
    monkeypatch.setattr(fidelity, "compare", lambda seconds: found)
    path = tmp_path / "figure.json"
    asked = Request(
        str(path), Cell(CPU, "fp32"), 0, (fidelity.ON_CPU,), Sampling(), QualityPlan(enabled=False)
    )
    (row,) = fidelity.measure(asked)
    assert (row.outcome, row.workload, row.run) == (Outcome.OK, fidelity.ON_CPU, str(path))
    assert fidelity.read(path) == found
    assert json.loads(path.read_text())["verdict"] == fidelity.PASSES


def test_the_table_comes_before_the_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "PLACES", {"alone": fidelity.compare})
    monkeypatch.setattr(sys, "argv", ["fidelity.py", "--seconds", "1"])
    code = fidelity.main()
    head, alone, _, figure = capsys.readouterr().out.splitlines()
    assert code in (0, 1)
    assert head.split() == ["ms", "rounds", "pairs", "ratio", "+-"]
    assert alone.split()[0] == "alone"
    assert figure.startswith("latency of tensorgap / by hand: ")


def test_the_power_is_that_of_runs_with_the_delay_and_without(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(seconds: float, delay: float) -> fidelity.Figure:
        return fidelity.figure(rounds(1 + delay, 0.005), 200, 2.0)

    monkeypatch.setattr(fidelity, "compare", compare)
    monkeypatch.setattr(fidelity, "DRAWN_RUNS", 50)
    assert fidelity.power(2, 1.0)
    *_, figure = capsys.readouterr().out.splitlines()
    assert figure.startswith("a delay of 0.5 % fails in 100.0% of 2 runs")
    monkeypatch.setattr(fidelity, "compare", lambda seconds, delay: compare(seconds, 0.0))
    assert not fidelity.power(2, 1.0)
