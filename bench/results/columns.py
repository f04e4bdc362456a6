"""Records -> Arrow: one flat schema of each kind of record, derived from its class.

One row is one Measurement, or one Profile where that waits for its row. The fields of a nested
record become columns with its name in front (`timing.latency_ms_p50` -> `timing_latency_ms_p50`);
those of `cell` and `workload` stand alone (`gpu_type`, `batch_size`). Each column's unit and
description are in its field metadata; where the rows came from is in the file's metadata.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import inspect
import itertools
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import ConfigDict, TypeAdapter

from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome, Profile
from bench.warnings import RowWarning

SCHEMA_VERSION = 2
VERSION_KEY = b"tensorgap.schema_version"
SOURCES_KEY = b"tensorgap.sources"
KIND_KEY = b"tensorgap.records"
KINDS: dict[bytes, type] = {kind.__name__.encode(): kind for kind in (Measurement, Profile)}
BARE = ("cell", "workload")  # their fields need no prefix
# Columns that hold most of the bytes of a row, and that few readers need.
SAMPLES = (
    *("timing_latency_ms_samples", "timing_device_ms_samples", "timing_first_token_ms_samples"),
    *("energy_trace_s", "energy_trace_w"),
)
WARNING = pa.struct([("code", pa.string()), ("values", pa.string()), ("text", pa.string())])
SINCE = b"since"  # of a column: the version of the schema that first had it
ARROW_TYPES: dict[Any, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    Outcome: pa.string(),
    datetime.datetime: pa.timestamp("us", tz="UTC"),
    tuple[float, ...]: pa.list_(pa.float64()),
    tuple[int, ...]: pa.list_(pa.int64()),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[RowWarning, ...]: pa.list_(WARNING),
}


class SchemaVersionError(TensorgapError):
    """A table that another version of tensorgap wrote: whole, but not for this one to read."""


@dataclass(frozen=True)
class Source:
    """Where rows came from: a sweep, what it was asked, and the code that ran it."""

    __pydantic_config__: typing.ClassVar = ConfigDict(strict=True, extra="forbid")

    run: str
    matrix: str  # TOML text
    version: str  # of tensorgap
    git_revision: str | None  # None outside a git checkout
    gpu_types: tuple[str, ...] = ()  # that the cluster had: what `auto` stood for
    simulated: bool = False  # GPU cells may compute on the CPU below a stand-in for the driver

    @classmethod
    def from_json(cls, text: bytes) -> Source:
        """A source as JSON; ValueError where it is none."""
        return adapter(Source).validate_json(text)  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """The source as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads values as this type."""
    return TypeAdapter(kind)


@functools.cache
def columns(
    record: Any, path: tuple[str, ...] = (), optional: bool = False
) -> dict[tuple[str, ...], pa.Field]:
    """Every column of a kind of record, by the path of its value, in the order of the fields."""
    found: dict[tuple[str, ...], pa.Field] = {}
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        hint, here = hints[field.name], (*path, field.name)
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        nullable = optional or types.NoneType in kinds
        if kinds[0] in ARROW_TYPES:
            about = {key: field.metadata[key] for key in ("unit", "description")}
            if field.metadata["since"] > 1:
                about["since"] = str(field.metadata["since"])
            found[here] = pa.field(column_name(here), ARROW_TYPES[kinds[0]], nullable, about)
        else:
            found |= columns(kinds[0], here, nullable)
    return found


def column_name(path: Sequence[str]) -> str:
    """The name of the column that has the value at a path."""
    return "_".join(path[1:] if path[0] in BARE and len(path) > 1 else path)


def documentation() -> str:
    """The tables of docs/parquet.md: every column of a row, a section for each record."""
    lines = []
    by_record = itertools.groupby(columns(Measurement).items(), key=lambda found: found[0][:-1])
    for path, members in by_record:
        record = record_at(path)
        prefix = "" if not path or path[0] in BARE else f": `{column_name(path)}_...`"
        about = (inspect.getdoc(record) or "").splitlines()
        head = ["| column | type | unit | null | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += ["", f"### {record.__name__}{prefix}", "", *about, "", *head]
        for at, column in members:
            alone = columns(record)[at[-1:]].nullable
            null = "yes" if alone else "together" if column.nullable else "no"
            unit, meaning = (column.metadata[key].decode() for key in (b"unit", b"description"))
            cells = [f"`{column.name}`", type_name(column.type), unit, null, meaning]
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines).strip() + "\n"


def record_at(path: Sequence[str]) -> type:
    """The class of the record at a path from a row."""
    record: Any = Measurement
    for name in path:
        hint = typing.get_type_hints(record)[name]
        record = next((kind for kind in typing.get_args(hint) if kind is not types.NoneType), hint)
    return record  # type: ignore[no-any-return]


def type_name(kind: pa.DataType) -> str:
    """The name of a type as the page has it.

    >>> type_name(pa.list_(pa.float64())), type_name(pa.list_(WARNING))
    ('list of double', 'list of struct(code, values, text)')
    """
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"struct({', '.join(field.name for field in kind)})"
    return str(kind)


@functools.cache
def schema(kind: type = Measurement) -> pa.Schema:
    """The Arrow schema of the rows of a kind of record."""
    return pa.schema(list(columns(kind).values()))


def with_sources(kind: type, sources: Sequence[Source]) -> pa.Schema:
    """The schema of a file of records, whose metadata says where they came from."""
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION),
        KIND_KEY: kind.__name__,
        SOURCES_KEY: json.dumps([dataclasses.asdict(source) for source in sources]),
    }
    return schema(kind).with_metadata(metadata)


def to_batch(rows: Sequence[Measurement | Profile], form: pa.Schema) -> pa.RecordBatch:
    """Records of one kind as Arrow holds them, in the schema that `with_sources` made of it."""
    paths = columns(KINDS[form.metadata[KIND_KEY]])
    values = [
        pa.array([value_at(row, path) for row in rows], at.type) for path, at in paths.items()
    ]
    return pa.record_batch(values, schema=form)


def value_at(row: Any, path: tuple[str, ...]) -> Any:
    """The value of a column as Arrow takes it."""
    value = row
    for name in path:
        value = value and getattr(value, name)
    if isinstance(value, tuple) and value and isinstance(value[0], RowWarning):
        return [{"code": w.code, "values": json.dumps(w.values), "text": w.text} for w in value]
    return value


def described(found: pa.Schema, origin: str) -> tuple[type, tuple[Source, ...]]:
    """What a schema says: the kind of the records, and where they came from.

    Raises:
        TensorgapError: it is not ours, of a later version, or a column is not as it is written;
            one that its version did not have yet may be missing.
    """
    metadata = found.metadata or {}
    if VERSION_KEY not in metadata:
        lacks = f"its metadata lacks {VERSION_KEY.decode()}"
        raise TensorgapError(f"{origin}: not written by tensorgap ({lacks})")
    version = metadata[VERSION_KEY].decode(errors="replace")
    if version not in map(str, range(1, SCHEMA_VERSION + 1)):
        raise SchemaVersionError(
            f"{origin}: schema version {version}; this tensorgap reads versions 1 to"
            f" {SCHEMA_VERSION}: measure again, or read it with the tensorgap that wrote it"
        )
    key = KIND_KEY
    try:
        kind, key = KINDS[metadata[key]], SOURCES_KEY
        sources = adapter(tuple[Source, ...]).validate_json(metadata[key])
    except (LookupError, ValueError):
        raise TensorgapError(f"{origin}: its metadata {key.decode()} is damaged") from None
    for column in schema(kind):
        if column.name not in found.names and int(column.metadata.get(SINCE, 1)) > int(version):
            continue
        stored = [found.field(at) for at in found.get_all_field_indices(column.name)]
        fault = "stands there twice" if stored else "is missing"
        if len(stored) == 1:
            if stored[0].type == column.type:
                continue
            fault = f"is {stored[0].type}, must be {column.type}"
        raise TensorgapError(f"{origin}: column {column.name} {fault}; the file was changed")
    return kind, sources


def complete(found: pa.Table, kind: type, names: Sequence[str]) -> pa.Table:
    """The columns of these names, in our types; null where an older file has none."""
    ours = pa.schema([schema(kind).field(name) for name in names])
    for column in ours:
        if column.name not in found.column_names:
            found = found.append_column(column, pa.nulls(len(found), column.type))
    return found.select(names).cast(ours)
