"""What each node of the connected cluster has, as the node itself sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from bench import inventory
from bench.device.kinds import Card
from bench.inventory import Inventory
from cluster.placement import NODE_LABEL, Told, gpus_of

T = TypeVar("T")
Node = Mapping[str, Any]  # of `ray.nodes()`
_TIMEOUT_S = 60.0


def inventories() -> list[Inventory | str]:
    """The inventory of each living node, or what kept it from answering."""
    import ray

    return [
        f"{node['NodeName']}: {answer}" if isinstance(answer, str) else answer
        for node, answer in _ask(inventory.take, ray.nodes())
    ]


def told(nodes: Iterable[Node]) -> Told:
    """The GPUs of each living node that has some, as its driver tells of them.

    None of a node that does not answer, or whose driver has more than Ray gives away, of several
    types: whatever runs there finds out.
    """
    asked = [node for node in nodes if gpus_of(node)]
    return {
        node["NodeID"]: () if isinstance(answer, str) else _given_away(answer, gpus_of(node))
        for node, answer in _ask(inventory.visible_gpus, asked)
    }


def present() -> tuple[Sequence[Node], Told]:
    """The nodes of the cluster, and what their drivers tell."""
    import ray

    nodes = ray.nodes()
    return nodes, told(nodes)


def _given_away(cards: tuple[Card, ...], count: int) -> tuple[Card, ...]:
    alike = len({(card.name, card.memory_bytes) for card in cards}) == 1
    return cards[:count] if alike or len(cards) <= count else ()


def _ask(question: Callable[[], T], nodes: Iterable[Node]) -> list[tuple[Node, T | str]]:
    """What the living ones of these nodes answer, or what kept each from it."""
    import ray

    task = ray.remote(question)
    asked = [
        (node, task.options(num_cpus=0, label_selector={NODE_LABEL: node["NodeID"]}).remote())
        for node in nodes
        if node["Alive"]
    ]
    references = [reference for _, reference in asked]
    if references:
        ray.wait(references, num_returns=len(references), timeout=_TIMEOUT_S)
    found: list[tuple[Node, T | str]] = []
    for node, reference in asked:
        try:
            found.append((node, ray.get(reference, timeout=0)))
        except ray.exceptions.RayError as error:
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            found.append((node, f"no answer: {last}"))
            ray.cancel(reference, force=True)  # it would answer beside a measurement
    return found
