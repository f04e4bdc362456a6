"""A client, a head and four GPU hosts, and tensorgap on the client, as a user has it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from network import Host, Network

from bench.measured import Measurement
from bench.results import store as results

ROOT = Path(__file__).resolve().parents[2]
GPU_TYPES = ("P100", "T4", "V100", "A100")  # a host for each
MIXED = "V100"  # whose host has an L4, too, which comes first
CONFIG = "cluster/configs/on-premises.yaml"
CHECKOUT = "/root/project"
_TRAVELS = ("bench", "cluster", "jobs", "setup.cfg", "constraints.txt")


@dataclass(frozen=True)
class Fleet:
    network: Network
    client: Host
    head: Host
    workers: dict[str, Host]  # by GPU type
    driver: Path  # the stand-in for the driver's library

    def ray(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What the user types on the client, in the root of the project."""
        return self.client.run("ray", *arguments, folder=CHECKOUT, timeout_s=900, **environment)

    def rows_at_home(self, printed: str) -> list[Measurement]:
        """The rows of the sweep that printed this, once ray rsync-down has brought them."""
        (path,) = re.findall(r"^\S*(results/\S+)/results\.parquet\s*$", printed, re.M)
        done = self.ray("rsync-down", CONFIG, "results/", "results/")
        assert done.returncode == 0, done.stderr
        assert self.project(f"{path}/results.parquet").exists()
        rows, corrupt = results.Results.open(str(self.project(path))).read()
        assert not corrupt
        return rows

    def project(self, path: str) -> Path:
        """A file of the client's copy of the project."""
        return self.client.path(f"{CHECKOUT}/{path}")


def build(network: Network, folder: Path, driver: Path) -> Fleet:
    """Start the hosts.

    Args:
        network: to put them into.
        folder: where the network keeps its keys.
        driver: the stand-in for the driver's library.
    """
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    client = network.add("client", 1, PATH=path)
    head = network.add("head", 10, hidden=ours())
    workers = {gpu_type: add_worker(network, gpu_type, driver) for gpu_type in GPU_TYPES}
    for host in (head, *workers.values()):
        # The environment of this test, in the place where setup.sh would make one.
        host.path("/root/.tensorgap").symlink_to(sys.prefix)
    key = client.path("/root/.ssh/id_ed25519")
    shutil.copy(folder / "user", key)
    copy_project(client.path(CHECKOUT))
    config = client.path(f"{CHECKOUT}/{CONFIG}")
    yours = {
        "head_ip": head.address,
        "worker_ips": f"[{', '.join(host.address for host in workers.values())}]",
        "ssh_user": "root",
    }
    config.write_text(adapt(config.read_text(), yours))
    client.run("ray", "get-auth-token", "--generate")
    client.run("chmod", "600", "/root/.ray/auth_token")
    return Fleet(network, client, head, workers, driver)


def copy_project(target: Path) -> None:
    """Put what `ray up` takes along into a folder."""
    for name in _TRAVELS:
        source = ROOT / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, ignore=unwanted)
        else:
            shutil.copy(source, target)


def adapt(config: str, yours: dict[str, str]) -> str:
    """A config with other values in the lines that are the user's."""
    for key, value in yours.items():
        config, found = re.subn(rf"(?m)^( *{key}: ).*( # yours.*)$", rf"\g<1>{value}\2", config)
        assert found == 1, key
    return config


def add_worker(network: Network, gpu_type: str, driver: Path) -> Host:
    """A host whose driver shows its GPU or GPUs, without anything of tensorgap."""
    number = 11 + GPU_TYPES.index(gpu_type)
    gpus = f"l4,{gpu_type.lower()}" if gpu_type == MIXED else gpu_type.lower()
    settings = {"LD_LIBRARY_PATH": str(driver.parent), "FAKENVML_PRESET": gpus}
    return network.add(gpu_type.lower(), number, hidden=ours(), **settings)


def ours() -> tuple[Path, ...]:
    """What makes tensorgap importable in the environment of this test."""
    packages = Path(sysconfig.get_path("purelib"))
    return tuple(packages.glob("__editable__*tensorgap*"))
