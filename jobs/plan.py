"""`tensorgap plan`: what would run where, what cannot and why; starts nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from bench import inventory
from bench import matrix as matrices
from bench.records import Cell, Matrix, Outcome, Unsupported
from jobs import options, progress


@click.command("plan")
@click.argument("matrix", metavar="MATRIX", type=click.Path(path_type=Path))
@options.address
@options.narrowing
def command(
    matrix: Path,
    address: str | None,
    gpu_types: tuple[str, ...],
    precisions: tuple[str, ...],
    models: tuple[str, ...],
) -> int:
    """Show what a sweep of MATRIX would do, on this machine or on the cluster at --address.

    \b
    tensorgap plan jobs/matrices/study.toml
    tensorgap plan jobs/matrices/study.toml --address auto

    Exit codes: 0 every cell has a place; 1 some have none, or lack the precision; 2 bad input.
    """
    asked = matrices.narrow(matrices.load(matrix), gpu_types, precisions, models)
    present = _present(address)
    cells = matrices.cells(asked, present)
    rows = len(asked.workloads) * asked.sampling.replicates
    has = ", ".join(f"{count} {name}" for name, count in sorted(present.items()))
    click.echo(f"{asked.name}: {len(cells)} cells x {rows} rows; {_where(address)} has {has}\n")
    able = 0
    width = max((len(str(cell)) for cell in cells), default=0)
    for cell in cells:
        verdict, can_run = _verdict(cell, present, address is None)
        able += can_run
        click.echo(f"  {cell!s:{width}}  {verdict}")
    click.echo("")
    for workload in asked.workloads:
        click.echo(f"  {workload}")
    click.echo(f"\nat most {progress.duration(_longest_s(asked, cells, present))}{_beside(asked)}")
    return 0 if able == len(cells) else 1


def _present(address: str | None) -> Mapping[str, int]:
    """How many devices there are of each type."""
    if address is None:
        found: dict[str, int] = {}
        for processor in inventory.take().processors:
            found[processor.gpu_type] = found.get(processor.gpu_type, 0) + 1
        return found
    from cluster import driver
    from cluster.session import session

    with session(address):
        return {name: offer.devices for name, offer in driver.offers().items()}


def _verdict(cell: Cell, present: Mapping[str, int], here: bool) -> tuple[str, bool]:
    from cluster import placement

    if cell.gpu_type not in present:
        return f"{Outcome.UNPLACED}: {placement.why_unplaced(cell.gpu_type, present)}", False
    if not here:
        return "runs; whether that node has the precision and the torch build shows there", True
    try:
        doubt = inventory.weakness(cell.gpu_type, cell.precision)
    except Unsupported as error:
        return f"{Outcome.UNSUPPORTED}: {error}", False
    return (f"runs, with a doubt: {doubt}" if doubt else "runs"), True


def _longest_s(matrix: Matrix, cells: tuple[Cell, ...], present: Mapping[str, int]) -> float:
    """Types run at the same time, the cells of a type one after the other."""
    processes = {
        name: sum(cell.gpu_type == name for cell in cells) * matrix.sampling.replicates
        for name in present
    }
    each = len(matrix.workloads) * progress.longest_s(matrix.sampling) + progress.START_S
    return max(processes.values(), default=0) * each


def _beside(matrix: Matrix) -> str:
    return ", and the perplexity of each model once per cell" if matrix.quality.enabled else ""


def _where(address: str | None) -> str:
    return "this machine" if address is None else f"the cluster at {address}"
