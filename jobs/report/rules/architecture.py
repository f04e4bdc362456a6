"""What the facts about an architecture let one expect of a precision."""

import math
from dataclasses import replace

from bench import decoders
from bench.asked import Workload
from bench.device import gpus
from bench.device.boards import GPUS, Board
from bench.profile import work
from jobs.report import bounds
from jobs.report.facts import Case
from jobs.report.finding import Note
from jobs.report.rules.rule import note

STORAGE_GAIN = (1.0, 1.3)  # of fp16 without Tensor Cores: only the bytes are halved
BYTES_GAIN = 2.0  # what half the bytes give at most
_FAIR = 0.5  # of the gain that the lower bounds allow
_SMALL = 256  # tokens of a batch up to which a light kernel takes the shortest time there is


def reported(workload: Workload) -> dict[str, tuple[float, str]]:
    """By GPU type, the gain of fp16 that was published of this workload, and its two numbers.

    Of GPT-2 small, eager, batch 1, alone.
    """
    same = decoders.shape_of(workload.model) == decoders.SHAPES["gpt2"]
    if not same or replace(workload, model="gpt2") != Workload("gpt2"):
        return {}
    found = {}
    for name, (slow, fast) in work.PUBLISHED_MS.items():
        slow_in = "TF32" if name == work.PUBLISHED_IN_TF32 else "fp32"
        found[name] = (slow / fast, f"{slow} ms in {slow_in}, {fast} ms in fp16")
    return found


def boards_by_type(case: Case) -> dict[str, list[Board]]:
    """The boards of a case's GPU; those for servers where it is not specified; none of a CPU."""
    found: dict[str, list[Board]] = {}
    servers = [board for board in GPUS if board.is_for_servers]
    for board in case.boards or (() if case.gpu_type else servers):
        found.setdefault(board.gpu_type, []).append(board)
    return found


def expected_gain(case: Case) -> list[Note]:
    """What the facts let one expect of a precision on this GPU, or on each if not specified."""
    found = []
    for gpu, boards in boards_by_type(case).items():
        kind = gpus.arithmetic_on(boards[0], case.precision).kind
        if kind == "storage only" and case.precision == "mixed":
            found.append(note("{gpu}: slower than fp32: the casts accelerate nothing", gpu=gpu))
        elif kind == "storage only":
            text = "{gpu}: {gain:g}x, because float16 only halves the bytes"
            found.append(note(text, gpu=gpu, gain=STORAGE_GAIN))
        peaks = [(gpus.peak_tflops(board, case.precision), board.fp32_tflops) for board in boards]
        ratios = tuple(peak / plain for peak, plain in peaks if peak)
        if kind == "tensor cores" and ratios:
            text = "{gpu}: up to {peak:2}x by the peak of the Tensor Cores"
            found.append(note(text, gpu=gpu, peak=ratios))
            known = reported(case.workload).get(gpu) if case.precision == "fp16" else None
            if known:
                text = "{gpu}: {gain:x} was published for such layers, eager, batch 1 ({told})"
                found.append(note(text, gpu=gpu, gain=known[0], told=known[1]))
    return found


def allowed_gain(case: Case, base: Case) -> tuple[float | None, str]:
    """The least gain promised on any board in question, and by what; None without Tensor Cores."""
    boards = case.boards
    kinds = {gpus.arithmetic_on(board, case.precision).kind for board in boards}
    if kinds != {"tensor cores"}:
        return None, ""
    if case.workload.new_tokens and decoders.shape_of(case.workload.model) is None:
        return BYTES_GAIN, "bytes"  # whatever the model is: each token reads its weights
    pairs = [
        (bounds.of_pytorch((board,), p, case.workload) for p in (base.precision, case.precision))
        for board in boards
    ]
    by_board = [plain[0] / ours[0] for plain, ours in pairs if plain and ours]
    if len(by_board) == len(boards):
        return min(by_board), "lower bounds"
    ours_ms, plain_ms = bounds.measured_ms(case.roofline), bounds.measured_ms(base.roofline)
    if ours_ms and plain_ms:
        return plain_ms / ours_ms, "lower bounds"
    peaks = [
        (gpus.peak_tflops(board, case.precision), gpus.peak_tflops(board, base.precision))
        for board in boards
    ]
    return min((peak / plain for peak, plain in peaks if peak and plain), default=None), "peaks"


def fair_gain(allowed: float) -> float:
    """From which gain on a precision makes use of the hardware: half of it, or its square root."""
    return max(_FAIR * allowed, math.sqrt(allowed))


def light_kernels(case: Case) -> list[Note]:
    """Whether layer norms and activations can be the reason: they are too short."""
    shape, workload = decoders.SHAPES["gpt2"], case.workload
    small = decoders.shape_of(workload.model) == shape
    if not small or workload.batch_size * workload.prompt_tokens > _SMALL:
        return []
    count = work.OPERATIONS[1] - 6 * shape.layers - 1
    text = (
        "layer norms and activations alone do not explain it: all {count} kernels that are no"
        " products take about {total_ms:2 ms} at 2.5 us each"
    )
    return [note(text, count=count, total_ms=count * work.SHORTEST_KERNEL_S * 1e3)]
