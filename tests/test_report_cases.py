"""Eight public tables, read as their authors wrote them, and what is true of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_tables import found_in, verdicts_on

from jobs.report.finding import Finding
from jobs.report.foreign import read
from jobs.report.foreign.understood import Told

TABLES = Path(__file__).parent / "tables"


def text_of(name: str) -> str:
    return (TABLES / f"{name}.csv").read_text(encoding="utf-8")


def notes_on(name: str, **told: object) -> str:
    return "\n".join(read.understand(text_of(name), name, Told(**told)).notes)  # type: ignore[arg-type]


def of_code(found: list[Finding], code: str) -> dict[str, Finding]:
    """By the words of the subject and the precisions."""
    return {f"{f.subject} {','.join(f.precisions)}": f for f in found if f.code == code}


@pytest.mark.parametrize("name", sorted(path.stem for path in TABLES.glob("*.csv")))
def test_nothing_in_a_public_table_is_called_impossible_that_is_not(name: str) -> None:
    gpus = {"vllm54950": ["GTX 1650"], "bf16_t4": ["T4"], "fairseq1343": ["V100"]}.get(name, [])
    rejected = [f for f in found_in(text_of(name), *gpus) if f.verdict == "reject"]
    assert rejected == []


def test_hf17724_is_launch_bound() -> None:
    notes = notes_on("hf17724")
    for words in (
        "time (s) -> latency_ms x 1000", "mem (GB) -> memory_mb x 1000", "torch.float16 -> fp16",
        "GPT2LMHeadModel -> gpt2", "dynamo_fx2trt_fp16 -> tensorrt", "Not understood: is_accurate.",
        "speedup, mem_compression (a ratio, or not compared)", "Assumed", "128 tokens",
    ):  # fmt: skip
        assert words in notes
    for gpus in ([], ["A100"]):
        found = found_in(text_of("hf17724"), *gpus)
        launch = of_code(found, "launch-bound")
        assert {str(f.verdict) for f in launch.values()} == {"fix"}
        assert all("eager" in subject for subject in launch)
        evidence = " ".join(n.text for f in launch.values() for n in f.evidence)
        assert "tensorrt 5.00 ms for the same products: 2.20x" in evidence
        # Slower by 2 ms of 11, which are written in whole milliseconds.
        assert {str(f.verdict) for f in of_code(found, "effect").values()} == {"inconclusive"}
        assert len(of_code(found, "latency-too-coarse")) == 2
        assert len(of_code(found, "memory-as-stored")) == 2


def test_ft_bert_has_a_subject_for_each_gpu_and_engine() -> None:
    assert "a column for each engine" in notes_on("ft_bert")
    for told in ({}, {"model": "gpt2"}):
        found = found_in(text_of("ft_bert"), **told)
        assert verdicts_on(text_of("ft_bert"), **told).get("fp32-on-tensor-cores") is None
        launch = of_code(found, "launch-bound")
        fix = {subject for subject, f in launch.items() if f.verdict == "fix"}
        assert any("A100   gpt2 torchscript batch 1 " in subject for subject in fix)
        assert any("A10   gpt2 torchscript batch 1 " in subject for subject in fix)
        assert not any("batch 32" in subject for subject in launch)
        effects = of_code(found, "effect")
        (a100,) = (f for s, f in effects.items() if s.startswith("A100   gpt2 torchscript batch 8"))
        assert "as fast as tf32" in a100.text
        (t4,) = (f for s, f in effects.items() if s.startswith("T4   gpt2 torchscript batch 8 "))
        assert t4.verdict == "accept" and "4.02x" in t4.text
        (a10,) = (f for s, f in effects.items() if s.startswith("A10   gpt2 torchscript batch 1 "))
        assert a10.verdict == "inconclusive"
        cause = of_code(found, "effect-without-cause")
        (slower,) = (f for s, f in cause.items() if s.startswith("A10   gpt2 torchscript batch 1 "))
        assert "the host's launches set both times" in slower.text


def test_vllm54950_shows_a_kernel_that_no_limit_explains() -> None:
    notes = notes_on("vllm54950")
    assert "a column for each precision; concurrent seqs -> batch_size" in notes
    assert "fp16 tok/s -> tokens per second of fp16" in notes
    found = found_in(text_of("vllm54950"), "GTX 1650")
    scale = of_code(found, "batch-does-not-scale")
    (worst,) = (f for s, f in scale.items() if s.endswith("fp16"))
    assert "2x the batch takes 16.5x the time. No limit of the hardware" in worst.text
    (bare, *_) = of_code(found, "tensor-cores-absent").values()
    assert "no Tensor Cores, though other GPUs of compute capability 7.5 do" in bare.text
    accepted = [f.text for f in of_code(found, "effect").values() if f.verdict == "accept"]
    assert [text[:18] for text in accepted] == ["fp16 is 1.33x as f"]  # one sequence alone


def test_ecocompute_t4_shares_its_weights() -> None:
    notes = notes_on("ecocompute_t4")
    for words in ("Energy (mJ/token) -> energy_mj of a token", "3 rows of nf4 set aside",
                  "3 rows of int8 failed", "Tesla T4 -> T4"):  # fmt: skip
        assert words in notes
    found = found_in(text_of("ecocompute_t4"))
    shared = of_code(found, "energy-over-batch").values()
    assert [round(float(f.cause.values["ratio"]), 2) for f in shared] == [0.49, 0.52]  # type: ignore[arg-type]
    assert "energy-method-unknown" in {f.code for f in found}


def test_bf16_t4_lies_on_its_side_and_is_emulated() -> None:
    notes = notes_on("bf16_t4", batch_size=32)
    assert "each column is a configuration, each line a metric" in notes
    assert "Not understood: 2 epochs." in notes
    found = found_in(text_of("bf16_t4"), "T4", batch_size=32)
    (emulated,) = of_code(found, "precision-emulated").values()
    assert "compute capability 7.5 has no bfloat16 arithmetic" in emulated.text
    assert "at 0.23x the speed of fp16" in emulated.text
    assert "launch-bound" not in {f.code for f in found}


def test_fairseq1343_has_no_significance() -> None:
    found = found_in(text_of("fairseq1343"), "V100")
    (without,) = of_code(found, "effect-without-cause").values()
    assert "fp16 at 0.95x the speed of fp32" in without.text
    (effect,) = of_code(found, "effect").values()
    assert effect.verdict == "inconclusive"


def test_warmup_gpt2_measured_fp32_first() -> None:
    assert "time_s -> latency_ms x 1000" in notes_on("warmup_gpt2")
    found = found_in(text_of("warmup_gpt2"), prompt_tokens=10)
    (warm,) = of_code(found, "warm-up-suspected").values()
    assert "fp32 stands first and is 1.62x slower than fp16 and bf16" in warm.text
    assert "8.45 ms for each new token" in warm.text and "launches set it" in warm.text
    assert {str(f.verdict) for f in of_code(found, "effect").values()} == {"inconclusive"}


def test_pyjoules23_is_a_log_and_its_unit_is_mj() -> None:
    notes = notes_on("pyjoules23", energy_unit="uJ")
    assert "a log of energies, not a table of latencies" in notes
    powers = of_code(found_in(text_of("pyjoules23"), energy_unit="uJ"), "power-below-idle")
    idle, active = (f.text for f in powers.values())
    assert "0.0159 W" in idle and "mJ under the name of uJ (a factor of 1000) it is 15.9 W" in idle
    assert "it is 275 W" in active
    assert "nvidia_gpu_0 in mJ" in notes_on("pyjoules23")
    assert found_in(text_of("pyjoules23"), energy_unit="mJ") == []
