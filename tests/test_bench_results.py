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
import kept_rows
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from pyarrow import fs
from sweeps import frames_in

import bench
from bench.asked import Cell, Workload
from bench.errors import TensorgapError
from bench.files import limits
from bench.measured import Measurement, Outcome, Profile
from bench.results import columns as table
from bench.results import store as results
from bench.results import streams
from bench.results.rows import Rows
from bench.results.spool import Spool
from bench.results.store import Results

MATRIX = '[[workloads]]\nmodel = "tiny"\n'
NOW = datetime.datetime(
    2026, 11, 24, 13, 30, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
)
STAMP = "20261124T123005Z"
STREAM = "rows-0123456789ab.arrows"


@pytest.fixture
def folder(tmp_path: Path) -> Results:
    """An empty results folder."""
    return Results.create(str(tmp_path), "local", MATRIX, NOW)


def parts_of(folder: Results) -> list[Path]:
    return sorted((Path(folder.location) / results.PARTS).glob("*"))


def a_stream(found: Measurement, folder: Results) -> bytes:
    """A stream of one row, as a file."""
    form = table.with_sources(Measurement, [folder.source])
    return streams.begun(form) + streams.framed(found, form)


def row(replicate: int = 0, **changes: Any) -> Measurement:
    return examples.measurement(run=f"local/{STAMP}", replicate=replicate, **changes)


def profile(replicate: int = 0, **changes: Any) -> Profile:
    return examples.profile(run=f"local/{STAMP}", replicate=replicate, **changes)


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, folder: Results) -> Iterator[None]:
    """No room in this folder."""
    write = os.write

    def full(number: int, content: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{number}").startswith(folder.location):
            write(number, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(number, content)

    def full_too(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "replace", full_too)
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
    assert len(parts_of(folder)) == 1
    assert sorted(folder.read()[0], key=lambda one: one.replicate) == [row(), row(1)]


def test_a_profile_comes_in_a_stream_of_its_own_and_is_joined_to_its_row(folder: Results) -> None:
    folder.write(row())
    content = parts_of(folder)[0].read_bytes()
    folder.write(profile())
    assert [path.name.partition("-")[0] for path in parts_of(folder)] == ["profiles", "rows"]
    assert content == parts_of(folder)[1].read_bytes()  # no row is written twice
    joined = replace(
        row(),
        trace=profile().trace,
        roofline=profile().roofline,
        warnings=profile().warnings,
    )
    assert folder.read() == ([joined], [])
    assert results.read(folder.location)[0] == results.read(folder.finish())[0] == [joined]
    shutil.rmtree(Path(folder.location) / results.PARTS)
    assert folder.read() == ([joined], [])


def test_a_row_without_its_profile_is_a_row_and_a_profile_without_its_row_is_none(
    folder: Results,
) -> None:
    folder.write(row(0))
    folder.write(profile(1))
    assert folder.read() == ([row(0)], [])
    (alone,) = Path(folder.location).glob("parts/profiles-*")
    with pytest.raises(TensorgapError, match="a profile without its row; give the folder"):
        results.read(str(alone))


def test_a_corrupt_profile_is_reported_and_its_row_is_kept(folder: Results) -> None:
    folder.write(row())
    folder.write(profile())
    (victim,) = Path(folder.location).glob("parts/profiles-*")
    victim.write_bytes(victim.read_bytes()[:-1])
    rows, corrupt = folder.read()
    assert rows == [row()]
    assert [(one.path, one.consequence) for one in corrupt] == [
        (str(victim), "rows stand without a profile")
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
    one, both = tmp_path / "one.parquet", str(path)
    kept_rows.write(one, rows, sources)
    files, found, _ = results.files_at(str(one), limits.Allowance())
    results.write_merged(both, Rows([files]), found)
    assert results.read(both) == (rows, sources, [])


def test_existence_is_asked_of_the_place(tmp_path: Path, folder: Results) -> None:
    assert results.exists(folder.location)
    assert results.exists(f"file://{folder.location}")
    assert not results.exists(str(tmp_path / "missing"))


# ------------------------------------------------------------------------------- corrupt streams


def cut(length: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * length)]


# Of one row of three, behind the first: what is left of the stream from where that row begins.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "one byte of its header": lambda content: content[:1],
    "its header": lambda content: content[:12],
    "within the flatbuffer": lambda content: content[:100],
    "first tenth": cut(0.1),
    "first half": cut(0.5),
    "all but the last byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "half, then zeros": lambda content: content[: len(content) // 2] + bytes(len(content) // 2),
    "text": lambda _: b"this is no row\n" * 100,
    "length too great": lambda content: content[:4] + b"\xff\xff\xff\xff" + content[8:],
    "length too small": lambda content: content[:4] + b"\x10\x00\x00\x00" + content[8:],
    "another checksum": lambda content: content[:8] + bytes(4) + content[12:],
    "without a mark": lambda content: bytes(4) + content[4:],
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_corrupt_row_is_reported_and_the_rest_is_read(
    folder: Results, name: str, last: bool
) -> None:
    for replicate in range(3):
        folder.write(row(replicate))
    (victim,) = parts_of(folder)
    whole = victim.read_bytes()
    begin, end = (frame.begin for frame in frames_in(victim)[2:])
    lost = 2 if last else 1
    begin, end = (end, len(whole)) if last else (begin, end)
    victim.write_bytes(whole[:begin] + DAMAGE[name](whole[begin:end]) + whole[end:])
    rows, corrupt = folder.read()
    assert sorted(one.replicate for one in rows) == sorted({0, 1, 2} - {lost})
    ((path, reason),) = [(one.path, one.reason) for one in corrupt]
    assert path == str(victim)
    assert reason.startswith(f"damaged or cut short at byte {begin}")
    # It is measured again, by a process that writes a stream of its own.
    resumed = Results.open(folder.location)
    resumed.write(row(lost))
    assert [one.replicate for one in resumed.read()[0]] == [0, 1, 2]
    # What is merged is not looked for again.
    resumed.finish()
    assert resumed.read()[1] == []


@pytest.mark.parametrize("damage", ["", "x", "zeros"])
def test_a_stream_without_its_beginning_is_reported(folder: Results, damage: str) -> None:
    folder.write(row())
    victim = Path(folder.location) / "parts" / "rows-0123456789ab.arrows"
    victim.write_bytes(bytes(1000) if damage == "zeros" else damage.encode())
    rows, (corrupt,) = folder.read()
    assert rows == [row()]
    assert "its beginning is damaged or cut short" in corrupt.reason


def test_rows_of_wrong_content_are_corrupt_too(folder: Results) -> None:
    """Whole as a stream, but a value in it is none that a row can have."""
    folder.write(row())
    form = table.with_sources(Measurement, [folder.source])
    batch = table.to_batch([row(1)], form)
    at = batch.schema.get_field_index("outcome")
    batch = batch.set_column(at, batch.schema.field(at), pa.array(["SPLENDID"]))
    forged = streams.begun(form) + streams.frame(batch.serialize().to_pybytes())
    (Path(folder.location) / "parts" / "rows-0123456789ab.arrows").write_bytes(forged)
    rows, (corrupt,) = folder.read()
    assert rows == [row()]
    assert 'outcome = "SPLENDID"' in corrupt.reason


def test_every_truncation_costs_one_row(folder: Results) -> None:
    folder.write(row(0))
    folder.write(row(1))
    (part,) = parts_of(folder)
    content = part.read_bytes()
    _, first, second = (frame.begin for frame in frames_in(part))
    for length in {*range(0, len(content), 499), first, first + 11, second, second + 13}:
        part.write_bytes(content[:length])
        rows, corrupt = folder.read()
        whole = (length >= second) + (length >= len(content))
        assert [one.replicate for one in rows] == [*range(whole)], length
        assert len(corrupt) == (length not in (first, second)), length


def test_a_parquet_file_of_another_program_among_the_streams_is_reported(folder: Results) -> None:
    folder.write(row())
    stranger = Path(folder.location) / results.PARTS / "stranger.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(stranger)
    rows, corrupt = folder.read()
    assert rows == [row()]
    assert [Path(one.path).name for one in corrupt] == ["stranger.parquet"]
    assert "not written by tensorgap" in corrupt[0].reason


def test_a_folder_with_a_parquet_file_for_each_row_is_read(folder: Results) -> None:
    """As an earlier tensorgap left it."""
    place = Path(folder.location) / results.PARTS
    kept_rows.write(place / "CPU-fp32-tiny-b1-r0-0123456789ab.parquet", [row()], [folder.source])
    kept_rows.write(place / "CPU-fp32-tiny-b1-r0-0123456789ab-profile.parquet", [profile()])
    (found,), corrupt = folder.read()
    assert (found.trace, corrupt) == (profile().trace, [])


def test_a_part_of_another_version_is_whole_and_not_measured_over(
    folder: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SCHEMA_VERSION", 3)
    Results.open(folder.location).write(row())
    monkeypatch.undo()
    with pytest.raises(TensorgapError, match="schema version 3; this tensorgap reads"):
        folder.read()


def test_a_sweep_that_an_older_version_began_is_resumed(
    folder: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        now = table.columns(Measurement)
        first = {path: at for path, at in now.items() if table.SINCE not in at.metadata}
        assert len(first) < len(now)
        older.setattr(table, "SCHEMA_VERSION", 1)
        older.setattr(table, "columns", lambda kind: first if kind is Measurement else now)
        table.schema.cache_clear()
        Results.open(folder.location).write(row())
    table.schema.cache_clear()
    resumed = Results.open(folder.location)
    assert resumed.read() == ([row()], [])
    resumed.write(row(1))
    resumed.finish()
    assert results.read(folder.location)[0] == [row(0), row(1)]


def test_without_its_parts_a_folder_has_what_was_merged(folder: Results) -> None:
    folder.write(row())
    folder.finish()
    shutil.rmtree(Path(folder.location) / results.PARTS)
    assert results.read(folder.location)[0] == [row()]
    resumed = Results.open(folder.location)
    resumed.restore()
    resumed.write(row(1))
    resumed.finish()
    shutil.rmtree(Path(folder.location) / results.PARTS)
    assert results.read(folder.location)[0] == [row(0), row(1)]


def test_a_folder_that_lost_all_says_so(folder: Results) -> None:
    shutil.rmtree(Path(folder.location) / results.PARTS)
    with pytest.raises(TensorgapError, match="its rows are gone: there is neither parts/ nor"):
        results.read(folder.location)


def test_a_corrupt_row_is_left_out_of_the_merged_file(folder: Results) -> None:
    folder.write(row(0))
    folder.write(row(1))
    (part,) = parts_of(folder)
    part.write_bytes(part.read_bytes()[:-1])
    assert results.read(folder.finish())[0] == [row(0)]


def test_a_flipped_bit_is_an_equal_row_or_a_corrupt_stream(folder: Results) -> None:
    folder.write(row())
    (part,) = parts_of(folder)
    content = part.read_bytes()
    random = Random(0)
    for _ in range(60):
        at, bit = random.randrange(len(content)), random.randrange(8)
        flipped = content[at] ^ (1 << bit)
        part.write_bytes(content[:at] + bytes([flipped]) + content[at + 1 :])
        rows, corrupt = folder.read()
        assert (rows, len(corrupt)) == ([], 1), (at, bit)


def test_what_was_merged_is_read_from_there_unless_it_is_damaged(folder: Results) -> None:
    folder.write(row(0))
    merged = Path(folder.finish())
    Results.open(folder.location).write(row(1))
    before = merged.stat().st_mtime_ns
    assert [type(file).__name__ for file in folder.files()[0]] == ["ParquetRows", "StreamRows"]
    assert folder.read()[0] == [row(0), row(1)]
    folder.finish()
    assert [type(file).__name__ for file in folder.files()[0]] == ["ParquetRows"]
    assert merged.stat().st_mtime_ns > before
    after = merged.stat().st_mtime_ns
    folder.finish()  # nothing came
    assert merged.stat().st_mtime_ns == after
    for damaged in (b"", b"PAR1", merged.read_bytes()[:-9]):
        merged.write_bytes(damaged)
        rows, (corrupt,) = folder.read()
        assert rows == [row(0), row(1)]
        assert (corrupt.path, corrupt.consequence) == (
            str(merged),
            "its rows are looked for in parts/",
        )
        folder.finish()
        assert merged.with_name(results.DAMAGED).read_bytes() == damaged
        assert folder.read() == ([row(0), row(1)], [])


def test_a_damaged_file_without_its_parts_is_not_measured_over(folder: Results) -> None:
    folder.write(row())
    merged = Path(folder.finish())
    shutil.rmtree(Path(folder.location) / results.PARTS)
    merged.write_bytes(merged.read_bytes()[:-9])
    with pytest.raises(TensorgapError, match=r"results\.parquet: not a readable Parquet file"):
        Results.open(folder.location).restore()
    assert not (Path(folder.location) / results.PARTS).exists()


def test_a_stream_that_could_not_be_read_once_is_read_the_next_time(
    folder: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(row(0))
    folder.finish()
    later = Results.open(folder.location)
    later.write(row(1))

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("bench.results.streams.Frames", fails)
    rows, (corrupt,) = later.rows()
    assert "Input/output error" in corrupt.reason
    later.finish(rows)
    monkeypatch.undo()
    assert later.read() == ([row(0), row(1)], [])


def test_the_one_file_of_an_earlier_tensorgap_is_merged(folder: Results) -> None:
    folder.write(row())
    merged = Path(folder.finish())
    (part,) = parts_of(folder)
    part.unlink()
    merged.rename(part.with_suffix(".parquet"))
    assert results.read(folder.finish())[0] == [row()]


def test_a_merged_file_of_another_sweep_hides_no_row(folder: Results, tmp_path: Path) -> None:
    folder.write(row())
    other = Results.create(str(tmp_path / "other"), "local", MATRIX, NOW)
    other.write(row(7))
    shutil.copy(other.finish(), folder.location)
    assert folder.read()[0] == [row()]


# ------------------------------------------------------------------------------- atomic writes


def test_what_an_interrupted_write_left_is_ignored(folder: Results) -> None:
    folder.write(row())
    content = parts_of(folder)[0].read_bytes()
    left = Path(folder.location) / results.PARTS / "rows-0123456789ab.arrows.123.tmp"
    left.write_bytes(content)
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
    assert parts_of(folder) == []


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
    assert len(parts_of(folder)) == 2  # of rows and of profiles
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


def test_a_disk_that_fills_within_a_row_leaves_no_half_of_it(
    folder: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = Results.open(folder.location)
    again.write(row(0))
    with full_disk(monkeypatch, again):
        again.write(row(1))
    assert again.read() == ([row(0), row(1)], [])
    again.settle(0)
    assert results.read(folder.location)[0] == [row(0), row(1)]


def test_a_process_killed_while_writing_loses_no_row_before(folder: Results) -> None:
    script = (
        "import os, sys, examples\n"
        "from bench.results.store import Results\n"
        "folder = Results.open(sys.argv[1])\n"
        "folder.write(examples.measurement(replicate=0))\n"
        "write = os.write\n"
        "def killed(number, content):\n"
        "    write(number, content[:1000])\n"
        "    os.kill(os.getpid(), 9)\n"
        "os.write = killed\n"
        "folder.write(examples.measurement(replicate=1))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, folder.location], env=with_our_path(), timeout=60
    )
    assert killed.returncode == -9
    rows, (corrupt,) = folder.read()
    assert [one.replicate for one in rows] == [0]
    assert corrupt.reason.startswith("damaged or cut short at byte ")


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
        victim = there / "victim" / STREAM
        victim.parent.mkdir()
        victim.write_bytes(a_stream(row(), folder))
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
    (place / "a.arrows").symlink_to(parts_of(other)[0])
    os.mkfifo(place / "b.arrows")
    (place / "c.arrows").mkdir()
    rows, corrupt = folder.read()
    assert rows == []
    assert [Path(one.path).name for one in corrupt] == ["a.arrows", "b.arrows", "c.arrows"]
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
    forged = usual / folder.source.run / STREAM
    forged.parent.mkdir(parents=True)
    forged.write_bytes(a_stream(row(1), folder))
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
    left = [f"results.parquet.{number}.tmp" for number in (1, 4242)]
    left += [f"parts/{STREAM}.77.tmp", "matrix.toml.5.tmp"]
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


def test_the_runs_of_a_bucket_are_listed(bucket: Bucket) -> None:
    folders = [
        Results.create(bucket.uri, name, MATRIX, NOW + datetime.timedelta(days=day))
        for name, day in (("study", 0), ("study", 1), ("night", 2))
    ]
    listed = [Results.open(place).source for place in results.runs_within(bucket.uri)]
    assert listed == [folders[at].source for at in (2, 0, 1)]
    of_one = bucket.uri.replace("/results", "/results/study")
    assert results.runs_within(of_one) == [folder.location for folder in folders[:2]]
    assert results.runs_within(folders[0].location) == []


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
    while folder.trouble is None:
        time.sleep(0.05)
    noticed_s = time.monotonic() - broke
    folder.write(row(2))  # at once: it does not try again yet
    assert folder.new_trouble()
    assert folder.new_trouble() is None  # it is told once
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
