"""Runs compared: pairing, decisions and their error rate, conditions, limits, histories."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import random
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from two_runs import (
    CELLS,
    MATRIX,
    NATS,
    NEW,
    OLD,
    a_run,
    as_input,
    change,
    compare,
    each_changed,
    not_ok,
    of_first_cell,
)

from bench import stats
from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome
from bench.results.columns import Source
from bench.warnings import RowWarning
from jobs.report.changes import (
    compared,
    conditions,
    export,
    history,
    history_table,
    limits,
    pairs,
    summary,
    table,
)
from jobs.report.changes.records import Comparison, Decision, Metric
from jobs.report.from_rows import MUST_AGREE, SHOULD_AGREE

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import compare as benchmark

OF_REPLICATES = (Metric.LATENCY, Metric.THROUGHPUT, Metric.ENERGY)


def decisions(found: Comparison) -> set[Decision]:
    return {one.decision for one in found.changes}


def changes_told(found: Comparison) -> list[str]:
    return [condition.text for condition in found.others[0].conditions]


# ------------------------------------------------------------------------------ decisions


def test_a_run_compared_with_itself_has_no_difference() -> None:
    rows = a_run()
    found = compare(rows, rows)
    assert decisions(found) == {Decision.SAME, Decision.IDENTICAL}
    assert found.count == 9  # three cells by latency, throughput and energy
    assert summary.findings(found) == []
    assert summary.headline(found).startswith(
        "Old and new are the same run. No significant difference in 9 comparisons. A change of"
    )
    assert summary.what_changed(found) == []


def test_a_cell_made_slower_is_found_and_no_other() -> None:
    found = compare(a_run(), a_run(NEW, seed=1, longer=1.1))
    worse = [
        (row.place.gpu, row.place.precision, one.metric)
        for row in found.others[0].rows
        for one in row.changes
        if one.decision == Decision.WORSE
    ]
    assert worse == [("T4", "fp32", metric) for metric in OF_REPLICATES]
    latency = of_first_cell(found, Metric.LATENCY)
    assert latency.ratio and latency.ratio.low > 1
    assert latency.ratio.value == pytest.approx(1.1, rel=0.03)
    assert latency.worsening == pytest.approx(0.1, abs=0.03)
    assert of_first_cell(found, Metric.THROUGHPUT).worsening == pytest.approx(0.09, abs=0.03)
    ((how, text),) = summary.findings(found)
    assert how == Decision.WORSE
    assert text.startswith("T4 fp32 gpt2 eager batch 1 x 128 tokens: latency slower +1")
    assert "throughput lower -" in text and "energy more +" in text


def test_a_cell_made_faster_is_better() -> None:
    found = compare(a_run(longer=1.1), a_run(NEW, seed=1))
    assert of_first_cell(found, Metric.LATENCY).decision == Decision.BETTER
    assert of_first_cell(found, Metric.THROUGHPUT).decision == Decision.BETTER
    assert "faster -" in summary.findings(found)[0][1]


def test_one_process_on_a_side_decides_nothing() -> None:
    found = compare(a_run(), a_run(NEW, replicates=1, longer=1.5))
    latency = of_first_cell(found, Metric.LATENCY)
    assert latency.decision == Decision.NOT_DECIDED
    assert latency.reason == "one process in new"
    assert latency.ratio and latency.ratio.value == pytest.approx(1.5, rel=0.05)
    assert found.count == 0
    both = compare(a_run(replicates=1), a_run(NEW, replicates=1))
    assert of_first_cell(both, Metric.LATENCY).reason == "one process each"
    assert "sampling.replicates = 5" in " ".join(summary.notes(both))
    assert "not decided" in summary.headline(both)


def test_an_interval_contains_1_exactly_where_nothing_is_decided() -> None:
    for seed in range(20):
        found = compare(a_run(seed=seed), a_run(NEW, seed=100 + seed, longer=1 + 0.004 * seed))
        for one in found.changes:
            if one.ratio and one.estimate:
                outside = not one.ratio.low <= 1 <= one.ratio.high
                assert outside == (one.decision in (Decision.WORSE, Decision.BETTER))


@pytest.mark.parametrize(
    "noise", [*benchmark.ALIKE, *benchmark.ODD[2:3], *benchmark.UNEVEN], ids=str
)
def test_pure_noise_makes_no_more_false_alarms_than_promised(noise: benchmark.Noise) -> None:
    assert benchmark.false_alarms(noise, 30) <= benchmark.most(30)


def test_the_power_of_the_test_is_that_of_the_page() -> None:
    noise = benchmark.Noise(5, 5, 0.01, 0.01)
    assert benchmark.power(noise, 1.05, cells=1, seeds=20) == 1
    assert benchmark.power(noise, 1.0, cells=1, seeds=20) <= 0.1
    assert benchmark.power(benchmark.Noise(1, 1, 0.01, 0.01), 1.5, cells=1, seeds=3) == 0


def test_what_would_have_been_found_follows_from_the_scatter() -> None:
    quiet, noisy = (
        of_first_cell(compare(a_run(scatter=s), a_run(NEW, seed=1, scatter=s)), Metric.LATENCY)
        for s in (0.005, 0.02)
    )
    assert quiet.detectable and noisy.detectable and quiet.estimate
    assert noisy.detectable > 2 * quiet.detectable
    tails = (
        stats.t_quantile(quiet.estimate.freedom, 0.025 / 9),
        stats.t_quantile(quiet.estimate.freedom, 0.1),
    )
    assert math.log1p(quiet.detectable) == pytest.approx(sum(tails) * quiet.estimate.error)


def test_a_smaller_error_rate_decides_less() -> None:
    old, new = a_run(), a_run(NEW, seed=1, longer=1.06)
    assert of_first_cell(compare(old, new, 0.05), Metric.LATENCY).decision == Decision.WORSE
    assert of_first_cell(compare(old, new, 1e-6), Metric.LATENCY).decision == Decision.SAME


@given(st.integers(0, 10**6), st.floats(0.8, 1.25))
@settings(max_examples=10)
def test_swapped_runs_have_inverse_ratios(seed: int, longer: float) -> None:
    old, new = a_run(seed=seed, replicates=3), a_run(NEW, seed=seed + 1, longer=longer)
    there, back = compare(old, new), compare(new, old)
    opposite = {Decision.WORSE: Decision.BETTER, Decision.BETTER: Decision.WORSE}
    for a, b in zip(there.changes, back.changes, strict=True):
        assert a.ratio and b.ratio
        assert a.ratio.value * b.ratio.value == pytest.approx(1)
        assert a.ratio.low * b.ratio.high == pytest.approx(1)
        assert opposite.get(a.decision, a.decision) == b.decision


@given(st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_the_order_of_the_rows_changes_nothing(order: random.Random) -> None:
    old, new = a_run(), a_run(NEW, seed=1, longer=1.1)
    found = table.shown(compare(old, new))
    for rows in (old, new):
        order.shuffle(rows)
    assert table.shown(compare(old, new)) == found


@given(st.lists(st.floats(1e-300, 1), max_size=12), st.floats(0.001, 0.5))
def test_holm_decides_no_less_than_bonferroni_and_no_more_than_each_alone(
    p_values: list[float], alpha: float
) -> None:
    shared = stats.holm(p_values, alpha)
    for p, among in zip(p_values, shared, strict=True):
        assert 1 <= among <= len(p_values)
        assert p * len(p_values) > alpha or p * among <= alpha
        assert p <= alpha or p * among > alpha
    assert stats.holm(list(reversed(p_values)), alpha) == list(reversed(shared)) or len(
        set(p_values)
    ) < len(p_values)


@given(st.floats(1, 5000), st.floats(1e-4, 0.49))
def test_a_tail_is_that_of_its_quantile(freedom: float, tail: float) -> None:
    assert stats.t_tail(stats.t_quantile(freedom, tail), freedom) == pytest.approx(tail, rel=0.01)


# ----------------------------------------------------------------------- energy, perplexity


def test_other_sensors_errors_do_not_cancel() -> None:
    old, new = a_run(), a_run(NEW, seed=1, longer=1.07)
    elsewhere = each_changed(new, "device", uuid="GPU-another")
    same, other = (of_first_cell(compare(old, one), Metric.ENERGY) for one in (new, elsewhere))
    assert same.decision == Decision.WORSE
    assert other.decision == Decision.SAME  # each sensor may be 5 % off
    assert same.estimate and other.estimate
    alone = math.hypot(0.05, 0.05) / 1.96
    assert other.estimate.error == pytest.approx(math.hypot(same.estimate.error, alone), rel=1e-3)
    unknown = each_changed(elsewhere, "energy", systematic=None)
    found = of_first_cell(compare(old, unknown), Metric.ENERGY)
    assert (found.decision, found.reason) == (
        Decision.NOT_DECIDED,
        "another sensor, of unknown error",
    )
    assert of_first_cell(compare(old, unknown), Metric.LATENCY).decision == Decision.WORSE


def test_energies_read_by_two_methods_are_not_decided() -> None:
    found = compare(a_run(), each_changed(a_run(NEW), "energy", method="power"))
    assert of_first_cell(found, Metric.ENERGY).reason == "read by another method (counter -> power)"
    assert "energy read by: counter -> power" in changes_told(found)


def test_a_missing_or_negative_energy_is_said() -> None:
    without = each_changed(a_run(NEW), "energy", per_sample_mj=None, method="none")
    found = of_first_cell(compare(a_run(), without), Metric.ENERGY)
    assert (found.new, found.reason) == (None, "not measured in new")
    negative = each_changed(a_run(NEW), "energy", per_sample_mj=-1.0)
    found = of_first_cell(compare(a_run(), negative), Metric.ENERGY)
    assert (found.decision, found.reason) == (Decision.NOT_DECIDED, "an energy is not above 0")
    neither = compare(without, without)
    assert Metric.ENERGY not in {one.metric for one in neither.changes}


def moved(nats: float, wobble: float = 0.0) -> list[Measurement]:
    """A run each of whose windows has so many more nats per token, give or take."""
    offsets = (wobble, -wobble, wobble, -wobble)
    return a_run(
        NEW, seed=1, nats=[w + 100 * (nats + off) for w, off in zip(NATS, offsets, strict=True)]
    )


@pytest.mark.parametrize(
    ("nats", "wobble", "decision"),
    [
        (0.0, 0.0, Decision.IDENTICAL),
        (0.01, 1e-5, Decision.WORSE),
        (-0.01, 1e-5, Decision.BETTER),
        (0.0005, 1e-7, Decision.NEGLIGIBLE),  # decided, but below 0.1 %
        (0.0005, 0.01, Decision.SAME),
    ],
)
def test_perplexities_are_compared_window_by_window(
    nats: float, wobble: float, decision: Decision
) -> None:
    found = of_first_cell(compare(a_run(), moved(nats, wobble)), Metric.PERPLEXITY)
    assert found.decision == decision
    assert found.ratio and found.ratio.value == pytest.approx(math.exp(nats))


def test_a_negligible_difference_is_no_finding() -> None:
    found = compare(a_run(), moved(0.0005, 1e-7))
    assert "comparisons, but for 3 that are negligible. A change" in summary.headline(found)
    assert summary.findings(found) == []
    assert "negligible +0.05%" in table.shown(found)
    assert verdicts(found, "perplexity>1%").exceeded == ()
    assert verdicts(found, "perplexity>0.01%").exceeded != ()  # a limit decides what matters


def test_a_perplexity_is_compared_once_for_all_workloads_of_a_cell() -> None:
    def two_workloads(rows: list[Measurement]) -> list[Measurement]:
        graph = dataclasses.replace(rows[0].workload, engine="graph")
        return rows + [dataclasses.replace(one, workload=graph) for one in rows]

    found = compare(two_workloads(a_run()), two_workloads(moved(0.01, 1e-5)))
    assert sum(one.metric == Metric.PERPLEXITY for one in found.changes) == len(CELLS)
    assert sum(one.metric == Metric.LATENCY for one in found.changes) == 2 * len(CELLS)


def test_perplexities_of_two_protocols_are_not_compared() -> None:
    other = each_changed(moved(0.01), "quality", context=1024, text_sha256="other")
    found = compare(a_run(), other)
    told = of_first_cell(found, Metric.PERPLEXITY)
    assert (told.decision, told.reason) == (Decision.NOT_DECIDED, "another context and text")
    assert "context of the perplexity: 128 -> 1024" in changes_told(found)
    fewer = of_first_cell(compare(a_run(), a_run(NEW, nats=NATS[:3])), Metric.PERPLEXITY)
    assert fewer.reason == "another set of windows"


# -------------------------------------------------------------------------------- pairing


def test_rows_of_one_run_only_are_listed() -> None:
    found = compare(a_run(cells=CELLS[:2]), a_run(NEW, cells=CELLS[1:]))
    (one,) = found.others
    assert [row.place.precision for row in one.rows] == ["fp16"]
    assert one.only_old == ("T4 fp32 gpt2 eager batch 1 x 128 tokens",)
    assert one.only_new == ("A100 fp32 gpt2 eager batch 1 x 128 tokens",)
    assert "only in old: T4 fp32 gpt2 eager batch 1 x 128 tokens" in table.shown(found)


def test_another_board_of_the_type_is_no_pair() -> None:
    other = each_changed(a_run(NEW), "device", name="NVIDIA A100-PCIE-40GB")
    kept = [one for one in a_run(NEW) if one.cell.gpu_type == "T4"]
    new = kept + [one for one in other if one.cell.gpu_type == "A100"]
    (one,) = compare(a_run(), new).others
    assert {row.place.gpu for row in one.rows} == {"T4"}
    (text,) = one.only_old
    assert text.endswith("on A100-SXM4-40GB; the other run has it on A100-PCIE-40GB")


def test_the_makers_name_that_newer_drivers_add_is_no_other_board() -> None:
    old = [dataclasses.replace(m, device=dataclasses.replace(m.device, name="A100-SXM4-40GB"))
           for m in a_run() if m.cell.gpu_type == "A100" and m.device]  # fmt: skip
    assert len(compare(old, a_run(NEW)).others[0].rows) == 1


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(TensorgapError, match=r"no cell and workload in common: the first has T4"):
        compare(a_run(cells=CELLS[:1]), a_run(NEW, cells=CELLS[1:]))


def test_runs_of_one_cell_on_two_boards_are_refused_with_the_boards() -> None:
    of_t4 = [one for one in a_run() if one.cell.gpu_type == "T4"]
    other = each_changed(
        [dataclasses.replace(one, run=NEW) for one in of_t4], "device", name="Tesla T4G"
    )
    with pytest.raises(
        TensorgapError, match=r"T4 fp32 .* on .*; the other run has it on Tesla T4G"
    ):
        compare(of_t4, other)


def test_a_cell_in_two_runs_of_one_place_is_refused() -> None:
    with pytest.raises(TensorgapError, match=rf"stands in 2 runs \({OLD} and {NEW}\).*one run"):
        pairs.of_run([*a_run(OLD), *a_run(NEW)], "all.parquet")
    # Runs of other cells, as of two clusters, are one.
    both = [*a_run(OLD, cells=CELLS[:1]), *a_run(NEW, cells=CELLS[1:])]
    assert len(pairs.of_run(both, "all.parquet")) == 3


def test_a_cell_that_fails_now_is_the_worst_finding() -> None:
    old, new = a_run(), a_run(NEW, seed=1, longer=1.1)
    failing = [m for m in new if m.cell.gpu_type == "T4"] + not_ok(
        [m for m in new if m.cell.gpu_type == "A100"], "CUDA error"
    )
    found = compare(old, failing)
    assert summary.headline(found).startswith("1 row is no longer OK. Of 6 comparisons, 3 became")
    (first, text), *_ = summary.findings(found)
    assert first == Decision.WORSE
    assert text == "A100 fp32 gpt2 eager batch 1 x 128 tokens: OK -> FAILED (CUDA error)"
    back = compare(failing, old)
    assert (Decision.BETTER, "A100 fp32 gpt2 eager batch 1 x 128 tokens: FAILED -> OK") in (
        summary.findings(back)
    )
    neither = compare(failing, failing)
    assert not [text for _, text in summary.findings(neither) if "FAILED" in text]
    assert any("FAILED -> FAILED" in note for note in summary.notes(neither))


def test_failed_replicates_beside_others_are_told() -> None:
    new = a_run(NEW)
    found = compare(a_run(), [*new[1:], *not_ok(new[:1], "the node went away")])
    (note,) = [text for text in summary.notes(found) if "replicates failed" in text]
    assert note.endswith("1 of 5 replicates failed in new: the node went away")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_time_that_is_no_number_is_refused(value: float) -> None:
    rows = a_run()
    rows[7] = each_changed(rows[7:8], "timing", latency_ms_p50=value)[0]
    with pytest.raises(TensorgapError, match=r"timing_latency_ms_p50 of T4 fp16 .* replicate 2"):
        compare(rows, a_run(NEW))


def test_nats_and_energies_that_are_no_number_are_refused() -> None:
    for part, name in (("quality", "perplexity"), ("energy", "per_sample_mj")):
        with pytest.raises(TensorgapError, match=f"{part}_{name} of .* is nan"):
            compare(a_run(), each_changed(a_run(NEW), part, **{name: math.nan}))
    with pytest.raises(TensorgapError, match="quality_window_nats"):
        compare(a_run(), each_changed(a_run(NEW), "quality", window_nats=(*NATS[:3], math.nan)))


# ----------------------------------------------------------------------------- conditions


def test_each_column_that_must_or_should_agree_is_looked_at() -> None:
    assert {*MUST_AGREE, *SHOULD_AGREE} <= {*conditions.FIELDS}


def test_what_changed_stands_above_the_tables_once_for_all_rows() -> None:
    new = each_changed(a_run(NEW, seed=1), "software", driver="580.65", torch="2.15.0")
    found = compare(a_run(), new)
    assert changes_told(found) == ["driver: 580.1 -> 580.65", "torch: 2.14.0+cu126 -> 2.15.0"]
    text = table.shown(found)
    assert text.index("driver: 580.1 -> 580.65") < text.index("latency   ")
    assert "- driver: 580.1 -> 580.65" in table.markdown(found)


def test_what_changed_for_some_rows_says_for_which() -> None:
    t4 = [m for m in a_run(NEW) if m.cell.gpu_type == "T4"]
    a100 = [m for m in a_run(NEW) if m.cell.gpu_type == "A100"]
    new = each_changed(t4, "device", power_limit_w=60.0) + a100
    assert changes_told(compare(a_run(), new)) == ["power limit in W: 70 -> 60.0 (T4)"]
    old = each_changed(a_run(), "trace", attention="flash")
    new = [
        each_changed([m], "trace", attention="math" if m.cell.precision == "fp16" else "flash")[0]
        for m in a_run(NEW)
    ]
    assert changes_told(compare(old, new)) == ["attention kernel: flash -> math (fp16)"]


def test_clocks_that_moved_are_told() -> None:
    slow = each_changed(a_run(NEW), "conditions", sm_mhz_after=1200.0)
    assert "SM clock under load: 1480 MHz -> 1200 MHz (T4)" in changes_told(compare(a_run(), slow))
    near = each_changed(a_run(NEW), "conditions", sm_mhz_after=1470.0)
    assert changes_told(compare(a_run(), near)) == []


def test_a_change_of_the_protocol_is_told() -> None:
    sources = [
        Source(OLD, MATRIX, "0.1.0", "1234567890"),
        Source(NEW, MATRIX + "latency_max_s = 30\n", "0.1.0", "1234567890"),
    ]
    runs = [as_input(a_run(s.run), label, s) for s, label in zip(sources, "AB", strict=True)]
    found = compared.compare(runs[0], runs[1:])
    assert changes_told(found) == ["sampling.latency_max_s: 60.0 -> 30.0"]
    assert conditions.of_sources([], sources[:1]) is not None
    damaged = dataclasses.replace(sources[1], matrix="[[[")
    (told,) = conditions.of_sources(sources[:1], [damaged])
    assert told.text == "matrix: another -> one cannot be read by this version"
    revision = dataclasses.replace(sources[0], git_revision=None)
    (told,) = conditions.of_sources([revision], sources[:1])
    assert told.text == "revision of tensorgap: not known -> 1234567890"


def test_warnings_of_rows_are_told_with_their_runs() -> None:
    busy = RowWarning("host-busy", {"share": 0.3})
    new = [dataclasses.replace(m, warnings=(busy,)) for m in a_run(NEW)]
    found = compare(a_run(), new)
    told = "* 3 of 3 rows in new: other processes used 30% of the host CPU time"
    assert told in summary.notes(found)
    assert "* [" in table.shown(found)


# ------------------------------------------------------------------------ limits, formats


def verdicts(found: Comparison, *texts: str) -> limits.Verdicts:
    return limits.judged(found, [limits.parse(text) for text in texts])


def test_a_limit_fails_where_a_decided_change_exceeds_it() -> None:
    found = compare(a_run(), a_run(NEW, seed=1, longer=1.1))
    (text,) = verdicts(found, "latency>5%").exceeded
    assert text.startswith("latency>5%: 1 row: T4 fp32 gpt2 eager batch 1 x 128 tokens +")
    for limit in ("latency>15%", "energy>15%", "throughput>15%", "perplexity>0%"):
        assert verdicts(found, limit).exceeded == ()
    assert len(verdicts(found, "latency>5%", "throughput>5%", "energy > 5 %").exceeded) == 3
    better = compare(a_run(longer=1.1), a_run(NEW, seed=1))
    assert verdicts(better, "latency>0%", "throughput>0%").exceeded == ()


def test_a_change_that_is_not_decided_fails_nothing_but_is_noted() -> None:
    found = compare(a_run(scatter=0.1), a_run(NEW, seed=5, scatter=0.1, longer=1.1))
    assert of_first_cell(found, Metric.LATENCY).decision == Decision.SAME
    told = verdicts(found, "latency>5%")
    assert (told.exceeded, told.open) == ((), ())
    (note,) = told.notes
    assert "3 of 3 rows scatter so much that such a change may pass" in note


def test_a_limit_of_which_nothing_is_decided_is_open() -> None:
    found = compare(a_run(replicates=1), a_run(NEW, replicates=1))
    told = verdicts(found, "latency>5%", "perplexity>1%")
    assert told.exceeded == ()
    (text,) = told.open
    assert text.startswith("latency>5%: nothing could be decided: one process each (3); measure")
    without = compare(
        each_changed(a_run(), "energy", per_sample_mj=None),
        each_changed(a_run(NEW), "energy", per_sample_mj=None),
    )
    (text,) = verdicts(without, "energy>5%").open
    assert text == "energy>5%: nothing to check: energy is measured in no row that both runs have"


def test_a_row_that_is_no_longer_ok_fails_any_limit() -> None:
    new = a_run(NEW)
    found = compare(a_run(), [*new[5:], *not_ok(new[:5])])
    (text,) = verdicts(found, "energy>50%").exceeded
    assert text == "no longer OK: 1 row: T4 fp32 gpt2 eager batch 1 x 128 tokens is FAILED"
    assert verdicts(found).exceeded == ()  # without a limit nothing is asked


def test_a_limit_may_include_its_value() -> None:
    found = of_first_cell(compare(a_run(), a_run(NEW, longer=1.1)), Metric.LATENCY)
    at = dataclasses.replace(found, ratio=stats.Ratio(1.25, 1.2, 1.3), decision=Decision.WORSE)
    assert limits.parse("latency>=25%").exceeded_by(at)
    assert not limits.parse("latency>25%").exceeded_by(at)


@pytest.mark.parametrize(
    "text", ["", "latency", "latency>5", "speed>5%", "latency<5%", "latency>-5%", "latency>5%%"]
)
def test_a_limit_that_is_none_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(TensorgapError, match="latency, throughput, energy and perplexity"):
        limits.parse(text)


@given(st.sampled_from(Metric), st.booleans(), st.integers(0, 10**6))
def test_a_limit_is_read_as_it_is_shown(metric: Metric, or_equal: bool, tenths: int) -> None:
    limit = limits.parse(f"{metric}{'>=' if or_equal else '>'}{tenths / 1000}%")
    assert (limit.metric, limit.or_equal) == (metric, or_equal)
    assert limit.share == pytest.approx(tenths / 1e5)


HOSTILE = "<script>alert(1)</script>|[x](http://evil)\x1b]52;c;AAAA\a"


def hostile() -> Comparison:
    workload = dataclasses.replace(a_run()[0].workload, model=HOSTILE)
    runs = [
        [dataclasses.replace(m, workload=workload, reason=HOSTILE) for m in a_run(name)]
        for name in (OLD, NEW)
    ]
    runs[1] = each_changed(runs[1], "software", driver=HOSTILE)
    return compare(runs[0], [*runs[1][:10], *not_ok(runs[1][10:], HOSTILE)])


def test_foreign_texts_are_harmless_in_every_format() -> None:
    found = hostile()
    for text in (table.shown(found), table.markdown(found), export.to_csv(found),
                 export.to_json(found)):  # fmt: skip
        assert "\x1b" not in text and "\a" not in text
    text = table.markdown(found)
    assert "<script>" not in text.replace("\\<script>", "")
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 7


def test_json_has_every_number_in_full() -> None:
    found = compare(a_run(), a_run(NEW, seed=1, longer=1.1))
    read = json.loads(export.to_json(found))
    assert (read["alpha"], read["comparisons"]) == (0.05, 9)
    rows = read["others"][0]["rows"]
    for row, told in zip(found.others[0].rows, rows, strict=True):
        for one, numbers in zip(row.changes, told["changes"], strict=True):
            assert (one.old, one.new) == (numbers["old"], numbers["new"])
            assert one.ratio and one.ratio.value == numbers["ratio"]
            assert numbers["decision"] == one.decision
            assert numbers["p"] == (one.estimate.p if one.estimate else None)
    assert read == json.loads(json.dumps(read))


def test_csv_has_a_line_for_each_metric_and_for_each_row_that_is_not_ok() -> None:
    lines = list(csv.DictReader(io.StringIO(export.to_csv(hostile()))))
    assert len(lines) == 2 * 4 + 1
    (failed,) = [line for line in lines if line["new_outcome"] == "FAILED"]
    assert (failed["decision"], failed["metric"]) == ("worse", "")


def test_markdown_has_as_many_cells_in_each_row() -> None:
    text = table.markdown(compare(a_run(), a_run(NEW, seed=1, longer=1.1)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 * 5  # of a perplexity that is identical there is no table
    assert {row.count("|") for row in rows} == {7}


def test_several_runs_stand_side_by_side_against_the_first() -> None:
    runs = [
        as_input(a_run(OLD), "A"),
        as_input(a_run(NEW, seed=1, longer=1.1), "B"),
        as_input(a_run("study/20261202T120000Z-cccccc", seed=2, cells=CELLS[:2]), "C"),
    ]
    found = compared.compare(runs[0], runs[1:])
    assert found.count == 9 + 6
    heading = next(line for line in table.shown(found).splitlines() if "B / A" in line)
    assert heading.split() == [
        "GPU",
        "precision",
        "A",
        "B",
        "B",
        "/",
        "A",
        "change",
        "C",
        "C",
        "/",
        "A",
        "change",
    ]
    assert summary.findings(found)[0][1].startswith("B: T4 fp32")
    assert change(found, Metric.LATENCY, run=1).decision == Decision.SAME
    (only,) = [text for text in summary.notes(found) if text.startswith("only in A")]
    assert only.startswith("only in A (against C): A100 fp32")


# -------------------------------------------------------------------------------- history


def a_history(*rows: list[Measurement]) -> history.RunsOverTime:
    return history.of_runs([as_input(one, "") for one in rows])


def test_runs_are_shown_in_time_order_each_against_the_one_before() -> None:
    later = "night/20261202T120000Z-cccccc"
    new = each_changed(a_run(NEW, seed=1, longer=1.1), "software", driver="580.65")
    last = each_changed(a_run(later, seed=2, longer=1.1, cells=CELLS[:2]), "software", driver="590")
    found = a_history(last, a_run(OLD), new)
    assert [run.names[0] for run in found.runs] == [OLD, NEW, later]
    assert [run.label for run in found.runs] == ["1", "2", "3"]
    told = [[one.text for one in conditions] for conditions in found.conditions]
    assert told == [[], ["driver: 580.1 -> 580.65"], ["driver: 580.65 -> 590"]]
    (course,) = [c for c in found.courses if (c.place.gpu, c.place.precision) == ("T4", "fp32")]
    latencies = [next(c for c in p.changes if c.metric == Metric.LATENCY) for p in course.points]
    assert [one.decision for one in latencies] == [
        Decision.NOT_DECIDED,
        Decision.WORSE,
        Decision.SAME,
    ]
    (text,) = history_table.changes(found)
    assert text.startswith("run 2: T4 fp32 gpt2 eager batch 1 x 128 tokens: latency slower +")
    lines = history_table.shown(found).splitlines()
    assert "driver: 580.1 -> 580.65" in lines[2]
    assert sum(line.rstrip().endswith("perplexity") for line in lines) == 2  # a table for each GPU


def test_a_run_that_failed_in_between_is_skipped_over() -> None:
    failed = not_ok(a_run(NEW), "no power")
    later = a_run("study/20261202T120000Z-cccccc", seed=2, longer=1.2)
    found = a_history(a_run(OLD), failed, later)
    (course,) = [c for c in found.courses if (c.place.gpu, c.place.precision) == ("T4", "fp32")]
    assert [point.seen.outcome for point in course.points] == [
        Outcome.OK,
        Outcome.FAILED,
        Outcome.OK,
    ]
    latency = course.points[2].changes[0]
    assert latency.ratio and latency.ratio.value == pytest.approx(1.2, rel=0.03)
    told = history_table.changes(found)
    assert "run 2: T4 fp32 gpt2 eager batch 1 x 128 tokens: OK -> FAILED (no power)" in told
    lines = list(csv.DictReader(io.StringIO(history_table.to_csv(found))))
    assert [line["outcome"] for line in lines].count("FAILED") == 3
    read = json.loads(history_table.to_json(found))
    assert len(read["rows"]) == len(lines)
    rows = [line for line in history_table.markdown(found).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {10}


def test_a_history_counts_a_perplexity_once_for_all_workloads() -> None:
    def two_workloads(rows: list[Measurement]) -> list[Measurement]:
        graph = dataclasses.replace(rows[0].workload, engine="graph")
        return rows + [dataclasses.replace(one, workload=graph) for one in rows]

    found = a_history(two_workloads(a_run()), two_workloads(moved(0.01, 1e-5)))
    counted = [
        one
        for course in found.courses
        for point in course.points
        for one in point.changes
        if one.metric == Metric.PERPLEXITY and one.estimate
    ]
    assert len(counted) == len(CELLS)
    assert found.count == 2 * 9 + 3
