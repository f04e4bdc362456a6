"""What a column holds, by its header and what only its cells tell."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bench.device import gpu_names
from jobs.report.foreign import names, units
from jobs.report.foreign.grid import Line
from jobs.report.foreign.headers import Heading, tags_in
from jobs.report.foreign.unit_words import split, unit_in
from jobs.report.foreign.vocabulary import BY_DIMENSION, LABELS

LOOKED_AT = 200  # cells of a column
_MOST = 0.75  # of the cells of a column that must be of a kind
_INTEGER = ("batch_size", "prompt_tokens", "new_tokens", "context", "stride", "gpu_count")
_RATIO = re.compile(r"[-+]?[\d.]+\s*(x\b.*|\u00d7.*|%.*)", re.IGNORECASE)
_PARAMETERS = re.compile(r"\d+(\.\d+)? ?[MBmb]")
_SIZE = ("parameters",)
_BY_VALUE = ("precision", "gpu", "engine", "model")


def refined(headings: Sequence[Heading], lines: Sequence[Line]) -> list[Heading]:
    """The headings, with what only the cells of a column tell."""
    found = []
    for index, heading in enumerate(headings):
        cells = told_by(lines[:LOOKED_AT], index)
        found.append(replace(by_values(heading, cells), is_empty=not cells))
    if sum(one.field == "model" for one in found) > 1:
        found = [replace(h, field=None) if h.rest == _SIZE else h for h in found]
    taken = {one.field for one in found}
    for index, heading in enumerate(found):
        if heading.field in (None, "configuration") and not heading.tags:
            cells = told_by(lines[:LOOKED_AT], index)
            label = label_by_values(cells, taken)
            if label:
                taken.add(label)
                found[index] = replace(heading, field=label, rest=())
    return found


def told_by(lines: Sequence[Line], index: int) -> list[str]:
    """The cells of a column that say something of it."""
    return [text for _, row in lines if not ignored(text := row[index])]


def ignored(text: str) -> bool:
    """Whether a cell says nothing of its column."""
    return units.is_empty(text) or units.failure(text) is not None


def most(cells: Sequence[str], of: Callable[[str], object]) -> bool:
    """Whether nearly all cells are of a kind."""
    return bool(cells) and sum(bool(of(text)) for text in cells) >= _MOST * len(cells)


def by_values(heading: Heading, cells: Sequence[str]) -> Heading:
    """A heading that its cells contradict, or say more of."""
    numbers = most(cells, units.number_of)
    measured = heading.field in LABELS and most(cells, cell_unit)
    if measured and most(cells, lambda text: text[:1].isdigit() or text[:1] == "~"):
        heading = replace(heading, field=None, rest=tuple(split(heading.name)))  # SDPA: 49.1 ms
    if heading.field in ("engine", "model", "configuration") and (
        cells and most(cells, _is_plain_number)
    ):
        heading = replace(heading, field=None, rest=(heading.name,))  # Runtime: 312, 0:03:21
    if heading.field == "engine" and numbers and most(cells, cell_unit):  # Runtime: 1.29s
        heading = replace(heading, field=None)
    if heading.field == "run" and cells and all(text.isdigit() for text in cells):
        return replace(heading, field="trial")
    if heading.is_quantity or heading.field in (None, "value"):
        if most(cells, is_ratio):
            return replace(heading, field="ratio")
        told = {cell_unit(text) for text in cells} - {None}
        if len(told) == 1 and heading.field != "value":
            (one,) = told
            assert one
            if heading.is_quantity and one.dimension == heading.dimension:
                return replace(heading, unit=None, per=one.per or heading.per)
            few = not heading.rest[3:] if measured else not heading.rest[1:]
            if heading.field is None and few and one.field and most(cells, cell_unit):
                return replace(one, name=heading.name, tags=heading.tags, rest=heading.rest)
    if heading.field in ("size_mb", None) and most(cells, _PARAMETERS.fullmatch):  # 117M, 7B
        return replace(heading, field="model", rest=_SIZE)
    if heading.is_quantity and cells and not numbers and heading.unit is None:
        return replace(heading, field=None)
    if heading.field in _INTEGER and cells and not most(cells, units.number_of):
        return replace(heading, field=None)
    plain = {"precision", "dtype"}.isdisjoint(split(heading.name))
    if heading.field == "precision" and cells and plain and not most(cells, is_precision):
        return replace(heading, field="configuration", rest=())
    if heading.field == "gpu" and cells and all(text.isdigit() for text in cells):
        return replace(heading, field="gpu_count", rest=())
    return heading


def is_ratio(text: str) -> bool:
    """Whether a cell says how many times as much something is, or a share."""
    return _RATIO.fullmatch(units.plain(text)) is not None


def _is_plain_number(text: str) -> bool:
    """Whether a cell is a number or a time of a clock, without a unit."""
    return bool(re.fullmatch(r"[-+\d.,:eE]+", text))


def cell_unit(text: str) -> Heading | None:
    """What the unit in a cell says: `96 samp/s` is a throughput."""
    number = units.number_of(text)
    if not number or not number.rest:
        return None
    unit, per, dimension, rest = unit_in(split(number.rest))
    if units.spelled(number.rest) == "b":
        return None  # 6.74 B are parameters rather than bytes
    if alone := units.UNIT.get(units.spelled(number.rest)):
        unit, per, dimension, rest = alone, None, units.DIMENSION[alone], []
    if not dimension or rest:
        return None
    if dimension == "time" and per == "token":
        return Heading("", "per_output_token_ms", unit, per)
    return Heading("", BY_DIMENSION[dimension], None, per)


def is_precision(text: str) -> bool:
    """Whether a cell of a column of precisions names one, of ours or another."""
    return names.precision_in(names.words_of(text), alone=True).what is not None


def label_by_values(cells: Sequence[str], taken: Iterable[str | None]) -> str | None:
    """What kind of name the cells of a column without a known header are."""
    is_a: dict[str, Callable[[str], object]] = {
        "precision": is_precision,
        "gpu": lambda text: gpu_names.boards(text) or gpu_names.among(names.words_of(text)),
        "engine": lambda text: names.engine_in(names.words_of(text)).what,
        "model": lambda text: not text[:1].isdigit() and names.model_of(text),
    }
    if not cells or most(cells, lambda text: text[:1].isdigit()):
        return None
    for label in _BY_VALUE:
        if label not in taken and most(cells, is_a[label]):
            return label
    if most(cells, lambda text: tags_in(split(units.plain(text)))[0]):
        return "configuration"
    return None
