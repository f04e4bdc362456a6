"""The driver: finds each block a GPU, listens, times out, turns failures into rows, ends all.

What breaks in the cluster costs a new attempt on another GPU of the type, if there is one; what
breaks in the measurement is the row. A Task's process ends with it, and a GPU is given back after
each block, so that two sweeps on one cluster take turns and never measure on the same GPU at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench import matrix as matrices
from bench.asked import CPU, Cell, Matrix
from bench.device.kinds import Card
from bench.measured import (
    TRIED_AGAIN,
    WAITING,
    Event,
    Measurement,
    Outcome,
    Placement,
    Profile,
    Quality,
    Sensor,
    Stage,
)
from bench.outcomes import DEVICE, PERPLEXITY, PROFILE, Request, failed
from cluster import lease as seats
from cluster import nodes, placement, schedule
from cluster import process as attempts
from cluster.lease import Seat
from cluster.process import Attempt, End
from cluster.schedule import Block, Key, Task, Use
from cluster.session import HeadLostError, head_answers

_POLL_S = 1.0
_SOON_S = 0.05  # between two looks while a seat is awaited, which takes milliseconds if one is free
_SAY_AFTER_S = 3.0  # of waiting for a seat
_HEAD_LIMIT_S = 20.0  # Ray itself ends the process, without a word to us, after 60 s
_TURN_S = 5.0  # longer than the loop of a sweep takes to look at the head again
# How long a GPU of the wrong type is held at the most: each of two sweeps may hold what the other
# waits for.
_HOLD_S = 120.0
_MOVE_S = 30.0  # how long a GPU is kept so that its next attempt comes onto another one


@dataclass
class _AtWork:
    """A block that has, or waits for, its seat."""

    tasks: deque[Task]
    seat: Seat
    attempt: Attempt | None = None
    said: bool = False  # that it waits


@dataclass
class _Known:
    """What one process measured and the next ones need not measure again."""

    qualities: dict[tuple[Cell, str], Quality] = field(default_factory=dict)  # by cell and model
    # By the UUID of the GPU and the version of its driver.
    sensors: dict[tuple[str, str | None], Sensor] = field(default_factory=dict)

    def learn(self, row: Measurement) -> None:
        if row.quality is not None:
            self.qualities[row.cell, row.workload.model] = row.quality
        uuid = row.device.uuid if row.device else None
        # A probe that failed took no time, and the next one may succeed.
        if row.sensor and row.sensor.probe_s is not None and uuid and row.software:
            self.sensors[uuid, row.software.driver] = row.sensor


def sweep(
    run: str,
    matrix: Matrix,
    types: Collection[str],
    *,
    done: Sequence[Measurement] = (),
    placement_timeout_s: float = 600.0,
    simulated: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    abandon: Callable[[HeadLostError], None] = lambda error: None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Event, None, None]:
    """Measure a matrix on the connected cluster; each row as it is done, each stage as it begins.

    Close the iterator before the connection to Ray: it ends the actors that still run.

    Args:
        run: the name that the rows carry.
        matrix: what to measure.
        types: GPU types that `auto` stands for.
        done: rows that exist already; they are not measured again, and their quality is used.
        placement_timeout_s: how long a type may wait for a device that others hold, or that an
            autoscaler starts.
        simulated: GPU cells may compute on the CPU of nodes with a stand-in for the driver.
        stopping: true: finish the tasks that run, start no other.
        abandon: called, in a thread of its own, where the head is lost while this one waits for
            it in a call of Ray, which after 60 s would end the process.
        clock: monotonic seconds.

    Raises:
        HeadLostError: the head of the cluster does not answer any longer.
    """
    sweep = _Sweep(run, matrix, types, done, placement_timeout_s, simulated, stopping, clock)
    with _watched(sweep, abandon):
        try:
            yield from sweep.events()
        finally:
            sweep.close()


def offers() -> dict[str, placement.Offer]:
    """What the connected cluster offers of each GPU type."""
    return placement.offers(*nodes.present())


@contextlib.contextmanager
def _watched(sweep: _Sweep, abandon: Callable[[HeadLostError], None]) -> Iterator[None]:
    """Abandon a sweep that cannot find out by itself that the head is lost."""
    over = threading.Event()

    def watch() -> None:
        answered = sweep.clock()
        while not over.wait(_POLL_S):
            now = sweep.clock()
            if now - sweep.heard <= _TURN_S or head_answers():
                answered = now
            elif now - answered > _HEAD_LIMIT_S:
                abandon(_head_lost())
                return

    threading.Thread(target=watch, name="head watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _head_lost() -> HeadLostError:
    return HeadLostError(
        f"Ray's head has not answered for {_HEAD_LIMIT_S:g} s: it crashed, was ended, or cannot be"
        " reached"
    )


class _Sweep:
    """The state of a sweep that runs."""

    def __init__(
        self,
        run: str,
        matrix: Matrix,
        types: Collection[str],
        done: Sequence[Measurement],
        placement_timeout_s: float,
        simulated: bool,
        stopping: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.run, self.matrix, self.simulated = run, matrix, simulated
        self.placement_timeout_s, self.stopping, self.clock = placement_timeout_s, stopping, clock
        self.known = _Known()
        for old in done:
            # Only what was measured: why there was no perplexity may not hold any longer.
            kept = old if old.quality and old.quality.nats else replace(old, quality=None)
            self.known.learn(kept)
        cells = matrices.cells(matrix, types)
        self.queues = schedule.plan(cells, matrix, {m.key for m in done})
        self.at_work: list[_AtWork] = []
        self.lost: list[Seat] = []  # held, so that nobody gets a GPU that does not answer
        self.left: list[tuple[Seat, float]] = []  # held until then; see _move
        self.astray: list[tuple[Seat, float]] = []  # of another type than asked for; see _stray
        self.strayed: dict[str, float] = {}  # since when a type has been given other GPUs
        self.freed: dict[str, float] = {}  # when this sweep last gave back a seat of the type
        self.earlier: dict[Key, list[Measurement]] = {}  # rows of attempts that are tried again
        self.hosts: dict[str, str] = {}  # names of the nodes
        self.told: dict[str, tuple[Card, ...]] = {}  # GPUs of the nodes, as far as known
        self.wrong: list[placement.Mislabelled] = []
        self.heard = clock()  # when the head last answered
        self.silent_since: float | None = None  # when it first did not, since then

    @property
    def alone_on_host(self) -> bool:
        return self.matrix.placement.exclusive == "host"

    def events(self) -> Iterator[Event]:
        while self.at_work or (any(self.queues.values()) and not self.stopping()):
            if self._head_answers():
                if not self.stopping():
                    yield from self._ask()
                self._let_go()
                yield from self._seat()
            yield from self._listen()

    def close(self) -> None:
        if self.silent_since is not None:
            return  # there is nobody to tell; the head ends what a lost driver has left
        for block in self.at_work:
            if block.attempt:
                attempts.stop(block.attempt)
        aside = [seat for seat, _ in (*self.left, *self.astray)]
        for seat in (*(b.seat for b in self.at_work), *aside, *self.lost):
            seats.release(seat)

    def _head_answers(self) -> bool:
        """Whether the head can be asked; HeadLostError once it has been silent for too long."""
        answers, now = head_answers(), self.clock()
        if answers:
            self.heard, self.silent_since = now, None
        elif self.silent_since is None:
            self.silent_since = now
        elif now - self.silent_since > _HEAD_LIMIT_S:
            raise _head_lost()
        return answers

    # ------------------------------------------------------------------------------ seats

    def _ask(self) -> Iterator[Measurement]:
        """Ask for a seat for each block that may start; empty the queue of a type that has none."""
        if not any(self.queues.values()):
            return
        present = self._offers()
        for gpu_type, queue in self.queues.items():
            if queue and gpu_type not in present:
                vain = self._why_absent(gpu_type, present)
                if vain:
                    yield from self._unplaced(gpu_type, vain)
        for block in self._startable(self.queues, present):
            self.queues[block.gpu_type].remove(block)
            seat = self._seat_of(block.gpu_type, present)
            self.at_work.append(_AtWork(deque(block.tasks), seat))

    def _seat_of(self, gpu_type: str, present: Mapping[str, placement.Offer]) -> Seat:
        """A seat of a type: one that is held already, or one that is asked for."""
        held = self._held(gpu_type, present)
        if held:
            return held
        offer = present.get(gpu_type) or placement.to_be_started(gpu_type)
        occupied = [use for use in self._uses() if use.placed] if self.alone_on_host else []
        hosts = frozenset().union(*(use.hosts for use in occupied))
        nodes_there = {node for node, host in self.hosts.items() if host in hosts}
        return seats.ask(offer, nodes_there, self.clock())

    def _held(self, gpu_type: str, present: Mapping[str, placement.Offer]) -> Seat | None:
        """A seat of this type that Ray gave to whoever asked for another."""
        offer = present.get(gpu_type)
        hosts = schedule.free_hosts(offer, self._uses(), self.alone_on_host)
        for seat, end in self.astray:
            if (
                offer
                and seat.card
                and seat.card.is_a(gpu_type)
                and self._host_of(str(seat.node)) in hosts
            ):
                self.astray.remove((seat, end))
                seat.offer = replace(offer, num_cpus=seat.offer.num_cpus)
                return seat
        return None

    def _startable(
        self, queues: Mapping[str, Sequence[Block]], present: Mapping[str, placement.Offer]
    ) -> list[Block]:
        return schedule.startable(queues, self._uses(), present, self.alone_on_host)

    def _seat(self) -> Iterator[Event]:
        """Start the first process of each block whose seat is there; give up what waits in vain."""
        for block in [b for b in self.at_work if b.attempt is None]:
            seats.look(block.seat)
            if block.seat.node is None and self.astray:
                self._swap(block)
            if self.stopping():
                self._leave(block)
            elif block.seat.node is not None:
                self._start(block)
            else:
                yield from self._wait_on(block)

    def _swap(self, block: _AtWork) -> None:
        """Give a seat that is held to a block that waits for one of its type."""
        held = self._held(block.seat.offer.gpu_type, self._offers())
        if held:
            seats.release(block.seat)
            block.seat = held

    def _wait_on(self, block: _AtWork) -> Iterator[Event]:
        asked = block.seat.offer
        gpu_type = asked.gpu_type
        if any(
            u.placed and (u.gpu_type == gpu_type or u.hosts & asked.hosts) for u in self._uses()
        ):
            self.freed[gpu_type] = self.clock()  # what it waits for may be our own cell's
        # Counted from when our own cells last freed a device.
        waited_s = self.clock() - max(block.seat.since, self.freed.get(gpu_type, 0.0))
        if waited_s <= min(_SAY_AFTER_S, self.placement_timeout_s):
            return
        present, scaler = self._offers(), seats.autoscaler()
        offer = present.get(gpu_type)
        vain = None
        if waited_s > self.placement_timeout_s:
            vain = self._why_not_in_time(gpu_type)
        elif offer is None:
            vain = self._why_absent(gpu_type, present)
            if block.seat.group.id.hex() in scaler.infeasible:
                vain = f"{self._why_unplaced(gpu_type, present)}; no autoscaler starts one"
        elif offer.selector() != asked.selector():
            # A node of its type has come or gone, or is not what its label says: it asks again.
            self.queues[gpu_type].appendleft(Block(gpu_type, tuple(block.tasks)))
            self._leave(block)
            return
        if vain:
            self.queues[gpu_type].appendleft(Block(gpu_type, tuple(block.tasks)))
            self._leave(block)
            yield from self._unplaced(gpu_type, vain)
        elif not block.said:
            block.said = True
            task = block.tasks[0]
            if scaler.starting:
                why = f"the autoscaler starts {', '.join(scaler.starting)}"
            else:
                why = "others hold it" if gpu_type in present else "the autoscaler is asked"
            yield Stage(task.cell, task.workloads[0], task.replicate, WAITING, why)

    def _why_not_in_time(self, gpu_type: str) -> str:
        return (
            f"no {gpu_type} became free within --placement-timeout"
            f" {self.placement_timeout_s:g}; resume later, or raise it"
            f"{placement.false_labels(gpu_type, self.wrong)}"
        )

    def _why_unplaced(self, gpu_type: str, present: Collection[str]) -> str:
        return placement.why_unplaced(gpu_type, present, self.wrong)

    def _why_absent(self, gpu_type: str, present: Mapping[str, placement.Offer]) -> str | None:
        """Why a type without a node has no place; None where an autoscaler may start one."""
        if any(seat.offer.gpu_type == gpu_type for seat in self.lost):
            return f"the last {gpu_type} of the cluster was lost"
        if gpu_type != CPU and seats.autoscaler().present:
            return None
        return self._why_unplaced(gpu_type, present)

    def _unplaced(self, gpu_type: str, reason: str) -> Iterator[Measurement]:
        """Empty a queue: a row for each measurement that has no place."""
        queue = self.queues[gpu_type]
        while queue:
            for task in queue.popleft().tasks:
                request = self._request(task, None)
                for workload in task.workloads:
                    row = failed(request, workload, Outcome.UNPLACED, reason)
                    before = self.earlier.pop(row.key, None)
                    if before:  # what an attempt found says more than that there is no other
                        words = f"{before[-1].reason}; no other attempt: {reason}"
                        row = replace(before[-1], reason=words)
                    yield row

    def _leave(self, block: _AtWork) -> None:
        self.at_work.remove(block)
        if block.seat not in self.lost:
            self._give_back(block.seat)

    def _give_back(self, seat: Seat) -> None:
        seats.release(seat)
        self.freed[seat.offer.gpu_type] = self.clock()

    def _let_go(self, gpu_type: str | None = None) -> None:
        """Give back what was left behind, if its time is over or one of its type has a new seat."""
        for seat, end in list(self.left):
            if self.clock() > end or gpu_type == seat.offer.gpu_type:
                self.left.remove((seat, end))
                self._give_back(seat)
        unsure = {
            block.seat.offer.gpu_type
            for block in self.at_work
            if block.attempt is None or block.attempt.stage in (attempts.STARTING, DEVICE)
        }
        for seat, end in list(self.astray):
            if self.clock() > end or seat.offer.gpu_type not in unsure:
                self.astray.remove((seat, end))
                seats.release(seat)
        self.strayed = {name: since for name, since in self.strayed.items() if name in unsure}

    def _offers(self) -> dict[str, placement.Offer]:
        """What the cluster offers, without the GPUs that were lost."""
        import ray

        found = ray.nodes()
        self.told.update(nodes.told(n for n in found if n["NodeID"] not in self.told))
        self.hosts = {node["NodeID"]: placement.host_of(node) for node in found}
        self.wrong = placement.mislabelled(found, self.told)
        alive = {node["NodeID"] for node in found if node["Alive"]}
        # Ray would look for another GPU for what is held on a node that is gone.
        for seat in [seat for seat in self.lost if seat.node not in alive]:
            self.lost.remove(seat)
            seats.release(seat)
        for seat, end in [aside for aside in self.astray if aside[0].node not in alive]:
            self.astray.remove((seat, end))
            seats.release(seat)
        present = placement.offers(found, self.told, self.queues)
        lost = Counter(seat.offer.gpu_type for seat in self.lost)
        kept = {name: replace(o, devices=o.devices - lost[name]) for name, o in present.items()}
        return {name: offer for name, offer in kept.items() if offer.devices > 0}

    def _is_alive(self, seat: Seat, present: Mapping[str, placement.Offer]) -> bool:
        offer = present.get(seat.offer.gpu_type)
        return offer is not None and seat.node in offer.nodes

    def _uses(self) -> list[Use]:
        held = [b.seat for b in self.at_work if b.seat not in self.lost]
        return [
            Use(
                seat.offer.gpu_type,
                frozenset({self._host_of(seat.node)}) if seat.node else seat.offer.hosts,
                placed=seat.node is not None,
            )
            for seat in (*held, *(seat for seat, _ in self.left))
        ]

    def _host(self, block: _AtWork) -> str:
        return self._host_of(str(block.seat.node))

    def _host_of(self, node: str) -> str:
        if node not in self.hosts:
            self._offers()
        return self.hosts.get(node, node)

    # ------------------------------------------------------------------------------ processes

    def _start(self, block: _AtWork) -> None:
        self._let_go(block.seat.offer.gpu_type)
        request = self._request(block.tasks[0], block.seat)
        block.attempt = attempts.start(request, block.seat, self.clock())
        beside = self._beside(block)
        block.attempt.neighbours = set(map(_name, beside))
        for other in beside:
            other.neighbours.add(_name(block.attempt))

    def _beside(self, block: _AtWork) -> list[Attempt]:
        """What of the sweep runs on the same host now."""
        return [
            other.attempt
            for other in self.at_work
            if other.attempt and other is not block and self._host(other) == self._host(block)
        ]

    def _listen(self) -> Iterator[Event]:
        """Take what the processes say, and end what takes too long."""
        at_work = [(b, b.attempt) for b in self.at_work if b.attempt]
        since = [b.seat.since for b in self.at_work if b.attempt is None]
        soon = any(self.clock() - asked <= _SAY_AFTER_S for asked in since)
        if not at_work:
            time.sleep(_SOON_S if soon else _POLL_S)
            return
        ready = attempts.ready([a for _, a in at_work], _SOON_S if soon else _POLL_S)
        now = self.clock()  # whoever takes a row may take long to keep it
        for block, attempt in at_work:
            if attempt in ready:
                found = attempts.next_event(attempt, now)
            else:
                found = attempts.overdue(attempt, now)
            if isinstance(found, Stage | Profile):
                yield found
            elif isinstance(found, Measurement):
                lost = found.outcome == Outcome.LOST
                if lost:
                    # Held to the end of the sweep: whoever got it next would lose it again.
                    self.lost.append(block.seat)
                yield from self._settle(block, found, of_the_cluster=lost)
            elif found:
                yield from self._end(block, attempt, found)
            if attempt.ended and block.attempt is attempt:
                self._go_on(block, attempt)

    def _end(self, block: _AtWork, attempt: Attempt, end: End) -> Iterator[Event]:
        """What an end before its time costs: an attempt, the row in work, or the perplexity."""
        attempt.ended = True
        if end.given:
            yield from self._stray(block, attempt, end.given, end.reason)
            return
        # The evidence was in work, whose rows are there already; what is left after a row in which
        # something broke had not begun.
        if not attempt.left or attempt.stage == PROFILE:
            if end.of_the_cluster:
                self._move(block, attempt)
            return
        again = end.of_the_cluster and self._may_try(attempt)
        if attempt.stage == PERPLEXITY and not again:
            # It costs no row: the times can still be measured.
            model, text = attempt.left[0].model, self.matrix.quality.text
            reason = f"{end.outcome}: {end.reason}"
            self.known.qualities[attempt.request.cell, model] = Quality(text, reason=reason)
        else:
            yield from self._settle(block, attempts.row(attempt, end), end.of_the_cluster)

    def _stray(self, block: _AtWork, attempt: Attempt, given: Card, reason: str) -> Iterator[Event]:
        """Put a block whose GPU is of another type back into its queue: it measured nothing there.

        The GPU is held until the next seat has proved right, so that Ray gives another, or until a
        block of its type takes it.
        """
        attempts.stop(attempt)
        self.at_work.remove(block)
        seat, node = block.seat, str(block.seat.node)
        if given.uuid not in {card.uuid for card in self.told.get(node, ())}:
            self.told[node] = (given, *self.told.get(node, ()))
            task = attempt.request
            why = f"{reason}; the label of its node is wrong"
            yield Stage(task.cell, task.workloads[0], task.replicate, TRIED_AGAIN, why)
        gpu_type, now = seat.offer.gpu_type, self.clock()
        seat.card = given
        self.astray = [
            (held, now + _HOLD_S if held.offer.gpu_type == gpu_type else end)
            for held, end in (*self.astray, (seat, now))
        ]
        self.queues[gpu_type].appendleft(Block(gpu_type, tuple(block.tasks)))
        if now - self.strayed.setdefault(gpu_type, now) > self.placement_timeout_s:
            vain = f"{self._why_not_in_time(gpu_type)}; {reason}"
            yield from self._unplaced(gpu_type, vain)

    def _settle(self, block: _AtWork, row: Measurement, of_the_cluster: bool) -> Iterator[Event]:
        """Give a row away, or keep it as an earlier attempt of the one that is to come."""
        attempt = block.attempt
        assert attempt is not None
        again = of_the_cluster and self._may_try(attempt)
        before = self.earlier.pop(row.key, [])
        where = Placement(
            node=str(block.seat.node),
            host=self._host(block),
            attempt=len(before) + 1,
            earlier=tuple(f"{m.outcome}: {m.reason}" for m in before),
            neighbours=tuple(sorted(attempt.neighbours)),
        )
        row = replace(row, placement=where)
        if again:
            self.earlier[row.key] = [*before, row]
            why = f"{row.outcome}: {row.reason}"
            yield Stage(row.cell, row.workload, row.replicate, TRIED_AGAIN, why)
        else:
            attempt.left.remove(row.workload)
            attempt.neighbours = set(map(_name, self._beside(block)))
            self.known.learn(row)
            yield row
        if of_the_cluster:
            self._move(block, attempt)

    def _may_try(self, attempt: Attempt) -> bool:
        """Whether the measurement in work may have another attempt."""
        request = attempt.request
        tried = self.earlier.get((request.cell, attempt.left[0], request.replicate), ())
        return len(tried) < self.matrix.placement.retries and not self.stopping()

    def _move(self, block: _AtWork, attempt: Attempt) -> None:
        """After a fault of the cluster, what is left of a block goes back into its queue.

        Its old GPU is held for a while if another is spare, so that it gets that one.
        """
        attempts.stop(attempt)
        block.attempt = None
        self.at_work.remove(block)
        tasks = _rest(block, attempt)
        gpu_type = block.seat.offer.gpu_type
        if tasks:
            self.queues[gpu_type].appendleft(Block(gpu_type, tasks))
        if block.seat in self.lost:
            return
        present = self._offers()
        self.left.append((block.seat, self.clock() + _MOVE_S))
        if not self._is_alive(block.seat, present) or not self._startable(
            {gpu_type: self.queues[gpu_type]}, present
        ):
            self.left.pop()
            self._give_back(block.seat)

    def _go_on(self, block: _AtWork, attempt: Attempt) -> None:
        """After a process: the next one of the block on the same GPU."""
        attempts.stop(attempt)
        block.attempt = None
        block.tasks = deque(_rest(block, attempt))
        # Once its node is gone, Ray looks for another place for a seat by itself.
        block.seat.since = self.clock()
        if not block.tasks:
            self._leave(block)

    def _request(self, task: Task, seat: Seat | None) -> Request:
        of_cell = {m: q for (cell, m), q in self.known.qualities.items() if cell == task.cell}
        return Request(
            run=self.run,
            cell=task.cell,
            replicate=task.replicate,
            workloads=task.workloads,
            sampling=self.matrix.sampling,
            quality=self.matrix.quality,
            known_quality=of_cell,
            known_sensors=dict(self.known.sensors),
            threads=seat.offer.num_cpus if seat and task.cell.gpu_type == CPU else None,
            simulated=self.simulated,
        )


def _rest(block: _AtWork, attempt: Attempt) -> tuple[Task, ...]:
    """The tasks that a block still has after a process."""
    first, *others = block.tasks
    left = [replace(first, workloads=tuple(attempt.left))] if attempt.left else []
    return (*left, *others)


def _name(attempt: Attempt) -> str:
    return f"{attempt.request.cell}, replicate {attempt.request.replicate}"
