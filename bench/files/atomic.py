"""Files of a folder that may come from a stranger: read up to a size, written whole or not at all.

On a local disk no link is followed, since it can lead to any file that this user may read or
overwrite, and nothing but a regular file is opened: a pipe would be waited for without end.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyarrow import fs

from bench.files import limits

_TEMPORARY = re.compile(r"(.+)\.[0-9]+\.tmp")  # as `write_atomically` names it


def read(filesystem: fs.FileSystem, path: str, check: Callable[[int], None]) -> bytes:
    """The content of a file, whose size `check` may refuse before it is read.

    Raises:
        OSError: there is no such file, it is a link, or it is not a regular file.
    """
    if not isinstance(filesystem, fs.LocalFileSystem):
        size_bytes = filesystem.get_file_info(path).size
        if size_bytes is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        check(size_bytes)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read(size_bytes))
    if os.path.islink(path):  # else the system speaks of too many levels of links
        raise OSError(errno.ELOOP, "a link, which is not followed", path)
    return limits.read_file(path, check, os.O_NOFOLLOW)


def write_atomically(filesystem: fs.FileSystem, path: str, content: Any) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    # The process id keeps two writers apart; the suffix keeps a leftover from being read.
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        # "x": never through a link that somebody put there.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        # On a full disk the half of a file is in the way of the next try.
        temporary.unlink(missing_ok=True)
        raise


def remove_temporaries(folder: str, is_ours: Callable[[str], bool]) -> None:
    """Remove what killed writers left in a folder, whose lock is held.

    Args:
        folder: a local one.
        is_ours: whether a file of this name is one that is written there.
    """
    for entry in list(os.scandir(folder)):
        found = _TEMPORARY.fullmatch(entry.name)
        if found and is_ours(found[1]) and not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
