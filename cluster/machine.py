"""How one machine becomes Ray nodes: one, or one for each type of its GPUs. No Ray, no torch.

Ray labels a node with a single type and gives a cell whichever of its GPUs is free. So a machine
with GPUs of several types has a node for each of them, with its own CUDA_VISIBLE_DEVICES and label.
The first has the CPUs of the machine, with which a CPU cell computes; each other has as many as
GPUs, one for each cell that runs there.

    python -m cluster.machine start --address=HOST:6379 ...     in the place of `ray start`
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import inventory
from bench.device import visible
from bench.device.kinds import Card, told_apart
from cluster.placement import TYPE_LABEL

# How many nodes its machine has, so that whoever waits for a machine knows when it is whole.
NODES_LABEL = "tensorgap/nodes"
_WORKER_PORTS = (10002, 19999)  # of `ray start`
# That two nodes of a machine cannot both have; 0: Ray takes one that is free.
_PORTS = (
    *("node-manager-port", "object-manager-port", "metrics-export-port"),
    *("runtime-env-agent-port", "dashboard-agent-grpc-port", "dashboard-agent-listen-port"),
)


@dataclass(frozen=True)
class Part:
    """One of the Ray nodes of a machine: the GPUs of one type."""

    gpu_type: str
    uuids: tuple[str, ...]
    first: bool

    @property
    def num_cpus(self) -> int | None:
        """CPUs of the node; None: as many as the machine has."""
        return None if self.first else len(self.uuids)

    @property
    def environment(self) -> dict[str, str]:
        """What it and its processes see; by UUID, since NVML and CUDA may count differently."""
        return {visible.VARIABLE: ",".join(self.uuids)}


def divide(cards: Iterable[Card]) -> tuple[Part, ...]:
    """The nodes of a machine with these GPUs, in the order of theirs; none for less than two types.

    >>> t4, l4 = Card("Tesla T4", "GPU-1"), Card("NVIDIA L4", "GPU-2")
    >>> [(part.gpu_type, part.uuids) for part in divide([t4, l4, Card("Tesla T4", "GPU-3")])]
    [('T4', ('GPU-1', 'GPU-3')), ('L4', ('GPU-2',))]
    >>> divide([t4])
    ()
    """
    given = list(cards)
    types = sorted(told_apart(given))
    uuids: dict[str, list[str]] = {}
    for card in given:
        uuids.setdefault(next(filter(card.is_a, types)), []).append(card.uuid)
    if len(uuids) < 2:
        return ()
    first = next(iter(uuids))
    return tuple(Part(name, tuple(found), name == first) for name, found in uuids.items())


def commands(options: Sequence[str], parts: Sequence[Part]) -> list[tuple[list[str], Part | None]]:
    """What to run one after the other; the first node comes last, since `--block` holds it up.

    Of an option that is given twice Ray takes the last, so each node's own are at the end.

    Args:
        options: of `ray start`.
        parts: of the machine.
    """
    ray_start = [sys.executable, "-m", "ray.scripts.scripts", "start"]
    if not parts:
        return [([*ray_start, *options], None)]
    parser = argparse.ArgumentParser("cluster.machine start", allow_abbrev=False, add_help=False)
    parser.add_argument("--labels", action="append", default=[])
    parser.add_argument("--min-worker-port", type=int, default=_WORKER_PORTS[0])
    parser.add_argument("--max-worker-port", type=int, default=_WORKER_PORTS[1])
    given, others = parser.parse_known_args(options)
    if wrong := {"--head", "--num-gpus"} & {option.partition("=")[0] for option in others}:
        parser.error(
            f"{', '.join(sorted(wrong))}: this machine has GPUs of {len(parts)} types, and a node"
            " for each joins a head: start that with ray start --head --num-cpus=0 --num-gpus=0"
        )
    each = (given.max_worker_port - given.min_worker_port + 1) // len(parts)
    found: list[tuple[list[str], Part | None]] = []
    for number, part in reversed([*enumerate(parts)]):
        labels = [f"{TYPE_LABEL}={part.gpu_type}", f"{NODES_LABEL}={len(parts)}"]
        lowest = given.min_worker_port + number * each
        own = {
            "labels": ",".join([*given.labels, *labels]),
            "num-gpus": len(part.uuids),
            "min-worker-port": lowest,
            "max-worker-port": lowest + each - 1 if given.max_worker_port else 0,
        }
        if not part.first:
            own |= {"num-cpus": part.num_cpus} | dict.fromkeys(_PORTS, 0)
        kept = [option for option in others if part.first or option != "--block"]
        said_last = [f"--{name}={value}" for name, value in own.items()]
        found.append(([*ray_start, *kept, *said_last], part))
    return found


def main(arguments: Sequence[str]) -> int:
    """Start the nodes of this machine; 0, or the exit code of the `ray start` that failed."""
    if arguments[:1] != ["start"]:
        sys.exit("usage: python -m cluster.machine start [options of ray start]")
    for command, part in commands(arguments[1:], divide(inventory.visible_gpus())):
        environment = os.environ | (part.environment if part else {})
        if code := subprocess.call(command, env=environment):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
