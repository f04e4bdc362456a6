"""The datasheets of NVIDIA's boards: facts, each with its source.

A peak is dense (no sparsity) and at the listed boost clock. A data center board cannot pass it; a
GeForce card may by some percent, and is rated with float16 sums where float32 sums run at half of
it. Compute capabilities: https://developer.nvidia.com/cuda-gpus and cuda-legacy-gpus.
Standard library only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Capability = tuple[int, int]
FIRST_ENERGY_COUNTER: Capability = (7, 0)
# The least that nvidia-smi showed of any idle board (RTX 2060 and 2080 in state P8), in tables in
# public repositories: a board that computes draws more.
LEAST_IDLE_W = 1.0

_FORM = re.compile(r"-(PCIE|SXM\d?|HBM\w+|\d+GB?)(-.*)?$")
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
_RN = "https://github.com/reox007/RightNow-GPU-Database (data/nvidia/all.json, from TechPowerUp)"
_TURING = "https://developer.nvidia.com/blog/nvidia-turing-architecture-in-depth/ (table 1)"
_EVERFIR = "https://github.com/everfir/gpu-database (src/data/nvidia.json, with NVIDIA's papers)"
_GPUMAP = "https://github.com/lamonoai/gpumap (nvidia/GPU.md)"
_LIGHTNING = (
    "https://github.com/Lightning-AI/pytorch-lightning"
    " (src/lightning/fabric/utilities/throughput.py, with NVIDIA's datasheets)"
)
_GA102_PAPER = (
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
    " (its tables, quoted in public repositories)"
)
_SPECS = "https://github.com/winston-zhang-orz/gpu-specs (specs.md, with NVIDIA's datasheets)"
_A40_SHEET = "https://www.ecer.com (NVIDIA A40, copy of NVIDIA's datasheet)"
_A40_L2 = "https://sysrqmts.com/fr/gpus/compare/nvidia-a40-pcie-vs-nvidia-quadro-rtx-6000"
_3060 = "https://sysrqmts.com/ru/gpus/compare/nvidia-geforce-rtx-3060-vs-nvidia-rtx-a6000"
_3060_INT8 = (
    "derived from INT8 102: https://github.com/stillwater-sc/KPU-Simulator"
    " (docs/external-knowledge/rtx_30_series_specs_table.md), and the ratios of _GPUMAP"
)
_2060 = "https://hmc-tech.com/gpu/nvidia-geforce-rtx-3050-6gb-vs-nvidia-geforce-rtx-2060-tu104"
_2070_FE = "derived from 1710 MHz: https://pl.gamegpu.com/seria-geforce-rtx-2xx/GeForce-RTX-2070"
_2070_W = "http://firstxw.com/view/218347.html"
_TITAN_V = "https://geektopia.es (2017-12-08, Titan V)"
_4090 = "https://hmc-tech.com/gpu/nvidia-geforce-rtx-5050-vs-nvidia-geforce-rtx-4090"
_4090_L2 = "https://waredb.com/processor/nvidia-geforce-rtx-4090"
_L40 = "https://hmc-tech.com/gpu/nvidia-l40-vs-nvidia-a40"
_L40_BOARD = "https://www.mullet.se/product.html?product_id=355414 (NVIDIA's L40 and L40S sheets)"
_L40_L2 = "http://www.topcpu.net/pt/gpu-c/a40-pcie-vs-l40"
_L40S = "https://hmc-tech.com/gpu/nvidia-l40s-vs-nvidia-t40"
_6000_ADA = (
    "https://github.com/atineoSE/coding-model-seeks-gpu"
    " (pipeline/pipeline/sources/rtx6000ada_specs.md, NVIDIA's datasheet)"
)
_6000_ADA_L2 = "https://cputronic.com/de/gpu/nvidia-rtx-6000-ada-generation"
_GH200 = (
    "https://github.com/atineoSE/coding-model-seeks-gpu"
    " (pipeline/pipeline/sources/gh200_specs.md, NVIDIA's datasheet)"
)
_SCRIPT = (
    "a public script that works out peaks from NVIDIA's papers (line 'Tensor Core FP16   "
    " throughput @ 0% sparsity'; repository not known)"
)
_64TH = "derived: 1/64 of fp32, as " + _RN + " prints it with two digits"
_SMI_W = "limit in nvidia-smi tables in public repositories"


@dataclass(frozen=True)
class Board:
    """The datasheet of one board. None: not there, or not found."""

    name: str  # type, form and memory, such as A100-SXM-40GB; GeForce-RTX-4090
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
    idle_w: tuple[float, float] | None
    sources: Mapping[str, str] = field(
        hash=False
    )  # of single fields, and of all others by an empty name

    @property
    def gpu_type(self) -> str:
        """As Ray names it."""
        return _FORM.sub("", self.name)

    @property
    def is_for_servers(self) -> bool:
        """Whether it is no card for desktops."""
        return not self.name.startswith(("GeForce", "TITAN", "RTX"))

    @property
    def energy_counter(self) -> bool:
        """Whether NVML counts energy: nvml.h says for Volta or newer."""
        return self.capability >= FIRST_ENERGY_COUNTER


_A100 = {"": _ML, "fp16_tflops": _V100}
_HOPPER = {"": _ML, "fp16_tflops": _H100}

GPUS = (
    #     name, capability, Tensor Cores; peak TFLOP/s: fp32, fp16 | with Tensor Cores: fp16, bf16,
    #     tf32; GB, GB/s, L2 MB; W: limit, idle
    # Data centers.
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
    # NVIDIA's sheet: 121, 121, 60 with Tensor Cores.
    Board("L4", (8, 9), 4, 30.3, 30.3, 125, 125, 63, 24, 300, 48, 72, (25, 36), {"": _L4}),
    Board("H100-PCIE", (9, 0), 4, 51, 102, 756, 756, 378, 80, 2000, 50, 350, (44, 90), _HOPPER),
    Board("H100-SXM", (9, 0), 4, 67, 134, 989, 989, 495, 80, 3350, 50, 700, (68, 73), _HOPPER),
    Board("H200", (9, 0), 4, 67, 134, 989, 989, 495, 141, 4800, 50, 700, (73, 122), _HOPPER),
    # Sources disagree about its L2 (65 to 126 MB).
    Board("B200", (10, 0), 5, 80, 150, 2250, 2250, 1130, 192, 8000, None, 1000, (136, 144),
          {"": _B200, "fp16_tflops": _B200_SPECS, "tf32_tensor_tflops": _B200_SPECS}),
    # --- Maxwell, Pascal: no Tensor Cores ---
    # Two GPUs a board (300 W together); this is one. No fp16 arithmetic. P8: 12-23 W.
    Board("M60", (5, 2), None, 4.83, None, None, None, None, 8, 160.4, 2, 150, (37, 39),
          {"": _RN, "tdp_w": _SMI_W}),
    # P8: 6 W.
    Board("P4", (6, 1), None, 5.7, 0.0891, None, None, None, 8, 192.3, 2, 75, (22, 23),
          {"": _RN, "fp16_tflops": _64TH}),
    # No power sensor: nvidia-smi prints N/A in every table seen.
    Board("GeForce-GTX-1050-Ti", (6, 1), None, 2.14, 0.0335, None, None, None, 4, 112.1, 1, 75,
          None, {"": _RN, "fp16_tflops": _64TH}),
    # 6 GB; a later variant has 9 Gbps memory, 216.7 GB/s. P8: 7-11 W.
    Board("GeForce-GTX-1060", (6, 1), None, 4.38, 0.0685, None, None, None, 6, 192.2, 1.5, 120,
          (26, 27), {"": _RN, "fp16_tflops": _64TH}),
    # P8: 10-16 W.
    Board("GeForce-GTX-1070", (6, 1), None, 6.46, 0.101, None, None, None, 8, 256.3, 2, 150,
          (33, 34), {"": _RN, "fp16_tflops": _64TH}),
    # A later variant has 11 Gbps memory, 352.3 GB/s. P8: 10-12 W.
    Board("GeForce-GTX-1080", (6, 1), None, 8.87, 0.139, None, None, None, 8, 320.3, 2, 180,
          (37, 46), {"": _RN, "fp16_tflops": _64TH}),
    # P8: 7-17 W.
    Board("GeForce-GTX-1080-Ti", (6, 1), None, 11.34, 0.178, None, None, None, 11, 484.4, 2.75, 250,
          (54, 63), {"": _RN, "fp16_tflops": _64TH}),
    # --- Volta, Turing ---
    # NVIDIA's 110 belongs to its 13.8 TFLOP/s clock; at the 1455 MHz of 14.9 it would be 119
    # (derived), so 110 may be passed. P8: 23-29 W.
    Board("TITAN-V", (7, 0), 1, 14.9, 29.8, 110, None, None, 12, 653, 4.5, 250, None,
          {"": _RN, "fp16_tensor_tflops": _TITAN_V, "bandwidth_gb_per_s": _TITAN_V}),
    # GTX 16: capability 7.5 without Tensor Cores. The GDDR6 variant: 192 GB/s. P8: 4-6 W.
    Board("GeForce-GTX-1650", (7, 5), None, 2.98, 5.97, None, None, None, 4, 128.1, 1, 75, None,
          {"": _RN}),
    # P8: 8 W.
    Board("GeForce-GTX-1660", (7, 5), None, 5.03, 10.05, None, None, None, 6, 192.1, 1.5, 120,
          (19, 24), {"": _RN}),
    # P8: 8-9 W.
    Board("GeForce-GTX-1660-Ti", (7, 5), None, 5.44, 10.87, None, None, None, 6, 288, 1.5, 120,
          None, {"": _RN}),
    # RTX 20, fp16 with fp16 accumulation; GeForce with fp32 accumulation: half. P8: 1-21 W.
    Board("GeForce-RTX-2060", (7, 5), 2, 6.45, 12.9, 51.6, None, None, 6, 336, 3, 160, None,
          {"": _RN, "fp16_tensor_tflops": _2060}),
    # Founders Edition (1710 MHz, 185 W); reference: 7.46, 14.93, 59.7 (derived), 175 W. P8: 7-24 W.
    Board("GeForce-RTX-2070", (7, 5), 2, 7.88, 15.8, 63.0, None, None, 8, 448, 4, 185, (44, 47),
          {"": _RN, "fp32_tflops": _2070_FE, "fp16_tflops": _2070_FE,
           "fp16_tensor_tflops": _2070_FE, "tdp_w": _2070_W}),
    # Founders Edition; reference: 10.07, 20.1, 80.5, 215 W. Idle in P2. P8: 1-15 W.
    Board("GeForce-RTX-2080", (7, 5), 2, 10.6, 21.2, 84.8, None, None, 8, 448, 4, 225, (28, 50),
          {"": _RN, "fp32_tflops": _LIGHTNING, "fp16_tflops": _LIGHTNING,
           "fp16_tensor_tflops": "derived from INT8 169.6: " + _LIGHTNING, "tdp_w": _SMI_W}),
    # Founders Edition; reference: 13.45, 26.9, 107.6, 250 W. fp32 accumulation: 56.9. P8: 13-24 W.
    Board("GeForce-RTX-2080-Ti", (7, 5), 2, 14.2, 28.5, 113.8, None, None, 11, 616, 5.5, 260,
          (57, 71), {"": _TURING}),
    # Both accumulations at the full rate. P8: 5-18 W.
    Board("TITAN-RTX", (7, 5), 2, 16.3, 32.6, 130.5, None, None, 24, 672, 6, 280, (56, 71),
          {"": _RN, "fp16_tensor_tflops": _SCRIPT}),
    # --- Ampere ---
    # P8: not seen.
    Board("A30", (8, 0), 3, 10.3, 41.3, 165, 165, 82.6, 24, 933, 24, 165, (27, 43), {"": _GPUMAP}),
    # P8: 8-26 W.
    Board("A10", (8, 6), 3, 31.2, 31.2, 125, 125, 62.5, 24, 600, 6, 150, (54, 81),
          {"": _SPECS, "l2_mb": _GPUMAP}),
    # P8: 14-32 W.
    Board("A40", (8, 6), 3, 37.4, 37.4, 149.7, 149.7, 74.8, 48, 696, 6, 300, (72, 92),
          {"": _A40_SHEET, "fp16_tflops": _GPUMAP, "l2_mb": _A40_L2}),
    # P8: 22-32 W.
    Board("RTX-A6000", (8, 6), 3, 38.7, 38.7, 154.8, 154.8, 77.4, 48, 768, 6, 300, (69, 83),
          {"": _GA102_PAPER}),
    # RTX 30, fp16 with fp16 accumulation; with fp32 accumulation as bf16: half. P8: 9-21 W.
    Board("GeForce-RTX-3060", (8, 6), 3, 12.74, 12.74, 51, 25.5, 12.74, 12, 360, 3, 170, (32, 50),
          {"": _3060, "fp16_tensor_tflops": _3060_INT8, "bf16_tensor_tflops": _3060_INT8,
           "tf32_tensor_tflops": _3060_INT8, "tdp_w": _GPUMAP}),
    # P8: 15-25 W.
    Board("GeForce-RTX-3070", (8, 6), 3, 20.3, 20.3, 81.3, 40.6, 20.3, 8, 448, 4, 220, (39, 45),
          {"": _GPUMAP}),
    # 10 GB; the 12 GB variant: 30.64 fp32, 912 GB/s, 350 W. P8: 3-51 W.
    Board("GeForce-RTX-3080", (8, 6), 3, 29.8, 29.8, 119, 59.5, 29.8, 10, 760, 5, 320, None,
          {"": _GPUMAP}),
    # P8: 5-25 W.
    Board("GeForce-RTX-3090", (8, 6), 3, 35.6, 35.6, 142, 71, 35.6, 24, 936, 6, 350, (88, 107),
          {"": _GA102_PAPER}),
    # --- Ada ---
    # RTX 40, fp16 with fp16 accumulation; with fp32 accumulation as bf16: half. Older drivers
    # print no power for the 4060. P8: none sure.
    Board("GeForce-RTX-4060", (8, 9), 4, 15.1, 15.1, 60.5, 30.3, 15.1, 8, 272, 24, 115, None,
          {"": _EVERFIR, "l2_mb": _RN}),
    # P8: 5-17 W.
    Board("GeForce-RTX-4070", (8, 9), 4, 29.15, 29.15, 116.6, 58.3, 29.15, 12, 504, 36, 200,
          (23, 74), {"": _EVERFIR, "l2_mb": _RN}),
    # P8: 4-22 W.
    Board("GeForce-RTX-4080", (8, 9), 4, 48.7, 48.7, 194.9, 97.5, 48.7, 16, 716.8, 64, 320, None,
          {"": _EVERFIR, "l2_mb": "https://mobylak.com (table of NVIDIA's Ada paper)"}),
    # P8: 8-25 W.
    Board("GeForce-RTX-4090", (8, 9), 4, 82.6, 82.6, 330.3, 165.2, 82.6, 24, 1008, 72, 450,
          (47, 64), {"": _EVERFIR, "bf16_tensor_tflops": _4090, "l2_mb": _4090_L2}),
    # What the chip does at its clock. NVIDIA's sheet rates the L40 at half of it with Tensor Cores
    # (181, 181, 90.5), which is no bound of the hardware if the limit is not in it. P8: 35 W.
    Board("L40", (8, 9), 4, 90.5, 90.5, 362.1, 362.1, 181.1, 48, 864, 96, 300, None,
          {"": _L40_BOARD, "fp16_tflops": _L40, "fp16_tensor_tflops": _L40,
           "bf16_tensor_tflops": _L40, "tf32_tensor_tflops": _L40, "l2_mb": _L40_L2}),
    # NVIDIA's sheet prints 362.05, but 733 with sparsity. P8: 20-36 W.
    Board("L40S", (8, 9), 4, 91.6, 91.6, 366.4, 366.4, 183.2, 48, 864, 96, 350, (59, 84),
          {"": _L40_BOARD, "fp16_tflops": _L40S, "fp16_tensor_tflops": _L40S,
           "bf16_tensor_tflops": _L40S, "tf32_tensor_tflops": _L40S, "l2_mb": _GPUMAP}),
    # P8: 5-41 W.
    Board("RTX-6000-Ada", (8, 9), 4, 91.1, 91.1, 364.2, 364.2, 182.1, 48, 960, 96, 300, None,
          {"": _6000_ADA, "fp16_tflops": _GPUMAP, "fp16_tensor_tflops": _EVERFIR,
           "bf16_tensor_tflops": _EVERFIR, "tf32_tensor_tflops": _EVERFIR, "l2_mb": _6000_ADA_L2}),
    # --- Hopper: the driver's name has the CPU's memory (480GB), the GPU has 96 GB HBM3 ---
    # The GPU's limit in the tables: 900 W, or 700; the module's (CPU, GPU, memory): 450-1000 W.
    # No P8 seen.
    Board("GH200-480GB", (9, 0), 4, 67, 134, 990, 990, 495, 96, 4000, None, 900, (70, 106),
          {"": _GH200, "fp16_tflops": _H100, "tf32_tensor_tflops": _H100, "tdp_w": _SMI_W}),
    # The module's limit, for want of the GPU's.
    Board("GH200-144G-HBM3e", (9, 0), 4, 67, 134, 990, 990, 495, 144, 4900, None, 1000, None,
          {"": _GH200, "fp16_tflops": _H100, "tf32_tensor_tflops": _H100}),
    # --- Blackwell GeForce, fp16 with fp16 accumulation; with fp32 accumulation as bf16: half ---
    # P8: not seen.
    Board("GeForce-RTX-5070", (12, 0), 5, 30.9, 30.9, 123.5, 61.7, 30.9, 12, 672, 48, 250, (18, 21),
          {"": _EVERFIR, "l2_mb": _RN}),
    # P8: 9-22 W.
    Board("GeForce-RTX-5080", (12, 0), 5, 56.3, 56.3, 225.1, 112.6, 56.3, 16, 960, 64, 360, None,
          {"": _EVERFIR, "l2_mb": _RN}),
    # P8: 8-47 W.
    Board("GeForce-RTX-5090", (12, 0), 5, 104.8, 104.8, 419, 209.5, 104.8, 32, 1792, 96, 575,
          (23, 44), {"": _EVERFIR, "l2_mb": _RN}),
)  # fmt: skip
