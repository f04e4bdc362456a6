"""`tensorgap plan`: what would run where, what cannot and why; starts nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import inventory
from bench import matrix as matrices
from bench.asked import CPU, Cell, Matrix
from bench.errors import Unsupported
from bench.measured import Outcome
from jobs import options, progress, terminal

if TYPE_CHECKING:
    from cluster.placement import Told


@dataclass(frozen=True)
class Place:
    """This machine or a cluster: what it has of each type, and whether it can get more."""

    types: Sequence[str]  # that `auto` stands for
    devices: Mapping[str, int]  # of these types and of those asked for by name
    nodes: Mapping[str, int]  # that have the devices of a type
    autoscaler: bool = False
    wrong: Sequence[str] = ()  # nodes whose labels name other GPUs than they have

    def lanes(self, gpu_type: str, matrix: Matrix) -> int:
        """How many blocks of a type are measured at once; 1 of what is not there yet."""
        of_type = self.nodes if matrix.placement.exclusive == "host" else self.devices
        return of_type.get(gpu_type, 1)


@click.command("plan")
@options.matrix()
@options.cluster
@options.narrowing
def command(matrix: Path, address: str | None, trust_local_users: bool, only: options.Only) -> int:
    """Show what a sweep of MATRIX would do, on this machine or on the cluster at --address.

    MATRIX is a TOML file, or the name of one of ours: local, study, generations.

    \b
    tensorgap plan local
    tensorgap plan jobs/matrices/study.toml
    tensorgap plan jobs/matrices/study.toml --address auto

    Exit codes: 0 every cell has a place; 1 some have none, or lack the precision; 2 bad input.
    """
    asked = matrices.narrow(matrices.load(matrix), *astuple(only))
    if address is None:  # the nodes of a cluster may have what is not here
        matrices.check_paths(asked)
    place = look(address, trust_local_users, asked)
    cells = matrices.cells(asked, place.types)
    rows = len(asked.workloads) * asked.sampling.replicates
    where = "this machine" if address is None else f"the cluster at {address}"
    has = ", ".join(f"{place.devices[name]} {name}" for name in sorted(place.types))
    terminal.echo(f"{asked.name}: {len(cells)} cells x {rows} rows; {where} has {has}", "")
    for node in place.wrong:
        terminal.echo(f"warning: {node}", "")
    able = []
    alike: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        found, can_run = verdict(cell, place, address is None)
        if can_run:
            able.append(cell)
        alike.setdefault((cell.gpu_type, found), []).append(cell.precision)
    names = [f"{gpu_type} {', '.join(found)}" for (gpu_type, _), found in alike.items()]
    width = max(map(len, names))
    for name, (_, words) in zip(names, alike, strict=True):
        terminal.echo(f"  {name:{width}}  {words}")
    terminal.echo("")
    for workload in asked.workloads:
        terminal.echo(f"  {workload}")
    terminal.echo("")
    for line in rules(asked, cells, place):
        terminal.echo(f"  {line}")
    if able:
        longest = progress.duration(longest_s(asked, able, place))
        perplexity = ", and the perplexity of each model once per cell"
        beside = perplexity if asked.quality.enabled else ""
        terminal.echo("", f"at most about {longest}, plus loading, compiling and profiles{beside}")
    else:
        terminal.echo("", "none of its cells can be measured here")
    return 0 if len(able) == len(cells) else 1


def look(address: str | None, trust_local_users: bool, asked: Matrix) -> Place:
    """What this machine, or the cluster at an address, has."""
    from cluster import placement
    from cluster.session import session

    if address is None:
        cards = inventory.visible_gpus()
        here = {"NodeID": "", "Alive": True, "Resources": {"CPU": 1, "GPU": len(cards)}}
        return place_of(asked, [here], {"": cards})
    with session(address, trust_local_users):
        from cluster import lease, nodes

        present, told = nodes.present()
        wrong = tuple(map(str, placement.mislabelled(present, told)))
        scaled = lease.autoscaler().present
    return replace(place_of(asked, present, told), autoscaler=scaled, wrong=wrong)


def place_of(asked: Matrix, nodes: Sequence[Mapping[str, Any]], told: Told) -> Place:
    """What these nodes have of the types that a matrix asks for."""
    from cluster import placement

    types = placement.offers(nodes, told)
    named = {cell.gpu_type for cell in matrices.cells(asked, types)}
    offers = placement.offers(nodes, told, named)
    return Place(
        tuple(types),
        {name: offer.devices for name, offer in offers.items()},
        {name: len(offer.nodes) for name, offer in offers.items()},
    )


def verdict(cell: Cell, place: Place, here: bool) -> tuple[str, bool]:
    """What becomes of a cell, in words, and whether it can be measured."""
    from cluster import placement

    if cell.gpu_type not in place.devices:
        if place.autoscaler and cell.gpu_type != CPU:
            return "waits for the autoscaler, which may have a node type for it", True
        return f"{Outcome.UNPLACED}: {placement.why_unplaced(cell.gpu_type, place.devices)}", False
    if not here:
        return "runs, if that node supports the precision and has a torch build for it", True
    try:
        warning = inventory.weakness(cell.gpu_type, cell.precision)
    except Unsupported as error:
        return f"{Outcome.UNSUPPORTED}: {error}", False
    return (f"runs, with a warning: {warning}" if warning else "runs"), True


def rules(matrix: Matrix, cells: Sequence[Cell], place: Place) -> Iterator[str]:
    """What shares a GPU or a host, and what a fault costs."""
    if matrix.placement.paired:
        yield "paired: all precisions of a replicate on one GPU, in random order"
    else:
        yield "not paired: each precision on whichever GPU of its type is free"
    at_once = {
        cell.gpu_type: min(
            blocks_of(matrix, cells, cell.gpu_type), place.lanes(cell.gpu_type, matrix)
        )
        for cell in cells
        if cell.gpu_type in place.devices or place.autoscaler
    }
    alone = ", each alone on its host" if matrix.placement.exclusive == "host" else ""
    if at_once:
        yield f"at once: {', '.join(f'{n} {name}' for name, n in at_once.items())}{alone}"
    often = {0: "never", 1: "once"}.get(
        matrix.placement.retries, f"{matrix.placement.retries} times"
    )
    yield f"tried again after a lost process, GPU or node: {often}"


def blocks_of(matrix: Matrix, cells: Sequence[Cell], gpu_type: str) -> int:
    """How many times a GPU of the type is taken."""
    of_type = sum(cell.gpu_type == gpu_type for cell in cells)
    return matrix.sampling.replicates * (1 if matrix.placement.paired else of_type)


def longest_s(matrix: Matrix, cells: Sequence[Cell], place: Place) -> float:
    """Types run at the same time, and so do the blocks of a type on its GPUs."""
    each_s = progress.longest_process_s(matrix)
    longest_s = 0.0
    for gpu_type in {cell.gpu_type for cell in cells}:
        tasks = sum(cell.gpu_type == gpu_type for cell in cells) * matrix.sampling.replicates
        blocks = blocks_of(matrix, cells, gpu_type)
        rounds = math.ceil(blocks / place.lanes(gpu_type, matrix))
        longest_s = max(longest_s, rounds * tasks / blocks * each_s)
    return longest_s
