"""Which GPU type fits a table of latencies and energies whose GPU nobody wrote down.

A small model with two queues, whose arithmetic is shown with each answer:

1. The host launches one operation every `launch_us`; a cast costs it `cast_share` of that.
2. The GPU runs them in order. A matrix product takes its operations / the rate that the type
   reaches at this shape; everything else takes 2.5 us or its bytes / bandwidth, whichever is more.
3. The forward ends when the GPU has run the last one: the latest, over all operations, of
   "launched at" + "GPU time of this one and all after it". GPU time / latency is the busy share.
4. Power = idle + k x busy, with the idle power of public nvidia-smi tables, and a k between a
   quarter of what lies between idle and limit (a P100 of such tables: 52 W at 43 %, 80 W at 74 %)
   and all of it.

`launch_us`, `cast_share`, idle and k are fitted, and the two rates within a range where none is
published: four to six numbers for six found. So a good fit is a hint and no proof; a bad fit says
more, because no choice of these numbers makes the type agree.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.device.gpus import GPUS, Board
from bench.profile import work as gpt2
from bench.profile.work import Shape

Floats = NDArray[np.float64]

PRECISIONS = ("fp32", "fp16", "mixed")
FITS, DOUBTFUL = 0.10, 0.25  # greatest error of any number: fits, is doubtful, does not fit

# TFLOP/s in fp32 and fp16 that NVIDIA's FasterTransformer reached with the same 12 layers x 768 at
# batch 1 and 128 tokens: 22.3 GFLOP / its milliseconds (FasterTransformer, docs/bert_guide.md). The
# A10G's are the A10's.
PUBLISHED_RATES = {
    "T4": (3.58, 10.9),
    "V100": (6.9, 14.0),
    "A100": (4.74, 20.5),
    "A10G": (6.2, 21.9),
}
# Elsewhere the published ones tell the range: shares of the peak.
_FP32_SHARES = (0.30, 0.35, 0.40, 0.45, 0.50)
_TENSOR_SHARES = (0.06, 0.10, 0.15, 0.20)
_STORAGE_GAINS = (1.0, 1.15, 1.3)  # fp16 against fp32 without Tensor Cores: only bytes are saved
_BANDWIDTH_SHARE = 0.75
_LAUNCH_US = np.arange(3.0, 46.0)
_CAST_SHARES = np.array([0.2, 0.3, 0.4, 0.5, 0.6])
_LEAST_SLOPE = 0.25


@dataclass(frozen=True)
class Fit:
    """How well one board explains the table, with the numbers that explain it best.

    Attributes:
        error: Greatest relative error of any latency or power.
        launch_us: Host time per operation.
        cast_share: Host time of a cast, as a share of it.
        rates: TFLOP/s of the matrix products in fp32 and in fp16.
        published: Whether these rates are published for this type, or taken from a range.
        latencies_ms: What the model gives, by precision.
        busy: Share of the latency in which the GPU computes, by precision.
        idle_w: Of the power model.
        slope_w: Its k.
    """

    gpu: Board
    error: float
    launch_us: float
    cast_share: float
    rates: tuple[float, float]
    published: bool
    latencies_ms: Mapping[str, float]
    busy: Mapping[str, float]
    idle_w: float | None = None
    slope_w: float | None = None

    @property
    def verdict(self) -> str:
        """fits, doubtful or does not fit."""
        if self.error < FITS:
            return "fits"
        return "doubtful" if self.error < DOUBTFUL else "does not fit"

    def power_w(self, precision: str) -> float | None:
        """What the power model gives."""
        if self.idle_w is None or self.slope_w is None:
            return None
        return self.idle_w + self.slope_w * self.busy[precision]


def rank(
    latencies_ms: Mapping[str, float],
    powers_w: Mapping[str, float],
    shape: Shape,
    batch_size: int,
    tokens: int,
    boards: Sequence[Board] = GPUS,
    load_share: float = 1.0,
) -> list[Fit]:
    """The best board of each type, best first; published rates first among those that fit alike.

    Args:
        latencies_ms: Of fp32, fp16 and mixed; at least two.
        powers_w: Mean power at the same precisions, or none.
        shape: The model; the rates hold for GPT-2 small only.
        batch_size: As the next one, near 1 x 128, for which the rates hold.
        tokens: Tokens per prompt.
        boards: What to try.
        load_share: Least share of the time of the energy in which the GPU was under load: a logger
            that starts early and stops late counts idle time.

    Returns:
        Nothing where the model does not hold.
    """
    known = [p for p in PRECISIONS if p in latencies_ms]
    if len(known) < 2 or shape != gpt2.SHAPES["gpt2"] or not 64 <= batch_size * tokens <= 256:
        return []
    best: dict[str, Fit] = {}
    for gpu in boards:
        powers = {p: powers_w[p] for p in known if p in powers_w}
        least_slope = _LEAST_SLOPE * load_share
        fit = _fit(gpu, known, latencies_ms, powers, least_slope, shape, batch_size, tokens)
        if gpu.gpu_type not in best or _order(fit) < _order(best[gpu.gpu_type]):
            best[gpu.gpu_type] = fit
    return sorted(best.values(), key=_order)


def _order(fit: Fit) -> tuple[object, ...]:
    return ("fits", "doubtful", "does not fit").index(fit.verdict), not fit.published, fit.error


def _fit(
    gpu: Board,
    known: Sequence[str],
    latencies_ms: Mapping[str, float],
    powers_w: Mapping[str, float],
    least_slope: float,
    shape: Shape,
    batch_size: int,
    tokens: int,
) -> Fit:
    wanted = np.array([latencies_ms[p] for p in known]) / 1e3

    @functools.cache
    def run(precision: str, rate: float) -> tuple[Floats, Floats]:
        launches, casts, seconds = _stream(gpu, precision, rate * 1e12, shape, batch_size, tokens)
        finish = _finish(launches, casts, seconds)
        return finish, seconds.sum() / finish

    best: Fit | None = None
    for fp32_rate, fp16_rate in _rates(gpu):
        ran = [run(p, fp32_rate if p == "fp32" else fp16_rate) for p in known]
        finishes, busies = zip(*ran, strict=True)
        finish, busy = np.stack(finishes, axis=-1), np.stack(busies, axis=-1)
        error = np.abs(finish / wanted - 1).max(axis=-1)
        if powers_w:
            at = [known.index(p) for p in powers_w]
            found = np.array(list(powers_w.values()))
            power_error, idle, slope = _power_fit(gpu, busy[..., at], found, least_slope)
            error = np.maximum(error, power_error)
        i, j = np.unravel_index(int(error.argmin()), error.shape)
        if best is None or error[i, j] < best.error:
            best = Fit(
                gpu,
                float(error[i, j]),
                float(_LAUNCH_US[i]),
                float(_CAST_SHARES[j]),
                (fp32_rate, fp16_rate),
                gpu.gpu_type in PUBLISHED_RATES,
                {p: float(ms) * 1e3 for p, ms in zip(known, finish[i, j], strict=True)},
                {p: float(share) for p, share in zip(known, busy[i, j], strict=True)},
                float(idle[i, j]) if powers_w else None,
                float(slope[i, j]) if powers_w else None,
            )
    assert best is not None  # every board has rates
    return best


def _rates(gpu: Board) -> list[tuple[float, float]]:
    """Rates of the matrix products to try, TFLOP/s in fp32 and fp16."""
    if gpu.gpu_type in PUBLISHED_RATES:
        return [PUBLISHED_RATES[gpu.gpu_type]]
    plain = [gpu.fp32_tflops * share for share in _FP32_SHARES]
    if gpu.fp16_tensor_tflops:
        tensor = [gpu.fp16_tensor_tflops * share for share in _TENSOR_SHARES]
        return list(itertools.product(plain, tensor))
    return [(rate, rate * gain) for rate in plain for gain in _STORAGE_GAINS]


def _stream(
    gpu: Board, precision: str, rate: float, shape: Shape, batch_size: int, tokens: int
) -> tuple[Floats, Floats, Floats]:
    """The operations of a forward in order, with eager attention.

    Returns:
        For each one: 1 where it is an ordinary launch, 1 where it is a cast, and its GPU time in s.
    """
    width, positions = shape.width, batch_size * tokens
    bandwidth = gpu.bandwidth_gb_per_s * 1e9 * _BANDWIDTH_SHARE
    element = gpt2.stored_bytes("fp16" if precision == "mixed" else precision)
    light = max(gpt2.SHORTEST_KERNEL_S, 3 * positions * width * element / bandwidth)
    steps: list[tuple[bool, float]] = []  # a cast?, seconds

    def product(flops: float, weights: float = 0.0) -> None:
        steps.append((False, max(flops / rate, weights * element / bandwidth)))

    def casts(*elements: float) -> None:
        if precision == "mixed":
            steps.extend((True, max(gpt2.SHORTEST_KERNEL_S, 6 * n / bandwidth)) for n in elements)

    def others(count: int) -> None:
        steps.extend([(False, light)] * count)

    # 294 launches and 158 casts for 12 layers, as counted (see jobs.report.gpt2).
    others(4)
    for _ in range(shape.layers):
        others(4)
        casts(3 * width**2, 3 * width, positions * width)
        product(6 * positions * width**2, 3 * width**2)
        others(4)
        product(2 * positions * tokens * width)
        casts(positions * tokens * width // 64)
        product(2 * positions * tokens * width)
        casts(width**2, width)
        product(2 * positions * width**2, width**2)
        others(3)
        casts(4 * width**2, 4 * width, positions * width)
        product(8 * positions * width**2, 4 * width**2)
        casts(positions * 4 * width, positions * 4 * width)
        others(6)
        casts(4 * width**2, width)
        product(8 * positions * width**2, 4 * width**2)
        others(1)
    others(1)
    weights = width * shape.vocabulary
    casts(weights, positions * width)
    product(2 * positions * weights, weights)
    is_cast = np.array([cast for cast, _ in steps], dtype=np.float64)
    return 1 - is_cast, is_cast, np.array([seconds for _, seconds in steps])


def _finish(launches: Floats, casts: Floats, seconds: Floats) -> Floats:
    """When the last operation ends, s, for each launch time and each share of a cast."""
    after = np.cumsum(seconds[::-1])[::-1]
    host = np.cumsum(launches) + _CAST_SHARES[:, None] * np.cumsum(casts)
    ends = _LAUNCH_US[:, None, None] * 1e-6 * host + after
    finish: Floats = ends.max(axis=-1)
    return finish


def _power_fit(
    gpu: Board, busy: Floats, found_w: Floats, least_slope: float
) -> tuple[Floats, Floats, Floats]:
    """Least greatest error of idle + k x busy over all that may be; with its idle and its k."""
    idles = np.linspace(*gpu.idle_w, 5)
    # Each idle power with each k from the least to all that the limit leaves.
    slopes = (gpu.tdp_w - idles)[:, None] * np.linspace(least_slope, 1.0, 40)
    idle, slope = np.repeat(idles, slopes.shape[1]), slopes.ravel()
    power = idle[:, None, None, None] + slope[:, None, None, None] * busy
    errors = np.abs(power / found_w - 1).max(axis=-1)
    best = errors.argmin(axis=0)
    return errors.min(axis=0), idle[best], slope[best]
