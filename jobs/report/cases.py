"""Rows as the rules see them: a Case per (GPU, workload, precision), in groups that compare.

A case has a line of the table, and the rows behind it where there are any: a table that somebody
else made has none, and says little of what a row says. What is unknown is None.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.asked import CPU, Workload
from bench.device import gpus
from bench.device.gpus import Board, Capability
from bench.measured import Measurement, Outcome, Roofline, Trace
from bench.stats import Ratio
from jobs.report import comparison
from jobs.report.comparison import BASELINE, Line


@dataclass(frozen=True)
class Stated:
    """What a table says beyond its numbers; None where it says nothing.

    Attributes:
        energy_method: counter, power, or any other word.
        energy_window_s: Length of the energy measurement.
        idle_w: Idle power.
        perplexity_step: The step of the last digit of the perplexity, as it was written.
        text: What the perplexity is of.
        context: Longest window of the perplexity.
        speedup: The ends of its interval, as the next one.
    """

    energy_method: str | None = None
    energy_window_s: float | None = None
    idle_w: float | None = None
    perplexity_step: float | None = None
    text: str | None = None
    context: int | None = None
    speedup: tuple[float, float] | None = None
    energy_ratio: tuple[float, float] | None = None


@dataclass(frozen=True)
class Case:
    """The replicates of one (GPU, workload, precision).

    Attributes:
        rows: Those that are OK; none for a table without rows.
        gpu_type: None where nobody knows it.
        boards: The datasheets that may apply; none for a CPU or a foreign GPU.
        stated: For a table without rows.
    """

    line: Line
    rows: tuple[Measurement, ...] = ()
    gpu_type: str | None = None
    boards: tuple[Board, ...] = ()
    stated: Stated | None = None

    @property
    def precision(self) -> str:
        """As asked."""
        return self.line.precision

    @property
    def workload(self) -> Workload:
        """As asked."""
        return self.line.workload

    @property
    def latency_ms(self) -> float | None:
        """Median latency of a request."""
        return self.line.latency_ms

    @property
    def capability(self) -> Capability | None:
        """Of the device that measured, or of the type; None for a CPU and where unknown."""
        for row in self.rows:
            if row.device and row.device.compute_capability:
                major, _, minor = row.device.compute_capability.partition(".")
                return int(major), int(minor)
        return self.boards[0].capability if self.boards else None

    @property
    def trace(self) -> Trace | None:
        """A trace that has times."""
        return next((m.trace for m in self.rows if m.trace and m.trace.traced_ms), None)

    @property
    def roofline(self) -> Roofline | None:
        """Of the first row that has one."""
        return next((m.roofline for m in self.rows if m.roofline), None)

    @property
    def mean_w(self) -> float | None:
        """Mean power: measured, or energy / latency where a table gives only these."""
        measured = [m.energy.mean_w for m in self.rows if m.energy and m.energy.mean_w is not None]
        if measured:
            return statistics.fmean(measured)
        if self.stated is None or self.line.energy_mj is None or not self.latency_ms:
            return None
        return self.line.energy_mj * self.workload.batch_size / self.latency_ms

    @property
    def idle_w(self) -> float | None:
        """Idle power measured beside the load."""
        measured = [m.energy.idle_w for m in self.rows if m.energy and m.energy.idle_w is not None]
        if measured:
            return statistics.fmean(measured)
        return self.stated.idle_w if self.stated else None

    @property
    def tdp_w(self) -> float | None:
        """The highest power limit that any board in question has."""
        return max((gpu.tdp_w for gpu in self.boards), default=None)


@dataclass(frozen=True)
class Group:
    """What compares: the precisions of one workload on one GPU type in one run.

    Attributes:
        title: GPU type and workload.
        cases: In the order of the precisions.
        others: The groups of the same GPU type with another engine or batch size.
        family: How many intervals the whole table has, each of which misses its truth by chance.
    """

    title: str
    gpu_type: str | None
    workload: Workload
    cases: tuple[Case, ...]
    others: tuple[Group, ...] = ()
    family: int = 1

    @property
    def plain(self) -> bool:
        """A table without rows."""
        return all(case.stated is not None for case in self.cases)

    @property
    def boards(self) -> tuple[Board, ...]:
        """Of its GPU."""
        return self.cases[0].boards

    @property
    def baseline(self) -> Case | None:
        """The case that the others compare with."""
        return self.case(BASELINE)

    @property
    def half_precision(self) -> str:
        """What autocast casts to here, and so what mixed compares with."""
        return "bf16" if self.gpu_type == CPU else "fp16"

    def case(self, precision: str) -> Case | None:
        """The case of a precision that was measured."""
        return next((case for case in self.cases if case.precision == precision), None)

    def decided(self, ratio: Ratio | None) -> float | None:
        """A ratio whose interval is without 1, as one of the family, or that has no interval."""
        if ratio is None:
            return None
        wide = comparison.together(ratio, self.family)
        return None if wide.low <= 1 <= wide.high and ratio.low < ratio.high else ratio.value

    def pairs(self) -> list[tuple[Case, Case]]:
        """Each case with the baseline, where there is one."""
        base = self.baseline
        return [(case, base) for case in self.cases if base and case.precision != BASELINE]


def of_rows(rows: Iterable[Measurement]) -> list[Group]:
    """Groups of measured rows. What was not measured has its reason in the table, not here."""
    every = list(rows)
    by_line: dict[tuple[str, str, Workload, str], list[Measurement]] = {}
    for row in every:
        if row.outcome == Outcome.OK and row.timing:
            key = (row.run, row.cell.gpu_type, row.workload, row.cell.precision)
            by_line.setdefault(key, []).append(row)
    cases = []
    for line in comparison.compare(every):
        found = by_line.get((line.run, line.gpu_type, line.workload, line.precision), [])
        if found:
            name = next((m.device.name for m in found if m.device), None)
            boards = () if line.gpu_type == CPU else gpus.boards(line.gpu_type, name)
            cases.append(Case(line, tuple(found), line.gpu_type, boards))
    runs = {case.line.run for case in cases}
    return grouped(cases, with_run=len(runs) > 1)


def grouped(cases: Sequence[Case], with_run: bool = False) -> list[Group]:
    """Cases in groups, in their order, each group with its neighbours."""

    def key(case: Case) -> tuple[str, str, Workload]:
        return case.line.run, case.line.gpu_type, case.workload

    groups: list[Group] = []
    runs: list[str] = []
    for (run, name, workload), members in itertools.groupby(cases, key=key):
        found = tuple(members)
        title = f"{name}   {workload}" + (f"   ({run})" if with_run else "")
        groups.append(Group(title, found[0].gpu_type, workload, found))
        runs.append(run)
    return [
        Group(
            group.title,
            group.gpu_type,
            group.workload,
            group.cases,
            tuple(
                other
                for other, other_run in zip(groups, runs, strict=True)
                if other is not group and other_run == run and _neighbours(group, other)
            ),
        )
        for group, run in zip(groups, runs, strict=True)
    ]


def _neighbours(group: Group, other: Group) -> bool:
    """The same GPU, model, lengths and attention; another engine or batch size."""
    mine, theirs = group.workload, other.workload
    alike = replace(theirs, engine=mine.engine, batch_size=mine.batch_size)
    return (group.gpu_type, mine) == (other.gpu_type, alike)
