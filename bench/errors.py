"""What a caller may foresee: errors whose text says what is wrong and what to do."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.device.kinds import Card

REAL_GPU = "--simulated: this machine has a real GPU; leave the option out to measure it"


class TensorgapError(Exception):
    """A mistake that the user can mend; its lines say what is wrong and what to do."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Unplaced(Exception):
    """Nothing may be measured in this place; in another one it may."""


class Unsupported(Exception):
    """This device or this torch build cannot run what was asked; the text says what would."""


class WrongDevice(Unplaced):
    """The device is of another type than the cell asks for: nothing was measured."""

    def __init__(self, asked: str, given: Card, host: str) -> None:
        super().__init__(asked, given, host)
        self.asked, self.given, self.host = asked, given, host

    def __str__(self) -> str:
        return f"asked for {self.asked}, found {self.given} on {self.host}: {self.given.uuid}"


class GpuLostError(Exception):
    """The GPU fell off the bus, must be reset, or its driver broke: no more can be measured."""


class ProcessDied(Exception):
    """The process that measured ended, and not by itself."""

    def __init__(self, status: int | None) -> None:
        """Args: status: its exit status, negative of a signal; None: its template ended first."""
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        if self.status is None:
            return "so did the template process of its node, from which it was forked"
        if self.status >= 0:
            return f"exit status {self.status}"
        names = {one.value: one.name for one in signal.Signals}
        name = names.get(-self.status, f"signal {-self.status}")
        killed = "was killed, perhaps for memory; the kernel's log (dmesg) on its node tells"
        return f"{name}: it {killed if name == 'SIGKILL' else 'crashed'}"
