"""Whether the head of the cluster is still there, found out without Ray's help.

A call of Ray to a head that is gone waits for up to 60 s, and then ends this process.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from bench.errors import TensorgapError

LIMIT_S = 20.0  # Ray itself ends the process, without a word to us, after 60 s
TURN_S = 5.0  # longer than the loop of a sweep takes to look at the head again
_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 3.0


class HeadLostError(TensorgapError):
    """The head of the cluster is gone: a call to it would hang, and then end this process."""

    def __init__(self) -> None:
        """Say for how long it was silent."""
        super().__init__(
            f"Ray's head has not answered for {LIMIT_S:g} s: it crashed, was ended, or cannot be"
            " reached"
        )


def reach(address: str, timeout_s: float) -> None:
    """Raise OSError where nothing listens: ray.init would try again for minutes.

    `auto` and names that are no HOST:PORT are left to Ray.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()


def answers() -> bool:
    """Whether the head of the connected cluster can be reached."""
    import ray  # not before its environment is set; see `cluster.session`

    try:
        reach(ray.get_runtime_context().gcs_address, _PROBE_TIMEOUT_S)
    except OSError:
        return False
    return True


class Watch:
    """Looks at the head for as long as a sweep lasts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: monotonic seconds."""
        self._clock = clock
        self._heard = clock()  # when the head last answered
        self.silent_since: float | None = None  # when it first did not, since then

    def answers(self) -> bool:
        """Whether the head can be asked; HeadLostError once it has been silent for too long."""
        found, now = answers(), self._clock()
        if found:
            self._heard, self.silent_since = now, None
        elif self.silent_since is None:
            self.silent_since = now
        elif now - self.silent_since > LIMIT_S:
            raise HeadLostError
        return found

    @contextlib.contextmanager
    def or_else(self, abandon: Callable[[HeadLostError], None]) -> Iterator[None]:
        """Abandon, from a thread, a sweep that cannot find out by itself that the head is lost."""
        over = threading.Event()

        def watch() -> None:
            answered = self._clock()
            while not over.wait(_EVERY_S):
                now = self._clock()
                if now - self._heard <= TURN_S or answers():
                    answered = now
                elif now - answered > LIMIT_S:
                    abandon(HeadLostError())
                    return

        threading.Thread(target=watch, name="head watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()
