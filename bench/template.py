"""The template: one process of a node that has imported what measures, and forks what measures.

The imports (torch, transformers) take 4 s of processor time, a fork 10 ms. What is forked differs
from a process that was started in nothing that a measurement meets: the template has one thread, so
no pool of OpenMP; it computes nothing, so it has no CUDA context, random numbers or model; and a
child takes environment, folder and output from whoever asked for it. tests/test_bench_fresh.py
lists both side by side; benchmarks/fresh.py compares their latencies.

Whoever wants a process (`bench.fresh`) connects to the template's socket and sends one byte with
three descriptors: standard output, standard error and a socket for control. The process reads its
Order from the connection and writes what it finds to it. On the control socket the template tells
its exit status; once the other end is closed, it kills the process. The process also ends with the
template.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from bench import shelf

ASKED = b"1"
STATUS = struct.Struct("i")  # on the control socket: negative of a signal
CREDENTIALS = struct.Struct("iII")  # pid, user and group of who is at the other end (unix(7))
_LINGER_S = 10.0  # without anyone who uses it; the next actor on a node takes 2 s to start
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # <sys/prctl.h>
NAME, CHILD = b"tensorgap-templ", b"tensorgap-cell"  # as `ps -e` shows them; at most 15 letters


@dataclass(frozen=True)
class Order:
    """What a process is asked to do, and in which surroundings."""

    measure: str  # MODULE:FUNCTION; called with `request`, it yields events
    request: Any
    environment: Mapping[str, str]
    folder: str


@dataclass(frozen=True)
class Raised:
    """The exception that ended a measurement."""

    error: Exception


def main(name: str, module: str, owner: int, lingers: bool) -> None:
    """Be the template of this name, until the process `owner` ends; return if there is one already.

    Args:
        name: of its abstract socket, which is no file: nothing stays behind, and no one is in the
            way of it. Who connects must be of the same user.
        module: what to import.
        owner: process id; without `lingers`, of who started it.
        lingers: it ends also where no one has used it for a while.
    """
    if lingers and os.fork():
        return  # so that it is no child of whoever started it, which may end before
    prctl(_PR_SET_NAME, NAME)
    if not lingers:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # in the middle of the imports, too
    try:
        end = os.pidfd_open(owner)
    except ProcessLookupError:
        return
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(f"\0{name}")
        except OSError:
            return
        listener.listen()  # who connects from now on is answered after the imports
        before = dict(os.environ)
        gc.disable()  # of the 3.8 s of the imports collections would be 0.8
        # A fault of an import is met again by each process, which tells it.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
        gc.freeze()  # else each collection of a child would copy all that is shared
        imports = {key: value for key, value in os.environ.items() if before.get(key) != value}
        Forking(listener, end, lingers, imports).run()


def prctl(option: int, value: int | bytes) -> None:
    """Have Linux set an attribute of this process, as the manual page of the same name says."""
    ctypes.CDLL(None).prctl(option, value)


def peer_user(connection: socket.socket) -> int:
    """The user id of the process at the other end."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(told)[1])


class Forking:
    """Forks a process for each that asks, and watches over it until its end."""

    def __init__(
        self,
        listener: socket.socket,
        end: int,
        lingers: bool,
        imports: Mapping[str, str],
    ) -> None:
        """Start to answer.

        Args:
            listener: the socket that listens.
            end: a descriptor of the owner, as of `pidfd_open`.
            lingers: as of `main`.
            imports: what the imports have set in the environment.
        """
        self._imports = imports
        self._watched = selectors.DefaultSelector()
        self._watched.register(listener, selectors.EVENT_READ, self._accept)
        self._watched.register(end, selectors.EVENT_READ, lambda _: sys.exit())
        self._unused = len(self._watched.get_map())
        self._timeout_s = _LINGER_S if lingers else None

    def run(self) -> None:
        """Answer until no one uses it any longer."""
        while True:
            events = self._watched.select(self._timeout_s)
            if not events and len(self._watched.get_map()) == self._unused:
                return
            for key, _ in events:
                # What was seen before in this round may have closed this one.
                if self._watched.get_map().get(key.fd) is key:
                    key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        if peer_user(connection) == os.getuid():
            self._watched.register(connection, selectors.EVENT_READ, self._begin)
        else:
            connection.close()

    def _begin(self, connection: socket.socket) -> None:
        """Fork a process for who has connected, or forget who has gone."""
        self._watched.unregister(connection)
        asked, descriptors = b"", list[int]()
        with contextlib.suppress(OSError):
            asked, descriptors, _, _ = socket.recv_fds(connection, len(ASKED), 3)
        if not asked:
            connection.close()
            return
        mine, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no memory, or no process more: whoever asked sees that all is closed
            for one in (connection, mine, child):
                one.close()
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if not pid:
            mine.close()
            shelf.belongs_to(child)
            for key in list(self._watched.get_map().values()):
                os.close(key.fd)
            self._watched.close()
            become(parent, *descriptors)
            obey(connection.detach(), self._imports)
        connection.close()
        child.close()
        for descriptor in descriptors[:2]:
            os.close(descriptor)
        control, end = socket.socket(fileno=descriptors[2]), os.pidfd_open(pid)
        kill = functools.partial(self._kill, end)
        reap = functools.partial(self._reap, pid, control)
        self._watched.register(control, selectors.EVENT_READ, kill)
        self._watched.register(end, selectors.EVENT_READ, reap)
        self._watched.register(mine, selectors.EVENT_READ, self._keep)

    def _kill(self, end: int, control: socket.socket) -> None:
        """Whoever asked for a process has gone, or does not want it any longer."""
        self._watched.unregister(control)
        signal.pidfd_send_signal(end, signal.SIGKILL)

    def _keep(self, child: socket.socket) -> None:
        if not shelf.keep(child):
            self._watched.unregister(child)
            child.close()

    def _reap(self, pid: int, control: socket.socket, end: int) -> None:
        self._watched.unregister(end)
        os.close(end)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(KeyError):
            self._watched.unregister(control)
        with control, contextlib.suppress(OSError):  # if no one listens any longer
            control.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def become(template: int, out: int, err: int, control: int) -> None:
    """Be a process of its own, with the output of who asked for it, that ends with its template."""
    prctl(_PR_SET_NAME, CHILD)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != template:  # which ended before
        os._exit(1)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in (out, err, control):
        os.close(descriptor)


def obey(connection: int, imports: Mapping[str, str]) -> NoReturn:
    """Do as the order says that comes from the connection, and end."""
    with Connection(connection) as stream:
        gc.enable()
        order: Order = stream.recv()
        os.environ.clear()
        os.environ.update({**imports, **order.environment})
        os.chdir(order.folder)
        # Python's own generator does so after a fork by itself; CUDA's has a fixed seed.
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed()
        if torch := sys.modules.get("torch"):
            torch.default_generator.seed()
        try:
            module, _, name = order.measure.partition(":")
            measure: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
            for event in measure(order.request):
                stream.send(event)
        except Exception as error:
            stream.send(Raised(foreseen(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # at once: an interpreter that ends takes apart what the system frees anyhow


def foreseen(error: Exception) -> Exception:
    """The error, in a form that a process without torch can read."""
    if type(error).__module__ in ("builtins", "bench.errors"):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
