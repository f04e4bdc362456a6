"""Requests of a workload, ready to be enqueued: real tokens on the device, and its own clock."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench import timing
from bench.asked import Workload
from bench.errors import Unsupported
from bench.model import engines
from bench.model import load as models

if TYPE_CHECKING:
    import torch

_PROMPTS = 8  # different inputs, used in turn


class CpuQueue:
    """On a CPU a forward is done when it returns; the methods are those of `timing.Queue`."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run

    def enqueue(self) -> None:
        """Run one forward."""
        self._run()

    def synchronise(self) -> None:
        """All is done."""

    def timed(self) -> None:
        """Run one forward."""
        self._run()

    def device_ms(self) -> None:
        """A CPU has no clock beside the host's."""

    def stretch(self) -> Callable[[], float]:
        """A function that tells how long all took that was enqueued from now on, in s."""
        start_s = time.perf_counter()
        return lambda: time.perf_counter() - start_s


class _CudaQueue:
    """CUDA launches kernels and returns; events on the stream tell the device's own time."""

    def __init__(self, run: Callable[[], object]) -> None:
        import torch

        self._run = run
        self._torch = torch
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def enqueue(self) -> None:
        self._run()

    def synchronise(self) -> None:
        self._torch.cuda.synchronize()

    def timed(self) -> None:
        self._start.record()
        self._run()
        self._end.record()
        self._torch.cuda.synchronize()

    def device_ms(self) -> float:
        return float(self._start.elapsed_time(self._end))

    def stretch(self) -> Callable[[], float]:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()

        def took_s() -> float:
            end.record()
            self._torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        return took_s


def forward_queue(device_type: str, model: models.Model, workload: Workload) -> timing.Queue:
    """A queue of requests over prompts of real tokens, which lie on the device already."""
    if workload.prompt_tokens + workload.new_tokens > model.positions:
        beside = f" and new_tokens = {workload.new_tokens}" if workload.new_tokens else ""
        raise Unsupported(
            f"{workload.model} has {model.positions} positions, prompt_tokens ="
            f" {workload.prompt_tokens}{beside}"
        )
    if workload.new_tokens:
        forward = engines.generation(workload.engine, model.module, workload.new_tokens)
    else:
        forward = engines.forward(workload.engine, model.module)
    prompts = itertools.cycle(_prompts(model, workload).to(device_type))

    def run() -> None:
        forward(next(prompts))

    return _CudaQueue(run) if device_type == "cuda" else CpuQueue(run)


def _prompts(model: models.Model, workload: Workload) -> torch.Tensor:
    """Token ids (prompts, batch, tokens) of the embedded text, cut one after the other."""
    import torch

    ids = torch.tensor(models.prompt_ids(model))
    shape = (_PROMPTS, workload.batch_size, workload.prompt_tokens)
    needed = _PROMPTS * workload.batch_size * workload.prompt_tokens
    return ids.repeat(-(-needed // len(ids)))[:needed].reshape(shape)
