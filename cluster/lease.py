"""Seats: a seat is one GPU of a type, asked for and then held through a placement group of Ray.

The group keeps the same physical GPU for every process of a block, and keeps other work of the
cluster, another sweep included, off it meanwhile. While it waits it is a demand that an autoscaler
sees; whether one runs, and what it says to that demand, stands in the head's GCS.
"""

import contextlib
import enum
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ray import exceptions
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.experimental import internal_kv
from ray.util import placement_group, placement_group_table, remove_placement_group

from bench.device.kinds import Card
from cluster.placement import Offer

_GCS_TIMEOUT_S = 10


@dataclass(eq=False)
class Seat:
    """A GPU that is asked for (node None) or held."""

    offer: Offer
    group: Any
    since: float  # when it was asked for
    node: str | None = None
    card: Card | None = None  # which GPU it is, if it was not what was asked for

    @property
    def gpu_type(self) -> str:
        """The type that was asked for."""
        return self.offer.gpu_type


@dataclass(frozen=True)
class Autoscaler:
    """What the cluster's autoscaler (v2) says; v1, which does not know labels, says nothing."""

    infeasible: frozenset[str] = frozenset()  # ids of the groups that it has no node type for
    starting: tuple[str, ...] = ()  # node types that it is starting
    present: bool = False


class Why(enum.Enum):
    """Why a seat is held that no block uses."""

    LOST = enum.auto()  # whoever got this GPU would lose it again: to the end of the sweep
    MOVED = enum.auto()  # so that the next attempt gets another GPU
    STRAY = enum.auto()  # of another type than asked for: so that Ray gives another one


class Seats:
    """The seats that a sweep holds without a block, and when it gave the others back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: monotonic seconds."""
        self._clock = clock
        self._held: dict[Seat, tuple[Why, float]] = {}  # why, and until when
        self._freed: dict[str, float] = {}  # by GPU type

    def hold(self, seat: Seat, why: Why, seconds: float = math.inf) -> None:
        """Keep a seat for a while; all strays of a type are kept as long as the last of them."""
        alike = [one for one in self.held(Why.STRAY) if one.gpu_type == seat.gpu_type]
        for one in (seat, *(alike if why is Why.STRAY else ())):
            self._held[one] = why, self._clock() + seconds

    def held(self, why: Why) -> list[Seat]:
        """The seats that are held for this reason."""
        return [seat for seat, (reason, _) in self._held.items() if reason is why]

    def take(self, seat: Seat) -> Seat:
        """Hold a seat no longer: a block uses it."""
        self._held.pop(seat)
        return seat

    def let_go(self, over: Callable[[Seat, Why], bool]) -> None:
        """Give back the held seats of which this is true, and those whose time is over."""
        for seat, (why, until) in list(self._held.items()):
            if self._clock() > until or over(seat, why):
                # Nobody can have the GPU of a seat that is lost: no wait counts from then on.
                (release if why is Why.LOST else self.give_back)(self.take(seat))

    def give_back(self, seat: Seat) -> None:
        """Give a seat up, and note when."""
        release(seat)
        if seat.card is None or seat.card.is_a(seat.gpu_type):
            self._freed[seat.gpu_type] = self._clock()

    def waited_s(self, seat: Seat, ours: bool) -> float:
        """How long a seat has waited for others, counted from when this sweep last freed a GPU.

        Args:
            seat: that is asked for.
            ours: what it waits for may be a GPU of this sweep.
        """
        if ours:
            self._freed[seat.gpu_type] = self._clock()
        return self._clock() - max(seat.since, self._freed.get(seat.gpu_type, 0.0))


def ask(offer: Offer, occupied: Collection[str], now: float) -> Seat:
    """Ask for a seat, away from the occupied nodes."""
    amounts, selectors = zip(*offer.bundles(occupied), strict=True)
    group = placement_group([*amounts], bundle_label_selector=[*selectors])
    return Seat(offer, group, now)


def look(seat: Seat) -> None:
    """Note the node of a seat, if Ray has found one."""
    found = placement_group_table(seat.group)
    seat.node = found["bundles_to_node_id"][0] if found.get("state") == "CREATED" else None


def release(seat: Seat) -> None:
    """Give the seat up; whatever runs on it ends."""
    # What cannot be reached any longer must not keep the others.
    with contextlib.suppress(exceptions.RayError, ValueError, RuntimeError):
        remove_placement_group(seat.group)


def autoscaler() -> Autoscaler:
    """Ask the head what its autoscaler does and cannot do."""
    try:
        state = status().autoscaling_state
    except exceptions.RpcError:  # a head that is slow; it is asked again
        return Autoscaler(present=True)
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


def anything_waits() -> bool:
    """Whether anything, of this sweep or another, waits for a place on the cluster."""
    try:
        state = status().cluster_resource_state
    except exceptions.RpcError:
        return True
    return bool(state.pending_gang_resource_requests) or any(
        # What waits within a placement group has its place already.
        not any(name.startswith("bundle_group") for name in one.request.resources_bundle)
        for one in state.pending_resource_requests
    )


def status() -> GetClusterStatusReply:
    """What the head knows of its nodes and of what waits; RpcError where it does not answer."""
    # ray.autoscaler.v2.sdk leaves out what is infeasible.
    client = internal_kv.internal_kv_get_gcs_client()
    return GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=_GCS_TIMEOUT_S))
