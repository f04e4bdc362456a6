"""What is measured, in which order, for how long: the time of the whole is made here.

The most valuable comes first. Energy takes 12 s of a row's 17, so fp32 and fp16 have it in each row
and the others in the one of eager mode at batch 1, whose kernels are traced as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.asked import ENERGY_NOT_MEASURED, Cell, QualityPlan, Sampling, Workload
from bench.outcomes import Request
from gpucheck.predictions import BATCH, COMPILED_AT
from gpucheck.runner import Step
from gpucheck.seen import RANDOM, TINY, TOKENS

PREFLIGHT, SENSOR, COMPILE, FIDELITY = "preflight", "sensor", "compile", "fidelity"
_START_S = 9.0  # importing torch and transformers, and a CUDA context
_ROW_S, _ENERGY_S = 5.0, 12.5
# Perplexity, the graph's output, three models made, peaks and traces.
_BESIDE_S = 18.0
FIDELITY_S, REHEARSED_FIDELITY_S = 12.0, 2.0

EAGER = Workload(RANDOM, "eager", 1, TOKENS)
GRAPH = Workload(RANDOM, "graph", 1, TOKENS)
COMPILED = Workload(RANDOM, "compile", 1, TOKENS)
MANY = Workload(RANDOM, "eager", BATCH, TOKENS)
_ENERGY_EVERYWHERE = ("fp32", "fp16")

# The time of the real thing, and that of a try that only shows that all steps run.
QUICK = Sampling(
    warmup_min_s=1,
    warmup_max_s=3,
    latency_min_s=1.5,
    latency_max_s=3,
    min_samples=64,
    median_within=0.02,
    throughput_s=1,
    energy="quick",
    # A counter that moves every 100 ms knows 6.7 s within 3 %, and a window may end a tenth sooner.
    energy_s=8,
    idle_s=1,
)
REHEARSAL = Sampling(
    warmup_min_s=0.1,
    warmup_max_s=0.3,
    latency_min_s=0.2,
    latency_max_s=0.5,
    min_samples=11,
    throughput_s=0.1,
    energy="quick",
    energy_s=1,
    idle_s=0,  # else each row waits 2 s
)


def steps() -> tuple[Step, ...]:
    """Every step, the most valuable first."""
    full_s = _START_S + _BESIDE_S + 3 * (_ROW_S + _ENERGY_S)
    short_s = _START_S + _BESIDE_S + 3 * _ROW_S + _ENERGY_S
    measured = [
        Step(name, full_s if name in _ENERGY_EVERYWHERE else short_s, 1.6 * full_s)
        for name in ("fp32", "fp16", "mixed", "tf32", "bf16")
    ]
    return (
        Step(PREFLIGHT, 15, 60),
        Step(SENSOR, _START_S + 28, 75),
        *measured,
        Step(COMPILE, 50, 120),
        Step(FIDELITY, _START_S + 4 + FIDELITY_S, 60),
    )


def requests(run: str, gpu_type: str, precision: str, sampling: Sampling) -> list[Request]:
    """What one process measures at a precision; what is profiled comes last."""
    brief = replace(sampling, energy=ENERGY_NOT_MEASURED, profile=False)
    plain = QualityPlan(enabled=False)

    def request(workloads: Sequence[Workload], how: Sampling, quality: QualityPlan) -> Request:
        return Request(run, Cell(gpu_type, precision), 0, tuple(workloads), how, quality)

    perplexity = request([Workload(TINY, "eager", 1, TOKENS)], brief, QualityPlan())
    if precision in _ENERGY_EVERYWHERE:
        return [perplexity, request([EAGER, GRAPH, MANY], sampling, plain)]
    return [perplexity, request([GRAPH, MANY], brief, plain), request([EAGER], sampling, plain)]


def compiled(run: str, gpu_type: str, sampling: Sampling) -> Request:
    """What the step that compiles measures."""
    how = replace(sampling, energy=ENERGY_NOT_MEASURED)
    cell = Cell(gpu_type, COMPILED_AT)
    return Request(run, cell, 0, (COMPILED,), how, QualityPlan(enabled=False))
