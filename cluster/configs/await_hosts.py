"""Run on the head of a cluster of fixed hosts: wait until every host of it has joined.

slurm.sbatch names them; of on-premises.yaml they are known. Ray itself ends as soon as the head is
up, and autoscaler v1 does not tell a sweep that other hosts are on their way. A host that does not
come is named and left out.
"""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.machine import NODES_LABEL

_LONGEST_S = 900.0  # the first time, each host downloads and installs torch


def main() -> None:
    """Say how many hosts have joined until all have, or the time is over."""
    import ray

    named = set(sys.argv[1:])
    awaited = named or of_ray_up()
    ray.init("auto", log_to_driver=False, logging_level="ERROR")
    end = time.monotonic() + _LONGEST_S
    missing = awaited
    while missing and time.monotonic() < end:
        time.sleep(1)
        before = missing
        alive = [node for node in ray.nodes() if node["Alive"]]
        missing = awaited - whole(alive)
        if missing != before:
            print(f"{len(awaited) - len(missing)} of {len(awaited)} hosts have joined", flush=True)
    if missing:
        log = "this log" if named else "$RAY_TMPDIR/ray/session_latest/logs/monitor.* on the head"
        print(f"after {_LONGEST_S:g} s without {', '.join(sorted(missing))}; {log} tells why")


def of_ray_up() -> set[str]:
    """The addresses in the configuration of the `ray up` that started this head."""
    import yaml

    config = yaml.safe_load(Path("~/ray_bootstrap_config.yaml").expanduser().read_text())
    return set(config["provider"]["worker_ips"])


def whole(nodes: Sequence[Mapping[str, Any]]) -> set[str]:
    """The hosts of which each node has joined; one may have several.

    By the names of their nodes, which are their addresses where nobody names them.
    """
    found = Counter(node["NodeName"] for node in nodes)
    return {
        node["NodeName"]
        for node in nodes
        if found[node["NodeName"]] >= int(node["Labels"].get(NODES_LABEL, 1))
    }


if __name__ == "__main__":
    main()
