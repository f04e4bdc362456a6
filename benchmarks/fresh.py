"""Is a process that a template forks as fast as one that was started, and do they differ as much?

    python benchmarks/fresh.py [--pairs N]

Both measure the same request through bench.measure, in turn and in alternating order: the embedded
tiny model, whose 1 ms is mostly the host's, and GPT-2's 124M architecture with random weights. Of
each workload the figure is the geometric mean over the pairs of the ratio of the medians, with its
95 % interval (Student's on the logarithms), and the ratio of their spreads from process to process,
with its 95 % interval (F). What is forked shares the addresses of its libraries with its siblings,
and could differ less between replicates than what is started. tests/test_bench_fresh.py compares
the surroundings. The goal: both ratios are 1 within their intervals, and that of the times is
within +-10 %, or it would tell nothing. Exits 1 where it is missed.
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

from bench import fresh, stats
from bench.asked import CPU, Cell, QualityPlan, Sampling, Workload
from bench.measured import Measurement
from bench.outcomes import Request

ROOT = Path(__file__).resolve().parents[1]
MEASURE = "bench.measure:measure"
WORKLOADS = (Workload("tiny", "eager", 1, 128), Workload("gpt2:random", "eager", 1, 128))
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
    pairs: list[list[tuple[float, float]]] = [[] for _ in WORKLOADS]
    print("median latency in ms, forked and started, of each workload")
    with fresh.own_template(MEASURE):
        for number in range(asked.pairs):
            sides = [forked, started] if number % 2 == 0 else [started, forked]
            found = {side: side(request) for side in sides}
            for pair, ours, others in zip(pairs, found[forked], found[started], strict=True):
                pair.append((ours, others))
            print("".join(f"{a:10.3f}{b:10.3f}" for a, b in (pair[-1] for pair in pairs)))
    print()
    return 0 if all([judge(w, pair) for w, pair in zip(WORKLOADS, pairs, strict=True)]) else 1


def forked(request: Request) -> list[float]:
    """The median of each workload, in a process of the template."""
    process = fresh.Fresh(os.environ[fresh.TEMPLATE], MEASURE, request)
    return medians(list(process.events()))


def started(request: Request) -> list[float]:
    """The same, in a process that imports everything itself."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        input=pickle.dumps(request),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
    )
    return medians(pickle.loads(done.stdout))


def medians(events: Sequence[object]) -> list[float]:
    """Of each row, in ms."""
    rows = [event for event in events if isinstance(event, Measurement)]
    return [row.timing.latency_ms_p50 for row in rows if row.timing]


def judge(workload: Workload, pairs: Sequence[tuple[float, float]]) -> bool:
    """Print the figure of a workload; whether both ratios are 1 within their intervals."""
    logs = [math.log(ours / others) for ours, others in pairs]
    ratio, half = math.exp(statistics.fmean(logs)), math.expm1(stats.student_interval(logs))
    spreads = [statistics.stdev(map(math.log, side)) for side in zip(*pairs, strict=True)]
    spread = spreads[0] / spreads[1]
    factor = f_factor(len(pairs))
    same = abs(math.log(ratio)) <= math.log1p(half) and half <= TELLING
    alike = 1 / factor <= spread <= factor
    print(
        f"{workload.model}: forked / started {ratio:.4f} +-{half:.4f}; spread between processes"
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
