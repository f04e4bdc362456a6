"""Is the latency that tensorgap reports the latency that a plain loop sees?

    python benchmarks/fidelity.py [--rounds N] [--seconds S]

GPT-2's 124M architecture, batch 1, 128 tokens, in one process: rounds of tensorgap's own sampling
and of a loop written by hand (perf_counter around the call), in turn and in alternating order, so
that a drift of the machine meets both alike. Both run the same forward: a plain call of the model
first looks for packed positions, with kernels of its own and a wait for the device, and the figure
is about the clock. Both collect garbage before a round and none within it: a collection leaves the
caches empty, and on one side only it moved the ratio by 2 to 8 %.

The figure is the geometric mean over the rounds of the ratio of their medians, with its 95 %
interval (Student's). The goal is within 1 %, or within that interval where it is wider: nothing
finer can be told then. An interval wider than 5 % tells nothing, and the goal is missed. A
round has 100 forwards, or as many as let five rounds end in time. Exits 1 where it is missed.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import stats, timing
from bench.asked import CPU, Cell, Sampling, Workload
from bench.device import kinds, nvml, precision
from bench.device.acquire import acquire
from bench.model import engines
from bench.model import load as models
from bench.model import requests as queues

GOAL, TELLING = 0.01, 0.05
FORWARDS, FEWEST_FORWARDS = 100, 10
FEWEST_ROUNDS, TELLING_ROUNDS, ROUNDS = 3, 5, 25
_WARM_UPS = 3
SECONDS = 45.0
WORKLOAD = Workload("gpt2:random", "eager", 1, 128)

Side = Callable[[int], float]  # so many forwards; their median in ms


@dataclass(frozen=True)
class Figure:
    """The ratio of tensorgap's latency to a plain loop's, and half its interval, both relative."""

    ratio: float
    half: float
    rounds: int
    forwards: int
    holds: bool
    text: str


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=ROUNDS, help="at most")
    arguments.add_argument("--seconds", type=float, default=SECONDS, help="for all rounds")
    asked = arguments.parse_args()
    found = compare(asked.rounds, asked.seconds)
    print(found.text)
    return 0 if found.holds else 1


def compare(rounds: int = ROUNDS, seconds: float = SECONDS) -> Figure:
    """Measure on the GPU, or on the CPU where there is none, and print each round."""
    with nvml.driver() as driver:
        gpu_type = CPU
        if torch.cuda.is_available():
            gpu_type = kinds.gpu_type(torch.cuda.get_device_name(0))
        found = acquire(Cell(gpu_type, "fp32"), driver)
    model = models.load_model(WORKLOAD.model, "fp32", found.type)
    queue = queues.forward_queue(found.type, model, WORKLOAD)
    ids = torch.tensor([models.prompt_ids(model)[:128]], device=found.type)
    with precision.applied("fp32", found.type), torch.inference_mode():
        forward = engines.forward(WORKLOAD.engine, model.module)

        def ours(forwards: int) -> float:
            return statistics.median(timing.sample_latency(queue, _exactly(forwards)).host_ms)

        def by_hand(forwards: int) -> float:
            return statistics.median(plain_loop(forward, ids, forwards))

        ours(_WARM_UPS)
        forwards = afford(by_hand(_WARM_UPS), seconds)
        print(f"{found.device.name}: {WORKLOAD}, {forwards} forwards a round\n")
        print("round  tensorgap ms  by hand ms  ratio")
        end_s = time.monotonic() + seconds
        ratios: list[float] = []
        for ratio in _ratios(ours, by_hand, rounds, forwards):
            ratios.append(ratio)
            if len(ratios) >= FEWEST_ROUNDS and time.monotonic() > end_s:
                break
    print(f"\nspread {min(ratios):.4f} to {max(ratios):.4f}")
    return figure(ratios, forwards)


def afford(forward_ms: float, seconds: float) -> int:
    """How many forwards a round has, so that five rounds end in time.

    >>> afford(5, 45), afford(300, 45), afford(3000, 45)
    (100, 15, 10)
    """
    return max(
        FEWEST_FORWARDS, min(FORWARDS, int(seconds * 1e3 / (2 * forward_ms * TELLING_ROUNDS)))
    )


def figure(ratios: Sequence[float], forwards: int) -> Figure:
    """The figure of some rounds, and whether it meets the goal."""
    logs = [math.log(ratio) for ratio in ratios]
    ratio, half = math.exp(statistics.fmean(logs)), math.expm1(stats.student_interval(logs))
    holds = abs(math.log(ratio)) <= math.log1p(max(GOAL, half)) and half <= TELLING
    words = f"latency of tensorgap / by hand: {ratio:.4f} +-{half:.4f} ({len(ratios)} rounds)"
    if half > TELLING:
        words += f", inconclusive: the interval is wider than {TELLING * 100:g} %"
    return Figure(ratio, half, len(ratios), forwards, holds, words)


def _ratios(ours: Side, by_hand: Side, rounds: int, forwards: int) -> Iterable[float]:
    for number in range(rounds):
        if number % 2 == 0:
            ours_ms, hand_ms = ours(forwards), by_hand(forwards)
        else:
            hand_ms, ours_ms = by_hand(forwards), ours(forwards)
        print(f"{number:5}  {ours_ms:12.3f}  {hand_ms:10.3f}  {ours_ms / hand_ms:.4f}")
        yield ours_ms / hand_ms


def _exactly(forwards: int) -> Sampling:
    return Sampling(min_samples=forwards, max_samples=forwards, latency_min_s=0, latency_max_s=600)


def plain_loop(forward: engines.Forward, ids: torch.Tensor, forwards: int) -> list[float]:
    """The loop that anyone would write, in ms; garbage is collected as tensorgap does."""
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(forwards):
            start = time.perf_counter()
            forward(ids)
            if ids.is_cuda:
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1e3)
    finally:
        gc.enable()
    return times


if __name__ == "__main__":
    sys.exit(main())
