"""A real Slurm over hosts: slurmctld and the user on one, a slurmd on each host with GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import fleet
from network import Host, Network, until

GPU_TYPES = ("P100", "V100", "A100")
GPUS = 2  # of one type on each host
PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "munged": "munge",
    "sbatch": "slurm-client",
}
SHARED = "/mnt/shared"  # the only folder that all hosts have in common, as a cluster has homes
PROJECT = f"{SHARED}/project"
CONFIG = "cluster/configs/slurm.sbatch"
# Slurm's defaults, where the test does not wait for them: a requeued job starts `cred_expire`
# after it ended (120 s), and several types are only scheduled by backfill, every 30 s.
_CONF = """\
ClusterName=test
SlurmctldHost={login.name}({login.address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge.socket,cred_expire=5
StateSaveLocation=/run/slurmctld
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/run/slurmctld.log
SlurmdLogFile=/run/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={shared}/prolog
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
SlurmdParameters=config_overrides
GresTypes=gpu
KillWait=20
{nodes}
"""


def why_not() -> str | None:
    """Why there can be no Slurm here; None where there can."""
    missing = sorted({package for name, package in PACKAGES.items() if not shutil.which(name)})
    return f"needs the Debian packages {' '.join(missing)}" if missing else None


@dataclass(frozen=True)
class Slurm:
    network: Network
    login: Host
    nodes: dict[str, Host]  # by GPU type

    def run(self, *command: str, **options: str) -> subprocess.CompletedProcess[str]:
        """What the user types, in the root of the project."""
        return self.login.run(*command, folder=PROJECT, **options)

    def project(self, path: str) -> Path:
        """A file of the project."""
        return self.login.path(f"{PROJECT}/{path}")


def build(network: Network, folder: Path, driver: Path) -> Slurm:
    """Start hosts and Slurm.

    Args:
        network: to put them into.
        folder: of the key of munge.
        driver: the stand-in for the driver's library.
    """
    settings = {"SLURM_CONF": f"{SHARED}/slurm.conf"}
    login = network.add("login", 1, hidden=fleet.ours(), **settings)
    nodes = {
        gpu_type: network.add(gpu_type.lower(), 11 + number, hidden=fleet.ours(), **settings)
        for number, gpu_type in enumerate(GPU_TYPES)
    }
    login.path(SHARED).mkdir()
    fleet.copy_project(login.path(PROJECT))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    for name, text in configuration(login, nodes, driver).items():
        login.path(f"{SHARED}/{name}").write_text(text)
        login.path(f"{SHARED}/{name}").chmod(0o755)
    for host in (login, *nodes.values()):
        host.path("/root/.tensorgap").symlink_to(sys.prefix)
        host.run("mount", "--bind", f"{SHARED}/hosts", "/etc/hosts")
        munge = f"munged --force --key-file={key} --socket=/run/munge.socket --num-threads=2"
        munge += " --pid-file=/run/munge.pid --log-file=/run/munge.log --seed-file=/run/munge.seed"
        start(host, munge)
    login.path("/run/slurmctld").mkdir()
    start(login, "slurmctld")
    for node in nodes.values():
        node.path("/run/slurmd").mkdir()
        for gpu in range(GPUS):
            node.run("mknod", f"/run/nvidia{gpu}", "c", "1", "3")
        start(node, "slurmd")
    slurm = Slurm(network, login, nodes)
    idle = ("sinfo", "--Node", "--noheader", "--format=%T")
    until(lambda: slurm.run(*idle).stdout.split() == ["idle"] * len(nodes), "slurmd of all nodes")
    return slurm


def configuration(login: Host, nodes: dict[str, Host], driver: Path) -> dict[str, str]:
    """Slurm's files by name: each type is a partition, and its GPUs are files of the node."""
    lines, gres = [], []
    for gpu_type, node in nodes.items():
        gpus = f"gpu:{gpu_type.lower()}:{GPUS}"
        lines += [
            f"NodeName={node.name} NodeAddr={node.address} CPUs=4 RealMemory=4000 Gres={gpus}",
            f"PartitionName={node.name} Nodes={node.name} MaxTime=INFINITE",
        ]
        gres += [
            f"NodeName={node.name} Name=gpu Type={gpu_type.lower()} File=/run/nvidia[0-{GPUS - 1}]"
        ]
    # What a step finds in its environment on each node: the driver with the GPUs of this node.
    prolog = ["#!/bin/sh", f"echo export LD_LIBRARY_PATH={driver.parent}"]
    prolog += [f"echo export FAKENVML_PRESET=$SLURMD_NODENAME{',$SLURMD_NODENAME' * (GPUS - 1)}"]
    addresses = [f"{host.address} {host.name}" for host in (login, *nodes.values())]
    return {
        "hosts": "\n".join(["127.0.0.1 localhost", *addresses]) + "\n",
        "slurm.conf": _CONF.format(login=login, shared=SHARED, nodes="\n".join(lines)),
        "gres.conf": "\n".join(gres) + "\n",
        "prolog": "\n".join(prolog) + "\n",
    }


def start(host: Host, daemon: str) -> None:
    """Start a daemon, which goes to the background by itself and ends with its host."""
    done = host.run(*daemon.split())
    assert done.returncode == 0, done.stdout + done.stderr
