"""GPU types and precisions compared: what their intervals hold, and what is said beside them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any

import pytest
from simulated import changed, row, slower

from bench.asked import Workload
from bench.errors import TensorgapError
from bench.measured import Measurement
from bench.stats import Ratio
from jobs.report import compare, export, from_rows, table, text
from jobs.report.facts import Case


def against(rows: list[Measurement], chosen: str) -> list[Case]:
    return compare.against(from_rows.cases(rows), chosen)


def compared(rows: list[Measurement]) -> list[Case]:
    return compare.with_ratios(from_rows.cases(rows))


def told(case: Case) -> list[str]:
    return [one.text for one in case.disagreements]


def measured(board: str, systematic: float | None, **how: Any) -> Measurement:
    return changed(row(board, "fp32", **how), "energy", systematic=systematic)


def test_between_gpu_types_the_sensors_own_errors_do_not_cancel() -> None:
    p100, a100 = measured("P100-PCIE", 0.01), measured("A100-SXM-40GB", 0.06)
    (one,) = against([p100, a100], "P100")
    assert one.energy_ratio
    half = one.energy_ratio.high / one.energy_ratio.value - 1
    assert half == pytest.approx(math.hypot(0.01, 0.01, 0.01, 0.06))
    assert "the energy (the sensors' own errors are in it)" in text.against([one], "P100")
    # A meter of which nobody knows the error.
    (one,) = against([p100, measured("A100-SXM-40GB", None)], "P100")
    assert "(the sensors' own errors are not known)" in text.against([one], "P100")


def test_on_one_gpu_type_they_cancel() -> None:
    pair = [changed(row("T4", p), "energy", systematic=0.05) for p in ("fp32", "fp16")]
    ratio = compared(pair)[1].energy_ratio
    assert ratio
    assert ratio.high / ratio.value - 1 == pytest.approx(math.hypot(0.01, 0.01))


def test_an_interval_of_few_processes_is_widened_by_students_tail() -> None:
    # t at 2 degrees of freedom in closed form: (1 - 2 p) / sqrt(2 p (1 - p)).
    def student(tail: float) -> float:
        return (1 - 2 * tail) / math.sqrt(2 * tail * (1 - tail))

    ratio = Ratio(1.1, 1.1 / 1.02, 1.1 * 1.02, freedom=2)
    wide = compare.together(ratio, 20)
    factor = student(0.025 / 20) / student(0.025)
    assert wide.high == pytest.approx(1.1 * 1.02**factor, rel=1e-4)
    assert wide.freedom == 2
    normal = compare.together(dataclasses.replace(ratio, freedom=None), 20)
    assert normal.high < wide.high
    many = compare.together(dataclasses.replace(ratio, freedom=999.0), 20)
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
    line = compared(rows)[1]
    assert line.speedup and line.energy_ratio
    # Welch's, of two sides of three processes that scatter alike.
    assert line.speedup.freedom == pytest.approx(4)
    assert line.energy_ratio.freedom == pytest.approx(4)
    (one, _) = compared([rows[0], rows[3]])
    assert one.speedup and one.speedup.freedom is None
    assert json.loads(export.against([line], "P100"))[0]["speedup"]["freedom"] == pytest.approx(4)


def test_a_type_beside_which_nothing_was_measured_is_said_to_be_alone() -> None:
    alone = row("T4", "fp32")
    with pytest.raises(TensorgapError, match=r"no other type in the same run as T4.*types: T4$"):
        against([alone, row("T4", "fp16")], "T4")
    later = dataclasses.replace(row("P100-PCIE", "fp32"), run="other/20261125T000000Z")
    with pytest.raises(TensorgapError, match=r"types: P100, T4$"):
        against([alone, later], "T4")


def test_the_runs_of_types_compared_are_told_where_there_are_several() -> None:
    pair = [row("T4", "fp32"), row("P100-PCIE", "fp32")]
    once = text.against(against(pair, "P100"), "P100")
    assert pair[0].run not in once
    later = [dataclasses.replace(m, run="other/20261125T000000Z") for m in pair]
    twice = text.against(against([*pair, *later], "P100"), "P100")
    assert f"fp32   ({pair[0].run}): " in twice
    assert "fp32   (other/20261125T000000Z): " in twice


def test_the_report_says_which_device_it_was_and_what_ran_there() -> None:
    rows = [row(board, p) for board in ("T4", "P100-PCIE") for p in ("fp32", "fp16")]
    rows[3] = changed(rows[3], "software", torch="2.9.0")
    lines = compared(rows)
    t4 = "T4: NVIDIA T4, torch 2.14.0+cu126, driver 580.1"
    p100 = (
        "P100: NVIDIA P100-PCIE, torch 2.14.0+cu126, driver 580.1; NVIDIA P100-PCIE, torch"
        " 2.9.0, driver 580.1"
    )
    assert table.notes(lines)[:2] == [p100, t4]
    assert t4 in table.shown(lines).splitlines()
    assert f"- {t4}" in table.markdown(lines).splitlines()
    records = json.loads(export.to_json(lines))
    assert {(r["device_name"], r["driver"]) for r in records if r["gpu_type"] == "T4"} == {
        ("NVIDIA T4", "580.1")
    }
    told = list(csv.DictReader(io.StringIO(export.to_csv(lines))))
    assert [r["torch"] for r in told] == [r["torch"] for r in records]


def test_the_times_of_tokens_stand_below_the_table() -> None:
    plain = row("T4", "fp32")
    assert "first token" not in table.shown(compared([plain]))
    long = dataclasses.replace(plain, workload=Workload("gpt2", new_tokens=8))
    long = changed(long, "timing", first_token_ms_p50=12.0, per_output_token_ms=5.0)
    lines = compared([long])
    assert "first token, then each further one: fp32 12.0 ms, 5.00 ms" in table.shown(lines)
    (record,) = json.loads(export.to_json(lines))
    assert (record["first_token_ms"], record["per_output_token_ms"]) == (12.0, 5.0)


def on_gpus(
    uuids: dict[int, str], precision: str = "fp32", factor: float = 1.0
) -> list[Measurement]:
    """A replicate on each of these GPUs, of which one is a tenth slower than the one before."""
    return [
        changed(
            slower(row("T4", precision, replicate=replicate), factor * (1 + 0.1 * replicate)),
            "device",
            uuid=uuid,
            hostname=f"host of {uuid}",
        )
        for replicate, uuid in uuids.items()
    ]


def test_replicates_on_several_gpus_are_compared_each_on_its_own() -> None:
    two = {0: "GPU-a", 1: "GPU-b", 2: "GPU-c"}
    rows = [*on_gpus(two), *on_gpus(two, "fp16", 0.5)]
    line = compared(rows)[1]
    assert not [one for one in line.disagreements if one.others == "fp32"]
    assert "replicates: device_uuid should agree: GPU-a, GPU-b, GPU-c" in told(line)
    # A tenth from GPU to GPU, which both precisions share, is not in the interval.
    alone = compared([rows[0], rows[3]])[1].speedup
    assert line.speedup and alone
    assert line.speedup.value == pytest.approx(alone.value)
    assert line.speedup.high / line.speedup.low < 1.001
    assert line.speedup.freedom in (2, None)


def test_a_replicate_on_another_gpu_than_its_baseline_is_told() -> None:
    crossed = [*on_gpus({0: "GPU-a", 1: "GPU-b"}), *on_gpus({0: "GPU-b", 1: "GPU-a"}, "fp16")]
    line = compared(crossed)[1]
    assert told(line).count("compared with fp32: device_uuid should agree: GPU-a, GPU-b") == 1
    missing = [*on_gpus({0: "GPU-a"}), *on_gpus({0: "GPU-a", 1: "GPU-b"}, "fp16")]
    line = compared(missing)[1]
    assert "compared with fp32: device_uuid should agree: GPU-a, GPU-b" in told(line)


def test_one_type_of_two_compute_capabilities_is_told() -> None:
    turing, ada = row("T4", "fp32"), changed(row("T4", "fp16"), "device", compute_capability="8.9")
    line = compared([turing, ada])[1]
    assert "compared with fp32: device_compute_capability must agree: 7.5, 8.9" in told(line)
