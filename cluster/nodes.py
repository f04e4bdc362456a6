"""What each node of the connected cluster has, as the node itself sees it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

import ray
from ray import exceptions

from bench import inventory
from bench.device.kinds import Card
from bench.inventory import Inventory
from cluster import placement
from cluster.placement import NODE_LABEL, Offer, RayNode, Told, gpus_of

T = TypeVar("T")
_TIMEOUT_S = 60.0
# What drivers have told, by Ray's id of the node, which no other node ever has.
_answered: dict[str, tuple[Card, ...]] = {}


class View:
    """What the nodes have, as a sweep knows it: a driver is asked once, and a process may add."""

    def __init__(self) -> None:
        """Know nothing yet; see `look`."""
        self.alive: set[str] = set()  # Ray's ids of the nodes
        self.wrong: placement.Wrong = {}
        self._told: dict[str, tuple[Card, ...]] = {}
        self._hosts: dict[str, str] = {}

    def look(self, asked: Collection[str] = ()) -> dict[str, Offer]:
        """What the cluster offers now, these types included."""
        found = ray.nodes()
        self._told.update(told(node for node in found if node["NodeID"] not in self._told))
        self._hosts = placement.hosts_of(found)
        self.alive = {node["NodeID"] for node in found if node["Alive"]}
        self.wrong = placement.mislabelled(found, self._told)
        return placement.offers(found, self._told, asked)

    def host_of(self, node: str) -> str:
        """The name of a node's host."""
        if node not in self._hosts:
            self.look()
        return self._hosts.get(node, node)

    def nodes_of(self, hosts: Collection[str]) -> set[str]:
        """The nodes that run on these hosts."""
        return {node for node, host in self._hosts.items() if host in hosts}

    def learn(self, node: str, card: Card) -> bool:
        """Note a GPU that a process found on a node; False where it was known."""
        known = self._told.get(node, ())
        if card.uuid in {one.uuid for one in known}:
            return False
        self._told[node] = (card, *known)
        return True


def inventories() -> list[Inventory | str]:
    """The inventory of each living node, or what kept it from answering.

    Nodes of one machine that say the same are one.
    """
    hosts = placement.hosts_of(nodes := ray.nodes())
    found: list[tuple[str, Inventory | str]] = []
    for node, answer in ask(inventory.take, nodes):
        told = f"{node['NodeName']}: {answer}" if isinstance(answer, str) else answer
        if (hosts[node["NodeID"]], told) not in found:
            found.append((hosts[node["NodeID"]], told))
    return [told for _, told in found]


def told(nodes: Iterable[RayNode]) -> Told:
    """The GPUs that Ray gives away on each living node that has some, as its driver tells of them.

    None of a node that does not answer: whatever runs there finds out.
    """
    having = [node for node in nodes if gpus_of(node) and node["Alive"]]
    new = [node for node in having if node["NodeID"] not in _answered]
    for node, cards in ask(inventory.numbered_gpus, new):
        if not isinstance(cards, str):
            _answered[node["NodeID"]] = tuple(filter(None, cards[: gpus_of(node)]))
    return {node["NodeID"]: _answered.get(node["NodeID"], ()) for node in having}


def present() -> tuple[Sequence[RayNode], Told]:
    """The nodes of the cluster, and what their drivers tell."""
    nodes = ray.nodes()
    return nodes, told(nodes)


def ask(question: Callable[[], T], nodes: Iterable[RayNode]) -> list[tuple[RayNode, T | str]]:
    """What the living ones of these nodes answer, or what kept each from it."""
    # By default Ray would try again, and for ever where its memory monitor ended the first try.
    task = ray.remote(max_retries=0)(question)
    asked = [
        (node, task.options(num_cpus=0, label_selector={NODE_LABEL: node["NodeID"]}).remote())
        for node in nodes
        if node["Alive"]
    ]
    if asked:
        ray.wait([it for _, it in asked], num_returns=len(asked), timeout=_TIMEOUT_S)
    found: list[tuple[RayNode, T | str]] = []
    for node, reference in asked:
        try:
            found.append((node, ray.get(reference, timeout=0)))
        except exceptions.RayError as error:
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            found.append((node, f"no answer: {last}"))
            ray.cancel(reference, force=True)  # it would answer beside a measurement
    return found
