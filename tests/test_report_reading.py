"""Kinds of tables that people write: of papers, with two numbers in a cell, with text around."""

from __future__ import annotations

import textwrap
import time

import pytest
from foreign_tables import cases_of, verdicts_on

from bench.errors import TensorgapError
from jobs.report.foreign import read
from jobs.report.foreign.headers import heading_of
from jobs.report.foreign.understood import Told


def text_of(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def notes_of(text: str, **told: object) -> str:
    return "\n".join(read.understand(text, "t.md", Told(**told)).notes)  # type: ignore[arg-type]


LATEX = text_of(r"""
    \begin{table}[t]
    \caption{GPT-2 medium on a Tesla V100, 128 tokens}
    \begin{tabular}{@{}l|rr|rr@{}}
    \toprule
     & \multicolumn{2}{c}{FP32} & \multicolumn{2}{c}{FP16} \\ \cmidrule(lr){2-3}
    Batch & Latency (ms) & Energy (mJ) & Latency (ms) & Energy (mJ) \\
    \midrule
    1 & 21.7 & 3580 & \textbf{20.4} & 2370 \\
    8 & $65.1 \pm 0.4$ & 2400 & 24.2 & 1100 \\ % ours
    \bottomrule
    \end{tabular}
    \end{table}
""")


def test_a_table_of_latex_is_read_with_its_caption() -> None:
    cases = cases_of(LATEX)
    assert [(c.precision, c.workload.batch_size, c.latency_ms) for c in cases] == [
        ("fp32", 1, 21.7), ("fp16", 1, 20.4), ("fp32", 8, 65.1), ("fp16", 8, 24.2),
    ]  # fmt: skip
    assert {(c.gpu, c.workload.model) for c in cases} == {("V100", "gpt2-medium")}


def test_an_energy_is_of_the_whole_batch_in_all_lines_or_in_none() -> None:
    # As those of a prompt, 1100 mJ in 24.2 ms are 364 W, more than a V100 draws; 2400 mJ are not.
    _, _, fp32, fp16 = cases_of(LATEX)
    assert (fp32.energy_mj, fp16.energy_mj) == (2400 / 8, 1100 / 8)
    assert "FP32 Energy (mJ) is that of the whole batch" in notes_of(LATEX)
    # As that of a batch, one of them would be less than a GPU draws: so none is of a batch.
    low = LATEX.replace("65.1 \\pm 0.4$ & 2400", "65.1$ & 60")
    assert [case.energy_mj for case in cases_of(low)][2:] == [60, 1100]


def test_two_numbers_in_a_cell_are_two_columns() -> None:
    table = text_of("""
        | dtype | Latency / Throughput | Memory |
        |---|---|---|
        | fp32 | 12.3 ms / 650 samples/s | 2.1 GB |
        | fp16 | 7.1 ms / 1126 samples/s | OOM |
    """)
    fp32, fp16 = cases_of(table)
    assert (fp32.latency_ms, fp32.throughput_per_s, fp32.memory_mb) == (12.3, 650, 2100)
    assert (fp16.latency_ms, fp16.throughput_per_s) == (7.1, 1126)
    pairs = "batch,fp32 / fp16 (ms)\n1,11.7 / 10.4\n8,35.2 / OOM\n"
    assert [case.latency_ms for case in cases_of(pairs)] == [11.7, 10.4, 35.2, None]


def test_a_cell_with_a_second_number_or_a_ratio_is_no_time() -> None:
    table = "dtype,latency\nfp32,12.3 ms / 650 samples/s\ntf32,9\nbf16,8 ms\nfp16,7\nmixed,1.80x\n"
    assert [case.latency_ms for case in cases_of(table)] == [9, 8, 7]
    notes = notes_of(table)
    assert "latency = 12.3 ms / 650 samples/s: must be a number" in notes
    assert "latency = 1.80x: must be a number" in notes


def test_lines_of_several_units_and_the_report_of_trtexec_are_logs() -> None:
    fp32, fp16 = cases_of("fp32: 139.2 it/s, 350 W\nfp16: 210.1 it/s, 310 W\n")
    assert (fp32.throughput_per_s, fp32.mean_w) == (139.2, 350)
    assert (fp16.precision, fp16.mean_w) == ("fp16", 310)
    report = text_of("""
        [11/28/2026-10:03:11] [I] === Performance summary ===
        [11/28/2026-10:03:11] [I] Throughput: 812.3 qps
        [11/28/2026-10:03:11] [I] Latency: min = 1.20 ms, max = 1.42 ms, median = 1.23 ms
        [11/28/2026-10:03:11] [I] H2D Latency: min = 0.003 ms, max = 0.02 ms, median = 0.004 ms
        [11/28/2026-10:03:11] [I] GPU Compute Time: min = 1.1 ms, max = 1.4 ms, median = 1.2 ms
    """)
    (one,) = cases_of(report)
    assert (one.latency_ms, one.throughput_per_s) == (1.23, 812.3)


# --------------------------------------------------------------------------- runs of one thing


def test_names_of_one_program_are_several_programs_where_they_say_more() -> None:
    table = text_of("""
        Kernel,AvgLatencyS,NewTok
        TORCH,250.9,20
        TORCH_FUSED,4.4,20
        HF_KERNEL,51.7,20
    """)
    assert [(case.run, case.latency_ms) for case in cases_of(table)] == [
        ("", 250_900), ("TORCH_FUSED", 4400), ("HF_KERNEL", 51_700),
    ]  # fmt: skip
    versions = "engine,precision,latency_ms\nPyTorch 2.1,fp32,10\nPyTorch 2.1 FP16,fp16,8\n"
    assert [case.run for case in cases_of(versions)] == ["", ""]


def test_lines_that_differ_by_more_than_runs_do_are_told_apart_by_any_column() -> None:
    energies = "S,power (W),energy (mJ)\n1024,46.6,9.1\n2048,58.3,18.5\n4096,80.7,41.7\n"
    assert [(case.run, case.energy_mj) for case in cases_of(energies)] == [
        ("S=1024", 9.1), ("S=2048", 18.5), ("S=4096", 41.7),
    ]  # fmt: skip
    alike = "date,precision,latency_ms\n2026-01-01,fp32,10\n2026-01-02,fp32,11\n"
    (one,) = cases_of(alike)
    assert (one.latency_ms, one.replicates) == (10.5, (0, 1))


def test_a_power_limit_is_part_of_what_was_measured() -> None:
    table = text_of("""
        | Power cap | tok/s | Avg draw |
        |---|---|---|
        | 180 W (default) | 81.2 | 172.7 W |
        | 150 W (floor) | 80.4 | 147.2 W |
    """)
    assert [(c.power_limit_w, c.tokens_per_s, c.mean_w) for c in cases_of(table)] == [
        (180, 81.2, 172.7), (150, 80.4, 147.2),
    ]  # fmt: skip
    assert "Power cap in W" not in notes_of(table)
    some = "power limit (W),tok/s\n180,81.2\n150,80.4\n,79.9\n"
    assert [case.run for case in cases_of(some)] == ["180 W limit", "150 W limit", ""]


def test_the_times_of_a_token_by_two_engines_and_lengths_stay_apart() -> None:
    table = text_of("""
        seq_len,Per token latency eager (ms),Per token latency SDPA (ms)
        128,5.69,5.42
        256,5.68,5.52
    """)
    assert [(c.workload.engine, c.run, c.per_output_token_ms) for c in cases_of(table)] == [
        ("eager", "128 tokens", 5.69), ("sdpa", "128 tokens", 5.42),
        ("eager", "256 tokens", 5.68), ("sdpa", "256 tokens", 5.52),
    ]  # fmt: skip


# ------------------------------------------------------------------------------- text around it


def test_headings_and_keys_above_a_table_say_what_its_nearest_line_does_not() -> None:
    table = text_of("""
        # Phase 8
        Hardware: RTX 5090 (32GB, CC 12.0)
        Model: GPT-2 124M (FP32)
        Config: 50 prompts x 20 generated tokens, greedy

        ## Performance
        | Metric | ours | transformers | Ratio |
        |---|---|---|---|
        | TTFT (avg) | 400.6 ms | 4.0 ms | 100x slower |
        | Throughput | 2.5 tok/s | 260 tok/s | 0.01x |
    """)
    cases = cases_of(table)
    assert {(c.gpu, c.workload.model, c.precision, c.workload.new_tokens) for c in cases} == {
        ("GeForce-RTX-5090", "gpt2", "fp32", 20)
    }
    assert len(cases) == 2  # the ratio is none


def test_a_gpu_in_a_sentence_and_a_model_that_is_no_gpt2_are_read() -> None:
    table = "| dtype | latency (ms) |\n|---|---|\n| fp32 | 5.2 |\n| fp16 | 3.1 |\n"
    line = "Running the same benchmark of BERT Large, by TensorRT, on a V100 with autocast yields:"
    for case in cases_of(f"{line}\n\n{table}"):
        about = case.gpu, case.workload.model, case.workload.engine
        assert about == ("V100", "BERT Large", "tensorrt")
    two = cases_of("It is faster on a V100 than on a T4, as this shows:\n\n" + table)
    assert {case.gpu_type for case in two} == {None}


def test_a_length_that_is_none_of_gpt2s_makes_all_lines_another_models() -> None:
    table = "seq_len,batch,fp32 (ms),fp16 (ms)\n60,32,8.2,4.1\n2000,32,64.8,32.5\n"
    assert {case.workload.model for case in cases_of(table)} == {"unknown model"}
    assert "gpt2" not in notes_of(table)


# ------------------------------------------------------------------------------ names of columns


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("TPS/W", None),
        ("beam_size", None),
        ("Microbatch size", None),
        ("P-state", None),
        ("WikiText-2 raw test tokens", None),
        ("TBT (avg)", "per_output_token_ms"),
        ("Cap (W)", "power_limit_w"),
        ("AvgLatencyS", "latency_ms"),
        ("Total Out tok/s", "throughput_per_s"),
        ("J/out_tok", "energy_mj"),
        ("Inference throughput", "throughput_per_s"),
        ("Inference energy (J)", "energy_mj"),
    ],
)
def test_a_header_is_what_it_says(name: str, field: str | None) -> None:
    assert heading_of(name).field == field


def test_pytorch_is_one_word() -> None:
    found = heading_of("PyTorch (ms)")
    assert (found.tags, found.rest) == ({"engine": "eager"}, ())


def test_what_the_cells_say_of_a_column_that_its_header_does_not() -> None:
    marks = "Model,TTFT\u00b9,Total\nBase,1200ms,7600ms\n"
    (base,) = cases_of(marks)
    assert (base.first_token_ms, base.latency_ms) == (1200, 7600)
    sdpa = "Seq Len,Baseline,S20-SDPA\n64,49.59 ms,49.09 ms\n128,59.21 ms,59.15 ms\n"
    assert [(c.workload.engine, c.latency_ms) for c in cases_of(sdpa)][:2] == [
        ("baseline", 49.59), ("s20-sdpa", 49.09),
    ]  # fmt: skip
    sizes = "Model Size,perplexity\n117M,29.41\n345M,22.76\n"
    assert [c.workload.model for c in cases_of(sizes)] == ["gpt2", "gpt2-medium"]
    lengths = "response_length,latency\n76.47,2.974\n"
    (mean,) = cases_of(lengths)
    assert mean.workload.new_tokens == 76
    assert "response_length a mean length, in whole tokens" in notes_of(lengths)


BARE = "max_seq_length | fp32 | fp16\n-- | -- | --\n384 | 140 | 352\n64 | 1030 | 3663\n"


def test_bare_numbers_are_what_the_command_line_or_a_title_says() -> None:
    assert [c.throughput_per_s for c in cases_of(BARE, quantity="samples/s")][:2] == [140, 352]
    titled = (
        "**Images Per Second**\n Batch | T4 | RTX2080ti\n-- | -- | --\n1 | 145 | 197\n2 | 9 | ——\n"
    )
    assert [(c.gpu_type, c.throughput_per_s) for c in cases_of(titled)][:2] == [
        ("T4", 145), ("GeForce-RTX-2080-Ti", 197),
    ]  # fmt: skip
    pairs = "Input Len,Main (requests/s, tokens/s)\n".replace(",", " | ", 1)
    pairs += "-- | --\n1024 | 3.28, 3570.9\n512 | 5.96, 3435.1\n"
    assert [c.throughput_per_s for c in cases_of(pairs)] == [3.28, 5.96]


def test_a_table_of_ratios_with_the_same_head_is_no_table_of_times() -> None:
    table = text_of("""
        Results:
        |   bs |   float32 (s) |   float16 (s) |
        |    8 |         0.062 |         0.086 |
        |   16 |         0.043 |         0.089 |

        Speedup:
        |   bs |   float32 (s) |   float16 (s) |
        |    8 |         1.000 |         0.714 |
        |   16 |         1.000 |         0.486 |
    """)
    assert [case.latency_ms for case in cases_of(table)] == [62, 86, 43, 89]
    assert "left out: table 2: the line above it says that these are ratios" in notes_of(table)


def test_a_latency_and_a_throughput_without_units_are_what_makes_them_agree() -> None:
    # 23.2 tokens per second for 2.97 s are 69 of some 76 tokens.
    table = "model,response_length,throughput,latency\nllama,76.47,23.2,2.974\n"
    (case,) = cases_of(table)
    assert (case.latency_ms, case.tokens_per_s) == (2974, 23.2)
    notes = notes_of(table)
    assert "latency in s, by the throughput beside it" in notes
    assert "throughput in tokens, by the latency beside it" in notes
    (case,) = cases_of("batch,throughput,latency\n8,160,0.05\n")
    assert (case.latency_ms, case.throughput_per_s) == (50, 160)
    # Where the header says it, it holds.
    (case,) = cases_of("batch,throughput,latency_ms\n8,160,0.05\n")
    assert case.latency_ms == 0.05


# ------------------------------------------------------------------------- what a review found


def test_what_stands_beside_a_precision_is_no_other_run_of_it() -> None:
    table = text_of("""
        Experiment,latency (ms)
        fp32 eager attention,40
        fp32 flash attention,20
        fp16 flash attention,15
    """)
    assert [(case.run, case.precision, case.latency_ms) for case in cases_of(table)] == [
        ("attention", "fp32", 40), ("flash attention", "fp32", 20), ("flash attention", "fp16", 15),
    ]  # fmt: skip
    beside = cases_of("dtype,latency (ms)\nfp32 baseline,40\nfp16,20\n")
    assert [case.run for case in beside] == ["", ""]  # of each there is one


def test_tables_of_a_precision_each_are_compared() -> None:
    tables = text_of("""
        ### FP32
        | Batch | FasterTransformers Latency (ms) |
        |---|---|
        | 16 | 91.20 |

        ### FP16
        | Batch | FasterTransformers Latency (ms) |
        |---|---|
        | 16 | 26.08 |
    """)
    fp32, fp16 = cases_of(tables)
    assert (fp32.run, fp16.run, fp16.workload.engine) == ("", "", "fastertransformer")
    assert fp16.speedup and fp16.speedup.value == pytest.approx(91.20 / 26.08)
    again = tables.replace("### FP16", "### FP32 again")
    assert [case.run for case in cases_of(again)] == ["table 1", "table 2"]


def test_a_group_that_is_named_once_is_that_of_its_lines_whatever_it_is() -> None:
    table = text_of("""
        | Tier | Config | Energy (J) |
        |---|---|---|
        | Standard | C1 | 356.5 |
        | | C2 | 185.3 |
        | Mild | C1 | 393.4 |
        | | C2 | 176.1 |
    """)
    assert [case.energy_mj for case in cases_of(table)] == [356_500, 185_300, 393_400, 176_100]


def test_what_a_record_does_not_say_the_record_before_it_does_not_say_for_it() -> None:
    records = (
        '[{"precision":"fp32","gpu":"cpu","latency_ms":90},{"precision":"fp16","latency_ms":9}]'
    )
    assert [case.gpu_type for case in read.understand(records, "r").cases] == ["CPU", None]


def test_a_ratio_or_its_logarithm_is_no_perplexity() -> None:
    names = ("Mean ln(PPL(Q)/PPL(base))", "PPL(Q)/PPL(base)", "log(perplexity)")
    assert [heading_of(name).field for name in names] == ["ratio"] * 3
    with pytest.raises(TensorgapError, match="a perplexity is 1 or more"):
        cases_of("precision,perplexity\nfp16,0.0004\n")


def test_an_odd_cell_of_another_column_costs_no_row() -> None:
    table = "dtype,Memory (MB),tok/s\nfp32,9607 // 8501,16261\n"
    (case,) = cases_of(table)
    assert (case.tokens_per_s, case.memory_mb) == (16261, None)
    assert "Memory (MB) = 9607 // 8501: must be a number" in notes_of(table)
    (rate,) = cases_of("dtype,Queries/sec\nfp32,3.04M\n")
    assert rate.throughput_per_s == 3.04e6


def test_a_time_of_a_token_that_falls_with_the_prompts_is_of_their_tokens() -> None:
    table = text_of("""
        batch_size,seq_len,Per token latency (ms)
        2,32,0.1566
        2,64,0.0778
        2,256,0.0210
    """)
    assert [(c.workload.prompt_tokens, c.latency_ms) for c in cases_of(table)] == [
        (32, pytest.approx(10.02, abs=0.01)), (64, pytest.approx(9.96, abs=0.01)),
        (256, pytest.approx(10.75, abs=0.01)),
    ]  # fmt: skip
    grows = table.replace("0.0778", "0.16").replace("0.0210", "0.18")
    assert {case.workload.prompt_tokens for case in cases_of(grows)} == {1}


def test_a_unit_is_that_of_all_lines_or_of_none() -> None:
    table = "gpu,precision,throughput,latency\nT4,fp32,85,0.0117\nT4,fp16,96,0.0104\n"
    assert [case.latency_ms for case in cases_of(table)] == pytest.approx([11.7, 10.4])
    mixed = table.replace("96", "190")
    assert [case.latency_ms for case in cases_of(mixed)] == [0.0117, 0.0104]


def test_a_line_that_speaks_of_scaling_is_above_a_table_of_times() -> None:
    table = "| dtype | latency (ms) |\n|---|---|\n| fp32 | 11 |\n"
    for line in ("## Scaling with batch", "Improvements:", "## Efficiency"):
        assert [case.latency_ms for case in cases_of(f"{line}\n\n{table}")] == [11]


def test_lengths_of_names_and_cells_cost_no_time() -> None:
    samples = ", ".join(["0.0161"] * 30_000)
    texts = (
        "[" * 100_000 + ",precision,latency\n1,fp32,2\n",
        "a," + "w_" * 5_000 + ",precision,latency\n1,2,fp32,2\n",
        f'precision,latency,samples\nfp32,2,"{samples}"\n',
        '[{"' + "[" * 30_000 + '": 3, "precision": "fp32", "latency": 2}]',
    )
    start_s = time.process_time()
    assert [one.latency_ms for text in texts for one in cases_of(text)] == [2, 2, 2, 2]
    assert time.process_time() - start_s < 20  # minutes, where nothing is bounded


def test_what_a_log_would_print_in_a_cell_makes_no_log_of_a_table() -> None:
    cell = "{'latency_ms': 3, 'batch_size': 8}"
    table = f'precision,latency_ms,cfg\nfp32,11.7,"{cell}"\nfp16,10.4,x\n'
    assert [case.latency_ms for case in cases_of(table)] == [11.7, 10.4]


def test_two_tasks_of_lm_eval_are_a_perplexity_each() -> None:
    table = text_of("""
        hf (pretrained=gpt2,dtype=float16), limit: None, num_fewshot: None, batch_size: 1
        | Tasks |Version|Filter|n-shot| Metric |   | Value |   |Stderr|
        |-------|------:|------|-----:|--------|---|------:|---|------|
        |lambada_openai| 1|none|0|perplexity|↓|40.0554|±|1.4881|
        |wikitext| 2|none|0|bits_per_byte|↓|0.9769|±|N/A|
        | | |none|0|word_perplexity|↓|37.3698|±|N/A|
    """)
    assert {(c.text, c.perplexity_unit, c.perplexity) for c in cases_of(table)} == {
        ("lambada_openai", "token", 40.0554), ("wikitext-2", "word", 37.3698),
    }  # fmt: skip


def test_a_model_s_cell_may_say_its_precision_and_its_batch() -> None:
    table = text_of("""
        | Model Info | Throughput(samples/s/gpu) |
        |---|---|
        | Opset12, fp32, batch_size=32 | 4834.07 |
        | Opset12, fp16, batch_size=32 | **172.71**|
    """)
    fp32, fp16 = cases_of(table, "V100")
    assert (fp32.workload, fp32.precision, fp32.workload.model) == (
        fp16.workload,
        "fp32",
        "Opset12",
    )
    assert fp16.workload.batch_size == 32
    verdicts = verdicts_on(table, "V100")
    assert verdicts["effect-without-cause"] == "fix"


def test_the_time_of_a_request_is_read_before_that_of_a_whole_run() -> None:
    report = "Total time: 166.88 s\nThroughput: 5.99 requests/s\nAverage latency: 67.59 s\n"
    (case,) = cases_of(report)
    assert case.latency_ms == 67_590


def test_the_power_of_several_gpus_is_not_held_against_the_limit_of_one() -> None:
    table = "gpu,precision,power limit (W),mean power (W),latency_ms\n{}RTX 3090,fp16,330,617,20\n"
    assert "power-above-limit" in verdicts_on(table.format(""))
    assert "power-above-limit" not in verdicts_on(table.format("2x "))
