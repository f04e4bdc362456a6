"""GPT-2 by formula, as a table without rows needs it, equals the work of a loaded model."""

from __future__ import annotations

import pytest
from transformers import GPT2Config

from bench.asked import Workload
from bench.profile import peaks as ceiling
from bench.profile import work as gpt2
from bench.profile.work import Shape

CONFIGS = {
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(n_layer=24, n_embd=1024, n_head=16),
}
STORED = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "mixed": 4}


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 128), (8, 128), (3, 77), (64, 1024)])
def test_the_operations_are_the_least_of_the_ceiling(model: str, batch: int, tokens: int) -> None:
    shape = gpt2.SHAPES[model]
    found = ceiling.work(CONFIGS[model], Workload(model, "eager", batch, tokens), 4, 4)
    block = gpt2.block_flops(shape, batch, tokens)
    assert block + gpt2.head_flops(shape, batch, tokens) == found.least_flops
    head = next(product for product in found.products if product.transposed)
    assert gpt2.head_flops(shape, batch, tokens) == head.flops


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("precision", STORED)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 128), (8, 128), (3, 77)])
def test_the_weights_are_the_least_bytes_of_the_ceiling_without_its_logits(
    model: str, precision: str, batch: int, tokens: int
) -> None:
    shape = gpt2.SHAPES[model]
    asked = Workload(model, "eager", batch, tokens)
    (moved,) = ceiling.work(CONFIGS[model], asked, STORED[precision], 2).forward_bytes
    logits = 2 * batch * tokens * shape.vocabulary
    weights = gpt2.block_bytes(shape, precision) + gpt2.head_bytes(shape, precision)
    assert weights == moved - logits


@pytest.mark.parametrize("model", CONFIGS)
def test_the_shapes_are_those_of_the_models(model: str) -> None:
    config = CONFIGS[model]
    assert gpt2.SHAPES[model] == Shape(
        config.n_layer, config.n_embd, config.vocab_size, config.n_positions
    )
