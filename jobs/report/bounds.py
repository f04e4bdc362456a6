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
from bench.profile import work
from jobs.report.facts import Case
from jobs.report.finding import Note, Value

LEAST_LATENCY = 0.9  # of a lower bound: the noise of a measured peak, the rounding of a clock
MOST_POWER = 1.1  # of a power limit: a meter's gain error is 5 to 6 %
LEAST_POWER = 0.9  # of the idle power that the same meter measured beside the load
LEAST_POWER_OF_OTHERS = 0.8  # of the idle power in public tables: of other boards, warm or cold


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
    shape = work.shape_of(workload.model)
    peak = (gpus.peak_tflops if by_pytorch else gpus.hardware_peak_tflops)(board, precision)
    if shape is None or peak is None or (by_pytorch and workload.new_tokens):
        return None
    size = (shape, workload.batch_size, workload.prompt_tokens)
    flops, stored = work.block_flops(*size), work.block_bytes(shape, precision)
    if by_pytorch:
        flops += work.head_flops(*size)
        stored += work.head_bytes(shape, precision)
    # Weights may stay in the cache from one forward pass to the next.
    rates = peak, board.bandwidth_gb_per_s
    times = work.lower_bounds_ms(flops, [stored], *rates, (board.l2_mb or 0.0) * 1e6)
    return longer(*times, *rates, board.name)


def longer(
    compute_ms: float, memory_ms: float, tflops: float, gb_per_s: float, whose: str
) -> Bound:
    """The time of the arithmetic or of the memory, at the rates of a board or as measured."""
    if compute_ms >= memory_ms:
        return Bound(
            compute_ms, f"{compute_ms * tflops:.3g} GFLOP at {tflops:.3g} TFLOP/s ({whose})"
        )
    return Bound(memory_ms, f"{memory_ms * gb_per_s:.3g} MB at {gb_per_s:.4g} GB/s ({whose})")


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
        return longer(
            roofline.lower_bound_compute_ms or 0.0,
            roofline.lower_bound_memory_ms or 0.0,
            max(roofline.matmul_tflops or 0.0, roofline.matmul_model_tflops or 0.0),
            max(roofline.copy_gb_per_s or 0.0, roofline.read_gb_per_s or 0.0),
            "measured peak",
        )
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

    def check(case: Case, excess: float, text: str, **values: Value) -> None:
        about = {"board": board.name, "precision": case.precision}
        broken.append((excess, Note("{board}: excluded: " + text, {**about, **values})))

    for case in cases:
        least = of_board(board, case.precision, case.workload)
        if least and case.latency_ms:
            check(
                case,
                LEAST_LATENCY * least.ms / case.latency_ms,
                "{latency:ms} ({precision}) is below {share:.0%} of its lower bound of {bound:ms}"
                " ({why})",
                latency=case.latency_ms,
                share=LEAST_LATENCY,
                bound=least.ms,
                why=least.why,
            )
        if case.mean_w is None:
            continue
        check(
            case,
            case.mean_w / board.tdp_w / MOST_POWER,
            "{mean:W} ({precision}) is above {share:.0%} of its power limit of {limit:g W}",
            mean=case.mean_w,
            share=MOST_POWER,
            limit=board.tdp_w,
        )
        check(
            case,
            LEAST_POWER_OF_OTHERS * board.idle_w[0] / case.mean_w,
            "{mean:W} ({precision}) is below {share:.0%} of its idle power of {idle:g W}",
            mean=case.mean_w,
            share=LEAST_POWER_OF_OTHERS,
            idle=board.idle_w,
        )
    excess, note = max(broken, key=lambda one: one[0], default=(0.0, None))
    return note if excess > 1 else None
