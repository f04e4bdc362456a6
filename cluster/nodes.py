"""What each node of the connected cluster offers, as the node itself sees it."""

from __future__ import annotations

from bench import inventory
from bench.inventory import Inventory
from cluster.placement import NODE_LABEL

_TIMEOUT_S = 60.0


def inventories() -> list[Inventory | str]:
    """The inventory of each living node, or what kept it from answering."""
    import ray

    take = ray.remote(inventory.take)
    asked = {
        (node["NodeID"], node["NodeName"]): take.options(
            num_cpus=0, label_selector={NODE_LABEL: node["NodeID"]}
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_TIMEOUT_S)
    found: list[Inventory | str] = []
    for (_, name), reference in asked.items():
        try:
            found.append(ray.get(reference, timeout=0))
        except ray.exceptions.RayError as error:
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            found.append(f"{name}: no answer: {last}")
    return found
