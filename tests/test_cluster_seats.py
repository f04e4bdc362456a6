"""What the head says of its autoscaler, in the messages that Ray sends; how long a seat waits."""

from __future__ import annotations

import pytest

from cluster import lease as seats
from cluster.lease import Autoscaler, Seat, Seats, Why
from cluster.placement import Offer


def answer(monkeypatch: pytest.MonkeyPatch, **state: object) -> Autoscaler:
    """What becomes of this state of the autoscaler."""
    from ray.core.generated.autoscaler_pb2 import AutoscalingState, GetClusterStatusReply
    from ray.experimental import internal_kv

    class Head:
        def get_cluster_status(self, timeout_s: float) -> bytes:
            reply = GetClusterStatusReply(autoscaling_state=AutoscalingState(**state))
            return reply.SerializeToString()

    monkeypatch.setattr(internal_kv, "internal_kv_get_gcs_client", Head)
    return seats.autoscaler()


def test_without_an_autoscaler_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(monkeypatch) == Autoscaler()


def test_it_says_what_it_starts_and_what_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a Ray 2.60 with the node types t4 and a100 answered to groups for T4, A100 and P100.
    found = answer(
        monkeypatch,
        autoscaler_state_version=4,
        infeasible_gang_resource_requests=[{"details": "fe178c1f5abd:PACK|PENDING"}],
        pending_instance_requests=[{"ray_node_type_name": "t4", "count": 1}],
        pending_instances=[{"ray_node_type_name": "a100"}],
    )
    assert found == Autoscaler(frozenset({"fe178c1f5abd"}), ("t4", "a100"), present=True)


@pytest.mark.parametrize(("why", "waited_s"), [(Why.LOST, 100), (Why.MOVED, 0)])
def test_only_a_gpu_that_others_may_have_starts_the_wait_for_one_anew(
    monkeypatch: pytest.MonkeyPatch, why: Why, waited_s: float
) -> None:
    now, released = [0.0], []
    monkeypatch.setattr(seats, "release", released.append)
    held, waiting = (Seat(Offer("T4", 1, 1, 1), object(), since=0.0) for _ in range(2))
    mine = Seats(lambda: now[0])
    mine.hold(held, why)
    now[0] = 100.0
    mine.let_go(lambda seat, why: True)
    assert released == [held]
    assert mine.waited_s(waiting, ours=False) == waited_s
