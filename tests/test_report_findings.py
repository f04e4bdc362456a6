"""Each rule fires where it must and only there; healthy rows are never called wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence

import examples  # noqa: F401  # the profile of hypothesis
import hypothesis.strategies as st
import pytest
import simulated
from hypothesis import given, settings
from simulated import changed, row, rows, slower

from bench import matrix, timing
from bench.asked import Workload
from bench.device import acquire as device
from bench.device import gpus
from bench.measured import Energy, Measurement, Placement
from bench.stats import Difference, Ratio
from jobs.report import cases, findings, proposal, render, study
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.rules import conditions, quality, speed

BOARDS = ("P100-PCIE", "V100-SXM2", "T4", "A100-SXM-40GB")
Rows = Sequence[Measurement]


def found(measured: Rows, code: Code) -> list[Finding]:
    return [f for f in findings.find(cases.of_rows(measured)) if f.code == code]


def of_csv(text: str, gpu: str | None = None) -> list[Finding]:
    entries, _ = study.read(text, "test.csv")
    return findings.find(study.groups(entries, gpu))


def real(measured: Rows) -> list[Measurement]:
    """The rows as if they were not simulated."""
    return [changed(m, "device", simulated=False) for m in measured]


def edit(
    measured: Rows, change: Callable[[Measurement], Measurement], precision: str = "fp16"
) -> list[Measurement]:
    return [change(m) if m.cell.precision == precision else m for m in measured]


def doubting(m: Measurement, *doubts: str) -> Measurement:
    return dataclasses.replace(m, doubts=doubts)


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
ROWS: dict[Code, tuple[Rows, Rows]] = {
    Code.LATENCY_BELOW_FLOOR: (edit(T4, lambda m: slower(m, 0.1)), T4),
    Code.POWER_ABOVE_LIMIT: (edit(T4, lambda m: changed(m, "energy", mean_w=90.0)), T4),
    Code.POWER_BELOW_IDLE: (edit(T4, lambda m: changed(m, "energy", mean_w=20.0)), T4),
    Code.PERPLEXITY_BELOW_FLOOR: (
        edit(T4, lambda m: changed(m, "quality", floor_perplexity=60.0)),
        edit(T4, lambda m: changed(m, "quality", floor_perplexity=59.0)),
    ),
    Code.PERPLEXITY_OUT_OF_RANGE: (edit(T4, lambda m: changed(m, "quality", perplexity=217.0)), T4),
    Code.FP32_ON_TENSOR_CORES: (
        edit(rows("A100-SXM-40GB"), lambda m: changed(m, "trace", tensor_cores="yes"), "fp32"),
        rows("A100-SXM-40GB"),
    ),
    Code.SIMULATED: (T4, real(T4)),
    Code.THROUGHPUT_CONTRADICTS_LATENCY: (
        edit(T4, lambda m: changed(m, "timing", throughput_samples_per_s=2000.0)),
        T4,
    ),
    Code.GPU_THROTTLED: (edit(T4, lambda m: changed(m, "conditions", throttled_s=2.0)), T4),
    Code.GPU_SHARED: (edit(T4, lambda m: changed(m, "conditions", other_processes=1)), T4),
    Code.GPU_CAPPED: ([changed(m, "device", power_limit_w=50.0) for m in T4], T4),
    Code.CONFOUNDED: (edit(T4, lambda m: changed(m, "software", torch="2.9.0")), T4),
    Code.ATTENTION_DIFFERS: (ATTENTIONS, [*EFFICIENT, *T4]),
    Code.WARM_UP_UNSTEADY: (
        edit(T4, lambda m: doubting(m, "warm-up not steady after 3.0 s")),
        edit(T4, lambda m: doubting(m, "others took 7% of the host's CPU time")),
    ),
    Code.LATENCY_NOT_CONVERGED: (
        edit(T4, lambda m: doubting(m, "latency not converged: 30 samples")),
        edit(T4, lambda m: doubting(m, "warm-up not steady after 3.0 s")),
    ),
    Code.TENSOR_CORES_UNUSED: (
        edit(T4, lambda m: changed(m, "trace", tensor_cores="no")),
        [*T4, *rows("P100-PCIE")],
    ),
    Code.PRECISION_EMULATED: (
        rows("T4", ("fp32", "bf16")),
        rows("A100-SXM-40GB", ("fp32", "bf16")),
    ),
    Code.LAUNCH_BOUND: (HOST_BOUND, V100),
    Code.ENERGY_WINDOW_TOO_SHORT: (edit(T4, lambda m: changed(m, "energy", ticks=2)), T4),
    Code.ENERGY_METHODS_DIFFER: (edit(T4, lambda m: changed(m, "energy", method="power")), T4),
    Code.PERPLEXITY_DIFFERS: (edit(T4, lambda m: changed(m, "quality", perplexity=62.0)), T4),
    Code.GAIN_BELOW_HARDWARE: (HOST_BOUND, BATCHED),
    Code.NOISE_HIDES_EFFECT: (NOISY, EQUAL),
    Code.MIXED_OPTIONS: (rows("T4", ("fp32", "fp16", "mixed")), T4),
    Code.MIXED_SLOWER: (
        rows("P100-PCIE", ("fp32", "fp16", "mixed")),
        rows("T4", ("fp32", "fp16", "mixed"), batch_size=16),
    ),
    Code.PRECISION_STORAGE_ONLY: (rows("P100-PCIE"), T4),
    Code.EFFECT: (V100, [dataclasses.replace(m, energy=None) for m in NOISY]),
}

SURE = "precision,latency_ms,energy_mj,energy_method,perplexity\n"
# code: (table and GPU on which it fires, the same on which it must not).
TABLES: dict[Code, tuple[tuple[str, str | None], tuple[str, str | None]]] = {
    Code.ENERGY_METHOD_UNKNOWN: (
        ("precision,latency_ms,energy_mj\nfp32,12,600\nfp16,10,400\n", "T4"),
        (SURE + "fp32,12,600,counter,59.69\nfp16,10,400,counter,59.70\n", "T4"),
    ),
    Code.PERPLEXITY_TOO_COARSE: (
        (SURE + "fp32,12,600,counter,60\nfp16,10,400,counter,60\n", "T4"),
        (SURE + "fp32,12,600,counter,59.690\nfp16,10,400,counter,59.697\n", "T4"),
    ),
    Code.GPU_DOUBTFUL: (
        (SURE + "fp32,11.7,580,power,\nfp16,10.4,370,power,\nmixed,13.5,630,power,\n", "P100"),
        # Where operations are not launched one by one, the model says nothing.
        ("precision,latency_ms,engine\nfp32,5,graph\nfp16,2,graph\n", "T4"),
    ),
    Code.LATENCY_BELOW_FLOOR: (
        ("precision,latency_ms\nfp32,0.9\n", "P100"),
        ("precision,latency_ms\nfp32,3.6\n", "P100"),
    ),
    Code.POWER_ABOVE_LIMIT: (
        ("precision,latency_ms,energy_mj\nfp32,12,1200\n", "T4"),
        ("precision,latency_ms,energy_mj\nfp32,12,1200\n", "P100"),
    ),
    Code.POWER_BELOW_IDLE: (
        ("precision,latency_ms,energy_mj\nfp32,12,600\n", "B200"),
        ("precision,latency_ms,energy_mj\nfp32,12,600\n", "A100"),
    ),
    Code.THROUGHPUT_CONTRADICTS_LATENCY: (
        ("precision,latency_ms,throughput\nfp32,12,667\n", None),
        ("precision,latency_ms,throughput,batch_size\nfp32,12,667,8\n", None),
    ),
    Code.ENERGY_WINDOW_TOO_SHORT: (
        ("precision,latency_ms,energy_mj,energy_window_s\nfp32,12,600,0.05\n", "T4"),
        ("precision,latency_ms,energy_mj,energy_window_s\nfp32,12,600,30\n", "T4"),
    ),
    Code.ENERGY_METHODS_DIFFER: (
        (SURE + "fp32,12,600,counter,\nfp16,10,400,power,\n", "T4"),
        (SURE + "fp32,12,600,counter,\nfp16,10,400,counter,\n", "T4"),
    ),
    Code.LAUNCH_BOUND: (
        ("precision,latency_ms\nfp16,10\n", "V100"),
        ("precision,latency_ms\nfp32,5\n", "V100"),
    ),
    Code.GAIN_BELOW_HARDWARE: (
        ("precision,latency_ms\nfp32,12\nfp16,10\n", None),
        ("precision,latency_ms\nfp32,12\nfp16,4\n", None),
    ),
}


@pytest.mark.parametrize("code", ROWS)
def test_a_rule_over_rows_fires_where_it_must_and_only_there(code: Code) -> None:
    fires, silent = ROWS[code]
    assert found(fires, code)
    assert not found(silent, code)


@pytest.mark.parametrize("code", TABLES)
def test_a_rule_over_a_table_fires_where_it_must_and_only_there(code: Code) -> None:
    fires, silent = TABLES[code]
    assert code in {f.code for f in of_csv(*fires)}
    assert code not in {f.code for f in of_csv(*silent)}


def test_an_expectation_stands_beside_what_was_found_and_without_one_there_is_none() -> None:
    groups = cases.of_rows(T4)
    hoped, _ = study.read("gpu_type,precision,latency_ms\nT4,fp32,12\nV100,fp16,6\n", "hoped.csv")
    texts = [f for f in findings.find(groups, hoped) if f.code == Code.EXPECTATION]
    assert [f.subject.split()[0] for f in texts] == ["V100", "T4"]
    assert "no less than" in texts[0].evidence[0]
    assert "expected 12.0 ms, found" in texts[1].evidence[0]
    assert not [f for f in findings.find(groups) if f.code == Code.EXPECTATION]


def test_an_expectation_of_what_was_not_measured_names_it() -> None:
    hoped, _ = study.read(
        "gpu_type,precision,latency_ms,batch_size\nT4,fp32,12,1\nT4,fp32,80,8\nT4,mixed,9,1\n",
        "hoped.csv",
    )
    found_, open_ = sorted(
        (f for f in findings.find(cases.of_rows(T4), hoped) if f.code == Code.EXPECTATION),
        key=lambda f: len(f.missing),
    )
    assert found_.missing == ()
    assert open_.cause.startswith(
        "T4: no row of gpt2 eager batch 8 x 128 tokens (fp32) and gpt2 eager batch 1 x 128 tokens"
        " (mixed), so"
    )
    assert open_.missing == (
        "a row of T4, gpt2 eager batch 8 x 128 tokens, fp32",
        "a row of T4, gpt2 eager batch 1 x 128 tokens, mixed",
    )


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("model", "gpt2:random", True),
        ("model", "gpt2-xl", False),
        ("batch_size", "2", False),
        ("engine", "graph", False),
        ("prompt_tokens", "64", False),
        ("new_tokens", "8", False),
        ("attention", "math", False),
    ],
)
def test_what_is_published_is_shown_beside_the_same_workload_alone(
    column: str, value: str, told: bool
) -> None:
    table = f"precision,latency_ms,energy_mj,{column}\n"
    table += "".join(
        f"{precision},{ms},{ms * 40},{value}\n"
        for precision, ms in (("fp32", 12), ("fp16", 10), ("mixed", 14))
    )
    entries, _ = study.read(table, "test.csv")
    hoped = [dataclasses.replace(e, gpu_type="V100") for e in entries]
    text = json.dumps(
        [dataclasses.asdict(f) for f in findings.find(study.groups(entries, "T4"), hoped)]
    )
    assert ("11.45" in text) == ("7.84" in text) == told
    assert ("published for" in text.lower()) == told


def test_layer_norms_are_short_where_they_are_known_to_be() -> None:
    for model, told in (("gpt2", True), ("gpt2-xl", False)):
        text = f"precision,latency_ms,model\nfp32,120,{model}\nfp16,100,{model}\n"
        (finding,) = [f for f in of_csv(text) if f.code == Code.GAIN_BELOW_HARDWARE]
        assert any("layer norms" in t for t in finding.evidence) == told


def test_a_gain_over_tf32_is_not_held_against_an_expectation_of_fp32() -> None:
    text = "gpu_type,precision,latency_ms\n{0},fp32,12\n{0},fp16,6\n"
    for name, held in (("V100", True), ("A100", False)):
        hoped, _ = study.read(text.format(name), "hoped.csv")
        (finding,) = [
            f for f in findings.find(cases.of_rows(T4), hoped) if f.code == Code.EXPECTATION
        ]
        assert ("was published" in finding.cause) == held
        assert ("in TF32" in " ".join(finding.evidence)) == (not held)


def test_mixed_without_tensor_cores_is_told_apart_from_fp16() -> None:
    (finding,) = found(rows("P100-PCIE", ("fp32", "fp16", "mixed")), Code.PRECISION_STORAGE_ONLY)
    assert "mixed keeps float32 weights, and its casts accelerate nothing" in finding.cause
    assert "fp16 is float16 storage" in finding.cause
    assert finding.expected == (
        "P100: 1 to 1.3x, because float16 only halves bytes",
        "P100: slower than fp32, because it casts and nothing is accelerated",
    )


def test_mixed_does_not_lose_to_fp16_by_next_to_nothing() -> None:
    fp32, fp16 = real(rows("A100-SXM-40GB", engine="graph"))
    for factor, loses in ((1.001, False), (1.1, True)):
        mixed = dataclasses.replace(
            slower(fp16, factor), cell=dataclasses.replace(fp16.cell, precision="mixed")
        )
        assert bool(found([fp32, fp16, mixed], Code.MIXED_OPTIONS)) == loses


def test_latencies_alone_do_not_tell_a_gpu_that_was_named() -> None:
    text = "precision,latency_ms\nfp32,11.7\nfp16,10.4\nmixed,13.5\n"
    (finding,) = [f for f in of_csv(text, "T4") if f.code == Code.GPU_DOUBTFUL]
    assert finding.verdict == Verdict.CANNOT_TELL
    assert finding.cause.startswith("Latencies alone cannot tell a T4 from ")
    assert "V100" in finding.cause and "not told" not in finding.cause
    # The launch, a cast's share of it and up to two rates; no energy, so neither idle nor k.
    assert "2 to 4 numbers are fitted to 3 found" in finding.cause


def test_it_is_the_energy_that_tells_types_apart_only_where_it_does() -> None:
    table = "precision,latency_ms,energy_mj,energy_method\n"
    for text, told in (
        ("fp32,11.7,580,power\nfp16,10.4,370,power\nmixed,13.5,630,power\n", True),
        # Latencies that no type gives.
        ("fp32,100,5000,power\nfp16,5,200,power\nmixed,200,9000,power\n", False),
    ):
        (finding,) = [f for f in of_csv(table + text) if f.code == Code.GPU_DOUBTFUL]
        (alone,) = [t for t in finding.evidence if t.startswith("the latencies alone")]
        assert ("it is the energy that tells them apart" in alone) == told
        assert told or "(none)" in alone
        assert "4 to 6 numbers are fitted to 6 found" in finding.cause


def test_whether_an_unnamed_gpu_waits_depends_on_which_it_is() -> None:
    text = SURE + "fp32,11.7,580,power,\nfp16,10.4,370,power,\nmixed,13.5,630,power,\n"
    (finding,) = [f for f in of_csv(text) if f.code == Code.LAUNCH_BOUND]
    near = {t.partition(" (")[0] for t in finding.evidence if "near idle" in t}
    far = {t.partition(" (")[0] for t in finding.evidence if "it worked for a part" in t}
    assert near and far
    names = [gpu.name for gpu in gpus.GPUS]
    before, _, after = finding.cause.partition("this power is near idle, on ")
    assert {name for name in names if re.search(rf"\b{name}\b", before)} == near
    assert {name for name in names if re.search(rf"\b{name}\b", after)} == far


def test_an_energy_that_scatters_over_many_ticks_was_not_read_too_shortly() -> None:
    (scatter,) = found(
        edit(T4, lambda m: changed(m, "energy", uncertainty=0.12, ticks=3000)),
        Code.ENERGY_WINDOW_TOO_SHORT,
    )
    assert scatter.cause.startswith("The energy differs from window to window:")
    # Of one window, a tick at either edge of 15.
    (short,) = found(
        edit(T4, lambda m: changed(m, "energy", uncertainty=2 / 15, ticks=15)),
        Code.ENERGY_WINDOW_TOO_SHORT,
    )
    assert short.cause == "The energy was read over too short a time."


def test_a_row_without_energy_does_not_confound_a_speed() -> None:
    lost = edit(real(T4), lambda m: dataclasses.replace(m, energy=Energy("none", reason="lost")))
    assert not found(lost, Code.CONFOUNDED)
    assert not cases.of_rows(lost)[0].cases[1].line.doubts


def test_every_code_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {*ROWS, *TABLES, Code.EXPECTATION} == set(Code)


@pytest.mark.parametrize("board", BOARDS)
def test_healthy_rows_are_accepted(board: str) -> None:
    measured = real(rows(board, ("fp32", "fp16", "mixed"), batch_size=8))
    verdicts = {f.code: f.verdict for f in findings.find(cases.of_rows(measured))}
    # On a P100 mixed is healthy and slower than fp32: what to do about it is said.
    if board == "P100-PCIE":
        assert verdicts.pop(Code.MIXED_OPTIONS) == Verdict.FIX
    assert set(verdicts.values()) == {Verdict.ACCEPT}, verdicts


def test_a_held_down_gpu_is_told_by_its_clock_and_by_its_reasons() -> None:
    slow = edit(T4, lambda m: changed(m, "conditions", sm_mhz_after=600.0))
    (finding,) = found(slow, Code.GPU_THROTTLED)
    assert finding.evidence == ("fp16: SM clock 600 of 1500 MHz under load",)
    hot = edit(T4, lambda m: changed(m, "conditions", clocks_event_reasons=0x40 | 0x1))
    assert "reason: heat (hardware)" in found(hot, Code.GPU_THROTTLED)[0].evidence[0]


def test_a_board_at_the_vendors_power_limit_is_no_fault() -> None:
    loaded = [
        changed(
            m, "conditions", clocks_event_reasons=0x4 | 0x1, throttled_s=9.0, sm_mhz_after=1000.0
        )
        for m in real(rows("T4", batch_size=16, efficiency=0.6))
    ]
    (finding,) = found(loaded, Code.GPU_THROTTLED)
    assert finding.verdict == Verdict.ACCEPT
    assert finding.cause == (
        "The board worked at its power limit of 70 W: its clock (1000 of 1500 MHz) is what that"
        " leaves."
    )
    assert [f.verdict for f in found(loaded, Code.EFFECT)] == [Verdict.ACCEPT]
    for change in ({"power_limit_w": 60.0}, {"default_power_limit_w": None}):
        lower = [changed(m, "device", **change) for m in loaded]
        assert [f.verdict for f in found(lower, Code.GPU_THROTTLED)] == [Verdict.FIX]
    hot = [changed(m, "conditions", clocks_event_reasons=0x4 | 0x20) for m in loaded]
    assert [f.verdict for f in found(hot, Code.GPU_THROTTLED)] == [Verdict.FIX]


def test_a_warm_up_that_was_not_steady_tells_how_far_the_latency_drifted() -> None:
    def drifting(m: Measurement) -> Measurement:
        samples = tuple([10.0] * 33 + [9.5] * 33 + [9.0] * 33)
        m = changed(m, "timing", latency_ms_samples=samples, latency_ms_p50=9.5)
        return doubting(m, "warm-up not steady after 3.0 s")

    measured = real(edit(V100, drifting))
    (finding,) = found(measured, Code.WARM_UP_UNSTEADY)
    assert finding.evidence == (
        "fp16: warm-up not steady after 3.0 s; the median of the last third of the samples is"
        " 0.900x that of the first",
    )
    assert [f.verdict for f in found(measured, Code.EFFECT)] == [Verdict.CANNOT_TELL]


@pytest.mark.parametrize("begins", timing.NOT_CONVERGED)
def test_a_wide_interval_takes_nothing_away_from_an_effect(begins: str) -> None:
    measured = real(edit(V100, lambda m: doubting(m, f"{begins}: 30 samples")))
    assert found(measured, Code.LATENCY_NOT_CONVERGED)[0].precisions == ("fp16",)
    assert [f.verdict for f in found(measured, Code.EFFECT)] == [Verdict.ACCEPT]


def test_the_report_and_the_row_doubt_the_same() -> None:
    assert conditions.QUIET_SHARE == device._QUIET_SHARE
    assert conditions._SLOWED.keys() == device._SLOWDOWNS.keys()


def test_cells_of_the_sweep_that_shared_the_host_are_named() -> None:
    busy = [changed(m, "conditions", other_cpu_share=0.07) for m in T4]
    (finding,) = found(busy, Code.GPU_SHARED)
    assert finding.actions == ("Measure again with the device and its host to yourself.",)
    beside = [
        dataclasses.replace(m, placement=Placement("n", "h", 1, neighbours=("P100/fp32",)))
        for m in busy
    ]
    (finding,) = found(beside, Code.GPU_SHARED)
    assert (
        "7% of the host's CPU time; cells of this sweep on the host: P100/fp32"
        in (finding.evidence[0])
    )
    assert 'placement.exclusive = "host"' in finding.actions[0]
    # By themselves they are no fault: a host with several GPUs is made for it.
    quiet = [changed(m, "conditions", other_cpu_share=0.01) for m in beside]
    assert not found(quiet, Code.GPU_SHARED)


def test_on_a_device_that_others_use_numbers_may_contradict_each_other() -> None:
    wrong = edit(T4, lambda m: changed(m, "timing", throughput_samples_per_s=20.0))
    assert found(wrong, Code.THROUGHPUT_CONTRADICTS_LATENCY)
    busy = [changed(m, "conditions", other_cpu_share=0.7) for m in wrong]
    assert found(busy, Code.GPU_SHARED)
    assert not found(busy, Code.THROUGHPUT_CONTRADICTS_LATENCY)


@pytest.mark.parametrize("change", [{"mig": True}, {"vgpu": True}])
def test_a_slice_and_a_virtual_gpu_are_shared(change: dict[str, bool]) -> None:
    assert found([changed(m, "device", **change) for m in T4], Code.GPU_SHARED)


def test_a_graph_that_is_faster_shows_that_launches_set_the_latency() -> None:
    eager = [changed(m, "trace", busy_share=None) for m in HOST_BOUND]
    graph = rows("V100-SXM2", engine="graph")
    (finding,) = found([*eager, *graph], Code.LAUNCH_BOUND)
    assert finding.verdict == Verdict.FIX
    assert "as a CUDA graph" in finding.evidence[0]
    # Without the graph there is only what the datasheet says.
    assert {f.verdict for f in found(eager, Code.LAUNCH_BOUND)} == {Verdict.CANNOT_TELL}


def test_a_latency_that_stays_flat_over_the_batch_only_raises_the_question() -> None:
    def untraced(measured: Rows) -> list[Measurement]:
        return [changed(m, "trace", busy_share=None) for m in measured]

    flat = untraced([*HOST_BOUND, *rows("V100-SXM2", batch_size=2, launch_us=34.0)])
    finding = found(flat, Code.LAUNCH_BOUND)[0]
    assert finding.verdict == Verdict.CANNOT_TELL
    assert "2x the batch takes 1.00x the time" in " ".join(finding.evidence)
    grows = untraced([*V100, *rows("V100-SXM2", batch_size=16)])
    assert not found(grows, Code.LAUNCH_BOUND)


def at(m: Measurement, products_ms: float, rest_ms: float) -> Measurement:
    """The row with these kernels, and next to nothing besides."""
    traced_ms = products_ms + rest_ms
    assert m.timing
    m = slower(m, (traced_ms + 0.05) / m.timing.latency_ms_p50)
    busy = traced_ms / (traced_ms + 0.05)
    m = changed(m, "trace", matmul_ms=products_ms, activation_ms=rest_ms, traced_ms=traced_ms)
    return changed(m, "trace", busy_share=busy)


def gain(ours: tuple[float, float], base: tuple[float, float] = (60.0, 12.0)) -> Finding:
    """What is said of a gain on an A100, from products and all else of fp16 and of fp32, ms."""
    fp32, fp16 = real(rows("A100-SXM-40GB", batch_size=32, efficiency=0.8))
    (finding,) = found([at(fp32, *base), at(fp16, *ours)], Code.GAIN_BELOW_HARDWARE)
    return finding


def test_a_small_gain_is_held_against_the_ratio_of_the_floors() -> None:
    (finding,) = found(HOST_BOUND, Code.GAIN_BELOW_HARDWARE)
    # Of a V100 at batch 1: 32 GFLOP at 15.7 TFLOP/s, and 243 MB of float16 at 900 GB/s.
    assert "where the floors allow 7.6x" in finding.cause
    longer = [dataclasses.replace(m, workload=Workload("gpt2", new_tokens=8)) for m in HOST_BOUND]
    (measured,) = found(longer, Code.GAIN_BELOW_HARDWARE)
    ceilings = [
        max(m.roofline.lower_bound_compute_ms, m.roofline.lower_bound_memory_ms) for m in HOST_BOUND
    ]  # type: ignore[union-attr, type-var]
    assert f"where the floors allow {ceilings[0] / ceilings[1]:.1f}x" in measured.cause  # type: ignore[operator]
    nothing = [
        changed(m, "roofline", lower_bound_compute_ms=None, lower_bound_memory_ms=None)
        for m in longer
    ]
    assert "where the peaks allow 8.0x" in found(nothing, Code.GAIN_BELOW_HARDWARE)[0].cause


def test_the_cause_of_a_small_gain_is_accepted_only_where_it_is_measured() -> None:
    rest = gain((5.0, 6.0))
    assert rest.verdict == Verdict.ACCEPT
    assert rest.cause.endswith("55% of what runs is no matrix product.")
    assert (
        "all else: 12.0 ms -> 6.00 ms; with free products 6.00 ms would remain, so 12.00x at"
        in (" ".join(rest.evidence))
    )
    neither = gain((9.0, 2.0))
    assert neither.verdict == Verdict.CANNOT_TELL
    assert "launches" not in " ".join([neither.cause, *neither.missing, *neither.actions])
    slow = [
        at(m, *ms)
        for m, ms in zip(
            real(rows("A100-SXM-40GB", batch_size=32, efficiency=0.3)),
            ((60.0, 12.0), (9.0, 2.0)),
            strict=True,
        )
    ]
    (products,) = found(slow, Code.GAIN_BELOW_HARDWARE)
    assert products.verdict == Verdict.ACCEPT
    assert "products of this size reach 33% of the 281 TFLOP/s measured" in products.cause


def test_a_graph_is_not_told_of_launches() -> None:
    graph = real(rows("A100-SXM-40GB", ("fp32", "fp16", "mixed"), engine="graph"))
    for measured in (graph, [dataclasses.replace(m, trace=None) for m in graph]):
        texts = [
            " ".join([f.cause, *f.evidence, *f.missing, *f.actions])
            for f in findings.find(cases.of_rows(measured))
            if f.code in (Code.GAIN_BELOW_HARDWARE, Code.MIXED_SLOWER)
        ]
        assert texts
        assert not any("launch" in text or "engine = graph" in text for text in texts)


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
    (finding,) = found(mixed, Code.MIXED_SLOWER)
    assert any(line.startswith("time between the ops: ") for line in finding.evidence)


def test_each_share_of_what_mixed_costs_is_told_and_they_add_up() -> None:
    measured = real(rows("P100-PCIE", ("fp32", "fp16", "mixed")))
    (finding,) = found(measured, Code.MIXED_SLOWER)
    assert finding.verdict == Verdict.ACCEPT
    assert "the largest share is casts, +1.41 ms" in finding.cause
    text = " ".join(finding.evidence)
    assert "casts: +158 kernels, +827 MB read and written" in text
    assert "no Tensor Cores on a P100" in text
    shares = [
        float(line.rpartition(":")[2].split()[0])
        for line in finding.evidence
        if line.startswith(("casts:", "matrix products", "all other", "launches"))
    ]
    assert len(shares) == 4
    total = measured[2].timing.latency_ms_p50 - measured[0].timing.latency_ms_p50  # type: ignore[union-attr]
    assert sum(shares) == pytest.approx(total, abs=0.02)


def test_an_interval_that_one_of_many_would_have_by_chance_decides_nothing() -> None:
    (group,) = cases.of_rows(V100)
    base, half = group.cases
    line = dataclasses.replace(half.line, speedup=Ratio(1.1, 1.02, 1.18), energy_ratio=None)
    near = dataclasses.replace(group, cases=(base, dataclasses.replace(half, line=line)))
    assert not list(conditions.noise_hides_effect(near))
    assert [f.cause for f in speed.effect(near)] == ["fp16 is 1.10x as fast as fp32."]
    many = dataclasses.replace(near, family=20)
    (finding,) = conditions.noise_hides_effect(many)
    assert finding.cause == "Noise is larger than the effect on speed (fp16)."
    # What noise hides is not accepted in the next line.
    assert not list(speed.effect(many))
    assert "alone it excludes 1; among 20 ratios it must be [0.9" in finding.evidence[0]


def test_the_family_of_a_ratio_is_all_that_the_table_compares() -> None:
    (group,) = cases.of_rows(real(V100))
    base, half = group.cases
    line = dataclasses.replace(half.line, speedup=Ratio(1.1, 1.02, 1.18), energy_ratio=None)
    near = dataclasses.replace(group, cases=(base, dataclasses.replace(half, line=line)))
    for count, wanted in ((1, Code.EFFECT), (20, Code.NOISE_HIDES_EFFECT)):
        groups = [dataclasses.replace(near, title=str(i)) for i in range(count)]
        codes = {f.code for f in findings.find(groups)}
        assert codes & {Code.EFFECT, Code.NOISE_HIDES_EFFECT} == {wanted}


def test_energy_is_told_without_a_decided_speed() -> None:
    (group,) = cases.of_rows(V100)
    base, half = group.cases
    line = dataclasses.replace(
        half.line, speedup=Ratio(1.0, 0.95, 1.05), energy_ratio=Ratio(0.7, 0.66, 0.74)
    )
    near = dataclasses.replace(group, cases=(base, dataclasses.replace(half, line=line)))
    (effect,) = speed.effect(near)
    assert effect.cause == "fp16 needs 0.70x the energy of fp32."
    (noise,) = conditions.noise_hides_effect(near)
    assert noise.cause == "Noise is larger than the effect on speed (fp16)."


def test_time_and_power_multiply_to_the_energy_ratio() -> None:
    base, half = real(V100)
    assert base.energy and half.energy and half.timing
    # The energy's windows ran with a full queue, a fifth faster than one by one.
    mj = 0.8 * half.timing.latency_ms_p50 * (half.energy.mean_w or 0.0)
    (effect,) = found([base, changed(half, "energy", per_sample_mj=mj)], Code.EFFECT)
    (text,) = [t for t in effect.evidence if t.startswith("energy")]
    by_time, by_power = (float(x) for x in re.findall(r"([\d.]+)x by", text))
    assert by_time * by_power == pytest.approx(mj / (base.energy.per_sample_mj or 1), abs=0.01)


def test_doubts_of_the_energy_weaken_only_what_is_said_of_it() -> None:
    short = edit(real(V100), lambda m: changed(m, "energy", ticks=2))
    (effect,) = found(short, Code.EFFECT)
    assert effect.verdict == Verdict.ACCEPT
    assert effect.cause.endswith("x the energy, but see energy-window-too-short.")
    (group,) = cases.of_rows(short)
    base, half = group.cases
    line = dataclasses.replace(half.line, speedup=Ratio(1.0, 0.95, 1.05))
    near = dataclasses.replace(group, cases=(base, dataclasses.replace(half, line=line)))
    (alone,) = speed.effect(near)
    assert alone.verdict == Verdict.CANNOT_TELL


@pytest.mark.parametrize(
    ("measured", "code"),
    [
        (rows("T4", ("fp32", "bf16")), Code.PRECISION_EMULATED),
        (
            edit(V100, lambda m: changed(m, "trace", tensor_cores="no")),
            Code.TENSOR_CORES_UNUSED,
        ),
    ],
)
def test_an_effect_of_another_arithmetic_is_not_accepted(measured: Rows, code: Code) -> None:
    (effect,) = found(edit(real(measured), lambda m: slower(m, 1.5), "fp32"), Code.EFFECT)
    assert effect.verdict == Verdict.CANNOT_TELL
    assert str(code) in effect.cause


def test_a_difference_that_is_known_to_be_none_is_no_noise() -> None:
    (effect,) = found(real(EQUAL), Code.EFFECT)
    assert effect.cause.startswith("fp16 is as fast as fp32, to within ")
    assert effect.verdict == Verdict.ACCEPT


def test_noise_is_told_once_a_group_and_in_numbers_that_can_be_read() -> None:
    (group,) = cases.of_rows(V100)
    base, half = group.cases
    wild = dataclasses.replace(half.line, speedup=Ratio(2.4, 1e-9, 4e11), energy_ratio=None)
    third = dataclasses.replace(half, line=dataclasses.replace(wild, precision="bf16"))
    near = dataclasses.replace(group, cases=(base, dataclasses.replace(half, line=wild), third))
    (finding,) = conditions.noise_hides_effect(near)
    assert finding.precisions == ("fp16", "bf16")
    assert finding.evidence[0] == "fp16: speedup 2.400 [<0.01, >100]: it contains 1"


def test_what_stands_in_an_earlier_finding_is_not_said_again() -> None:
    first = Finding(Code.EFFECT, Verdict.FIX, "a GPU", ("fp16",), "One.", evidence=("a", "b"))
    second = dataclasses.replace(first, subject="another", evidence=("c", "a", "b"))
    third = dataclasses.replace(first, subject="a third", evidence=("a", "d"))
    text = render.findings([first, second, third], None)
    assert "because  - c\n            - else as in 1\n" in text
    assert text.endswith("because  - a\n            - d")


def test_a_cpu_without_a_meter_is_not_told_to_certify_its_energy() -> None:
    measured = [
        dataclasses.replace(m, cell=dataclasses.replace(m.cell, gpu_type="CPU"), energy=None)
        for m in NOISY
    ]
    groups = cases.of_rows(measured)
    text = proposal.next_matrix(groups, findings.find(groups))
    assert text is not None
    assert "energy" not in text and "engine" not in text
    assert "batch_size = [1]" in text


@pytest.mark.parametrize(
    ("board", "engine", "wanted"),
    [
        ("T4", "compile", {"eager", "graph", "compile"}),
        ("T4", "eager", {"eager", "graph"}),
        ("CPU", "compile", {"compile"}),
    ],
)
def test_the_next_matrix_keeps_the_engine(board: str, engine: str, wanted: set[str]) -> None:
    text = f"gpu,precision,latency_ms,engine\n{board},fp32,12,{engine}\n"
    groups = study.groups(study.read(text, "t.csv")[0])
    open_ = Finding(Code.EFFECT, Verdict.CANNOT_TELL, "a GPU", ("fp32",), "Open.")
    proposed = proposal.next_matrix(groups, [open_])
    assert proposed is not None
    assert {w.engine for w in matrix.parse(proposed, "next.toml", "next").workloads} == wanted


def test_two_attentions_are_told_in_the_report_and_take_no_effect_away() -> None:
    measured = real(ATTENTIONS)
    (finding,) = found(measured, Code.ATTENTION_DIFFERS)
    assert finding.precisions == ("fp16",)
    assert finding.evidence == ("fp32: efficient", "fp16: cudnn")
    assert [f.verdict for f in found(measured, Code.EFFECT)] == [Verdict.ACCEPT]
    assert not found(measured, Code.CONFOUNDED)
    (group,) = cases.of_rows(measured)
    told = "compared with fp32: trace_attention should agree: cudnn, efficient"
    assert group.cases[1].line.doubts == (told,)
    text = proposal.next_matrix([group], [finding])
    assert text is not None
    asked = {w.attention for w in matrix.parse(text, "next.toml", "next").workloads}
    assert asked == {"auto", "efficient"}


def test_a_pinned_attention_is_another_workload_and_the_next_matrix_keeps_it() -> None:
    several = cases.of_rows([*T4, *EFFICIENT])
    assert [group.title.endswith(", efficient attention") for group in several] == [False, True]
    assert all(not group.others for group in several)
    open_ = Finding(Code.EFFECT, Verdict.CANNOT_TELL, "a GPU", ("fp32",), "Open.")
    text = proposal.next_matrix(several[1:], [open_])
    assert text is not None
    parsed = matrix.parse(text, "next.toml", "next")
    assert {w.attention for w in parsed.workloads} == {"efficient"}


def test_the_same_finding_of_two_groups_is_told_once() -> None:
    other = [
        dataclasses.replace(m, workload=dataclasses.replace(m.workload, model="x")) for m in T4
    ]
    (finding,) = found([*T4, *other], Code.SIMULATED)
    assert finding.subject.count("T4") == 2


def test_findings_come_worst_first() -> None:
    measured = edit(rows("T4", ("fp32", "fp16", "mixed")), lambda m: slower(m, 0.1))
    order = [list(Verdict).index(f.verdict) for f in findings.find(cases.of_rows(measured))]
    assert order == sorted(order)


def test_an_effect_of_numbers_that_do_not_stand_is_not_accepted() -> None:
    wrong = real(edit(T4, lambda m: changed(m, "energy", mean_w=20.0)))
    (effect,) = found(wrong, Code.EFFECT)
    assert effect.verdict == Verdict.CANNOT_TELL
    assert effect.cause.endswith("but see power-below-idle.")


def test_a_difference_within_the_noise_of_its_pairs_is_no_fault() -> None:
    (group,) = cases.of_rows(edit(T4, lambda m: changed(m, "quality", perplexity=62.0)))
    base, half = group.cases
    for low, faults in ((0.03, 1), (-0.01, 0)):
        pairs = Difference(0.038, 0.004, low, 0.076 - low)
        line = dataclasses.replace(half.line, nats_difference=pairs)
        noisy = dataclasses.replace(group, cases=(base, dataclasses.replace(half, line=line)))
        assert len(list(quality.perplexity_differs(noisy))) == faults


def test_perplexity_of_another_model_or_text_is_not_held_against_gpt2() -> None:
    for change in (
        {"workload": dataclasses.replace(T4[0].workload, model="gpt2:random")},
        {"quality": dataclasses.replace(T4[0].quality, text="a book", perplexity=217.0)},  # type: ignore[type-var]
    ):
        other = [dataclasses.replace(m, **change) for m in T4]  # type: ignore[arg-type]
        assert not found(other, Code.PERPLEXITY_OUT_OF_RANGE)


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
    (finding,) = found(
        edit(T4, lambda m: changed(m, "quality", perplexity=perplexity)),
        Code.PERPLEXITY_OUT_OF_RANGE,
    )
    assert words in " ".join(finding.evidence)


plausible = st.fixed_dictionaries(
    {
        "board": st.sampled_from([gpu.name for gpu in gpus.GPUS]),
        "batch_size": st.sampled_from([1, 2, 8, 32]),
        "launch_us": st.floats(2.0, 60.0),
        "efficiency": st.floats(0.03, 0.85),
        "busy_power": st.floats(0.2, 0.95),
    }
)


@settings(max_examples=40)
@given(plausible, st.sampled_from(["eager", "graph"]))
def test_no_plausible_row_is_called_impossible(how: dict[str, object], engine: str) -> None:
    measured = real(rows(**how, precisions=("fp32", "fp16", "mixed"), engine=engine))  # type: ignore[arg-type]
    wrong = [f for f in findings.find(cases.of_rows(measured)) if f.verdict == Verdict.REJECT]
    assert wrong == []


@settings(max_examples=15)
@given(plausible)
def test_no_plausible_table_is_called_impossible_and_its_matrix_is_one(
    how: dict[str, object],
) -> None:
    board = str(how["board"])
    lines = ["precision,latency_ms,energy_mj,throughput,batch_size"]
    for m in rows(**how, precisions=("fp32", "fp16", "mixed")):  # type: ignore[arg-type]
        assert m.timing and m.energy
        lines.append(
            f"{m.cell.precision},{m.timing.latency_ms_p50},{m.energy.per_sample_mj},"
            f"{m.timing.throughput_samples_per_s},{m.workload.batch_size}"
        )
    entries, _ = study.read("\n".join(lines), "plausible.csv")
    groups = study.groups(entries, board)
    shown = findings.find(groups)
    assert [f for f in shown if f.verdict == Verdict.REJECT] == []
    text = proposal.next_matrix(groups, shown)
    assert text is None or matrix.parse(text, "next.toml", "next").workloads


magnitudes = st.none() | st.floats(-6, 12).map(lambda exponent: 10.0**exponent)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(magnitudes, magnitudes, magnitudes, magnitudes), min_size=3, max_size=3),
    st.sampled_from([None, "CPU", "P100", "T4", "H100", "B200"]),
    st.sampled_from(["1", "8", "65536"]),
)
def test_any_table_is_answered_and_its_matrix_is_one(
    numbers: list[tuple[float | None, ...]], gpu: str | None, batch: str
) -> None:
    lines = ["precision,latency_ms,energy_mj,throughput,perplexity,batch_size"]
    for precision, values in zip(("fp32", "fp16", "mixed"), numbers, strict=True):
        written = ["" if value is None else repr(value) for value in values]
        lines.append(",".join([precision, *written, batch]))
    entries, _ = study.read("\n".join(lines), "any.csv")
    groups = study.groups(entries, gpu)
    shown = findings.find(groups, entries)
    text = proposal.next_matrix(groups, shown)
    assert render.findings(shown, text) or not shown
    assert json.loads(render.findings_json(shown, text, []))["next_matrix"] == text
    assert text is None or matrix.parse(text, "next.toml", "next").workloads


def test_rows_of_a_cpu_raise_no_question_about_launches_or_tensor_cores() -> None:
    cpu = [
        dataclasses.replace(
            changed(m, "device", name="a CPU", gpu_type="CPU", compute_capability=None),
            cell=dataclasses.replace(m.cell, gpu_type="CPU"),
        )
        for m in simulated.rows("T4")
    ]
    codes = {f.code for f in findings.find(cases.of_rows(cpu))}
    assert not codes & {Code.LAUNCH_BOUND, Code.GAIN_BELOW_HARDWARE, Code.TENSOR_CORES_UNUSED}


def test_the_floor_of_a_prompt_says_nothing_of_new_tokens() -> None:
    text = "precision,latency_ms,new_tokens\nfp32,900,100\nfp16,800,100\nmixed,950,100\n"
    codes = {f.code for f in of_csv(text, "V100")}
    assert codes == {Code.EFFECT, Code.GAIN_BELOW_HARDWARE, Code.MIXED_SLOWER, Code.MIXED_OPTIONS}


def test_one_row_alone_is_enough() -> None:
    assert findings.find(cases.of_rows([row("T4", "fp16")]))
    assert findings.find([]) == []
