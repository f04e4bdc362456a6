"""The driver: finds each block a GPU, listens to its processes, and turns faults into rows.

What breaks in the cluster costs a new attempt on another GPU of the type, if there is one; what
breaks in the measurement is the row. A Task's process ends with it, and where anyone waits a GPU is
given back after each block: two sweeps take turns and never measure on the same GPU at once.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from bench import matrix as matrices
from bench.asked import CPU, Matrix
from bench.device.kinds import Card
from bench.measured import TRIED_AGAIN, WAITING, Event, Measurement, Outcome, Profile, Stage
from bench.outcomes import DEVICE, failed
from cluster import MEASURE, faults, head, lease, nodes, placement, process, schedule
from cluster.attempts import History
from cluster.faults import Cost, End
from cluster.lease import Seat, Seats, Why
from cluster.placement import Offer
from cluster.process import Attempt, AtWork
from cluster.schedule import Block, Queues, Use

_POLL_S = 1.0
_SOON_S = 0.05  # between two looks while a seat is awaited, which takes milliseconds if one is free
_SAY_AFTER_S = 3.0  # of waiting for a seat
# How long a GPU of the wrong type is held at the most: each of two sweeps may hold what the other
# waits for.
_HOLD_S = 120.0
_MOVE_S = 30.0  # how long a GPU is kept so that its next attempt comes onto another one


def sweep(
    run: str,
    matrix: Matrix,
    types: Collection[str],
    *,
    done: Sequence[Measurement] = (),
    placement_timeout_s: float = 600.0,
    simulated: bool = False,
    measure: str = MEASURE,
    stopping: Callable[[], bool] = lambda: False,
    abandon: Callable[[head.HeadLostError], None] = lambda error: None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Event, None, None]:
    """Measure a matrix on the connected cluster; each event as soon as it is known.

    Close the iterator before the connection to Ray: it ends the processes that still run.

    Args:
        run: the name that the rows carry.
        matrix: what to measure.
        types: GPU types that `auto` stands for.
        done: rows that exist already; they are not measured again, and their quality is used.
        placement_timeout_s: how long a type may wait for a device that others hold, or that an
            autoscaler starts.
        simulated: GPU cells may compute on the CPU of nodes with a stand-in for the driver.
        measure: what each process runs, as MODULE:FUNCTION.
        stopping: true: finish the tasks that run, start no other.
        abandon: called, in a thread of its own, where the head is lost while this one waits for
            it in a call of Ray, which after 60 s would end the process.
        clock: monotonic seconds.

    Raises:
        HeadLostError: the head of the cluster does not answer any longer.
    """
    queues = schedule.plan(matrices.cells(matrix, types), matrix, {row.key for row in done})
    history = History(run, matrix, simulated, done)
    running = _Sweep(matrix, queues, history, placement_timeout_s, measure, stopping, clock)
    with running.head.or_else(abandon):
        try:
            yield from running.events()
        finally:
            running.close()


def offers() -> dict[str, Offer]:
    """What the connected cluster offers of each GPU type."""
    return nodes.View().look()


class _Sweep:
    """A sweep that runs: what is in which queue, on which seat, in which process."""

    def __init__(
        self,
        matrix: Matrix,
        queues: Queues,
        history: History,
        placement_timeout_s: float,
        measure: str,
        stopping: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.queues, self.history, self.measure = queues, history, measure
        self.alone_on_host = matrix.placement.exclusive == "host"
        self.placement_timeout_s, self.stopping, self.clock = placement_timeout_s, stopping, clock
        self.head, self.view, self.seats = head.Watch(clock), nodes.View(), Seats(clock)
        self.at_work: list[AtWork] = []
        self.strayed: dict[str, float] = {}  # since when a type has been given other GPUs

    def events(self) -> Iterator[Event]:
        while self.at_work or (any(self.queues.values()) and not self.stopping()):
            if self.head.answers():
                if not self.stopping():
                    yield from self._ask()
                self._let_go()
                yield from self._seat()
            yield from self._listen()

    def close(self) -> None:
        if self.head.silent_since is not None:
            return  # there is no one to tell; the head ends what a lost driver has left
        for work in self.at_work:
            process.dismiss(work.actor)
            lease.release(work.seat)
        self.seats.let_go(lambda seat, why: True)

    def _ask(self) -> Iterator[Measurement]:
        """Ask for a seat for each block that may start; empty the queue of a type that has none."""
        if not any(self.queues.values()):
            return
        present = self._offers()
        for gpu_type, queue in self.queues.items():
            if queue and gpu_type not in present:
                yield from self._unplaced(gpu_type, self._why_absent(gpu_type, present))
        for block in self._startable(self.queues, present):
            gpu_type = block.gpu_type
            self.queues[gpu_type].remove(block)
            offer = present.get(gpu_type) or placement.to_be_started(gpu_type)
            seat = self._stray_of(gpu_type) or self._new_seat(offer)
            self.at_work.append(AtWork(deque(block.tasks), seat))

    def _new_seat(self, offer: Offer) -> Seat:
        occupied: set[str] = set()
        if self.alone_on_host:
            occupied.update(*(use.hosts for use in self._uses() if use.placed))
        return lease.ask(offer, self.view.nodes_of(occupied), self.clock())

    def _stray_of(self, gpu_type: str) -> Seat | None:
        """A seat of this type that Ray gave to whoever asked for another."""
        offer = self._offers().get(gpu_type) if self.seats.held(Why.STRAY) else None
        hosts = schedule.free_hosts(offer, self._uses(), self.alone_on_host)
        for seat in self.seats.held(Why.STRAY) if offer else ():
            right = seat.card and seat.card.is_a(gpu_type)
            if offer and right and self.view.host_of(str(seat.node)) in hosts:
                seat.offer = replace(offer, num_cpus=seat.offer.num_cpus)
                return self.seats.take(seat)
        return None

    def _startable(
        self, queues: Mapping[str, Sequence[Block]], present: Mapping[str, Offer]
    ) -> list[Block]:
        return schedule.startable(queues, self._uses(), present, self.alone_on_host)

    def _seat(self) -> Iterator[Event]:
        """Start the first process of each block whose seat is there; give up what waits in vain."""
        for work in [w for w in self.at_work if w.attempt is None]:
            lease.look(work.seat)
            if work.seat.node is None and (stray := self._stray_of(work.seat.gpu_type)):
                lease.release(work.seat)
                work.seat = stray
            if self.stopping():
                self._leave(work)
            elif work.seat.node is not None:
                self._start(work)
            else:
                yield from self._wait_on(work)

    def _wait_on(self, work: AtWork) -> Iterator[Event]:
        """Say once what a block waits for; give it up in time, or where it waits in vain."""
        asked, gpu_type = work.seat.offer, work.seat.gpu_type
        ours = any(
            u.placed and (u.gpu_type == gpu_type or u.hosts & asked.hosts) for u in self._uses()
        )
        waited_s = self.seats.waited_s(work.seat, ours)
        if waited_s <= min(_SAY_AFTER_S, self.placement_timeout_s):
            return
        present = self._offers()
        offer = present.get(gpu_type)
        vain = None
        if waited_s > self.placement_timeout_s:
            vain = self._why_not_in_time(gpu_type)
        elif offer is None:
            vain = self._why_absent(gpu_type, present, work.seat)
        if vain or (offer and offer.bundles() != asked.bundles()):
            # Asks again where a node of its type has come or gone, or is not what its label says.
            self._requeue(work)
            self._leave(work)
            yield from self._unplaced(gpu_type, vain)
        elif not work.said:
            work.said = True
            starting = lease.autoscaler().starting
            why = "others hold it" if offer else "the autoscaler is asked"
            if starting:
                why = f"the autoscaler starts {', '.join(starting)}"
            yield work.tasks[0].stage(WAITING, why)

    def _why_not_in_time(self, gpu_type: str) -> str:
        return placement.why_not_in_time(gpu_type, self.placement_timeout_s, self.view.wrong)

    def _why_absent(
        self, gpu_type: str, present: Collection[str], asked: Seat | None = None
    ) -> str | None:
        """Why a type without a node has no place; None where an autoscaler may start one."""
        if any(seat.gpu_type == gpu_type for seat in self.seats.held(Why.LOST)):
            return f"the last {gpu_type} of the cluster was lost"
        scaler = lease.autoscaler()
        why = placement.why_unplaced(gpu_type, present, self.view.wrong)
        if asked and asked.group.id.hex() in scaler.infeasible:
            return f"{why}; no autoscaler starts one"
        return None if scaler.present and gpu_type != CPU else why

    def _unplaced(self, gpu_type: str, reason: str | None) -> Iterator[Measurement]:
        """Empty a queue, if there is a reason to: a row for each measurement without a place."""
        while reason and self.queues[gpu_type]:
            for task in self.queues[gpu_type].popleft().tasks:
                yield from self.history.unplaced(task, reason)

    def _requeue(self, work: AtWork) -> None:
        """Put what is left of a block first in its queue."""
        if tasks := work.rest():
            self.queues[work.seat.gpu_type].appendleft(Block(work.seat.gpu_type, tasks))

    def _leave(self, work: AtWork) -> None:
        self._drop(work)
        self.seats.give_back(work.seat)

    def _drop(self, work: AtWork) -> None:
        process.dismiss(work.actor)
        self.at_work.remove(work)

    def _let_go(self, placed: str | None = None) -> None:
        """Give back what need not be held: one of its type has a new seat, or all proved right."""
        unsure = {
            work.seat.gpu_type
            for work in self.at_work
            if work.attempt is None or work.attempt.stage in (faults.STARTING, DEVICE)
        }
        self.strayed = {name: since for name, since in self.strayed.items() if name in unsure}
        self.seats.let_go(
            lambda seat, why: (
                (why is Why.MOVED and seat.gpu_type == placed)
                or (why is Why.STRAY and seat.gpu_type not in unsure)
            )
        )

    def _offers(self) -> dict[str, Offer]:
        """What the cluster offers, without the GPUs that were lost."""
        present = self.view.look(self.queues)
        # Ray would look for another GPU for what is held on a node that is gone.
        self.seats.let_go(lambda seat, why: seat.node not in self.view.alive)
        lost = Counter(seat.gpu_type for seat in self.seats.held(Why.LOST))
        kept = {name: replace(o, devices=o.devices - lost[name]) for name, o in present.items()}
        return {name: offer for name, offer in kept.items() if offer.devices > 0}

    def _uses(self) -> list[Use]:
        seats = [*(work.seat for work in self.at_work), *self.seats.held(Why.MOVED)]
        return [
            Use(
                seat.gpu_type,
                frozenset({self.view.host_of(seat.node)}) if seat.node else seat.offer.hosts,
                placed=seat.node is not None,
            )
            for seat in seats
        ]

    def _start(self, work: AtWork) -> None:
        self._let_go(work.seat.gpu_type)
        task = work.tasks[0]
        request = self.history.request(task, threads=max(1, work.seat.offer.num_cpus))
        work.actor = work.actor or process.hire(work.seat)
        work.attempt = process.start(work.actor, request, self.measure, self.clock())
        beside = self._beside(work)
        work.attempt.neighbours = set(map(str, beside))
        for other in beside:
            other.neighbours.add(str(work.attempt))

    def _host(self, work: AtWork) -> str:
        return self.view.host_of(str(work.seat.node))

    def _beside(self, work: AtWork) -> list[Attempt]:
        """What of the sweep runs on the same host now."""
        here = [other for other in self.at_work if self._host(other) == self._host(work)]
        return [other.attempt for other in here if other.attempt and other is not work]

    def _listen(self) -> Iterator[Event]:
        """Take what the processes say, and end what takes too long."""
        running = [(work, work.attempt) for work in self.at_work if work.attempt]
        awaited = [work.seat.since for work in self.at_work if work.attempt is None]
        soon = any(self.clock() - since <= _SAY_AFTER_S for since in awaited)
        pause_s = _SOON_S if soon else _POLL_S
        if not running:
            time.sleep(pause_s)
            return
        ready = process.ready([attempt for _, attempt in running], pause_s)
        now = self.clock()  # whoever takes a row may take long to keep it
        for work, attempt in running:
            found: Event | End | None = None
            if attempt in ready:
                found = process.next_event(attempt, now)
            elif found := faults.overdue(attempt.request, attempt.stage, now - attempt.since):
                process.end(attempt)
            if isinstance(found, Measurement | Profile):
                attempt.note(found)
            if isinstance(found, Stage | Profile):
                yield found
            elif isinstance(found, Measurement):
                lost = found.outcome == Outcome.LOST
                if lost:
                    self.seats.hold(work.seat, Why.LOST)
                yield from self._settle(work, attempt, found, lost and self._may_try(attempt))
                if lost:
                    yield from attempt.lost_profiles(f"{found.outcome}: {found.reason}")
                    self._move(work)
            elif found:
                yield from self._end(work, attempt, found)
            if attempt.ended and work in self.at_work:
                self._go_on(work, attempt)

    def _end(self, work: AtWork, attempt: Attempt, end: End) -> Iterator[Event]:
        """Pay what an end before its time costs, and move on."""
        attempt.ended = True
        yield from attempt.lost_profiles(f"{end.outcome}: {end.reason}")
        cost = faults.cost(end, attempt.stage, len(attempt.left), self._may_try(attempt))
        if cost is Cost.SEAT:
            assert end.given
            yield from self._stray(work, end.given, end.reason)
        elif cost is Cost.PERPLEXITY:
            reason = f"{end.outcome}: {end.reason}"
            self.history.give_up_quality(attempt.request.cell, attempt.left[0].model, reason)
        else:
            if cost is not Cost.NOTHING:
                row = failed(attempt.request, attempt.left[0], end.outcome, end.reason)
                yield from self._settle(work, attempt, row, again=cost is Cost.ATTEMPT)
            if end.of_the_cluster:
                self._move(work)

    def _may_try(self, attempt: Attempt) -> bool:
        """Whether the measurement in progress may have another attempt."""
        return self.history.may_try(attempt.request, attempt.left) and not self.stopping()

    def _settle(
        self, work: AtWork, attempt: Attempt, row: Measurement, again: bool
    ) -> Iterator[Event]:
        """Give a row away, or keep it as an earlier attempt of the one that is to come."""
        node, host = str(work.seat.node), self._host(work)
        row = self.history.placed(row, node, host, attempt.neighbours)
        if again:
            self.history.put_off(row)
            why = f"{row.outcome}: {row.reason}"
            yield Stage(row.cell, row.workload, row.replicate, TRIED_AGAIN, why)
        else:
            self.history.settle(row)
            attempt.left.remove(row.workload)
            attempt.neighbours = set(map(str, self._beside(work)))
            yield row

    def _stray(self, work: AtWork, given: Card, reason: str) -> Iterator[Event]:
        """Put a block whose GPU is of another type back into its queue: it measured nothing there.

        The GPU is held until the next seat proves right, or a block of its type takes it.
        """
        self._drop(work)
        seat, gpu_type, now = work.seat, work.seat.gpu_type, self.clock()
        seat.card = given
        self.seats.hold(seat, Why.STRAY, _HOLD_S)
        self._requeue(work)
        if self.view.learn(str(seat.node), given):
            yield work.tasks[0].stage(TRIED_AGAIN, f"{reason}; the label of its node is wrong")
        if now - self.strayed.setdefault(gpu_type, now) > self.placement_timeout_s:
            yield from self._unplaced(gpu_type, f"{self._why_not_in_time(gpu_type)}; {reason}")

    def _move(self, work: AtWork) -> None:
        """After a fault of the cluster, what is left of a block goes back into its queue.

        Its old GPU is held for a while if another is spare: it gets that one.
        """
        self._drop(work)
        self._requeue(work)
        if work.seat in self.seats.held(Why.LOST):
            return
        gpu_type = work.seat.gpu_type
        self.seats.hold(work.seat, Why.MOVED, _MOVE_S)
        if not self._startable({gpu_type: self.queues[gpu_type]}, self._offers()):
            self.seats.let_go(lambda seat, why: seat is work.seat)

    def _go_on(self, work: AtWork, attempt: Attempt) -> None:
        """After a process: the next one on its GPU, of its block or of the next of the type."""
        work.tasks, work.attempt = deque(work.rest()), None
        work.actor = None if attempt.orphaned else work.actor
        # Once its node is gone, Ray looks for another place for a seat by itself.
        work.seat.since = self.clock()
        queue = self.queues[work.seat.gpu_type]  # a new seat and actor would take 2 s
        if not work.tasks and queue and not self.stopping() and not lease.anything_waits():
            work.tasks.extend(queue.popleft().tasks)
        if not work.tasks:
            self._leave(work)
