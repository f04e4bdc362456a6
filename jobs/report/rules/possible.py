"""Impossible or contradictory."""

import math

from bench.device import gpus
from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.conditions import sharing
from jobs.report.rules.rule import Hit, note, rule

# A full queue hides launches, a closed loop does not; a busy host disturbs one of the two.
_QUEUE = (0.75, 1.6)
_BATCH_FITS = 0.1
_HOW_READ = "how the energy was read, and over what interval"
_CHECK = "Synchronise before each reading of the clock, and check model, batch size and length."
_CHECK_TF32 = "Check that TF32 was off: on this GPU fp32 with TF32 is another precision."


@rule(
    Verdict.REJECT,
    undermines="effects",
    cause="A latency of {latency_ms:ms} is below the lower bound of the forward pass, {bound:ms}.",
    missing=["whether the clock waited for the GPU (synchronise)", "the name of the GPU"],
    do=[_CHECK],
)
def latency_below_lower_bound(case: Case, group: Group) -> Hit | None:
    """The latency is below 0.9 of its lower bound, by measured peaks or else by the datasheet."""
    least = bounds.of_case(case)
    if not least or not case.latency_ms or case.latency_ms >= bounds.LEAST_LATENCY * least.ms:
        return None
    do = [_CHECK, _CHECK_TF32] if case.is_baseline and on_tensor_cores("tf32", case) else None
    return Hit(["{why} take {bound:ms}"], {"bound": least.ms, "why": least.why}, do=do)


@rule(
    Verdict.REJECT,
    undermines="effects",
    cause="A mean power of {mean_w:W} is above the power limit of {limit_w:W}.",
    missing=[_HOW_READ],
    do=["Check units (mJ or J), the batch size, and how many GPUs the meter sums."],
)
def power_above_limit(case: Case, group: Group) -> Hit | None:
    """The mean power is more than 10 % above the enforced limit, or the highest of that type."""
    limit = case.power_limit_w or max((board.tdp_w for board in case.boards), default=math.inf)
    if case.mean_w is None or case.mean_w <= bounds.MOST_POWER * limit:
        return None
    return Hit(power_arithmetic(case), {"limit_w": limit})


@rule(
    Verdict.REJECT,
    undermines="effects",
    cause="A mean power of {mean_w:W} under load is below the idle power of {idle_w:W} ({whose}).",
    missing=[_HOW_READ, "the name of the GPU"],
    do=[
        "Measure energy over whole seconds, from tick to tick of the sensor.",
        "Check that the meter reads the GPU that computes.",
    ],
)
def power_below_idle(case: Case, group: Group) -> Hit | None:
    """The mean power is over 10 % below the idle power beside it, or 20 % below its type's."""
    idle, share, whose = case.idle_w, bounds.LEAST_POWER, "measured beside the load"
    if idle is None:
        idle = min((board.idle_w[0] for board in case.boards), default=-math.inf)
        share, whose = bounds.LEAST_POWER_OF_OTHERS, f"of a {case.gpu_type} in state P0"
    if case.mean_w is None or case.mean_w >= share * idle:
        return None
    return Hit(power_arithmetic(case), {"idle_w": idle, "whose": whose})


def power_arithmetic(case: Case) -> list[str]:
    """How a table's power comes about."""
    times = " x {batch_size}" if case.workload.batch_size > 1 else ""
    return [f"{{energy_mj:mJ}}{times} / {{latency_ms:ms}} = {{mean_w:W}}"] if case.foreign else []


@rule(
    Verdict.REJECT,
    undermines="effects",
    cause="fp32 ran on Tensor Cores, so TF32 was on: the row is tf32, not fp32.",
    do=["Switch TF32 off, and measure tf32 as a precision of its own."],
)
def fp32_on_tensor_cores(case: Case, group: Group) -> Hit | None:
    """A trace of fp32 shows Tensor Core kernels: TF32 was on."""
    ran = case.is_baseline and case.trace and case.trace.tensor_cores == "yes"
    return Hit(kernels_of(case)) if ran else None


@rule(
    Verdict.REJECT,
    undermines="effects",
    cause="The GPU is a simulation of a {name}: nothing here was measured on one.",
    do=["Run the same matrix on the real GPU."],
)
def simulated(case: Case, group: Group) -> Hit | None:
    """The row comes from a simulated GPU."""
    return Hit(values={"name": case.device_name}) if case.simulated else None


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="A throughput of {throughput_per_s:prompts/s} contradicts the latency of"
    " {latency_ms:ms}. {likely}",
    missing=["whether the queue was full while the throughput was measured"],
    do=["Measure both on the same batch, with one synchronise at the end."],
)
def throughput_contradicts_latency(case: Case, group: Group) -> Hit | None:
    """Throughput x latency / batch size is below 0.75, or above both 1.6 and 1.1 / busy share."""
    ratio, batch = case.queue_gain, case.workload.batch_size
    # A full queue can at most hide all but the kernels themselves.
    busy = case.trace.busy_share if case.trace else None
    most = max(_QUEUE[1], 1.1 / busy) if busy else _QUEUE[1]
    if ratio is None or _QUEUE[0] <= ratio <= most or sharing(case):  # which explains it
        return None
    fitting = 2 ** round(math.log2(ratio * batch))
    likely = "One of the two was measured on something else."
    if fitting > batch and abs(ratio * batch / fitting - 1) < _BATCH_FITS:
        likely = f"A batch of {fitting} would fit: was that the batch size?"
    implied = batch * 1000 / (case.latency_ms or 1.0)
    return Hit(
        ["{batch_size} / {latency_ms:ms} = {implied:prompts/s}; {ratio:.2f}x of it was found"],
        {"ratio": ratio, "implied": implied, "likely": likely},
    )


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="{precision} did not run on the Tensor Cores that this GPU has.",
    missing=["hardware counters of the Tensor Cores"],
    do=["Check that sizes are multiples of 8, and that the torch build knows this GPU."],
)
def tensor_cores_unused(case: Case, group: Group) -> Hit | None:
    """The GPU has Tensor Cores for this precision, and the trace shows none."""
    if case.is_baseline or case.trace is None or case.trace.tensor_cores != "no":
        return None
    if not on_tensor_cores(case.precision, case):
        return None
    peaks = tuple(p for board in case.boards if (p := gpus.peak_tflops(board, case.precision)))
    return Hit(
        ["products: {ms:ms} of {traced_ms:ms} traced", *kernels_of(case)],
        {"ms": case.trace.matmul_ms, "traced_ms": case.trace.traced_ms, "peaks": peaks},
        ["up to {peaks:TFLOP/s} on Tensor Cores"] if peaks else (),
    )


def on_tensor_cores(precision: str, case: Case) -> bool:
    """Whether PyTorch computes a precision on Tensor Cores on this GPU."""
    known = gpus.arithmetic(precision, case.capability) if case.capability else None
    return known is not None and known.kind == "tensor cores"


def kernels_of(case: Case) -> list[Note]:
    """The kernels that took most of the time."""
    names = (case.trace and case.trace.names) or ()
    return [note("kernel {name}", name=name) for name in names[:3]]
