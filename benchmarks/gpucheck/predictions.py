"""What a GPU must show, written down before one was measured, each as a record.

A prediction knows what is expected, which steps tell it, and how it follows from rows and facts.
`docs/predictions.md` is made of these records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.asked import FLOATING
from bench.device import gpus
from bench.energy.flags import HIGH_UNCERTAINTY
from bench.measured import Measurement, Outcome
from bench.measured.profiled import KERNEL_CLASSES
from gpucheck.seen import TINY, NotTested, Seen

NOT_YET = "not yet measured on a real card"
BATCH = 64
COMPILED_AT = "fp16"  # the precision of the step that compiles
PERPLEXITY, PERPLEXITY_WITHIN = 5.302, 0.002
CUDNN_FIRST = 91501  # torch prefers its attention to all others from this cuDNN on
LOGITS_WITHIN = 0.01  # of their range, between a graph and eager mode
ATTENTION_WITHIN = 0.01
_TOLD = 2  # rows that are told of one by one


@dataclass(frozen=True)
class Found:
    """What was found, in words, and whether it is as predicted."""

    holds: bool
    text: str


@dataclass(frozen=True)
class Prediction:
    """One expectation of a number or a choice.

    Attributes:
        name: What is expected of what.
        expected: What it is, in words.
        check: Compares; raises NotTested with the reason where it cannot.
        steps: That must have ended before.
        on_card: Only a real GPU can tell; of a modelled one it is compared and does not count.
        outcome: What a real GPU showed, and which.
    """

    name: str
    expected: str
    check: Callable[[Seen], Found]
    steps: tuple[str, ...]
    on_card: bool = False
    outcome: str = NOT_YET


@dataclass(frozen=True)
class Topic:
    """Predictions that follow from the same reasons."""

    title: str
    because: str
    predictions: tuple[Prediction, ...]


# --------------------------------------------------------------------------------- how to check


def _within(value: float, low: float, high: float, text: str) -> Found:
    return Found(low <= value <= high, text)


def _kernel_count(precision: str, expected: int, engine: str = "eager") -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        count = seen.trace(precision, engine).count
        assert count is not None
        return Found(abs(count - expected) < 0.5, f"{count:g}")

    return check


def _casts(expected: int) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        plain, mixed = (seen.trace(name).cast_count for name in ("fp32", "mixed"))
        if plain is None or mixed is None:
            raise NotTested("casts were not counted")
        return Found(abs(mixed - plain - expected) < 0.5, f"{mixed - plain:g}")

    return check


def _cast_bytes(expected: float, within: float) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        found = seen.trace("mixed")
        if found.cast_bytes is None:
            raise NotTested(found.reason or "this torch tells no types")
        off = found.cast_bytes / expected - 1
        return Found(abs(off) <= within, f"{found.cast_bytes / 1e6:.0f} MB")

    return check


def _tensor_cores(precision: str, expected: str) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        told = seen.trace(precision).tensor_cores
        if told in (None, "unknown"):
            raise NotTested("the names of the kernels do not tell")
        return Found(told == expected, str(told))

    return check


def expected_attention(capability: Sequence[int], cudnn: int, precision: str) -> str:
    """Which attention torch chooses (sdp_utils.cpp), for GPT-2's heads of 64 without a mask."""
    if precision in ("fp32", "tf32"):
        return "efficient"
    if capability[0] in (9, 10) and cudnn >= CUDNN_FIRST:
        return "cudnn"
    if tuple(capability) >= (8, 0):
        return "flash"
    return "math" if precision == "bf16" else "efficient"


def _attention_chosen(precision: str) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        told: dict[str, str] = seen.fact("attention", "preflight")
        return _as_expected(seen, precision, told[precision])

    return check


def _attention_ran(precision: str) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        told = seen.trace(precision).attention
        if told is None:
            raise NotTested("the names of the kernels do not tell")
        return _as_expected(seen, precision, told)

    return check


def _as_expected(seen: Seen, precision: str, told: str) -> Found:
    capability = seen.fact("capability", "preflight")
    cudnn = 0 if seen.facts.get("cudnn_off") else seen.fact("cudnn", "preflight")
    expected = expected_attention(capability, cudnn, precision)
    as_written = expected == expected_attention(_H100, CUDNN_FIRST, precision)
    return Found(told == expected, told if as_written else f"{told}; here {expected} is expected")


def _latency_ratio(
    slow: tuple[str, str, int], fast: tuple[str, str, int], low: float, high: float = math.inf
) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        longer, shorter = (seen.timing(*asked).latency_ms_p50 for asked in (slow, fast))
        text = f"{longer / shorter:.2f}x: {longer:.3g} ms, {shorter:.3g} ms"
        return _within(longer / shorter, low, high, text)

    return check


def _perplexity(precision: str) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        quality = seen.row(precision, model=TINY).quality
        if quality is None or quality.perplexity is None:
            raise NotTested((quality and quality.reason) or "no perplexity")
        value = quality.perplexity
        return Found(abs(value - PERPLEXITY) <= PERPLEXITY_WITHIN, f"{value:.4f}")

    return check


def _sensor(name: str, low: float, high: float, unit: str, scale: float) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        sensor: dict[str, Any] = seen.fact("sensor", "sensor")
        value = sensor[name]
        if value is None:
            fit = "" if sensor["reading_fit"] is None else f" (fit {sensor['reading_fit']:.2f})"
            raise NotTested(f"{sensor['reason'] or 'the probe did not tell'}{fit}")
        return _within(value, low, high, f"{value * scale:.4g} {unit}".rstrip())

    return check


def _same_output(precision: str) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        same: dict[str, Any] = seen.fact(f"graph output {precision}", precision)
        if "reason" in same:
            raise NotTested(same["reason"])
        alike, tried = same["alike"], same["tried"]
        # cuBLAS may choose another kernel while a graph is captured: in half precision a tie may
        # fall the other way, in float32 hardly.
        holds = same["difference"] < LOGITS_WITHIN and (alike == tried or precision != "fp32")
        text = f"logits within {same['difference']:.2g} of their range, {alike} of {tried} alike"
        return Found(holds, text)

    return check


def _complete(precision: str, expected: int) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        rows = [row for row in seen.rows if row.cell.precision == precision]
        rows = [row for row in rows if row.workload.engine != "compile"]
        for row in rows:
            if row.outcome == Outcome.UNSUPPORTED:
                raise NotTested(str(row.reason))
        wrong = [f"{r.workload.engine} {r.outcome}: {r.reason}" for r in rows if r.reason]
        if not rows:
            raise NotTested(seen.why_not(precision))
        text = "; ".join([f"{len(rows) - len(wrong)} rows", *wrong])
        return Found(not wrong and len(rows) == expected, text)

    return check


def _each_row(
    one: Callable[[Measurement], tuple[bool, str] | None],
) -> Callable[[Seen], Found]:
    """A check of every row for which `one` has something to say: the worst of them is told."""

    def check(seen: Seen) -> Found:
        told = [(row, found) for row in seen.rows if (found := one(row)) is not None]
        if not told:
            raise NotTested("no row tells it")
        wrong = [
            f"{row.cell.precision} {row.workload.engine} batch {row.workload.batch_size}: {text}"
            for row, (holds, text) in told
            if not holds
        ]
        more = [f"and {len(wrong) - _TOLD} more"] if len(wrong) > _TOLD else []
        rows = "row" if len(told) == 1 else "rows"
        return Found(not wrong, "; ".join(wrong[:_TOLD] + more) or f"{len(told)} {rows}")

    return check


def _classes_sum(row: Measurement) -> tuple[bool, str] | None:
    traced = row.trace
    if traced is None or traced.traced_ms is None:
        return None
    total = sum(getattr(traced, f"{kind}_ms") for kind in KERNEL_CLASSES)
    holds = math.isclose(total, traced.traced_ms, rel_tol=1e-6)
    return holds, f"{total:.4g} of {traced.traced_ms:.4g} ms"


def _above_lower_bound(row: Measurement) -> tuple[bool, str] | None:
    limits, timing = row.roofline, row.timing
    if limits is None or limits.lower_bound_ms is None or timing is None:
        return None
    text = f"{timing.latency_ms_min:.3g} ms, the lower bound is {limits.lower_bound_ms:.3g} ms"
    return timing.latency_ms_min >= limits.lower_bound_ms, text


def _energy_known(row: Measurement) -> tuple[bool, str] | None:
    if row.energy is None or row.energy.uncertainty is None:
        return None
    uncertainty = row.energy.uncertainty
    return uncertainty <= HIGH_UNCERTAINTY, f"+-{uncertainty:.1%}, {row.energy.ticks} ticks"


def _attention_error(name: str) -> Callable[[Seen], Found]:
    def check(seen: Seen) -> Found:
        error = seen.fact(name, "preflight")
        return Found(error <= ATTENTION_WITHIN, f"{error:.2g}")

    return check


def _fidelity(seen: Seen) -> Found:
    told: dict[str, Any] = seen.fact("fidelity", "fidelity")
    return Found(told["holds"], told["text"])


# ------------------------------------------------------------------------------- what is expected


def _each(
    name: str,
    expected: Callable[[str], str],
    check: Callable[[str], Callable[[Seen], Found]],
    precisions: Iterable[str] = FLOATING,
    on_card: bool = False,
    step: str | None = None,
) -> tuple[Prediction, ...]:
    """The same prediction for several precisions."""
    return tuple(
        Prediction(
            f"{name}, {precision}",
            expected(precision),
            check(precision),
            (step or precision,),
            on_card,
        )
        for precision in precisions
    )


_COUNTS = dict.fromkeys(FLOATING, 211) | {"mixed": 357}
_H100 = gpus.COMPUTE_CAPABILITY["H100"]
_EAGER, _GRAPH, _MANY = (("eager", 1), ("graph", 1), ("eager", BATCH))

TOPICS = (
    Topic(
        "Attention",
        "torch chooses its fused attention by data type, mask and GPU (sdp_utils.cpp): 16-bit"
        " types on Hopper go to cuDNN where cuDNN is 9.15 or newer, float32 to the"
        " memory-efficient kernel, since no other takes it. A single query with a mask, as each"
        " new token makes, and heads of 16 numbers, which the embedded model has, must be computed"
        " right as well.",
        (
            *_each(
                "attention chosen",
                lambda p: expected_attention(_H100, CUDNN_FIRST, p),
                _attention_chosen,
                step="preflight",
            ),
            *_each(
                "attention that ran",
                lambda p: expected_attention(_H100, CUDNN_FIRST, p),
                _attention_ran,
            ),
            Prediction(
                "masked attention of one query, fp16",
                f"within {ATTENTION_WITHIN} of float32",
                _attention_error("decode_error"),
                ("preflight",),
                on_card=True,
            ),
            Prediction(
                "attention with heads of 16, fp16",
                f"within {ATTENTION_WITHIN} of float32",
                _attention_error("head16_error"),
                ("preflight",),
                on_card=True,
            ),
        ),
    ),
    Topic(
        "Power sensor",
        "An H100's power reading is published every 100 ms and averages 25 ms of them (Yang,"
        " Adamek, Armour, SC'24). Its energy counter must tell of the same power as the readings,"
        " within the gain error of many boards. The counter moves every 100 ms, so that a window"
        " of 7.5 s and more knows its energy within 3 %.",
        (
            Prediction(
                "period of the power reading",
                "100 ms +- 5 ms",
                _sensor("reading_period_s", 0.095, 0.105, "ms", 1e3),
                ("sensor",),
                on_card=True,
            ),
            Prediction(
                "window of the power reading",
                "25 ms +- 5 ms",
                _sensor("reading_window_s", 0.020, 0.030, "ms", 1e3),
                ("sensor",),
                on_card=True,
            ),
            Prediction(
                "counter / readings under load",
                "1 +- 0.05",
                _sensor("counter_ratio", 0.95, 1.05, "", 1),
                ("sensor",),
                on_card=True,
            ),
            Prediction(
                "energy of each row that has one",
                f"known within {HIGH_UNCERTAINTY * 100:g} %",
                _each_row(_energy_known),
                FLOATING,
                on_card=True,
            ),
        ),
    ),
    Topic(
        "Kernels",
        "Counted under a stand-in for the CUDA libraries below torch 2.11 (its dispatcher decides"
        " what is launched, not the GPU): a forward of GPT-2 at batch 1 x 128 tokens launches 211"
        " kernels where the weights are stored in the type that is computed with. Autocast adds"
        " 146 casts, of 97 weights and biases, 25 outputs of layer norms and 24 values around the"
        " activation, which read and write 813 MB. cuBLAS may add kernels of its own on a real GPU"
        " (a reduction after a product that is split)."
        f" Compiled, {COMPILED_AT} launches 98.",
        (
            *_each(
                "kernels of a forward",
                lambda p: str(_COUNTS[p]),
                lambda p: _kernel_count(p, _COUNTS[p]),
            ),
            Prediction("casts that mixed adds to fp32", "146", _casts(146), ("fp32", "mixed")),
            Prediction(
                "bytes of these casts", "813 MB +- 2 %", _cast_bytes(813e6, 0.02), ("mixed",)
            ),
            Prediction(
                f"kernels of a compiled forward, {COMPILED_AT}",
                "98",
                _kernel_count(COMPILED_AT, 98, "compile"),
                ("compile",),
            ),
            Prediction(
                "classes of kernels in each trace",
                "sum to the traced time",
                _each_row(_classes_sum),
                (*FLOATING, "compile"),
            ),
        ),
    ),
    Topic(
        "Tensor Cores",
        "fp32 is measured with TF32 switched off, and Tensor Cores multiply no float32 as it is."
        " Each other precision gives them what they take: TF32, float16 or bfloat16.",
        _each(
            "Tensor Cores in matrix products",
            lambda p: "no" if p == "fp32" else "yes",
            lambda p: _tensor_cores(p, "no" if p == "fp32" else "yes"),
        ),
    ),
    Topic(
        "Times",
        "At batch 1 the host needs some 15 to 25 us of Python and torch for each of 211 launches,"
        " 3 to 5 ms in all, and an H100 less than 1 ms of work in fp32 and about 0.4 ms in fp16 (32"
        " GFLOP, 500 or 250 MB of weights, kernels too small to fill it). So eager mode is"
        " launch-bound, and a graph, which is one launch, shows the GPU's own time. For the same"
        " reason the casts of mixed cost the host more than they save. At batch 64 the GPU is"
        " busy: fp32 runs at 67 TFLOP/s at most, fp16 at up to 989, of which the small products"
        " of GPT-2 reach a half and all that is no product none. No latency can be below what the"
        " measured peaks allow.",
        (
            Prediction(
                "eager / graph at batch 1, fp32",
                "3x to 6x",
                _latency_ratio(("fp32", *_EAGER), ("fp32", *_GRAPH), 3, 6),
                ("fp32",),
                on_card=True,
            ),
            Prediction(
                "eager / graph at batch 1, fp16",
                "8x or more",
                _latency_ratio(("fp16", *_EAGER), ("fp16", *_GRAPH), 8),
                ("fp16",),
                on_card=True,
            ),
            Prediction(
                f"fp32 / fp16 at batch {BATCH}",
                "5x to 7x",
                _latency_ratio(("fp32", *_MANY), ("fp16", *_MANY), 5, 7),
                ("fp32", "fp16"),
                on_card=True,
            ),
            Prediction(
                "mixed / fp32 at batch 1",
                "above 1x",
                _latency_ratio(("mixed", *_EAGER), ("fp32", *_EAGER), 1),
                ("fp32", "mixed"),
                on_card=True,
            ),
            Prediction(
                "latency of each row with measured peaks",
                "not below their lower bound",
                _each_row(_above_lower_bound),
                (*FLOATING, "compile"),
                on_card=True,
            ),
            Prediction(
                "tensorgap's latency / a plain loop's",
                "1 within 0.5 %",
                _fidelity,
                ("fidelity",),
                on_card=True,
            ),
        ),
    ),
    Topic(
        "Output",
        "The embedded model's perplexity on its own text is 5.302 in fp32 on a CPU, and no"
        " precision rounds so much that it would move by 0.002. A replayed graph launches the"
        " kernels that it recorded, so that it computes what eager mode does.",
        (
            *_each(
                "perplexity of tiny",
                lambda _: f"{PERPLEXITY} +- {PERPLEXITY_WITHIN}",
                _perplexity,
                on_card=True,
            ),
            *_each(
                "a graph's output",
                lambda _: f"eager's, within {LOGITS_WITHIN} of its range",
                _same_output,
                on_card=True,
            ),
            *_each("rows measured", lambda _: "4", lambda p: _complete(p, 4)),
        ),
    ),
)
PREDICTIONS = tuple(one for topic in TOPICS for one in topic.predictions)
