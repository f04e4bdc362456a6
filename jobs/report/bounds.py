"""What no measurement on a board can pass: a least time of a forward pass, and two powers.

The bounds hold whatever the program was. So a latency or a mean power beyond them is wrong, or it
is not of that board.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.asked import Workload
from bench.device import gpus
from bench.measured import Roofline
from bench.profile import work as gpt2
from jobs.report.facts import Case
from jobs.report.finding import Note, Value

LEAST_LATENCY = 0.9  # of a lower bound: the noise of a measured peak, the rounding of a clock
MOST_POWER = 1.1  # of a power limit: a meter's gain error is 5 to 6 %
LEAST_POWER = 0.9  # of the idle power that the same meter measured beside the load
LEAST_POWER_OF_OTHERS = 0.8  # of the idle power in public tables: of other boards, warm or cold


_TOO_FAST = (
    "{board}: excluded: {latency_ms:ms} ({precision}) is below "
    f"{LEAST_LATENCY:.0%}"
    " of its lower bound of {lower_bound_ms:ms} ({why})"
)
_TOO_MUCH = (
    "{board}: excluded: mean power {mean_w:W} ({precision}) is above "
    f"{MOST_POWER:.0%}"
    " of its power limit of {limit_w:g W}"
)
_TOO_LITTLE = (
    "{board}: excluded: mean power {mean_w:W} ({precision}) is below "
    f"{LEAST_POWER_OF_OTHERS:.0%}"
    " of its idle power of {idle_w:g W}"
)


@dataclass(frozen=True)
class Bound:
    """The least time of a forward pass, and the arithmetic behind it."""

    ms: float
    why: str


def of_board(
    board: gpus.Board, precision: str, workload: Workload, by_pytorch: bool = False
) -> Bound | None:
    """By the datasheet: the hardware's best arithmetic on the layers alone.

    Not every program computes the product that makes the logits. None for a model that is not known
    by name.

    Args:
        board: Which one.
        precision: As asked.
        workload: As asked.
        by_pytorch: With the logits and PyTorch's arithmetic; None for a precision that the board
            lacks and for new tokens, too.
    """
    shape = gpt2.shape_of(workload.model)
    peak = (gpus.peak_tflops if by_pytorch else gpus.hardware_peak_tflops)(board, precision)
    if shape is None or peak is None or (by_pytorch and workload.new_tokens):
        return None
    size = (shape, workload.batch_size, workload.prompt_tokens)
    flops, stored = gpt2.block_flops(*size), gpt2.block_bytes(shape, precision)
    if by_pytorch:
        flops += gpt2.head_flops(*size)
        stored += gpt2.head_bytes(shape, precision)
    # Weights may stay in the cache from one forward pass to the next.
    moved = max(0.0, stored - (board.l2_mb or 0.0) * 1e6)
    compute, memory = flops / peak / 1e9, moved / board.bandwidth_gb_per_s / 1e6
    if compute >= memory:
        return Bound(compute, f"{flops / 1e9:.3g} GFLOP at the {peak:g} TFLOP/s of a {board.name}")
    speed = f"{board.bandwidth_gb_per_s:g} GB/s of a {board.name}"
    return Bound(memory, f"{moved / 1e6:.3g} MB of weights at the {speed}")


def of_pytorch(
    boards: Sequence[gpus.Board], precision: str, workload: Workload
) -> tuple[float, float] | None:
    """Least and greatest lower bound of some boards in ms, by PyTorch; None where one has none."""
    found = [of_board(board, precision, workload, by_pytorch=True) for board in boards]
    known = [bound.ms for bound in found if bound]
    return (min(known), max(known)) if found and len(known) == len(found) else None


def of_case(case: Case) -> Bound | None:
    """By the measured peaks where there are any, else by the fastest board in question."""
    roofline = case.roofline
    if roofline and measured_ms(roofline):
        compute = roofline.lower_bound_compute_ms or 0.0
        memory = roofline.lower_bound_memory_ms or 0.0
        if compute >= memory:
            peak = max(roofline.matmul_tflops or 0.0, roofline.matmul_model_tflops or 0.0)
            return Bound(compute, f"{compute * peak:.3g} GFLOP at the measured {peak:.3g} TFLOP/s")
        speed = max(roofline.copy_gb_per_s or 0.0, roofline.read_gb_per_s or 0.0)
        return Bound(memory, f"{memory * speed:.3g} MB at the measured {speed:.3g} GB/s")
    found = [of_board(board, case.precision, case.workload) for board in case.boards]
    known = [bound for bound in found if bound]
    return None if roofline else min(known, key=lambda bound: bound.ms, default=None)


def measured_ms(roofline: Roofline | None) -> float:
    """The lower bound by the measured peaks; 0 where there is none."""
    if roofline is None:
        return 0.0
    return max(roofline.lower_bound_compute_ms or 0.0, roofline.lower_bound_memory_ms or 0.0)


def exclusion(board: gpus.Board, cases: Iterable[Case]) -> Note | None:
    """The bound of a board that some cases are farthest beyond; None: it may be that board."""
    broken: list[tuple[float, Note]] = []
    for case in cases:
        values: dict[str, Value] = {"board": board.name, "precision": case.precision}
        least = of_board(board, case.precision, case.workload)
        if least and case.latency_ms:
            excess = LEAST_LATENCY * least.ms / case.latency_ms
            values = values | {
                "latency_ms": case.latency_ms,
                "lower_bound_ms": least.ms,
                "why": least.why,
            }
            broken.append((excess, Note(_TOO_FAST, values)))
        if case.mean_w is not None:
            values = values | {
                "mean_w": case.mean_w,
                "limit_w": board.tdp_w,
                "idle_w": board.idle_w,
            }
            broken.append((case.mean_w / board.tdp_w / MOST_POWER, Note(_TOO_MUCH, values)))
            excess = LEAST_POWER_OF_OTHERS * board.idle_w[0] / case.mean_w
            broken.append((excess, Note(_TOO_LITTLE, values)))
    excess, note = max(broken, key=lambda one: one[0], default=(0.0, None))
    return note if excess > 1 else None
