"""Steps, each a process of its own: what goes wrong in one costs that one only.

A step ends by itself, by a signal, or at its time limit; how is told by its `Ended`. One that
cannot end before the deadline does not begin. What it prints goes on at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

_STACK_S = 2.0  # for faulthandler to write the stack of a step that hangs
_DRAIN_S = 5.0  # for what a step printed last; a process that it left may hold its pipe for ever

Tell = Callable[[str], object]  # takes a line without its end


@dataclass(frozen=True)
class Step:
    """A part of the check: how long it takes on a quick host, and when it is given up."""

    name: str
    takes_s: float
    limit_s: float


@dataclass(frozen=True)
class Ended:
    """How a step ended."""

    step: str
    seconds: float
    reason: str | None = None  # None: it did what it was asked
    ran: bool = True


class Stopped(Exception):
    """This process was asked to end; the text says by which signal."""


class Refused(Exception):
    """Nothing can be checked here; the text says why, and what to do."""


class Incomplete(Exception):
    """A row broke its process, so that what would follow is not measured in it."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within, the first SIGTERM or SIGINT raises Stopped, so that what was measured is told."""

    def stop(number: int, _frame: object) -> None:
        for known in (signal.SIGTERM, signal.SIGINT):
            signal.signal(known, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_all(
    steps: Sequence[Step],
    command: Callable[[Step], Sequence[str]],
    tell: Tell,
    deadline_s: float | None = None,
    patience: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Ended]:
    """Run each step in turn, and say how it ended as soon as it has.

    Args:
        steps: in this order.
        command: what runs a step.
        tell: takes each line that a step prints.
        deadline_s: by this `clock`; None: there is none.
        patience: by which each time limit is multiplied.
        clock: monotonic seconds.
    """
    stopped: str | None = None
    for step in steps:
        left_s = float("inf") if deadline_s is None else deadline_s - clock()
        if stopped or left_s < step.takes_s:
            late = f"{max(0.0, left_s):.0f} s are left, it takes about {step.takes_s:.0f} s"
            yield Ended(step.name, 0.0, stopped or late, ran=False)
            continue
        start_s = clock()
        try:
            reason = run(command(step), tell, min(step.limit_s * patience, left_s))
        except Stopped as stop:
            reason = stopped = f"stopped by {stop}"
        yield Ended(step.name, clock() - start_s, reason)


def run(command: Sequence[str], tell: Tell, limit_s: float) -> str | None:
    """Run a command and pass on what it prints; None, or in words how it failed."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=_read, args=(process.stdout, tell, lines.append), daemon=True)
    reader.start()
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STACK_S)
        return f"not done after {limit_s:.0f} s"
    finally:
        _kill(process)
        reader.join(_DRAIN_S)
    if code < 0:
        return f"it crashed: {signal.Signals(-code).name}"
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return (said or f"exit code {code}") if code else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group: a compiler that a step started may outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(pipe: IO[bytes] | None, *takers: Tell) -> None:
    assert pipe is not None
    with contextlib.suppress(ValueError, OSError), pipe:
        for line in pipe:
            for take in takers:
                take(line.decode(errors="replace").rstrip("\r\n"))
