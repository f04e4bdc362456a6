"""What is known of each GPU type before anyone measures: facts, each with its source.

A peak is dense (no sparsity) and at the boost clock, so that no board of its kind can pass it. What
PyTorch makes of a precision is not what the hardware could: `arithmetic` says which, `peak_tflops`
in numbers. Compute capabilities: https://developer.nvidia.com/cuda-gpus and cuda-legacy-gpus.
Torch builds: https://github.com/pytorch/pytorch/blob/main/RELEASE.md. Standard library only.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bench.device import kinds

Capability = tuple[int, int]

# The CUDA 12.6 builds are the last that hold kernels for Maxwell, Pascal and Volta, and torch 2.14
# is the last release that has them (pytorch/pytorch#178665, #190385).
LEGACY_BELOW: Capability = (7, 5)
LEGACY_INSTALL = "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
_INSTALL = "pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130"

# The power sensor's own error, relative, the same in every measurement: against an external meter
# (Yang, Adamek, Armour, SC'24, table of results). No one has metered the other types.
SENSOR_ERROR = {"P100": 0.01, "A100": 0.06}
USUAL_SENSOR_ERROR = 0.05

_P100 = (
    "https://tech4gamers.com/nvidia-tesla-p100-will-be-available-in-two-variants-of-16gb-12gb-hbm2/"
)
_P100_BOARD = "https://cputronic.com/gpu/nvidia-tesla-p100-pcie-16-gb"
_P100_LAUNCH = (
    "https://teckknow.com/nvidia-unveils-tesla-p100-hpc-board-based-pascal-gpu-architecture/"
)
_P40 = "https://sysrqmts.com (Tesla P40: FP16 at 1/64 of FP32, L2 3 MB)"
_VOLTA = "https://xenon.com.au (NVIDIA's Volta launch table: SMs, L2, FP32 of P100 and V100)"
_V100 = "https://github.com/winston-zhang-orz/gpu-specs (specs.md, with NVIDIA's datasheets)"
_T4 = "https://hmc-tech.com (T4 against V100 SXM)"
_A10G = "https://www.baseten.co/blog/nvidia-a10-vs-a10g-for-ml-model-inference/"
_GA102 = "https://sysrqmts.com/ru/gpus/compare/nvidia-a10-pcie-vs-nvidia-quadro-rtx-4000"
_ML = "https://github.com/stas00/ml-engineering (compute/accelerator, with NVIDIA's pages)"
_L4 = "https://hmc-tech.com (L4 against A100 40GB)"
_H100 = "https://glennklockwood.com/garden/processors/H100"
_B200 = "https://glennklockwood.com/garden/processors/B200"
_B200_SPECS = "https://hmc-tech.com/gpus/nvidia-b200-vs-nvidia-b100"
_SMI = "nvidia-smi tables in public repositories (P0, at most 6 % utilisation), read in 2026-11"
_TORCH_SUPPORT = "torch/cuda/__init__.py: is_bf16_supported(including_emulation=False), 8.0"
_TORCH_BLAS = (
    "pytorch aten/src/ATen/cuda/CUDABlas.cpp: gemm<Half> with CUDA_R_32F; pytorch/pytorch#123157,"
    " #144441"
)


@dataclass(frozen=True)
class Board:
    """The datasheet of one board. None: not there, or not found."""

    name: str  # type, form and memory, such as A100-SXM-40GB
    capability: Capability
    tensor_cores: int | None  # their generation
    fp32_tflops: float  # without Tensor Cores, as the next one
    fp16_tflops: float | None  # what the hardware can; PyTorch's matrix products do not use it
    fp16_tensor_tflops: float | None
    bf16_tensor_tflops: float | None
    tf32_tensor_tflops: float | None
    memory_gb: float
    bandwidth_gb_per_s: float  # of the device memory
    l2_mb: float | None
    tdp_w: float  # the vendor's power limit
    # Least and greatest power seen on an idle board in its highest performance state, where it also
    # is while a program holds it (_SMI).
    idle_w: tuple[float, float]
    sources: Mapping[str, str]  # of single fields, and of all others by an empty name

    @property
    def gpu_type(self) -> str:
        """As Ray names it."""
        return self.name.partition("-")[0]

    @property
    def energy_counter(self) -> bool:
        """Whether NVML counts energy."""
        return self.capability >= FIRST_ENERGY_COUNTER


# nvml.h: nvmlDeviceGetTotalEnergyConsumption is for Volta or newer.
FIRST_ENERGY_COUNTER: Capability = (7, 0)
# The driver calls it by its memory: NVIDIA H100 80GB HBM3.
_DRIVER_WORDS = {"H100-SXM": "H100-HBM3"}
_A100 = {"": _ML, "fp16_tflops": _V100}
_HOPPER = {"": _ML, "fp16_tflops": _H100}

GPUS = (
    #     name, capability, Tensor Cores; peak TFLOP/s: fp32, fp16 | with Tensor Cores: fp16, bf16,
    #     tf32; GB, GB/s, L2 MB; W: limit, idle
    Board("P100-PCIE", (6, 0), None, 9.3, 18.7, None, None, None, 16, 732, 4, 250, (23, 33),
          {"": _P100, "bandwidth_gb_per_s": _P100_BOARD, "l2_mb": _P100_BOARD}),
    Board("P100-SXM2", (6, 0), None, 10.6, 21.2, None, None, None, 16, 732, 4, 300, (25, 41),
          {"": _P100_LAUNCH, "bandwidth_gb_per_s": _P100_BOARD, "memory_gb": _P100, "tdp_w": _SMI}),
    Board("P40", (6, 1), None, 11.8, 0.18, None, None, None, 24, 346, 3, 250, (45, 51),
          {"": _P40}),
    Board("V100-PCIE", (7, 0), 1, 14.1, 28.3, 113, None, None, 32, 900, 6, 250, (24, 38),
          {"": _V100, "l2_mb": _VOLTA}),
    Board("V100-SXM2", (7, 0), 1, 15.7, 31.3, 125, None, None, 32, 900, 6, 300, (37, 43),
          {"": _V100, "l2_mb": _VOLTA}),
    Board("T4", (7, 5), 2, 8.1, 16.3, 65, None, None, 16, 320, 4, 70, (26, 33), {"": _T4}),
    Board("A10G", (8, 6), 3, 35, 35, 70, 70, 35, 24, 600, 6, 300, (25, 59),
          {"": _A10G, "l2_mb": _GA102, "tdp_w": _SMI}),
    Board("A100-PCIE-40GB", (8, 0), 3, 19.5, 78, 312, 312, 156, 40, 1555, 40, 250, (33, 45), _A100),
    Board("A100-PCIE-80GB", (8, 0), 3, 19.5, 78, 312, 312, 156, 80, 1940, 40, 300, (41, 73), _A100),
    Board("A100-SXM-40GB", (8, 0), 3, 19.5, 78, 312, 312, 156, 40, 1555, 40, 400, (42, 62), _A100),
    Board("A100-SXM-80GB", (8, 0), 3, 19.5, 78, 312, 312, 156, 80, 2039, 40, 400, (42, 62), _A100),
    Board("L4", (8, 9), 4, 30.3, 30.3, 125, 125, 63, 24, 300, 48, 72, (25, 36), {"": _L4}),
    Board("H100-PCIE", (9, 0), 4, 51, 102, 756, 756, 378, 80, 2000, 50, 350, (44, 90), _HOPPER),
    Board("H100-SXM", (9, 0), 4, 67, 134, 989, 989, 495, 80, 3350, 50, 700, (68, 73), _HOPPER),
    Board("H200", (9, 0), 4, 67, 134, 989, 989, 495, 141, 4800, 50, 700, (73, 122), _HOPPER),
    # Sources disagree about its L2 (65 to 126 MB).
    Board("B200", (10, 0), 5, 80, 150, 2250, 2250, 1130, 192, 8000, None, 1000, (136, 144),
          {"": _B200, "fp16_tflops": _B200_SPECS, "tf32_tensor_tflops": _B200_SPECS}),
)  # fmt: skip

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
    wanted = name.strip().upper()
    if wanted in _FINER:
        gpu_type, _, memory = wanted.partition("-")
        return tuple(gpu for gpu in named(gpu_type) if gpu.name.endswith(f"-{memory}B"))
    return tuple(gpu for gpu in GPUS if wanted in (gpu.gpu_type, gpu.name))


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
        if all(word in told for word in _DRIVER_WORDS.get(gpu.name, gpu.name).split("-"))
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
_HALF_STORED = Arithmetic(
    "storage only",
    "float16 storage, float32 arithmetic: PyTorch asks cuBLAS for float32 sums, so that only"
    " the bytes are halved",
    _TORCH_BLAS,
)
_NO_TF32 = Arithmetic("absent", "{} has no TF32: the switch does nothing", _TORCH_SUPPORT)
_NO_BF16 = Arithmetic("emulated", "{} has no bfloat16 arithmetic", _TORCH_SUPPORT)
# From which compute capability on a precision runs on Tensor Cores, in which type, and what it is
# on older GPUs.
_ARITHMETIC: Mapping[str, tuple[Capability | None, str, Arithmetic]] = {
    "fp32": (None, "", Arithmetic("native", "float32 arithmetic", _ML)),
    "tf32": (FIRST_BF16_AND_TF32, "tf32", _NO_TF32),
    "fp16": (FIRST_TENSOR_CORES, "float16", _HALF_STORED),
    "bf16": (FIRST_BF16_AND_TF32, "bf16", _NO_BF16),
    "mixed": (FIRST_TENSOR_CORES, "float16", _HALF_STORED),
}


def arithmetic(precision: str, capability: Capability) -> Arithmetic:
    """What a precision really is in PyTorch on a GPU of this compute capability.

    >>> arithmetic("fp16", (6, 0)).kind, arithmetic("bf16", (7, 5)).text
    ('storage only', 'compute capability 7.5 has no bfloat16 arithmetic')
    """
    first, multiplied, older = _ARITHMETIC[precision]
    if first and capability >= first:
        return Arithmetic("tensor cores", f"{multiplied} on Tensor Cores", _ML)
    return older._replace(text=older.text.format("compute capability {}.{}".format(*capability)))


def peak_tflops(gpu: Board, precision: str) -> float | None:
    """Peak of the matrix products that PyTorch runs at a precision; None where it has none.

    >>> [peak_tflops(named("P100-PCIE")[0], p) for p in ("fp32", "fp16", "bf16", "tf32")]
    [9.3, 9.3, 9.3, None]
    >>> peak_tflops(named("T4")[0], "mixed")
    65
    """
    kind = arithmetic(precision, gpu.capability).kind
    if kind != "tensor cores":
        return None if kind == "absent" else gpu.fp32_tflops
    other = {"tf32": gpu.tf32_tensor_tflops, "bf16": gpu.bf16_tensor_tflops}
    return other.get(precision, gpu.fp16_tensor_tflops)


def hardware_peak_tflops(gpu: Board, precision: str) -> float:
    """The most that the hardware could do at a precision, whoever programs it."""
    half = (gpu.fp16_tflops, gpu.fp16_tensor_tflops) if precision in ("fp16", "mixed") else ()
    return max(peak or 0.0 for peak in (gpu.fp32_tflops, peak_tflops(gpu, precision), *half))


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
