"""Perplexity: every token of a text predicted exactly once.

One stream, `BOS` and then the text's tokens, is read through windows of at most `context` tokens;
each window scores its newest `stride` tokens, with all that stands before them in the window as
their context. There is no padding: it would be scored or change the positions. The head runs over
a few hundred rows at a time in the tested type; the log-softmax is fp32 at every precision, and
sums are fp64. Nats and counts are kept, and every perplexity derives from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import text as texts
from bench.model import Model, token_ids
from bench.records import Quality, QualityPlan, TensorgapError

if TYPE_CHECKING:
    import torch

_WINDOWS_AT_ONCE = 8
_HEAD_ROWS = 256  # 256 rows x 50,257 logits x 4 B = 51 MB: the full logits never exist


@dataclass(frozen=True)
class Window:
    """Read stream[start:end]; score the predictions of stream[first:end + 1].

    The token at position p of the stream is predicted from the tokens before it, so that a window
    that reads up to `end` also predicts the token at `end`.
    """

    start: int
    end: int
    first: int

    @property
    def scored(self) -> int:
        """How many tokens this window scores."""
        return self.end + 1 - self.first


def windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Windows over a stream of BOS and `tokens` tokens (positions 1 to `tokens`).

    Each position from 1 to `tokens` is scored in exactly one window, with at least one token and
    at most `context` tokens before it; no window is longer than `context`. The last window
    reaches back to a full context. With stride == context this is lm-eval's rule.

        context 4, stride 2, tokens 7:   B 1 2 3 4 5 6 7
            reads [0, 4)                 ~ ~ ~ ~          scores 1 2 3 4
            reads [2, 6)                     ~ ~ ~ ~      scores 5 6
            reads [3, 7)                       ~ ~ ~ ~    scores 7

    >>> [(w.start, w.end, w.first) for w in windows(7, 4, 2)]
    [(0, 4, 1), (2, 6, 5), (3, 7, 7)]
    """
    end = min(context, tokens)
    first = 1
    while first <= tokens:
        yield Window(max(0, end - context), end, first)
        first = end + 1
        end = min(end + stride, tokens)


def measure_quality(model: Model, plan: QualityPlan) -> Quality:
    """Perplexity of a model, within `bench.precision.applied`; or the reason why there is none.

    Raises TensorgapError for a text that cannot be had or that the model has no words for.
    """
    if model.tokenizer is None:
        reason = "random weights have learnt nothing: a perplexity would mean nothing"
        return Quality(text=plan.text, reason=reason)
    start = time.perf_counter()
    text = texts.load(plan)
    ids = token_ids(model, text.text)
    if not ids:
        raise TensorgapError(f"{text.name}: the tokenizer makes no token of it")
    context = min(plan.context, model.positions)
    stride = min(plan.stride, context)
    chosen = list(windows(len(ids), context, stride))
    nats = window_nats(model, ids, chosen)
    total = math.fsum(nats)
    if not math.isfinite(total):
        # fp16 overflows at 65,504; a model trained in bf16 may exceed it.
        reason = f"the sum of nats is {total}: numbers overflowed at this precision"
        return Quality(text=text.name, reason=reason)
    scored = [window.scored for window in chosen]
    if sum(scored) != len(ids):
        raise AssertionError(f"{sum(scored)} tokens scored, {len(ids)} in the text")
    return Quality(
        text=text.name,
        nats=total,
        tokens=len(ids),
        words=text.words,
        bytes=text.bytes,
        perplexity=_exp(total / len(ids)),
        word_perplexity=_exp(total / text.words),
        bits_per_byte=total / math.log(2) / text.bytes,
        standard_error=_standard_error(nats, scored),
        floor_perplexity=None if text.floor_nats is None else _exp(text.floor_nats / len(ids)),
        context=context,
        stride=stride,
        text_sha256=text.sha256,
        tokens_sha256=texts.tokens_sha256(ids),
        elapsed_s=time.perf_counter() - start,
    )


def window_nats(model: Model, ids: Sequence[int], chosen: Sequence[Window]) -> list[float]:
    """Sum of -ln p over the scored tokens of each window, in nats."""
    import torch

    device = model.module.device
    stream = torch.tensor([model.bos, *ids], dtype=torch.long, device=device)
    nats: list[float] = []
    with torch.inference_mode():
        for batch in _batches(chosen):
            inputs = torch.stack([stream[w.start : w.end] for w in batch])
            hidden = model.module.transformer(input_ids=inputs, use_cache=False).last_hidden_state
            for row, window in zip(hidden, batch, strict=True):
                targets = stream[window.first : window.end + 1]
                states = row[window.first - 1 - window.start :]
                nats.append(_nats(model, states, targets))
    return nats


def _batches(chosen: Sequence[Window]) -> Iterator[list[Window]]:
    """Neighbouring windows of equal length, a few at a time."""
    batch: list[Window] = []
    for window in chosen:
        alike = not batch or window.end - window.start == batch[0].end - batch[0].start
        if not alike or len(batch) == _WINDOWS_AT_ONCE:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _nats(model: Model, states: torch.Tensor, targets: torch.Tensor) -> float:
    """-ln p of `targets` (tokens,) given hidden `states` (tokens, width)."""
    import torch

    total = 0.0
    head: Any = model.module.lm_head
    for rows, wanted in zip(states.split(_HEAD_ROWS), targets.split(_HEAD_ROWS), strict=True):
        logits = head(rows).float()
        losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        total += losses.double().sum().item()
    return total


def _standard_error(nats: Sequence[float], tokens: Sequence[int]) -> float | None:
    """Of sum(nats) / sum(tokens), with windows as clusters (Cochran 1977, section 6.4)."""
    count = len(nats)
    if count < 2:
        return None
    mean = math.fsum(nats) / sum(tokens)
    residuals = math.fsum((n - mean * t) ** 2 for n, t in zip(nats, tokens, strict=True))
    return math.sqrt(residuals * count / (count - 1)) / sum(tokens)


def _exp(value: float) -> float | None:
    """exp, or None where the result exceeds what a float holds."""
    try:
        return math.exp(value)
    except OverflowError:
        return None
