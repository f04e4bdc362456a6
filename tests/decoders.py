"""Small decoders of each family that is understood, with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.lookup import TINY_FOLDER

WINDOW = 24  # of those that have one
_COMMON: dict[str, Any] = {
    "vocab_size": 600,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_GROUPED = _COMMON | {"intermediate_size": 48, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": 600, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {**_GPT2, "bos_token_id": 0, "eos_token_id": 0},
    "llama": {**_GROUPED, "tie_word_embeddings": True},
    "mistral": {**_GROUPED, "sliding_window": WINDOW},
    "qwen2": {**_GROUPED, "tie_word_embeddings": True},
    "qwen3": {**_GROUPED, "head_dim": 16},
    "gpt_neox": {**_COMMON, "intermediate_size": 48},
    "opt": {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {**_COMMON, "intermediate_size": 48},
    "phi3": _GROUPED,
    "gemma": {**_GROUPED, "num_key_value_heads": 1, "head_dim": 16},
    "starcoder2": _GROUPED,
    "olmo2": _GROUPED,
    "smollm3": _GROUPED,
    "granite": {**_GROUPED, "logits_scaling": 0.5},
    "gemma2": {
        **_GROUPED,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": 5.0,
    },
}


def config_of(family: str, **changes: Any) -> Any:
    """A small configuration of a family, as transformers makes it."""
    return transformers.AutoConfig.for_model(family, **{**CONFIGS[family], **changes})


def on_meta(config: Any, **given: Any) -> Any:
    """The model of a configuration, whose parameters take no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **given).eval()


def built(family: str, **changes: Any) -> PreTrainedModel:
    """A model whose weights are so large that every token and position matters."""
    config = config_of(family, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for weight in module.parameters():
                if weight.dim() > 1:
                    weight.normal_(std=0.3)
                else:
                    weight.add_(torch.randn(weight.shape), alpha=0.1)
    return module.eval()


def saved(folder: Path, family: str, dtype: torch.dtype = torch.float32, **how: Any) -> Path:
    """A folder with such a model, as transformers saves it, and the embedded tokenizer."""
    built(family).to(dtype).save_pretrained(folder, **how)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY_FOLDER / name, folder / name)
    return folder
