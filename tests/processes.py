"""What Linux tells of the processes below one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from cluster.folders import descendants


def without_cache() -> dict[str, str]:
    """The environment of a new process, without the cache that torch has named for this one."""
    return {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}


def family(pid: int) -> list[int]:
    """The process and all below it."""
    return [pid, *descendants(pid)]


def lives(pid: int) -> bool:
    """Whether it runs, and is not only a name that nobody has buried yet."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ended(pids: Collection[int]) -> bool:
    """Whether all these processes end; those of Ray notice its end within a second or two."""
    deadline = time.monotonic() + 60
    while any(map(lives, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def runs(pid: int, name: str) -> bool:
    """Whether this is in its command line."""
    with contextlib.suppress(OSError):
        return name in Path(f"/proc/{pid}/cmdline").read_text()
    return False


def opened(pid: int) -> set[str]:
    """The files that it has open; a socket as `socket:[INODE]`."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(link))
    return found


def listening(pids: Collection[int]) -> set[tuple[str, int]]:
    """Where processes listen: the address as Linux writes it, in hexadecimal, and the port."""
    theirs = set().union(*map(opened, pids))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and f"socket:[{words[9]}]" in theirs:
                    address, _, port = words[1].rpartition(":")
                    found.add((address, int(port, 16)))
    return found
