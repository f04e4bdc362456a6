"""What a perplexity says: precisions compared as pairs, and which mistake gives an odd number."""

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
    near = [v.what for times, v in known if abs(times - 1) <= NEAR]
    # The best protocol per token: what should have been reported.
    right = [v for _, v in known if v.right and "per token" in v.what]
    right.sort(key=lambda v: v.perplexity or 0.0)
    lines = [f"{observed:g} observed; {len(known)} variants on {where}:", ""]
    lines += [
        f"  {v.perplexity:10.5g} {times - 1:+9.1%}  {'right' if v.right else 'wrong'}  {v.what}"
        for times, v in known[:_LISTED]
    ]
    other = f"none is within {NEAR:.0%}: this number has another cause"
    lines += ["", f"within {NEAR:.0%}: {'; '.join(near)}" if near else other]
    lines += [f"right here: {v.perplexity:.5g} with {v.what}" for v in right[:1]]
    lines += [f"not computed: {v.what}: {v.reason}" for v in variants if v.perplexity is None]
    return "\n".join(lines)


def from_published(observed: float) -> str:
    """What published numbers for GPT-2 small on WikiText-2 say of an observed perplexity."""
    text, wrong = published.WIKITEXT2_TEST, published.MEAN_OF_LINES
    rows = []
    for known in published.PUBLISHED:
        windows = f"{known.mode} {known.context}/{known.stride}"
        if known.unit != published.BITS_PER_BYTE:
            rows.append((known.value, f"per {known.unit}", windows))
        if known.unit == published.TOKEN:
            # The same nats per word: a number per word beside one per token looks like a fault.
            per_word = known.value ** ((known.tokens or text.gpt2_tokens) / text.words)
            rows.append((per_word, "the same per word", windows))
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
    """What could give the observed perplexity, or how far the nearest cause falls short of it.

    The rows are published perplexities, each with its unit and windows.
    """
    if near := [
        f"within {NEAR:.0%} of the number {unit} of {windows}"
        for value, unit, windows in rows
        if abs(observed / value - 1) <= NEAR
    ]:
        return near
    if contexts := [
        context
        for context in range(128, 1025)
        if (r := published.expected_perplexity(context)) and r[0] <= observed <= r[1]
    ]:
        return [f"a right number with a context of {contexts[0]} to {contexts[-1]} tokens"]
    short = next(p.value for p in published.PUBLISHED if p.context == 128)
    if observed < short:
        return ["lower than any right protocol: another model, text, or a mistake"]
    padding = published.FIRST_STUDY_PADDING_SHARE
    needed = (math.log(observed) - (1 - padding) * math.log(short)) / padding
    return [
        f"a context of 128 tokens gives about {short:.1f}, not {observed:g}: that is"
        f" {math.log(observed / short):.2f} nats per token more; the context does not explain it",
        f"the study that reported 217 counted its padding, {padding:.1%} of its labels"
        f" ({published.FIRST_STUDY_SOURCE}): with {short:.1f} on the text, {observed:g}"
        f" needs {needed:.1f} nats for each padding token",
    ]
