"""Whether a perplexity can be right, and whether precisions really differ in it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.asked import CPU
from bench.text import published
from jobs.report.cases import Case, Group
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.words import listed, number, span

_CONTEXTS = (128, 256, 512, 1024)
_FLOOR_NOISE = 0.999
# Mean difference in nats per token that a precision brings, and the most that rounding can explain:
# proposals from toy models, where fp16 weights gave 3e-5, bf16 1e-4, and logits as large as GPT-2's
# stored in bf16 8e-3.
_USUAL = {"fp32": 1e-4, "tf32": 1e-3, "fp16": 1e-3, "mixed": 1e-3, "bf16": 1e-2}
_GATES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "mixed": 5e-3, "bf16": 2e-2}
# Of the 2,891 lines of the test split that are not blank, padded to 128 tokens; and where they were
# filtered first.
_PAD_SHARES = (0.44, published.FIRST_STUDY.padding_share)
_LINE_NATS = (4.1, 4.5)
_PAD_NATS = (5.0, 12.0)  # what a pad costs a model that never saw one: 7.4 on a toy
_UNSHIFTED = 500.0  # labels that are not shifted cost 8 to 12 times the perplexity


def perplexity_out_of_range(group: Group) -> Iterator[Finding]:
    """The detector of numbers that no honest protocol gives for GPT-2 small on WikiText-2."""
    found = [case for case in group.cases if case.line.perplexity and _is_published(case)]
    wrong = []
    for case in found:
        low, high = _allowed(case)
        if not low <= (case.line.perplexity or 0.0) <= high:
            wrong.append(case)
    if not wrong:
        return
    values = [case.line.perplexity or 0.0 for case in wrong]
    context = _context(wrong[0])
    low, high = _allowed(wrong[0])
    evidence = [
        f"published: {_published()}",
        f"{values[0]:.5g} is {math.log(values[0] / _nearest(wrong[0])):+.2f} nats per"
        f" token against {_nearest(wrong[0]):.4g}",
    ]
    if context is None or context == 128:
        low_128, high_128 = published.expected_perplexity(128) or (low, high)
        evidence.append(
            "a context of 128 tokens does not explain it: it allows"
            f" {span((low_128, high_128), digits=2)}, and 59.69 was published for exactly that"
        )
    if len(wrong) > 1 and max(values) / min(values) < 1.02:
        evidence.append(
            f"{listed([c.precision for c in wrong])} agree within"
            f" {max(values) / min(values) - 1:.1%}: so it is the protocol, not the precision"
        )
    evidence.extend(mistakes(values[0], (low, high)))
    yield Finding(
        Code.PERPLEXITY_OUT_OF_RANGE,
        Verdict.REJECT,
        group.title,
        tuple(case.precision for case in wrong),
        f"A perplexity of {_shown(values)} is not GPT-2 small's on WikiText-2"
        f" ({'context ' + str(context) if context else 'any context from 128 to 1024'}:"
        f" {span((low, high), digits=2)}).",
        evidence=tuple(evidence),
        missing=(
            "the loop that made it: how the text is cut, whether pads and headings count, what is"
            " averaged",
            "the number of tokens that were scored (287,644 in the test split)",
        ),
        actions=(
            "Join the rows with an empty line, score each token once, sum the nats over all tokens,"
            " divide once, take exp at the end.",
            "Check the loop on 128/128 windows: it must give 59.69 within 0.5 %.",
        ),
    )


def mistakes(observed: float, allowed: tuple[float, float]) -> list[str]:
    """Mistakes that lead from GPT-2 small's true perplexity to another number, with arithmetic.

    Args:
        observed: The perplexity per token that was reported.
        allowed: What it may be.
    """
    if observed < allowed[0]:
        return [
            "mistake: pads that the model finds easy counted in the mean"
            " (huggingface/transformers#5391)",
            "mistake: a text that was cut, divided by the tokens or words of the whole one"
            " (facebookresearch/lingua#46)",
            "mistake: tokens that the model sees before it predicts them",
        ]
    nats = math.log(observed)
    lines = published.MEAN_OF_LINES.value
    texts = []
    if observed < 0.9 * lines:
        texts.append(
            f"mistake: exp of the mean loss per line. The mean of the lines' perplexities is"
            f" {lines} (published), the token-weighted value far less; {number(observed)} lies"
            " between, because short headings are hard and count as much as long lines"
        )
    else:
        texts.append(f"mistake: the mean of the lines' perplexities is {lines} (published)")
    for share in _PAD_SHARES:
        pads = [(nats - (1 - share) * line) / share for line in reversed(_LINE_NATS)]
        if _PAD_NATS[0] <= pads[0] and pads[1] <= _PAD_NATS[1]:
            texts.append(
                f"mistake: pad tokens counted in the loss. With {share:.0%} pads it needs"
                f" {span(pads, digits=2)} nats per pad"
            )
    text = published.TEXTS[0]
    per_token = math.exp(nats * text.words / text.gpt2_tokens)
    explains = allowed[0] <= per_token <= allowed[1]
    texts.append(
        f"mistake: perplexity per word. {number(observed)} per word is {number(per_token)} per"
        f" token, which {'would be right' if explains else 'alone does not explain it'}"
    )
    texts.append(
        "mistake: only the first rows, or batch means averaged again: a small sample of short lines"
    )
    texts.append(
        "not it: labels that are not shifted, which give thousands"
        if observed < _UNSHIFTED
        else "mistake: labels that are not shifted, which give thousands"
    )
    return texts


def _is_published(case: Case) -> bool:
    """GPT-2 small on WikiText-2: as the rows say, or as a table without rows is taken to be."""
    if case.workload.model not in published.GPT2_NAMES:
        return False
    texts = {m.quality.text for m in case.rows if m.quality and m.quality.perplexity}
    if case.stated:
        texts = {case.stated.text or "wikitext-2"}
    return bool(texts) and all("wikitext-2" in text.lower() for text in texts)


def _context(case: Case) -> int | None:
    for m in case.rows:
        if m.quality and m.quality.context:
            return m.quality.context
    return case.stated.context if case.stated else None


def _allowed(case: Case) -> tuple[float, float]:
    """Of its context, or of any from 128 to 1024 where that is unknown."""
    context = _context(case)
    told = published.expected_perplexity(context) if context else None
    if told:
        return told
    ranges = [r for c in _CONTEXTS if (r := published.expected_perplexity(c))]
    if context and context < _CONTEXTS[0]:
        return min(low for low, _ in ranges), math.inf
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _nearest(case: Case) -> float:
    """The published value at its context; at 128 where that is unknown, the largest there is."""
    context = _context(case) or 128
    values = {p.context: p.value for p in published.PUBLISHED if p.stride == p.context}
    return min(values.items(), key=lambda item: abs(item[0] - context))[1]


def _published() -> str:
    return ", ".join(
        f"{p.value} at {p.context}/{p.stride}"
        for p in published.PUBLISHED
        if p.unit == published.TOKEN
    )


def perplexity_below_floor(group: Group) -> Iterator[Finding]:
    """No model predicts a text better than the generator that wrote it."""
    for case in group.cases:
        floor, value = case.line.floor_perplexity, case.line.perplexity
        if floor is None or value is None or value >= _FLOOR_NOISE * floor:
            continue
        yield Finding(
            Code.PERPLEXITY_BELOW_FLOOR,
            Verdict.REJECT,
            group.title,
            (case.precision,),
            f"A perplexity of {value:.5g} is below the floor of the text: {floor:.5g}.",
            evidence=("the floor is the entropy of the grammar that wrote the text",),
            actions=("Look for tokens that the model sees before it predicts them.",),
        )


def perplexity_differs(group: Group) -> Iterator[Finding]:
    """A precision may cost a little; more than that is a fault."""
    for case, base in group.pairs():
        ours, theirs = case.line.perplexity, base.line.perplexity
        if not ours or not theirs:
            continue
        paired = case.line.nats_difference
        difference = paired.mean if paired else math.log(ours / theirs)
        noise = _rounding(case, base)
        if paired and paired.low is not None:
            noise = paired.mean - paired.low
        gate = _GATES[_arithmetic(case)]
        if abs(difference) - noise > gate:
            yield Finding(
                Code.PERPLEXITY_DIFFERS,
                Verdict.FIX,
                group.title,
                (case.precision,),
                f"{case.precision} changes the perplexity by {difference:+.4f} nats per token: more"
                " than its rounding does.",
                evidence=(
                    f"{theirs:.5g} -> {ours:.5g}",
                    *([f"window by window as pairs, +- {noise:.4f}"] if paired else []),
                ),
                expected=(f"at most {gate:g} nats per token either way",),
                missing=() if paired else ("the difference as pairs, with its interval",),
                actions=(
                    "Compute the log-softmax in float32, and compare the logits of one window.",
                ),
            )


def perplexity_too_coarse(group: Group) -> Iterator[Finding]:
    """Digits that cannot show what a precision costs, so that equal ones prove nothing either."""
    coarse = [
        (case, base)
        for case, base in group.pairs()
        if case.line.perplexity
        and base.line.perplexity
        and _rounding(case, base) > _USUAL[_arithmetic(case)]
    ]
    if not coarse:
        return
    evidence = []
    for case, base in coarse:
        ours, theirs = case.line.perplexity or 1.0, base.line.perplexity or 1.0
        evidence.append(
            f"{case.precision}: {theirs:.5g} -> {ours:.5g} is {math.log(ours / theirs):+.4f} nats"
            f" per token, known within {_rounding(case, base):.4f} by the digits written"
        )
    precisions = tuple(case.precision for case, _ in coarse)
    yield Finding(
        Code.PERPLEXITY_TOO_COARSE,
        Verdict.CANNOT_TELL,
        group.title,
        precisions,
        "The perplexities have too few digits to tell precisions apart: neither equal nor different"
        " ones mean anything.",
        evidence=tuple(evidence),
        expected=tuple(
            f"{precision}: usually less than {_USUAL[_arithmetic(case)]:g} nats per token"
            for precision, (case, _) in zip(precisions, coarse, strict=True)
        ),
        missing=("five significant digits", "the difference token by token"),
        actions=("Write the perplexity with five digits at least.",),
    )


def _rounding(case: Case, base: Case) -> float:
    """How far ln(ours / theirs) may be off because the numbers were written with few digits."""
    return sum(
        c.stated.perplexity_step / 2 / c.line.perplexity
        for c in (case, base)
        if c.stated and c.stated.perplexity_step and c.line.perplexity
    )


def _arithmetic(case: Case) -> str:
    """What stores the logits: mixed on a CPU is autocast to bf16."""
    return "bf16" if case.precision == "mixed" and case.gpu_type == CPU else case.precision


def _shown(values: list[float]) -> str:
    low, high = f"{min(values):.5g}", f"{max(values):.5g}"
    return low if low == high else f"{low} to {high}"
