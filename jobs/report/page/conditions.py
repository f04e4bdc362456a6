"""How the rows were measured: protocol, hardware, software and conditions, each fact once.

What a reader needs to judge the numbers and to repeat them, from the rows and the matrix alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.asked import Matrix
from bench.results.columns import Source
from bench.results.rows import LIGHT_AT_ONCE, Rows
from bench.warnings import SIMULATED
from jobs.report.changes.conditions import parsed
from jobs.report.facts import Case
from jobs.report.table import beside
from jobs.report.words import alike, gathered, number, some_of

_BY_TYPE = {
    "device_name": "device",
    "device_memory_bytes": "memory",
    "device_compute_capability": "compute capability",
    "device_power_limit_w": "power limit",
    "device_max_sm_mhz": "highest SM clock",
    "conditions_sm_mhz_after": "SM clock under load",
    "conditions_temperature_c_after": "temperature under load",
    "conditions_throttled_s": "throttled",
    "energy_method": "energy meter",
    "sensor_counter": "energy counter",
    "device_cpu": "host CPU",
    "device_threads": "CPU threads",
    "conditions_other_cpu_share": "other work on the host",
    "software_driver": "NVIDIA driver",
    "software_cuda": "CUDA",
    "device_uuid": "GPUs",
    "device_hostname": "hosts",
}
_OF_ALL = {
    "software_torch": "torch",
    "software_transformers": "transformers",
    "software_python": "Python",
    "software_ray": "Ray",
    "software_os": "operating system",
    "software_tensorgap": "tensorgap",
}
_OF_QUALITY = {
    "quality_text": "text",
    "quality_mode": "protocol",
    "quality_context": "window",
    "quality_stride": "new tokens per window",
    "quality_tokens": "tokens scored",
}
_UNITS: Mapping[str, tuple[float, str, int]] = {
    "device_memory_bytes": (1e-9, " GB", 3),
    "device_power_limit_w": (1, " W", 3),
    "device_max_sm_mhz": (1, " MHz", 4),
    "conditions_sm_mhz_after": (1, " MHz", 4),
    "conditions_temperature_c_after": (1, " \u00b0C", 2),
    "conditions_throttled_s": (1, " s", 2),
    "conditions_other_cpu_share": (100, " % of the CPU time", 2),
}
_COUNTED = ("device_uuid", "device_hostname")  # names of machines, of which only the number matters
_MOST_VALUES = 4


@dataclass(frozen=True)
class Facts:
    """A heading, and facts with their names; `text` stands as it is (a matrix)."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    text: str | None = field(default=None)


def sections(rows: Rows, sources: Sequence[Source], cases: Sequence[Case]) -> list[Facts]:
    """All that is known of how the rows came to be."""
    table = columns(rows)
    found = [Facts("Sweep", [*sweep_of(table, sources)])]
    for matrix in filter(None, dict.fromkeys(map(parsed, sources))):
        found.append(Facts(f"Protocol of {matrix.name}", [*protocol(matrix)]))
    types = dict.fromkeys(table["gpu_type"])
    for name in types:
        mine = [at for at, gpu_type in enumerate(table["gpu_type"]) if gpu_type == name]
        facts = [*described(table, _BY_TYPE, mine)]
        found.append(Facts(name, facts or [("device", "not known: nothing was measured on it")]))
    found.append(Facts("Software", [*described(table, _OF_ALL)]))
    # A row without a perplexity may still say on which text it would have been.
    scored = [at for at, mode in enumerate(table["quality_mode"]) if mode is not None]
    found.append(Facts("Perplexity", [*described(table, _OF_QUALITY, scored)]))
    found.append(Facts("Warnings", [*warned(cases)]))
    found += [Facts(f"Matrix of {source.run}", text=source.matrix) for source in sources]
    return [section for section in found if section.facts or section.text]


def columns(rows: Rows) -> dict[str, list[Any]]:
    """The columns that the facts come from, as lists."""
    names = ["gpu_type", "outcome", "started_at", "finished_at", *_BY_TYPE, *_OF_ALL, *_OF_QUALITY]
    names.append("device_simulated")
    found: dict[str, list[Any]] = {name: [] for name in names}
    for table in rows.tables(names, LIGHT_AT_ONCE):
        for name in names:
            found[name] += table[name].to_pylist()
    return found


def sweep_of(
    table: Mapping[str, list[Any]], sources: Sequence[Source]
) -> Iterator[tuple[str, str]]:
    """What ran, when, and how it ended."""
    for source in sources:
        code = f"tensorgap {source.version}"
        revision = f", revision {source.git_revision[:12]}" if source.git_revision else ""
        yield "run", f"{source.run} ({code}{revision})"
    counts = {
        outcome: table["outcome"].count(outcome) for outcome in dict.fromkeys(table["outcome"])
    }
    yield "rows", ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none"
    begun = [time for time in table["started_at"] if time]
    ended = [time for time in table["finished_at"] if time]
    if begun and ended:
        yield "measured", f"{moment(min(begun))} to {moment(max(ended))} UTC"
    if simulated := sum(map(bool, table["device_simulated"])):
        whole = f"{simulated} of {len(table['outcome'])} rows"
        yield "simulated", f"{whole}: no number of these is a real one"


def moment(time: datetime.datetime) -> str:
    """A time to the minute, in UTC."""
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M")


def protocol(matrix: Matrix) -> Iterator[tuple[str, str]]:
    """The rules by which a matrix had its numbers measured."""
    sampling, quality = matrix.sampling, matrix.quality
    warm_up = (
        "until the medians of two windows of 1 s agree within 1 %, from"
        f" {sampling.warmup_min_s:g} to {sampling.warmup_max_s:g} s"
    )
    latency = (
        "closed loop, host clock around launch and synchronisation; at least"
        f" {sampling.min_samples} samples and {sampling.latency_min_s:g} s, until the 95 % interval"
        f" of the median is within \u00b1{sampling.median_within:.2g} of it, at most"
        f" {sampling.latency_max_s:g} s"
    )
    throughput = f"full queue for {sampling.throughput_s:g} s, one synchronisation at its end"
    energy = (
        f"protocol {sampling.energy}: windows of {sampling.energy_s:g} s together, idle power for"
        f" {sampling.idle_s:g} s beside them"
    )
    perplexity = (
        f"{quality.text}, {quality.split} split, windows of {quality.context} tokens with"
        f" {quality.stride} new ones, log-softmax in fp32"
    )
    processes = "process" if sampling.replicates == 1 else "processes"
    yield "replicates", f"{sampling.replicates} fresh {processes} per cell"
    yield "warm-up", warm_up
    yield "latency", latency
    yield "throughput", throughput
    yield "energy", energy
    yield "perplexity", perplexity if quality.enabled else "not measured"
    yield "profile", "traced after all timing" if sampling.profile else "none"


def described(
    table: Mapping[str, list[Any]], names: Mapping[str, str], rows: Sequence[int] | None = None
) -> Iterator[tuple[str, str]]:
    """The values of some columns in some rows, as facts; without what is not known."""
    for column, title in names.items():
        every = table[column] if rows is None else [table[column][at] for at in rows]
        if known := [value for value in dict.fromkeys(every) if value is not None]:
            yield title, valued(column, known)


def valued(column: str, known: Sequence[Any]) -> str:
    """Values in words: numbers as their range, few texts as a list, names of machines counted.

    >>> valued("device_power_limit_w", [250.0, 70.0]), valued("software_torch", ["2.13.0"])
    ('70.0 to 250 W', '2.13.0')
    >>> valued("device_uuid", ["GPU-1", "GPU-2"])
    '2'
    """
    if column in _COUNTED:
        return str(len(known))
    if column in _UNITS:
        factor, unit, digits = _UNITS[column]
        ends = dict.fromkeys(number(end * factor, "", digits) for end in (min(known), max(known)))
        return " to ".join(ends) + unit
    texts = list(map(str, known))
    more = f" and {len(texts) - _MOST_VALUES} more" if len(texts) > _MOST_VALUES else ""
    return ", ".join(texts[:_MOST_VALUES]) + more


def warned(cases: Sequence[Case]) -> Iterator[tuple[str, str]]:
    """Each kind of warning once, with the range of its numbers, and which cells have it."""
    rows = [
        (warning, f"{case.gpu} {case.precision}")
        for case in cases
        for warning in (*case.warnings, *case.failed_warnings)
        if warning.code not in SIMULATED
    ]
    for same in gathered(rows, lambda pair: pair[0].code):
        text = "; ".join(alike(warning for warning, _ in same))
        yield some_of((cell for _, cell in same), _MOST_VALUES), text
    others = [(text, f"{case.gpu} {case.precision}") for case in cases for text in beside(case)]
    for alone in gathered(others, lambda pair: pair[0]):
        yield some_of((cell for _, cell in alone), _MOST_VALUES), alone[0][0]
