"""bench.memory: what the predicted memory is of; tests/cuda compares it with torch's allocator."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import memory
from bench.asked import PRECISIONS, QUANTISED, Workload
from bench.decoders import SHAPES
from bench.memory import on_gpu

QWEN, GPT2, PYTHIA = SHAPES["Qwen2.5-0.5B"], SHAPES["gpt2"], SHAPES["pythia-160m"]
T4, A100, H100 = (7, 5), (8, 0), (9, 0)


def test_a_long_prompt_of_a_large_vocabulary_is_logits() -> None:
    found = on_gpu(QWEN, Workload("q", batch_size=64, prompt_tokens=4096), "fp16")
    assert found.weights == 2 * QWEN.parameters
    assert found.logits == 64 * 4096 * 151_936 * 2
    assert found.cache == 0
    assert str(found).startswith("75.59 GiB (logits 74.19, weights 0.92")
    # Only the last position of each prompt has logits where tokens follow.
    after = on_gpu(QWEN, Workload("q", batch_size=64, prompt_tokens=4096, new_tokens=1), "fp16")
    assert after.logits == 0
    assert after.total_bytes < found.total_bytes


def test_keys_and_values_are_kept_of_their_own_heads() -> None:
    asked = Workload("q", batch_size=2, prompt_tokens=100, new_tokens=28)
    per_token = 24 * 2 * 2 * 64  # layers, keys and values, heads, width
    assert on_gpu(QWEN, asked, "fp16").cache == 2 * 128 * per_token * 2
    assert on_gpu(QWEN, asked, "fp32").cache == 2 * 128 * per_token * 4
    # What positions have turned, autocast leaves in float32; GPT-2's are learned.
    assert on_gpu(QWEN, asked, "mixed").cache == 2 * 128 * per_token * (4 + 2) // 2
    assert on_gpu(GPT2, asked, "mixed").cache == on_gpu(GPT2, asked, "fp16").cache


def test_autocast_also_holds_the_cast_weights_of_the_head() -> None:
    asked = Workload("gpt2")
    fp32, mixed = (on_gpu(GPT2, asked, name) for name in ("fp32", "mixed"))
    assert fp32.weights == mixed.weights == 4 * 124_439_808
    assert mixed.activations - fp32.activations > 2 * 50_257 * 768


@pytest.mark.parametrize("precision", QUANTISED)
def test_quantised_weights_are_on_the_device_as_16_bits_first(precision: str) -> None:
    """So int8 of 8 billion parameters does not fit into 16 GB; and what is read is there, too."""
    llama, one = SHAPES["Llama-3.1-8B"], Workload("l", prompt_tokens=16)
    assert on_gpu(llama, one, precision).total_bytes == 2 * llama.parameters
    assert memory.on_cpu(llama, one, precision).weights == 8 * llama.parameters  # as float32
    many = Workload("l", prompt_tokens=1024, batch_size=64)
    assert on_gpu(llama, many, precision).weights < 1.2 * llama.parameters


@pytest.mark.parametrize(("precision", "each"), [("int8", 6), ("int8-dynamic", 10), ("fp8", 15)])
def test_an_input_that_is_rounded_is_there_in_float32(precision: str, each: int) -> None:
    number = memory.Widths.of(precision)
    assert memory.in_layer(QWEN, number, 0) == 4 * 896 * 2 + 4864 * each


def test_each_graph_of_new_tokens_has_a_workspace() -> None:
    for board, workspace in ((H100, 32 * 2**20), (T4, 8_519_680)):
        for engine, new, times in (("eager", 0, 1), ("graph", 0, 1), ("eager", 4, 1)):
            asked = Workload("gpt2", engine, new_tokens=new)
            assert on_gpu(GPT2, asked, "fp16", board).workspace == times * workspace
        small = Workload("gpt2", "graph", new_tokens=4, prompt_tokens=8)
        assert on_gpu(GPT2, small, "fp16", board).workspace == 3 * workspace
    large = Workload("gpt2", "graph", new_tokens=4, prompt_tokens=1000, batch_size=64)
    assert on_gpu(GPT2, large, "fp16", H100).workspace == 2 * 32 * 2**20  # the prompt's peak


@pytest.mark.parametrize(
    ("model", "precision", "board", "attention", "expected"),
    [
        ("Qwen2.5-0.5B", "fp32", H100, "auto", True),
        ("Qwen2.5-0.5B", "fp16", A100, "auto", False),
        ("Qwen2.5-0.5B", "mixed", H100, "auto", False),
        ("Qwen2.5-0.5B", "fp16", T4, "auto", True),
        ("Qwen2.5-0.5B", "fp32", H100, "efficient", False),
        ("gpt2", "fp32", T4, "auto", False),
        ("gpt2", "bf16", T4, "auto", True),
        ("gpt2", "fp16", H100, "math", True),
    ],
)
def test_which_attention_has_all_scores_in_memory(
    model: str, precision: str, board: tuple[int, int], attention: str, expected: bool
) -> None:
    asked = Workload(model, prompt_tokens=1024, new_tokens=1, attention=attention)
    shape = SHAPES[model]
    assert memory.is_math(shape, asked, precision, board) == expected
    fused = dataclasses.replace(asked, attention="efficient")
    found, least = (on_gpu(shape, one, precision, board).activations for one in (asked, fused))
    assert (found > least) == expected


@given(
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(PRECISIONS),
    st.sampled_from(["eager", "graph"]),
    st.integers(1, 64),
    st.integers(1, 512),
    st.integers(0, 64),
)
def test_more_of_anything_takes_no_less(
    model: str, precision: str, engine: str, batch: int, prompt: int, new: int
) -> None:
    asked = Workload(model, engine, batch, prompt, new)
    found = on_gpu(SHAPES[model], asked, precision)
    assert all(value >= 0 for value in dataclasses.astuple(found))
    assert found.weights <= found.total_bytes == sum(dataclasses.astuple(found))
    for more in ("batch_size", "prompt_tokens", *(["new_tokens"] if new else [])):
        larger = dataclasses.replace(asked, **{more: getattr(asked, more) + 1})
        assert on_gpu(SHAPES[model], larger, precision).total_bytes >= found.total_bytes
    on_cpu = memory.on_cpu(SHAPES[model], asked, precision)
    assert on_cpu.total_bytes >= found.total_bytes - found.workspace + 500 * 2**20
    assert on_cpu.weights >= found.weights


def test_a_layer_norm_and_parallel_layers_have_no_gate() -> None:
    """GPT-NeoX at its widest: attention beside what came in, or the feed-forward's two."""
    number = memory.Widths.of("fp16")
    assert memory.in_layer(PYTHIA, number, 0) == max(10 * 768 * 2, 3 * 768 * 2 + 2 * 3072 * 2)


def test_memory_is_predicted_without_torch() -> None:
    code = (
        "import sys, bench.memory, bench.lookup\n"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
