"""What each step does, in its own process."""

from __future__ import annotations

import dataclasses

import fidelity
import torch

from bench.asked import Cell, Workload
from bench.device import nvml, precision
from bench.device.acquire import acquire
from bench.energy import probe as sensor
from bench.measure import measure
from bench.measured import Measurement, Outcome, Profile
from bench.model import engines
from bench.model import load as models
from bench.model.tokens import prompt_ids
from bench.outcomes import PROFILE, Request
from gpucheck import plan
from gpucheck.folder import Folder
from gpucheck.preflight import preflight
from gpucheck.runner import Incomplete
from gpucheck.seen import RANDOM, TOKENS

_GENERATED = 16
_PROMPTS = 3


def do(folder: Folder, step: str, rehearse: bool) -> None:
    """Do a step by its name, or a short try of it."""
    sampling = plan.REHEARSAL if rehearse else plan.QUICK
    if step == plan.PREFLIGHT:
        preflight(folder)
        return
    gpu_type = folder.facts()["gpu_type"]
    if step == plan.SENSOR:
        _probe(folder, gpu_type)
    elif step == plan.COMPILE:
        _keep_all(folder, plan.compiled(folder.run, gpu_type, sampling))
    elif step == plan.FIDELITY:
        seconds = plan.REHEARSED_FIDELITY_S if rehearse else plan.FIDELITY_S
        folder.fact("fidelity", dataclasses.asdict(fidelity.compare(seconds=seconds)))
    else:
        for request in plan.requests(folder.run, gpu_type, step, sampling):
            _keep_all(folder, request)


def _probe(folder: Folder, gpu_type: str) -> None:
    with nvml.driver() as driver:
        found = acquire(Cell(gpu_type, "fp32"), driver)
        assert found.gpu is not None  # the preflight saw it
        known = sensor.probe(found.gpu, sensor.matrix_products(found.type))
    folder.fact("sensor", dataclasses.asdict(known))
    print(known)


def _keep_all(folder: Folder, request: Request) -> None:
    """Keep each row as it comes; before the profile, which slows a process, compare outputs."""
    rows: dict[Workload, Measurement] = {}
    compares = request.workloads != (plan.COMPILED,)
    for event in measure(request):
        if isinstance(event, Measurement):
            folder.keep(event)
            print(_told(event))
            rows[event.workload] = event
        elif isinstance(event, Profile):
            folder.keep(event)
            if event.trace.count is not None:
                print(f"{event.cell} {event.workload}: {event.trace.count:g} kernels")
        elif compares and event.name == PROFILE:
            compares = False
            _compare_outputs(folder, request.cell.precision)
    for row in rows.values():
        if row.outcome in (Outcome.FAILED, Outcome.LOST):
            raise Incomplete(f"{row.workload.engine} {row.outcome}: {row.reason}")


def _told(row: Measurement) -> str:
    parts = [f"{row.cell} {row.workload}: {row.outcome}"]
    if row.outcome != Outcome.OK:
        parts.append(str(row.reason))
    if row.timing:
        parts.append(f"{row.timing.latency_ms_p50:.4g} ms")
    if row.energy and row.energy.per_sample_mj is not None:
        parts.append(f"{row.energy.per_sample_mj:.4g} mJ +-{row.energy.uncertainty:.1%}")
    if row.quality and row.quality.perplexity is not None:
        parts.append(f"perplexity {row.quality.perplexity:.4f}")
    return ", ".join(parts)


def _compare_outputs(folder: Folder, precision_name: str) -> None:
    """Whether a replayed graph computes what eager mode does, forwards and generations."""
    name = f"graph output {precision_name}"
    try:
        folder.fact(name, _same_output(precision_name))
    except Exception as error:
        folder.fact(name, {"reason": f"{type(error).__name__}: {error}".splitlines()[0]})


def _same_output(precision_name: str) -> dict[str, float]:
    model = models.load_model(RANDOM, precision_name, "cuda")
    ids = torch.tensor(prompt_ids(model)[: _PROMPTS * TOKENS], device="cuda")
    differences: list[float] = []
    alike = 0
    with precision.applied(precision_name, "cuda"), torch.inference_mode():
        forwards = [engines.forward(engine, model.module) for engine in ("eager", "graph")]
        generations = [
            engines.generation(engine, model.module, _GENERATED) for engine in ("eager", "graph")
        ]
        for prompt in ids.reshape(_PROMPTS, 1, TOKENS):
            eager, graph = (forward(prompt).float() for forward in forwards)
            largest = float(eager.abs().max()) or 1.0  # all zeros where kernels do nothing
            differences.append(float((eager - graph).abs().max()) / largest)
            eager, graph = (generate(prompt) for generate in generations)
            alike += torch.equal(eager, graph)
    return {"difference": max(differences), "alike": alike, "tried": _PROMPTS}
