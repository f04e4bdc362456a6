"""Hosts on one Linux machine: a switch, and hosts with address, processes and files of their own.

Each host is a set of namespaces (net, pid, mount, uts, ipc) whose first process is `host.sh`, with
a fresh /root, /tmp and /dev/shm above the machine's own files and an sshd, so that programs on it
use ssh, rsync and the network as between machines. Everything of a host, its mounts and its cables
too, is gone as soon as its first process ends; and that ends with the process that made it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_INIT = Path(__file__).with_name("host.sh")
_PACKAGES = {
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "curl": "curl",
    "ip": "iproute2",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
_SUBNET = "10.77.0"
_START_S = 60.0
# Each ends when its parent does: with this process what setpriv becomes, with that its child.
_TIED = ("setpriv", "--pdeathsig", "KILL")
_UNSHARE = [
    *("unshare", "--fork", "--kill-child", "--mount-proc"),
    *("--net", "--pid", "--mount", "--uts", "--ipc"),
]


def why_not() -> str | None:
    """Why this machine cannot have such hosts; None where it can."""
    missing = sorted({package for name, package in _PACKAGES.items() if not shutil.which(name)})
    if missing:
        return f"needs the Debian packages {' '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    mount = ("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    tried = subprocess.run([*_UNSHARE, *mount], capture_output=True)
    if tried.returncode:
        return f"this root may not make namespaces: {tried.stderr.decode().strip()}"
    return None


@dataclass(frozen=True)
class Host:
    """A host that is up."""

    name: str
    address: str
    pid: int  # of its first process, as the machine numbers it
    environment: Mapping[str, str]

    def command(self, *command: str, folder: str = "/root", **environment: str) -> list[str]:
        """What runs a command on this host."""
        settings = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            **self.environment,
            **environment,
        }
        enter = f"nsenter --target {self.pid} --net --pid --mount --uts --ipc --"
        clean = f"env --ignore-environment --chdir={folder}"
        assigned = [f"{name}={value}" for name, value in settings.items()]
        return [*enter.split(), *clean.split(), *assigned, *command]

    def run(
        self, *command: str, timeout_s: float = 120, **options: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*command, **options),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def path(self, path: str) -> Path:
        """A path of this host, as the machine sees it."""
        return Path(f"/proc/{self.pid}/root{path}")


class Network:
    """A switch, the disks of the hosts, and the hosts."""

    def __init__(self, folder: Path) -> None:
        """Put keys and logs into a folder."""
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        disks = "mount -t tmpfs tmpfs /mnt && touch /mnt/ready && exec sleep infinity"
        self._switch = self._start("switch", ["bash", "-c", disks])
        until(Path(f"/proc/{self._switch}/root/mnt/ready").exists, "the disks")
        self._on_switch("ip", "link", "add", "hub", "type", "bridge")
        self._on_switch("ip", "link", "set", "hub", "up")
        for key in ("user", "host"):
            make = f"ssh-keygen -q -t ed25519 -f {folder / key}"
            subprocess.run([*make.split(), "-N", ""], check=True)

    def add(
        self, name: str, number: int, hidden: tuple[Path, ...] = (), **environment: str
    ) -> Host:
        """Start a host and wait until its sshd listens; one that was there has kept its disk.

        Args:
            name: of the host.
            number: the last part of its address.
            hidden: files of the machine that are empty on the host.
            **environment: variables of every program that is run there.
        """
        variables = " ".join(f"{key}={value}" for key, value in environment.items())
        arguments = [name, str(self._folder), variables, *map(str, hidden)]
        pid = self._start(name, ["bash", str(_INIT), *arguments], within=self._switch)
        host = Host(name, f"{_SUBNET}.{number}", pid, environment)
        until(lambda: host.path("/run/sshd/sshd.pid").exists(), f"sshd of {name}")
        cable = f"ip link add eth0 netns {pid} type veth peer name {name} netns {self._switch}"
        subprocess.run(cable.split(), check=True)
        self._on_switch("ip", "link", "set", "dev", name, "master", "hub", "up")
        for command in (
            "ip link set lo up",
            f"ip address add {host.address}/24 dev eth0",
            "ip link set eth0 up",
            # Ray finds its own address by the route to one outside, to which nothing is sent.
            f"ip route add default via {_SUBNET}.254",
        ):
            assert not host.run(*command.split()).returncode, command
        return host

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        self._on_switch("ip", "link", "set", "dev", name, "down")

    def mend(self, name: str) -> None:
        """Put it back."""
        self._on_switch("ip", "link", "set", "dev", name, "up")

    def power_off(self, name: str) -> None:
        """End every process of a host at once; nobody is told."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all of it."""
        for name in reversed(list(self._processes)):
            self.power_off(name)

    def _start(self, name: str, command: list[str], within: int | None = None) -> int:
        """Run the first process of new namespaces; its mounts are added to those of another one."""
        enter = () if within is None else ("nsenter", "--target", str(within), "--mount", "--")
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*_TIED, *enter, *_UNSHARE, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes[name] = process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: bool(children.read_text()), f"the first process of {name}")
        return int(children.read_text())

    def _on_switch(self, *command: str) -> None:
        enter = f"nsenter --target {self._switch} --net --"
        subprocess.run([*enter.split(), *command], check=True)


def until(holds: Callable[[], bool], what: str, timeout_s: float = _START_S) -> float:
    """Wait for something; returns how long it took, in s."""
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.1)
    return time.monotonic() - start
