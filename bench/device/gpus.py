"""What is known of each GPU type before anyone measures: facts, each with its source.

A peak is dense (no sparsity) and at the boost clock, so that no board of its kind can pass it. What
PyTorch makes of a precision is not what the hardware could: `arithmetic` says which, `peak_tflops`
in numbers. Compute capabilities: https://developer.nvidia.com/cuda-gpus and cuda-legacy-gpus.
Torch builds: https://github.com/pytorch/pytorch/blob/main/RELEASE.md and the issues named
beside the constants. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.device import kinds
from bench.device.precision import FIRST_BF16_AND_TF32, FIRST_TENSOR_CORES

Capability = tuple[int, int]

# The CUDA 12.6 builds are the last that hold kernels for Maxwell, Pascal and Volta, and torch 2.14
# is the last release that has them (pytorch/pytorch#178665, #190385).
LEGACY_BELOW: Capability = (7, 5)
LEGACY_INSTALL = "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"

# The power sensor's own error, relative, the same in every measurement: against an external meter
# (Yang, Adamek, Armour, SC'24, table of results). Nobody has metered the other types.
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
_COUNTER = "nvml.h: nvmlDeviceGetTotalEnergyConsumption is for Volta or newer"


@dataclass(frozen=True)
class Board:
    """The datasheet of one board. None: not there, or not found; `sources` has every value's.

    Attributes:
        name: Type, form and memory, such as A100-SXM-40GB.
        gpu_type: As Ray names it.
        marks: Words that all stand in the driver's name of this board, and in no sibling's.
        capability: CUDA compute capability.
        tensor_cores: Their generation; None: it has none.
        fp32_tflops: Without Tensor Cores, as the next one.
        fp16_tflops: What the hardware can; PyTorch's matrix products do not use it.
        fp16_tensor_tflops: With Tensor Cores, as the next two.
        bandwidth_gb_per_s: Of the device memory.
        tdp_w: The vendor's power limit.
        idle_w: Least and greatest power seen on an idle board in its highest performance state,
            where it also is while a program holds it.
        energy_counter: Whether NVML counts energy.
    """

    name: str
    gpu_type: str
    marks: tuple[str, ...]
    capability: Capability
    tensor_cores: int | None
    fp32_tflops: float
    memory_gb: float
    bandwidth_gb_per_s: float
    tdp_w: float
    idle_w: tuple[float, float]
    energy_counter: bool
    sources: Mapping[str, str]
    fp16_tflops: float | None = None
    fp16_tensor_tflops: float | None = None
    bf16_tensor_tflops: float | None = None
    tf32_tensor_tflops: float | None = None
    l2_mb: float | None = None


GPUS = (
    Board(
        "P100-PCIE", "P100", ("P100", "PCIE"), (6, 0), None,
        fp32_tflops=9.3, fp16_tflops=18.7, memory_gb=16, bandwidth_gb_per_s=732, l2_mb=4,
        tdp_w=250, idle_w=(23, 33), energy_counter=False,
        sources={"": _P100, "bandwidth_gb_per_s": _P100_BOARD, "l2_mb": _P100_BOARD, "idle_w": _SMI,
                 "energy_counter": _COUNTER},
    ),
    Board(
        "P100-SXM2", "P100", ("P100", "SXM2"), (6, 0), None,
        fp32_tflops=10.6, fp16_tflops=21.2, memory_gb=16, bandwidth_gb_per_s=732, l2_mb=4,
        tdp_w=300, idle_w=(25, 41), energy_counter=False,
        sources={"": _P100_LAUNCH, "bandwidth_gb_per_s": _P100_BOARD, "memory_gb": _P100,
                 "tdp_w": _SMI, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "P40", "P40", ("P40",), (6, 1), None,
        fp32_tflops=11.8, fp16_tflops=0.18, memory_gb=24, bandwidth_gb_per_s=346, l2_mb=3,
        tdp_w=250, idle_w=(45, 51), energy_counter=False,
        sources={"": _P40, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "V100-PCIE", "V100", ("V100", "PCIE"), (7, 0), 1,
        fp32_tflops=14.1, fp16_tflops=28.3, fp16_tensor_tflops=113, memory_gb=32,
        bandwidth_gb_per_s=900, l2_mb=6, tdp_w=250, idle_w=(24, 38), energy_counter=True,
        sources={"": _V100, "l2_mb": _VOLTA, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "V100-SXM2", "V100", ("V100", "SXM2"), (7, 0), 1,
        fp32_tflops=15.7, fp16_tflops=31.3, fp16_tensor_tflops=125, memory_gb=32,
        bandwidth_gb_per_s=900, l2_mb=6, tdp_w=300, idle_w=(37, 43), energy_counter=True,
        sources={"": _V100, "l2_mb": _VOLTA, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "T4", "T4", ("T4",), (7, 5), 2,
        fp32_tflops=8.1, fp16_tflops=16.3, fp16_tensor_tflops=65, memory_gb=16,
        bandwidth_gb_per_s=320, l2_mb=4, tdp_w=70, idle_w=(26, 33), energy_counter=True,
        sources={"": _T4, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "A10G", "A10G", ("A10G",), (8, 6), 3,
        fp32_tflops=35, fp16_tflops=35, fp16_tensor_tflops=70, bf16_tensor_tflops=70,
        tf32_tensor_tflops=35, memory_gb=24, bandwidth_gb_per_s=600, l2_mb=6, tdp_w=300,
        idle_w=(25, 59), energy_counter=True,
        sources={"": _A10G, "l2_mb": _GA102, "tdp_w": _SMI, "idle_w": _SMI,
                 "energy_counter": _COUNTER},
    ),
    *(
        Board(
            f"A100-{form}-{memory}GB", "A100", ("A100", form, f"{memory}GB"), (8, 0), 3,
            fp32_tflops=19.5, fp16_tflops=78, fp16_tensor_tflops=312, bf16_tensor_tflops=312,
            tf32_tensor_tflops=156, memory_gb=memory, bandwidth_gb_per_s=bandwidth, l2_mb=40,
            tdp_w=tdp, idle_w=idle, energy_counter=True,
            sources={"": _ML, "fp16_tflops": _V100, "idle_w": _SMI, "energy_counter": _COUNTER},
        )
        for form, memory, bandwidth, tdp, idle in (
            ("PCIE", 40, 1555.0, 250.0, (33.0, 45.0)),
            ("PCIE", 80, 1940.0, 300.0, (41.0, 73.0)),
            ("SXM", 40, 1555.0, 400.0, (42.0, 62.0)),
            ("SXM", 80, 2039.0, 400.0, (42.0, 62.0)),
        )
    ),
    Board(
        "L4", "L4", ("L4",), (8, 9), 4,
        fp32_tflops=30.3, fp16_tflops=30.3, fp16_tensor_tflops=125, bf16_tensor_tflops=125,
        tf32_tensor_tflops=63, memory_gb=24, bandwidth_gb_per_s=300, l2_mb=48, tdp_w=72,
        idle_w=(25, 36), energy_counter=True,
        sources={"": _L4, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "H100-PCIE", "H100", ("H100", "PCIE"), (9, 0), 4,
        fp32_tflops=51, fp16_tflops=102, fp16_tensor_tflops=756, bf16_tensor_tflops=756,
        tf32_tensor_tflops=378, memory_gb=80, bandwidth_gb_per_s=2000, l2_mb=50, tdp_w=350,
        idle_w=(44, 90), energy_counter=True,
        sources={"": _ML, "fp16_tflops": _H100, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        # The driver calls it by its memory: NVIDIA H100 80GB HBM3.
        "H100-SXM", "H100", ("H100", "HBM3"), (9, 0), 4,
        fp32_tflops=67, fp16_tflops=134, fp16_tensor_tflops=989, bf16_tensor_tflops=989,
        tf32_tensor_tflops=495, memory_gb=80, bandwidth_gb_per_s=3350, l2_mb=50, tdp_w=700,
        idle_w=(68, 73), energy_counter=True,
        sources={"": _ML, "fp16_tflops": _H100, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        "H200", "H200", ("H200",), (9, 0), 4,
        fp32_tflops=67, fp16_tflops=134, fp16_tensor_tflops=989, bf16_tensor_tflops=989,
        tf32_tensor_tflops=495, memory_gb=141, bandwidth_gb_per_s=4800, l2_mb=50, tdp_w=700,
        idle_w=(73, 122), energy_counter=True,
        sources={"": _ML, "fp16_tflops": _H100, "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
    Board(
        # Sources disagree about its L2 (65 to 126 MB).
        "B200", "B200", ("B200",), (10, 0), 5,
        fp32_tflops=80, fp16_tflops=150, fp16_tensor_tflops=2250, bf16_tensor_tflops=2250,
        tf32_tensor_tflops=1130, memory_gb=192, bandwidth_gb_per_s=8000, tdp_w=1000,
        idle_w=(136, 144), energy_counter=True,
        sources={"": _B200, "fp16_tflops": _B200_SPECS, "tf32_tensor_tflops": _B200_SPECS,
                 "idle_w": _SMI, "energy_counter": _COUNTER},
    ),
)  # fmt: skip

# Ray's words for an A100's memory, which it cannot tell itself, are types too.
_FINER = ("A100-40G", "A100-80G")
COMPUTE_CAPABILITY: dict[str, Capability] = {gpu.gpu_type: gpu.capability for gpu in GPUS} | (
    dict.fromkeys(_FINER, (8, 0))
)


def capability_of(gpu_type: str) -> Capability | None:
    """The compute capability of a type, which may be finer by its memory; None: a foreign type.

    >>> capability_of("V100-32G"), capability_of("RTX-6000")
    ((7, 0), None)
    """
    return COMPUTE_CAPABILITY.get(kinds.coarse(gpu_type))


@dataclass(frozen=True)
class Arithmetic:
    """What PyTorch does at a precision on a GPU.

    Attributes:
        kind: native, tensor cores, storage only (half the bytes, float32 arithmetic), emulated (no
            instruction of the GPU takes the type) or absent.
        text: In words.
        source: Where that was read.
    """

    kind: str
    text: str
    source: str


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


def boards(gpu_type: str, driver_name: str | None = None) -> tuple[Board, ...]:
    """The boards of a type, or the one that the driver's name tells; none for a foreign type.

    >>> [gpu.name for gpu in boards("A100", "NVIDIA A100-SXM4-40GB")]
    ['A100-SXM-40GB']
    >>> [gpu.name for gpu in boards("P100", "some P100")]
    ['P100-PCIE', 'P100-SXM2']
    """
    siblings = named(gpu_type)
    upper = (driver_name or "").upper()
    told = tuple(gpu for gpu in siblings if all(mark in upper for mark in gpu.marks))
    return told or siblings


def arithmetic(precision: str, capability: Capability) -> Arithmetic:
    """What a precision really is in PyTorch on a GPU of this compute capability.

    >>> arithmetic("fp16", (6, 0)).kind, arithmetic("bf16", (7, 5)).kind
    ('storage only', 'emulated')
    """
    have = f"compute capability {capability[0]}.{capability[1]}"
    if precision == "fp32":
        return Arithmetic("native", "float32 arithmetic", _ML)
    if precision in ("tf32", "bf16"):
        if capability >= FIRST_BF16_AND_TF32:
            return Arithmetic("tensor cores", f"{precision} on Tensor Cores", _ML)
        if precision == "tf32":
            return Arithmetic(
                "absent", f"{have} has no TF32: the switch does nothing", _TORCH_SUPPORT
            )
        return Arithmetic("emulated", f"{have} has no bfloat16 arithmetic", _TORCH_SUPPORT)
    if capability >= FIRST_TENSOR_CORES:
        return Arithmetic("tensor cores", "float16 on Tensor Cores", _ML)
    return Arithmetic(
        "storage only",
        "float16 storage, float32 arithmetic: PyTorch asks cuBLAS for float32 sums, so that only"
        " the bytes are halved",
        _TORCH_BLAS,
    )


def peak_tflops(gpu: Board, precision: str) -> float | None:
    """Peak of the matrix products that PyTorch runs at a precision; None where it has none.

    >>> [peak_tflops(named("P100-PCIE")[0], p) for p in ("fp32", "fp16", "bf16", "tf32")]
    [9.3, 9.3, 9.3, None]
    >>> peak_tflops(named("T4")[0], "mixed")
    65
    """
    kind = arithmetic(precision, gpu.capability).kind
    if kind == "absent":
        return None
    if kind != "tensor cores":
        return gpu.fp32_tflops
    return {
        "tf32": gpu.tf32_tensor_tflops,
        "bf16": gpu.bf16_tensor_tflops,
    }.get(precision, gpu.fp16_tensor_tflops)


def hardware_peak_tflops(gpu: Board, precision: str) -> float:
    """The most that the hardware could do at a precision, whoever programs it."""
    half = (gpu.fp16_tflops, gpu.fp16_tensor_tflops) if precision in ("fp16", "mixed") else ()
    return max(peak or 0.0 for peak in (gpu.fp32_tflops, peak_tflops(gpu, precision), *half))


def install_hint(capability: Capability) -> str:
    """The command that installs a torch build with kernels for this compute capability.

    >>> install_hint((6, 0))
    "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
    >>> install_hint((9, 0))
    'pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130'
    """
    if capability < LEGACY_BELOW:
        return LEGACY_INSTALL
    return "pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130"


def old_driver_hint(capability: Capability) -> str:
    """The command that installs a torch build which an older driver may do for.

    CUDA 12.6 runs on drivers from 525 on (NVIDIA, CUDA compatibility), CUDA 13 on those from 580
    on; Blackwell has no kernels in the former.

    >>> old_driver_hint((7, 5))
    "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
    """
    return LEGACY_INSTALL if capability < (10, 0) else install_hint(capability)
