"""CellActor: one process on one device that measures what it is asked to; a plain class.

`cluster.attempts` makes a Ray actor of it. It does nothing that `bench.measure` does not do, so a
row is the same whether a cluster or one desk made it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Request, measure
from bench.records import Measurement, Stage


class CellActor:
    """Measures one Request in a fresh process."""

    def run(self, request: Request) -> Iterator[Stage | Measurement]:
        """Yield each stage and each row as it comes."""
        yield from measure(request)
