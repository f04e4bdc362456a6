"""`tensorgap sweep`: measure a matrix, keep each row at once, end with table and Parquet."""

import contextlib
import functools
import importlib.util
import itertools
import os
import signal
import sys
import threading
from dataclasses import astuple, replace
from pathlib import Path
from typing import NoReturn

if importlib.util.find_spec("bench") is None:  # `ray submit` copies this one file
    sys.exit(
        "tensorgap: the rest of tensorgap is not on this head: ray up with a config of"
        " cluster/configs puts it there; anywhere else, from the root of the project:"
        " ray job submit --working-dir . -- python -m jobs sweep MATRIX"
    )

import click

import cluster
from bench import inventory, outcomes
from bench import matrix as matrices
from bench.asked import Matrix
from bench.errors import REAL_GPU, TensorgapError
from bench.files import location
from bench.measured import Measurement, Outcome, Profile
from bench.results.store import PARTS, Results, prepare
from cluster import folders
from cluster.head import HeadLostError
from cluster.session import session
from jobs import options, progress, reading, terminal
from jobs.cli import INTERRUPTED
from jobs.interrupts import Interrupts

# What a resumed sweep measures again without being asked: the fault was not the cell's.
_TRY_AGAIN = {Outcome.UNPLACED, Outcome.LOST}
_PATIENCE_S = 120.0  # for an output that fails, at the end of a sweep
_MOST_SHOWN = 2000  # rows in the table at the end of a sweep
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
@options.cluster
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
    only: options.Only,
    placement_timeout: float,
    simulated: bool,
    most_bytes: int,
    quiet: bool,
) -> int:
    """Measure MATRIX, a TOML file, and collect one Parquet file.

    Each row is on disk as soon as it is measured. Ctrl-C lets the running cells end, Ctrl-C twice
    stops them; these, a crash or a lost machine lose only the rows in progress: --resume goes on.
    The table goes to standard output, progress to standard error.

    \b
    This machine:         tensorgap sweep jobs/matrices/local.toml
    A part of it:         tensorgap sweep jobs/matrices/local.toml --precision fp32 --model tiny
    A cluster:            tensorgap sweep jobs/matrices/study.toml --address auto
    Results to a bucket:  tensorgap sweep jobs/matrices/study.toml --output s3://bucket/study
    Go on:                tensorgap sweep --resume results/local/20261124T120000Z

    Exit codes: 0 all OK; 1 complete, but some cells are not OK; 2 bad input; 130 interrupted.
    """
    check_options(matrix, output, resume, retry_failed, simulated or only != options.Only())
    if simulated and inventory.real_gpu():
        raise TensorgapError(REAL_GPU)
    # The lock outlives Ray: until the rows are merged.
    held = click.get_current_context().with_resource
    try:
        with contextlib.ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(end_at_once))
            if matrix is not None:
                asked = asked_for(matrix, only, here=address is None)
                prepare(output or "results")
            else:
                folder = Results.open(str(resume), most_bytes)
                asked = folder.matrix()
                folder.check_resumable()
                held(folder.locked())
            if not quiet:
                what = "starting Ray" if address is None else f"connecting to {address}"
                terminal.say(f"{what} ...")
            stack.enter_context(session(address, trust_local_users, cluster.MEASURE))
            from cluster import driver  # and with it Ray, whose environment is set now

            if matrix is not None:
                # Only now: a cluster that cannot be reached leaves no empty folder behind.
                place, types, now = output or "results", driver.offers(), outcomes.now()
                folder = Results.create(place, asked.name, asked.text, now, types, simulated)
                held(folder.locked())
            finished = measure(folder, asked, retry_failed, placement_timeout, quiet, interrupts)
    except HeadLostError as error:
        abandon(folder, str(error))
    return conclude(folder, finished)


def check_options(
    matrix: Path | None, output: str | None, resume: str | None, retry_failed: bool, changed: bool
) -> None:
    """Raise click.UsageError for options that contradict each other."""
    resumed = resume is not None
    for wrong, told in (
        ((matrix is None) != resumed, "give either a MATRIX or --resume FOLDER"),
        (resumed and output is not None, "a sweep is resumed where it began: leave --output out"),
        (retry_failed and not resumed, "--retry-failed needs --resume FOLDER"),
        (
            resumed and changed,
            "a sweep is resumed as it began: leave --simulated and the narrowing options out",
        ),
    ):
        if wrong:
            raise click.UsageError(told)


def asked_for(path: Path, only: options.Only, here: bool) -> Matrix:
    """The matrix of a file, narrowed, with absolute paths; `here` is where its paths must exist."""
    narrowed = matrices.narrow(matrices.load(path), *astuple(only))
    if here:  # the nodes of a cluster may have what is not here
        matrices.check_paths(narrowed)
    return matrices.localise(narrowed)


def end_at_once() -> NoReturn:
    """End while Ray starts, where a call of Ray holds up the main thread."""
    terminal.say("interrupted")
    folders.give_up()
    os._exit(INTERRUPTED)


def abandon(folder: Results, why: str) -> NoReturn:
    """Conclude without Ray, whose calls would wait for what is lost, or is being ended too.

    A cluster ends by itself what a driver has left behind.
    """
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # the thread that came first ends the process
    if threading.current_thread() is threading.main_thread():
        # Slurm sends it to each process of a job, and again to the job: what is merged is kept.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = INTERRUPTED
    try:
        # A session keeps standard output from Ray, and the main thread may be within one.
        with contextlib.redirect_stdout(sys.__stdout__):
            terminal.say(why)
            code = conclude(folder, finished=False)
            sys.stdout.flush()
    except TensorgapError as failure:
        terminal.say(str(failure))
    finally:
        folders.give_up()
        os._exit(code)


def measure(
    folder: Results,
    asked: Matrix,
    retry_failed: bool,
    placement_timeout_s: float,
    quiet: bool,
    interrupts: Interrupts,
) -> bool:
    """Measure what is missing and keep each row at once; False where it was interrupted."""
    from cluster import attempts, driver

    interrupts.measuring(functools.partial(abandon, folder, _STOPPED))
    folder.restore()
    found, corrupt = folder.rows()
    reading.tell_corrupt(corrupt, "what it lacks is measured again")
    rows = attempts.known(found)
    due = {*Outcome} - {Outcome.OK} if retry_failed else _TRY_AGAIN
    done = [row for row in rows if row.outcome not in due]
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
        abandon=lambda error: abandon(folder, str(error)),
    )
    try:
        # Closed before Ray is: it ends the actors that still run.
        with contextlib.closing(sweep) as events:
            try:
                with progress.display(asked, types, done, quiet) as show:
                    for event in events:
                        unplaced = getattr(event, "outcome", None) == Outcome.UNPLACED
                        if isinstance(event, Measurement | Profile) and not (
                            unplaced and event.key in told
                        ):
                            keep(folder, event)
                        show(event)
            except KeyboardInterrupt:
                abandon(folder, _STOPPED)
    except Exception as error:
        if not isinstance(error, HeadLostError):
            terminal.say(how_to_go_on(folder))
        raise
    return not interrupts.asked()


def keep(folder: Results, found: Measurement | Profile) -> None:
    """Write a row or a profile, and tell it once where it must wait for its place."""
    folder.write(replace(found, received_at=outcomes.now()))
    if trouble := folder.new_trouble():
        terminal.say(trouble)


def conclude(folder: Results, finished: bool) -> int:
    """Show the table, say where the Parquet is, and return the exit code."""
    from jobs.report import compare, table

    failure = None
    try:
        folder.settle(_PATIENCE_S if finished else 0.0)
    except TensorgapError as error:
        failure = error
    rows, corrupt = folder.rows()
    # Before it is merged: a full disk must not hide what was measured.
    reading.tell_corrupt(corrupt, "its row is missing")
    if len(rows) > _MOST_SHOWN:
        terminal.echo(f"{len(rows)} rows: tensorgap report {folder.shown} shows them")
    elif len(rows):
        cases = compare.compared(rows.records(samples=False))
        terminal.show(table.shown(cases, terminal.width(), terminal.coloured()))
    if failure:
        raise failure
    go_on = how_to_go_on(folder)
    if len(rows):
        try:
            terminal.echo("", location.shown(folder.finish(rows)))
        except TensorgapError as error:
            kept = f"the rows are kept in {PARTS}/; make room, then {go_on}"
            raise TensorgapError(f"{error}; {kept}") from error
    asked = folder.matrix()
    cells = matrices.cells(asked, folder.source.gpu_types)
    every = itertools.product(cells, asked.workloads, range(asked.sampling.replicates))
    missing = {*every}
    missing.difference_update(row.key for row in rows.asked())
    if missing and not finished:
        terminal.say(go_on)
        return INTERRUPTED
    if missing:
        terminal.say(f"{len(missing)} rows are missing; {go_on}")
    return 1 if missing or set(rows.keys["outcome"].unique().to_pylist()) - {Outcome.OK} else 0


def how_to_go_on(folder: Results) -> str:
    """The command that resumes this sweep."""
    hidden = folder.shown != folder.location
    hint = f" (with your credentials for {location.HIDDEN})" if hidden else ""
    return f"go on with: tensorgap sweep --resume {folder.shown}{hint}"


if __name__ == "__main__":
    # As `ray submit` runs it: a copy of this one file on the head, where a config of
    # cluster/configs has put the rest of the project.
    from jobs.cli import main

    main(["sweep", "--address", "auto", *sys.argv[1:]])
