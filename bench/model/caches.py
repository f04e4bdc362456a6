"""The two key-value caches of the engines: none, and one of a fixed length."""

from typing import Any

import torch
from transformers.cache_utils import Cache

Pair = tuple[torch.Tensor, torch.Tensor]


class NoCache(Cache):  # type: ignore[misc]  # transformers is not typed for us
    """Keeps nothing and says so.

    With use_cache alone, either each forward copies its keys and values (true), or it waits for
    the device to tell whether positions are packed (false; masking_utils.py of transformers 5),
    so that no queue could ever be full.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> Pair:
        """The keys and values as they are given."""
        return keys, values

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """No token is held."""
        return 0

    def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
        """Length and offset of what is attended to: the queries themselves."""
        # Older releases give the positions themselves.
        return query_length if isinstance(query_length, int) else len(query_length), 0


class StaticCache(Cache):  # type: ignore[misc]  # transformers is not typed for us
    """As transformers' own, but a prompt always begins it anew, without asking the device.

    transformers' own reads its length back from the device at each prompt after the first, and
    while a graph is captured it builds a mask in place of the causal attention kernel.
    """

    is_compileable = True  # so that a mask hides what no token was written to yet
    position: torch.Tensor | None = None  # None for a prompt, else a new token's position, (1,)

    def __init__(self, length: int) -> None:
        """Args: length: in tokens, of prompt and continuation."""
        super().__init__(layers=[])
        self.length = length
        self.buffers: dict[int, Pair] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> Pair:
        """Write keys and values (batch, heads, tokens, width); all that there are to attend to."""
        if layer not in self.buffers:
            # Zeros: what is masked is multiplied by 0, and a NaN would stay one.
            shape = (*keys.shape[:2], self.length, keys.shape[3])
            self.buffers[layer] = keys.new_zeros(shape), values.new_zeros(shape)
        for buffer, given in zip(self.buffers[layer], (keys, values), strict=True):
            if self.position is None:
                buffer[:, :, : keys.shape[2]] = given
            else:
                buffer.index_copy_(2, self.position, given)
        return (keys, values) if self.position is None else self.buffers[layer]

    def get_seq_length(self, *_: Any, **__: Any) -> Any:
        """Where the next token goes."""
        return 0 if self.position is None else self.position

    def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
        """Length and offset of what is attended to."""
        return query_length if self.position is None else self.length, 0
