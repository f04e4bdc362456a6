"""Perplexity."""

from __future__ import annotations

import math

from bench.asked import CPU
from bench.text import published
from jobs.report.facts import WIKITEXT_2, Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule

_CONTEXTS = (128, 256, 512, 1024)
_LOWER_BOUND_NOISE = 0.999
_ALIKE = 1.02  # perplexities within so much of each other show the same protocol
# Mean difference in nats per token that a precision brings, and the most that rounding can explain:
# proposals from toy models, where fp16 weights gave 3e-5, bf16 1e-4, and logits as large as GPT-2's
# stored in bf16 8e-3.
_USUAL = {"fp32": 1e-4, "tf32": 1e-3, "fp16": 1e-3, "mixed": 1e-3, "bf16": 1e-2}
_GATES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "mixed": 5e-3, "bf16": 2e-2}
# Of the 2,891 lines of the test split that are not blank, padded to 128 tokens; and where they were
# filtered first.
_PAD_SHARES = (0.44, published.FIRST_STUDY_PADDING_SHARE)
_LINE_NATS = (4.1, 4.5)
_PAD_NATS = (5.0, 12.0)  # what a pad costs a model that never saw one: 7.4 on a toy
_UNSHIFTED = 500.0  # labels that are not shifted cost 8 to 12 times the perplexity
_TOO_LOW = (
    "mistake: pads that the model finds easy counted in the mean (huggingface/transformers#5391)",
    "mistake: a text that was cut, divided by the tokens or words of the whole one"
    " (facebookresearch/lingua#46)",
    "mistake: tokens that the model sees before it predicts them",
)


@rule(
    "perplexity-below-lower-bound",
    Verdict.REJECT,
    cause="A perplexity of {perplexity:5} is below the lower bound of the text,"
    " {perplexity_lower_bound:5}.",
    do=["Look for tokens that the model sees before it predicts them."],
)
def perplexity_below_lower_bound(case: Case, group: Group) -> Hit | None:
    """The perplexity is below that of the text's own generator.

    Silent where the generator is not known.
    """
    bound, value = case.perplexity_lower_bound, case.perplexity
    if bound is None or value is None or value >= _LOWER_BOUND_NOISE * bound:
        return None
    return Hit(evidence=["the lower bound is the entropy of the grammar that wrote the text"])


@rule(
    "perplexity-out-of-range",
    Verdict.REJECT,
    cause="A perplexity of {perplexity:.5g} is outside the range of GPT-2 small on WikiText-2,"
    " {allowed:2} ({of}).",
    missing=[
        "the loop that made it: how the text is cut, whether pads and headings count, what is"
        " averaged",
        "the number of tokens that were scored (287,644 in the test split)",
    ],
    do=[
        "Join the rows with an empty line, score each token once, sum the nats over all tokens,"
        " divide once, take exp at the end.",
        "Check the loop on 128/128 windows: it must give 59.69 within 0.5 %.",
    ],
)
def perplexity_out_of_range(case: Case, group: Group) -> Hit | None:
    """GPT-2 small on WikiText-2 is outside what its context allows.

    By `bench/text/published.py`; names the mistakes that give such a number. Silent for another
    model or text.
    """
    if not is_out_of_range(case):
        return None
    wrong = [one for one in group.cases if is_out_of_range(one)]
    values = [one.perplexity or 0.0 for one in wrong]
    spread, nearest, allowed = (
        max(values) / min(values),
        nearest_published(wrong[0]),
        allowed_range(case),
    )
    evidence: list[str | Note] = [
        "published: {published}",
        "{first:.5g} is {nats:+.2f} nats per token against {nearest:.4g}",
    ]
    if case.context is None or case.context == 128:
        evidence.append(
            "a context of 128 tokens does not explain it: it allows {of_128:2}, and 59.69 was"
            " published for exactly that"
        )
    if len(wrong) > 1 and spread < _ALIKE:
        evidence.append(
            "{alike} agree within {spread:.1%}: so it is the protocol, not the precision"
        )
    return Hit(
        {
            "allowed": allowed,
            "of": f"context {case.context}" if case.context else "any context from 128 to 1024",
            "published": ", ".join(
                f"{p.value} at {p.context}/{p.stride}"
                for p in published.PUBLISHED
                if p.unit == published.TOKEN
            ),
            "first": values[0],
            "nats": math.log(values[0] / nearest),
            "nearest": nearest,
            "of_128": published.expected_perplexity(128) or allowed,
            "alike": tuple(one.precision for one in wrong),
            "spread": spread - 1,
        },
        [*evidence, *mistakes(values[0], allowed_range(wrong[0]))],
    )


def mistakes(observed: float, allowed: tuple[float, float]) -> list[Note]:
    """Mistakes that lead from GPT-2 small's true perplexity to another number, with arithmetic.

    Args:
        observed: The perplexity per token that was reported.
        allowed: What it may be.
    """
    if observed < allowed[0]:
        return [Note(text) for text in _TOO_LOW]
    nats, of_lines = math.log(observed), published.MEAN_OF_LINES.value
    between = (
        "mistake: exp of the mean loss per line. The mean of the lines' perplexities is {lines:.5g}"
        " (published), the token-weighted value far less; {observed} lies between, because short"
        " headings are hard and count as much as long lines"
    )
    mean = "mistake: the mean of the lines' perplexities is {lines:.5g} (published)"
    text = between if observed < 0.9 * of_lines else mean
    found = [note(text, lines=of_lines, observed=observed)]
    for share in _PAD_SHARES:
        pads = tuple((nats - (1 - share) * line) / share for line in reversed(_LINE_NATS))
        if _PAD_NATS[0] <= pads[0] and pads[1] <= _PAD_NATS[1]:
            text = (
                "mistake: pad tokens counted in the loss. With {share} pads it needs {nats:2} nats"
                " per pad"
            )
            found.append(note(text, share=f"{share:.0%}", nats=pads))
    of = published.WIKITEXT2_TEST
    per_token = math.exp(nats * of.words / of.gpt2_tokens)
    explains = allowed[0] <= per_token <= allowed[1]
    text = "mistake: perplexity per word. {observed} per word is {per_token} per token, which"
    text += " would be right" if explains else " alone does not explain it"
    unshifted = "not the cause" if observed < _UNSHIFTED else "mistake"
    return [
        *found,
        note(text, observed=observed, per_token=per_token),
        note(
            "mistake: only the first rows, or batch means averaged again: a small sample of short"
            " lines"
        ),
        note(f"{unshifted}: labels that are not shifted, which give thousands"),
    ]


def is_out_of_range(case: Case) -> bool:
    """Whether it is GPT-2 small on WikiText-2, and cannot be."""
    known = case.workload.model in published.GPT2_NAMES and WIKITEXT_2 in (case.text or "").lower()
    low, high = allowed_range(case)
    return known and bool(case.perplexity) and not low <= (case.perplexity or 0.0) <= high


def allowed_range(case: Case) -> tuple[float, float]:
    """Of its context, or of any from 128 to 1024 where that is unknown."""
    told = published.expected_perplexity(case.context) if case.context else None
    if told:
        return told
    ranges = [r for c in _CONTEXTS if (r := published.expected_perplexity(c))]
    low = min(low for low, _ in ranges)
    is_short = case.context is not None and case.context < _CONTEXTS[0]
    return low, math.inf if is_short else max(high for _, high in ranges)


def nearest_published(case: Case) -> float:
    """The published value at its context; at 128 where that is unknown, the largest there is."""
    context = case.context or 128
    values = {p.context: p.value for p in published.PUBLISHED if p.stride == p.context}
    return min(values.items(), key=lambda item: abs(item[0] - context))[1]


@rule(
    "perplexity-differs",
    Verdict.FIX,
    cause="{precision} changes the perplexity by {nats:+.4f} nats per token, more than its rounding"
    " does.",
    do=["Compute the log-softmax in float32, and compare the logits of one window."],
)
def perplexity_differs(case: Case, group: Group) -> Hit | None:
    """A precision changes the mean loss by more than rounding can.

    0.02 nats per token for bf16 and for mixed on a CPU, 0.005 for others, beyond the interval of
    its windows as pairs.
    """
    base = group.base_of(case)
    if base is None or not case.perplexity or not base.perplexity:
        return None
    paired = case.nats_difference
    difference = paired.mean if paired else math.log(case.perplexity / base.perplexity)
    noise = rounding_of(case, base)
    if paired and paired.low is not None:
        noise = paired.mean - paired.low
    gate = _GATES[stored_as(case)]
    if abs(difference) - noise <= gate:
        return None
    evidence = ["{base_perplexity:.5g} -> {perplexity:.5g}"]
    if paired:
        evidence.append("window by window as pairs, +- {noise:.4f}")
    return Hit(
        {"nats": difference, "noise": noise, "gate": gate},
        evidence,
        ["at most {gate:g} nats per token either way"],
        missing=[] if paired else ["the difference as pairs, with its interval"],
    )


@rule(
    "perplexity-too-coarse",
    Verdict.INCONCLUSIVE,
    cause="The perplexities have too few digits to tell precisions apart: neither equal nor"
    " different ones mean anything.",
    missing=["five significant digits", "the difference token by token"],
    do=["Write the perplexity with five digits at least."],
)
def perplexity_too_coarse(case: Case, group: Group) -> Hit | None:
    """So few digits that neither equal nor different perplexities mean anything."""
    base = group.base_of(case)
    if base is None or not case.perplexity or not base.perplexity:
        return None
    rounding, usual = rounding_of(case, base), _USUAL[stored_as(case)]
    if rounding <= usual:
        return None
    difference = math.log(case.perplexity / base.perplexity)
    return Hit(
        {"nats": difference, "rounding": rounding, "usual": usual},
        [
            "{precision}: {base_perplexity:.5g} -> {perplexity:.5g} is {nats:+.4f} nats per token,"
            " known within {rounding:.4f} by the digits written"
        ],
        ["{precision}: usually less than {usual:g} nats per token"],
    )


def rounding_of(case: Case, base: Case) -> float:
    """How far ln(ours / theirs) may be off because the numbers were written with few digits."""
    return sum(
        c.perplexity_step / 2 / c.perplexity
        for c in (case, base)
        if c.perplexity_step and c.perplexity
    )


def stored_as(case: Case) -> str:
    """What stores the logits: mixed on a CPU is autocast to bf16."""
    return "bf16" if case.precision == "mixed" and case.gpu_type == CPU else case.precision
