"""bench.stats: against numpy, against what is known of the samples, and by properties."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bench import stats
from bench.stats import Median, Ratio

Rng = np.random.Generator
durations = st.floats(0.001, 1000)


def log_normal(rng: Rng, count: int) -> list[float]:
    """Skewed, as latencies are; the true median is 1."""
    return list(rng.lognormal(0, 0.3, count))


def autoregressive(rng: Rng, count: int, likeness: float) -> list[float]:
    """Neighbours are alike; the true median is 10."""
    burn_in = 100  # forgets the start
    noise = rng.normal(size=count + burn_in)
    values = np.zeros(count + burn_in)
    for index in range(1, len(values)):
        values[index] = likeness * values[index - 1] + noise[index]
    return list(10 + values[burn_in:])


def share_covered(trials: int, sample: Callable[[Rng], Sequence[float]], true: float) -> float:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(trials):
        low, high = stats.median_interval(sample(rng))
        covered += low <= true <= high
    return covered / trials


# ------------------------------------------------------------------------------- median interval


def test_the_interval_covers_the_true_median_of_independent_samples() -> None:
    covered = share_covered(200, lambda rng: log_normal(rng, 100), 1.0)
    assert 0.90 <= covered <= 0.99


def test_the_interval_covers_the_true_median_of_samples_that_are_alike() -> None:
    covered = share_covered(100, lambda rng: autoregressive(rng, 300, 0.5), 10.0)
    assert 0.88 <= covered <= 0.99


def test_the_interval_covers_the_true_median_of_samples_that_stay_alike_for_long() -> None:
    # Blocks of the cube root of their number covered 78 % and 75 % here, single samples 59 %.
    covered = share_covered(200, lambda rng: autoregressive(rng, 1000, 0.8), 10.0)
    assert covered >= 0.92
    covered = share_covered(200, lambda rng: autoregressive(rng, 662, 0.9), 10.0)
    assert covered >= 0.90


def test_a_drift_shows_in_the_interval() -> None:
    """Half a wave, whose median is that of no longer time: far from known, however many samples."""
    rng = np.random.default_rng(1)
    wave = [10 + math.sin(math.pi * index / 5000) + 0.1 * rng.normal() for index in range(5000)]
    low, high = stats.median_interval(wave)
    assert high - low > 0.2
    mixed_low, mixed_high = stats.median_interval(list(rng.permutation(wave)))
    assert mixed_high - mixed_low < 0.1


@given(st.lists(durations, min_size=1, max_size=40))
def test_likeness_never_narrows_an_interval(values: list[float]) -> None:
    assert 1 <= stats.likeness(values) <= math.sqrt(19)  # a correlation of 0.9


def test_likeness_is_that_of_an_autoregressive_process() -> None:
    """The standard error of its mean is sqrt((1 + r) / (1 - r)) that of independent values."""
    values = autoregressive(np.random.default_rng(2), 20_000, 0.6)
    assert stats.likeness(values) == pytest.approx(2.0, rel=0.05)


def test_likeness_of_neighbours_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    alike = autoregressive(rng, 1000, 0.8)
    mixed = list(rng.permutation(alike))
    widths = [high - low for low, high in map(stats.median_interval, (alike, mixed))]
    assert widths[0] > 1.5 * widths[1]


def test_more_samples_narrow_the_interval_by_their_square_root() -> None:
    rng = np.random.default_rng(4)
    widths = []
    for count in (100, 1600):
        intervals = [stats.median_interval(log_normal(rng, count)) for _ in range(10)]
        widths.append(statistics.mean(high - low for low, high in intervals))
    assert widths[0] / widths[1] == pytest.approx((1600 / 100) ** 0.5, rel=0.35)


def test_the_same_samples_give_the_same_interval() -> None:
    samples = log_normal(np.random.default_rng(5), 50)
    assert stats.median_interval(samples) == stats.median_interval(samples)


def test_one_sample_has_an_interval_of_no_width() -> None:
    assert stats.median_interval([3.0]) == (3.0, 3.0)


@given(st.lists(durations, min_size=1, max_size=40))
def test_the_interval_lies_within_the_samples(samples: list[float]) -> None:
    low, high = stats.median_interval(samples)
    assert min(samples) <= low <= high <= max(samples)


@given(st.lists(durations, min_size=1, max_size=40))
def test_twice_the_times_have_twice_the_interval(samples: list[float]) -> None:
    low, high = stats.median_interval(samples)
    assert stats.median_interval([2 * sample for sample in samples]) == (2 * low, 2 * high)


def test_an_interval_of_many_samples_takes_them_all() -> None:
    rng = np.random.default_rng(6)
    samples = log_normal(rng, 5000)
    low, high = stats.median_interval(samples)
    # Standard error of the median of a log-normal: sigma sqrt(pi / 2 n).
    standard_error = 0.3 * (np.pi / 2 / 5000) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.25)


# ------------------------------------------------------------------------------- summary


@given(st.lists(durations, min_size=1, max_size=30))
def test_a_summary_is_what_numpy_says(samples: list[float]) -> None:
    summary = stats.summarise(samples)
    quartiles = np.quantile(samples, (0.25, 0.75))
    assert summary.count == len(samples)
    assert summary.min == min(samples)
    assert summary.p50 == pytest.approx(statistics.median(samples))
    assert summary.iqr == pytest.approx(quartiles[1] - quartiles[0], abs=1e-9)
    enough = len(samples) >= 11
    interval = stats.median_interval(samples) if enough else (None, None)
    assert (summary.p50_low, summary.p50_high) == interval


@pytest.mark.parametrize("quantile", ["p90", "p95", "p99"])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_quantile_is_given_only_where_enough_samples_stand_behind_it(
    quantile: str, beside: int
) -> None:
    share = int(quantile[1:]) / 100
    count = {"p90": 64, "p95": 130, "p99": 662}[quantile] + beside
    samples = log_normal(np.random.default_rng(7), count)
    found = getattr(stats.summarise(samples), quantile)
    assert found == (None if beside < 0 else pytest.approx(np.quantile(samples, share)))


def fewest_for(quantile: float) -> int:
    """LoadGen's rule, computed anew: the count n from which h(n) > q n.

    With t samples above the estimate among n, the true quantile is below it at 99 % confidence
    where P(Binomial(n, 1 - q) <= t) <= 1 %; the first n for which a t >= 1 is allowed.
    """
    confidence = 0.99
    count = 1
    while True:
        none_or_one = quantile**count + count * (1 - quantile) * quantile ** (count - 1)
        if none_or_one <= 1 - confidence:
            return count
        count += 1


@pytest.mark.parametrize("quantile", [0.50, 0.90, 0.95, 0.99])
def test_the_fewest_samples_follow_from_99_percent_confidence(quantile: float) -> None:
    assert stats.FEWEST_FOR_QUANTILE[quantile] == fewest_for(quantile)


# ------------------------------------------------------------------------------- ratios


def replicates(rng: Rng, count: int, between: float, within: float) -> list[list[float]]:
    """Processes that differ from each other by `between`, of 50 samples that differ by `within`."""
    return [list(rng.normal(10 + between * rng.normal(), within, 50)) for _ in range(count)]


def medians_of(side: Sequence[Sequence[float]]) -> list[Median]:
    """The median of each process, of its samples."""
    return [Median(float(np.median(each)), *stats.median_interval(each)) for each in side]


def share_of_ratios(
    trials: int, counts: tuple[int, int], medians: Callable[[Rng], float], within: float = 0.0
) -> float:
    """The share of intervals of a ratio that cover the true one, 1.

    Each of `counts` replicates has a median of its own, and 20 samples around it if `within` > 0.
    """
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(trials):
        sides = [
            [rng.normal(medians(rng), within, 20 if within else 1) for _ in range(count)]
            for count in counts
        ]
        ratio = stats.ratio_of_medians(*map(medians_of, sides))
        covered += ratio.low <= 1 <= ratio.high
    return covered / trials


def test_a_ratio_within_two_processes_covers_the_true_one() -> None:
    assert 0.92 <= share_of_ratios(400, (1, 1), lambda _: 10.0, within=0.5) <= 0.995


@pytest.mark.parametrize("count", range(2, 11))
def test_the_interval_of_a_ratio_over_replicates_holds_at_95_percent(count: int) -> None:
    covered = share_of_ratios(1000, (count, count), lambda rng: math.exp(0.05 * rng.normal()))
    # Welch's degrees of freedom are an estimate: at 2 against 2 it gives 97.7 %.
    assert 0.93 <= covered <= (0.975 if count > 2 else 0.985)


def test_processes_that_do_not_differ_are_no_worse() -> None:
    for count in (3, 10):
        assert 0.90 <= share_of_ratios(200, (count, count), lambda _: 10.0, within=0.5) <= 0.995


def test_differences_between_processes_widen_the_ratio() -> None:
    """Samples within a process would claim far more than they know."""
    rng = np.random.default_rng(8)
    numerator = replicates(rng, 5, between=0.5, within=0.1)
    denominator = replicates(rng, 5, between=0.5, within=0.1)
    sides = medians_of(numerator), medians_of(denominator)
    over_processes = stats.ratio_of_medians(*sides)
    first_only = stats.ratio_of_medians(sides[0][:1], sides[1][:1])
    assert over_processes.high - over_processes.low > 2 * (first_only.high - first_only.low)


def test_the_interval_over_processes_is_welchs_over_logarithms() -> None:
    """Two medians on either side: means and variances by hand, t at 2 degrees of freedom."""
    spread = 0.1  # the logarithms are 1 +- spread and 0 +- spread
    numerator = [Median(math.exp(1 + spread)), Median(math.exp(1 - spread))]
    denominator = [Median(math.exp(spread)), Median(math.exp(-spread))]
    ratio = stats.ratio_of_medians(numerator, denominator)
    variance_of_a_mean = 2 * spread**2 / 2
    factor = math.exp(4.30265 * math.sqrt(2 * variance_of_a_mean))
    assert ratio.value == pytest.approx(math.e)
    assert ratio.high == pytest.approx(math.e * factor)
    assert ratio.low == pytest.approx(math.e / factor)


def test_what_the_processes_of_a_pair_share_is_not_in_their_ratio() -> None:
    rng = np.random.default_rng(3)
    covered, wider = 0, 0
    for _ in range(400):
        gpus = 10 * np.exp(0.3 * rng.normal(size=4))
        numerator, denominator = (
            [Median(gpu * math.exp(0.01 * rng.normal())) for gpu in gpus] for _ in "ab"
        )
        paired = stats.ratio_of_medians(numerator, denominator, paired=True)
        covered += paired.low <= 1 <= paired.high
        welch = stats.ratio_of_medians(numerator, denominator)
        wider += welch.high / welch.low > paired.high / paired.low
        assert paired.value == pytest.approx(welch.value)
    assert 0.92 <= covered / 400 <= 0.98
    assert wider == 400


def test_the_quantiles_of_student_are_those_of_its_distribution() -> None:
    """By simulation: 5 % of all t lie beyond, also at fractional degrees of freedom; and tables."""
    rng = np.random.default_rng(9)
    for freedom in (1, 1.4, 2, 5, 30.5, 60):
        beyond = np.abs(rng.standard_t(freedom, 200_000)) > stats.t_quantile(freedom)
        assert beyond.mean() == pytest.approx(0.05, abs=0.002)
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    for freedom, tail, value in ((1, 0.005, 63.657), (3, 0.025, 3.182), (100, 0.001, 3.174)):
        assert stats.t_quantile(freedom, tail) == pytest.approx(value, rel=2e-4)


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_more_freedom_never_widens_an_interval(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert stats.t_quantile(less) >= stats.t_quantile(more) * (1 - 1e-5)
    assert stats.t_quantile(more) >= 1.9599


def test_the_value_of_a_ratio_is_that_of_the_geometric_means_of_medians() -> None:
    ratio = stats.ratio_of_medians([Median(2), Median(4)], [Median(2), Median(1), Median(3)])
    assert ratio.value == pytest.approx((2 * 4) ** (1 / 2) / (2 * 1 * 3) ** (1 / 3))


def test_a_process_with_too_few_samples_leaves_a_ratio_open() -> None:
    few, many = ([one] * 2 for one in (Median(2.0), Median(2.0, 1.9, 2.1)))
    for sides in ((few[:1], many[:1]), (many[:1], few[:1]), (few, many[:1])):
        assert stats.ratio_of_medians(*sides) == Ratio(1.0, 0.0, math.inf)
        assert not stats.ratio_of_medians(*sides).has_interval  # nor can it miss the true one
    assert stats.ratio_of_medians(few, many) == Ratio(1.0, 1.0, 1.0)  # their medians decide


@given(st.lists(st.lists(durations, min_size=1, max_size=8), min_size=1, max_size=3))
def test_a_ratio_lies_between_its_extremes(groups: list[list[float]]) -> None:
    ratio = stats.ratio_of_medians(medians_of(groups), [Median(1.0, 1.0, 1.0)])
    everything = [sample for group in groups for sample in group]
    assert min(everything) <= ratio.low * (1 + 1e-12)
    assert ratio.low <= ratio.high
    assert ratio.high <= max(everything) * (1 + 1e-12)


@given(durations, st.floats(0, 0.3), durations, st.floats(0, 0.3))
def test_uncertainties_add_in_quadrature(a: float, da: float, b: float, db: float) -> None:
    ratio = stats.ratio_of_uncertain(a, da, b, db)
    relative = (ratio.high - ratio.low) / 2 / ratio.value
    assert ratio.value == a / b
    assert relative == pytest.approx((da**2 + db**2) ** 0.5, abs=1e-12)


# ------------------------------------------------------------------------------- stopping rules


@given(durations, st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_half_width_is_the_share_of_the_farther_end(
    middle: float, below: float, above: float
) -> None:
    summary = replace(
        stats.summarise([middle]),
        p50_low=middle * (1 - below),
        p50_high=middle * (1 + above),
    )
    assert summary.half_width == pytest.approx(max(below, above), abs=1e-9)


def test_too_few_samples_have_no_half_width() -> None:
    assert stats.summarise([1.0] * 10).half_width is None
    assert stats.summarise([1.0] * 11).half_width == 0


@given(st.floats(0.001, 5), st.integers(1, 50))
def test_equal_forwards_are_steady_once_they_fill_two_windows(
    duration_s: float, count: int
) -> None:
    in_a_window = int(np.ceil(1 / duration_s * (1 - 1e-9)))
    assert stats.steady([duration_s] * count) == (count >= 2 * in_a_window)


@given(st.integers(2, 10), st.floats(0.02, 0.5))
def test_a_drift_beyond_the_share_is_not_steady(per_window: int, drift: float) -> None:
    before, after = 1 / per_window, 1 / per_window * (1 - drift)
    in_the_last = int(np.ceil(1 / after))
    assert not stats.steady([before] * per_window * 2 + [after] * in_the_last)
    assert stats.steady([before] * per_window * 2 + [after] * in_the_last, within=drift + 1e-6)


@given(st.lists(durations, max_size=60))
def test_what_came_before_the_last_two_windows_is_forgotten(warm_up: list[float]) -> None:
    assert stats.steady([*warm_up, *[0.1] * 20])


def test_a_forward_longer_than_the_window_is_a_window() -> None:
    assert stats.steady([3.0, 3.0])
    assert not stats.steady([4.0, 3.0])
    assert not stats.steady([3.0])


def test_nothing_is_not_steady() -> None:
    assert not stats.steady([])
