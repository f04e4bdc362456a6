"""Lines of a log that are no pairs of a name and a number, and what they say of their block.

`encoding 512 sentences 0.34s 1492 samples/s`, `The HF model took 0.89 seconds`, `TTFT (s): [0.2275,
0.2016]`, `Using device: cuda with dtype: torch.float32, torch.compile: True`, `With
max_seq_length=384, here is the result:`, `Generated 25 new tokens`.
"""

import functools
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.report.foreign import units
from jobs.report.foreign.columns import cell_unit
from jobs.report.foreign.headers import heading_of, tags_in
from jobs.report.foreign.unit_words import split
from jobs.report.foreign.vocabulary import NOT_A_LATENCY

_MOST_WORDS, _LONGEST = 26, 300  # of a line
_MOST_BESIDE = 4  # words beside the numbers of a line
_PART = re.compile(r"(?<![\w.,])(\d[\d.,]{0,18})\s{0,2}([A-Za-z\u00b5][A-Za-z/]{0,20})(?![\w/])")
_TOOK = re.compile(
    r"([A-Za-z][\w .()/+-]{1,60}?) took:?\s{1,3}(\d[\d.,]{0,18}\s?[A-Za-z\u00b5]{1,12})[.;]?"
)
_LIST = re.compile(r"([A-Za-z][\w .()/%-]{0,60}?)\s{0,9}[:=]\s{0,9}[\[(]([-+\d.,eE ]{3,280})[\])]")
_GENERATED = re.compile(r"(?:generated|generating):? (\d{1,7}) (?:new )?tokens?\b.{0,40}", re.I)
_SETTINGS = {
    "sequence length": re.compile(r"\b(?:max_)?(?:seq|sequence)_?len(?:gth)?\s?=\s?(\d{1,7})\b"),
    "batch size": re.compile(r"\b(?:batch_?size|bs)\s?=\s?(\d{1,7})\b"),
    "new tokens": re.compile(r"\bmax_new_tokens\s?=\s?(\d{1,7})\b"),
}
_DTYPE = re.compile(r"\b(?:torch_)?(?:dtype|precision)\s?[:=]\s?([\w.]{2,30})", re.IGNORECASE)
_ON = re.compile(r"\b([A-Za-z][\w.]{1,40})\s?[:=]\s?(?:True|on|yes|enabled)\b", re.IGNORECASE)
_NAMED_BY = {"time": "latency", "memory": "memory", "energy": "energy", "power": "power"}


@dataclass(frozen=True)
class Phrase:
    """What a line says.

    Attributes:
        block: The name of the block that it begins; None: it is of the block that it stands in.
        is_list: Whether its number is the median of a list.
    """

    block: str | None = None
    is_list: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)


@functools.lru_cache(10_000)
def phrase_of(told: str, inside: bool) -> Phrase | None:
    """What a line says, which may stand `inside` a block; None: it is none of these.

    >>> phrase_of("encoding 512 sentences 0.34s 1492 samples/s", True).numbers
    {'test duration (s)': '0.34 s', 'samples/s': '1492 samples/s'}
    >>> phrase_of("Uncompiled HF took 0.89 seconds", False).block
    'Uncompiled HF'
    >>> phrase_of("Using device: cuda with dtype: float16, torch.compile: True", False).block
    'float16 torch.compile'
    >>> phrase_of("TTFT (s): [0.2, 0.4, 0.3]", False).numbers
    {'TTFT (s)': '0.3'}
    """
    told = told[:_LONGEST]
    if told.upper() == "CPU":
        return Phrase(labels={"device": "CPU"})
    if found := _TOOK.fullmatch(told):
        if not NOT_A_LATENCY.isdisjoint(split(found[1])):  # Loading the model took 12 s
            return None
        numbers = measured_in(found[2])
        return Phrase(block=found[1], numbers=numbers) if numbers else None
    if found := _GENERATED.fullmatch(told):
        return Phrase(labels={"new tokens": found[1]})
    if found := _LIST.fullmatch(told):
        return of_list(found[1].strip(), found[2])
    if told.endswith(":") and len(told.split()) <= _MOST_WORDS:
        settings = {name: one[1] for name, of in _SETTINGS.items() if (one := of.search(told))}
        if settings:
            return Phrase(labels=settings)
    if found := _DTYPE.search(told):
        on = [one[1] for one in _ON.finditer(told)]
        is_known = "precision" in tags_in(split(found[1]))[0]
        return Phrase(block=" ".join([found[1], *on])) if is_known else None
    numbers = measured_in(told) if inside else {}
    return Phrase(numbers=numbers) if len(numbers) > 1 else None


def measured_in(told: str) -> dict[str, str]:
    """The numbers with units of a line that has few words beside them, by what they measure.

    A time beside a rate and a count, as of 512 sentences, is that of all of them.
    """
    found: dict[str, str] = {}
    counted = False
    for number, unit in _PART.findall(told):
        heading = cell_unit(f"{number} {unit}")
        if heading is None and units.NOUN.get(unit.lower()) != "sample":
            return {}
        if heading is None:
            counted = True
            continue
        named = _NAMED_BY.get(heading.dimension)
        name = f"{named} ({unit})" if named else unit
        if name in found:
            return {}
        found[name] = f"{number} {unit}"
    beside = _PART.sub(" ", told)
    if any(one.isdigit() for one in beside) or len(beside.split()) > _MOST_BESIDE:
        return {}
    if counted and any(heading_of(name).dimension == "rate" for name in found):
        found = {name.replace("latency (", "test duration ("): one for name, one in found.items()}
    return found


def of_list(name: str, listed: str) -> Phrase | None:
    """A quantity of which each run has a number: their median; or a length that is each one's."""
    heading = heading_of(name)
    numbers = numbers_in(listed.split(","))
    if not numbers:
        return None
    if heading.is_quantity:
        return Phrase(numbers={name: f"{statistics.median(numbers):.10g}"}, is_list=True)
    if heading.field in ("new_tokens", "prompt_tokens", "batch_size") and len({*numbers}) == 1:
        return Phrase(labels={name: f"{numbers[0]:.10g}"})
    return None


def numbers_in(cells: Sequence[str]) -> list[float]:
    """Cells as numbers; none where one of them is none."""
    try:
        return [float(cell) for cell in cells if cell.strip()]
    except ValueError:
        return []
