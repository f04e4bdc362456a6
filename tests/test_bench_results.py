"""bench.results: what is measured is kept at once, and survives whatever ends the sweep."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import examples
import faults_record
import hypothesis.strategies as st
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from pyarrow import fs

import bench
from bench.asked import PRECISIONS, Cell, Workload
from bench.errors import TensorgapError
from bench.files import limits
from bench.measured import Measurement, Outcome, Profile, Stage
from bench.results import columns as table
from bench.results import parts
from bench.results import store as results
from bench.results.spool import Spool
from bench.results.store import Results

MATRIX = '[[workloads]]\nmodel = "tiny"\n'
NOW = datetime.datetime(
    2026, 11, 24, 13, 30, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
)
STAMP = "20261124T123005Z"


@pytest.fixture
def folder(tmp_path: Path) -> Results:
    """An empty results folder."""
    return Results.create(str(tmp_path), "local", MATRIX, NOW)


def parts_of(folder: Results) -> list[Path]:
    return sorted((Path(folder.location) / results.PARTS).glob("*"))


def row(replicate: int = 0, **changes: Any) -> Measurement:
    return examples.measurement(run=f"local/{STAMP}", replicate=replicate, **changes)


def profile(replicate: int = 0, **changes: Any) -> Profile:
    return examples.profile(run=f"local/{STAMP}", replicate=replicate, **changes)


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, folder: Results) -> Iterator[None]:
    """No room in this folder."""
    replace = os.replace

    def full(source: str, target: str) -> None:
        if target.startswith(folder.location):
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        yield


# ------------------------------------------------------------------------------- a sweep's life


def test_a_folder_is_named_after_the_matrix_and_the_time_in_utc(tmp_path: Path) -> None:
    folder = Results.create(str(tmp_path), "local", MATRIX, NOW)
    assert folder.location == f"{tmp_path}/local/{STAMP}"
    assert (tmp_path / "local" / STAMP / "matrix.toml").read_text() == MATRIX
    assert (tmp_path / "local" / STAMP / "parts").is_dir()


def test_a_second_sweep_in_the_same_second_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    locations = [Results.create(str(tmp_path), "local", MATRIX, NOW).location for _ in range(3)]
    assert locations == [f"{tmp_path}/local/{STAMP}{tail}" for tail in ("", "-2", "-3")]


def test_the_source_says_what_was_asked_and_which_code_ran(folder: Results) -> None:
    assert folder.source.run.startswith(f"local/{STAMP}-")
    assert folder.source.matrix == MATRIX
    assert folder.source.version == bench.__version__


def test_sweeps_that_began_in_the_same_second_elsewhere_are_told_apart(tmp_path: Path) -> None:
    places = [str(tmp_path / name) for name in ("one", "other")]
    runs = {Results.create(place, "local", MATRIX, NOW).source.run for place in places}
    assert len(runs) == 2


def test_what_auto_stood_for_is_kept(tmp_path: Path) -> None:
    folder = Results.create(str(tmp_path), "local", MATRIX, NOW, gpu_types=["T4", "A100"])
    assert folder.source.gpu_types == ("A100", "T4")
    assert Results.open(folder.location).source == folder.source


def test_an_opened_folder_is_the_created_one(folder: Results) -> None:
    again = Results.open(f"{folder.location}/")
    assert again.location == folder.location
    assert again.source == folder.source
    assert again.matrix() == folder.matrix()
    assert again.matrix().name == "local"
    assert again.matrix().workloads == (Workload("tiny"),)


def test_a_new_folder_has_no_rows(folder: Results) -> None:
    assert folder.read() == ([], [])
    assert results.read(folder.location) == ([], [folder.source], [])


def test_a_row_is_there_as_soon_as_it_is_written(folder: Results) -> None:
    folder.write(row())
    assert Results.open(folder.location).read() == ([row()], [])


def test_every_row_is_kept(folder: Results) -> None:
    rows = [row(replicate) for replicate in range(5)]
    for one in rows:
        folder.write(one)
    found, corrupt = folder.read()
    assert (sorted(found, key=lambda one: one.replicate), corrupt) == (rows, [])


def test_finishing_merges_the_parts_into_one_file(folder: Results) -> None:
    rows = [row(2), row(0), row(1)]
    for one in rows:
        folder.write(one)
    path = folder.finish()
    assert path == f"{folder.location}/results.parquet"
    assert results.read(path) == ([row(0), row(1), row(2)], [folder.source], [])


def test_finishing_twice_takes_up_what_came_meanwhile(folder: Results) -> None:
    folder.write(row(0))
    folder.finish()
    folder.write(row(1))
    assert results.read(folder.finish())[0] == [row(0), row(1)]


def test_a_folder_of_an_unfinished_sweep_can_be_read(folder: Results) -> None:
    folder.write(row())
    assert results.read(folder.location) == ([row()], [folder.source], [])


def test_measuring_again_replaces_the_row(folder: Results) -> None:
    folder.write(row(outcome=Outcome.LOST, reason="the node went away"))
    folder.write(row(1))
    folder.write(row())
    assert len(parts_of(folder)) == 2
    assert sorted(folder.read()[0], key=lambda one: one.replicate) == [row(), row(1)]


def test_a_profile_is_a_part_of_its_own_and_joined_to_its_row(folder: Results) -> None:
    folder.write(row())
    content = parts_of(folder)[0].read_bytes()
    folder.write(profile())
    assert sorted(path.name for path in parts_of(folder)) == [
        parts.name_of(profile()),
        parts.name_of(row()),
    ]
    assert content in [path.read_bytes() for path in parts_of(folder)]  # no row is written twice
    joined = replace(
        row(),
        trace=profile().trace,
        roofline=profile().roofline,
        warnings=profile().warnings,
    )
    assert folder.read() == ([joined], [])
    assert results.read(folder.location)[0] == results.read(folder.finish())[0] == [joined]
    shutil.rmtree(Path(folder.location) / results.PARTS)
    folder.restore()
    assert folder.read() == ([joined], [])


def test_a_row_without_its_profile_is_a_row_and_a_profile_without_its_row_is_none(
    folder: Results,
) -> None:
    folder.write(row(0))
    folder.write(profile(1))
    assert folder.read() == ([row(0)], [])
    alone = Path(folder.location) / results.PARTS / parts.name_of(profile(1))
    with pytest.raises(TensorgapError, match="a profile without its row; give the folder"):
        results.read(str(alone))


def test_a_corrupt_profile_is_reported_and_its_row_is_kept(folder: Results) -> None:
    folder.write(row())
    folder.write(profile())
    victim = Path(folder.location) / results.PARTS / parts.name_of(profile())
    victim.write_bytes(victim.read_bytes()[:-1])
    rows, corrupt = folder.read()
    assert rows == [row()]
    assert [(one.path, one.consequence) for one in corrupt] == [
        (str(victim), "its row stands without a profile")
    ]


def test_a_relative_folder_is_meant_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Results.create("results", "local", MATRIX, NOW)
    folder.write(row())
    assert folder.location == f"results/local/{STAMP}"
    assert results.read(folder.location)[0] == [row()]
    assert (tmp_path / folder.location).is_dir()


def test_rows_of_several_sweeps_go_into_one_file(tmp_path: Path) -> None:
    sources = [table.Source(f"sweep-{n}/{STAMP}", MATRIX, "0.1.0", None) for n in range(2)]
    rows = [examples.measurement(run=source.run) for source in sources]
    path = tmp_path / "new" / "folder" / "all.parquet"
    results.write_merged(str(path), rows, sources)
    assert results.read(str(path)) == (rows, sources, [])


def test_existence_is_asked_of_the_place(tmp_path: Path, folder: Results) -> None:
    assert results.exists(folder.location)
    assert results.exists(f"file://{folder.location}")
    assert not results.exists(str(tmp_path / "missing"))


# ------------------------------------------------------------------------------- names of parts


def test_a_part_has_the_name_that_its_stage_foretold() -> None:
    asked = row(3)
    stage = Stage(asked.cell, asked.workload, asked.replicate, "warm-up", "host")
    assert parts.name_of(stage) == parts.name_of(asked)


def test_a_part_can_be_told_by_its_name() -> None:
    asked = row(2, cell=Cell("A100", "bf16"), workload=Workload("gpt2", batch_size=8))
    assert parts.name_of(asked).startswith("A100-bf16-gpt2-b8-r2-")


@settings(max_examples=30)
@given(st.lists(examples.any_measurement(), min_size=2, max_size=2))
def test_parts_share_a_name_only_where_the_same_was_asked(rows: list[Measurement]) -> None:
    first, second = rows
    same_name = parts.name_of(first) == parts.name_of(second)
    assert same_name == (first.key == second.key)


@given(st.text(min_size=1), st.sampled_from(PRECISIONS), st.text(min_size=1, max_size=300))
def test_a_part_has_a_name_that_every_place_takes(
    gpu_type: str, precision: str, model: str
) -> None:
    name = parts.name_of(row(cell=Cell(gpu_type, precision), workload=Workload(model)))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*\.parquet", name)
    assert len(name) < 200


def test_alike_models_in_different_folders_are_told_apart() -> None:
    models = ["a/b", "a-b", "a b", "../a/b"]
    assert len({parts.name_of(row(workload=Workload(model))) for model in models}) == 4


# ------------------------------------------------------------------------------- corrupt parts


def cut(length: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * length)]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "magic number only": lambda content: content[:4],
    "first tenth": cut(0.1),
    "first half": cut(0.5),
    "nine tenths": cut(0.9),
    "all but the last byte": lambda content: content[:-1],
    "all but the first byte": lambda content: content[1:],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda _: b"this is no Parquet file\n" * 100,
    "data lost, footer whole": lambda content: content[:4] + content[-len(content) // 2 :],
    "footer length too great": lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1",
    "two files in one": lambda content: content[: len(content) // 2] * 2,
}


def test_a_corrupt_part_is_reported_and_the_rest_is_read(folder: Results) -> None:
    for replicate in range(3):
        folder.write(row(replicate))
    victim = Path(folder.location) / results.PARTS / parts.name_of(row(1))
    whole = victim.read_bytes()
    for name, damage in DAMAGE.items():
        victim.write_bytes(damage(whole))
        rows, corrupt = folder.read()
        assert sorted(one.replicate for one in rows) == [0, 2], name
        assert [one.path for one in corrupt] == [str(victim)], name
        assert corrupt[0].reason, name
        assert "\n" not in corrupt[0].reason, name
        assert str(victim) not in corrupt[0].reason, name


def test_a_part_of_wrong_content_is_corrupt_too(folder: Results) -> None:
    """Whole as a file, but a value in it is none that a row can have."""
    folder.write(row())
    content = table.to_table([row(1)], [folder.source])
    at = content.column_names.index("outcome")
    content = content.set_column(at, content.schema.field(at), pa.array(["SPLENDID"]))
    pq.write_table(content, Path(folder.location) / results.PARTS / "b.parquet")
    rows, (corrupt,) = folder.read()
    assert rows == [row()]
    assert 'outcome = "SPLENDID"' in corrupt.reason


def test_every_truncation_is_noticed(folder: Results) -> None:
    folder.write(row())
    (part,) = parts_of(folder)
    content = part.read_bytes()
    for length in range(0, len(content), 499):
        part.write_bytes(content[:length])
        rows, corrupt = folder.read()
        assert (rows, len(corrupt)) == ([], 1), length


def test_a_parquet_file_of_another_program_among_the_parts_is_reported(folder: Results) -> None:
    folder.write(row())
    stranger = Path(folder.location) / results.PARTS / "stranger.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(stranger)
    rows, corrupt = folder.read()
    assert rows == [row()]
    assert [Path(one.path).name for one in corrupt] == ["stranger.parquet"]
    assert "not written by tensorgap" in corrupt[0].reason


def test_a_part_of_another_version_is_whole_and_not_measured_over(
    folder: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SCHEMA_VERSION", 2)
    folder.write(row())
    monkeypatch.undo()
    with pytest.raises(TensorgapError, match="schema version 2; this tensorgap reads"):
        folder.read()


def test_without_its_parts_a_folder_has_what_was_merged(folder: Results) -> None:
    folder.write(row())
    folder.finish()
    shutil.rmtree(Path(folder.location) / results.PARTS)
    assert results.read(folder.location)[0] == [row()]
    folder.restore()
    folder.write(row(1))
    folder.finish()
    shutil.rmtree(Path(folder.location) / results.PARTS)
    assert results.read(folder.location)[0] == [row(0), row(1)]


def test_a_folder_that_lost_all_says_so(folder: Results) -> None:
    shutil.rmtree(Path(folder.location) / results.PARTS)
    with pytest.raises(TensorgapError, match="its rows are gone: there is neither parts/ nor"):
        results.read(folder.location)


def test_a_corrupt_part_is_replaced_by_measuring_again(folder: Results) -> None:
    folder.write(row())
    parts_of(folder)[0].write_bytes(b"PAR1")
    folder.write(row())
    assert folder.read() == ([row()], [])


def test_a_corrupt_part_is_left_out_of_the_merged_file(folder: Results) -> None:
    folder.write(row(0))
    folder.write(row(1))
    (Path(folder.location) / results.PARTS / parts.name_of(row(1))).write_bytes(b"")
    assert results.read(folder.finish())[0] == [row(0)]


def test_a_flipped_bit_is_an_equal_row_or_a_corrupt_part(folder: Results) -> None:
    folder.write(row())
    (part,) = parts_of(folder)
    content = part.read_bytes()
    random = Random(0)
    for _ in range(60):
        at, bit = random.randrange(len(content)), random.randrange(8)
        flipped = content[at] ^ (1 << bit)
        part.write_bytes(content[:at] + bytes([flipped]) + content[at + 1 :])
        rows, corrupt = folder.read()
        assert len(rows) + len(corrupt) == 1, (at, bit)
        assert rows in ([], [row()]), (at, bit)


# ------------------------------------------------------------------------------- atomic writes


def test_what_an_interrupted_write_left_is_ignored(folder: Results) -> None:
    folder.write(row())
    content = parts_of(folder)[0].read_bytes()
    (Path(folder.location) / results.PARTS / "x.parquet.123.tmp").write_bytes(content[:100])
    (Path(folder.location) / results.PARTS / "y.parquet.124.tmp").write_bytes(content)
    assert folder.read() == ([row()], [])


def test_a_full_disk_is_one_message_with_the_place(
    folder: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TensorgapError, match=f"{folder.location}: No space left on device"):
        folder.write(row())
    monkeypatch.undo()
    assert folder.read() == ([], [])


def test_rows_wait_elsewhere_while_their_disk_is_full(
    folder: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = Results.open(folder.location)
    with full_disk(monkeypatch, again):
        again.write(row(0))
        again.write(row(1))
        again.write(profile(1))
        assert parts_of(folder) == []
        told = f"{folder.location}: No space left on device; rows wait in {tmp_path}"
        assert told in str(again.trouble)
        first, second = again.read()[0]
        assert (first, second.trace) == (row(0), profile(1).trace)
        with pytest.raises(TensorgapError, match="for --resume"):
            again.settle(0)
    # A killed sweep: the next one finds what waits.
    resumed = Results.open(folder.location)
    assert len(resumed.read()[0]) == 2
    resumed.settle(0)
    assert resumed.trouble is None
    assert len(parts_of(folder)) == 3
    assert len(resumed.read()[0]) == 2
    faults_record.note("disk full", 0, "rows wait in the temporary folder until there is room")


def test_a_row_measured_again_replaces_the_one_that_waits(
    folder: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = Results.open(folder.location)
    again.write(row(outcome=Outcome.LOST, reason="the node went away"))
    with full_disk(monkeypatch, again):
        again.write(row())
        assert again.trouble is not None
        assert again.read() == ([row()], [])
    assert results.read(again.finish())[0] == [row()]


def test_a_process_killed_while_writing_leaves_whole_parts_only(folder: Results) -> None:
    script = (
        "import os, sys, examples\n"
        "from bench.results.store import Results\n"
        "folder = Results.open(sys.argv[1])\n"
        "folder.write(examples.measurement(replicate=0))\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "folder.write(examples.measurement(replicate=1))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, folder.location], env=with_our_path(), timeout=60
    )
    assert killed.returncode == -9
    rows, corrupt = folder.read()
    assert ([one.replicate for one in rows], corrupt) == ([0], [])
    assert any(path.name.endswith(".tmp") for path in parts_of(folder))


# ------------------------------------------------------------------------------- one at a time


def with_our_path() -> dict[str, str]:
    """The environment in which another process finds these modules."""
    here = Path(__file__).parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}


def test_a_second_sweep_of_the_same_folder_is_refused(folder: Results) -> None:
    other = Results.open(folder.location)
    with (
        folder.locked(),
        pytest.raises(TensorgapError, match="another sweep is writing here; wait for it or stop"),
        other.locked(),
    ):
        pass


def test_a_folder_is_free_again_after_a_sweep(folder: Results) -> None:
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with Results.open(folder.location).locked():
        pass


def test_a_killed_sweep_leaves_no_lock_behind(folder: Results) -> None:
    script = (
        "import sys, time\n"
        "from bench.results.store import Results\n"
        "with Results.open(sys.argv[1]).locked():\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, folder.location],
        env=with_our_path(),
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(TensorgapError, match="another sweep"), folder.locked():
            pass
        other.kill()
    with folder.locked():
        pass


def test_a_lock_that_cannot_be_made_is_one_message(folder: Results) -> None:
    (Path(folder.location) / ".lock").mkdir()
    with pytest.raises(TensorgapError, match=folder.location), folder.locked():
        pass


def test_a_file_system_without_locks_is_written_to_all_the_same(
    folder: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder.locked():
        folder.write(row())


def test_what_goes_wrong_under_the_lock_is_not_blamed_on_it(folder: Results) -> None:
    with pytest.raises(FileNotFoundError), folder.locked():
        raise FileNotFoundError("a mistake of the sweep")


# ------------------------------------------------------------------------------- from a stranger


def changed_source(folder: Results, **changes: Any) -> None:
    path = Path(folder.location) / "source.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


HOSTILE = (
    "/etc",
    "/etc/20261124T123005Z-0a1b2c",
    "..",
    "../20261124T123005Z-0a1b2c",
    "./20261124T123005Z-0a1b2c",
    "local/..",
    "local/../../20261124T123005Z-0a1b2c",
    "local/20261124T123005Z-0a1b2c/..",
    "local/20261124T123005Z-0a1b2c\n",
    "lo\0cal/20261124T123005Z-0a1b2c",
    "lo\ncal/20261124T123005Z-0a1b2c",
    "lo\\cal/20261124T123005Z-0a1b2c",
    "\x1b]52;c;AAAA\x07/20261124T123005Z-0a1b2c",
    "x" * 5000 + "/20261124T123005Z-0a1b2c",
    "\ud800/20261124T123005Z-0a1b2c",
    "local/\u0662\u0660\u0662\u0666\u0661\u0661\u0662\u0664T123005Z-0a1b2c",
    "local",
    "",
)


def test_a_run_that_leads_out_of_the_folder_is_refused(folder: Results) -> None:
    for run in HOSTILE:
        changed_source(folder, run=run)
        with pytest.raises(TensorgapError, match=r"source\.json is damaged"):
            Results.open(folder.location)


def test_a_run_with_blanks_and_unicode_is_read(folder: Results) -> None:
    for name in ("local", "my study", "Étude 研究", "a.b", "..."):
        changed_source(folder, run=f"{name}/20261124T123005Z-2-0a1b2c")
        assert Results.open(folder.location).source.run.startswith(f"{name}/")


@settings(max_examples=30)
@given(st.text(st.sampled_from("./\\~\0\n aé0TZ-") | st.characters(), max_size=40), st.booleans())
def test_no_run_moves_reads_or_deletes_what_lies_elsewhere(run: str, well_formed: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        there = Path(made)
        folder = Results.create(str(there / "out"), "local", MATRIX, NOW)
        victim = there / "victim" / parts.name_of(row())
        victim.parent.mkdir()
        victim.write_bytes(parts.to_parquet([row()], [folder.source]))
        tail = "/20261124T123005Z-0a1b2c" if well_formed else ""
        changed_source(folder, run=run + tail)
        before = sorted(there.rglob("*"))
        with contextlib.suppress(TensorgapError):
            opened = Results.open(folder.location)
            assert opened.read() == ([], [])
            opened.settle(0)
            opened.finish()
            spool = Spool(opened.source.run)
            assert spool.usual in Path(spool.location).resolve().parents
        after = sorted(there.rglob("*"))
        assert [path for path in after if path.name != "results.parquet"] == before


def test_an_absolute_run_does_not_take_foreign_files(folder: Results, tmp_path: Path) -> None:
    """The attack as it was tried: parts of another folder were moved into this one."""
    other = Results.create(str(tmp_path / "other"), "local", MATRIX, NOW)
    other.write(row())
    changed_source(folder, run=f"{other.location}/parts")
    with pytest.raises(TensorgapError, match="damaged"):
        Results.open(folder.location).settle(0)
    assert len(parts_of(other)) == 1


def test_a_source_whose_field_has_another_type_is_one_message(folder: Results) -> None:
    whole = (Path(folder.location) / "source.json").read_text()
    changes: list[dict[str, Any]] = [{"gpu_types": "T4"}, {"gpu_types": [1]}, {"run": 7}]
    changes += [{"matrix": None}, {"simulated": "no"}]
    contents = [json.dumps(json.loads(whole) | change) for change in changes]
    contents += ["", "{", "[]", "null", '{"run": "x"}', '{"runs": 1}', "[" * 100_000]
    for content in contents:
        (Path(folder.location) / "source.json").write_text(content)
        with pytest.raises(TensorgapError, match=r"source\.json is damaged, or another version"):
            Results.open(folder.location)


def test_a_source_of_many_bytes_is_one_message(folder: Results) -> None:
    os.truncate(Path(folder.location) / "source.json", 2**40)
    with pytest.raises(TensorgapError, match=r"source\.json: 1\.1 TB; must be at most 1 MB"):
        Results.open(folder.location)


def test_a_part_that_is_a_link_or_a_pipe_is_not_followed(folder: Results, tmp_path: Path) -> None:
    other = Results.create(str(tmp_path / "other"), "local", MATRIX, NOW)
    other.write(row())
    place = Path(folder.location) / results.PARTS
    (place / "a.parquet").symlink_to(parts_of(other)[0])
    os.mkfifo(place / "b.parquet")
    (place / "c.parquet").mkdir()
    rows, corrupt = folder.read()
    assert rows == []
    assert [Path(one.path).name for one in corrupt] == ["a.parquet", "b.parquet", "c.parquet"]
    assert "a link, which is not followed" in corrupt[0].reason


@pytest.mark.parametrize("name", ["source.json", "parts"])
def test_what_belongs_to_a_folder_is_no_link(folder: Results, tmp_path: Path, name: str) -> None:
    other = Results.create(str(tmp_path / "other"), "local", MATRIX, NOW)
    other.write(row())
    mine, theirs = Path(folder.location) / name, Path(other.location) / name
    shutil.rmtree(mine) if mine.is_dir() else mine.unlink()
    mine.symlink_to(theirs)
    with pytest.raises(TensorgapError, match="a link, which is not followed"):
        results.read(folder.location)


def test_a_merged_file_that_is_a_link_is_followed_only_where_the_user_names_it(
    folder: Results, tmp_path: Path
) -> None:
    folder.write(row())
    link = tmp_path / "link.parquet"
    link.symlink_to(folder.finish())
    assert results.read(str(link))[0] == [row()]
    shutil.rmtree(Path(folder.location) / results.PARTS)
    merged = Path(folder.location) / results.MERGED
    merged.rename(tmp_path / "elsewhere.parquet")
    merged.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(TensorgapError, match="a link, which is not followed"):
        results.read(folder.location)


def test_a_lock_that_is_a_link_empties_no_foreign_file(folder: Results, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (Path(folder.location) / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(TensorgapError), folder.locked():
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_parts_are_read_up_to_a_limit_in_all(folder: Results) -> None:
    for replicate in range(3):
        folder.write(row(replicate, reason="x" * 10**7))
    with pytest.raises(limits.TooLargeError, match="were read before; at most 50 MB are read"):
        results.read(folder.location, limits.Allowance(50_000_000))
    assert len(results.read(folder.location)[0]) == 3
    assert len(folder.read()[0]) == 3  # what it has written itself has no limit


def test_a_spool_that_is_not_ours_is_told_and_costs_no_row(
    folder: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder.write(row())
    usual = tmp_path / f"tensorgap-{os.getuid()}"
    forged = usual / folder.source.run / parts.name_of(row(1))
    forged.parent.mkdir(parents=True)
    forged.write_bytes(parts.to_parquet([row(1)], [folder.source]))
    usual.chmod(0o777)
    rows, _, (told,) = results.read(folder.location)
    assert rows == [row()]
    assert told.path == str(usual)
    assert told.reason == f"ignored: others can enter {usual} (mode 0777)"
    assert told.consequence == "rows that wait there are not read"


# ------------------------------------------------------------------------------- before a start


def test_an_edited_matrix_is_not_ignored(folder: Results) -> None:
    edited = Path(folder.location) / "matrix.toml"
    folder.check_resumable()
    edited.write_text(MATRIX + "# a remark\n")
    folder.check_resumable()
    for text in (MATRIX + "batch_size = 8\n", "[", "\udcff"):
        edited.write_text(text, errors="surrogateescape")
        with pytest.raises(
            TensorgapError, match=r"was changed .*tensorgap sweep .*matrix\.toml; or"
        ):
            folder.check_resumable()
    edited.unlink()
    folder.check_resumable()


def test_a_probe_leaves_nothing_behind(folder: Results, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    folder.check_resumable()
    results.prepare(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def another_user() -> Iterator[Path]:
    """A folder of root's, for what a user does in it who may not write."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(
    another_user: Path,
) -> None:
    folder = Results.create(str(another_user), "local", MATRIX, NOW)
    os.seteuid(4242)
    opened = Results.open(folder.location)
    with pytest.raises(TensorgapError) as caught:
        opened.check_resumable()
    assert str(caught.value) == (
        f"{folder.location}: Permission denied; copy it to a place that can be written, and resume"
        " there"
    )
    with pytest.raises(TensorgapError, match="choose another place with --output"):
        results.prepare(str(another_user))


def test_what_killed_sweeps_left_is_removed_by_the_next(folder: Results) -> None:
    place = Path(folder.location)
    part = parts.name_of(row())
    left = [f"results.parquet.{number}.tmp" for number in (1, 4242)]
    left += [f"parts/{part}.77.tmp", "matrix.toml.5.tmp"]
    kept = ["mine.parquet.1.tmp", "parts/mine.1.tmp", "results.parquet.tmp"]
    for name in [*left, *kept]:
        (place / name).touch()
    with folder.locked():
        assert not any((place / name).exists() for name in left)
        assert all((place / name).exists() for name in kept)


# ------------------------------------------------------------------------------- wrong places


def test_a_place_below_a_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TensorgapError, match=r"/file: .*choose another place with --output"):
        Results.create(str(tmp_path / "file"), "local", MATRIX, NOW)


def test_a_folder_that_no_sweep_made_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(TensorgapError, match=r"not a results folder .*NAME/UTC-TIMESTAMP"):
            Results.open(str(place))


def test_a_file_is_no_results_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TensorgapError, match="not a results folder"):
        Results.open(str(tmp_path / "file"))


def test_reading_what_is_not_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(TensorgapError, match="there is no such file or folder"):
        results.read(str(tmp_path / "missing"))


def test_reading_a_file_that_is_no_parquet_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    path.write_text("name,latency\n")
    with pytest.raises(TensorgapError, match=r"results\.parquet: not a readable Parquet file"):
        results.read(str(path))


@pytest.mark.parametrize("place", ["nonsense://bucket/x", "://x", "hdfs://nowhere:1/x"])
def test_an_unusable_uri_is_one_message_with_the_remedy(place: str) -> None:
    with pytest.raises(TensorgapError, match="give a folder, or a URI such as s3://") as caught:
        Results.create(place, "local", MATRIX, NOW)
    assert str(caught.value).startswith(f"{place}: cannot be used")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------- other filesystems


def test_a_local_uri_is_a_folder(tmp_path: Path) -> None:
    folder = Results.create(f"file://{tmp_path}/", "local", MATRIX, NOW)
    assert folder.location == f"file://{tmp_path}/local/{STAMP}"
    folder.write(row())
    assert folder.finish() == f"{folder.location}/results.parquet"
    assert results.read(folder.finish())[0] == [row()]
    assert results.read(folder.location)[0] == [row()]
    assert Results.open(folder.location).source == folder.source
    assert (tmp_path / "local" / STAMP / "results.parquet").is_file()


def test_an_object_store_keeps_and_merges_rows() -> None:
    folder = Results.create("mock://", "local", MATRIX, NOW)
    with folder.locked():
        folder.write(row(1, reason="before"))
        folder.write(row(1))
        folder.write(row(0))
        assert sorted(one.replicate for one in folder.read()[0]) == [0, 1]
        assert folder.finish().endswith(f"local/{STAMP}/results.parquet")


def test_the_query_of_a_uri_stays_at_its_end() -> None:
    folder = Results.create("mock://bucket/x/?region=eu", "local", MATRIX, NOW)
    assert folder.location == f"mock://bucket/x/local/{STAMP}?region=eu"
    folder.write(row())
    assert folder.finish() == f"mock://bucket/x/local/{STAMP}/results.parquet?region=eu"


# ------------------------------------------------------------------------------- a bucket

# moto's server keeps its buckets in memory, so one process stops and starts to serve them.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
port = 0
for line in sys.stdin:
    if line == "start\\n":
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        port = server.get_host_and_port()[1]
        print(port, flush=True)
    else:
        server.stop()
        print("stopped", flush=True)
"""


class Bucket:
    """An S3 server on this machine, with one bucket, that can fail."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        port = self.serve()
        self.uri = f"s3://bucket/results?scheme=http&endpoint_override=127.0.0.1:{port}"
        fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
        ).create_dir("bucket")

    def serve(self) -> int:
        return int(self._tell("start"))

    def fail(self) -> None:
        self._tell("stop")

    def _tell(self, word: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    if not importlib.util.find_spec("moto"):
        pytest.skip("no moto here to serve a bucket: pip install '.[test]'")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Bucket(process)
        process.kill()


def refusing(status: int, code: str) -> Iterator[str]:
    """A server that refuses whatever S3 is asked, and its URI."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"bucket/results?scheme=http&endpoint_override=127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
    ],
)
def test_wrong_credentials_are_named_and_not_shown(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    secrets = ("AKIAEXAMPLE", "wJalrXUtn%2FKEY", "wJalrXUtn/KEY")
    with contextlib.contextmanager(refusing)(status, code) as tail:
        place = f"s3://{secrets[0]}:{secrets[1]}@{tail}"
        for act in (results.prepare, results.read, Results.open):
            with pytest.raises(TensorgapError) as caught:
                act(place)
            told = "".join(traceback.format_exception(caught.value))
            assert "AWS_ACCESS_KEY_ID" in str(caught.value)
            assert "AWS_PROFILE" in str(caught.value)
            assert "policy" in str(caught.value)
            assert f"s3://***@{tail}" in str(caught.value)
            assert not any(secret in told for secret in secrets)


def test_a_bucket_is_written_to_before_a_long_start(bucket: Bucket) -> None:
    results.prepare(bucket.uri)
    with pytest.raises(TensorgapError, match="choose another place with --output"):
        results.prepare(bucket.uri.replace("//bucket", "//no-such-bucket"))


def test_a_bucket_that_fails_for_a_while_costs_no_row(bucket: Bucket) -> None:
    folder = Results.create(bucket.uri, "local", MATRIX, NOW)
    folder.write(row(0))
    assert folder.trouble is None
    bucket.fail()
    broke = time.monotonic()
    folder.write(row(1))
    noticed_s = time.monotonic() - broke
    folder.write(row(2))  # at once: it does not try again yet
    assert folder.trouble is not None
    assert "rows wait in" in folder.trouble
    bucket.serve()
    folder.settle(120)
    assert folder.trouble is None
    path = folder.finish()
    assert path.startswith(f"s3://bucket/results/local/{STAMP}/results.parquet?")
    assert results.read(path)[0] == [row(0), row(1), row(2)]
    assert results.read(folder.location)[0] == [row(0), row(1), row(2)]
    assert Results.open(folder.location).source == folder.source
    faults_record.note("bucket fails", noticed_s, "rows wait on the local disk, then arrive")


# ------------------------------------------------------------------------------- other readers


@pytest.fixture
def parquet(folder: Results) -> str:
    """A finished results.parquet of two rows, one of which could not be placed."""
    folder.write(row())
    folder.write(
        examples.measurement(
            cell=Cell("A100", "fp16"),
            outcome=Outcome.UNPLACED,
            reason="no A100 here",
            timing=None,
            energy=None,
        )
    )
    return folder.finish()


# By gpu_type, as `finish` orders them: A100 has no number, the CPU has one.
EXPECTED = [("A100", "UNPLACED", None, None), ("CPU", "OK", 2.0, [2.0, 1.0, 3.0])]
COLUMNS = ["gpu_type", "outcome", "timing_latency_ms_p50", "timing_latency_ms_samples"]


def test_polars_opens_the_results(parquet: str) -> None:
    frame = pl.read_parquet(parquet)
    assert frame.columns == table.schema().names
    assert sorted(frame.select(COLUMNS).rows()) == EXPECTED
    assert frame.schema["started_at"] == pl.Datetime("us", "UTC")
    assert frame.filter(pl.col("outcome") == "OK")["started_at"].item() == examples.NOON


def test_duckdb_opens_the_results(parquet: str) -> None:
    query = f"select {', '.join(COLUMNS)} from '{parquet}' order by gpu_type"
    assert duckdb.sql(query).fetchall() == EXPECTED
    names = [name for (name, *_) in duckdb.sql(f"describe from '{parquet}'").fetchall()]
    assert names == table.schema().names


def test_pandas_opens_the_results(parquet: str) -> None:
    frame = pd.read_parquet(parquet).set_index("gpu_type")
    assert list(frame.reset_index().columns) == table.schema().names
    assert frame.loc["CPU", "timing_latency_ms_p50"] == 2.0
    assert list(frame.loc["CPU", "timing_latency_ms_samples"]) == [2.0, 1.0, 3.0]
    assert pd.isna(frame.loc["A100", "timing_latency_ms_p50"])


def test_pyarrow_shows_units_and_descriptions(parquet: str) -> None:
    schema = pq.read_schema(parquet)
    assert schema.field("timing_latency_ms_p50").metadata[b"unit"] == b"ms"
    for ours in table.schema():
        theirs = schema.field(ours.name).metadata
        assert theirs[b"unit"] == ours.metadata[b"unit"]
        assert theirs[b"description"] == ours.metadata[b"description"]


def test_duckdb_shows_where_the_results_came_from(parquet: str) -> None:
    query = f"select key, value from parquet_kv_metadata('{parquet}')"
    metadata = dict(duckdb.sql(query).fetchall())
    (source,) = json.loads(metadata[b"tensorgap.sources"])
    assert (
        table.Source(**source | {"gpu_types": ()}) == Results.open(str(Path(parquet).parent)).source
    )
    assert source["matrix"] == MATRIX
