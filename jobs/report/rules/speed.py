"""What a precision gained or cost, and why: each share in ms where a trace tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.asked import CPU, Workload
from bench.device import gpus
from bench.device.gpus import GPUS, Board
from bench.measured import KERNEL_CLASSES, Trace
from bench.profile import work as gpt2
from bench.stats import Ratio
from jobs.report import comparison
from jobs.report.cases import Case, Group
from jobs.report.comparison import BASELINE
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.rules import energy, floors, launch, possible
from jobs.report.words import listed, number, span, times

_STORAGE_GAIN = (1.0, 1.3)  # of fp16 without Tensor Cores: only the bytes are halved
_FAR_BELOW = 0.5  # of the gain that the floors allow, and of a peak
_LARGE_REST = 0.3  # of what runs
_CAST_BANDWIDTH_SHARE = 0.75
_CAST_DISPATCH_US = (5.0, 20.0)  # host time of one more small operation in eager PyTorch

# ms of fp32 and fp16 in eager PyTorch (TorchScript) at batch 1, 128 tokens, for the same 12 layers
# x 768 without the product that makes logits: NVIDIA FasterTransformer, docs/bert_guide.md. The
# A100's first number is TF32's.
_PUBLISHED_MS = {"T4": (11.45, 10.51), "V100": (7.84, 6.99), "A100": (4.89, 4.47)}
_IN_TF32 = "A100"


@dataclass(frozen=True)
class Published:
    """What others measured of the same layers, ms."""

    slow_ms: float
    fast_ms: float  # in fp16
    slow_in: str  # fp32 or TF32

    @property
    def text(self) -> str:
        """Both numbers."""
        return f"{self.slow_ms} ms in {self.slow_in}, {self.fast_ms} ms in fp16"


def published(workload: Workload) -> dict[str, Published]:
    """By GPU type, what was published of this workload: of GPT-2 small, eager, batch 1, alone."""
    same = gpt2.shape_of(workload.model) == gpt2.SHAPES["gpt2"]
    if not same or replace(workload, model="gpt2") != Workload("gpt2"):
        return {}
    return {
        name: Published(slow, fast, "TF32" if name == _IN_TF32 else "fp32")
        for name, (slow, fast) in _PUBLISHED_MS.items()
    }


def effect(group: Group) -> Iterator[Finding]:
    """What holds: the ratios of a precision, with all that agrees with them."""
    for case, base in group.pairs():
        faster = group.decided(case.line.speedup)
        if faster is not None and faster < 1 and case.precision == "mixed":
            continue  # a finding of its own
        speed = _clause(group, case.line.speedup, "is {} as fast as fp32", "is as fast as fp32")
        of = "" if speed else " of fp32"
        used = _clause(
            group, case.line.energy_ratio, f"needs {{}} the energy{of}", "needs the same energy"
        )
        if not speed and not used:
            continue
        doubts = energy.doubted(group, case) if used else []
        if doubts:
            used = [f"{used[0]}, but see {listed(doubts)}"]
        evidence = []
        if case.latency_ms and base.latency_ms:
            evidence.append(
                f"latency {number(base.latency_ms, ' ms')} -> {number(case.latency_ms, ' ms')}"
                + _interval(case)
            )
        if case.line.energy_ratio is not None:
            evidence.append(
                f"energy {number(base.line.energy_mj, ' mJ')} ->"
                f" {number(case.line.energy_mj, ' mJ')}" + _power_share(case, base)
            )
        gained = possible.queue_gain(case)
        if gained is not None:
            one_by_one = case.workload.batch_size * 1000 / (case.latency_ms or 1)
            evidence.append(
                f"{case.workload.batch_size} / {number(case.latency_ms, ' ms')} ="
                f" {number(one_by_one, ' prompts/s')};"
                f" {number(case.line.throughput_per_s)} found: they agree"
                if 0.9 <= gained <= 1.1
                else f"throughput is {gained:.2f}x of batch / latency"
            )
        floor = case.roofline.lower_bound_ms if case.roofline else None
        if floor and case.latency_ms:
            evidence.append(
                f"{number(case.latency_ms / floor, digits=2)} times its measured floor of"
                f" {number(floor, ' ms')}"
            )
        evidence.extend(_size(case, base))
        if case.line.perplexity is not None and case.line.perplexity == base.line.perplexity:
            evidence.append(f"perplexity {base.line.perplexity:.5g} at both, as it was written")
        yield Finding(
            Code.EFFECT,
            Verdict.ACCEPT if speed or not doubts else Verdict.CANNOT_TELL,
            group.title,
            (case.precision,),
            f"{case.precision} {' and '.join(speed + used)}.",
            evidence=tuple(evidence),
            expected=expected_gain(group, case.precision),
            missing=("intervals: one number each, from one process",)
            if group.plain and not _interval(case)
            else (),
        )


def _clause(group: Group, ratio: Ratio | None, differs: str, alike: str) -> list[str]:
    """What a ratio says if it is decided, or known to be none; else nothing."""
    value = group.decided(ratio)
    if value is not None:
        return [differs.format(times(value))]
    if ratio is not None and comparison.same(ratio):
        return [f"{alike}, to within {100 * max(1 - ratio.low, ratio.high - 1):.1f} %"]
    return []


def _interval(case: Case) -> str:
    ratio = case.line.speedup
    return f", 95 % [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio and ratio.low < ratio.high else ""


def _power_share(case: Case, base: Case) -> str:
    """How much of the energy ratio is time, and how much is power: in the energy's own windows."""
    ratio = case.line.energy_ratio
    if not (case.mean_w and base.mean_w and ratio):
        return ""
    power = case.mean_w / base.mean_w
    return (
        f": {times(ratio.value / power)} by time, {times(power)} by power"
        f" ({number(base.mean_w)} -> {number(case.mean_w, ' W')})"
    )


def _size(case: Case, base: Case) -> list[str]:
    if case.line.size_mb is None or base.line.size_mb is None:
        return []
    found = f"size {number(base.line.size_mb)} -> {number(case.line.size_mb, ' MB')}"
    shape = gpt2.shape_of(case.workload.model)
    if shape is None:
        return [found]
    wanted = shape.parameters * gpt2.stored_bytes(case.precision) / 1e6
    agrees = abs(case.line.size_mb / wanted - 1) < 0.02
    return [
        f"{found}: {shape.parameters / 1e6:.2f} M weights x {gpt2.stored_bytes(case.precision)}"
        f" bytes = {wanted:.0f} MB, {'as' if agrees else 'not as'} found"
    ]


def expected_gain(group: Group, precision: str) -> tuple[str, ...]:
    """What the facts let one expect of a precision on this GPU, or on each type if unnamed."""
    if group.gpu_type == CPU:
        return ()
    boards = group.boards or (() if group.gpu_type else GPUS)
    known = published(group.workload)
    texts: dict[str, None] = {}
    for gpu in boards:
        kind = gpus.arithmetic(precision, gpu.capability).kind
        if kind == "storage only" and precision == "mixed":
            casts = "slower than fp32, because it casts and nothing is accelerated"
            texts[f"{gpu.gpu_type}: {casts}"] = None
            continue
        if kind == "storage only":
            low, high = _STORAGE_GAIN
            texts[f"{gpu.gpu_type}: {low:g} to {high:g}x, because float16 only halves bytes"] = None
            continue
        peak = gpus.peak_tflops(gpu, precision)
        if kind != "tensor cores" or peak is None:
            continue
        told = known.get(gpu.gpu_type) if precision == "fp16" else None
        beside = (
            f"; in eager mode at batch 1 such layers were published at {told.text}:"
            f" {times(told.slow_ms / told.fast_ms)}"
            if told
            else ""
        )
        ratios = [
            p / b.fp32_tflops
            for b in boards
            if b.gpu_type == gpu.gpu_type and (p := gpus.peak_tflops(b, precision))
        ]
        texts[f"{gpu.gpu_type}: up to {span(ratios, 'x', 2)} by the Tensor Cores' peak{beside}"] = (
            None
        )
    return tuple(texts)


def mixed_slower(group: Group) -> Iterator[Finding]:
    """Autocast adds kernels: slower than fp32 is possible, and this is what it is made of."""
    mixed, base = group.case("mixed"), group.baseline
    ratio = group.decided(mixed.line.speedup) if mixed else None
    if mixed is None or base is None or ratio is None or ratio >= 1:
        return
    assert mixed.latency_ms and base.latency_ms  # there is a ratio
    evidence = [
        f"mixed takes {number(mixed.latency_ms - base.latency_ms, ' ms')} more than fp32"
        f" ({number(base.latency_ms)} -> {number(mixed.latency_ms, ' ms')})"
    ]
    half = group.case(group.half_precision)
    if half and half.latency_ms and half.latency_ms < mixed.latency_ms:
        evidence.append(
            f"and {number(mixed.latency_ms - half.latency_ms, ' ms')} more than {half.precision},"
            " which has the same products and no casts"
        )
    energy_ratio = group.decided(mixed.line.energy_ratio)
    if energy_ratio is not None:
        evidence.append(
            f"its energy is {times(energy_ratio)} that of fp32: {times(1 / ratio)} the time"
            + (f" at {number(mixed.mean_w, ' W')}" if mixed.mean_w else "")
        )
    traced = bool(mixed.trace and base.trace)
    why = "autocast casts every weight and input again in every forward"
    if mixed.trace and base.trace:
        shares = _shares(base.trace, mixed.trace, mixed.latency_ms - base.latency_ms, group)
        evidence.extend(f"{name}: {ms:+.3g} ms" for name, ms in shares.items())
        largest = max(shares, key=lambda name: shares[name])
        why += f"; the largest share is {largest.partition(':')[0]}, {shares[largest]:+.3g} ms"
    elif group.gpu_type != CPU and not group.workload.new_tokens:
        evidence.extend(_predicted_casts(group))
    evidence.extend(_arithmetic_saved(group))
    yield Finding(
        Code.MIXED_SLOWER,
        Verdict.ACCEPT,
        group.title,
        ("mixed",),
        f"mixed at {times(ratio)} the speed of fp32 is possible, and no fault of physics: {why}.",
        evidence=tuple(evidence),
        expected=_mixed_expected(group),
        missing=()
        if traced
        else (
            "a trace of fp32 and mixed: kernels, casts, their ms and bytes",
            *([] if group.gpu_type == CPU else ["the share of the time in which a kernel runs"]),
        ),
        actions=(
            f"Use {group.half_precision} weights for inference; keep mixed out or say what it is.",
        ),
    )


def _shares(base: Trace, mixed: Trace, slower_ms: float, group: Group) -> dict[str, float]:
    """The difference of two traces in ms, by kind of work; what is left is the host's.

    They add up to `slower_ms`.
    """

    def difference(*kinds: str) -> float:
        return sum(
            (getattr(mixed, f"{kind}_ms") or 0.0) - (getattr(base, f"{kind}_ms") or 0.0)
            for kind in kinds
        )

    casts = (mixed.cast_count or 0) - (base.cast_count or 0)
    moved = (mixed.cast_bytes or 0) - (base.cast_bytes or 0)
    products = ("matmul", "attention")
    shares = {
        f"casts: {casts:+.0f} {mixed.level}s, {moved / 1e6:+.0f} MB read and written": difference(
            "cast"
        ),
        "matrix products and attention": difference(*products),
        f"all other {mixed.level}s": difference(*({*KERNEL_CLASSES} - {"cast", *products})),
    }
    rest = "launches and gaps between kernels"
    if group.workload.engine == "graph":
        rest = "gaps between kernels"
    if group.gpu_type == CPU:
        rest = "time between the ops"
    shares[rest] = slower_ms - sum(shares.values())
    return shares


def _predicted_casts(group: Group) -> list[str]:
    shape = gpt2.shape_of(group.workload.model)
    if shape is None:
        return []
    counts = [gpt2.scaled(count, shape) for count in gpt2.CASTS]
    moved = gpt2.cast_bytes(shape, group.workload.batch_size, group.workload.prompt_tokens)
    low, high = (c * us / 1e3 for c, us in zip(counts, _CAST_DISPATCH_US, strict=True))
    types: dict[str, Board] = {}
    for gpu in group.boards or (() if group.gpu_type else GPUS):
        types.setdefault(gpu.gpu_type, gpu)
    times = ", ".join(
        f"{name} {number(moved / gpu.bandwidth_gb_per_s / _CAST_BANDWIDTH_SHARE / 1e6, ' ms', 2)}"
        for name, gpu in types.items()
    )
    return [
        f"autocast adds about {counts[0]} to {counts[1]} cast kernels per forward (counted with"
        f" torch 2.13), which read and write about {moved / 1e9:.1f} GB",
        *(
            [f"at {_CAST_BANDWIDTH_SHARE:.0%} of the bandwidth these bytes take: {times}"]
            if times
            else []
        ),
        *(
            [
                f"launching them takes the host {span((low, high), ' ms', 2)} more, at"
                f" {_CAST_DISPATCH_US[0]:g} to {_CAST_DISPATCH_US[1]:g} us each"
            ]
            if group.workload.engine == "eager"
            else []
        ),
    ]


def _arithmetic_saved(group: Group) -> list[str]:
    """What faster products can save at most."""
    if not group.boards:
        return []
    if all(gpu.tensor_cores is None for gpu in group.boards):
        return [
            f"no Tensor Cores on a {group.gpu_type}: the products gain nothing in arithmetic (0 ms)"
        ]
    plain = floors.pytorch_floor_ms(group.boards, "fp32", group.workload)
    tensor = floors.pytorch_floor_ms(group.boards, "mixed", group.workload)
    if not plain or not tensor:
        return []
    return [
        f"Tensor Cores can save no more than {number(plain[1] - tensor[0], ' ms')} of the floor"
        f" (fp32 {span(plain, ' ms')}, mixed {span(tensor, ' ms')}), if the GPU sets the latency"
    ]


def _mixed_expected(group: Group) -> tuple[str, ...]:
    if not group.boards:
        where = "every GPU" if group.gpu_type != CPU else "a CPU"
        return (
            f"slower than {group.half_precision} on {where}; faster than fp32 only where products"
            " dominate",
        )
    if all(gpu.tensor_cores is None for gpu in group.boards):
        return (f"slower than fp32 on a {group.gpu_type}: more work, and none of it accelerated",)
    return (
        f"on a {group.gpu_type} faster than fp32 at large batches, slower where launches decide;"
        " slower than fp16 everywhere",
    )


def gain_below_hardware(group: Group) -> Iterator[Finding]:
    """A precision that runs on Tensor Cores and gains little of what they offer."""
    for case, base in group.pairs():
        ratio = case.line.speedup
        if case.precision == "mixed" or ratio is None or group.gpu_type == CPU:
            continue
        if group.gpu_type is None:
            yield from _gain_of_an_unknown_gpu(group, case, ratio.value)
            continue
        allowed, by = _allowed(group, case, base)
        if allowed is None or ratio.value >= _FAR_BELOW * allowed:
            continue
        found = launch.signals(group, case)
        evidence = [*found.strong, *found.weak, *found.against]
        if group.plain:
            evidence.extend(_light_kernels(group))
        reasons = ["the host's launches set the latency"] if found.bound else []
        if case.trace and base.trace and not found.bound:
            evidence.extend(_products_and_rest(case.trace, base.trace))
            if found.against or _kernels_set_it(case):
                reasons = _no_faster(case)
        launched = group.workload.engine == "eager" and not found.against
        traced = case.trace is not None and not launched
        cause, missing, action = _what_else(group, traced)
        yield Finding(
            Code.GAIN_BELOW_HARDWARE,
            Verdict.ACCEPT if reasons else Verdict.CANNOT_TELL,
            group.title,
            (case.precision,),
            f"{case.precision} gains {times(ratio.value)} where the {by} allow {allowed:.1f}x:"
            f" {' and '.join(reasons) or cause}.",
            evidence=tuple(evidence),
            expected=expected_gain(group, case.precision),
            missing=() if reasons else (missing,),
            actions=(action,),
        )


def _products_and_rest(ours: Trace, base: Trace) -> list[str]:
    """What got faster and what did not, and the bound that follows (Amdahl)."""
    rest, base_rest = _rest_ms(ours), _rest_ms(base)
    total = base.traced_ms or 0.0
    return [
        f"products and attention: {number(_products_ms(base), ' ms')} ->"
        f" {number(_products_ms(ours), ' ms')}",
        f"all else: {number(base_rest, ' ms')} -> {number(rest, ' ms')}"
        + (
            f"; with free products {number(rest, ' ms')} would remain, so {total / rest:.2f}x at"
            " most"
            if rest > 0
            else ""
        ),
    ]


def _kernels_set_it(case: Case) -> bool:
    """Whether nothing but the kernels can set the latency of what is not launched one by one.

    By their sum: a graph's are traced outside of it, and so have no busy share.
    """
    if case.workload.engine == "eager" or not case.trace or not case.latency_ms:
        return False
    return (case.trace.traced_ms or 0.0) > launch.BUSY * case.latency_ms


def _no_faster(case: Case) -> list[str]:
    """Why kernels gain little: what the trace and the measured peaks show of it."""
    assert case.trace and case.trace.traced_ms
    rest = _rest_ms(case.trace) / case.trace.traced_ms
    reasons = [f"{rest:.0%} of what runs is no matrix product"] if rest > _LARGE_REST else []
    peak = case.roofline.matmul_tflops if case.roofline else None
    reached = case.roofline.matmul_model_tflops if case.roofline else None
    if peak and reached and reached < _FAR_BELOW * peak:
        reasons.append(
            f"products of this size reach {reached / peak:.0%} of the {number(peak)} TFLOP/s"
            " measured"
        )
    return reasons


def _what_else(group: Group, traced: bool) -> tuple[str, str, str]:
    """Cause, missing evidence and action where the reason is not measured."""
    if traced:
        return (
            "neither the trace nor the measured peaks tell why",
            "the rate of each product beside its peak (hardware counters)",
            "Measure larger batches to see what the hardware gives.",
        )
    if group.workload.engine != "eager":
        return (
            "what sets the latency is not measured",
            "a trace: products, all else, and the share of the time in which a kernel runs",
            "Measure with sampling.profile = true, and larger batches.",
        )
    return (
        "what sets the latency is not measured; launches are likely",
        "a CUDA graph, the busy share, larger batches: which one sets the latency",
        "Measure larger batches and engine = graph to see what the hardware gives.",
    )


def _gain_of_an_unknown_gpu(group: Group, case: Case, gain: float) -> Iterator[Finding]:
    """Small against half the bytes, on whichever GPU."""
    floor = floors.pytorch_floor_ms(GPUS, case.precision, group.workload)
    if gain >= _STORAGE_GAIN[1] + 0.2 or floor is None or case.latency_ms is None:
        return
    cause, missing, _ = _what_else(group, traced=False)
    yield Finding(
        Code.GAIN_BELOW_HARDWARE,
        Verdict.CANNOT_TELL,
        group.title,
        (case.precision,),
        f"{case.precision} gains {times(gain)}, where half the bytes allow 2x and Tensor Cores"
        f" more: {cause}.",
        evidence=(
            f"{number(case.latency_ms, ' ms')} is {case.latency_ms / floor[1]:.0f} to"
            f" {case.latency_ms / floor[0]:.0f} times the floor of any type known here"
            f" ({span(floor, ' ms', 2)})",
            *_light_kernels(group),
        ),
        expected=expected_gain(group, case.precision),
        missing=("the GPU's name", missing),
        actions=("Run the matrix below: it tells launches from arithmetic.",),
    )


def _light_kernels(group: Group) -> list[str]:
    """Whether layer norms and activations can be the reason: they are too short."""
    shape, workload = gpt2.SHAPES["gpt2"], group.workload
    small = gpt2.shape_of(workload.model) == shape
    if not small or workload.batch_size * workload.prompt_tokens > 256:
        return []
    count = gpt2.OPERATIONS[1] - 6 * shape.layers - 1
    return [
        "layer norms and activations are no reason by themselves: all"
        f" {count} kernels that are no products take about"
        f" {number(count * gpt2.SHORTEST_KERNEL_S * 1e3, ' ms', 2)} at 2.5 us each"
    ]


def _products_ms(kernels: Trace) -> float:
    return (kernels.matmul_ms or 0.0) + (kernels.attention_ms or 0.0)


def _rest_ms(kernels: Trace) -> float:
    return (kernels.traced_ms or 0.0) - _products_ms(kernels)


def _allowed(group: Group, case: Case, base: Case) -> tuple[float | None, str]:
    """The least gain promised on any board in question, and by what; None without Tensor Cores."""
    if not group.boards or any(
        gpus.arithmetic(case.precision, gpu.capability).kind != "tensor cores"
        for gpu in group.boards
    ):
        return None, ""
    by_board = []
    for gpu in group.boards:
        plain = floors.pytorch_floor_ms((gpu,), BASELINE, group.workload)
        ours = floors.pytorch_floor_ms((gpu,), case.precision, group.workload)
        if plain and ours:
            by_board.append(plain[0] / ours[0])
    if len(by_board) == len(group.boards):
        return min(by_board), "floors"
    measured = [floors.measured_ms(c.roofline) for c in (base, case)]
    if measured[0] and measured[1]:
        return measured[0] / measured[1], "floors"
    peaks = [gpus.peak_tflops(gpu, case.precision) for gpu in group.boards]
    ratios = [p / gpu.fp32_tflops for p, gpu in zip(peaks, group.boards, strict=True) if p]
    return min(ratios, default=None), "peaks"


def precision_emulated(group: Group) -> Iterator[Finding]:
    """A precision that the device has no instructions for."""
    for case in group.cases:
        capability = case.capability
        text = None
        if capability is not None:
            found = gpus.arithmetic(case.precision, capability)
            text = f"{found.text} ({found.source})" if found.kind == "emulated" else None
        else:
            text = next(
                (w.text for m in case.rows for w in m.warnings if w.code == "precision-emulated"),
                None,
            )
        if text:
            yield Finding(
                Code.PRECISION_EMULATED,
                Verdict.FIX,
                group.title,
                (case.precision,),
                f"{case.precision} is only emulated here: its times say nothing of the precision.",
                evidence=(text,),
                expected=("no gain in arithmetic; at most half the bytes",),
                actions=("Leave it out on this device, or mark it as emulated.",),
            )


def precision_storage_only(group: Group) -> Iterator[Finding]:
    """Float16 without Tensor Cores: at most half the bytes, and arithmetic stays float32."""
    told = [
        (case, gpus.arithmetic(case.precision, case.capability))
        for case in group.cases
        if case.capability is not None
    ]
    cases = [(case, found) for case, found in told if found.kind == "storage only"]
    if not cases:
        return
    native = [gpu.fp16_tflops for gpu in group.boards if gpu.fp16_tflops]
    plain = [gpu.fp32_tflops for gpu in group.boards]
    evidence = [f"{cases[0][1].text} ({cases[0][1].source})"]
    if native:
        evidence.append(
            f"datasheet: float16 {span(native, ' TFLOP/s')}, float32 {span(plain, ' TFLOP/s')};"
            " PyTorch's products run at the second"
        )
    for case, _ in cases:
        if case.precision == "fp16" and case.line.speedup is not None:
            low, high = _STORAGE_GAIN
            value = case.line.speedup.value
            inside = "inside" if low - 0.05 <= value <= high + 0.05 else "outside"
            evidence.append(f"fp16 found: {times(value)}, {inside} {low:g} to {high:g}x")
    precisions = tuple(case.precision for case, _ in cases)
    kinds = {
        "fp16": "is float16 storage with float32 arithmetic, and gains only by the bytes",
        "mixed": "keeps float32 weights, and its casts accelerate nothing",
    }
    told_of = "; ".join(f"{precision} {kinds[precision]}" for precision in precisions)
    yield Finding(
        Code.PRECISION_STORAGE_ONLY,
        Verdict.ACCEPT,
        group.title,
        precisions,
        f"On a {group.gpu_type} {told_of}.",
        evidence=tuple(evidence),
        expected=tuple(dict.fromkeys(t for p in precisions for t in expected_gain(group, p))),
        actions=("Do not promise 2x on this GPU: its float16 units are idle under PyTorch.",),
    )


# What takes away from an effect what stands behind it.
_WEAKENS = (
    Code.LATENCY_BELOW_FLOOR,
    Code.POWER_ABOVE_LIMIT,
    Code.POWER_BELOW_IDLE,
    Code.FP32_ON_TENSOR_CORES,
    Code.SIMULATED,
    Code.THROUGHPUT_CONTRADICTS_LATENCY,
    Code.GPU_THROTTLED,
    Code.GPU_SHARED,
    Code.CONFOUNDED,
    Code.WARM_UP_UNSTEADY,
    Code.TENSOR_CORES_UNUSED,
    Code.PRECISION_EMULATED,
)


def weakened(findings: Sequence[Finding]) -> list[Finding]:
    """What is built on numbers is accepted only where no other finding takes these away."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for finding in findings:
        if finding.code in _WEAKENS and finding.verdict != Verdict.ACCEPT:
            for precision in finding.precisions:
                reasons.setdefault((finding.subject, precision), {})[finding.code] = None
    kept = []
    for finding in findings:
        if finding.code in (Code.EFFECT, Code.MIXED_SLOWER, Code.MIXED_OPTIONS):
            touched = [(finding.subject, p) for p in (*finding.precisions, BASELINE)]
            codes = list(dict.fromkeys(code for key in touched for code in reasons.get(key, ())))
            if codes:
                finding = replace(
                    finding,
                    verdict=Verdict.CANNOT_TELL,
                    cause=f"{finding.cause[:-1]}, as written; but see {listed(codes)}.",
                )
        kept.append(finding)
    return kept
