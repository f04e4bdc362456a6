"""Why a precision gains less than the hardware offers."""

import math
from collections.abc import Iterable

from bench.asked import CPU, QUANTISED
from bench.device import gpus
from bench.device.boards import GPUS, Board
from bench.measured.profiled import Trace
from bench.profile import work
from jobs.report import bounds, compare, pace
from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.rules import launch
from jobs.report.rules.architecture import (
    BYTES_GAIN,
    STORAGE_GAIN,
    allowed_gain,
    expected_gain,
    fair_gain,
    light_kernels,
)
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.rules.structure import most_launches_ms

_FAR_BELOW = 0.5  # of a peak
_LARGE_REST = 0.3  # of what runs
_SMALL_GAIN = STORAGE_GAIN[1] + 0.2  # whichever GPU it is
_MOST_SLOWER = 0.8  # of the speed of fp32: launches, casts and a busy host explain no more
_SLOWER = 0.97  # the same of two numbers without intervals
_ABOVE = 1.6  # times what the peaks allow: fp32 reaches a smaller share of its own (GA102: half)
_ABOVE_BYTES = 1.3
_FAR_OFF = 3.0
_LITTLE = 1.05  # of a gain that a host makes by itself from run to run
_MOST_KNOWN = 16.0  # of any processor, by its matrix units
_SHORT = 512  # tokens of a prompt, beside which those of new tokens set the time
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
_NOT_LAUNCHED = (
    "it is not the host's launches",
    "a trace: which kernels take the time",
    "Measure with sampling.profile = true.",
)
_NOT_TRACED = (
    "what sets the latency is not measured",
    "a trace: products, all else, and the share of the time in which a kernel runs",
    "Measure with sampling.profile = true, and larger batches.",
)


@rule(
    Verdict.INCONCLUSIVE,
    Verdict.ACCEPT,
    cause="{precision} gains {speedup:x} where the {by} allow {allowed:.1f}x: ",
)
def gain_below_hardware(case: Case, group: Group) -> Hit | None:
    """A precision gains less than half of what its lower bound against that of fp32 allows.

    The datasheet's, else the measured ones, else the peaks; or less than its square root, where
    that is more. Accept: launches set the latency, or over 30 % of what runs is no matrix product,
    or the model's own products reach less than half of the measured peak. Where the GPU is not
    specified it fires below a gain of 1.5x.
    """
    base = group.base_of(case)
    if base is None or case.speedup is None or case.precision == "mixed" or case.gpu_type == CPU:
        return None
    if base.precision not in ("fp32", "tf32"):
        return None
    if case.foreign and not case.speedup.has_interval and case.speedup.value < _SLOWER:
        return None  # effect-without-cause says it
    ours, theirs = as_timed(case), as_timed(base)
    if ours is None or theirs is None:
        return None
    if case.gpu_type is None:
        return on_unspecified(case, ours, group)
    allowed, by = allowed_gain(ours, theirs)
    if allowed is None or case.speedup.value >= fair_gain(allowed):
        return None
    if ours.workload.new_tokens:
        return on_decode(case, ours, allowed, group)
    eager, trace = case.launches_one_by_one, case.trace
    strong, weak, against = launch.signals(case, group)
    evidence = strong + weak + against + (light_kernels(case) if case.foreign else [])
    reasons: list[str] = []
    shares: dict[str, Value] = {}
    if strong and not against:
        reasons = ["the host's launches set the latency"]
    elif trace and base.trace:
        notes, reasons, shares = of_traces(case, trace, base.trace)
        evidence += notes
        # A graph's kernels are traced outside of it, and so have no busy share: by their sum.
        kernels_ms, limit_ms = trace.traced_ms or 0.0, launch.BUSY * (case.latency_ms or math.inf)
        if not against and (eager or kernels_ms <= limit_ms):
            reasons = []
    why, missing, do = _LAUNCHED if eager and may_be_launches(ours) else _NOT_TRACED
    if trace and (against or not eager):
        why, missing, do = _TRACED
    elif against:
        why, missing, do = _NOT_LAUNCHED
    return Hit(
        evidence,
        {"by": by, "allowed": allowed, **shares},
        expected_gain(case),
        cause=gain_below_hardware.cause + (" and ".join(reasons) or why) + ".",
        verdict=Verdict.ACCEPT if reasons else None,
        missing=[] if reasons else [missing],
        do=[do] if trace or not larger_batches(group) else [],
    )


def as_timed(case: Case) -> Case | None:
    """The case with the time of a request or of a step; None: it has neither."""
    found = pace.work_of(case)
    return found if found.latency_ms is not None else None


def may_be_launches(case: Case) -> bool:
    """Whether launches can set a latency: those of a slow host take as long, and power is left."""
    if not case.foreign:
        return True
    most = most_launches_ms(case.workload)
    return (case.latency_ms or 0.0) <= most and not launch.near_limit(case)


def larger_batches(group: Group) -> bool:
    """Whether larger batches stand beside it, so that no one needs to ask for them."""
    batch = group.cases[0].workload.batch_size
    return any(other.cases[0].workload.batch_size >= 2 * batch for other in group.others)


def on_decode(case: Case, ours: Case, allowed: float, group: Group) -> Hit:
    """Where new tokens are made one by one: each reads all weights and launches all kernels."""
    strong, weak, _ = launch.signals(case, group)
    steps = ours.workload.new_tokens
    per_step = (ours.latency_ms or 0.0) / steps
    text = "{step:ms} for each new token; the lower bound of fp32 is {bound:ms}"
    least = bounds.of_pytorch(case.boards, BASELINE, ours.workload)
    notes = [note(text, step=per_step, bound=tuple(ms / steps for ms in least))] if least else []
    cause = (
        "{precision} gains {speedup:x} where the bytes of the weights allow {allowed:.1f}x: each"
    )
    cause += " of {steps} steps" if steps > 1 else " step"
    cause += " computes one token, so Tensor Cores do not help, and launches all its kernels again."
    return Hit(
        [*strong, *weak, *notes],
        {"allowed": allowed, "steps": steps},
        cause=cause,
        missing=["the same decode as a CUDA graph, or at a larger batch"],
        do=["Measure a larger batch, and engine = graph, to see what the hardware gives."],
    )


def of_traces(
    case: Case, ours: Trace, base: Trace
) -> tuple[list[Note], list[str], dict[str, Value]]:
    """What got faster and what did not, with the bound that follows (Amdahl); and why so little.

    The reasons are templates, with their values.
    """
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
    reasons = ["{rest_share:.0%} of what runs is no matrix product"] if large else []
    values: dict[str, Value] = {"rest_share": rest / total} if large else {}
    peak = case.roofline.matmul_tflops if case.roofline else None
    reached = case.roofline.matmul_model_tflops if case.roofline else None
    if peak and reached and reached < _FAR_BELOW * peak:
        reasons.append("products of this size reach {reached:.0%} of the measured {peak:TFLOP/s}")
        values |= {"reached": reached / peak, "peak": peak}
    return notes, reasons, values


def on_unspecified(case: Case, ours: Case, group: Group) -> Hit | None:
    """Small against half the bytes, on whichever GPU."""
    boards = [board for board in GPUS if gpus.peak_tflops(board, case.precision)]
    least, ms = bounds.of_pytorch(boards, case.precision, ours.workload), ours.latency_ms
    assert case.speedup
    if case.speedup.value >= _SMALL_GAIN or least is None or ms is None:
        return None
    _, _, against = launch.signals(case, group)
    likely = case.launches_one_by_one and may_be_launches(ours)
    why, missing, _ = _LAUNCHED if likely else _NOT_TRACED
    if against:
        why, missing, _ = _NOT_LAUNCHED
    text = "{ms:ms} is {times:.0f} times the lower bound of any type known here ({bound:2 ms})"
    times = tuple(ms / bound for bound in least)
    return Hit(
        [*against, note(text, ms=ms, times=times, bound=least), *light_kernels(case)],
        expected=expected_gain(case),
        cause="{precision} gains {speedup:x}, where half the bytes allow 2x and Tensor Cores more: "
        + f"{why}.",
        missing=["the name of the GPU", missing],
        do=["Run the matrix below: it tells launches from arithmetic."],
    )


@rule(
    Verdict.INCONCLUSIVE,
    Verdict.FIX,
    undermines="effects",
    cause="{precision} at {speedup:x} the speed of {base_precision} has no cause in the hardware",
    missing=["the kernels of both (a trace), and both measured again in another order"],
    do=["Look for another kernel, an emulated type, a copy between devices, or a wrong unit."],
)
def effect_without_cause(case: Case, group: Group) -> Hit | None:
    """A ratio that nothing known bears: it is slower, or far above what the hardware allows.

    Slower by over 1.25x; one number each of a table by over 1.03x. Bytes allow 2x, Tensor Cores
    what their peaks do; of a GPU that is not known, those of most boards. Fix: it is over 3 times
    off.
    """
    base = group.base_of(case)
    ratio = compare.decided(case.speedup, group.ratios)
    if base is None or ratio is None:
        return None
    if (case.precision == "mixed" or case.gpu_type == CPU) and ratio < 1:
        return None
    most = most_gain(case, base)
    bare = case.foreign and not (case.speedup and case.speedup.has_interval)
    if bare and (why := is_no_difference(case, group, ratio)):
        several = len(case.replicates) > 1
        which = "a difference of medians whose spread is not known"
        which = which if several else "within what single measurements vary by"
        cause = f"{{precision}} at {{speedup:x}} the speed of {{base_precision}} is {which}{why}"
        return Hit(cause=cause, missing=["several runs of each, with their spread"], do=())
    slower = ratio < (_SLOWER if bare else _MOST_SLOWER) and not explained_slower(case)
    if not slower and (most is None or ratio <= most):
        return on_few_boards(case, base, ratio)
    far = max(1 / ratio if slower else 0.0, ratio / most if most else 0.0) > _FAR_OFF
    why, evidence = "", []
    if slower and is_sixty_fourth(case):
        why = ": a program that computes in float16 itself gets 1/64 of the float32 rate here"
        evidence = ["compute capability 6.1 computes float16 at 1/64 of the rate of float32"]
        if case.by_pytorch:
            evidence.append("PyTorch's products do not: they are float32 on float16 storage")
        far = False
    elif slower and ratio >= _MOST_SLOWER:
        strong, weak, against = launch.signals(case, group)
        why = ": one run each, and a host or a clock makes as much"
        if (strong or weak) and not against:
            why = ": the host's launches set both times, and it is not of the precision"
    elif slower and case.boards and not on_half_units(case):
        why = ": its float16 is storage alone, converted for each product"
    elif slower:
        why = ": it halves the bytes and computes at no lower rate"
    elif most:
        why = f": the hardware allows less than {most:.1f}x"
    cause = f"{effect_without_cause.cause}{why}."
    return Hit(evidence, cause=cause, verdict=Verdict.FIX if far else None)


def is_no_difference(case: Case, group: Group, ratio: float) -> str | None:
    """Whether one number each cannot show so little, with the reason; None: it can."""
    if not _SLOWER <= ratio <= _LITTLE:
        return None
    strong, weak, against = launch.signals(case, group)
    if ratio > 1 / _SLOWER and (strong or weak) and not against:
        return ": the host's launches may set both times, and one host differs by as much."
    return "."


def on_half_units(case: Case) -> bool:
    """Whether any board in question computes in 16 bits."""
    kinds = {gpus.arithmetic_on(board, case.precision).kind for board in case.boards}
    return kinds != {"storage only"}


def explained_slower(case: Case) -> bool:
    """Whether another finding says why it is slower: it is emulated, or its weights are copied."""
    if case.precision in QUANTISED:
        return True
    kinds = {gpus.arithmetic_on(board, case.precision).kind for board in case.boards}
    return "emulated" in kinds


def is_sixty_fourth(case: Case) -> bool:
    """Whether float16 arithmetic is far slower than float32 on its boards."""
    return case.precision == "fp16" and any(b.capability == (6, 1) for b in case.boards)


def most_gain(case: Case, base: Case) -> float | None:
    """The most that a precision can gain on any board in question; None: it is not known.

    Of a CPU or another maker's GPU, what matrix units give beside plain ones at the most.
    """
    found = gains_on(bounds.in_question(case), case, base)
    return max(found.values()) if found else _MOST_KNOWN if case.foreign else None


def gains_on(boards: Iterable[Board], case: Case, base: Case) -> dict[Board, float]:
    """The most that a precision can gain on each of some boards, where its peaks are known."""
    asked = pace.work_of(case).workload
    by_bytes = asked.new_tokens > 0 and asked.batch_size == 1 and asked.prompt_tokens < _SHORT
    found = {}
    for board in boards:
        ours_is = case.half_precision if case.precision == "mixed" else case.precision
        peaks = [gpus.peak_tflops(board, p) for p in (base.precision, ours_is)]
        if not all(peaks):
            continue
        plain, ours = (peak or 1.0 for peak in peaks)
        native = (board.fp16_tflops or 0.0) if case.precision == "fp16" else 0.0
        own = ours / plain if case.by_pytorch else max(ours, native) / plain
        fewer = work.stored_bytes(base.precision) / work.stored_bytes(ours_is)
        fewer = max(fewer, BYTES_GAIN)
        found[board] = _ABOVE_BYTES * fewer if by_bytes else _ABOVE * max(own, fewer)
    return found


def on_few_boards(case: Case, base: Case, ratio: float) -> Hit | None:
    """A gain of a GPU that is not known, which the fewest boards can give."""
    if case.boards or not case.foreign:
        return None
    gains = gains_on(bounds.in_question(case), case, base)
    able = [board for board, most in gains.items() if ratio <= most]
    if not able or len(able) > len(gains) / 2:
        return None
    known = [board for board in able if board.is_for_servers] or able
    kinds = tuple(dict.fromkeys(board.gpu_type for board in known))
    return Hit(
        values={"able": len(able), "count": len(gains), "kinds": kinds},
        cause="{precision} at {speedup:x} the speed of {base_precision} is more than most GPUs"
        " allow: the peaks of {able} of the {count} known boards do, such as {kinds}.",
        missing=["the name of the GPU", "that both computed the same work"],
        do=["Say it: --gpu TYPE."],
    )
