"""What each precision means in torch; `support` says which device has it.

    precision   weights    arithmetic of a matrix product
    fp32        float32    float32; TF32 switched off
    tf32        float32    TF32: 10-bit mantissa on Tensor Cores
    fp16        float16    Tensor Cores; without them float32 on float16 storage
    bf16        bfloat16   Tensor Cores; before compute capability 8.0 emulated
    mixed       float32    autocast casts each weight and input: to fp16 on CUDA, to bf16 on a CPU
    quantised   see `bench.model.quantise`; what is not quantised: bfloat16 where there is any

Every switch is set and put back: the defaults of torch differ between releases.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from bench.asked import QUANTISED
from bench.device import cpu, support
from bench.device.gpus import FIRST_BF16_AND_TF32

# How cuBLAS may sum products of 16 bits: as torch does by itself, and so its users.
_SUMS = {
    "allow_fp16_reduced_precision_reduction": True,
    "allow_bf16_reduced_precision_reduction": True,
    "allow_fp16_accumulation": False,
}


def storage(precision: str, device_type: str = "cpu") -> torch.dtype:
    """The type that the weights are stored in; of quantised ones, that of all the others.

    That is bfloat16 where the device multiplies in it, as users of torchao load a model: its int4
    kernels take no other type (CUDA), or took 134 times as long in float32 (128 rows of 768 by
    3072, AVX512, torch 2.13). Else float16 on a GPU, float32 on a CPU.
    """
    if precision in QUANTISED:
        if device_type == "cuda":
            native = torch.cuda.get_device_capability() >= FIRST_BF16_AND_TF32
            return torch.bfloat16 if native else torch.float16
        native = support.cpu_warning("bf16", cpu.flags()) is None
        return torch.bfloat16 if native else torch.float32
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


def autocast_type(precision: str, device_type: str) -> torch.dtype | None:
    """The type that autocast casts to; None where there is no autocast."""
    if precision != "mixed":
        return None
    return torch.float16 if device_type == "cuda" else torch.bfloat16


def arithmetic(precision: str, device_type: str) -> torch.dtype:
    """The type of a matrix product's operands; at a quantised precision, of the head's."""
    return autocast_type(precision, device_type) or storage(precision, device_type)


@contextlib.contextmanager
def applied(precision: str, device_type: str) -> Iterator[None]:
    """Everything inside computes at this precision; every switch is put back at the end."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    cublas = torch.backends.cuda.matmul
    sums = {name: switch(cublas, name) for name in _SUMS}
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


def switch(cublas: Any, name: str) -> bool | tuple[bool, bool]:
    """A switch, as it can be set again: newer releases keep one for split-K beside it.

    They set both where one is given (pytorch/pytorch#164766).
    """
    split_k = getattr(cublas, f"{name}_split_k", None)
    allowed: bool = getattr(cublas, name)
    return allowed if split_k is None else (allowed, split_k)
