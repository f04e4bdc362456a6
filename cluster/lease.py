"""A seat: one GPU of a type, asked for and then held through a placement group of Ray.

The group keeps the same physical GPU for every process of a block, and keeps other work of the
cluster, another sweep included, off it meanwhile. While it waits it is a demand that an autoscaler
sees; whether one runs, and what it says to that demand, stands in the head's GCS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bench.device.kinds import Card
from cluster.placement import Offer

_GCS_TIMEOUT_S = 10


@dataclass
class Seat:
    """A GPU that is asked for (node None) or held."""

    offer: Offer
    group: Any
    since: float  # when it was asked for
    node: str | None = None
    card: Card | None = None  # which GPU it is, if it was not what was asked for


@dataclass(frozen=True)
class Autoscaler:
    """What the cluster's autoscaler (v2) says; v1, which does not know labels, says nothing."""

    infeasible: frozenset[str] = frozenset()  # ids of the groups that it has no node type for
    starting: tuple[str, ...] = ()  # node types that it is starting
    present: bool = False


def ask(offer: Offer, occupied: Collection[str], now: float) -> Seat:
    """Ask for a seat, away from the occupied nodes."""
    from ray.util import placement_group

    bundle = {"CPU": offer.num_cpus, "GPU": offer.num_gpus}
    group = placement_group(
        [{name: amount for name, amount in bundle.items() if amount}],
        bundle_label_selector=[offer.selector(occupied)],
    )
    return Seat(offer, group, now)


def look(seat: Seat) -> None:
    """Note the node of a seat, if Ray has found one."""
    from ray.util import placement_group_table

    found = placement_group_table(seat.group)
    seat.node = found["bundles_to_node_id"][0] if found.get("state") == "CREATED" else None


def release(seat: Seat) -> None:
    """Give the seat up; whatever runs on it ends."""
    import ray
    from ray.util import remove_placement_group

    # What cannot be reached any longer must not keep the others.
    with contextlib.suppress(ray.exceptions.RayError, ValueError, RuntimeError):
        remove_placement_group(seat.group)


def autoscaler() -> Autoscaler:
    """Ask the head what its autoscaler does and cannot do."""
    import ray
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    # ray.autoscaler.v2.sdk leaves out what is infeasible.
    try:
        content = internal_kv_get_gcs_client().get_cluster_status(timeout_s=_GCS_TIMEOUT_S)
    except ray.exceptions.RpcError:  # a head that is slow; it is asked again
        return Autoscaler(present=True)
    state = GetClusterStatusReply.FromString(content).autoscaling_state
    return Autoscaler(
        # details: "ID:STRATEGY|STATE"
        frozenset(
            request.details.partition(":")[0] for request in state.infeasible_gang_resource_requests
        ),
        tuple(
            instance.ray_node_type_name
            for instance in (*state.pending_instance_requests, *state.pending_instances)
        ),
        present=state.autoscaler_state_version > 0,
    )
