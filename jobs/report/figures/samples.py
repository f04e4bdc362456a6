"""What figures need of the rows themselves: latencies as quantiles, power traces, when each ran.

One pass over the files, some rows at a time, so that ten million latencies are never held at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.asked import Workload
from bench.measured import Outcome
from bench.results import merging
from bench.results.rows import AT_ONCE, Rows

Key = tuple[Any, ...]  # what was asked of a case: a row's identity without its replicate
LATENCIES, TRACE_S, TRACE_W = "timing_latency_ms_samples", "energy_trace_s", "energy_trace_w"
_RAN = (
    *("outcome", "reason", "started_at", "finished_at", "device_uuid", "device_simulated"),
    *("placement_host", "placement_attempt", "placement_earlier"),
)
# Enough for the bands of a distribution; the first and the last are its ends.
PROBABILITIES = (0.0, 0.01, 0.05, 0.125, 0.25, 0.5, 0.75, 0.875, 0.95, 0.99, 1.0)
MOST_TRACES, MOST_POINTS = 400, 60_000  # of power: cases, and points of all of them together
FEWEST_POINTS = 48  # of a trace
GAP = 4.0  # a pause between two windows is so many times the usual step between readings
SETTLED_W = 1e-9  # a reading that differs by more is another tick of the meter


@dataclass(frozen=True)
class PowerTrace:
    """The power during the energy windows of one row.

    Attributes:
        times_s: From the first reading on.
        windows_s: Begin and end of each stretch of readings without a pause.
        ticks_s: When the meter gave another value; empty where the trace was thinned.
    """

    times_s: tuple[float, ...]
    power_w: tuple[float, ...]
    windows_s: tuple[tuple[float, float], ...]
    ticks_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Samples:
    """By case: quantiles of all its latencies at `PROBABILITIES`, and a trace; every row that ran.

    Attributes:
        ran: What was asked of each row, and the columns of `_RAN`, in the order of the rows.
        without_trace: Measured cases whose trace is left out, since there are so many.
    """

    quantiles: Mapping[Key, tuple[float, ...]] = field(default_factory=dict)
    traces: Mapping[Key, PowerTrace] = field(default_factory=dict)
    ran: Sequence[Mapping[str, Any]] = ()
    without_trace: int = 0


def of_rows(rows: Rows) -> Samples:
    """Read them; TensorgapError as `Rows.tables`."""
    names = [*merging.IDENTITY, *_RAN, LATENCIES, TRACE_S, TRACE_W]
    quantiles: dict[Key, tuple[float, ...]] = {}
    traces: dict[Key, PowerTrace] = {}
    ran: list[dict[str, Any]] = []
    left_out = 0
    cases = len(set(zip(*(rows.keys[name].to_pylist() for name in _KEY), strict=True)))
    points = max(FEWEST_POINTS, MOST_POINTS // max(1, min(cases, MOST_TRACES)))
    for key, several in itertools.groupby(one_by_one(rows, names), key=lambda row: row[0]):
        pooled: list[NDArray[Any]] = []
        has_trace = False
        for _, about, (latencies, times, power) in several:
            ran.append(about)
            if about["outcome"] != Outcome.OK:
                continue
            pooled.append(latencies)
            has_trace = has_trace or len(times) > 1
            if len(times) > 1 and key not in traces and len(traces) < MOST_TRACES:
                traces[key] = trace_of(times, power, points)
        left_out += has_trace and key not in traces
        every = np.concatenate(pooled) if pooled else np.empty(0)
        if every.size:
            quantiles[key] = quantiles_of(every)
    return Samples(quantiles, traces, ran, left_out)


def quantiles_of(values: NDArray[Any]) -> tuple[float, ...]:
    """The quantiles at PROBABILITIES, as np.quantile has them in four times the time.

    >>> quantiles_of(np.array([3.0, 1.0, 2.0]))[::5]
    (1.0, 2.0, 3.0)
    """
    places = np.multiply(PROBABILITIES, len(values) - 1)
    return tuple(np.interp(places, np.arange(len(values)), np.sort(values)).tolist())


_KEY = tuple(name for name in merging.IDENTITY if name != "replicate")


def key_of(run: str, gpu_type: str, workload: Workload, precision: str) -> Key:
    """The key of a case, as `Samples` has it."""
    asked = {"run": run, "gpu_type": gpu_type, "precision": precision}
    return tuple(asked[name] if name in asked else getattr(workload, name) for name in _KEY)


def one_by_one(
    rows: Rows, names: Sequence[str]
) -> Iterator[tuple[Key, dict[str, Any], list[NDArray[Any]]]]:
    """Each row: its key, its plain values, and its lists of numbers (empty: none)."""
    lists = (LATENCIES, TRACE_S, TRACE_W)
    for table in rows.tables(names, AT_ONCE):
        plain = [name for name in names if name not in lists]
        values = [table[name].to_pylist() for name in plain]
        pieces = [list(pieces_of(table[name])) for name in lists]
        for at, row in enumerate(zip(*values, strict=True)):
            about = dict(zip(plain, row, strict=True))
            yield tuple(about[name] for name in _KEY), about, [found[at] for found in pieces]


def pieces_of(column: pa.ChunkedArray) -> Iterator[NDArray[Any]]:
    """The numbers of each list in a column, without what is not finite; none where it is null."""
    for chunk in column.chunks:
        flat = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_numpy()
        known = chunk.is_valid().to_numpy(zero_copy_only=False)
        for valid, begin, end in zip(known, offsets[:-1], offsets[1:], strict=True):
            piece = flat[begin:end] if valid else flat[:0]
            yield piece[np.isfinite(piece)] if not np.isfinite(piece).all() else piece


def trace_of(times_s: NDArray[Any], power_w: NDArray[Any], most: int) -> PowerTrace:
    """A trace of at most so many points, each the mean of its neighbours.

    >>> found = trace_of(np.array([0, 1, 2, 9, 10, 11.0]), np.array([5, 5, 7, 7, 8, 8.0]), 9)
    >>> found.windows_s, found.ticks_s
    (((0.0, 2.0), (9.0, 11.0)), (2.0, 10.0))
    """
    count = min(len(times_s), len(power_w))
    times_s, power_w = times_s[:count], power_w[:count]
    steps = np.diff(times_s)
    breaks = np.flatnonzero(steps > GAP * np.median(steps)) + 1 if count > 2 else np.empty(0, int)
    edges = [0, *breaks.tolist(), count]
    windows = tuple(
        (float(times_s[begin]), float(times_s[end - 1])) for begin, end in itertools.pairwise(edges)
    )
    ticks = times_s[1:][np.abs(np.diff(power_w)) > SETTLED_W]
    if count > most:
        groups = np.linspace(0, count, most, endpoint=False).astype(int)
        sizes = np.diff([*groups, count])
        times_s, power_w = (np.add.reduceat(one, groups) / sizes for one in (times_s, power_w))
        ticks = ticks[:0]
    return PowerTrace(
        tuple(times_s.tolist()), tuple(power_w.tolist()), windows, tuple(ticks.tolist())
    )
