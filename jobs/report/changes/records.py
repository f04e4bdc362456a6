"""What is found when runs are compared: frozen records of plain values, without their rows."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bench.asked import Workload
from bench.measured import Outcome
from bench.stats import Estimate, Ratio
from bench.warnings import RowWarning


class Metric(enum.StrEnum):
    """What is compared of a cell and workload."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    ENERGY = "energy"
    PERPLEXITY = "perplexity"

    @property
    def unit(self) -> str:
        """As it stands behind a number."""
        return {"latency": " ms", "throughput": " /s", "energy": " mJ"}.get(self, "")

    @property
    def more_is_better(self) -> bool:
        """Whether a greater value is the better one."""
        return self is Metric.THROUGHPUT

    @property
    def words(self) -> tuple[str, str]:
        """What a lower and a higher value are called."""
        lower = {"latency": "faster", "energy": "less"}.get(self, "lower")
        return lower, {"latency": "slower", "energy": "more"}.get(self, "higher")


class Decision(enum.StrEnum):
    """What is known of a change."""

    WORSE = "worse"
    BETTER = "better"
    NEGLIGIBLE = "negligible"  # a difference, but one too small to matter
    SAME = "no significant difference"
    IDENTICAL = "identical"  # to the last bit
    NOT_DECIDED = "not decided"


@dataclass(frozen=True)
class Change:
    """One metric of one cell and workload in two runs.

    Attributes:
        old: Geometric mean of the replicates, in the metric's unit; None: not measured.
        reason: Why it is not decided.
        estimate: Of the logarithm of new / old, where it can be decided.
        ratio: New / old. Its interval contains 1 where nothing is decided, and not where something
            is: it is that at which Holm's procedure tests it. Without an estimate it has no ends.
        detectable: The true change, as a share of the old value, that would have been found with a
            probability of `POWER`, by the scatter that was seen.
    """

    metric: Metric
    old: float | None
    new: float | None
    decision: Decision = Decision.NOT_DECIDED
    reason: str | None = None
    estimate: Estimate | None = None
    ratio: Ratio | None = None
    detectable: float | None = None

    @property
    def worsening(self) -> float:
        """By which share of the old value it became worse; below 0: better."""
        change = self.ratio.value - 1 if self.ratio else 0.0
        return -change if self.metric.more_is_better else change

    @property
    def decided(self) -> bool:
        """Whether it could have been found to differ."""
        return self.decision != Decision.NOT_DECIDED


@dataclass(frozen=True, order=True)
class RowPlace:
    """What a row is about: one cell and workload, on one board."""

    gpu: str  # type
    workload: Workload
    precision: str
    board: str | None = None  # as its driver names it; None: no replicate was measured

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.gpu} {self.precision} {self.workload}"


@dataclass(frozen=True)
class Seen:
    """How a cell and workload ended in one run."""

    outcome: Outcome
    replicates: int
    failed: int = 0  # replicates beside them
    reason: str | None = None
    warnings: tuple[RowWarning, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether any replicate was measured."""
        return self.outcome == Outcome.OK


@dataclass(frozen=True)
class PairedRow:
    """A cell and workload that two runs have."""

    place: RowPlace
    old: Seen
    new: Seen
    changes: tuple[Change, ...] = ()  # none where one of them is not OK


@dataclass(frozen=True)
class Condition:
    """Something that differs between two runs beside what is compared.

    Attributes:
        must: Whether it changes time or energy by itself (`from_rows.MUST_AGREE`).
        where: In which rows; empty: in all.
    """

    what: str
    old: str
    new: str
    must: bool = True
    where: str = ""

    @property
    def text(self) -> str:
        """In words."""
        change = f"{self.what}: {self.old} -> {self.new}"
        return f"{change} ({self.where})" if self.where else change


@dataclass(frozen=True)
class RunCompared:
    """One run, as the comparison names it."""

    label: str
    location: str
    names: tuple[str, ...]  # NAME/UTC-TIMESTAMP; several where a file has several, of other cells
    rows: int


@dataclass(frozen=True)
class Against:
    """A run against the first one."""

    run: RunCompared
    rows: tuple[PairedRow, ...]
    conditions: tuple[Condition, ...] = ()
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Runs against the first of them.

    Attributes:
        alpha: How often there is a false alarm in any of the `count` comparisons, at most.
    """

    alpha: float
    count: int
    first: RunCompared
    others: tuple[Against, ...]

    @property
    def changes(self) -> list[Change]:
        """All of them."""
        return [c for one in self.others for row in one.rows for c in row.changes]
