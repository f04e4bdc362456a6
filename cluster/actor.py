"""CellActor: one process on one device that measures what it is asked to; a plain class.

`cluster.attempts` makes a Ray actor of it. It does nothing that `bench.measure` does not do, so a
row is the same whether a cluster or one desk made it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.errors import Unplaced
from bench.files import private
from bench.measure import measure
from bench.measured import Event
from bench.outcomes import Request
from cluster import folders


class CellActor:
    """Measures one Request in a fresh process."""

    def run(self, request: Request) -> Iterator[Event]:
        """Yield each stage, row and profile as it comes.

        Raises Unplaced where other users of this host could have changed what runs here: on a node
        that joined later than `folders.refuse_shared` asked.
        """
        why = private.why_writable(Path(__file__).parent)
        if why and folders.TRUSTING not in os.environ:
            raise Unplaced(f"other users of this host can change the code that runs: {why}")
        yield from measure(request)
