"""What others have published: a text, weights and perplexities, each with its source.

A measured number is held against these: a text or weights that carry a known name but not its
hash are not what they claim, and a perplexity of GPT-2 far from the published one is a fault of
the protocol, not of the precision. Standard library only, so that a report can ask without torch.
"""

import itertools
import math
from dataclasses import dataclass

GPT2 = "gpt2"
GPT2_NAMES = (GPT2, "openai-community/gpt2")  # on the hub
GPT2_VOCABULARY = 50_257

TOKEN = "token"
WORD = "word"
BYTE = "byte"
BITS_PER_BYTE = "bit/B"


@dataclass(frozen=True)
class PublishedText:
    """A published text; its rows are joined by an empty line, as transformers' guide does it."""

    name: str  # with its split
    sha256: str  # of the original file
    joined_sha256: str  # of the joined rows
    bytes: int
    words: int
    gpt2_tokens: int  # that GPT-2's byte-pair encoding makes of the joined rows
    gpt2_tokens_sha256: str  # of these ids as little-endian int32
    source: str


@dataclass(frozen=True)
class PublishedPerplexity:
    """A perplexity that was published of a GPT-2 on a split of WikiText-2."""

    mode: str  # as `quality.mode` in a matrix
    context: int  # longest window, in tokens
    stride: int  # new tokens per window
    unit: str  # perplexity per token or word, or bits per byte
    value: float
    within: float  # relative tolerance: rounding, versions and what the source leaves open
    source: str
    tokens: int | None = None  # that the source says it scored
    model: str = GPT2
    split: str = "test"


WIKITEXT2_TEST = PublishedText(
    name="wikitext-2 test",
    sha256="173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
    joined_sha256="696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83",
    bytes=1_290_590,
    words=241_211,
    gpt2_tokens=287_644,
    gpt2_tokens_sha256="ef6af648320b73e3cb62461c48c8e4539aec4d10c751005e32d690977f0b9ccf",
    source="wiki.test.raw of Merity et al. 2016 (arXiv:1609.07843), as wikitext-2-raw-v1.zip"
    " holds it; 287,644 tokens: huggingface/transformers, docs/source/en/perplexity.md",
)

# The name of published weights by the SHA-256 of their model.safetensors.
WEIGHTS = {
    # openai-community/gpt2, revision 607a30d783dfa663caf39e06633721c8d4cfcd7e
    "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707": GPT2,
    # bench/text/embedded/tiny, which benchmarks/train_tiny.py makes
    "786e74a53db59093a360c4a810f3694b049de935820b9e80b2cd8d26d6f14a43": "tiny",
}

PUBLISHED = (
    PublishedPerplexity(
        "hf-docs", 128, 128, TOKEN, 59.69, 0.005,
        "umer-ateeq/GPT-From-Scratch, docs: fp32 on a CPU, the whole raw test split",
        tokens=285_396,
    ),
    PublishedPerplexity(
        "hf-docs", 256, 256, TOKEN, 43.34, 0.02,
        "huggingface/transformers#483",
    ),
    PublishedPerplexity(
        "hf-docs", 1024, 1024, TOKEN, 29.94, 0.005,
        "huggingface/transformers#13761; karpathy/llm.c#276",
    ),
    PublishedPerplexity(
        "hf-docs", 1024, 512, TOKEN, 25.2, 0.01,
        "loss 3.23: allenlu2009.github.io, 2025-01-15, Perplexity_Code",
    ),
    PublishedPerplexity(
        "lm-eval", 1024, 1024, WORD, 37.37, 0.003,
        "lm-eval's wikitext task: huggingface/transformers#13761; 37.3698 in workofart/ml-by-hand",
    ),
    PublishedPerplexity(
        "lm-eval", 1024, 1024, BITS_PER_BYTE, 0.9769, 0.003,
        "lm-eval's wikitext task: workofart/ml-by-hand, its run of openai-community/gpt2",
    ),
)  # fmt: skip

_PAPER = (
    "GPT-2's paper, section 3.1 and table 3: with de-tokenizers that were not published, so it"
    " cannot"
    " be reproduced exactly (openai/gpt-2#78)"
)
_HF_GUIDE = "huggingface/transformers, docs/source/en/perplexity.md"
PUBLISHED_OF_OTHERS = (
    PublishedPerplexity(
        "hf-docs", 1024, 1024, TOKEN, 31.04, 0.005, "karpathy/llm.c#276", split="validation"
    ),
    PublishedPerplexity("paper", 1024, 1024, WORD, 29.41, 0.005, _PAPER),
    PublishedPerplexity("paper", 1024, 1024, WORD, 22.76, 0.005, _PAPER, model="gpt2-medium"),
    PublishedPerplexity("paper", 1024, 1024, WORD, 19.93, 0.005, _PAPER, model="gpt2-large"),
    PublishedPerplexity("paper", 1024, 1024, WORD, 18.34, 0.005, _PAPER, model="gpt2-xl"),
    PublishedPerplexity("hf-docs", 1024, 1024, TOKEN, 19.44, 0.005, _HF_GUIDE, model="gpt2-large"),
    PublishedPerplexity("hf-docs", 1024, 512, TOKEN, 16.45, 0.005, _HF_GUIDE, model="gpt2-large"),
)


@dataclass(frozen=True)
class OtherPerplexity:
    """A published perplexity that is not of GPT-2 as it is on WikiText-2."""

    value: float
    model: str
    what: str  # text, and what was done to the model
    source: str


_TABLE_3 = "GPT-2's paper, table 3"
_BY_TEXT = {  # of gpt2, gpt2-medium, gpt2-large, gpt2-xl
    "the last words of LAMBADA": (35.13, 15.60, 10.87, 8.63),
    "Penn Treebank": (65.85, 47.33, 40.31, 35.76),
    "WikiText-103": (37.50, 26.37, 22.05, 17.48),
    "One Billion Words": (75.20, 55.72, 44.575, 42.16),
}
_SPARSEBIT = "megvii-research/Sparsebit#125"
OTHERS = (
    *(
        OtherPerplexity(value, model, text, _TABLE_3)
        for text, values in _BY_TEXT.items()
        for model, value in zip(
            ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), values, strict=True
        )
    ),
    OtherPerplexity(16.3, GPT2, "WikiText-103, fine-tuned on it", "distilgpt2's model card"),
    OtherPerplexity(21.1, "distilgpt2", "WikiText-103, fine-tuned on it", "its model card"),
    OtherPerplexity(17.09, GPT2, "WikiText-2, fine-tuned on it", _SPARSEBIT),
    OtherPerplexity(29.17, GPT2, "WikiText-2 with another count of its tokens",
                    "huggingface/transformers#483"),
)  # fmt: skip
# GPT-2 small on WikiText-2 with int8 weights and activations, by how their ranges were chosen.
INT8_ACTIVATIONS = (960.52, 6996.0)
INT8_SOURCE = _SPARSEBIT
# Perplexity of a larger GPT-2 over that of the small one: of the paper (22.76, 19.93 and 18.34 over
# 29.41) and of transformers' guide (19.44 over 29.94), with 5 % on either side.
_OF_SMALL = {
    GPT2: (1.0, 1.0),
    "gpt2-medium": (0.735, 0.815),
    "gpt2-large": (0.62, 0.71),
    "gpt2-xl": (0.59, 0.655),
}
# lm-eval de-tokenizes its pages, and divides by the words and bytes of the original.
_LM_EVAL_TOKENS, _LM_EVAL_WORDS = 272_082, 241_335

# Published numbers that come of a mistake, or of another question than the text's perplexity.
MEAN_OF_LINES = PublishedPerplexity(
    "evaluate", 1024, 1024, "mean of the lines' perplexities", 546.62, 0.01,
    "huggingface.co/spaces/evaluate-measurement/perplexity/discussions/1",
)  # fmt: skip
# 1,940 lines of 197,913 tokens, each cut or padded to 128: one label fewer per line than tokens.
FIRST_STUDY_PADDING_SHARE = 1 - (197_913 - 1_940) / (1_940 * 127)  # of the labels
FIRST_STUDY_SOURCE = (
    "github.com/krishkc5/energy_aware_quantization: GPT2_BENCHMARK_SUMMARY.md, notebooks"
    " gpt2_tokenized_dataset.ipynb and final_quantization_benchmark_GPT2.ipynb"
)

# Of the labels, where the 2,891 lines of the test split that are not blank are padded to 128.
PADDED_LINES_SHARE = 0.44
# What a pad costs a model that never saw one: 7.4 nats on a toy; guessing costs 10.8.
PAD_NATS = (5.0, 12.0)
# Labels that are not shifted cost 8 to 12 times the perplexity on toys.
LEAST_UNSHIFTED = 500.0

# What honest protocols differ by at one context. Above: BOS before each window (1.03) and other
# joins of the rows (up to 1.05). Below: windows that overlap.
_CONTEXTS = (128, 256, 512, 1024)
SHORTEST, LONGEST = 16, 1024  # contexts of which something can be said
_ABOVE = 1.10
_BELOW = 0.95


def is_wikitext2_test(sha256: str | None) -> bool:
    """Whether this is the hash of WikiText-2's test split, of the file or of its joined rows."""
    return sha256 in (WIKITEXT2_TEST.sha256, WIKITEXT2_TEST.joined_sha256)


def expected_perplexity(context: int) -> tuple[float, float] | None:
    """Range of GPT-2 small's perplexity per token on the WikiText-2 test split.

    Without overlap, windows of `context` tokens leave half of it to a token on average; windows
    that move token by token leave all of it, as much as windows of twice the length do without
    overlap. So the range goes from the published value at twice the context to the one at
    `context`, interpolated on logarithmic axes, with what honest protocols differ by. Of 16 to 127
    tokens nothing is published: there it ends where half the context costs twice the perplexity,
    which between 128 and 1024 costs 1.38 times. None beyond.

    >>> low, high = expected_perplexity(128)
    >>> low < 59.69 < high < 217
    True
    >>> low, high = expected_perplexity(64)
    >>> low < 85 < high < 140
    True
    >>> expected_perplexity(8)
    """
    if not SHORTEST <= context <= LONGEST:
        return None
    low = _BELOW * without_overlap(2 * context)
    shortest = _CONTEXTS[0]
    if context < shortest:
        return low, _ABOVE * without_overlap(shortest) * shortest / context
    return low, _ABOVE * without_overlap(context)


def same_model(model: str) -> str | None:
    """The GPT-2 that published numbers are of, by its name with or without an owner; None: none."""
    name = model.rpartition("/")[2]
    return name if name in _OF_SMALL else None


def published_of(model: str, split: str = "test") -> list[PublishedPerplexity]:
    """What was published of a GPT-2 on a split of WikiText-2.

    >>> [one.value for one in published_of("gpt2-large")]
    [19.93, 19.44, 16.45]
    """
    every = (*PUBLISHED, *PUBLISHED_OF_OTHERS)
    return [p for p in every if (p.model, p.split) == (model, split)]


def allowed_perplexity(
    model: str, context: int | None, unit: str = TOKEN
) -> tuple[float, float] | None:
    """Range of a GPT-2's perplexity on WikiText-2's test split, in a unit.

    Of any context from 128 to 1024 where it is not known; None for another model.

    >>> low, high = allowed_perplexity("gpt2", 1024, WORD)
    >>> low < 37.37 < high
    True
    >>> low, high = allowed_perplexity("gpt2-large", 1024)
    >>> low < 16.45 < 19.44 < high
    True
    """
    name = same_model(model)
    if name is None:
        return None
    ranges = [r for c in ([context] if context else _CONTEXTS) if (r := expected_perplexity(c))]
    if not ranges:  # shorter or longer than what is published
        short = context is not None and context < SHORTEST
        ranges = [r for c in _CONTEXTS if (r := expected_perplexity(c))]
        ranges = [(low, math.inf if short else high) for low, high in ranges]
    low, high = min(ranges)[0], max(high for _, high in ranges)
    low, high = low * _OF_SMALL[name][0], high * _OF_SMALL[name][1]
    of = WIKITEXT2_TEST
    count = {WORD: of.words, BYTE: of.bytes}.get(unit)
    if count is None:
        return low, high
    # The fewer tokens are lm-eval's, for the low end.
    return low ** (_LM_EVAL_TOKENS / count), high ** (of.gpt2_tokens / count)


def models() -> tuple[str, ...]:
    """The models of which a perplexity was published."""
    return tuple(_OF_SMALL)


def is_published(value: float, model: str) -> PublishedPerplexity | None:
    """The published number that a perplexity is, whatever its unit."""
    near = [p for p in published_of(model) if abs(value / p.value - 1) <= p.within]
    return min(near, key=lambda p: abs(value / p.value - 1), default=None)


def without_overlap(context: int) -> float:
    """The published perplexity without overlap; beyond its ends along the nearest line."""
    points = sorted(
        (math.log(p.context), math.log(p.value))
        for p in PUBLISHED
        if p.mode == "hf-docs" and p.stride == p.context
    )
    x = math.log(context)
    # Of the lines between neighbours, the last that begins before it.
    lines = list(itertools.pairwise(points))
    (x0, y0), (x1, y1) = [line for line in lines if line[0][0] <= x or line == lines[0]][-1]
    return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
