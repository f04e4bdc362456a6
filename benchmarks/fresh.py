"""Is a process that a template forks as fast as one that was started, and do they differ as much?

    python benchmarks/fresh.py [--pairs N]

Both measure the same request through bench.measure, in turn and in alternating order: the embedded
tiny model, whose 1 ms is mostly the host's, and GPT-2's 124M architecture with random weights. Of
each workload the figures are the geometric mean over the pairs of the ratio of the latencies, with
its 95 % interval (Student's on the logarithms), and the ratio of their spreads from process to
process, with its 95 % interval (F): of the medians, and of the quantiles at 0.1, which other work
on the machine disturbs less. What is forked shares the addresses of its libraries with its
siblings, and could differ less between replicates than what is started. tests/test_bench_fresh.py
compares the surroundings. The goal: both ratios of the quantiles are 1 within their intervals, and
that of the times is within +-10 %, or it would tell nothing. Exits 1 where it is missed.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench import fresh, stats
from bench.asked import CPU, Cell, QualityPlan, Sampling, Workload
from bench.measured import Measurement
from bench.outcomes import Request

ROOT = Path(__file__).resolve().parents[1]
MEASURE = "bench.measure:measure"
WORKLOADS = (Workload("tiny", "eager", 1, 128), Workload("gpt2:random", "eager", 1, 128))
FIGURES = [f"{w.model}, {what}" for w in WORKLOADS for what in ("median", "quantile at 0.1")]
TELLING = 0.10
STARTED = """
import pickle, sys
from bench.measure import measure
request = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(list(measure(request))))
"""
SAMPLING = Sampling(
    warmup_min_s=0.5,
    warmup_max_s=2,
    latency_min_s=1,
    latency_max_s=3,
    min_samples=20,
    throughput_s=0.01,
    energy="none",
    profile=False,
)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--pairs", type=int, default=20)
    asked = arguments.parse_args()
    request = Request(
        "run",
        Cell(CPU, "fp32"),
        0,
        WORKLOADS,
        SAMPLING,
        QualityPlan(enabled=False),
        threads=len(os.sched_getaffinity(0)),
    )
    pairs: list[list[tuple[float, float]]] = [[] for _ in FIGURES]
    print("latency in ms, forked and started, of", "; ".join(FIGURES))
    with fresh.own_template(MEASURE):
        for number in range(asked.pairs):
            sides = [forked, started] if number % 2 == 0 else [started, forked]
            found = {side: side(request) for side in sides}
            for pair, ours, others in zip(pairs, found[forked], found[started], strict=True):
                pair.append((ours, others))
            print("".join(f"{a:10.3f}{b:10.3f}" for a, b in (pair[-1] for pair in pairs)))
    print()
    same = [judge(figure, pair) for figure, pair in zip(FIGURES, pairs, strict=True)]
    return 0 if all(same[1::2]) else 1


def forked(request: Request) -> list[float]:
    """The figures, in a process of the template."""
    process = fresh.Fresh(os.environ[fresh.TEMPLATE], MEASURE, request)
    return figures(list(process.events()))


def started(request: Request) -> list[float]:
    """The same, in a process that imports everything itself."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        input=pickle.dumps(request),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
    )
    return figures(pickle.loads(done.stdout))


def figures(events: Sequence[object]) -> list[float]:
    """The median and the quantile at 0.1 of each row, in ms."""
    rows = [event for event in events if isinstance(event, Measurement)]
    samples = [row.timing.latency_ms_samples for row in rows if row.timing]
    return [float(value) for each in samples for value in np.quantile(each, (0.5, 0.1))]


def judge(figure: str, pairs: Sequence[tuple[float, float]]) -> bool:
    """Print the ratios of a figure; whether both ratios are 1 within their intervals."""
    logs = [math.log(ours / others) for ours, others in pairs]
    ratio, half = math.exp(statistics.fmean(logs)), math.expm1(stats.student_interval(logs))
    spreads = [statistics.stdev(map(math.log, side)) for side in zip(*pairs, strict=True)]
    spread = spreads[0] / spreads[1]
    factor = f_factor(len(pairs))
    same = abs(math.log(ratio)) <= math.log1p(half) and half <= TELLING
    alike = 1 / factor <= spread <= factor
    print(
        f"{figure}: forked / started {ratio:.4f} +-{half:.4f}; spread between processes"
        f" {spreads[0]:.2%} / {spreads[1]:.2%} = {spread:.2f} (alike within {factor:.2f} times)"
    )
    return same and alike


def f_factor(count: int) -> float:
    """By which two deviations of so many alike values differ at most, in 95 % of cases.

    The logarithm of the ratio of two variances is nearly normal, with variance 4 / (count - 1)
    (Fisher's z); within 2 % of the F quantile from 10 values on.
    """
    return math.exp(1.96 / 2 * math.sqrt(4 / (count - 1)))


if __name__ == "__main__":
    sys.exit(main())
