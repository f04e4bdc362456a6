"""What a matrix may say: pydantic models of its tables, and a line of words for each mistake.

The models are made from the records of `bench.asked`, whose fields say what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from bench.asked import AUTO, CPU, Cell, PlacementPlan, QualityPlan, Sampling, Workload
from bench.device.gpus import COMPUTE_CAPABILITY
from bench.errors import TensorgapError

PLANS = {"sampling": Sampling, "quality": QualityPlan, "placement": PlacementPlan}
MOST_ENTRIES = 1000  # of a list of cells: more than there are types of GPU
MOST_MISTAKES = 20  # that are shown
STRICT = pydantic.ConfigDict(strict=True, extra="forbid", defer_build=True)


def unknown(value: object, known: Iterable[str], what: str = "unknown") -> str:
    """What is said of a value that is none of the known ones, with the nearest of them."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(str(value).lower(), [n.lower() for n in names], n=1)
    near = next((f"did you mean {n}? " for n in names if close and n.lower() == close[0]), "")
    return f"{what}; {near}allowed: {', '.join(names)}"


def gpu_type(value: str) -> str:
    """The name of a GPU type; ValueError where a known one is only spelled differently."""
    names = (AUTO, CPU, *COMPUTE_CAPABILITY)
    alike = [name for name in names if name.lower() == value.lower().strip()]
    if alike and value not in names:
        raise ValueError(f"unknown type; did you mean {alike[0]}?")
    return value


def one_type(value: str) -> str:
    """The GPU type of a single cell; ValueError for `auto`, which may be several."""
    if value == AUTO:
        raise ValueError("must be one type, such as T4 or CPU")
    return gpu_type(value)


def allowed(field: dataclasses.Field[Any]) -> AfterValidator:
    """A check of a value by what its field allows; ValueError says what that is."""
    choices, limits = field.metadata["choices"], field.metadata["limits"]

    def check(value: Any) -> Any:
        if choices and value not in choices:
            raise ValueError(unknown(value, choices))
        if limits and not limits[0] <= value <= limits[1]:
            raise ValueError(f"must be from {limits[0]:g} to {limits[1]:g}")
        if isinstance(value, str) and not value.strip() and field.default != "":
            raise ValueError("must be a string that is not empty")
        return value

    return AfterValidator(check)


def table_of(record: type, lists: bool = False) -> Any:
    """The model of a table whose keys are the fields of a record, each perhaps a list of values."""
    hints = typing.get_type_hints(record)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        kind: Any = Annotated[hints[field.name], allowed(field)]
        if field.name == "gpu_type":
            kind = Annotated[kind, AfterValidator(one_type)]
        if lists:
            as_list = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
            kind = Annotated[list[kind], Field(min_length=1), as_list]
        default = ... if field.default is dataclasses.MISSING else field.default
        made[field.name] = (kind, Field(default, description=field.metadata["description"]))
    return pydantic.create_model(record.__name__, __config__=STRICT, **made)


def list_of(kind: Any) -> Any:
    """A list that may be left out, and is short enough to compare its entries with one another."""
    return (Annotated[list[kind], Field(max_length=MOST_ENTRIES)] | None, None)


CELL = table_of(Cell)
WORKLOAD = table_of(Workload, lists=True)
TYPE, PRECISION = (Annotated[str, allowed(field)] for field in dataclasses.fields(Cell))
CELLS: Any = pydantic.create_model(
    "Cells",
    __config__=STRICT,
    gpu_types=list_of(Annotated[TYPE, AfterValidator(gpu_type)]),
    precisions=list_of(PRECISION),
    include=list_of(CELL),
    exclude=list_of(CELL),
)
TABLES: dict[str, Any] = {"cells": CELLS, **{name: table_of(kind) for name, kind in PLANS.items()}}
NAME = Field(pattern=r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)
DOCUMENT: Any = pydantic.create_model(
    "Document",
    __config__=STRICT,
    name=(Annotated[str, NAME], ...),
    cells=(CELLS, Field(default_factory=CELLS)),
    workloads=(Annotated[list[WORKLOAD], Field(min_length=1)], ...),  # type: ignore[valid-type]
    **dict[str, Any]({name: (TABLES[name], Field(default_factory=TABLES[name])) for name in PLANS}),
)
AT = {"": DOCUMENT, "workloads": WORKLOAD, "cells.include": CELL, "cells.exclude": CELL, **TABLES}
A_LIST = 'must be a list of strings, such as ["auto"]'
LIST_OF_CELLS = 'must be a list such as [{gpu_type = "CPU", precision = "fp16"}]'
SHAPES = {
    "name": "must be letters, digits, '.', '_' and '-'; it becomes a folder's name",
    "workloads": "must be tables, each written [[workloads]]",
    **{name: f"must be a table, written [{name}]" for name in TABLES},
    **dict.fromkeys(("cells.gpu_types", "cells.precisions"), A_LIST),
    **dict.fromkeys(("cells.include", "cells.exclude"), LIST_OF_CELLS),
}
TYPES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "too_short": "must not be an empty list",
}


def validated(document: Mapping[str, Any], source: str) -> Any:
    """The document as its model; TensorgapError names everything that is wrong with it."""
    try:
        return DOCUMENT.model_validate(document)
    except pydantic.ValidationError as error:
        refuse((mistake(one, document) for one in error.errors(include_url=False)), source)


def mistake(error: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What is wrong, in words, for one of pydantic's errors."""
    *above, last = keys = [step for step in error["loc"] if isinstance(step, str)]
    where, table = ".".join(keys), AT.get(".".join(above), DOCUMENT).model_fields
    path, node = "", typing.cast(Any, document)
    for step in error["loc"]:
        if isinstance(step, str):
            path += f".{step}" if path else step
            node = node.get(step, {})
        elif isinstance(node, list):  # else it is one value, which is read as a list of one
            path += f"[{step}]"
            node = node[step]
    kind, value = error["type"], error["input"]
    if where == "workloads" and kind in ("missing", "too_short"):
        remedy = '[[workloads]] must name at least a model, such as model = "gpt2"'
        return f"workloads: nothing to measure; {remedy}"
    if kind == "missing":
        return f"{path}: missing; {table[last].description}"
    if kind == "extra_forbidden":
        return f"{cut(path)}: {unknown(last, table, 'unknown key')}"
    if kind == "too_long":
        return f"{path}: {len(value):,} entries; allowed: {MOST_ENTRIES:,}"
    if kind == "value_error":
        return said(path, value, str(error["ctx"]["error"]))
    if kind == "float_type" and type(value) is int:
        return said(path, value, "is too large")
    if where == "name" or kind in ("list_type", "model_type"):
        return said(path, value, SHAPES[where])
    return said(path, value, TYPES[kind])


def refuse(mistakes: Iterable[str], source: str) -> None:
    """Raise TensorgapError with a line for each mistake, if there are any."""
    lines = list(dict.fromkeys(itertools.islice(mistakes, MOST_MISTAKES + 1)))
    if len(lines) > MOST_MISTAKES:
        lines[MOST_MISTAKES:] = ["and more mistakes"]
    if lines:
        raise TensorgapError(*(f"{source}: {line}" for line in lines))


def said(key: str, value: object, remedy: str) -> str:
    """The form of a complaint: what has which value, and what is allowed."""
    return f"{key} = {shown(value)}: {remedy}"


def shown(value: object) -> str:
    """A value for a message, cut to a readable length."""
    try:
        plain = isinstance(value, str | bool | int | float)
        return cut(json.dumps(value, ensure_ascii=False) if plain else str(value))
    except ValueError:  # an integer of thousands of digits
        return cut(hex(value)) if isinstance(value, int) else "?"


def cut(text: str) -> str:
    """At most 60 characters of a text."""
    return text if len(text) <= 60 else text[:57] + "..."
