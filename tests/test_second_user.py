"""What another, unprivileged user of the machine gains while a sweep runs: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import second_user
from sweeps import MATRIX

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")

# With the trace of kernels, whose profiler writes files, too.
ONE_CELL = (
    MATRIX.replace('"fp32", "bf16"', '"fp32"')
    .replace("profile = false\n", "")
    .replace("[1, 2]", "1")
)
# Where programs keep what is theirs for a while.
TEMPORARY = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/")
# The code itself, and what it lies in, may lie there too, and be open to all.
CODE = (str(Path(__file__).resolve().parents[1]), sys.prefix)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that all may enter and read, as a home often is."""
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        home.chmod(0o755)
        yield home


class Neighbour:
    """The second user, and what he is told: each thing once."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, second_user.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told: set[tuple[str, object]] = set()

    def tell(self, found: set[tuple[str, object]]) -> None:
        new = sorted(found - self.told, key=repr)
        self.told |= found
        if new:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(new) + "\n")
            self._process.stdin.flush()

    def gained(self) -> list[str]:
        output, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        found: list[str] = json.loads(output)
        return found


def test_he_can_tell_what_is_open(home: Path) -> None:
    """That nothing is gained means something: the same attempts succeed where a door is open."""
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    (home / "open" / "file").write_text("x")
    (home / "open" / "file").chmod(0o666)
    (home / "closed").mkdir(mode=0o700)
    neighbour = Neighbour()
    neighbour.tell({("path", str(home / "open")), ("path", str(home / "open" / "file"))})
    neighbour.tell({("path", str(home / "closed")), ("replace", str(home / "open" / "file"))})
    assert set(neighbour.gained()) == {
        f"lists {home}/open",
        f"writes into {home}/open",
        f"reads {home}/open/file",
        f"writes {home}/open/file",
        f"replaces {home}/open/file",
    }


def test_he_gains_nothing_while_a_sweep_runs(home: Path) -> None:
    matrix, results = home / "m.toml", home / "results"
    matrix.write_text(ONE_CELL)
    sweep = subprocess.Popen(
        [sys.executable, "-m", "jobs", "sweep", str(matrix), "--output", str(results)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=processes.without_cache() | {"TMPDIR": "/tmp"},
    )
    neighbour = Neighbour()
    with contextlib.ExitStack() as stack:
        stack.callback(sweep.kill)
        while sweep.poll() is None:
            neighbour.tell(found(sweep.pid))
            time.sleep(0.2)
        output, _ = sweep.communicate()
    assert sweep.returncode == 0, output
    gained = neighbour.gained()
    # What the user keeps there has the permissions of his umask: others may read it, no more.
    assert [g for g in gained if not g.startswith((f"lists {home}", f"reads {home}"))] == [], output
    kinds = {kind for kind, _ in neighbour.told}
    assert kinds == {"process", "port", "path"}
    sockets = [path for _, path in neighbour.told if str(path).endswith("/plasma_store")]
    packages = [path for _, path in neighbour.told if "py_modules_files" in str(path)]
    assert sockets
    assert packages


def found(sweep: int) -> set[tuple[str, object]]:
    """What there is to try: whoever knows more tries more, so he is told of everything."""
    pids = processes.family(sweep)
    paths = {path for pid in pids for path in used(pid)}
    return {
        *(("process", pid) for pid in pids),
        *(("port", port) for _, port in processes.listening(pids)),
        *(("path", path) for path in paths),
    }


def used(pid: int) -> set[str]:
    """The temporary files that a process has open or mapped, or names, with what is above them."""
    found = processes.opened(pid)
    proc = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        found.update((proc / "maps").read_text().split())
        found.update(re.split("[\0=:]", (proc / "environ").read_text()))
        found.update(re.split("[\0=]", (proc / "cmdline").read_text()))
    places = {Path(name) for name in found if name.startswith(TEMPORARY)}
    with_folders = {above for place in places for above in (place, *place.parents)}
    inside = {
        str(path)
        for path in with_folders
        if str(path).startswith(TEMPORARY)
        and not str(path).startswith(CODE)
        and not any(code.startswith(f"{path}/") for code in CODE)
    }
    return {path for path in inside if Path(path).exists()} | below(inside)


def below(folders: set[str]) -> set[str]:
    """What lies in the folder of a session, opened by a process or not."""
    found: set[str] = set()
    for folder in folders:
        if "/session_" in folder and folder.rpartition("/")[2].startswith("session_20"):
            for root, names, files in os.walk(folder):
                found.update(os.path.join(root, name) for name in (*names, *files))
    return found
