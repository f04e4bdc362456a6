"""Which GPU it is, and what a precision is on it."""

from bench import warnings
from bench.device import gpus
from bench.device.boards import GPUS
from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.architecture import STORAGE_GAIN, expected_gain
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import listed

_KINDS = {
    "fp16": "is float16 storage with float32 arithmetic, and gains only by the bytes",
    "mixed": "keeps float32 weights, and its casts accelerate nothing",
}
_NEAR = 0.05


@rule(
    Verdict.INCONCLUSIVE,
    cause="GPU not specified. {possible} of the {known} known boards can give these numbers.",
    missing=[
        "the GPU's name, as the driver reports it",
        "mean power at full load (a large batch){limits}",
        "how the energy was read: an exclusion by power assumes that it is that of the load alone",
    ],
    do=["nvidia-smi --query-gpu=name,compute_cap,power.limit --format=csv"],
)
def gpu_not_specified(case: Case, group: Group) -> Hit | None:
    """A table does not name its GPU: which known boards allow the numbers, what excludes others."""
    if case.gpu_type is not None or case is not group.cases[0]:
        return None
    if not any(one.pace_ms for one in group.cases):
        return None
    excluded = {board.name: bounds.exclusion(board, group.cases) for board in GPUS}
    evidence: list[str | Note] = [why for why in excluded.values() if why]
    possible = [board for board in GPUS if not excluded[board.name]]
    least = [
        one.latency_ms / bound.ms
        for one in group.cases
        for board in possible
        if one.latency_ms and (bound := bounds.of_board(board, one.precision, one.workload))
    ]
    if least:
        text = "on the boards that remain each latency is {times:2} times the lower bound or more"
        evidence.append(note(text, times=min(least)))
    servers = [board.name for board in possible if board.is_for_servers]
    others = [board.name for board in possible if not board.is_for_servers]
    for text, those in (("of data centers: {those}", servers), ("others: {those}", others)):
        if those:
            evidence.append(note("possible, " + text, those=tuple(those)))
    by_limit: dict[float, list[str]] = {}
    for board in sorted(possible, key=lambda board: board.tdp_w):
        if not board.is_for_servers:
            continue
        by_limit.setdefault(board.tdp_w, []).append(board.name)
    limits = "; ".join(f"{watts:g} W {listed(names)}" for watts, names in by_limit.items())
    none = "GPU not specified, and none of the {known} known boards can give these numbers."
    return Hit(
        evidence,
        {
            "known": len(GPUS),
            "possible": len(possible),
            "limits": f", against the power limits: {limits}" if limits else "",
        },
        precisions=[one.precision for one in group.cases],
        cause=None if possible else none,
    )


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="{precision} is only emulated here: its times say nothing of the precision.",
    do=["Leave it out on this device, or mark it as emulated."],
)
def precision_emulated(case: Case, group: Group) -> Hit | None:
    """The precision has no instructions here, as bf16 below compute capability 8.0."""
    if case.capability is not None:
        found = arithmetic_of(case)
        why = [f"{found.text} ({found.source})"] if found.kind == "emulated" else []
    else:
        why = [told.text for told in warnings.having(case.warnings, "precision-emulated")]
    expected = ["no gain in arithmetic; at most half the bytes"]
    if not why:
        return None
    cause = None
    if case.foreign and case.speedup and not case.is_baseline:
        cause = "{precision} is only emulated here ({why}), at {speedup:x} the speed of"
        cause += " {base_precision}: its times say nothing of the precision."
    return Hit(["{why}"], {"why": why[0]}, expected, cause=cause)


@rule(
    Verdict.ACCEPT,
    cause="A {gpu} has no Tensor Cores, though other GPUs of compute capability {capability} do:"
    " fp16"
    " halves the bytes, and computes at twice the rate of float32 at most.",
    do=["Do not expect of it what a T4 does."],
)
def tensor_cores_absent(case: Case, group: Group) -> Hit | None:
    """A GTX 16 has compute capability 7.5 and no Tensor Cores."""
    half = case.precision in ("fp16", "mixed") and bool(case.boards)
    if not half or any(board.tensor_cores for board in case.boards):
        return None
    if any(board.capability < gpus.FIRST_TENSOR_CORES for board in case.boards):
        return None
    major, minor = case.boards[0].capability
    found = gpus.arithmetic_on(case.boards[0], "fp16")
    return Hit([f"{found.text} ({found.source})"], {"capability": f"{major}.{minor}"})


@rule(
    Verdict.ACCEPT,
    minor=True,
    cause="On {a_type} {precision} ",
    do=["Do not promise 2x on this GPU: its float16 units are idle under PyTorch."],
)
def precision_storage_only(case: Case, group: Group) -> Hit | None:
    """Below compute capability 7.0 fp16 is float32 arithmetic on half the bytes; mixed casts."""
    if case.capability is None or case.precision not in _KINDS or not case.by_pytorch:
        return None
    found = arithmetic_of(case)
    if case.precision == "fp16" and case.speedup and case.speedup.value < 1 - _NEAR:
        return None  # the bytes do not make it slower
    if found.kind != "storage only":
        return None
    native = tuple(board.fp16_tflops for board in case.boards if board.fp16_tflops)
    evidence = [f"{found.text} ({found.source})"]
    if native:
        evidence.append("datasheet: float16 {native:TFLOP/s}, float32 (as PyTorch) {plain:TFLOP/s}")
    if case.precision == "fp16" and case.speedup:
        low, high = STORAGE_GAIN
        side = "in" if low - _NEAR <= case.speedup.value <= high + _NEAR else "out"
        evidence.append(f"fp16 found: {{speedup:x}}, {side}side {{usual:g}}x")
    plain = tuple(board.fp32_tflops for board in case.boards)
    values = {"native": native, "plain": plain, "usual": STORAGE_GAIN}
    cause = f"{precision_storage_only.cause}{_KINDS[case.precision]}."
    return Hit(evidence, values, expected_gain(case), cause=cause)


def arithmetic_of(case: Case) -> gpus.Arithmetic:
    """What the precision of a case is on its GPU, whose capability is known."""
    assert case.capability
    if case.boards:
        return gpus.arithmetic_on(case.boards[0], case.precision)
    return gpus.arithmetic(case.precision, case.capability)
