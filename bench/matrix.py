"""A matrix: the TOML file that says what to measure.

    [cells]
    gpu_types = ["auto"]                 # every GPU type of the cluster; a CPU where it has none
    precisions = ["fp32", "fp16", "mixed"]
    exclude = [{gpu_type = "CPU", precision = "fp16"}]

    [[workloads]]                        # lists multiply out
    model = ["gpt2"]
    batch_size = [1, 8]
    prompt_tokens = 128

    [sampling]                           # every key has a default
    [quality]
    [placement]

The allowed keys are the fields of the records in `bench.records`, so that there is one list of
them. Each mistake is one TensorgapError that names the file, the key, the value and the remedy.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import os
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.asked import (
    ATTENTIONS,
    AUTO,
    CPU,
    ENERGY_PROTOCOLS,
    ENGINES,
    EXCLUSIVE,
    PRECISIONS,
    QUALITY_MODES,
    Cell,
    Matrix,
    PlacementPlan,
    QualityPlan,
    Sampling,
    Workload,
)
from bench.device.gpus import COMPUTE_CAPABILITY
from bench.energy import protocol
from bench.errors import TensorgapError
from bench.files import limits

Record = typing.TypeVar("Record")

# GPT-2 has 1,024 positions; the embedded model has 256.
POSITIONS = {"gpt2": 1024, "gpt2:random": 1024, "tiny": 256}

_TABLES = ("sampling", "quality", "placement")  # each a field of Matrix and of TOML
_RESERVED = (*POSITIONS, "embedded")  # never a folder or file of that name

_CHOICES = {
    "precision": PRECISIONS,
    "engine": ENGINES,
    "attention": (AUTO, *ATTENTIONS),
    "energy": ENERGY_PROTOCOLS,
    "exclusive": EXCLUSIVE,
    "split": ("train", "validation", "test"),
    "mode": QUALITY_MODES,
}
# Least and greatest allowed value; the upper ends catch a slip of the unit, such as ms for s.
_LIMITS: dict[str, tuple[float, float]] = {
    "batch_size": (1, 65_536),
    "prompt_tokens": (1, 1024),
    "new_tokens": (0, 1023),
    "replicates": (1, 1000),
    "warmup_min_s": (0, 3600),
    "warmup_max_s": (0, 3600),
    "latency_min_s": (0, 3600),
    "latency_max_s": (0.01, 3600),
    "min_samples": (5, 1_000_000),
    "max_samples": (5, 1_000_000),
    "median_within": (0.0001, 0.5),
    "throughput_s": (0.01, 3600),
    "energy_s": (0.01, 3600),
    "idle_s": (0, 3600),
    "timeout_s": (1, 604_800),
    "context": (2, 1024),
    "stride": (1, 1024),
    "retries": (0, 10),
}
_MOST_ENTRIES = 1000  # of a list of cells: more than there are types of GPU
_MOST_DOTS = 100  # of a line
_MOST_WORKLOADS = 10_000  # years of measuring
_ORDERED = (
    ("warmup_min_s", "warmup_max_s"),
    ("latency_min_s", "latency_max_s"),
    ("min_samples", "max_samples"),
    ("stride", "context"),
    ("warmup_max_s", "timeout_s"),
    ("latency_max_s", "timeout_s"),
    ("throughput_s", "timeout_s"),
    ("energy_s", "timeout_s"),
    ("idle_s", "timeout_s"),
)


def load(path: Path) -> Matrix:
    """Read a matrix from a TOML file; TensorgapError names what is wrong with it."""
    try:
        text = limits.read_file(path, limits.small(str(path))).decode("utf-8")
    except FileNotFoundError:
        raise TensorgapError(f"{path}: there is no such file; give the path of a matrix") from None
    except IsADirectoryError:
        raise TensorgapError(f"{path}: this is a folder; give the path of a matrix") from None
    except UnicodeDecodeError as error:
        raise TensorgapError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise TensorgapError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, path.name, path.stem)


def parse(text: str, source: str, name: str) -> Matrix:
    """Make a matrix from TOML text; `source` stands in messages, `name` is the default name."""
    for number, line in enumerate(text.split("\n"), start=1):
        # tomllib takes the square of the length of a dotted key: minutes for a.a.a... of 1 MB.
        if line.count(".") > _MOST_DOTS and not line.lstrip().startswith("#"):
            raise TensorgapError(f"{source}: line {number}: more than {_MOST_DOTS} dots")
    try:
        document = tomllib.loads(text)
    # TOMLDecodeError, a whole number of more digits than Python reads, tables within tables.
    except (ValueError, RecursionError) as error:
        raise TensorgapError(f"{source}: not valid TOML: {error}") from None
    reader = _Reader(source)
    reader.only(document, "", ("name", "cells", "workloads", *_TABLES))
    sampling = reader.record(Sampling, reader.table(document, "sampling"), "sampling")
    longest_s = protocol.longest_s(sampling)
    if sampling.timeout_s < longest_s:
        least = f"must be at least {math.ceil(longest_s)}"
        allowed = f'{least}: so long can energy = "{sampling.energy}" take'
        raise reader.error("sampling.timeout_s", sampling.timeout_s, f"{allowed}; raise it")
    quality = reader.record(QualityPlan, reader.table(document, "quality"), "quality")
    placement = reader.record(PlacementPlan, reader.table(document, "placement"), "placement")
    cells = reader.table(document, "cells")
    reader.only(cells, "cells", ("gpu_types", "precisions", "include", "exclude"))
    include = reader.cells(cells, "include")
    gpu_types = reader.names(cells, "gpu_types", () if include else (AUTO,))
    precisions = reader.names(cells, "precisions", () if include else ("fp32",))
    for index, precision in enumerate(precisions):
        reader.value(precision, "precision", f"cells.precisions[{index}]")
    if bool(gpu_types) != bool(precisions):
        empty, full = ("gpu_types", "precisions") if precisions else ("precisions", "gpu_types")
        remedy = f"must name at least one where cells.{full} does"
        raise TensorgapError(f"{source}: cells.{empty}: empty or missing; {remedy}")
    if not gpu_types and not include:
        raise reader.error("cells.gpu_types", [], 'must name a type, such as "auto"')
    exclude = reader.cells(cells, "exclude")
    for index, cell in enumerate(exclude):
        if not _may_be_asked(cell, gpu_types, precisions, include):
            allowed = "excludes nothing: no cell of this matrix; correct it or take it out"
            raise reader.error(f"cells.exclude[{index}]", str(cell), allowed)
    return Matrix(
        name=reader.name(document.get("name", name)),
        gpu_types=gpu_types,
        precisions=precisions,
        include=include,
        exclude=exclude,
        workloads=reader.workloads(document),
        sampling=sampling,
        quality=quality,
        text=text,
        placement=placement,
    )


def cells(matrix: Matrix, present: Iterable[str]) -> tuple[Cell, ...]:
    """Every cell of the matrix, given the GPU types that the cluster has, in the matrix's order.

    `auto` stands for every GPU type that is present, and for the CPU where there is none. Raises
    TensorgapError where `exclude` leaves no cell.
    """
    gpus = sorted(set(present) - {CPU})
    types: list[str] = []
    for name in matrix.gpu_types:
        types.extend((gpus or [CPU]) if name == AUTO else [name])
    asked = [Cell(t, p) for t, p in itertools.product(types, matrix.precisions)]
    every = dict.fromkeys([*asked, *matrix.include])
    kept = tuple(cell for cell in every if cell not in matrix.exclude)
    if not kept:
        raise TensorgapError(
            f"{matrix.name}: no cell is left to measure: cells.exclude takes away every one of"
            f" {', '.join(map(str, every))}"
        )
    return kept


def narrow(
    matrix: Matrix,
    gpu_types: Sequence[str] = (),
    precisions: Sequence[str] = (),
    models: Sequence[str] = (),
) -> Matrix:
    """Keep only what is named; an empty list keeps all. TensorgapError where nothing is left."""
    if not (gpu_types or precisions or models):
        return matrix
    reader = _Reader("command line")
    in_matrix = {
        "--gpu-type": [*matrix.gpu_types, *(c.gpu_type for c in matrix.include)],
        "--precision": [*matrix.precisions, *(c.precision for c in matrix.include)],
        "--model": [w.model for w in matrix.workloads],
    }
    given = {"--gpu-type": gpu_types, "--precision": precisions, "--model": models}
    for option, values in given.items():
        for value in values:
            auto = option == "--gpu-type" and AUTO in matrix.gpu_types
            if value not in in_matrix[option] and not auto:
                raise reader.unknown(option, value, in_matrix[option], "not in this matrix")
            if auto:
                reader.value(value, "gpu_type", option)
    kept_types = tuple(dict.fromkeys(gpu_types)) or matrix.gpu_types
    if gpu_types and AUTO not in matrix.gpu_types:
        kept_types = tuple(t for t in kept_types if t in matrix.gpu_types)
    kept_precisions = tuple(p for p in matrix.precisions if not precisions or p in precisions)
    include = tuple(
        c
        for c in matrix.include
        if (not gpu_types or c.gpu_type in gpu_types)
        and (not precisions or c.precision in precisions)
    )
    if not (kept_types and kept_precisions):
        kept_types = kept_precisions = ()
        if not include:
            raise TensorgapError(
                "command line: --gpu-type and --precision leave no cell to measure"
            )
    narrowed = dataclasses.replace(
        matrix,
        gpu_types=kept_types,
        precisions=kept_precisions,
        include=include,
        exclude=tuple(
            c for c in matrix.exclude if _may_be_asked(c, kept_types, kept_precisions, include)
        ),
        workloads=tuple(w for w in matrix.workloads if not models or w.model in models),
    )
    return dataclasses.replace(narrowed, text=dump(narrowed))


def localise(matrix: Matrix) -> Matrix:
    """Make absolute the folders and files that are named relative to where the user is.

    A worker has another current directory; what does not exist here is left for it to find.

    Raises:
        TensorgapError: a path has no place in a matrix, because it is not UTF-8.
    """

    def absolute(name: str, is_there: Callable[[str], bool]) -> str:
        path = os.path.expanduser(name)
        if not is_there(path) or name in _RESERVED:
            return name
        whole = str(Path(path).absolute())
        try:
            whole.encode()
        except UnicodeEncodeError:  # TOML, and so a matrix, is UTF-8
            remedy = "rename that folder or file"
            raise TensorgapError(
                f"{matrix.name}: {whole}: the path is not UTF-8; {remedy}"
            ) from None
        return whole

    localised = dataclasses.replace(
        matrix,
        workloads=tuple(
            dataclasses.replace(w, model=absolute(w.model, os.path.isdir)) for w in matrix.workloads
        ),
        quality=dataclasses.replace(
            matrix.quality, text=absolute(matrix.quality.text, os.path.exists)
        ),
    )
    if localised == matrix:
        return matrix
    return dataclasses.replace(localised, text=dump(localised))


def check_paths(matrix: Matrix) -> None:
    """Refuse a model or a text that is a path of this machine to nothing.

    Raises:
        TensorgapError: it names the key, the value and what is allowed.
    """
    for index, workload in enumerate(matrix.workloads):
        if _is_path(workload.model) and not os.path.isdir(os.path.expanduser(workload.model)):
            raise TensorgapError(
                f"{matrix.name}: workload {index + 1}: model = {_shown(workload.model)}: there is"
                " no such folder; give one that holds config.json and model.safetensors"
            )
    text = matrix.quality.text
    if matrix.quality.enabled and _is_path(text) and not os.path.exists(os.path.expanduser(text)):
        raise TensorgapError(
            f"{matrix.name}: quality.text = {_shown(text)}: there is no such file or folder"
        )


def _is_path(name: str) -> bool:
    """Whether a model or a text can only be a place on a disk, and not a name of the hub."""
    return name.startswith((".", "/", "~"))


def dump(matrix: Matrix) -> str:
    """A matrix as TOML that `parse` reads back as an equal one."""
    lines = [f"name = {toml_value(matrix.name)}", "", "[cells]"]
    for key in ("gpu_types", "precisions", "include", "exclude"):
        values = [
            toml_value(dataclasses.asdict(v) if isinstance(v, Cell) else v)
            for v in getattr(matrix, key)
        ]
        lines.append(f"{key} = [{', '.join(values)}]")
    tables: list[tuple[str, Any]] = [("[[workloads]]", workload) for workload in matrix.workloads]
    tables += [(f"[{name}]", getattr(matrix, name)) for name in _TABLES]
    for header, record in tables:
        lines += ["", header]
        table = dataclasses.asdict(record)
        lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _may_be_asked(
    cell: Cell, gpu_types: Sequence[str], precisions: Sequence[str], include: Sequence[Cell]
) -> bool:
    """Whether such a matrix can hold the cell, whichever types `auto` stands for."""
    by_rule = cell.precision in precisions and (cell.gpu_type in gpu_types or AUTO in gpu_types)
    return by_rule or cell in include


class _Reader:
    """Checks values and words every complaint alike: source, key, value, what is allowed."""

    def __init__(self, source: str) -> None:
        self.source = source

    def error(self, key: str, value: object, allowed: str) -> TensorgapError:
        return TensorgapError(f"{self.source}: {key} = {_shown(value)}: {allowed}")

    def unknown(
        self, key: str, value: str, known: Iterable[str], what: str = "unknown"
    ) -> TensorgapError:
        names = list(dict.fromkeys(known))
        near = _nearest(value, names)
        hint = f"did you mean {near}? " if near else ""
        return self.error(key, value, f"{what}; {hint}allowed: {', '.join(names)}")

    def only(self, table: Mapping[str, Any], where: str, known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                near = _nearest(key, known)
                hint = f"did you mean {near}? " if near else ""
                path = _cut(f"{where}.{key}" if where else key)
                raise TensorgapError(
                    f"{self.source}: {path}: unknown key; {hint}allowed: {', '.join(known)}"
                )

    def table(self, document: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = document.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, f"must be a table, written [{key}]")
        return value

    def name(self, value: object) -> str:
        allowed = "must be letters, digits, '.', '_' and '-'; it becomes a folder's name"
        if not isinstance(value, str) or not value.strip("."):
            raise self.error("name", value, allowed)
        if not all(c.isascii() and (c.isalnum() or c in "._-") for c in value) or len(value) > 100:
            raise self.error("name", value, allowed)
        return value

    def names(
        self, table: Mapping[str, Any], key: str, default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """A list of non-empty strings without repetition."""
        values = table.get(key, list(default))
        path = f"cells.{key}"
        if not isinstance(values, list):
            raise self.error(path, values, 'must be a list of strings, such as ["auto"]')
        self.few(values, path)
        for index, value in enumerate(values):
            self.value(value, "gpu_type", f"{path}[{index}]")
            if value in values[:index]:
                raise self.error(f"{path}[{index}]", value, "stands in the list twice")
        return tuple(values)

    def few(self, values: Sequence[object], path: str) -> None:
        """Refuse a list so long that comparing its entries with one another takes minutes."""
        if len(values) > _MOST_ENTRIES:
            raise TensorgapError(
                f"{self.source}: {path}: {len(values):,} entries; allowed: {_MOST_ENTRIES:,}"
            )

    def cells(self, table: Mapping[str, Any], key: str) -> tuple[Cell, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            allowed = 'must be a list such as [{gpu_type = "CPU", precision = "fp16"}]'
            raise self.error(f"cells.{key}", value, allowed)
        self.few(value, f"cells.{key}")
        found = []
        for index, entry in enumerate(value):
            where = f"cells.{key}[{index}]"
            cell = self.record(Cell, entry, where)
            if cell.gpu_type == AUTO:
                raise self.error(f"{where}.gpu_type", AUTO, "must be one type, such as T4 or CPU")
            found.append(cell)
        return tuple(found)

    def workloads(self, document: Mapping[str, Any]) -> tuple[Workload, ...]:
        """Every workload, lists multiplied out in the order of the fields."""
        tables = document.get("workloads", [])
        if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
            raise self.error("workloads", tables, "must be tables, each written [[workloads]]")
        if not tables:
            allowed = '[[workloads]] must name at least a model, such as model = "gpt2"'
            raise TensorgapError(f"{self.source}: workloads: nothing to measure; {allowed}")
        found: dict[Workload, str] = {}
        count = 0
        for index, table in enumerate(tables):
            where = f"workloads[{index}]"
            for key, value in table.items():
                if value == []:
                    raise self.error(f"{where}.{key}", value, "must not be an empty list")
            axes = [v if isinstance(v, list) else [v] for v in table.values()]
            # Before they are multiplied out, which would take all memory.
            count += math.prod(map(len, axes))
            if count > _MOST_WORKLOADS:
                raise TensorgapError(
                    f"{self.source}: {where}: {count:,} workloads; allowed: {_MOST_WORKLOADS:,} in"
                    " all; shorten its lists"
                )
            for combination in itertools.product(*axes):
                workload = self.record(Workload, dict(zip(table, combination, strict=True)), where)
                self.fits_positions(workload, where)
                if workload in found:
                    raise TensorgapError(
                        f"{self.source}: {where}: {workload} stands in {found[workload]} already;"
                        " remove one of the two"
                    )
                found[workload] = where
        return tuple(found)

    def fits_positions(self, workload: Workload, where: str) -> None:
        positions = POSITIONS.get(workload.model)
        if positions is None:
            return
        prompt, new = workload.prompt_tokens, workload.new_tokens
        allowed = f"{workload.model} has {positions} positions; must be at most"
        if prompt > positions:
            raise self.error(f"{where}.prompt_tokens", prompt, f"{allowed} {positions}")
        if prompt + new > positions:
            most = f"{positions - prompt} beside prompt_tokens = {prompt}"
            raise self.error(f"{where}.new_tokens", new, f"{allowed} {most}")

    def record(self, kind: type[Record], table: Mapping[str, Any], where: str) -> Record:
        """A record from a table whose keys are its fields."""
        fields = dataclasses.fields(typing.cast(Any, kind))
        self.only(table, where, [field.name for field in fields])
        types = typing.get_type_hints(kind)
        values = {}
        for field in fields:
            path = f"{where}.{field.name}"
            if field.name in table:
                values[field.name] = self.typed(table[field.name], types[field.name], path)
                self.value(values[field.name], field.name, path)
            elif field.default is dataclasses.MISSING:
                raise TensorgapError(f"{self.source}: {path}: missing; {_meaning(field)}")
        record = kind(**values)
        for low, high in _ORDERED:
            both = hasattr(record, low) and hasattr(record, high)
            if both and getattr(record, low) > getattr(record, high):
                if low in table or high not in table:
                    key, other, what = low, high, "must not be greater than"
                else:
                    key, other, what = high, low, "must not be less than"
                allowed = f"{what} {other} = {getattr(record, other)}"
                raise self.error(f"{where}.{key}", getattr(record, key), allowed)
        return record

    def typed(self, value: Any, kind: type, path: str) -> Any:
        """The value, if TOML gave it the right type; an integer also serves as a float."""
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise self.error(path, value, "is too large") from None
        if type(value) is kind:
            return value
        nouns = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise self.error(path, value, f"must be {nouns[kind]}")

    def value(self, value: Any, field: str, path: str) -> None:
        """Check one value against what its field allows."""
        if field in _CHOICES and value not in _CHOICES[field]:
            raise self.unknown(path, value, _CHOICES[field])
        if field in _LIMITS:
            low, high = _LIMITS[field]
            if not low <= value <= high:
                raise self.error(path, value, f"must be from {low:g} to {high:g}")
        if field in ("gpu_type", "model", "text", "column"):
            if not isinstance(value, str) or not value.strip():
                raise self.error(path, value, "must be a string that is not empty")
            names = (AUTO, CPU, *COMPUTE_CAPABILITY)
            if field == "gpu_type" and value not in names:
                alike = [name for name in names if name.lower() == value.lower().strip()]
                if alike:
                    raise self.error(path, value, f"unknown type; did you mean {alike[0]}?")


def _meaning(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata["description"])


def _nearest(word: object, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(str(word).lower(), [k.lower() for k in known], n=1)
    return next((k for k in known if close and k.lower() == close[0]), None)


def toml_value(value: object) -> str:
    """A value as TOML; JSON's lists, strings, numbers and booleans are TOML's too.

    What does not print is escaped, so that a terminal, too, can be shown the text.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _shown(value: object) -> str:
    """A value for a message, cut to a readable length."""
    try:
        text = toml_value(value) if isinstance(value, str | bool | int | float) else str(value)
    except ValueError:  # an integer of thousands of digits
        text = hex(value) if isinstance(value, int) else "?"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
