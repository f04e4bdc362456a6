"""What breaks between hosts: links, hosts, raylets, the head. The cluster is whole again at the end.

Each test makes its faults while hosts measure, and notes for docs/reliability.md how long the
driver took to notice and what the rows say.
"""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import faults_record

import pytest
from fleet import CONFIG, Fleet
from network import Host, until

from bench.records import Measurement, Outcome

MATRIX = """\
[cells]
gpu_types = ["P100", "T4", "V100", "A100"]
precisions = ["fp32"]

[[workloads]]
model = "tiny"
prompt_tokens = 32

[sampling]
warmup_min_s = 0
warmup_max_s = 0.1
latency_min_s = 15
latency_max_s = 20
min_samples = 5
throughput_s = 0.05
energy = "quick"
energy_s = 0.3
idle_s = 0.1
timeout_s = 120

[quality]
enabled = false
"""
SWEEP = ("python", "-m", "jobs", "sweep")
OPTIONS = ("--address", "auto")


class Sweep:
    """A sweep that runs on the head meanwhile, as a user who is logged in there starts it."""

    def __init__(self, head: Host, *arguments: str) -> None:
        command = " ".join(("exec", *SWEEP, *arguments, *OPTIONS))
        self._process = subprocess.Popen(
            head.command("bash", "-c", f". ~/.bashrc; {command}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, timeout_s: float = 150) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, out, err


def measures(host: Host) -> bool:
    return "ray::CellActor" in host.run("ps", "-A", "-o", "args").stdout


def alive(cluster: Fleet) -> set[str]:
    """Names of the hosts whose raylet the head takes for alive."""
    look = "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); print(*["
    look += "n['NodeManagerHostname'] for n in ray.nodes() if n['Alive']])"
    done = cluster.head.run("bash", "-c", f'. ~/.bashrc; python -c "{look}"')
    return set(done.stdout.split())


def noticed_s(row: Measurement, since: datetime.datetime) -> float:
    assert row.finished_at is not None
    return (row.finished_at - since).total_seconds()


def note(fault: str, row: Measurement, after_s: float | None) -> None:
    said = row.outcome if row.reason is None else f"{row.outcome}: {row.reason}"
    faults_record.note(fault, after_s, said, faults_record.HOSTS)


@pytest.fixture(scope="module")
def broken(cluster: Fleet) -> Iterator[tuple[datetime.datetime, list[Measurement]]]:
    """One sweep over four hosts, each of which breaks in its own way at the same time."""
    cluster.head.path("/root/faults.toml").write_text(MATRIX)
    sweep = Sweep(cluster.head, "faults.toml", "--simulated")
    until(lambda: all(map(measures, cluster.workers.values())), "four hosts measure", 90)
    since = datetime.datetime.now(datetime.UTC)
    cluster.network.cut("p100")
    cluster.network.cut("t4")
    cluster.network.power_off("v100")
    assert not cluster.workers["A100"].run("pkill", "-KILL", "-x", "raylet").returncode
    time.sleep(max(0.0, 5 - (datetime.datetime.now(datetime.UTC) - since).total_seconds()))
    cluster.network.mend("p100")
    code, out, err = sweep.end()
    assert code == 1, err
    rows = cluster.rows_at_home(out)
    assert len(rows) == len({row.key for row in rows}) == 4
    yield since, rows


def test_it(broken) -> None:
    since, rows = broken
    for row in rows:
        print(row.cell.gpu_type, row.outcome, row.reason, noticed_s(row, since), row.placement)
    raise AssertionError
