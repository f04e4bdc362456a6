"""The user's path over real hosts: ray up, ray submit, ray job submit, ray rsync-down.

All on one cluster, because a cluster takes most of the time here; docs/cluster.md has the same
commands.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import CHECKOUT, CONFIG, MIXED, Fleet
from network import Host, until

import bench
from bench.measured import Outcome

pytestmark = pytest.mark.timeout(1800)

MATRIX = """\
[cells]
gpu_types = ["P100", "T4", "V100", "L4", "A100"]
precisions = ["fp32", "fp16", "mixed"]

[[workloads]]
model = "tiny"
batch_size = [1, 2]
prompt_tokens = 32

[sampling]
warmup_min_s = 0
warmup_max_s = 0.1
latency_min_s = 0
latency_max_s = 0.2
min_samples = 5
throughput_s = 0.05
energy = "quick"
energy_s = 0.3
idle_s = 0.1
profile = false
timeout_s = 120

[quality]
enabled = false
"""
ONE_CELL = "--gpu-type T4 --precision fp32"


def submit(cluster: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    return cluster.ray("submit", CONFIG, "jobs/sweep.py", "--", *arguments)


def test_five_types_of_three_precisions_by_ray_submit(cluster: Fleet) -> None:
    cluster.project("hosts.toml").write_text(MATRIX)
    assert cluster.ray("rsync-up", CONFIG, "hosts.toml", "hosts.toml").returncode == 0
    # At once after `ray up`, which has waited for all hosts.
    done = submit(cluster, "hosts.toml", "--simulated")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = cluster.rows_at_home(done.stdout)
    assert len(rows) == len({row.key for row in rows}) == 5 * 3 * 2
    for row in rows:
        assert (row.outcome, row.reason) == (Outcome.OK, None), row.cell
        assert row.device is not None
        host = MIXED if row.cell.gpu_type == "L4" else row.cell.gpu_type
        assert row.device.hostname == host.lower()
        assert row.device.gpu_type == row.cell.gpu_type
        assert row.device.simulated
        assert "simulated-gpu" in {warning.code for warning in row.warnings}
        assert row.energy and row.energy.method == (
            "power" if row.cell.gpu_type == "P100" else "counter"
        )
    # Two nodes of one host: a type each, and neither has ever seen a GPU of the other.
    nodes = {(r.cell.gpu_type, r.placement.node) for r in rows if r.placement}
    assert len(nodes) == len({node for _, node in nodes}) == 5
    assert len({r.device.uuid for r in rows if r.device and r.device.hostname == "v100"}) == 2


def test_a_failure_of_the_script_is_one_of_ray_submit(cluster: Fleet) -> None:
    done = submit(cluster, "no-such.toml")
    assert done.returncode == 1  # ray submit knows no other; tensorgap's own is 2
    assert "tensorgap: no-such.toml" in done.stdout
    assert "Traceback" not in done.stdout


def test_workers_have_nothing_of_ours_installed(cluster: Fleet) -> None:
    for host in cluster.workers.values():
        done = host.run("/root/.tensorgap/bin/python", "-c", "import bench")
        assert "No module named 'bench'" in done.stderr


def test_without_the_token_nobody_is_let_in(cluster: Fleet) -> None:
    stranger = cluster.client.run(
        "ray", "status", "--address", f"{cluster.head.address}:6379", RAY_AUTH_MODE="disabled"
    )
    assert stranger.returncode != 0
    assert "oken" in stranger.stdout + stranger.stderr
    asked = ("curl", "--silent", "--max-time", "30", "--output", "/dev/null", "-w", "%{http_code}")
    jobs = "8265/api/jobs/"
    inside = cluster.head.run(*asked, f"http://127.0.0.1:{jobs}")
    assert inside.stdout == "401"
    # Not even with it from outside: the dashboard listens on loopback.
    outside = cluster.client.run(*asked, f"http://{cluster.head.address}:{jobs}")
    assert outside.returncode == 7  # connection refused


def listening(host: Host) -> list[str]:
    """The ports of a host at which somebody from outside could knock."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{host.pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, port = local.rpartition(":")
            # As Linux writes 127.0.0.1, and the same within IPv6, on little-endian machines.
            if state == "0A" and not address.endswith("0100007F"):
                found.add(int(port, 16))
    return [str(port) for port in sorted(found)]


@pytest.mark.parametrize("name", ["head", MIXED])
def test_a_stranger_on_another_host_gets_nothing_from_any_port(cluster: Fleet, name: str) -> None:
    host = cluster.head if name == "head" else cluster.workers[name]
    ports = listening(host)
    assert "22" in ports
    assert len(ports) > 4  # Ray's, each of which asks for the token
    assert not {"44217", "44227"} & set(ports)  # the metrics of a head, which ask nobody
    knock = Path(__file__).with_name("knock.py").read_text()
    # As a script on standard input: this host has nothing of the tests.
    done = cluster.client.run("python", "-c", knock, host.address, *ports, timeout_s=600)
    assert done.returncode == 0, done.stderr
    answers = {port: answer for port, answer in json.loads(done.stdout).items() if answer}
    for port, found in answers.items():
        for answer in found:
            what, _, said = answer.rpartition(" ")
            refused = ("401", "403", "404", "UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE")
            # A node says that it lives.
            assert said in refused or what == "/api/healthz", (port, answer)
    assert any("UNAUTHENTICATED" in answer for found in answers.values() for answer in found)


def test_a_host_without_the_token_does_not_join(cluster: Fleet) -> None:
    head = f"{cluster.head.address}:6379"
    joining = ("ray", "start", "--address", head, "--temp-dir", "/root/stranger")
    done = cluster.client.run(*joining, RAY_AUTH_MODE="disabled", RAY_NUM_REDIS_GET_RETRIES="2")
    assert done.returncode != 0
    assert "oken" in done.stdout + done.stderr
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = cluster.client.run(*joining, RAY_NUM_REDIS_GET_RETRIES="2", **wrong)
    assert done.returncode != 0
    assert "oken" in done.stdout + done.stderr


def test_a_host_with_another_ray_does_not_join_and_says_why(cluster: Fleet) -> None:
    head = f"{cluster.head.address}:6379"
    code = "import ray; ray.__version__ = '2.59.0'; from ray.scripts.scripts import main; main()"
    arguments = ("start", "--address", head, "--temp-dir", "/root/stranger")
    done = cluster.client.run("python", "-c", code, *arguments, RAY_AUTH_MODE="token")
    assert done.returncode != 0
    assert "ersion mismatch" in done.stdout + done.stderr


@pytest.fixture
def tunnel(cluster: Fleet) -> Iterator[None]:
    """What the user leaves open in a second terminal."""
    tunnel = subprocess.Popen(cluster.client.command("ray", "dashboard", CONFIG, folder=CHECKOUT))
    port = ("bash", "-c", "</dev/tcp/127.0.0.1/8265")
    try:
        until(lambda: cluster.client.run(*port).returncode == 0, "ray dashboard")
        yield
    finally:
        tunnel.kill()
        tunnel.wait()


def test_ray_job_submit_keeps_quotes_and_measures_with_what_it_brings(
    cluster: Fleet, tunnel: None
) -> None:
    version = cluster.project("bench/__init__.py")
    # The nodes have the version of `ray up` in ~/tensorgap.
    version.write_text(version.read_text().replace('__version__ = "', '__version__ = "9.9.'))
    cluster.project("my matrices").mkdir()
    profiled = MATRIX.replace("profile = false", "profile = true")
    cluster.project("my matrices/hosts.toml").write_text(profiled)
    address = ("--address", "http://127.0.0.1:8265", "--working-dir", ".")
    narrowed = (*ONE_CELL.split(), "--simulated", "--output", "/root/results")
    sweep = ("python", "-m", "jobs", "sweep", "my matrices/hosts.toml", *narrowed)
    done = cluster.ray("job", "submit", *address, "--", *sweep, RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = cluster.rows_at_home(done.stdout)
    assert {row.software.tensorgap for row in rows if row.software} == {f"9.9.{bench.__version__}"}
    assert all(row.trace and row.trace.traced_ms for row in rows)


def test_on_the_head_of_a_running_cluster(cluster: Fleet) -> None:
    done = cluster.ray("exec", CONFIG, "python -m jobs plan hosts.toml --address auto")
    assert done.returncode == 0, done.stdout
    assert "has 1 A100, 1 CPU, 1 L4, 1 P100, 1 T4, 1 V100" in done.stdout
    assert "warning" not in done.stdout


def test_another_version_of_ray_is_one_clear_message(cluster: Fleet) -> None:
    plan = "cli.main(['plan', 'hosts.toml', '--address', 'auto'])"
    code = f"import ray; ray.__version__ = '2.59.0'; from jobs import cli; {plan}"
    done = cluster.head.run("bash", "-c", f'. ~/.bashrc; python -c "{code}"')
    assert done.returncode == 2
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("tensorgap: no Ray")]
    assert "Version mismatch" in message
    assert f"Ray: {importlib.metadata.version('ray')}" in message
    assert "Ray: 2.59.0" in message
    assert "Traceback" not in done.stderr
