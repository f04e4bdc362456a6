"""What runs next, and how many at once: pure functions of the matrix, the queues and the GPUs.

A Task is one fresh process: one cell, one replicate, and the workloads that are still to measure. A
Block is what one GPU measures without a pause, one task after the other: by default all precisions
of a type within a replicate, in random order, so that precisions are compared on one GPU and a slow
drift of the machine favours none. The blocks of a type run on as many of its GPUs as there are.
"""

import random
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.asked import Cell, Matrix, Workload
from bench.measured import Stage
from cluster.placement import Offer

Key = tuple[Cell, Workload, int]
Queues = dict[str, deque["Block"]]


@dataclass(frozen=True)
class Task:
    """What one fresh process is to measure."""

    cell: Cell
    replicate: int
    workloads: tuple[Workload, ...]

    def stage(self, name: str, why: str) -> Stage:
        """Something unusual about it, in the place of a stage."""
        return Stage(self.cell, self.workloads[0], self.replicate, name, why)


@dataclass(frozen=True)
class Block:
    """What is measured on one GPU, one task after the other."""

    gpu_type: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Use:
    """One GPU that a block has or has asked for."""

    gpu_type: str
    hosts: frozenset[str]  # where it is, or may come to be
    placed: bool


def plan(cells: Sequence[Cell], matrix: Matrix, done: Collection[Key]) -> Queues:
    """Blocks for each GPU type, without what is done, in the order to run them."""
    shuffled = random.Random(matrix.text)
    models = [workload.model for workload in matrix.workloads]
    queues: Queues = {}
    for replicate in range(matrix.sampling.replicates):
        order = list(cells)
        shuffled.shuffle(order)
        blocks: dict[object, list[Task]] = {}
        for cell in order:
            left = [w for w in matrix.workloads if (cell, w, replicate) not in done]
            # One load per model: its workloads stand together.
            left.sort(key=lambda w: models.index(w.model))
            if left:
                together = cell.gpu_type if matrix.placement.paired else cell
                blocks.setdefault(together, []).append(Task(cell, replicate, tuple(left)))
        for tasks in blocks.values():
            gpu_type = tasks[0].cell.gpu_type
            queues.setdefault(gpu_type, deque()).append(Block(gpu_type, tuple(tasks)))
    return queues


def startable(
    queues: Mapping[str, Sequence[Block]],
    uses: Iterable[Use],
    offers: Mapping[str, Offer],
    alone_on_host: bool,
) -> list[Block]:
    """The blocks, in the order of their queues, for which to ask for a GPU now.

    No type gets more blocks than it has GPUs; one that has none yet, which an autoscaler may start,
    gets one. With `alone_on_host`, no two blocks can come onto one host, which may have several
    nodes: what is not placed yet keeps others away from wherever it may come to be.
    """
    taken = list(uses)
    chosen: list[Block] = []
    for gpu_type, queue in queues.items():
        offer = offers.get(gpu_type)
        for block in queue:
            hosts = free_hosts(offer, taken, alone_on_host)
            full = sum(use.gpu_type == gpu_type for use in taken) >= (offer.devices if offer else 1)
            in_the_way = alone_on_host and (
                (offer and not hosts)
                or any(
                    use.hosts & hosts or use.gpu_type == gpu_type for use in taken if not use.placed
                )
            )
            if full or in_the_way:
                break
            taken.append(Use(gpu_type, hosts, placed=False))
            chosen.append(block)
    return chosen


def free_hosts(offer: Offer | None, uses: Iterable[Use], alone_on_host: bool) -> frozenset[str]:
    """The hosts on which one more block of this type may come to be."""
    hosts = offer.hosts if offer else frozenset()
    if not alone_on_host:
        return hosts
    return hosts.difference(*(use.hosts for use in uses if use.placed))
