"""Records <-> Arrow <-> Parquet: one flat schema, derived from the records.

One row is one Measurement. The fields of a nested record become columns with its name in front
(`timing.latency_ms_p50` -> `timing_latency_ms_p50`); those of `cell` and `workload` stand alone
(`gpu_type`, `batch_size`). Each column's unit and description are in its field metadata; where the
rows came from is in the file's metadata.

Schema versions:
    1  0.1.0, the first
    2  module, serial and vbios of the device; performance_state of the conditions;
       new_tokens, times per output token; kernels_... and ceiling_...; quality with its mode,
       windows, logits and batches; weights by their published name; placement
    3  throughput_output_tokens_per_s of the timing; lags of the sensor
    4  attention, as asked and as it ran (trace_attention)
    5  received_at, by the driver's clock; versions 2 to 4 are still read: what they lack is null,
       and the attention asked for auto
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bench.asked import AUTO
from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome
from bench.warnings import RowWarning

SCHEMA_VERSION = 5
_READS = f"2 to {SCHEMA_VERSION}"
_SINCE_4 = ("received_at",)
_SINCE_3 = ("attention", "trace_attention", *_SINCE_4)
_SINCE_2 = (
    "timing_throughput_output_tokens_per_s",
    "sensor_reading_lag_s",
    "sensor_counter_lag_s",
    *_SINCE_3,
)
_NEW = {b"2": _SINCE_2, b"3": _SINCE_3, b"4": _SINCE_4}  # by the version that lacks them
_ASKED = {"attention": AUTO}  # what a workload was before it could ask for anything else
_VERSION_KEY = b"tensorgap.schema_version"
_SOURCES_KEY = b"tensorgap.sources"
_BARE = ("cell", "workload")  # their fields need no prefix
_ARROW_TYPES: dict[Any, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    datetime.datetime: pa.timestamp("us", tz="UTC"),
    tuple[float, ...]: pa.list_(pa.float64()),
    tuple[int, ...]: pa.list_(pa.int64()),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[RowWarning, ...]: pa.list_(
        pa.struct([("code", pa.string()), ("values", pa.string()), ("text", pa.string())])
    ),
}


class SchemaVersionError(TensorgapError):
    """A table that another version of tensorgap wrote: whole, but not for this one to read."""


@dataclass(frozen=True)
class Source:
    """Where rows came from: a sweep, what it was asked, and the code that ran it."""

    run: str
    matrix: str  # TOML text
    version: str  # of tensorgap
    git_revision: str | None  # None outside a git checkout
    gpu_types: tuple[str, ...] = ()  # that the cluster had: what `auto` stood for
    simulated: bool = False  # GPU cells may compute on the CPU below a stand-in for the driver

    @classmethod
    def from_json(cls, record: Any) -> Source:
        """A source as `dataclasses.asdict` and JSON left it.

        Raises:
            TypeError, UnicodeEncodeError: it is none.
        """
        if not isinstance(record, dict) or not isinstance(record.get("gpu_types", []), list):
            raise TypeError("not a source")
        source = cls(**{**record, "gpu_types": tuple(record.get("gpu_types", []))})
        texts: list[Any] = [source.run, source.matrix, source.version, *source.gpu_types]
        if source.git_revision is not None:
            texts.append(source.git_revision)
        if not all(isinstance(text, str) for text in texts) or not isinstance(
            source.simulated, bool
        ):
            raise TypeError("a field of a source has another type")
        for text in texts:
            text.encode()  # JSON can hold half of a character
        return source


@dataclass(frozen=True)
class Column:
    """One column: where its value stands in a Measurement, and its Arrow type."""

    name: str
    path: tuple[str, ...]
    python_type: Any
    arrow_type: pa.DataType
    optional: bool
    unit: str
    description: str


@functools.cache
def columns() -> tuple[Column, ...]:
    """Every column, in the order of the records."""
    found: list[Column] = []
    hints = typing.get_type_hints(Measurement)
    for field in dataclasses.fields(Measurement):
        kind, optional = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind):
            prefix = "" if field.name in _BARE else f"{field.name}_"
            inner = typing.get_type_hints(kind)
            for part in dataclasses.fields(kind):
                path = (field.name, part.name)
                found.append(_column(prefix + part.name, path, part, inner[part.name], optional))
        else:
            found.append(_column(field.name, (field.name,), field, hints[field.name], False))
    return tuple(found)


@functools.cache
def schema() -> pa.Schema:
    """The Arrow schema of the rows."""
    return pa.schema(
        [
            pa.field(
                column.name,
                column.arrow_type,
                nullable=column.optional,
                metadata={"unit": column.unit, "description": column.description},
            )
            for column in columns()
        ]
    )


def to_table(measurements: Iterable[Measurement], sources: Sequence[Source]) -> pa.Table:
    """Rows as an Arrow table whose metadata says where they came from."""
    rows = list(measurements)
    arrays = [
        pa.array([_value(row, column) for row in rows], type=column.arrow_type)
        for column in columns()
    ]
    metadata = {
        _VERSION_KEY: str(SCHEMA_VERSION),
        _SOURCES_KEY: json.dumps([dataclasses.asdict(source) for source in sources]),
    }
    return pa.Table.from_arrays(arrays, schema=schema().with_metadata(metadata))


def from_table(table: pa.Table, origin: str) -> tuple[list[Measurement], tuple[Source, ...]]:
    """The rows of a table and where they came from; `origin` names the file in messages.

    Raises TensorgapError for a table that tensorgap did not write, or of a schema version that it
    does not read.
    """
    table = _upgraded(table)
    sources = _sources(table, origin)
    wanted = schema()
    counts = Counter(table.column_names)
    for name in wanted.names:
        if counts[name] != 1:
            fault = "stands there twice" if counts[name] else "is missing"
            raise TensorgapError(f"{origin}: column {name} {fault}; the file was changed")
        if table.schema.field(name).type != wanted.field(name).type:
            found = table.schema.field(name).type
            raise TensorgapError(
                f"{origin}: column {name} is {found}, must be {wanted.field(name).type};"
                " the file was changed"
            )
        if not wanted.field(name).nullable and table[name].null_count:
            raise TensorgapError(f"{origin}: column {name} lacks values; the file was changed")
    try:
        rows = [_measurement(row) for row in table.select(wanted.names).to_pylist()]
    except (OverflowError, TypeError, ValueError) as error:  # OverflowError: a time before year 1
        raise TensorgapError(f"{origin}: a row cannot be read: {error}") from None
    return rows, sources


def _upgraded(table: pa.Table) -> pa.Table:
    """A table of an earlier version as one of this: with the columns that it lacks."""
    metadata = table.schema.metadata or {}
    missing = _NEW.get(metadata.get(_VERSION_KEY, b""), ())
    if not missing or not set(missing).isdisjoint(table.column_names):
        return table
    for name in missing:
        new = schema().field(name)
        values = pa.array([_ASKED.get(name)] * table.num_rows, type=new.type)
        table = table.append_column(new, values)
    return table.replace_schema_metadata({**metadata, _VERSION_KEY: str(SCHEMA_VERSION)})


def merge(rows: Iterable[Measurement]) -> list[Measurement]:
    """Rows in a fixed order, each identity once: of several, the one that says most.

    What was measured (OK) goes before what was not, whatever came later: only what is not OK is
    measured again. What an attempt found goes before UNPLACED. Of equals it is the one that the
    driver received last, since the clocks of hosts differ; in schema versions before 5 the one that
    finished last.
    """
    best: dict[Any, Measurement] = {}
    for row in rows:
        identity = (row.run, row.key)
        if identity not in best or _worth(row) > _worth(best[identity]):
            best[identity] = row
    return sorted(best.values(), key=lambda row: (row.run, row.key))


def _worth(row: Measurement) -> tuple[bool, bool, datetime.datetime]:
    """What decides between rows of one identity."""
    at = row.received_at or row.finished_at or datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return row.outcome == Outcome.OK, row.outcome != Outcome.UNPLACED, at


def _column(
    name: str, path: tuple[str, ...], field: dataclasses.Field[Any], hint: Any, outer_optional: bool
) -> Column:
    kind, optional = _without_none(hint)
    is_enum = isinstance(kind, type) and issubclass(kind, enum.StrEnum)
    return Column(
        name=name,
        path=path,
        python_type=kind,
        arrow_type=pa.string() if is_enum else _ARROW_TYPES[kind],
        optional=optional or outer_optional,
        unit=field.metadata["unit"],
        description=field.metadata["description"],
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True); X -> (X, False)."""
    if isinstance(hint, types.UnionType):
        (kind,) = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return kind, True
    return hint, False


def _value(row: Measurement, column: Column) -> Any:
    value: Any = row
    for name in column.path:
        value = None if value is None else getattr(value, name)
    if isinstance(value, tuple) and value and isinstance(value[0], RowWarning):
        return [{"code": w.code, "values": json.dumps(w.values), "text": w.text} for w in value]
    return value


def _measurement(row: Mapping[str, Any]) -> Measurement:
    """The Measurement that a flat row came from. A nested record is absent if all of it is null."""
    top: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for column in columns():
        value = row[column.name]
        if isinstance(value, list) and column.python_type == tuple[RowWarning, ...]:
            value = tuple(RowWarning(w["code"], json.loads(w["values"])) for w in value)
        elif isinstance(value, list):
            value = tuple(value)
        elif value is not None and issubclass(_class_of(column), enum.StrEnum):
            value = column.python_type(value)
        elif isinstance(value, datetime.datetime):
            value = value.astimezone(datetime.UTC)
        if len(column.path) == 1:
            top[column.name] = value
        else:
            nested.setdefault(column.path[0], {})[column.path[1]] = value
    hints = typing.get_type_hints(Measurement)
    for name, values in nested.items():
        kind, _ = _without_none(hints[name])
        top[name] = None if all(v is None for v in values.values()) else _record(kind, values)
    return Measurement(**top)


def _record(kind: Any, values: Mapping[str, Any]) -> Any:
    """A record of these values; ValueError where one that each such record has is null."""
    for name, hint in typing.get_type_hints(kind).items():
        if values[name] is None and not _without_none(hint)[1]:
            raise ValueError(f"{name} of {kind.__name__} lacks a value")
    return kind(**values)


def _class_of(column: Column) -> type:
    return column.python_type if isinstance(column.python_type, type) else tuple


def _sources(table: pa.Table, origin: str) -> tuple[Source, ...]:
    metadata = table.schema.metadata or {}
    if _VERSION_KEY not in metadata:
        raise TensorgapError(
            f"{origin}: not written by tensorgap (its metadata lacks {_VERSION_KEY.decode()})"
        )
    version = metadata[_VERSION_KEY].decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        newer = version.isdecimal() and int(version) > SCHEMA_VERSION
        remedy = (
            "update tensorgap"
            if newer
            else "measure again, or read it with the tensorgap that wrote it"
        )
        raise SchemaVersionError(
            f"{origin}: schema version {version}; this tensorgap reads {_READS}: {remedy}"
        )
    try:
        return tuple(map(Source.from_json, json.loads(metadata[_SOURCES_KEY])))
    except (KeyError, RecursionError, TypeError, ValueError):
        raise TensorgapError(f"{origin}: its metadata {_SOURCES_KEY.decode()} is damaged") from None
