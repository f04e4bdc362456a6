"""A table that somebody else made: CSV with as little as precision, latency_ms, energy_mj.

Each column has one name or a few that mean the same; `tensorgap report --format csv` writes such a
table too. A mistake is one TensorgapError that names the file, the line, the column and the remedy.
"""

import contextlib
import csv
import dataclasses
import decimal
import errno
import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench import matrix as matrices
from bench.asked import CPU, PRECISIONS, Workload
from bench.device import gpus
from bench.errors import TensorgapError
from bench.files import limits
from bench.measured import Outcome
from jobs import terminal
from jobs.report.facts import NOT_SPECIFIED, WIKITEXT_2, Case

STDIN = "-"
SAME_PRECISION = {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
SAME_PRECISION |= dict.fromkeys(("amp", "autocast", "mixed precision"), "mixed")
EMPTY = ("", "-", "n/a", "nan", "none", "null")
MOST_COLUMNS, MOST_ROWS = 1000, 1000
_AS_ROWS = 10  # bytes of memory for each byte of a CSV: its text, decoded, and its rows


def precision_of(text: str) -> str:
    """A precision under any of its names."""
    name = SAME_PRECISION.get(text.lower(), text.lower())
    if name not in PRECISIONS:
        raise ValueError(f"allowed: {', '.join(PRECISIONS)}")
    return name


def real(least: float, most: float, allowed: str) -> Callable[[str], float]:
    """What reads a number within limits."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise ValueError(f"must be a number{allowed}")

    return parse


def whole(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number within limits."""

    def parse(text: str) -> int:
        # int() takes the square of the number of digits.
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not digits or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def step_of(text: str) -> float | None:
    """The step of the last digit of a number as it was written.

    >>> step_of("217"), step_of("29.94")
    (1.0, 0.01)
    """
    exponent = decimal.Decimal(text).as_tuple().exponent
    return 10.0**exponent if isinstance(exponent, int) else None


# Beyond these limits a number is a slip, and a ratio of two such numbers is none.
positive = real(
    1e-6, 1e12, " greater than 0, without a unit; leave it empty where it was not measured"
)
end_of_interval = real(-math.inf, math.inf, "; leave it empty where there is no interval")

# Fact or field of the workload -> what reads it, which raises ValueError with what is allowed, and
# the names of its column, of which the first is the one to teach.
COLUMNS: dict[str, tuple[Callable[[str], Any], str]] = {
    "precision": (precision_of, "precision format"),
    "latency_ms": (positive, "latency_ms latency_ms_p50 timing_latency_ms_p50"),
    "energy_mj": (positive, "energy_mj energy_per_sample_mj"),
    "throughput_per_s": (positive, "throughput throughput_per_s timing_throughput_samples_per_s"),
    "perplexity": (positive, "perplexity quality_perplexity"),
    "perplexity_step": (step_of, "perplexity quality_perplexity"),
    "size_mb": (positive, "size_mb"),
    "idle_w": (positive, "idle_w energy_idle_w"),
    "energy_window_s": (positive, "energy_window_s"),
    "gpu": (str, "gpu_type gpu"),
    "model": (str, "model"),
    "engine": (str, "engine"),
    "attention": (str, "attention"),
    "batch_size": (whole(1, 65_536), "batch_size batch"),
    # Of these two the most depends on the model: see `case_of`.
    "prompt_tokens": (int, "prompt_tokens tokens"),
    "new_tokens": (int, "new_tokens"),
    "context": (whole(1, 1_000_000), "context quality_context"),
    "energy_methods": (lambda method: (method,), "energy_method"),
    "text": (str, "text quality_text"),
    "run": (str, "run"),
    "outcome": (str, "outcome"),
    # Of the ratios to fp32, which themselves are computed.
    "speedup_low": (end_of_interval, "speedup_low"),
    "speedup_high": (end_of_interval, "speedup_high"),
    "energy_ratio_low": (end_of_interval, "energy_ratio_low"),
    "energy_ratio_high": (end_of_interval, "energy_ratio_high"),
}


def read(text: str, source: str) -> tuple[list[Case], list[str]]:
    """The lines of a CSV that are OK, and the columns that are not known.

    Raises TensorgapError where it is no such table.
    """
    # Its own line ends only: others, such as U+2028, are part of a text.
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    found: dict[object, tuple[Case, str]] = {}
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        columns = columns_of(names, source)
        reader.fieldnames = names
        for row in reader:
            if not any(value.strip() for value in row.values() if isinstance(value, str)):
                continue
            place = f"{source}, line {reader.line_num}"
            case = case_of(row, columns, place)
            if case.outcome != Outcome.OK:
                continue
            _, first = found.setdefault((case.key, case.precision), (case, place))
            if first != place:
                raise TensorgapError(
                    f"{place}: {case.precision} stands in {first} already; give each precision"
                    " once, with the median of its runs, or a column that tells them apart"
                    " (gpu_type, model, batch_size, prompt_tokens and run)"
                )
            if len(found) > MOST_ROWS:
                raise TensorgapError(
                    f"{source}: more than {MOST_ROWS} rows, which would take minutes; split the"
                    " table"
                )
    except csv.Error as error:
        raise TensorgapError(f"{source}: not a readable CSV: {error}") from None
    ignored = [name for name in names if name and name not in columns.values()]
    return [case for case, _ in found.values()], ignored


def columns_of(names: Sequence[str], source: str) -> dict[str, str]:
    """Field -> the column that holds it, of the fields that the table has.

    Raises TensorgapError where there are too many columns, or one that is needed is missing.
    """
    if len(names) > MOST_COLUMNS:
        raise TensorgapError(
            f"{source}: {len(names):,} columns; at most {MOST_COLUMNS} are read; keep those that"
            " `tensorgap explain --help` names"
        )
    columns = {
        field: holds[0]
        for field, (_, aliases) in COLUMNS.items()
        if (holds := [name for name in aliases.split() if name in names])
    }
    if "precision" not in columns:
        found = f"its columns are {', '.join(names)}" if names else "it is empty"
        raise TensorgapError(
            f"{source}: column precision is missing ({found}); the first line must name the"
            " columns, with commas between: precision,latency_ms,energy_mj,throughput,perplexity"
        )
    if "latency_ms" not in columns and "energy_mj" not in columns:
        raise TensorgapError(
            f"{source}: there is neither a column latency_ms nor a column energy_mj;"
            f" its columns are {', '.join(names)}; units stand in the names"
        )
    return columns


def case_of(row: Mapping[str, Any], columns: Mapping[str, str], place: str) -> Case:
    """What a line says; TensorgapError where a value is not what its column holds."""
    written = {field: (row[name] or "").strip() for field, name in columns.items()}
    written = {field: text for field, text in written.items() if text.lower() not in EMPTY}
    written.setdefault("precision", "nothing")
    asked, most = Workload("gpt2"), max(matrices.POSITIONS.values())
    positions = matrices.POSITIONS.get(written.get("model", asked.model), most)
    line: dict[str, Any] = {}
    for field, text in written.items():
        parse = COLUMNS[field][0]
        if field == "prompt_tokens":
            parse = whole(1, positions)
        elif field == "new_tokens":
            parse = whole(0, positions - line.get("prompt_tokens", asked.prompt_tokens))
        try:
            line[field] = parse(text)
        except ValueError as error:
            raise TensorgapError(f"{place}: {columns[field]} = {text}: {error}") from None
    of_workload = {field.name for field in dataclasses.fields(Workload)} & {*line}
    workload = dataclasses.replace(asked, **{name: line.pop(name) for name in of_workload})
    for ratio in ("speedup", "energy_ratio"):
        ends = tuple(line.pop(f"{ratio}_{end}", None) for end in ("low", "high"))
        line[f"{ratio}_ends"] = None if None in ends else ends
    if {"latency_ms", "energy_mj"} <= {*line}:
        line["mean_w"] = line["energy_mj"] * workload.batch_size / line["latency_ms"]
    gpu = line.pop("gpu", None)
    line = {"gpu": NOT_SPECIFIED, "gpu_type": None, "text": WIKITEXT_2, **line}
    case = Case(workload=workload, foreign=True, **line)
    return on(gpu, case) if gpu else case


def on(gpu: str, case: Case) -> Case:
    """The case on a GPU: a type (P100), a board (P100-PCIE), CPU, or a foreign name."""
    boards = gpus.named(gpu)
    gpu = gpu.upper() if boards or gpu.upper() == CPU else gpu
    gpu_type, capability = (boards[0].gpu_type, boards[0].capability) if boards else (gpu, None)
    return dataclasses.replace(
        case, gpu=gpu, gpu_type=gpu_type, boards=boards, capability=capability
    )


def cases(lines: Sequence[Case], gpu_types: Iterable[str] = ()) -> list[Case]:
    """The cases; those of no GPU once on each of some types, if there are any."""
    named = [case for case in lines if case.gpu_type]
    unnamed = [case for case in lines if not case.gpu_type]
    types = dict.fromkeys(name.upper() for name in gpu_types)
    return named + ([on(gpu, case) for gpu in types for case in unnamed] if types else unnamed)


def load(place: str, allowance: limits.Allowance, several: bool = False) -> list[Case]:
    """The lines of a file or of standard input; says which of its columns are ignored.

    With `several` there are other tables, so that each is a run of its own.

    Raises TensorgapError where it cannot be read, is larger than allowed, or is no such table.
    """
    name = "standard input" if place == STDIN else place

    def take(size_bytes: int) -> None:
        told = f"{name} ({limits.shown(size_bytes)}, and {_AS_ROWS} times that as rows)"
        allowance.take(_AS_ROWS * size_bytes, told)

    try:
        if place != STDIN:
            content = limits.read_file(place, take)
        elif sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        else:
            content = sys.stdin.buffer.read(allowance.left_bytes // _AS_ROWS + 1)
            take(len(content))
        lines, ignored = read(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise TensorgapError(f"{name}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        remedy = "; a pipe is read from standard input: -" if error.errno == errno.EINVAL else ""
        raise TensorgapError(f"{name}: cannot be read: {error.strerror}{remedy}") from None
    if ignored:
        terminal.say(f"{name}: ignoring unknown columns: {', '.join(ignored)}")
    if not several:
        return lines
    return [dataclasses.replace(one, run=f"{name} {one.run}".rstrip()) for one in lines]
