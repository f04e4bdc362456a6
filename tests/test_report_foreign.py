"""Reading a table as its author wrote it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import simulated
from foreign_tables import cases_of, groups_of

from bench.asked import Workload
from bench.errors import TensorgapError
from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import compare, export, findings, from_rows
from jobs.report.facts import NO_PRECISION, Case
from jobs.report.foreign import lines, read
from jobs.report.foreign.headers import heading_of
from jobs.report.foreign.understood import Told


def notes_of(text: str, **told: object) -> str:
    return "\n".join(read.understand(text, "t.csv", Told(**told)).notes)  # type: ignore[arg-type]


def one(text: str, **told: object) -> Case:
    (found,) = cases_of(text, **told)
    return found


def test_as_little_as_a_precision_and_a_latency_is_a_table() -> None:
    (group,) = groups_of("precision,latency_ms\nFP32,11.7\nfp16,10.4\n")
    assert (group.cases[0].gpu_type, group.cases[0].workload) == (None, Workload("gpt2"))
    assert group.cases[1].speedup == Ratio(1.125, 1.125, 1.125)
    assert group.cases[1].energy_mj is None
    assert group.cases[0].foreign


@pytest.mark.parametrize(
    ("header", "cell", "field", "value"),
    [
        ("Latency (ms)", "11.7", "latency_ms", 11.7),
        ("latency [us]", "11700", "latency_ms", 11.7),
        ("time (s)", "0.0117", "latency_ms", 11.7),
        ("Inference Time", "11.7ms", "latency_ms", 11.7),
        ("avg_latency_sec", "0.0117", "latency_ms", 11.7),
        ("latencyMs", "11.7", "latency_ms", 11.7),
        ("timing_latency_ms_p50", "11.7", "latency_ms", 11.7),
        ("Runtime", "1.29s", "latency_ms", 1290.0),
        ("wall time (min)", "~2", "latency_ms", 120_000.0),
        ("Latency (ms)", '"1,200"', "latency_ms", 1200.0),
        ("**Latency** (ms)", "**11.7** \u2713", "latency_ms", 11.7),
        ("latency (ms)", "11.7 \u00b1 0.3", "latency_ms", 11.7),
        ("ms/token", "8.5", "latency_ms", 8.5),
        ("TTFT (ms)", "30", "first_token_ms", 30.0),
        ("tok/s", "118", "tokens_per_s", 118.0),
        ("throughput_tok_s", "118", "tokens_per_s", 118.0),
        ("Tokens per second", "1.2k", "tokens_per_s", 1200.0),
        ("Inference speed (sents/sec)", "324.16", "throughput_per_s", 324.16),
        ("Throughput", "82 samp/s", "throughput_per_s", 82.0),
        ("samples/min", "120", "throughput_per_s", 2.0),
        ("it/s", "5", "throughput_per_s", 5.0),
        ("Energy (J)", "0.58", "energy_mj", 580.0),
        ("energy_per_sample_mj", "580", "energy_mj", 580.0),
        ("energy per inference [kWh]", "1.6111e-7", "energy_mj", 579.996),
        ("Energy (mJ/token)", "4.5", "energy_per_token_mj", 4.5),
        ("Energy (J/1k tokens)", "1659", "energy_per_token_mj", 1659.0),
        ("GPU Power (W)", "131", "mean_w", 131.0),
        ("mem (GB)", "1.237", "memory_mb", 1237.0),
        ("Model Size", "498 MB", "size_mb", 498.0),
        ("Perplexity", "29.94", "perplexity", 29.94),
        ("PPL", "29.94", "perplexity", 29.94),
        ("bits_per_byte", "0.9769", "perplexity", 1.9682),
    ],
)
def test_a_quantity_is_known_by_its_usual_names_and_units(
    header: str, cell: str, field: str, value: float
) -> None:
    found = one(f"precision,{header},latency_ms_p99\nfp16,{cell},99\n")
    assert getattr(found, field) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("column", "value", "field", "ours"),
    [
        ("Precision", "FP16", "precision", "fp16"),
        ("dtype", "torch.float16", "precision", "fp16"),
        ("Format", "half", "precision", "fp16"),
        ("Data Type", "AMP_FP16", "precision", "mixed"),
        ("quantization", "amp", "precision", "mixed"),
        ("precision", "Mixed Precision", "precision", "mixed"),
        ("precision", "TF32", "precision", "tf32"),
        ("precision", "bfloat16", "precision", "bf16"),
        ("Method", "PyTorch FP16", "precision", "fp16"),
        ("GPU", "NVIDIA A100-SXM4-40GB", "gpu", "A100-SXM-40GB"),
        ("device", "Tesla P100-PCIE-16GB", "gpu", "P100-PCIE"),
        ("hardware", "A100-80GB", "gpu", "A100-80G"),
        ("card", "RTX 4090", "gpu", "GeForce-RTX-4090"),
        ("gpu", "gtx1080ti", "gpu", "GeForce-GTX-1080-Ti"),
        ("gpu", "Titan RTX", "gpu", "TITAN-RTX"),
        ("gpu", "MI250", "gpu", "MI250"),
        ("gpu", "4xA100 80GB", "gpu", "4xA100 80GB"),
        ("gpu", "cuda:0", "gpu", "GPU not specified"),
        ("device", "Intel Xeon Gold", "gpu", "CPU"),
        ("instance", "A10", "gpu", "A10"),
    ],
)
def test_a_name_is_known_as_people_write_it(column: str, value: str, field: str, ours: str) -> None:
    assert getattr(one(f"{column},latency_ms\n{value},11\n"), field) == ours


@pytest.mark.parametrize(
    ("column", "value", "field", "ours"),
    [
        ("bs", "8", "batch_size", 8),
        ("Batch Size", "8", "batch_size", 8),
        ("concurrent seqs", "8", "batch_size", 8),
        ("seq_len", "512", "prompt_tokens", 512),
        ("Sequence Length", "512", "prompt_tokens", 512),
        ("input tokens", "512", "prompt_tokens", 512),
        ("max_new_tokens", "50", "new_tokens", 50),
        ("tokens_generated", "50", "new_tokens", 50),
        ("Model", "GPT2LMHeadModel", "model", "gpt2"),
        ("model", "openai-community/gpt2-xl", "model", "gpt2-xl"),
        ("model name", "GPT-2 Medium", "model", "gpt2-medium"),
        ("model", "distilgpt2", "model", "distilgpt2"),
        ("model", "Qwen2.5-3B", "model", "Qwen2.5-3B"),
        ("backend", "ONNX Runtime", "engine", "onnxruntime"),
        ("framework", "PyTorch", "engine", "eager"),
        ("engine", "torch.compile", "engine", "compile"),
        ("name", "dynamo_fx2trt_fp16", "engine", "tensorrt"),
    ],
)
def test_what_was_run_is_known_as_people_write_it(
    column: str, value: str, field: str, ours: object
) -> None:
    found = one(f"precision,{column},latency_ms\nfp16,{value},11\n")
    assert getattr(found.workload, field) == ours
    assert field not in found.assumed


LATENCIES = [("fp32", 11.7), ("fp16", 10.4)]


@pytest.mark.parametrize(
    "text",
    [
        "precision,latency_ms\nfp32,11.7\nfp16,10.4\n",
        "precision;latency_ms\nfp32;11,7\nfp16;10,4\n",
        "precision\tlatency (ms)\nfp32\t11.7\nfp16\t10.4\n",
        "| precision | latency |\n|---|---:|\n| fp32 | 11.7 ms |\n| fp16 | 10.4 ms |\n",
        "Here are my results:\n\nprecision | latency\n-- | --\nfp32 | 11.7ms\nfp16 |"
        " 10.4ms\n\nWhy?\n",
        "+-----------+--------------+\n| precision | latency (ms) |\n+-----------+--------------+\n"
        "| fp32      | 11.7         |\n| fp16      | 10.4        "
        " |\n+-----------+--------------+\n",
        "precision   latency (ms)\nfp32        11.7\nfp16        10.4\n",
        "fp32 latency (ms),fp16 latency (ms)\n11.7,10.4\n",
        ",fp32,fp16\nlatency,11.7ms,10.4ms\nspeedup,1.0x,1.13x\n",
        "precision,metric,value,unit\nfp32,latency,11.7,ms\nfp16,latency,10.4,ms\n",
        "fp32,fp16,latency_ms\n1,0,11.7\n0,1,10.4\n",
        "[Pytorch (FP32)] mean=12ms, median=11.7ms, 99p=15ms\n"
        "[Pytorch (FP16)] mean=11ms, median=10.4ms, 99p=14ms\n",
        "py fp32 time: 11.7 ms\npy fp16 time: 10.4 ms\n",
        '[{"dtype": "float32", "latency_s": 0.0117}, {"dtype": "float16", "latency_s": 0.0104}]',
        '{"dtype": "float32", "latency_ms": 11.7}\n{"dtype": "float16", "latency_ms": 10.4}\n',
        "=====  INFERENCE - SPEED - RESULT  =====\n------\n   dtype      Time in s\n------\n"
        "   fp32        0.0117\n   fp16        0.0104\n------\n",
        "precision,total_latency_ms,average_latency_ms,latency_90_percentile\n"
        "fp32,,11.7,12\nfp16,,10.4,11\n",
        "\ufeffprecision,latency_ms\r\nfp32,11.7\r\nfp16,10.4\r\n",
        "# a comment\nprecision,latency_ms\n\nfp32,11.7\n\nfp16,10.4\n",
        "run,precision,latency_ms\n,fp32,11.7\n,fp16,10.4\n",
        "trial,precision,latency_ms\n1,fp32,11.7\n2,fp32,11.8\n3,fp32,11.6\n1,fp16,10.4\n",
    ],
)
def test_a_table_is_read_however_it_lies(text: str) -> None:
    found = {case.precision: case.latency_ms for case in cases_of(text)}
    assert found == {name: pytest.approx(ms) for name, ms in LATENCIES}


def test_how_it_was_understood_is_told_once() -> None:
    head = "dtype;GPU;time (s);weather;Speedup"
    text = f"{head}\nfloat16;Tesla T4;0,0117;good;1x\nNF4;Tesla T4;0,02;bad;2x\n"
    notes = notes_of(text)
    for words in (
        "semicolons", "dtype -> precision", "time (s) -> latency_ms x 1000", "Tesla T4 -> T4",
        "float16 -> fp16", "1 row of nf4 set aside", "Speedup (a ratio, or not compared)",
        "Not understood: weather.", "Assumed, where the table does not say: gpt2, eager, batch 1",
    ):  # fmt: skip
        assert notes.count(words) == 1
    assert notes_of("precision,latncy,energy_mj\nfp32,3,500\n").count("latncy (latency?)") == 1
    assert "latency in ms" in notes_of("precision,latency\nfp32,3\n")


def test_a_column_that_is_not_understood_tells_rows_apart_or_nothing() -> None:
    apart = cases_of(
        "precision,mood,latency_ms\nfp32,good,1\nfp32,bad,9\nfp16,good,2\nfp16,bad,3\n"
    )
    assert [(case.run, case.latency_ms) for case in apart] == [
        ("mood=good", 1), ("mood=bad", 9), ("mood=good", 2), ("mood=bad", 3),
    ]  # fmt: skip
    runs = cases_of("precision,latency_ms\nfp32,10\nfp32,11\nfp32,99\nfp16,5\n")
    assert [case.latency_ms for case in runs] == [11, 5]
    assert "median of up to 3 rows" in notes_of("precision,latency_ms\nfp32,10\nfp32,11\nfp32,99\n")
    # Different lengths of prompts are different things.
    lengths = cases_of("precision,sequence_length,latency_ms\nfp32,8,3\nfp32,128,12\n")
    assert [case.workload.prompt_tokens for case in lengths] == [8, 128]


def test_options_say_what_a_table_does_not() -> None:
    text = "latency_ms\n12\n"
    told = {"model": "gpt2-medium", "precision": "fp16", "batch_size": 8, "prompt_tokens": 512,
            "new_tokens": 20, "engine": "graph", "context": 256}  # fmt: skip
    found = one(text, **told)
    assert found.workload == Workload("gpt2-medium", "graph", 8, 512, 20)
    assert (found.precision, found.context, found.assumed) == ("fp16", 256, frozenset())
    assert one("precision,energy\nfp16,0.58\n", energy_unit="J").energy_mj == 580
    # What a row says itself comes first.
    assert one("batch,precision,latency_ms\n4,fp16,3\n", batch_size=8).workload.batch_size == 4
    assert one(text).precision == NO_PRECISION


def test_throughput_energy_or_perplexity_alone_is_enough() -> None:
    for column in ("tok/s", "throughput", "energy_mj", "power (W)", "perplexity"):
        assert cases_of(f"precision,{column}\nfp32,50\nfp16,60\n")
    (group,) = groups_of("precision,throughput\nfp32,80\nfp16,100\n")
    assert group.cases[1].speedup == Ratio(1.25, 1.25, 1.25)


@pytest.mark.parametrize(
    "cell", ["OOM", "CUDA out of memory", "failed", "-", "n/a", "nan", "0", ""]
)
def test_a_row_that_failed_ends_no_table(cell: str) -> None:
    fp32, fp16 = cases_of(f"precision,latency_ms\nfp32,{cell}\nfp16,5\n")
    assert (fp16.outcome, fp16.latency_ms) == (Outcome.OK, 5)
    memory = cell in ("OOM", "CUDA out of memory")
    assert fp32.outcome == (Outcome.OUT_OF_MEMORY if memory else Outcome.FAILED)
    assert fp32.reason


def test_the_gpu_is_the_row_s_own_or_the_one_that_is_told() -> None:
    text = "precision,latency_ms,gpu\nfp32,5,V100\nfp32,6,\nfp32,7,cpu\n"
    groups = {g.cases[0].gpu_type: g for g in groups_of(text, "P100-PCIE")}
    assert set(groups) == {"V100", "P100", "CPU"}
    assert [board.name for board in groups["P100"].cases[0].boards] == ["P100-PCIE"]
    assert groups["CPU"].cases[0].boards == ()
    both = groups_of(text, "t4", "T4", "A100")
    assert [group.cases[0].gpu_type for group in both] == ["V100", "CPU", "T4", "A100"]


def test_the_gpu_of_a_heading_above_a_table_is_its_own() -> None:
    table = "| dtype | latency |\n|--|--|\n| fp32 | 11 ms |\n"
    words = "Some words about a V100 and why it is not compared here at all."
    text = f"## RTX 3090\n\n{table}\n{words}\n\n### T4\n\n{table}"
    assert [case.gpu for case in cases_of(text)] == ["GeForce-RTX-3090", "T4"]
    assert "GPU T4, by the text above it" in notes_of(text)


def test_a_log_of_codecarbon_is_one_of_powers() -> None:
    text = (
        "timestamp,project_name,duration,emissions,gpu_power,cpu_energy,gpu_energy,energy_consumed"
        ",gpu_model\nt,fp32,120.5,0.002,180,0.0014,0.0060,0.0077,1 x Tesla T4\n"
    )
    found = one(text)
    assert (found.gpu, found.precision, found.latency_ms) == ("T4", "fp32", None)
    assert found.mean_w == pytest.approx(0.0060 * 3.6e6 / 120.5)
    assert "a log of energies, not a table of latencies" in notes_of(text)


def test_several_tables_of_a_text_are_runs_of_their_own() -> None:
    table = "| dtype | latency |\n|--|--|\n| fp32 | 11 ms |\n"
    other = "| name | price |\n|--|--|\n| bread | 2 |\n"
    found = read.understand(f"{table}\n{other}\n{table}", "t.md")
    assert [case.run for case in found.cases] == ["table 1", "table 3"]
    assert any("left out: table 2: there is no column of a latency" in n for n in found.notes)


def test_an_optimum_benchmark_report_is_read_with_its_config(tmp_path: Path) -> None:
    config = {
        "backend": {"name": "pytorch", "model": "openai-community/gpt2", "torch_dtype": "float16",
                    "device": "cuda"},
        "scenario": {"name": "inference", "input_shapes": {"batch_size": 4, "sequence_length": 64},
                     "generate_kwargs": {}},
        "environment": {"gpu": ["NVIDIA A10G"]},
    }  # fmt: skip
    report = {"forward": {
        "latency": {"unit": "s", "mean": 0.013, "p50": 0.012},
        "memory": {"unit": "MB", "max_allocated": 700},
        "energy": {"unit": "kWh", "cpu": 1.0, "gpu": 4e-7, "total": 2.0},
    }}  # fmt: skip
    (tmp_path / "benchmark_config.json").write_text(json.dumps(config))
    path = tmp_path / "benchmark_report.json"
    both = json.dumps({"config": config, "report": report})
    for text, place in ((both, "benchmark.json"), (json.dumps(report), str(path))):
        (found,) = read.understand(text, "b", Told(), place).cases
        assert (found.gpu, found.precision, found.latency_ms) == ("A10G", "fp16", 12)
        assert found.workload == Workload("gpt2", "eager", 4, 64)
        assert found.energy_mj == pytest.approx(4e-7 * 3.6e9 / 4)  # of a prompt
        assert found.assumed == frozenset()


LLM_PERF = """\
config.name,config.backend.name,config.backend.model,config.backend.torch_dtype,\
config.backend.quantization_scheme,config.backend.torch_compile,config.scenario.name,\
config.scenario.input_shapes.batch_size,config.scenario.input_shapes.sequence_length,\
config.scenario.generate_kwargs.max_new_tokens,config.environment.gpu,report.traceback,\
report.prefill.latency.unit,report.prefill.latency.values,report.prefill.latency.p50,\
report.prefill.energy.gpu,report.prefill.memory.max_allocated,\
report.decode.latency.p50,report.decode.throughput.value,report.decode.energy.gpu
sdpa,pytorch,openai-community/gpt2,float32,,False,inference,1,256,64,['Tesla T4'],,\
s,"[0.0161, 0.016]",0.016,3e-07,640,0.61,102,9e-06
sdpa,pytorch,openai-community/gpt2,bfloat16,,True,inference,1,256,64,['Tesla T4'],,\
s,"[0.0161, 0.016]",0.011,1e-07,340,0.57,110,
gptq,pytorch,openai-community/gpt2,float16,gptq,False,inference,1,256,64,['Tesla T4'],,\
s,"[0.0161, 0.016]",0.021,1e-07,140,0.67,93,7e-06
sdpa,pytorch,openai-community/gpt2,float16,,False,inference,1,256,64,"['Tesla T4', 'Tesla T4']",\
"Traceback: CUDA out of memory",,,,,,,,
"""


def test_a_data_frame_of_optimum_benchmark_has_a_call_in_each_line() -> None:
    found = read.understand(LLM_PERF, "llm-perf.csv")
    both, compiled, failed = found.cases
    assert both.latency_ms == pytest.approx(626)  # of the prompt and of the new tokens
    assert both.energy_mj == pytest.approx(9.3e-6 * 3.6e9)
    assert (both.gpu, both.precision, both.memory_mb) == ("T4", "fp32", 640)
    assert both.workload == Workload("gpt2", "eager", 1, 256, 64)
    assert both.assumed == frozenset()
    assert (compiled.workload.engine, compiled.energy_mj) == ("compile", None)
    assert (failed.outcome, failed.reason, failed.gpu) == (
        Outcome.OUT_OF_MEMORY, "OOM", "2xTesla T4",
    )  # fmt: skip
    assert any("1 row of gptq set aside" in note for note in found.notes)
    records = json.dumps(list(csv.DictReader(io.StringIO(LLM_PERF))))
    again = read.understand(records, "r.json", Told(), "r.json").cases
    assert [replace(case, line=0) for case in again] == [replace(c, line=0) for c in found.cases]


def test_results_of_lm_eval_are_perplexities() -> None:
    results = {
        "results": {"wikitext": {"word_perplexity,none": 37.3698, "bits_per_byte,none": 0.9769}},
        "config": {"model_args": "pretrained=gpt2,dtype=float16"},
        "model_name": "openai-community/gpt2", "max_length": 1024,
    }  # fmt: skip
    (found,) = read.understand(json.dumps(results), "r.json", Told(), "r.json").cases
    assert (found.perplexity, found.perplexity_unit, found.context) == (37.3698, "word", 1024)
    assert (found.workload.model, found.precision, found.text) == ("gpt2", "fp16", "wikitext-2")


def test_the_csv_of_the_report_is_such_a_table() -> None:
    cases = compare.with_ratios(from_rows.cases(simulated.rows("T4")))
    text = export.to_csv([*cases, Case(
        gpu="T4", gpu_type="T4", workload=Workload("gpt2"), precision="bf16",
        outcome=Outcome.UNSUPPORTED, reason="too old",
    )])  # fmt: skip
    *measured, failed = cases_of(text)
    assert (failed.precision, failed.reason) == ("bf16", "UNSUPPORTED: too old")
    for ours, written in zip(measured, cases, strict=True):
        assert (ours.precision, ours.gpu_type) == (written.precision, "T4")
        assert ours.latency_ms == pytest.approx(written.latency_ms)
        assert ours.workload == written.workload
        for mine, theirs in (
            (ours.speedup, written.speedup),
            (ours.energy_ratio, written.energy_ratio),
        ):
            assert mine and theirs
            assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))
    # So noise is told as it is of rows.
    speedup = measured[1].speedup
    assert speedup and speedup.low < speedup.high
    (group,) = groups_of(text.replace(repr(speedup.low), "0.5"))
    assert "no-significant-difference" in {f.code for f in findings.find([group])}


def test_an_end_of_an_interval_may_be_below_zero() -> None:
    text = "precision,energy_mj,energy_ratio_low,energy_ratio_high\nfp32,9,,\nfp16,9,-0.5,2.5\n"
    (group,) = groups_of(text)
    assert group.cases[1].energy_ratio == Ratio(1.0, -0.5, 2.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("mood\ngood\n", "no column of a latency"),
        ("precision,ltency\nfp32,1\n", "did you mean: ltency (latency?)"),
        ("batch,fp32,fp16\n1,140,352\n8,500,900\n", "in fp32, fp16: --quantity 'latency (ms)'"),
        ("fp32,11.7\nfp16,10.4\n", "its columns are fp32, 11.7"),
        ("precision,latency_ms\nfp31,1\n", "line 2, precision = fp31: did you mean fp32?"),
        ("precision,latency_ms\nfp64,1\nint8,2\n", "all rows are set aside: fp64 set aside, int8"),
        ("precision,latency_ms\nfp32,11.7x7\n", "latency_ms = 11.7x7: "),
        ("precision,latency_ms\nfp32,fast\n", "latency_ms = fast: must be a number"),
        ("precision,latency_ms,batch\nfp32,1,1.5\n", "batch = 1.5: must be a whole number"),
        ("precision,latency_ms,batch\nfp32,1,0\n", "batch = 0: must be from 1"),
        ("precision,latency_ms,model,tokens\nfp32,1,gpt2,2048\n", "gpt2 has 1024 positions"),
        ("precision,latency_ms,model,tokens\nfp32,1,tiny,512\n", "tiny has 256 positions"),
        ("precision,latency_ms\nfp32,a\nfp16,b\n", "2 problems: line 2, latency_ms = a: "),
        ("precision,latency_ms,tokens,batch\nfp32,1\nfp16,2\n", "names 4 columns, and each row"
        " has 2"),
        ("precision,latency_ms," + "x" * 200_000, "it has no rows"),
        ("precision,latency_ms" + ",x" * 1000, "1,002 columns; at most 1000 are read"),
        ("precision,latency_ms,run\n" + "".join(f"fp32,1,r{n}\n" for n in range(10_001)),
         "10,001 different rows, which would take minutes"),
        ("a,b\n" + "1,2\n" * 100_001, "more than 100,000 rows"),
        ('{"a": 1}', "t.csv: "),
        ('{"results": {"arc": {"acc,none": 0.4}}}', "results of lm-eval without a perplexity"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_line_the_column_and_the_remedy(text: str, words: str) -> None:
    with pytest.raises(TensorgapError, match=r"t\.csv") as caught:
        read.understand(text, "t.csv")
    assert words in str(caught.value)


def test_a_wide_table_may_hold_too_many_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINES", 100)
    with pytest.raises(TensorgapError, match="more than 100 measurements; split the table"):
        cases_of("batch,fp16 ms,fp32 ms\n" + "1,2,3\n" * 60)


def test_rows_with_a_mistake_are_left_out_and_named() -> None:
    text = "precision,latency_ms\nfp32,11.7\nfp16,fast\nbf16,9\nmixed,1,2,3\n"
    assert [case.precision for case in cases_of(text)] == ["fp32", "bf16"]
    notes = notes_of(text)
    assert "Left out: line 3, latency_ms = fast: must be a number" in notes
    assert "1 rows with more cells than there are columns" in notes


def test_a_number_is_as_exact_as_it_is_written_however_that_is() -> None:
    zeros = "0" * 5000
    for written in ("29.94", f"2994e-{zeros}2", f"0.{zeros}2994e5002"):
        found = one(f"precision,latency_ms,perplexity\nfp32,1,{written}\n")
        assert (found.perplexity, found.perplexity_step) == (29.94, pytest.approx(0.01))


def test_a_line_end_within_a_cell_is_part_of_it() -> None:
    for end in ("\u2028", "\u2029", "\x1d", "\x1e", "\x85"):
        found = one(f"precision,latency_ms,gpu\nfp32,1,T4{end}T4\n")
        assert found.gpu.startswith("T4")


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("FT Speedup", "ratio"), ("CV", "spread"), ("latency std (ms)", "spread"),
        ("training time (s)", None), ("load time (s)", None), ("GPU utilization %", "ratio"),
        ("prefill tok/s", None), ("accuracy", None), ("mem_compression", "ratio"),
        # A rate of something else, a part of a request, a property of the machine or the model.
        ("Bandwidth (GB/s)", None), ("TFLOP/s", None), ("Price ($/h)", None), ("tok/J", None),
        ("tokens/s/W", None), ("tok/s/user", None), ("prompt tok/s", None),
        ("tokenization time (ms)", None), ("compile time (s)", None), ("kernel time (ms)", None),
        ("params (B)", None), ("GPU temperature (C)", None), ("kv cache dtype", None),
        ("KV cache (MB)", None), ("vocab size", None), ("total tokens", None),
        ("max_length", None), ("C4 PPL", "ratio"), ("eval loss", None),
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_none(header: str, field: str | None) -> None:
    assert heading_of(header).field == field


@pytest.mark.parametrize(
    ("header", "field", "per"),
    [
        ("Latency per batch (s)", "latency_ms", "batch"),
        ("time_per_step_s", "latency_ms", "batch"),
        ("latency per token (s)", "per_output_token_ms", "token"),
        ("throughput_tok_s", "throughput_per_s", "token"),
        ("tok/s per GPU", "throughput_per_s", "token"),
        ("Total token throughput (tok/s)", "throughput_per_s", "every token"),
        ("Request throughput (req/s)", "throughput_per_s", "sample"),
        ("GPU power limit", "power_limit_w", None), ("B", "batch_size", None),
    ],
)  # fmt: skip
def test_what_a_time_or_a_rate_is_of(header: str, field: str, per: str | None) -> None:
    found = heading_of(header)
    assert (found.field, found.per) == (field, per)


def test_of_columns_that_are_alike_the_latency_is_read_and_the_others_are_named() -> None:
    text = (
        "gpu,precision,time,CPU time (ms),latency (ms),total time (s),energy (J),cpu_energy (J)\n"
        "T4,fp32,2024-05-01 12:00:00,5,20,2,0.9,3\nT4,fp16,2024-05-01 12:01:00,4,12,1,0.5,3\n"
    )
    assert [(c.gpu, c.latency_ms, c.energy_mj) for c in cases_of(text)] == [
        ("T4", 20, 900), ("T4", 12, 500),
    ]  # fmt: skip
    notes = notes_of(text)
    assert "cpu_energy (J) (of the CPU)" in notes and "Not understood: time" in notes
    assert "CPU time (ms), total time (s) (beside latency (ms))" in notes


def test_min_is_no_minute_beside_mean_and_max() -> None:
    assert one("precision,Latency (mean),Latency (min)\nfp32,20,19\n").latency_ms == 20
    assert one("precision,Latency (min)\nfp32,2\n").latency_ms == 120_000


@pytest.mark.parametrize(
    ("text", "latencies"),
    [
        ("precision;latency (ms)\nfp32;1.021,5\nfp16;612,5\n", [1021.5, 612.5]),
        ("precision;latency (ms)\nfp32;21,712\nfp16;12,512\n", [21.712, 12.512]),
        ("precision;batch;throughput;latency (ms)\nfp32;256;23.195;1.412,7\n", [1412.7]),
        ("precision,latency (ms)\nfp32,1.021\n", [1.021]),
    ],
)
def test_commas_and_points_are_those_of_the_file(text: str, latencies: list[float]) -> None:
    assert [case.latency_ms for case in cases_of(text)] == latencies


@pytest.mark.parametrize("cell", ["1:23", "18.5-21.2", "2m 30s", "1 min 50 s", "2024-05-01", "12m"])
def test_more_than_a_number_is_none(cell: str) -> None:
    text = f"precision,latency_ms\nfp32,{cell}\nfp16,1\n"
    assert f"Left out: line 2, latency_ms = {cell}: must be a number" in notes_of(text)


def test_a_precision_that_is_denied_is_none() -> None:
    text = "precision,latency_ms\nfp32 (TF32 off),20\nfp16 (no amp),14\nno amp,21\n"
    assert [case.precision for case in cases_of(text)] == ["fp32", "fp16"]
    assert cases_of(text)[0].latency_ms == 20.5  # of two rows of fp32


def test_a_number_that_cannot_be_is_named_beside_another() -> None:
    text = "precision,latency_ms,throughput\nfp32,0,50\nfp16,12,80\n"
    assert "line 2, latency_ms = 0: must be greater than 0, and is not read" in notes_of(text)
    finished = "precision,State,latency_ms\nfp32,finished,20\nfp16,converged,12\n"
    assert [case.latency_ms for case in cases_of(finished)] == [20, 12]
    failed = "gpu,precision,status,latency_ms\nT4,fp32,ok,20\nT4,fp16,failed,12\n"
    assert [case.outcome for case in cases_of(failed)] == [Outcome.OK, Outcome.FAILED]


def test_an_energy_that_can_only_be_of_the_batch_is_and_that_is_told() -> None:
    text = "gpu,precision,batch,latency (ms),energy (J)\nT4,fp32,8,100,6.5\n"
    assert (one(text).energy_mj, one(text).mean_w) == (812.5, 65)
    assert "energy (J) is that of the whole batch" in notes_of(text)
    ours = text.replace("energy (J)", "energy_mj").replace("6.5", "6500")
    assert one(ours).mean_w == 520


def test_a_count_of_gpus_is_no_gpu() -> None:
    found = one("gpu,num gpus,precision,latency_ms,power_w\nA100,4,fp32,12,1200\n")
    assert found.gpu == "4x A100" and not found.boards
    assert one("gpu,tp,precision,latency_ms\nA100,1,fp32,12\n").gpu == "A100"


MERGED = """GPT-2 medium on H100 SXM5 80GB, seq 1024

| | fp32 | | bf16 | |
|---|---|---|---|---|
| batch | latency (ms) | power (W) | latency (ms) | power (W) |
| 1 | 19.7 | 421 | 3.3 | 341 |
"""


def test_a_head_may_span_columns_and_the_line_above_tells_of_all() -> None:
    fp32, bf16 = cases_of(MERGED)
    assert (fp32.latency_ms, fp32.mean_w, bf16.latency_ms, bf16.mean_w) == (19.7, 421, 3.3, 341)
    assert fp32.workload == Workload("gpt2-medium", "eager", 1, 1024) and fp32.gpu == "H100-SXM"
    assert "gpt2-medium, 1024 tokens, by the text above it" in notes_of(MERGED)
    by_gpu = "GPT-2 fp16 latency (ms) by GPU:\n\n| Model | T4 | A100 |\n|--|--|--|\n"
    found = cases_of(by_gpu + "| gpt2 | 24.9 | 10.4 |\n")
    assert [(c.gpu, c.precision, c.latency_ms) for c in found] == [
        ("T4", "fp16", 24.9), ("A100", "fp16", 10.4),
    ]  # fmt: skip
    assert cases_of(by_gpu + "| gpt2 | 24.9 | 10.4 |\n", precision="bf16")[0].precision == "bf16"


def test_an_empty_name_is_that_of_the_line_above_where_it_tells_lines_apart() -> None:
    text = "| Model | Prec | ms |\n|:--|:-:|--:|\n| gpt2 | FP32 | 11.2 |\n| | FP16 | 7.9 |\n"
    assert [case.workload.model for case in cases_of(text, precision=None)] == ["gpt2", "gpt2"]
    assert "an empty Model is that of the line above" in notes_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "   model precision  batch  latency_ms  tok_s\n0   gpt2      fp32      1        9.84  101"
        "\n1   gpt2      fp16      1        7.91  126\n",
        "  precision  batch  latency_ms\n0      fp32      1     9.84\n1      fp16      1    7.91\n",
        "Model: gpt2 | dtype: torch.float32 | avg latency: 0.00984 s\n"
        "Model: gpt2 | dtype: torch.float16 | avg latency: 0.00791 s\n",
        '{"fp32": {"latency_ms": 9.84}, "fp16": {"latency_ms": 7.91}}',
        '{"gpu": "T4", "results": {"fp32": {"latency_ms": 9.84}, "fp16": {"latency_ms": 7.91}}}',
        '[{"dtype": "fp32", "a": {"b": {"latency_ms": 9.84}}},'
        ' {"dtype": "fp16", "a": {"b": {"latency_ms": 7.91}}}]',
        "precision,latency_ms\nfp32,9.84\nprecision,latency_ms\nfp16,7.91\n",
    ],
)
def test_what_programs_print_is_a_table(text: str) -> None:
    found = [(c.precision, pytest.approx(c.latency_ms)) for c in cases_of(text)]
    assert found == [("fp32", 9.84), ("fp16", 7.91)]


def test_a_report_of_one_run_is_a_row() -> None:
    text = (
        "============ Serving Benchmark Result ============\nSuccessful requests:   1000\n"
        "Benchmark duration (s):   92.41\nRequest throughput (req/s):   10.82\n"
        "Output token throughput (tok/s):   2352.48\nMedian TTFT (ms):   98.07\n"
        "P99 TTFT (ms):   612.30\nMedian TPOT (ms):   40.18\n"
    )
    (found,) = cases_of(text)
    assert (found.throughput_per_s, found.first_token_ms) == (10.82, 98.07)
    assert found.per_output_token_ms == 40.18


def test_a_second_head_begins_a_table_of_its_own() -> None:
    text = (
        "======  SPEED  ======\n   Model Name   Batch Size   Time in s\n---------\n"
        "   gpt2          1            0.006\n   gpt2          8            0.021\n"
        "======  MEMORY  ======\n   Model Name   Batch Size   Memory in MB\n---------\n"
        "   gpt2          1            1045\n   gpt2          8            1211\n"
    )
    found = cases_of(text)
    assert [case.latency_ms for case in found] == [6, 21, None, None]
    assert [case.memory_mb for case in found] == [None, None, 1045, 1211]


def test_perplexities_of_several_units_are_never_one() -> None:
    text = (
        "hf (pretrained=gpt2,dtype=float32), batch_size: 8\n"
        "| Tasks |Version|Metric|Value|\n|---|---|---|---|\n|wikitext|2|bits_per_byte|0.9773|\n"
        "| | |byte_perplexity|1.9687|\n| | |word_perplexity|37.3698|\n"
    )
    (found,) = cases_of(text)
    assert (found.perplexity, found.perplexity_unit) == (37.3698, "word")
    assert (found.workload.model, found.precision) == ("gpt2", "fp32")
