"""How long the driver waits, and for what: its loop on a virtual clock, over stand-ins for Ray."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import ray
from examples import measurement
from sweeps import TINY, a_matrix
from test_cluster_placement import node

from bench.asked import CPU, Matrix, PlacementPlan, Workload
from bench.device.kinds import Card
from bench.measured import TRIED_AGAIN, WAITING, Measurement, Outcome, Profile, Stage
from bench.measured.profiled import Trace
from bench.outcomes import DEVICE, PROFILE, Request
from cluster import driver, head, lease, nodes, process
from cluster.faults import End
from cluster.head import HeadLostError
from cluster.lease import Autoscaler, Seat
from cluster.placement import Offer
from cluster.process import Attempt


class Cluster:
    """What Ray would do: nodes with GPUs, some held by others, and rows that take a while."""

    def __init__(self, *nodes: dict[str, Any], row_s: float, others: int = 0) -> None:
        self.nodes = [n | {"NodeManagerHostname": n["NodeID"]} for n in nodes]
        self.row_s, self.others = row_s, others
        self.now = 0.0
        self.head_answers = True
        self.autoscaler = Autoscaler()
        self.seats: list[Seat] = []
        self.due: dict[int, float] = {}  # when the next event of an attempt is there
        self.fate: dict[str, Outcome] = {}  # of rows measured on a node
        self.told: dict[str, tuple[Card, ...]] = {}

    def ask(self, offer: Offer, occupied: Sequence[str], now: float) -> Seat:
        seat = Seat(offer, types.SimpleNamespace(id=types.SimpleNamespace(hex=str)), now)
        self.seats.append(seat)
        return seat

    def look(self, seat: Seat) -> None:
        """A seat needs a GPU that nobody holds, or all CPUs of a node that has no other seat."""
        if seat.node is None:
            held = Counter(s.node for s in self.seats)
            gpus = {n["NodeID"]: n["Resources"].get("GPU", 0) - self.others for n in self.nodes}
            for name in sorted(seat.offer.nodes or gpus):  # or whatever an autoscaler starts
                if held[name] < (gpus[name] if seat.offer.num_gpus else 1):
                    seat.node = name
                    return

    def anything_waits(self) -> bool:
        return any(seat.node is None for seat in self.seats)

    def release(self, seat: Seat) -> None:
        self.seats = [s for s in self.seats if s is not seat]

    def start(self, seat: Seat, request: Request, measure: str, now: float) -> Attempt:
        attempt = Attempt(request, seat, object(), now, list(request.workloads), "latency")
        self.due[id(attempt)] = now + self.row_s + len(self.due)  # no two at once
        return attempt

    def ready(self, attempts: Sequence[Attempt], timeout_s: float) -> list[Attempt]:
        found = [a for a in attempts if self.due[id(a)] <= self.now]
        if not found:
            self.now += timeout_s
        return found

    def next_event(self, attempt: Attempt, now: float) -> Measurement | None:
        attempt.since = now
        self.due[id(attempt)] = now + self.row_s
        if not attempt.left:
            attempt.ended = True
            return None
        asked = attempt.request
        outcome = self.fate.get(attempt.actor.node, Outcome.OK)
        attempt.ended = outcome == Outcome.LOST
        return measurement(
            cell=asked.cell, workload=attempt.left[0], replicate=asked.replicate, outcome=outcome
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a matrix on such a cluster and gives its events as they come."""

    def run(cluster: Cluster, matrix: Matrix, **options: Any) -> Iterator[Stage | Measurement]:
        for name in ("ask", "look", "release"):
            monkeypatch.setattr(lease, name, getattr(cluster, name))
        monkeypatch.setattr(lease, "autoscaler", lambda: cluster.autoscaler)
        monkeypatch.setattr(lease, "anything_waits", cluster.anything_waits)
        for name in ("start", "ready", "next_event"):
            monkeypatch.setattr(process, name, getattr(cluster, name))
        monkeypatch.setattr(process, "hire", lambda seat: seat)
        monkeypatch.setattr(process, "dismiss", lambda actor: None)
        monkeypatch.setattr(process, "end", lambda attempt: None)
        monkeypatch.setattr(head, "answers", lambda: cluster.head_answers)
        monkeypatch.setattr(driver.time, "sleep", cluster.sleep)
        monkeypatch.setattr(ray, "nodes", lambda: cluster.nodes)
        monkeypatch.setattr(nodes, "told", lambda nodes: cluster.told)
        return driver.sweep("run", matrix, (), clock=lambda: cluster.now, **options)

    return run


def rows(events: Iterator[Stage | Measurement]) -> list[Measurement]:
    return [event for event in events if isinstance(event, Measurement)]


def test_a_type_that_this_sweep_itself_holds_is_not_given_up(sweep: Any) -> None:
    # Of two T4, others hold one; a row takes longer than the time-out.
    cluster = Cluster(node("a", gpus=2, label="T4"), row_s=900, others=1)
    matrix = replace(a_matrix(TINY, replicates=3, timeout_s=1000), gpu_types=("T4",))
    found = rows(sweep(cluster, matrix, placement_timeout_s=600))
    assert [m.outcome for m in found] == [Outcome.OK] * 3


@pytest.mark.parametrize(("others_wait", "seats"), [(False, 1), (True, 4)])
def test_a_gpu_is_given_back_after_each_block_only_where_anyone_waits(
    sweep: Any, others_wait: bool, seats: int
) -> None:
    class Wanted(Cluster):
        asked = 0

        def ask(self, offer: Offer, occupied: Sequence[str], now: float) -> Seat:
            self.asked += 1
            return super().ask(offer, occupied, now)

        def anything_waits(self) -> bool:
            return others_wait

    cluster = Wanted(node("a", gpus=1, label="T4"), row_s=5)
    matrix = replace(a_matrix(TINY, replicates=4), gpu_types=("T4",))
    assert [m.outcome for m in rows(sweep(cluster, matrix))] == [Outcome.OK] * 4
    assert cluster.asked == seats
    assert cluster.seats == []


def test_the_cpu_waits_for_the_gpu_cells_of_its_host(sweep: Any) -> None:
    cluster = Cluster(node("a", gpus=1, label="T4"), row_s=900)
    matrix = replace(a_matrix(TINY, timeout_s=1000), gpu_types=("T4", CPU))
    found = rows(sweep(cluster, matrix, placement_timeout_s=600))
    assert {m.cell.gpu_type: m.outcome for m in found} == {"T4": Outcome.OK, CPU: Outcome.OK}


def test_a_type_that_others_hold_is_given_up(sweep: Any) -> None:
    cluster = Cluster(node("a", gpus=1, label="T4"), row_s=1, others=1)
    matrix = replace(a_matrix(TINY, replicates=3), gpu_types=("T4",))
    found = rows(sweep(cluster, matrix, placement_timeout_s=600))
    assert [m.outcome for m in found] == [Outcome.UNPLACED] * 3
    assert 600 < cluster.now < 610


HELD = node("a", gpus=1, label="T4")


@pytest.mark.parametrize(
    ("nodes", "autoscaler", "why"),
    [
        ((), Autoscaler(present=True), "the autoscaler is asked"),
        ((), Autoscaler(present=True, starting=("t4",)), "the autoscaler starts t4"),
        ((HELD,), Autoscaler(), "others hold it"),
    ],
)
def test_a_wait_is_told_once_with_what_it_is_for(
    sweep: Any, nodes: Sequence[dict[str, Any]], autoscaler: Autoscaler, why: str
) -> None:
    cluster = Cluster(*nodes, row_s=1, others=1)
    cluster.autoscaler = autoscaler
    events = sweep(cluster, replace(a_matrix(TINY), gpu_types=("T4",)), placement_timeout_s=600)
    wait = next(events)
    assert (wait.name, wait.host) == (WAITING, why)
    assert cluster.now < 10
    cluster.nodes, cluster.others = Cluster(HELD, row_s=1).nodes, 0
    assert [event.outcome for event in events] == [Outcome.OK]


def test_a_row_that_is_written_slowly_times_out_no_other(sweep: Any) -> None:
    cluster = Cluster(node("a", gpus=1, label="T4"), node("b", gpus=1, label="L4"), row_s=5)
    matrix = replace(a_matrix(TINY, timeout_s=60), gpu_types=("T4", "L4"))
    found = []
    for event in sweep(cluster, matrix):
        found.append(event.outcome)
        cluster.now += 1000
    assert found == [Outcome.OK] * 2


def test_a_head_is_lost_by_its_own_silence_only(sweep: Any) -> None:
    cluster = Cluster(node("a", gpus=1, label="T4"), row_s=5)
    matrix = replace(a_matrix(TINY, replicates=3), gpu_types=("T4",))
    events = sweep(cluster, matrix)
    next(events)
    cluster.now += 1000  # as where a row is written slowly
    cluster.head_answers, began_s = False, cluster.now
    with pytest.raises(HeadLostError, match="has not answered for 20 s"):
        next(events)
    assert 20 < cluster.now - began_s < 25


def test_a_lost_gpu_is_given_back_once_its_node_is_gone(sweep: Any) -> None:
    # Ray moves what is held on a node that is gone to another GPU of the type.
    cluster = Cluster(node("a", gpus=1, label="T4"), node("b", gpus=1, label="T4"), row_s=5)
    cluster.fate["a"] = Outcome.LOST
    matrix = replace(a_matrix(TINY, replicates=2), gpu_types=("T4",))
    matrix = replace(matrix, placement=PlacementPlan(retries=1))
    told = []
    for event in sweep(cluster, matrix):
        told.append(event)
        if isinstance(event, Stage) and event.name == TRIED_AGAIN:
            (lost,) = [seat for seat in cluster.seats if seat.node == "a"]
            cluster.nodes = [n | {"Alive": n["NodeID"] != "a"} for n in cluster.nodes]
            cluster.fate = {}
    assert [m.outcome for m in rows(iter(told))] == [Outcome.OK] * 2
    assert lost not in cluster.seats
    assert any(isinstance(e, Stage) and "LOST" in e.host for e in told)


def test_without_another_gpu_the_lost_one_is_the_reason(sweep: Any) -> None:
    cluster = Cluster(node("a", gpus=1, label="V100"), row_s=5)
    cluster.fate["a"] = Outcome.LOST
    matrix = replace(a_matrix(TINY, precisions=("fp32", "bf16")), gpu_types=("V100",))
    first, second = rows(sweep(cluster, matrix))
    assert (first.outcome, second.outcome) == (Outcome.LOST, Outcome.UNPLACED)
    assert "no other attempt: the last V100 of the cluster was lost" in str(first.reason)
    assert first.placement
    assert first.placement.attempt == 1
    assert second.reason == "the last V100 of the cluster was lost"
    assert cluster.seats == []


def test_a_type_that_the_cluster_lacks_is_unplaced_at_once(sweep: Any) -> None:
    cluster = Cluster(node("a", gpus=1, label="T4"), row_s=5)
    found = rows(sweep(cluster, replace(a_matrix(TINY, replicates=2), gpu_types=("A100",))))
    assert [m.outcome for m in found] == [Outcome.UNPLACED] * 2
    assert "no A100 here (only CPU, T4)" in str(found[0].reason)
    assert cluster.now < 5


def test_a_sweep_that_is_closed_leaves_no_seat_whatever_it_just_said(sweep: Any) -> None:
    for most in range(1, 9):
        cluster = Mixed(a="vt", b="t")
        cluster.fate["b"] = Outcome.LOST
        events = sweep(cluster, replace(a_matrix(TINY, replicates=4), gpu_types=("T4",)))
        for _ in zip(range(most), events, strict=False):
            pass
        events.close()
        assert cluster.seats == []


@pytest.mark.parametrize("profile", [True, False])
@pytest.mark.parametrize("of_the_cluster", [True, False])
def test_a_process_that_ends_in_a_profile_costs_that_profile_and_no_row(
    sweep: Any, of_the_cluster: bool, profile: bool
) -> None:
    class Broken(Cluster):
        """Its first process ends in its second profile, with a row that had not begun."""

        first: Attempt | None = None
        profiled = False

        def next_event(self, attempt: Attempt, now: float) -> Any:
            self.first = self.first or attempt
            if attempt is not self.first or len(attempt.left) > 1:
                return super().next_event(attempt, now)
            attempt.since, attempt.stage = now, PROFILE
            if profile and not self.profiled:
                self.profiled = True
                return profile_of(attempt, first)
            attempt.ended = True
            return End(Outcome.FAILED, "the process died", of_the_cluster)

    def profile_of(attempt: Attempt, workload: Workload) -> Profile:
        asked = attempt.request
        return Profile(asked.run, asked.cell, workload, asked.replicate, Trace("op"))

    cluster = Broken(node("a", gpus=1, label="T4"), row_s=5)
    every = first, second, _ = tuple(replace(TINY, batch_size=size) for size in (1, 2, 3))
    matrix = replace(a_matrix(*every, profile=profile), gpu_types=("T4",))
    told = list(sweep(cluster, matrix))
    found = rows(iter(told))
    assert [(m.workload, m.outcome) for m in found] == [(w, Outcome.OK) for w in every]
    assert {m.placement.attempt for m in found if m.placement} == {1}
    traces = [(p.workload, p.trace.level, p.trace.reason) for p in told if isinstance(p, Profile)]
    lost = [(first, "op", None), (second, "none", "FAILED: the process died")]
    assert traces == (lost if profile else [])


@pytest.mark.parametrize("timed_out", [True, False])
def test_a_row_whose_process_ends_before_its_profile_says_why_it_has_none(
    sweep: Any, timed_out: bool
) -> None:
    class Breaking(Cluster):
        """Its first process hangs in its second row, or loses its GPU there."""

        def next_event(self, attempt: Attempt, now: float) -> Any:
            if len(attempt.left) == 1:
                self.fate["a"] = Outcome.LOST
            row = super().next_event(attempt, now)
            self.due[id(attempt)] = now + (1000 if timed_out else self.row_s)
            return row

    cluster = Breaking(node("a", gpus=1, label="T4"), row_s=5)
    second = replace(TINY, batch_size=2)
    matrix = replace(a_matrix(TINY, second, profile=True, timeout_s=60), gpu_types=("T4",))
    told = list(sweep(cluster, matrix))
    kept, broken = rows(iter(told))
    assert (kept.outcome, kept.workload) == (Outcome.OK, TINY)
    (lost,) = [event for event in told if isinstance(event, Profile)]
    assert (lost.key, lost.trace.level) == (kept.key, "none")
    reason = "TIMED_OUT: stage latency took longer" if timed_out else "LOST: "
    assert str(lost.trace.reason).startswith(reason)
    assert broken.outcome == (Outcome.TIMED_OUT if timed_out else Outcome.LOST)


class Mixed(Cluster):
    """Its hosts have GPUs of several types, of which Ray gives any, the first that is free."""

    def __init__(self, **gpus: str) -> None:
        """Make nodes of a letter for each GPU: t is a T4, v a V100, a an A100."""
        names = {"t": "Tesla T4", "v": "Tesla V100", "a": "NVIDIA A100"}
        cards = {
            host: tuple(Card(names[kind], f"{host}{i}") for i, kind in enumerate(kinds))
            for host, kinds in gpus.items()
        }
        nodes = (node(host, gpus=len(found), label="T4") for host, found in cards.items())
        super().__init__(*nodes, row_s=5)
        self.cards = cards
        self.starts = 0

    def ask(self, offer: Offer, occupied: Sequence[str], now: float) -> Seat:
        seat = super().ask(offer, occupied, now)
        seat.group.hosts = set(offer.nodes.difference(occupied) or self.cards)
        seat.group.card = None
        return seat

    def look(self, seat: Seat) -> None:
        held = {s.group.card.uuid for s in self.seats if s.group.card}
        for host in sorted(seat.group.hosts) if seat.node is None else ():
            for card in self.cards[host]:
                if seat.node is None and card.uuid not in held:
                    seat.node, seat.group.card = host, card

    def start(self, seat: Seat, request: Request, measure: str, now: float) -> Attempt:
        self.starts += 1
        attempt = super().start(seat, request, measure, now)
        attempt.stage = DEVICE
        return attempt

    def next_event(self, attempt: Attempt, now: float) -> Any:
        card = attempt.actor.group.card
        if card.is_a(attempt.request.cell.gpu_type):
            return super().next_event(attempt, now)
        attempt.since, attempt.ended = now, True
        return End(Outcome.UNPLACED, f"found {card.name}", of_the_cluster=True, given=card)


@pytest.mark.parametrize("known", [True, False], ids=["told", "only the label"])
@pytest.mark.parametrize(
    ("hosts", "types", "most"),
    [
        ({"x": "vt"}, ("T4",), 2),
        ({"x": "avt"}, ("T4",), 3),
        ({"x": "avt", "y": "v"}, ("T4", "V100", "A100"), 12),
        ({"x": "vtvt"}, ("T4", "V100"), 12),
        ({"x": "v", "y": "vv", "z": "t"}, ("T4",), 4),
    ],
)
def test_on_hosts_of_several_types_each_comes_onto_its_own(
    sweep: Any, hosts: dict[str, str], types: tuple[str, ...], most: int, known: bool
) -> None:
    cluster = Mixed(**hosts)
    cluster.told = cluster.cards if known else {}
    # By the labels alone, there are only T4.
    matrix = replace(a_matrix(TINY), gpu_types=types if known else ("T4",))
    found = rows(sweep(cluster, matrix))
    assert {m.outcome for m in found} == {Outcome.OK}
    assert cluster.starts <= most
    assert cluster.seats == []
    assert all(m.placement and m.placement.attempt == 1 for m in found)


@pytest.mark.parametrize("known", [True, False], ids=["told", "only the label"])
def test_alone_on_a_host_a_gpu_of_another_type_is_in_nobodys_way(sweep: Any, known: bool) -> None:
    cluster = Mixed(x="vt", y="v", z="vt")
    cluster.told = cluster.cards if known else {}
    matrix = replace(a_matrix(TINY, replicates=3), gpu_types=("T4", "V100") if known else ("T4",))
    matrix = replace(matrix, placement=replace(matrix.placement, exclusive="host"))
    found = rows(sweep(cluster, matrix))
    assert [m.outcome for m in found] == [Outcome.OK] * len(matrix.gpu_types) * 3
    assert all(m.placement and not m.placement.neighbours for m in found)
    assert cluster.seats == []


@pytest.mark.parametrize("known", [True, False], ids=["told", "only the label"])
def test_replicates_of_a_type_are_ok_however_many_wrong_gpus_bear_its_label(
    sweep: Any, known: bool
) -> None:
    cluster = Mixed(a="v", b="vv", c="tt", d="v")
    cluster.told = cluster.cards if known else {}
    matrix = replace(a_matrix(TINY, replicates=6), gpu_types=("T4",))
    found = rows(sweep(cluster, matrix))
    assert [m.outcome for m in found] == [Outcome.OK] * 6
    assert cluster.starts <= 6 + (0 if known else 4)
    assert cluster.seats == []


def test_a_type_that_no_gpu_is_of_is_unplaced_and_says_what_bears_its_label(sweep: Any) -> None:
    cluster = Mixed(a="v", b="vv")
    matrix = replace(a_matrix(TINY, replicates=2), gpu_types=("T4",))
    found = rows(sweep(cluster, matrix))
    assert [m.outcome for m in found] == [Outcome.UNPLACED] * 2
    assert "a is labelled T4, but its driver has Tesla V100" in str(found[0].reason)
    assert cluster.starts == 3
    assert cluster.seats == []


def test_a_gpu_that_is_never_what_its_driver_says_is_given_up_in_time(sweep: Any) -> None:
    # What torch finds is the last word, and contradicts the driver each time.
    cluster = Mixed(a="tv")
    cluster.told = cluster.cards
    cluster.cards = {"a": (Card("Tesla V100", "a0"), Card("Tesla V100", "a1"))}
    matrix = replace(a_matrix(TINY), gpu_types=("T4",))
    (row,) = rows(sweep(cluster, matrix, placement_timeout_s=600))
    assert row.outcome == Outcome.UNPLACED
    assert "--placement-timeout 600" in str(row.reason)
    assert cluster.now < 2000
    assert cluster.seats == []
