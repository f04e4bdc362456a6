"""What a long sweep shows: which cell is where, how far, how long it still takes; on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from bench import matrix as matrices
from bench.asked import Cell, Matrix, Sampling, Workload
from bench.energy import protocol
from bench.measured import TRIED_AGAIN, WAITING, Event, Measurement, Outcome, Profile, Stage
from jobs import terminal

_START_S = 10.0  # a process, its imports and a model
Show = Callable[[Event], None]


def longest_s(sampling: Sampling, workload: Workload) -> float:
    """How long one row is sampled at most, where energy can be read."""
    return (
        sampling.warmup_max_s
        # With new tokens the time to the first one is sampled, too.
        + (1 + bool(workload.new_tokens)) * sampling.latency_max_s
        + sampling.throughput_s
        + protocol.longest_s(sampling)
    )


def longest_process_s(matrix: Matrix) -> float:
    """How long one process takes: a guess for its start, and each row sampled to the end."""
    return _START_S + sum(longest_s(matrix.sampling, workload) for workload in matrix.workloads)


class Progress:
    """What is done, what is in progress, and how long it still takes.

    Types run at the same time; so the slowest type decides, at the pace of its rows so far.
    """

    def __init__(
        self, left: Mapping[Cell, int], row_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: left: rows to measure of each cell; row_s: a first guess for one row."""
        self.total = sum(left.values())
        self.working: dict[tuple[Cell, int], Stage] = {}  # by cell and replicate
        self.done = dict.fromkeys(left, 0)
        self.asked = dict(left)
        self._row_s = row_s
        self._clock = clock
        self._start = clock()

    @property
    def count(self) -> int:
        """Rows done."""
        return sum(self.done.values())

    def take(self, event: Event) -> bool:
        """Note what an event tells; whether it is a row."""
        if isinstance(event, Stage):
            self.working[event.cell, event.replicate] = event
            return False
        self.working.pop((event.cell, event.replicate), None)
        if isinstance(event, Measurement):
            self.done[event.cell] = self.done.get(event.cell, 0) + 1
        return isinstance(event, Measurement)

    def left_s(self) -> float:
        """Seconds until the slowest type is done."""
        elapsed_s = self._clock() - self._start
        longest = 0.0
        for gpu_type in {cell.gpu_type for cell in self.asked}:
            done = sum(n for cell, n in self.done.items() if cell.gpu_type == gpu_type)
            asked = sum(n for cell, n in self.asked.items() if cell.gpu_type == gpu_type)
            at_work = sum(
                stage.cell.gpu_type == gpu_type and stage.name != WAITING
                for stage in self.working.values()
            )
            pace_s = elapsed_s / done if done else self._row_s / max(1, at_work)
            longest = max(longest, (asked - done) * pace_s)
        return longest


@contextlib.contextmanager
def display(
    matrix: Matrix, present: Collection[str], done: Sequence[Measurement], quiet: bool
) -> Iterator[Show]:
    """A function to call with each event: a live display on a terminal, a line a row elsewhere."""
    finished = {m.key for m in done}
    left = {
        cell: sum(
            (cell, workload, replicate) not in finished
            for workload in matrix.workloads
            for replicate in range(matrix.sampling.replicates)
        )
        for cell in matrices.cells(matrix, present)
    }
    progress = Progress(left, longest_process_s(matrix) / len(matrix.workloads))
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _live(progress) as show:
            yield show
    else:
        yield _lines(progress)


def _lines(progress: Progress) -> Show:
    """One line as each row is done: readable in a log."""

    def show(event: Event) -> None:
        if progress.take(event) and isinstance(event, Measurement):
            left = duration(progress.left_s())
            done = f"[{progress.count}/{progress.total}]"
            terminal.say(f"{done} {_in_words(event)}; about {left} left")
        elif isinstance(event, Stage) and event.name in (WAITING, TRIED_AGAIN):
            terminal.say(_in_words(event))

    return show


@contextlib.contextmanager
def _live(progress: Progress) -> Iterator[Show]:
    """A bar over all rows and one for each cell in progress, below the rows that are done."""
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=30),
        rich.TextColumn("{task.completed}/{task.total} rows", markup=False),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True, highlight=False)

    def left() -> str:
        return f"about {duration(progress.left_s())} left"

    with rich.Progress(*columns, console=console, transient=True) as bars:
        overall = bars.add_task("sweep", total=progress.total, note=left())
        lines: dict[tuple[Cell, int], rich.TaskID] = {}

        def show(event: Event) -> None:
            row = progress.take(event) and isinstance(event, Measurement)
            if row or (isinstance(event, Stage) and event.name == TRIED_AGAIN):
                console.print(terminal.clean(_in_words(event)), markup=False)
            for key, stage in progress.working.items():
                cell, _ = key
                note = terminal.clean(f"{stage.name} on {stage.host}: {stage.workload}")
                if key not in lines:
                    name, rows = terminal.clean(str(cell)), progress.asked[cell]
                    lines[key] = bars.add_task(name, total=rows, note=note)
                bars.update(lines[key], completed=progress.done[cell], note=note)
            for key in [k for k in lines if k not in progress.working]:
                bars.remove_task(lines.pop(key))
            bars.update(overall, completed=progress.count, note=left())

        yield show


def duration(seconds: float) -> str:
    """A length of time in words.

    >>> duration(42), duration(170), duration(7300)
    ('42 s', '3 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _in_words(event: Event) -> str:
    """A row, or a stage that needs one's attention, in one line."""
    if isinstance(event, Stage):
        return f"{event.cell}  {event.name}: {event.host}"
    text = f"{event.cell}  {event.workload}"
    if isinstance(event, Profile):
        return text
    if event.outcome != Outcome.OK:
        return f"{text}  {event.outcome}: {event.reason}"
    return f"{text}  {event.timing.latency_ms_p50:.3g} ms" if event.timing else text
