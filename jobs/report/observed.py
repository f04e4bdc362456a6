"""What published numbers say of a perplexity that somebody observed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.text import published
from jobs.report.perplexity import NEAR

_NEARLY = 0.1  # what other lengths of windows make of the mean of the lines' perplexities
_SLIGHTLY = 0.9  # of the least: what other joins and half windows make of it
_MANY_PADS = 0.3  # of the labels: fewer do not make a perplexity too low
_MOST_UNSHIFTED = 5000.0
_TUNED = (10.0, 25.0)
_MOST_SHOWN = 1e5
_UNITS = (published.TOKEN, published.WORD, published.BYTE)


@dataclass(frozen=True)
class Asked:
    """A perplexity that somebody observed, and what is known of how it came about."""

    observed: float
    model: str | None = None
    context: int | None = None
    unit: str | None = None
    split: str = "test"

    @property
    def whose(self) -> str:
        """The model, or the one that is meant where none is named."""
        return self.model or published.GPT2

    @property
    def is_gpt2(self) -> bool:
        """Whether something is published of the model."""
        return published.same_model(self.whose) is not None


def from_published(asked: Asked) -> str:
    """What published numbers of GPT-2 say of an observed perplexity."""
    observed, whose = asked.observed, asked.whose
    if not math.isfinite(observed):
        return (
            f"{observed:g} is no perplexity but an overflow: float16 ends at 65504, so an"
            " activation, a logit or a sum became infinite.\n"
            "Compute the log-softmax and the sums in float32; look for the first activation that is"
            " not finite; bfloat16 does not overflow there."
        )
    rows = sorted(published_rows(asked), key=lambda row: row.value)
    whom = "GPT-2 small (124M)" if whose == published.GPT2 else whose
    lines = [
        f"{shown(observed)} observed; published for {whom} on the wikitext-2 {asked.split} split:"
    ]
    lines += ["", *(
        f"  {row.value:8.2f}  {row.unit:17}  {row.windows}"
        f"   {shown(observed)} is {times(observed / row.value)} as much"
        for row in rows
    )]  # fmt: skip
    if not rows:
        lines.append(f"  nothing per {asked.unit}" if asked.unit else "  nothing")
    wrong = published.MEAN_OF_LINES
    if whose == published.GPT2 and asked.unit in (None, published.TOKEN):
        lines.append(f"  {wrong.value:8.2f}  {wrong.unit} ({wrong.mode}): a mistake")
    lines += ["", *explanation(asked, rows), ""]
    return "\n".join([*lines, "with --text TEXT the mistakes that could give it are computed"])


def shown(value: float) -> str:
    """A perplexity with the digits that mean something.

    >>> shown(217.0), shown(4.23e43)
    ('217', '4.23e+43')
    """
    return f"{value:g}" if value < _MOST_SHOWN else f"{value:.3g}"


def times(ratio: float) -> str:
    """How many times as much.

    >>> times(1.3333), times(1.68e42)
    ('1.33 times', '1.68e+42 times')
    """
    return f"{ratio:.2f} times" if ratio < _MOST_SHOWN else f"{ratio:.3g} times"


@dataclass(frozen=True)
class PublishedRow:
    """A published perplexity of the model, in the unit that is asked for."""

    value: float
    unit: str
    known: published.PublishedPerplexity

    @property
    def windows(self) -> str:
        """Mode, context and stride."""
        return f"{self.known.mode} {self.known.context}/{self.known.stride}"


_SAME_PER_WORD = "the same per word"


def published_rows(asked: Asked) -> Iterator[PublishedRow]:
    """Published perplexities of the model in the unit that is asked for."""
    text = published.WIKITEXT2_TEST
    for known in published.published_of(asked.whose, asked.split):
        if known.unit == published.BITS_PER_BYTE:
            if asked.unit == published.BYTE:
                yield PublishedRow(2**known.value, "per byte", known)
            continue
        if asked.unit in (None, known.unit):
            yield PublishedRow(known.value, f"per {known.unit}", known)
        if known.unit == published.TOKEN and asked.unit in (None, published.WORD):
            # The same nats per word: a number per word beside one per token looks like a fault.
            per_word = known.value ** ((known.tokens or text.gpt2_tokens) / text.words)
            yield PublishedRow(per_word, _SAME_PER_WORD, known)


def explanation(asked: Asked, rows: Sequence[PublishedRow]) -> list[str]:
    """What could give the observed perplexity, likeliest first."""
    observed, of_tokens = asked.observed, asked.unit in (None, published.TOKEN)
    near = [
        f"within {NEAR:.0%} of the number"
        f" {'per word of the same run' if row.unit == _SAME_PER_WORD else row.unit}: {row.windows}"
        for row in rows
        if is_near(observed, row.value) and asked.context in (None, row.known.context)
    ]
    other = list(others(asked))
    if near:
        return [*near, *other]
    if asked.whose == published.GPT2 and of_tokens and (lines := of_lines(observed)):
        return [lines, *other]
    if of_tokens and observed > published.GPT2_VOCABULARY:
        return [
            f"above the vocabulary of {published.GPT2_VOCABULARY} tokens: worse than guessing; the"
            " weights were not loaded, or the labels are not those of the text"
        ]
    if not asked.is_gpt2:
        return [*other, *of_unknown(asked)]
    allowed = published.allowed_perplexity(
        asked.whose, asked.context, asked.unit or published.TOKEN
    )
    assert allowed  # of a model that is known
    if allowed[0] <= observed <= allowed[1]:
        return [right(asked, asked.unit or published.TOKEN), *other]
    if observed < allowed[0]:
        return [*other, *too_low(asked, allowed[0])]
    return [*other, *too_high(asked, allowed[1])]


def of_lines(observed: float) -> str | None:
    """Whether it is the mean of the lines' perplexities; None: it is not."""
    wrong = published.MEAN_OF_LINES
    if abs(observed / wrong.value - 1) > _NEARLY:
        return None
    which = "" if is_near(observed, wrong.value) else f"{observed:g} is within {_NEARLY:.0%} of "
    return (
        f"{which}the published {wrong.unit}, each line a sample of its own ({wrong.source}): a"
        " mistake; sum the nats over all tokens, and divide once"
    )


def is_near(observed: float, value: float) -> bool:
    """Whether two perplexities are the same number."""
    return abs(observed / value - 1) <= NEAR


def others(asked: Asked) -> Iterator[str]:
    """Published numbers of other texts and models that the observed one is."""
    observed = asked.observed
    for known in published.OTHERS:
        same = asked.model is None or known.model == asked.whose
        if same and asked.unit in (None, published.WORD) and is_near(observed, known.value):
            whose = f"{known.model} on {known.what} ({known.source})"
            yield f"within {NEAR:.0%} of {known.value:g}, {whose}"
    for name in published.models():
        for p in published.published_of(name, asked.split):
            if name == asked.whose or p.unit == published.BITS_PER_BYTE:
                continue
            same = asked.context in (None, p.context) and asked.unit in (None, p.unit)
            if same and is_near(observed, p.value):
                yield (
                    f"within {NEAR:.0%} of the number per {p.unit} of {p.model}, {p.mode}"
                    f" {p.context}/{p.stride}: was that the model?"
                )


def of_unknown(asked: Asked) -> list[str]:
    """What can be said of a model of which nothing is published."""
    least = published.allowed_perplexity(published.GPT2, asked.context)
    whose = f"nothing is published of {asked.whose} on WikiText-2"
    if asked.whose == "distilgpt2" and least and asked.unit in (None, published.TOKEN):
        told = f"; it is a smaller GPT-2, so it cannot be below {least[0]:.3g}, where GPT-2 begins"
        tuned = ": it was fine-tuned, or the text is another" if asked.observed < least[0] else ""
        return [f"{whose}{told}{tuned}"]
    return [whose]


def right(asked: Asked, unit: str) -> str:
    """In which context an observed perplexity is a right number of WikiText-2."""
    of = "" if unit == published.TOKEN else f" per {unit}"
    told = f"a right number{of}, if it is of WikiText-2,"
    if asked.context:
        return f"{told} with a context of {asked.context} tokens"
    contexts = fitting(asked, unit)
    if not contexts:
        return "within what any context allows"
    return f"{told} with a context of {contexts[0]} to {contexts[-1]} tokens"


def fitting(asked: Asked, unit: str) -> list[int]:
    """The contexts in which a perplexity is a right number of the model."""
    return [
        context
        for context in range(published.SHORTEST, published.LONGEST + 1)
        if (allowed := published.allowed_perplexity(asked.whose, context, unit))
        and allowed[0] <= asked.observed <= allowed[1]
    ]


def too_low(asked: Asked, least: float) -> list[str]:
    """What makes a perplexity lower than any right protocol does."""
    observed, unit = asked.observed, asked.unit or published.TOKEN
    found = [
        f"lower than joined rows give with any windows ({least:.3g}): another model or text, or a"
        " mistake"
    ]
    if observed >= _SLIGHTLY * least:
        return [
            f"a little lower than joined rows give ({least:.3g}): another join of the rows, or"
            " windows of which only the second half counts (llama.cpp), explain that"
        ]
    if unit == published.TOKEN and _TUNED[0] <= observed <= _TUNED[1]:
        found.append(
            "a model that was fine-tuned on the text: gpt2 then reaches 16 to 21 on WikiText-103"
            " and WikiText-2 (distilgpt2's model card; megvii-research/Sparsebit#125)"
        )
    usual = published.allowed_perplexity(asked.whose, asked.context or 128, unit)
    assert usual
    share = 1 - math.log(observed) / math.log(usual[1])
    if share > _MANY_PADS:
        found.append(
            f"pads among the labels, which the model finds easy: {share:.0%} of them at no cost"
            f" make {observed:g} of {usual[1]:.3g} (huggingface/transformers#5391)"
        )
    return [*found, "tokens that the model sees before it predicts them: labels shifted twice"]


def too_high(asked: Asked, most: float) -> list[str]:
    """How far a perplexity is above what is right, and what could make up for it."""
    observed, unit = asked.observed, asked.unit or published.TOKEN
    other_units = [
        right(asked, one)
        for one in _UNITS
        if asked.unit is None and one != unit and fits(asked, one)
    ]
    known = published.published_of(asked.whose, asked.split)
    of_unit = [p for p in known if p.unit == unit and p.stride == p.context]
    found = []
    if asked.context or asked.whose != published.GPT2 or unit != published.TOKEN:
        found.append(
            f"above what is right here, {most:.4g} at most; the context does not explain it"
        )
        if of_unit:
            nearest = min(of_unit, key=lambda p: abs(p.context - (asked.context or p.context)))
            nats = math.log(observed / nearest.value)
            where = f"{nearest.context}/{nearest.stride}"
            found.append(f"{nats:+.2f} nats per {unit} against {nearest.value} at {where}")
    else:
        short = published.without_overlap(128)
        more = "; no context explains it"
        if contexts := fitting(asked, unit):
            more = f"; that context does not explain it, only one of at most {contexts[-1]} could"
        found.append(
            f"a context of 128 tokens gives about {short:.1f}, not {observed:g}: that is"
            f" {math.log(observed / short):.2f} nats per token more{more}"
        )
    return [*found, *other_units, *mistakes(asked)]


def fits(asked: Asked, unit: str) -> bool:
    """Whether a perplexity is a right number in another unit."""
    allowed = published.allowed_perplexity(asked.whose, asked.context, unit)
    return bool(allowed and allowed[0] <= asked.observed <= allowed[1])


def mistakes(asked: Asked) -> list[str]:
    """What is known to make a perplexity too high, where it can make this one."""
    observed, unit = asked.observed, asked.unit or published.TOKEN
    found = ["likely: another text or join of its rows, BOS or pads among the labels"]
    if unit != published.TOKEN or asked.whose != published.GPT2:
        return found
    short = published.without_overlap(min(asked.context or 128, 128))
    most = published.allowed_perplexity(asked.whose, asked.context)
    if most and observed < math.e * most[1] and asked.context:
        return found
    found_here = list(pads(observed, short))
    low, high = published.INT8_ACTIVATIONS
    if observed < published.MEAN_OF_LINES.value:
        found_here.append(
            "exp of the mean loss per line, in which short headings count as much as lines"
        )
    if published.LEAST_UNSHIFTED <= observed <= _MOST_UNSHIFTED:
        found_here.append(
            "labels that are not shifted, which cost 8 to 12 times the perplexity or more"
        )
    if observed >= published.LEAST_UNSHIFTED:
        found_here.append(
            f"int8 activations: {low:g} to {high:g} by how their ranges were chosen"
            f" ({published.INT8_SOURCE})"
        )
    return found_here or found


def pads(observed: float, text: float) -> Iterator[str]:
    """The shares of pads among the labels that can make an observed perplexity of the text's."""
    study, lines = published.FIRST_STUDY_PADDING_SHARE, published.PADDED_LINES_SHARE
    source = published.FIRST_STUDY_SOURCE.partition(":")[0]
    whose = {
        study: f"as the study that reported 217 did ({study:.1%} of its labels, {source})",
        lines: f"of all lines ({lines:.0%} of the labels)",
    }
    for share, which in whose.items():
        nats = pad_nats(math.log(observed), share, math.log(text))
        if published.PAD_NATS[0] <= nats <= published.PAD_NATS[1]:
            yield (
                f"pads counted in the loss, {which}: with {text:.1f} on the text, {observed:g}"
                f" needs {nats:.1f} nats for each pad"
            )


def pad_nats(observed: float, share: float, text: float) -> float:
    """What each pad costs, if pads make of the text's nats per label those that were observed."""
    return (observed - (1 - share) * text) / share
