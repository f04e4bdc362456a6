"""Rows and facts of an H100 as `benchmarks/gpu_check.py` predicts them, made without torch."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import simulated

from bench.asked import Workload
from bench.measured import Measurement, Sensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from gpucheck.folder import Folder
from gpucheck.predictions import expected_attention
from gpucheck.seen import RANDOM, TINY

PRECISIONS = ("fp32", "fp16", "mixed", "tf32", "bf16")


def made(precision: str, engine: str = "eager", batch_size: int = 1, model: str = RANDOM) -> Any:
    """A row of an H100 as every prediction has it."""
    row = simulated.row("H100-SXM", precision, engine="eager", batch_size=batch_size)
    ms = {"eager": 5.0, "graph": 0.5, "compile": 3.0}[engine] * (10 if batch_size > 1 else 1)
    ms *= {"fp32": 1.0, "mixed": 1.3}.get(precision, 0.9 if engine == "eager" else 0.3)
    if (precision, engine) == ("fp32", "graph"):
        ms = 1.2
    if batch_size > 1 and precision != "fp32":
        ms = 8.0
    assert row.timing and row.energy and row.trace and row.roofline and row.quality
    casts = 146 if precision == "mixed" else 0
    count = 98 if engine == "compile" else 211 + casts
    kernels = replace(
        row.trace,
        count=float(count),
        cast_count=float(casts),
        cast_bytes=813_000_000 if casts else 0,
        normalisation_ms=0.0,
        attention_ms=0.0,
        copy_ms=0.0,
        embedding_ms=0.0,
        other_ms=0.0,
        tensor_cores="no" if precision == "fp32" else "yes",
        attention=expected_attention((9, 0), 91900, precision),
    )
    kernels = replace(
        kernels,
        traced_ms=sum(getattr(kernels, f"{kind}_ms") for kind in ("matmul", "activation", "cast")),
    )
    return replace(
        row,
        workload=Workload(model, engine, batch_size, 128),
        device=replace(row.device, simulated=False),
        timing=replace(row.timing, latency_ms_p50=ms, latency_ms_min=ms),
        roofline=replace(row.roofline, lower_bound_ms=0.1),
        energy=replace(row.energy, uncertainty=0.025),
        quality=replace(row.quality, perplexity=5.3021),
        trace=None if model == TINY else kernels,
    )


FACTS_OF_A_CARD: dict[str, Any] = {
    "simulated": False,
    "gpu_type": "H100",
    "capability": [9, 0],
    "cudnn": 91900,
    "attention": {name: expected_attention((9, 0), 91900, name) for name in PRECISIONS},
    "decode_error": 0.001,
    "head16_error": 0.001,
    "sensor": dataclasses.asdict(
        Sensor(
            "integrating",
            reading_period_s=0.1,
            reading_window_s=0.025,
            counter_ratio=1.01,
        )
    ),
    "fidelity": {"holds": True, "text": "1.0010 +-0.0015"},
} | {f"graph output {name}": {"difference": 0.001, "alike": 3, "tried": 3} for name in PRECISIONS}


def of_run(folder: Folder, row: Measurement) -> Measurement:
    return replace(row, run=folder.run)
