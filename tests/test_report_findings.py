"""Each rule fires where it must and only there; healthy rows are never called wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import foreign_tables
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from simulated import changed, row, rows, slower

from bench import matrix
from bench.asked import Workload
from bench.device.boards import GPUS
from bench.measured import Energy, Measurement, Outcome, Placement
from bench.stats import Difference, Ratio
from bench.warnings import RowWarning
from jobs.report import compare, export, facts, findings, from_rows, proposal, text
from jobs.report import table as report_table
from jobs.report.facts import Case, Group
from jobs.report.finding import Finding, Note, Verdict, topics
from jobs.report.rules import REGISTRY, documentation

BOARDS = ("P100-PCIE", "V100-SXM2", "T4", "A100-SXM-40GB")
ALL_THREE = ("fp32", "fp16", "mixed")
FINDINGS = Path(__file__).parents[1] / "docs/findings.md"
Rows = Sequence[Measurement]


def groups_of(measured: Rows) -> list[Group]:
    return facts.grouped(compare.with_ratios(from_rows.cases(measured)))


def groups_of_csv(table: str, *gpu: str) -> list[Group]:
    return foreign_tables.groups_of(table, *gpu)


def expected(table: str, *gpu: str) -> list[Case]:
    return foreign_tables.cases_of(table, *gpu)


def found(measured: Rows, code: str) -> list[Finding]:
    return [f for f in findings.find(groups_of(measured)) if f.code == code]


def of_csv(table: str, *gpu: str) -> list[Finding]:
    return findings.find(groups_of_csv(table, *gpu))


def texts(notes: Sequence[Note]) -> str:
    return " | ".join(note.text for note in notes)


def real(measured: Rows) -> list[Measurement]:
    """The rows as if they were not simulated."""
    return [changed(m, "device", simulated=False) for m in measured]


def edit(
    measured: Rows, change: Callable[[Measurement], Measurement], precision: str = "fp16"
) -> list[Measurement]:
    return [change(m) if m.cell.precision == precision else m for m in measured]


def warned(m: Measurement, code: str, **values: float) -> Measurement:
    return dataclasses.replace(m, warnings=(RowWarning(code, values),))


def not_steady(m: Measurement) -> Measurement:
    return warned(m, "warm-up-not-steady", seconds=3.0, drift=0.9)


def not_converged(m: Measurement, what: str = "latency") -> Measurement:
    samples = {"samples": 30, "half_width": 0.05, "min_samples": 100, "median_within": 0.01}
    return warned(m, f"{what}-not-converged", **samples)


def with_ratios(group: Group, *ratios: Ratio | None, **others: Any) -> Group:
    """The group with other ratios (speedup, energy ratio) of its second case."""
    base, half = group.cases
    speedup, energy = ratios
    half = dataclasses.replace(half, speedup=speedup, energy_ratio=energy)
    return dataclasses.replace(group, cases=(base, half), **others)


def codes_of(group: Group) -> dict[str, str]:
    """The causes that the rules find in one group, by code."""
    return {f.code: f.text for f in findings.find([group])}


T4 = rows("T4")
V100 = rows("V100-SXM2")
HOST_BOUND = rows("V100-SXM2", launch_us=34.0)
BATCHED = rows("V100-SXM2", batch_size=16, efficiency=0.6)

EQUAL = [
    V100[0],
    changed(dataclasses.replace(V100[0], cell=V100[1].cell), "trace", tensor_cores="yes"),
]
# Two processes of each precision; those of fp16 differ by half.
NOISY = [
    dataclasses.replace(slower(m, factor), replicate=replicate)
    for replicate, factors in enumerate([(1.0, 0.8), (1.0, 1.2)])
    for m, factor in zip(EQUAL, factors, strict=True)
]

# As torch chooses on an H100; the same in both; and nothing known of one.
ATTENTIONS = [
    changed(m, "trace", attention="efficient" if m.cell.precision == "fp32" else "cudnn")
    for m in T4
]
EFFICIENT = [
    dataclasses.replace(
        changed(m, "trace", attention="efficient"),
        workload=dataclasses.replace(m.workload, attention="efficient"),
    )
    for m in T4
]

# code: (rows on which it fires, rows on which it must not).
ROWS: dict[str, tuple[Rows, Rows]] = {
    "latency-below-lower-bound": (edit(T4, lambda m: slower(m, 0.1)), T4),
    "power-above-limit": (edit(T4, lambda m: changed(m, "energy", mean_w=90.0)), T4),
    "power-below-idle": (edit(T4, lambda m: changed(m, "energy", mean_w=20.0)), T4),
    "perplexity-below-lower-bound": (
        edit(T4, lambda m: changed(m, "quality", lower_bound_perplexity=60.0)),
        edit(T4, lambda m: changed(m, "quality", lower_bound_perplexity=59.0)),
    ),
    "perplexity-out-of-range": (edit(T4, lambda m: changed(m, "quality", perplexity=217.0)), T4),
    "fp32-on-tensor-cores": (
        edit(rows("A100-SXM-40GB"), lambda m: changed(m, "trace", tensor_cores="yes"), "fp32"),
        rows("A100-SXM-40GB"),
    ),
    "simulated": (T4, real(T4)),
    "throughput-contradicts-latency": (
        edit(T4, lambda m: changed(m, "timing", throughput_samples_per_s=2000.0)),
        T4,
    ),
    "gpu-throttled": (edit(T4, lambda m: changed(m, "conditions", throttled_s=2.0)), T4),
    "gpu-shared": (edit(T4, lambda m: changed(m, "conditions", other_processes=1)), T4),
    "gpu-capped": ([changed(m, "device", power_limit_w=50.0) for m in T4], T4),
    "confounded": (edit(T4, lambda m: changed(m, "software", torch="2.9.0")), T4),
    "attention-differs": (ATTENTIONS, [*EFFICIENT, *T4]),
    "warm-up-unsteady": (
        edit(T4, not_steady),
        edit(T4, lambda m: warned(m, "host-busy", share=0.07)),
    ),
    "latency-not-converged": (edit(T4, not_converged), edit(T4, not_steady)),
    "tensor-cores-unused": (
        edit(T4, lambda m: changed(m, "trace", tensor_cores="no")),
        [*T4, *rows("P100-PCIE")],
    ),
    "precision-emulated": (rows("T4", ("fp32", "bf16")), rows("A100-SXM-40GB", ("fp32", "bf16"))),
    "launch-bound": (HOST_BOUND, V100),
    "energy-window-too-short": (edit(T4, lambda m: changed(m, "energy", ticks=2)), T4),
    "energy-methods-differ": (edit(T4, lambda m: changed(m, "energy", method="power")), T4),
    "perplexity-differs": (edit(T4, lambda m: changed(m, "quality", perplexity=62.0)), T4),
    "gain-below-hardware": (HOST_BOUND, BATCHED),
    "weights-quantised": (rows("T4", ("fp32", "int8")), T4),
    "no-significant-difference": (NOISY, EQUAL),
    "mixed-options": (rows("T4", ALL_THREE), T4),
    "mixed-slower": (rows("P100-PCIE", ALL_THREE), rows("T4", ALL_THREE, batch_size=16)),
    "precision-storage-only": (rows("P100-PCIE"), T4),
    "effect": (V100, [dataclasses.replace(m, energy=None) for m in NOISY]),
}

SURE = "precision,latency_ms,energy_mj,energy_method,perplexity\n"
THREE_LINES = SURE + "fp32,11.7,580,power,\nfp16,10.4,370,power,\nmixed,13.5,630,power,\n"
# code: (table and GPU on which it fires, the same on which it must not).
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "energy-method-unknown": (
        ("precision,latency_ms,energy_mj\nfp32,12,600\nfp16,10,400\n", "T4"),
        (SURE + "fp32,12,600,counter,59.69\nfp16,10,400,counter,59.70\n", "T4"),
    ),
    "energy-contradicts-power": (
        ("precision,latency_ms,energy_mj,power_w\nfp32,12,900,22\n", "T4"),
        ("precision,latency_ms,energy_mj,power_w\nfp32,12,600,45\n", "T4"),
    ),
    "energy-of-a-run": (
        ("precision,tok/s,energy_mj,power_w\nfp32,50,90000000,60\n", "T4"),
        ("precision,tok/s,energy_mj,power_w\nfp32,50,90000,60\n", "T4"),
    ),
    "perplexity-too-coarse": (
        (SURE + "fp32,12,600,counter,60\nfp16,10,400,counter,60\n", "T4"),
        (SURE + "fp32,12,600,counter,59.690\nfp16,10,400,counter,59.697\n", "T4"),
    ),
    "gpu-not-specified": ((THREE_LINES,), (THREE_LINES, "P100")),
    "latency-below-lower-bound": (
        ("precision,latency_ms\nfp32,0.9\n", "P100"),
        ("precision,latency_ms\nfp32,3.6\n", "P100"),
    ),
    "power-above-limit": (
        ("precision,latency_ms,energy_mj\nfp32,12,1200\n", "T4"),
        ("precision,latency_ms,energy_mj\nfp32,12,1200\n", "P100"),
    ),
    "power-below-idle": (
        ("precision,latency_ms,energy_mj\nfp32,12,600\n", "B200"),
        ("precision,latency_ms,energy_mj\nfp32,12,600\n", "A100"),
    ),
    "throughput-contradicts-latency": (
        ("precision,latency_ms,throughput\nfp32,12,667\n",),
        ("precision,latency_ms,throughput,batch_size\nfp32,12,667,8\n",),
    ),
    "energy-window-too-short": (
        ("precision,latency_ms,energy_mj,energy_window_s\nfp32,12,600,0.05\n", "T4"),
        ("precision,latency_ms,energy_mj,energy_window_s\nfp32,12,600,30\n", "T4"),
    ),
    "throughput-above-upper-bound": (
        ("precision,tokens,throughput\nfp32,128,5000\n", "T4"),
        ("precision,tokens,throughput\nfp32,128,200\n", "T4"),
    ),
    "latency-implausibly-high": (
        ("precision,latency_ms\nfp32,12000\n", "T4"),
        ("precision,latency_ms\nfp32,120\n", "T4"),
    ),
    "energy-counter-absent": (
        (SURE + "fp32,12,600,nvml_total_energy,\n", "P100"),
        (SURE + "fp32,12,600,nvml_total_energy,\n", "V100"),
    ),
    "energy-is-zero": (
        ("precision,latency_ms,energy_mj\nfp32,12,0\n", "T4"),
        ("precision,latency_ms,energy_mj\nfp32,12,600\n", "T4"),
    ),
    "batch-does-not-scale": (
        ("precision,batch_size,latency_ms\nfp16,1,10\nfp16,2,160\n", "T4"),
        ("precision,batch_size,latency_ms\nfp16,1,10\nfp16,2,19\n", "T4"),
    ),
    "gpu-slower-than-lesser": (
        ("gpu,precision,latency_ms\nV100,fp32,20\nT4,fp32,12\n",),
        ("gpu,precision,latency_ms\nV100,fp32,8\nT4,fp32,12\n",),
    ),
    "engine-and-precision-differ": (
        ("engine,precision,latency_ms\neager,fp32,52\nonnxruntime,fp16,75\n", "A100"),
        ("engine,precision,latency_ms\neager,fp32,52\nonnxruntime,fp32,75\n", "A100"),
    ),
    "warm-up-suspected": (
        ("precision,new_tokens,latency_ms\nfp32,50,423\nfp16,50,261\nbf16,50,256\n", "A100"),
        ("precision,new_tokens,latency_ms\nfp16,50,261\nbf16,50,256\nfp32,50,423\n", "A100"),
    ),
    "energy-over-batch": (
        ("precision,batch,energy (mJ/token)\nfp16,1,2840\nfp16,2,1404\n", "T4"),
        ("precision,batch,energy (mJ/token)\nfp16,1,2840\nfp16,2,2700\n", "T4"),
    ),
    "memory-as-stored": (
        ("precision,latency_ms,mem (GB)\nfp32,12,1.237\nfp16,9,0.630\n", "T4"),
        ("precision,latency_ms,mem (GB)\nfp32,12,1.237\nfp16,9,0.930\n", "T4"),
    ),
    "tensor-cores-absent": (
        ("precision,latency_ms\nfp32,20\nfp16,14\n", "GTX 1650"),
        ("precision,latency_ms\nfp32,12\nfp16,9\n", "T4"),
    ),
    "perplexity-not-finite": (
        ("precision,perplexity\nfp32,29.94\nfp16,nan\n",),
        ("precision,perplexity\nfp32,29.94\nfp16,29.95\n",),
    ),
    "energy-implausibly-high": (
        ("model,precision,energy (kJ)\ngpt2,fp32,10\n", "V100"),
        ("model,precision,energy (J)\ngpt2,fp32,1.2\n", "V100"),
    ),
    "perplexity-near-guessing": (
        ("model,precision,perplexity\nTinyLlama-1.1B,fp16,16813\n",),
        ("model,precision,perplexity\nTinyLlama-1.1B,fp16,7.9\n",),
    ),
    "perplexity-as-published": (
        ("precision,perplexity,context\nfp32,37.37,1024\n",),
        ("precision,perplexity,context\nfp32,31.90,1024\n",),
    ),
    "effect-without-cause": (
        ("precision,latency_ms\nfp32,10\nfp16,100\n", "T4"),
        ("precision,latency_ms\nfp32,12.0\nfp16,9.00\n", "T4"),
    ),
    "latency-too-coarse": (
        ("precision,time (s)\nfp32,0.011\nfp16,0.013\n", "A100"),
        ("precision,time (s)\nfp32,0.01100\nfp16,0.01300\n", "A100"),
    ),
    "energy-methods-differ": (
        (SURE + "fp32,12,600,counter,\nfp16,10,400,power,\n", "T4"),
        (SURE + "fp32,12,600,counter,\nfp16,10,400,counter,\n", "T4"),
    ),
    "launch-bound": (
        ("precision,latency_ms\nfp16,10\n", "V100"),
        ("precision,latency_ms\nfp32,5\n", "V100"),
    ),
    "decode-reads-weights": (
        ("model,precision,new tokens,tok/s\nLlama-2-7B,fp16,128,61\n", "RTX 4090"),
        ("model,precision,new tokens,tok/s\nLlama-2-7B,fp16,128,20\n", "RTX 4090"),
    ),
    "gain-below-hardware": (
        ("precision,latency_ms\nfp32,12\nfp16,10\n",),
        ("precision,latency_ms\nfp32,12\nfp16,4\n",),
    ),
}


@pytest.mark.parametrize("code", ROWS)
def test_a_rule_over_rows_fires_where_it_must_and_only_there(code: str) -> None:
    fires, silent = ROWS[code]
    assert found(fires, code)
    assert not found(silent, code)


@pytest.mark.parametrize("code", TABLES)
def test_a_rule_over_a_table_fires_where_it_must_and_only_there(code: str) -> None:
    fires, silent = TABLES[code]
    assert code in {f.code for f in of_csv(*fires)}
    assert code not in {f.code for f in of_csv(*silent)}


def test_every_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {*ROWS, *TABLES, "expectation", "not-measured"} == set(REGISTRY)


def test_the_tables_of_findings_are_those_of_the_rules() -> None:
    _, _, written = FINDINGS.read_text(encoding="utf-8").partition("<!-- the rules -->\n")
    assert written == documentation()


def test_the_precisions_of_a_finding_are_told_together_and_as_data_apart() -> None:
    both = [changed(m, "conditions", throttled_s=2.0 + i) for i, m in enumerate(T4)]
    apart = found(both, "gpu-throttled")
    assert [f.precisions for f in apart] == [("fp32",), ("fp16",)]
    (topic,) = topics(apart)
    assert topic.precisions == ("fp32", "fp16")
    assert topic.texts["evidence"] == ("clocks were throttled for 2.00 to 3.00 s",)
    record = apart[0].as_json()
    assert (record["code"], record["verdict"]) == ("gpu-throttled", "fix")
    assert record["evidence"][0]["values"] == {"seconds": 2.0}


def test_the_same_of_many_groups_is_one_topic_with_the_numbers_of_each_subject() -> None:
    boards = ("P100-PCIE", "T4", "V100-SXM2")
    many = [m for board in boards for m in rows(board, ALL_THREE)]
    every = [f for f in findings.find(groups_of(many)) if f.precisions == ("mixed",)]
    for code in ("mixed-options", "mixed-slower", "effect"):
        alone = [f for f in every if f.code == code]
        told = [(topic, telling) for topic in topics(alone) for telling in topic.tellings]
        assert len(told) == len(alone) > 0
        for topic, telling in told:
            (finding,) = (f for f in alone if f.subject in telling.subjects)
            assert telling.cause == finding.text
            mine = {*telling.texts["evidence"]}
            notes = {note.text for note in finding.evidence}
            assert mine <= notes <= {*mine, *topic.texts["evidence"]}
    (topic,) = topics(f for f in every if f.code == "mixed-options")
    assert len({telling.texts["evidence"] for telling in topic.tellings}) == len(boards)
    assert any(text.startswith("document it: yes") for text in topic.texts["evidence"])


def test_what_is_said_of_each_gpu_tells_of_which() -> None:
    lines = of_csv(THREE_LINES, "P100", "T4")
    shown = text.findings(topics(lines), None)
    told = re.findall(r"run on another GPU than the (\w+): (\w+)", shown)
    assert told == [("P100", "Tensor"), ("T4", "it")]
    assert "P100 and T4   gpt2 eager batch 1 x 128 tokens\n   fp16 is 1.13x as fast" in shown
    assert "All of these\n   because" in shown


def test_findings_come_worst_first() -> None:
    measured = edit(rows("T4", ALL_THREE), lambda m: slower(m, 0.1))
    order = [list(Verdict).index(f.verdict) for f in findings.find(groups_of(measured))]
    assert order == sorted(order)


def test_what_is_said_in_an_earlier_finding_is_not_said_again() -> None:
    def said(subject: str, cause: str, *evidence: str) -> Finding:
        notes = tuple(Note(text) for text in evidence)
        return Finding("effect", Verdict.FIX, subject, ("fp16",), Note(cause), evidence=notes)

    three = [
        said("a", "One.", "a", "b"),
        said("b", "Two.", "c", "a", "b"),
        said("c", "3.", "a", "d"),
    ]
    shown = text.findings(topics(three), None)
    assert "because  - c\n            - else as in 1\n" in shown
    assert shown.endswith("because  - a\n            - d")


def test_an_expectation_is_compared_with_what_was_found_and_without_one_there_is_none() -> None:
    hoped = expected("gpu_type,precision,latency_ms\nT4,fp32,12\nV100,fp16,6\n")
    every = findings.find(groups_of(T4), hoped)
    told = {f.subject.split()[0]: texts(f.evidence) for f in every if f.code == "expectation"}
    assert "expected 12.0 ms, found" in told["T4"]
    assert "no less than" in told["V100"]
    assert not found(T4, "expectation")


def test_an_expectation_of_what_was_not_measured_names_it() -> None:
    hoped = expected(
        "gpu_type,precision,latency_ms,batch_size\nT4,fp32,12,1\nT4,fp32,80,8\nT4,mixed,9,1\n"
    )
    told = [f for f in findings.find(groups_of(T4), hoped) if f.code == "expectation"]
    absent = {f.text.partition(",")[0]: texts(f.missing) for f in told if f.missing}
    assert absent == {
        "T4: no row of gpt2 eager batch 8 x 128 tokens": (
            "a row of T4, gpt2 eager batch 8 x 128 tokens, fp32"
        ),
        "T4: no row of gpt2 eager batch 1 x 128 tokens": (
            "a row of T4, gpt2 eager batch 1 x 128 tokens, mixed"
        ),
    }
    assert len(told) == 3


def test_what_is_published_is_shown_beside_the_same_workload_alone() -> None:
    for column, value, told in (
        ("model", "gpt2:random", True),
        ("model", "gpt2-xl", False),
        ("batch_size", "2", False),
        ("engine", "graph", False),
        ("prompt_tokens", "64", False),
        ("new_tokens", "8", False),
        ("attention", "math", False),
    ):
        table = f"precision,latency_ms,energy_mj,{column}\n" + "".join(
            f"{precision},{ms},{ms * 40},{value}\n"
            for precision, ms in (("fp32", 12), ("fp16", 10), ("mixed", 14))
        )
        hoped = expected(table, "V100")
        every = findings.find(groups_of_csv(table, "T4"), hoped)
        shown = json.dumps([f.as_json() for f in every])
        assert ("11.45" in shown) == ("7.84" in shown) == told, (column, value)
        assert ("published for" in shown.lower()) == told


def test_another_gpu_is_not_the_one_that_one_has() -> None:
    (finding,) = (f for f in of_csv(THREE_LINES, "T4") if f.code == "mixed-options")
    (published,) = (n.text for n in finding.evidence if n.text.startswith("published"))
    assert re.findall(r"([A-Z]\d+) [\d.]+ ms in", published) == ["V100", "A100"]


def test_layer_norms_are_short_where_they_are_known_to_be() -> None:
    for model, told in (("gpt2", True), ("gpt2-xl", False)):
        table = f"precision,latency_ms,model\nfp32,120,{model}\nfp16,100,{model}\n"
        (finding,) = [f for f in of_csv(table) if f.code == "gain-below-hardware"]
        assert ("layer norms" in texts(finding.evidence)) == told


def test_a_gain_over_tf32_is_not_held_against_an_expectation_of_fp32() -> None:
    for name, held in (("V100", True), ("A100", False)):
        hoped = expected(f"gpu_type,precision,latency_ms\n{name},fp32,12\n{name},fp16,6\n")
        told = [f for f in findings.find(groups_of(T4), hoped) if f.code == "expectation"]
        assert len(told) == 2
        for finding in told:
            assert ("was published" in finding.text) == held
            assert ("in TF32" in texts(finding.evidence)) == (not held)


def test_mixed_without_tensor_cores_is_told_apart_from_fp16() -> None:
    fp16, mixed = found(rows("P100-PCIE", ALL_THREE), "precision-storage-only")
    assert "fp16 is float16 storage" in fp16.text
    assert "mixed keeps float32 weights, and its casts accelerate nothing" in mixed.text
    assert texts(fp16.expected) == "P100: 1 to 1.3x, because float16 only halves the bytes"
    assert texts(mixed.expected) == "P100: slower than fp32: the casts accelerate nothing"


def test_mixed_does_not_lose_to_fp16_by_next_to_nothing() -> None:
    fp32, fp16 = real(rows("A100-SXM-40GB", engine="graph"))
    for factor, loses in ((1.001, False), (1.1, True)):
        mixed = dataclasses.replace(
            slower(fp16, factor), cell=dataclasses.replace(fp16.cell, precision="mixed")
        )
        assert bool(found([fp32, fp16, mixed], "mixed-options")) == loses


def test_whether_a_gpu_that_is_not_specified_waits_depends_on_which_it_is() -> None:
    finding = next(f for f in of_csv(THREE_LINES) if f.code == "launch-bound")
    evidence = [note.text for note in finding.evidence]
    near = {t.partition(" (")[0] for t in evidence if "near idle" in t}
    far = {t.partition(" (")[0] for t in evidence if "it worked for a part" in t}
    assert near and far
    names = [board.name for board in GPUS]
    before, _, after = finding.text.partition("this power is near idle, on ")
    assert {name for name in names if re.search(rf"\b{name}\b", before)} == near
    assert {name for name in names if re.search(rf"\b{name}\b", after)} == far


def test_the_power_limits_of_the_boards_that_remain_are_told() -> None:
    (finding,) = (f for f in of_csv(THREE_LINES) if f.code == "gpu-not-specified")
    power = finding.missing[1].text
    assert power.startswith("mean power at full load (a large batch)")
    assert re.search(r", against the power limits: \d+ W \w", power)


def test_an_energy_that_scatters_over_many_ticks_was_not_read_too_shortly() -> None:
    # Of one window, a tick at either edge of 15.
    for uncertainty, ticks, begins in (
        (0.12, 3000, "The energy differs from window to window:"),
        (2 / 15, 15, "The energy was read over too short a time."),
    ):
        measured = edit(T4, lambda m: changed(m, "energy", uncertainty=uncertainty, ticks=ticks))  # noqa: B023
        (finding,) = found(measured, "energy-window-too-short")
        assert finding.text.startswith(begins)
    # One replicate of few ticks, and one whose windows differ: both are told.
    short = edit(T4, lambda m: changed(m, "energy", ticks=2))
    apart = edit(T4, lambda m: changed(m, "energy", uncertainty=0.12, ticks=3000))
    both = [*short, *(dataclasses.replace(m, replicate=1) for m in apart)]
    (finding,) = found(both, "energy-window-too-short")
    assert "too short a time, and differs from window to window" in finding.text
    assert (
        texts(finding.evidence) == "fp16: 2 ticks of the meter in 30.0 s | fp16: known within 12%"
    )
    assert len(finding.do) == 2


def test_a_row_without_energy_does_not_confound_a_speed() -> None:
    lost = edit(real(T4), lambda m: dataclasses.replace(m, energy=Energy("none", reason="lost")))
    assert not found(lost, "confounded")
    assert not groups_of(lost)[0].cases[1].disagreements


@pytest.mark.parametrize("board", BOARDS)
def test_healthy_rows_are_accepted(board: str) -> None:
    measured = real(rows(board, ALL_THREE, batch_size=8))
    verdicts = {f.code: f.verdict for f in findings.find(groups_of(measured))}
    # On a P100 mixed is healthy and slower than fp32: what to do about it is said.
    if board == "P100-PCIE":
        assert verdicts.pop("mixed-options") == Verdict.FIX
    assert set(verdicts.values()) == {Verdict.ACCEPT}, verdicts


def test_a_throttled_gpu_is_told_by_its_clock_and_by_its_reasons() -> None:
    slow = edit(T4, lambda m: changed(m, "conditions", sm_mhz_after=600.0))
    (finding,) = found(slow, "gpu-throttled")
    assert texts(finding.evidence) == "SM clock 600 of 1500 MHz under load"
    hot = edit(T4, lambda m: changed(m, "conditions", clocks_event_reasons=0x40 | 0x1))
    assert texts(found(hot, "gpu-throttled")[0].evidence) == "reason: hardware thermal"


def test_a_board_at_the_vendors_power_limit_is_no_fault() -> None:
    loaded = [
        changed(
            m, "conditions", clocks_event_reasons=0x4 | 0x1, throttled_s=9.0, sm_mhz_after=1000.0
        )
        for m in real(rows("T4", batch_size=16, efficiency=0.6))
    ]
    for finding in found(loaded, "gpu-throttled"):
        assert finding.verdict == Verdict.ACCEPT
        assert finding.text == (
            "The board ran at its power limit of 70 W, which sets its clock (1000 of 1500 MHz)."
        )
    assert [f.verdict for f in found(loaded, "effect")] == [Verdict.ACCEPT]
    for change in ({"power_limit_w": 60.0}, {"default_power_limit_w": None}):
        lower = [changed(m, "device", **change) for m in loaded]
        assert {f.verdict for f in found(lower, "gpu-throttled")} == {Verdict.FIX}
    hot = [changed(m, "conditions", clocks_event_reasons=0x4 | 0x20) for m in loaded]
    assert {f.verdict for f in found(hot, "gpu-throttled")} == {Verdict.FIX}


def test_a_warm_up_that_was_not_steady_tells_how_far_the_latency_drifted() -> None:
    measured = real(edit(V100, not_steady))
    (finding,) = found(measured, "warm-up-unsteady")
    assert texts(finding.evidence) == (
        "fp16: the latency was not steady after 3.0 s of warm-up, and drifted to 0.90x"
    )
    assert [f.verdict for f in found(measured, "effect")] == [Verdict.INCONCLUSIVE]


def test_a_warning_of_a_replicate_that_failed_stands_in_the_table_and_weakens_no_finding() -> None:
    lost = dataclasses.replace(
        not_steady(V100[1]), replicate=1, outcome=Outcome.LOST, timing=None, reason="gone"
    )
    measured = [*real(V100), lost]
    assert not found(measured, "warm-up-unsteady")
    assert [f.verdict for f in found(measured, "effect")] == [Verdict.ACCEPT]
    (case,) = (case for case in groups_of(measured)[0].cases if case.failed)
    assert any("not steady" in told for told in report_table.warnings(case))


def test_a_wide_interval_takes_nothing_away_from_an_effect() -> None:
    for what in ("latency", "first-token"):
        measured = real(edit(V100, lambda m: not_converged(m, what)))  # noqa: B023
        assert found(measured, "latency-not-converged")[0].precisions == ("fp16",)
        assert [f.verdict for f in found(measured, "effect")] == [Verdict.ACCEPT]


def test_cells_of_the_sweep_that_shared_the_host_are_named() -> None:
    busy = [changed(m, "conditions", other_cpu_share=0.07) for m in T4]
    alone = "Measure again with exclusive use of the device and its host."
    assert {texts(f.do) for f in found(busy, "gpu-shared")} == {alone}
    beside = [
        dataclasses.replace(m, placement=Placement("n", "h", 1, neighbours=("P100/fp32",)))
        for m in busy
    ]
    finding = found(beside, "gpu-shared")[0]
    assert texts(finding.evidence) == (
        "other processes took 7% of the host's CPU time | cells of this sweep on the same host:"
        " P100/fp32"
    )
    assert 'placement.exclusive = "host"' in texts(finding.do)
    # By themselves they are no fault: a host with several GPUs is made for it.
    quiet = [changed(m, "conditions", other_cpu_share=0.01) for m in beside]
    assert not found(quiet, "gpu-shared")
    # Nor are those of a quiet replicate beside another that something else disturbed.
    two = [*busy, *(dataclasses.replace(m, replicate=1) for m in quiet)]
    assert "cells of this sweep" not in texts(found(two, "gpu-shared")[0].evidence)


def test_on_a_device_that_others_use_numbers_may_contradict_each_other() -> None:
    wrong = edit(T4, lambda m: changed(m, "timing", throughput_samples_per_s=20.0))
    assert found(wrong, "throughput-contradicts-latency")
    busy = [changed(m, "conditions", other_cpu_share=0.7) for m in wrong]
    assert found(busy, "gpu-shared")
    assert not found(busy, "throughput-contradicts-latency")


def test_a_slice_and_a_virtual_gpu_are_shared() -> None:
    for change in ({"mig": True}, {"vgpu": True}):
        assert found([changed(m, "device", **change) for m in T4], "gpu-shared")


EXPECTED_OF_THE_HOST = r"fp(32|16): no less than [\d.]+ ms, by the datasheet"


def test_a_graph_that_is_faster_shows_that_launches_set_the_latency() -> None:
    eager = [changed(m, "trace", busy_share=None) for m in HOST_BOUND]
    graph = rows("V100-SXM2", engine="graph")
    for finding in found([*eager, *graph], "launch-bound"):
        assert finding.verdict == Verdict.FIX
        assert "as a CUDA graph" in finding.evidence[0].text
        assert re.fullmatch(EXPECTED_OF_THE_HOST, texts(finding.expected))
    # Without the graph there is only what the datasheet says.
    for finding in found(eager, "launch-bound"):
        assert finding.verdict == Verdict.INCONCLUSIVE
        assert re.fullmatch(EXPECTED_OF_THE_HOST, texts(finding.expected))


def test_a_latency_that_stays_flat_over_the_batch_only_raises_the_question() -> None:
    def untraced(measured: Rows) -> list[Measurement]:
        return [changed(m, "trace", busy_share=None) for m in measured]

    flat = untraced([*HOST_BOUND, *rows("V100-SXM2", batch_size=2, launch_us=34.0)])
    told = found(flat, "launch-bound")
    assert {f.verdict for f in told} == {Verdict.INCONCLUSIVE}
    assert any("2x the batch takes 1.00x the time" in texts(f.evidence) for f in told)
    grows = untraced([*V100, *rows("V100-SXM2", batch_size=16)])
    assert not found(grows, "launch-bound")


def at(m: Measurement, products_ms: float, rest_ms: float) -> Measurement:
    """The row with these kernels, and next to nothing besides."""
    traced_ms = products_ms + rest_ms
    assert m.timing
    m = slower(m, (traced_ms + 0.05) / m.timing.latency_ms_p50)
    busy = traced_ms / (traced_ms + 0.05)
    m = changed(m, "trace", matmul_ms=products_ms, activation_ms=rest_ms, traced_ms=traced_ms)
    return changed(m, "trace", busy_share=busy)


def gain(
    ours: tuple[float, float], base: tuple[float, float] = (60.0, 12.0), efficiency: float = 0.8
) -> Finding:
    """What is said of a gain on an A100, from products and all else of fp16 and of fp32, ms."""
    fp32, fp16 = real(rows("A100-SXM-40GB", batch_size=32, efficiency=efficiency))
    (finding,) = found([at(fp32, *base), at(fp16, *ours)], "gain-below-hardware")
    return finding


def test_a_small_gain_is_held_against_the_ratio_of_the_lower_bounds() -> None:
    (finding,) = found(HOST_BOUND, "gain-below-hardware")
    # Of a V100 at batch 1: 32 GFLOP at 15.7 TFLOP/s, and 243 MB of float16 at 900 GB/s.
    assert "where the lower bounds allow 7.6x" in finding.text
    longer = [dataclasses.replace(m, workload=Workload("gpt2", new_tokens=8)) for m in HOST_BOUND]
    (measured,) = found(longer, "gain-below-hardware")
    assert "where the bytes of the weights allow" in measured.text
    assert "each of 8 steps computes one token" in measured.text
    foreign = [dataclasses.replace(m, workload=Workload("my-model")) for m in HOST_BOUND]
    fp32, fp16 = (
        max(m.roofline.lower_bound_compute_ms or 0, m.roofline.lower_bound_memory_ms or 0)
        for m in HOST_BOUND
        if m.roofline
    )
    (unknown,) = found(foreign, "gain-below-hardware")
    assert f"where the lower bounds allow {fp32 / fp16:.1f}x" in unknown.text
    nothing = [
        changed(m, "roofline", lower_bound_compute_ms=None, lower_bound_memory_ms=None)
        for m in foreign
    ]
    assert "where the peaks allow 8.0x" in found(nothing, "gain-below-hardware")[0].text


def test_the_cause_of_a_small_gain_is_accepted_only_where_it_is_measured() -> None:
    rest = gain((5.0, 6.0))
    assert rest.verdict == Verdict.ACCEPT
    assert rest.text.endswith("55% of what runs is no matrix product.")
    amdahl = "all else: 12.0 ms -> 6.00 ms; with free products 6.00 ms would remain, so 12.00x at"
    assert amdahl in texts(rest.evidence)
    neither = gain((9.0, 2.0))
    assert neither.verdict == Verdict.INCONCLUSIVE
    assert "launches" not in " ".join([neither.text, texts(neither.missing), texts(neither.do)])
    products = gain((9.0, 2.0), efficiency=0.3)
    assert products.verdict == Verdict.ACCEPT
    assert "products of this size reach 33% of the measured 281 TFLOP/s" in products.text


def test_a_graph_is_not_told_of_launches() -> None:
    graph = real(rows("A100-SXM-40GB", ALL_THREE, engine="graph"))
    for measured in (graph, [dataclasses.replace(m, trace=None) for m in graph]):
        told = [
            " ".join([f.text, texts(f.evidence), texts(f.missing), texts(f.do)])
            for f in findings.find(groups_of(measured))
            if f.code in ("gain-below-hardware", "mixed-slower")
        ]
        assert told
        assert not any("launch" in one or "engine = graph" in one for one in told)


def test_on_a_cpu_what_no_operation_takes_is_named() -> None:
    mixed = [
        dataclasses.replace(
            m,
            cell=dataclasses.replace(m.cell, gpu_type="CPU"),
            energy=None,
            trace=m.trace and dataclasses.replace(m.trace, level="op"),
        )
        for m in real(rows("P100-PCIE", ("fp32", "mixed")))
    ]
    (finding,) = found(mixed, "mixed-slower")
    assert "time between the ops: " in texts(finding.evidence)


def test_each_share_of_what_mixed_costs_is_told_and_they_add_up() -> None:
    measured = real(rows("P100-PCIE", ALL_THREE))
    (finding,) = found(measured, "mixed-slower")
    assert finding.verdict == Verdict.ACCEPT
    assert "the largest share is casts, +1.41 ms" in finding.text
    assert "casts: +158 kernels, +827 MB read and written: +1.41 ms" in texts(finding.evidence)
    assert "no Tensor Cores on a P100" in texts(finding.evidence)
    shares = [note.values["ms"] for note in finding.evidence if "name" in note.values]
    assert len(shares) == 4
    fp32, _, mixed = (m.timing.latency_ms_p50 for m in measured if m.timing)
    assert sum(shares) == pytest.approx(mixed - fp32)  # type: ignore[arg-type]


def test_an_interval_that_one_of_many_would_have_by_chance_decides_nothing() -> None:
    (group,) = groups_of(real(V100))
    near = with_ratios(group, Ratio(1.1, 1.02, 1.18), None, ratios=1)
    one = codes_of(near)
    assert "no-significant-difference" not in one
    assert one["effect"] == "fp16 is 1.10x as fast as fp32."
    many = dataclasses.replace(near, ratios=20)
    (finding,) = [f for f in findings.find([many]) if f.code == "no-significant-difference"]
    assert finding.text == (
        "No significant difference in speed (95 % CI of the speedup, widened for 20 ratios,"
        " contains 1.00)."
    )
    assert "excludes 1.00 alone; one of 20 ratios needs [0.9" in texts(finding.evidence)
    both = with_ratios(group, Ratio(1.0, 0.9, 1.1), Ratio(1.1, 1.02, 1.18), ratios=20)
    assert codes_of(both)["no-significant-difference"] == (
        "No significant difference in speed and energy (95 % CI of the speedup contains 1.00;"
        " 95 % CI of the energy ratio, widened for 20 ratios, contains 1.00)."
    )
    # What is not significant is not accepted in the next line.
    assert "effect" not in codes_of(many)


def test_all_that_the_table_compares_counts_among_the_intervals() -> None:
    cases = compare.with_ratios(from_rows.cases(real(V100)))
    half = dataclasses.replace(cases[1], speedup=Ratio(1.1, 1.02, 1.18), energy_ratio=None)
    for count, wanted in ((1, "effect"), (20, "no-significant-difference")):
        many = [
            dataclasses.replace(case, run=str(i)) for i in range(count) for case in (cases[0], half)
        ]
        codes = {f.code for f in findings.find(facts.grouped(many))}
        assert codes & {"effect", "no-significant-difference"} == {wanted}


def test_energy_is_told_without_a_decided_speed() -> None:
    (group,) = groups_of(real(V100))
    near = with_ratios(group, Ratio(1.0, 0.95, 1.05), Ratio(0.7, 0.66, 0.74))
    told = codes_of(near)
    assert told["effect"] == "fp16 needs 0.70x the energy of fp32."
    assert told["no-significant-difference"].startswith("No significant difference in speed (95")


def test_time_and_power_multiply_to_the_energy_ratio() -> None:
    base, half = real(V100)
    assert base.energy and half.energy and half.timing
    # The energy's windows ran with a full queue, a fifth faster than one by one.
    mj = 0.8 * half.timing.latency_ms_p50 * (half.energy.mean_w or 0.0)
    (effect,) = found([base, changed(half, "energy", per_sample_mj=mj)], "effect")
    (energy,) = [note.values for note in effect.evidence if note.text.startswith("energy")]
    product = energy["time"] * energy["power"]  # type: ignore[operator]
    assert product == pytest.approx(mj / (base.energy.per_sample_mj or 1))


def test_how_the_energy_was_read_weakens_only_what_is_said_of_it() -> None:
    short = edit(real(V100), lambda m: changed(m, "energy", ticks=2))
    (effect,) = found(short, "effect")
    assert effect.verdict == Verdict.ACCEPT
    assert effect.text.endswith("x the energy. For the energy, see energy-window-too-short.")
    (group,) = groups_of(short)
    near = with_ratios(group, Ratio(1.0, 0.95, 1.05), group.cases[1].energy_ratio)
    (alone,) = [f for f in findings.find([near]) if f.code == "effect"]
    assert alone.verdict == Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("measured", "code"),
    [
        (rows("T4", ("fp32", "bf16")), "precision-emulated"),
        (edit(V100, lambda m: changed(m, "trace", tensor_cores="no")), "tensor-cores-unused"),
        (edit(T4, lambda m: changed(m, "energy", mean_w=20.0)), "power-below-idle"),
    ],
)
def test_an_effect_of_numbers_that_do_not_stand_is_not_accepted(measured: Rows, code: str) -> None:
    (effect,) = found(edit(real(measured), lambda m: slower(m, 1.5), "fp32"), "effect")
    assert effect.verdict == Verdict.INCONCLUSIVE
    assert code in effect.undermined_by
    assert code in effect.text
    # What undermines nothing is accepted itself, or is no matter of the numbers.
    for name, rule in REGISTRY.items():
        assert not (rule.undermines and rule.effect), name


def test_a_difference_that_is_known_to_be_none_is_significant() -> None:
    (effect,) = found(real(EQUAL), "effect")
    assert effect.text.startswith("fp16 is as fast as fp32, to within ")
    assert effect.verdict == Verdict.ACCEPT


def test_an_interval_that_means_nothing_is_written_so_that_it_can_be_read() -> None:
    (group,) = groups_of(V100)
    wild = with_ratios(group, Ratio(2.4, 1e-9, 4e11), None)
    (finding,) = [f for f in findings.find([wild]) if f.code == "no-significant-difference"]
    assert texts(finding.evidence) == "fp16: speedup 2.400 [<0.01, >100] contains 1.00"


def test_a_cpu_without_a_meter_is_not_told_to_certify_its_energy() -> None:
    measured = [
        dataclasses.replace(m, cell=dataclasses.replace(m.cell, gpu_type="CPU"), energy=None)
        for m in NOISY
    ]
    groups = groups_of(measured)
    proposed = proposal.next_matrix(groups, findings.find(groups))
    assert proposed is not None
    assert "energy" not in proposed and "engine" not in proposed
    assert "batch_size = [1]" in proposed


OPEN = Finding("effect", Verdict.INCONCLUSIVE, "a GPU", ("fp32",), Note("Open."))


@pytest.mark.parametrize(
    ("board", "engine", "wanted"),
    [
        ("T4", "compile", {"eager", "graph", "compile"}),
        ("T4", "eager", {"eager", "graph"}),
        ("CPU", "compile", {"compile"}),
    ],
)
def test_the_next_matrix_keeps_the_engine(board: str, engine: str, wanted: set[str]) -> None:
    groups = groups_of_csv(f"gpu,precision,latency_ms,engine\n{board},fp32,12,{engine}\n")
    proposed = proposal.next_matrix(groups, [OPEN])
    assert proposed is not None
    assert {w.engine for w in matrix.parse(proposed, "next.toml", "next").workloads} == wanted


def test_two_attentions_are_told_in_the_report_and_take_no_effect_away() -> None:
    measured = real(ATTENTIONS)
    (finding,) = found(measured, "attention-differs")
    assert finding.precisions == ("fp16",)
    assert texts(finding.evidence) == "fp32: efficient | fp16: cudnn"
    assert [f.verdict for f in found(measured, "effect")] == [Verdict.ACCEPT]
    assert not found(measured, "confounded")
    (group,) = groups_of(measured)
    (told,) = group.cases[1].disagreements
    assert told.text == "compared with fp32: trace_attention should agree: cudnn, efficient"
    proposed = proposal.next_matrix([group], [finding])
    assert proposed is not None
    asked = {w.attention for w in matrix.parse(proposed, "next.toml", "next").workloads}
    assert asked == {"auto", "efficient"}


def test_of_two_attentions_a_precision_without_a_trace_is_left_out() -> None:
    mixed = dataclasses.replace(rows("T4", ALL_THREE)[2], trace=None)
    (finding,) = found([*ATTENTIONS, mixed], "attention-differs")
    assert texts(finding.evidence) == "fp32: efficient | fp16: cudnn"


def test_a_pinned_attention_is_another_workload_and_the_next_matrix_keeps_it() -> None:
    several = groups_of([*T4, *EFFICIENT])
    assert [group.title.endswith(", efficient attention") for group in several] == [False, True]
    assert all(not group.others for group in several)
    proposed = proposal.next_matrix(several[1:], [OPEN])
    assert proposed is not None
    parsed = matrix.parse(proposed, "next.toml", "next")
    assert {w.attention for w in parsed.workloads} == {"efficient"}


def test_a_difference_within_the_noise_of_its_pairs_is_no_fault() -> None:
    (group,) = groups_of(edit(T4, lambda m: changed(m, "quality", perplexity=62.0)))
    base, half = group.cases
    for low, faults in ((0.03, True), (-0.01, False)):
        pairs = Difference(0.038, 0.004, low, 0.076 - low)
        noisy = dataclasses.replace(half, nats_difference=pairs)
        told = codes_of(dataclasses.replace(group, cases=(base, noisy)))
        assert ("perplexity-differs" in told) == faults


def test_perplexity_of_another_model_or_text_is_not_held_against_gpt2() -> None:
    assert T4[0].quality
    for change in (
        {"workload": dataclasses.replace(T4[0].workload, model="gpt2:random")},
        {"quality": dataclasses.replace(T4[0].quality, text="a book", perplexity=217.0)},
    ):
        other = [dataclasses.replace(m, **change) for m in T4]
        assert not found(other, "perplexity-out-of-range")


@pytest.mark.parametrize(
    ("perplexity", "words"),
    [
        (10.0, "a text that was cut"),
        (131.0, "59.6 per token, which would be right"),
        (550.0, "mistake: the mean of the lines' perplexities is 546.62"),
        (2474.0, "mistake: labels that are not shifted"),
    ],
)
def test_each_wrong_perplexity_has_its_likely_mistakes(perplexity: float, words: str) -> None:
    wrong = edit(T4, lambda m: changed(m, "quality", perplexity=perplexity))
    (finding,) = found(wrong, "perplexity-out-of-range")
    assert words in texts(finding.evidence)


plausible = st.fixed_dictionaries(
    {
        "board": st.sampled_from([board.name for board in GPUS]),
        "batch_size": st.sampled_from([1, 2, 8, 32]),
        "launch_us": st.floats(2.0, 60.0),
        "efficiency": st.floats(0.03, 0.85),
        "busy_power": st.floats(0.2, 0.95),
    }
)


@settings(max_examples=40)
@given(plausible, st.sampled_from(["eager", "graph"]))
def test_no_plausible_row_is_called_impossible(how: dict[str, object], engine: str) -> None:
    measured = real(rows(**how, precisions=ALL_THREE, engine=engine))  # type: ignore[arg-type]
    wrong = [f for f in findings.find(groups_of(measured)) if f.verdict == Verdict.REJECT]
    assert wrong == []


@settings(max_examples=15)
@given(plausible)
def test_no_plausible_table_is_called_impossible_and_its_matrix_is_one(
    how: dict[str, object],
) -> None:
    lines = ["precision,latency_ms,energy_mj,throughput,batch_size"]
    for m in rows(**how, precisions=ALL_THREE):  # type: ignore[arg-type]
        assert m.timing and m.energy
        lines.append(
            f"{m.cell.precision},{m.timing.latency_ms_p50},{m.energy.per_sample_mj},"
            f"{m.timing.throughput_samples_per_s},{m.workload.batch_size}"
        )
    groups = groups_of_csv("\n".join(lines), str(how["board"]))
    shown = findings.find(groups)
    assert [f for f in shown if f.verdict == Verdict.REJECT] == []
    proposed = proposal.next_matrix(groups, shown)
    assert proposed is None or matrix.parse(proposed, "next.toml", "next").workloads


magnitudes = st.none() | st.floats(-6, 12).map(lambda exponent: 10.0**exponent)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(magnitudes, magnitudes, magnitudes, magnitudes), min_size=3, max_size=3),
    st.sampled_from([(), ("CPU",), ("P100",), ("T4",), ("H100",), ("B200",)]),
    st.sampled_from(["1", "8", "65536"]),
)
def test_any_table_is_answered_and_its_matrix_is_one(
    numbers: list[tuple[float | None, ...]], gpu: tuple[str, ...], batch: str
) -> None:
    lines = ["precision,latency_ms,energy_mj,throughput,perplexity,batch_size"]
    for precision, values in zip(ALL_THREE, numbers, strict=True):
        written = ["" if value is None else repr(value) for value in values]
        lines.append(",".join([precision, *written, batch]))
    table = "\n".join(lines)
    groups = groups_of_csv(table, *gpu)
    shown = findings.find(groups, expected(table))
    proposed = proposal.next_matrix(groups, shown)
    assert text.findings(topics(shown), proposed)
    assert json.loads(export.findings(shown, proposed, [], [], []))["next_matrix"] == proposed
    assert proposed is None or matrix.parse(proposed, "next.toml", "next").workloads


def test_rows_of_a_cpu_raise_no_question_about_launches_or_tensor_cores() -> None:
    cpu = [
        dataclasses.replace(
            changed(m, "device", name="a CPU", gpu_type="CPU", compute_capability=None),
            cell=dataclasses.replace(m.cell, gpu_type="CPU"),
        )
        for m in T4
    ]
    codes = {f.code for f in findings.find(groups_of(cpu))}
    assert not codes & {"launch-bound", "gain-below-hardware", "tensor-cores-unused"}


def test_new_tokens_are_launched_one_by_one() -> None:
    table = "precision,latency_ms,new_tokens\nfp32,900,100\nfp16,800,100\nmixed,950,100\n"
    codes = {f.code for f in of_csv(table, "V100")}
    both = {"launch-bound", "gain-below-hardware"}
    assert codes == {"effect", "mixed-slower", "mixed-options"} | both


def test_one_row_alone_is_enough() -> None:
    assert findings.find(groups_of([row("T4", "fp16")]))
    assert findings.find([]) == []
