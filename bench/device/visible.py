"""Which GPUs this process may use, by CUDA_VISIBLE_DEVICES, which Ray sets. Imports no torch."""

import contextlib
import os
import socket

from bench.asked import CPU, Cell
from bench.device import kinds, nvml
from bench.errors import TensorgapError, WrongDevice

VARIABLE = "CUDA_VISIBLE_DEVICES"


def check(cell: Cell, driver: nvml.Driver) -> None:
    """Compare the GPU that this process was given with the cell, before CUDA starts, for seconds.

    What NVML does not see, torch may: then nothing is said. Raises WrongDevice or GpuLostError.
    """
    if cell.gpu_type == CPU or VARIABLE not in os.environ:
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
    return driver.gpu(os.environ.get(VARIABLE, "0").split(",")[0])


def position(index: int, uuid: str) -> int | None:
    """The number by which Ray gives away the GPU of this index in NVML and this UUID, from 0.

    None where this process may not use it.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        return index
    names = [name.strip() for name in chosen.split(",")]
    meant = (
        n
        for n, name in enumerate(names)
        if name and (name == str(index) or uuid[: len(name)] == name)
    )
    return next(meant, None)
