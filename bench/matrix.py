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

from bench import decoders
from bench.asked import AUTO, CPU, RANDOM, Cell, Matrix, Workload
from bench.energy import durations
from bench.errors import TensorgapError
from bench.files import limits
from bench.validation import PLANS, misspelt, mistakes, refuse, said, unknown

_TINY_POSITIONS = 256  # of the embedded model
_RESERVED = ("gpt2", "tiny", "embedded")  # never a folder or file of that name
_MOST_DOTS = 100  # of a line
_MOST_WORKLOADS = 10_000  # years of measuring


def load(path: Path) -> Matrix:
    """Read a matrix from a TOML file; TensorgapError names what is wrong with it."""
    return parse(text_of(path, "a matrix"), path.name, path.stem)


def text_of(path: Path, what: str) -> str:
    """The text of a TOML file that is to be `what`; TensorgapError where it cannot be read."""
    try:
        return limits.read_file(path, limits.small(str(path))).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TensorgapError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        known = {errno.ENOENT: "there is no such file", errno.EISDIR: "this is a folder"}
        fault = known.get(error.errno or 0, f"cannot be read: {error.strerror}")
        raise TensorgapError(f"{path}: {fault}; give the path of {what}") from None


def document_of(text: str, source: str) -> dict[str, Any]:
    """The tables of a TOML text; TensorgapError where it is none. `source` stands in messages."""
    for number, line in enumerate(text.split("\n"), start=1):
        # tomllib takes the square of the length of a dotted key: minutes for a.a.a... of 1 MB.
        if line.count(".") > _MOST_DOTS and not line.lstrip().startswith("#"):
            raise TensorgapError(f"{source}: line {number}: more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    # TOMLDecodeError, a whole number of more digits than Python reads, tables within tables.
    except (ValueError, RecursionError) as error:
        raise TensorgapError(f"{source}: not valid TOML: {error}") from None


def parse(text: str, source: str, name: str) -> Matrix:
    """Make a matrix from TOML text; `source` stands in messages, `name` is the default name."""
    document = {"name": name, **document_of(text, source)}
    refuse(mistakes(document), source)
    rule = document.get("cells", {})
    usual = {} if rule.get("include") else {"gpu_types": [AUTO], "precisions": ["fp32"]}
    rule = {"gpu_types": [], "precisions": [], "include": [], "exclude": [], **usual, **rule}
    matrix = Matrix(
        name=document["name"],
        gpu_types=tuple(rule["gpu_types"]),
        precisions=tuple(rule["precisions"]),
        include=tuple(Cell(**cell) for cell in rule["include"]),
        exclude=tuple(Cell(**cell) for cell in rule["exclude"]),
        workloads=workloads(document["workloads"], source),
        text=text,
        **{name: made(plan, document.get(name, {})) for name, plan in PLANS.items()},
    )
    refuse(conflicts(matrix, document), source)
    return matrix


def made(record: type, table: Mapping[str, Any]) -> Any:
    """The record of a table without mistakes, in which a whole number serves as a float."""
    floats = {field.name for field in dataclasses.fields(record) if field.type is float}
    return record(**{key: float(v) if key in floats else v for key, v in table.items()})


def workloads(tables: Iterable[Mapping[str, Any]], source: str) -> tuple[Workload, ...]:
    """Every workload of valid tables, whose lists multiply out in the order of their keys."""
    found: dict[Workload, str] = {}
    wrong: list[str] = []
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
            positions = positions_of(workload.model) or math.inf
            prompt, new = workload.prompt_tokens, workload.new_tokens
            allowed = f"{workload.model} has {positions} positions; must be at most"
            if prompt > positions:
                wrong.append(said(f"{where}.prompt_tokens", prompt, f"{allowed} {positions}"))
            elif prompt + new > positions:
                most = f"{positions - prompt} beside prompt_tokens = {prompt}"
                wrong.append(said(f"{where}.new_tokens", new, f"{allowed} {most}"))
            if workload in found:
                remedy = f"stands in {found[workload]} already; remove one of the two"
                wrong.append(f"{where}: {workload} {remedy}")
            found[workload] = where
    refuse(wrong, source)
    return tuple(found)


def positions_of(model: str) -> int | None:
    """The longest request of a model that is known by name; any other's is known once loaded.

    >>> positions_of("gpt2:random"), positions_of("openai-community/gpt2"), positions_of("./gpt2")
    (1024, 1024, None)
    """
    if model.removesuffix(RANDOM) == "tiny":
        return _TINY_POSITIONS
    is_path = model.startswith((".", "/", "~")) or model.count("/") > 1
    shape = None if is_path else decoders.shape_of(model)
    return shape.longest if shape else None


def conflicts(matrix: Matrix, document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between values of which each alone is allowed."""
    sampling = matrix.sampling
    unordered = list(wrong_order("sampling", sampling, document))
    yield from unordered
    longest_s = durations.longest_s(sampling)
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
        yield f"cells.{empty}: empty or missing; must name at least one where cells.{full} does"
    elif not matrix.gpu_types and not matrix.include:
        yield said("cells.gpu_types", [], 'must name a type, such as "auto"')
    for index, cell in enumerate(matrix.exclude):
        if not may_hold(matrix, cell):
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


def may_hold(matrix: Matrix, cell: Cell) -> bool:
    """Whether a matrix can hold the cell, whichever types `auto` stands for."""
    of_a_type = cell.gpu_type in matrix.gpu_types or AUTO in matrix.gpu_types
    return (of_a_type and cell.precision in matrix.precisions) or cell in matrix.include


def cells(matrix: Matrix, present: Iterable[str]) -> tuple[Cell, ...]:
    """Every cell of the matrix, given the GPU types that the cluster has, in the matrix's order.

    `auto` stands for every GPU type that is present, and for the CPU where there is none. Raises
    TensorgapError where `exclude` leaves no cell.
    """
    gpus = sorted(set(present) - {CPU}) or [CPU]
    types = [t for name in matrix.gpu_types for t in (gpus if name == AUTO else [name])]
    asked = itertools.starmap(Cell, itertools.product(types, matrix.precisions))
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
            fault = None if value in present else unknown(value, present, "not in this matrix")
            if auto and option == "--gpu-type":
                fault = misspelt(value) if value.strip() else "must not be empty"
            if fault:
                raise TensorgapError(f"command line: {said(option, value, fault)}")
    types = tuple(dict.fromkeys(gpu_types)) or matrix.gpu_types
    if not auto:
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
            raise TensorgapError("command line: --gpu-type and --precision leave no cell")
    named = tuple(w for w in matrix.workloads if not models or w.model in models)
    part = dataclasses.replace(
        matrix, gpu_types=types, precisions=kept, include=include, workloads=named
    )
    exclude = tuple(cell for cell in matrix.exclude if may_hold(part, cell))
    return with_text(dataclasses.replace(part, exclude=exclude))


def localise(matrix: Matrix) -> Matrix:
    """Make absolute the folders and files that are named relative to where the user is.

    A worker has another current directory; what does not exist here is left for it to find.
    Raises TensorgapError for a path that is not UTF-8, as a matrix is.
    """

    def absolute(name: str, is_there: Callable[[str], bool]) -> str:
        path = os.path.expanduser(name)
        if not is_there(path) or name in _RESERVED:
            return name
        whole = str(Path(path).absolute())
        try:
            whole.encode()
        except UnicodeEncodeError:
            fault = "the path is not UTF-8; rename that folder or file"
            raise TensorgapError(f"{matrix.name}: {whole}: {fault}") from None
        return whole

    def model_of(name: str) -> str:
        base = name.removesuffix(RANDOM)
        return absolute(base, os.path.isdir) + name[len(base) :]

    models = [model_of(one.model) for one in matrix.workloads]
    asked = zip(matrix.workloads, models, strict=True)
    workloads = tuple(dataclasses.replace(one, model=model) for one, model in asked)
    text = absolute(matrix.quality.text, os.path.exists)
    quality = dataclasses.replace(matrix.quality, text=text)
    localised = dataclasses.replace(matrix, workloads=workloads, quality=quality)
    return matrix if localised == matrix else with_text(localised)


def check_paths(matrix: Matrix) -> None:
    """Raise TensorgapError for a model or a text that is a path of this machine to nothing."""
    folder = "folder; give one that holds config.json and model.safetensors"

    def is_model(name: str) -> bool:
        return os.path.isdir(name.removesuffix(RANDOM))

    places: list[tuple[str, str, Callable[[str], bool], str]] = [
        (f"workload {number}: model", workload.model, is_model, folder)
        for number, workload in enumerate(matrix.workloads, start=1)
    ]
    if matrix.quality.enabled:
        places.append(("quality.text", matrix.quality.text, os.path.exists, "file or folder"))
    for key, name, is_there, what in places:
        base, colon, ending = name.rpartition(":")
        # No name of the hub begins so, or ends in a colon and a word.
        slip = bool(colon) and ending.isalpha() and f":{ending}" != RANDOM
        is_path = slip or name.startswith((".", "/", "~"))
        if is_path and not is_there(os.path.expanduser(name)):
            hint = f"; for random weights write {base}{RANDOM}"
            fault = f"there is no such {what}{hint if slip and what == folder else ''}"
            raise TensorgapError(f"{matrix.name}: {said(key, name, fault)}")


def with_text(matrix: Matrix) -> Matrix:
    """The matrix with the TOML that says what it now is."""
    return dataclasses.replace(matrix, text=dump(matrix))


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

    def on_one_line(found: re.Match[str]) -> str:
        return f"= [{', '.join(line.strip(' ,') for line in found[1].splitlines())}]"

    return re.sub(r"= \[\n((?: {4}[^\n{]+,\n)+)\]", on_one_line, text)  # of plain values
