"""What fp32, tf32, fp16, bf16 and mixed mean in torch, and which device really has them.

    precision   weights    arithmetic of a matrix product
    fp32        float32    float32; TF32 switched off
    tf32        float32    TF32: 10-bit mantissa on Tensor Cores
    fp16        float16    Tensor Cores; without them float32 on float16 storage
    bf16        bfloat16   Tensor Cores; before compute capability 8.0 emulated
    mixed       float32    autocast casts each weight and input: to fp16 on CUDA, to bf16 on a CPU

Every switch is set and put back: the defaults of torch differ between releases.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from bench.errors import Unsupported
from bench.warnings import RowWarning

if TYPE_CHECKING:
    import torch

# cublasGemmEx computes float16 in float32 below 7.0: aten/src/ATen/cuda/CUDABlas.cpp, and torch
# allows float16 accumulation only from major 7 on (pytorch/pytorch#144441).
FIRST_TENSOR_CORES = (7, 0)
FIRST_BF16_AND_TF32 = (8, 0)
# How cuBLAS may sum products of 16 bits: as torch does by itself, and so its users.
_SUMS = {
    "allow_fp16_reduced_precision_reduction": True,
    "allow_bf16_reduced_precision_reduction": True,
    "allow_fp16_accumulation": False,
}
# Instruction sets that multiply in the type itself, as /proc/cpuinfo names them.
_CPU_NATIVE = {"fp16": {"avx512_fp16", "amx_fp16"}, "bf16": {"avx512_bf16", "amx_bf16", "bf16"}}


def storage(precision: str) -> torch.dtype:
    """The type that the weights are stored in."""
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


def autocast_type(precision: str, device_type: str) -> torch.dtype | None:
    """The type that autocast casts to; None where there is no autocast."""
    import torch

    if precision != "mixed":
        return None
    return torch.float16 if device_type == "cuda" else torch.bfloat16


def arithmetic(precision: str, device_type: str) -> torch.dtype:
    """The type of a matrix product's operands."""
    return autocast_type(precision, device_type) or storage(precision)


@contextlib.contextmanager
def applied(precision: str, device_type: str) -> Iterator[None]:
    """Everything inside computes at this precision; every switch is put back at the end."""
    import torch

    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    cublas = torch.backends.cuda.matmul
    sums = {name: _allowed(cublas, name) for name in _SUMS}
    cast_to = autocast_type(precision, device_type)
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        for name, wanted in _SUMS.items():
            setattr(cublas, name, wanted)
        with torch.autocast(device_type, dtype=cast_to, enabled=cast_to is not None):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn
        for name, allowed in sums.items():
            setattr(cublas, name, allowed)


def _allowed(cublas: Any, name: str) -> bool | tuple[bool, bool]:
    """A switch, as it can be set again: newer releases keep one for split-K beside it.

    They set both where one is given (pytorch/pytorch#164766).
    """
    split_k = getattr(cublas, f"{name}_split_k", None)
    allowed: bool = getattr(cublas, name)
    return allowed if split_k is None else (allowed, split_k)


def gpu_warning(precision: str, capability: tuple[int, int]) -> RowWarning | None:
    """What weakens this precision on a GPU of this compute capability; None where nothing does.

    Raises Unsupported where the GPU lacks it, so that a run would measure another precision.

    >>> gpu_warning("fp16", (9, 0))
    >>> gpu_warning("bf16", (7, 5)).text
    'bf16 is emulated: compute capability 7.5 has no bf16 arithmetic (8.0 and newer do)'
    """
    have = f"{capability[0]}.{capability[1]}"
    values = {"precision": precision, "compute_capability": have}
    if precision == "tf32" and capability < FIRST_BF16_AND_TF32:
        raise Unsupported(
            f"tf32 needs compute capability 8.0; compute capability {have} would run plain fp32"
        )
    if precision == "tf32" and os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        # cuBLAS reads it, whatever torch asks for.
        raise Unsupported("tf32 is switched off by NVIDIA_TF32_OVERRIDE=0: it would run plain fp32")
    if precision == "bf16" and capability < FIRST_BF16_AND_TF32:
        return RowWarning("precision-emulated", values)
    if precision in ("fp16", "mixed") and capability < FIRST_TENSOR_CORES:
        return RowWarning("no-tensor-cores", values)
    return None


def cpu_warning(precision: str, flags: Collection[str]) -> RowWarning | None:
    """What weakens this precision on a CPU with these instruction sets; None where nothing does.

    >>> cpu_warning("bf16", {"avx2", "avx512_bf16"})
    >>> cpu_warning("fp16", {"avx2"}).text
    'fp16 is emulated: this CPU has none of amx_fp16, avx512_fp16'
    """
    if precision == "tf32":
        raise Unsupported("tf32 needs Tensor Cores (compute capability 8.0); a CPU has none")
    needed = _CPU_NATIVE.get({"mixed": "bf16"}.get(precision, precision), set())
    if needed and not needed & set(flags):
        instructions = ", ".join(sorted(needed))
        return RowWarning(
            "precision-emulated", {"precision": precision, "instructions": instructions}
        )
    return None
