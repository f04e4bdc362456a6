"""What a process that measures finds around it: all that could change a number, as plain values."""

from __future__ import annotations

import gc
import locale
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch

import bench.measure  # noqa: F401  what a template has imported
from bench import shelf
from bench.model.folders import key_of, source_of
from bench.model.load import load_model
from bench.model.tokens import prompt_ids


def measure(request: Any) -> Iterator[dict[str, Any]]:
    """Tell the surroundings before and after a product that torch computes with all its threads."""
    yield {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": _umask(),
        "nice": os.nice(0),
        "cores": sorted(os.sched_getaffinity(0)),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS},
        "locale": locale.getlocale(),
        "signals": {int(one): str(signal.getsignal(one)) for one in signal.valid_signals()},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "threads of Python": [thread.name for thread in threading.enumerate()],
        "garbage": (gc.isenabled(), gc.get_threshold(), len(gc.callbacks)),
        "flags": (str(sys.flags), sys.getswitchinterval(), sys.getrecursionlimit()),
        "warnings": [str(one) for one in warnings.filters],
        "libraries": _libraries(),
        "path": [path for path in sys.path if path],
        "torch": _torch(),
    }
    torch.set_num_threads(2)
    square = torch.ones(512, 512)
    (square @ square).sum().item()
    yield {"torch": _torch(), "libraries": _libraries()}
    yield {
        "threads": len(os.listdir("/proc/self/task")),
        "files": sorted(os.readlink(f"/proc/self/fd/{number}") for number in _descriptors()),
        "random": (random.random(), float(numpy.random.rand()), torch.rand(1).item()),
    }


_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def _torch() -> dict[str, Any]:
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "CUDA": torch.cuda.is_initialized(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "type": str(torch.get_default_dtype()),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "allocator": torch.cuda.get_allocator_backend() if torch.version.cuda else None,
        "fused": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.mkldnn.enabled,
        ),
        "denormals": torch.tensor([1e-40]).mul(1).item() != 0,
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def _libraries() -> list[str]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split()[-1] for line in maps if ".so" in line})


def _descriptors() -> list[str]:
    return [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def load(request: str) -> Iterator[dict[str, Any]]:
    """Load the embedded model at a precision, and tell whether its weights were there."""
    kept = shelf.find(key_of(source_of("tiny"))) is not None
    model = load_model("tiny", request, "cpu")
    total = float(model.module.transformer.wte.weight.double().abs().sum())
    yield {"kept": kept, "weights": model.weights, "sum": total, "prompts": prompt_ids(model)[:99]}


def overwrite(request: Any) -> Iterator[None]:
    """Try to change the weights that others are to load."""
    path = shelf.find(key_of(source_of("tiny")))
    assert path
    with open(path, "r+b") as file:
        file.write(b"no")
    yield None


def crash(request: Any) -> Iterator[int]:
    """Tell the process id, then break in the way that is asked for."""
    yield os.getpid()
    if request == "hang":
        # In native code, which no handler of Python's and no exception reaches.
        torch.ones(64, 64).matrix_exp()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        threading.Event().wait()
    if request == "exit":
        os._exit(3)
    if request == "raise":
        raise torch.OutOfMemoryError("CUDA out of memory")
    os.kill(os.getpid(), getattr(signal, request))
