from __future__ import annotations

import pytest
import simulated

from bench.asked import Workload
from bench.errors import TensorgapError
from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import compare, export, facts, findings, from_csv, from_rows
from jobs.report.facts import Case, Group


def groups_of(text: str, *gpu_types: str) -> list[Group]:
    lines, _ = from_csv.read(text, "t.csv")
    return facts.grouped(compare.with_ratios(from_csv.cases(lines, gpu_types)))


def test_as_little_as_a_precision_and_a_latency_is_a_table() -> None:
    text = "precision,latency_ms\nFP32,11.7\nfp16,10.4\n"
    assert from_csv.read(text, "t.csv")[1] == []
    (group,) = groups_of(text)
    assert (group.cases[0].gpu_type, group.cases[0].workload) == (None, Workload("gpt2"))
    assert group.cases[1].speedup == Ratio(1.125, 1.125, 1.125)
    assert group.cases[1].energy_mj is None
    assert group.cases[0].foreign


def test_precisions_have_more_than_one_name_and_empty_is_not_zero() -> None:
    text = "format, latency_ms, energy_mj\nhalf, 10.4, -\nAMP, 13.5,\nfloat32, 11.7, 580\n"
    lines, _ = from_csv.read(text, "t.csv")
    assert [line.precision for line in lines] == ["fp16", "mixed", "fp32"]
    (group,) = groups_of(text)
    assert [case.precision for case in group.cases] == ["fp32", "fp16", "mixed"]
    assert [case.energy_mj for case in group.cases] == [580, None, None]


def test_columns_that_are_not_known_are_named() -> None:
    assert from_csv.read("precision,latency_ms,mood\nfp32,1,good\n", "t.csv")[1] == ["mood"]


def test_the_gpu_is_the_row_s_own_or_the_one_that_is_told() -> None:
    text = "precision,latency_ms,gpu\nfp32,5,V100\nfp32,6,\nfp32,7,cpu\n"
    groups = {g.cases[0].gpu_type: g for g in groups_of(text, "P100-PCIE")}
    assert set(groups) == {"V100", "P100", "CPU"}
    assert [board.name for board in groups["P100"].cases[0].boards] == ["P100-PCIE"]
    assert groups["CPU"].cases[0].boards == ()
    both = groups_of(text, "t4", "T4", "A100")
    assert [group.cases[0].gpu_type for group in both] == ["V100", "CPU", "T4", "A100"]


def test_the_csv_of_the_report_is_such_a_table() -> None:
    cases = [
        Case(gpu="T4", gpu_type="T4", workload=Workload("gpt2"), precision=p, latency_ms=ms)
        for p, ms in (("fp32", 12.0), ("fp16", 6.0))
    ]
    unsupported = Outcome.UNSUPPORTED
    cases.append(
        Case(
            gpu="T4",
            gpu_type="T4",
            workload=Workload("gpt2"),
            precision="bf16",
            outcome=unsupported,
        )
    )
    (group,) = groups_of(export.to_csv(cases))
    assert [(c.precision, c.latency_ms) for c in group.cases] == [("fp32", 12.0), ("fp16", 6.0)]


def test_the_intervals_of_the_report_come_with_its_table() -> None:
    cases = compare.with_ratios(from_rows.cases(simulated.rows("T4")))
    text = export.to_csv(cases)
    ignored = from_csv.read(text, "report.csv")[1]
    assert not [name for name in ignored if name.endswith(("_low", "_high")) and "nats" not in name]
    (group,) = groups_of(text)
    for read, written in zip(group.cases, cases, strict=True):
        for ours, theirs in (
            (read.speedup, written.speedup),
            (read.energy_ratio, written.energy_ratio),
        ):
            assert ours and theirs
            assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    speedup = group.cases[1].speedup
    assert speedup and speedup.low < speedup.high
    # So noise is told as it is of rows.
    wide = text.replace(repr(speedup.low), "0.5")
    assert "no-significant-difference" in {f.code for f in findings.find(groups_of(wide))}


def test_an_end_of_an_interval_may_be_below_zero() -> None:
    text = "precision,energy_mj,energy_ratio_low,energy_ratio_high\nfp32,9,,\nfp16,9,-0.5,2.5\n"
    (group,) = groups_of(text)
    assert group.cases[1].energy_ratio == Ratio(1.0, -0.5, 2.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("latency_ms\n1\n", "column precision is missing"),
        ("precision,ms\nfp32,1\n", "neither a column latency_ms nor a column energy_mj"),
        ("precision,latency_ms\nfp64,1\n", "t.csv, line 2: precision = fp64: allowed: fp32"),
        ("precision,latency_ms\n,1\n", "precision = nothing"),
        ("precision,latency_ms\nfp32,11.7ms\n", "latency_ms = 11.7ms: must be a number"),
        ("precision,latency_ms\nfp32,0\n", "greater than 0"),
        (
            "precision,latency_ms,speedup_low,speedup_high\nfp32,1,much,2\n",
            "speedup_low = much: must be a number",
        ),
        ("precision,latency_ms\nfp32,inf\n", "must be a number"),
        ("precision,latency_ms,batch\nfp32,1,1.5\n", "batch = 1.5: must be a whole number from 1"),
        ("precision,latency_ms,batch\nfp32,1,0\n", "batch = 0: must be a whole number from 1"),
        ("precision,latency_ms,tokens\nfp32,1,2048\n", "a whole number from 1 to 1024"),
        ("precision,latency_ms,model,tokens\nfp32,1,tiny,512\n", "from 1 to 256"),
        ("precision,latency_ms\nfp32,1e-300\n", "must be a number greater than 0"),
        ("precision,latency_ms\nfp32,1\n\nfp32,2\n", "line 4: fp32 stands in t.csv, line 2"),
        (
            "precision,latency_ms,gpu\nfp32,1,T4\nfp32,2,t4\n",
            "line 3: fp32 stands in t.csv, line 2",
        ),
        ("precision,latency_ms," + "x" * 200_000, "not a readable CSV: field larger than"),
        ("precision,latency_ms\nfp32," + "1" * 200_000, "not a readable CSV: field larger than"),
        (f"precision,latency_ms,batch\nfp32,1,{'1' * 5000}\n", "must be a whole number from 1"),
        ("precision,latency_ms" + ",x" * 1000, "1,002 columns; at most 1000 are read"),
        (
            "precision,latency_ms,run\n" + "".join(f"fp32,1,{n}\n" for n in range(1001)),
            "more than 1000 rows",
        ),
    ],
)
def test_a_mistake_names_the_line_the_column_and_the_remedy(text: str, words: str) -> None:
    with pytest.raises(TensorgapError, match=r"t\.csv") as caught:
        from_csv.read(text, "t.csv")
    assert words in str(caught.value)


def test_a_number_is_as_exact_as_it_is_written_however_that_is() -> None:
    zeros = "0" * 5000
    for written in ("29.94", f"2994e-{zeros}2", f"0.{zeros}2994e5002"):
        (line,), _ = from_csv.read(f"precision,latency_ms,perplexity\nfp32,1,{written}\n", "t.csv")
        assert line.perplexity_step == pytest.approx(0.01)


@pytest.mark.parametrize("end", ["\u2028", "\x0b", "\x0c", "\x1c", "\x85"])
def test_a_text_is_not_cut_where_no_line_of_a_csv_ends(end: str) -> None:
    (line,), _ = from_csv.read(f"precision,latency_ms,gpu\nfp32,1,T4{end}T4\n", "t.csv")
    assert line.gpu == f"T4{end}T4"
