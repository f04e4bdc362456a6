"""The only poller: a meter is read beside the work, in a thread of its own."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from bench.energy.meter import Meter, Recording
from bench.energy.ticks import Reading
from bench.energy.windows import GOLDEN
from bench.errors import GpuLostError

FASTEST_TICK_S = 0.02  # of the GPU sensors known (P100, V100)
LOOK_S = 0.5  # Clocks and temperature change slowly, and each look is some six more calls.


class Clock:
    """Monotonic time, in s, and polls in a thread; tests give a virtual one of the same methods."""

    now = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)

    @contextmanager
    def polling(self, poll: Callable[[], None], every_s: float) -> Iterator[None]:
        """Call `poll` again and again while the block runs; raises what `poll` raised."""
        done = Event()

        def run() -> None:
            # Half as dear as done.wait(every_s), and short enough to wait for at the end.
            while not done.is_set():
                time.sleep(every_s)
                poll()

        with ThreadPoolExecutor(max_workers=1) as pool:
            running = pool.submit(run)
            try:
                yield
            finally:
                done.set()
                running.result()


def poll_every_s(tick_s: float | None) -> float:
    """How far apart polls are, in s, for a meter that ticks this often; None: not known yet.

    Each costs some 0.1 ms of a core, half of it for waking up. A golden ratio of the fastest tick
    apart they miss no reading and find ticks at all phases, so that many together tell the time of
    each better than any one does. Only to find out how often a meter ticks they must be closer.
    """
    known = tick_s is not None and tick_s >= 0.75 * FASTEST_TICK_S
    return GOLDEN * FASTEST_TICK_S if known else FASTEST_TICK_S / 4


@contextmanager
def recorded(
    meter: Meter, clock: Clock, every_s: float, both_every: int = 4
) -> Iterator[Recording]:
    """Read the meter while the block runs, and look at its GPU now and then and at the end.

    Beside a counter, readings of power only check it and make the trace: one in `both_every`. The
    recording is complete after the block, which then raises GpuLostError if the GPU was lost.
    """
    # The work beside it takes the caches between two polls, so that each call within one is dear.
    recording, now = Recording(), clock.now
    look_due_s, polls = 0.0, 0
    both = ((meter.read_j, recording.joules.append), (meter.read_w, recording.watts.append))
    meters = [(read, keep) for read, keep in both if read]
    first = meters[:1]

    def poll(last: bool = False) -> None:
        nonlocal look_due_s, polls
        if recording.lost:
            return
        polls += 1
        try:
            for read, keep in first if polls % both_every else meters:
                before_s = now()
                value = read()
                if value is None:
                    recording.failed += 1
                else:
                    keep(Reading((before_s + now()) / 2, value))
            if meter.look and (last or now() >= look_due_s):
                recording.states.append(meter.look())
                look_due_s = now() + LOOK_S
        except GpuLostError as error:
            recording.lost = error

    with clock.polling(poll, every_s):
        yield recording
    poll(last=True)
    if recording.lost:
        raise recording.lost
