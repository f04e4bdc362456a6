"""Quantiles, intervals, ratios and stopping rules: pure functions, each with its source.

Latencies drift and cluster, so that samples next to each other are alike. An interval that took
them for independent would be too narrow; it is taken over batches of neighbours instead.
"""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
BATCHES = 20
MOST_LIKENESS = 0.9  # correlation of neighbouring batches; beyond, all of them are one drift
# Fewest samples for a quantile at 99 % confidence: MLPerf LoadGen's early-stopping estimate,
# https://github.com/mlcommons/inference/blob/master/loadgen/early_stopping.cc
FEWEST_FOR_QUANTILE = {0.50: 11, 0.90: 64, 0.95: 130, 0.99: 662}
NORMAL = 1000  # degrees of freedom: Student's t is the normal to within 0.3 %, far out as well
TAIL = (1 - CONFIDENCE) / 2
ANGLES = np.linspace(0, math.pi / 2, 10_001)


@dataclass(frozen=True)
class Summary:
    """The statistics of a sample, in its unit. None: too few samples."""

    count: int
    min: float
    iqr: float
    p50: float
    p50_low: float | None = None
    p50_high: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None

    @property
    def half_width(self) -> float | None:
        """How far the interval of the median reaches from it, as a share of it."""
        if self.p50_low is None or self.p50_high is None:
            return None
        return max(self.p50_high - self.p50, self.p50 - self.p50_low) / self.p50


class Median(NamedTuple):
    """The median of one process, with its 95 % interval; None: too few samples for one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A ratio with the interval that covers the true one in 95 % of all repetitions."""

    value: float
    low: float
    high: float
    # Degrees of freedom of Student's t in the interval; None: single processes', or windows'.
    freedom: float | None = field(default=None, repr=False)

    @property
    def has_interval(self) -> bool:
        """Whether it has ends that can miss the true one: it is not stated alone, nor open."""
        return self.low < self.high < math.inf


@dataclass(frozen=True)
class Difference:
    """A mean difference, its standard error and 95 % interval; None where there is one pair."""

    mean: float
    error: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The logarithm of a ratio, its standard error, and the degrees of freedom of that error."""

    value: float
    error: float
    freedom: float  # math.inf: the error is known

    @property
    def p(self) -> float:
        """How often chance alone gives a value so far from 0, on either side."""
        if self.error == 0:
            return float(self.value == 0)
        return 2 * t_tail(abs(self.value) / self.error, self.freedom)

    def ratio(self, tail: float) -> Ratio:
        """The ratio, with the interval that misses the true one by `tail` on each side."""
        reach = t_quantile(self.freedom, tail) * self.error
        low, value, high = map(exp, (self.value - reach, self.value, self.value + reach))
        return Ratio(value, low, high, self.freedom)

    def detectable(self, tail: float, power: float) -> float:
        """The true value of which a test at `tail` on each side finds so large a share."""
        reach = t_quantile(self.freedom, tail) + t_quantile(self.freedom, 1 - power)
        return reach * self.error


def exp(value: float) -> float:
    """The exponential function; infinity beyond the range of numbers.

    >>> exp(0.0), exp(1e3)
    (1.0, inf)
    """
    return math.exp(value) if value < 709 else math.inf


def summarise(samples: Sequence[float]) -> Summary:
    """Summarise at least one sample; a quantile is given where enough samples stand behind it."""
    low, high, *found = map(float, np.quantile(samples, (0.25, 0.75, *FEWEST_FOR_QUANTILE)))
    count, fewest = len(samples), FEWEST_FOR_QUANTILE.values()
    known = [value if count >= n else None for value, n in zip(found, fewest, strict=True)]
    interval = (None, None) if known[0] is None else median_interval(samples)
    return Summary(count, min(samples), high - low, found[0], *interval, *known[1:])


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median: two quantiles of the samples (Woodruff 1952, JASA 47).

    Which ones follows from how the share of samples below the median scatters between batches, each
    a stretch of the samples in their order (Schmeiser 1982, Operations Research 30: 10 to 30). It
    is wider by `likeness` where even batches are alike, as in a drift.

    >>> median_interval([2.0] * 20)
    (2.0, 2.0)
    """
    values = np.asarray(samples, dtype=np.float64)
    below = (1 - np.sign(values - np.median(values))) / 2
    shares = [float(batch.mean()) for batch in np.array_split(below, min(BATCHES, len(values)))]
    reach = min(0.5, student_interval(shares) * likeness(shares)) if len(shares) > 1 else 0.5
    low, high = np.quantile(values, (0.5 - reach, 0.5 + reach))
    return float(low), float(high)


def likeness(values: Sequence[float]) -> float:
    """How much wider the interval of a mean is where each value is like the one before.

    As in an AR(1) process, whose r is estimated 1 / n too low (Marriott and Pope 1954, Biometrika).

    >>> likeness([1.0, -1.0, 1.0, -1.0]), round(likeness([1.0, 1.0, -1.0, -1.0]), 6)
    (1.0, 1.732051)
    """
    off = np.asarray(values) - np.mean(values)
    whole = float(off @ off)
    if whole == 0:
        return 1.0
    correlation = min(float(off[1:] @ off[:-1]) / whole + 1 / len(off), MOST_LIKENESS)
    return max(1.0, math.sqrt((1 + correlation) / (1 - correlation)))


def ratio_of_medians(
    above: Sequence[Median], below: Sequence[Median], paired: bool = False
) -> Ratio:
    """Median of one set of replicates over the median of another, with its 95 % interval.

    Each replicate is a fresh process. With several on both sides it is the ratio of their geometric
    means, and the interval Welch's over the logarithms of the medians, because processes differ
    from each other by more than the samples within one do (Kalibera and Jones 2013, ISMM). With one
    on a side it follows from the intervals of the medians (Zou and Donner 2008, Statistics in
    Medicine 27), and holds for that process only; where one is unknown the ratio may be anything.
    `paired`: replicates belong together in their order, as on one GPU of several, so that what a
    pair shares cancels.

    >>> ratio_of_medians([Median(4.0, 4.0, 4.0)], [Median(2.0, 1.0, 2.0)])
    Ratio(value=2.0, low=2.0, high=4.0)
    >>> ratio_of_medians([Median(4.0)], [Median(2.0, 1.0, 2.0)])
    Ratio(value=2.0, low=0.0, high=inf)
    """
    logs_above, logs_below = (np.log([one.value for one in side]) for side in (above, below))
    value = float(np.exp(logs_above.mean() - logs_below.mean()))
    if len(above) > 1 and len(below) > 1:
        half, freedom = welch([logs_above - logs_below] if paired else [logs_above, logs_below])
        return Ratio(value, value / math.exp(half), value * math.exp(half), freedom)
    (low, high), (below_low, below_high) = map(log_reach, (above, below))
    down, up = np.exp([math.hypot(low, below_high), math.hypot(high, below_low)])
    return Ratio(value, float(value / down), float(value * up))


def log_reach(side: Sequence[Median]) -> tuple[float, float]:
    """How far the interval of the geometric mean of medians reaches down and up, as logarithms."""
    reach = [
        (math.inf, math.inf)
        if one.low is None or one.high is None
        else (math.log(one.value / one.low), math.log(one.high / one.value))
        for one in side
    ]
    down, up = zip(*reach, strict=True)
    return math.hypot(*down) / len(side), math.hypot(*up) / len(side)


def log_ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The geometric mean of some values over that of others, at least two of each, all above 0.

    Welch's, but with fewer degrees of freedom: halfway between his, at most twice `certain`, and
    `certain`, one less than the values of the smaller side, which never makes too many false alarms
    (Mickey and Brown 1966, Annals of Mathematical Statistics 37). In the far tails that many
    comparisons need, his own make too many: simulated families of 48 at 5 % had one in 88 % of
    cases where 2 values were compared with 10 that scatter a third as much, and in 8 % with 5 and
    5. `benchmarks/compare.py` counts those of this function.

    >>> found = log_ratio([2.0, 2.0], [1.0, 1.0])
    >>> round(found.value, 3), found.error, found.p
    (0.693, 0.0, 0.0)
    """
    sides = [np.log(side) for side in (above, below)]
    certain = min(len(above), len(below)) - 1
    error, freedom = standard_error(sides)
    few = (min(freedom or certain, 2 * certain) + certain) / 2
    few = math.floor(10 * few) / 10  # fewer tables of t for many comparisons
    return Estimate(float(sides[0].mean() - sides[1].mean()), error, few)


def with_known_error(estimate: Estimate, error: float) -> Estimate:
    """An estimate with one more error, independent and known (Welch and Satterthwaite).

    >>> with_known_error(Estimate(0.1, 0.3, 4), 0.4)
    Estimate(value=0.1, error=0.5, freedom=30.8641975308642)
    """
    whole = math.hypot(estimate.error, error)
    own = (estimate.error / whole) ** 4 / estimate.freedom if whole else 0.0
    return Estimate(estimate.value, whole, 1 / own if own else math.inf)


def holm(p_values: Sequence[float], alpha: float) -> list[int]:
    """Among how many comparisons each shares `alpha`: it is decided if p <= alpha / so many.

    So a false alarm anywhere has probability `alpha` at most, however the comparisons depend on
    each other (Holm 1979, Scandinavian Journal of Statistics 6).

    >>> holm([0.04, 0.001, 0.02], 0.05)
    [1, 3, 2]
    >>> holm([0.04, 0.001, 0.03], 0.05)
    [2, 3, 2]
    """
    shared = [0] * len(p_values)
    undecided = len(p_values)
    for index in sorted(range(len(p_values)), key=p_values.__getitem__):
        shared[index] = undecided
        undecided -= p_values[index] * undecided <= alpha
    return shared


def welch(sides: Sequence[Floats]) -> tuple[float, float | None]:
    """Half the 95 % interval of a mean, or of a difference of two, and its degrees of freedom."""
    error, freedom = standard_error(sides)
    return (t_quantile(freedom) * error, freedom) if freedom else (0.0, None)


def standard_error(sides: Sequence[Floats]) -> tuple[float, float | None]:
    """Standard error of a mean, or of a difference of two, and its degrees of freedom.

    Welch 1947, Biometrika 34; of one side it is Student's. No freedom where nothing varies.
    """
    parts = [(float(np.var(side, ddof=1)) / len(side), len(side) - 1) for side in sides]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, None
    return math.sqrt(variance), variance**2 / sum(part**2 / alone for part, alone in parts)


@functools.lru_cache(maxsize=256)
def t_shares(freedom: float) -> Floats:
    """Which share of |t| lies below sqrt(freedom) tan(angle), at each of ANGLES; not to be changed.

    That substitution makes Student's density a power of the cosine, which ends at pi / 2.
    """
    density = np.cos(ANGLES) ** (freedom - 1)
    shares = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    found: Floats = shares / shares[-1]
    return found


@functools.lru_cache(maxsize=1024)
def t_quantile(freedom: float, tail: float = TAIL) -> float:
    """What Student's t exceeds with probability `tail`, at any degrees of freedom from 1 on.

    >>> [round(t_quantile(freedom), 3) for freedom in (1, 1.5, 2, 30, math.inf)]
    [12.706, 6.017, 4.303, 2.042, 1.96]
    """
    if freedom > NORMAL:
        return statistics.NormalDist().inv_cdf(1 - tail)
    angle = float(np.interp(1 - 2 * tail, t_shares(freedom), ANGLES))
    return math.sqrt(freedom) * math.tan(angle)


def t_tail(t: float, freedom: float) -> float:
    """With which probability Student's t exceeds a `t` of at least 0: inverts `t_quantile`.

    >>> [round(t_tail(t, freedom), 4) for t, freedom in ((12.706, 1), (2.042, 30), (1.96, 9e9))]
    [0.025, 0.025, 0.025]
    """
    if freedom > NORMAL:
        return math.erfc(t / math.sqrt(2)) / 2
    angle = math.atan(t / math.sqrt(freedom))
    return (1 - float(np.interp(angle, ANGLES, t_shares(freedom)))) / 2


def ratio_of_uncertain(a: float, a_relative: float, b: float, b_relative: float) -> Ratio:
    """The ratio a / b of two values with relative uncertainties, added in quadrature.

    >>> ratio_of_uncertain(3.0, 0.03, 2.0, 0.04)
    Ratio(value=1.5, low=1.425, high=1.575)
    """
    value = a / b
    spread = value * math.hypot(a_relative, b_relative)
    return Ratio(value, value - spread, value + spread)


def clustered_error(totals: Sequence[float], sizes: Sequence[int]) -> float | None:
    """Standard error of sum(totals) / sum(sizes), each pair a cluster; None for fewer than two.

    Clusters may differ in size: Cochran 1977, Sampling Techniques, section 6.4.
    """
    count = len(totals)
    if count < 2:
        return None
    mean = math.fsum(totals) / sum(sizes)
    residuals = math.fsum((t - mean * n) ** 2 for t, n in zip(totals, sizes, strict=True))
    return math.sqrt(residuals * count / (count - 1)) / sum(sizes)


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], sizes: Sequence[int]
) -> Difference:
    """Mean of ours - theirs per unit of size, cluster by cluster, with its 95 % interval.

    What the clusters have in common, such as how hard a passage is, cancels out, so that far
    smaller differences are decided than by two separate means.

    >>> paired_difference([2.0, 4.0, 6.5], [1.0, 3.0, 5.0], [1, 1, 1]).mean
    1.1666666666666667
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = math.fsum(differences) / sum(sizes)
    error = clustered_error(differences, sizes)
    if error is None:
        return Difference(mean)
    reach = t_quantile(len(sizes) - 1) * error
    return Difference(mean, error, mean - reach, mean + reach)


def student_interval(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of at least two independent values, by Student's t.

    >>> round(student_interval([9.0, 10.0, 11.0, 10.0, 10.0]), 3)
    0.878
    """
    count = len(values)
    return t_quantile(count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)


def drift(samples: Sequence[float]) -> float:
    """The median of the last third of at least one sample over that of the first.

    >>> drift([2.0, 2.0, 9.0, 9.0, 1.0, 1.0])
    0.5
    """
    third = max(1, len(samples) // 3)
    return statistics.median(samples[-third:]) / statistics.median(samples[:third])


def steady(durations_s: Sequence[float], within: float = 0.01) -> bool:
    """Whether the medians of the last two windows of 1 s agree to a share of `within`.

    A forward that lasts longer than the window makes a window of its own.

    >>> steady([0.1] * 20), steady([0.2] * 5 + [0.1] * 10), steady([0.1] * 15)
    (True, False, False)
    """
    medians: list[float] = []
    rest = np.asarray(durations_s, dtype=np.float64)
    for _ in range(2):
        # The shortest tail that lasts so long.
        count = 1 + int(np.searchsorted(np.cumsum(rest[::-1]), 1 - 1e-9))
        if count > len(rest):
            return False
        medians.append(float(np.median(rest[-count:])))
        rest = rest[:-count]
    newer, older = medians
    return abs(newer - older) <= within * older
