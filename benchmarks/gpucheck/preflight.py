"""Is this machine worth the minutes? Asked in seconds, and refused with a reason and a remedy."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch.nn.attention import SDPBackend

from bench.asked import FLOATING
from bench.device import kinds, nvml, precision
from bench.energy.ticks import Reading, period_s, ticks
from bench.errors import TensorgapError, Unsupported
from bench.model import engines
from gpucheck.folder import Folder
from gpucheck.runner import Refused

_CALLS = 100
_COUNTER_S, _POLL_S = 1.5, 0.002


def preflight(folder: Folder) -> None:
    """Tell what this GPU is, and try what the steps to come rely on.

    Raises Refused where they would fail.
    """
    if not torch.cuda.is_available():
        build = f"torch {torch.__version__}"
        why = "has no CUDA" if torch.version.cuda is None else "sees no CUDA device here"
        remedy = "install a CUDA build" if torch.version.cuda is None else "ask `nvidia-smi -L`"
        raise Refused(f"{build} {why}; {remedy}, and run this where there is an NVIDIA GPU")
    properties = torch.cuda.get_device_properties(0)
    folder.fact("gpu_type", kinds.gpu_type(properties.name))
    folder.fact("capability", [properties.major, properties.minor])
    folder.fact("cudnn", torch.backends.cudnn.version() or 0)
    folder.fact("cudnn_off", os.environ.get("TORCH_CUDNN_SDPA_DEPRIORITIZED") == "1")
    print(
        f"{properties.name}, torch {torch.__version__}, CUDA {torch.version.cuda},"
        f" cuDNN {torch.backends.cudnn.version()}"
    )
    with nvml.driver() as driver:
        _ask_the_driver(folder, driver, str(properties.uuid))
    folder.fact("attention", {name: _chosen(name) for name in FLOATING})
    folder.fact("decode_error", _attention_error((1, 12, 1, 64), (1, 12, 144, 64), masked=True))
    folder.fact("head16_error", _attention_error((4, 4, 128, 16), (4, 4, 128, 16)))
    print(f"attention: {folder.facts()['attention']}")
    try:
        engines.check("compile", "cuda", (properties.major, properties.minor))
    except Unsupported as error:
        print(f"torch.compile: {error}")


def _ask_the_driver(folder: Folder, driver: nvml.Driver, uuid: str) -> None:
    folder.fact("simulated", driver.simulated)
    try:
        gpu = driver.gpu(uuid)
    except TensorgapError as error:
        raise Refused(
            f"NVML does not tell of the GPU that CUDA uses: {error}; make libnvidia-ml.so.1 of its"
            " driver visible here"
        ) from None
    if gpu.mig:
        raise Refused(
            f"{gpu.name}: MIG is on, and its clocks and energy are the whole GPU's; run this on a"
            " whole GPU"
        )
    for name in ("total_energy_j", "instant_power_w", "power_w"):
        read = gpu.reader(name)
        if read() is None:
            print(f"NVML, {name}: {gpu.reasons.get(name)}")
            continue
        start_s = time.perf_counter()
        for _ in range(_CALLS):
            read()
        micros = (time.perf_counter() - start_s) / _CALLS * 1e6
        folder.fact(f"{name} us", micros)
        print(f"NVML, {name}: {micros:.0f} us a call")
    tick_s = _counter_tick_s(gpu)
    folder.fact("counter_tick_s", tick_s)
    print(
        "energy counter: " + ("did not tick" if tick_s is None else f"every {tick_s * 1e3:.0f} ms")
    )


def _counter_tick_s(gpu: nvml.Gpu) -> float | None:
    """How often the energy counter moves, while the GPU idles."""
    seen: list[Reading] = []
    end_s = time.perf_counter() + _COUNTER_S
    while (now_s := time.perf_counter()) < end_s:
        joules = gpu.total_energy_j()
        if joules is not None:
            seen.append(Reading(now_s, joules))
        time.sleep(_POLL_S)
    return period_s(ticks(seen))


def _chosen(precision_name: str) -> str:
    """Which attention torch takes for GPT-2's heads of 64 without a mask."""
    names: dict[Any, str] = {
        int(SDPBackend.MATH): "math",
        int(SDPBackend.FLASH_ATTENTION): "flash",
        int(SDPBackend.EFFICIENT_ATTENTION): "efficient",
        int(SDPBackend.CUDNN_ATTENTION): "cudnn",
    }
    dtype = precision.arithmetic(precision_name, "cuda")
    heads = torch.zeros(1, 12, 128, 64, dtype=dtype, device="cuda")
    with precision.applied(precision_name, "cuda"), torch.inference_mode():
        choice = torch._fused_sdp_choice(heads, heads, heads, None, 0.0, True)
    return names.get(choice, f"backend {choice}")


def _attention_error(query: tuple[int, ...], keys: tuple[int, ...], masked: bool = False) -> float:
    """How far fp16 attention on the GPU is from float32 on the CPU; masks the last 15 keys."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(shape) for shape in (query, keys, keys))
    mask = None
    if masked:
        mask = torch.zeros(1, 1, query[2], keys[2])
        mask[..., -15:] = float("-inf")

    def attend(device: str, dtype: torch.dtype) -> torch.Tensor:
        q_, k_, v_ = (one.to(device, dtype) for one in (q, k, v))
        mask_ = None if mask is None else mask.to(device, dtype)
        found = torch.nn.functional.scaled_dot_product_attention(
            q_, k_, v_, attn_mask=mask_, is_causal=mask_ is None
        )
        return found.float().cpu()

    with torch.inference_mode():
        difference = attend("cuda", torch.float16) - attend("cpu", torch.float32)
    return float(difference.abs().max())
