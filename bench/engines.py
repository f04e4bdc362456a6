"""How a forward pass is run.

eager   each operation is launched from Python as it comes: what most users run
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

Forward = Callable[["torch.Tensor"], "torch.Tensor"]


def forward(engine: str, model: GPT2LMHeadModel) -> Forward:
    """A function from token ids (batch, tokens) to logits (batch, tokens, vocabulary)."""
    return {"eager": _eager}[engine](model)


def _eager(model: GPT2LMHeadModel) -> Forward:
    from transformers.cache_utils import Cache

    class NoCache(Cache):  # type: ignore[misc]  # transformers is not typed for us
        """Keeps nothing and says so.

        With use_cache alone, either each forward copies its keys and values (true), or it waits for
        the device to tell whether positions are packed (false; masking_utils.py of transformers 5),
        so that no queue could ever be full.
        """

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return key_states, value_states

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            return 0

        def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
            # Older releases give the positions themselves.
            return query_length if isinstance(query_length, int) else len(query_length), 0

    # By position: the argument is called past_key_values before transformers 5.24 and cache after.
    nothing = NoCache(layers=[])

    def run(ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(ids, nothing, use_cache=False).logits
        return logits

    return run
