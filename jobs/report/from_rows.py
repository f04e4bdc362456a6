"""Cases of measured rows: what the replicates of one precision on one GPU show together."""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from bench.asked import CPU, ENERGY_NOT_MEASURED
from bench.device import gpus
from bench.device.conditions import QUIET_SHARE
from bench.measured import Energy, Measurement, Outcome
from bench.stats import Median
from jobs.report import credible
from jobs.report.facts import Case, each, rank

METHOD = "energy.method"
# Fields of a row that change the time or the energy by themselves: two rows that are compared must
# agree in them. By their column in the results, as below.
MUST_AGREE = (
    "device.name", "device.compute_capability", "device.cpu", "device.threads",
    "device.power_limit_w", "device.simulated", "device.mig", "software.torch",
    "software.transformers", "software.cuda", "software.driver", "software.tensorgap",
    "weights.attention", "weights.sha256", METHOD,
)  # fmt: skip
# Not forbidden to differ, because two GPUs of a type are alike, but they are not the same. Nor are
# two attention kernels, which torch chooses by precision and GPU.
SHOULD_AGREE = ("device.uuid", "device.hostname", "trace.attention")
READ = tuple(fact for fact in fields(Case) if fact.metadata)  # the facts that are fields of rows
# What must be equal for two perplexities to be compared window by window.
PROTOCOL = (
    "quality.mode", "quality.context", "quality.stride", "quality.text_sha256",
    "quality.tokens_sha256", "weights.sha256",
)  # fmt: skip


def cases(rows: Iterable[Measurement]) -> list[Case]:
    """A case for each run, GPU type, workload and precision, in that order, without ratios."""

    def order(row: Measurement) -> tuple[Any, ...]:
        return row.run, row.cell.gpu_type, row.workload, rank(row.cell.precision)

    ordered = sorted(rows, key=lambda row: (*order(row), row.replicate))
    return [case_of(list(every)) for _, every in itertools.groupby(ordered, key=order)]


def case_of(replicates: Sequence[Measurement]) -> Case:
    """A case of the rows of one (run, GPU type, workload, precision), without ratios.

    Raises TensorgapError where one of them has a number that no measurement gives.
    """
    for row in replicates:
        credible.check(row)
    asked = replicates[0]
    rows = [m for m in replicates if m.outcome == Outcome.OK]
    failed = [m for m in replicates if m.outcome != Outcome.OK]
    gpu_type = asked.cell.gpu_type
    names = known(rows, "device.name")
    boards = () if gpu_type == CPU else gpus.boards(gpu_type, names[0] if names else None)
    capability = boards[0].capability if boards else None
    if told := known(rows, "device.compute_capability"):
        major, _, minor = told[0].partition(".")
        capability = int(major), int(minor)
    found = [(fact, known(rows, fact.metadata["path"])) for fact in READ]
    return Case(
        gpu=gpu_type,
        gpu_type=gpu_type,
        workload=asked.workload,
        precision=asked.cell.precision,
        run=asked.run,
        boards=boards,
        capability=capability,
        outcome=Outcome.OK if rows else failed[0].outcome,
        reason="; ".join(each(m.reason for m in failed if m.reason)) or None,
        replicates=tuple(m.replicate for m in rows),
        failed=len(failed),
        warnings=each(w for m in rows for w in m.warnings),
        failed_warnings=each(w for m in failed for w in m.warnings),
        columns={
            path.replace(".", "_"): tuple(
                None if value is None else str(value) for value in values_of(rows, path)
            )
            for path in (*MUST_AGREE, *SHOULD_AGREE)
        },
        trace=next((m.trace for m in rows if m.trace and m.trace.traced_ms), None),
        roofline=next(iter(known(rows, "roofline")), None),
        latencies_ms=tuple(
            Median(t.latency_ms_p50, t.latency_ms_p50_low, t.latency_ms_p50_high)
            for t in known(rows, "timing")
        ),
        neighbours=each(name for m in rows for name in disturbing(m)),
        perplexity_protocol=tuple(tuple(known(rows, path)[:1]) for path in PROTOCOL),
        **{fact.name: fact.metadata["of"](values) for fact, values in found if values},
        **of_energy([m.energy for m in rows if m.energy]),
    )


def disturbing(row: Measurement) -> Sequence[str]:
    """Cells of the sweep on a row's host, where others than the row took much of its CPU time."""
    share = row.conditions.other_cpu_share if row.conditions else None
    busy = share is not None and share > QUIET_SHARE
    return row.placement.neighbours if busy and row.placement else ()


def of_energy(energies: Sequence[Energy]) -> dict[str, Any]:
    """Why there is no energy, and how far that of the worst replicate is known."""
    unread = [e for e in energies if e.method == ENERGY_NOT_MEASURED]
    reasons = {"energy_reasons": each(e.reason for e in unread if e.reason)}
    measured = [e for e in energies if e.per_sample_mj is not None]
    if not measured:
        return reasons
    worst = max(measured, key=lambda e: e.uncertainty or 0.0)
    windows = len(worst.per_sample_mj_samples or ())
    fewest = min(measured, key=lambda e: math.inf if e.ticks is None else e.ticks)
    return reasons | {
        "energy_uncertainty": worst.uncertainty,
        "energy_windows": windows,
        "energy_edge_error": 2 * max(1, windows) / worst.ticks if worst.ticks else None,
        "energy_ticks": fewest.ticks,
        "energy_window_s": fewest.window_s,
    }


def known(rows: Sequence[Measurement], path: str) -> list[Any]:
    """The values of a field, such as `device.name`, of the rows that have one."""
    return [value for value in values_of(rows, path) if value is not None]


@functools.cache
def parts_of(path: str) -> tuple[str, str]:
    """The record and the field of a path; the field is empty where the path is of a record."""
    record, _, name = path.partition(".")
    return record, name


def values_of(rows: Sequence[Measurement], path: str) -> list[Any]:
    """The value of a field in each row; None where a record on the way to it is missing.

    A row without energy has no method of one.
    """
    record, name = parts_of(path)
    found = [getattr(row, record) for row in rows]
    if name:
        found = [None if one is None else getattr(one, name) for one in found]
    if path == METHOD:
        found = [None if value == ENERGY_NOT_MEASURED else value for value in found]
    return found
