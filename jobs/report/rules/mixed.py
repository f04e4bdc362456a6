"""What mixed costs, and what to do with it."""

from collections.abc import Sequence
from typing import cast

from bench.asked import CPU
from bench.measured.profiled import KERNEL_CLASSES, Trace
from bench.profile import work
from jobs.report import bounds
from jobs.report.compare import NEGLIGIBLE, decided
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.rules.architecture import boards_by_type, reported
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import number

_CAST_BANDWIDTH_SHARE = 0.75
_CAST_DISPATCH_US = (5.0, 20.0)  # host time of one more small operation in eager PyTorch
_DOCUMENT = (
    "document it: yes. Write: mixed is torch.autocast on fp32 weights; it casts them in every"
    " forward pass. Do not write that it is for training only. Gradients and loss scaling play no"
    " part in inference; the casts do"
)
_A_TRACE = [
    "a trace of fp32 and mixed: kernels, casts, their ms and bytes",
    "the share of the time in which a kernel runs",
]


@rule(
    Verdict.FIX,
    Verdict.ACCEPT,
    Verdict.INCONCLUSIVE,
    effect=True,
    minor=True,
    cause="mixed loses to {better}: what to do with it.",
    do=["Compare fp32 with {half}, and report mixed only in a note."],
)
def mixed_options(case: Case, group: Group) -> Hit | None:
    """Mixed loses to fp32 or to fp16: leave it out, document it, or run on another GPU."""
    against_fp32 = decided(case.speedup, group.ratios)
    if case.precision != "mixed" or against_fp32 is None:
        return None
    half, time, energy = group.case(case.half_precision), None, None
    if half and half.latency_ms and case.latency_ms:
        time = case.latency_ms / half.latency_ms
    if half and half.energy_mj and case.energy_mj is not None:
        energy = case.energy_mj / half.energy_mj
    thriftier = energy is not None and energy < 1 / (1 + NEGLIGIBLE)
    loses = time is not None and time > 1 + NEGLIGIBLE and not thriftier
    beaten_by = {case.half_precision: loses, "fp32": against_fp32 < 1}
    better = tuple(name for name, beats in beaten_by.items() if beats)
    if not better:
        return None
    leave = "not yet. {half} does not beat it here"
    if half is None:
        leave = "not yet. Measure {half} first, or nothing takes its place"
    if loses:
        leave = "yes, for a study of inference. {half} beats it here (mixed takes {time:x} the time"
        leave += f"{', {energy:x} the energy' if energy else ''}). Say that it was left out"
    return Hit(
        [f"leave mixed out: {leave}", _DOCUMENT, *another_gpu(case)],
        {"better": better, "time": time, "energy": energy},
        verdict=None if against_fp32 < 1 else Verdict.ACCEPT,
        do=None if loses or half else ["Measure {half} beside it."],
    )


def another_gpu(case: Case) -> list[Note]:
    """What another GPU would change."""
    if case.gpu_type == CPU:
        return [note("run on a GPU: there mixed casts to fp16, and only its rows tell the gain")]
    why = "Tensor Cores alone do not make mixed win where launches set the latency."
    if case.boards and all(board.tensor_cores for board in case.boards):
        why = "it has Tensor Cores already, so another changes little."
    than = " than the {gpu_type}" if case.gpu_type else ""
    found = [note(f"run on another GPU{than}: {why} Compare engine = graph at batch 8")]
    numbers = {gpu: told for gpu, (_, told) in reported(case.workload).items()}
    others = [f"{gpu} {told}" for gpu, told in numbers.items() if gpu != case.gpu_type]
    if others:
        text = "published for such layers in eager mode: {published}"
        found.append(note(text, published="; ".join(others)))
    return found


@rule(
    Verdict.ACCEPT,
    Verdict.INCONCLUSIVE,
    effect=True,
    cause="Expected: autocast re-casts every weight and input in each forward pass, so mixed runs"
    " at {speedup:x} the speed of {base_precision}",
    do=["Use {half} weights for inference; leave mixed out, or say what it is."],
)
def mixed_slower(case: Case, group: Group) -> Hit | None:
    """Mixed is slower than fp32: the share in ms of each kind of work, traced or predicted."""
    base, ratio = group.base_of(case), decided(case.speedup, group.ratios)
    if case.precision != "mixed" or base is None or ratio is None or ratio >= 1:
        return None
    assert case.pace_ms and base.pace_ms  # there is a ratio
    more_ms = case.pace_ms - base.pace_ms
    half, energy = group.case(case.half_precision), decided(case.energy_ratio, group.ratios)
    evidence: list[str | Note] = [
        "mixed takes {more:ms} more than {base_precision} ({base_pace_ms} -> {pace_ms:ms})"
    ]
    if half and half.pace_ms and half.pace_ms < case.pace_ms:
        text = "and {more:ms} more than {half}, which has the same products and no casts"
        evidence.append(note(text, more=case.pace_ms - half.pace_ms))
    if energy is not None:
        at = " at {mean_w:W}" if case.mean_w else ""
        evidence.append(
            f"its energy is {{energy_ratio:x}} that of {{base_precision}}: {{time:x}} the time{at}"
        )
    share_ms: Value = None
    largest, missing = "", _A_TRACE[: 1 if case.gpu_type == CPU else 2]
    if case.trace and base.trace:
        shares = shares_of(base.trace, case.trace, more_ms, case)
        evidence += shares
        most = max(shares, key=lambda share: cast(float, share.values["ms"]))
        largest = f"; the largest share is {most.values['name']}, {{share_ms:+.3g}} ms"
        share_ms = most.values["ms"]
        missing = []
    elif case.gpu_type != CPU and not case.workload.new_tokens:
        evidence += predicted_casts(case)
    saved, expected = by_hardware(case)
    values: dict[str, Value] = {"more": more_ms, "time": 1 / ratio, "share_ms": share_ms}
    cause = mixed_slower.cause + largest + "."
    return Hit([*evidence, *saved], values, [expected], missing=missing, cause=cause)


def shares_of(base: Trace, mixed: Trace, slower_ms: float, case: Case) -> list[Note]:
    """The difference of two traces in ms, by kind of work; what is left is the host's.

    They add up to `slower_ms`.
    """
    ms = {
        kind: (getattr(mixed, f"{kind}_ms") or 0.0) - (getattr(base, f"{kind}_ms") or 0.0)
        for kind in KERNEL_CLASSES
    }
    casts = note(
        "{name}: {count:+.0f} {level}s, {moved_mb:+.0f} MB read and written: {ms:+.3g} ms",
        name="casts",
        count=(mixed.cast_count or 0) - (base.cast_count or 0),
        level=mixed.level,
        moved_mb=((mixed.cast_bytes or 0) - (base.cast_bytes or 0)) / 1e6,
        ms=ms["cast"],
    )
    rest = "gaps" if case.workload.engine == "graph" else "launches and gaps"
    rest = "time between the ops" if case.gpu_type == CPU else f"{rest} between kernels"
    products = ms["matmul"] + ms["attention"]
    others = {
        "matrix products and attention": products,
        f"all other {mixed.level}s": sum(ms.values()) - ms["cast"] - products,
        rest: slower_ms - sum(ms.values()),
    }
    return [casts, *(note("{name}: {ms:+.3g} ms", name=n, ms=each) for n, each in others.items())]


def predicted_casts(case: Case) -> list[Note]:
    """What the casts cost by formula, where no trace tells."""
    shape = work.counted(case.workload.model)
    if shape is None:
        return []
    counts = tuple(work.scaled(count, shape) for count in work.CASTS)
    moved = work.cast_bytes(shape, case.workload.batch_size, case.workload.prompt_tokens)
    text = (
        "autocast adds about {casts} cast kernels per forward pass (counted with torch 2.13), which"
        " read and write about {moved_gb:.1f} GB"
    )
    found = [note(text, casts=counts, moved_gb=moved / 1e9)]
    share = _CAST_BANDWIDTH_SHARE
    each = [
        f"{gpu} {number(moved / board.bandwidth_gb_per_s / share / 1e6, ' ms', 2)}"
        for gpu, (board, *_) in boards_by_type(case).items()
    ]
    if each:
        text = "at {share:.0%} of the bandwidth these bytes take: {each}"
        found.append(note(text, share=share, each=", ".join(each)))
    if case.workload.engine == "eager":
        host = tuple(c * us / 1e3 for c, us in zip(counts, _CAST_DISPATCH_US, strict=True))
        text = "launching them takes the host {host_ms:2 ms} more, at {us:g} us each"
        found.append(note(text, host_ms=host, us=_CAST_DISPATCH_US))
    return found


def by_hardware(case: Case) -> tuple[Sequence[str | Note], str]:
    """What faster products can save at most, and so what to expect of mixed."""
    if not case.boards:
        where = "a CPU" if case.gpu_type == CPU else "every GPU"
        return [], f"slower than {{half}} on {where}; faster than fp32 only where products dominate"
    if all(board.tensor_cores is None for board in case.boards):
        saved = "no Tensor Cores on {a_type}: the products gain nothing in arithmetic (0 ms)"
        return [saved], "{gpu_type}: slower than fp32: more work, and none of it accelerated"
    expected = (
        "{gpu_type}: faster than fp32 at large batches, slower where launches set the latency;"
        " slower than fp16 everywhere"
    )
    plain = bounds.of_pytorch(case.boards, "fp32", case.workload)
    tensor = bounds.of_pytorch(case.boards, "mixed", case.workload)
    if not plain or not tensor:
        return [], expected
    text = (
        "Tensor Cores can save no more than {saved:ms} of the lower bound (fp32 {fp32:ms}, mixed"
        " {mixed:ms}), if the GPU sets the latency"
    )
    return [note(text, saved=plain[1] - tensor[0], fp32=plain, mixed=tensor)], expected
