"""What does polling the power sensor cost the work beside it?

    python benchmarks/polling_cost.py [--rounds N]

The fake driver library of the tests on the real clock, beside a torch load on the CPU: rounds of
forwards with the poller of `bench.meters.energy` on and off, in turn and in alternating order, so
that a drift of the machine meets both alike. One thread of torch, so that a core is left for the
poller, as beside a GPU. The goals: the poller takes under 1 % of one core, and the median latency
changes by under 0.5 %. Exits 1 where one is missed. On two shared
cores of a virtual machine: 0.9 % and +0.4 % for a sensor that ticks each 100 ms, 1.5 % and +1.2 %
for one of 20 ms (--every-ms 5): nearly all of it is for waking up. A real driver's calls take
longer than the fake's.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pynvml
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fakenvml

from bench import nvml
from bench.meters import energy
from bench.meters.polling import SystemClock

CPU_GOAL, LATENCY_GOAL = 0.01, 0.005
ROUND_S = 1.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--every-ms", type=float, default=12.5, help="12.5: an A100, 5: a V100")
    asked = arguments.parse_args()
    rounds = asked.rounds
    torch.set_num_threads(1)
    square = torch.ones(384, 384)
    with tempfile.TemporaryDirectory() as folder:
        driver = fakenvml.FakeDriver(fakenvml.build(Path(folder)), "gpu = v100")
        pynvml.nvmlLib = driver.library
        with nvml.driver() as opened:
            meter = energy.find_meter(opened.gpus()[0])
            assert isinstance(meter, energy.Meter)
            poller_s: list[float] = []
            ratios = []
            with torch.inference_mode():
                latency_ms(square)
                for number in range(rounds):
                    found_ms = {}
                    for polled in (True, False) if number % 2 else (False, True):
                        with (
                            poller(meter, poller_s, asked.every_ms / 1000)
                            if polled
                            else contextlib.nullcontext()
                        ):
                            found_ms[polled] = latency_ms(square)
                    ratios.append(found_ms[True] / found_ms[False])
            call_s = cost_of_a_read(meter)
    share = sum(poller_s) / (rounds * ROUND_S)
    change = statistics.median(ratios) - 1
    print(f"{rounds} rounds of {ROUND_S} s, with and without; a poll every {asked.every_ms} ms")
    print(f"latency, polled / not: {min(ratios):.4f} to {max(ratios):.4f}")
    print(f"a poll's two reads take {1e6 * call_s:.0f} us on this fake")
    print(
        f"poller: {share:.2%} of one core (goal {CPU_GOAL:.0%});"
        f" latency changes by {change:+.2%} (goal {LATENCY_GOAL:.1%})"
    )
    return 0 if share < CPU_GOAL and abs(change) < LATENCY_GOAL else 1


def latency_ms(square: torch.Tensor) -> float:
    """Median time of a forward over a round."""
    times = []
    end_s = time.perf_counter() + ROUND_S
    while time.perf_counter() < end_s:
        start_s = time.perf_counter()
        torch.mm(square, square)
        times.append(1e3 * (time.perf_counter() - start_s))
    return statistics.median(times)


@contextlib.contextmanager
def poller(meter: energy.Meter, used_s: list[float], every_s: float):
    """The product's poller; adds the CPU time of its thread."""
    recording = energy.Recording()
    poll = energy.poller(meter, recording, SystemClock())
    at = []

    def timed() -> None:
        poll()
        at.append(time.thread_time())

    with SystemClock().polling(timed, every_s):
        yield
    used_s.append(at[-1])


def cost_of_a_read(meter: energy.Meter) -> float:
    start_s = time.perf_counter()
    for _ in range(1000):
        for read in (meter.read_j, meter.read_w):
            if read:
                read()
    return (time.perf_counter() - start_s) / 1000


if __name__ == "__main__":
    sys.exit(main())
