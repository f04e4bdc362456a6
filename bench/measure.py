"""The heart: measure one cell on the device in front of it, workload by workload.

    for measurement in measure(Request(...)): ...

A generator, so that every row leaves as soon as it exists and a driver sees which stage runs. What
goes wrong becomes a row with its outcome and reason, and the next workload is measured.

A profiler slows its process for good, so profiles are measured when the last workload is timed,
also where that one broke, as long as the device still computes. Each is an event of its own: a
profiler that takes the whole process with it costs a profile and no row.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from bench import timing
from bench.asked import AUTO, ENERGY_NOT_MEASURED, Sampling, Workload
from bench.device import acquire as device
from bench.device import conditions, nvml, precision, software
from bench.energy import flags, meter
from bench.energy import probe as sensor
from bench.energy import session as energy
from bench.errors import GpuLostError, TensorgapError, Unsupported, WrongDevice
from bench.measured import (
    Energy,
    Event,
    Measurement,
    Outcome,
    Profile,
    Quality,
    Roofline,
    Sensor,
    Stage,
    Trace,
)
from bench.model import attention, engines
from bench.model import requests as queues
from bench.model.load import Model, load_model
from bench.outcomes import (
    DEVICE,
    PERPLEXITY,
    PROFILE,
    Request,
    classify,
    failed,
    hidden_by_capture,
    now,
)
from bench.perplexity import evaluate as quality
from bench.profile import gather as evidence
from bench.warnings import RowWarning

T = TypeVar("T")

_NO_PROBE = ("quick", ENERGY_NOT_MEASURED)


def measure(request: Request) -> Iterator[Event]:
    """Measure each workload of a request; yields each Stage as it begins and each row when done.

    The timing ends early after a row in which something broke: such a process is not trusted with
    another one, and the caller starts a fresh one for the rest.

    Raises WrongDevice, before it has measured anything, where the GPU is not of the cell's
    type: whoever placed it there has to find another.
    """
    with nvml.driver() as driver:
        yield _stage(request, request.workloads[0], DEVICE)
        try:
            found = device.acquire(
                request.cell, driver, threads=request.threads, simulated=request.simulated
            )
            metered = isinstance(_meter(found), meter.Meter)
            if found.gpu and metered and request.sampling.energy not in _NO_PROBE:
                known = request.known_sensors.get((found.gpu.uuid, driver.version))
                if known is None:
                    yield _stage(request, request.workloads[0], "sensor")
                    found = _probed(found, found.gpu)
                else:
                    found = replace(found, sensor=known)
            versions = software.describe(driver.version, driver.nvml_version)
        except WrongDevice:
            raise
        except Exception as error:
            for workload in request.workloads:
                yield _failure(request, workload, error)
            return
        shelf = _Shelf(request.cell.precision, found.type)
        rows: list[Measurement] = []
        broken = False
        for event in _measure_all(request, found, shelf):
            if isinstance(event, Stage):
                yield event
                continue
            row = replace(event.row, device=found.device, software=versions, sensor=found.sensor)
            yield row
            rows.append(row)
            broken = event.broken
        if request.sampling.profile:
            # The model that was measured last is still loaded.
            measured = [row for row in reversed(rows) if row.outcome == Outcome.OK]
            why = _why_unusable(found) if broken else None
            yield from _explain(request, measured, found, shelf, why)


def _probed(found: device.Found, gpu: nvml.Gpu) -> device.Found:
    """The device with its power sensor; a probe that fails leaves it unknown, a warning."""
    try:
        known = sensor.probe(gpu, sensor.matrix_products(found.type))
    except Exception as error:
        cause = _cause(error, gpu)
        if isinstance(cause, GpuLostError):
            raise cause from error
        _forget(error, found.type)
        _, reason = classify(error)
        known = Sensor(meter.UNKNOWN, reason=f"the probe failed: {reason}")
        return replace(
            found,
            sensor=known,
            warnings=(*found.warnings, RowWarning("sensor-unknown", {"reason": known.reason})),
        )
    return replace(found, sensor=known)


@dataclass(frozen=True)
class _Done:
    """A row, and whether the process can be trusted with another one."""

    row: Measurement
    broken: bool = False


class _Shelf:
    """Loads models and holds the last one, so that never two are in memory."""

    def __init__(self, precision_name: str, device_type: str) -> None:
        self._precision_name, self._device_type = precision_name, device_type
        self._held: tuple[str, Model] | None = None

    def get(self, name: str) -> Model:
        if self._held is None or self._held[0] != name:
            self._held = None
            self._held = name, load_model(name, self._precision_name, self._device_type)
        return self._held[1]


def _measure_all(request: Request, found: device.Found, shelf: _Shelf) -> Iterator[Stage | _Done]:
    """Each workload, up to one in which something broke."""
    for name, group in itertools.groupby(request.workloads, lambda workload: workload.model):
        for event in _measure_model(request, name, tuple(group), found, shelf):
            yield event
            if isinstance(event, _Done) and event.broken:
                return


def _measure_model(
    request: Request,
    name: str,
    workloads: tuple[Workload, ...],
    found: device.Found,
    shelf: _Shelf,
) -> Iterator[Stage | _Done]:
    """Load a model once, measure its quality once, then each of its workloads."""
    yield _stage(request, workloads[0], "loading")
    try:
        model = shelf.get(name)
    except Exception as error:
        cause = _cause(error, found.gpu)
        _forget(error, found.type)
        for workload in workloads:
            yield _Done(_failure(request, workload, cause), _is_broken(cause))
        return
    known = request.known_quality.get(name)
    if known is None and request.quality.enabled:
        yield _stage(request, workloads[0], PERPLEXITY)
        known = _quality(model, request, found)
    for workload in workloads:
        try:
            for event in _measure_workload(request, workload, found, model, known):
                if isinstance(event, Stage):
                    yield event
                else:
                    yield _Done(event, event.outcome in (Outcome.LOST, Outcome.FAILED))
        except Exception as error:
            cause = _cause(error, found.gpu)
            _forget(error, found.type)
            row = replace(_failure(request, workload, cause), weights=model.weights, quality=known)
            yield _Done(row, _is_broken(cause))


def _measure_workload(
    request: Request,
    workload: Workload,
    found: device.Found,
    model: Model,
    known: Quality | None,
) -> Iterator[Stage | Measurement]:
    """Time, then energy: the recipe of one row."""
    sampling = request.sampling
    started_at = now()

    # The switches are global, so they are on only while something is measured, not while this
    # generator waits in the hands of its caller.
    def under(action: Callable[..., T], *arguments: object) -> T:
        with _as_asked(request, workload, found):
            return action(*arguments)

    engines.check(workload.engine, found.type, _capability(found), request.cell.precision)
    if workload.attention != AUTO:
        yield _stage(request, workload, "preparing")
        # In eager mode, where torch says why; a new token's attention is one with a mask.
        tried = replace(workload, engine="eager", new_tokens=min(workload.new_tokens, 1))
        trial = queues.forward_queue(found.type, model, tried)
        under(attention.check, workload.attention, found.type, lambda: _once(trial))
        del trial
    queue = queues.forward_queue(found.type, model, workload)
    first = None
    if workload.new_tokens:
        # The same request with one new token, so that no clock stands within a request.
        first = queues.forward_queue(found.type, model, replace(workload, new_tokens=1))
    _clear_workspaces(found.type)
    _reset_peak_memory(found.type)
    if workload.engine != "eager":
        yield _stage(request, workload, "preparing")
        under(_once, queue)  # compiles or captures
    if workload.engine == "compile":
        # What inductor tries while it compiles is no request's. A graph's memory is had by then.
        _reset_peak_memory(found.type)
    yield _stage(request, workload, "warm-up")
    warm = under(timing.warm_up, queue, sampling)
    before = conditions.observe(found.gpu)
    yield _stage(request, workload, "latency")
    latencies = under(timing.sample_latency, queue, sampling)
    peak_memory_bytes = _peak_memory_bytes(found.type)  # before `first` has a cache of its own
    first_token = None
    if first is not None:
        if workload.engine != "eager":
            yield _stage(request, workload, "preparing")
        under(_once, first)
        yield _stage(request, workload, "first token")
        first_token = under(timing.sample_latency, first, sampling)
    yield _stage(request, workload, "throughput")
    throughput = under(timing.run_throughput, queue, sampling, latencies.summary.p50)
    surroundings = conditions.between(before, conditions.observe(found.gpu))
    yield _stage(request, workload, "energy")
    used, end = under(_energy, queue, workload, sampling, found)
    outcome, reason = end or (Outcome.OK, None)
    told = [
        *found.warnings,
        *timing.warnings(warm, latencies, sampling, first_token),
        *conditions.warnings(surroundings),
        *flags.warnings(used),
        *quality.warnings(known, model.weights, workload.model, request.cell.precision),
    ]
    yield Measurement(
        run=request.run,
        cell=request.cell,
        workload=workload,
        replicate=request.replicate,
        # What ends the energy leaves the times that were measured before.
        outcome=outcome,
        reason=reason,
        warnings=tuple(told),
        started_at=started_at,
        finished_at=now(),
        weights=model.weights,
        timing=timing.timing(
            warm,
            latencies,
            throughput,
            workload,
            first_token=first_token,
            peak_memory_bytes=peak_memory_bytes,
        ),
        energy=used,
        quality=known,
        conditions=surroundings,
    )


def _explain(
    request: Request,
    rows: list[Measurement],
    found: device.Found,
    shelf: _Shelf,
    unusable: str | None,
) -> Iterator[Stage | Profile]:
    """The profile of each row, or the reason why there is none.

    Args:
        request: what was asked.
        rows: that are OK.
        found: the device.
        shelf: its models.
        unusable: why the device computes no longer.
    """
    for row in rows:
        if unusable:
            yield _profile(row, _untraced(f"the device failed before the profile: {unusable}"))
            continue
        yield _stage(request, row.workload, PROFILE)
        name = request.cell.precision
        latency_ms = row.timing.latency_ms_p50 if row.timing else None
        try:
            model = shelf.get(row.workload.model)
            with _as_asked(request, row.workload, found):
                seen, limits = evidence.gather(row.workload, name, model, found, latency_ms)
            told = attention.warning(row.workload.attention, seen.attention)
            profile = _profile(row, seen, limits, (told,) if told else ())
        except Exception as error:
            cause = _cause(error, found.gpu)
            _forget(error, found.type)
            profile = _profile(row, _untraced(classify(cause)[1]))
            unusable = _why_unusable(found) if _is_broken(cause) else None
        yield profile


def _profile(
    row: Measurement,
    trace: Trace,
    roofline: Roofline | None = None,
    warnings: tuple[RowWarning, ...] = (),
) -> Profile:
    asked = (row.run, row.cell, row.workload, row.replicate)
    return Profile(*asked, trace, roofline, warnings, measured_at=now())


def _untraced(reason: str) -> Trace:
    return Trace("none", reason=reason)


def _why_unusable(found: device.Found) -> str | None:
    """Why a device computes no longer after something broke; None where it does.

    Some errors of CUDA are left by nothing but the end of the process: each later call gives them
    again. Others, as of a compiler that is not there, never reached the device.
    """
    if found.type != "cuda":
        return None
    import torch

    try:
        if found.gpu:
            found.gpu.check()
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").sum().item()
    except Exception as error:
        return classify(error)[1]
    return None


def _quality(model: Model, request: Request, found: device.Found) -> Quality:
    """The quality, or the reason why there is none: what fails here does not stop the timing."""
    if found.type == "cuda" and found.device.simulated:
        return Quality(text=request.quality.text, reason="a modelled GPU computes nothing")
    try:
        with precision.applied(request.cell.precision, found.type):
            return quality.measure_quality(model, request.quality)
    except Exception as error:
        _forget(error, found.type)
        _, reason = classify(error)
        return Quality(text=request.quality.text, reason=reason)


def _energy(
    queue: timing.Queue, workload: Workload, sampling: Sampling, found: device.Found
) -> tuple[Energy, tuple[Outcome, str] | None]:
    """The energy, and what ended it early, if anything did."""
    if sampling.energy == ENERGY_NOT_MEASURED:
        return Energy(ENERGY_NOT_MEASURED, reason="no energy was asked for"), None
    try:
        used = energy.measure_energy(
            queue,
            samples_per_step=workload.batch_size,
            tokens_per_step=workload.batch_size * workload.prompt_tokens,
            sampling=sampling,
            meter=_meter(found),
        )
    except energy.LostError as error:
        return error.energy, classify(error)
    except Exception as error:
        end = classify(_cause(error, found.gpu))
        _forget(error, found.type)
        return Energy(ENERGY_NOT_MEASURED, reason=end[1]), end
    if workload.new_tokens and used.per_sample_mj is not None:
        used = replace(used, per_output_token_mj=used.per_sample_mj / workload.new_tokens)
    return used, None


def _meter(found: device.Found) -> meter.Meter | meter.NoMeter:
    """Of the device; a GPU that NVML does not see has none, for the CPU's is not its."""
    if found.type == "cuda" and found.gpu is None:
        return meter.NoMeter("NVML does not see this GPU; a warning of the row says why")
    return meter.find_meter(found.gpu, sensor=found.sensor)


def _once(queue: timing.Queue) -> None:
    queue.enqueue()
    queue.synchronise()


def _capability(found: device.Found) -> tuple[int, int] | None:
    if found.device.compute_capability is None:
        return None
    major, minor = map(int, found.device.compute_capability.split("."))
    return major, minor


def _stage(request: Request, workload: Workload, name: str) -> Stage:
    return Stage(request.cell, workload, request.replicate, name, socket.gethostname())


def _failure(request: Request, workload: Workload, error: Exception) -> Measurement:
    outcome, reason = classify(error)
    return failed(request, workload, outcome, reason)


def _cause(error: Exception, gpu: nvml.Gpu | None) -> Exception:
    """The loss of the GPU, where the driver tells of one: torch words it as any other error."""
    if gpu and not isinstance(error, TensorgapError | Unsupported):
        try:
            gpu.check()
        except GpuLostError as lost:
            return lost
    return error


def _is_broken(error: Exception) -> bool:
    """Whether the process may be damaged: by anything but what is foreseen."""
    outcome, _ = classify(error)
    return (
        outcome == Outcome.LOST
        or (outcome == Outcome.FAILED and not isinstance(error, TensorgapError))
        # The memory of such a capture is never given back (pytorch/pytorch#190308).
        or hidden_by_capture(error) is not None
    )


def _forget(error: Exception, device_type: str) -> None:
    """Free what the failed attempt held on the device; its traceback holds it otherwise."""
    traceback.clear_frames(error.__traceback__)
    if device_type == "cuda":
        import torch

        with contextlib.suppress(RuntimeError):  # a broken CUDA context
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _as_asked(request: Request, workload: Workload, found: device.Found) -> Iterator[None]:
    """Everything inside runs the model at the precision and with the attention asked for."""
    with (
        precision.applied(request.cell.precision, found.type),
        attention.applied(workload.attention),
        _inference(),
    ):
        yield


def _inference() -> contextlib.AbstractContextManager[None]:
    import torch

    context: contextlib.AbstractContextManager[None] = torch.inference_mode()
    return context


def _clear_workspaces(device_type: str) -> None:
    """Free what torch keeps for cuBLAS, one for each stream that ever multiplied on it.

    A graph is captured on a stream of its own. Else a row of one would hold that stream's and the
    usual one's, of the products before it (32 MiB each on an H100), and each row the graphs'
    before it. No graph that was captured before is replayed after.
    """
    if device_type == "cuda":
        import torch

        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()


def _reset_peak_memory(device_type: str) -> None:
    if device_type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def _peak_memory_bytes(device_type: str) -> int | None:
    if device_type != "cuda":
        return None
    import torch

    return int(torch.cuda.max_memory_allocated())
