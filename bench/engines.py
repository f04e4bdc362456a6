"""How a forward pass is run.

eager   each operation is launched from Python as it comes: what most users run
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

Forward = Callable[["torch.Tensor"], "torch.Tensor"]


def forward(engine: str, model: GPT2LMHeadModel) -> Forward:
    """A function from token ids (batch, tokens) to logits (batch, tokens, vocabulary)."""
    return {"eager": _eager}[engine](model)


def _eager(model: GPT2LMHeadModel) -> Forward:
    def run(ids: torch.Tensor) -> torch.Tensor:
        # Without a cache: nothing is generated, so 24 copies of keys and values would be waste.
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return logits

    return run
