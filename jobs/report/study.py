"""A table that somebody else made: CSV with as little as precision, latency_ms, energy_mj.

Each column has one name or a few that mean the same; `tensorgap report --format csv` writes such a
table too. A mistake is one TensorgapError that names the file, the line, the column and the remedy.
"""

from __future__ import annotations

import csv
import decimal
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench import matrix as matrices
from bench.asked import CPU, PRECISIONS, Workload
from bench.device import gpus
from bench.errors import TensorgapError
from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report.cases import Case, Group, Stated, grouped
from jobs.report.comparison import BASELINE, Line
from jobs.report.words import listed

UNKNOWN_GPU = "a GPU that nobody named"
# The first name of each is the one to teach.
NUMBERS = {
    "latency_ms": ("latency_ms", "latency_ms_p50", "timing_latency_ms_p50"),
    "energy_mj": ("energy_mj", "energy_per_sample_mj"),
    "throughput": ("throughput", "throughput_per_s", "timing_throughput_samples_per_s"),
    "perplexity": ("perplexity", "quality_perplexity"),
    "size_mb": ("size_mb",),
    "idle_w": ("idle_w", "energy_idle_w"),
    "energy_window_s": ("energy_window_s",),
}
COUNTS = {
    "batch_size": ("batch_size", "batch"),
    "prompt_tokens": ("prompt_tokens", "tokens"),
    "new_tokens": ("new_tokens",),
    "context": ("context", "quality_context"),
}
WORDS = {
    "precision": ("precision", "format"),
    "gpu_type": ("gpu_type", "gpu"),
    "model": ("model",),
    "engine": ("engine",),
    "attention": ("attention",),
    "energy_method": ("energy_method",),
    "text": ("text", "quality_text"),
    "run": ("run",),
    "outcome": ("outcome",),
}
# Of the ratios to fp32, which themselves are computed.
ENDS = {
    f"{ratio}_{end}": (f"{ratio}_{end}",)
    for ratio in ("speedup", "energy_ratio")
    for end in ("low", "high")
}
_SAME_PRECISION = {
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "amp": "mixed",
    "autocast": "mixed",
    "mixed precision": "mixed",
}
# Beyond these a number is a slip, and a ratio of two of them none.
_LEAST, _MOST = 1e-6, 1e12
_LARGEST_BATCH = 65_536
_MOST_COLUMNS, _MOST_ROWS = 1000, 1000
_EMPTY = ("", "-", "n/a", "nan", "none", "null")


@dataclass(frozen=True)
class Entry:
    """One line of the table: its line without ratios, its GPU where it names one, and the rest."""

    line: Line
    gpu_type: str | None
    stated: Stated
    place: str  # for messages


def read(text: str, source: str) -> tuple[list[Entry], list[str]]:
    """The entries of a CSV, and the columns that it has and nobody reads.

    Raises:
        TensorgapError: it is no such table.
    """
    # Its own line ends only: others, such as U+2028, are part of a text.
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise TensorgapError(f"{source}: not a readable CSV: {error}") from None
    if len(names) > _MOST_COLUMNS:
        raise TensorgapError(
            f"{source}: {len(names):,} columns; at most {_MOST_COLUMNS} are read; keep those that"
            " `tensorgap explain --help` names"
        )
    reader.fieldnames = names
    columns = {
        field: next((name for name in aliases if name in names), None)
        for field, aliases in (NUMBERS | COUNTS | WORDS | ENDS).items()
    }
    if columns["precision"] is None:
        found = f"its columns are {', '.join(names)}" if names else "it is empty"
        raise TensorgapError(
            f"{source}: column precision is missing ({found}); the first line must name the"
            " columns, with commas between: precision,latency_ms,energy_mj,throughput,perplexity"
        )
    if columns["latency_ms"] is None and columns["energy_mj"] is None:
        raise TensorgapError(
            f"{source}: there is neither a column latency_ms nor a column energy_mj;"
            f" its columns are {', '.join(names)}; units stand in the names"
        )
    entries: list[Entry] = []
    try:
        for row in reader:
            place = f"{source}, line {reader.line_num}"
            if any(value and value.strip() for value in row.values() if isinstance(value, str)):
                entry = _entry(row, columns, place)
                if entry.line.outcome == Outcome.OK:
                    entries.append(entry)
                if len(entries) > _MOST_ROWS:
                    raise TensorgapError(
                        f"{source}: more than {_MOST_ROWS} rows, which would take minutes; split"
                        " the table"
                    )
    except csv.Error as error:
        raise TensorgapError(f"{source}: not a readable CSV: {error}") from None
    _check_once(entries)
    used = {name for name in columns.values() if name}
    return entries, [name for name in names if name and name not in used]


def groups(entries: Sequence[Entry], gpu_type: str | None = None) -> list[Group]:
    """Groups of a table's entries; `gpu_type` is for entries that name no GPU.

    Args:
        entries: From `read`.
        gpu_type: A type (P100) or board (P100-PCIE) that `bench.device.gpus` knows; None: unknown.
    """
    found = [_case(entry, gpu_type) for entry in entries]
    order = {precision: index for index, precision in enumerate(PRECISIONS)}
    found.sort(key=lambda case: (_compared(case), order[case.precision]))
    bases = {_compared(case): case for case in found if case.precision == BASELINE}
    compared = [_with_ratios(case, bases.get(_compared(case))) for case in found]
    return grouped(compared, with_run=len({case.line.run for case in compared}) > 1)


def _compared(case: Case) -> tuple[str, str, Workload]:
    """What a case and its baseline have in common."""
    return case.line.run, case.line.gpu_type, case.workload


def _entry(row: Mapping[str, str | None], columns: Mapping[str, str | None], place: str) -> Entry:
    def written(field: str) -> str | None:
        name = columns[field]
        value = (row.get(name) or "").strip() if name else ""
        return None if value.lower() in _EMPTY else value

    def real(field: str) -> float | None:
        value = written(field)
        if value is None:
            return None
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not _LEAST <= found <= _MOST:
            raise TensorgapError(
                f"{place}: {columns[field]} = {value}: must be a number greater than 0, without a"
                " unit; leave it empty where it was not measured"
            )
        return found

    def whole(field: str, default: int, most: int) -> int:
        value = written(field)
        if value is None:
            return default
        digits = value.isascii() and value.isdigit() and len(value) <= len(str(most))
        if not (digits and min(1, default) <= int(value) <= most):
            raise TensorgapError(
                f"{place}: {columns[field]} = {value}: must be a whole number from"
                f" {min(1, default)} to {most}"
            )
        return int(value)

    def interval(ratio: str) -> tuple[float, float] | None:
        ends = []
        for field in (f"{ratio}_low", f"{ratio}_high"):
            value = written(field)
            if value is None:
                return None
            try:
                ends.append(float(value))
            except ValueError:
                raise TensorgapError(
                    f"{place}: {columns[field]} = {value}: must be a number; leave it empty where"
                    " there is no interval"
                ) from None
        return ends[0], ends[1]

    given = written("precision") or ""
    precision = _SAME_PRECISION.get(given.lower(), given.lower())
    if precision not in PRECISIONS:
        raise TensorgapError(
            f"{place}: {columns['precision']} = {given or 'nothing'}: allowed:"
            f" {', '.join(PRECISIONS)}"
        )
    default = Workload("gpt2")
    model = written("model") or default.model
    positions = matrices.POSITIONS.get(model, max(matrices.POSITIONS.values()))
    prompt_tokens = whole("prompt_tokens", default.prompt_tokens, positions)
    workload = Workload(
        model,
        written("engine") or default.engine,
        whole("batch_size", default.batch_size, _LARGEST_BATCH),
        prompt_tokens,
        whole("new_tokens", default.new_tokens, positions - prompt_tokens),
        written("attention") or default.attention,
    )
    gpu_type = written("gpu_type")
    line = Line(
        run=written("run") or "",
        gpu_type=gpu_type or UNKNOWN_GPU,
        workload=workload,
        precision=precision,
        outcome=Outcome.OK if written("outcome") in (None, "OK") else Outcome.FAILED,
        replicates=1,
        latency_ms=real("latency_ms"),
        energy_mj=real("energy_mj"),
        throughput_per_s=real("throughput"),
        perplexity=real("perplexity"),
        size_mb=real("size_mb"),
    )
    stated = Stated(
        energy_method=written("energy_method"),
        energy_window_s=real("energy_window_s"),
        idle_w=real("idle_w"),
        perplexity_step=_step(written("perplexity")),
        text=written("text"),
        context=whole("context", 0, 1_000_000) or None,
        speedup=interval("speedup"),
        energy_ratio=interval("energy_ratio"),
    )
    return Entry(line, gpu_type, stated, place)


def _step(written: str | None) -> float | None:
    """The step of the last digit of a number as it was written.

    >>> _step("217"), _step("29.94"), _step(None)
    (1.0, 0.01, None)
    """
    if written is None:
        return None
    exponent = decimal.Decimal(written).as_tuple().exponent
    return 10.0**exponent if isinstance(exponent, int) else None


def _check_once(entries: Iterable[Entry]) -> None:
    seen: dict[object, str] = {}
    for entry in entries:
        key = (entry.line.run, entry.gpu_type, entry.line.workload, entry.line.precision)
        if key in seen:
            raise TensorgapError(
                f"{entry.place}: {entry.line.precision} stands in {seen[key]} already; give each"
                " precision once, with the median of its runs, or a column that tells them apart"
                f" ({listed(('gpu_type', 'model', 'batch_size', 'prompt_tokens', 'run'))})"
            )
        seen[key] = entry.place


def _case(entry: Entry, gpu_type: str | None) -> Case:
    name = entry.gpu_type or gpu_type
    if name is None or name.upper() == CPU:
        kind = CPU if name else None
        return Case(replace(entry.line, gpu_type=kind or UNKNOWN_GPU), (), kind, (), entry.stated)
    found = gpus.named(name)
    kind = found[0].gpu_type if found else name
    name = name.upper() if found else name
    return Case(replace(entry.line, gpu_type=name), (), kind, found, entry.stated)


def _with_ratios(case: Case, base: Case | None) -> Case:
    """The case with its ratios to the baseline, and with the intervals that the table gives."""
    line, stated = case.line, case.stated or Stated()
    if base is None:
        return case
    if line.latency_ms and base.line.latency_ms:
        speedup = _ratio(base.line.latency_ms / line.latency_ms, stated.speedup)
        line = replace(line, speedup=speedup)
    if line.energy_mj and base.line.energy_mj:
        energy_ratio = _ratio(line.energy_mj / base.line.energy_mj, stated.energy_ratio)
        line = replace(line, energy_ratio=energy_ratio)
    return replace(case, line=line)


def _ratio(value: float, interval: tuple[float, float] | None) -> Ratio:
    low, high = interval or (value, value)
    return Ratio(value, min(low, value), max(high, value))
