"""What no measurement on a board can pass: a least time of a forward pass, and two powers.

The bounds hold whatever the program was. So a latency or a mean power beyond them is wrong, or it
is not of that board.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import decoders
from bench.asked import CPU, PRECISIONS, Workload
from bench.device import gpu_names, gpus
from bench.device.boards import GPUS, LEAST_IDLE_W, Board
from bench.measured.profiled import Roofline
from bench.profile import work
from jobs.report.facts import Case
from jobs.report.finding import Note, Value

LEAST_LATENCY = 0.9  # of a lower bound: the noise of a measured peak, the rounding of a clock
MOST_POWER = 1.1  # of a power limit: a meter's gain error is 5 to 6 %
LEAST_POWER = 0.9  # of the idle power that the same meter measured beside the load
_LEAST: dict[str, Any] = {"prompt_tokens": 1, "batch_size": 1}
_LARGEST_L2_MB = 126.0  # of a board whose own is not known: no source says more of any
LEAST_POWER_OF_OTHERS = 0.8  # of the idle power in public tables: of other boards, warm or cold


@dataclass(frozen=True)
class Bound:
    """The least time of a forward pass, and the arithmetic behind it."""

    ms: float
    why: str


@functools.lru_cache(maxsize=8192)
def of_board(
    board: Board, precision: str, workload: Workload, by_pytorch: bool = False
) -> Bound | None:
    """By the datasheet: the hardware's best arithmetic on the layers alone.

    Not every program computes the product that makes the logits; `by_pytorch` counts it, and
    PyTorch's arithmetic. New tokens read the weights once each. None for a model that is not known
    by name; by PyTorch also for a precision that the board lacks. Of one that is no GPT-2 the
    precision must be stated, since its weights may be of four bits.
    """
    shape = decoders.shape_of(workload.model)
    peak = (gpus.peak_tflops if by_pytorch else gpus.hardware_peak_tflops)(board, precision)
    if shape is None or peak is None:
        return None
    if precision not in PRECISIONS and not work.counted(workload.model):
        return None
    size = (workload.batch_size, workload.prompt_tokens, workload.new_tokens)
    least = work.work_of(shape, *size, head=by_pytorch)
    stored = work.stored_bytes(precision), 0, work.head_bytes(precision)
    moved = least.forward_bytes(*stored)
    # Weights may stay in the cache from one forward pass to the next.
    rates = peak, board.bandwidth_gb_per_s
    cache_mb = _LARGEST_L2_MB if board.l2_mb is None else board.l2_mb
    times = work.lower_bounds_ms(least.least_flops, moved, *rates, cache_mb * 1e6)
    return longer(*times, *rates, board.name)


def longer(
    compute_ms: float, memory_ms: float, tflops: float, gb_per_s: float, whose: str
) -> Bound:
    """The time of the arithmetic or of the memory, at the rates of a board or as measured."""
    if compute_ms >= memory_ms:
        why = f"{compute_ms * tflops:.3g} GFLOP at {tflops:.3g} TFLOP/s"
    else:
        why = f"{memory_ms * gb_per_s:.3g} MB at {gb_per_s:.4g} GB/s"
    return Bound(max(compute_ms, memory_ms), f"{why} ({whose})")


def of_pytorch(
    boards: Sequence[Board], precision: str, workload: Workload
) -> tuple[float, float] | None:
    """Least and greatest lower bound of some boards in ms, by PyTorch; None where one has none."""
    found = [of_board(board, precision, workload, by_pytorch=True) for board in boards]
    known = [bound.ms for bound in found if bound]
    return (min(known), max(known)) if found and len(known) == len(found) else None


def of_case(case: Case) -> Bound | None:
    """By the measured peaks where there are any, else by the fastest board in question."""
    roofline = case.roofline
    if roofline is None:
        found = (of_board(board, case.precision, case.workload) for board in in_question(case))
        return min(filter(None, found), key=lambda bound: bound.ms, default=None)
    if not measured_ms(roofline):
        return None
    return longer(
        roofline.lower_bound_compute_ms or 0.0,
        roofline.lower_bound_memory_ms or 0.0,
        max(roofline.matmul_tflops or 0.0, roofline.matmul_model_tflops or 0.0),
        max(roofline.copy_gb_per_s or 0.0, roofline.read_gb_per_s or 0.0),
        "measured peak",
    )


def in_question(case: Case) -> Sequence[Board]:
    """The boards that a case may be of: of a table, every known one where its GPU is not known.

    None for a CPU, for several GPUs together, and for one that is not NVIDIA's.
    """
    if case.boards or not case.foreign:
        return case.boards
    other = case.gpu_type == CPU or gpu_names.is_several(case.gpu)
    return () if other or gpu_names.is_of_another_maker(case.gpu) else GPUS


def certain(case: Case) -> Case:
    """The case with the least work that it can be, where a table does not say how much it is."""
    least = {name: value for name, value in _LEAST.items() if name in case.assumed}
    return replace(case, workload=replace(case.workload, **least)) if least else case


def measured_ms(roofline: Roofline | None) -> float:
    """The lower bound by the measured peaks; 0 where there is none."""
    if roofline is None:
        return 0.0
    return max(roofline.lower_bound_compute_ms or 0.0, roofline.lower_bound_memory_ms or 0.0)


def exclusion(board: Board, cases: Iterable[Case]) -> Note | None:
    """The bound of a board that some cases are farthest beyond; None: it may be that board."""
    found = (one for case in cases for one in excesses(board, case))
    excess, note = max(found, key=lambda one: one[0], default=(0.0, None))
    return note if excess > 1 else None


def excesses(board: Board, case: Case) -> Iterator[tuple[float, Note]]:
    """How far a case is beyond each bound of a board: where more than 1, it is another board's."""

    def note(text: str, **values: Value) -> Note:
        about = {"board": board.name, "precision": case.precision}
        return Note("{board}: excluded: " + text, {**about, **values})

    least = of_board(board, case.precision, case.workload)
    latency, mean = case.latency_ms, case.mean_w
    if least and latency:
        text = "{latency:ms} ({precision}) is below {share:.0%} of its lower bound of {bound:ms}"
        excess = LEAST_LATENCY * least.ms / latency
        shown = {"latency": latency, "share": LEAST_LATENCY, "bound": least.ms}
        yield excess, note(text + " ({why})", **shown, why=least.why)
    if mean is not None:
        text = "{mean:W} ({precision}) is above {share:.0%} of its power limit of {limit:g W}"
        excess = mean / board.tdp_w / MOST_POWER
        yield excess, note(text, mean=mean, share=MOST_POWER, limit=board.tdp_w)
        text = "{mean:W} ({precision}) is below {share:.0%} of its idle power of {idle:g W}"
        idle = board.idle_w or (LEAST_IDLE_W, LEAST_IDLE_W)
        excess = LEAST_POWER_OF_OTHERS * idle[0] / mean
        yield excess, note(text, mean=mean, share=LEAST_POWER_OF_OTHERS, idle=idle)


def least_idle_w(boards: Iterable[Board]) -> float:
    """The least power of some boards when idle; where one is not known, of any board."""
    return min((board.idle_w[0] if board.idle_w else LEAST_IDLE_W for board in boards), default=0.0)
