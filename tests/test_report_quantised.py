"""What the report says of quantised weights: their kernel, the most they gain, others' int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import foreign_tables
import pytest
from simulated import changed, row

from bench.asked import PRECISIONS, QUANTISED
from bench.measured import Measurement
from jobs.report import compare, facts, findings, from_rows
from jobs.report.figures import style
from jobs.report.finding import Finding, Note, Verdict
from jobs.report.foreign import names
from jobs.report.rules import effect

INT8 = "sm80_xmma_gemm_i8i32_i8i32_i32_tn_n_tilesize64x64x64"
COPY = "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_tn"
BOARD = "A100-SXM-80GB"


def traced(precision: str, *products: str, engine: str = "eager") -> Measurement:
    return changed(row(BOARD, precision, engine=engine), "trace", products=products or None)


def said(*rows: Measurement) -> list[Finding]:
    cases = compare.with_ratios(from_rows.cases([traced("fp32"), traced("bf16"), *rows]))
    return findings.find(facts.grouped(cases))


def of_weights(*rows: Measurement) -> Finding:
    (one,) = (found for found in said(*rows) if found.code == "weights-quantised")
    return one


def texts(notes: Sequence[Note]) -> str:
    return " | ".join(note.text for note in notes)


def test_the_kernel_that_read_int8_is_named_with_the_most_that_it_gains() -> None:
    found = of_weights(traced("int8-dynamic", INT8, COPY))
    assert found.verdict == Verdict.ACCEPT
    assert f"read the weights as they are stored, by {INT8}." in found.cause.text
    most = texts(found.expected)
    assert "against fp32, a large batch: at most 32.00x, by the datasheet's peaks" in most
    assert "against bf16, a large batch: at most 2.00x" in most


def test_weights_that_were_copied_first_gain_no_arithmetic() -> None:
    found = of_weights(traced("int8", COPY))
    assert "copies them to a wider type and multiplies the copies" in found.cause.text
    assert COPY in found.cause.text
    assert "against bf16, a large batch: at most 1.00x" in texts(found.expected)
    assert "engine = compile" in texts(found.do)
    assert not of_weights(traced("int8", COPY, engine="eager")).missing


def test_int4_of_gpt2_is_as_large_as_its_padded_rows() -> None:
    """As found on a modelled GPU: rows of 768 take 1024, of 3072 as many."""
    rest = 2 * (124_439_808 - 84_934_656)
    padded = 12 * 1024 * (3 * 768 + 768 + 3072 + 3 * 768)
    held = int(padded * (0.5 + 4 / 128)) + rest
    cases = from_rows.cases(
        [row(BOARD, "fp32"), changed(row(BOARD, "int4"), "weights", size_bytes=held)]
    )
    base, case = sorted(cases, key=lambda one: one.precision != "fp32")
    *_, size = effect.consistent_with(case, base)
    assert size.template.endswith("MB, as found")
    assert size.values["few"] == pytest.approx(padded / 1e6)


def test_without_a_trace_the_kernel_is_not_known() -> None:
    found = of_weights(traced("int4"))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert texts(found.missing) == "a trace (sampling.profile)"


@pytest.mark.parametrize("kernel", [INT8, COPY])
def test_a_small_batch_gains_at_most_the_bytes_if_a_kernel_reads_them(kernel: str) -> None:
    def moving(precision: str, moved: int, *products: str) -> Measurement:
        return changed(traced(precision, *products), "roofline", bytes_moved=moved)

    cases = compare.with_ratios(from_rows.cases([moving("fp32", 494), moving("int8", 162, kernel)]))
    found = findings.find(facts.grouped(cases))
    (one,) = (finding for finding in found if finding.code == "weights-quantised")
    text = "against fp32, a small batch: at most 3.05x, by the bytes of a request"
    assert (text in texts(one.expected)) == (kernel == INT8)


def test_other_precisions_are_not_spoken_of() -> None:
    assert not [found for found in said() if found.code == "weights-quantised"]


def test_a_quantised_model_that_is_slower_has_its_cause() -> None:
    slow = traced("int8", COPY)
    assert slow.timing
    samples = tuple(4 * ms for ms in slow.timing.latency_ms_samples)
    slow = changed(
        slow, "timing", latency_ms_samples=samples, latency_ms_p50=4 * slow.timing.latency_ms_p50
    )
    assert "effect-without-cause" not in {found.code for found in said(slow)}


def test_a_cost_in_perplexity_is_no_fault_until_it_is_large() -> None:
    def costing(nats: float) -> set[str]:
        int4 = traced("int4", "tinygemm_m16n8k16_chunk_kernel")
        quality = dataclasses.replace(int4.quality, perplexity=59.69 * 2.718281828**nats)  # type: ignore[type-var]
        return {found.code for found in said(dataclasses.replace(int4, quality=quality))}

    assert "perplexity-differs" not in costing(0.1)
    assert "perplexity-differs" in costing(0.7)


@pytest.mark.parametrize("name", QUANTISED)
def test_int8_of_somebody_s_table_is_set_aside(name: str) -> None:
    """Theirs may be bitsandbytes or TensorRT: it does not mean what it means here."""
    assert not names.is_measured(name)
    table = f"precision,latency (ms)\nfp32,10\n{name},5\n"
    cases = foreign_tables.cases_of(table)
    assert [case.precision for case in cases] == ["fp32"]


def test_each_precision_has_a_mark_of_its_own() -> None:
    for marks in (style.COLOURS, style.SHAPES):
        assert list(marks) == list(PRECISIONS)
        assert len({*marks.values()}) == len(PRECISIONS)
