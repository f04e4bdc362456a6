"""A fresh process that measures one request: the node's template (`bench.template`) forks it.

    process = Fresh(template, measure, request)
    for event in process.events(): ...

It ends with whoever asked for it, and says how where it did not end by itself.
"""

import contextlib
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from bench import template
from bench.errors import ProcessDied, TensorgapError
from bench.template import ASKED, STATUS, Order, Raised

# numpy and scipy start a thread for each core as they are imported, and pyarrow's allocator one.
_SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
TEMPLATE = "TENSORGAP_TEMPLATE"  # in the environment: the name of the template to ask
# What each process gets from whoever asks for it.
_OF_EACH = {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
_APPEAR_S = 60.0  # until a template listens, which it does before it imports torch
_PAUSE_S = 0.02


def start_template(
    name: str, measure: str, owner: int, *, lingers: bool
) -> subprocess.Popen[bytes]:
    """Start the template of this name; see `bench.template.main`."""
    module = measure.partition(":")[0]
    call = f"template.main({name!r}, {module!r}, {owner}, {lingers})"
    environment = {key: value for key, value in os.environ.items() if key not in _OF_EACH}
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:] = {sys.path!r}; from bench import template; {call}",
        ],
        env=environment | _SINGLE_THREADED,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )


def name_for(node: str) -> str:
    """The name of a node's template that has imported this code in these surroundings.

    Another sweep may come with other code, or another place of the hub's files: it has its own.
    """
    shared = [key for key in sorted(os.environ) if key not in _OF_EACH and key[:4] != "RAY_"]
    told = [(key, os.environ[key]) for key in shared]
    return hashlib.sha256(repr((node, __file__, told)).encode()).hexdigest()


@contextlib.contextmanager
def own_template(measure: str) -> Iterator[subprocess.Popen[bytes]]:
    """A template for what this process starts, named in its environment; ends with the block."""
    os.environ[TEMPLATE] = secrets.token_hex(16)
    process = start_template(os.environ[TEMPLATE], measure, os.getpid(), lingers=False)
    try:
        yield process
    finally:
        os.environ.pop(TEMPLATE, None)
        process.kill()
        process.wait()


class Fresh:
    """A fresh process that measures one request."""

    def __init__(self, name: str, measure: str, request: Any, owner: int | None = None) -> None:
        """Ask the template of this name for a process, which begins at once.

        Args:
            name: of the template; one that is not there is started.
            measure: what to call with the request, as MODULE:FUNCTION.
            request: what it is called with.
            owner: process id with which a template that is started here ends.

        Raises:
            ProcessDied: the template could not start the process.
            TensorgapError: there is no template and none can be started.
        """
        connection = connect(name, measure, owner or os.getpid())
        self._control, control = socket.socketpair()
        try:
            with control:
                socket.send_fds(connection, [ASKED], [1, 2, control.fileno()])
            self._stream = Connection(connection.detach())
            self._stream.send(Order(measure, request, dict(os.environ), os.getcwd()))
        except ConnectionError:
            raise ProcessDied(None) from None

    def events(self) -> Iterator[Any]:
        """What the process finds, until its end.

        Raises:
            ProcessDied: it did not end by itself.
            Exception: that ended the measurement.
        """
        raised: Exception | None = None
        # Closed early, they end the process.
        with self._control, self._stream:
            with contextlib.suppress(EOFError, ConnectionError):
                while raised is None:
                    found = self._stream.recv()
                    if isinstance(found, Raised):
                        raised = found.error
                    else:
                        yield found
            status = None
            with contextlib.suppress(OSError):
                if len(told := self._control.recv(STATUS.size)) == STATUS.size:
                    status = int(STATUS.unpack(told)[0])
        if raised:
            raise raised
        if status != 0:
            raise ProcessDied(status)

    def end(self) -> None:
        """Have the process killed, whatever it does; from any thread."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)  # its status is still to come


def connect(name: str, measure: str, owner: int) -> socket.socket:
    """A connection to the template of this name, which is started where there is none."""
    end_s, started = time.monotonic() + _APPEAR_S, False
    while time.monotonic() < end_s:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"\0{name}")
        except ConnectionRefusedError:
            connection.close()
        else:
            if template.peer_user(connection) == os.getuid():
                return connection
            # Another user of this host has taken the name; this one no one can guess.
            connection.close()
            name, started = secrets.token_hex(16), False
        if not started:
            started = True
            start_template(name, measure, owner, lingers=True).wait()
        time.sleep(_PAUSE_S)
    raise TensorgapError(
        f"the template process of this node did not start within {_APPEAR_S:g} s; the worker's log"
        " in session_latest/logs of Ray's --temp-dir says why"
    )
