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

The allowed keys are the fields of the records in `bench.asked`, which also say what is allowed.
Every mistake becomes a line of one TensorgapError: the file, the key, the value and the remedy.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from bench.asked import AUTO, CPU, Cell, Matrix, Workload
from bench.energy import protocol
from bench.errors import TensorgapError
from bench.files import limits
from bench.validation import PLANS, gpu_type, refuse, said, shown, unknown, validated

# GPT-2 has 1,024 positions; the embedded model has 256.
POSITIONS = {"gpt2": 1024, "gpt2:random": 1024, "tiny": 256}

_RESERVED = (*POSITIONS, "embedded")  # never a folder or file of that name
_MOST_DOTS = 100  # of a line
_MOST_WORKLOADS = 10_000  # years of measuring


def load(path: Path) -> Matrix:
    """Read a matrix from a TOML file; TensorgapError names what is wrong with it."""
    try:
        text = limits.read_file(path, limits.small(str(path))).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TensorgapError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        known = {errno.ENOENT: "there is no such file", errno.EISDIR: "this is a folder"}
        fault = known.get(error.errno or 0, f"cannot be read: {error.strerror}")
        raise TensorgapError(f"{path}: {fault}; give the path of a matrix") from None
    return parse(text, path.name, path.stem)


def parse(text: str, source: str, name: str) -> Matrix:
    """Make a matrix from TOML text; `source` stands in messages, `name` is the default name."""
    for number, line in enumerate(text.split("\n"), start=1):
        # tomllib takes the square of the length of a dotted key: minutes for a.a.a... of 1 MB.
        if line.count(".") > _MOST_DOTS and not line.lstrip().startswith("#"):
            raise TensorgapError(f"{source}: line {number}: more than {_MOST_DOTS} dots")
    try:
        document = {"name": name, **tomllib.loads(text)}
    # TOMLDecodeError, a whole number of more digits than Python reads, tables within tables.
    except (ValueError, RecursionError) as error:
        raise TensorgapError(f"{source}: not valid TOML: {error}") from None
    read = validated(document, source)
    asked = read.cells
    include, exclude = (
        tuple(Cell(**dict(cell)) for cell in table or ())
        for table in (asked.include, asked.exclude)
    )
    types = (AUTO,) if asked.gpu_types is None and not include else asked.gpu_types or ()
    precisions = ("fp32",) if asked.precisions is None and not include else asked.precisions or ()
    matrix = Matrix(
        name=read.name,
        gpu_types=tuple(types),
        precisions=tuple(precisions),
        include=include,
        exclude=exclude,
        workloads=workloads(document["workloads"], source),
        text=text,
        **{name: kind(**dict(getattr(read, name))) for name, kind in PLANS.items()},
    )
    refuse(conflicts(matrix, document), source)
    return matrix


def workloads(tables: Iterable[Mapping[str, Any]], source: str) -> tuple[Workload, ...]:
    """Every workload of valid tables, whose lists multiply out in the order of their keys."""
    found: dict[Workload, str] = {}
    mistakes: list[str] = []
    count = 0
    for index, table in enumerate(tables):
        where = f"workloads[{index}]"
        axes = [value if isinstance(value, list) else [value] for value in table.values()]
        # Before they are multiplied out, which would take all memory.
        count += math.prod(map(len, axes))
        if count > _MOST_WORKLOADS:
            allowed = f"allowed: {_MOST_WORKLOADS:,} in all; shorten its lists"
            raise TensorgapError(f"{source}: {where}: {count:,} workloads; {allowed}")
        for combination in itertools.product(*axes):
            workload = Workload(**dict(zip(table, combination, strict=True)))
            positions = POSITIONS.get(workload.model, math.inf)
            prompt, new = workload.prompt_tokens, workload.new_tokens
            allowed = f"{workload.model} has {positions} positions; must be at most"
            if prompt > positions:
                mistakes.append(said(f"{where}.prompt_tokens", prompt, f"{allowed} {positions}"))
            elif prompt + new > positions:
                most = f"{positions - prompt} beside prompt_tokens = {prompt}"
                mistakes.append(said(f"{where}.new_tokens", new, f"{allowed} {most}"))
            if workload in found:
                remedy = f"stands in {found[workload]} already; remove one of the two"
                mistakes.append(f"{where}: {workload} {remedy}")
            found[workload] = where
    refuse(mistakes, source)
    return tuple(found)


def conflicts(matrix: Matrix, document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between values of which each alone is allowed."""
    sampling = matrix.sampling
    unordered = list(wrong_order("sampling", sampling, document))
    yield from unordered
    longest_s = protocol.longest_s(sampling)
    if sampling.timeout_s < longest_s and not unordered:
        least = f"must be at least {math.ceil(longest_s)}"
        remedy = f'{least}: so long can energy = "{sampling.energy}" take; raise it'
        yield said("sampling.timeout_s", sampling.timeout_s, remedy)
    yield from wrong_order("quality", matrix.quality, document)
    rule = {"gpu_types": matrix.gpu_types, "precisions": matrix.precisions}
    for key, values in rule.items():
        for index, value in enumerate(values):
            if value in values[:index]:
                yield said(f"cells.{key}[{index}]", value, "stands in the list twice")
    if bool(matrix.gpu_types) != bool(matrix.precisions):
        empty, full = sorted(rule, key=lambda key: bool(rule[key]))
        remedy = f"must name at least one where cells.{full} does"
        yield f"cells.{empty}: empty or missing; {remedy}"
    elif not matrix.gpu_types and not matrix.include:
        yield said("cells.gpu_types", [], 'must name a type, such as "auto"')
    for index, cell in enumerate(matrix.exclude):
        if not may_hold(cell, matrix.gpu_types, matrix.precisions, matrix.include):
            remedy = "excludes nothing: no cell of this matrix; correct it or take it out"
            yield said(f"cells.exclude[{index}]", str(cell), remedy)


def wrong_order(name: str, record: Any, document: Mapping[str, Any]) -> Iterator[str]:
    """Each field of a record that exceeds the field up to which it may go."""
    table = document.get(name, {})
    for field in dataclasses.fields(record):
        low, high = field.name, field.metadata["up_to"]
        if high and getattr(record, low) > getattr(record, high):
            key, other, what = low, high, "must not be greater than"
            if low not in table and high in table:
                key, other, what = high, low, "must not be less than"
            remedy = f"{what} {other} = {getattr(record, other)}"
            yield said(f"{name}.{key}", getattr(record, key), remedy)


def may_hold(
    cell: Cell, gpu_types: Sequence[str], precisions: Sequence[str], include: Sequence[Cell]
) -> bool:
    """Whether such a matrix can hold the cell, whichever types `auto` stands for."""
    by_rule = cell.precision in precisions and (cell.gpu_type in gpu_types or AUTO in gpu_types)
    return by_rule or cell in include


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
    auto = AUTO in matrix.gpu_types
    for option, values, present in (
        ("--gpu-type", gpu_types, [*matrix.gpu_types, *(c.gpu_type for c in matrix.include)]),
        ("--precision", precisions, [*matrix.precisions, *(c.precision for c in matrix.include)]),
        ("--model", models, [w.model for w in matrix.workloads]),
    ):
        for value in values:
            try:
                if auto and values is gpu_types:
                    gpu_type(value)
                elif value not in present:
                    raise ValueError(unknown(value, present, "not in this matrix"))
            except ValueError as error:
                raise TensorgapError(f"command line: {said(option, value, str(error))}") from None
    types = tuple(dict.fromkeys(gpu_types)) or matrix.gpu_types
    if gpu_types and not auto:
        types = tuple(name for name in types if name in matrix.gpu_types)
    kept = tuple(p for p in matrix.precisions if not precisions or p in precisions)
    include = tuple(
        cell
        for cell in matrix.include
        if (not gpu_types or cell.gpu_type in gpu_types)
        and (not precisions or cell.precision in precisions)
    )
    if not (types and kept):
        types = kept = ()
        if not include:
            raise TensorgapError(
                "command line: --gpu-type and --precision leave no cell to measure"
            )
    narrowed = dataclasses.replace(
        matrix,
        gpu_types=types,
        precisions=kept,
        include=include,
        exclude=tuple(cell for cell in matrix.exclude if may_hold(cell, types, kept, include)),
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
                f"{matrix.name}: workload {index + 1}: model = {shown(workload.model)}: there is"
                " no such folder; give one that holds config.json and model.safetensors"
            )
    text = matrix.quality.text
    if matrix.quality.enabled and _is_path(text) and not os.path.exists(os.path.expanduser(text)):
        raise TensorgapError(
            f"{matrix.name}: quality.text = {shown(text)}: there is no such file or folder"
        )


def _is_path(name: str) -> bool:
    """Whether a model or a text can only be a place on a disk, and not a name of the hub."""
    return name.startswith((".", "/", "~"))


def dump(matrix: Matrix) -> str:
    """A matrix as TOML that `parse` reads back as an equal one."""
    table = dataclasses.asdict(matrix)
    cells = {key: table.pop(key) for key in ("gpu_types", "precisions", "include", "exclude")}
    del table["text"]
    return toml({"name": matrix.name, "cells": cells, **table})


def toml(table: Mapping[str, Any]) -> str:
    """A table as TOML, in which whatever does not print is escaped, so that it can be shown."""
    text = tomli_w.dumps(table)
    text = "".join(c if c.isprintable() or c == "\n" else f"\\U{ord(c):08x}" for c in text)
    # A list of plain values fits in a line.
    return re.sub(r"= \[\n((?: {4}[^\n{]+,\n)+)\]", _on_one_line, text)


def _on_one_line(found: re.Match[str]) -> str:
    return f"= [{', '.join(line.strip(' ,') for line in found[1].splitlines())}]"
