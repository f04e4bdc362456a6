"""Perplexity: every token of a text predicted exactly once.

One stream, BOS (or EOS, where a tokenizer has no BOS) and then the text's tokens, is read through
windows of at most `context` tokens; each window scores its newest `stride` tokens, with all that
stands before them in the window as their context. There is no padding: it would be scored or
change the positions. The log-softmax is fp32 at every precision, and sums are fp64. Every
perplexity derives from the nats and counts kept.

Two peers' protocols stand beside ours, so that a number of theirs can be made again: the strided
recipe of transformers' guide (`hf-docs`), and the wikitext task of lm-eval (`lm-eval`).
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench import stats
from bench.asked import HF_DOCS, LM_EVAL, QualityPlan
from bench.errors import TensorgapError
from bench.measured import UNRECOGNISED, Quality, Weights
from bench.model.load import Model
from bench.model.tokens import token_ids
from bench.perplexity import head
from bench.perplexity.head import Head, window_nats
from bench.perplexity.variants import perplexity_of
from bench.perplexity.windows import TokenWindow, batches, evenly, guide_windows, windows
from bench.text import published
from bench.text.detokenizer import detokenize
from bench.text.load import Text, check_tokens, load_text, tokens_sha256
from bench.warnings import RowWarning, Value

_WINDOWS_CHECKED = 8  # alone and in their batch
_WINDOWS_ROUNDED = 32  # through a head that stores float32
# Nats per token by which a window may differ in a batch: other kernels sum in another order.
_BATCH_TOLERANCE = {"fp32": 1e-5}
_BATCH_TOLERANCE_OTHERS = 1e-3


@dataclass(frozen=True)
class WindowedText:
    """A text as a protocol reads it."""

    stream: list[int]  # token ids, each BOS among them
    windows: list[TokenWindow]  # in the order of the stream
    ids: list[int]  # token ids of the text, without BOS
    words: int | None  # by which word perplexity divides; None where a protocol leaves tokens out
    bytes: int | None  # by which bits per byte divide; None likewise
    context: int  # in tokens, that this model and protocol really have
    stride: int


def read(model: Model, text: Text, plan: QualityPlan) -> WindowedText:
    """The stream and the windows of a plan's protocol.

    Raises TensorgapError where the tokenizer makes nothing of the text, or what its weights know
    no word for.
    """
    context = min(plan.context, model.positions)
    stride = min(plan.stride, context)
    if plan.mode == LM_EVAL:
        return _read_pages(model, text.pages(), context)
    ids = token_ids(model, text.text)
    if model.module.config.model_type == "gpt2":  # others may have another tokenizer of its size
        check_tokens(text, ids, model.vocabulary)
    if plan.mode == HF_DOCS:
        chosen = list(guide_windows(len(ids), context, stride))
        return WindowedText(ids, chosen, ids, None, None, context, stride)
    chosen = list(windows(len(ids), context, stride))
    return WindowedText([model.bos, *ids], chosen, ids, text.words, text.bytes, context, stride)


def _read_pages(model: Model, pages: Sequence[str], context: int) -> WindowedText:
    """Pages as lm-eval's wikitext task reads them, each a stream of its own after a BOS.

    Words and bytes are those of the page before it is de-tokenised, and words are counted with an
    empty one at either end of a page that begins and ends with white space, as there. What the
    tokenizer adds by itself, such as Llama's BOS, is scored after the BOS before it: so lm-eval
    does since EleutherAI/lm-evaluation-harness#3347, unless add_bos_token=False is given.
    """
    stream: list[int] = []
    chosen: list[TokenWindow] = []
    every: list[int] = []
    for page in pages:
        ids = token_ids(model, detokenize(page), special=True)
        chosen += windows(len(ids), context, context, offset=len(stream))
        stream += [model.bos, *ids]
        every += ids
    words = sum(len(re.split(r"\s+", page)) for page in pages)
    size = sum(len(page.encode()) for page in pages)
    return WindowedText(stream, chosen, every, words, size, context, context)


def measure_quality(model: Model, plan: QualityPlan) -> Quality:
    """Perplexity of a model, within `bench.device.precision.applied`, or why there is none.

    Raises TensorgapError for a text that cannot be had or that the model has no words for.
    """
    if model.tokenizer is None:
        return Quality(text=plan.text, reason="randomly initialised weights")
    start = time.perf_counter()
    found = evaluate(model, load_text(plan), plan)
    return replace(found, elapsed_s=time.perf_counter() - start)


def evaluate(model: Model, text: Text, plan: QualityPlan) -> Quality:
    """Perplexity on a text that is there already; otherwise as `measure_quality`."""
    reading = read(model, text, plan)
    if not reading.windows:
        raise TensorgapError(f"{text.name}: the tokenizer makes no token of it, or too few")
    head.check(model, reading.stream)
    nats = window_nats(model, reading.stream, reading.windows)
    if not math.isfinite(math.fsum(nats)):
        # fp16 overflows at 65,504; a model trained in bf16 may exceed it.
        reason = f"the sum of nats is {math.fsum(nats)}: numbers overflowed at this precision"
        return Quality(text=text.name, reason=reason)
    counts = tuple(window.counted for window in reading.windows)
    tokens = sum(counts)
    if plan.mode != HF_DOCS and tokens != len(reading.ids):
        raise AssertionError(f"{tokens} tokens scored of {len(reading.ids)}")
    counted = [
        n * (window.counted / window.scored)
        for n, window in zip(nats, reading.windows, strict=True)
    ]
    total, floor = math.fsum(counted), text.lower_bound_nats
    rounding = _logit_rounding(model, reading)
    return Quality(
        text=text.name,
        nats=total,
        tokens=tokens,
        words=reading.words,
        bytes=reading.bytes,
        perplexity=perplexity_of(total / tokens),
        word_perplexity=perplexity_of(total / reading.words) if reading.words else None,
        bits_per_byte=total / math.log(2) / reading.bytes if reading.bytes else None,
        standard_error=stats.clustered_error(counted, counts),
        lower_bound_perplexity=None if floor is None else perplexity_of(floor / tokens),
        mode=plan.mode,
        context=reading.context,
        stride=reading.stride,
        prefix="none" if plan.mode == HF_DOCS else prefix_of(model, reading.ids),
        window_nats=tuple(counted),
        window_tokens=counts,
        logits_dtype=str(head.logits_dtype(model)).removeprefix("torch."),
        logit_rounding_nats=rounding.mean if rounding else None,
        logit_rounding_error_nats=rounding.error if rounding else None,
        batch_difference_nats=_batch_difference(model, reading, nats),
        text_sha256=text.sha256,
        tokens_sha256=tokens_sha256(reading.ids),
    )


def prefix_of(model: Model, ids: Sequence[int]) -> str:
    """The token before a text of these ids, in words."""
    kind, token = model.prefix
    return f"{kind} (id {token})" + ", twice" * (ids[0] == token)


def _logit_rounding(model: Model, reading: WindowedText) -> stats.Difference | None:
    """What storing logits in 16 bits adds, in nats per token; None where they are wider."""
    if head.logits_dtype(model).itemsize > 2:
        return None
    chosen = evenly(reading.windows, _WINDOWS_ROUNDED)
    heads = [Head(model), Head(model, exact=True)]
    rounded, exact = head.window_sums(model, reading.stream, chosen, heads)
    return stats.paired_difference(rounded, exact, [window.scored for window in chosen])


def _batch_difference(model: Model, reading: WindowedText, nats: Sequence[float]) -> float | None:
    """Greatest difference, in nats per token, between windows alone and in their batch."""
    groups = batches(reading.windows, head.TOKENS_AT_ONCE[model.module.device.type])
    together = [window for group in groups if len(group) > 1 for window in group]
    in_batch = dict(zip(reading.windows, nats, strict=True))
    differences = [
        abs(window_nats(model, reading.stream, [window])[0] - in_batch[window]) / window.scored
        for window in evenly(together, _WINDOWS_CHECKED)
    ]
    return max(differences, default=None)


# ------------------------------------------------------------------------------- warnings


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
    of_gpt2 = weights.published_as == published.GPT2 and precision == "fp32"
    if of_gpt2 and published.is_wikitext2_test(found.text_sha256):
        told.extend(_far_from_published(found))
    return told


def _far_from_published(found: Quality) -> Iterator[RowWarning]:
    """What is published for GPT-2 and this very protocol, or failing that for its context."""
    measured = {
        published.TOKEN: found.perplexity,
        published.WORD: found.word_perplexity,
        published.BITS_PER_BYTE: found.bits_per_byte,
    }
    protocol = (found.mode, found.context, found.stride)
    alike = [p for p in published.PUBLISHED if (p.mode, p.context, p.stride) == protocol]
    for known in alike:
        value = measured[known.unit]
        if value is not None and abs(value / known.value - 1) > known.within:
            told: dict[str, Value] = {
                "value": value,
                "published": known.value,
                "unit": known.unit,
                "within": known.within,
                "source": known.source,
            }
            yield RowWarning("perplexity-unlike-published", told)
    if alike or found.mode == LM_EVAL or not found.perplexity or not found.context:
        return
    low, high = published.expected_perplexity(found.context) or (0, math.inf)
    if not low <= found.perplexity <= high:
        told = {"value": found.perplexity, "low": low, "high": high, "context": found.context}
        yield RowWarning("perplexity-out-of-range", told)
