"""Rows of GPUs that are not here, made of their datasheets. They say that they are simulated.

The arithmetic is simple on purpose: GPU time is operations / a share of the peak, plus bytes /
bandwidth; the host launches each operation in `launch_us`; the latency is the longer of the two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from bench import stats
from bench.asked import Cell, Workload
from bench.device import gpus
from bench.measured import (
    Conditions,
    Device,
    Energy,
    Measurement,
    Outcome,
    Quality,
    Software,
    Timing,
    Weights,
)
from bench.measured.profiled import Roofline, Trace
from bench.profile import work as gpt2

SHAPE = gpt2.SHAPES["gpt2"]
SOFTWARE = Software("3.11.7", "2.14.0+cu126", "5.24.0", "0.1.0", cuda="12.6", driver="580.1")
LIGHT, PRODUCTS = 221, 73  # operations of GPT-2 small with eager attention
CONSTANT_MS = 0.05  # of a forward, whoever launches it


def row(
    board: str,
    precision: str,
    *,
    batch_size: int = 1,
    engine: str = "eager",
    launch_us: float = 4.0,
    efficiency: float = 0.4,
    replicate: int = 0,
    busy_power: float = 0.6,
) -> Measurement:
    """One healthy row.

    Args:
        board: As `bench.device.gpus` names it.
        precision: As asked.
        batch_size: Prompts of 128 tokens.
        engine: eager or graph.
        launch_us: Host time of one operation.
        efficiency: Share of the peak that the products reach.
        replicate: Moves all times by a thousandth each.
        busy_power: Share of the way from idle to the limit that a busy GPU draws.
    """
    (gpu,) = gpus.named(board)
    workload = Workload("gpt2", engine, batch_size, 128)
    peak = gpus.peak_tflops(gpu, precision)
    assert peak is not None
    arithmetic = gpus.arithmetic(precision, gpu.capability).kind
    flops = gpt2.work_of(SHAPE, batch_size, 128).least_flops
    weights = (SHAPE.layers * 12 * SHAPE.width**2 + SHAPE.vocabulary * SHAPE.width) * (
        gpt2.stored_bytes("fp16" if precision == "mixed" else precision)
    )
    bandwidth = gpu.bandwidth_gb_per_s * 1e9 * 0.8
    products_ms = max(flops / peak / efficiency / 1e9, weights / bandwidth * 1e3)
    if precision in ("fp16", "bf16") and arithmetic != "tensor cores":
        products_ms *= 0.9  # only the bytes are fewer
    light_ms = max(LIGHT * 2.5e-3, LIGHT * 3 * batch_size * 128 * 768 * 4 / bandwidth * 1e3)
    casts = gpt2.CASTS[1] if precision == "mixed" else 0
    cast_bytes = gpt2.cast_bytes(SHAPE, batch_size, 128) if casts else 0
    cast_ms = cast_bytes / bandwidth * 1e3
    traced_ms = products_ms + light_ms + cast_ms
    count = LIGHT + PRODUCTS + casts
    host_ms = (LIGHT + PRODUCTS + 0.4 * casts) * launch_us / 1e3 if engine == "eager" else 0.0
    latency_ms = (max(traced_ms, host_ms) + CONSTANT_MS) * (1 + 0.001 * replicate)
    busy = traced_ms / latency_ms
    idle_w = sum(gpu.idle_w or (0.1 * gpu.tdp_w, 0.1 * gpu.tdp_w)) / 2
    mean_w = idle_w + busy_power * (gpu.tdp_w - idle_w) * busy
    energy_mj = mean_w * latency_ms / batch_size
    samples = tuple(latency_ms * (1 + 0.002 * math.sin(7.0 * i)) for i in range(101))
    name = "NVIDIA " + board.replace("SXM", "SXM2" if gpu.gpu_type == "V100" else "SXM4")
    return Measurement(
        cell=Cell(gpu.gpu_type, precision),
        workload=workload,
        run="simulated/20261124T120000Z",
        replicate=replicate,
        outcome=Outcome.OK,
        device=Device(
            name,
            gpu.gpu_type,
            "host",
            "Xeon",
            8,
            compute_capability=f"{gpu.capability[0]}.{gpu.capability[1]}",
            mig=False,
            vgpu=False,
            power_limit_w=gpu.tdp_w,
            default_power_limit_w=gpu.tdp_w,
            max_sm_mhz=1500.0,
            simulated=True,
        ),
        software=SOFTWARE,
        weights=Weights(
            SHAPE.parameters,
            SHAPE.parameters * gpt2.stored_bytes(precision),
            "float32" if gpt2.stored_bytes(precision) == 4 else precision,
            attention="eager",
        ),
        timing=Timing(
            **latencies(samples),
            latency_ms_min=min(samples),
            latency_ms_iqr=0.002 * latency_ms,
            latency_count=len(samples),
            converged=True,
            warmup_s=2.0,
            warmup_iterations=100,
            throughput_samples_per_s=batch_size * 1000 / (latency_ms - CONSTANT_MS / 2),
        ),
        energy=Energy(
            "counter" if gpu.energy_counter else "power",
            protocol="standard",
            per_sample_mj=energy_mj,
            uncertainty=0.01,
            window_s=30.0,
            ticks=300,
            mean_w=mean_w,
            idle_w=idle_w,
        ),
        quality=Quality(
            "wikitext-2 test",
            perplexity=59.69 * (1.0001 if precision in ("fp16", "mixed") else 1.0),
            context=128,
            stride=128,
        ),
        conditions=Conditions(
            load_before=0.1,
            other_cpu_share=0.01,
            sm_mhz_after=1480.0,
            throttled_s=0.0,
            clocks_event_reasons=0,
            other_processes=0,
        ),
        trace=Trace(
            level="kernel",
            requests=10,
            traced_ms=traced_ms,
            count=count,
            matmul_ms=products_ms,
            matmul_count=PRODUCTS,
            cast_ms=cast_ms,
            cast_count=casts,
            cast_bytes=int(cast_bytes),
            activation_ms=light_ms,
            activation_count=LIGHT,
            busy_share=None if engine == "graph" else busy,
            tensor_cores="yes" if arithmetic == "tensor cores" else "no",
            names=("a_simulated_kernel",),
        ),
        roofline=Roofline(
            flops=int(flops),
            bytes_moved=int(weights),
            matmul_tflops=0.9 * peak,
            matmul_model_tflops=efficiency * peak,
            copy_gb_per_s=0.85 * gpu.bandwidth_gb_per_s,
            read_gb_per_s=0.85 * gpu.bandwidth_gb_per_s,
            launch_us=launch_us,
            lower_bound_compute_ms=flops / (0.9 * peak) / 1e9,
            lower_bound_memory_ms=weights / (0.85 * gpu.bandwidth_gb_per_s) / 1e6,
        ),
    )


def rows(board: str, precisions: Sequence[str] = ("fp32", "fp16"), **how: Any) -> list[Measurement]:
    """Healthy rows of some precisions on one board; `how` as for `row`."""
    return [row(board, precision, **how) for precision in precisions]


def changed(row: Measurement, part: str, **values: Any) -> Measurement:
    """The row with some fields of one of its records changed."""
    record = dataclasses.replace(getattr(row, part), **values)
    return dataclasses.replace(row, **{part: record})


def slower(row: Measurement, factor: float) -> Measurement:
    """The row with every latency times a factor, and all else as it was."""
    assert row.timing
    samples = tuple(factor * ms for ms in row.timing.latency_ms_samples)
    return changed(row, "timing", **latencies(samples))


def latencies(samples: tuple[float, ...]) -> dict[str, Any]:
    """Fields of a Timing: an odd number of samples, their median and its interval."""
    low, high = stats.median_interval(samples)
    return {
        "latency_ms_samples": samples,
        "latency_ms_p50": sorted(samples)[len(samples) // 2],
        "latency_ms_p50_low": low,
        "latency_ms_p50_high": high,
    }
