"""Nats of a model's predictions: through its head some rows at a time, log-softmax in fp32."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bench.errors import TensorgapError
from bench.model.load import Model
from bench.perplexity.windows import TokenWindow, batches

# Enough for the matrix products of a CPU; more would only take memory.
TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 8192}
HEAD_ROWS = 256  # 256 rows x 50,257 logits x 4 B = 51 MB: the full logits never exist
_CHECKED = 8  # tokens of which the model's own logits are made


class Head:
    """A model's head over some rows at a time, under the precision that is on.

    Args:
        exact: The same products of the same 16-bit numbers, but stored in float32; otherwise
            rounded to the type that the head stores its logits in, as it is tested.
    """

    def __init__(self, model: Model, exact: bool = False) -> None:
        self._linear = linear_of(model)
        config = model.module.config
        # transformers, modeling_granite.py and modeling_gemma2.py.
        self._divisor: float = getattr(config, "logits_scaling", 1.0)
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)
        self._stored = logits_dtype(model)
        self._wide: list[torch.Tensor] = []  # weight, and bias where there is one
        if exact or self._stored.itemsize > 2:
            given = [t for t in (self._linear.weight, self._linear.bias) if t is not None]
            self._wide = [t.to(self._stored).float() for t in given] if exact else given
        # One for all rows: fresh pages of this size cost as much time as a narrow product.
        self._buffer = torch.empty(
            (HEAD_ROWS, model.vocabulary),
            dtype=torch.promote_types(self._stored, torch.float32),
            device=model.module.device,
        )

    def losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """-ln p of `targets` (tokens,) given hidden `states` (tokens, width): float32 or 64."""
        found = self._buffer.new_empty(len(states))
        parts = (tensor.split(len(self._buffer)) for tensor in (states, targets, found))
        for rows, wanted, nats in zip(*parts, strict=True):
            logits = self.logits(rows)
            # In place: each logit is read for the last time where its result is written.
            torch.log_softmax(logits, dim=-1, out=logits)
            torch.neg(logits.gather(1, wanted[:, None])[:, 0], out=nats)
        return found

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Of hidden states (at most HEAD_ROWS, width), until it is called again."""
        logits = self._buffer[: len(rows)]
        if not self._wide:
            return logits.copy_(self.bent(self._linear(rows)))
        weight, *bias = self._wide
        with torch.autocast(logits.device.type, enabled=False):
            torch.mm(rows.to(self._stored).to(logits.dtype), weight.T, out=logits)
        for one in bias:
            logits += one
        return self.bent(logits)

    def bent(self, logits: torch.Tensor) -> torch.Tensor:
        """What the family makes of the linear layer's output: scaled, or within a cap; in place."""
        if self._divisor != 1:
            logits /= self._divisor
        return logits if self._cap is None else logits.div_(self._cap).tanh_().mul_(self._cap)


def linear_of(model: Model) -> Any:
    """The layer that makes logits of hidden states, tied to the embedding or not."""
    return model.module.get_output_embeddings()


def hidden_states(model: Model, inputs: torch.Tensor, **more: Any) -> torch.Tensor:
    """What the head reads (batch, tokens, width): after the last norm."""
    states: torch.Tensor
    states = model.module.base_model(input_ids=inputs, use_cache=False, **more).last_hidden_state
    return states


def check(model: Model, stream: Sequence[int]) -> None:
    """Raise TensorgapError where the model makes other logits than its head as it is read here.

    Families differ in what follows the head, and the next one may scale or cap in another way.
    """
    with torch.inference_mode():
        first = stream[: min(_CHECKED, model.positions)]
        inputs = torch.tensor([first], dtype=torch.long, device=model.module.device)
        own = model.module(input_ids=inputs, use_cache=False).logits[0].double()
        found = Head(model).logits(hidden_states(model, inputs)[0]).double()
    difference = float((found - own).abs().max() / own.abs().max())
    # Half of the digits: sums in another order differ in the last ones only.
    allowed = math.sqrt(torch.finfo(logits_dtype(model)).eps)
    if difference > allowed:  # which no overflow is
        raise TensorgapError(
            f"the logits of a {model.module.config.model_type} are not its head's products: they"
            f" differ by {difference:.2g} of the greatest, where rounding allows {allowed:.2g}"
        )


def logits_dtype(model: Model) -> torch.dtype:
    """The type of the head's output under the precision that is on."""
    weight: Any = linear_of(model).weight
    # Of a slice: autocast would cast the whole weight for one row.
    with torch.inference_mode():
        dtype: torch.dtype = torch.nn.functional.linear(weight[:1], weight[:1]).dtype
    return dtype


def scored_states(model: Model, ids: torch.Tensor, batch: Sequence[TokenWindow]) -> torch.Tensor:
    """Hidden states (tokens, width) that predict the scored tokens of some windows."""
    inputs = torch.stack([ids[w.start : w.end] for w in batch])
    hidden = hidden_states(model, inputs)
    return torch.cat([row[-w.scored :] for row, w in zip(hidden, batch, strict=True)])


def token_nats(
    model: Model, stream: Sequence[int], chosen: Sequence[TokenWindow], heads: Sequence[Head]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """-ln p of the scored tokens, window by window, for each head: float32 or 64, (scored,)."""
    device = model.module.device
    ids = torch.tensor(stream, dtype=torch.long, device=device)
    for batch in batches(chosen, TOKENS_AT_ONCE[device.type]):
        with torch.inference_mode():
            states = scored_states(model, ids, batch)
            targets = torch.cat([ids[w.first : w.end + 1] for w in batch])
            sizes = [window.scored for window in batch]
            found = [head.losses(states, targets).split(sizes) for head in heads]
        yield from zip(*found, strict=True)


def window_nats(model: Model, stream: Sequence[int], chosen: Sequence[TokenWindow]) -> list[float]:
    """Sum of -ln p over the scored tokens of each window, in nats."""
    return window_sums(model, stream, chosen, [Head(model)])[0]


def window_sums(
    model: Model, stream: Sequence[int], chosen: Sequence[TokenWindow], heads: Sequence[Head]
) -> list[list[float]]:
    """For each head, of the same hidden states, the nats of each window."""
    # Left on the device until the end, so that no window waits for the one before.
    rows = [
        torch.stack([nats.double().sum() for nats in window])
        for window in token_nats(model, stream, chosen, heads)
    ]
    sums: list[list[float]] = torch.stack(rows, dim=1).tolist()
    return sums
