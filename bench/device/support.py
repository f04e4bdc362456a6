"""Which device has which precision, and what weakens it there. Imports no torch."""

import os
from collections.abc import Collection

from bench.asked import QUANTISED
from bench.device import gpus
from bench.device.boards import Capability
from bench.device.software import installed
from bench.errors import Unsupported
from bench.warnings import RowWarning

# Instruction sets that multiply in the type itself, as /proc/cpuinfo names them.
_CPU_NATIVE = {"fp16": {"avx512_fp16", "amx_fp16"}, "bf16": {"avx512_bf16", "amx_bf16", "bf16"}}
_CPU_NATIVE["mixed"] = _CPU_NATIVE["bf16"]
# oneDNN's products of int8, which torch._int_mm calls on x86; ARM's are i8mm.
_CPU_NATIVE["int8-dynamic"] = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}
_TORCHAO = "pip install 'tensorgap[quantised]'"


def check_installed(precision: str) -> None:
    """Raise Unsupported where a precision needs torchao and this machine has none."""
    if precision in QUANTISED and installed("torchao") is None:
        raise Unsupported(f"{precision} needs torchao, which is not installed; try: {_TORCHAO}")


def gpu_warning(precision: str, capability: Capability) -> RowWarning | None:
    """What weakens this precision on a GPU of this compute capability; None where nothing does.

    Raises Unsupported where the GPU lacks it, so that a run would measure another precision.

    >>> gpu_warning("fp16", (9, 0))
    >>> gpu_warning("bf16", (7, 5)).text
    'bf16 is emulated: compute capability 7.5 has no bf16 arithmetic (8.0 and newer have it)'
    """
    kind = gpus.arithmetic(precision, capability).kind
    have = "{}.{}".format(*capability)
    if kind == "absent":
        needs = "{} needs compute capability {}.{}".format(precision, *gpus.first(precision))
        if precision != "tf32":
            lacks = gpus.arithmetic(precision, capability).text
            raise Unsupported(f"{needs}: {lacks}; int8 stores fewer bytes on any GPU")
        raise Unsupported(f"{needs}; compute capability {have} would run plain fp32")
    if precision == "tf32" and os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        # cuBLAS reads it, whatever torch asks for.
        raise Unsupported("tf32 is switched off by NVIDIA_TF32_OVERRIDE=0: it would run plain fp32")
    values = {"precision": precision, "compute_capability": have}
    if kind == "emulated":
        return RowWarning("precision-emulated", values)
    return RowWarning("no-tensor-cores", values) if kind == "storage only" else None


def cpu_warning(precision: str, flags: Collection[str]) -> RowWarning | None:
    """What weakens this precision on a CPU with these instruction sets; None where nothing does.

    >>> cpu_warning("bf16", {"avx2", "avx512_bf16"})
    >>> cpu_warning("fp16", {"avx2"}).text
    'fp16 is emulated: this CPU has none of amx_fp16, avx512_fp16'
    """
    if precision == "tf32":
        raise Unsupported("tf32 needs Tensor Cores (compute capability 8.0); a CPU has none")
    if precision == "fp8":
        raise Unsupported("fp8 needs Tensor Cores (compute capability 8.9); a CPU has none")
    if precision == "int4" and not _CPU_NATIVE["bf16"] & set(flags):
        needs = ", ".join(sorted(_CPU_NATIVE["bf16"]))
        raise Unsupported(f"int4 multiplies in bf16, and this CPU has none of {needs}; try int8")
    needed = _CPU_NATIVE.get(precision, set())
    if not needed or needed & set(flags):
        return None
    values = {"precision": precision, "instructions": ", ".join(sorted(needed))}
    return RowWarning("precision-emulated", values)
