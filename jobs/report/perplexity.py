"""What a perplexity says: precisions compared as pairs, and which mistake gives an odd number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from bench.perplexity.variants import Variant
from bench.text import published
from jobs.report.facts import BASELINE, Case
from jobs.terminal import clean

NEAR = 0.02  # a variant within this share of the observed number gives it
_LISTED = 12


def compared(cases: Iterable[Case]) -> Iterator[str]:
    """Each precision's perplexity against fp32, decided by windows as pairs."""
    for case in cases:
        difference = case.nats_difference
        if difference is None:
            continue
        text = f"{case.precision}: {difference.mean:+.2g} nats per token against {BASELINE}"
        if difference.low is None or difference.high is None:
            text += ", one window: no interval"
        else:
            text += f" [{difference.low:+.2g}, {difference.high:+.2g}]"
            decided = difference.low > 0 or difference.high < 0
            share = math.expm1(difference.mean)
            text += f": perplexity {share:+.2%}" if decided else ": no significant difference"
        if case.logit_rounding_nats is not None:
            text += f"; logits stored in 16 bits account for {case.logit_rounding_nats:+.2g}"
            if case.logit_rounding_error_nats is not None:
                text += f" (standard error {case.logit_rounding_error_nats:.1g})"
        yield text


def ranking(observed: float, where: str, variants: Sequence[Variant]) -> str:
    """The variants nearest to an observed perplexity, and whether one gives it."""
    where, variants = clean(where), clean(variants)
    known = [(v.perplexity / observed, v) for v in variants if v.perplexity]
    known.sort(key=lambda pair: abs(math.log(pair[0])))
    text = [f"{observed:g} observed; {len(known)} variants on {where}:", ""]
    text += [
        f"  {v.perplexity:10.5g} {times - 1:+9.1%}  {'right' if v.right else 'wrong'}  {v.what}"
        for times, v in known[:_LISTED]
    ]
    near = [v.what for times, v in known if abs(times - 1) <= NEAR]
    if near:
        text += ["", f"within {NEAR:.0%}: {'; '.join(near)}"]
    else:
        text += ["", f"none is within {NEAR:.0%}: this number has another cause"]
    # The best protocol per token: what should have been reported.
    right = [v for _, v in known if v.right and "per token" in v.what]
    right.sort(key=lambda v: v.perplexity or 0.0)
    text += [f"right here: {v.perplexity:.5g} with {v.what}" for v in right[:1]]
    text += [f"not computed: {v.what}: {v.reason}" for v in variants if v.perplexity is None]
    return "\n".join(text)


def from_published(observed: float) -> str:
    """What published numbers for GPT-2 small on WikiText-2 say of an observed perplexity."""
    (text,) = published.TEXTS
    rows = []
    for known in published.PUBLISHED:
        windows = f"{known.mode} {known.context}/{known.stride}"
        if known.unit != published.BITS_PER_BYTE:
            rows.append((known.value, f"per {known.unit}", windows))
        if known.unit == published.TOKEN:
            # The same nats per word: a number per word beside one per token looks like a fault.
            tokens_per_word = (known.tokens or text.gpt2_tokens) / text.words
            per_word = known.value**tokens_per_word
            rows.append((per_word, "the same per word", windows))
    wrong = published.MEAN_OF_LINES
    lines = [
        f"{observed:g} observed; published for GPT-2 small (124M) on the {text.name} split:",
        "",
        *(
            f"  {value:8.2f}  {unit:17}  {windows}"
            f"   {observed:g} is {observed / value:.2f} times as much"
            for value, unit, windows in sorted(rows)
        ),
        f"  {wrong.value:8.2f}  {wrong.unit} ({wrong.mode}): a mistake",
        "",
        *explanation(observed, rows),
        "",
        "with --model MODEL the mistakes that could give it are computed",
    ]
    return "\n".join(lines)


def explanation(observed: float, rows: Sequence[tuple[float, str, str]]) -> list[str]:
    """What could give the observed number, or how far the nearest cause falls short of it.

    Args:
        observed: A perplexity.
        rows: Published ones, each with its unit and windows.
    """
    near = [
        f"within {NEAR:.0%} of the number {unit} of {windows}"
        for value, unit, windows in rows
        if abs(observed / value - 1) <= NEAR
    ]
    if near:
        return near
    contexts = [
        context
        for context in range(128, 1025)
        if (r := published.expected_perplexity(context)) and r[0] <= observed <= r[1]
    ]
    if contexts:
        return [f"a right number with a context of {contexts[0]} to {contexts[-1]} tokens"]
    short = next(p for p in published.PUBLISHED if p.context == 128)
    if observed < short.value:
        return ["lower than any right protocol: another model, text, or a mistake"]
    study = published.FIRST_STUDY
    rest = math.log(observed) - (1 - study.padding_share) * math.log(short.value)
    return [
        f"a context of 128 tokens gives about {short.value:.1f}, not {observed:g}: that is"
        f" {math.log(observed / short.value):.2f} nats per token more, so the context does not"
        " explain it",
        f"the study that reported 217 counted its padding, {study.padding_share:.1%} of its labels"
        f" ({study.source}): with {short.value:.1f} on the text, {observed:g}"
        f" needs {rest / study.padding_share:.1f} nats for each padding token",
    ]
