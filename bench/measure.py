"""The heart: measure one cell on the device in front of it, workload by workload.

    for measurement in measure(Request(...)): ...

A generator, so that every row leaves as soon as it exists and a driver sees which stage runs. What
goes wrong becomes a row with its outcome and reason, and the next workload is measured.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from bench import device, engines, nvml, precision, software
from bench import model as models
from bench.meters import energy, quality, sensor, timing
from bench.records import (
    ENERGY_NOT_MEASURED,
    Cell,
    Energy,
    Measurement,
    Outcome,
    Quality,
    QualityPlan,
    Sampling,
    Sensor,
    Stage,
    TensorgapError,
    Unsupported,
    Workload,
)

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PERPLEXITY = "perplexity"  # the stage whose end by force costs no row
_PROMPTS = 8  # different inputs, used in turn


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
    known_sensors: Mapping[str, Sensor] = field(default_factory=dict)  # by UUID, probed before
    threads: int | None = None  # CPUs to compute with; None: torch's own choice
    simulated: bool = False  # a GPU cell may compute on the CPU below a stand-in for the driver


def measure(request: Request) -> Iterator[Stage | Measurement]:
    """Measure each workload of a request; yields each Stage as it begins and each row when done.

    It ends early after a row in which something broke: such a process is not trusted with another
    measurement, and the caller starts a fresh one for the rest.
    """
    with nvml.driver() as driver:
        yield _stage(request, request.workloads[0], "device")
        try:
            found = device.acquire(
                request.cell, driver, threads=request.threads, simulated=request.simulated
            )
            if found.gpu and request.sampling.energy != "quick":
                known = request.known_sensors.get(found.gpu.uuid)
                if known is None:
                    yield _stage(request, request.workloads[0], "sensor")
                    known = sensor.probe(found.gpu, sensor.matrix_products(found.type))
                found = replace(found, sensor=known)
        except Exception as error:
            for workload in request.workloads:
                yield _failure(request, workload, error)
            return
        versions = software.describe(driver.version, driver.nvml_version)
        for model_name, group in itertools.groupby(request.workloads, lambda w: w.model):
            for event in _measure_model(request, model_name, tuple(group), found):
                if isinstance(event, Stage):
                    yield event
                    continue
                yield replace(
                    event.row, device=found.device, software=versions, sensor=found.sensor
                )
                if event.broken:
                    return


@dataclass(frozen=True)
class _Done:
    """A row, and whether the process can be trusted with another one."""

    row: Measurement
    broken: bool = False


def _measure_model(
    request: Request, name: str, workloads: tuple[Workload, ...], found: device.Found
) -> Iterator[Stage | _Done]:
    """Load a model once, measure its quality once, then each of its workloads."""
    yield _stage(request, workloads[0], "loading")
    try:
        model = models.load(name, request.cell.precision, found.type)
    except Exception as error:
        _forget(error, found.type)
        for workload in workloads:
            yield _Done(_failure(request, workload, error), _is_broken(error))
        return
    known = request.known_quality.get(name)
    if known is None and request.quality.enabled:
        yield _stage(request, workloads[0], PERPLEXITY)
        known = _quality(model, request, found.type)
    for workload in workloads:
        try:
            for event in _measure_workload(request, workload, found, model, known):
                if isinstance(event, Stage):
                    yield event
                else:
                    yield _Done(event, event.outcome == Outcome.LOST)
        except Exception as error:
            _forget(error, found.type)
            row = replace(_failure(request, workload, error), weights=model.weights, quality=known)
            yield _Done(row, _is_broken(error))


def _measure_workload(
    request: Request,
    workload: Workload,
    found: device.Found,
    model: models.Model,
    known: Quality | None,
) -> Iterator[Stage | Measurement]:
    """Time, then energy: the recipe of one row."""
    sampling = request.sampling
    started_at = _now()

    # The switches of a precision are global, so they are on only while something is measured, not
    # while this generator waits in the hands of its caller.
    def under(action: Callable[..., T], *arguments: object) -> T:
        with precision.applied(request.cell.precision, found.type), _inference():
            return action(*arguments)

    queue = forward_queue(found.type, model, workload)
    _reset_peak_memory(found.type)
    yield _stage(request, workload, "warm-up")
    warm = under(timing.warm_up, queue, sampling)
    before = device.observe(found.gpu)
    yield _stage(request, workload, "latency")
    latencies = under(timing.sample_latency, queue, sampling)
    yield _stage(request, workload, "throughput")
    throughput = under(timing.run_throughput, queue, sampling)
    surroundings = device.conditions(before, device.observe(found.gpu))
    peak_memory_bytes = _peak_memory_bytes(found.type)
    yield _stage(request, workload, "energy")
    used, lost = under(_energy, queue, workload, sampling, found)
    doubts = [
        *found.doubts,
        *timing.doubts(warm, latencies, sampling),
        *device.doubts(surroundings),
        *energy.doubts(used),
        *_quality_doubts(model, known),
    ]
    yield Measurement(
        run=request.run,
        cell=request.cell,
        workload=workload,
        replicate=request.replicate,
        # A GPU that went away during the energy leaves the times that it gave before.
        outcome=Outcome.LOST if lost else Outcome.OK,
        reason=lost,
        doubts=tuple(doubts),
        started_at=started_at,
        finished_at=_now(),
        weights=model.weights,
        timing=timing.timing(
            warm,
            latencies,
            throughput,
            batch_size=workload.batch_size,
            prompt_tokens=workload.prompt_tokens,
            peak_memory_bytes=peak_memory_bytes,
        ),
        energy=used,
        quality=known,
        conditions=surroundings,
    )


def _quality(model: models.Model, request: Request, device_type: str) -> Quality:
    """The quality, or the reason why there is none: what fails here does not stop the timing."""
    try:
        with precision.applied(request.cell.precision, device_type):
            return quality.measure_quality(model, request.quality)
    except Exception as error:
        _forget(error, device_type)
        _, reason = classify(error)
        return Quality(text=request.quality.text, reason=reason)


def _quality_doubts(model: models.Model, known: Quality | None) -> list[str]:
    """A perplexity that could have been measured and was not."""
    if known is None or known.reason is None or model.tokenizer is None:
        return []
    return [f"no perplexity: {known.reason}"]


def _energy(
    queue: timing.Queue, workload: Workload, sampling: Sampling, found: device.Found
) -> tuple[Energy, str | None]:
    """The energy, and if the GPU was lost meanwhile, how: what was measured before it stays."""
    try:
        used = energy.measure_energy(
            queue.enqueue,
            queue.synchronise,
            samples_per_step=workload.batch_size,
            tokens_per_step=workload.batch_size * workload.prompt_tokens,
            sampling=sampling,
            meter=energy.find_meter(found.gpu, sensor=found.sensor),
        )
    except energy.LostError as error:
        return error.energy, str(error)
    except nvml.GpuLostError as error:
        return Energy(ENERGY_NOT_MEASURED, reason=str(error)), str(error)
    return used, None


class _CpuQueue:
    """On a CPU a forward is done when it returns."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run

    def enqueue(self) -> None:
        self._run()

    def synchronise(self) -> None:
        pass

    def timed(self) -> None:
        self._run()


class _CudaQueue:
    """CUDA launches kernels and returns; events on the stream tell the device's own time."""

    def __init__(self, run: Callable[[], object]) -> None:
        import torch

        self._run = run
        self._torch = torch
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def enqueue(self) -> None:
        self._run()

    def synchronise(self) -> None:
        self._torch.cuda.synchronize()

    def timed(self) -> float:
        self._start.record()
        self._run()
        self._end.record()
        self._torch.cuda.synchronize()
        return float(self._start.elapsed_time(self._end))


def forward_queue(device_type: str, model: models.Model, workload: Workload) -> timing.Queue:
    """A queue of forwards over prompts of real tokens, which lie on the device already."""
    if workload.prompt_tokens > model.positions:
        raise Unsupported(
            f"{workload.model} has {model.positions} positions, prompt_tokens ="
            f" {workload.prompt_tokens}"
        )
    forward = engines.forward(workload.engine, model.module)
    prompts = itertools.cycle(_prompts(model, workload).to(device_type))

    def run() -> None:
        forward(next(prompts))

    return _CudaQueue(run) if device_type == "cuda" else _CpuQueue(run)


def _prompts(model: models.Model, workload: Workload) -> torch.Tensor:
    """Token ids (prompts, batch, tokens) of the embedded text, cut one after the other."""
    import torch

    ids = torch.tensor(models.prompt_ids(model))
    shape = (_PROMPTS, workload.batch_size, workload.prompt_tokens)
    needed = _PROMPTS * workload.batch_size * workload.prompt_tokens
    return ids.repeat(-(-needed // len(ids)))[:needed].reshape(shape)


def _stage(request: Request, workload: Workload, name: str) -> Stage:
    return Stage(request.cell, workload, request.replicate, name, socket.gethostname())


def _failure(request: Request, workload: Workload, error: Exception) -> Measurement:
    outcome, reason = classify(error)
    return failed(request, workload, outcome, reason)


def failed(request: Request, workload: Workload, outcome: Outcome, reason: str) -> Measurement:
    """The row of a workload that could not be measured."""
    return Measurement(
        run=request.run,
        cell=request.cell,
        workload=workload,
        replicate=request.replicate,
        outcome=outcome,
        reason=reason,
        finished_at=_now(),
    )


def classify(error: BaseException) -> tuple[Outcome, str]:
    """What an exception means for the row, and the reason in words."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if isinstance(error, Unsupported):
        return Outcome.UNSUPPORTED, text
    if isinstance(error, TensorgapError | device.WrongDevice):
        return Outcome.FAILED, text
    if isinstance(error, nvml.GpuLostError):
        return Outcome.LOST, text
    if models.is_out_of_memory(error):
        return Outcome.OUT_OF_MEMORY, first or "out of memory"
    return Outcome.FAILED, f"{type(error).__name__}: {first}" if first else type(error).__name__


def _is_broken(error: Exception) -> bool:
    """Whether the process may be damaged: by anything but what is foreseen."""
    outcome, _ = classify(error)
    return outcome == Outcome.LOST or (
        outcome == Outcome.FAILED and not isinstance(error, TensorgapError)
    )


def _forget(error: Exception, device_type: str) -> None:
    """Free what the failed attempt held on the device; its traceback holds it otherwise."""
    traceback.clear_frames(error.__traceback__)
    if device_type == "cuda":
        import torch

        with contextlib.suppress(RuntimeError):  # a broken CUDA context
            torch.cuda.empty_cache()


def _inference() -> contextlib.AbstractContextManager[None]:
    import torch

    context: contextlib.AbstractContextManager[None] = torch.inference_mode()
    return context


def _reset_peak_memory(device_type: str) -> None:
    if device_type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def _peak_memory_bytes(device_type: str) -> int | None:
    if device_type != "cuda":
        return None
    import torch

    return int(torch.cuda.max_memory_allocated())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
