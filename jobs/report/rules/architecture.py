"""What the facts about an architecture let one expect of a precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.asked import CPU, Workload
from bench.device import gpus
from bench.profile import work
from jobs.report.facts import Case
from jobs.report.finding import Note
from jobs.report.rules.rule import note

STORAGE_GAIN = (1.0, 1.3)  # of fp16 without Tensor Cores: only the bytes are halved
_SMALL = 256  # tokens of a batch up to which a light kernel takes the shortest time there is


@dataclass(frozen=True)
class Reported:
    """What others measured of the same layers, ms."""

    slow_ms: float
    fast_ms: float  # in fp16
    slow_in: str  # fp32 or TF32

    @property
    def gain(self) -> float:
        """How much faster fp16 was."""
        return self.slow_ms / self.fast_ms

    @property
    def text(self) -> str:
        """Both numbers."""
        return f"{self.slow_ms} ms in {self.slow_in}, {self.fast_ms} ms in fp16"


def reported(workload: Workload) -> dict[str, Reported]:
    """By GPU type, what was published of this workload: of GPT-2 small, eager, batch 1, alone."""
    same = work.shape_of(workload.model) == work.SHAPES["gpt2"]
    if not same or replace(workload, model="gpt2") != Workload("gpt2"):
        return {}
    return {
        name: Reported(slow, fast, "TF32" if name == work.PUBLISHED_IN_TF32 else "fp32")
        for name, (slow, fast) in work.PUBLISHED_MS.items()
    }


def expected_gain(case: Case) -> tuple[Note, ...]:
    """What the facts let one expect of a precision on this GPU, or on each if not specified."""
    if case.gpu_type == CPU:
        return ()
    by_type: dict[str, list[gpus.Board]] = {}
    for board in in_question(case):
        by_type.setdefault(board.gpu_type, []).append(board)
    return tuple(
        one
        for kind, boards in by_type.items()
        for one in gain_on(kind, boards, case.precision, reported(case.workload).get(kind))
    )


def in_question(case: Case) -> Sequence[gpus.Board]:
    """The boards of a case's GPU; every known board where it is not specified."""
    return case.boards or (() if case.gpu_type else gpus.GPUS)


def gain_on(
    kind: str, boards: Sequence[gpus.Board], precision: str, known: Reported | None
) -> Iterator[Note]:
    """What to expect of a precision on the boards of one GPU type."""
    arithmetic = gpus.arithmetic(precision, boards[0].capability).kind
    if arithmetic == "storage only" and precision == "mixed":
        yield note("{gpu}: slower than fp32: the casts accelerate nothing", gpu=kind)
    elif arithmetic == "storage only":
        text = "{gpu}: {gain:g}x, because float16 only halves the bytes"
        yield note(text, gpu=kind, gain=STORAGE_GAIN)
    elif arithmetic == "tensor cores":
        ratios = [
            peak / board.fp32_tflops
            for board in boards
            if (peak := gpus.peak_tflops(board, precision))
        ]
        if not ratios:
            return
        text, values = "{gpu}: up to {peak:2}x by the peak of the Tensor Cores", {"gpu": kind}
        if known and precision == "fp16":
            text += "; in eager mode at batch 1 such layers were published at {told}: {gain:x}"
            yield note(text, peak=tuple(ratios), told=known.text, gain=known.gain, **values)
        else:
            yield note(text, peak=tuple(ratios), **values)


def light_kernels(case: Case) -> list[Note]:
    """Whether layer norms and activations can be the reason: they are too short."""
    shape, workload = work.SHAPES["gpt2"], case.workload
    small = work.shape_of(workload.model) == shape
    if not small or workload.batch_size * workload.prompt_tokens > _SMALL:
        return []
    count = work.OPERATIONS[1] - 6 * shape.layers - 1
    return [
        note(
            "layer norms and activations alone do not explain it: all {count} kernels that are no"
            " products take about {total_ms:2 ms} at 2.5 us each",
            count=count,
            total_ms=count * work.SHORTEST_KERNEL_S * 1e3,
        )
    ]


def one_of_each_type(boards: Iterable[gpus.Board]) -> list[gpus.Board]:
    """The first board of each GPU type."""
    by_type: dict[str, gpus.Board] = {}
    for board in boards:
        by_type.setdefault(board.gpu_type, board)
    return list(by_type.values())
