"""Cases and rows -> the flat records that every figure and the table of the page draw from.

A record has plain values in the units of its names; None: not measured. What the records of a panel
have in common is a text in one of its fields, such as `workload`.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import stats
from bench.asked import Workload
from bench.device import gpus
from bench.measured import Outcome
from bench.measured.profiled import KERNEL_CLASSES
from bench.stats import Difference, Median, Ratio
from bench.warnings import SIMULATED
from jobs.report import table
from jobs.report.facts import Case
from jobs.report.figures import samples
from jobs.report.figures.samples import PowerTrace, Samples

Record = dict[str, Any]
CASES, RAN, TRACES, ROOFS = "cases", "ran", "traces", "roofs"  # the data sets
GAPS = "gaps"  # the time in which no kernel ran
CLASSES = (*KERNEL_CLASSES, GAPS)
MEASURED, DATASHEET = "measured peak", "datasheet"
WORKLOAD_FIELDS = tuple(field.name for field in dataclasses.fields(Workload))  # the model first
_BEYOND = 3.0  # a roof is drawn so many times beyond the points below it


@dataclass(frozen=True)
class Data:
    """The data sets by name, and how many measured cases have a power trace that is left out."""

    sets: Mapping[str, Sequence[Record]]
    without_trace: int = 0

    def __getitem__(self, name: str) -> Sequence[Record]:
        return self.sets[name]


def of(cases: Sequence[Case], found: Samples | None = None) -> Data:
    """The data of compared cases; distributions, power and the schedule need `samples.of_rows`."""
    found = found or Samples()
    titles = Titles.of(cases)
    measured = [case for case in cases if case.outcome == Outcome.OK]
    weak = {case.key for case in measured if case.is_baseline and doubts(case)}
    records = [
        {
            **asked(case, titles),
            "outcome": str(case.outcome),
            "doubtful": bool(told),
            "ratio_doubtful": bool(told) or case.key in weak,
            "warnings": "; ".join(told) or None,
            **numbers(case),
            **profiled(case),
            "quantiles_ms": found.quantiles.get(key_of(case)),
        }
        for case, told in zip(cases, map(doubts, cases), strict=True)
    ]
    traces = [
        {**asked(case, titles), **traced(case, trace, titles)}
        for case in measured
        if (trace := found.traces.get(key_of(case)))
    ]
    sets = {
        CASES: records,
        RAN: list(schedule(found.ran)),
        TRACES: traces,
        ROOFS: list(roofs(cases, records)),
    }
    return Data(sets, found.without_trace)


def key_of(case: Case) -> samples.Key:
    """The key under which `Samples` has a case."""
    return samples.key_of(case.run, case.gpu, case.workload, case.precision)


def doubts(case: Case) -> list[str]:
    """Its warnings without that it is simulated, which each panel says."""
    simulated = {warning.text for warning in case.warnings if warning.code in SIMULATED}
    return [text for text in table.warnings(case) if text not in simulated]


@dataclass(frozen=True)
class Titles:
    """What panels are called: by what differs among all cases, since the rest tells nothing."""

    varying: frozenset[str]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Titles:
        """The fields of a workload, and the run, that differ."""
        fields = [dataclasses.asdict(case.workload) | {"run": case.run} for case in cases]
        names = fields[0] if fields else {}
        return cls(frozenset(name for name in names if len({each[name] for each in fields}) > 1))

    def of_panel(self, case: Case, *without: str, gpu: bool = False) -> str:
        """The title of a panel of a case, without what differs within the panel."""
        asked, told = case.workload, [case.gpu] if gpu else []
        tokens = f"{asked.prompt_tokens} tokens"
        tokens += f" + {asked.new_tokens} new" if asked.new_tokens else ""
        length = "prompt_tokens" if "prompt_tokens" in self.varying else "new_tokens"
        texts = {
            "model": asked.model,
            "engine": asked.engine,
            "batch_size": f"batch {asked.batch_size}",
            length: tokens,
            "attention": f"{asked.attention} attention",
            "run": case.run,
        }
        told += [
            text for name, text in texts.items() if name in self.varying and name not in without
        ]
        told += ["simulated"] if case.simulated else []
        return ", ".join(told) or asked.model


def asked(case: Case, titles: Titles) -> Record:
    """Who a record is about, and in which panels it stands."""
    workload = case.workload
    return {
        "run": case.run or None,
        "gpu": case.gpu,
        "precision": case.precision,
        "cell": f"{case.gpu} {case.precision}",
        "bar": f"{workload.engine} {case.precision}",
        **of_workload(workload),
        "workload": str(workload),
        "of_workload": titles.of_panel(case),
        "of_batches": titles.of_panel(case, "batch_size", gpu=True),
        "of_engines": titles.of_panel(case, "engine", gpu=True),
        "of_gpu": titles.of_panel(case, *WORKLOAD_FIELDS, gpu=True),
        "of_model": titles.of_panel(case, *WORKLOAD_FIELDS[1:]),
        "simulated": case.simulated,
    }


def of_workload(workload: Workload) -> Record:
    """What was asked, by the fields that tables and filters have."""
    return {
        "model": workload.model,
        "engine": workload.engine,
        "batch": workload.batch_size,
        "tokens": workload.prompt_tokens,
        "new_tokens": workload.new_tokens or None,
        "attention": workload.attention,
    }


def numbers(case: Case) -> Record:
    """Its results, with the ends of their 95 % intervals."""
    low_ms, high_ms = interval_of(case.latencies_ms)
    share = case.energy_uncertainty
    energy, idle = case.energy_mj, None
    low_mj, high_mj = None, None
    if energy is not None and share is not None:
        low_mj, high_mj = max(0.0, energy * (1 - share)), energy * (1 + share)
    if energy is not None and case.idle_w is not None and case.mean_w:
        idle = energy * min(1.0, case.idle_w / case.mean_w)
    return {
        "latency_ms": case.latency_ms,
        "latency_low_ms": low_ms,
        "latency_high_ms": high_ms,
        "against": None if case.is_baseline else case.baseline,
        **ratio("speedup", case.speedup),
        "energy_mj": energy,
        "energy_low_mj": low_mj,
        "energy_high_mj": high_mj,
        "idle_mj": idle,
        "net_mj": None if energy is None or idle is None else energy - idle,
        **ratio("energy_ratio", case.energy_ratio),
        "throughput_per_s": case.throughput_per_s,
        "first_token_ms": case.first_token_ms,
        "per_output_token_ms": case.per_output_token_ms,
        "perplexity": case.perplexity,
        **difference(case.nats_difference),
        "rounding_nats": case.logit_rounding_nats,
        "size_mb": case.size_mb,
        "mean_w": case.mean_w,
    }


def interval_of(medians: Sequence[Median]) -> tuple[float | None, float | None]:
    """The 95 % interval of the geometric mean of the replicates' medians, or of the only one.

    >>> interval_of([Median(2.0, 1.9, 2.2)])
    (1.9, 2.2)
    >>> low, high = interval_of([Median(2.0), Median(2.0), Median(2.1)])
    >>> round(low, 2), round(high, 2)
    (1.9, 2.18)
    """
    if len(medians) < 2:
        return (medians[0].low, medians[0].high) if medians else (None, None)
    logs = np.log([median.value for median in medians])
    half = stats.student_interval(logs.tolist())
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def ratio(name: str, found: Ratio | None) -> Record:
    """A ratio; ends that are open, or that it has none, are None."""
    ends = (found.low, found.high) if found and found.has_interval else (None, None)
    return {name: found and found.value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def difference(found: Difference | None) -> Record:
    """Nats per token above fp32."""
    if found is None:
        return {"nats": None, "nats_low": None, "nats_high": None}
    return {"nats": found.mean, "nats_low": found.low, "nats_high": found.high}


def profiled(case: Case) -> Record:
    """Where the time of a request goes, and what it reaches of the device's peaks."""
    classes: Record = dict.fromkeys(f"{name}_ms" for name in CLASSES)
    trace, roofline = case.trace, case.roofline
    if trace and trace.traced_ms and case.latency_ms:
        classes = {f"{name}_ms": getattr(trace, f"{name}_ms") or 0.0 for name in KERNEL_CLASSES}
        classes[f"{GAPS}_ms"] = max(0.0, case.latency_ms - trace.traced_ms)
    reached: Record = {"flop_per_byte": None, "tflops": None, "lower_bound_ms": None}
    if roofline and roofline.flops and roofline.bytes_moved and case.latency_ms:
        reached = {
            "flop_per_byte": roofline.flops / roofline.bytes_moved,
            "tflops": roofline.flops / case.latency_ms / 1e9,
            "lower_bound_ms": roofline.lower_bound_ms,
        }
    return classes | reached


def traced(case: Case, trace: PowerTrace, titles: Titles) -> Record:
    """The power of a case over time."""
    return {
        "of_trace": f"{case.gpu} {case.precision}, {titles.of_panel(case)}",
        "time_s": trace.times_s,
        "power_w": trace.power_w,
        "window_from_s": [begin for begin, _ in trace.windows_s],
        "window_to_s": [end for _, end in trace.windows_s],
        "tick_s": trace.ticks_s,
        "idle_w": case.idle_w,
        "mean_w": case.mean_w,
    }


def schedule(ran: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """Each row that has a beginning and an end: when, and on which GPU of which host."""
    timed = [row for row in ran if row["started_at"] and row["finished_at"]]
    first: dict[str, datetime.datetime] = {}
    for row in timed:
        first[row["run"]] = min(first.get(row["run"], row["started_at"]), row["started_at"])
    for row in timed:
        begin, end = (
            (row[name] - first[row["run"]]).total_seconds() / 60
            for name in ("started_at", "finished_at")
        )
        uuid = row["device_uuid"] or ""
        host = row["placement_host"] or "host not known"
        yield {
            "run": row["run"],
            "sweep": row["run"] + (", simulated" if row["device_simulated"] else ""),
            "gpu": row["gpu_type"],
            "precision": row["precision"],
            **of_workload(Workload(**{name: row[name] for name in WORKLOAD_FIELDS})),
            "lane": f"{host}  {row['gpu_type']} {uuid[4:12]}".rstrip(),
            "begin_min": begin,
            "end_min": end,
            "what": f"{row['model']} {row['engine']} batch {row['batch_size']}",
            "replicate": row["replicate"],
            "outcome": row["outcome"],
            "reason": row["reason"],
            "attempt": row["placement_attempt"],
            "earlier": "; ".join(row["placement_earlier"] or ()) or None,
            "simulated": bool(row["device_simulated"]),
        }


def roofs(cases: Iterable[Case], records: Iterable[Record]) -> Iterator[Record]:
    """The rooflines of each GPU and precision: as measured, and by the datasheet if there is one.

    A roof is three points: where the memory's slope begins, where it meets the peak, and an end.
    """
    reach: dict[str, list[float]] = {}
    for record in records:
        if record["flop_per_byte"]:
            reach.setdefault(record["of_gpu"], []).append(record["flop_per_byte"])
    done = set()
    for case, record in zip(cases, records, strict=True):
        about = record["of_gpu"], case.precision
        if about in done or record["of_gpu"] not in reach or not case.roofline:
            continue
        for source, tflops, gb_per_s in peaks(case):
            knee = 1000 * tflops / gb_per_s
            begin = min(*reach[record["of_gpu"]], knee) / _BEYOND
            end = max(*reach[record["of_gpu"]], knee) * _BEYOND
            done.add(about)
            for at in (begin, knee, end):
                shared = ("run", "gpu", "precision", "cell", "of_gpu", "simulated")
                yield {
                    **{name: record[name] for name in shared},
                    "source": source,
                    "flop_per_byte": at,
                    "tflops": min(tflops, at * gb_per_s / 1000),
                    "peak_tflops": tflops,
                    "gb_per_s": gb_per_s,
                }


def peaks(case: Case) -> Iterator[tuple[str, float, float]]:
    """TFLOP/s and GB/s of a case's device at its precision, by where they come from."""
    found = case.roofline
    if found:
        tflops = max(found.matmul_tflops or 0.0, found.matmul_model_tflops or 0.0)
        gb_per_s = max(found.copy_gb_per_s or 0.0, found.read_gb_per_s or 0.0)
        if tflops > 0 and gb_per_s > 0 and math.isfinite(tflops * gb_per_s):
            yield MEASURED, tflops, gb_per_s
    known = [(gpus.peak_tflops(board, case.precision), board) for board in case.boards]
    rated = [(peak, board.bandwidth_gb_per_s) for peak, board in known if peak]
    if rated and len(rated) == len(case.boards):
        yield DATASHEET, *max(rated)
