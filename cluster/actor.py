"""CellActor: one process on one device that measures what it is asked to; a plain class.

`cluster.driver` makes a Ray actor of it. It does nothing that `bench.measure` does not do, so a
row is the same whether a cluster or one desk made it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Request, measure
from bench.records import CPU, Measurement, Stage


class CellActor:
    """Measures one Request in a fresh process."""

    def __init__(self, threads: int) -> None:
        """Args: threads: CPUs that Ray gave to this actor."""
        self._threads = threads

    def run(self, request: Request) -> Iterator[Stage | Measurement]:
        """Yield each stage and each row as it comes."""
        if request.cell.gpu_type == CPU:
            import torch

            torch.set_num_threads(self._threads)
        yield from measure(request)
