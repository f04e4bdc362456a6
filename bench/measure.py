"""Measure one cell on the device in front of it, workload by workload.

    for event in measure(Request(...)): ...

A generator, so that every row leaves as soon as it exists and a driver sees which stage runs. What
goes wrong becomes a row with its outcome and reason, and the next workload is measured.

A profiler slows its process for good, so profiles are measured when the last workload is timed,
also where that one broke, as long as the device still computes. Each is an event of its own: a
profiler that takes the whole process with it costs a profile and no row.
"""

import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from bench import measured, outcomes, timing
from bench.asked import AUTO, ENERGY_NOT_MEASURED, Workload
from bench.device import acquire as device
from bench.device import conditions, gpus, nvml, precision, software
from bench.device.faults import cause_of, fault_of
from bench.energy import flags
from bench.energy.meter import UNKNOWN, Meter, NoMeter, find_meter
from bench.energy.probe import matrix_products, probe
from bench.energy.protocol import LostError, measure_energy
from bench.errors import GpuLostError, WrongDevice
from bench.measured import Measurement, Outcome, Profile, Quality, Stage
from bench.measured.profiled import Trace
from bench.model import attention, engines
from bench.model.load import Model, load_model
from bench.model.requests import forward_queue
from bench.outcomes import Request, breaks_process, classify, failed, now
from bench.perplexity import evaluate as quality
from bench.profile import quantised
from bench.profile.gather import gather
from bench.warnings import RowWarning

T = TypeVar("T")

_NO_PROBE = ("quick", ENERGY_NOT_MEASURED)


def measure(request: Request) -> Iterator[measured.Event]:
    """Measure each workload of a request; yields each Stage as it begins, then rows and profiles.

    The timing ends early after a row in which something broke: such a process is not trusted with
    another one, and the caller starts a fresh one for the rest.

    Raises WrongDevice, before it has measured anything, where the GPU is not of the cell's
    type: whoever placed it there has to find another.
    """
    with nvml.driver() as driver:
        yield outcomes.stage(request, request.workloads[0], outcomes.DEVICE)
        try:
            found = device.acquire(
                request.cell, driver, threads=request.threads, simulated=request.simulated
            )
            metered = isinstance(meter_of(found), Meter)
            if found.gpu and metered and request.sampling.energy not in _NO_PROBE:
                known = request.known_sensors.get((found.gpu.uuid, driver.version))
                if known is None:
                    yield outcomes.stage(request, request.workloads[0], "sensor")
                found = replace(found, sensor=known) if known else probed(found, found.gpu)
            versions = software.describe(driver.version, driver.nvml_version)
        except WrongDevice:
            raise
        except Exception as error:
            yield from outcomes.all_failed(request, error)
            return
        process = Process(request, found, versions)
        rows: list[Measurement] = []
        for event in process.rows():
            yield event
            if isinstance(event, Measurement) and event.outcome == Outcome.OK:
                rows.append(event)
        if request.sampling.profile:
            # The model that was measured last is still loaded.
            yield from process.profiles(rows[::-1])


def meter_of(found: device.Found) -> Meter | NoMeter:
    """Of the device; a GPU that NVML does not see has none, for the CPU's is not its."""
    if found.type == "cuda" and found.gpu is None:
        return NoMeter("NVML does not see this GPU; a warning of the row says why")
    return find_meter(found.gpu, sensor=found.sensor)


def probed(found: device.Found, gpu: nvml.Gpu) -> device.Found:
    """The device with its power sensor; a probe that fails leaves it unknown, a warning."""
    try:
        return replace(found, sensor=probe(gpu, matrix_products(found.type)))
    except Exception as error:
        cause = cause_of(error, found)
        if isinstance(cause, GpuLostError):
            raise cause from error
        known = measured.Sensor(UNKNOWN, reason=f"the probe failed: {classify(error)[1]}")
        warning = RowWarning("sensor-unknown", {"reason": known.reason})
        return replace(found, sensor=known, warnings=(*found.warnings, warning))


class Process:
    """Measures the workloads of a request on one device, and holds the model in memory."""

    def __init__(self, request: Request, found: device.Found, versions: measured.Software) -> None:
        self._request, self._found, self._versions = request, found, versions
        self._on_cuda = found.type == "cuda"
        self._model: tuple[str, Model] | None = None
        self._broken = False  # a row broke something: no other is measured in this process

    def rows(self) -> Iterator[Stage | Measurement]:
        """The row of each workload, up to one in which something broke.

        A model is loaded once and its quality measured once, before the first of its workloads.
        """
        request, found = self._request, self._found
        for name, group in itertools.groupby(request.workloads, lambda workload: workload.model):
            workloads = tuple(group)
            yield outcomes.stage(request, workloads[0], "loading")
            model = cause = None
            known = request.known_quality.get(name)
            try:
                model = self._load(name)
            except Exception as error:
                cause, known = cause_of(error, found), None
            if model and known is None and request.quality.enabled:
                yield outcomes.stage(request, workloads[0], outcomes.PERPLEXITY)
                known = self._quality(model)
            for workload in workloads:
                if model:
                    try:
                        row, cause = (yield from self._row(workload, model, known)), None
                    except Exception as error:
                        cause = cause_of(error, found)
                if cause:
                    row = failed(request, workload, *classify(cause))
                    self._broken = breaks_process(cause)
                yield replace(
                    row,
                    device=found.device,
                    software=self._versions,
                    sensor=found.sensor,
                    weights=model.weights if model else None,
                    quality=known,
                )
                if self._broken:
                    return

    def profiles(self, rows: Sequence[Measurement]) -> Iterator[Stage | Profile]:
        """The profile of each of these rows, or the reason why there is none."""
        found = self._found
        fault = fault_of(found) if self._broken else None
        for row in rows:
            workload, limits = row.workload, None
            if fault:
                why = f"the device failed before the profile: {classify(fault)[1]}"
                trace = Trace("none", reason=why)
            else:
                yield outcomes.stage(self._request, workload, outcomes.PROFILE)
                latency_ms = row.timing.latency_ms_p50 if row.timing else None
                try:
                    asked = workload, row.cell.precision, self._load(workload.model)
                    trace, limits = self._as_asked(workload, gather, *asked, found, latency_ms)
                except Exception as error:
                    cause = cause_of(error, found)
                    trace = Trace("none", reason=classify(cause)[1])
                    fault = fault_of(found) if breaks_process(cause) else None
            differs = attention.warning(workload.attention, trace.attention)
            kernel = quantised.warning(row.cell.precision, workload, found.type, trace.products)
            warnings = tuple(filter(None, (differs, kernel)))
            whose = row.run, row.cell, workload, row.replicate
            yield Profile(*whose, trace, limits, warnings, measured_at=now())

    def _load(self, name: str) -> Model:
        """A model, while the one before is forgotten: never two are in memory."""
        if self._model is None or self._model[0] != name:
            self._model = None
            self._model = name, load_model(name, self._request.cell.precision, self._found.type)
        return self._model[1]

    def _as_asked(self, workload: Workload, action: Callable[..., T], *arguments: object) -> T:
        """Do something at the precision and with the attention asked for, without gradients.

        The switches are global, so they are on only while something is measured, not while a
        generator waits in the hands of its caller.
        """
        with (
            precision.applied(self._request.cell.precision, self._found.type),
            attention.applied(workload.attention),
            torch.inference_mode(),
        ):
            return action(*arguments)

    def _quality(self, model: Model) -> Quality:
        """The quality, or why there is none: what fails here does not stop the timing."""
        asked, found = self._request.quality, self._found
        if self._on_cuda and found.device.simulated:
            return Quality(text=asked.text, reason="a modelled GPU computes nothing")
        try:
            with precision.applied(self._request.cell.precision, found.type):
                return quality.measure_quality(model, asked)
        except Exception as error:
            return Quality(text=asked.text, reason=classify(cause_of(error, found))[1])

    def _row(
        self, workload: Workload, model: Model, known: Quality | None
    ) -> Generator[Stage, None, Measurement]:
        """Time, then energy: the recipe of one row."""
        request, started_at = self._request, now()
        queue, first = yield from self._prepare(workload, model)
        times, surroundings, told = yield from self._time(workload, queue, first)
        yield outcomes.stage(self._request, workload, "energy")
        used, outcome, reason = self._as_asked(workload, self._energy, queue, workload)
        self._broken = outcome in (Outcome.LOST, Outcome.FAILED)
        return Measurement(
            run=request.run,
            cell=request.cell,
            workload=workload,
            replicate=request.replicate,
            # What ends the energy leaves the times that were measured before.
            outcome=outcome,
            reason=reason,
            warnings=(
                *self._found.warnings,
                *told,
                *conditions.warnings(surroundings),
                *flags.warnings(used),
                *quality.warnings(known, model.weights, workload.model, request.cell.precision),
                *self._untraced(workload),
            ),
            started_at=started_at,
            finished_at=now(),
            timing=times,
            energy=used,
            conditions=surroundings,
        )

    def _untraced(self, workload: Workload) -> list[RowWarning]:
        """Where no profile will tell which kernel multiplied quantised weights: a warning."""
        asked = workload, self._found.type, None
        told = quantised.warning(self._request.cell.precision, *asked)
        return [told] if told and not self._request.sampling.profile else []

    def _prepare(
        self, workload: Workload, model: Model
    ) -> Generator[Stage, None, tuple[timing.Queue, timing.Queue | None]]:
        """Requests that can be enqueued, and with new tokens those for the first of them alone."""
        cell, found = self._request.cell, self._found
        capability = gpus.capability(found.device.compute_capability)
        engines.check(workload.engine, found.type, capability, cell.precision)
        if workload.attention != AUTO:
            yield outcomes.stage(self._request, workload, "preparing")
            # In eager mode, where torch says why; a new token's attention is one with a mask.
            tried = replace(workload, engine="eager", new_tokens=min(workload.new_tokens, 1))
            trial = forward_queue(found.type, model, tried)
            self._as_asked(
                workload, attention.check, workload.attention, found.type, lambda: _once(trial)
            )
            del trial
        queue = forward_queue(found.type, model, workload)
        first = None
        if workload.new_tokens:
            # The same request with one new token, so that no clock stands within a request.
            first = forward_queue(found.type, model, replace(workload, new_tokens=1))
        if self._on_cuda:
            # What torch keeps for cuBLAS, one for each stream that ever multiplied on it. A graph
            # is captured on a stream of its own. Else a row of one would hold that stream's and the
            # usual one's, of the products before it (32 MiB each on an H100), and each row the
            # graphs' before it. No graph that was captured before is replayed after.
            torch.cuda.synchronize()
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.reset_peak_memory_stats()
        if workload.engine != "eager":
            yield outcomes.stage(self._request, workload, "preparing")
            self._as_asked(workload, _once, queue)  # compiles or captures
        if workload.engine == "compile" and self._on_cuda:
            # What inductor tries is no request's. The memory of a graph is allocated by then.
            torch.cuda.reset_peak_memory_stats()
        return queue, first

    def _time(
        self, workload: Workload, queue: timing.Queue, first: timing.Queue | None
    ) -> Generator[Stage, None, tuple[measured.Timing, measured.Conditions, list[RowWarning]]]:
        """Warm-up, latency, time to the first new token and throughput."""
        sampling = self._request.sampling
        yield outcomes.stage(self._request, workload, "warm-up")
        warm = self._as_asked(workload, timing.warm_up, queue, sampling)
        before = conditions.observe(self._found.gpu)
        yield outcomes.stage(self._request, workload, "latency")
        latencies = self._as_asked(workload, timing.sample_latency, queue, sampling)
        # Before `first` has a cache of its own.
        peak_memory_bytes = torch.cuda.max_memory_allocated() if self._on_cuda else None
        first_token = None
        if first is not None:
            if workload.engine != "eager":
                yield outcomes.stage(self._request, workload, "preparing")
            self._as_asked(workload, _once, first)
            yield outcomes.stage(self._request, workload, "first token")
            first_token = self._as_asked(workload, timing.sample_latency, first, sampling)
        yield outcomes.stage(self._request, workload, "throughput")
        alone_ms = latencies.summary.p50
        throughput = self._as_asked(workload, timing.run_throughput, queue, sampling, alone_ms)
        surroundings = conditions.between(before, conditions.observe(self._found.gpu))
        times = timing.timing(warm, latencies, throughput, workload, first_token, peak_memory_bytes)
        return times, surroundings, timing.warnings(warm, latencies, sampling, first_token)

    def _energy(
        self, queue: timing.Queue, workload: Workload
    ) -> tuple[measured.Energy, Outcome, str | None]:
        """The energy, and what ended it early, if anything did."""
        sampling = self._request.sampling
        none = functools.partial(measured.Energy, ENERGY_NOT_MEASURED)
        if sampling.energy == ENERGY_NOT_MEASURED:
            return none("no energy was asked for"), Outcome.OK, None
        try:
            used = measure_energy(
                queue,
                samples_per_step=workload.batch_size,
                tokens_per_step=workload.batch_size * workload.prompt_tokens,
                sampling=sampling,
                meter=meter_of(self._found),
            )
        except LostError as error:
            return error.energy, *classify(error)
        except Exception as error:
            outcome, reason = classify(cause_of(error, self._found))
            return none(reason), outcome, reason
        if workload.new_tokens and used.per_sample_mj is not None:
            used = replace(used, per_output_token_mj=used.per_sample_mj / workload.new_tokens)
        return used, Outcome.OK, None


def _once(queue: timing.Queue) -> None:
    queue.enqueue()
    queue.synchronise()
