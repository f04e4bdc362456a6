"""What is known of each GPU type before anyone measures, beside its datasheet (`boards`).

What PyTorch makes of a precision is not what the hardware could: `arithmetic` says which,
`peak_tflops` in numbers. Torch builds: https://github.com/pytorch/pytorch/blob/main/RELEASE.md.
Standard library only.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

from bench.asked import QUANTISED
from bench.device import kinds
from bench.device.boards import GPUS, Board, Capability

# The CUDA 12.6 builds are the last that hold kernels for Maxwell, Pascal and Volta, and torch 2.14
# is the last release that has them (pytorch/pytorch#178665, #190385).
LEGACY_BELOW: Capability = (7, 5)
LEGACY_INSTALL = "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
_INSTALL = "pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130"

# The power sensor's own error, relative, the same in every measurement: against an external meter
# (Yang, Adamek, Armour, SC'24, table of results). No one has metered the other types.
SENSOR_ERROR = {"P100": 0.01, "A100": 0.06}
USUAL_SENSOR_ERROR = 0.05

_ML = "https://github.com/stas00/ml-engineering (compute/accelerator, with NVIDIA's pages)"
_TU116 = (
    "https://www.anandtech.com/show/13973 (GTX 1660 Ti: dedicated FP16 cores in the place of the"
    " Tensor Cores)"
)
_TORCH_SUPPORT = "torch/cuda/__init__.py: is_bf16_supported(including_emulation=False), 8.0"
_TORCH_BLAS = (
    "pytorch aten/src/ATen/cuda/CUDABlas.cpp: gemm<Half> with CUDA_R_32F; pytorch/pytorch#123157,"
    " #144441"
)

_TURING = "https://developer.nvidia.com/blog/nvidia-turing-architecture-in-depth/ (table 1)"
_TINY = (
    "torchao 0.18, int4_tile_packed_to_4d_tensor.py, from_hp: 8.0 or newer, bfloat16 alone; pytorch"
    " aten/src/ATen/native/cuda/int4mm.cu: __CUDA_ARCH__ >= 800"
)
_FP8 = (
    "torchao 0.18, float8/inference.py, _check_hardware_support: 8.9 or newer; pytorch"
    " aten/src/ATen/native/cuda/Blas.cpp, _scaled_mm_allowed_device: the same"
)


# The driver calls it by its memory: NVIDIA H100 80GB HBM3.
_DRIVER_WORDS = {"H100-SXM": "H100-HBM3"}
# Ray's words for an A100's memory, which it cannot tell itself, are types too.
_FINER = ("A100-40G", "A100-80G")
COMPUTE_CAPABILITY: dict[str, Capability] = {gpu.gpu_type: gpu.capability for gpu in GPUS}
COMPUTE_CAPABILITY |= dict.fromkeys(_FINER, (8, 0))


def capability(text: str | None) -> Capability | None:
    """A compute capability as the driver and the rows write it, as numbers that can be compared.

    >>> capability("8.0"), capability(None)
    ((8, 0), None)
    """
    if text is None:
        return None
    major, minor = map(int, text.split("."))
    return major, minor


def capability_of(gpu_type: str) -> Capability | None:
    """The compute capability of a type, which may be finer by its memory; None: a foreign type.

    >>> capability_of("V100-32G"), capability_of("RTX-6000")
    ((7, 0), None)
    """
    return COMPUTE_CAPABILITY.get(kinds.coarse(gpu_type))


def named(name: str) -> tuple[Board, ...]:
    """The boards that a type (`P100`) or a board's name (`P100-PCIE`) stands for, in any case.

    >>> [gpu.name for gpu in named("p100")], named("Z9")
    (['P100-PCIE', 'P100-SXM2'], ())
    >>> [gpu.name for gpu in named("A100-80G")]
    ['A100-PCIE-80GB', 'A100-SXM-80GB']
    """
    wanted = name.strip().upper().replace(" ", "-")
    if wanted in _FINER:
        gpu_type, _, memory = wanted.partition("-")
        return tuple(gpu for gpu in named(gpu_type) if gpu.name.endswith(f"-{memory}B"))
    return tuple(gpu for gpu in GPUS if wanted in (gpu.gpu_type.upper(), gpu.name.upper()))


@functools.cache
def boards(gpu_type: str, driver_name: str | None = None) -> tuple[Board, ...]:
    """The boards of a type, or the one that the driver's name tells; none for a foreign type.

    >>> [gpu.name for gpu in boards("P100", "some P100")], boards("Z9", "NVIDIA Z9")
    (['P100-PCIE', 'P100-SXM2'], ())
    """
    siblings, told = named(gpu_type), (driver_name or "").upper()
    found = tuple(
        gpu
        for gpu in siblings
        if all(word in told for word in _DRIVER_WORDS.get(gpu.name, gpu.name).upper().split("-"))
    )
    return found or siblings


class Arithmetic(NamedTuple):
    """What PyTorch does at a precision on a GPU."""

    # native, tensor cores, storage only (half the bytes, float32 arithmetic), emulated (no
    # instruction of the GPU takes the type) or absent
    kind: str
    text: str
    source: str


# cublasGemmEx computes float16 in float32 below 7.0: aten/src/ATen/cuda/CUDABlas.cpp, and torch
# allows float16 accumulation only from major 7 on (pytorch/pytorch#144441).
FIRST_TENSOR_CORES: Capability = (7, 0)
FIRST_BF16_AND_TF32: Capability = (8, 0)
# Turing's Tensor Cores. On 7.0 torch._int_mm works as well (pytorch test/test_linalg.py,
# test__int_mm, from CUDA 12.3), but without them.
FIRST_INT8: Capability = (7, 5)
FIRST_DP4A: Capability = (6, 1)  # four products of int8 where float32 has one: 47 TOPS of a P40
FIRST_FP8: Capability = (8, 9)
_HALF_NATIVE = Arithmetic(
    "native", "float16 arithmetic at twice the rate of float32, without Tensor Cores", _TU116
)
_NOT_KNOWN = Arithmetic("native", "the precision is not known", "")
_HALF_STORED = Arithmetic(
    "storage only",
    "float16 storage, float32 arithmetic: PyTorch asks cuBLAS for float32 sums, so that only"
    " the bytes are halved",
    _TORCH_BLAS,
)
_NO_TF32 = Arithmetic("absent", "{} has no TF32: the switch does nothing", _TORCH_SUPPORT)
_NO_BF16 = Arithmetic("emulated", "{} has no bfloat16 arithmetic", _TORCH_SUPPORT)
_NO_INT8 = Arithmetic("absent", "{} has no int8 Tensor Cores", _TURING)
_NO_INT4 = Arithmetic("absent", "torch's int4 kernel (tinygemm) needs bf16, which {} lacks", _TINY)
_NO_FP8 = Arithmetic("absent", "{} has no fp8 Tensor Cores", _FP8)
# From which compute capability on a precision runs on Tensor Cores, in which type, and what it is
# on older GPUs.
_ARITHMETIC: Mapping[str, tuple[Capability | None, str, Arithmetic]] = {
    "fp32": (None, "", Arithmetic("native", "float32 arithmetic", _ML)),
    "tf32": (FIRST_BF16_AND_TF32, "tf32", _NO_TF32),
    "fp16": (FIRST_TENSOR_CORES, "float16", _HALF_STORED),
    "bf16": (FIRST_BF16_AND_TF32, "bf16", _NO_BF16),
    "mixed": (FIRST_TENSOR_CORES, "float16", _HALF_STORED),
    "int8": (FIRST_TENSOR_CORES, "16-bit products of weights stored as int8", _HALF_STORED),
    "int8-dynamic": (FIRST_INT8, "int8", _NO_INT8),
    "int4": (FIRST_BF16_AND_TF32, "bf16 products of weights stored as int4", _NO_INT4),
    "fp8": (FIRST_FP8, "fp8 (e4m3)", _NO_FP8),
}


def first(precision: str) -> Capability:
    """From which compute capability on a precision runs on Tensor Cores; (0, 0): it never does."""
    return _ARITHMETIC[precision][0] or (0, 0)


# Dense, at twice the rate of fp16 with fp16 sums. Int8: T4 130 to 65, A10 250 to 125, A40 299 to
# 150, A100 624 to 312, L4 242 to 121 (its fp8 too), RTX 4090 660.6 to 330.3, RTX 5090 838 to 419,
# H100 1979 to 989. fp8 with fp16 sums is as fast; with fp32 sums a GeForce's has half of it: RTX
# 4090 330.3. NVIDIA's sheets and Ada paper (appendix A), as in winston-zhang-orz/gpu-specs
# (specs.md), astroC86/gpu-datasheet, VladislavDuma/gpu_specs (README.md) and waredb.com.
_DOUBLED = ("int8-dynamic", "fp8")


def arithmetic(precision: str, capability: Capability) -> Arithmetic:
    """What a precision really is in PyTorch on a GPU of this compute capability.

    >>> arithmetic("fp16", (6, 0)).kind, arithmetic("bf16", (7, 5)).text
    ('storage only', 'compute capability 7.5 has no bfloat16 arithmetic')
    """
    if precision not in _ARITHMETIC:
        return _NOT_KNOWN
    first, multiplied, older = _ARITHMETIC[precision]
    if first and capability >= first:
        return Arithmetic("tensor cores", f"{multiplied} on Tensor Cores", _ML)
    return older._replace(text=older.text.format("compute capability {}.{}".format(*capability)))


def arithmetic_on(gpu: Board, precision: str) -> Arithmetic:
    """What a precision really is in PyTorch on a board: a GTX 16 has no Tensor Cores.

    >>> arithmetic_on(named("GeForce-GTX-1650")[0], "fp16").kind
    'native'
    """
    found = arithmetic(precision, gpu.capability)
    bare = found.kind == "tensor cores" and gpu.tensor_cores is None
    if bare and precision in QUANTISED and precision != "int8":  # which multiplies in float16
        return _NO_INT8._replace(text=_NO_INT8.text.format(gpu.name))
    return _HALF_NATIVE if bare else found


def peak_tflops(gpu: Board, precision: str) -> float | None:
    """Peak of the matrix products that PyTorch runs at a precision; None where it has none.

    >>> [peak_tflops(named("P100-PCIE")[0], p) for p in ("fp32", "fp16", "bf16", "tf32")]
    [9.3, 9.3, 9.3, None]
    >>> peak_tflops(named("T4")[0], "mixed")
    65
    >>> [peak_tflops(named("H100-SXM")[0], p) for p in ("int8", "int8-dynamic", "int4", "fp8")]
    [989, 1978, 989, 1978]
    """
    found = arithmetic_on(gpu, precision)
    if found == _HALF_NATIVE:
        return gpu.fp16_tflops
    if found.kind != "tensor cores":
        return None if found.kind == "absent" else gpu.fp32_tflops
    if precision in _DOUBLED:
        return gpu.fp16_tensor_tflops and 2 * gpu.fp16_tensor_tflops
    # What is only stored in fewer bits multiplies in bf16 where there is any.
    weight_only = gpu.bf16_tensor_tflops or gpu.fp16_tensor_tflops
    other = {"tf32": gpu.tf32_tensor_tflops, "bf16": gpu.bf16_tensor_tflops}
    other |= {"int8": weight_only, "int4": weight_only}
    return other.get(precision, gpu.fp16_tensor_tflops)


def hardware_peak_tflops(gpu: Board, precision: str) -> float:
    """The most that the hardware could do at a precision, whoever programs it.

    >>> [hardware_peak_tflops(named("T4")[0], p) for p in ("fp16", "int8", "int4")]
    [65, 130, 260]
    >>> hardware_peak_tflops(named("P40")[0], "int8")
    47.2
    """
    plain = precision in ("fp32", "tf32", "bf16")
    half = () if plain else (gpu.fp16_tflops, gpu.fp16_tensor_tflops)
    times = {"int8": 2, "int8-dynamic": 2, "int4": 4}.get(precision, 0)
    dot = 4 * gpu.fp32_tflops if times and gpu.capability >= FIRST_DP4A else None
    integer = times * (gpu.fp16_tensor_tflops or 0) if gpu.capability >= FIRST_INT8 else None
    peaks = (gpu.fp32_tflops, peak_tflops(gpu, precision), dot, integer, *half)
    return max(peak or 0.0 for peak in peaks)


def install_hint(capability: Capability, old_driver: bool = False) -> str:
    """The command that installs a torch build with kernels for this compute capability.

    Such as an old driver may do for: CUDA 12.6 runs on drivers from 525 on (NVIDIA, CUDA
    compatibility), CUDA 13 on those from 580 on; Blackwell has no kernels in the former.

    >>> install_hint((6, 0))
    "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
    >>> install_hint((9, 0))
    'pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130'
    >>> install_hint((9, 0), old_driver=True) == install_hint((6, 0))
    True
    """
    return LEGACY_INSTALL if capability < ((10, 0) if old_driver else LEGACY_BELOW) else _INSTALL
