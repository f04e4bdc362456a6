"""Logs and tables of programs, in the form that each prints."""

from __future__ import annotations

import contextlib
import json

import pytest
from foreign_tables import cases_of

from bench.asked import CPU
from bench.errors import TensorgapError
from jobs.report.facts import NO_PRECISION, Case
from jobs.report.foreign import read
from jobs.report.foreign.grid import gpu_named_in


def by_precision(text: str) -> dict[str, Case]:
    return {case.precision: case for case in cases_of(text)}


def refused(text: str, name: str = "t.txt") -> str:
    with pytest.raises(TensorgapError) as problem:
        read.understand(text, name)
    return str(problem.value)


LLAMA_BENCH = """\
ggml_cuda_init: found 1 CUDA devices:
  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes
| model          |       size |  params | backend | ngl | test   |               t/s |
| -------------- | ---------: | ------: | ------- | --: | ------ | ----------------: |
| gpt2 0.4B F16  | 679.38 MiB | 354.8 M | CUDA    |  99 | pp 512 | 51200.00 ± 269.74 |
| gpt2 0.4B F16  | 679.38 MiB | 354.8 M | CUDA    |  99 | tg128  |     320.00 ± 0.07 |
| gpt2 0.4B Q4_K - Medium | 220 MiB | 354.8 M | CUDA | 99 | tg128 |  480.00 ± 0.07 |
"""


def test_a_prompt_of_llama_bench_is_all_its_tokens() -> None:
    prompt, new = cases_of(LLAMA_BENCH)
    assert prompt.throughput_per_s == pytest.approx(100.0)
    assert (prompt.workload.prompt_tokens, prompt.workload.new_tokens) == (512, 0)
    assert new.throughput_per_s == pytest.approx(2.5)
    assert (new.workload.prompt_tokens, new.workload.new_tokens) == (1, 128)
    for case in (prompt, new):
        assert (case.precision, case.gpu, case.assumed) == ("fp16", "GeForce-RTX-4090", frozenset())
        assert (case.workload.model, case.workload.engine) == ("gpt2-medium", "llama.cpp")


def test_what_varies_in_llama_bench_tells_its_lines_apart() -> None:
    table = "| model | backend | fa | test | t/s |\n|--|--|--|--|--|\n"
    rows = "".join(
        f"| llama 7B F16 | {backend} | {fa} | {test} | 100 ± 1 |\n"
        for backend, fa, test in (("CUDA", 0, "tg64"), ("CUDA", 1, "tg64"), ("CPU", 0, "tg64"),
                                  ("CUDA", 0, "pp64+tg16"), ("CUDA", 0, "tg64 @ d4096"))
    )  # fmt: skip
    found = cases_of(table + rows)
    assert len({(case.key, case.precision) for case in found}) == 5
    assert [case.gpu for case in found].count(CPU) == 1
    assert found[3].throughput_per_s == pytest.approx(100 / 80)


def test_llama_bench_is_read_as_csv_and_json_too() -> None:
    record = {
        "gpu_info": "NVIDIA L4",
        "backends": "CUDA",
        "model_type": "gpt2 0.1B F16",
        "n_batch": 2048,
        "n_prompt": 512,
        "n_gen": 0,
        "n_depth": 0,
        "avg_ts": 5120.0,
    }
    csv = ",".join(record) + "\n" + ",".join(map(str, record.values())) + "\n"
    for text in (csv, json.dumps([record])):
        (case,) = cases_of(text)
        assert (case.gpu, case.workload.model, case.workload.batch_size) == ("L4", "gpt2", 1)
        assert case.throughput_per_s == pytest.approx(10.0)


def test_a_batch_of_llama_batched_bench_has_its_whole_time() -> None:
    head = "| PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | T s | S t/s |\n"
    rule = "|" + "---|" * 10 + "\n"
    own = "| 128 | 128 | 2 | 512 | 0.198 | 1295.19 | 5.029 | 50.90 | 5.227 | 97.95 |\n"
    shared = "| 128 | 128 | 4 | 640 | 0.1 | 1280 | 6.878 | 74.44 | 6.978 | 91.7 |\n"
    whole, generated = cases_of(head + rule + own + shared)
    assert (whole.latency_ms, whole.first_token_ms) == (5227.0, 198.0)
    assert (whole.workload.batch_size, whole.workload.prompt_tokens) == (2, 128)
    assert (whole.workload.new_tokens, whole.workload.engine) == (128, "llama.cpp")
    assert (generated.latency_ms, generated.workload.prompt_tokens) == (6878.0, 1)


def test_the_timings_of_llama_cpp_are_a_run_each() -> None:
    text = """Here's a 13B model on an RTX 3060:
llama_print_timings: prompt eval time =  3988.80 ms /   202 tokens (   19.75 ms per token)
llama_print_timings:        eval time =  6881.17 ms /   127 runs   (   54.18 ms per token)
llama_print_timings:       total time = 10956.55 ms
And here is the same thing on a P40:
llama_print_timings: prompt eval time =  5178.01 ms /   202 tokens (   25.63 ms per token)
llama_print_timings:        eval time = 51600.83 ms /   131 runs   (  393.90 ms per token)
"""
    first, second = cases_of(text)
    assert (first.gpu, second.gpu) == ("GeForce-RTX-3060", "P40")
    assert first.latency_ms == pytest.approx(3988.80 + 6881.17, rel=1e-4)
    assert (first.workload.prompt_tokens, first.workload.new_tokens) == (202, 128)
    assert {first.workload.model, second.workload.model} == {"13B"}


BLOCKS = {
    "marks": "[FP32] Tokens generated: 50\n[FP32] Time: 0.4227s\n[FP16] Tokens generated: 50\n"
    "[FP16] Time: 0.2608s\n",
    "headings": "Model: gpt2\n\n=== Running FP32 Inference ===\n  New tokens: 50\n"
    "  Time: 0.4227 s\n"
    "=== Running FP16 Inference ===\n  New tokens: 50\n  Time: 0.2608 s\n",
    "repeated names": "New tokens: 50\nPrecision: fp32\nTime: 0.4227 s\nPrecision: fp16\n"
    "Time: 0.2608 s\n",
    "a name before numbers": "new tokens: 50\nfp32: time (s) - 0.4227; p95 latency (s) - 1;\n"
    "fp16: time (s) - 0.2608 +\\- 0.1; p95 latency (s) - 1;\n",
    "bullets": "new tokens: 50\n- fp32\n422.7 ms\n- fp16\n260.8 ms\n",
}


@pytest.mark.parametrize("text", BLOCKS.values(), ids=BLOCKS)
def test_each_block_of_a_log_is_a_configuration(text: str) -> None:
    found = by_precision(text)
    assert {name: case.latency_ms for name, case in found.items()} == pytest.approx(
        {"fp32": 422.7, "fp16": 260.8}
    )
    assert {case.workload.new_tokens for case in found.values()} == {50}


TITLED = """\
sdpa_kernel:
Average tokens/sec: 136.49 tokens/sec
Memory used: 13.91 GB
->
flex_attention:
Average tokens/sec: 131.22 tokens/sec
Memory used: 13.93 GB
"""


def test_a_title_begins_a_block_where_no_line_names_a_known_thing() -> None:
    assert [case.tokens_per_s for case in cases_of(TITLED)] == [136.49, 131.22]
    runs = TITLED.replace("sdpa_kernel", "Run 1").replace("flex_attention", "Run 2")
    assert len(cases_of(runs)) == 1
    of_one = "[FP16] x\nfp16:\nLatency: 6 ms\nMemory:\nMemory used: 1 GB\nfp32:\nLatency: 12 ms\n"
    assert {p: case.latency_ms for p, case in by_precision(of_one).items()} == {
        "fp16": 6.0,
        "fp32": 12.0,
    }


PHRASES = {
    "several numbers": (
        "## `fp32`\nencoding  512 sentences  0.34s  1492 samples/s  13859 tokens/s\n"
        "## `fp16`\nencoding  512 sentences  2.29s   223 samples/s   2080 tokens/s\n",
        [(None, 1492.0), (None, 223.0)],
    ),
    "took": (
        "Uncompiled HF took 0.89 seconds\n- Generated 25 new tokens\n"
        "Uncompiled FMS took 0.85 seconds\n- Generated 25 new tokens\n",
        [(890.0, None), (850.0, None)],
    ),
    "lists": ("Dtype: fp16\nLatency (s): [0.1, 0.4, 0.2]\nThroughput (it/s): [5, 4, 6]\n",
              [(200.0, 5.0)]),
    "settings": (
        "With max_seq_length=128, and so on, it is:\nORT time: 8.1\n***** x *****\n"
        "With max_seq_length=384, and so on, it is:\nORT time: 19.3\n***** x *****\n",
        [(8.1, None), (19.3, None)],
    ),
    "a dtype within": (
        "Using device: cuda with dtype: torch.float32, torch.compile: False\n  26.81 s\n"
        "Using device: cuda with dtype: torch.float32, torch.compile: True\n  9.97 s\n",
        [(26810.0, None), (9970.0, None)],
    ),
    "a unit of each": ("T4  float16:   20ms/per\nT4   float32:  28ms/per\n",
                       [(20.0, None), (28.0, None)]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), PHRASES.values(), ids=PHRASES)
def test_a_line_of_a_log_that_is_no_pair_is_read(
    text: str, told: list[tuple[float | None, float | None]]
) -> None:
    found = [(case.latency_ms, case.throughput_per_s) for case in cases_of(text)]
    assert found == [(a and pytest.approx(a), b and pytest.approx(b)) for a, b in told]


@pytest.mark.parametrize(
    "text",
    [
        "=== FP16 ===\nGeneration took 3 s\n=== FP32 ===\nGeneration took 6 s\n",
        "=== FP16 ===\nLoading the model took 9 s\nGeneration took 3 s\n"
        "=== FP32 ===\nLoading the model took 9 s\nGeneration took 6 s\n",
        "Precision: fp16\nGeneration took 3 s\nPrecision: fp32\nGeneration took 6 s\n",
        "Generation at fp16 took 3 s\nGeneration at fp32 took 6 s\n",
        "Loading took 9 s\ndtype: fp16\nHF took 3 s\ndtype: fp32\nHF took 6 s\n",
    ],
)
def test_what_took_a_time_is_of_the_block_that_it_stands_in(text: str) -> None:
    times = {precision: case.latency_ms for precision, case in by_precision(text).items()}
    assert times == {"fp16": 3000.0, "fp32": 6000.0}


def test_what_is_not_compiled_is_eager() -> None:
    text, _ = PHRASES["a dtype within"]
    assert [case.workload.engine for case in cases_of(text)] == ["eager", "compile"]


def test_a_block_of_a_cpu_is_of_a_cpu() -> None:
    text = "**CPU**\n* Dtype: Float32 <br>\nTTFT (s): [0.2, 0.3]\nLatency (s): [10.0, 9.0]\n"
    (case,) = cases_of(text)
    assert (case.gpu, case.precision, case.latency_ms) == (CPU, "fp32", 9500.0)


def test_what_stands_above_lines_of_a_log_is_said_of_each() -> None:
    text = (
        "- model\uff1a Baichuan2-13B-chat\n- GPU\uff1a A800\n"
        "   - INT8 inference throughput:  9.5 tokens /sec\n"
        "   - FP16 inference throughput:  35 tokens /sec\n"
    )
    (case,) = cases_of(text)
    assert (case.precision, case.tokens_per_s, case.workload.model, case.gpu) == (
        "fp16", 35.0, "Baichuan2-13B-chat", "A800",
    )  # fmt: skip


def test_a_log_of_a_logger_is_read_without_what_it_sets_before_each_line() -> None:
    before = "[2023-12-06 09:45:35,501][inference][INFO] - "
    text = "".join(
        f"{before}{told}\n"
        for told in ("Configuring inference benchmark", "   + Warming up the forward pass",
                     "   + Forward pass latency: 1.22e-02 (s)",
                     "   + Forward pass throughput: 82.00 (samples/s)")
    )  # fmt: skip
    (case,) = cases_of(text)
    assert (case.latency_ms, case.throughput_per_s) == (pytest.approx(12.2), 82.0)


def test_the_dicts_of_onnxruntimes_benchmark_are_rows() -> None:
    line = (
        "{{'engine': 'onnxruntime', 'device': 'cuda', 'optimizer': <OptimizerInfo.BYSCRIPT:"
        " 'by_script'>, 'precision': <Precision.{0}: '{1}'>, 'io_binding': True, 'model_name':"
        " 'gpt2', 'batch_size': 1, 'sequence_length': 32, 'custom_layer_num': None,"
        " 'latency_99_percentile': '1.85', 'average_latency_ms': '{2}', 'QPS': '{3}'}}\n"
    )
    text = "Run onnxruntime on gpt2 with input shape [1, 32]\n"
    text += line.format("FLOAT32", "fp32", "3.64", "274.7") + line.format(
        "FLOAT16", "fp16", "1.82", "548.29"
    )
    found = by_precision(text)
    assert (found["fp16"].latency_ms, found["fp16"].throughput_per_s) == (1.82, 548.29)
    assert found["fp32"].workload.engine == "onnxruntime"
    assert found["fp32"].workload.prompt_tokens == 32


def test_a_dict_of_python_is_never_run() -> None:
    text = "{'latency_ms': __import__('os').getcwd(), 'precision': 'fp16'}\n"
    assert "must be a number" in refused(text) or "no row has a number" in refused(text)


def test_a_series_is_over_its_lengths() -> None:
    text = (
        "Setting : batch = 2, head_num = 16\ntime : ms\nseq_len : 8  16  32\n"
        "pytorch: 21  23  23\n___FT : 6.2 6.4 6.7\n"
    )
    found = cases_of(text)
    assert {(c.workload.engine, c.workload.prompt_tokens): c.latency_ms for c in found} == {
        ("eager", 8): 21.0, ("eager", 16): 23.0, ("eager", 32): 23.0,
        ("fastertransformer", 8): 6.2, ("fastertransformer", 16): 6.4,
        ("fastertransformer", 32): 6.7,
    }  # fmt: skip
    assert {case.workload.batch_size for case in found} == {2}


def test_a_measurement_of_zeus_is_a_power() -> None:
    text = (
        "Energy Monitor Result: Measurement(time=5.0, gpu_energy={0: 500.0, 1: 450.0},"
        " cpu_energy=None, dram_energy=None)\n"
    )
    assert [case.mean_w for case in cases_of(text)] == [100.0, 90.0]


def test_a_line_of_megatron_is_a_perplexity_of_its_own_text() -> None:
    zero_shot = (
        " validation results on WIKITEXT103 | avg loss: 3.1E+00 | ppl: 2.1968E+01 |"
        " adjusted ppl: 3.7370E+01 | token ratio: 1.17 |\n"
    )
    training = " validation loss at iteration {} | lm loss value: 3.5E+00 | lm loss PPL: {} | \n"
    (word,) = cases_of(zero_shot)
    assert (word.perplexity, word.perplexity_unit, word.text) == (37.37, "word", "wikitext-103")
    found = cases_of(training.format(1000, "3.3E+01") + training.format(2000, "3.1E+01"))
    assert [case.perplexity for case in found] == [33.0, 31.0]
    assert {(case.perplexity_unit, case.text_is_assumed) for case in found} == {("token", False)}


SERVING = """vllm bench serve --model openai-community/gpt2 --dtype float16
============ Serving Benchmark Result ============
Successful requests:                     200
**Benchmark duration (s):                20.00**
Total input tokens:                      25600
Total generated tokens:                  12800
Request throughput (req/s):              10.00
Output token throughput (tok/s):         640.00
---------------Time to First Token----------------
Mean TTFT (ms):                          170.00
Median TTFT (ms):                        150.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          10.00
Median TPOT (ms):                        9.00
==================================================
"""


def test_a_report_of_vllm_has_the_requests_in_flight_as_its_batch() -> None:
    (case,) = cases_of(SERVING)
    workload = case.workload
    assert (workload.engine, workload.model, case.precision) == ("vllm", "gpt2", "fp16")
    assert (workload.prompt_tokens, workload.new_tokens) == (128, 64)
    assert (case.throughput_per_s, case.first_token_ms, case.per_output_token_ms) == (10, 150, 9)
    assert workload.batch_size == round(10 * (0.170 + 63 * 0.010))
    assert not case.assumed
    assert case.latency_ms == pytest.approx(170 + 63 * 10)
    (bare,) = cases_of(SERVING[SERVING.index("Successful") : SERVING.index("-----")])
    assert (bare.workload.engine, bare.throughput_per_s) == ("vllm", 10)


def test_each_report_of_several_is_a_row() -> None:
    again = SERVING.replace("vllm bench", "python").replace("float16", "bfloat16")
    again = again.replace("Successful requests", "Backend: sglang\nSuccessful requests")
    first, second = cases_of(SERVING + again)
    assert (first.precision, second.precision) == ("fp16", "bf16")
    assert (first.workload.engine, second.workload.engine) == ("vllm", "sglang")


def test_the_steps_of_tgi_are_one_row_a_batch() -> None:
    text = """| Parameter       | Value                 |
|-----------------|-----------------------|
| Model           | openai-community/gpt2 |
| Sequence Length | 10                    |
| Decode Length   | 8                     |

| Step           | Batch Size | Average  | Lowest  | Highest | p50      | p90   | p99   |
|----------------|------------|----------|---------|---------|----------|-------|-------|
| Prefill        | 1          | 12.10 ms | 11.9 ms | 13 ms   | 12.00 ms | 13 ms | 13 ms |
|                | 2          | 13.10 ms | 11.9 ms | 14 ms   | 13.00 ms | 14 ms | 14 ms |
| Decode (token) | 1          | 9.1 ms   | 8.9 ms  | 10 ms   | 9.00 ms  | 10 ms | 10 ms |
|                | 2          | 9.3 ms   | 9.1 ms  | 10 ms   | 9.20 ms  | 10 ms | 10 ms |
| Decode (total) | 1          | 63.7 ms  | 62 ms   | 70 ms   | 63.00 ms | 70 ms | 70 ms |
|                | 2          | 65.1 ms  | 62 ms   | 70 ms   | 64.40 ms | 70 ms | 70 ms |

| Step    | Batch Size | Average          | Lowest           | Highest          |
|---------|------------|------------------|------------------|------------------|
| Prefill | 1          | 82.0 tokens/secs | 80.0 tokens/secs | 84.0 tokens/secs |
"""
    one, two = cases_of(text)
    assert (one.latency_ms, one.first_token_ms, one.per_output_token_ms) == (75.0, 12.0, 9.0)
    assert (two.workload.batch_size, two.workload.new_tokens) == (2, 8)
    assert (two.workload.engine, two.workload.model) == ("tgi", "gpt2")
    (prefill,) = cases_of("\n".join(text.split("\n")[6:9]))
    assert (prefill.latency_ms, prefill.workload.engine) == (12.0, "tgi")


LM_EVAL = """{0}
| Tasks  |Version|Filter|n-shot|    Metric     |   | Value |   |Stderr|
|--------|------:|------|------|---------------|---|------:|---|------|
|wikitext|      2|none  |     0|bits_per_byte  |↓  | 0.9769|±  |   N/A|
|        |       |none  |     0|byte_perplexity|↓  | 1.9682|±  |   N/A|
|        |       |none  |     0|word_perplexity|↓  |37.3698|±  |   N/A|
"""


@pytest.mark.parametrize(
    ("above", "model", "precision", "engine"),
    [
        ("hf (pretrained=gpt2,dtype=float16), gen_kwargs: (None), limit: None, num_fewshot: None,"
         " batch_size: 8", "gpt2", "fp16", "eager"),
        ("vllm (pretrained=distilgpt2,dtype=auto), batch_size: auto", "distilgpt2", NO_PRECISION,
         "vllm"),
        ("lm_eval --model hf --model_args pretrained=gpt2-xl,dtype=bfloat16 --batch_size 4",
         "gpt2-xl", "bf16", "eager"),
    ],
)  # fmt: skip
def test_a_table_of_lm_eval_is_its_perplexity_of_a_word(
    above: str, model: str, precision: str, engine: str
) -> None:
    (case,) = cases_of(LM_EVAL.format(above))
    assert (case.perplexity, case.perplexity_unit, case.text) == (37.3698, "word", "wikitext-2")
    assert (case.workload.model, case.precision) == (model, precision)
    assert (case.workload.engine, case.workload.batch_size) == (engine, 1)


def test_a_table_of_lm_eval_without_a_perplexity_is_told_so() -> None:
    text = "|Tasks|Version|Metric|Value|Stderr|\n|--|--|--|--|--|\n|arc_easy|1|acc|0.43|0.01|\n"
    assert "results of lm-eval without a perplexity" in refused(text)


def test_the_last_line_of_a_run_of_codecarbon_counts() -> None:
    text = (
        "timestamp,project_name,run_id,duration,emissions,gpu_energy,energy_consumed\n"
        "2026-04-11T07:53:48,train,A,50,0.00067,0.0020,0.00283\n"
        "2026-04-11T07:54:35,train,A,100,0.00137,0.0050,0.00576\n"
    )
    (case,) = cases_of(text)
    assert case.mean_w == pytest.approx(0.0050 * 3.6e6 / 100)
    assert case.replicates == (0,)


CODECARBON = """\
[codecarbon INFO @ 23:59:50]   GPU model: 1 x Tesla T4
[codecarbon INFO @ 23:59:54] Energy consumed for RAM : 0.011803 kWh. RAM Power : 283.2 W
[codecarbon INFO @ 23:59:54] Energy consumed for all GPUs : 0.001000 kWh. Total GPU Power : 59.0 W
[codecarbon INFO @ 00:00:54] Energy consumed for all GPUs : 0.002000 kWh. Total GPU Power : 61.0 W
[codecarbon INFO @ 00:01:54] Energy consumed for all GPUs : 0.003000 kWh. Total GPU Power : 69.0 W
"""


def test_the_lines_of_the_gpus_of_codecarbons_log_are_a_power() -> None:
    median, over_time = cases_of(CODECARBON)
    assert (median.mean_w, median.gpu) == (61.0, "T4")
    assert over_time.mean_w == pytest.approx(0.002 * 3.6e6 / 120)
    old = "[codecarbon INFO @ 22:37:12] GPU Power Consumption : Power(kW=0.39)\n"
    assert [case.mean_w for case in cases_of(f"Extract of a log:\n{old}")] == [390.0]
    again = CODECARBON + CODECARBON
    assert len(cases_of(again)) == 4
    several = CODECARBON.replace("1 x Tesla", "2 x Tesla")
    assert {(case.gpu, case.boards) for case in cases_of(several)} == {("2 x Tesla T4", ())}


def test_a_log_of_codecarbon_without_a_gpu_is_told_so() -> None:
    text = "".join(row for row in CODECARBON.splitlines(True) if "GPU" not in row)
    assert "has no line of a GPU" in refused(text)
    assert cases_of(f"{text}precision,latency_ms\nfp16,12\n")[0].latency_ms == 12.0
    both = cases_of(f"{CODECARBON}fp32 latency: 12 ms\nfp16 latency: 6 ms\n")
    assert sorted(case.latency_ms or 0 for case in both) == [0, 0, 6, 12]


def test_an_empty_line_of_a_table_is_no_row() -> None:
    text = "| precision | latency (ms) |\n|--|--|\n| fp32 | 12.0 |\n|  |  |\n| fp16 | 6.0 |\n"
    assert [case.outcome for case in cases_of(text)] == ["OK", "OK"]


def test_the_results_of_transformers_benchmark_are_times_or_memories() -> None:
    head = "model,batch_size,sequence_length,result\n"
    assert cases_of(f"{head}gpt2,1,128,0.0117\n")[0].latency_ms == pytest.approx(11.7)
    assert cases_of(f"{head}gpt2,1,128,1237\n")[0].memory_mb == 1237.0
    lines = "\tgpt2/8/32: 0.009s\n\tgpt2/8/128: 0.022s\n"
    (_, case) = cases_of(lines)
    assert (case.workload.batch_size, case.workload.prompt_tokens) == (8, 128)


def test_a_time_over_a_time_is_the_time_in_its_cells() -> None:
    (case,) = cases_of("Approach| ms/sec\n-- | --\nORT fp16 | 15.12ms\n")
    assert (case.latency_ms, case.workload.engine) == (15.12, "onnxruntime")


def test_a_row_of_another_table_does_not_name_the_gpu_of_a_table() -> None:
    first = "| GPU | TFLOPS |\n|--|--|\n| A100 | 312 |\n| RTX 3080 | 59 |\n"
    second = "\n## Latency\n| precision | latency (ms) |\n|--|--|\n| fp16 | 3.4 |\n"
    assert cases_of(first + second)[0].gpu_type is None
    stated = "| Item | Value |\n|--|--|\n| GPU | RTX 3080 |\n| Driver | 550 |\n"
    assert cases_of(stated + second)[0].gpu == "GeForce-RTX-3080"
    assert cases_of("# On a T4\n" + first + second)[0].gpu == "T4"


@pytest.mark.parametrize(
    ("above", "gpu"),
    [
        ("\u03c3\u03c4\u03b7 GTX 1660", "GTX 1660"),
        ("GPU \u4e0e RTX 5090 \u7684", "RTX 5090"),
        ("\u5728RTX 4090\u4e0a", "RTX 4090"),
        ("GPU \u03c3\u03c4\u03b7 GTX 1660", "GTX 1660"),
        ("GPU Nvidia RTX 3090", "Nvidia RTX 3090"),
        ("mesur\u00e9 sur une Tesla T4 \u00e9quip\u00e9e", "Tesla T4"),
    ],
)
def test_a_word_in_another_script_is_no_part_of_a_gpus_name(above: str, gpu: str) -> None:
    assert gpu_named_in(above) == gpu


UNITS_IN_CELLS = (
    "| Dtype | in=1,out=64 | in=1,out=128 |\n|--|--|--|\n| Fp16 | 3532 it/s | 632 it/s |\n"
    "| Fp32 | 2160 it/s | 1311it/s |\n"
)


def test_a_unit_in_the_cells_says_what_columns_of_configurations_hold() -> None:
    found = cases_of(UNITS_IN_CELLS)
    assert {(case.precision, case.throughput_per_s) for case in found} == {
        ("fp16", 3532.0), ("fp16", 632.0), ("fp32", 2160.0), ("fp32", 1311.0),
    }  # fmt: skip
    assert len({case.run for case in found}) == 2


BY_BATCH = (
    "## On V100\nAll times are in s.\n\nTotal inference time for one batch:\n\n"
    "|       | mb=1  | mb=2  |\n|-------|-----: |-----: |\n|float32| 0.014 | 0.021 |\n"
    "|float16| 0.003 | 0.004 |\n|Speedup| 4.2 | 5.1 |\n"
)


def test_a_line_above_says_what_bare_numbers_are() -> None:
    found = cases_of(BY_BATCH)
    assert [(c.precision, c.workload.batch_size, c.latency_ms) for c in found] == [
        ("fp32", 1, pytest.approx(14)), ("fp32", 2, pytest.approx(21)),
        ("fp16", 1, pytest.approx(3)), ("fp16", 2, pytest.approx(4)),
    ]  # fmt: skip
    of_a_part = BY_BATCH.replace("inference time", "time spent on conv op")
    assert "say what is in mb=1, mb=2: --quantity" in refused(of_a_part)
    assert len(cases_of(of_a_part, quantity="latency (ms)")) == 4


def test_a_perplexity_above_sizes_of_a_model_is_theirs() -> None:
    table = "| LLaMA-2 | 7B | 13B |\n|--|--|--|\n| FP | 5.12 | 4.57 |\n| OWQ 4.01 | 5.4 | 4.73 |\n"
    found = cases_of(f"Sorry. Here are the WikiText2 perplexity results.\n\n{table}")
    assert {(c.workload.model, c.perplexity) for c in found} == {
        ("LLaMA-2-7B", 5.12), ("LLaMA-2-7B", 5.4), ("LLaMA-2-13B", 4.57), ("LLaMA-2-13B", 4.73),
    }  # fmt: skip
    assert "say what is in 7B, 13B: --quantity" in refused(table)
    assert len(cases_of(table, quantity="perplexity")) == 4


def test_a_rate_below_a_head_needs_no_name_of_what_is_counted() -> None:
    found = by_precision("precision   throughput\nfp16        35/s\nfp32        12/s\n")
    assert {name: case.throughput_per_s for name, case in found.items()} == {"fp16": 35, "fp32": 12}


def test_lines_of_a_table_with_a_first_column_without_a_name_are_no_runs_of_one_thing() -> None:
    table = "| | latency (ms) |\n|--|--|\n| one thing | 12.0 |\n| another | 6.0 |\n"
    assert [case.latency_ms for case in cases_of(table)] == [12.0, 6.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SPEED: (characters / second)\n  3090  7.5k/s\n  A10  2.0K/s\n",
         "`3090 7.5k/s` does not say what is counted"),
        ("Performance on T4:\npy fp32: 21.78\ntf fp32: 20.13\n", "`py fp32 latency: 21.78 ms`"),
        ("I ran gpt2 on my T4 and it took 3 seconds per token.\nIs that normal?\n",
         "neither a table nor a log that is known"),
        ("# Results\nSpeedup is about 1.13x, with latency 11.7 ms for fp32 and 10.4 ms for fp16.\n",
         "lines such as `fp16 latency: 10.4 ms`"),
        ("precision,latncy\nfp32,11.7\n", "did you mean: latncy (latency?)"),
    ],
)  # fmt: skip
def test_a_text_that_is_not_read_is_told_what_would_be(text: str, told: str) -> None:
    assert told in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 3000,
        "{" + "'a': " * 900 + "}",
        "= Serving Benchmark Result =\nSuccessful requests: 0\nRequest throughput (req/s): 0\n",
        "| test | t/s |\n|--|--|\n| pp0 | 3 |\n",
        "| test | t/s |\n|--|--|\n| pp8 | - |\n",
        "|PP|TG|B|T_PP s|T s|\n|--|--|--|--|--|\n|a|b|c|d|e|\n",
        "prompt eval time = 1.2.3 ms / 4 tokens\neval time = ... ms / 4 runs\n",
        "Measurement(time=e, gpu_energy={0: e})",
        "|Step|Batch Size|Average|Lowest|Highest|p50|\n|--|--|--|--|--|--|\n|||||||\n",
        "|Tasks|Version|Metric|Value|Stderr|\n|--|--|--|--|--|\n||||||\n",
        "emissions,energy_consumed,duration,run_id\n",
        "Latency (s): [1..2, --]\nTime (s): []\nfp16:\nLatency: [,,]\n",
        "a took 3 s\nb took . s\nGenerated 0 new tokens\n",
        "[codecarbon INFO @ 99:99:99] Energy consumed for all GPUs : 1e999 kWh.\n" * 2,
        "[codecarbon INFO @ 00:00:00] GPU Power Consumption : Power(kW=0e-e)\n",
        "|  | 7B | 13B |\n|--|--|--|\n|  |  |  |\n| nan | - | OOM |\n",
        "perplexity\n| | 7B | 13B |\n|--|--|--|\n|a|1|inf|\n",
        "| a=1 | b=2 |\n|--|--|\n| 3 s | 4 s |\n",
    ],
)
def test_a_strange_text_is_read_or_told(text: str) -> None:
    with contextlib.suppress(TensorgapError):
        assert read.understand(text, "t.txt").cases


def test_the_answers_of_text_generation_webui_have_a_time_and_lengths() -> None:
    line = "Output generated in {} seconds ({} tokens/s, {} tokens, context {}, seed 1)\n"
    log = line.format(41.23, 12.39, 511, 16) + line.format(9.5, 21.05, 200, 40)
    first, second = cases_of(log)
    assert (first.latency_ms, first.workload.new_tokens, first.workload.prompt_tokens) == (
        41_230, 511, 16,
    )  # fmt: skip
    assert second.latency_ms == 9500
