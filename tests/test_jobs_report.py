from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from bench.asked import Cell, Workload
from bench.errors import TensorgapError
from bench.measured import (
    Device,
    Energy,
    Measurement,
    Outcome,
    Quality,
    Software,
    Timing,
    Weights,
)
from jobs.report import comparison, render

WORKLOAD = Workload("gpt2", "eager", 1, 128)
DEVICE = Device("Tesla T4", "T4", "host", "Xeon", 1)
SOFTWARE = Software("3.11.7", "2.13.0", "5.24.0", "0.1.0", driver="570.1")


def a_row(
    precision: str,
    latency_ms: float,
    *,
    replicate: int = 0,
    energy_mj: float | None = 100.0,
    perplexity: float = 29.94,
    spread: float = 0.05,
    **changed: Any,
) -> Measurement:
    """A row whose latencies scatter evenly around a median."""
    rng = random.Random(f"{precision} {replicate}")
    samples = tuple(latency_ms * (1 + spread * (rng.random() - 0.5)) for _ in range(101))
    timing = Timing(
        latency_ms_samples=samples,
        latency_ms_p50=sorted(samples)[50],
        latency_ms_p50_low=latency_ms,
        latency_ms_p50_high=latency_ms,
        latency_ms_min=min(samples),
        latency_ms_iqr=0.1,
        latency_count=101,
        converged=True,
        warmup_s=1,
        warmup_iterations=3,
        throughput_samples_per_s=1000 / latency_ms,
    )
    energy = (
        Energy("none", reason="no meter")
        if energy_mj is None
        else Energy("counter", per_sample_mj=energy_mj, uncertainty=0.01)
    )
    size = 4 if precision in ("fp32", "mixed") else 2
    row = Measurement(
        cell=Cell("T4", precision),
        workload=WORKLOAD,
        run="study/now",
        replicate=replicate,
        outcome=Outcome.OK,
        device=DEVICE,
        software=SOFTWARE,
        weights=Weights(124_439_808, 124_439_808 * size, "float32"),
        timing=timing,
        energy=energy,
        quality=Quality("wikitext-2 test", perplexity=perplexity),
    )
    return replace(row, **changed)


def the_first_study() -> list[Measurement]:
    """The table that tensorgap began with."""
    return [
        a_row("fp32", 11.7, energy_mj=580),
        a_row("fp16", 10.4, energy_mj=370),
        a_row("mixed", 13.5, energy_mj=630),
    ]


def line_of(rows: list[Measurement], precision: str) -> comparison.Line:
    (line,) = [line for line in comparison.compare(rows) if line.precision == precision]
    return line


def test_speedup_and_energy_are_relative_to_fp32() -> None:
    rows = the_first_study()
    fp16, mixed = line_of(rows, "fp16"), line_of(rows, "mixed")
    assert fp16.speedup is not None and mixed.speedup is not None
    assert fp16.speedup.value == pytest.approx(11.7 / 10.4, rel=0.01)
    assert fp16.speedup.low < 11.7 / 10.4 < fp16.speedup.high
    assert mixed.speedup.high < 1
    assert fp16.energy_ratio is not None
    assert fp16.energy_ratio.value == pytest.approx(370 / 580)
    # Two meters of 1 % each.
    half = (fp16.energy_ratio.high - fp16.energy_ratio.low) / 2
    assert half == pytest.approx(370 / 580 * 0.01 * 2**0.5)


def test_lines_come_in_the_order_of_the_precisions() -> None:
    rows = list(reversed(the_first_study()))
    assert [line.precision for line in comparison.compare(rows)] == ["fp32", "fp16", "mixed"]


def test_without_fp32_there_is_no_ratio() -> None:
    line = line_of([a_row("fp16", 10.4)], "fp16")
    assert line.latency_ms is not None
    assert line.speedup is None
    assert line.energy_ratio is None


def test_replicates_are_one_line_whose_interval_covers_how_they_differ() -> None:
    base = [a_row("fp32", 12, replicate=r, spread=0.001) for r in range(5)]
    alike = [a_row("fp16", 10, replicate=r, spread=0.001) for r in range(5)]
    apart = [a_row("fp16", 10 + r - 2, replicate=r, spread=0.001) for r in range(5)]
    narrow, wide = line_of(base + alike, "fp16").speedup, line_of(base + apart, "fp16").speedup
    assert narrow is not None and wide is not None
    assert narrow.high - narrow.low < 0.01
    assert wide.high - wide.low > 0.1
    assert line_of(base + apart, "fp16").replicates == 5


def test_energy_of_replicates_is_as_uncertain_as_they_differ() -> None:
    base = [a_row("fp32", 12, replicate=r) for r in range(4)]
    apart = [a_row("fp16", 10, replicate=r, energy_mj=50 + 20 * r) for r in range(4)]
    ratio = line_of(base + apart, "fp16").energy_ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(0.8)
    assert ratio.high - ratio.low > 0.3


def test_types_and_workloads_and_runs_are_not_mixed() -> None:
    rows = [
        a_row("fp32", 10),
        a_row("fp32", 20, cell=Cell("A100", "fp32")),
        a_row("fp32", 30, workload=replace(WORKLOAD, batch_size=8)),
        a_row("fp32", 40, run="study/later"),
    ]
    lines = comparison.compare(rows)
    assert len(lines) == 4
    assert all(line.speedup and line.speedup.value == 1 for line in lines)


@pytest.mark.parametrize("column", comparison.MUST_AGREE)
def test_a_comparison_across_a_difference_carries_the_doubt(column: str) -> None:
    base = a_row("fp32", 12)
    other = a_row("fp16", 10)
    part, _, field = column.partition("_")
    record = getattr(other, part)
    value = getattr(record, field)
    different = not value if isinstance(value, bool) else 7 if isinstance(value, int) else "other"
    changed = replace(other, **{part: replace(record, **{field: different})})
    assert line_of([base, other], "fp16").doubts == ()
    (doubt,) = line_of([base, changed], "fp16").doubts
    assert f"{column} must agree" in doubt
    assert "other" in doubt or "7" in doubt or "True" in doubt


def test_a_failed_cell_is_a_line_with_its_reason() -> None:
    failed = Measurement(
        cell=Cell("T4", "tf32"),
        workload=WORKLOAD,
        run="study/now",
        replicate=0,
        outcome=Outcome.UNSUPPORTED,
        reason="tf32 needs compute capability 8.0",
    )
    lines = comparison.compare([a_row("fp32", 12), failed])
    text = render.table(lines)
    assert "UNSUPPORTED" in text
    assert "tf32: UNSUPPORTED: tf32 needs compute capability 8.0" in text


def test_some_failed_replicates_are_a_doubt_of_the_rest() -> None:
    lost = replace(
        a_row("fp16", 10, replicate=1), outcome=Outcome.LOST, reason="the node went away"
    )
    line = line_of([a_row("fp32", 12), a_row("fp16", 10), lost], "fp16")
    assert (line.outcome, line.replicates) == (Outcome.OK, 1)
    assert line.doubts == ("1 of 2 replicates failed: the node went away",)


def test_what_is_missing_is_said_once_with_its_reason() -> None:
    rows = [a_row("fp32", 12, energy_mj=None), a_row("fp16", 10, energy_mj=None)]
    notes = render.notes(comparison.compare(rows))
    assert notes.count("no energy: no meter") == 1


def test_the_table_is_the_one_of_the_first_study() -> None:
    lines = comparison.compare(the_first_study())
    title, _, headings, rule, *rows = render.table(lines).splitlines()
    assert title == "T4   gpt2 eager batch 1 x 128 tokens"
    assert headings.split() == " ".join(render.HEADINGS).split()
    assert set(rule.strip()) == {"─"}
    cells = [row.split() for row in rows[:3]]
    wanted = "fp32, 11.7, ms, 1.00x, 580, mJ, 1.00x, 85.5, /s, 29.940, 498, MB"
    assert cells[0] == wanted.split(", ")
    assert [row[0] for row in cells] == ["fp32", "fp16", "mixed"]
    assert [row[-2] for row in cells] == ["498", "249", "498"]


def test_a_number_is_never_cut() -> None:
    lines = [replace(line, latency_ms=123456.7) for line in comparison.compare(the_first_study())]
    text = render.table(lines, width=40)
    assert "123457 ms" in text
    assert "…" not in text


def test_a_table_that_is_too_wide_leaves_out_what_nobody_measured() -> None:
    rows = [a_row("fp32", 12, energy_mj=None), a_row("fp16", 10, energy_mj=None)]
    lines = comparison.compare(rows)
    assert "energy ratio" in render.table(lines, width=110)
    narrow = render.table(lines, width=80)
    assert "energy ratio" not in narrow
    assert "no energy: no meter" in narrow
    tables = [line for line in narrow.splitlines() if line.startswith("  ")]
    assert max(map(len, tables)) <= 80


def test_the_doubts_of_replicates_that_differ_in_numbers_are_one() -> None:
    rows = [
        a_row("fp32", 12, replicate=index, doubts=(f"others took {share}% of it", "cold"))
        for index, share in enumerate((65, 71))
    ]
    text = render.table(comparison.compare(rows))
    assert "fp32: doubt: others took 65 to 71% of it; cold" in text


def test_markdown_has_as_many_cells_in_each_row() -> None:
    text = render.markdown(comparison.compare(the_first_study()))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {row.count("|") for row in rows} == {len(render.HEADINGS) + 1}


def test_csv_and_json_hold_the_same_numbers_in_full() -> None:
    lines = comparison.compare(the_first_study())
    from_csv = list(csv.DictReader(io.StringIO(render.to_csv(lines))))
    from_json = json.loads(render.to_json(lines))
    assert len(from_csv) == len(from_json) == 3
    for a, b, line in zip(from_csv, from_json, lines, strict=True):
        assert float(a["latency_ms"]) == b["latency_ms"] == line.latency_ms
        assert line.speedup is not None
        assert float(a["speedup_low"]) == b["speedup_low"] == line.speedup.low


def test_json_has_no_infinity() -> None:
    line = replace(comparison.compare(the_first_study())[0], perplexity=float("inf"))
    assert json.loads(render.to_json([line]))[0]["perplexity"] is None


def test_colour_is_only_for_a_terminal() -> None:
    lines = comparison.compare(the_first_study())
    assert "\x1b[" not in render.table(lines)
    assert "\x1b[" in render.table(lines, color=True)


def test_each_gpu_type_is_compared_with_the_chosen_one() -> None:
    v100 = replace(DEVICE, name="Tesla V100", gpu_type="V100", hostname="other", uuid="GPU-2")
    rows = [
        a_row("fp32", 12),
        a_row("fp16", 6),
        a_row("fp32", 4, cell=Cell("V100", "fp32"), device=v100, energy_mj=50.0),
        a_row("bf16", 3, cell=Cell("V100", "bf16"), device=v100),
    ]
    (one,) = comparison.against(rows, "T4")
    assert (one.gpu_type, one.chosen, one.precision, one.doubts) == ("V100", "T4", "fp32", ())
    assert one.speedup and one.energy_ratio
    assert one.speedup.value == pytest.approx(3, rel=0.05)
    assert one.speedup.low < one.speedup.value < one.speedup.high
    assert one.energy_ratio.value == pytest.approx(0.5)
    assert "V100 against T4   gpt2 eager batch 1 x 128 tokens   fp32: 3.0" in render.against([one])
    assert json.loads(render.against_json([one]))[0]["speedup"]["value"] == one.speedup.value


def test_gpu_types_on_different_hosts_are_compared_with_that_doubt() -> None:
    v100 = replace(DEVICE, name="Tesla V100", gpu_type="V100", cpu="EPYC")
    rows = [a_row("fp32", 12), a_row("fp32", 4, cell=Cell("V100", "fp32"), device=v100)]
    (one,) = comparison.against(rows, "T4")
    assert one.doubts == ("compared with T4: device_cpu must agree: EPYC, Xeon",)
    assert "doubt: compared with T4" in render.against([one])


def test_a_chosen_type_without_rows_is_named() -> None:
    with pytest.raises(TensorgapError, match="--against A100: no row of it is OK; there are T4"):
        comparison.against([a_row("fp32", 12)], "A100")


def test_several_comparisons_are_said_to_be_several() -> None:
    rows = the_first_study()
    assert comparison.intervals(comparison.compare(rows)) == 4
    (note,) = [n for n in render.notes(comparison.compare(rows)) if "ratios are compared" in n]
    assert note.startswith("4 ratios are compared, each with a 95 % interval of its own")
    assert not [n for n in render.notes(comparison.compare(rows[:1])) if "ratios" in n]


def test_intervals_that_hold_together_are_wider() -> None:
    one = comparison.Ratio(1.1, 1.02, 1.18)
    wide = comparison.together(one, 10)
    assert wide.low < one.low < one.value < one.high < wide.high
    assert comparison.together(one, 1) == one
    assert comparison.together(comparison.Ratio(1.0, 1.0, 1.0), 10) == comparison.ITSELF
    # An interval of a difference that reaches below 0 has no logarithm.
    odd = comparison.Ratio(1.0, -0.5, 2.5)
    assert comparison.together(odd, 10) == odd
