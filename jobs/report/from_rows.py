"""Cases of measured rows: what the replicates of one precision on one GPU show together."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.asked import CPU, ENERGY_NOT_MEASURED
from bench.device import gpus
from bench.measured import Energy, Measurement, Outcome, Quality
from jobs.report.facts import Case, rank


def cases(rows: Iterable[Measurement]) -> list[Case]:
    """A case for each run, GPU type, workload and precision, in that order, without ratios."""

    def order(row: Measurement) -> tuple[Any, ...]:
        return row.run, row.cell.gpu_type, row.workload, rank(row.cell.precision)

    ordered = sorted(rows, key=lambda row: (*order(row), row.replicate))
    return [of_rows(list(every)) for _, every in itertools.groupby(ordered, key=order)]


def of_rows(replicates: Sequence[Measurement]) -> Case:
    """A case of the rows of one (run, GPU type, workload, precision), without ratios."""
    first = replicates[0]
    rows = [m for m in replicates if m.outcome == Outcome.OK]
    failed = [m for m in replicates if m.outcome != Outcome.OK]
    gpu_type = first.cell.gpu_type
    names = [m.device.name for m in rows if m.device]
    boards = () if gpu_type == CPU else gpus.boards(gpu_type, names[0] if names else None)
    return Case(
        gpu=gpu_type,
        gpu_type=gpu_type,
        workload=first.workload,
        precision=first.cell.precision,
        run=first.run,
        boards=boards,
        outcome=Outcome.OK if rows else failed[0].outcome,
        reason="; ".join(_each(m.reason for m in failed)) or None,
        replicates=tuple(m.replicate for m in rows),
        failed=len(failed),
        warnings=tuple(dict.fromkeys(w for m in replicates for w in m.warnings)),
        columns={
            name: tuple(None if (v := value(m)) is None else str(v) for m in rows)
            for name, value in COLUMNS.items()
        },
        trace=next((m.trace for m in rows if m.trace and m.trace.traced_ms), None),
        roofline=next((m.roofline for m in rows if m.roofline), None),
        conditions=tuple(m.conditions for m in rows if m.conditions),
        neighbours=tuple(
            dict.fromkeys(n for m in rows if m.placement for n in m.placement.neighbours)
        ),
        size_mb=_mean(m.weights.size_bytes / 1e6 for m in rows if m.weights),
        **_of_device(rows, boards),
        **_of_timing(rows),
        **_of_energy([m.energy for m in rows if m.energy]),
        **_of_quality(rows),
    )


# Column of the results -> its value in a row. A row without energy has no method of one; of a row
# that was not traced nobody knows which attention ran.
COLUMNS: Mapping[str, Callable[[Measurement], object]] = {
    "device_name": lambda m: m.device and m.device.name,
    "device_compute_capability": lambda m: m.device and m.device.compute_capability,
    "device_cpu": lambda m: m.device and m.device.cpu,
    "device_threads": lambda m: m.device and m.device.threads,
    "device_power_limit_w": lambda m: m.device and m.device.power_limit_w,
    "device_simulated": lambda m: m.device and m.device.simulated,
    "device_mig": lambda m: m.device and m.device.mig,
    "device_uuid": lambda m: m.device and m.device.uuid,
    "device_hostname": lambda m: m.device and m.device.hostname,
    "software_torch": lambda m: m.software and m.software.torch,
    "software_transformers": lambda m: m.software and m.software.transformers,
    "software_cuda": lambda m: m.software and m.software.cuda,
    "software_driver": lambda m: m.software and m.software.driver,
    "software_tensorgap": lambda m: m.software and m.software.tensorgap,
    "weights_attention": lambda m: m.weights and m.weights.attention,
    "weights_sha256": lambda m: m.weights and m.weights.sha256,
    "energy_method": lambda m: _method(m.energy),
    "trace_attention": lambda m: m.trace and m.trace.attention,
}


def _of_device(rows: Sequence[Measurement], boards: tuple[gpus.Board, ...]) -> dict[str, Any]:
    devices = [m.device for m in rows if m.device]
    told = next((d.compute_capability for d in devices if d.compute_capability), None)
    capability = boards[0].capability if boards else None
    if told:
        major, _, minor = told.partition(".")
        capability = int(major), int(minor)
    return {
        "capability": capability,
        "power_limit_w": _most(d.power_limit_w for d in devices),
        "default_power_limit_w": _most(d.default_power_limit_w for d in devices),
        "max_sm_mhz": _most(d.max_sm_mhz for d in devices),
        "simulated": any(d.simulated for d in devices),
        "mig": any(d.mig for d in devices),
        "vgpu": any(d.vgpu for d in devices),
    }


def _of_timing(rows: Sequence[Measurement]) -> dict[str, Any]:
    timings = [m.timing for m in rows if m.timing]
    return {
        "latency_ms": _mean(t.latency_ms_p50 for t in timings),
        "latency_ms_samples": tuple(t.latency_ms_samples for t in timings),
        "throughput_per_s": _mean(t.throughput_samples_per_s for t in timings),
        "first_token_ms": _mean(t.first_token_ms_p50 for t in timings),
        "per_output_token_ms": _mean(t.per_output_token_ms for t in timings),
    }


def _of_energy(energies: Sequence[Energy]) -> dict[str, Any]:
    measured = [e for e in energies if e.per_sample_mj is not None]
    found: dict[str, Any] = {
        "energies_mj": tuple(e.per_sample_mj for e in measured),
        "energy_mj": _mean(e.per_sample_mj for e in measured),
        "energy_methods": tuple(_each(_method(e) for e in energies)),
        "energy_systematic": _most(e.systematic for e in energies),
        "energy_reasons": tuple(_each(e.reason for e in energies if _method(e) is None)),
        "mean_w": _mean(e.mean_w for e in energies),
        "idle_w": _mean(e.idle_w for e in energies),
    }
    if measured:
        worst = max(measured, key=lambda e: e.uncertainty or 0.0)
        windows = len(worst.per_sample_mj_samples or ())
        edges = 2 * max(1, windows) / worst.ticks if worst.ticks else None
        fewest = min(measured, key=lambda e: math.inf if e.ticks is None else e.ticks)
        found |= {
            "energy_uncertainty": worst.uncertainty,
            "energy_windows": windows,
            "energy_edge_error": edges,
            "energy_ticks": fewest.ticks,
            "energy_window_s": fewest.window_s,
        }
    return found


def _of_quality(rows: Sequence[Measurement]) -> dict[str, Any]:
    """Of the first row that has a perplexity: it belongs to the precision, not to a replicate."""
    reasons = tuple(_each(m.quality.reason for m in rows if m.quality))
    of = next((m for m in rows if m.quality), None)
    if of is None or of.quality is None:
        return {}
    found: Quality = of.quality
    names = ("mode", "context", "stride", "text_sha256", "tokens_sha256")
    protocol = tuple(getattr(found, name) for name in names)
    return {
        "text": found.text if found.perplexity else None,
        "context": found.context,
        "perplexity": found.perplexity,
        "perplexity_lower_bound": found.floor_perplexity,
        "perplexity_reasons": reasons,
        "perplexity_protocol": (*protocol, of.weights and of.weights.sha256),
        "window_nats": found.window_nats,
        "window_tokens": found.window_tokens,
        "logit_rounding_nats": found.logit_rounding_nats,
        "logit_rounding_error_nats": found.logit_rounding_error_nats,
    }


def _method(energy: Energy | None) -> str | None:
    """How an energy was read; None where there is none."""
    return None if energy is None or energy.method == ENERGY_NOT_MEASURED else energy.method


def _each(words: Iterable[str | None]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
