"""What is known of each GPU type before anyone measures: facts that decide what can run there.

Compute capabilities: https://developer.nvidia.com/cuda-gpus and cuda-legacy-gpus. Tensor Cores:
the architectures' whitepapers (Volta 2017, Turing 2018, Ampere 2020, Ada 2022, Hopper 2022).
Torch builds: https://github.com/pytorch/pytorch/blob/main/RELEASE.md and the issues named
beside the constants.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuFacts:
    """One GPU type."""

    compute_capability: tuple[int, int]
    tensor_core_precisions: tuple[str, ...]  # () where the GPU has no Tensor Cores
    memory_gb: tuple[int, ...]  # of its variants


GPUS: dict[str, GpuFacts] = {
    "P100": GpuFacts((6, 0), (), (12, 16)),
    "P40": GpuFacts((6, 1), (), (24,)),
    "V100": GpuFacts((7, 0), ("fp16",), (16, 32)),
    "T4": GpuFacts((7, 5), ("fp16",), (16,)),
    "A100": GpuFacts((8, 0), ("tf32", "fp16", "bf16"), (40, 80)),
    "A10G": GpuFacts((8, 6), ("tf32", "fp16", "bf16"), (24,)),
    "L4": GpuFacts((8, 9), ("tf32", "fp16", "bf16"), (24,)),
    "H100": GpuFacts((9, 0), ("tf32", "fp16", "bf16"), (80, 94)),
    "H200": GpuFacts((9, 0), ("tf32", "fp16", "bf16"), (141,)),
}

# The CUDA 12.6 builds are the last that hold kernels for Maxwell, Pascal and Volta, and torch 2.14
# is the last release that has them (pytorch/pytorch#178665, #190385).
LEGACY_BELOW = (7, 5)
LEGACY_INSTALL = "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"


def install_hint(capability: tuple[int, int]) -> str:
    """The command that installs a torch build with kernels for this compute capability.

    >>> install_hint((6, 0))
    "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
    >>> install_hint((9, 0))
    'pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130'
    """
    if capability < LEGACY_BELOW:
        return LEGACY_INSTALL
    return "pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130"
