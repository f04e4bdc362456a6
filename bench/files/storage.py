"""A folder or a file, on this disk or behind a URI that pyarrow's file systems know.

It may come from a stranger: it is read up to a size, and written whole or not at all. On a local
disk no link is followed, since it can lead to any file that this user may read or overwrite, and
nothing but a regular file is opened: a pipe would be waited for without end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from bench.errors import TensorgapError
from bench.files import limits
from bench.files.location import redacted, shown

TEMPORARY = re.compile(r"(.+)\.[0-9]+\.tmp")  # as `write` names it
MOST_IN_MEMORY_BYTES, PIECE_BYTES = 16 * 2**20, 2**20  # of what is not on a local disk
# How S3 words that it does not know who asks, or that he may not (pyarrow 26).
NO_ACCESS = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|EXPIRED|TOKEN|CREDENTIALS"
    "|HTTP (response code|status) 40[013]",
    re.IGNORECASE,
)
CREDENTIALS = (
    "the credentials may be missing, wrong or not suffice: set AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they are temporary), or AWS_PROFILE, or use"
    " the role of the instance; the bucket's policy must let them read, write and list"
)


def complaint(error: Exception) -> str:
    """The first line of what the system or a file system says."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


@dataclass(frozen=True)
class Storage:
    """A folder or a file; `location` is as the user typed it and may hold secrets."""

    location: str
    filesystem: fs.FileSystem
    path: str

    @classmethod
    def at(cls, location: str) -> Storage:
        """The place of a path or a URI; TensorgapError where no file system knows it."""
        if "://" not in location:
            return cls(location, fs.LocalFileSystem(), str(Path(location).absolute()))
        try:
            filesystem, path = fs.FileSystem.from_uri(location)
        except (pa.ArrowException, OSError, ValueError) as error:
            why = redacted(complaint(error), [location])
            raise TensorgapError(
                f"{shown(location)}: cannot be used ({why}); give a folder, or a URI such as"
                " s3://BUCKET/PATH or gs://BUCKET/PATH"
            ) from None
        return cls(location, filesystem, path.rstrip("/"))

    def within(self, name: str) -> Storage:
        """A place within this folder; the query of a URI (?region=...) stays at the end."""
        folder, mark, query = self.location, "", ""
        if "://" in self.location:
            folder, mark, query = self.location.partition("?")
        location = f"{folder.rstrip('/')}/{name}{mark}{query}"
        return Storage(location, self.filesystem, f"{self.path}/{name}")

    @property
    def shown(self) -> str:
        """The place as it may be shown."""
        return shown(self.location)

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def type(self) -> fs.FileType:
        """Whether a file, a folder or nothing is there."""
        return self.filesystem.get_file_info(self.path).type

    @property
    def exists(self) -> bool:
        """Whether anything is there."""
        return bool(self.type != fs.FileType.NotFound)

    def open(self, check: Callable[[int], None]) -> IO[bytes]:
        """The file to be read at any place; `check` may refuse its size; OSError: no real file.

        What is not on a local disk is brought into a temporary file.
        """
        if self.is_local:
            if os.path.islink(self.path):  # else the system speaks of too many levels of links
                raise OSError(errno.ELOOP, "a link, which is not followed", self.path)
            return limits.open_file(self.path, check, os.O_NOFOLLOW)
        size_bytes = self.filesystem.get_file_info(self.path).size
        if size_bytes is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.path)
        check(size_bytes)
        file = tempfile.SpooledTemporaryFile(MOST_IN_MEMORY_BYTES)  # noqa: SIM115, it is returned
        with self.filesystem.open_input_stream(self.path) as stream:
            while size_bytes > 0 and (content := stream.read(min(size_bytes, PIECE_BYTES))):
                size_bytes -= file.write(content)
        file.seek(0)
        return file

    def read(self, check: Callable[[int], None]) -> bytes:
        """The content of the file, whose size `check` may refuse; OSError if it is no real file."""
        with self.open(check) as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            return file.read(size_bytes)

    def write(self, content: bytes) -> None:
        """Write the file so that a reader sees the old content or the new, never a part of it."""
        with self.writing() as file:
            file.write(content)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """A stream whose content is the file once all of it is there, and else is gone."""
        if not self.is_local:
            # What leaves it by an exception must not end an upload that lacks its end.
            with tempfile.TemporaryFile() as file:
                yield file
                file.seek(0)
                with self.filesystem.open_output_stream(self.path) as stream:
                    shutil.copyfileobj(file, stream, PIECE_BYTES)
            return
        # The process id keeps two writers apart; the suffix keeps a leftover from being read.
        temporary = Path(f"{self.path}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)
            # "x": never through a link that somebody put there.
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            # On a full disk the half of a file is in the way of the next try.
            temporary.unlink(missing_ok=True)
            raise

    def remove_temporaries(self, is_ours: Callable[[str], bool]) -> None:
        """Remove what killed writers of our files left in this local folder, which is locked."""
        for entry in list(os.scandir(self.path)):
            found = TEMPORARY.fullmatch(entry.name)
            if found and is_ours(found[1]) and not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)

    def make_folder(self) -> None:
        """Make the folder, and those above it."""
        self.filesystem.create_dir(self.path, recursive=True)

    def probe(self) -> None:
        """Write a file of a few bytes into this folder, and remove it again."""
        probe = self.within(".tensorgap-probe")
        probe.write(b"tensorgap\n")
        # Whoever may write to a bucket may not always delete, which a sweep never does.
        with contextlib.suppress(OSError, pa.ArrowException):
            self.filesystem.delete_file(probe.path)

    @contextlib.contextmanager
    def explained(self, remedy: str = "") -> Iterator[None]:
        """Turn a complaint of the file system into one message that names the place."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            text = redacted(complaint(error), [self.location])
            if self.location.startswith("s3:") and NO_ACCESS.search(text):
                remedy = f"; {CREDENTIALS}"
            raise TensorgapError(f"{self.shown}: {text}{remedy}") from error

    @contextlib.contextmanager
    def locked(self, name: str, busy: str) -> Iterator[None]:
        """Keep other processes out of a local folder; the lock ends with the process, however.

        TensorgapError with the words `busy`: another process holds the lock.
        """
        if not self.is_local:
            yield
            return
        with self.explained():
            # Never through a link, whose target would be made or emptied.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            number = os.open(f"{self.path}/{name}", flags)
        with os.fdopen(number, "rb+", buffering=0) as lock:
            if not with_lock(lock.fileno()):
                raise TensorgapError(f"{self.shown}: {busy}")
            yield


def with_lock(number: int) -> bool:
    """Whether a file could be locked, which it is until it is closed: no other process has it."""
    import fcntl  # not on Windows, where Ray drivers are rare

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Lustre without flock and some NFS know no locks.
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    return True
