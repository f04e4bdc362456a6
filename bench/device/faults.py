"""What an error of torch on a device means, and whether the device still computes after it."""

import contextlib
import traceback

import torch

from bench.device.acquire import Found
from bench.errors import GpuLostError, TensorgapError, Unsupported


def cause_of(error: Exception, found: Found) -> Exception:
    """The loss of the GPU, where the driver tells of one, which torch words as any other error.

    What the failed attempt held on the device is free then.
    """
    traceback.clear_frames(error.__traceback__)  # which hold its tensors
    if found.type == "cuda":
        with contextlib.suppress(RuntimeError):  # a broken CUDA context
            torch.cuda.empty_cache()
    if found.gpu and not isinstance(error, TensorgapError | Unsupported):
        try:
            found.gpu.check()
        except GpuLostError as lost:
            return lost
    return error


def fault_of(found: Found) -> Exception | None:
    """What a broken device raises at each use, until the process ends; None where it computes.

    Some errors, as of a compiler that is not there, never reached the device.
    """
    if found.type != "cuda":
        return None
    try:
        if found.gpu:
            found.gpu.check()
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").sum().item()
    except Exception as error:
        return error
    return None
