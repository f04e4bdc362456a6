"""Over how long does a sensor average? The window that explains its values best under a known load.

The window is the one whose running mean of the load (0 or 1) explains the values best, by least
squares over windows, delays and lags. A lag, as that of a filter before the sensor, is not taken
for a window: readings of a V100 rise over three or four of their ticks (SC'24).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from bench.energy.ticks import Floats, Reading

# From 1 ms, below any sensor known, to a register of 1 s.
WINDOWS_S = np.geomspace(0.001, 1.5, 80)
DELAYS_S = np.linspace(0, 0.05, 11)
LAGS_S = np.geomspace(0.005, 0.16, 6)
KEPT = np.linspace(0.1, 0.9, 17)  # of the reading before, where readings are smoothed
REMEMBERED = 20  # ticks that such a reading may still show
LEFT = 0.5  # a fit with more to it must leave less than this share of what is not explained


@dataclass(frozen=True)
class Fit:
    """The window that explains a meter best, with its delay and lag, in s."""

    window_s: float
    delay_s: float
    explained: float  # share of the variance
    lag_s: float = 0.0

    def beats(self, other: Fit) -> bool:
        """Whether it explains so much more that having more parameters is worth it."""
        return 1 - self.explained < LEFT * (1 - other.explained)


def boxcar(seen: Sequence[Reading], edges_s: Sequence[float]) -> Fit | None:
    """The window, delay and lag whose running mean of the load explains the values best.

    Values are at the times when they were published; the load turned on at the first edge, off at
    the second, and so on. None: too few values, or they never changed.
    """
    longest_s = float(WINDOWS_S[-1] + DELAYS_S[-1])
    inside = [r for r in seen if edges_s[0] + longest_s <= r.time_s <= edges_s[-1]]
    if len(inside) < 20:
        return None
    times_s, values = np.array(inside).T
    if not values.std():
        return None

    def fit(windows_s: Floats, delays_s: Floats, lags_s: Sequence[float] | Floats) -> Fit:
        fits = []
        for lag_s in lags_s:
            busy_s = busy_until(edges_s, lag_s)
            for delay_s in delays_s:
                ends_s = times_s - delay_s
                starts_s = ends_s - windows_s[:, None]
                found = explained((busy_s(ends_s) - busy_s(starts_s)) / windows_s[:, None], values)
                i = found.argmax()
                fits.append(Fit(*map(float, (windows_s[i], delay_s, found[i], lag_s))))
        return max(fits, key=lambda fit: fit.explained)

    def near(coarse: Fit) -> Fit:
        step = WINDOWS_S[1] / WINDOWS_S[0]
        windows_s = np.geomspace(coarse.window_s / step, coarse.window_s * step, 15)
        delays_s = np.linspace(max(0.0, coarse.delay_s - 0.005), coarse.delay_s + 0.005, 11)
        lags_s = coarse.lag_s * np.geomspace(0.7, 1.4, 9) if coarse.lag_s else [0.0]
        return fit(windows_s, delays_s, lags_s)

    at_once = near(fit(WINDOWS_S, DELAYS_S, [0.0]))
    lagging = near(near(fit(WINDOWS_S, DELAYS_S, LAGS_S)))
    if not lagging.beats(at_once):
        return at_once
    smoothing = smoothed(times_s, values, edges_s)
    return lagging if lagging.beats(smoothing) else smoothing


def explained(shares: Floats, values: Floats) -> Floats:
    """The squared correlation of each row of shares with the values; 0 of one that is constant."""
    shares = shares - shares.mean(axis=1, keepdims=True)
    values = values - values.mean()
    norms = (shares * shares).sum(axis=1) * (values @ values)
    found: Floats = np.divide((shares @ values) ** 2, norms, np.zeros_like(norms), where=norms > 0)
    return found


def smoothed(times_s: Floats, values: Floats, edges_s: Sequence[float]) -> Fit:
    """The fit of a sensor that sees all, and smooths what it publishes from tick to tick."""
    period_s = float(np.median(np.diff(times_s)))
    busy_s = busy_until(edges_s, 0.0)
    before_s = times_s[0] - period_s * np.arange(REMEMBERED, 0, -1)
    every_s = np.concatenate([before_s, times_s])

    def next_shown(last: Floats, new: float) -> Floats:
        return KEPT * last + (1 - KEPT) * new

    fits = []
    for delay_s in np.linspace(0, DELAYS_S[-1], 51):
        share = (busy_s(every_s - delay_s) - busy_s(every_s - delay_s - period_s)) / period_s
        first = np.full_like(KEPT, share[0])
        shown = list(accumulate(share[1:], next_shown, initial=first))  # each for each of KEPT
        found = explained(np.array(shown)[REMEMBERED:].T, values)
        i = found.argmax()
        fits.append(Fit(period_s, *map(float, (delay_s, found[i], -period_s / np.log(KEPT[i])))))
    return max(fits, key=lambda fit: fit.explained)


def busy_until(edges_s: Sequence[float], lag_s: float) -> Callable[[Floats], Floats]:
    """How long the load had been on until a time, in s, seen through a lag of the first order."""
    edges = np.array(edges_s)
    turns_s = np.diff(edges)
    on = np.arange(len(turns_s)) % 2 == 0
    on_s = np.concatenate([[0.0], np.cumsum(turns_s * on)])
    if not lag_s:
        return lambda times_s: np.interp(times_s, edges, on_s)
    behind = [0.0]  # what the lag shows at each edge
    for turn_s, target in zip(turns_s, on, strict=True):
        behind.append(target + (behind[-1] - target) * np.exp(-turn_s / lag_s))
    shown = np.array(behind)

    def busy_s(times_s: Floats) -> Floats:
        at = np.clip(np.searchsorted(edges, times_s, "right") - 1, 0, len(on) - 1)
        since_s = np.clip(times_s, edges[0], edges[-1]) - edges[at]
        now = on[at] + (shown[at] - on[at]) * np.exp(-since_s / lag_s)
        # What went in, less what the lag still holds back.
        through: Floats = on_s[at] + on[at] * since_s - lag_s * now
        return through

    return busy_s
