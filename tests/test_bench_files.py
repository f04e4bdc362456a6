"""bench.files.storage: links are not followed, only files are read, a write is whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyarrow import fs

from bench.files.storage import Storage

LOCAL = fs.LocalFileSystem()


def anything(size_bytes: int) -> None:
    """A check that every size passes."""


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert Storage.at(str(tmp_path / "file")).read(anything) == b"content"


def test_a_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 2**40)

    def refuse(size_bytes: int) -> None:
        assert size_bytes == 2**40
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Storage.at(str(tmp_path / "file")).read(refuse)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="a link, which is not followed"):
        Storage.at(str(tmp_path / "link")).read(anything)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        Storage.at(str(tmp_path / "pipe")).read(anything)


def test_what_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    remote, _ = fs.FileSystem.from_uri("mock://")
    for filesystem in (LOCAL, remote):
        with pytest.raises(FileNotFoundError):
            Storage("x", filesystem, str(tmp_path / "file")).read(anything)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A stranger can guess the name of the temporary file, or link the file itself."""
    (tmp_path / "victim").write_bytes(b"precious")
    for name in ("file", f"file.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    Storage.at(str(tmp_path / "file")).write(b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_only_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    kept = ("file", "file.1.tmp.gz", "file.x.tmp", "other.1.tmp", "file.tmp", ".1.tmp")
    for name in ("file.1.tmp", "file.4242.tmp", *kept):
        (tmp_path / name).touch()
    (tmp_path / "file.7.tmp").mkdir()
    (tmp_path / "file.8.tmp").symlink_to(tmp_path / "file")
    Storage.at(str(tmp_path)).remove_temporaries({"file"}.__contains__)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "file.7.tmp"}


def test_a_write_that_breaks_off_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Storage.at(str(path)).write(b"new and longer")
    assert path.read_bytes() == b"old"


def test_an_object_store_is_written_without_temporary_files() -> None:
    filesystem, _ = fs.FileSystem.from_uri("mock://")
    filesystem.create_dir("bucket")
    Storage("x", filesystem, "bucket/x").write(b"old")
    Storage("x", filesystem, "bucket/x").write(b"new")
    assert [info.path for info in filesystem.get_file_info(fs.FileSelector("bucket"))] == [
        "bucket/x"
    ]
    with filesystem.open_input_stream("bucket/x") as stream:
        assert stream.read() == b"new"
