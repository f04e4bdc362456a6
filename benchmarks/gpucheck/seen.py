"""What a check has seen so far, and what a prediction may ask of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.measured import Measurement, Outcome, Timing
from bench.measured.profiled import Trace
from gpucheck.runner import Ended

RANDOM, TINY = "gpt2:random", "tiny"
TOKENS = 128


class NotTested(Exception):
    """What a prediction needs is not there; the text says why."""


@dataclass(frozen=True)
class Seen:
    """Rows, facts, and how the steps ended."""

    rows: Collection[Measurement]
    facts: Mapping[str, Any]
    ended: Mapping[str, Ended] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether the GPU is a model of one."""
        return bool(self.facts.get("simulated"))

    def row(
        self, precision: str, engine: str = "eager", batch_size: int = 1, model: str = RANDOM
    ) -> Measurement:
        """A row that was measured."""
        asked = (precision, engine, batch_size, model)
        for row in self.rows:
            did = row.workload
            if asked == (row.cell.precision, did.engine, did.batch_size, did.model):
                if row.outcome != Outcome.OK:
                    raise NotTested(f"{row.outcome}: {row.reason}")
                return row
        raise NotTested(self.why_not("compile" if engine == "compile" else precision))

    def timing(self, precision: str, engine: str = "eager", batch_size: int = 1) -> Timing:
        """When it took how long."""
        found = self.row(precision, engine, batch_size).timing
        if found is None:
            raise NotTested("not timed")
        return found

    def trace(self, precision: str, engine: str = "eager") -> Trace:
        """What it made the device do."""
        found = self.row(precision, engine).trace
        if found is None or found.count is None:
            raise NotTested((found and found.reason) or "not traced")
        return found

    def fact(self, name: str, step: str) -> Any:
        """A fact that a step tells."""
        if name not in self.facts:
            raise NotTested(self.why_not(step))
        return self.facts[name]

    def why_not(self, step: str) -> str:
        """Why what a step would have told is not there."""
        ended = self.ended.get(step)
        if ended is None:
            return f"step {step} did not run"
        if not ended.ran:
            return f"step {step} was left out: {ended.reason}"
        return f"step {step}: {ended.reason or 'it did not tell'}"
