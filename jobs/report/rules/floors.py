"""The least time that a forward pass can take on a board, by its datasheet."""

from __future__ import annotations

from collections.abc import Sequence

from bench.asked import Workload
from bench.device import gpus
from bench.device.gpus import Board
from bench.measured import Roofline
from bench.profile import work as gpt2
from bench.profile.work import Shape
from jobs.report.cases import Case


def impossible_below_ms(case: Case) -> tuple[float, str] | None:
    """A time that no forward of the model's layers can be below, and how it comes about.

    The measured ceiling where there is one. Else the datasheet of the fastest board in question,
    with the hardware's best arithmetic and without the product that makes the logits, so that it
    holds whatever the program was.
    """
    ceiling = case.roofline
    if ceiling and measured_ms(ceiling):
        compute, memory = (
            ceiling.lower_bound_compute_ms or 0.0,
            ceiling.lower_bound_memory_ms or 0.0,
        )
        if compute >= memory:
            peak = max(ceiling.matmul_tflops or 0.0, ceiling.matmul_model_tflops or 0.0)
            return compute, f"{compute * peak:.3g} GFLOP at the {peak:.3g} TFLOP/s measured"
        speed = max(ceiling.copy_gb_per_s or 0.0, ceiling.read_gb_per_s or 0.0)
        return memory, f"{memory * speed:.3g} MB at the {speed:.3g} GB/s measured"
    shape = gpt2.shape_of(case.workload.model)
    if ceiling or shape is None or not case.boards:
        return None
    return min(_least(gpu, case.precision, shape, case.workload) for gpu in case.boards)


def measured_ms(ceiling: Roofline | None) -> float:
    """The floor of arithmetic and memory by the measured peaks; 0 where there is none."""
    if ceiling is None:
        return 0.0
    return max(ceiling.lower_bound_compute_ms or 0.0, ceiling.lower_bound_memory_ms or 0.0)


def _least(gpu: Board, precision: str, shape: Shape, workload: Workload) -> tuple[float, str]:
    flops = gpt2.block_flops(shape, workload.batch_size, workload.prompt_tokens)
    peak = gpus.hardware_peak_tflops(gpu, precision)
    compute = flops / peak / 1e9
    beyond = max(0.0, gpt2.block_bytes(shape, precision) - (gpu.l2_mb or 0.0) * 1e6)
    memory = beyond / gpu.bandwidth_gb_per_s / 1e6
    if compute >= memory:
        return compute, f"{flops / 1e9:.3g} GFLOP at the {peak:g} TFLOP/s of a {gpu.name}"
    speed = f"{gpu.bandwidth_gb_per_s:g} GB/s of a {gpu.name}"
    return memory, f"{beyond / 1e6:.3g} MB of weights at the {speed}"


def pytorch_floor_ms(
    boards: Sequence[Board], precision: str, workload: Workload
) -> tuple[float, float] | None:
    """Least and greatest floor of a whole forward over some boards, as PyTorch uses them.

    None for a model that is not known by name, a precision that a board lacks, and new tokens.
    """
    shape = gpt2.shape_of(workload.model)
    if shape is None or not boards or workload.new_tokens:
        return None
    batch_size, tokens = workload.batch_size, workload.prompt_tokens
    flops = gpt2.block_flops(shape, batch_size, tokens) + gpt2.head_flops(shape, batch_size, tokens)
    stored = gpt2.block_bytes(shape, precision) + gpt2.head_bytes(shape, precision)
    floors = []
    for gpu in boards:
        peak = gpus.peak_tflops(gpu, precision)
        if peak is None:
            return None
        memory = max(0.0, stored - (gpu.l2_mb or 0.0) * 1e6) / gpu.bandwidth_gb_per_s / 1e6
        floors.append(max(flops / peak / 1e9, memory))
    return min(floors), max(floors)
