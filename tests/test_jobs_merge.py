from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import kept_rows
import pyarrow.parquet as pq
import pytest
from test_jobs_report import a_row

from bench.results import store as results
from bench.results.store import Results
from jobs.cli import main

NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
MATRIX = '[[workloads]]\nmodel = "tiny"\n'


def a_sweep(place: Path, name: str, *precisions: str) -> Results:
    folder = Results.create(str(place), name, MATRIX, NOW)
    for precision in precisions:
        folder.write(a_row(precision, 10, run=folder.source.run, finished_at=NOW))
    return folder


def merge(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["merge", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_folders_and_files_of_several_sweeps_become_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gcp = a_sweep(tmp_path, "gcp", "fp32", "fp16")
    aws = a_sweep(tmp_path, "aws", "fp32")
    merged = tmp_path / "all.parquet"
    assert merge(gcp.location, aws.finish(), "-o", merged) == 0
    assert f"{merged}: 3 rows from 2 sweeps" in capsys.readouterr().out
    rows, sources, _ = results.read(str(merged))
    assert len(rows) == 3
    assert {source.run for source in sources} == {gcp.source.run, aws.source.run}
    assert all(source.matrix == MATRIX for source in sources)


def test_the_metadata_of_the_file_tells_where_its_rows_came_from(tmp_path: Path) -> None:
    a, b = a_sweep(tmp_path, "a", "fp32"), a_sweep(tmp_path, "b", "fp32")
    merge(a.location, b.location, "-o", tmp_path / "all.parquet")
    metadata = pq.read_schema(tmp_path / "all.parquet").metadata
    assert len(json.loads(metadata[b"tensorgap.sources"])) == 2


def test_a_row_that_stands_in_both_is_kept_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = a_sweep(tmp_path, "a", "fp32", "fp16")
    later = NOW + datetime.timedelta(minutes=1)
    old_file = sweep.finish()
    sweep.write(a_row("fp16", 99, run=sweep.source.run, finished_at=later))
    assert merge(sweep.location, old_file, "-o", tmp_path / "all.parquet") == 0
    assert "2 rows from 1 sweep, 2 of them double and kept once" in capsys.readouterr().out
    rows, _, _ = results.read(str(tmp_path / "all.parquet"))
    assert [row.finished_at for row in rows if row.cell.precision == "fp16"] == [later]


def test_merged_files_can_be_merged_again(tmp_path: Path) -> None:
    a, b = a_sweep(tmp_path, "a", "fp32"), a_sweep(tmp_path, "b", "fp32")
    merge(a.location, b.location, "-o", tmp_path / "ab.parquet")
    merge(tmp_path / "ab.parquet", a.location, "-o", tmp_path / "aba.parquet")
    assert results.read(str(tmp_path / "ab.parquet")) == results.read(str(tmp_path / "aba.parquet"))


def test_an_existing_file_is_replaced_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = a_sweep(tmp_path, "a", "fp32")
    merged = tmp_path / "all.parquet"
    merged.write_text("precious")
    assert merge(sweep.location, "-o", merged) == 2
    assert "--force" in capsys.readouterr().err
    assert merged.read_text() == "precious"
    assert merge(sweep.location, "-o", merged, "--force") == 0
    assert len(results.read(str(merged))[0]) == 1


def test_rows_of_different_runs_with_the_same_cell_are_both_kept(tmp_path: Path) -> None:
    first = a_row("fp32", 10, run="a/1")
    second = replace(first, run="a/2")
    kept_rows.write(str(tmp_path / "1.parquet"), [first], [])
    kept_rows.write(str(tmp_path / "2.parquet"), [second], [])
    merge(tmp_path / "1.parquet", tmp_path / "2.parquet", "-o", tmp_path / "all.parquet")
    assert len(results.read(str(tmp_path / "all.parquet"))[0]) == 2
