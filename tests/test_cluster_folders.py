"""Where Ray keeps its files, and whose cluster `auto` is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bench.errors import TensorgapError
from bench.files import private
from cluster import folders


def test_a_local_ray_has_its_files_below_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    with folders.own() as first, folders.own() as second:
        assert first != second
        Path(first).mkdir()
        Path(first).chmod(0o777)  # as Ray does
        assert private.is_sheltered(Path(first))
        assert private.why_shared(Path(first).parent) is None
        made = Path(first).parent
    assert not made.exists()


def test_a_long_temporary_folder_leaves_no_room_for_a_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / "a-scheduler-gives-each-job-a-folder"
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with folders.own() as made:
        assert made.startswith("/tmp/tensorgap-")


def test_a_temporary_folder_in_which_others_can_rename_is_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as open_to_all:
        Path(open_to_all).chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", open_to_all)
        with folders.own() as made:
            assert made.startswith("/tmp/tensorgap-")
        assert os.listdir(open_to_all) == []


def test_where_nothing_is_private_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "why_shared", lambda folder: "others can write /tmp (mode 0777)")
    before = set(Path("/tmp").glob("tensorgap-*"))
    said = r"others can write /tmp \(mode 0777\); set TMPDIR"
    with pytest.raises(TensorgapError, match=said), folders.own():
        pass
    assert not [made for made in set(Path("/tmp").glob("tensorgap-*")) - before if made.exists()]


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file in which Ray keeps the address of the cluster that was last started here."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_auto_is_the_cluster_that_was_started_here(current: Path) -> None:
    current.write_text("192.0.2.10:6379\n")
    assert folders.current_address() == "192.0.2.10:6379"


def test_auto_without_a_cluster_says_what_to_give(current: Path) -> None:
    with pytest.raises(TensorgapError, match=r"no cluster was started .*--address HOST:6379"):
        folders.current_address()


def test_auto_is_no_cluster_that_a_link_names(current: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("192.0.2.66:6379")
    current.symlink_to(tmp_path / "theirs")
    with pytest.raises(TensorgapError, match=r"was not written by you or root; give the address"):
        folders.current_address()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_auto_is_no_cluster_of_another_user(current: Path) -> None:
    current.write_text("192.0.2.66:6379")
    os.chown(current, 54321, 54321)
    with pytest.raises(TensorgapError, match=r"was not written by you or root"):
        folders.current_address()


LOOKS = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from bench.asked import Cell
from bench.outcomes import classify
from cluster import process
process.__file__ = sys.argv[1]
request = SimpleNamespace(cell=Cell("CPU", "fp32"), workloads=[None], replicate=0)
try:
    print(next(process.SeatActor().run("builtins:iter", request)).name)
except Exception as error:
    print(*classify(error))
"""


def test_what_others_can_change_does_not_measure() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        code = Path(made) / "packages" / "cluster"
        code.mkdir(parents=True)
        code.parent.chmod(0o777)  # as Ray does
        looks = [sys.executable, "-c", LOOKS, str(code / "process.py")]
        sheltered = subprocess.run(looks, capture_output=True, text=True)
        Path(made).chmod(0o755)
        shared = subprocess.run(looks, capture_output=True, text=True)
        trusting = os.environ | {folders.TRUSTING: "1"}
        trusted = subprocess.run(looks, capture_output=True, text=True, env=trusting)
        code.parent.chmod(0o755)  # as in a checkout that others may read
        readable = subprocess.run(looks, capture_output=True, text=True)
    said = "UNPLACED other users of this host can change the code that runs: others can write"
    assert shared.stdout == f"{said} {code.parent} (mode 0777)\n", shared.stderr
    for done in (sheltered, trusted, readable):
        assert done.stdout == "device\n", done.stderr  # the stage in which they go on


GIVES_UP = """
import os, subprocess, sys, time
from cluster import folders
with folders.own() as made:
    os.makedirs(made)
    # A child with a child of its own, which writes into the folder for ever.
    write = f"while :; do echo x >> {made}/log; done"
    asked = ["sh", "-c", f"sh -c '{write}' & echo $!; wait"]
    pid = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True).stdout.readline().strip()
    while not os.path.exists(f"{made}/log"):
        time.sleep(0.01)
    folders.give_up()
    print(pid, os.path.dirname(made), flush=True)
    os._exit(0)
"""


def test_who_gives_up_leaves_no_process_and_no_folder() -> None:
    done = subprocess.run([sys.executable, "-c", GIVES_UP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pid, folder = done.stdout.split()
    assert not Path(folder).exists()
    while Path(f"/proc/{pid}").exists():  # killed, but not yet buried
        time.sleep(0.01)
