"""GPU types and precisions compared: what their intervals hold, and what is said beside them."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from simulated import changed, row, slower

from bench.records import Measurement
from bench.stats import Ratio
from jobs.report import comparison, render


def measured(board: str, systematic: float | None, **how: int) -> Measurement:
    return changed(row(board, "fp32", **how), "energy", systematic=systematic)


def test_between_gpu_types_the_sensors_own_errors_do_not_cancel() -> None:
    p100, a100 = measured("P100-PCIE", 0.01), measured("A100-SXM-40GB", 0.06)
    (one,) = comparison.against([p100, a100], "P100")
    assert one.energy_ratio
    half = one.energy_ratio.high / one.energy_ratio.value - 1
    assert half == pytest.approx(math.hypot(0.01, 0.01, 0.01, 0.06))
    assert "the energy (the sensors' own errors are in it)" in render.against([one])
    # A meter of which nobody knows the error.
    (one,) = comparison.against([p100, measured("A100-SXM-40GB", None)], "P100")
    assert "(the sensors' own errors are not known)" in render.against([one])


def test_on_one_gpu_type_they_cancel() -> None:
    pair = [changed(row("T4", p), "energy", systematic=0.05) for p in ("fp32", "fp16")]
    ratio = comparison.compare(pair)[1].energy_ratio
    assert ratio
    assert ratio.high / ratio.value - 1 == pytest.approx(math.hypot(0.01, 0.01))


def test_an_interval_of_few_processes_is_widened_by_students_tail() -> None:
    # t at 2 degrees of freedom in closed form: (1 - 2 p) / sqrt(2 p (1 - p)).
    def student(tail: float) -> float:
        return (1 - 2 * tail) / math.sqrt(2 * tail * (1 - tail))

    ratio = Ratio(1.1, 1.1 / 1.02, 1.1 * 1.02, freedom=2)
    wide = comparison.together(ratio, 20)
    factor = student(0.025 / 20) / student(0.025)
    assert wide.high == pytest.approx(1.1 * 1.02**factor, rel=1e-4)
    assert wide.freedom == 2
    normal = comparison.together(dataclasses.replace(ratio, freedom=None), 20)
    assert normal.high < wide.high
    many = comparison.together(dataclasses.replace(ratio, freedom=999.0), 20)
    assert many.high == pytest.approx(normal.high, rel=1e-3)


def test_a_ratio_of_replicates_knows_its_degrees_of_freedom() -> None:
    rows = [
        dataclasses.replace(slower(row("T4", precision), 1 + 0.01 * r), replicate=r)
        for precision in ("fp32", "fp16")
        for r in range(3)
    ]
    rows = [
        changed(m, "energy", per_sample_mj=100.0 + 10 * m.replicate, uncertainty=0.001)
        for m in rows
    ]
    line = comparison.compare(rows)[1]
    assert line.speedup and line.energy_ratio
    # Welch's, of two sides of three processes that scatter alike.
    assert line.speedup.freedom == pytest.approx(4)
    assert line.energy_ratio.freedom == pytest.approx(4)
    (one, _) = comparison.compare([rows[0], rows[3]])
    assert one.speedup and one.speedup.freedom is None
    text = render.against_json(
        [comparison.Against("r", rows[0].workload, "fp32", "T4", "P100", line.speedup, None)]
    )
    assert json.loads(text)[0]["speedup"]["freedom"] == pytest.approx(4)
