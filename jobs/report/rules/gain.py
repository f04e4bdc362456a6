"""Why a precision gains less than the hardware offers."""

import math

from bench.asked import CPU
from bench.device import gpus
from bench.measured import Trace
from jobs.report import bounds
from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules import launch
from jobs.report.rules.architecture import STORAGE_GAIN, expected_gain, light_kernels
from jobs.report.rules.rule import Hit, note, rule

_FAR_BELOW = 0.5  # of the gain that the lower bounds allow, and of a peak
_LARGE_REST = 0.3  # of what runs
_SMALL_GAIN = STORAGE_GAIN[1] + 0.2  # whichever GPU it is
# Where the reason is not measured: the cause, the missing evidence, what to do.
_TRACED = (
    "neither the trace nor the measured peaks tell why",
    "the rate of each product beside its peak (hardware counters)",
    "Measure larger batches to see what the hardware gives.",
)
_LAUNCHED = (
    "what sets the latency is not measured; launches are likely",
    "a CUDA graph, the busy share, larger batches: which one sets the latency",
    "Measure larger batches and engine = graph to see what the hardware gives.",
)
_NOT_TRACED = (
    "what sets the latency is not measured",
    "a trace: products, all else, and the share of the time in which a kernel runs",
    "Measure with sampling.profile = true, and larger batches.",
)


@rule(
    Verdict.INCONCLUSIVE,
    Verdict.ACCEPT,
    cause="{precision} gains {speedup:x} where the {by} allow {allowed:.1f}x: {why}.",
)
def gain_below_hardware(case: Case, group: Group) -> Hit | None:
    """A precision gains less than half of what its lower bound against that of fp32 allows.

    The datasheet's, else the measured ones, else the peaks. Accept: launches set the latency, or
    over 30 % of what runs is no matrix product, or the model's own products reach less than half of
    the measured peak. Where the GPU is not specified it fires below a gain of 1.5x.
    """
    base = group.base_of(case)
    if base is None or case.speedup is None or case.precision == "mixed" or case.gpu_type == CPU:
        return None
    if case.gpu_type is None:
        return on_unspecified(case)
    allowed, by = allowed_gain(case, base)
    if allowed is None or case.speedup.value >= _FAR_BELOW * allowed:
        return None
    eager, trace = case.workload.engine == "eager", case.trace
    strong, weak, against = launch.signals(case, group)
    evidence = strong + weak + against + (light_kernels(case) if case.foreign else [])
    reasons = []
    if strong and not against:
        reasons = ["the host's launches set the latency"]
    elif trace and base.trace:
        notes, reasons = of_traces(case, trace, base.trace)
        evidence += notes
        # A graph's kernels are traced outside of it, and so have no busy share: by their sum.
        kernels_ms, limit_ms = trace.traced_ms or 0.0, launch.BUSY * (case.latency_ms or math.inf)
        if not against and (eager or kernels_ms <= limit_ms):
            reasons = []
    why, missing, do = _LAUNCHED if eager else _NOT_TRACED
    if trace and (against or not eager):
        why, missing, do = _TRACED
    return Hit(
        evidence,
        {"by": by, "allowed": allowed, "why": " and ".join(reasons) or why},
        expected_gain(case),
        verdict=Verdict.ACCEPT if reasons else None,
        missing=[] if reasons else [missing],
        do=[do],
    )


def of_traces(case: Case, ours: Trace, base: Trace) -> tuple[list[Note], list[str]]:
    """What got faster and what did not, with the bound that follows (Amdahl); and why so little."""
    after, before = ((t.matmul_ms or 0.0) + (t.attention_ms or 0.0) for t in (ours, base))
    total, base_total = ours.traced_ms or 0.0, base.traced_ms or 0.0
    rest, most = total - after, None
    text = "all else: {before:ms} -> {rest:ms}"
    if rest > 0 and base_total:
        most = base_total / rest
        text += "; with free products {rest:ms} would remain, so {most:.2f}x at most"
    notes = [
        note("products and attention: {before:ms} -> {after:ms}", before=before, after=after),
        note(text, before=base_total - before, rest=rest, most=most),
    ]
    large = rest > _LARGE_REST * total
    reasons = [f"{rest / total:.0%} of what runs is no matrix product"] if large else []
    peak = case.roofline.matmul_tflops if case.roofline else None
    reached = case.roofline.matmul_model_tflops if case.roofline else None
    if peak and reached and reached < _FAR_BELOW * peak:
        of = note("{peak:TFLOP/s}", peak=peak).text
        reasons.append(f"products of this size reach {reached / peak:.0%} of the measured {of}")
    return notes, reasons


def on_unspecified(case: Case) -> Hit | None:
    """Small against half the bytes, on whichever GPU."""
    least = bounds.of_pytorch(gpus.GPUS, case.precision, case.workload)
    assert case.speedup
    if case.speedup.value >= _SMALL_GAIN or least is None or case.latency_ms is None:
        return None
    why, missing, _ = _LAUNCHED if case.workload.engine == "eager" else _NOT_TRACED
    text = (
        "{latency_ms:ms} is {times:.0f} times the lower bound of any type known here ({bound:2 ms})"
    )
    times = tuple(case.latency_ms / bound for bound in least)
    return Hit(
        [note(text, times=times, bound=least), *light_kernels(case)],
        {"why": why},
        expected_gain(case),
        cause="{precision} gains {speedup:x}, where half the bytes allow 2x and Tensor Cores more:"
        " {why}.",
        missing=["the name of the GPU", missing],
        do=["Run the matrix below: it tells launches from arithmetic."],
    )


def allowed_gain(case: Case, base: Case) -> tuple[float | None, str]:
    """The least gain promised on any board in question, and by what; None without Tensor Cores."""
    boards = case.boards
    kinds = {gpus.arithmetic(case.precision, board.capability).kind for board in boards}
    if kinds != {"tensor cores"}:
        return None, ""
    pairs = [
        (bounds.of_pytorch((board,), p, case.workload) for p in (BASELINE, case.precision))
        for board in boards
    ]
    by_board = [plain[0] / ours[0] for plain, ours in pairs if plain and ours]
    if len(by_board) == len(boards):
        return min(by_board), "lower bounds"
    ours_ms, plain_ms = bounds.measured_ms(case.roofline), bounds.measured_ms(base.roofline)
    if ours_ms and plain_ms:
        return plain_ms / ours_ms, "lower bounds"
    peaks = [(gpus.peak_tflops(board, case.precision), board.fp32_tflops) for board in boards]
    return min((peak / plain for peak, plain in peaks if peak), default=None), "peaks"
