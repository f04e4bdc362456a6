"""`tensorgap sweep`: measure a matrix, keep each row at once, end with table and Parquet."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.util
import itertools
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

if importlib.util.find_spec("bench") is None:  # `ray submit` copies this one file
    sys.exit(
        "tensorgap: the rest of tensorgap is not on this head: ray up with a config of"
        " cluster/configs puts it there; anywhere else, from the root of the project:"
        " ray job submit --working-dir . -- python -m jobs sweep MATRIX"
    )

import click

from bench import inventory
from bench import matrix as matrices
from bench.asked import Cell, Matrix, Workload
from bench.errors import REAL_GPU, TensorgapError
from bench.files import location
from bench.measured import Measurement, Outcome, Profile
from bench.results import store as results
from jobs import options, progress, reading, terminal
from jobs.cli import INTERRUPTED
from jobs.interrupts import Interrupts

# What a resumed sweep measures again without being asked: the fault was not the cell's.
_TRY_AGAIN = (Outcome.UNPLACED, Outcome.LOST)
_PATIENCE_S = 120.0  # for an output that fails, at the end of a sweep
_STOPPED = "stopped; what is measured is kept"
_ending = threading.Lock()  # held by the thread that ends the process


@click.command("sweep")
@options.matrix(required=False)
@click.option(
    "--output",
    metavar="PLACE",
    help="Folder or URI (s3://BUCKET/PATH, gs://BUCKET/PATH) for NAME/UTC-TIMESTAMP/."
    "  [default: results]",
)
@click.option("--resume", metavar="FOLDER", help="Go on with this sweep: measure what is missing.")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="With --resume: also measure again what FAILED, TIMED_OUT, was OUT_OF_MEMORY or"
    " UNSUPPORTED (as after an installation).",
)
@options.address
@options.trust_local_users
@options.narrowing
@click.option(
    "--placement-timeout",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="How long a cell may wait for a GPU that others hold or that the autoscaler starts.",
)
@click.option(
    "--simulated",
    is_flag=True,
    help="To try a cluster without GPUs: GPU cells run on modelled GPUs, or compute on the CPU of a"
    " node with a stand-in for the driver, and each row says so. Refused where a GPU is real.",
)
@options.max_input
@click.option("--quiet", "-q", is_flag=True, help="No progress; only the table and the path.")
def command(
    matrix: Path | None,
    output: str | None,
    resume: str | None,
    retry_failed: bool,
    address: str | None,
    trust_local_users: bool,
    gpu_types: tuple[str, ...],
    precisions: tuple[str, ...],
    models: tuple[str, ...],
    placement_timeout: float,
    simulated: bool,
    most_bytes: int,
    quiet: bool,
) -> int:
    """Measure MATRIX, a TOML file, and collect one Parquet file.

    Each row is on disk as soon as it is measured. Ctrl-C lets the running cells end, Ctrl-C twice
    stops them; these, a crash or a lost machine lose only the rows in work: --resume goes on. The
    table goes to standard output, progress to standard error.

    \b
    This machine:         tensorgap sweep jobs/matrices/local.toml
    A part of it:         tensorgap sweep jobs/matrices/local.toml --precision fp32 --model tiny
    A cluster:            tensorgap sweep jobs/matrices/study.toml --address auto
    Results to a bucket:  tensorgap sweep jobs/matrices/study.toml --output s3://bucket/study
    Go on:                tensorgap sweep --resume results/local/20261124T120000Z

    Exit codes: 0 all OK; 1 complete, but some cells are not OK; 2 bad input; 130 interrupted.
    """
    if (matrix is None) == (resume is None):
        raise click.UsageError("give either a MATRIX or --resume FOLDER")
    if resume is not None and output is not None:
        raise click.UsageError("a sweep is resumed where it began: leave --output out")
    if retry_failed and resume is None:
        raise click.UsageError("--retry-failed needs --resume FOLDER")
    if resume is not None and (gpu_types or precisions or models or simulated):
        raise click.UsageError(
            "a sweep is resumed as it began: leave --simulated and the narrowing options out"
        )
    if simulated and inventory.real_gpu():
        raise TensorgapError(REAL_GPU)
    from cluster import driver
    from cluster.session import HeadLostError

    # The lock outlives Ray: until the rows are merged.
    held = click.get_current_context().with_resource
    try:
        with contextlib.ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(_end_at_once))
            if matrix is not None:
                narrowed = matrices.narrow(matrices.load(matrix), gpu_types, precisions, models)
                if address is None:  # the nodes of a cluster may have what is not here
                    matrices.check_paths(narrowed)
                asked = matrices.localise(narrowed)
                place = "results" if output is None else output
                results.prepare(place)
            else:
                folder = results.Results.open(str(resume), most_bytes)
                asked = folder.matrix()
                folder.check_resumable()
                held(folder.locked())
            _connect(stack, address, trust_local_users, quiet)
            if matrix is not None:
                # Only now: a cluster that cannot be reached leaves no empty folder behind.
                folder = results.Results.create(
                    place, asked.name, asked.text, _now(), driver.offers(), simulated
                )
                held(folder.locked())
            finished = _measure(folder, asked, retry_failed, placement_timeout, quiet, interrupts)
    except HeadLostError as error:
        _abandon(folder, str(error))
    return _conclude(folder, finished)


def _end_at_once() -> NoReturn:
    """End while Ray starts, where a call of Ray holds up the main thread."""
    from cluster import folders

    terminal.say("interrupted")
    folders.give_up()
    os._exit(INTERRUPTED)


def _abandon(folder: results.Results, why: str) -> NoReturn:
    """Conclude without Ray, whose calls would wait for what is lost, or is being ended too.

    A cluster ends by itself what a driver has left behind.
    """
    from cluster import folders

    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # the thread that came first ends the process
    code = INTERRUPTED
    try:
        # A session keeps standard output from Ray, and the main thread may be within one.
        with contextlib.redirect_stdout(sys.__stdout__):
            terminal.say(why)
            code = _conclude(folder, finished=False)
            sys.stdout.flush()
    except TensorgapError as failure:
        terminal.say(str(failure))
    finally:
        folders.give_up()
        os._exit(code)


def _connect(
    stack: contextlib.ExitStack, address: str | None, trust_local_users: bool, quiet: bool
) -> None:
    from cluster.session import session

    if not quiet:
        where = "starting Ray" if address is None else f"connecting to {address}"
        terminal.say(f"{where} ...")
    stack.enter_context(session(address, trust_local_users))


def _measure(
    folder: results.Results,
    asked: Matrix,
    retry_failed: bool,
    placement_timeout_s: float,
    quiet: bool,
    interrupts: Interrupts,
) -> bool:
    """Measure what is missing and keep each row at once; False where it was interrupted."""
    from cluster import driver
    from cluster.session import HeadLostError

    interrupts.measuring(functools.partial(_abandon, folder, _STOPPED))
    rows = _rows(folder)
    done = [row for row in rows if not _is_due(row, retry_failed)]
    # What an attempt found says more than that there is no place for another.
    told = {row.key for row in rows if row.outcome != Outcome.UNPLACED}
    if done and not quiet:
        terminal.say(f"{len(done)} rows are measured already")
    types = folder.source.gpu_types
    sweep = driver.sweep(
        folder.source.run,
        asked,
        types,
        done=done,
        placement_timeout_s=placement_timeout_s,
        simulated=folder.source.simulated,
        stopping=interrupts.asked,
        abandon=lambda error: _abandon(folder, str(error)),
    )
    try:
        # Closed before Ray is: it ends the actors that still run.
        with contextlib.closing(sweep) as events:
            try:
                with progress.display(asked, types, done, quiet) as show:
                    for event in events:
                        if isinstance(event, Profile) or (
                            isinstance(event, Measurement)
                            and not (event.outcome == Outcome.UNPLACED and event.key in told)
                        ):
                            _keep(folder, event)
                        show(event)
            except KeyboardInterrupt:
                _abandon(folder, _STOPPED)
    except HeadLostError:
        raise
    except Exception:
        terminal.say(_how_to_go_on(folder))
        raise
    return not interrupts.asked()


def _keep(folder: results.Results, row: Measurement | Profile) -> None:
    """Write a row or a profile, and tell it once where it must wait for its place."""
    before = folder.trouble
    folder.write(replace(row, received_at=_now()))
    if folder.trouble and not before:
        terminal.say(folder.trouble)


def _conclude(folder: results.Results, finished: bool) -> int:
    """Show the table, say where the Parquet is, and return the exit code."""
    failure = None
    try:
        folder.settle(_PATIENCE_S if finished else 0.0)
    except TensorgapError as error:
        failure = error
    rows, torn = folder.read()
    # Before it is merged: a full disk must not hide what was measured.
    _show(rows, torn)
    if failure:
        raise failure
    if rows:
        terminal.echo("", _merged(folder))
    missing = _asked_keys(folder) - {row.key for row in rows}
    if missing and not finished:
        terminal.say(_how_to_go_on(folder))
        return INTERRUPTED
    if missing:
        terminal.say(f"{len(missing)} rows are missing; {_how_to_go_on(folder)}")
    return 1 if missing or any(row.outcome != Outcome.OK for row in rows) else 0


def _merged(folder: results.Results) -> str:
    """Where the Parquet file is, which is made of the parts."""
    try:
        return location.shown(folder.finish())
    except TensorgapError as error:
        raise TensorgapError(
            f"{error}; the rows are kept in {results.PARTS}/; make room, then:"
            f" tensorgap sweep --resume {folder.shown}{_hint(folder)}"
        ) from error


def _how_to_go_on(folder: results.Results) -> str:
    return f"go on with: tensorgap sweep --resume {folder.shown}{_hint(folder)}"


def _hint(folder: results.Results) -> str:
    hidden = folder.shown != folder.location
    return f" (with your credentials for {location.HIDDEN})" if hidden else ""


def _asked_keys(folder: results.Results) -> set[tuple[Cell, Workload, int]]:
    """The identity of every row that the sweep was asked for."""
    asked = folder.matrix()
    cells = matrices.cells(asked, folder.source.gpu_types)
    replicates = range(asked.sampling.replicates)
    return set(itertools.product(cells, asked.workloads, replicates))


def _rows(folder: results.Results) -> list[Measurement]:
    """The rows that there are already."""
    folder.restore()
    rows, torn = folder.read()
    reading.tell_torn(torn, "it is measured again")
    return rows


def _is_due(row: Measurement, retry_failed: bool) -> bool:
    """Whether a row is to be measured again."""
    return row.outcome != Outcome.OK and (retry_failed or row.outcome in _TRY_AGAIN)


def _show(rows: list[Measurement], torn: list[results.Torn]) -> None:
    from jobs.report import comparison, render

    reading.tell_torn(torn, "its row is missing")
    if rows:
        lines = comparison.compare(rows)
        terminal.show(render.table(lines, terminal.width(), terminal.coloured()))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


if __name__ == "__main__":
    # As `ray submit` runs it: a copy of this one file on the head, where a config of
    # cluster/configs has put the rest of the project.
    from jobs.cli import main

    main(["sweep", "--address", "auto", *sys.argv[1:]])
