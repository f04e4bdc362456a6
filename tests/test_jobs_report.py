from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from bench import stats
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
from bench.stats import Ratio
from bench.warnings import RowWarning
from jobs.report import compare, export, facts, from_rows, table, words
from jobs.report import text as texts
from jobs.report.facts import Case

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
    low, high = stats.median_interval(samples)
    timing = Timing(
        latency_ms_samples=samples,
        latency_ms_p50=sorted(samples)[50],
        latency_ms_p50_low=low,
        latency_ms_p50_high=high,
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


def cases_of(rows: list[Measurement]) -> list[Case]:
    """The cases of the table."""
    return compare.with_ratios(from_rows.cases(rows))


def case_of(rows: list[Measurement], precision: str) -> Case:
    (case,) = [case for case in cases_of(rows) if case.precision == precision]
    return case


def against(rows: list[Measurement], chosen: str) -> list[Case]:
    return compare.against(from_rows.cases(rows), chosen)


def test_speedup_and_energy_are_relative_to_fp32() -> None:
    rows = the_first_study()
    fp16, mixed = case_of(rows, "fp16"), case_of(rows, "mixed")
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
    assert [case.precision for case in cases_of(rows)] == ["fp32", "fp16", "mixed"]


def test_without_fp32_there_is_no_ratio() -> None:
    case = case_of([a_row("fp16", 10.4)], "fp16")
    assert case.latency_ms is not None
    assert case.speedup is None
    assert case.energy_ratio is None


def test_replicates_are_one_line_whose_interval_covers_how_they_differ() -> None:
    base = [a_row("fp32", 12, replicate=r, spread=0.001) for r in range(5)]
    alike = [a_row("fp16", 10, replicate=r, spread=0.001) for r in range(5)]
    apart = [a_row("fp16", 10 + r - 2, replicate=r, spread=0.001) for r in range(5)]
    narrow, wide = case_of(base + alike, "fp16").speedup, case_of(base + apart, "fp16").speedup
    assert narrow is not None and wide is not None
    assert narrow.high - narrow.low < 0.01
    assert wide.high - wide.low > 0.1
    assert case_of(base + apart, "fp16").replicates == (0, 1, 2, 3, 4)


def test_energy_of_replicates_is_as_uncertain_as_they_differ() -> None:
    base = [a_row("fp32", 12, replicate=r) for r in range(4)]
    apart = [a_row("fp16", 10, replicate=r, energy_mj=50 + 20 * r) for r in range(4)]
    ratio = case_of(base + apart, "fp16").energy_ratio
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
    cases = cases_of(rows)
    assert len(cases) == 4
    assert all(case.speedup and case.speedup.value == 1 for case in cases)


def test_a_comparison_across_a_difference_says_so() -> None:
    base = a_row("fp32", 12)
    other = a_row("fp16", 10)
    assert case_of([base, other], "fp16").disagreements == ()
    for path in from_rows.MUST_AGREE:
        part, _, field = path.partition(".")
        record = getattr(other, part)
        value = getattr(record, field)
        different = not value if isinstance(value, bool) else 7 if isinstance(value, int) else "9.9"
        different = 9.9 if field == "power_limit_w" else different
        changed = replace(other, **{part: replace(record, **{field: different})})
        (found,) = case_of([base, changed], "fp16").disagreements
        assert (found.column, found.must) == (f"{part}_{field}", True)
        assert f"compared with fp32: {part}_{field} must agree" in found.text
        assert {"9.9", "7", "True"} & {*found.values}


def test_a_failed_cell_is_a_line_with_its_reason() -> None:
    failed = Measurement(
        cell=Cell("T4", "tf32"),
        workload=WORKLOAD,
        run="study/now",
        replicate=0,
        outcome=Outcome.UNSUPPORTED,
        reason="tf32 needs compute capability 8.0",
    )
    cases = cases_of([a_row("fp32", 12), failed])
    text = table.shown(cases)
    assert "UNSUPPORTED" in text
    assert "tf32: UNSUPPORTED: tf32 needs compute capability 8.0" in text


def test_some_failed_replicates_weaken_the_rest() -> None:
    lost = replace(
        a_row("fp16", 10, replicate=1), outcome=Outcome.LOST, reason="the node went away"
    )
    case = case_of([a_row("fp32", 12), a_row("fp16", 10), lost], "fp16")
    assert (case.outcome, case.replicates) == (Outcome.OK, (0,))
    assert table.warnings(case) == ["1 of 2 replicates failed: the node went away"]
    # It is no reason of what is OK.
    assert [export.flat(one)["reason"] for one in (case, *cases_of([lost]))] == [
        None,
        "the node went away",
    ]


def test_what_is_missing_is_said_once_with_its_reason() -> None:
    rows = [a_row("fp32", 12, energy_mj=None), a_row("fp16", 10, energy_mj=None)]
    notes = table.notes(cases_of(rows))
    assert notes.count("energy not measured: no meter") == 1


def test_the_table_is_the_one_of_the_first_study() -> None:
    cases = cases_of(the_first_study())
    title, _, headings, rule, *rows = table.shown(cases).splitlines()
    assert title == "T4   gpt2 eager batch 1 x 128 tokens"
    assert headings.split() == " ".join(table.HEADINGS).split()
    assert set(rule.strip()) == {"─"}
    cells = [row.split() for row in rows[:3]]
    wanted = "fp32, 11.7, ms, 1.00x, 580, mJ, 1.00x, 85.5, /s, 29.940, 498, MB"
    assert cells[0] == wanted.split(", ")
    assert [row[0] for row in cells] == ["fp32", "fp16", "mixed"]
    assert [row[-2] for row in cells] == ["498", "249", "498"]


def test_a_number_is_never_cut() -> None:
    cases = [replace(case, latency_ms=123456.7) for case in cases_of(the_first_study())]
    text = table.shown(cases, width=40)
    assert "123457 ms" in text
    assert "…" not in text


def test_a_table_that_is_too_wide_leaves_out_what_nobody_measured() -> None:
    rows = [a_row("fp32", 12, energy_mj=None), a_row("fp16", 10, energy_mj=None)]
    cases = cases_of(rows)
    assert "energy ratio" in table.shown(cases, width=110)
    narrow = table.shown(cases, width=80)
    assert "energy ratio" not in narrow
    assert "energy not measured: no meter" in narrow
    tables = [line for line in narrow.splitlines() if line.startswith("  ")]
    assert max(map(len, tables)) <= 80


def test_warnings_of_replicates_that_differ_in_numbers_are_one() -> None:
    rows = [
        a_row(
            "fp32",
            12,
            replicate=index,
            warnings=(RowWarning("host-busy", {"share": share}), RowWarning("meter-stuck")),
        )
        for index, share in enumerate((0.65, 0.71))
    ]
    text = table.shown(cases_of(rows))
    assert "fp32: warning: other processes used 65% to 71% of the host CPU time; the power" in text


def test_a_warning_with_a_number_and_one_without_are_two() -> None:
    some = [RowWarning("throttled", {"causes": "", "seconds": s}) for s in (0.5, None, 0.7)]
    assert len(words.alike(some)) == 2


def test_a_ratio_carries_a_mark_where_its_row_or_its_baseline_has_warnings() -> None:
    clean = the_first_study()
    assert table.MARK not in table.shown(cases_of(clean))
    for weak, marked in (("fp16", ["fp16"]), ("fp32", ["fp16", "mixed"])):
        rows = [
            replace(row, warnings=(RowWarning("meter-stuck"),))
            if row.cell.precision == weak
            else row
            for row in clean
        ]
        text = table.shown(cases_of(rows))
        lines = [line.split() for line in text.splitlines() if "x*" in line]
        assert [line[0] for line in lines] == marked
        assert all(sum("x*" in word for word in line) == 2 for line in lines)
        assert "* the row or its fp32 baseline has warnings" in text
        assert f"{weak}: warning: the power reading never changed" in text
        assert r"x\* [" in table.markdown(cases_of(rows))


def test_markdown_has_as_many_cells_in_each_row() -> None:
    text = table.markdown(cases_of(the_first_study()))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {row.count("|") for row in rows} == {len(table.HEADINGS) + 1}


def test_csv_and_json_hold_the_same_numbers_in_full() -> None:
    cases = cases_of(the_first_study())
    from_csv = list(csv.DictReader(io.StringIO(export.to_csv(cases))))
    from_json = json.loads(export.to_json(cases))
    assert len(from_csv) == len(from_json) == 3
    for a, b, case in zip(from_csv, from_json, cases, strict=True):
        assert float(a["latency_ms"]) == b["latency_ms"] == case.latency_ms
        assert case.speedup is not None
        assert float(a["speedup_low"]) == b["speedup_low"] == case.speedup.low


def test_json_has_no_infinity() -> None:
    case = replace(cases_of(the_first_study())[0], perplexity=float("inf"))
    assert json.loads(export.to_json([case]))[0]["perplexity"] is None


def test_colour_is_only_for_a_terminal() -> None:
    cases = cases_of(the_first_study())
    assert "\x1b[" not in table.shown(cases)
    assert "\x1b[" in table.shown(cases, color=True)


def test_each_gpu_type_is_compared_with_the_chosen_one() -> None:
    v100 = replace(DEVICE, name="Tesla V100", gpu_type="V100", hostname="other", uuid="GPU-2")
    rows = [
        a_row("fp32", 12),
        a_row("fp16", 6),
        a_row("fp32", 4, cell=Cell("V100", "fp32"), device=v100, energy_mj=50.0),
        a_row("bf16", 3, cell=Cell("V100", "bf16"), device=v100),
    ]
    (one,) = against(rows, "T4")
    assert (one.gpu, one.precision, one.disagreements) == (
        "V100",
        "fp32",
        (),
    )
    assert one.speedup and one.energy_ratio
    assert one.speedup.value == pytest.approx(3, rel=0.05)
    assert one.speedup.low < one.speedup.value < one.speedup.high
    assert one.energy_ratio.value == pytest.approx(0.5)
    assert "V100 against T4   gpt2 eager batch 1 x 128 tokens   fp32: 3.0" in texts.against(
        [one], "T4"
    )
    assert json.loads(export.against([one], "T4"))[0]["speedup"]["value"] == one.speedup.value


def test_gpu_types_on_different_hosts_are_compared_with_a_warning() -> None:
    v100 = replace(DEVICE, name="Tesla V100", gpu_type="V100", cpu="EPYC")
    rows = [a_row("fp32", 12), a_row("fp32", 4, cell=Cell("V100", "fp32"), device=v100)]
    (one,) = against(rows, "T4")
    (found,) = one.disagreements
    assert found.text == "compared with T4: device_cpu must agree: EPYC, Xeon"
    assert "warning: compared with T4: device_cpu" in texts.against([one], "T4")


def test_a_chosen_type_without_rows_is_named() -> None:
    with pytest.raises(TensorgapError, match="--against A100: no row of it is OK; there are T4"):
        against([a_row("fp32", 12)], "A100")


def test_warnings_of_which_one_lacks_a_number_are_told_apart() -> None:
    asked = {"min_samples": 64, "median_within": 0.01}
    few, many = (
        RowWarning("latency-not-converged", {"samples": n, "half_width": half} | asked)
        for n, half in ((8, None), (70, 0.05))
    )
    assert words.alike([few, many, few]) == [few.text, many.text]


def test_several_comparisons_are_said_to_be_several() -> None:
    rows = the_first_study()
    assert facts.intervals(cases_of(rows)) == 4
    (note,) = [n for n in table.notes(cases_of(rows)) if "ratios" in n]
    assert note.startswith(
        "4 ratios: about 1 in 20 of these 95 % intervals will miss the true value"
    )
    assert not [n for n in table.notes(cases_of(rows[:1])) if "ratios" in n]


def test_intervals_that_hold_together_are_wider() -> None:
    one = Ratio(1.1, 1.02, 1.18)
    wide = compare.together(one, 10)
    assert wide.low < one.low < one.value < one.high < wide.high
    assert compare.together(one, 1) == one
    assert compare.together(Ratio(1.0, 1.0, 1.0), 10) == compare.ITSELF
    # An interval of a difference that reaches below 0 has no logarithm.
    odd = Ratio(1.0, -0.5, 2.5)
    assert compare.together(odd, 10) == odd
