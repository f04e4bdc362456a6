"""What a long sweep shows: which cell is where, how far, how long it still takes; on stderr."""

import contextlib
import functools
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from bench import matrix as matrices
from bench.asked import Cell, Matrix, Sampling, Workload
from bench.energy import durations
from bench.measured import TRIED_AGAIN, WAITING, Event, Measurement, Outcome, Stage
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
        + durations.longest_s(sampling)
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
        self.asked, self.done = Counter(left), Counter[Cell]()
        self.working: dict[tuple[Cell, int], Stage] = {}  # by cell and replicate
        self._row_s = row_s
        self._clock = clock
        self._start = clock()

    def take(self, event: Event) -> None:
        """Note what an event tells."""
        if isinstance(event, Stage):
            self.working[event.cell, event.replicate] = event
            return
        self.working.pop((event.cell, event.replicate), None)
        if isinstance(event, Measurement):
            self.done[event.cell] += 1

    def left_s(self) -> float:
        """Seconds until the slowest type is done."""
        elapsed_s = self._clock() - self._start
        working = [stage for stage in self.working.values() if stage.name != WAITING]
        at_work = Counter(stage.cell.gpu_type for stage in working)
        longest_s = 0.0
        for gpu_type in {cell.gpu_type for cell in self.asked}:
            cells = [cell for cell in self.asked if cell.gpu_type == gpu_type]
            done = sum(self.done[cell] for cell in cells)
            left = sum(self.asked[cell] for cell in cells) - done
            pace_s = elapsed_s / done if done else self._row_s / max(1, at_work[gpu_type])
            longest_s = max(longest_s, left * pace_s)
        return longest_s

    def left(self) -> str:
        """The same in words."""
        return f"about {duration(self.left_s())} left"


@contextlib.contextmanager
def display(
    matrix: Matrix, present: Collection[str], done: Sequence[Measurement], quiet: bool
) -> Iterator[Show]:
    """A function to call with each event: a live display on a terminal, a line a row elsewhere."""
    replicates = range(matrix.sampling.replicates)
    keys = itertools.product(matrices.cells(matrix, present), matrix.workloads, replicates)
    finished = {row.key for row in done}
    left = Counter(key[0] for key in keys if key not in finished)
    progress = Progress(left, longest_process_s(matrix) / len(matrix.workloads))
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with live(progress) as show:
            yield show
    else:
        yield functools.partial(tell, progress)


def tell(progress: Progress, event: Event) -> None:
    """One line as each row is done: readable in a log."""
    progress.take(event)
    if isinstance(event, Measurement):
        done = f"[{progress.done.total()}/{progress.asked.total()}]"
        terminal.say(f"{done} {in_words(event)}; {progress.left()}")
    elif isinstance(event, Stage) and event.name in (WAITING, TRIED_AGAIN):
        terminal.say(in_words(event))


@contextlib.contextmanager
def live(progress: Progress) -> Iterator[Show]:
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
    with rich.Progress(*columns, console=console, transient=True) as bars:
        overall = bars.add_task("sweep", total=progress.asked.total(), note=progress.left())
        tasks: dict[tuple[Cell, int], rich.TaskID] = {}

        def show(event: Event) -> None:
            progress.take(event)
            again = isinstance(event, Stage) and event.name == TRIED_AGAIN
            if again or isinstance(event, Measurement):
                console.print(terminal.clean(in_words(event)), markup=False)
            for key, stage in progress.working.items():
                cell = stage.cell
                note = terminal.clean(f"{stage.name} on {stage.host}: {stage.workload}")
                if key not in tasks:
                    name, rows = terminal.clean(str(cell)), progress.asked[cell]
                    tasks[key] = bars.add_task(name, total=rows, note=note)
                bars.update(tasks[key], completed=progress.done[cell], note=note)
            for key in tasks.keys() - progress.working.keys():
                bars.remove_task(tasks.pop(key))
            bars.update(overall, completed=progress.done.total(), note=progress.left())

        yield show


def duration(seconds: float) -> str:
    """A length of time in words.

    >>> duration(42), duration(170), duration(7300)
    ('42 s', '3 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_words(event: Event) -> str:
    """A row, or a stage that needs one's attention, in one line."""
    if isinstance(event, Stage):
        return f"{event.cell}  {event.name}: {event.host}"
    text = f"{event.cell}  {event.workload}"
    if not isinstance(event, Measurement):
        return text
    if event.outcome != Outcome.OK:
        return f"{text}  {event.outcome}: {event.reason}"
    return f"{text}  {event.timing.latency_ms_p50:.3g} ms" if event.timing else text
