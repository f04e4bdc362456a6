"""Perplexity: every token of a text predicted exactly once.

One stream, `BOS` and then the text's tokens, is read through windows of at most `context` tokens;
each window scores its newest `stride` tokens, with all that stands before them in the window as
their context. There is no padding: it would be scored or change the positions. Only the scored
rows go through the head, a few hundred at a time in the tested type; the log-softmax is fp32 at
every precision, and sums are fp64. Nats and counts are kept, and every perplexity derives from
them.

Two peers' protocols stand beside ours, so that a number of theirs can be made again: the strided
recipe of transformers' guide (`hf-docs`), and the wikitext task of lm-eval (`lm-eval`).
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import stats
from bench.asked import HF_DOCS, LM_EVAL, QualityPlan
from bench.errors import TensorgapError
from bench.measured import UNRECOGNISED, Quality, Weights
from bench.model.load import Model, token_ids
from bench.text import load as texts
from bench.text import published
from bench.text.detokenizer import detokenize
from bench.warnings import RowWarning, Value

if TYPE_CHECKING:
    import torch

# Enough for the matrix products of a CPU; more would only take memory.
_TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 8192}
_HEAD_ROWS = 256  # 256 rows x 50,257 logits x 4 B = 51 MB: the full logits never exist
_WINDOWS_CHECKED = 8  # alone and in their batch
_WINDOWS_ROUNDED = 32  # through a head that stores float32
# Nats per token by which a window may differ in a batch: other kernels sum in another order.
_BATCH_TOLERANCE = {"fp32": 1e-5}
_BATCH_TOLERANCE_OTHERS = 1e-3


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
    def length(self) -> int:
        """How many tokens this window reads."""
        return self.end - self.start

    @property
    def scored(self) -> int:
        """How many tokens this window scores."""
        return self.end + 1 - self.first

    def shifted(self, offset: int) -> Window:
        """The same window further on in the stream."""
        return Window(self.start + offset, self.end + offset, self.first + offset)


@dataclass(frozen=True)
class Reading:
    """A text as a protocol reads it.

    Attributes:
        stream: Token ids, each BOS among them.
        windows: In the order of the stream.
        counts: Tokens that each window stands for in the mean; what it scores, but in hf-docs.
        ids: Token ids of the text, without BOS.
        words: By which word perplexity divides; None where the protocol leaves tokens out.
        bytes: By which bits per byte divide; None likewise.
    """

    stream: list[int]
    windows: list[Window]
    counts: list[int]
    ids: list[int]
    words: int | None
    bytes: int | None
    context: int
    stride: int


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


def guide_windows(tokens: int, context: int, stride: int) -> Iterator[tuple[Window, int]]:
    """Windows of the strided recipe over `tokens` tokens without BOS, and what each counts for.

    From docs/source/en/perplexity.md of transformers: labels of the overlap are masked, the model
    shifts the labels, and the mean loss of a window counts for one token less than it has labels.
    So the first token of the text, and of each window without overlap, is never scored; and a
    window that overlaps counts for one token less than it scores.

    >>> [(w.start, w.end, w.first, count) for w, count in guide_windows(7, 4, 2)]
    [(0, 3, 1, 3), (2, 5, 4, 1)]
    """
    previous = 0
    for start in range(0, tokens, stride):
        end = min(start + context, tokens)
        count = end - previous - 1
        if count > 0:
            yield Window(start, end - 1, max(previous, start + 1)), count
        previous = end
        if end == tokens:
            return


def read(model: Model, text: texts.Text, plan: QualityPlan) -> Reading:
    """The stream and the windows of a plan's protocol.

    Raises TensorgapError where the tokenizer makes nothing of the text, or what its weights know
    no word for.
    """
    context = min(plan.context, model.positions)
    stride = min(plan.stride, context)
    if plan.mode == LM_EVAL:
        return _read_pages(model, text.pages(), context)
    ids = token_ids(model, text.text)
    texts.check_tokens(text, ids, model.vocabulary)
    if plan.mode == HF_DOCS:
        pairs = list(guide_windows(len(ids), context, stride))
        chosen, counts = [window for window, _ in pairs], [count for _, count in pairs]
        return Reading(ids, chosen, counts, ids, None, None, context, stride)
    chosen = list(windows(len(ids), context, stride))
    counts = [window.scored for window in chosen]
    stream = [model.bos, *ids]
    return Reading(stream, chosen, counts, ids, text.words, text.bytes, context, stride)


def _read_pages(model: Model, pages: Sequence[str], context: int) -> Reading:
    """Pages as lm-eval's wikitext task reads them, each a stream of its own after a BOS.

    Words and bytes are those of the page before it is de-tokenised, and words are counted with an
    empty one at either end of a page that begins and ends with white space, as there.
    """
    stream: list[int] = []
    chosen: list[Window] = []
    every: list[int] = []
    for page in pages:
        ids = token_ids(model, detokenize(page))
        chosen.extend(w.shifted(len(stream)) for w in windows(len(ids), context, context))
        stream += [model.bos, *ids]
        every += ids
    words = sum(len(re.split(r"\s+", page)) for page in pages)
    size = sum(len(page.encode()) for page in pages)
    counts = [window.scored for window in chosen]
    return Reading(stream, chosen, counts, every, words, size, context, context)


def measure_quality(model: Model, plan: QualityPlan) -> Quality:
    """Perplexity of a model, within `bench.device.precision.applied`; or the reason why there is none.

    Raises TensorgapError for a text that cannot be had or that the model has no words for.
    """
    if model.tokenizer is None:
        reason = "random weights have learnt nothing: a perplexity would mean nothing"
        return Quality(text=plan.text, reason=reason)
    start = time.perf_counter()
    found = evaluate(model, texts.load(plan), plan)
    return replace(found, elapsed_s=time.perf_counter() - start)


def evaluate(model: Model, text: texts.Text, plan: QualityPlan) -> Quality:
    """Perplexity on a text that is there already; otherwise as `measure_quality`."""
    reading = read(model, text, plan)
    if not reading.windows:
        raise TensorgapError(f"{text.name}: the tokenizer makes no token of it, or too few")
    nats = window_nats(model, reading.stream, reading.windows)
    if not math.isfinite(math.fsum(nats)):
        # fp16 overflows at 65,504; a model trained in bf16 may exceed it.
        reason = f"the sum of nats is {math.fsum(nats)}: numbers overflowed at this precision"
        return Quality(text=text.name, reason=reason)
    if plan.mode != HF_DOCS and sum(reading.counts) != len(reading.ids):
        raise AssertionError(f"{sum(reading.counts)} tokens scored of {len(reading.ids)}")
    rounding = _logit_rounding(model, reading)
    difference = _batch_difference(model, reading, nats)
    counted = [
        n * (count / window.scored)
        for n, count, window in zip(nats, reading.counts, reading.windows, strict=True)
    ]
    total, tokens = math.fsum(counted), sum(reading.counts)
    return Quality(
        text=text.name,
        nats=total,
        tokens=tokens,
        words=reading.words,
        bytes=reading.bytes,
        perplexity=_exp(total / tokens),
        word_perplexity=_exp(total / reading.words) if reading.words else None,
        bits_per_byte=total / math.log(2) / reading.bytes if reading.bytes else None,
        standard_error=stats.clustered_error(counted, reading.counts),
        floor_perplexity=None if text.floor_nats is None else _exp(text.floor_nats / tokens),
        mode=plan.mode,
        context=reading.context,
        stride=reading.stride,
        window_nats=tuple(counted),
        window_tokens=tuple(reading.counts),
        logits_dtype=str(_logits_dtype(model)).removeprefix("torch."),
        logit_rounding_nats=rounding.mean if rounding else None,
        logit_rounding_error_nats=rounding.error if rounding else None,
        batch_difference_nats=difference,
        text_sha256=text.sha256,
        tokens_sha256=texts.tokens_sha256(reading.ids),
    )


def warnings(
    found: Quality | None, weights: Weights, model: str, precision: str
) -> list[RowWarning]:
    """What weakens a perplexity; `model` is the name that was asked for."""
    if found is None or weights.sha256 is None:
        return []
    if found.reason is not None:
        return [RowWarning("perplexity-not-measured", {"reason": found.reason})]
    told = []
    if model in published.GPT2_NAMES and weights.published_as == UNRECOGNISED:
        told.append(RowWarning("weights-not-published", {"model": model}))
    allowed = _BATCH_TOLERANCE.get(precision, _BATCH_TOLERANCE_OTHERS)
    nats = found.batch_difference_nats
    if nats is not None and nats > allowed:
        told.append(RowWarning("perplexity-depends-on-batch", {"nats": nats, "allowed": allowed}))
    if weights.published_as == published.GPT2 and precision == "fp32":
        told.extend(_far_from_published(found))
    return told


def _far_from_published(found: Quality) -> Iterator[RowWarning]:
    """What is published for GPT-2 and this very protocol, or failing that for its context."""
    text = published.text_of(found.text_sha256 or "")
    if text is None or text.name != published.WIKITEXT2_TEST or found.context is None:
        return
    asked = (found.mode, found.context, found.stride)
    measured = {
        published.TOKEN: found.perplexity,
        published.WORD: found.word_perplexity,
        published.BITS_PER_BYTE: found.bits_per_byte,
    }
    alike = [p for p in published.PUBLISHED if (p.mode, p.context, p.stride) == asked]
    for known in alike:
        value = measured[known.unit]
        if value is not None and abs(value / known.value - 1) > known.within:
            values: dict[str, Value] = {
                "value": value,
                "unit": known.unit,
                "published": known.value,
                "within": known.within,
                "source": known.source,
            }
            yield RowWarning("perplexity-unlike-published", values)
    expected = published.expected_perplexity(found.context)
    if not alike and found.mode != LM_EVAL and expected and found.perplexity:
        low, high = expected
        if not low <= found.perplexity <= high:
            values = {"value": found.perplexity, "low": low, "high": high, "context": found.context}
            yield RowWarning("perplexity-out-of-range", values)


# ------------------------------------------------------------------------------- sums of nats


def window_nats(model: Model, stream: Sequence[int], chosen: Sequence[Window]) -> list[float]:
    """Sum of -ln p over the scored tokens of each window, in nats."""
    return _sums(model, stream, chosen, [Head(model)])[0]


def token_nats(
    model: Model, stream: Sequence[int], chosen: Sequence[Window], heads: Sequence[Head] = ()
) -> Iterator[tuple[torch.Tensor, ...]]:
    """-ln p of the scored tokens, window by window, for each head: float32 or 64, (scored,)."""
    import torch

    device = model.module.device
    heads = heads or [Head(model)]
    ids = torch.tensor(stream, dtype=torch.long, device=device)
    for batch in _batches(chosen, _TOKENS_AT_ONCE[device.type]):
        with torch.inference_mode():
            states = _scored_states(model, ids, batch)
            targets = torch.cat([ids[w.first : w.end + 1] for w in batch])
            sizes = [window.scored for window in batch]
            found = [head.losses(states, targets).split(sizes) for head in heads]
        yield from zip(*found, strict=True)


def _sums(
    model: Model, stream: Sequence[int], chosen: Sequence[Window], heads: Sequence[Head]
) -> list[list[float]]:
    """For each head, the nats of each window."""
    import torch

    # Left on the device until the end, so that no window waits for the one before.
    rows = [
        torch.stack([nats.double().sum() for nats in window])
        for window in token_nats(model, stream, chosen, heads)
    ]
    sums: list[list[float]] = torch.stack(rows, dim=1).tolist()
    return sums


def _scored_states(model: Model, ids: torch.Tensor, batch: Sequence[Window]) -> torch.Tensor:
    """Hidden states (tokens, width) that predict the scored tokens of some windows."""
    import torch

    inputs = torch.stack([ids[w.start : w.end] for w in batch])
    hidden = model.module.transformer(input_ids=inputs, use_cache=False).last_hidden_state
    return torch.cat([row[-w.scored :] for row, w in zip(hidden, batch, strict=True)])


def _batches(chosen: Sequence[Window], tokens_at_once: int) -> Iterator[list[Window]]:
    """Neighbouring windows of equal length, a few at a time."""
    for length, alike in itertools.groupby(chosen, key=lambda window: window.length):
        at_once = max(1, tokens_at_once // length)
        while batch := list(itertools.islice(alike, at_once)):
            yield batch


class Head:
    """A model's head over some rows at a time, under the precision that is on.

    Args:
        exact: The same products of the same 16-bit numbers, but stored in float32; otherwise
            rounded to the type that the head stores its logits in, as it is tested.
    """

    def __init__(self, model: Model, exact: bool = False) -> None:
        import torch

        self._linear: Any = model.module.lm_head
        self._stored = _logits_dtype(model)
        self._wide: torch.Tensor | None = None
        if exact:
            self._wide = self._linear.weight.to(self._stored).float()
        elif self._stored.itemsize > 2:
            self._wide = self._linear.weight
        # One for all rows: fresh pages of this size cost as much time as a narrow product.
        self._buffer = torch.empty(
            (_HEAD_ROWS, model.vocabulary),
            dtype=torch.promote_types(self._stored, torch.float32),
            device=model.module.device,
        )

    def losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """-ln p of `targets` (tokens,) given hidden `states` (tokens, width): float32 or 64."""
        import torch

        found = self._buffer.new_empty(len(states))
        parts = (tensor.split(_HEAD_ROWS) for tensor in (states, targets, found))
        for rows, wanted, nats in zip(*parts, strict=True):
            logits = self._buffer[: len(rows)]
            self._fill(rows, logits)
            # In place: each logit is read for the last time where its result is written.
            torch.log_softmax(logits, dim=-1, out=logits)
            torch.neg(logits.gather(1, wanted[:, None])[:, 0], out=nats)
        return found

    def _fill(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        import torch

        if self._wide is None:
            logits.copy_(self._linear(rows))
            return
        with torch.autocast(logits.device.type, enabled=False):
            torch.mm(rows.to(self._stored).to(logits.dtype), self._wide.T, out=logits)


def _logits_dtype(model: Model) -> torch.dtype:
    """The type of the head's output under the precision that is on."""
    import torch

    head: Any = model.module.lm_head
    row = torch.zeros((1, head.in_features), dtype=head.weight.dtype, device=head.weight.device)
    # Of a slice: autocast would cast the whole weight for one row.
    with torch.inference_mode():
        dtype: torch.dtype = torch.nn.functional.linear(row, head.weight[:1]).dtype
    return dtype


def _logit_rounding(model: Model, reading: Reading) -> stats.Difference | None:
    """What storing logits in 16 bits adds, in nats per token; None where they are wider."""
    if _logits_dtype(model).itemsize > 2:
        return None
    chosen = _evenly(reading.windows, _WINDOWS_ROUNDED)
    rounded, exact = _sums(model, reading.stream, chosen, [Head(model), Head(model, exact=True)])
    return stats.paired_difference(rounded, exact, [window.scored for window in chosen])


def _batch_difference(model: Model, reading: Reading, nats: Sequence[float]) -> float | None:
    """Greatest difference, in nats per token, between windows alone and in their batch."""
    tokens_at_once = _TOKENS_AT_ONCE[model.module.device.type]
    batches = _batches(reading.windows, tokens_at_once)
    together = [w for batch in batches if len(batch) > 1 for w in batch]
    in_batch = dict(zip(reading.windows, nats, strict=True))
    differences = [
        abs(window_nats(model, reading.stream, [window])[0] - in_batch[window]) / window.scored
        for window in _evenly(together, _WINDOWS_CHECKED)
    ]
    return max(differences, default=None)


def _evenly(chosen: Sequence[Window], most: int) -> list[Window]:
    """At most so many windows, from all over the text."""
    step = max(1, -(-len(chosen) // most))
    return list(chosen[::step])


def _exp(value: float) -> float | None:
    """exp, or None where the result exceeds what a float holds."""
    try:
        return math.exp(value)
    except OverflowError:
        return None
