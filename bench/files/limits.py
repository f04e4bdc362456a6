"""How much is read of what others made: a size is looked at before it becomes memory.

A Parquet file of 131 KB can unpack to gigabytes, and a CSV be of any length. Standard library only.
"""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bench.errors import TensorgapError

DEFAULT_BYTES = 10**9  # 2,000 rows, each with three times the 20,000 samples that there can be
SMALL_BYTES = 10**6  # of a file that a person writes, such as a matrix; no one needs to raise it
OPTION = "--max-input"
UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT]?B)?", re.IGNORECASE | re.ASCII)


class TooLargeError(TensorgapError):
    """There is more to read than may be, or than the memory holds; nothing is wrong with it."""


class Allowance:
    """How many bytes a command may still read, unpacked and of all its files together."""

    def __init__(self, most_bytes: int = DEFAULT_BYTES) -> None:
        self.most_bytes = self.left_bytes = most_bytes

    def take(self, size_bytes: int, origin: str) -> None:
        """Set bytes of a file aside before they are read; TooLargeError if too few are left."""
        self.hold(size_bytes, origin)
        self.left_bytes -= size_bytes

    def spare(self) -> "Allowance":
        """Another one with what is left: for what is let go again before the next is read."""
        spare = Allowance(self.most_bytes)
        spare.left_bytes = self.left_bytes
        return spare

    def hold(self, size_bytes: int, origin: str) -> None:
        """Raise TooLargeError where more bytes are needed for a while than are left."""
        if size_bytes <= self.left_bytes:
            return
        taken = self.most_bytes - self.left_bytes
        unit = "GB" if taken + size_bytes >= UNITS["GB"] else "MB"
        enough = f"{(taken + size_bytes) // UNITS[unit] + 1}{unit}"
        together = f", and {shown(taken)} were read before" if taken else ""
        raise TooLargeError(
            f"{origin}: {shown(size_bytes)} to read{together}; at most {shown(self.most_bytes)}"
            f" are read; raise it with {OPTION}, such as {OPTION} {enough}, if"
            " you trust where it comes from"
        )


def at_most(most_bytes: int, origin: str) -> Callable[[int], None]:
    """A check of a size that no option raises; `origin` names the file in messages."""

    def check(size_bytes: int) -> None:
        if size_bytes > most_bytes:
            most = f"must be at most {shown(most_bytes)}"
            raise TooLargeError(f"{origin}: {shown(size_bytes)}; {most}")

    return check


def small(origin: str) -> Callable[[int], None]:
    """A check of the size of a file that a person writes."""
    return at_most(SMALL_BYTES, origin)


def open_file(path: str | Path, check: Callable[[int], None], flags: int = 0) -> BinaryIO:
    """A local file to be read, whose size `check` may refuse.

    `flags` are of `os.open`. OSError: it cannot be read, or is a pipe or a device, which may never
    end.
    """
    try:
        # O_NONBLOCK: a pipe that no one writes to would never open.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except ValueError:
        raise OSError(errno.EINVAL, "a path has no character 0", str(path)) from None
    file = os.fdopen(number, "rb")
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        check(found.st_size)
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | Path, check: Callable[[int], None], flags: int = 0) -> bytes:
    """The content of a local file, as far as it was there when `check` saw its size."""
    with open_file(path, check, flags) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def parse(text: str) -> int | None:
    """The bytes of a size such as 4GB, 500 MB or 1000000; None where it is no size."""
    found = SIZE.fullmatch(text.strip())
    return round(float(found[1]) * UNITS[(found[2] or "").upper()]) or None if found else None


def shown(size_bytes: int) -> str:
    """A size as a person writes it, which `parse` reads."""
    unit, each = next((u, n) for u, n in UNITS.items() if size_bytes >= n or n == 1)
    return f"{size_bytes / each:.4g} {unit}" if each > 1 else f"{size_bytes} B"
