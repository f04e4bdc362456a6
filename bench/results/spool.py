"""Parts on their way: kept on the local disk while their place fails, and brought there later.

A bucket that answers with errors for a while, or a full disk, must cost no row. A run's parts wait
where a sweep that was killed finds them when it is resumed: below `tensorgap-UID` of the temporary
folder. Everybody knows that name and can take it first; so only a folder that is this user's alone
is used, else one named `tensorgap-UID-` and random letters, which is looked for as well.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from bench.errors import TensorgapError
from bench.files import private
from bench.files.storage import Storage, complaint
from bench.results import parts

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0

Write = Callable[[str, bytes], None]  # puts a part with this name into its place


class Spool:
    """The parts of one run that have not reached their place."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: run: the run's name, which no other run has; clock: monotonic seconds."""
        self._run = run
        self.usual = private.usual()  # where parts wait if no one else has taken that place
        exists = os.path.lexists(self.usual)
        self.ignored = private.why_shared(self.usual) if exists else None
        holding = (folder for folder in private.kept() if self._is_real(folder))
        self._own = next(holding, None if self.ignored else self.usual)
        self._clock = clock
        self._pause_s = _FIRST_PAUSE_S
        self._next = 0.0  # when the place is tried again
        self.trouble: str | None = None  # what the place last said, while parts wait

    @property
    def location(self) -> str:
        """Where parts wait."""
        return str((self._own or self.usual) / self._run)

    def waiting(self) -> list[Path]:
        """The parts that wait: files of this user that have the name of a part."""
        if self._own is None or not self._is_real(self._own):
            return []
        entries = [Path(entry.path) for entry in os.scandir(self._own / self._run)]
        return sorted(p for p in entries if parts.is_name(p.name) and _is_own(p, stat.S_ISREG))

    def put(self, name: str, content: bytes, write: Write) -> None:
        """Put a part into its place, with all that waits; or keep it here if that fails."""
        may_try = not self.waiting() or self._clock() >= self._next
        if not (may_try and self._written(name, content, write)):
            self._keep(name, content)
            return
        for path in self.waiting():
            if path.name == name:  # of a row that was measured again: it is older
                path.unlink()
        self.bring(write)

    def bring(self, write: Write) -> int:
        """Bring what waits to its place; returns how many parts still wait."""
        for path in self.waiting():
            if not self._written(path.name, path, write):
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

    def _is_real(self, own: Path) -> bool:
        """Whether the run has a folder below this one, and no link leads to another."""
        levels = [own / self._run, *(own / self._run).parents]
        below = levels[: levels.index(own)]
        return private.why_shared(own) is None and all(_is_own(p, stat.S_ISDIR) for p in below)

    def _written(self, name: str, content: bytes | Path, write: Write) -> bool:
        """Whether a part, or the file that has it, reached its place; else it is tried later."""
        try:
            write(name, content if isinstance(content, bytes) else content.read_bytes())
        except (OSError, pa.ArrowException) as error:
            self.trouble = complaint(error)
            self._next = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            return False
        return True

    def _keep(self, name: str, content: bytes) -> None:
        try:
            if self._own is None or private.why_shared(self._own):
                self._own = private.folder()
            folder = self._own / self._run
            folder.mkdir(parents=True, exist_ok=True)
            if not self._is_real(self._own):
                why = private.why_shared(self._own) or "there is a link"
                raise PermissionError(errno.EPERM, why)
            Storage.at(str(folder / name)).write(content)
        except OSError as error:
            why = f"the row cannot wait in {self.location}: {error.strerror}"
            raise TensorgapError(f"{self.trouble}; and {why}") from error


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether this is a folder or a file of this user, and no link to one."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return is_kind(found.st_mode) and found.st_uid == os.getuid()
