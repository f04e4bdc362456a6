"""bench.matrix: a matrix reads as it was meant, or is refused in one message that says why."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from bench import matrix as matrices
from bench.asked import (
    AUTO,
    CPU,
    ENERGY_PROTOCOLS,
    ENGINES,
    PRECISIONS,
    Cell,
    Matrix,
    QualityPlan,
    Sampling,
    Workload,
)
from bench.device.gpus import COMPUTE_CAPABILITY
from bench.energy import durations
from bench.errors import TensorgapError
from jobs import cli

SHIPPED = sorted((Path(__file__).parent.parent / "jobs" / "matrices").glob("*.toml"))
TINY = '[[workloads]]\nmodel = "tiny"\n'


def parse(text: str) -> Matrix:
    return matrices.parse(text, "study.toml", "study")


def with_cells(line: str) -> str:
    return f"[cells]\n{line}\n{TINY}"


def with_workload(line: str) -> str:
    return f"{TINY}{line}\n"


def with_sampling(lines: str) -> str:
    return f"{TINY}[sampling]\n{lines}\n"


def with_quality(lines: str) -> str:
    return f"{TINY}[quality]\n{lines}\n"


class Malformed(NamedTuple):
    """A matrix and what its one message must name: the key, the value and the remedy."""

    text: str
    key: str
    value: str
    remedy: str


MALFORMED = {
    "not TOML": Malformed(with_cells("gpu_types = [T4]"), "study.toml", "not valid TOML", "line 2"),
    "a key twice": Malformed(
        with_sampling("idle_s = 1\nidle_s = 2"), "overwrite", "TOML", "line 5"
    ),
    "unknown table": Malformed(f"{TINY}[samplings]\n", "samplings", "unknown key", "sampling?"),
    "unknown table, unlike any": Malformed(
        f"{TINY}[xyz]\n", "xyz", "unknown key", "allowed: name, cells, workloads, sampling, quality"
    ),
    "key of cells": Malformed(
        with_cells('gpu_type = ["T4"]'), "cells.gpu_type", "unknown key", "did you mean gpu_types?"
    ),
    "key of a workload": Malformed(
        with_workload("batchsize = 8"),
        "workloads[0].batchsize",
        "unknown key",
        "did you mean batch_size?",
    ),
    "key of sampling": Malformed(
        with_sampling("latency_max = 8"),
        "sampling.latency_max",
        "unknown key",
        "did you mean latency_max_s?",
    ),
    "key of quality": Malformed(
        with_quality("windows = 8"), "quality.windows", "unknown key", "allowed: text, split"
    ),
    "a key of a cell": Malformed(
        with_cells('include = [{gpu_type = "T4", gputype = "T4", precision = "fp16"}]'),
        "cells.include[0].gputype",
        "unknown key",
        "did you mean gpu_type?",
    ),
    "cells that are no table": Malformed(f"cells = 3\n{TINY}", "cells", "3", "written [cells]"),
    "sampling that is a list": Malformed(
        f"sampling = [1]\n{TINY}", "sampling", "[1]", "written [sampling]"
    ),
    "workloads that are one table": Malformed(
        '[workloads]\nmodel = "tiny"\n', "workloads", "tiny", "written [[workloads]]"
    ),
    "no workload": Malformed(
        "[cells]\n", "workloads", "nothing to measure", "[[workloads]] must name at least a model"
    ),
    "an empty list of workloads": Malformed(
        "workloads = []\n", "workloads", "nothing to measure", "must name at least a model"
    ),
    "a workload without a model": Malformed(
        "[[workloads]]\nbatch_size = 1\n", "workloads[0].model", "missing", "gpt2:random"
    ),
    "a cell without a precision": Malformed(
        with_cells('exclude = [{gpu_type = "T4"}]'),
        "cells.exclude[0].precision",
        "missing",
        "fp32 (TF32 off)",
    ),
    "a type as a string": Malformed(
        with_cells('gpu_types = "auto"'), "cells.gpu_types", "auto", 'such as ["auto"]'
    ),
    "a type that is a number": Malformed(
        with_cells("gpu_types = [4]"), "cells.gpu_types[0]", "4", "must be a string"
    ),
    "a blank type": Malformed(
        with_cells('gpu_types = [" "]'), "cells.gpu_types[0]", '" "', "not empty"
    ),
    "a type in small letters": Malformed(
        with_cells('gpu_types = ["T4", "a100"]'),
        "cells.gpu_types[1]",
        '"a100"',
        "did you mean A100?",
    ),
    "AUTO in capitals": Malformed(
        with_cells('gpu_types = ["AUTO"]'), "cells.gpu_types[0]", '"AUTO"', "did you mean auto?"
    ),
    "a type twice": Malformed(
        with_cells('gpu_types = ["T4", "T4"]'), "cells.gpu_types[1]", '"T4"', "twice"
    ),
    "a precision twice": Malformed(
        with_cells('precisions = ["fp32", "fp32"]'), "cells.precisions[1]", '"fp32"', "twice"
    ),
    "an unknown precision": Malformed(
        with_cells('precisions = ["fp32", "float16"]'),
        "cells.precisions[1]",
        '"float16"',
        "allowed: fp32, tf32, fp16, bf16, mixed",
    ),
    "a precision in capitals": Malformed(
        with_cells('precisions = ["FP16"]'),
        "cells.precisions[0]",
        '"FP16"',
        "did you mean fp16?",
    ),
    "a precision that is a number": Malformed(
        with_cells("precisions = [16]"), "cells.precisions[0]", "16", "must be a string"
    ),
    "no type though precisions": Malformed(
        with_cells('gpu_types = []\nprecisions = ["fp16"]'),
        "cells.gpu_types",
        "empty or missing",
        "must name at least one where cells.precisions does",
    ),
    "no precision though types": Malformed(
        with_cells('gpu_types = ["T4"]\nprecisions = []'),
        "cells.precisions",
        "empty or missing",
        "must name at least one where cells.gpu_types does",
    ),
    "nothing at all": Malformed(
        with_cells("gpu_types = []\nprecisions = []"), "cells.gpu_types", "[]", 'such as "auto"'
    ),
    "include that is a table": Malformed(
        with_cells('include = {gpu_type = "T4", precision = "fp16"}'),
        "cells.include",
        "T4",
        "must be a list such as",
    ),
    "exclude that lists names": Malformed(
        with_cells('exclude = ["T4"]'), "cells.exclude", "T4", "must be a list such as"
    ),
    "auto among the included": Malformed(
        with_cells('include = [{gpu_type = "auto", precision = "fp16"}]'),
        "cells.include[0].gpu_type",
        '"auto"',
        "must be one type",
    ),
    "an unknown precision to exclude": Malformed(
        with_cells('exclude = [{gpu_type = "T4", precision = "fp61"}]'),
        "cells.exclude[0].precision",
        '"fp61"',
        "did you mean fp16?",
    ),
    "an exclude that takes nothing away": Malformed(
        with_cells('exclude = [{gpu_type = "T4", precision = "bf16"}]'),
        "cells.exclude[0]",
        '"T4 bf16"',
        "excludes nothing",
    ),
    "a batch in words": Malformed(
        with_workload('batch_size = "8"'), "workloads[0].batch_size", '"8"', "a whole number"
    ),
    "half a batch": Malformed(
        with_workload("batch_size = 1.5"), "workloads[0].batch_size", "1.5", "a whole number"
    ),
    "a batch that is true": Malformed(
        with_workload("batch_size = true"), "workloads[0].batch_size", "true", "a whole number"
    ),
    "a batch of none": Malformed(
        with_workload("batch_size = [1, 0]"),
        "workloads[0].batch_size",
        "0",
        "must be from 1 to 65536",
    ),
    "an empty list of batches": Malformed(
        with_workload("batch_size = []"), "workloads[0].batch_size", "[]", "must not be an empty"
    ),
    "a list within the list": Malformed(
        with_workload("batch_size = [[1]]"), "workloads[0].batch_size", "[1]", "a whole number"
    ),
    "more tokens than decoders have positions": Malformed(
        with_workload("prompt_tokens = 131_073"),
        "workloads[0].prompt_tokens",
        "131073",
        "must be from 1 to 131072",
    ),
    "more tokens than the embedded model has positions": Malformed(
        with_workload("prompt_tokens = [128, 257]"),
        "workloads[0].prompt_tokens",
        "257",
        "tiny has 256 positions; must be at most 256",
    ),
    "more new tokens than are left of the positions": Malformed(
        with_workload("prompt_tokens = 200\nnew_tokens = 57"),
        "workloads[0].new_tokens",
        "57",
        "must be at most 56 beside prompt_tokens = 200",
    ),
    "an unknown attention": Malformed(
        with_workload('attention = "flesh"'),
        "workloads[0].attention",
        '"flesh"',
        "did you mean flash?",
    ),
    "an unknown engine": Malformed(
        with_workload('engine = "eagre"'), "workloads[0].engine", '"eagre"', "did you mean eager?"
    ),
    "a model that is a number": Malformed(
        "[[workloads]]\nmodel = 2\n", "workloads[0].model", "2", "must be a string"
    ),
    "a model without a name": Malformed(
        '[[workloads]]\nmodel = ""\n', "workloads[0].model", '""', "not empty"
    ),
    "a workload twice in a list": Malformed(
        with_workload("batch_size = [8, 8]"), "workloads[0]", "batch 8", "remove one of the two"
    ),
    "a workload twice in two tables": Malformed(
        f"{TINY}{TINY}", "workloads[1]", "workloads[0]", "remove one of the two"
    ),
    "a time in words": Malformed(
        with_sampling('idle_s = "5 s"'), "sampling.idle_s", '"5 s"', "must be a number"
    ),
    "an unknown protocol of energy": Malformed(
        with_sampling('energy = "certifed"'),
        "sampling.energy",
        '"certifed"',
        "did you mean certified?",
    ),
    "a time in ms": Malformed(
        with_sampling("energy_s = 30000"), "sampling.energy_s", "30000", "must be from 0.01 to 3600"
    ),
    "a negative time": Malformed(
        with_sampling("idle_s = -1"), "sampling.idle_s", "-1", "must be from 0 to 3600"
    ),
    "a time that is no number": Malformed(
        with_sampling("idle_s = nan"), "sampling.idle_s", "NaN", "must be from 0 to 3600"
    ),
    "a time without end": Malformed(
        with_sampling("timeout_s = inf"), "sampling.timeout_s", "Infinity", "from 1 to 604800"
    ),
    "a time beyond every float": Malformed(
        with_sampling(f"timeout_s = 1{'0' * 400}"), "sampling.timeout_s", "1000", "to 604800"
    ),
    "a number of more digits than Python reads": Malformed(
        with_sampling(f"timeout_s = 1{'0' * 5000}"), "study.toml", "not valid TOML", "digits"
    ),
    "lists without end": Malformed(
        f"name = {'[' * 5000}", "study.toml", "not valid TOML", "recursion"
    ),
    "a hexadecimal time beyond every float": Malformed(
        with_sampling(f"timeout_s = 0x1{'0' * 5000}"), "sampling.timeout_s", "0x10", "to 604800"
    ),
    "an end before the end of a stage": Malformed(
        with_sampling("timeout_s = 40"),
        "sampling.timeout_s",
        "40",
        "must not be less than latency_max_s = 60",
    ),
    "a stage beyond the end": Malformed(
        with_sampling("energy_s = 1000"),
        "sampling.energy_s",
        "1000",
        "must not be greater than timeout_s = 900",
    ),
    "an end before the end of the energy": Malformed(
        with_sampling('energy = "certified"\ntimeout_s = 200'),
        "sampling.timeout_s",
        "200",
        'must be at least 353: so long can energy = "certified" take; raise it',
    ),
    "energy beyond the default end": Malformed(
        with_sampling("energy_s = 800"),
        "sampling.timeout_s",
        "900",
        'must be at least 1632: so long can energy = "standard" take; raise it',
    ),
    "an interval in percent": Malformed(
        with_sampling("median_within = 1"),
        "sampling.median_within",
        "1",
        "must be from 0.0001 to 0.5",
    ),
    "no replicate": Malformed(
        with_sampling("replicates = 0"), "sampling.replicates", "0", "must be from 1 to 1000"
    ),
    "fewest above most": Malformed(
        with_sampling("min_samples = 100\nmax_samples = 50"),
        "sampling.min_samples",
        "100",
        "must not be greater than max_samples = 50",
    ),
    "most below the default fewest": Malformed(
        with_sampling("max_samples = 50"),
        "sampling.max_samples",
        "50",
        "must not be less than min_samples = 662",
    ),
    "shortest above the default longest": Malformed(
        with_sampling("warmup_min_s = 31"),
        "sampling.warmup_min_s",
        "31.0",
        "must not be greater than warmup_max_s = 30",
    ),
    "a stride longer than the context": Malformed(
        with_quality("context = 128\nstride = 256"),
        "quality.stride",
        "256",
        "must not be greater than context = 128",
    ),
    "more context than positions": Malformed(
        with_quality("context = 131_073"), "quality.context", "131073", "must be from 2 to 131072"
    ),
    "an unknown split": Malformed(
        with_quality('split = "valid"'),
        "quality.split",
        '"valid"',
        "allowed: train, validation, test",
    ),
    "a switch in words": Malformed(
        with_quality('enabled = "yes"'), "quality.enabled", '"yes"', "must be true or false"
    ),
    "a date for a text": Malformed(
        with_quality("text = 2026-11-24"), "quality.text", "2026-11-24", "must be a string"
    ),
    "a name that climbs out of the folder": Malformed(
        f'name = "../study"\n{TINY}', "name", '"../study"', "it becomes a folder's name"
    ),
    "a name of dots": Malformed(f'name = ".."\n{TINY}', "name", '".."', "must be letters"),
    "a name that is a number": Malformed(f"name = 1\n{TINY}", "name", "1", "must be letters"),
}


def test_a_malformed_matrix_gets_one_message_with_file_key_value_and_remedy() -> None:
    assert len({bad.text for bad in MALFORMED.values()}) >= 30
    for name, bad in MALFORMED.items():
        with pytest.raises(TensorgapError) as caught:
            parse(bad.text)
        message = str(caught.value)
        assert message.startswith("study.toml: "), name
        assert "\n" not in message, name
        for part in (bad.key, bad.value, bad.remedy):
            assert part in message, name


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_the_command_line_answers_a_malformed_matrix_with_one_line_and_exit_code_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.toml"
    for bad in list(MALFORMED.values())[::9]:
        path.write_text(bad.text, encoding="utf-8")
        with pytest.raises(SystemExit) as caught:
            cli.main([command, str(path)])
        printed = capsys.readouterr()
        assert caught.value.code == cli.BAD_INPUT
        assert printed.out == ""
        assert printed.err.startswith("tensorgap: study.toml: ")
        assert printed.err.count("\n") == 1
        assert bad.remedy in printed.err


SEVERAL = """
[cells]
gpu_types = ["a100"]
[[workloads]]
model = "tiny"
attention = "flesh"
batch_size = [8, 0]
[sampling]
latency_max = 3
"a\\nb" = 1
"""
MISTAKES = (
    'cells.gpu_types[0] = "a100": unknown type; did you mean A100?',
    "workloads[0].batch_size[1] = 0: must be from 1 to 65536",
    'workloads[0].attention = "flesh": unknown; did you mean flash?',
    "sampling.latency_max: unknown key; did you mean latency_max_s?",
)


def test_all_mistakes_of_a_matrix_are_told_at_once_each_on_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(SEVERAL, encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main(["plan", str(path)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    for line, mistake in zip(lines, MISTAKES, strict=False):
        assert line.startswith(f"tensorgap: study.toml: {mistake}")
    assert r"sampling.a\nb: unknown key" in lines[4]  # a line end of theirs is none of ours


def test_mistakes_between_values_are_told_at_once() -> None:
    both = with_sampling("max_samples = 50\n[quality]\ncontext = 128")
    with pytest.raises(TensorgapError) as caught:
        parse(both)
    assert caught.value.args == (
        "study.toml: sampling.max_samples = 50: must not be less than min_samples = 662",
        "study.toml: quality.context = 128: must not be less than stride = 512",
    )


def test_of_very_many_mistakes_the_first_are_told() -> None:
    with pytest.raises(TensorgapError, match=r"and more mistakes$") as caught:
        parse(with_workload(f"batch_size = {[*range(-10_000, 0)]}"))
    assert len(caught.value.args) == 21


# ------------------------------------------------------------------------------- unreadable files


def test_a_matrix_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TensorgapError, match=r"missing\.toml: there is no such file"):
        matrices.load(tmp_path / "missing.toml")


def test_a_folder_is_no_matrix(tmp_path: Path) -> None:
    with pytest.raises(TensorgapError, match="this is a folder; give the path of a matrix"):
        matrices.load(tmp_path)


def test_a_matrix_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(f"# \xe9tude\n{TINY}".encode("latin-1"))
    with pytest.raises(TensorgapError, match=r"latin\.toml: not UTF-8 text .*save it as UTF-8"):
        matrices.load(path)


def test_a_matrix_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my-study.toml"
    path.write_text(TINY, encoding="utf-8")
    assert matrices.load(path).name == "my-study"


def test_a_file_name_that_makes_no_folder_name_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "my study.toml"
    path.write_text(TINY, encoding="utf-8")
    with pytest.raises(TensorgapError, match=r'my study\.toml: name = "my study": must be letters'):
        matrices.load(path)


# ------------------------------------------------------------------------------- defaults, lists


def test_a_matrix_may_leave_out_all_but_a_model() -> None:
    assert parse(TINY) == Matrix(
        name="study",
        gpu_types=(AUTO,),
        precisions=("fp32",),
        include=(),
        exclude=(),
        workloads=(Workload("tiny"),),
        sampling=Sampling(),
        quality=QualityPlan(),
        text=TINY,
    )


def test_a_whole_number_serves_as_a_time() -> None:
    sampling = parse(with_sampling("idle_s = 2")).sampling
    assert sampling == Sampling(idle_s=2.0)
    assert type(sampling.idle_s) is float


def test_lists_multiply_out_in_the_order_of_the_keys() -> None:
    text = '[[workloads]]\nmodel = ["gpt2", "tiny"]\nbatch_size = [1, 8]\nprompt_tokens = [64, 32]'
    assert parse(text).workloads == tuple(
        Workload(model, "eager", batch_size, tokens)
        for model in ("gpt2", "tiny")
        for batch_size in (1, 8)
        for tokens in (64, 32)
    )


def test_attentions_multiply_out_like_the_others() -> None:
    text = '[[workloads]]\nmodel = "tiny"\nattention = ["auto", "math"]\nbatch_size = [1, 8]'
    assert parse(text).workloads == tuple(
        Workload("tiny", batch_size=size, attention=name)
        for name in ("auto", "math")
        for size in (1, 8)
    )


def test_workloads_keep_the_order_of_their_tables() -> None:
    text = f'{TINY}[[workloads]]\nmodel = "gpt2"\n'
    assert [workload.model for workload in parse(text).workloads] == ["tiny", "gpt2"]


# ------------------------------------------------------------------------------- cells


def cells(line: str, *present: str) -> list[str]:
    return [str(cell) for cell in matrices.cells(parse(with_cells(line)), present)]


def test_auto_is_every_gpu_type_that_the_cluster_has() -> None:
    assert cells('gpu_types = ["auto"]', "T4", "CPU", "A100", "T4") == ["A100 fp32", "T4 fp32"]


def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert cells('gpu_types = ["auto"]', "CPU") == ["CPU fp32"]
    assert cells('gpu_types = ["auto"]') == ["CPU fp32"]


def test_the_cpu_beside_the_gpus_must_be_asked_for() -> None:
    assert cells('gpu_types = ["auto", "CPU"]', "T4", "CPU") == ["T4 fp32", "CPU fp32"]


def test_a_type_that_auto_stands_for_already_comes_once() -> None:
    assert cells('gpu_types = ["T4", "auto"]', "A100", "T4") == ["T4 fp32", "A100 fp32"]


def test_a_named_type_stays_where_the_cluster_lacks_it() -> None:
    assert cells('gpu_types = ["H100"]', "T4") == ["H100 fp32"]


def test_types_and_precisions_multiply_out_types_first() -> None:
    line = 'gpu_types = ["T4", "P100"]\nprecisions = ["mixed", "fp32"]'
    assert cells(line) == ["T4 mixed", "T4 fp32", "P100 mixed", "P100 fp32"]


def test_included_cells_come_last_and_once() -> None:
    line = (
        'gpu_types = ["T4"]\nprecisions = ["fp32"]\n'
        'include = [{gpu_type = "L4", precision = "bf16"}, {gpu_type = "T4", precision = "fp32"}]'
    )
    assert cells(line) == ["T4 fp32", "L4 bf16"]


def test_included_cells_may_be_all_there_is() -> None:
    assert cells('include = [{gpu_type = "L4", precision = "bf16"}]', "T4") == ["L4 bf16"]


def test_an_excluded_cell_is_left_out_of_what_auto_stands_for() -> None:
    line = 'precisions = ["fp32", "fp16"]\nexclude = [{gpu_type = "CPU", precision = "fp16"}]'
    assert cells(line, "CPU") == ["CPU fp32"]
    assert cells(line, "CPU", "T4") == ["T4 fp32", "T4 fp16"]


def test_excluding_every_cell_is_refused_with_their_names() -> None:
    line = 'precisions = ["fp16"]\nexclude = [{gpu_type = "CPU", precision = "fp16"}]'
    assert cells(line, "T4") == ["T4 fp16"]
    with pytest.raises(TensorgapError, match=r"no cell is left to measure: .*CPU fp16"):
        cells(line, "CPU")


def test_excluding_outweighs_including() -> None:
    line = (
        'gpu_types = ["T4"]\nprecisions = ["fp32"]\n'
        'include = [{gpu_type = "L4", precision = "bf16"}]\n'
        'exclude = [{gpu_type = "L4", precision = "bf16"}]'
    )
    assert cells(line) == ["T4 fp32"]


# ------------------------------------------------------------------------------- round trips


def without_text(matrix: Matrix) -> Matrix:
    return dataclasses.replace(matrix, text="")


@st.composite
def any_matrix(draw: st.DrawFn) -> Matrix:
    """Any matrix that `parse` can return, but for its text."""
    known = {name.lower() for name in (AUTO, CPU, *COMPUTE_CAPABILITY)}
    other = st.text(min_size=1).filter(lambda t: t.strip() and t.strip().lower() not in known)
    gpu_type = st.sampled_from((CPU, *COMPUTE_CAPABILITY)) | other
    one_cell = st.builds(Cell, gpu_type, st.sampled_from(PRECISIONS))
    include = tuple(draw(st.lists(one_cell, max_size=3)))
    rule = draw(st.booleans()) or not include
    types = st.lists(st.just(AUTO) | gpu_type, min_size=1, max_size=4, unique=True)
    precisions = st.lists(st.sampled_from(PRECISIONS), min_size=1, unique=True)
    workload = st.builds(
        Workload,
        st.sampled_from(("tiny", "gpt2")) | st.text(min_size=1).filter(str.strip),
        st.sampled_from(ENGINES),
        st.integers(1, 65_536),
        st.integers(1, 128),
        st.integers(0, 128),
    )
    gpu_types = tuple(draw(types)) if rule else ()
    asked_precisions = tuple(draw(precisions)) if rule else ()
    asked = [
        Cell("T4" if name == AUTO else name, precision)
        for name, precision in itertools.product(gpu_types, asked_precisions)
    ]
    return Matrix(
        name=draw(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,40}", fullmatch=True)),
        gpu_types=gpu_types,
        precisions=asked_precisions,
        include=include,
        exclude=tuple(draw(st.lists(st.sampled_from([*asked, *include]), max_size=3))),
        workloads=tuple(draw(st.lists(workload, min_size=1, max_size=4, unique=True))),
        sampling=draw(any_sampling()),
        quality=draw(any_quality()),
        text="",
    )


@st.composite
def any_sampling(draw: st.DrawFn) -> Sampling:
    warmup = sorted(draw(st.tuples(st.floats(0, 3600), st.floats(0, 3600))))
    latency_max_s = draw(st.floats(0.01, 3600))
    stages_s = draw(st.tuples(st.floats(0.01, 3600), st.floats(0.01, 3600), st.floats(0, 3600)))
    longest_s = max(1.0, warmup[1], latency_max_s, *stages_s)
    samples = sorted(draw(st.tuples(st.integers(5, 10**6), st.integers(5, 10**6))))
    sampling = Sampling(
        replicates=draw(st.integers(1, 1000)),
        warmup_min_s=warmup[0],
        warmup_max_s=warmup[1],
        latency_min_s=draw(st.floats(0, latency_max_s)),
        latency_max_s=latency_max_s,
        min_samples=samples[0],
        max_samples=samples[1],
        median_within=draw(st.floats(0.0001, 0.5)),
        throughput_s=stages_s[0],
        energy=draw(st.sampled_from(ENERGY_PROTOCOLS)),
        energy_s=stages_s[1],
        idle_s=stages_s[2],
    )
    least_s = max(longest_s, durations.longest_s(sampling))
    return dataclasses.replace(sampling, timeout_s=draw(st.floats(least_s, 604_800)))


@st.composite
def any_quality(draw: st.DrawFn) -> QualityPlan:
    context = draw(st.integers(2, 1024))
    return QualityPlan(
        text=draw(st.text(min_size=1).filter(str.strip)),
        split=draw(st.sampled_from(("train", "validation", "test"))),
        context=context,
        stride=draw(st.integers(1, context)),
        timeout_s=draw(st.floats(1, 604_800)),
        enabled=draw(st.booleans()),
    )


@given(any_matrix())
def test_a_dumped_matrix_reads_back_as_an_equal_one(matrix: Matrix) -> None:
    text = matrices.dump(matrix)
    again = matrices.parse(text, "dumped", "another name")
    assert without_text(again) == matrix
    assert again.text == text


@pytest.mark.parametrize("timeout_s", [15, 60])
def test_a_quick_energy_needs_little_time(timeout_s: int) -> None:
    quick = (
        'energy = "quick"\nenergy_s = 2\nlatency_min_s = 1\nlatency_max_s = 5\nwarmup_max_s = 5\n'
    )
    matrix = parse(with_sampling(f"{quick}timeout_s = {timeout_s}"))
    assert matrix.sampling.timeout_s == timeout_s


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_matrix_loads_and_keeps_its_text(path: Path) -> None:
    matrix = matrices.load(path)
    assert matrix.text == path.read_text(encoding="utf-8")
    assert without_text(parse(matrices.dump(matrix))) == dataclasses.replace(
        without_text(matrix), name=path.stem
    )


def test_the_local_matrix_is_the_promised_one() -> None:
    matrix = matrices.load(next(path for path in SHIPPED if path.name == "local.toml"))
    on_a_cpu = [cell.precision for cell in matrices.cells(matrix, ["CPU"])]
    on_a_gpu = [cell.precision for cell in matrices.cells(matrix, ["T4"])]
    assert sorted(on_a_cpu) == ["bf16", "fp32", "mixed"]
    assert sorted(on_a_gpu) == ["bf16", "fp16", "fp32", "mixed"]
    assert set(matrix.workloads) == {
        Workload("tiny", batch_size=1),
        Workload("tiny", batch_size=8),
        Workload("gpt2:random", batch_size=1),
    }


def test_the_study_matrix_is_the_first_study() -> None:
    matrix = matrices.load(next(path for path in SHIPPED if path.name == "study.toml"))
    assert len(matrices.cells(matrix, [])) == 4 * 3
    assert matrix.gpu_types == ("P100", "T4", "V100", "A100")
    assert matrix.workloads == (Workload("gpt2"),)
    assert (matrix.quality.text, matrix.quality.split) == ("wikitext-2", "test")


# ------------------------------------------------------------------------------- narrowing

FOUR_CELLS = (
    '[cells]\ngpu_types = ["T4", "CPU"]\nprecisions = ["fp32", "fp16"]\n'
    'include = [{gpu_type = "L4", precision = "bf16"}]\n'
    f'{TINY}[[workloads]]\nmodel = "gpt2"\nbatch_size = [1, 8]\n'
)


def narrowed(text: str, **options: list[str]) -> list[str]:
    return [str(cell) for cell in matrices.cells(matrices.narrow(parse(text), **options), ["T4"])]


def test_narrowing_by_nothing_changes_nothing() -> None:
    matrix = parse(FOUR_CELLS)
    assert matrices.narrow(matrix) is matrix


def test_narrowing_to_a_type_keeps_its_cells() -> None:
    assert narrowed(FOUR_CELLS, gpu_types=["CPU"]) == ["CPU fp32", "CPU fp16"]


def test_narrowing_to_a_precision_keeps_its_cells() -> None:
    assert narrowed(FOUR_CELLS, precisions=["fp16"]) == ["T4 fp16", "CPU fp16"]


def test_narrowing_to_an_included_cell_keeps_that_cell_alone() -> None:
    assert narrowed(FOUR_CELLS, gpu_types=["L4"]) == ["L4 bf16"]
    assert narrowed(FOUR_CELLS, precisions=["bf16"]) == ["L4 bf16"]


def test_narrowing_to_a_model_keeps_its_workloads() -> None:
    matrix = matrices.narrow(parse(FOUR_CELLS), models=["gpt2"])
    assert matrix.workloads == (Workload("gpt2", batch_size=1), Workload("gpt2", batch_size=8))
    assert matrices.cells(matrix, []) == matrices.cells(parse(FOUR_CELLS), [])


def test_narrowing_auto_to_a_type_asks_for_that_type() -> None:
    assert narrowed(TINY, gpu_types=["H100"]) == ["H100 fp32"]


def test_narrowing_auto_to_a_misspelt_type_is_refused() -> None:
    with pytest.raises(TensorgapError, match=r'--gpu-type = "a100": .*did you mean A100'):
        matrices.narrow(parse(TINY), gpu_types=["a100"])


def test_narrowing_twice_to_the_same_type_is_narrowing_once() -> None:
    once = matrices.narrow(parse(TINY), gpu_types=["H100"])
    assert matrices.narrow(parse(TINY), gpu_types=["H100", "H100"]) == once


def test_narrowing_keeps_exclusions() -> None:
    text = with_cells(
        'gpu_types = ["T4"]\nprecisions = ["fp32", "fp16"]\n'
        'exclude = [{gpu_type = "T4", precision = "fp32"}]'
    )
    assert narrowed(text, gpu_types=["T4"]) == ["T4 fp16"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("gpu_types", "P100", '--gpu-type = "P100": not in this matrix; .*T4, CPU, L4'),
        ("precisions", "fp61", '--precision = "fp61": .*did you mean fp16'),
        ("models", "tinny", '--model = "tinny": .*did you mean tiny'),
    ],
)
def test_narrowing_to_what_the_matrix_lacks_names_what_it_has(
    option: str, value: str, message: str
) -> None:
    with pytest.raises(TensorgapError, match=f"command line: {message}"):
        matrices.narrow(parse(FOUR_CELLS), **{option: [value]})


def test_narrowing_to_nothing_is_refused() -> None:
    with pytest.raises(TensorgapError, match="leave no cell"):
        matrices.narrow(parse(FOUR_CELLS), gpu_types=["L4"], precisions=["fp32"])


def cells_or_none(matrix: Matrix) -> tuple[Cell, ...]:
    """The cells of a matrix in a cluster of T4; none where all are excluded."""
    try:
        return matrices.cells(matrix, ["T4"])
    except TensorgapError:
        return ()


@settings(max_examples=40)
@given(st.data(), any_matrix())
def test_a_narrowed_matrix_can_be_resumed(data: st.DataObject, matrix: Matrix) -> None:
    """Its text, which the results folder keeps, stands for the same cells and workloads."""
    types = [*matrix.gpu_types, *(cell.gpu_type for cell in matrix.include)]
    precisions = [*matrix.precisions, *(cell.precision for cell in matrix.include)]
    models = [workload.model for workload in matrix.workloads]
    try:
        part = matrices.narrow(
            matrix,
            data.draw(st.lists(st.sampled_from(types), max_size=2), label="--gpu-type"),
            data.draw(st.lists(st.sampled_from(precisions), max_size=2), label="--precision"),
            data.draw(st.lists(st.sampled_from(models), max_size=2), label="--model"),
        )
    except TensorgapError as error:
        assert "leave no cell" in str(error)
        return
    again = parse(part.text or matrices.dump(part))
    assert cells_or_none(again) == cells_or_none(part)
    assert again.workloads == part.workloads


@settings(max_examples=40)
@given(any_matrix())
def test_narrowing_never_adds_a_cell(matrix: Matrix) -> None:
    present = ["T4"]
    for cell in cells_or_none(matrix)[:2]:
        if AUTO in matrix.gpu_types and cell.gpu_type not in present:
            continue  # then the option names a type, whether the cluster has it or not
        part = matrices.narrow(matrix, gpu_types=[cell.gpu_type], precisions=[cell.precision])
        assert matrices.cells(part, present) == (cell,)


# ------------------------------------------------------------------------------- places


def test_folders_and_files_from_here_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "text.txt").touch()
    models = '["mine", "gpt2", "mine:random"]'
    text = f'[[workloads]]\nmodel = {models}\n[quality]\ntext = "text.txt"\n'
    found = matrices.localise(parse(text))
    mine = str(tmp_path / "mine")
    assert [workload.model for workload in found.workloads] == [mine, "gpt2", f"{mine}:random"]
    assert found.quality.text == str(tmp_path / "text.txt")
    assert without_text(parse(found.text)) == without_text(found)


def test_what_is_not_here_is_left_for_a_worker_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix = parse('[[workloads]]\nmodel = "mine"\n[quality]\ntext = "wikitext-2"\n')
    assert matrices.localise(matrix) is matrix


@pytest.mark.parametrize(
    "name", ["~no-such-user/model", "x" * 5000, "/" * 5000, "\0", "./\0"], ids=lambda name: name[:9]
)
def test_a_name_that_no_disk_has_is_left_as_it_is(name: str) -> None:
    matrix = parse('[[workloads]]\nmodel = "tiny"\n')
    asked = dataclasses.replace(matrix, workloads=(Workload(name),))
    assert matrices.localise(asked).workloads in ((Workload(name),), (Workload("/"),))


@pytest.mark.parametrize(
    "name", ["../nowhere", "./nowhere", "/nowhere/gpt2", "~/nowhere-gpt2", "."]
)
def test_a_path_to_nothing_is_refused_where_the_nodes_are_this_machine(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables = (f'model = "{name}"\n', f'model = "tiny"\n[quality]\ntext = "{name}"\n')
    for key, table in zip(("model", "quality.text"), tables, strict=True):
        matrix = parse(f"[[workloads]]\n{table}")
        if name == ".":
            matrices.check_paths(matrix)
        else:
            with pytest.raises(TensorgapError, match=f'{key} = "{name}": there is no such'):
                matrices.check_paths(matrix)


def test_a_folder_whose_configuration_alone_is_meant_must_be_there_too(tmp_path: Path) -> None:
    matrices.check_paths(parse(f'[[workloads]]\nmodel = "{tmp_path}:random"\n'))
    with pytest.raises(TensorgapError, match='model = "/nowhere:random": there is no such folder'):
        matrices.check_paths(parse('[[workloads]]\nmodel = "/nowhere:random"\n'))
    with pytest.raises(TensorgapError, match=r"for random weights write gpt2:random$"):
        matrices.check_paths(parse('[[workloads]]\nmodel = "gpt2:randon"\n'))


@pytest.mark.parametrize("model", ["mistralai/Mistral-7B-v0.1", "Mistral-7B-v0.1:random"])
def test_a_request_longer_than_the_window_of_a_known_model_is_refused(model: str) -> None:
    table = f'[[workloads]]\nmodel = "{model}"\nprompt_tokens = '
    parse(f"{table}4096\n")
    with pytest.raises(TensorgapError, match=f"{model} has 4096 positions; must be at most 4096"):
        parse(f"{table}4097\n")


def test_names_of_the_hub_are_no_paths() -> None:
    models = '["gpt2", "tiny", "openai-community/gpt2", "mine"]'
    matrices.check_paths(parse(f'[[workloads]]\nmodel = {models}\n[quality]\ntext = "a/b"\n'))
    off = '[[workloads]]\nmodel = "tiny"\n[quality]\nenabled = false\ntext = "./nowhere"\n'
    matrices.check_paths(parse(off))


def test_a_folder_of_the_name_of_a_known_model_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "gpt2"):
        (tmp_path / name).mkdir()
    (tmp_path / "embedded").touch()
    matrix = parse('[[workloads]]\nmodel = ["tiny", "gpt2", "gpt2:random", "tiny:random"]\n')
    assert matrices.localise(matrix) is matrix


# ------------------------------------------------------------------------------- wording


def test_every_key_of_a_matrix_has_limits_or_choices_or_is_a_name() -> None:
    """A number without limits would let a slip of the unit through."""
    for record in (Workload, Sampling, QualityPlan):
        for field in dataclasses.fields(record):
            if field.type in ("int", "float"):
                beyond = with_sampling(f"{field.name} = -7")
                if record is Workload:
                    beyond = with_workload(f"{field.name} = -7")
                if record is QualityPlan:
                    beyond = with_quality(f"{field.name} = -7")
                with pytest.raises(TensorgapError, match=rf"{field.name} = -7.*: must be from"):
                    parse(beyond)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(TensorgapError) as caught:
        parse(with_cells(f'precisions = ["{"x" * 500}"]'))
    assert len(str(caught.value)) < 250
    assert "..." in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_makes_anything_but_a_matrix_or_one_message(text: str) -> None:
    for document in (text, f"name = {text}\n{TINY}", with_workload(f"batch_size = {text}")):
        try:
            parse(document)
        except TensorgapError as error:
            assert str(error).startswith("study.toml: ")


def test_the_example_in_the_docstring_is_a_matrix() -> None:
    example = (matrices.__doc__ or "").partition("\n\n")[2].partition("\n\nThe allowed")[0]
    assert tomllib.loads(example)["cells"]["gpu_types"] == ["auto"]
    assert len(parse(example).workloads) == 2


TOO_MUCH = {
    "more than 100 dots": f"a{'.a' * 400_000} = 1\n",
    "line 2: more than 100 dots": f"\n[{'a.' * 400_000}a]\n",
    "cells.gpu_types: 90,000 entries; allowed: 1,000": (
        f"[cells]\ngpu_types = {[f'T{n}' for n in range(90_000)]}\n{TINY}"
    ),
    "cells.exclude: 2,000 entries; allowed: 1,000": (
        "[cells]\nexclude = [{}]\n".format('{gpu_type = "T4", precision = "fp32"},' * 2000) + TINY
    ),
    "workloads[0]: 50,000,000 workloads; allowed: 10,000": (
        f"{TINY}batch_size = {list(range(1, 50_001))}\nprompt_tokens = {list(range(1, 1001))}\n"
    ),
    "m.toml: 1.5 MB; must be at most 1 MB": f"#{'x' * 1_499_998}\n",
    f"workloads[0].{'k' * 44}...: unknown key": f"{TINY}{'k' * 900_000} = 1\n",
}


@pytest.mark.parametrize(("words", "text"), TOO_MUCH.items(), ids=range(len(TOO_MUCH)))
def test_a_matrix_that_would_take_minutes_or_all_memory_is_one_message(
    tmp_path: Path, words: str, text: str
) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(TensorgapError, match=re.escape(words)) as caught:
        matrices.load(tmp_path / "m.toml")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", None])
def test_a_matrix_that_is_no_file_is_one_message_at_once(
    tmp_path: Path, device: str | None
) -> None:
    place = tmp_path / "m.toml"
    place.symlink_to(device) if device else os.mkfifo(place)
    with pytest.raises(TensorgapError, match=r"m\.toml: cannot be read: not a regular file"):
        matrices.load(place)


@pytest.mark.parametrize("content", ["name = 'x'".encode("utf-16"), b"\xff", b"name = '\xe4'"])
def test_a_matrix_in_another_encoding_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.toml").write_bytes(content)
    with pytest.raises(TensorgapError, match=r"m\.toml: not UTF-8 text"):
        matrices.load(tmp_path / "m.toml")


def test_a_path_that_is_not_utf8_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    (folder / "model").mkdir(parents=True)
    monkeypatch.chdir(folder)
    matrix = parse('[[workloads]]\nmodel = "model"\n')
    with pytest.raises(TensorgapError, match="not UTF-8; rename that folder"):
        matrices.localise(matrix)


def test_a_path_that_none_can_be_is_one_message() -> None:
    with pytest.raises(TensorgapError, match="cannot be read: a path has no character 0"):
        matrices.load(Path("\0.toml"))


@pytest.mark.parametrize("given", ["", "  "])
def test_a_gpu_type_on_the_command_line_must_not_be_empty(given: str) -> None:
    asked = matrices.parse('[[workloads]]\nmodel = "tiny"\n', "m.toml", "m")
    with pytest.raises(TensorgapError, match="must not be empty"):
        matrices.narrow(asked, gpu_types=[given])
