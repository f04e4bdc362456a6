"""Runs of a few cells whose processes scatter, as rows and as what is compared."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

from simulated import changed, row, slower

from bench.measured import Measurement, Outcome
from bench.results.columns import Source
from jobs.report.changes import compared, pairs
from jobs.report.changes.records import Change, Comparison, Metric, RunCompared

OLD, NEW = "study/20261101T120000Z-aaaaaa", "study/20261201T120000Z-bbbbbb"
MATRIX = '[[workloads]]\nmodel = "gpt2"\n[sampling]\nreplicates = 5\n'
CELLS = (("T4", "fp32"), ("T4", "fp16"), ("A100-SXM-40GB", "fp32"))
NATS, TOKENS = (400.0, 410.0, 390.0, 405.0), (100, 100, 100, 100)


def a_run(
    name: str = OLD,
    *,
    seed: int = 0,
    replicates: int = 5,
    scatter: float = 0.01,
    longer: float = 1.0,
    nats: Sequence[float] = NATS,
    cells: Sequence[tuple[str, str]] = CELLS,
) -> list[Measurement]:
    """Rows of one run; the first cell takes `longer`, in time and in energy."""
    rng = random.Random(seed)
    rows = []
    for number, (board, precision) in enumerate(cells):
        for replicate in range(replicates):
            factor = math.exp(rng.gauss(0, scatter)) * (longer if number == 0 else 1)
            one = slower(row(board, precision), factor)
            assert one.timing and one.energy
            assert one.timing.throughput_samples_per_s and one.energy.per_sample_mj
            rate = one.timing.throughput_samples_per_s / factor
            energy_mj = one.energy.per_sample_mj * factor
            one = changed(one, "timing", throughput_samples_per_s=rate)
            one = changed(one, "energy", per_sample_mj=energy_mj, systematic=0.05)
            perplexity = math.exp(sum(nats) / sum(TOKENS))
            one = changed(one, "quality", perplexity=perplexity, window_nats=tuple(nats))
            one = changed(one, "quality", window_tokens=TOKENS[: len(nats)])
            one = changed(one, "device", uuid=f"GPU-{board}")
            rows.append(dataclasses.replace(one, run=name, replicate=replicate))
    return rows


def each_changed(rows: Sequence[Measurement], part: str, **values: Any) -> list[Measurement]:
    """All rows with some fields of one of their records changed."""
    return [changed(one, part, **values) for one in rows]


def not_ok(rows: Sequence[Measurement], reason: str = "out of luck") -> list[Measurement]:
    """The same cells, none of which could be measured."""
    return [
        Measurement(m.cell, m.workload, m.run, m.replicate, Outcome.FAILED, reason) for m in rows
    ]


def as_input(rows: Sequence[Measurement], label: str, *sources: Source) -> compared.Input:
    """Rows as what is compared."""
    about = RunCompared(label, f"{label}.parquet", (rows[0].run,), len(rows))
    return compared.Input(about, pairs.of_run(rows, about.location), sources)


def compare(
    old: Sequence[Measurement], new: Sequence[Measurement], alpha: float = 0.05
) -> Comparison:
    """Two runs compared."""
    return compared.compare(as_input(old, "old"), [as_input(new, "new")], alpha)


def change(found: Comparison, metric: Metric, number: int = 0, run: int = 0) -> Change:
    """What is found of a metric in a row."""
    (one,) = [c for c in found.others[run].rows[number].changes if c.metric == metric]
    return one


def of_first_cell(found: Comparison, metric: Metric) -> Change:
    """What is found of a metric in the cell that `longer` is about."""
    (one,) = [
        c
        for row in found.others[0].rows
        if (row.place.gpu, row.place.precision) == CELLS[0]
        for c in row.changes
        if c.metric == metric
    ]
    return one
