"""What a process measures in the tests of the cluster: rows of no torch, as slow as they are told.

`latency_min_s` is how long each of the stages perplexity, latency and profile lasts, and for the
model `./slow` the loading. `./broken` breaks its process, `./huge` lacks memory, and tf32 is
unsupported, as on a CPU.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from bench import outcomes
from bench.asked import CPU, Workload
from bench.device import nvml, visible
from bench.errors import Unsupported, WrongDevice
from bench.measured import (
    Device,
    Energy,
    Event,
    Measurement,
    Outcome,
    Profile,
    Quality,
    Software,
    Stage,
    Timing,
)
from bench.measured.profiled import Trace
from bench.outcomes import DEVICE, PERPLEXITY, PROFILE, Request

TIMES = (2.0, 1.0, 3.0)  # ms of each row
TIMING = Timing(TIMES, 2.0, 1.0, 1.0, len(TIMES), False, 0.0, 0, throughput_samples_per_s=500.0)
SOFTWARE = Software("3.12", "2.13.0+cpu", "5.24.0", "0.1.0")


def measure(request: Request) -> Iterator[Event]:
    """As `bench.measure.measure` behaves to whoever runs it."""
    slow_s = request.sampling.latency_min_s

    def stage(workload: Workload, name: str, seconds: float = 0.0) -> Iterator[Stage]:
        yield Stage(request.cell, workload, request.replicate, name, socket.gethostname())
        time.sleep(seconds)

    yield from stage(request.workloads[0], DEVICE)
    try:
        device = acquire(request)
    except WrongDevice:
        raise
    except Exception as error:
        yield from outcomes.all_failed(request, error)
        return
    known = dict(request.known_quality)
    measured = []
    for workload in request.workloads:
        if request.quality.enabled and workload.model not in known:
            yield from stage(workload, PERPLEXITY, slow_s)
            known[workload.model] = Quality(
                request.quality.text, nats=1.0, tokens=1, perplexity=2.7
            )
        yield from stage(workload, "loading", slow_s if workload.model == "./slow" else 0)
        if workload.model == "./broken":
            yield outcomes.failed(request, workload, Outcome.FAILED, "there is no such folder")
            break
        if workload.model == "./huge":
            yield outcomes.failed(request, workload, Outcome.OUT_OF_MEMORY, "out of memory")
            continue
        started_at = outcomes.now()
        yield from stage(workload, "latency", slow_s)
        yield Measurement(
            run=request.run,
            cell=request.cell,
            workload=workload,
            replicate=request.replicate,
            outcome=Outcome.OK,
            started_at=started_at,
            finished_at=outcomes.now(),
            device=device,
            software=SOFTWARE,
            timing=TIMING,
            energy=Energy("none", reason="no meter"),
            quality=known.get(workload.model),
        )
        measured.append(workload)
    for workload in reversed(measured) if request.sampling.profile else ():
        yield from stage(workload, PROFILE, slow_s)
        trace = Trace("op", requests=1, traced_ms=1.0, count=10.0)
        yield Profile(request.run, request.cell, workload, request.replicate, trace)


def acquire(request: Request) -> Device:
    """The device that Ray has given to this process, if it is what the cell asks for."""
    host = socket.gethostname()
    if request.cell.precision == "tf32":
        raise Unsupported("tf32 needs a GPU from Ampere on")
    if request.cell.gpu_type == CPU:
        return Device("CPU", CPU, host, "CPU", request.threads or 0)
    if not request.simulated:
        raise Unsupported("this build of torch has no CUDA")
    with nvml.driver() as driver:
        gpu = visible.given(driver)
        if not gpu.card.is_a(request.cell.gpu_type):
            raise WrongDevice(request.cell.gpu_type, gpu.card, host)
        return Device(
            gpu.name,
            gpu.gpu_type,
            host,
            "CPU",
            1,
            memory_bytes=gpu.memory_bytes,
            uuid=gpu.uuid,
            simulated=True,
        )
