"""bench.results.spool: rows wait in a folder of this user alone; no other is read or written."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

import examples
import pytest
from sweeps import frames_in

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.storage import Storage
from bench.measured import Measurement
from bench.results import columns, kept, spool, streams, writing
from bench.results.columns import Source
from bench.results.writing import Writer

RUN = "local/20261124T120000Z-0a1b2c"
PART = "rows-0123456789ab.arrows"
USUAL = f"tensorgap-{os.getuid()}"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def put(sweep: spool.Spool) -> None:
    """Have a stream wait."""
    (sweep.folder() / PART).write_bytes(b"row")


def full(name: str, file: BinaryIO) -> None:
    raise OSError(28, "No space left on device")


def brought(run: str = RUN) -> dict[str, bytes]:
    """What a sweep that is resumed finds."""
    place: dict[str, bytes] = {}
    spool.Spool(run).bring(lambda name, file: place.update({name: file.read()}))
    return place


def test_what_waits_is_found_by_the_next_sweep_of_the_run(temporary: Path) -> None:
    put(spool.Spool(RUN))
    assert brought("local/20261124T120000Z-ffffff") == {}
    assert brought() == {PART: b"row"}
    assert brought() == {}
    assert (temporary / USUAL).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777, 0o711])
def test_a_folder_that_others_enter_is_neither_read_nor_written(temporary: Path, mode: int) -> None:
    folder = temporary / USUAL / RUN
    folder.mkdir(parents=True)
    (folder / PART).write_bytes(b"forged")
    (temporary / USUAL).chmod(mode)
    sweep = spool.Spool(RUN)
    assert sweep.ignored == f"others can enter {temporary / USUAL} (mode {mode:04o})"
    assert sweep.waiting() == []
    put(sweep)
    assert (folder / PART).read_bytes() == b"forged"
    # It waits elsewhere, and is found there.
    assert sweep.location.startswith(f"{temporary / USUAL}-")
    assert brought() == {PART: b"row"}
    assert (folder / PART).read_bytes() == b"forged"


def test_a_link_to_a_folder_of_one_s_own_is_not_followed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (temporary / USUAL).symlink_to(elsewhere)
    sweep = spool.Spool(RUN)
    put(sweep)
    assert sweep.ignored == f"{temporary / USUAL} is no folder of its own"
    assert list(elsewhere.iterdir()) == []
    assert brought() == {PART: b"row"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
@pytest.mark.parametrize("name", [USUAL, f"{USUAL}-abcdefgh"])
def test_rows_that_another_user_forges_are_not_read(temporary: Path, name: str) -> None:
    folder = temporary / name / RUN
    folder.mkdir(parents=True)
    (folder / PART).write_bytes(b"forged")
    (temporary / name).chmod(0o700)
    for path in (temporary / name, *(temporary / name).rglob("*")):
        os.chown(path, 4242, 4242)
    sweep = spool.Spool(RUN)
    put(sweep)
    assert (folder / PART).read_bytes() == b"forged"
    assert brought() == {PART: b"row"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_or_folder_of_another_user_within_is_not_read(temporary: Path) -> None:
    folder = temporary / USUAL / RUN
    folder.mkdir(parents=True)
    (temporary / USUAL).chmod(0o700)
    (folder / PART).write_bytes(b"forged")
    os.chown(folder / PART, 4242, 4242)
    assert brought() == {}
    os.chown(folder / PART, os.getuid(), os.getgid())
    os.chown(folder, 4242, 4242)
    assert brought() == {}
    os.chown(folder, os.getuid(), os.getgid())
    assert brought() == {PART: b"forged"}


def test_only_files_with_the_name_of_a_part_are_taken(temporary: Path) -> None:
    folder = temporary / USUAL / RUN
    folder.mkdir(parents=True)
    (temporary / USUAL).chmod(0o700)
    secret = temporary / "secret"
    secret.write_bytes(b"secret")
    (folder / PART).symlink_to(secret)
    (folder / "rows-0123456789ac.arrows").mkdir()
    os.mkfifo(folder / "rows-0123456789ad.arrows")
    names = ("passwd", "results.parquet", f"{PART}.1.tmp", f".{PART}", "rows-0123456789a.arrows")
    for name in (*names, "rows-0123456789AB.arrows"):
        (folder / name).write_bytes(b"foreign")
    before = sorted(folder.iterdir())
    assert brought() == {}
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("depth", [1, 2])
def test_a_run_s_folder_that_is_a_link_is_not_followed(temporary: Path, depth: int) -> None:
    elsewhere = temporary / "elsewhere" / RUN
    elsewhere.mkdir(parents=True)
    (elsewhere / PART).write_bytes(b"foreign")
    (temporary / USUAL).mkdir(mode=0o700)
    name = Path(*Path(RUN).parts[:depth])
    link = temporary / USUAL / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(temporary / "elsewhere" / name)
    assert brought() == {}
    assert (elsewhere / PART).read_bytes() == b"foreign"


def test_where_no_folder_is_this_user_s_alone_the_row_is_not_lost_in_silence(
    temporary: Path,
) -> None:
    temporary.chmod(0o777)  # without the sticky bit: anybody renames what is in it
    writer = Writer(Storage.at(str(temporary / "absent")), Source(RUN, "", "0.1.0", None))
    with pytest.raises(TensorgapError) as caught:
        writer.write(examples.measurement(run=RUN))
    temporary.chmod(0o700)
    assert "No such file or directory; and the row cannot wait in" in str(caught.value)
    assert f"others can write {temporary} (mode 0777)" in str(caught.value)


def test_what_another_process_still_writes_is_left_alone(temporary: Path) -> None:
    sweep = spool.Spool(RUN)
    form = columns.with_sources(Measurement, [])
    stream = streams.Appending(sweep.folder() / PART, form, time.monotonic)
    assert brought() == {}
    stream.close()
    assert list(brought()) == [PART]


def test_a_place_that_fails_is_tried_again_after_a_while(temporary: Path) -> None:
    now_s = [0.0]
    sweep = spool.Spool(RUN, clock=lambda: now_s[0])
    put(sweep)
    for pause_s in (1, 2, 4, 8, 16, 30, 30):
        assert sweep.may_try()
        assert sweep.bring(full) == 1
        assert sweep.trouble == "No space left on device"
        now_s[0] += pause_s - 0.1
        assert not sweep.may_try()
        now_s[0] += 0.1
    assert sweep.bring(lambda name, file: None) == 0
    assert sweep.trouble is None


def test_rows_for_a_bucket_gather_and_are_brought_after_a_lull(temporary: Path) -> None:
    place = Storage.at("mock://bucket/parts")
    place.make_folder()
    writer = Writer(place, Source(RUN, "", "0.1.0", None))
    began = time.monotonic()
    for replicate in range(3):
        writer.write(examples.measurement(run=RUN, replicate=replicate))
    (waiting,) = writer.spool.waiting()
    assert len(frames_in(waiting)) == 4  # the schema, and what a killed driver would lose if not
    while writer.spool.waiting():
        time.sleep(0.02)
    assert time.monotonic() - began < 10  # a second, but on a busy machine
    assert place.within(waiting.name).exists


def test_rows_for_a_bucket_that_never_cease_are_brought_every_few_seconds(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "GATHERING_S", 0.3)
    place = Storage.at("mock://bucket/parts")
    place.make_folder()
    writer, count = Writer(place, Source(RUN, "", "0.1.0", None)), 0
    names: set[str] = set()
    while len(names) < 3:
        writer.write(examples.measurement(run=RUN, replicate=count))
        count += 1
        names |= {path.name for path in writer.spool.waiting()}
        time.sleep(0.01)
    assert writer.bring() == 0
    streams_there = [place.within(name) for name in names]
    found = [kept.opened(one, "x.arrows", Allowance()) for one in streams_there]
    assert sum(len(one.keys) for one in found) == count
