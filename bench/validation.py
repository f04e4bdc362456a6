"""What a matrix may say: a line of words for each mistake in its tables.

The keys of a table are the fields of a record of `bench.asked`, which say what is allowed.
"""

import dataclasses
import difflib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.asked import AUTO, CPU, Cell, PlacementPlan, QualityPlan, Sampling, Workload
from bench.device.gpus import COMPUTE_CAPABILITY
from bench.errors import TensorgapError

PLANS = {"sampling": Sampling, "quality": QualityPlan, "placement": PlacementPlan}
NAME = re.compile(r"\.*[A-Za-z0-9_-][A-Za-z0-9._-]*")
LONGEST_NAME = 100
MOST_ENTRIES = 1000  # of a list of cells: more than there are types of GPU
MOST_MISTAKES = 20  # that are shown
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "must be a whole number"),
    float: ((float, int), "must be a number"),
    str: ((str,), "must be a string"),
    bool: ((bool,), "must be true or false"),
}
TYPE, PRECISION = dataclasses.fields(Cell)
OF_CELLS: dict[str, Any] = {
    "gpu_types": TYPE,
    "precisions": PRECISION,
    "include": Cell,
    "exclude": Cell,
}
NAMES_FORM = 'must be a list of strings, such as ["auto"]'
CELLS_FORM = 'must be a list such as [{gpu_type = "CPU", precision = "fp16"}]'
WORKLOADS_FORM = "must be tables, each written [[workloads]]"


def mistakes(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with each key and with each value of a matrix by itself."""
    name, workloads = document["name"], document.get("workloads", [])
    if not (isinstance(name, str) and NAME.fullmatch(name) and len(name) <= LONGEST_NAME):
        form = "must be letters, digits, '.', '_' and '-'; it becomes a folder's name"
        yield said("name", name, form)
    yield from in_cells(document.get("cells", {}))
    if not workloads:
        remedy = '[[workloads]] must name at least a model, such as model = "gpt2"'
        yield f"workloads: nothing to measure; {remedy}"
    elif not isinstance(workloads, list):
        yield said("workloads", workloads, WORKLOADS_FORM)
    else:
        for index, table in enumerate(workloads):
            yield from in_table(f"workloads[{index}]", table, Workload, WORKLOADS_FORM)
    for key, plan in PLANS.items():
        form = f"must be a table, written [{key}]"
        yield from in_table(key, document.get(key, {}), plan, form)
    yield from unknown_keys("", document, ("name", "cells", "workloads", *PLANS))


def in_cells(cells: Any) -> Iterator[str]:
    """What is wrong with the table of the cells."""
    if not isinstance(cells, dict):
        yield said("cells", cells, "must be a table, written [cells]")
        return
    for key, kind in OF_CELLS.items():
        path, entries = f"cells.{key}", cells.get(key, [])
        if not isinstance(entries, list):
            yield said(path, entries, CELLS_FORM if kind is Cell else NAMES_FORM)
        elif len(entries) > MOST_ENTRIES:
            yield f"{path}: {len(entries):,} entries; allowed: {MOST_ENTRIES:,}"
        else:
            for index, entry in enumerate(entries):
                where = f"{path}[{index}]"
                if kind is Cell:
                    yield from in_table(where, entry, Cell, CELLS_FORM)
                elif (kind is PRECISION or entry != AUTO) and (fault := why_not(entry, kind)):
                    yield said(where, entry, fault)
    yield from unknown_keys("cells.", cells, OF_CELLS)


def in_table(path: str, table: Any, record: type, form: str) -> Iterator[str]:
    """What is wrong with a table of a record's fields; those of a workload may be lists.

    Args:
        path: of the table.
        table: as TOML has it.
        record: whose fields are its keys.
        form: what is said where it is no table.
    """
    if not isinstance(table, dict):
        yield said(path, table, form)
        return
    fields = {field.name: field for field in dataclasses.fields(record)}
    for key, field in fields.items():
        where = f"{path}.{key}"
        if key not in table:
            if field.default is dataclasses.MISSING:
                yield f"{where}: missing; {field.metadata['description']}"
            continue
        value = table[key]
        as_list = record is Workload and isinstance(value, list)
        if value == [] and as_list:
            yield said(where, value, "must not be an empty list")
        for index, one in enumerate(value if as_list else [value]):
            if fault := why_not(one, field):
                yield said(f"{where}[{index}]" if as_list else where, one, fault)
    yield from unknown_keys(f"{path}.", table, fields)


def why_not(value: Any, field: dataclasses.Field[Any]) -> str | None:
    """What a field allows instead of this value; None where it allows it."""
    kinds, form = KINDS[field.type]
    choices, limits = field.metadata["choices"], field.metadata["limits"]
    if type(value) not in kinds:  # not isinstance: True is an int
        return form
    if choices and value not in choices:
        return unknown(value, choices)
    if limits and not limits[0] <= value <= limits[1]:
        return f"must be from {limits[0]:g} to {limits[1]:g}"
    if str in kinds and not value.strip() and field.default != "":
        return "must be a string that is not empty"
    if field.name == "gpu_type":
        return "must be one type, such as T4 or CPU" if value == AUTO else misspelt(value)
    return None


def misspelt(gpu_type: str) -> str | None:
    """What is said of a GPU type that is a known one but for capitals and blanks."""
    names = (AUTO, CPU, *COMPUTE_CAPABILITY)
    alike = [name for name in names if name.lower() == gpu_type.lower().strip()]
    return f"unknown type; did you mean {alike[0]}?" if alike and gpu_type not in names else None


def unknown_keys(prefix: str, table: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """What is said of each key of a table that is none of the known ones."""
    for key in table:
        if key not in known:
            yield f"{cut(prefix + key)}: {unknown(key, known, 'unknown key')}"


def unknown(value: object, known: Iterable[str], what: str = "unknown") -> str:
    """What is said of a value that is none of the known ones, with the nearest of them."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(str(value).lower(), [n.lower() for n in names], n=1)
    near = next((f"did you mean {n}? " for n in names if close and n.lower() == close[0]), "")
    return f"{what}; {near}allowed: {', '.join(names)}"


def refuse(lines: Iterable[str], source: str) -> None:
    """Raise TensorgapError with a line for each mistake, if there are any."""
    first = list(dict.fromkeys(itertools.islice(lines, MOST_MISTAKES + 1)))
    first[MOST_MISTAKES:] = ["and more mistakes"] if len(first) > MOST_MISTAKES else []
    if first:
        raise TensorgapError(*(f"{source}: {line}" for line in first))


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
