"""benchmarks/stopping.py: each rule on noise of which is known when it must stop."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bench.asked import Sampling

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import stopping

RNG = np.random.default_rng
FLAT = np.full(20_000, 10.0)


def wobbling(share: float) -> np.ndarray:
    """In turn above and below 10 ms: a relative standard deviation of `share`."""
    return 10 * (1 + share * np.tile([1.0, -1.0], 10_000))


def test_ours_is_the_product_and_tells_whether_it_has_converged() -> None:
    assert stopping.ours(FLAT, Sampling()) == (1000, True)  # 10 s
    assert stopping.ours(FLAT, Sampling(min_samples=64, latency_min_s=0)) == (64, True)
    slow = np.where(np.arange(20_000) < 3000, 10.0, 12.0)
    assert stopping.ours(slow, Sampling(min_samples=5000, max_samples=5000)) == (5000, False)


def test_nvbenchs_deviation_is_small_or_settles() -> None:
    assert stopping.stdrel(wobbling(0.004)) == 51  # beyond 0.5 s
    # It is the same from the first forwards on, and looked at after 64 of them, each 16th.
    assert stopping.stdrel(wobbling(0.2)) == 80
    growing = 10 * 1.01 ** np.arange(2000)
    assert stopping.stdrel(growing) == stopping.in_time(growing)


def test_nvbenchs_entropy_stops_growing() -> None:
    assert stopping.entropy(FLAT) == 10
    # Two times in turn: 1 bit, around which it wobbles, and no straight line describes that.
    assert stopping.entropy(wobbling(0.1)) == stopping.in_time(wobbling(0.1))
    # All different: log2 n, whose slope is below 0.048 degrees after 1 / (ln 2 tan 0.048) forwards.
    different = 1 + 0.001 * np.arange(20_000)
    found = stopping.entropy(different)
    expected = 1 / (np.log(2) * np.tan(np.radians(0.048)))
    assert expected < found < expected + 299


def test_nvbench_gives_up_after_15_s() -> None:
    assert stopping.in_time(FLAT) == 1500
    assert stopping.in_time(FLAT[:200]) == 200


def test_a_score_counts_the_runs_that_say_that_they_are_right() -> None:
    told = [(True, True, 1.0), (False, True, 2.0), (False, False, 60.0), (True, True, 3.0)]
    score = stopping.score(told)
    assert score == stopping.Score(true=2 / 3, converged=0.75, seconds=2.5)
    assert score.kept == pytest.approx(0.75)  # the second one does not
    assert stopping.score([(False, False, 60.0)]).kept == 1
    assert str(score) == "66.7%/75%   2.5 s"
    assert str(stopping.score([(True, False, 60.0)])) == "-/0%  60.0 s"


def test_what_a_fixed_count_needs_follows_from_the_noise() -> None:
    """+-1 % in 94 %: 1.88 standard errors of the median, sqrt(pi / 2 n) of 5 %."""
    found = stopping.needed(stopping.gaussian, stopping.FORWARD_MS, 200)
    assert found == pytest.approx(np.pi / 2 * (1.88 * 0.05 / 0.01) ** 2, rel=0.35)
    assert stopping.needed(lambda rng, count: FLAT * rng.choice([1, 2]), 10.0, 20) is None


@pytest.mark.parametrize("name", stopping.NOISES)
def test_a_noise_is_the_same_for_the_same_seed_and_its_median_is_as_long(name: str) -> None:
    noise = stopping.NOISES[name]
    times_ms = noise(RNG(1), 5000)
    assert np.array_equal(times_ms, noise(RNG(1), 5000))
    assert np.median(times_ms) == pytest.approx(stopping.FORWARD_MS, rel=0.1)


def test_a_record_is_replayed_in_a_circle() -> None:
    recorded = np.arange(5.0)
    found = stopping.replayed(recorded)(RNG(0), 12)
    assert found.tolist() == [(found[0] + index) % 5 for index in range(12)]


def test_the_table_comes_before_the_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "NOISES", {"Gaussian": stopping.gaussian})
    monkeypatch.setattr(stopping, "TRUE_OF", 10_000)
    monkeypatch.setattr(stopping.gc, "freeze", lambda: None)
    monkeypatch.setattr(sys, "argv", ["stopping.py", "--runs", "2", "--seconds", "0.5"])
    assert stopping.main() in (0, 1)
    first, _, head, gaussian, recorded, _, figure = capsys.readouterr().out.splitlines()
    assert "forwards recorded" in first
    assert head.split()[0] == "tensorgap"
    assert (gaussian.split()[0], recorded.split()[0]) == ("Gaussian", "recorded")
    assert figure.startswith("at least ")
