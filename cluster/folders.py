"""Where Ray keeps its files: it opens all of them to every user of the host (mode 0777).

Among them is the code that it runs, so that whoever can write there runs what he likes as the user
of Ray. Only a folder above that no one else enters keeps others out: a local cluster gets one, and
on the nodes of another the way to the files is looked at before any code is sent there.
"""

import contextlib
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.errors import TensorgapError
from bench.files import private
from cluster.placement import NODE_LABEL, host_of

# In the environment of what runs where other users need not be kept from the code.
TRUSTING = "TENSORGAP_TRUSTS_LOCAL_USERS"
_LONGEST = 107  # characters of a socket's path (unix(7))
_BELOW = len(
    "/tensorgap-abcdefgh/ray/session_2026-11-28_14-35-49_030699_4194304/sockets/plasma_store.9"
)
_ANSWER_S = 60.0
_TRIES, _PAUSE_S = 20, 0.1
_in_use: list[Path] = []  # for whoever ends the process without an end of the block
_REMEDY = (
    "start Ray there with --temp-dir below a folder of mode 0700 (mkdir -m 700 /var/tmp/mine; ray"
    " start --temp-dir=/var/tmp/mine/ray ...), or, where you trust every user of these hosts, add"
    " --trust-local-users"
)


@contextlib.contextmanager
def own() -> Iterator[str]:
    """A temporary folder for a cluster of this machine alone; gone at the end of the block.

    Raises TensorgapError where there is no place for one that only this user enters.
    """
    made = make()
    _in_use.append(made)
    try:
        yield str(made / "ray")  # Ray opens the folder itself to all, too
    finally:
        remove(made)
        _in_use.remove(made)


def give_up() -> None:
    """End the cluster of this machine, if any, and remove its folder, without asking Ray.

    For a process that ends at once.
    """
    for made in _in_use:
        remove(made, kill=True)


def remove(folder: Path, kill: bool = False) -> None:
    """Remove a folder in which processes that end, or are to be killed, may still make a file."""
    for _ in range(_TRIES):
        for pid in descendants(os.getpid()) if kill else ():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE_S)


def descendants(pid: int) -> list[int]:
    """Process ids of all below a process, as far as Linux tells."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # ended meanwhile
            for child in map(int, children.read_text(encoding="ascii").split()):
                found += [child, *descendants(child)]
    return found


def make() -> Path:
    """A temporary folder that only this user enters, where the paths of Ray's sockets fit in."""
    given, longest = tempfile.gettempdir(), _LONGEST - _BELOW
    why: str | None = f"{given} is longer than {longest} characters"
    for place in dict.fromkeys((given, "/tmp")):
        if len(os.fsencode(place)) > longest:
            continue
        try:
            made = Path(tempfile.mkdtemp(prefix="tensorgap-", dir=place))
        except OSError as error:
            why = f"{place}: {error.strerror}"
            continue
        why = private.why_shared(made)
        if why is None:
            return made
        made.rmdir()
    raise TensorgapError(
        f"Ray's temporary files have no place that no other user can write: {why}; set TMPDIR to a"
        f" folder of yours with at most {longest} characters"
    )


def refuse_shared() -> None:
    """Raise TensorgapError where another user of a node could change what Ray runs there.

    To be called before any code is sent to the connected cluster. A node that does not answer is
    left to whoever sends it work.
    """
    import ray

    # By value: the nodes have no `bench` yet, and must not read one from where others can write.
    ray.cloudpickle.register_pickle_by_value(private)
    try:
        look = ray.remote(num_cpus=0)(private.is_sheltered)
        asked = {}
        for node in filter(lambda node: node["Alive"], ray.nodes()):
            here = look.options(label_selector={NODE_LABEL: node["NodeID"]})
            asked[here.remote(session_of(node))] = node
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(private)
    for reference in answered:
        with contextlib.suppress(ray.exceptions.RayError):
            if not ray.get(reference):
                place = f"{session_of(asked[reference])}, where Ray keeps the code that it runs"
                host = host_of(asked[reference])
                raise TensorgapError(f"other users of {host} can write {place}: {_REMEDY}")


def session_of(node: dict[str, str]) -> Path:
    """The folder of a node's session, from what `ray.nodes()` tells of it."""
    return Path(node["ObjectStoreSocketName"]).parents[1]


def current_address() -> str:
    """The address of the cluster that was last started on this machine, as `auto` means it.

    Ray would also join a cluster of other users, and whoever runs one runs code in those who join.
    """
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    file = Path(temporary, "ray", "ray_current_cluster")
    remedy = "give the address of the head: --address HOST:6379"
    try:
        found = os.lstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.getuid()):
            raise TensorgapError(
                f"address auto: {file} was not written by you or root; {remedy}, if you trust it"
            )
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise TensorgapError(
            f"address auto: no cluster was started on this machine ({file} cannot be read);"
            f" {remedy}, or set RAY_TMPDIR as where Ray was started"
        ) from None
