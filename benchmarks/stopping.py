"""When does a latency known within +-1 % come, and is it true?

    python benchmarks/stopping.py [--runs N] [--seconds S]

Sampling that stops by itself must stop neither too soon, when its median is further from the true
one than it says, nor too late. Side by side, each rule on the same runs of simulated and recorded
noise, forward by forward on a virtual clock:

    tensorgap  the product's own `sample_latency`: the median's 95 % interval is +-1 %, after 662
               forwards and 10 s at the least, 60 s at the most
    rule only  the same, from 64 forwards on and after no least time
    100, 1000  a fixed count
    stdrel     nvbench's default: the standard deviation is below 0.5 % of the mean, or has settled
               within 5 % over the last 512 forwards; after 0.5 s
               (nvbench/detail/stdrel_criterion.cxx at 182c77e)
    entropy    nvbench's other one: the entropy of the times so far, which it bins at their own
               resolution, no longer grows over the last 299 forwards
               (nvbench/detail/entropy_criterion.cxx at 182c77e)

nvbench takes 10 forwards at the least and gives up after 15 s. Its times are those of CUDA events,
with a resolution of 0.5 us; its statistic here is the median as well. A simulated forward lasts
10 ms, and the true median is that of a million of them. Recorded are S seconds of forwards of the
embedded model on this machine's CPU, one thread, replayed in a circle from random places; their
true median is that of the whole record.

For each rule: the share of runs whose median is within +-1 % of the true one, and the median time
to the stop. Of tensorgap's runs those count that say they have converged, whose share stands behind
the stroke: the others have a warning, and promise nothing. A run breaks its promise where it says
so and is wrong. The goal: at least 94 % of all runs of each noise do not, but in the slow drift, of
which no rule can know more than it has seen. Exits 1 where it is missed.
"needed" is the fixed count that would have been enough in 94 % of runs.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray

from bench import timing
from bench.asked import Sampling
from bench.model import engines
from bench.model import load as models
from bench.model.tokens import prompt_ids

Floats = NDArray[np.float64]
Rng = np.random.Generator
Rule = Callable[[Floats], int]  # after how many of the times, in ms, it stops

GOAL, WITHIN = 0.94, 0.01
FORWARD_MS = 10.0
LONGEST = 20_000  # forwards of a run
TRUE_OF = 1_000_000
EVENT_MS = 0.0005
SLOW, RECORDED = "drift 60 s", "recorded"
OURS = {
    "tensorgap": Sampling(),
    "rule only": Sampling(min_samples=64, latency_min_s=0),
}


@dataclass(frozen=True)
class Score:
    """What a rule came to in the runs of a noise."""

    true: float | None  # the share within +-1 % of the runs that converged, if any did
    converged: float  # the share of runs
    seconds: float  # median time to the stop

    @property
    def kept(self) -> float:
        """The share of all runs that break no promise."""
        return 1 - self.converged * (1 - self.true) if self.true is not None else 1.0

    def __str__(self) -> str:
        true = "-" if self.true is None else f"{self.true:.1%}"
        share = "" if self.converged == 1 else f"/{self.converged:.0%}"
        return f"{true}{share} {self.seconds:5.1f} s"


# ------------------------------------------------------------------------------- noise


def gaussian(rng: Rng, count: int) -> Floats:
    """Of 5 %."""
    return FORWARD_MS * (1 + 0.05 * rng.standard_normal(count))


def heavy_tail(rng: Rng, count: int) -> Floats:
    """Log-normal, and one in twenty is hit by something else: Pareto, index 1.5."""
    hit = rng.random(count) < 0.05
    return FORWARD_MS * (rng.lognormal(0, 0.1, count) + hit * rng.pareto(1.5, count))


def bimodal(rng: Rng, count: int) -> Floats:
    """Two speeds, 15 % apart, the slower in 45 % of forwards."""
    slower = rng.random(count) < 0.45
    return FORWARD_MS * (1 + 0.15 * slower) * (1 + 0.02 * rng.standard_normal(count))


def autoregressive(likeness: float) -> Callable[[Rng, int], Floats]:
    """Of 5 %, and a forward is like the one before: AR(1)."""

    def noise(rng: Rng, count: int) -> Floats:
        steps = rng.standard_normal(count) * math.sqrt(1 - likeness**2)
        steps[0] = rng.standard_normal()
        values, last = np.empty(count), 0.0
        for index, step in enumerate(steps):
            values[index] = last = likeness * last + step
        return FORWARD_MS * (1 + 0.05 * values)

    return noise


def drift(period_s: float) -> Callable[[Rng, int], Floats]:
    """Of 2 %, around a speed that goes up and down by 3 % within a period."""

    def noise(rng: Rng, count: int) -> Floats:
        phase = 2 * math.pi * (rng.random() + np.arange(count) * FORWARD_MS / 1e3 / period_s)
        return FORWARD_MS * (1 + 0.03 * np.sin(phase)) * (1 + 0.02 * rng.standard_normal(count))

    return noise


NOISES: dict[str, Callable[[Rng, int], Floats]] = {
    "Gaussian": gaussian,
    "heavy tail": heavy_tail,
    "bimodal": bimodal,
    "AR(1) 0.5": autoregressive(0.5),
    "AR(1) 0.9": autoregressive(0.9),
    "AR(1) 0.98": autoregressive(0.98),
    "drift 5 s": drift(5),
    "drift 20 s": drift(20),
    SLOW: drift(60),
}


def record(seconds: float) -> Floats:
    """Times of forwards on this machine."""
    torch.set_num_threads(1)
    model = models.load_model("tiny", "fp32", "cpu")
    forward = engines.forward("eager", model.module)
    ids = torch.tensor([prompt_ids(model)[:128]])
    times = []
    with torch.inference_mode(), timing.no_garbage_collection():
        end = time.perf_counter() + seconds
        before = time.perf_counter()
        while before < end:
            forward(ids)
            after = time.perf_counter()
            times.append((after - before) * 1e3)
            before = after
    return np.array(times[len(times) // 20 :])  # what comes first warms up


def replayed(recorded: Floats) -> Callable[[Rng, int], Floats]:
    """The record in a circle, from a random place."""

    def noise(rng: Rng, count: int) -> Floats:
        return recorded[(rng.integers(len(recorded)) + np.arange(count)) % len(recorded)]

    return noise


# ------------------------------------------------------------------------------- rules


class Replay:
    """A queue whose forwards take what they are told, on a clock of its own."""

    def __init__(self, times_ms: Floats) -> None:
        self._times_ms = iter(times_ms.tolist())
        self.now_ns = 0

    def timed(self) -> None:
        self.now_ns += round(next(self._times_ms) * 1e6)

    def device_ms(self) -> None:
        """No clock beside the host's."""


def ours(times_ms: Floats, sampling: Sampling) -> tuple[int, bool]:
    """After how many forwards the product stops, and whether it says that it has converged."""
    queue = Replay(times_ms)
    found = timing.sample_latency(queue, sampling, lambda: queue.now_ns)
    return len(found.host_ms), found.converged


def fixed(count: int) -> Rule:
    return lambda times_ms: count


def in_time(times_ms: Floats) -> int:
    """How many forwards nvbench takes at the most."""
    return min(int(np.searchsorted(np.cumsum(times_ms), 15e3)) + 1, len(times_ms))


def stdrel(times_ms: Floats) -> int:
    """When the relative standard deviation is small, or has settled."""
    most = in_time(times_ms)
    counts = np.arange(1, most + 1)
    total_ms, squares = np.cumsum(times_ms[:most]), np.cumsum(times_ms[:most] ** 2)
    variance = (squares - total_ms**2 / counts) / np.maximum(counts - 1, 1)
    noise = np.sqrt(np.maximum(variance, 0)) / (total_ms / counts)
    first = 5  # the fewest that have a deviation there
    for count in range(10, most):
        if total_ms[count - 1] <= 500:
            continue
        now = noise[count - 1]
        if now < 0.005:
            return count
        window = noise[max(first - 1, count - 512) : count]
        if len(window) > 64 and count % 16 == 0:
            spread = math.sqrt(float(((window - now) ** 2).sum()) / (len(window) - 1))
            if spread / now < 0.05:
                return count
    return most


def entropy(times_ms: Floats) -> int:
    """When the entropy of the times so far grows no longer, and a straight line describes that."""
    most = in_time(times_ms)
    bins: dict[int, int] = {}
    seen = np.zeros(most)
    tracked: list[float] = []
    for count, key in enumerate(np.round(times_ms[:most] / EVENT_MS).astype(int).tolist(), 1):
        seen[bins.setdefault(key, len(bins))] += 1
        shares = seen[: len(bins)] / count
        tracked.append(-float((shares * np.log2(shares)).sum()))
        if count < 10 or count % 2:
            continue
        last = np.array(tracked[-299:])
        at = np.arange(len(last)) - (len(last) - 1) / 2
        off = last - last.mean()
        slope = float((at * off).sum() / (at**2).sum())
        if math.degrees(math.atan(slope)) > 0.048:
            continue
        whole = float((off**2).sum())
        if whole == 0 or 1 - float(((off - slope * at) ** 2).sum()) / whole >= 0.36:
            return count
    return most


RULES: dict[str, Rule] = {
    "100": fixed(100),
    "1000": fixed(1000),
    "stdrel": stdrel,
    "entropy": entropy,
}


# ------------------------------------------------------------------------------- scores


def scores(noise: Callable[[Rng, int], Floats], true_ms: float, runs: int) -> dict[str, Score]:
    """Each rule on the same runs."""
    found: dict[str, list[tuple[bool, bool, float]]] = {name: [] for name in (*OURS, *RULES)}
    for seed in range(runs):
        times_ms = noise(np.random.default_rng(seed), LONGEST)
        for name in found:
            if name in OURS:
                count, converged = ours(times_ms, OURS[name])
            else:
                count, converged = RULES[name](times_ms), True
            taken = times_ms[:count]
            within = abs(float(np.median(taken)) / true_ms - 1) <= WITHIN
            found[name].append((within, converged, float(taken.sum()) / 1e3))
    return {name: score(told) for name, told in found.items()}


def score(told: Sequence[tuple[bool, bool, float]]) -> Score:
    """Of runs: whether each was within +-1 %, whether it says so, and how long it took in s."""
    sure = [within for within, converged, _ in told if converged]
    true = sum(sure) / len(sure) if sure else None
    seconds = float(np.median([took_s for _, _, took_s in told]))
    return Score(true, len(sure) / len(told), seconds)


def needed(noise: Callable[[Rng, int], Floats], true_ms: float, runs: int) -> int | None:
    """The fewest forwards, of a series that grows by a quarter, that are enough for 94 %."""
    series = [noise(np.random.default_rng(seed), LONGEST) for seed in range(runs)]
    count = 10
    while count <= LONGEST:
        off = [abs(float(np.median(times_ms[:count])) / true_ms - 1) for times_ms in series]
        if sum(share <= WITHIN for share in off) >= GOAL * runs:
            return count
        count = math.ceil(count * 1.25)
    return None


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=200, help="of each noise")
    arguments.add_argument("--seconds", type=float, default=120.0, help="of the record")
    asked = arguments.parse_args()
    recorded = record(asked.seconds)
    gc.freeze()  # the product collects garbage before each run: all that is imported lies aside
    print(
        f"{len(recorded)} forwards recorded, {np.median(recorded):.3f} ms in the median;"
        f" {asked.runs} runs of each noise\n"
    )
    print(f"{'':11}" + "".join(f"{name:>17}" for name in (*OURS, *RULES)) + f"{'needed':>9}")
    kept = {}
    for name, noise in (NOISES | {RECORDED: replayed(recorded)}).items():
        whole = recorded if name == RECORDED else noise(np.random.default_rng(10**6), TRUE_OF)
        true_ms = float(np.median(whole))
        found = scores(noise, true_ms, asked.runs)
        enough = needed(noise, true_ms, asked.runs)
        line = "".join(f"{one!s:>17}" for one in found.values())
        print(f"{name:11}{line}{enough or '-':>9}", flush=True)
        kept[name] = found["tensorgap"].kept
    worst = min(share for name, share in kept.items() if name != SLOW)
    print(f"\nat least {worst:.1%} of tensorgap's runs of each noise keep +-1 % (goal {GOAL:.0%})")
    return 0 if worst >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
