"""Parts on their way: kept on the local disk while their place fails, and brought there later.

A bucket that answers with errors for a while, or a full disk, must cost no row. The spool of a run
has a fixed place, so that a sweep that was killed meanwhile finds it again when it is resumed.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from bench.records import TensorgapError

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0

Write = Callable[[str, bytes], None]  # puts a part with this name into its place


def write_atomically(filesystem: fs.FileSystem, path: str, content: Any) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    # The process id keeps two writers apart; the suffix keeps a leftover from being read.
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        # On a full disk the half of a file is in the way of the next try.
        Path(temporary).unlink(missing_ok=True)
        raise


class Spool:
    """The parts of one run that have not reached their place."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: run: the run's name, which no other run has; clock: monotonic seconds."""
        self._own = Path(tempfile.gettempdir()) / f"tensorgap-{os.getuid()}"
        self._folder = self._own / run
        self._clock = clock
        self._pause_s = _FIRST_PAUSE_S
        self._next = 0.0  # when the place is tried again
        self.trouble: str | None = None  # what the place last said, while parts wait

    @property
    def location(self) -> str:
        """Where parts wait."""
        return str(self._folder)

    def waiting(self) -> list[Path]:
        """The parts that wait."""
        return sorted(self._folder.glob("*.parquet"))

    def put(self, name: str, content: bytes, write: Write) -> None:
        """Put a part into its place, with all that waits; or keep it here if that fails."""
        if self.waiting() and self._clock() < self._next:
            self._keep(name, content)
            return
        try:
            write(name, content)
        except (OSError, pa.ArrowException) as error:
            self._failed(error)
            self._keep(name, content)
        else:
            # A row comes again with its evidence: what waits under its name is older.
            (self._folder / name).unlink(missing_ok=True)
            self.bring(write)

    def bring(self, write: Write) -> int:
        """Bring what waits to its place; returns how many parts still wait."""
        for path in self.waiting():
            try:
                write(path.name, path.read_bytes())
            except (OSError, pa.ArrowException) as error:
                self._failed(error)
                break
            path.unlink()
        left = len(self.waiting())
        if not left:
            self.trouble, self._pause_s = None, _FIRST_PAUSE_S
        return left

    def settle(self, write: Write, limit_s: float) -> int:
        """Bring what waits, again and again for so long; returns how many parts still wait."""
        end = self._clock() + limit_s
        while (left := self.bring(write)) and self._clock() < end:
            time.sleep(min(self._pause_s, max(0.0, end - self._clock())))
        return left

    def _failed(self, error: Exception) -> None:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.trouble = text.splitlines()[0]
        self._next = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _keep(self, name: str, content: bytes) -> None:
        try:
            self._own.mkdir(mode=0o700, exist_ok=True)
            if self._own.stat().st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "it is another user's")
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(fs.LocalFileSystem(), str(self._folder / name), content)
        except OSError as error:
            raise TensorgapError(
                f"{self.trouble}; and the row cannot wait in {self._folder}: {error.strerror}"
            ) from error
