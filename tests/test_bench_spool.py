"""bench.results.spool: rows wait in a folder of this user alone; no other is read or written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from bench.results import spool

RUN = "local/20261124T120000Z-0a1b2c"
PART = "CPU-fp32-tiny-b1-r0-0123456789ab.parquet"
USUAL = f"tensorgap-{os.getuid()}"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def full(name: str, content: bytes) -> None:
    raise OSError(28, "No space left on device")


def brought(run: str = RUN) -> dict[str, bytes]:
    """What a sweep that is resumed finds."""
    place: dict[str, bytes] = {}
    spool.Spool(run).bring(place.__setitem__)
    return place


def test_what_waits_is_found_by_the_next_sweep_of_the_run(temporary: Path) -> None:
    spool.Spool(RUN).put(PART, b"row", full)
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
    sweep.put(PART, b"row", full)
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
    sweep.put(PART, b"row", full)
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
    sweep.put(PART, b"row", full)
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
    (folder / PART.replace("r0", "r1")).mkdir()
    os.mkfifo(folder / PART.replace("r0", "r2"))
    for name in ("passwd", "results.parquet", f"{PART}.1.tmp", f".{PART}", "a b-b1-r0-0.parquet"):
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
    with pytest.raises(spool.TensorgapError) as caught:
        spool.Spool(RUN).put(PART, b"row", full)
    temporary.chmod(0o700)
    assert "No space left on device; and the row cannot wait in" in str(caught.value)
    assert f"others can write {temporary} (mode 0777)" in str(caught.value)


def test_what_waits_does_not_replace_what_came_later(
    temporary: Path,
) -> None:
    now_s, place = [0.0], {}
    waiting = spool.Spool(RUN, clock=lambda: now_s[0])

    waiting.put(PART, b"without evidence", full)
    now_s[0] = 60  # time to try again
    waiting.put(PART, b"with evidence", place.__setitem__)
    assert place == {PART: b"with evidence"}
    assert waiting.waiting() == []
