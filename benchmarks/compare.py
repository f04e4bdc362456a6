"""How often does `tensorgap compare` find what is not there, and how often what is?

    python benchmarks/compare.py [--seeds N] [--power-seeds N]

Each seed makes two runs of 12 cells out of chance alone: processes scatter around the same latency,
throughput and energy (their logarithms are normal, and independent: Holm's procedure makes fewer
false alarms where they move together), windows of a text around the same perplexity. With outliers,
one process in ten is slower, by three scatters in the mean. The decisions depend on a difference in
units of the scatter alone, so that false alarms are those of any scatter. The rows go through the
product's own pairing and decisions. A family is all comparisons of two runs: 36 of replicates and 6
of perplexities. Counted is how many families have any false alarm: the promise is 5 %.

Then one latency of the second run is longer by 5 or 10 %, and counted is how often that is found:
in the same family, and where one cell alone is compared.

Exits 1 where the false alarms of any kind of family exceed the promise by more than three standard
errors of the count.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.asked import Cell, Workload
from bench.measured import Device, Energy, Measurement, Outcome, Quality, Timing
from jobs.report.changes import compared, decide, pairs
from jobs.report.changes.records import Comparison, Decision, Metric, RunCompared

Rng = np.random.Generator

PRECISIONS, ENGINES, GPUS = ("fp32", "fp16", "mixed"), ("eager", "graph"), ("T4", "A100")
WINDOWS, WINDOW_TOKENS = 20, 512
FIRST = (GPUS[0], PRECISIONS[0], ENGINES[0])
FOUND = (Decision.WORSE, Decision.BETTER, Decision.NEGLIGIBLE)


@dataclass(frozen=True)
class Noise:
    """How many processes two runs have, and the standard deviation of their logarithms."""

    old: int
    new: int
    old_scatter: float
    new_scatter: float
    outliers: bool = False

    def __str__(self) -> str:
        each = f"{self.old}" if self.old == self.new else f"{self.old} and {self.new}"
        scatter = f"{self.old_scatter:.0%}"
        if self.old_scatter != self.new_scatter:
            scatter += f" and {self.new_scatter:.0%}"
        return f"{each} replicates, scatter {scatter}" + (", outliers" * self.outliers)


COUNTS = (2, 3, 5, 10)
ALIKE = tuple(Noise(n, n, 0.01, 0.01) for n in (1, *COUNTS))
ODD = tuple(Noise(n, n, 0.01, 0.01, outliers=True) for n in COUNTS)
UNEVEN = (Noise(2, 10, 0.01, 0.01), Noise(3, 5, 0.01, 0.01), Noise(5, 10, 0.01, 0.01))
APART = (Noise(5, 5, 0.01, 0.03), Noise(2, 10, 0.03, 0.01))


def rows(
    rng: Rng,
    replicates: int,
    scatter: float,
    slower: float = 1.0,
    cells: int = 12,
    outliers: bool = False,
) -> Iterator[Measurement]:
    """One run; the latency of its first cell is `slower` times as long."""
    every = itertools.islice(itertools.product(GPUS, ENGINES, PRECISIONS), cells)
    nats = {key: rng.normal(1000, 5, WINDOWS) for key in itertools.product(GPUS, PRECISIONS)}
    for number, (gpu, engine, precision) in enumerate(every):
        device = Device(f"NVIDIA {gpu}", gpu, "host", "Xeon", 8, uuid=f"GPU-{gpu}")
        windows = tuple(map(float, nats[gpu, precision]))
        tokens = (WINDOW_TOKENS,) * WINDOWS
        quality = Quality(
            "a text",
            perplexity=math.exp(sum(windows) / sum(tokens)),
            window_nats=windows,
            window_tokens=tokens,
        )
        for replicate in range(replicates):
            late = (rng.random(3) < 0.1) * rng.exponential(3 * scatter, 3) if outliers else 0.0
            latency, rate, energy = np.exp(rng.normal(0, scatter, 3) + late).tolist()
            latency *= 10 * (slower if number == 0 else 1)
            yield Measurement(
                cell=Cell(gpu, precision),
                workload=Workload("gpt2", engine),
                run="noise/20261124T120000Z-000000",
                replicate=replicate,
                outcome=Outcome.OK,
                device=device,
                timing=Timing((), latency, latency, 0.0, 0, True, 1.0, 1,
                              throughput_samples_per_s=100 * rate),
                energy=Energy("counter", per_sample_mj=500 * energy),
                quality=quality,
            )  # fmt: skip


def compared_runs(seed: int, noise: Noise, slower: float = 1.0, cells: int = 12) -> Comparison:
    """Two runs of one seed, through the product's own pairing and decisions."""
    rng = np.random.default_rng(seed)
    sides = (noise.old, noise.old_scatter, 1.0), (noise.new, noise.new_scatter, slower)
    runs = []
    for label, side in zip(("old", "new"), sides, strict=True):
        measured = pairs.of_run(rows(rng, *side, cells, noise.outliers), label)
        runs.append(compared.Input(RunCompared(label, label, (label,), 0), measured))
    return compared.compare(runs[0], runs[1:])


def false_alarms(noise: Noise, seeds: int) -> float:
    """The share of families of pure noise in which anything is found."""
    families = (compared_runs(seed, noise) for seed in range(seeds))
    return sum(any(c.decision in FOUND for c in one.changes) for one in families) / seeds


def power(noise: Noise, slower: float, cells: int, seeds: int) -> float:
    """How often the longer latency is found."""
    found = 0
    for seed in range(seeds):
        latencies = [
            change
            for one in compared_runs(10**6 + seed, noise, slower, cells).others[0].rows
            if (one.place.gpu, one.place.precision, one.place.workload.engine) == FIRST
            for change in one.changes
            if change.metric is Metric.LATENCY
        ]
        found += latencies[0].decision is Decision.WORSE
    return found / seeds


def most(seeds: int) -> float:
    """The share of false alarms that a count of so many may show by chance."""
    return decide.ALPHA + 3 * math.sqrt(decide.ALPHA * (1 - decide.ALPHA) / seeds)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=1000, help="families of each noise")
    arguments.add_argument("--power-seeds", type=int, default=200, help="families of each power")
    asked = arguments.parse_args()
    print(f"false alarms in {asked.seeds} families of noise (promised: {decide.ALPHA:.0%})\n")
    worst = 0.0
    for noise in (*ALIKE, *ODD, *UNEVEN, *APART):
        share = false_alarms(noise, asked.seeds)
        count = compared_runs(0, noise).count
        print(f"  {noise!s:45} {count:3} comparisons {share:7.1%}", flush=True)
        worst = max(worst, share)
    print(f"\npower, of {asked.power_seeds} families\n")
    print(f"  {'':45} {'one cell':>17} {'12 cells':>17}")
    print(f"  {'longer by':45} {'5%':>8} {'10%':>8} {'5%':>8} {'10%':>8}")
    for scatter, count in itertools.product((0.01, 0.02), COUNTS):
        noise = Noise(count, count, scatter, scatter)
        shares = [
            power(noise, slower, cells, asked.power_seeds)
            for cells in (1, 12)
            for slower in (1.05, 1.10)
        ]
        print(f"  {noise!s:45}" + "".join(f" {share:8.1%}" for share in shares), flush=True)
    print(
        f"\nfalse alarms in at most {worst:.1%} of {asked.seeds} families of noise"
        f" (promised: {decide.ALPHA:.0%})"
    )
    return 0 if worst <= most(asked.seeds) else 1


if __name__ == "__main__":
    sys.exit(main())
