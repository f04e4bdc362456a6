"""What the head says of its autoscaler, in the messages that Ray's own autoscaler sends."""

from __future__ import annotations

import pytest

from cluster import lease as seats
from cluster.lease import Autoscaler


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
