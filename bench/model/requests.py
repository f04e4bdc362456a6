"""Requests of a workload, ready to be enqueued: real tokens on the device, and its own clock."""

import itertools
import time
from collections.abc import Callable

import torch

from bench import timing
from bench.asked import Workload
from bench.errors import Unsupported
from bench.model import engines
from bench.model.load import Model
from bench.model.tokens import prompt_ids

_PROMPTS = 8  # different inputs, used in turn


class CpuQueue:
    """On a CPU a forward is done when it returns; the methods are those of `timing.Queue`."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.enqueue = self.timed = run

    def synchronise(self) -> None:
        """All is done."""

    def device_ms(self) -> None:
        """A CPU has no clock beside the host's."""

    def stretch(self) -> Callable[[], float]:
        """A function that tells how long all took that was enqueued from now on, in s."""
        start_s = time.perf_counter()
        return lambda: time.perf_counter() - start_s


class _CudaQueue:
    """CUDA launches kernels and returns; events on the stream tell the device's own time."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.enqueue = run
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def synchronise(self) -> None:
        torch.cuda.synchronize()

    def timed(self) -> None:
        self._start.record()
        self.enqueue()
        self._end.record()
        torch.cuda.synchronize()

    def device_ms(self) -> float:
        return float(self._start.elapsed_time(self._end))

    def stretch(self) -> Callable[[], float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()

        def took_s() -> float:
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        return took_s


def forward_queue(device_type: str, model: Model, workload: Workload) -> timing.Queue:
    """A queue of requests over prompts of real tokens, which lie on the device already."""
    tokens, new = workload.prompt_tokens, workload.new_tokens
    if tokens + new > model.positions:
        raise Unsupported(
            f"{workload.model} {model.shape.limit}, prompt_tokens = {tokens}"
            + (f" and new_tokens = {new}" if new else "")
        )
    if new:
        forward = engines.generation(workload.engine, model.module, new)
    else:
        forward = engines.forward(workload.engine, model.module)
    # Of the embedded text, cut one after the other.
    needed = _PROMPTS * workload.batch_size * tokens
    ids = torch.tensor(prompt_ids(model, needed))
    prompts = ids.repeat(-(-needed // len(ids)))[:needed].reshape(_PROMPTS, -1, tokens)
    turns = itertools.cycle(prompts.to(device_type))

    def run() -> None:
        forward(next(turns))

    return _CudaQueue(run) if device_type == "cuda" else CpuQueue(run)
