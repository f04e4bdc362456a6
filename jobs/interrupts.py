"""Ctrl-C and SIGTERM: how a sweep ends before its time, and within seconds whatever holds it up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# A call of Ray can wait for a minute for what was ended together with this process, and Python
# handles a signal only when the call is over. Schedulers kill a few seconds after SIGTERM.
_PATIENCE_S = 2.0
_FINISHING = "tensorgap: finishing the running cells; Ctrl-C again stops them now\n"


class Interrupts:
    """For a `with` block of the main thread: both signals end it at once.

    Once it measures, the first Ctrl-C only asks to end after the running cells, and the next signal
    raises KeyboardInterrupt; where the block does not end in time, it is ended all the same.
    """

    def __init__(self, at_once: Callable[[], object]) -> None:
        """Args: at_once: ends the process; it is called in a thread of its own."""
        self._at_once = at_once
        self._measures = self._asked = False
        self._left = threading.Event()
        self._ending = threading.Lock()  # held by the thread that ends the block

    def measuring(self, at_once: Callable[[], object]) -> None:
        """There is something to finish and to keep now; `at_once` replaces the one before."""
        self._at_once, self._measures = at_once, True

    def asked(self) -> bool:
        """Whether the sweep is to end after what runs."""
        return self._asked

    def __enter__(self) -> Interrupts:
        both = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._handle) for number in both}
        # A handler's exception that strikes within a callback is lost, and Python would say so.
        self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        # Python writes the number of each signal here at once, whatever the main thread is in.
        self._numbers, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._ending.acquire()  # for ever, if the process is being ended
        signal.set_wakeup_fd(self._wakeup)
        self._written.close()
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._measures:
            return  # the thread ends the process
        if number == signal.SIGTERM or self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True
        # Not print: the signal may have come in the middle of one.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), _FINISHING.encode())

    def _lost(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            self._hook(unraisable)

    def _watch(self) -> None:
        times = 0
        with self._numbers:
            while number := self._numbers.recv(1):
                times += number[0] == signal.SIGINT
                if number[0] != signal.SIGTERM and times <= self._measures:
                    continue
                if self._measures and self._left.wait(_PATIENCE_S):
                    return
                if self._ending.acquire(blocking=False):
                    self._at_once()
                return
