"""What the processes of a node read or build once: files in memory that their template keeps.

A process that was forked from a template finds what others have put here before; any other process
finds nothing, and what it puts here is gone with it. Nothing can be changed any more once it is
here. Standard library only.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable
from pathlib import Path

_MOST_SHARE = 0.25  # of the memory that there is
# What a container may use, of both versions of cgroups; as a process within it sees them.
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_CGROUP = Path("/sys/fs/cgroup")
_LONGEST_KEY = 4096
_kept: dict[str, int] = {}  # descriptors by key, the oldest first; inherited by whatever is forked
_template: socket.socket | None = None  # to it, of a process that was forked


def find(key: str) -> str | None:
    """The path of a file that is here, for this process."""
    return f"/proc/self/fd/{_kept[key]}" if key in _kept else None


def put(key: str, size_bytes: int, content: Iterable[bytes | memoryview]) -> None:
    """Put a file here for all to come, unless it is too large, or no one is to come.

    Where that fails, those to come read it themselves.
    """
    if _template is None or size_bytes > most_bytes():
        return
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("tensorgap", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(descriptor, "wb") as file:
            file.writelines(content)
            file.flush()
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            socket.send_fds(_template, [os.fsencode(key)], [descriptor])


def belongs_to(template: socket.socket) -> None:
    """Note the socket to the template that this process was forked from."""
    global _template
    _template = template


def keep(child: socket.socket) -> bool:
    """Take what a process has put here, and let go of the oldest where it is too much.

    False where it will put no more.
    """
    key, descriptors, _, _ = socket.recv_fds(child, _LONGEST_KEY, 1)
    if not descriptors:
        return False
    if (same := _kept.pop(os.fsdecode(key), None)) is not None:  # of who began beside it
        os.close(same)
    _kept[os.fsdecode(key)] = descriptors[0]
    while sum(os.fstat(one).st_size for one in _kept.values()) > most_bytes():
        os.close(_kept.pop(next(iter(_kept))))
    return True


def most_bytes() -> float:
    """How much may be here."""
    return _MOST_SHARE * memory_bytes()


def memory_bytes() -> int:
    """The host's memory, or what a container may use of it."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            sizes.append(int((_CGROUP / name).read_text()))
    return min(sizes)
