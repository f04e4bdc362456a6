"""`tensorgap plan`: what would run where, what cannot and why; starts nothing heavy."""

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import click

from bench import inventory, lookup, memory, shelf
from bench import matrix as matrices
from bench.asked import CPU, RANDOM, Cell, Matrix
from bench.decoders import SHAPES, Shape
from bench.device import gpus, kinds, support
from bench.errors import TensorgapError, Unsupported
from bench.measured import Outcome
from cluster import placement
from cluster.session import session
from jobs import options, progress, terminal

_ALIKE = 0.85  # letters that two names share: a slip of the hand, as tinny for tiny
_MOST_LINES = 12  # of workloads that do not fit
_CONTEXT_BYTES = 500 * 2**20  # that CUDA and its libraries hold beside torch's tensors, and more


@dataclass(frozen=True)
class Place:
    """This machine or a cluster: what it has of each type, and whether it can get more."""

    types: Sequence[str]  # that `auto` stands for
    offers: Mapping[str, placement.Offer]  # of these types and of those asked for by name
    autoscaler: bool
    wrong: placement.Wrong
    cards: tuple[kinds.Card, ...] = ()  # as far as drivers told of them
    host_bytes: int | None = None  # memory of this machine; None of a cluster

    def memory_bytes(self, gpu_type: str) -> int | None:
        """The memory of the largest card of a type, or what its datasheet says; None: not known."""
        if gpu_type == CPU:
            return self.host_bytes
        told = [card.memory_bytes or 0 for card in self.cards if card.is_a(gpu_type)]
        rated = [int(board.memory_gb * 2**30) for board in gpus.boards(gpu_type)]
        return max(told, default=0) or max(rated, default=None)

    def size(self, gpu_type: str) -> str:
        """That memory in words: a card has less than its datasheet says, or is a smaller one."""
        gib = (self.memory_bytes(gpu_type) or 0) / 2**30
        told = gpu_type == CPU or any(card.is_a(gpu_type) for card in self.cards)
        return f"{gib:.1f} GiB" if told else f"at most {gib:.1f} GiB"

    def lanes(self, gpu_type: str, matrix: Matrix) -> int:
        """How many blocks of a type are measured at once; 1 of what is not there yet."""
        if gpu_type not in self.offers:
            return 1
        offer = self.offers[gpu_type]
        return len(offer.hosts) if matrix.placement.exclusive == "host" else offer.devices

    def hosts(self, gpu_types: Iterable[str]) -> dict[str, set[str]]:
        """The hosts that have some of these types, each with those that it has."""
        found: dict[str, set[str]] = {}
        for name in gpu_types:
            for host in self.offers[name].hosts if name in self.offers else ():
                found.setdefault(host, set()).add(name)
        return found


@dataclass(frozen=True)
class Remark:
    """What is said of a model or a workload, beside the line of each cell."""

    text: str
    outcome: Outcome | None = None  # of its rows, where that is certain

    def __str__(self) -> str:
        return f"{self.outcome}: {self.text}" if self.outcome else self.text


@click.command("plan")
@options.matrix()
@options.cluster
@options.narrowing
def command(matrix: Path, address: str | None, trust_local_users: bool, only: options.Only) -> int:
    """Show what a sweep of MATRIX would do, on this machine or on the cluster at --address.

    MATRIX is a TOML file, or the name of a shipped one: local, study, generations.

    \b
    tensorgap plan local
    tensorgap plan jobs/matrices/study.toml
    tensorgap plan jobs/matrices/study.toml --address auto

    Exit codes: 0 every cell can run; 1 some have no place, precision or memory; 2 bad input.
    """
    asked = matrices.narrow(matrices.load(matrix), *astuple(only))
    if address is None:  # the nodes of a cluster may have what is not here
        matrices.check_paths(asked)
    place = look(address, trust_local_users, asked)
    cells = matrices.cells(asked, place.types)
    rows = len(asked.workloads) * asked.sampling.replicates
    where = "this machine" if address is None else f"the cluster at {address}"
    has = ", ".join(f"{place.offers[name].devices} {name}" for name in sorted(place.types))
    counts = (
        f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((len(cells), "cell"), (rows, "row"))
    )
    terminal.echo(f"{asked.name}: {' x '.join(counts)}; {where} has {has}", "")
    for complaint in place.wrong:
        terminal.echo(f"warning: {complaint}", "")
    able, elsewhere = [], []
    alike: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        words, can_run = verdict(cell, place, address is None)
        if can_run:
            able.append(cell)
        elif cell.gpu_type not in place.offers and not lacking(cell):
            elsewhere.append(cell)
        alike.setdefault((cell.gpu_type, words), []).append(cell.precision)
    shapes, unknown = shapes_of(asked)
    unfit = list(misfits(asked, [*able, *elsewhere], place, shapes))
    names = [f"{gpu_type} {', '.join(found)}" for (gpu_type, _), found in alike.items()]
    width = max(map(len, names))
    terminal.echo(
        *(f"  {name:{width}}  {words}" for name, (_, words) in zip(names, alike, strict=True)),
        "",
        *(f"  {workload}" for workload in asked.workloads),
        *(f"  {line}" for line in unknown),
        "",
        *(f"  {line}" for line in shortened(unfit)),
        *([""] if unfit else []),
        *(f"  {line}" for line in rules(asked, cells, place)),
        "",
    )
    if able:
        longest = progress.duration(longest_s(asked, able, place))
        beside = ", and the perplexity of each model once per cell" if asked.quality.enabled else ""
        terminal.echo(f"at most about {longest}, plus loading, compiling and profiles{beside}")
    else:
        terminal.echo("none of its cells can be measured here")
    fails = any(remark.outcome for remark in (*unknown, *unfit))
    return 1 if fails or len(able) < len(cells) else 0


def look(address: str | None, trust_local_users: bool, asked: Matrix) -> Place:
    """What this machine, or the cluster at an address, has of the types that are asked for."""
    scaled = False
    if address is None:
        cards = inventory.visible_gpus()
        here = {"NodeID": "", "Alive": True, "Resources": {"CPU": 1, "GPU": len(cards)}}
        present: Sequence[Mapping[str, Any]] = [here]
        told: placement.Told = {"": cards}
    else:
        with session(address, trust_local_users):
            from cluster import lease, nodes

            present, told = nodes.present()
            scaled = lease.autoscaler().present
    types = placement.offers(present, told)
    named = {cell.gpu_type for cell in matrices.cells(asked, types)}
    offers = placement.offers(present, told, named)
    found = tuple(card for of_node in told.values() for card in of_node)
    host_bytes = shelf.memory_bytes() if address is None else None
    wrong = placement.mislabelled(present, told)
    return Place(tuple(types), offers, scaled, wrong, found, host_bytes)


def shapes_of(asked: Matrix) -> tuple[Mapping[str, Shape], Sequence[Remark]]:
    """The shapes of a matrix's models, and what is wrong with the others or not known of them."""
    shapes, remarks = {}, []
    for model in dict.fromkeys(workload.model for workload in asked.workloads):
        try:
            shape = lookup.shape_of(model)
        except Unsupported as error:
            remarks.append(Remark(str(error), Outcome.UNSUPPORTED))
        except TensorgapError as error:
            remarks.append(Remark(str(error), Outcome.FAILED))
        else:
            if shape is None:
                why = "it is no folder here, its name is not known, and the hub's cache has no"
                told = f"memory not predicted for {model}: {why} config.json of it{nearest(model)}"
                remarks.append(Remark(told))
            else:
                shapes[model] = shape
    return shapes, remarks


def nearest(model: str) -> str:
    """A question about a name that is nearly a known one, to end a sentence with."""
    names = {name.lower(): name for name in (*SHAPES, "tiny")}
    asked = model.rpartition("/")[2].removesuffix(RANDOM).lower()
    close = difflib.get_close_matches(asked, names, n=1, cutoff=_ALIKE)
    return f"; did you mean {names[close[0]]}?" if close else ""


def misfits(
    asked: Matrix, cells: Sequence[Cell], place: Place, shapes: Mapping[str, Shape]
) -> Iterator[Remark]:
    """Each workload that a cell has no memory for, or that the model has no positions for."""
    for workload in asked.workloads:
        shape = shapes.get(workload.model)
        if shape is None:
            continue
        if workload.prompt_tokens + workload.new_tokens > shape.longest:
            yield Remark(f"{workload}: the model {shape.limit}", Outcome.UNSUPPORTED)
            continue
        for cell in cells:
            held = place.memory_bytes(cell.gpu_type)
            capability = gpus.capability_of(cell.gpu_type) or (9, 0)
            needs = least = memory.on_gpu(shape, workload, cell.precision, capability)
            beside = _CONTEXT_BYTES
            if cell.gpu_type == CPU:  # where a file of 16 bits takes less while it is read
                needs, beside = memory.on_cpu(shape, workload, cell.precision), 0
            if held is None or needs.total_bytes * (1 + memory.WITHIN) + beside <= held:
                continue
            has = f"has {place.size(cell.gpu_type)}"
            text = f"{cell}: {workload}: needs about {needs}, and {has}"
            if least.total_bytes * (1 - memory.WITHIN) + beside > held:
                yield Remark(text, Outcome.OUT_OF_MEMORY)
            else:
                yield Remark(f"warning: may be out of memory: {text}")


def shortened(remarks: Sequence[Remark]) -> Sequence[str]:
    """The first of many remarks, and how many more there are."""
    lines, more = list(map(str, remarks)), len(remarks) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"... and {more} more"]


def lacking(cell: Cell) -> str | None:
    """Why no GPU of this type has the precision; None where one has, or its type is not known."""
    capability = gpus.capability_of(cell.gpu_type)
    try:
        if capability and gpus.arithmetic(cell.precision, capability).kind == "absent":
            support.gpu_warning(cell.precision, capability)
    except Unsupported as error:
        return str(error)
    return None


def verdict(cell: Cell, place: Place, here: bool) -> tuple[str, bool]:
    """What becomes of a cell, in words, and whether it can be measured."""
    lack = lacking(cell)
    if cell.gpu_type not in place.offers:
        if place.autoscaler and cell.gpu_type != CPU and not lack:
            return "waits for the autoscaler, which may have a node type for it", True
        why = placement.why_unplaced(cell.gpu_type, place.offers)
        return f"{Outcome.UNPLACED}: {why}{f'; besides, {lack}' if lack else ''}", False
    if not here:
        if lack:
            return f"{Outcome.UNSUPPORTED}: {lack}", False
        return "runs, if that node supports the precision and has a torch build for it", True
    try:
        warning = inventory.weakness(cell.gpu_type, cell.precision)
    except Unsupported as error:
        return f"{Outcome.UNSUPPORTED}: {error}", False
    return (f"runs, with a warning: {warning}" if warning else "runs"), True


def rules(matrix: Matrix, cells: Sequence[Cell], place: Place) -> Iterator[str]:
    """What shares a GPU or a host, and what a fault costs."""
    asked = matrix.placement
    if asked.paired:
        yield "paired: all precisions of a replicate on one GPU, in random order"
    else:
        yield "not paired: each precision on whichever GPU of its type is free"
    at_once = ", ".join(
        f"{min(number, place.lanes(gpu_type, matrix))} {gpu_type}"
        for gpu_type, number in blocks(matrix, cells).items()
        if gpu_type in place.offers or place.autoscaler
    )
    if at_once:
        alone = ", each alone on its host" if asked.exclusive == "host" else ""
        if alone and any(len(types) > 1 for types in place.hosts(blocks(matrix, cells)).values()):
            alone += "; the types of one host take turns"
        yield f"at once: {at_once}{alone}"
    often = {0: "never", 1: "once"}.get(asked.retries, f"{asked.retries} times")
    yield f"tried again after a lost process, GPU or node: {often}"


def blocks(matrix: Matrix, cells: Sequence[Cell]) -> dict[str, int]:
    """How many times a GPU of each type is taken."""
    paired, replicates = matrix.placement.paired, matrix.sampling.replicates
    number = Counter(cell.gpu_type for cell in cells)
    return {gpu_type: replicates * (1 if paired else n) for gpu_type, n in number.items()}


def longest_s(matrix: Matrix, cells: Sequence[Cell], place: Place) -> float:
    """Types run at the same time where they may, and so do the blocks of a type on its GPUs."""
    paired, of_type = matrix.placement.paired, Counter(cell.gpu_type for cell in cells)
    rounds = {
        name: math.ceil(number / place.lanes(name, matrix)) * (of_type[name] if paired else 1)
        for name, number in blocks(matrix, cells).items()
    }
    together = sum if matrix.placement.exclusive == "host" else max
    on_hosts = [
        # A CPU cell is always alone on its host.
        together([rounds[name] for name in types - {CPU}] or [0])
        + sum(rounds[name] for name in types & {CPU})
        for types in place.hosts(rounds).values()
    ]
    # What is not there yet comes on a host of its own.
    return progress.longest_process_s(matrix) * max(*rounds.values(), *on_hosts)
