"""What a perplexity says: precisions compared as pairs, and which mistake gives an odd number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.perplexity.variants import Variant
from bench.text import published
from jobs.report.comparison import BASELINE, Line
from jobs.terminal import clean

NEAR = 0.02  # a variant within this share of the observed number gives it
_LISTED = 12


def compared(lines: Sequence[Line]) -> Iterator[str]:
    """Each precision's perplexity against fp32, decided by windows as pairs."""
    for line in lines:
        difference = line.nats_difference
        if difference is None:
            continue
        text = f"{line.precision}: {difference.mean:+.2g} nats per token against {BASELINE}"
        if difference.low is None or difference.high is None:
            text += ", one window: no interval"
        else:
            text += f" [{difference.low:+.2g}, {difference.high:+.2g}]"
            decided = difference.low > 0 or difference.high < 0
            share = math.expm1(difference.mean)
            text += f": perplexity {share:+.2%}" if decided else ": no difference shown"
        if line.logit_rounding_nats is not None:
            text += f"; logits stored in 16 bits account for {line.logit_rounding_nats:+.2g}"
            if line.logit_rounding_error_nats is not None:
                text += f" (standard error {line.logit_rounding_error_nats:.1g})"
        yield text


def ranking(observed: float, where: str, variants: Sequence[Variant]) -> str:
    """The variants nearest to an observed perplexity, and whether one gives it."""
    where, variants = clean(where), clean(variants)
    distances = sorted(
        ((math.log(v.perplexity / observed), v) for v in variants if v.perplexity),
        key=lambda pair: abs(pair[0]),
    )
    near = [v for distance, v in distances if abs(math.expm1(distance)) <= NEAR]
    text = [f"{observed:g} observed; {len(distances)} variants on {where}:", ""]
    for distance, variant in distances[:_LISTED]:
        mark = "right" if variant.right else "wrong"
        text.append(
            f"  {variant.perplexity:10.5g} {math.expm1(distance):+9.1%}  {mark}  {variant.what}"
        )
    text.append("")
    if near:
        text.append(f"within {NEAR:.0%}: " + "; ".join(v.what for v in near))
    elif distances:
        text.append(f"none is within {NEAR:.0%}: this number has another cause")
    text.extend(f"right here: {v.perplexity:.5g} with {v.what}" for _, v in _right(distances))
    text.extend(f"not computed: {v.what}: {v.reason}" for v in variants if v.perplexity is None)
    return "\n".join(text)


def _right(distances: Sequence[tuple[float, Variant]]) -> list[tuple[float, Variant]]:
    """The best protocol per token: what should have been reported."""
    right = [pair for pair in distances if pair[1].right and "per token" in pair[1].what]
    return sorted(right, key=lambda pair: pair[0])[:1]


def from_published(observed: float) -> str:
    """What published numbers for GPT-2 small on WikiText-2 say of an observed perplexity."""
    (text,) = published.TEXTS
    lines = [
        f"{observed:g} observed; published for GPT-2 small (124M) on the {text.name} split:",
        "",
    ]
    rows = [
        (known.value, f"per {known.unit}", known.mode, known.context, known.stride)
        for known in published.PUBLISHED
        if known.unit != published.BITS_PER_BYTE
    ]
    # The same nats per word: a number per word beside one per token looks like a fault.
    rows += [
        (_per_word(known), "the same per word", known.mode, known.context, known.stride)
        for known in published.PUBLISHED
        if known.unit == published.TOKEN
    ]
    lines += [
        f"  {value:8.2f}  {unit:17}  {mode} {context}/{stride}"
        f"   {observed:g} is {observed / value:.2f} times as much"
        for value, unit, mode, context, stride in sorted(rows)
    ]
    wrong = published.MEAN_OF_LINES
    lines += [f"  {wrong.value:8.2f}  {wrong.unit} ({wrong.mode}): a mistake", ""]
    lines += _verdict(observed, rows)
    lines += ["", "with --model MODEL the mistakes that could give it are computed"]
    return "\n".join(lines)


def _verdict(observed: float, rows: Sequence[tuple[float, str, str, int, int]]) -> Iterator[str]:
    near = [row for row in rows if abs(observed / row[0] - 1) <= NEAR]
    if near:
        yield from (
            f"within {NEAR:.0%} of the number {unit} of {mode} {context}/{stride}"
            for _, unit, mode, context, stride in near
        )
        return
    contexts = [
        context
        for context in range(128, 1025)
        if (r := published.expected_perplexity(context)) and r[0] <= observed <= r[1]
    ]
    if contexts:
        yield f"a right number with a context of {contexts[0]} to {contexts[-1]} tokens"
        return
    short = next(p for p in published.PUBLISHED if p.context == 128)
    if observed < short.value:
        yield "lower than any right protocol: another model, text, or a mistake"
        return
    yield (
        f"a context of 128 tokens gives about {short.value:.1f}, not {observed:g}: that is"
        f" {math.log(observed / short.value):.2f} nats per token more, so the context does not"
        " explain it"
    )
    share = published.FIRST_STUDY.padding_share
    rest = math.log(observed) - (1 - share) * math.log(short.value)
    yield (
        f"the study that reported 217 counted its padding, {share:.1%} of its labels"
        f" ({published.FIRST_STUDY.source}): with {short.value:.1f} on the text, {observed:g}"
        f" needs {rest / share:.1f} nats for each padding token"
    )


def _per_word(known: published.PublishedPerplexity) -> float:
    (text,) = published.TEXTS
    tokens = known.tokens or text.gpt2_tokens
    return math.exp(math.log(known.value) * tokens / text.words)
