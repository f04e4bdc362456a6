"""The heart: measure one cell on the device in front of it, workload by workload.

    for measurement in measure(Request(...)): ...

A generator, so that every row leaves as soon as it exists and a driver sees which stage runs. What
goes wrong becomes a row with its outcome and reason, and the next workload is measured.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

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
    Stage,
    TensorgapError,
    Unsupported,
    Workload,
)

if TYPE_CHECKING:
    import torch

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


def measure(request: Request) -> Iterator[Stage | Measurement]:
    """Measure each workload of a request; yields each Stage as it begins and each row when done.

    A row that is FAILED or LOST is the last one: a process in which something broke is not trusted
    with another measurement. The caller starts a fresh one for the rest.
    """
    first = request.workloads[0]
    with nvml.driver() as driver:
        yield _stage(request, first, "device")
        try:
            found = device.acquire(request.cell, driver)
            if found.gpu and request.sampling.energy != "quick":
                yield _stage(request, first, "sensor")
                load = sensor.matrix_products(found.type)
                found = replace(found, sensor=sensor.probe(found.gpu, load))
        except Exception as error:
            for workload in request.workloads:
                yield _failure(request, workload, error)
            return
        versions = software.describe(driver.version, driver.nvml_version)
        with precision.applied(request.cell.precision, found.type):
            for model_name, group in itertools.groupby(request.workloads, lambda w: w.model):
                for event in _measure_model(request, model_name, tuple(group), found):
                    if isinstance(event, Measurement):
                        event = replace(
                            event, device=found.device, software=versions, sensor=found.sensor
                        )
                    yield event
                    if isinstance(event, Measurement) and event.outcome in (
                        Outcome.FAILED,
                        Outcome.LOST,
                    ):
                        return


def _measure_model(
    request: Request, name: str, workloads: tuple[Workload, ...], found: device.Found
) -> Iterator[Stage | Measurement]:
    """Load a model once, measure its quality once, then each of its workloads."""
    try:
        yield _stage(request, workloads[0], "loading")
        model = models.load(name, request.cell.precision, found.type)
        known = request.known_quality.get(name)
        if known is None and request.quality.enabled:
            yield _stage(request, workloads[0], "perplexity")
            known = _quality(model, request.quality)
    except Exception as error:
        _forget_memory(found.type)
        for workload in workloads:
            yield _failure(request, workload, error)
        return
    for workload in workloads:
        try:
            yield from _measure_workload(request, workload, found, model, known)
        except Exception as error:
            _forget_memory(found.type)
            failure = _failure(request, workload, error)
            yield replace(failure, weights=model.weights, quality=known)


def _measure_workload(
    request: Request,
    workload: Workload,
    found: device.Found,
    model: models.Model,
    known: Quality | None,
) -> Iterator[Stage | Measurement]:
    """Time, then energy: the recipe of one row."""
    import torch

    sampling = request.sampling
    started_at = _now()
    before = device.observe(found.gpu)
    with torch.inference_mode():
        queue = forward_queue(
            found.type, engines.forward(workload.engine, model.module), model, workload
        )
        if found.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        yield _stage(request, workload, "warm-up")
        warm = timing.warm_up(queue, sampling)
        yield _stage(request, workload, "latency")
        latencies = timing.sample_latency(queue, sampling)
        after = device.observe(found.gpu)
        yield _stage(request, workload, "throughput")
        throughput = timing.run_throughput(queue, sampling)
        peak = torch.cuda.max_memory_allocated() if found.type == "cuda" else None
        yield _stage(request, workload, "energy")
        used, lost = _energy(queue, workload, sampling, found)
    surroundings = device.conditions(before, after)
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
            peak_memory_bytes=peak,
        ),
        energy=used,
        quality=known,
        conditions=surroundings,
    )


def _quality(model: models.Model, plan: QualityPlan) -> Quality:
    """The quality, or the reason why it has none: a missing text does not stop the timing."""
    try:
        return quality.measure_quality(model, plan)
    except TensorgapError as error:
        return Quality(text=plan.text, reason=str(error))


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


def forward_queue(
    device_type: str, forward: engines.Forward, model: models.Model, workload: Workload
) -> timing.Queue:
    """A queue of forwards over prompts of real tokens, which lie on the device already."""
    if workload.prompt_tokens > model.positions:
        raise Unsupported(
            f"{workload.model} has {model.positions} positions, prompt_tokens ="
            f" {workload.prompt_tokens}"
        )
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
    return Stage(request.cell, workload, request.replicate, name)


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
    # torch.OutOfMemoryError on CUDA; the CPU allocator raises a plain RuntimeError.
    if isinstance(error, MemoryError) or any(
        sign in text.lower() for sign in ("out of memory", "can't allocate memory")
    ):
        return Outcome.OUT_OF_MEMORY, first or "out of memory"
    return Outcome.FAILED, f"{type(error).__name__}: {first}" if first else type(error).__name__


def _forget_memory(device_type: str) -> None:
    if device_type == "cuda":
        import torch

        with contextlib.suppress(RuntimeError):  # a broken CUDA context
            torch.cuda.empty_cache()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
