"""A sweep waits for a node that an autoscaler starts: Ray's own, with its provider for tests."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fakenvml
import pytest
from raylets import VIRTUAL
from sweeps import rows_in
from test_jobs_faults import MATRIX

from bench.measured import Outcome
from cluster import folders
from cluster.placement import TYPE_LABEL

HEAD = "ray.head.default"  # as the provider calls it
T4 = {
    "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 80 * 2**20},
    "labels": {TYPE_LABEL: "T4"},
    "node_config": {},
    "min_workers": 0,
    "max_workers": 1,
}


@pytest.fixture(scope="module")
def cluster(
    fakenvml_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a head that measures nothing and may start one T4, and how to reach it."""
    from ray.autoscaler._private.fake_multi_node import node_provider

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    lists = ("file_mounts", "head_node", "worker_nodes", "auth")
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray_commands", "worker_start_ray_commands")
    config = {
        "cluster_name": "test",
        "max_workers": 1,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": f"{node_provider.__name__}.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": node_provider.FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "t4": T4,
        },
        "head_node_type": HEAD,
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{name: {} for name in lists},
        **{f"{name}_commands": [] for name in commands},
        **{name: [] for name in starts},
    }
    path = tmp_path_factory.mktemp("autoscaler") / "config.json"
    path.write_text(json.dumps(config))
    token = secrets.token_hex(32)
    environment = {
        **os.environ,
        **fakenvml.environment(fakenvml_library, f"gpu = t4\n{VIRTUAL}"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": node_provider.FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_provider.FAKE_HEAD_NODE_ID,
    }
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=0"]
    head += ["--num-gpus=0", f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1"]
    head += ["--include-dashboard=false", "--dashboard-agent-listen-port=0"]
    head += [f"--autoscaling-config={path}", f"--object-store-memory={80 * 2**20}"]
    with folders.own() as temporary:
        try:
            subprocess.run(
                [*head, f"--temp-dir={temporary}"], env=environment, check=True, capture_output=True
            )
            yield address, environment
        finally:
            _kill_all(f"RAY_AUTH_TOKEN={token}".encode())


def _kill_all(mark: bytes) -> None:
    """Kill every process that has this in its environment."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            if mark in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)


def test_a_type_that_it_has_is_waited_for_and_another_is_unplaced(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = cluster
    matrix = tmp_path / "m.toml"
    text = MATRIX.replace("replicates = 2\n", "")
    matrix.write_text(text.replace('"P100"', '"T4", "A100"'))
    command = [sys.executable, "-m", "jobs", "sweep", str(matrix), "--simulated"]
    done = subprocess.run(
        [*command, "--address", address, "--output", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 1, done.stderr
    rows = {row.cell.gpu_type: row for row in rows_in(done.stdout.splitlines()[-1]).values()}
    assert rows["T4"].outcome == Outcome.OK  # on a node that was not there before
    assert rows["A100"].outcome == Outcome.UNPLACED
    assert "no autoscaler starts one" in str(rows["A100"].reason)
