"""Cases of measured rows: what the replicates of one precision on one GPU show together."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.asked import CPU, ENERGY_NOT_MEASURED
from bench.device import gpus
from bench.measured import Energy, Measurement, Outcome
from jobs.report.facts import Case, rank

# Fields of a row that change the time or the energy by themselves: two rows that are compared must
# agree in them. By their column in the results, as below.
MUST_AGREE = (
    "device.name", "device.compute_capability", "device.cpu", "device.threads",
    "device.power_limit_w", "device.simulated", "device.mig", "software.torch",
    "software.transformers", "software.cuda", "software.driver", "software.tensorgap",
    "weights.attention", "weights.sha256", "energy.method",
)  # fmt: skip
# Not forbidden to differ, because two GPUs of a type are alike, but they are not the same. Nor are
# two attention kernels, which torch chooses by precision and GPU.
SHOULD_AGREE = ("device.uuid", "device.hostname", "trace.attention")

Summary = Callable[[list[Any]], Any]


def each(values: Iterable[Any]) -> tuple[Any, ...]:
    """Every value once, in order."""
    return tuple(dict.fromkeys(values))


first: Summary = operator.itemgetter(0)
# Fact -> how the replicates give it, and the field of a row that has it.
FACTS: Mapping[str, tuple[Summary, str]] = {
    "latency_ms": (statistics.fmean, "timing.latency_ms_p50"),
    "latency_ms_samples": (tuple, "timing.latency_ms_samples"),
    "throughput_per_s": (statistics.fmean, "timing.throughput_samples_per_s"),
    "first_token_ms": (statistics.fmean, "timing.first_token_ms_p50"),
    "per_output_token_ms": (statistics.fmean, "timing.per_output_token_ms"),
    "energies_mj": (tuple, "energy.per_sample_mj"),
    "energy_mj": (statistics.fmean, "energy.per_sample_mj"),
    "energy_systematic": (max, "energy.systematic"),
    "mean_w": (statistics.fmean, "energy.mean_w"),
    "idle_w": (statistics.fmean, "energy.idle_w"),
    "size_mb": (lambda sizes: statistics.fmean(sizes) / 1e6, "weights.size_bytes"),
    "power_limit_w": (max, "device.power_limit_w"),
    "default_power_limit_w": (max, "device.default_power_limit_w"),
    "max_sm_mhz": (max, "device.max_sm_mhz"),
    "simulated": (any, "device.simulated"),
    "mig": (any, "device.mig"),
    "vgpu": (any, "device.vgpu"),
    "conditions": (tuple, "conditions"),
    "neighbours": (lambda values: each(itertools.chain(*values)), "placement.neighbours"),
    "roofline": (first, "roofline"),
    "text": (first, "quality.text"),
    "context": (first, "quality.context"),
    "perplexity": (first, "quality.perplexity"),
    "perplexity_lower_bound": (first, "quality.floor_perplexity"),
    "perplexity_reasons": (each, "quality.reason"),
    "window_nats": (first, "quality.window_nats"),
    "window_tokens": (first, "quality.window_tokens"),
    "logit_rounding_nats": (first, "quality.logit_rounding_nats"),
    "logit_rounding_error_nats": (first, "quality.logit_rounding_error_nats"),
}
# What must be equal for two perplexities to be compared window by window.
PROTOCOL = ("mode", "context", "stride", "text_sha256", "tokens_sha256")


def cases(rows: Iterable[Measurement]) -> list[Case]:
    """A case for each run, GPU type, workload and precision, in that order, without ratios."""

    def order(row: Measurement) -> tuple[Any, ...]:
        return row.run, row.cell.gpu_type, row.workload, rank(row.cell.precision)

    ordered = sorted(rows, key=lambda row: (*order(row), row.replicate))
    return [of_rows(list(every)) for _, every in itertools.groupby(ordered, key=order)]


def of_rows(replicates: Sequence[Measurement]) -> Case:
    """A case of the rows of one (run, GPU type, workload, precision), without ratios."""
    asked = replicates[0]
    rows = [m for m in replicates if m.outcome == Outcome.OK]
    failed = [m for m in replicates if m.outcome != Outcome.OK]
    gpu_type = asked.cell.gpu_type
    name, told = (known(rows, f"device.{field}") for field in ("name", "compute_capability"))
    boards = () if gpu_type == CPU else gpus.boards(gpu_type, name[0] if name else None)
    capability = boards[0].capability if boards else None
    if told:
        major, _, minor = told[0].partition(".")
        capability = int(major), int(minor)
    facts = {
        fact: summary(values)
        for fact, (summary, path) in FACTS.items()
        if (values := known(rows, path))
    }
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
        warnings=each(w for m in replicates for w in m.warnings),
        columns={
            path.replace(".", "_"): tuple(as_text(value_of(m, path)) for m in rows)
            for path in (*MUST_AGREE, *SHOULD_AGREE)
        },
        trace=next((m.trace for m in rows if m.trace and m.trace.traced_ms), None),
        perplexity_protocol=next(
            (
                (*(getattr(m.quality, name) for name in PROTOCOL), value_of(m, "weights.sha256"))
                for m in rows
                if m.quality
            ),
            None,
        ),
        **facts,
        **of_energy([m.energy for m in rows if m.energy]),
    )


def of_energy(energies: Sequence[Energy]) -> dict[str, Any]:
    """How the energies of the replicates were read, and how far the worst of them is known."""
    read = [e for e in energies if e.method != ENERGY_NOT_MEASURED]
    found: dict[str, Any] = {
        "energy_methods": each(e.method for e in read),
        "energy_reasons": each(e.reason for e in energies if e not in read and e.reason),
    }
    measured = [e for e in read if e.per_sample_mj is not None]
    if measured:
        worst = max(measured, key=lambda e: e.uncertainty or 0.0)
        windows = len(worst.per_sample_mj_samples or ())
        fewest = min(measured, key=lambda e: math.inf if e.ticks is None else e.ticks)
        found |= {
            "energy_uncertainty": worst.uncertainty,
            "energy_windows": windows,
            "energy_edge_error": 2 * max(1, windows) / worst.ticks if worst.ticks else None,
            "energy_ticks": fewest.ticks,
            "energy_window_s": fewest.window_s,
        }
    return found


def known(rows: Iterable[Measurement], path: str) -> list[Any]:
    """The values of a field, such as `device.name`, of the rows that have one."""
    return [value for row in rows if (value := value_of(row, path)) is not None]


def value_of(row: Measurement, path: str) -> Any:
    """The value of a field of a row; None where a record on the way to it is missing.

    A row without energy has no method of one.
    """
    value: Any = row
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return None if (path, value) == ("energy.method", ENERGY_NOT_MEASURED) else value


def as_text(value: object) -> str | None:
    """As a column shows it."""
    return None if value is None else str(value)
