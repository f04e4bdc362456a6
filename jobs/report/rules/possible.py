"""Numbers that cannot be, or that contradict each other."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.device import gpus
from jobs.report.cases import Case, Group
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.rules import floors
from jobs.report.rules.conditions import shared_with
from jobs.report.words import number, span

# What a ceiling's own noise and a clock's rounding may give.
_TOLERANCE = 0.9
# A meter's gain error (5 to 6 %) on one side of each comparison.
_METER = 0.1
# An idle power of public tables is of other boards, warm or cold.
_OTHER_BOARDS = 0.2
# A full queue hides launches, a closed loop does not; a busy host disturbs one of the two.
_QUEUE = (0.75, 1.6)
_BATCH_FITS = 0.1


def latency_below_floor(group: Group) -> Iterator[Finding]:
    """No latency can be below the time that the arithmetic or the memory needs."""
    for case in group.cases:
        least = floors.impossible_below_ms(case)
        if least is None or case.latency_ms is None or case.latency_ms >= _TOLERANCE * least[0]:
            continue
        floor, why = least
        yield Finding(
            Code.LATENCY_BELOW_FLOOR,
            Verdict.REJECT,
            group.title,
            (case.precision,),
            f"{number(case.latency_ms, ' ms')} is less than the forward pass needs:"
            f" {number(floor, ' ms')}.",
            evidence=(f"{why} take {number(floor, ' ms')}",),
            missing=("whether the clock waited for the GPU (synchronise)", "the GPU's name"),
            actions=(
                "Synchronise before each reading of the clock, and check model, batch and length.",
                *_tf32_was_on(case),
            ),
        )


def _tf32_was_on(case: Case) -> list[str]:
    capability = case.capability
    if case.precision != "fp32" or capability is None or capability < (8, 0):
        return []
    return ["Check that TF32 was off: on this GPU fp32 with TF32 is another precision."]


def power_above_limit(group: Group) -> Iterator[Finding]:
    """The mean power cannot exceed the limit that the driver enforces."""
    for case in group.cases:
        limits = [m.device.power_limit_w for m in case.rows if m.device and m.device.power_limit_w]
        limit = max(limits, default=case.tdp_w)
        if case.mean_w is None or limit is None or case.mean_w <= (1 + _METER) * limit:
            continue
        yield Finding(
            Code.POWER_ABOVE_LIMIT,
            Verdict.REJECT,
            group.title,
            (case.precision,),
            f"A mean power of {number(case.mean_w, ' W')} is above the limit of"
            f" {number(limit, ' W')}.",
            evidence=_power_arithmetic(case),
            missing=("how the energy was read, and over which time",),
            actions=("Check units (mJ, J), the batch size, and how many GPUs the meter adds up.",),
        )


def power_below_idle(group: Group) -> Iterator[Finding]:
    """A GPU that computes draws more than when idle."""
    for case in group.cases:
        power = case.mean_w
        if power is None:
            continue
        if case.idle_w is not None:
            least, whose = (1 - _METER) * case.idle_w, "measured beside the load"
        else:
            known = [gpu.idle_w[0] for gpu in case.boards]
            if not known:
                continue
            least, whose = (1 - _OTHER_BOARDS) * min(known), f"of a {case.gpu_type}, P0"
        if power >= least:
            continue
        idle = case.idle_w if case.idle_w is not None else least / (1 - _OTHER_BOARDS)
        yield Finding(
            Code.POWER_BELOW_IDLE,
            Verdict.REJECT,
            group.title,
            (case.precision,),
            f"A mean power of {number(power, ' W')} under load is below the idle power of"
            f" {number(idle, ' W')} ({whose}).",
            evidence=_power_arithmetic(case),
            missing=("how the energy was read, and over which time", "the GPU's name"),
            actions=(
                "Measure energy over whole seconds, from tick to tick of the sensor.",
                "Check that the meter reads the GPU that computes.",
            ),
        )


def _power_arithmetic(case: Case) -> tuple[str, ...]:
    if case.stated is None or case.line.energy_mj is None or case.latency_ms is None:
        return ()
    times = f" x {case.workload.batch_size}" if case.workload.batch_size > 1 else ""
    return (
        f"{number(case.line.energy_mj, ' mJ')}{times} / {number(case.latency_ms, ' ms')} ="
        f" {number(case.mean_w, ' W')}",
    )


def throughput_contradicts_latency(group: Group) -> Iterator[Finding]:
    """Prompts per second and the time of one tell of the same thing, on a device of one's own."""
    for case in group.cases:
        ratio = queue_gain(case)
        if ratio is None or _QUEUE[0] <= ratio <= _queue_limit(case) or shared_with(case):
            continue
        batch = case.workload.batch_size
        expected = batch * 1000 / (case.latency_ms or 1.0)
        fitting = 2 ** round(math.log2(ratio * batch))
        likely = (
            f"A batch of {fitting} would fit: was that it?"
            if fitting > batch and abs(ratio * batch / fitting - 1) < _BATCH_FITS
            else "One of the two was measured on something else."
        )
        yield Finding(
            Code.THROUGHPUT_CONTRADICTS_LATENCY,
            Verdict.FIX,
            group.title,
            (case.precision,),
            f"{number(case.line.throughput_per_s, ' prompts/s')} and"
            f" {number(case.latency_ms, ' ms')} contradict each other. {likely}",
            evidence=(
                f"{batch} / {number(case.latency_ms, ' ms')} = {number(expected, ' prompts/s')}:"
                f" {ratio:.2f}x of it was found",
            ),
            missing=("whether the queue was full while throughput was measured",),
            actions=("Measure both on the same batch, with one synchronise at the end.",),
        )


def queue_gain(case: Case) -> float | None:
    """Throughput x latency / batch size: 1 in a closed loop, more with a full queue."""
    if not case.line.throughput_per_s or not case.latency_ms:
        return None
    return case.line.throughput_per_s * case.latency_ms / 1000 / case.workload.batch_size


def _queue_limit(case: Case) -> float:
    """A full queue can at most hide all but the kernels themselves."""
    kernels = case.trace
    if kernels and kernels.busy_share:
        return max(_QUEUE[1], 1.1 / kernels.busy_share)
    return _QUEUE[1]


def simulated(group: Group) -> Iterator[Finding]:
    """No number of a simulated GPU is a real one."""
    names = {m.device.name for c in group.cases for m in c.rows if m.device and m.device.simulated}
    if names:
        yield Finding(
            Code.SIMULATED,
            Verdict.REJECT,
            group.title,
            tuple(case.precision for case in group.cases),
            f"The GPU is a simulation of a {', '.join(sorted(names))}: nothing here was measured.",
            actions=("Run the same matrix on the real GPU.",),
        )


def fp32_on_tensor_cores(group: Group) -> Iterator[Finding]:
    """Plain float32 products never run on Tensor Cores."""
    case = group.case("fp32")
    if case and case.trace and case.trace.tensor_cores == "yes":
        yield Finding(
            Code.FP32_ON_TENSOR_CORES,
            Verdict.REJECT,
            group.title,
            ("fp32",),
            "fp32 ran on Tensor Cores, so TF32 was on: the row is tf32, not fp32.",
            evidence=tuple(f"kernel {name}" for name in (case.trace.names or ())[:3]),
            actions=("Switch TF32 off, and measure tf32 as a precision of its own.",),
        )


def tensor_cores_unused(group: Group) -> Iterator[Finding]:
    """A precision whose point is the Tensor Cores, and whose products did not run there."""
    for case in group.cases:
        capability = case.capability
        if case.precision == "fp32" or capability is None or case.trace is None:
            continue
        able = gpus.arithmetic(case.precision, capability).kind == "tensor cores"
        if not able or case.trace.tensor_cores != "no":
            continue
        peaks = [p for gpu in case.boards if (p := gpus.peak_tflops(gpu, case.precision))]
        yield Finding(
            Code.TENSOR_CORES_UNUSED,
            Verdict.FIX,
            group.title,
            (case.precision,),
            f"{case.precision} did not run on the Tensor Cores that this GPU has.",
            evidence=(
                f"products: {number(case.trace.matmul_ms, ' ms')} of"
                f" {number(case.trace.traced_ms, ' ms')} traced",
                *(f"kernel {name}" for name in (case.trace.names or ())[:3]),
            ),
            expected=(f"up to {span(peaks, ' TFLOP/s')} on Tensor Cores",) if peaks else (),
            missing=("hardware counters of the Tensor Cores",),
            actions=(
                "Check that sizes are multiples of 8, and that the torch build knows this GPU.",
            ),
        )
