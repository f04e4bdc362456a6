from __future__ import annotations

import dataclasses
import errno
import io

import pytest

from bench.asked import CPU, Cell, Sampling, Workload
from bench.energy import durations
from bench.measured import WAITING, Measurement, Outcome, Profile, Stage
from bench.measured.profiled import Trace
from jobs import progress, terminal
from jobs.progress import Progress

WORKLOAD = Workload("tiny", "eager", 1, 128)
FP32, BF16, T4 = Cell(CPU, "fp32"), Cell(CPU, "bf16"), Cell("T4", "fp32")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_row(cell: Cell, replicate: int = 0) -> Measurement:
    return Measurement(cell, WORKLOAD, run="", replicate=replicate, outcome=Outcome.OK)


def test_before_the_first_row_the_guess_counts() -> None:
    assert Progress({FP32: 3, BF16: 3}, row_s=10, clock=Clock()).left_s() == 60


def test_the_guess_counts_the_gpus_that_are_at_work() -> None:
    shown = Progress({T4: 6}, row_s=10, clock=Clock())
    for replicate, name in enumerate(("loading", "latency", WAITING)):
        shown.take(Stage(T4, WORKLOAD, replicate, name, "host"))
    assert shown.left_s() == 30


def test_after_a_row_its_pace_counts() -> None:
    clock = Clock()
    shown = Progress({FP32: 4}, row_s=10, clock=clock)
    clock.now = 3
    shown.take(a_row(FP32))
    assert shown.left_s() == 9


def test_types_run_at_the_same_time_so_the_slowest_decides() -> None:
    clock = Clock()
    shown = Progress({FP32: 4, T4: 4}, row_s=10, clock=clock)
    clock.now = 2
    shown.take(a_row(T4))
    assert shown.left_s() == 40
    shown.take(a_row(FP32))
    shown.take(a_row(FP32, replicate=1))
    assert shown.left_s() == 6


def test_a_profile_is_no_row() -> None:
    shown = Progress({FP32: 2}, row_s=10, clock=Clock())
    shown.take(a_row(FP32))
    shown.take(Stage(FP32, WORKLOAD, 0, "profile", "host"))
    shown.take(Profile("", FP32, WORKLOAD, 0, Trace("op")))
    assert shown.done == {FP32: 1}


def test_done_is_nothing_left() -> None:
    shown = Progress({FP32: 1}, row_s=10, clock=Clock())
    shown.take(a_row(FP32))
    assert (shown.done, shown.asked, shown.left_s()) == ({FP32: 1}, {FP32: 1}, 0)


def test_it_knows_which_cell_is_where() -> None:
    shown = Progress({FP32: 1, BF16: 1, T4: 1}, row_s=10, clock=Clock())
    latency = Stage(FP32, WORKLOAD, 0, "latency", "host")
    on_t4 = Stage(T4, WORKLOAD, 0, "loading", "host")
    shown.take(latency)
    shown.take(on_t4)
    assert shown.working == {(FP32, 0): latency, (T4, 0): on_t4}
    shown.take(a_row(FP32))
    assert shown.working == {(T4, 0): on_t4}
    warm_up = Stage(BF16, WORKLOAD, 0, "warm-up", "host")
    shown.take(warm_up)
    assert shown.working == {(T4, 0): on_t4, (BF16, 0): warm_up}


def test_a_row_takes_no_longer_than_the_sampling_allows() -> None:
    sampling = Sampling(
        warmup_max_s=1,
        latency_max_s=2,
        throughput_s=4,
        idle_s=8,
        energy="quick",
        energy_s=16,
        latency_min_s=0,
    )
    assert progress.longest_s(sampling, WORKLOAD) == 7 + durations.longest_s(sampling)
    standard = dataclasses.replace(sampling, energy="standard")
    longest_s = 7 + durations.longest_s(standard)
    assert progress.longest_s(standard, WORKLOAD) == longest_s
    # The latency of the first token is sampled by itself.
    continued = dataclasses.replace(WORKLOAD, new_tokens=8)
    assert progress.longest_s(standard, continued) == longest_s + 2


def test_a_terminal_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stderr", Gone())
    terminal.say("a row")
