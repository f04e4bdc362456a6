"""Streams on their way: kept on the local disk until they are in their place.

A bucket that answers with errors for a while, or a full disk, must cost no row; and to a bucket
nothing can be appended, so that rows gather here for some seconds. They wait where a sweep that was
killed finds them when it is resumed: below `tensorgap-UID` of the temporary folder. Everybody knows
that name and can take it first; so only a folder that is this user's alone is used, else one named
`tensorgap-UID-` and random letters, which is looked for as well.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from bench.files import limits, private
from bench.files.storage import complaint, with_lock

NAME = re.compile(r"(rows|profiles)-[0-9a-f]{12}\.arrows")
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0

Write = Callable[[str, BinaryIO], None]  # puts a stream with this name into its place


def is_name(name: str) -> bool:
    """Whether a stream may have this name."""
    return NAME.fullmatch(name) is not None


class Spool:
    """The streams of one run that have not reached their place."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: run: the run's name, which no other run has; clock: monotonic seconds."""
        self._run = run
        self.usual = private.usual()  # where streams wait if no one else has taken that place
        exists = os.path.lexists(self.usual)
        self.ignored = private.why_shared(self.usual) if exists else None
        holding = (folder for folder in private.kept() if self._is_real(folder))
        self._own = next(holding, None if self.ignored else self.usual)
        self._clock = clock
        self._pause_s = _FIRST_PAUSE_S
        self._next = 0.0  # when the place is tried again
        self.trouble: str | None = None  # what the place last said, until it takes a row again

    @property
    def location(self) -> str:
        """Where streams wait."""
        return str((self._own or self.usual) / self._run)

    def waiting(self) -> list[Path]:
        """The streams that wait: files of this user that have the name of one."""
        if self._own is None or not self._is_real(self._own):
            return []
        entries = [Path(entry.path) for entry in os.scandir(self._own / self._run)]
        return sorted(p for p in entries if is_name(p.name) and _is_own(p, stat.S_ISREG))

    def folder(self) -> Path:
        """The folder in which streams of the run may wait, made if need be; OSError: none can."""
        if self._own is None or private.why_shared(self._own):
            self._own = private.folder()
        folder = self._own / self._run
        folder.mkdir(parents=True, exist_ok=True)
        if not self._is_real(self._own):
            why = private.why_shared(self._own) or "there is a link"
            raise PermissionError(errno.EPERM, why)
        return folder

    def may_try(self) -> bool:
        """Whether the place may be tried again."""
        return self.trouble is None or self._clock() >= self._next

    def failed(self, error: Exception) -> None:
        """Note that the place failed: it is left alone for a while."""
        self.trouble = complaint(error)
        self._next = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def worked(self) -> None:
        """Note that the place took something."""
        self.trouble, self._pause_s = None, _FIRST_PAUSE_S

    def bring(self, write: Write) -> int:
        """Bring what waits and is written no more to its place; returns how many still wait."""
        for path in self.waiting():
            with limits.open_file(path, lambda size_bytes: None, os.O_NOFOLLOW) as file:
                try:
                    if not with_lock(file.fileno()):
                        continue
                    write(path.name, file)
                except (OSError, pa.ArrowException) as error:
                    self.failed(error)
                    break
            self.worked()
            path.unlink(missing_ok=True)
        return len(self.waiting())

    def settle(self, write: Write, limit_s: float) -> int:
        """Bring what waits, again and again for so long; returns how many still wait."""
        end = self._clock() + limit_s
        while (left := self.bring(write)) and self._clock() < end:
            time.sleep(min(self._pause_s, max(0.0, end - self._clock())))
        return left

    def _is_real(self, own: Path) -> bool:
        """Whether the run has a folder below this one, and no link leads to another."""
        levels = [own / self._run, *(own / self._run).parents]
        below = levels[: levels.index(own)]
        return private.why_shared(own) is None and all(_is_own(p, stat.S_ISDIR) for p in below)


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether this is a folder or a file of this user, and no link to one."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return is_kind(found.st_mode) and found.st_uid == os.getuid()
