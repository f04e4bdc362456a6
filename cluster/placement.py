"""Which GPU types a cluster has, and what each cell runs on: pure functions over its nodes.

What a node's driver tells of its GPUs counts (`cluster.nodes` asks it). The label, which Ray makes
of the first GPU and anybody may set, is believed only of GPUs that no driver told of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.asked import CPU
from bench.device.kinds import Card, coarse, rays_label, told_apart

TYPE_LABEL = "ray.io/accelerator-type"
NODE_LABEL = "ray.io/node-id"
_TYPE_RESOURCE = "accelerator_type:"
RayNode = Mapping[str, Any]  # of `ray.nodes()`
Told = Mapping[str, tuple[Card, ...]]  # the GPUs that the drivers of nodes told of, by node
Wrong = Mapping[str, tuple[str, ...]]  # complaints about labels, each with the types they name
Bundle = tuple[
    dict[str, int], dict[str, str]
]  # amounts, and the labels of the node to take them of


@dataclass(frozen=True)
class Offer:
    """What the cluster offers of one type, and what gets one cell alone onto it."""

    gpu_type: str
    devices: int
    num_cpus: int
    num_gpus: int
    label: str | None = None  # by which its nodes are found; None: by their names
    nodes: frozenset[str] = frozenset()  # Ray's ids of the nodes that have such devices
    hosts: frozenset[str] = frozenset()  # names of the machines that these nodes run on
    # Other nodes of its machine, which are to be idle meanwhile, each with all its CPUs.
    idle: tuple[tuple[str, int], ...] = ()

    def bundles(self, occupied: Collection[str] = ()) -> list[Bundle]:
        """What to reserve: first what the cell itself uses, away from the occupied nodes."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        own = {name: amount for name, amount in amounts.items() if amount}
        beside = [({"CPU": cpus}, {NODE_LABEL: f"in({node})"}) for node, cpus in self.idle]
        return [(own, self.selector(occupied)), *beside]

    def selector(self, occupied: Collection[str] = ()) -> dict[str, str]:
        """The labels of a node on which a cell may come to be, away from the occupied ones.

        >>> Offer("T4", 1, 1, 1, nodes=frozenset("ab")).selector("b")
        {'ray.io/node-id': 'in(a)'}
        """
        if self.label is None:
            return {NODE_LABEL: f"in({','.join(sorted(self.nodes.difference(occupied)))})"}
        away = {NODE_LABEL: f"!in({','.join(sorted(occupied))})"} if occupied else {}
        return {TYPE_LABEL: self.label, **away}


@dataclass(frozen=True)
class Node:
    """A living node, by what Ray, its labels and its driver tell of it."""

    name: str  # Ray's id of it
    host: str  # name of the machine that it runs on
    cpus: int
    gpus: int  # that Ray gives away
    label: str | None
    named: tuple[str, ...]  # what its label and its resources call its GPUs, the finest name last
    cards: tuple[Card, ...]  # the GPUs that its driver told of, as far as Ray gives them away

    @classmethod
    def of(cls, node: RayNode, told: Told, host: str) -> Node:
        """A node of `ray.nodes()`, with what the drivers told.

        Ray cannot tell an A100 of 80 GB from one of 40 GB. Whoever starts the node says so with the
        resource `accelerator_type:A100-80G`, Ray's own word; it counts more than the label.
        """
        resources, label = node["Resources"], node.get("Labels", {}).get(TYPE_LABEL)
        finer = f"{_TYPE_RESOURCE}{label}-" if label else _TYPE_RESOURCE
        found = sorted(n.removeprefix(_TYPE_RESOURCE) for n in resources if n.startswith(finer))
        gpus = gpus_of(node)
        return cls(
            node["NodeID"],
            host,
            int(resources.get("CPU", 0)),
            gpus,
            label,
            (label, *found) if label else tuple(found[:1]),
            told.get(node["NodeID"], ())[:gpus],
        )

    @property
    def believed(self) -> str | None:
        """The type of the GPUs that no driver told of."""
        return self.named[-1] if self.named and self.gpus > len(self.cards) else None

    def count(self, gpu_type: str) -> int:
        """How many GPUs of a type it has."""
        untold = self.gpus - len(self.cards) if self.believed == gpu_type else 0
        return untold + sum(card.is_a(gpu_type) for card in self.cards)


def living(nodes: Iterable[RayNode], told: Told) -> list[Node]:
    """The nodes that are alive."""
    hosts = hosts_of(every := list(nodes))
    return [Node.of(node, told, hosts[node["NodeID"]]) for node in every if node["Alive"]]


def offers(nodes: Iterable[RayNode], told: Told, asked: Collection[str] = ()) -> dict[str, Offer]:
    """What the nodes offer of each type that `auto` stands for, or that is asked, such as a finer.

    A GPU cell takes one GPU of its type. A CPU cell computes with every CPU of one node: of the
    one with the most, one without GPUs if there is any. It takes those of the other nodes of that
    machine, too, so that nothing else of Ray runs beside it.
    """
    alive = living(nodes, told)
    every = told_apart(card for node in alive for card in node.cards)
    mixed = {coarse(name) for name in every} - every
    every.update(node.believed for node in alive if node.believed and node.believed not in mixed)
    found: dict[str, Offer] = {}
    for name in sorted(every.union(asked) - {CPU}):
        having = [node for node in alive if node.count(name)]
        alike = {c.compute_capability for node in having for c in node.cards if c.is_a(name)}
        if not having or len(alike - {None}) > 1:
            continue
        labelled = [node for node in alive if node.label == name and node.gpus]
        true = labelled == having and all(node.count(name) == node.gpus for node in having)
        found[name] = Offer(
            name,
            devices=sum(node.count(name) for node in having),
            num_cpus=min(1, *(node.cpus for node in having)),
            num_gpus=1,
            # A label that tells the truth can be met by a node that an autoscaler starts, too.
            label=name if true else None,
            nodes=frozenset(node.name for node in having),
            hosts=frozenset(node.host for node in having),
        )
    if hosts := [node for node in alive if node.cpus]:
        best = max(hosts, key=lambda node: (not node.gpus, node.cpus))
        idle = tuple((n.name, n.cpus) for n in hosts if n.host == best.host and n is not best)
        alone = frozenset({best.name}), frozenset({best.host})
        found[CPU] = Offer(CPU, 1, best.cpus, 0, None, *alone, idle)
    return found


def mislabelled(nodes: Iterable[RayNode], told: Told) -> Wrong:
    """What is wrong with labels or resources that name other GPUs than a living node's driver has.

    Ray's own label is right where a type is finer than Ray can tell.
    """
    found = {}
    for node in living(nodes, told):
        fits = [
            [card.is_a(name) or rays_label(card.name) == name for name in node.named]
            for card in node.cards
        ]
        all_fit = all(map(any, fits)) and all(map(any, zip(*fits, strict=True)))
        if all_fit or not node.named:
            continue
        types = sorted(told_apart(node.cards))
        has = ", ".join(sorted({card.name for card in node.cards}))
        remedy = f"ray start --labels {TYPE_LABEL}={types[0]}"
        if len(types) > 1:
            remedy = "python -m cluster.machine start, a node for each type"
        complaint = (
            f"{node.host} is labelled {', '.join(node.named)}, but its driver has {has}: measured"
            f" as {', '.join(types)}; to mend it: {remedy}"
        )
        found[complaint] = node.named
    return found


def hosts_of(nodes: Sequence[RayNode]) -> dict[str, str]:
    """The name of each node's machine; with its address where machines share a name.

    >>> one, other = ({"NodeManagerHostname": "gpu", "NodeManagerAddress": it} for it in "12")
    >>> hosts_of([{"NodeID": "a", **one}, {"NodeID": "b", **one}])
    {'a': 'gpu', 'b': 'gpu'}
    >>> hosts_of([{"NodeID": "a", **one}, {"NodeID": "b", **other}])
    {'a': 'gpu (1)', 'b': 'gpu (2)'}
    """
    addresses: dict[str, set[str]] = {}
    for node in nodes:
        addresses.setdefault(host_of(node), set()).add(node.get("NodeManagerAddress", ""))
    found = {}
    for node in nodes:
        name = host_of(node)
        shared = len(addresses[name]) > 1
        found[node["NodeID"]] = f"{name} ({node['NodeManagerAddress']})" if shared else name
    return found


def host_of(node: RayNode) -> str:
    """What the machine of a node calls itself."""
    return str(node.get("NodeManagerHostname", node["NodeID"]))


def to_be_started(gpu_type: str) -> Offer:
    """The demand for a type of which an autoscaler may start the first node."""
    return Offer(gpu_type, 1, num_cpus=1, num_gpus=1, label=gpu_type)


def why_unplaced(gpu_type: str, present: Collection[str], wrong: Wrong | None = None) -> str:
    """Why a cell of this type has no place on a machine or cluster that has these types."""
    have = f"only {', '.join(sorted(present))}" if present else "nothing at all"
    return (
        f"no {gpu_type} here ({have}): join a cluster that has one (--address), add a node,"
        f" or leave it out (--gpu-type){false_labels(gpu_type, wrong or {})}"
    )


def why_not_in_time(gpu_type: str, timeout_s: float, wrong: Wrong) -> str:
    """Why a cell of a type that is held by others, or is never what it should be, is given up."""
    given_up = f"no {gpu_type} became free within --placement-timeout {timeout_s:g}"
    return f"{given_up}; resume later, or raise it{false_labels(gpu_type, wrong)}"


def false_labels(gpu_type: str, wrong: Wrong) -> str:
    """What stands behind a reason where nodes bear this type without having it."""
    return "".join(f"; {complaint}" for complaint, named in wrong.items() if gpu_type in named)


def gpus_of(node: RayNode) -> int:
    """How many GPUs Ray gives away on a node."""
    return int(node["Resources"].get("GPU", 0))
