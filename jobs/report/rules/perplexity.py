"""Perplexity."""

import math
import re
from collections.abc import Mapping, Sequence

from bench.asked import CPU, QUANTISED
from bench.text import published
from jobs.report.facts import NO_PRECISION, WIKITEXT_2, Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.foreign import names
from jobs.report.observed import pad_nats
from jobs.report.rules.rule import Hit, note, rule

_LOWER_BOUND_NOISE = 0.999
_ALIKE = 1.02  # perplexities within so much of each other show the same protocol
# Mean difference in nats per token that a precision brings, and the most that rounding can explain:
# proposals from toy models, where fp16 weights gave 3e-5, bf16 1e-4, and logits as large as GPT-2's
# stored in bf16 8e-3.
_USUAL = {"fp32": 1e-4, "tf32": 1e-3, "fp16": 1e-3, "mixed": 1e-3, "bf16": 1e-2}
_GATES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "mixed": 5e-3, "bf16": 2e-2}
# Of quantised weights a cost, and beyond this a fault: 4 bits for all weights of OPT-125M, rounded
# without groups, add 0.30 (GPTQ, arXiv 2210.17323, WikiText-2: 27.65 -> 37.28).
_GATES |= dict.fromkeys(QUANTISED, 0.5)
_PAD_SHARES = (published.PADDED_LINES_SHARE, published.FIRST_STUDY_PADDING_SHARE)
_LINE_NATS = (4.1, 4.5)
_SMALL_NATS = 0.5  # above the published number: less than pads or means of lines make
_TUNED = re.compile(r"\b(?:fine-?)?tun(?:ed|ing)\b", re.IGNORECASE)
_GUESSING = 5_000.0  # per token, where half of the smallest vocabularies is guessed among
_OF_ANOTHER = 2.0  # times the range: more than another GPT-2 or a usual text makes
_TOO_LOW = (
    "mistake: pads that the model finds easy counted in the mean (huggingface/transformers#5391)",
    "mistake: a text that was cut, divided by the tokens or words of the whole one"
    " (facebookresearch/lingua#46)",
    "mistake: tokens that the model sees before it predicts them",
)


@rule(
    Verdict.REJECT,
    cause="Perplexity {perplexity:5} is below the text's lower bound, {perplexity_lower_bound:5}.",
    do=["Look for tokens that the model sees before it predicts them."],
)
def perplexity_below_lower_bound(case: Case, group: Group) -> Hit | None:
    """The perplexity is below that of the text's own generator, where this is known."""
    bound, value = case.perplexity_lower_bound, case.perplexity
    if bound is None or value is None or value >= _LOWER_BOUND_NOISE * bound:
        return None
    return Hit(evidence=["the lower bound is the entropy of the grammar that wrote the text"])


@rule(
    Verdict.REJECT,
    Verdict.INCONCLUSIVE,
    cause="A perplexity of {perplexity:.5g} is outside the range of {model} on WikiText-2,"
    " {allowed:2} ({of})",
    missing=[
        "the loop that made it: how the text is cut, whether pads count, what is averaged",
        "the number of tokens that were scored (287,644 in the test split)",
    ],
    do=[
        "Join the rows with an empty line, score each token once, sum the nats over all tokens,"
        " divide once, take exp at the end.",
        "Check the loop on 128/128 windows: it must give 59.69 within 0.5 %.",
    ],
)
def perplexity_out_of_range(case: Case, group: Group) -> Hit | None:
    """A GPT-2 on WikiText-2 is outside what its context allows (`bench/text/published.py`).

    Inconclusive: less than twice above it, or below it, where a table does not name its model; or
    above it, where a line names another method, such as a quantised one.
    """
    if not is_out_of_range(case):
        return None
    alike = [one for one in group.cases if is_altered(one) == is_altered(case)]
    wrong = [one for one in alike if is_out_of_range(one)]
    values = [one.perplexity or 0.0 for one in wrong]
    first, spread = values[0], max(values) / min(values)
    model, unit = model_of(case) or "", case.perplexity_unit
    known = [p for p in published.published_of(model) if p.unit == unit]
    allowed = allowed_range(case)
    assert allowed
    evidence = [
        note("published: " + ", ".join(f"{p.value} at {p.context}/{p.stride}" for p in known))
    ]
    beyond, nats = "", 0.0
    if nearest := nearest_published(known, wrong[0]):
        text = "{first:.5g} is {nats:+.2f} nats per {unit} against {nearest:.4g}"
        nats = math.log(first / nearest)
        beyond = f", {nats:+.2f} nats per {unit} against {nearest:.4g}"
        evidence.append(note(text, first=first, nats=nats, nearest=nearest, unit=unit))
    small = unit == published.TOKEN and model == published.GPT2
    of_128 = published.expected_perplexity(128)
    not_128 = bool(small and of_128 and case.context in (None, 128) and first > of_128[1])
    if not_128:
        text = "a context of 128 tokens does not explain it: it allows {of_128:2}, and 59.69 was"
        evidence.append(note(f"{text} published for exactly that", of_128=of_128))
    if len(wrong) > 1 and spread < _ALIKE:
        text = "{alike} agree within {spread:.1%}: so it is the protocol, not the precision"
        agreeing = tuple(one.precision for one in wrong)
        evidence.append(note(text, alike=agreeing, spread=spread - 1))
    of = f"context {case.context}" if case.context else "any context from 128 to 1024"
    found = mistakes(first, allowed) if unit == published.TOKEN else []
    told: dict[str, Value] = {"allowed": allowed, "of": of, "model": model}
    if is_altered(case):
        return of_altered(case, evidence, told, beyond)
    if "model" in case.assumed and case.foreign and first < _OF_ANOTHER * allowed[1]:
        return Hit(
            evidence,
            told,
            verdict=Verdict.INCONCLUSIVE,
            cause=f"{perplexity_out_of_range.cause}{beyond}; the table does not name its model, and"
            " another model has another perplexity.",
            missing=["the model, and the text"],
            do=["Say it: --model NAME; a column `text` names the text."],
        )
    return Hit(
        [*evidence, *found],
        told,
        cause=f"{perplexity_out_of_range.cause}{beyond}{likely(first, not_128, allowed, nats)}.",
    )


def of_altered(case: Case, evidence: list[Note], values: Mapping[str, Value], beyond: str) -> Hit:
    """Of a line that names what was done to the model, or by which method it ran."""
    return Hit(
        evidence,
        {**values, "run": case.run or case.workload.model},
        verdict=Verdict.INCONCLUSIVE,
        cause=f"{perplexity_out_of_range.cause}{beyond}; `{{run}}` may not be that model as it was"
        " published: quantised or tuned, or run by a faulty method.",
        missing=["what was done to the model, and its perplexity before it"],
        do=["Measure the model as it was published by the same loop."],
    )


@rule(
    Verdict.FIX,
    cause="A perplexity of {perplexity:.5g} is little better than guessing among the tokens of a"
    " vocabulary, of which models have 32,000 to 256,000.",
    missing=["how the weights were loaded, and which labels were scored"],
    do=["Generate a few sentences: a model that guesses shows it at once."],
)
def perplexity_near_guessing(case: Case, group: Group) -> Hit | None:
    """A table's perplexity per token of a model that is not known by name is above 5,000."""
    of_token = case.foreign and case.perplexity_unit == published.TOKEN
    if not of_token or not case.perplexity or allowed_range(case) is not None:
        return None
    return Hit() if case.perplexity > _GUESSING else None


@rule(
    Verdict.ACCEPT,
    minor=True,
    cause="A perplexity of {perplexity:.5g} is the published number of {model} per {unit} ({mode}"
    " {windows}).",
)
def perplexity_as_published(case: Case, group: Group) -> Hit | None:
    """A table's perplexity of a GPT-2 on WikiText-2 is a published number."""
    if not case.foreign or not case.perplexity or not is_wikitext2(case):
        return None
    known = published.is_published(case.perplexity, model_of(case) or "")
    if known is None or case.context not in (None, known.context):
        return None
    windows = f"{known.context}/{known.stride}"
    values = {"model": known.model, "unit": known.unit, "mode": known.mode, "windows": windows}
    return Hit([f"source: {known.source}"], values)


def is_wikitext2(case: Case) -> bool:
    """Whether it is of WikiText-2, as far as anything says."""
    return WIKITEXT_2 in names.text_of(case.text or "").lower()


def nearest_published(known: Sequence[published.PublishedPerplexity], case: Case) -> float | None:
    """The published value at the nearest context without overlap; 128 where it is not known."""
    by_context = {p.context: p.value for p in known if p.stride == p.context}
    if not by_context:
        return None
    return by_context[min(by_context, key=lambda c: abs(c - (case.context or 128)))]


def likely(observed: float, not_128: bool, allowed: tuple[float, float], nats: float) -> str:
    """What it is not, and the likeliest mistakes, as the end of a sentence."""
    if observed < allowed[0]:
        return ": likely pads among the labels, or a text divided by more tokens than were scored"
    if observed > published.GPT2_VOCABULARY:
        return (
            f": worse than guessing among {published.GPT2_VOCABULARY} tokens; the weights or the"
            " labels are wrong"
        )
    if nats < _SMALL_NATS:
        return ": likely another join of the rows, BOS before each window, or a part of the text"
    text = (
        ", and a context of 128 tokens does not explain it (59.69 was published)" if not_128 else ""
    )
    return text + ": likely pads counted in the loss, or exp of the mean loss per line"


def mistakes(observed: float, allowed: tuple[float, float]) -> list[Note]:
    """Mistakes that lead from GPT-2 small's true perplexity per token to another."""
    if observed < allowed[0]:
        return [note(text) for text in _TOO_LOW]
    nats, of_lines = math.log(observed), published.MEAN_OF_LINES.value
    text = "mistake: the mean of the lines' perplexities is {lines:.5g} (published)"
    if observed < 0.9 * of_lines:
        text = (
            "mistake: exp of the mean loss per line: short headings are hard and count as much as"
            " long lines. The mean of the lines' perplexities is {lines:.5g} (published), above it"
        )
    found = [note(text, lines=of_lines, observed=observed)]
    for share in _PAD_SHARES:
        pads = tuple(pad_nats(nats, share, line) for line in reversed(_LINE_NATS))
        if published.PAD_NATS[0] <= pads[0] and pads[1] <= published.PAD_NATS[1]:
            text = "mistake: pad tokens counted in the loss. With {share} pads it needs {nats:2}"
            found.append(note(text + " nats per pad", share=f"{share:.0%}", nats=pads))
    of = published.WIKITEXT2_TEST
    per_token = math.exp(nats * of.words / of.gpt2_tokens)
    text = "mistake: perplexity per word. {observed} per word is {per_token} per token, which "
    right = allowed[0] <= per_token <= allowed[1]
    text += "would be right" if right else "alone does not explain it"
    found.append(note(text, observed=observed, per_token=per_token))
    unshifted = "not the cause" if observed < published.LEAST_UNSHIFTED else "mistake"
    return [
        *found,
        note("mistake: only the first rows, or batch means averaged again: a small sample"),
        note(f"{unshifted}: labels that are not shifted, which give thousands"),
    ]


def is_out_of_range(case: Case) -> bool:
    """Whether it is a GPT-2 on WikiText-2, and cannot be."""
    if not case.perplexity or not is_wikitext2(case):
        return False
    allowed = allowed_range(case)
    if allowed is None or published.is_published(case.perplexity, model_of(case) or ""):
        return False
    if is_altered(case):  # which may well be lower
        return case.perplexity > allowed[1]
    return not allowed[0] <= case.perplexity <= allowed[1]


def is_altered(case: Case) -> bool:
    """Whether a table's model may not be as it was published: tuned, or of an unknown kind."""
    told = f"{case.workload.model} {case.workload.engine} {case.run}"
    is_tuned = _TUNED.search(told) is not None
    return is_tuned or (case.precision == NO_PRECISION and "=" in case.run)


def model_of(case: Case) -> str | None:
    """The GPT-2 whose published numbers hold for a case."""
    return published.same_model(case.workload.model)


def allowed_range(case: Case) -> tuple[float, float] | None:
    """Of its model, context and unit, or of any context where that is unknown."""
    return published.allowed_perplexity(case.workload.model, case.context, case.perplexity_unit)


@rule(
    Verdict.FIX,
    cause="{precision}: the perplexity is not a number: {why}.",
    do=["Look for the first activation that is not finite; compute the sums in float32."],
)
def perplexity_not_finite(case: Case, group: Group) -> Hit | None:
    """A table has nan or inf in the place of a perplexity: float16 overflows above 65,504."""
    if case.perplexity_is_finite:
        return None
    half = case.precision in ("fp16", "mixed")
    why = (
        "float16 overflows above 65504, in an activation or a sum" if half else "a loss overflowed"
    )
    return Hit(values={"why": why})


@rule(
    Verdict.FIX,
    cause="{precision} changes the perplexity by {nats:+.4f} nats per token, beyond its rounding.",
    do=["Compute the log-softmax in float32, and compare the logits of one window."],
)
def perplexity_differs(case: Case, group: Group) -> Hit | None:
    """The loss changes by over 0.005 nats per token, beyond noise.

    By over 0.02 at bf16, and at mixed on a CPU; by over 0.5 with quantised weights.
    """
    base = group.base_of(case)
    if base is None or not case.perplexity or not base.perplexity:
        return None
    if case.perplexity_unit != base.perplexity_unit:
        return None
    paired = case.nats_difference
    difference = paired.mean if paired else math.log(case.perplexity / base.perplexity)
    noise = rounding_of(case, base)
    if paired and paired.low is not None:
        noise = paired.mean - paired.low
    gate = _GATES.get(stored_as(case), _GATES["bf16"])
    if abs(difference) - noise <= gate:
        return None
    pairs = ["window by window as pairs, +- {noise:.4f}"] if paired else []
    return Hit(
        ["{base_perplexity:.5g} -> {perplexity:.5g}", *pairs],
        {"nats": difference, "noise": noise, "gate": gate},
        ["at most {gate:g} nats per token either way"],
        missing=[] if paired else ["the difference as pairs, with its interval"],
    )


@rule(
    Verdict.INCONCLUSIVE,
    minor=True,
    cause="Too few digits: neither equal nor different perplexities mean anything.",
    missing=["five significant digits", "the difference token by token"],
    do=["Write the perplexity with five digits at least."],
)
def perplexity_too_coarse(case: Case, group: Group) -> Hit | None:
    """So few digits that neither equal nor different perplexities mean anything."""
    base = group.base_of(case)
    if base is None or not case.perplexity or not base.perplexity:
        return None
    rounding, usual = rounding_of(case, base), _USUAL.get(stored_as(case), _USUAL["bf16"])
    nats = math.log(case.perplexity / base.perplexity)
    text = (
        "{precision}: {base_perplexity:.5g} -> {perplexity:.5g} is {nats:+.4f} nats per token,"
        " known within {rounding:.4f} by the digits written; usually less than {usual:g}"
    )
    values = {"nats": nats, "rounding": rounding, "usual": usual}
    return Hit([text], values) if rounding > usual else None


def rounding_of(case: Case, base: Case) -> float:
    """How far ln(ours / theirs) may be off because the numbers were written with few digits."""
    return sum((c.perplexity_step or 0.0) / 2 / (c.perplexity or 1.0) for c in (case, base))


def stored_as(case: Case) -> str:
    """What stores the logits: mixed on a CPU is autocast to bf16."""
    return "bf16" if case.precision == "mixed" and case.gpu_type == CPU else case.precision
