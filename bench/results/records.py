"""Arrow -> records, a column at a time: a row has 200 values, and most are the same in many rows.

The types are those of the schema, which `columns.described` compares. What the types do not say is
looked at here: that nothing lacks which each record has, and that outcomes, times and warnings are
some.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import json
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.errors import TensorgapError
from bench.files.storage import complaint
from bench.measured import Outcome
from bench.results.columns import (
    ARROW_TYPES,
    SAMPLES,
    WARNING,
    adapter,
    column_name,
    columns,
)
from bench.warnings import RowWarning

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MOST_WARNINGS = 4096  # that are kept to be used again


def of_kind(kind: type, table: pa.Table, origin: str) -> list[Any]:
    """The records of a table that has the columns of this kind, as `described` found.

    A table may lack columns of SAMPLES, of fields with a default, and all those of an optional
    record. In the place of samples that each record has stands an empty tuple: such records are
    not for writing.
    """
    try:
        return built(kind, table)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        # OverflowError: a time before year 1; of pydantic's words, the first line says enough.
        raise TensorgapError(f"{origin}: a row cannot be read: {complaint(error)}") from None


def built(kind: Any, table: pa.Table, path: tuple[str, ...] = ()) -> list[Any]:
    """A record for each row; None for one of whose fields there is no value."""
    names = {at.name for at in columns(kind, path).values()}.intersection(table.column_names)
    partly = [table[name].combine_chunks() for name in names if table[name].null_count]
    there = np.full(len(table), len(partly) < len(names) or not path)
    there = functools.reduce(np.logical_or, map(valid, partly), there)
    if not there.any():
        return [None] * len(table)
    fields = [values_of(field, hint, table, path, there) for field, hint in hinted(kind)]
    if there.all():
        return list(map(kind, *fields))
    rows = zip(there.tolist(), *fields, strict=True)
    return [kind(*values) if is_there else None for is_there, *values in rows]


@functools.cache
def hinted(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a record, each with its type."""
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def values_of(
    field: dataclasses.Field[Any], hint: Any, table: pa.Table, path: tuple[str, ...], there: Any
) -> Sequence[Any]:
    """The values of a field; ValueError where one lacks that is of a record that is `there`."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    optional, here = types.NoneType in kinds, (*path, field.name)
    if kinds[0] not in ARROW_TYPES:
        found = built(kinds[0], table, here)
        if not optional and None in found:
            raise ValueError(f"{column_name(here)} lacks a value")
        return found
    name = column_name(here)
    if name not in table.column_names:
        default = () if name in SAMPLES else field.default
        if not optional and default is dataclasses.MISSING:
            raise ValueError(f"{name} lacks a value")
        return [None if optional else default] * len(table)
    column = table[name].combine_chunks()
    if not optional and column.null_count and (there & ~valid(column)).any():
        raise ValueError(f"{name} lacks a value")
    if kinds[0] is Outcome:
        return worded(column, outcome_of)
    return plain(column)


def plain(column: pa.Array) -> list[Any]:
    """The values of a column as a record has them."""
    kind = column.type
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_string(kind):
        return worded(column, str)
    if pa.types.is_list(kind):
        each: list[Any] = list(tuples(column))
    elif pa.types.is_timestamp(kind):
        times = np.where(valid(column), numbers(column), 0).tolist()
        each = [EPOCH + datetime.timedelta(microseconds=time) for time in times]
    else:
        each = numbers(column).tolist()
    if column.null_count:
        known = valid(column).tolist()
        each = [value if is_known else None for value, is_known in zip(each, known, strict=True)]
    return each


def tuples(column: pa.ListArray) -> Iterator[tuple[Any, ...]]:
    """The lists of a column; those that repeat the one before, as replicates do, are made once."""
    inner, bounds = column.values, itertools.pairwise(numbers(column.offsets).tolist())
    if inner.type == WARNING or pa.types.is_string(inner.type):
        every = list(warned(inner)) if inner.type == WARNING else plain(inner)
        yield from (tuple(every[begin:end]) for begin, end in bounds)
        return
    if inner.null_count:
        raise ValueError("a list lacks a value")
    flat, before, made = numbers(inner), b"", ()
    for begin, end in bounds:
        if (piece := flat[begin:end]).tobytes() != before:
            before, made = piece.tobytes(), tuple(piece.tolist())
        yield made


def worded(column: pa.Array, of: Callable[[str], Any]) -> list[Any]:
    """The texts of a column, each made once."""
    coded = column.dictionary_encode()
    words = [*map(of, coded.dictionary.to_pylist()), None]
    return [words[at] for at in np.where(valid(column), numbers(coded.indices), -1).tolist()]


def valid(column: pa.Array) -> NDArray[np.bool_]:
    """Where a column has a value.

    From its buffers: most functions of pyarrow import pandas where there is one, which takes longer
    than to read a thousand rows.
    """
    bits = column.buffers()[0]
    return np.full(len(column), True) if bits is None else flags(bits, column)


def numbers(column: pa.Array) -> NDArray[Any]:
    """The numbers, moments or truths of a column; where it has no value, any."""
    if not len(column):
        return np.empty(0, np.int64)
    content = column.buffers()[1]
    if content is None:
        return np.zeros(len(column), np.int64)
    if pa.types.is_boolean(column.type):
        return flags(content, column)
    wide = "i8" if pa.types.is_timestamp(column.type) else column.type.to_pandas_dtype()
    return np.frombuffer(content, wide)[column.offset :][: len(column)]


def flags(bits: pa.Buffer, column: pa.Array) -> NDArray[np.bool_]:
    """The bits of a column."""
    every = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return every[column.offset :][: len(column)].astype(bool)


def indices(numbers: NDArray[np.int64]) -> pa.Array:
    """Numbers of rows as Arrow takes them."""
    whole = np.ascontiguousarray(numbers, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(whole), [None, pa.py_buffer(whole)])


def outcome_of(text: str) -> Outcome:
    """The outcome of this name; ValueError where there is none."""
    try:
        return Outcome(text)
    except ValueError:
        raise ValueError(f'outcome = "{text}": allowed: {", ".join(Outcome)}') from None


def warned(stored: pa.StructArray) -> Iterator[RowWarning]:
    """The warnings of a column; LookupError, TypeError or ValueError where one has no words."""
    for code, values in zip(plain(stored.field(0)), plain(stored.field(1)), strict=True):
        yield warning_of(code, values)


@functools.lru_cache(maxsize=MOST_WARNINGS)
def warning_of(code: str, values: str) -> RowWarning:
    """A warning as it was stored."""
    found = {"code": code, "values": json.loads(values)}
    warning: RowWarning = adapter(RowWarning).validate_python(found)
    str(warning)
    return warning
