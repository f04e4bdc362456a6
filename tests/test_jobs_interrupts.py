"""Signals at the wrong moment: while Ray starts, within a call of it, and to all processes."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import faults_record
import processes
import pytest
import sweeps
from sweeps import MATRIX, ROWS, rows_in, wait_for_rows

from bench.measured import Outcome
from jobs.interrupts import Interrupts


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder, near enough to the root for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield Path(made)


REPLICATES = 4


def start(matrix: Path, output: Path, temporary: Path) -> subprocess.Popen[str]:
    """A scripted sweep on a Ray of its own."""
    environment = {"TMPDIR": str(temporary), "PYTHONPATH": sweeps.TESTS}
    given = sweeps.scripted("sweep", matrix, "--output", output)
    return sweeps.start(given, processes.without_cache() | environment)


@pytest.fixture
def long_matrix(tmp_path: Path) -> Path:
    """Cells that cannot all be done between a first row and what a test does then."""
    path = tmp_path / "short.toml"
    path.write_text(MATRIX.replace("min_s = 0.3", f"min_s = 2\nreplicates = {REPLICATES}"))
    return path


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGTERM, "gcs_server"), (signal.SIGINT, "raylet/raylet")],
)
def test_while_ray_starts_it_ends_with_a_word_and_leaves_nothing(
    tmp_path: Path, temporary: Path, number: signal.Signals, moment: str
) -> None:
    matrix = tmp_path / "short.toml"
    matrix.write_text(MATRIX)
    process = start(matrix, tmp_path / "out", temporary)
    below: list[int] = []
    while process.poll() is None:
        below = processes.family(process.pid)
        if any(processes.runs(pid, moment) for pid in below):
            break
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 130, errors
    assert errors == "tensorgap: starting Ray ...\ntensorgap: interrupted\n"
    assert output == ""
    assert processes.ended(below)
    assert list(temporary.iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_interrupted_once_it_finishes_the_running_cell(
    long_matrix: Path, tmp_path: Path, temporary: Path
) -> None:
    process = start(long_matrix, tmp_path / "out", temporary)
    folder = wait_for_rows(tmp_path / "out", 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all in the foreground
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 130, errors
    assert "finishing the running cells; Ctrl-C again stops them now" in errors
    assert f"go on with: tensorgap sweep --resume {folder}" in errors
    assert "Traceback" not in errors
    found = rows_in(folder / "results.parquet")
    assert {m.outcome for m in found.values()} == {Outcome.OK}
    assert len(found) < ROWS * REPLICATES
    cells = collections.Counter((m.cell, m.replicate) for m in found.values())
    assert set(cells.values()) == {2}  # each that ran has measured both workloads
    assert output.splitlines()[-1] == str(folder / "results.parquet")
    faults_record.note("Ctrl-C", None, "the running cell is measured; exit code 130")


def test_all_processes_terminated_at_once_it_merges_without_waiting_for_ray(
    long_matrix: Path, tmp_path: Path, temporary: Path
) -> None:
    """As Slurm ends a job: SIGTERM to each process of it."""
    process = start(long_matrix, tmp_path / "out", temporary)
    folder = wait_for_rows(tmp_path / "out", 1)
    below = processes.family(process.pid)
    broke = time.monotonic()
    for pid in below:  # itself first: it could find all its cells lost before it hears of its end
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=400)
    took_s = time.monotonic() - broke
    assert process.returncode == 130, errors
    assert "tensorgap: stopped; what is measured is kept" in errors
    assert f"go on with: tensorgap sweep --resume {folder}" in errors
    assert "answer" not in errors  # nobody asked for the head, which is gone, too
    assert "Traceback" not in errors
    assert 1 <= len(rows_in(folder / "results.parquet")) < ROWS * REPLICATES
    assert output.splitlines()[-1] == str(folder / "results.parquet")
    assert processes.ended(below)
    assert list(temporary.iterdir()) == []
    faults_record.note("SIGTERM to all", took_s, "what was measured before; exit code 130")


# The main thread is in a call that does not return and, as those of Ray, handles no signal: it
# locks a mutex twice.
HELD_UP = """
import ctypes, os, threading
from jobs import interrupts
interrupts._PATIENCE_S = 0.1
def at_once():
    print("ended", flush=True)
    os._exit(7)
def signals():
    for number in {numbers}:
        os.kill(os.getpid(), number)
        # Two of a kind are one, until the first has been seen.
        while "ShdPnd:\\t0000000000000000" not in open("/proc/self/status").read():
            pass
with interrupts.Interrupts(at_once) as held:
    if {measuring}:
        held.measuring(at_once)
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    threading.Timer(0.1, signals).start()
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize(
    ("measuring", "numbers"),
    [
        (False, [signal.SIGTERM]),
        (False, [signal.SIGINT]),
        (True, [signal.SIGTERM]),
        (True, [signal.SIGINT, signal.SIGTERM]),
        (True, [signal.SIGINT, signal.SIGINT]),
    ],
)
def test_a_call_that_does_not_return_holds_nobody_up(
    measuring: bool, numbers: list[signal.Signals]
) -> None:
    code = HELD_UP.format(measuring=measuring, numbers=[int(number) for number in numbers])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (7, "ended\n"), done.stderr


def test_the_first_ctrl_c_of_a_sweep_that_measures_only_asks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(lambda: None) as interrupts:
        interrupts.measuring(lambda: None)
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "finishing the running cells" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


ENDED_AGAIN = """
import os, signal
from jobs import interrupts, sweep
def merged(folder, finished):
    os.kill(os.getpid(), signal.SIGTERM)
    print("merged")
    return 130
sweep.conclude = merged
with interrupts.Interrupts(lambda: None) as held:
    held.measuring(lambda: None)
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        sweep.abandon(None, "stopped")
"""


def test_a_sweep_that_is_terminated_again_merges_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", ENDED_AGAIN], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "merged\n"), done.stderr
