"""A real Ray cluster of several nodes on this machine, whose GPUs are only the fake driver's."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fakenvml

from cluster import folders, session

# A virtual GPU, whose energy nobody can measure: rows come sooner.
VIRTUAL = "virtualization = 2\nenergy = 0"


class Raylets:
    """Nodes, each a raylet of its own, below a head that measures nothing."""

    def __init__(self, cluster: Any, library: Path) -> None:
        """Use `started`."""
        self._cluster, self._library = cluster, library
        self._nodes: list[Any] = []
        self.of_type: dict[str, Any] = {}  # the last node of each
        self.address = str(cluster.address)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that another process needs to join."""
        return os.environ | session.local_settings()

    def add(
        self,
        gpu_type: str,
        *gpus: str,
        num_cpus: int = 0,
        environment: Mapping[str, str] | None = None,
        modelled: int = 0,
        label: str = "",
        num_gpus: int = 0,
    ) -> Any:
        """Start a node with GPUs of a type.

        Args:
            gpu_type: as Ray names it.
            *gpus: the configuration of each in the fake driver; its UUID follows from the node.
            num_cpus: CPUs of the node; by default one for each GPU.
            environment: variables of the node and its processes.
            modelled: GPUs that its environment models, in the place of `gpus`.
            label: what it is labelled; by default its type.
            num_gpus: GPUs that Ray gives away; by default all.
        """
        number = len(self._nodes)
        lines = [
            f"{gpu}\nuuid = GPU-{gpu_type}-{number}-{index}\nenergy_update_ms = 20"
            for index, gpu in enumerate(gpus)
        ]
        fake = fakenvml.environment(self._library, *lines) if gpus else {}
        given = fake | dict(environment or {})
        # Ray looks for LD_PRELOAD in its own environment, and sets one where there is none.
        with session.environment(given):
            node = self._cluster.add_node(
                num_cpus=num_cpus or len(gpus) or modelled,
                num_gpus=num_gpus or len(gpus) or modelled,
                labels={"ray.io/accelerator-type": label or gpu_type} if gpus or modelled else {},
                env_vars=given,
                object_store_memory=80 * 2**20,
                include_dashboard=False,
            )
        self._nodes.append(node)
        self.of_type[gpu_type] = node
        return node

    def measurements(self) -> list[tuple[int, str, Any]]:
        """Each process that measures on a GPU, with the GPU's type and its node."""
        return [
            (pid, found[1], self._nodes[int(found[2])])
            for pid in measuring_processes()
            if (found := re.search(r"GPU-([^-]+)-(\d+)-", _fake_of(pid)))
        ]

    def measuring(self, gpu_type: str) -> tuple[int, Any]:
        """The process that measures on a GPU of this type, which must be the only one; its node."""
        ((pid, _, node),) = [found for found in self.measurements() if found[1] == gpu_type]
        return pid, node

    @property
    def head_pid(self) -> int:
        """The process id of the head's GCS, without which the cluster is of no use."""
        (server,) = self._cluster.head_node.all_processes["gcs_server"]
        return int(server.process.pid)

    def kill(self, node: Any) -> None:
        """Kill the raylet of a node with all that hangs on it, without a word to the head."""
        (raylet,) = node.all_processes["raylet"]
        below = _pgrep("-P", str(raylet.process.pid))
        # At once; those that a test has stopped do not see that their raylet is gone.
        _signal(below, signal.SIGSTOP)
        self._cluster.remove_node(node, allow_graceful=False)
        _signal(below, signal.SIGKILL)


@contextlib.contextmanager
def started(library: Path, **head: Any) -> Iterator[Raylets]:
    """A head without CPUs; nodes are added to it."""
    # Its processes find tests/scripted.py.
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = session.local_settings() | {"PYTHONPATH": os.pathsep.join(paths)}
    with (
        folders.own() as temporary,
        session.environment(settings),
        # Ray's cluster for tests keeps its address in /tmp/ray, which may not be there, or may have
        # that of another cluster.
        patch("ray._private.utils.write_ray_address"),
        patch("ray._common.utils.reset_ray_address"),
    ):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": temporary, **head}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield Raylets(cluster, library)
        finally:
            cluster.shutdown()


def measuring_processes(parents: Sequence[int] = ()) -> list[int]:
    """Process ids of what measures for the raylets that this process (or `parents`) started."""
    mine = ",".join(map(str, parents or (os.getpid(),)))
    raylets = {f"RAY_RAYLET_PID={pid}" for pid in _pgrep("-P", mine, "-f", "/raylet ")}
    return [pid for pid in _pgrep("-x", "tensorgap-cell") if raylets.intersection(_variables(pid))]


def template_of(pid: int) -> int:
    """The process id of the template that a process was forked from."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _variables(pid: int) -> list[str]:
    """The environment that the template of a process was started with."""
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:  # it has ended meanwhile
        return []


def _fake_of(pid: int) -> str:
    """The configuration of the fake driver that a process has."""
    config = [v.partition("=")[2] for v in _variables(pid) if v.startswith("FAKENVML_CONFIG=")]
    return Path(config[0]).read_text() if config else ""


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _pgrep(*arguments: str) -> list[int]:
    found = subprocess.run(["pgrep", *arguments], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]
