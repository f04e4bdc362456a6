"""Sessions with Ray, each in a process of its own, because Ray reads its token when imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakenvml
import pytest
import raylets

import bench
import cluster
from bench import inventory
from cluster import machine
from cluster import session as sessions


def run(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=home,
        env=os.environ
        | {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parent)}
        | environment,
    )


# Two sessions of one process, on a machine with GPUs of two types. What it finds is its last line
# on standard error; what a session prints goes there, too.
LOCAL = """
import json, os, subprocess, sys, time
from pathlib import Path
import processes
from bench.files import private
from cluster import folders
from cluster.session import local_settings, session

def join(code, env):
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True,
                          timeout=100).stderr

def look():
    import bench, cluster, os
    return os.nice(0), bench.__file__, cluster.__file__

seen = {}
with session():
    import ray
    from cluster import driver
    address = ray.get_runtime_context().gcs_address
    (kept,) = {folders.session_of(node) for node in ray.nodes()}
    seen["types"] = sorted(node["Labels"]["ray.io/accelerator-type"] for node in ray.nodes())
    niceness, *paths = ray.get(ray.remote(look).remote())
    seen["niceness"] = niceness - os.nice(0)
    seen["paths"] = paths
    seen["sheltered"] = private.is_sheltered(kept)
    family = processes.family(os.getpid())
    seen["commands"] = " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in family)
    seen["offers"] = {name: offer.devices for name, offer in driver.offers().items()}
    # Without the second, Ray takes 127.0.0.1 for this machine's address in the network.
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    stranger |= {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    seen["stranger"] = join(f"import ray; ray.init({address!r}, log_to_driver=False)", stranger)
    old = f"import ray; ray.__version__ = '2.59.0'\\nfrom cluster.session import session\\n"
    joining = old + f"with session({address!r}): pass"
    seen["old"] = join(joining, os.environ | local_settings())
    # Ray's agents open their ports when it is up already.
    found, end = set(), time.monotonic() + 3
    while time.monotonic() < end:
        found |= processes.listening(processes.family(os.getpid()))
        time.sleep(0.5)
    seen["addresses"] = sorted({address for address, _ in found})
    print("for whoever holds the session")
seen["left"] = kept.parents[1].exists()
with session():
    seen["cpus"] = ray.cluster_resources()["CPU"]
print(json.dumps(seen), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def local(
    fakenvml_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, str]:
    """What was seen, the home in which it ran, and its standard output."""
    home = tmp_path_factory.mktemp("home")
    two = fakenvml.environment(fakenvml_library, "gpu = t4", "gpu = l4")
    done = run(LOCAL, home, **two)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1]), home, done.stdout


Local = tuple[dict[str, Any], Path, str]


def test_a_local_cluster_needs_its_token_and_leaves_none_behind(local: Local) -> None:
    seen, home, _ = local
    assert "ConnectionError" in seen["stranger"].splitlines()[-1]
    assert "oken" in seen["stranger"]
    assert not (home / ".ray" / "auth_token").exists()


def test_standard_output_belongs_to_the_program_that_holds_the_session(local: Local) -> None:
    assert local[2] == ""


def test_two_sessions_of_one_process_both_work(local: Local) -> None:
    assert local[0]["cpus"] >= 1


def test_workers_run_the_code_of_their_driver_and_no_slower(local: Local) -> None:
    seen, _, _ = local
    assert seen["paths"] == [bench.__file__, cluster.__file__]
    assert seen["niceness"] <= 0


def test_what_a_local_cluster_keeps_is_out_of_reach_and_gone_with_it(local: Local) -> None:
    seen, _, _ = local
    assert seen["sheltered"]
    assert not seen["left"]


def test_a_local_cluster_does_without_what_nothing_here_uses(local: Local) -> None:
    seen, _, _ = local
    assert "raylet" in seen["commands"]
    assert not re.search(r"dashboard/dashboard\.py|monitor\.py", seen["commands"])


def test_a_local_cluster_listens_on_loopback_only(local: Local) -> None:
    # As Linux writes 127.0.0.1, and the same within IPv6, on little-endian machines.
    addresses = ["0000000000000000FFFF00000100007F", "0100007F"]
    assert local[0]["addresses"] == addresses


def test_a_version_that_differs_is_one_message(local: Local) -> None:
    last = local[0]["old"].splitlines()[-1]
    assert "ersion mismatch" in last
    assert "2.59.0" in last


def test_a_machine_with_gpus_of_two_types_has_a_node_for_each_and_offers_both(
    local: Local,
) -> None:
    # Ray itself takes all GPUs of a node for what the first one is.
    assert local[0]["types"] == ["L4", "T4"]
    offers = dict(local[0]["offers"])
    assert offers.pop("CPU") == 1
    assert offers == {"L4": 1, "T4": 1}


@pytest.mark.parametrize(
    ("visible", "labels"),
    [
        ("0", {"ray.io/accelerator-type": "T4"}),
        ("1", {"ray.io/accelerator-type": "L4"}),
        ("1,0", {"ray.io/accelerator-type": "L4"}),
        ("", {}),
    ],
)
def test_a_local_cluster_is_labelled_with_the_type_of_the_gpus_that_are_left_in(
    visible: str,
    labels: dict[str, str],
    fake_nvml: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_nvml("gpu = t4", "gpu = l4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards = inventory.visible_gpus()
    options = sessions.local_options(cards, machine.divide(cards), "")
    assert options["labels"] == labels


def test_a_lost_gpu_under_a_local_cluster_is_one_message(
    fakenvml_library: Path, tmp_path: Path
) -> None:
    # Ray counts the GPUs of a node that it starts, and lets the driver's errors out.
    fault = "fault = nvmlDeviceGetHandleByIndex*:0:15:0"
    done = run(
        "from cluster.session import session\nwith session(): pass",
        tmp_path,
        **fakenvml.environment(fakenvml_library, f"gpu = t4\n{fault}"),
    )
    assert "bench.errors.TensorgapError: Ray cannot count the GPUs" in done.stderr
    assert "the NVIDIA driver says: GPU is lost; nvidia-smi shows" in done.stderr


def test_a_cluster_whose_code_others_can_change_is_refused_before_any_is_sent(
    fakenvml_library: Path, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        shared = Path(made)
        shared.chmod(0o755)
        with raylets.started(fakenvml_library, temp_dir=f"{made}/ray") as nodes:
            head = "from cluster.session import session\n"
            joining = f"{head}with session({nodes.address!r}): pass\n"
            refused = run(joining, tmp_path, **nodes.environment)
            sent = list(shared.glob("ray/session_2*/runtime_resources/py_modules_files/*"))
            trusting = f"{head}with session({nodes.address!r}, trust_local_users=True): pass\n"
            taken = run(trusting, tmp_path, **nodes.environment)
    assert refused.returncode == 1
    assert re.search(
        rf"TensorgapError: other users of \S+ can write {made}/ray/session_\S+, where Ray keeps the"
        r" code that it runs: start Ray there with --temp-dir below a folder of mode 0700",
        refused.stderr,
    )
    assert "--trust-local-users" in refused.stderr
    assert sent == []
    assert taken.returncode == 0, taken.stderr
