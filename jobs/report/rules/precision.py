"""What a precision is on this device."""

from __future__ import annotations

from bench import warnings
from bench.device import gpus
from jobs.report.facts import Case, Group
from jobs.report.finding import Verdict
from jobs.report.rules.architecture import STORAGE_GAIN, expected_gain
from jobs.report.rules.rule import Hit, rule

_KINDS = {
    "fp16": "is float16 storage with float32 arithmetic, and gains only by the bytes",
    "mixed": "keeps float32 weights, and its casts accelerate nothing",
}
_NEAR = 0.05


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="{precision} is only emulated here: its times say nothing of the precision.",
    do=["Leave it out on this device, or mark it as emulated."],
)
def precision_emulated(case: Case, group: Group) -> Hit | None:
    """The precision has no instructions here, as bf16 below compute capability 8.0."""
    if case.capability is not None:
        found = gpus.arithmetic(case.precision, case.capability)
        why = [f"{found.text} ({found.source})"] if found.kind == "emulated" else []
    else:
        why = [told.text for told in warnings.having(case.warnings, "precision-emulated")]
    expected = ["no gain in arithmetic; at most half the bytes"]
    return Hit(["{why}"], {"why": why[0]}, expected) if why else None


@rule(
    Verdict.ACCEPT,
    cause="On a {gpu_type} {precision} {kind}.",
    do=["Do not promise 2x on this GPU: its float16 units are idle under PyTorch."],
)
def precision_storage_only(case: Case, group: Group) -> Hit | None:
    """Below compute capability 7.0 fp16 is float32 arithmetic on half the bytes; mixed casts."""
    if case.capability is None or case.precision not in _KINDS:
        return None
    found = gpus.arithmetic(case.precision, case.capability)
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
    return Hit(evidence, {"kind": _KINDS[case.precision], **values}, expected_gain(case))
