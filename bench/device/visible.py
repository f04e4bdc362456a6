"""Which GPUs this process may use, by CUDA_VISIBLE_DEVICES, which Ray sets. Imports no torch."""

import contextlib
import os
import socket

from bench.asked import CPU, Cell
from bench.device import kinds, nvml
from bench.errors import TensorgapError, WrongDevice

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def check(cell: Cell, driver: nvml.Driver) -> None:
    """Compare the GPU that this process was given with the cell, before CUDA starts, for seconds.

    What NVML does not see, torch may: then nothing is said. Raises WrongDevice or GpuLostError.
    """
    if cell.gpu_type == CPU or _VARIABLE not in os.environ:
        return
    # Ray counts in NVML's order; CUDA, by default, the fastest first.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    with contextlib.suppress(TensorgapError):
        card = given(driver).card
        if card.memory_bytes:
            check_type(cell, card)


def check_type(cell: Cell, card: kinds.Card) -> None:
    """Raise WrongDevice where a GPU is not of the cell's type."""
    if not card.is_a(cell.gpu_type):
        raise WrongDevice(cell.gpu_type, card, socket.gethostname())


def given(driver: nvml.Driver) -> nvml.Gpu:
    """The first GPU that this process may use; raises as `nvml.Driver.gpu`."""
    return driver.gpu(os.environ.get(_VARIABLE, "0").split(",")[0])


def allows(index: int, uuid: str) -> bool:
    """Whether this process may use the GPU of this index in NVML and this UUID."""
    chosen = os.environ.get(_VARIABLE)
    names = [name.strip() for name in (chosen or "").split(",")]
    begins = any(name and uuid.startswith(name) for name in names)
    return chosen is None or str(index) in names or begins
