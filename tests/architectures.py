"""Small models of random weights, of each family of decoders that is understood."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_USUAL = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GROUPED = {**_USUAL, "num_key_value_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 300, "n_positions": 128},
    "llama": {**_GROUPED, "head_dim": 24},
    "mistral": {**_GROUPED, "sliding_window": 8},
    "qwen2": {**_GROUPED, "tie_word_embeddings": True},
    "qwen3": {**_GROUPED, "head_dim": 32},
    "gpt_neox": _USUAL,
    "opt": {**_USUAL, "ffn_dim": 160, "word_embed_proj_dim": 64},
    "phi": _USUAL,
    "phi3": _GROUPED,
    "gemma": {**_USUAL, "num_key_value_heads": 1, "head_dim": 32},
    "gemma2": {**_GROUPED, "head_dim": 32, "attn_logit_softcapping": None, "sliding_window": 8},
    "starcoder2": _GROUPED,
    "olmo2": _GROUPED,
    "smollm3": _GROUPED,
    "granite": _GROUPED,
}


def config_of(family: str, **changes: Any) -> Any:
    """A small configuration of a family, as transformers makes it."""
    return AutoConfig.for_model(family, **{**SMALL[family], **changes})


def on_meta(config: Any, **given: Any) -> Any:
    """The model of a configuration, whose parameters take no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **given).eval()
