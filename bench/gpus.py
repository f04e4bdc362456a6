"""What is known of each GPU type before anyone measures: facts that decide what can run there.

Compute capabilities: https://developer.nvidia.com/cuda-gpus and cuda-legacy-gpus.
Torch builds: https://github.com/pytorch/pytorch/blob/main/RELEASE.md and the issues named
beside the constants.
"""

from __future__ import annotations

Capability = tuple[int, int]

COMPUTE_CAPABILITY: dict[str, Capability] = {
    "P100": (6, 0),
    "P40": (6, 1),
    "V100": (7, 0),
    "T4": (7, 5),
    "A100": (8, 0),
    "A100-40G": (8, 0),  # Ray's words for what it cannot tell itself
    "A100-80G": (8, 0),
    "A10G": (8, 6),
    "L4": (8, 9),
    "H100": (9, 0),
    "H200": (9, 0),
}

# The CUDA 12.6 builds are the last that hold kernels for Maxwell, Pascal and Volta, and torch 2.14
# is the last release that has them (pytorch/pytorch#178665, #190385).
LEGACY_BELOW: Capability = (7, 5)
LEGACY_INSTALL = "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"


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


# The power sensor's own error, relative, the same in every measurement: against an external meter
# (Yang, Adamek, Armour, SC'24, table of results). Nobody has metered the other types.
SENSOR_ERROR = {"P100": 0.01, "A100": 0.06}
USUAL_SENSOR_ERROR = 0.05
