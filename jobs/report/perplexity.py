"""What a perplexity says: precisions compared as pairs, and which mistake gives an odd number."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.perplexity.variants import Variant
from bench.text import published
from jobs.report.facts import BASELINE, Case
from jobs.terminal import clean

NEAR = 0.02  # a variant within this share of the observed number gives it
_LISTED = 12
_MANY_PADS = 0.3  # of the labels: fewer do not make a perplexity too low


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


@dataclass(frozen=True)
class Asked:
    """A perplexity that somebody observed, and what is known of how it came about."""

    observed: float
    model: str = published.GPT2
    context: int | None = None
    unit: str | None = None
    split: str = "test"


def from_published(asked: Asked) -> str:
    """What published numbers for a GPT-2 on WikiText-2 say of an observed perplexity."""
    text, wrong, observed = published.WIKITEXT2_TEST, published.MEAN_OF_LINES, asked.observed
    model = published.same_model(asked.model) or published.GPT2
    rows = []
    for known in published.published_of(model, asked.split):
        windows = f"{known.mode} {known.context}/{known.stride}"
        if known.unit != published.BITS_PER_BYTE and asked.unit in (None, known.unit):
            rows.append((known.value, f"per {known.unit}", windows))
        if known.unit == published.TOKEN and asked.unit in (None, published.WORD):
            # The same nats per word: a number per word beside one per token looks like a fault.
            per_word = known.value ** ((known.tokens or text.gpt2_tokens) / text.words)
            rows.append((per_word, "the same per word", windows))
    whom = "GPT-2 small (124M)" if model == published.GPT2 else model
    lines = [
        f"{observed:g} observed; published for {whom} on the wikitext-2 {asked.split} split:",
        "",
        *(
            f"  {value:8.2f}  {unit:17}  {windows}"
            f"   {observed:g} is {observed / value:.2f} times as much"
            for value, unit, windows in sorted(rows)
        ),
    ]
    if not rows:
        lines.append("  nothing that is per " + (asked.unit or "token"))
    if model == published.GPT2:
        lines.append(f"  {wrong.value:8.2f}  {wrong.unit} ({wrong.mode}): a mistake")
    lines += ["", *explanation(asked, model, rows), ""]
    return "\n".join([*lines, "with --text TEXT the mistakes that could give it are computed"])


def explanation(asked: Asked, model: str, rows: Sequence[tuple[float, str, str]]) -> list[str]:
    """What could give the observed perplexity, or how far the nearest cause falls short of it.

    The rows are published perplexities, each with its unit and windows.
    """
    observed, wrong = asked.observed, published.MEAN_OF_LINES
    at = f"/{asked.context}" if asked.context else ""
    if near := [
        f"within {NEAR:.0%} of the number {unit} of {windows}"
        for value, unit, windows in rows
        if abs(observed / value - 1) <= NEAR and (not at or f" {asked.context}/" in windows)
    ]:
        return near
    if abs(observed / wrong.value - 1) <= NEAR:
        return [
            f"the published {wrong.unit}, each line a sample of its own ({wrong.source}): a"
            " mistake;"
            " sum the nats over all tokens, and divide once"
        ]
    if observed > published.GPT2_VOCABULARY:
        return [
            f"above the vocabulary of {published.GPT2_VOCABULARY} tokens: worse than guessing; the"
            " weights were not loaded, or the labels are not those of the text"
        ]
    allowed = published.allowed_perplexity(model, asked.context, asked.unit or published.TOKEN)
    assert allowed  # of a model that is known
    others = [
        f"within {NEAR:.0%} of the number per {p.unit} of {p.model}, {p.mode}"
        f" {p.context}/{p.stride}:"
        " was that the model?"
        for name in published.models()
        if name != model
        for p in published.published_of(name, asked.split)
        if p.unit in (published.TOKEN, published.WORD) and abs(observed / p.value - 1) <= NEAR
        if asked.context in (None, p.context) and asked.unit in (None, p.unit)
    ]
    if allowed[0] <= observed <= allowed[1]:
        return [right(asked, model), *others]
    if others:
        return others
    if observed < allowed[0]:
        return too_low(asked, allowed[0])
    return too_high(asked, model, allowed[1])


def right(asked: Asked, model: str) -> str:
    """In which context an observed perplexity is a right number."""
    if asked.context:
        return f"a right number with a context of {asked.context} tokens"
    contexts = [
        context
        for context in range(128, 1025)
        if (r := published.allowed_perplexity(model, context, asked.unit or published.TOKEN))
        and r[0] <= asked.observed <= r[1]
    ]
    if not contexts:
        return "within what any context allows"
    return f"a right number with a context of {contexts[0]} to {contexts[-1]} tokens"


def too_low(asked: Asked, least: float) -> list[str]:
    """What makes a perplexity lower than any right protocol does."""
    found = [
        f"lower than any right protocol gives ({least:.3g}): another model or text, or a mistake"
    ]
    short = next(p.value for p in published.PUBLISHED if p.context == 128)
    share = 1 - math.log(asked.observed) / math.log(short)
    if share > _MANY_PADS:
        found.append(
            f"pads among the labels, which the model finds easy: {share:.0%} of them at no cost"
            " make"
            f" {asked.observed:g} of {short:.1f} (huggingface/transformers#5391)"
        )
    return [*found, "tokens that the model sees before it predicts them: labels shifted twice"]


def too_high(asked: Asked, model: str, most: float) -> list[str]:
    """How far a perplexity is above what is right, and what could make up for it."""
    observed, unit = asked.observed, asked.unit or published.TOKEN
    if asked.context or model != published.GPT2 or unit != published.TOKEN:
        known = published.published_of(model, asked.split)
        of_unit = [p for p in known if p.unit == unit and p.stride == p.context]
        found = [f"above what is right here, {most:.4g} at most; the context does not explain it"]
        if of_unit:
            nearest = min(of_unit, key=lambda p: abs(p.context - (asked.context or p.context)))
            nats = math.log(observed / nearest.value)
            where = f"{nearest.context}/{nearest.stride}"
            found.append(f"{nats:+.2f} nats per {unit} against {nearest.value} at {where}")
        return [*found, "likely: another text or join of its rows, BOS or pads among the labels"]
    short = next(p.value for p in published.PUBLISHED if p.context == 128)
    padding = published.FIRST_STUDY_PADDING_SHARE
    needed = (math.log(observed) - (1 - padding) * math.log(short)) / padding
    return [
        f"a context of 128 tokens gives about {short:.1f}, not {observed:g}: that is"
        f" {math.log(observed / short):.2f} nats per token more; the context does not explain it",
        f"the study that reported 217 counted its padding, {padding:.1%} of its labels"
        f" ({published.FIRST_STUDY_SOURCE}): with {short:.1f} on the text, {observed:g}"
        f" needs {needed:.1f} nats for each padding token",
    ]
