"""One measurement of energy: windows of steady load, read from the best meter that answers.

What happens, in order, and how long by `sampling.energy`:

    idle     idle_s                the context alive, nothing running: idle power
    load     SETTLE_S              certified: at least WARM_S and until clock and heat are steady
    window   energy_s              standard: five of a fifth of it; certified: five of at least
                                   10 s, 50 ticks of the meter and 400 forwards
    idle     idle_s                not quick

A meter hides what lies between two of its ticks, so the difference of two readings taken at will is
wrong by up to a tick at either end: simulated sensors lost 59 to 81 % of one 10 ms forward, and 4 %
of the first second. So a window begins and ends at ticks that were seen. A window that has a flag,
which says what weakens it, is measured once more. An unusable meter gives a reason, not a number.
"""

import math
import random
from dataclasses import replace

from bench.asked import ENERGY_NOT_MEASURED, Sampling
from bench.energy import durations, evaluate, flags
from bench.energy.durations import DRAIN_EVERY_S, RESTART_S, SETTLE_S
from bench.energy.meter import COUNTER, POWER, Meter, NoMeter, Recording, agree, channel
from bench.energy.poll import Clock, poll_every_s, recorded
from bench.energy.ticks import Mark, UnusableError, latest_s, ticks
from bench.energy.windows import golden_pause_s
from bench.errors import GpuLostError
from bench.measured import Energy
from bench.timing import Queue
from bench.warnings import RowWarning, Value

RECENT_S = 2.0  # whose ticks tell the time of the next one
STEADY_C = 1.0
SILVER = 2**0.5 - 1
# A pause is half a period long on average: one in ten periods costs 5 % of the time. But a window
# shall have so many phases, and a phase so many ticks.
PAUSE_EVERY_PERIODS, PHASES, PAUSE_EVERY_TICKS = 10, 16, 3


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
    """Measure the energy of a forward, a step of so many samples and tokens; LostError ends it."""
    if isinstance(meter, NoMeter):
        return Energy(ENERGY_NOT_MEASURED, reason=meter.reason)
    found = evaluate.Findings(meter, sampling, channel(meter, meter.method))
    lost = None
    try:
        EnergySession(queue, clock or Clock(), found).run()
    except Exception as error:
        lost = error if isinstance(error, GpuLostError) else loss(meter)
        if lost is None:
            raise
    used = evaluate.energy(found, samples_per_step, tokens_per_step)
    if lost:
        raise LostError(str(lost), used) from lost
    return used


def loss(meter: Meter) -> GpuLostError | None:
    """Whether the GPU is lost, which also fails the forward, in less clear words."""
    try:
        for read in filter(None, (meter.read_j, meter.read_w)):
            read()
    except GpuLostError as error:
        return error
    return None


def kind(flag: RowWarning) -> tuple[object, ...]:
    """A flag without its numbers: what weakens a window by the same cause again."""
    return flag.code, flag.values.get("causes"), flag.values.get("reason")


class EnergySession:
    """The load, the clock and the meter, stage after stage; what they find is in `found`."""

    def __init__(self, queue: Queue, clock: Clock, found: evaluate.Findings) -> None:
        self.queue, self.clock, self.found = queue, clock, found
        self.per_drain = 1
        self.pauses, self.aimed_s = 0, 0.0  # how many, and the tick that the last was meant for
        self.random = random.Random(0)

    def run(self) -> None:
        """Idle, load, windows, idle."""
        found, quick = self.found, self.found.sampling.energy == durations.QUICK
        if found.meter.reason:
            code = "readings-instead" if found.channel.method == POWER else "energy-meter"
            self.flag(code, reason=found.meter.reason)
        self.queue.synchronise()
        self.idle()
        self.warm_up()
        again: set[tuple[object, ...]] = set()  # what weakened a window twice
        for number in range(1, 2 if quick else durations.WINDOWS + 1):
            weak = self.window(number)
            if not quick and not again.issuperset(map(kind, weak)):
                found.flags += [replace(w, values={**w.values, "repeated": True}) for w in weak]
                found.kept.pop()
                weak = self.window(number)
                # What came again will come again: no third time, nor in the windows to come.
                again.update(map(kind, weak))
            found.flags += weak
        if found.channel.method == COUNTER:
            found.flags += flags.disagreement(found, channel(found.meter, POWER))
        if not quick:
            self.idle()

    def flag(self, code: str, **values: Value) -> None:
        """Note what weakens the energy."""
        self.found.flags.append(RowWarning(code, values))

    def idle(self) -> None:
        """Record idle power, and how often the meter ticks, where that is not known."""
        found = self.found
        if not found.sampling.idle_s:
            return
        self.clock.sleep(SETTLE_S)
        with recorded(found.meter, self.clock, poll_every_s(found.channel.tick_s)) as recording:
            self.clock.sleep(found.sampling.idle_s)
        found.idle.append(recording)
        found.channel = channel(found.meter, found.channel.method, found.idle[0])
        readings_w = recording.readings_w
        if found.channel.method != COUNTER or readings_w is None:
            return
        (counter_w,), _ = evaluate.usable(found.idle_w, [recording])
        if counter_w is not None and not agree(counter_w, readings_w):
            self.flag("counter-disagrees-idle", counter_w=counter_w, readings_w=readings_w)

    def warm_up(self) -> None:
        """Time a forward, load the device; if certified, until clock and temperature are steady."""
        # Each of these begins late, since the device is waited for before it.
        count = self.busy(DRAIN_EVERY_S)
        self.found.iteration_s = self.stretch(count) / count
        self.per_drain = max(1, int(DRAIN_EVERY_S / self.found.iteration_s))
        self.busy(SETTLE_S)
        look = self.found.meter.look
        if self.found.sampling.energy != durations.CERTIFIED or not look:
            return
        looks = [(self.clock.now(), look())]
        lasted_s = 0.0
        while lasted_s < durations.WARM_MAX_S:
            self.busy(1.0)
            now_s = self.clock.now()
            lasted_s = now_s - looks[0][0]
            looks.append((now_s, look()))
            recent = [state for time_s, state in looks if time_s >= now_s - durations.STEADY_S]
            steady = flags.clock_spread(recent) <= flags.CLOCK_SPREAD
            if lasted_s >= durations.WARM_S and steady and flags.drift_c(recent) <= STEADY_C:
                return
        self.flag("not-steady", seconds=durations.WARM_MAX_S)

    def window(self, number: int) -> list[RowWarning]:
        """Record one window, at a phase of the meter that is left to chance; what weakens it."""
        found, sensor = self.found, self.found.meter.sensor
        self.clock.sleep(self.random.uniform(0, found.channel.period_s))
        averaged = sensor is not None and sensor.reading == "usage"
        restart_s = durations.AVERAGED_RESTART_S if averaged else RESTART_S
        self.busy(max(restart_s, found.channel.trail_s))
        with recorded(found.meter, self.clock, poll_every_s(found.channel.tick_s)) as recording:
            found.kept.append(recording)  # What there is of it stays if the GPU is lost.
            # A pause is aimed at a tick, so how often they come must be known.
            pauses = found.aliases and found.channel.tick_s is not None
            busy = self.busy_with_pauses if pauses else self.busy
            period_s = found.channel.period_s
            busy(durations.window_s(found.sampling, period_s, found.iteration_s), recording)
        which: dict[str, Value] = {"window": number, "repeated": False}
        weak = self.weaknesses(recording)
        return [replace(flag, values={**flag.values, **which}) for flag in weak]

    def weaknesses(self, recording: Recording) -> list[RowWarning]:
        """What weakens a window; where its counter is unusable, readings are used from now on."""
        found = self.found
        try:
            window = found.window(recording)
        except UnusableError as error:
            if found.channel.method != COUNTER or not found.meter.read_w:
                return [RowWarning("meter-unusable", {"reason": str(error)})]
            self.flag("readings-instead", reason=str(error))
            found.channel = channel(found.meter, POWER, found.idle[0] if found.idle else None)
            return self.weaknesses(recording)
        in_meter = flags.of_meter(recording, window, found)
        return [*flags.of_surroundings(recording.states), *in_meter]

    def busy(self, seconds: float, recording: Recording | None = None) -> int:
        """Run forwards for some time; how many. Marks where it stands whenever it is drained."""
        recording = recording or Recording()
        marks = recording.marks
        marks.append(Mark(self.clock.now(), 0))
        while marks[-1].time_s < marks[0].time_s + seconds:
            if recording.lost:
                raise recording.lost
            for _ in range(self.per_drain):
                self.queue.enqueue()
            self.queue.synchronise()
            marks.append(Mark(self.clock.now(), marks[-1].iterations + self.per_drain))
        return marks[-1].iterations

    def busy_with_pauses(self, seconds: float, recording: Recording) -> None:
        """Run forwards for some time; after each pause they have another phase to the ticks."""
        meter, marks, now = self.found.channel, recording.marks, self.clock.now
        period_s, iteration_s = meter.period_s, self.found.iteration_s
        modulus_s = min(period_s, iteration_s)  # after it, all phases of sensor and load have come
        seldom_s = min(PAUSE_EVERY_PERIODS * modulus_s, seconds / PHASES)
        every_s = max(seldom_s, PAUSE_EVERY_TICKS * period_s) + meter.trail_s
        recent = math.ceil(RECENT_S / poll_every_s(meter.tick_s))
        marks.append(Mark(now(), 0))
        end_s = marks[0].time_s + seconds
        while marks[-1].time_s < end_s:
            if recording.lost:
                raise recording.lost
            seen = ticks(recording.readings(meter.method)[-recent:])
            now_s = now()
            last_s = latest_s(seen, period_s) if seen else now_s
            # The first tick that comes after the pause, however long that is.
            tick_s = last_s + math.ceil((now_s + modulus_s - last_s) / period_s) * period_s
            if tick_s - self.aimed_s > period_s / 2:
                self.pauses += 1
                self.aimed_s = tick_s
            self.clock.sleep(golden_pause_s(now_s, tick_s, self.pauses, modulus_s))
            # So that ticks lie evenly between pauses.
            due_s = every_s + (self.pauses * SILVER % 1 - 0.5) * period_s
            load_s = min(due_s, end_s - now())
            # Two, so that each part of a forward is seen by a tick that does not see the pause.
            count = max(2, round(load_s / iteration_s))
            took_s = self.stretch(count)
            now_s, done = now(), marks[-1].iterations
            marks += [Mark(now_s - took_s, done), Mark(now_s, done + count)]

    def stretch(self, count: int) -> float:
        """Run so many forwards after another one; how long they took, in s."""
        self.queue.enqueue()
        took_s = self.queue.stretch()
        for _ in range(count):
            self.queue.enqueue()
        return took_s()
