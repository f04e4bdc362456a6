"""What a process is asked to measure, and what its end means for the rows."""

import datetime
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bench.asked import Cell, QualityPlan, Sampling, Workload
from bench.errors import GpuLostError, TensorgapError, Unplaced, Unsupported
from bench.measured import Measurement, Outcome, Quality, Sensor, Stage

DEVICE = "device"  # the stage in which a GPU of another type is found out
# The stages whose end by force costs no row.
PERPLEXITY = "perplexity"
PROFILE = "profile"
# torch.OutOfMemoryError and cuBLAS on CUDA; the CPU allocator raises a plain RuntimeError.
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
_FORESEEN = {
    Unsupported: Outcome.UNSUPPORTED,
    Unplaced: Outcome.UNPLACED,
    TensorgapError: Outcome.FAILED,
    GpuLostError: Outcome.LOST,
}


@dataclass(frozen=True)
class Request:
    """What one process measures: workloads on one cell, in the order of their models."""

    run: str
    cell: Cell
    replicate: int
    workloads: tuple[Workload, ...]
    sampling: Sampling
    quality: QualityPlan
    known_quality: Mapping[str, Quality] = field(default_factory=dict)  # by model, measured before
    # By UUID and driver, probed before.
    known_sensors: Mapping[tuple[str, str | None], Sensor] = field(default_factory=dict)
    threads: int | None = None  # CPUs to compute with; None: torch's own choice
    simulated: bool = False  # a GPU cell may compute on the CPU below a stand-in for the driver


def stage(request: Request, workload: Workload, name: str) -> Stage:
    """A stage that begins in this process."""
    return Stage(request.cell, workload, request.replicate, name, socket.gethostname())


def failed(request: Request, workload: Workload, outcome: Outcome, reason: str) -> Measurement:
    """The row of a workload that could not be measured."""
    return Measurement(
        run=request.run,
        cell=request.cell,
        workload=workload,
        replicate=request.replicate,
        outcome=outcome,
        reason=reason,
        finished_at=now(),
    )


def all_failed(request: Request, error: Exception) -> Iterator[Measurement]:
    """The row of each workload, where an error kept the process from measuring any."""
    for workload in request.workloads:
        yield failed(request, workload, *classify(error))


def classify(error: BaseException) -> tuple[Outcome, str]:
    """What an exception means for the row, and the reason in words."""
    text = str(error).strip()
    for kind, outcome in _FORESEEN.items():
        if isinstance(error, kind):
            return outcome, text
    first = text.splitlines()[0] if text else ""
    if is_out_of_memory(error):
        return Outcome.OUT_OF_MEMORY, first or "out of memory"
    if (hidden := _hidden_by_capture(error)) is not None:
        return classify(hidden)
    return Outcome.FAILED, f"{type(error).__name__}: {first}" if first else type(error).__name__


def _hidden_by_capture(error: BaseException) -> BaseException | None:
    """The lack of memory that ended the capture of a graph.

    torch/cuda/graphs.py ends the capture in __exit__, which then fails as well and in other words.
    """
    hidden = error.__context__
    capturing = isinstance(error, RuntimeError) and "captur" in str(error)
    return hidden if capturing and hidden and is_out_of_memory(hidden) else None


def breaks_process(error: BaseException) -> bool:
    """Whether the process may be damaged: by anything but what is foreseen."""
    outcome, _ = classify(error)
    unforeseen = outcome == Outcome.FAILED and not isinstance(error, TensorgapError)
    # The memory of a capture that ran out is never given back (pytorch/pytorch#190308).
    return unforeseen or outcome == Outcome.LOST or _hidden_by_capture(error) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _MEMORY_SIGNS)


def now() -> datetime.datetime:
    """This moment, UTC."""
    return datetime.datetime.now(datetime.UTC)
