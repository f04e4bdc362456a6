"""What a column holds, by its header: quantity, unit, what it counts, and whom it is about.

`FT Latency (ms)` is a latency in ms of FasterTransformer, `fp16 tok/s` a rate of tokens at fp16,
`energy_mj_per_token` an energy per token. What is left over of a header tells its column apart from
others of the same quantity, or it is not understood.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bench.asked import CPU
from bench.device import gpu_names
from jobs.report.foreign import names, units
from jobs.report.foreign.unit_words import LONGEST, OTHER, per_thousand, split, unit_in
from jobs.report.foreign.vocabulary import (
    BY_DIMENSION,
    FILLER,
    LABEL,
    LABELS,
    NOT_A_LATENCY,
    NOT_COMPARED,
    OTHER_TEXTS,
    PREFIXES,
    QUANTITIES,
    QUANTITY,
    RATIO,
    STATISTIC,
)

_QUANTILE = re.compile(r"p\d\d(\.\d+)?|\d\d(p|th)")
_BRACKETS = re.compile(r"[(\[{]([^)\]}]*)[)\]}]")
_BATCH_TAG = re.compile(r"(?:bs|bsz|batch|batchsize)=?(\d+)|m?b=(\d+)")
_SIZED = re.compile(r"size=(\d+)")
_TOKENS_TAG = re.compile(r"(?:seq|seqlen|len)=?(\d+)|s=(\d+)")

_OF_NEW = {"out", "output", "generated", "generation", "decode", "new"}
_OF_A_RATE = ("out", "token", "tokens", "output", "generated", "generation", "decode")
_WITH_RATES = (
    "new_tokens",
    "context",
    "engine",
    "gpu",
    "model",
    "configuration",
)  # `decode tokens tok/s`
# Name and unit that contradict each other, of which the unit counts.
_BY_UNIT = {("time", "rate"), ("rate", "time"), ("energy", "power"), ("power", "energy")}


@dataclass(frozen=True)
class Heading:
    """A column, as its header was understood.

    Attributes:
        name: As it stands there.
        field: What it holds; "ratio" of what is derived from others; None: not understood.
        unit: As people write it; None where the header has none.
        per: What a time or an energy is of, or what a rate counts: token, sample or batch.
        scale: What a number is multiplied by besides its unit: 0.001 per 1,000 tokens.
        statistic: median, mean, best, tail or spread; empty: not said.
        tags: Whom it is about: precision, engine, gpu, batch_size, prompt_tokens.
        rest: Words that are left over.
        is_empty: Whether no cell of the column says anything.
    """

    name: str
    field: str | None
    unit: str | None = None
    per: str | None = None
    statistic: str = ""
    scale: float = 1.0
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    rest: tuple[str, ...] = ()
    is_empty: bool = False

    @property
    def is_quantity(self) -> bool:
        """Whether its cells are measured numbers."""
        return self.field in QUANTITIES

    @property
    def dimension(self) -> str:
        """Of its unit."""
        return QUANTITIES.get(self.field or "", ("", ""))[0]


def heading_of(name: str) -> Heading:
    """What a header says.

    >>> heading_of("Latency (ms)").field, heading_of("Latency (ms)").unit
    ('latency_ms', 'ms')
    >>> found = heading_of("Energy (mJ/token)")
    >>> found.field, found.unit, found.per
    ('energy_mj', 'mj', 'token')
    >>> found = heading_of("fp16 tok/s")
    >>> found.field, found.per, found.tags
    ('throughput_per_s', 'token', {'precision': 'fp16'})
    >>> heading_of("EFF-FT Latency (ms)").tags, heading_of("FT Speedup").field
    ({'engine': 'eff-ft'}, 'ratio')
    >>> heading_of("timing_latency_ms_p50").statistic, heading_of("mood").field
    ('median', None)
    """
    told = units.plain(name[:LONGEST])
    every = split(told)
    inner = split(" ".join(found[1] for found in _BRACKETS.finditer(told)))
    words = [*split(_BRACKETS.sub(" ", told)), *inner]
    while len(words) > 1 and words[0] in PREFIXES and tuple(words[:2]) not in QUANTITY:
        words = words[1:]
    scale, words = per_thousand(words)
    statistic, words = statistic_in(words, len(words) - len(inner))
    unit, per, dimension, words = unit_in(words, len(statistic_in(inner, 0)[1]))
    if is_derived(words) or _OF_TWO.search(told):  # ln(PPL(Q)/PPL(base))
        return Heading(name, "ratio", rest=tuple(words))
    if statistic == "spread" and not words:
        return Heading(name, "spread", statistic=statistic)
    tags, words = tags_in(words)
    found, rest = named(words, dimension)
    if unit == "min" and found in QUANTITIES and QUANTITIES[str(found)][0] != "time":
        unit, dimension, statistic = None, "", "best"  # Energy (min)
    found = settled(found, dimension, per, words)
    if not NOT_COMPARED.isdisjoint(every) or ("compile", "time") in pairwise(every):
        found, tags = None, {}
    if found in LABELS and not is_label(str(found), every, rest):
        found = None
    if found == "throughput_per_s":
        rest = tuple(word for word in rest if word not in _OF_A_RATE)
        every_token = per == "token" and "total" in every and _OF_NEW.isdisjoint(every)
        per = "every token" if every_token else per
    if found == "perplexity" and not OTHER_TEXTS.isdisjoint(every):
        return Heading(name, "ratio", rest=tuple(words))
    if found == "gpu" and tags:  # GPU FP16
        found = None
    if found in QUANTITIES and statistic == "spread":
        found = "spread"
    if found in ("perplexity", "bits_per_byte"):
        per = next((word for word in ("word", "byte", "token") if word in words), None)
        rest = tuple(word for word in rest if word != per)
    if found in LABELS and found not in tags:  # `batch size 8` is no column of GPUs
        tags = {}
    return Heading(name, found, unit, per, statistic, scale, tags, rest)


def headings_of(names_of: Sequence[str]) -> list[Heading]:
    """What the headers of one table say: `(min)` is no minute beside `(max)` or `(mean)`.

    >>> [one.statistic for one in headings_of(["Latency (min)", "Latency (mean)"])]
    ['best', 'mean']
    """
    beside = any(_BESIDE_MIN.search(name) for name in names_of)
    return [
        replace(heading_of(_MIN.sub("(minimum)", name)), name=name) if beside else heading_of(name)
        for name in names_of
    ]


_BESIDE_MIN = re.compile(r"\((max|mean|avg|median|average|std|p\d\d)\)", re.IGNORECASE)
_MIN = re.compile(r"\(min\)", re.IGNORECASE)


_OF_TWO = re.compile(
    r"\b(?:ln|log|log2|log10) ?\(|\b(\w{3,20}) ?\([^()]{1,40}\) ?/ ?\1\b", re.IGNORECASE
)


def is_derived(words: Sequence[str]) -> bool:
    """Whether words say that a column is worked out of others, and are no name of a column."""
    known = tuple(words) in LABEL
    return not known and (not RATIO.isdisjoint(words) or ("speed", "up") in pairwise(words))


def is_label(found: str, every: Sequence[str], rest: Sequence[str]) -> bool:
    """Whether a name of a label is no part of another thing's: of all tokens, of a longest prompt.

    >>> is_label("prompt_tokens", ["total", "tokens"], []), is_label("gpu", ["gpu"], [])
    (False, True)
    """
    if found in ("prompt_tokens", "new_tokens") and "total" in every:
        return False
    if found in ("outcome", "text", "split") and set(rest) - FILLER:  # P-state, test tokens
        return False
    return not (found == "prompt_tokens" and "max" in rest)


def settled(found: str | None, dimension: str, per: str | None, words: Sequence[str]) -> str | None:
    """The field that words name, once the dimension of its unit is taken into account.

    >>> settled("per_output_token_ms", "rate", "token", ["decode"])
    'throughput_per_s'
    >>> settled("latency_ms", "time", None, ["training", "time"]) is None
    True
    """
    is_request = NOT_A_LATENCY.isdisjoint(words)
    if dimension == OTHER:
        return None
    if found in LABELS and dimension:
        return "throughput_per_s" if dimension == "rate" and found in _WITH_RATES else None
    if found in QUANTITIES and dimension and QUANTITIES[str(found)][0] != dimension:
        # `decode tok/s` is a rate, and of the prompt's tokens it is none that is compared.
        known = found != "first_token_ms" and (QUANTITIES[str(found)][0], dimension) in _BY_UNIT
        found = BY_DIMENSION[dimension] if known else None
    elif found is None and dimension:
        found = BY_DIMENSION[dimension] if is_request else None
    if found in ("size_mb", "memory_mb") and "hidden" in words:
        return None
    if found == "size_mb" and not dimension and not set(words) <= _OF_A_SIZE:  # beam size
        return None
    if found != "latency_ms":
        return found
    if not is_request:
        return None
    if per == "token":
        return "per_output_token_ms"
    return "first_token_ms" if {"first", "token"} <= set(words) else found


_STOP = ("in", "of", "the", "for", "on", "at", "with", "by")
_OF_A_SIZE = {"size", "model", "weights", "weight", "file", "params", "footprint", "checkpoint"}
_OF_A_SIZE |= {"on", "disk"} | FILLER


def statistic_in(words: list[str], outer: int) -> tuple[str, list[str]]:
    """The statistic that words name, and the others; a spread where one of several is one.

    `min` is a minute in brackets, which are the words from `outer` on, and after `per`.
    """
    found: list[str] = []
    rest: list[str] = []
    for at, word in enumerate(words):
        if word == "percentile" and rest[-1:] and rest[-1].isdigit():
            found.append("median" if rest.pop() == "50" else "tail")
            continue
        minute = word == "min" and (at >= outer or words[at - 1 : at] in (["/"], ["per"]))
        if minute:
            rest.append(word)
        elif word == "peak" and words[at + 1 : at + 2] == ["power"]:
            found.append("tail")
        elif _QUANTILE.fullmatch(word):
            found.append("median" if "50" in word else "tail")
        elif word in STATISTIC and not (word == "max" and words[at + 1 : at + 2] in _MAXIMA):
            found.append(STATISTIC[word])
        else:
            rest.append(word)
    return ("spread" if "spread" in found else found[-1] if found else ""), rest


_MAXIMA = (["new"], ["seq"], ["sequence"], ["batch"], ["length"], ["memory"], ["tokens"])


def tags_in(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Precision, GPU, batch size, length and engine among words, and the others."""
    tags: dict[str, str] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
        if found := _BATCH_TAG.fullmatch(word):
            tags["batch_size"] = found[1] or found[2]
        elif found := _TOKENS_TAG.fullmatch(word):
            tags["prompt_tokens"] = found[1] or found[2]
        elif word in ("batch", "bs", "bsz") and following.isdigit():
            tags["batch_size"] = following
            at += 1
        elif word == "batch" and (sized := _SIZED.fullmatch(following)):  # batch_size=32
            tags["batch_size"] = sized[1]
            at += 1
        elif (word, following) == ("batch", "size") and "".join(words[at + 2 : at + 3]).isdigit():
            tags["batch_size"] = words[at + 2]
            at += 2
        else:
            rest.append(word)
        at += 1
    precision = names.precision_in(rest)
    if precision.what:
        tags["precision"] = precision.what
        rest = list(precision.rest)
    if "cpu" in rest and rest[rest.index("cpu") + 1 :][:1] != ["time"]:
        tags["gpu"] = CPU
        rest.remove("cpu")
    elif gpu := gpu_names.among(rest):
        tags["gpu"], rest = gpu[0], list(gpu[1])
    engine = names.engine_in(rest)
    if engine.what and engine.rest != tuple(rest):
        tags["engine"] = engine.what
        rest = list(engine.rest)
    return tags, rest


def named(words: Sequence[str], dimension: str) -> tuple[str | None, tuple[str, ...]]:
    """The field that words name, by the longest name among them, and the words that are left."""
    best: tuple[int, int, str, tuple[str, ...]] | None = None
    for known, of in ((QUANTITY, 1), (LABEL, 0)):
        for begin in range(len(words)):
            for count in range(min(5, len(words) - begin), 0, -1):
                phrase = tuple(words[begin : begin + count])
                if phrase not in known:
                    continue
                name = known[phrase]
                rest = (*words[:begin], *words[begin + count :])
                # A unit beside it makes a quantity of a word that is both.
                wanted = of if dimension else 0
                score = (count, wanted, name, rest)
                if best is None or score[:2] > best[:2]:
                    best = score
                break
    if best is None:
        left = tuple(word for word in words if word not in _STOP)
        return ("batch_size", ()) if list(words) == ["b"] else (None, left)
    _, _, name, rest = best
    left = tuple(word for word in rest if word not in FILLER and word != "/")
    return name, left
