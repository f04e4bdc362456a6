"""What runs next: the plan of a matrix, and which blocks may start beside those that run."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given
from sweeps import TINY, TINY_8, a_matrix

from bench.asked import CPU, Cell, Workload
from cluster import schedule
from cluster.placement import Offer
from cluster.schedule import Block, Use

PRECISIONS = ("fp32", "fp16", "bf16", "mixed")
CELLS = [Cell(gpu_type, precision) for gpu_type in ("T4", "A100") for precision in PRECISIONS]


def test_the_precisions_of_a_type_and_replicate_are_one_block_in_random_order() -> None:
    matrix = replace(a_matrix(TINY, replicates=6), text="seed")
    queues = schedule.plan(CELLS, matrix, done=())
    assert set(queues) == {"T4", "A100"}
    for gpu_type, blocks in queues.items():
        assert [{t.replicate for t in block.tasks} for block in blocks] == [{r} for r in range(6)]
        for block in blocks:
            assert sorted(t.cell for t in block.tasks) == sorted(
                cell for cell in CELLS if cell.gpu_type == gpu_type
            )
        assert len({tuple(t.cell for t in block.tasks) for block in blocks}) > 1
    assert schedule.plan(CELLS, matrix, done=()) == queues  # the same when it is resumed


def test_without_pairs_each_task_is_a_block() -> None:
    matrix = a_matrix(TINY, replicates=2)
    matrix = replace(matrix, placement=replace(matrix.placement, paired=False))
    queues = schedule.plan(CELLS, matrix, done=())
    assert [len(block.tasks) for block in queues["T4"]] == [1] * 8


def test_what_is_done_is_not_planned() -> None:
    matrix = a_matrix(TINY, TINY_8)
    every = {(cell, w, 0) for cell in CELLS for w in (TINY, TINY_8)}
    left = {(CELLS[0], TINY, 0), (CELLS[1], TINY_8, 0)}
    (block,) = schedule.plan(CELLS, matrix, done=every - left)["T4"]
    assert {(t.cell, w, t.replicate) for t in block.tasks for w in t.workloads} == left
    assert schedule.plan(CELLS, matrix, done=every) == {}


def test_workloads_of_one_model_stand_together_so_that_it_is_loaded_once() -> None:
    other = Workload("gpt2:random", "eager", 1, 32)
    (block,) = schedule.plan([Cell(CPU, "fp32")], a_matrix(TINY, other, TINY_8), done=())[CPU]
    assert [w.model for w in block.tasks[0].workloads] == ["tiny", "tiny", "gpt2:random"]


def offer(gpu_type: str, **gpus: int) -> Offer:
    """What nodes with so many GPUs each offer."""
    return Offer(gpu_type, sum(gpus.values()), 1, 1, nodes=frozenset(gpus), hosts=frozenset(gpus))


def queue(gpu_type: str, count: int) -> deque[Block]:
    task = schedule.Task(Cell(gpu_type, "fp32"), 0, (TINY,))
    return deque(Block(gpu_type, (replace(task, replicate=r),)) for r in range(count))


def test_as_many_blocks_start_as_a_type_has_gpus() -> None:
    queues = {"T4": queue("T4", 5), "A100": queue("A100", 5)}
    offers = {"T4": offer("T4", a=2, b=1), "A100": offer("A100", c=1)}
    started = schedule.startable(queues, [Use("T4", frozenset("a"), True)], offers, False)
    assert started == [*list(queues["T4"])[:2], queues["A100"][0]]


def test_a_type_that_an_autoscaler_may_start_is_asked_for_once() -> None:
    queues = {"T4": queue("T4", 5)}
    assert len(schedule.startable(queues, [], {}, False)) == 1
    assert schedule.startable(queues, [Use("T4", frozenset(), False)], {}, False) == []


def test_alone_on_a_host_one_waits_for_a_place_before_the_next_is_asked_for() -> None:
    queues = {"T4": queue("T4", 5)}
    offers = {"T4": offer("T4", a=2, b=2)}
    assert len(schedule.startable(queues, [], offers, True)) == 1
    on_a = Use("T4", frozenset("a"), True)
    assert len(schedule.startable(queues, [on_a], offers, True)) == 1
    assert schedule.startable(queues, [on_a, Use("T4", frozenset("b"), True)], offers, True) == []
    assert schedule.startable(queues, [Use("T4", frozenset("ab"), False)], offers, True) == []


def test_alone_on_a_host_counts_all_nodes_of_it() -> None:
    """Two Ray nodes on one machine, each with GPUs of another type."""
    queues = {"T4": queue("T4", 1), "A100": queue("A100", 1)}
    one_host = {
        kind: replace(offer(kind, **{node: 1}), hosts=frozenset({"host"}))
        for kind, node in (("T4", "a"), ("A100", "b"))
    }
    assert schedule.startable(queues, [], one_host, True) == [queues["T4"][0]]
    on_it = [Use("T4", frozenset({"host"}), True)]
    assert schedule.startable({"A100": queues["A100"]}, on_it, one_host, True) == []
    assert len(schedule.startable(queues, [], one_host, False)) == 2


@given(st.data())
def test_whatever_runs_no_gpu_and_no_host_is_shared_and_something_always_starts(
    data: st.DataObject,
) -> None:
    """A random cluster, a random order in which Ray places and blocks end."""
    alone = data.draw(st.booleans())
    kinds = ("T4", "A100", CPU)
    gpus = {n: data.draw(st.integers(1, 3)) for n in "abcd"}
    of_type = {n: data.draw(st.sampled_from(("T4", "A100"))) for n in gpus}
    offers = {
        kind: offer(kind, **{n: g for n, g in gpus.items() if of_type[n] == kind})
        for kind in ("T4", "A100")
        if kind in of_type.values()
    } | {CPU: offer(CPU, a=1)}
    queues = {k: queue(k, data.draw(st.integers(0, 4))) for k in kinds if k in offers}
    uses: list[Use] = []
    for _ in range(200):
        started = schedule.startable(queues, uses, offers, alone)
        for block in started:
            queues[block.gpu_type].remove(block)
            hosts = schedule.free_hosts(offers[block.gpu_type], uses, alone)
            uses.append(Use(block.gpu_type, hosts, False))
        if not uses:
            break
        change = data.draw(st.integers(0, len(uses) - 1))
        if uses[change].placed:
            del uses[change]
        else:  # Ray takes any node that the request allows and that has a GPU left
            kind = uses[change].gpu_type
            taken = Counter(min(u.hosts) for u in uses if u.placed and u.gpu_type == kind)
            room = [n for n in sorted(uses[change].hosts) if kind == CPU or taken[n] < gpus[n]]
            assert room
            node = data.draw(st.sampled_from(room))
            uses[change] = Use(kind, frozenset(node), True)
        assert all(sum(u.gpu_type == k for u in uses) <= offers[k].devices for k in offers)
        if alone:
            hosts_of_placed = [min(u.hosts) for u in uses if u.placed]
            assert len(set(hosts_of_placed)) == len(hosts_of_placed)
    assert not any(queues.values())
