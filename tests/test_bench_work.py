"""bench.profile.work: the formula against torch's own counter, and as a table needs it."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
from decoders import config_of, on_meta
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from bench import decoders
from bench.decoders import SHAPES
from bench.families import FAMILIES
from bench.model import engines
from bench.profile import work
from bench.profile.work import work_of

CONFIGS = {
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(n_layer=24, n_embd=1024, n_head=16),
}
SMALL = GPT2Config(n_layer=2, n_embd=32, n_head=4, n_inner=96, vocab_size=100, n_positions=64)


def counted(config: Any, batch: int, prompt: int, new: int) -> int:
    """torch's own count, on the meta device, which computes nothing."""
    model = on_meta(config)
    model.config.pad_token_id = None
    ids = torch.zeros(batch, prompt, dtype=torch.long, device="meta")
    run = engines.generation("eager", model, new) if new else engines.forward("eager", model)
    with torch.inference_mode():
        if new:
            run(ids)  # the first generation also fills its cache once
        with FlopCounterMode(display=False) as counter:
            run(ids)
    return int(counter.get_total_flops())


def test_gpt2_at_128_tokens_is_32_gflop() -> None:
    found = work_of(SHAPES["gpt2"], 1, 128)
    assert found.flops == pytest.approx(32.2e9, rel=0.01)
    assert found.flops == counted(CONFIGS["gpt2"], 1, 128, 0)


@pytest.mark.parametrize(("batch", "prompt", "new"), [(1, 16, 0), (3, 8, 0), (1, 16, 1), (2, 8, 5)])
def test_flops_are_those_of_torchs_counter(batch: int, prompt: int, new: int) -> None:
    found = work_of(decoders.of_config(SMALL.to_dict()), batch, prompt, new)
    assert found.flops == counted(SMALL, batch, prompt, new)


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_of_each_family_are_those_of_torchs_counter(family: str) -> None:
    config = config_of(family, max_position_embeddings=128)
    shape = decoders.of_config(config.to_dict())
    # The mask of OPT's new tokens asks for autocast, which has no meta device.
    for batch, prompt, new in ((2, 8, 0), (1, 4, 0 if family == "opt" else 4)):
        found = work_of(shape, batch, prompt, new)
        assert found.flops == counted(config, batch, prompt, new)
        # What each product multiplies by is what there is: heads of keys and values are fewer.
        weights = {(p.rows, p.inner, p.columns, p.transposed, p.bias) for p in found.products}
        assert len(weights) == len(found.products)


def test_a_window_is_all_that_is_seen_and_kept() -> None:
    shape = decoders.of_config(
        config_of("mistral", num_hidden_layers=3, sliding_window=8).to_dict()
    )
    assert shape.window == 8
    full = dataclasses.replace(shape, window=None, windowed=0)
    for prompt in (1, 7, 8, 9, 30):
        rows = range(1, prompt + 1)
        assert work.seen(shape, 1, prompt) == shape.layers * sum(min(row, 8) for row in rows)
        assert work.seen(full, 1, prompt) == shape.layers * sum(rows)
    mixed = dataclasses.replace(shape, windowed=1)
    assert work.seen(mixed, 20, 21) == 2 * (20 + 21) + 8 + 8


def test_fewer_heads_of_keys_move_less_and_compute_as_much() -> None:
    llama = decoders.of_config(config_of("llama").to_dict())
    alike = decoders.of_config(config_of("llama", num_key_value_heads=4).to_dict())
    grouped, plain = (work_of(shape, 1, 16, 4) for shape in (llama, alike))
    assert grouped.attention_flops == plain.attention_flops
    kept = [a - b for a, b in zip(plain.results, grouped.results, strict=True)]
    assert kept == [llama.layers * 2 * 2 * llama.head_width * n for n in (16, 17, 18, 19)]


def test_the_shape_of_a_model_is_in_its_configuration_and_known_by_its_name() -> None:
    for name, config in CONFIGS.items():
        assert (
            decoders.of_config(config.to_dict())
            == SHAPES[name]
            == decoders.shape_of(f"openai-community/{name}")
        )
    assert decoders.shape_of("tiny") is None
    for config, parameters in ((CONFIGS["gpt2"], 124_439_808), (SMALL, None)):
        with torch.device("meta"):
            module = GPT2LMHeadModel(config)
        count = sum(parameter.numel() for parameter in module.parameters())
        assert decoders.of_config(config.to_dict()).parameters == count == (parameters or count)


def test_bytes_of_a_forward_are_weights_and_logits() -> None:
    gpt2 = work_of(SHAPES["gpt2"], 1, 128)
    logits = 128 * 50257
    # 494.6 MB of weights with biases, layer norms and positions, which are 0.9 MB.
    (fp32,) = gpt2.forward_bytes(4, 4)
    assert fp32 == pytest.approx(494.6e6 + 4 * logits, rel=0.003)
    (mixed,) = gpt2.forward_bytes(4, 2)
    assert fp32 - mixed == 2 * logits


def test_each_new_token_reads_the_weights_again_and_one_more_key() -> None:
    moved = work_of(decoders.of_config(SMALL.to_dict()), 1, 8, 4).forward_bytes(4, 4)
    per_key = 2 * 2 * 32 * 4
    assert [b - a for a, b in itertools.pairwise(moved)] == [per_key] * 3


@given(st.integers(1, 8), st.integers(1, 200), st.integers(0, 50))
def test_what_cannot_be_spared_is_less_than_what_is_counted(
    batch: int, prompt: int, new: int
) -> None:
    found = work_of(SHAPES["gpt2"], batch, prompt, new)
    assert 0 < found.least_flops <= found.flops
    assert len(found.results) == max(1, new)
    assert sum(p.flops for p in found.products) <= found.least_flops


def test_layers_and_head_together_are_all_of_a_forward() -> None:
    for name in CONFIGS:
        shape = SHAPES[name]
        for batch, tokens in ((1, 1), (1, 128), (3, 77), (64, 1024)):
            found = work_of(shape, batch, tokens)
            layers = work_of(shape, batch, tokens, head=False)
            head = 2 * batch * tokens * shape.width * shape.vocabulary
            assert layers.least_flops + head == found.least_flops
            embedding = shape.width * shape.vocabulary
            assert found.forward_bytes(4, 0) == (4 * (shape.layer_weights + embedding),)
            assert layers.forward_bytes(2, 7) == (2 * shape.layer_weights,)


def test_a_lower_bound_is_work_over_rate_beyond_what_a_cache_keeps() -> None:
    assert work.lower_bounds_ms(2e9, [5e6, 1e6, 3e6], 4.0, 100.0, 2e6) == (0.5, 0.04)


def test_casts_of_autocast_are_those_that_were_counted() -> None:
    assert work.cast_bytes(SHAPES["gpt2"], 1, 128) == pytest.approx(827e6, rel=0.001)
    assert work.scaled(158, SHAPES["gpt2-medium"]) == 316


def test_what_the_driver_and_the_report_load_of_a_measurement_needs_no_torch() -> None:
    code = (
        "import sys, bench.outcomes, bench.stats, bench.timing, bench.profile.work\n"
        "sys.exit(bool({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
