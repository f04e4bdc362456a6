"""Is the latency that tensorgap reports the latency that a plain loop sees?

    python benchmarks/fidelity.py [--rounds N]

GPT-2's 124M architecture, batch 1, 128 tokens, in one process: rounds of tensorgap's own sampling
and of a loop written by hand (perf_counter around the call), in turn and in alternating order, so
that a drift of the machine meets both alike. Both run the same forward: a plain call of the model
first looks for packed positions, with kernels of its own and a wait for the device, and the figure
is about the clock. It is the median over the rounds of the ratio of their medians; the goal is
within 1 %. Exits 1 where it is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from bench import engines, nvml, precision, queues
from bench import model as models
from bench.device import acquire
from bench.meters import timing
from bench.records import CPU, Cell, Sampling, Workload

GOAL = 0.01
FORWARDS = 5
WORKLOAD = Workload("gpt2:random", "eager", 1, 128)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=25)
    rounds = arguments.parse_args().rounds
    with nvml.driver() as driver:
        gpu_type = CPU
        if torch.cuda.is_available():
            gpu_type = nvml.gpu_type(torch.cuda.get_device_name(0))
        found = acquire(Cell(gpu_type, "fp32"), driver)
    model = models.load(WORKLOAD.model, "fp32", found.type)
    queue = queues.forward_queue(found.type, model, WORKLOAD)
    ids = torch.tensor([models.prompt_ids(model)[:128]], device=found.type)
    sampling = Sampling(
        min_samples=FORWARDS, max_samples=FORWARDS, latency_min_s=0, latency_max_s=600
    )
    print(f"{found.device.name}: {WORKLOAD}, {FORWARDS} forwards a round\n")
    print("round  tensorgap ms  by hand ms  ratio")
    ratios = []
    with precision.applied("fp32", found.type), torch.inference_mode():
        forward = engines.forward(WORKLOAD.engine, model.module)
        by_hand(forward, ids)
        for number in range(rounds):
            pair = [
                lambda: statistics.median(timing.sample_latency(queue, sampling).host_ms),
                lambda: statistics.median(by_hand(forward, ids)),
            ]
            order = (0, 1) if number % 2 == 0 else (1, 0)
            found_ms = {index: pair[index]() for index in order}
            ratios.append(found_ms[0] / found_ms[1])
            print(f"{number:5}  {found_ms[0]:12.3f}  {found_ms[1]:10.3f}  {ratios[-1]:.4f}")
    figure = statistics.median(ratios)
    print(f"\nspread {min(ratios):.4f} to {max(ratios):.4f}")
    print(f"latency of tensorgap / by hand: {figure:.4f}")
    return 0 if abs(figure - 1) <= GOAL else 1


def by_hand(forward: engines.Forward, ids: torch.Tensor) -> list[float]:
    """The loop that anyone would write, in ms."""
    times = []
    for _ in range(FORWARDS):
        start = time.perf_counter()
        forward(ids)
        if ids.is_cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return times


if __name__ == "__main__":
    sys.exit(main())
