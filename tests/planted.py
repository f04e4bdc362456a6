"""Models whose every prediction is known, and the tokenizers that go with them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bench import decoders
from bench.measured import Weights
from bench.model.load import Model


def as_model(module: Any, tokenizer: Any = None) -> Model:
    """Of any family and as many layers as it has, also none: only its tokens are told."""
    config, weights = module.config, Weights(0, 0, str(module.dtype))
    shape = dataclasses.replace(
        decoders.of_config({"model_type": "gpt2"}),
        family=config.model_type,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
    )
    return Model(module.eval().requires_grad_(False), tokenizer, weights, shape)


def planted(log_steps: Sequence[float], positions: int = 16) -> GPT2LMHeadModel:
    """A GPT-2 without layers that predicts token x + d (mod the vocabulary) with a known p(d).

    A token's embedding is the unit vector e(x). The final LayerNorm makes it (e(x) - mean) / s,
    and the head, s log p(d) at row x + d and column x, makes that log p(d) less a constant: each
    row of the head has the same sum, since each step stands in it once.
    """
    size = len(log_steps)
    config = GPT2Config(
        vocab_size=size,
        n_positions=positions,
        n_embd=size,
        n_layer=0,
        n_head=1,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    module = GPT2LMHeadModel(config).double()
    scale = math.sqrt((1 - 1 / size) / size + config.layer_norm_epsilon)
    with torch.no_grad():
        module.transformer.wte.weight.copy_(torch.eye(size))
        module.transformer.wpe.weight.zero_()
        for x in range(size):
            for step, log_p in enumerate(log_steps):
                module.lm_head.weight[(x + step) % size, x] = scale * log_p
    return module


def seeded(
    vocabulary: int, positions: int, width: int, spread: float, bos: int = 0
) -> GPT2LMHeadModel:
    """A GPT-2 of two layers with the same random weights each time, in float64.

    They are so large (`spread` is their standard deviation) that every token and position matters.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=positions,
            n_embd=width,
            n_layer=2,
            n_head=2,
            initializer_range=spread,
            bos_token_id=bos,
            eos_token_id=bos,
        )
        return GPT2LMHeadModel(config).double().eval()


class FixedTokenizer:
    """Makes the same tokens of every text."""

    unk_token_id = None

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": self._ids}


class LetterTokenizer:
    """One token per letter, by its place in an alphabet; 0 is no letter's."""

    unk_token_id = None

    def __init__(self, alphabet: str) -> None:
        self._ids = {letter: index for index, letter in enumerate(alphabet, start=1)}

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [self._ids[letter] for letter in text]}
