"""A process that a template forked: like one that was started, and gone with what asked for it."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest

from bench import fresh
from bench.errors import ProcessDied
from bench.fresh import Fresh
from bench.model.load import load_model

MEASURE, CRASH = "surroundings:measure", "surroundings:crash"
TESTS = Path(__file__).parent
# As a process was started before there were templates.
STARTED = """
import importlib, pickle, sys
import surroundings
sys.stdout.buffer.write(pickle.dumps(list(surroundings.measure(None))))
"""


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    """A template that has imported torch, transformers and bench.measure."""
    with fresh.own_template(MEASURE):
        yield os.environ[fresh.TEMPLATE]


def wait_until(is_so: Any) -> None:
    deadline = time.monotonic() + 30
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_so()


def template_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_what_is_forked_finds_what_a_started_process_finds(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What a process is given by Ray, and in a folder of its own.
    for key, value in (("CUDA_VISIBLE_DEVICES", "1"), ("OMP_NUM_THREADS", "2")):
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    forked = list(Fresh(name, MEASURE, None).events())
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", STARTED], env=environment, stdout=subprocess.PIPE)
    started = pickle.loads(done.stdout)
    del started[0]["environment"]["PYTHONPATH"], started[0]["path"], forked[0]["path"]
    forked[0]["environment"].pop("PYTHONPATH", None)
    # torch reads the variable as it is imported, a template before it has one; a request says it.
    for before, threads in ((forked[0], None), (started[0], None)):
        before["torch"]["threads"] = threads
    assert forked[0] == started[0]
    assert forked[1] == started[1]
    assert forked[2]["threads"] <= started[2]["threads"]  # those of OpenBLAS, which nothing uses
    assert forked[2]["random"] != started[2]["random"]


def test_a_template_has_one_thread_and_its_children_no_file_of_it(name: str) -> None:
    _, _, last = Fresh(name, MEASURE, None).events()
    process = Fresh(name, CRASH, "hang")
    pid = next(process.events())
    template = template_of(pid)
    assert name_of(pid) == "tensorgap-cell"
    process.end()
    assert os.listdir(f"/proc/{template}/task") == [str(template)]
    assert name_of(template) == "tensorgap-templ"
    # The connection, and the one to the shelf.
    assert sum(file.startswith("socket:") for file in last["files"]) == 2
    assert not [file for file in last["files"] if file.startswith(("anon_inode", "pidfd"))]


def test_no_two_children_draw_the_same_random_numbers(name: str) -> None:
    drawn = [list(Fresh(name, MEASURE, None).events())[2]["random"] for _ in range(3)]
    assert [len(set(numbers)) for numbers in zip(*drawn, strict=True)] == [3, 3, 3]


def test_weights_are_built_once_and_found_unchanged_by_the_next_process(name: str) -> None:
    first, second, half = (
        next(Fresh(name, "surroundings:load", precision).events())
        for precision in ("fp32", "fp32", "bf16")
    )
    assert (first.pop("kept"), second.pop("kept"), half.pop("kept")) == (False, True, True)
    assert first == second
    assert half["weights"].sha256 == first["weights"].sha256
    assert half["sum"] == pytest.approx(first["sum"], rel=1e-3)
    here = load_model("tiny", "fp32", "cpu")
    assert here.weights == first["weights"]
    assert float(here.module.transformer.wte.weight.double().abs().sum()) == first["sum"]


def test_what_is_on_the_shelf_cannot_be_changed(name: str) -> None:
    next(Fresh(name, "surroundings:load", "fp32").events())
    with pytest.raises(PermissionError):
        next(Fresh(name, "surroundings:overwrite", None).events())


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("SIGSEGV", "SIGSEGV: it crashed"),
        ("SIGKILL", "SIGKILL: it was killed, perhaps for memory"),
        ("exit", "exit status 3"),
    ],
)
def test_a_process_that_dies_says_of_what(name: str, how: str, words: str) -> None:
    events = Fresh(name, CRASH, how).events()
    assert isinstance(next(events), int)
    with pytest.raises(ProcessDied, match=words):
        next(events)


def test_what_a_measurement_raises_comes_home_without_torch(name: str) -> None:
    events = Fresh(name, CRASH, "raise").events()
    next(events)
    with pytest.raises(RuntimeError, match="OutOfMemoryError: CUDA out of memory"):
        next(events)
    events = Fresh(name, "surroundings:no_such", None).events()
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        next(events)


def test_a_process_that_hangs_in_native_code_can_be_ended_from_elsewhere(name: str) -> None:
    process = Fresh(name, CRASH, "hang")
    events = process.events()
    pid = next(events)
    time.sleep(0.1)
    process.end()
    with pytest.raises(ProcessDied, match="SIGKILL"):
        next(events)
    assert not processes.lives(pid)


ASKS_AND_DIES = """
import os, sys
from bench.fresh import Fresh
process = Fresh(sys.argv[1], "surroundings:crash", "hang")
print(next(process.events()), flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_process_ends_with_whoever_asked_for_it(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKS_AND_DIES, name], capture_output=True, text=True
    )
    pid = int(done.stdout)
    wait_until(lambda: not processes.lives(pid))


OWNS_AND_DIES = """
import os
from bench import fresh
with fresh.own_template("surroundings:crash"):
    process = fresh.Fresh(os.environ[fresh.TEMPLATE], "surroundings:crash", "hang")
    print(next(process.events()), flush=True)
    input()
"""


@pytest.mark.parametrize("which", ["owner", "template"])
def test_nothing_outlasts_the_owner_of_a_template_or_the_template(which: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNS_AND_DIES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        template = template_of(pid)
        os.kill(owner.pid if which == "owner" else template, signal.SIGKILL)
        wait_until(lambda: not processes.lives(pid) and not processes.lives(template))
        owner.kill()


def test_a_template_that_nobody_started_is_started_and_ends_with_its_owner() -> None:
    name = secrets.token_hex(16)
    with subprocess.Popen(["sleep", "1000"]) as owner:
        events = Fresh(name, CRASH, "exit", owner=owner.pid).events()
        pid = next(events)
        with pytest.raises(ProcessDied, match="exit status 3"):
            next(events)
        del pid
        process = Fresh(name, CRASH, "hang", owner=owner.pid)
        template = template_of(next(process.events()))
        process.end()
        assert Path(f"/proc/{template}").exists()
        owner.kill()
    wait_until(lambda: not processes.lives(template))


@pytest.mark.parametrize("lingers", [True, False])
def test_a_template_whose_owner_is_gone_ends_at_once(lingers: bool) -> None:
    with subprocess.Popen(["true"]) as owner:
        owner.wait()
    call = f"template.main({secrets.token_hex(16)!r}, 'no_such', {owner.pid}, {lingers})"
    done = subprocess.run(
        [sys.executable, "-c", f"from bench import template; {call}"],
        capture_output=True,
        cwd=TESTS.parent,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_template_that_ends_before_it_is_told_what_to_do_costs_no_row() -> None:
    name = secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        end = threading.Timer(0, lambda: listener.accept()[0].close())
        end.start()
        with pytest.raises(ProcessDied):
            # The order is more than a socket holds.
            list(Fresh(name, MEASURE, b"0" * 2**22).events())
        end.join()


def test_each_code_and_each_environment_has_a_template_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = fresh.name_for("node")
    assert name == fresh.name_for("node") != fresh.name_for("another")
    for variable in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RAY_JOB_ID"):
        monkeypatch.setenv(variable, "7")  # of each actor
    assert name == fresh.name_for("node")
    monkeypatch.setattr(fresh, "__file__", "/elsewhere/bench/fresh.py")
    assert name != (moved := fresh.name_for("node"))
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert moved != fresh.name_for("node")


def test_a_module_that_cannot_be_imported_is_told_by_each_process() -> None:
    with fresh.own_template("no_such_module:measure"):
        for _ in range(2):
            events = Fresh(os.environ[fresh.TEMPLATE], "no_such_module:measure", None).events()
            with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
                next(events)


def test_a_name_that_another_user_has_taken_is_left_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(f"\0{name}")
        stranger.listen()

        def user_of(connection: socket.socket) -> int:
            taken = connection.getpeername() == f"\0{name}".encode()
            return os.getuid() + taken

        monkeypatch.setattr("bench.template.peer_user", user_of)
        with pytest.raises(ProcessDied, match="exit status 3"):
            list(Fresh(name, CRASH, "exit").events())
