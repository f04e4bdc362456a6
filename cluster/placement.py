"""Which GPU types a cluster has, and what each cell runs on: pure functions over its nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.records import CPU

TYPE_LABEL = "ray.io/accelerator-type"
NODE_LABEL = "ray.io/node-id"
_TYPE_RESOURCE = "accelerator_type:"


@dataclass(frozen=True)
class Offer:
    """What the cluster offers of one type, and the demand that gets one cell alone onto it."""

    gpu_type: str
    devices: int
    num_cpus: int
    num_gpus: int
    label_selector: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()  # Ray's ids of the nodes that have such devices
    hosts: frozenset[str] = frozenset()  # names of the machines that these nodes run on
    finer: frozenset[str] = frozenset()  # nodes with this label that are a type of their own


def offers(nodes: Iterable[Mapping[str, Any]]) -> dict[str, Offer]:
    """What the nodes, as `ray.nodes()` tells of them, offer of each type.

    A GPU cell takes one GPU of its type. A CPU cell takes every CPU of one node, so that nothing
    else of Ray runs beside it: of the node with the most, one without GPUs if there is any.
    """
    alive = [node for node in nodes if node["Alive"]]
    found: dict[str, Offer] = {}
    for node in alive:
        gpus = int(node["Resources"].get("GPU", 0))
        gpu_type, by_label = _gpu_type(node)
        if not gpus or gpu_type is None:
            continue
        known = found.get(gpu_type)
        found[gpu_type] = Offer(
            gpu_type,
            devices=gpus + (known.devices if known else 0),
            num_cpus=min(1, int(node["Resources"].get("CPU", 0))),
            num_gpus=1,
            label_selector={TYPE_LABEL: gpu_type} if by_label else {},
            resources={} if by_label else {f"{_TYPE_RESOURCE}{gpu_type}": 0.001},
            nodes=(known.nodes if known else frozenset()) | {node["NodeID"]},
            hosts=(known.hosts if known else frozenset()) | {host_of(node)},
        )
    for name, offer in found.items():
        of_finer = (o.nodes for other, o in found.items() if other.startswith(f"{name}-"))
        found[name] = replace(offer, finer=frozenset().union(*of_finer))
    hosts = [node for node in alive if node["Resources"].get("CPU", 0) >= 1]
    if hosts:
        host = max(hosts, key=lambda n: (not n["Resources"].get("GPU"), n["Resources"]["CPU"]))
        found[CPU] = Offer(
            CPU,
            devices=1,
            num_cpus=int(host["Resources"]["CPU"]),
            num_gpus=0,
            label_selector={NODE_LABEL: host["NodeID"]},
            nodes=frozenset({host["NodeID"]}),
            hosts=frozenset({host_of(host)}),
        )
    return found


def host_of(node: Mapping[str, Any]) -> str:
    """The name of the machine that a node of `ray.nodes()` runs on."""
    return str(node.get("NodeManagerHostname", node["NodeID"]))


def to_be_started(gpu_type: str) -> Offer:
    """The demand for a type of which an autoscaler may start the first node."""
    return Offer(gpu_type, 1, num_cpus=1, num_gpus=1, label_selector={TYPE_LABEL: gpu_type})


def why_unplaced(gpu_type: str, present: Collection[str]) -> str:
    """Why a cell of this type has no place on a machine or cluster that has these types."""
    have = f"only {', '.join(sorted(present))}" if present else "nothing at all"
    return (
        f"no {gpu_type} here ({have}): join a cluster that has one (--address), add a node,"
        " or leave it out (--gpu-type)"
    )


def _gpu_type(node: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The type of a node's GPUs, and whether a label says so; else a resource does.

    Ray cannot tell an A100 of 80 GB from one of 40 GB. Whoever starts the node says so with the
    resource `accelerator_type:A100-80G`, Ray's own word; it counts more than the label.
    """
    label = node.get("Labels", {}).get(TYPE_LABEL)
    named = [
        name.removeprefix(_TYPE_RESOURCE)
        for name in node["Resources"]
        if name.startswith(_TYPE_RESOURCE)
    ]
    finer = [name for name in named if label is None or name.startswith(f"{label}-")]
    if finer:
        return finer[0], False
    return (str(label), True) if label else (None, False)
