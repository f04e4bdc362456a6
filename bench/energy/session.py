"""One measurement of energy: windows of steady load, read from the best meter that answers.

What happens, in order, and how long by `sampling.energy`:

    idle     idle_s                the context alive, nothing running: idle power
    load     SETTLE_S              certified: at least WARM_S and until clock and heat are steady
    window   energy_s              standard: five of a fifth of it; certified: five of at least
                                   10 s, 50 ticks of the meter and 400 forwards
    idle     idle_s                not quick

A meter publishes a new value every 20 to 100 ms and hides what lies between, so the difference of
two readings taken at will is wrong by up to a tick at either end: simulated sensors lost 59 to 81 %
of one 10 ms forward, and 4 % of the first second. Here a window begins and ends at ticks that were
seen, and the forwards between them are counted with their fractions.

What weakens a window is a flag; such a window is measured once more, then kept with its flag. An
unusable meter gives the method "none" and the reason, never a number.

The parts: `plan` says how long windows are and where pauses lie, `poll` reads the meter, `windows`
cuts, `flags` says what weakens, `evaluate` makes the record.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager

from bench.asked import ENERGY_NOT_MEASURED, Sampling
from bench.energy import evaluate, flags
from bench.energy.evaluate import Findings
from bench.energy.meter import COUNTER, POWER, Meter, NoMeter, Recording, channel
from bench.energy.plan import Pauses
from bench.energy.poll import Clock, SystemClock, poll_every_s, recorded
from bench.energy.protocol import (
    AVERAGED_RESTART_S,
    DRAIN_EVERY_S,
    QUICK,
    RESTART_S,
    SETTLE_S,
    STEADY_S,
    WARM_MAX_S,
    WARM_S,
)
from bench.energy.windows import Mark, UnusableError
from bench.errors import GpuLostError
from bench.measured import Energy
from bench.timing import Queue
from bench.warnings import RowWarning


class LostError(GpuLostError):
    """The GPU was lost; `energy` is what had been measured until then."""

    def __init__(self, text: str, energy: Energy) -> None:
        super().__init__(text)
        self.energy = energy


def measure_energy(
    queue: Queue,
    *,
    samples_per_step: int,
    tokens_per_step: int,
    sampling: Sampling,
    meter: Meter | NoMeter,
    clock: Clock | None = None,
) -> Energy:
    """Measure the energy of a forward.

    Args:
        queue: What runs.
        samples_per_step: Samples in one forward.
        tokens_per_step: Tokens in one forward.
        sampling: How long.
        meter: What is read meanwhile.
        clock: The system's, if not told otherwise.

    Raises:
        LostError: The GPU was lost meanwhile.
    """
    if isinstance(meter, NoMeter):
        return Energy(ENERGY_NOT_MEASURED, reason=meter.reason)
    found = Findings(meter, sampling, channel(meter, meter.method), flags=flags.of_meter(meter))
    try:
        _Session(queue, clock or SystemClock(), found).run()
    except Exception as error:
        lost = error if isinstance(error, GpuLostError) else _loss(meter)
        if lost is None:
            raise
        ended = evaluate.energy(found, samples_per_step, tokens_per_step)
        raise LostError(str(lost), ended) from error
    return evaluate.energy(found, samples_per_step, tokens_per_step)


def _loss(meter: Meter) -> GpuLostError | None:
    """Whether the GPU is lost, which also fails the forward, in less clear words."""
    try:
        for read in filter(None, (meter.read_j, meter.read_w)):
            read()
    except GpuLostError as error:
        return error
    return None


class _Session:
    """The load, the clock and the meter, one stage after the other; all it finds is `found`."""

    def __init__(self, queue: Queue, clock: Clock, found: Findings) -> None:
        self.queue, self.clock, self.found = queue, clock, found
        self.per_drain = 1
        self.pauses = Pauses()
        self.random = random.Random(0)

    def run(self) -> None:
        """Idle, load, windows, idle."""
        found = self.found
        quick = found.sampling.energy == QUICK
        self.queue.synchronise()
        self.idle()
        self.pace()
        self.warm_up()
        again: set[str] = set()  # codes
        for number in range(1, found.plan.windows + 1):
            weak = self.window()
            if not quick and not again.issuperset(flag.code for flag in weak):
                found.flags += flags.numbered(weak, number, repeated=True)
                found.kept.pop()
                weak = self.window()
                # What came again will come again: no third time, nor in the windows to come.
                again.update(flag.code for flag in weak)
            found.flags += flags.numbered(weak, number, repeated=False)
        if found.channel.method == COUNTER:
            power = channel(found.meter, POWER)
            found.flags += flags.disagreement(
                found.kept, found.channel, power, found.iteration_s
            )
        if not quick:
            self.idle()

    def idle(self) -> None:
        """Record idle power, and how often the meter ticks, where that is not known."""
        found = self.found
        if not found.sampling.idle_s:
            return
        self.clock.sleep(SETTLE_S)
        with self.recorded() as recording:
            self.clock.sleep(found.sampling.idle_s)
        found.idle.append(recording)
        found.channel = channel(found.meter, found.channel.method, found.idle[0])
        if found.channel.method != COUNTER or recording.readings_w is None:
            return
        try:
            counter_w = found.channel.mean_w(recording)
        except UnusableError:
            return  # The windows will tell.
        found.flags += flags.idle_disagreement(counter_w, recording.readings_w)

    def pace(self) -> None:
        """Find out how long a forward takes, and how often to wait for the device."""
        # Each of these begins late, since the device is waited for before it.
        count = self.busy(DRAIN_EVERY_S)
        self.found.iteration_s = self.stretch(count) / count
        self.per_drain = max(1, int(DRAIN_EVERY_S / self.found.iteration_s))

    def warm_up(self) -> None:
        """Load the device; if certified, until clock and temperature are steady."""
        self.busy(SETTLE_S)
        look = self.found.meter.look
        if not (self.found.plan.certified and look):
            return
        looks = [(self.clock.now(), look())]
        start_s = looks[0][0]
        while True:
            self.busy(1.0)
            now_s = self.clock.now()
            looks.append((now_s, look()))
            recent = [state for time_s, state in looks if time_s >= now_s - STEADY_S]
            steady = (
                flags.clock_spread(recent) <= flags.CLOCK_SPREAD and flags.drift_c(recent) <= 1.0
            )
            if now_s >= start_s + WARM_S and steady:
                return
            if now_s >= start_s + WARM_MAX_S:
                self.found.flags.append(RowWarning("not-steady", {"seconds": WARM_MAX_S}))
                return

    def window(self) -> list[RowWarning]:
        """Record one window, at a phase of the meter that is left to chance; what weakens it."""
        found, sensor = self.found, self.found.meter.sensor
        self.clock.sleep(self.random.uniform(0, found.channel.period_s))
        averaged = sensor is not None and sensor.reading == "usage"
        self.busy(max(AVERAGED_RESTART_S if averaged else RESTART_S, found.channel.trail_s))
        with self.recorded() as recording:
            found.kept.append(recording)  # What there is of it stays if the GPU is lost.
            self.busy(found.plan.window_s, recording, pausing=found.plan.pauses)
        return self.weaknesses(recording)

    def weaknesses(self, recording: Recording) -> list[RowWarning]:
        """What weakens a window; where its counter is unusable, readings are used from now on."""
        found = self.found
        try:
            return flags.of_window(recording, found.channel.window(recording), found.plan)
        except UnusableError as error:
            reason = {"reason": str(error)}
        if found.channel.method != COUNTER or not found.meter.read_w:
            return [RowWarning("meter-unusable", reason)]
        found.flags.append(RowWarning("readings-instead", reason))
        found.channel = channel(found.meter, POWER, found.idle[0] if found.idle else None)
        return self.weaknesses(recording)

    def recorded(self) -> AbstractContextManager[Recording]:
        """Read the meter while the block runs."""
        return recorded(self.found.meter, self.clock, poll_every_s(self.found.channel.tick_s))

    def busy(
        self, seconds: float, recording: Recording | None = None, pausing: bool = False
    ) -> int:
        """Keep the device busy for some time; how many forwards.

        Marks where it stands whenever it is drained, and where each pause begins and ends.
        """
        recording = recording or Recording()
        marks = recording.marks
        marks.append(Mark(self.clock.now(), 0))
        end_s = marks[0].time_s + seconds
        while marks[-1].time_s < end_s:
            if recording.lost:
                raise recording.lost
            done = marks[-1].iterations
            if pausing:
                plan, readings = self.found.plan, self.found.channel.readings(recording)
                self.clock.sleep(self.pauses.next_s(plan, self.clock.now(), readings))
                count = self.pauses.forwards(plan, end_s - self.clock.now())
                took_s = self.stretch(count)
                now_s = self.clock.now()
                marks += [Mark(now_s - took_s, done), Mark(now_s, done + count)]
                continue
            for _ in range(self.per_drain):
                self.queue.enqueue()
            self.queue.synchronise()
            marks.append(Mark(self.clock.now(), done + self.per_drain))
        return marks[-1].iterations

    def stretch(self, count: int) -> float:
        """Run so many forwards after another one; how long they took, in s."""
        self.queue.enqueue()
        took_s = self.queue.stretch()
        for _ in range(count):
            self.queue.enqueue()
        return took_s()
