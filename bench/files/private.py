"""Whether a folder is this user's alone: whoever can write it has us believe or run what he likes.

Temporary folders have names that others can guess, and create or link first. So nothing below one
is read or written before the folder was looked at. Standard library only.
"""

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def why_shared(folder: Path) -> str | None:
    """Why a folder is not this user's alone; None if no one else enters it, or can replace it.

    It must be a real folder (no link), of this user, with mode 0700, and no folder above it may
    let others rename what is in it.
    """
    try:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode):
            return f"{folder} is no folder of its own"
        if found.st_uid != os.getuid():
            return f"{folder} belongs to another user"
        if found.st_mode & 0o077:
            return f"others can enter {folder} (mode {stat.S_IMODE(found.st_mode):04o})"
        return why_open(*Path(os.path.realpath(folder)).parents)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"


def why_writable(path: Path) -> str | None:
    """How others could change what is at a place; None if they cannot write or get there."""
    if is_sheltered(path):
        return None
    try:
        real = Path(os.path.realpath(path))
        return why_open(real, sticky_suffices=False) or why_open(*real.parents)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"


def why_open(*paths: Path, sticky_suffices: bool = True) -> str | None:
    """Which of these others may write; in a sticky folder, as /tmp, each may rename only his own.

    Whoever owns the root of the file system (in a container not always user 0) can do so anyhow.
    """
    for path in paths:
        found = os.stat(path)
        if found.st_uid not in {0, os.getuid(), os.stat("/").st_uid}:
            return f"{path} belongs to another user"
        sticky = found.st_mode & stat.S_ISVTX and sticky_suffices
        if found.st_mode & 0o022 and not sticky:
            return f"others can write {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def is_sheltered(path: Path) -> bool:
    """Whether a place, or a folder above it, is this user's alone, so that no one else gets there.

    What Ray makes below its temporary folder is open to all (mode 0777).
    """
    real = Path(os.path.realpath(path))
    return any(why_shared(folder) is None for folder in (real, *real.parents))


def usual() -> Path:
    """Where this user keeps what outlasts a process, unless another user has taken the place."""
    return Path(tempfile.gettempdir()) / f"tensorgap-{os.getuid()}"


def kept() -> list[Path]:
    """The folders of this user alone in which something may be kept, the usual one first."""
    others = sorted(usual().parent.glob(f"{usual().name}-*"))
    return [folder for folder in (usual(), *others) if why_shared(folder) is None]


def folder() -> Path:
    """A folder of this user alone for what outlasts a process, made if need be; else OSError."""
    with contextlib.suppress(FileExistsError):
        usual().mkdir(mode=0o700)
    found, prefix = kept(), f"{usual().name}-"
    return found[0] if found else Path(tempfile.mkdtemp(prefix=prefix, dir=usual().parent))
