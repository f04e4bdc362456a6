"""What does polling the power sensor cost the work beside it?

    python benchmarks/polling_cost.py [--rounds N] [--gpu NAME ...]

The fake driver library of the tests on the real clock, beside a torch load on the CPU: rounds of
forwards with the poller of `bench.energy.poll` on and off, in turn and in alternating order, so
that a drift of the machine meets both alike. One thread of torch, so that a core is left for the
poller, as beside a GPU. A V100 has a counter, with readings of power beside it; a P100 has readings
alone, which cost more. The goals: the poller takes under 1 % of one core, and the median latency
changes by under 0.5 %. Exits 1 where one is missed. In a virtual machine nearly half of it is for
waking up; a real driver's calls take longer than the fake's. In a row, latency and energy are
measured one after the other, so that what polling costs is in the energy's forwards only.
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
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fakenvml

from bench.device import nvml
from bench.energy import poll
from bench.energy.meter import Meter, find_meter

CPU_GOAL, LATENCY_GOAL = 0.01, 0.005
ROUND_S = 1.0
EVERY_S = poll.poll_every_s(poll.FASTEST_TICK_S)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--gpu", nargs="*", default=["v100", "p100"])
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{asked.rounds} rounds of {ROUND_S} s, with and without a poll every {EVERY_S:.4f} s\n")
    print(f"{'GPU':5} {'its reads':>10} {'poller':>8}   latency, polled / not")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        library = fakenvml.build(Path(folder))
        for gpu in asked.gpu:
            pynvml.nvmlLib = fakenvml.FakeDriver(library, f"gpu = {gpu}").library
            with nvml.driver() as opened:
                meter = find_meter(opened.gpus()[0])
                assert isinstance(meter, Meter)
                share, ratios = cost(meter, asked.rounds)
                read_us = 1e6 * cost_of_a_read(meter)
            change = statistics.median(ratios) - 1
            print(
                f"{gpu.upper():5} {read_us:7.0f} us {share:8.2%}   {change:+.2%}"
                f" (quarters {quartiles(ratios)})",
                flush=True,
            )
            found.append((share, abs(change)))
    share, change = (max(worst) for worst in zip(*found, strict=True))
    print(
        f"\npoller: at most {share:.2%} of one core (goal {CPU_GOAL:.0%});"
        f" latency changes by at most {change:.2%} (goal {LATENCY_GOAL:.1%})"
    )
    return 0 if share < CPU_GOAL and change < LATENCY_GOAL else 1


def cost(meter: Meter, rounds: int) -> tuple[float, list[float]]:
    """The poller's share of one core, and each round's latency with it over that without."""
    square = torch.ones(384, 384)
    poller_s: list[float] = []
    ratios = []
    with torch.inference_mode():
        latency_ms(square)
        for number in range(rounds):
            found_ms = {}
            for polled in (True, False) if number % 2 else (False, True):
                with poller(meter, poller_s) if polled else contextlib.nullcontext():
                    found_ms[polled] = latency_ms(square)
            ratios.append(found_ms[True] / found_ms[False])
    return sum(poller_s) / (rounds * ROUND_S), ratios


def quartiles(ratios: list[float]) -> str:
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{low - 1:+.2%} to {high - 1:+.2%}"


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
def poller(meter: Meter, used_s: list[float]):
    """The product's poller; adds the CPU time of its thread."""
    at = [0.0]

    class Timed(poll.Clock):
        def polling(self, read, every_s: float):
            def timed() -> None:
                read()
                at.append(time.thread_time())

            return super().polling(timed, every_s)

    with poll.recorded(meter, Timed(), EVERY_S):
        yield
    used_s.append(at[-1])


def cost_of_a_read(meter: Meter) -> float:
    start_s = time.perf_counter()
    for _ in range(1000):
        for read in (meter.read_j, meter.read_w):
            if read:
                read()
    return (time.perf_counter() - start_s) / 1000


if __name__ == "__main__":
    sys.exit(main())
