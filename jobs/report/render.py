"""The table of the first study, with what it lacked: intervals, reasons and doubts."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from bench.records import Outcome
from bench.stats import Ratio
from jobs.report import perplexity
from jobs.report.comparison import Line

HEADINGS = (
    "format",
    "latency",
    "speedup [95 %]",
    "energy",
    "energy ratio",
    "throughput",
    "perplexity",
    "size",
)
NOTHING = "-"


def table(lines: Sequence[Line], width: int = 100, color: bool = False) -> str:
    """Text for a terminal: a table per GPU type and workload with its doubts, then the notes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=color, highlight=False)
    # A number is never cut, not even where the table is wider than the text.
    wide = Console(file=stream, width=1000, force_terminal=color, highlight=False)
    for title, group in _groups(lines):
        drawn = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
        for index, heading in enumerate(HEADINGS):
            drawn.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
        for line in group:
            style = "" if line.outcome == Outcome.OK else "red"
            drawn.add_row(*(Text(cell, style=style) for cell in _cells(line)))
        wide.print(drawn)
        for remark in remarks(group):
            console.print(Padding(Text(remark), (0, 0, 0, 2)))
        console.print()
    for note in notes(lines):
        console.print(Text(note))
    return "\n".join(part.rstrip() for part in stream.getvalue().splitlines()).strip("\n")


def markdown(lines: Sequence[Line]) -> str:
    """The same as Markdown."""
    parts = []
    for title, group in _groups(lines):
        rows = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *map(_cells, group)]
        parts.append(f"**{_escaped(title)}**\n")
        parts.extend("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows)
        parts.append("")
        parts.extend(f"- {_escaped(remark)}" for remark in remarks(group))
        parts.append("")
    parts.extend(f"- {_escaped(note)}" for note in notes(lines))
    return "\n".join(parts).rstrip()


def to_csv(lines: Sequence[Line]) -> str:
    """One row per line; numbers in full."""
    records = [_flat(line) for line in lines]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=_flat_names(), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: "; ".join(v) if isinstance(v, tuple) else v for k, v in record.items()})
    return stream.getvalue().rstrip("\n")


def to_json(lines: Sequence[Line]) -> str:
    """A list of objects; numbers in full."""
    return json.dumps([_finite(_flat(line)) for line in lines], indent=2)


def remarks(group: Sequence[Line]) -> list[str]:
    """What a reader must know beside the rows of one table."""
    texts = []
    for line in group:
        if line.outcome != Outcome.OK:
            texts.append(f"{line.precision}: {line.outcome}: {line.reason}")
        if line.doubts:
            texts.append(f"{line.precision}: doubt: {'; '.join(line.doubts)}")
    texts.extend(perplexity.compared(group))
    floors = {line.floor_perplexity for line in group if line.floor_perplexity is not None}
    texts.extend(
        f"perplexity: the text's own generator reaches {_number(floor, digits=5)}, the floor"
        for floor in sorted(floors)
    )
    return texts


def notes(lines: Sequence[Line]) -> list[str]:
    """What holds for the whole: what was not measured, and why."""
    texts = list(dict.fromkeys(itertools.chain.from_iterable(line.missing for line in lines)))
    if lines and all(line.replicates <= 1 for line in lines):
        texts.append(
            "the intervals hold within one process per cell; sampling.replicates shows how"
            " processes differ"
        )
    return texts


def _groups(lines: Sequence[Line]) -> Iterable[tuple[str, list[Line]]]:
    runs = {line.run for line in lines}

    def title(line: Line) -> str:
        run = f"   ({line.run})" if len(runs) > 1 else ""
        return f"{line.gpu_type}   {line.workload}{run}"

    for text, group in itertools.groupby(lines, key=title):
        yield text, list(group)


def _cells(line: Line) -> list[str]:
    if line.outcome != Outcome.OK:
        return [line.precision, str(line.outcome), *[NOTHING] * (len(HEADINGS) - 2)]
    return [
        line.precision,
        _number(line.latency_ms, " ms"),
        _ratio(line.speedup),
        _number(line.energy_mj, " mJ"),
        _ratio(line.energy_ratio),
        _number(line.throughput_per_s, " /s"),
        _perplexity(line),
        _number(line.size_mb, " MB"),
    ]


def _number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A number with so many significant digits, without an exponent.

    >>> _number(0.01234), _number(11.72, " ms"), _number(580.4), _number(12345.6), _number(None)
    ('0.0123', '11.7 ms', '580', '12346', '-')
    """
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}{unit}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}{unit}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return NOTHING
    value = f"{ratio.value:.2f}x"
    return value if ratio.low == ratio.high else f"{value} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _perplexity(line: Line) -> str:
    # Whole numbers hide what precisions differ by: 217 against 218 is undecidable.
    return _number(line.perplexity, digits=5)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _flat_names() -> list[str]:
    return [
        "run",
        "gpu_type",
        "model",
        "engine",
        "batch_size",
        "prompt_tokens",
        "new_tokens",
        "precision",
        "outcome",
        "replicates",
        "latency_ms",
        "speedup",
        "speedup_low",
        "speedup_high",
        "energy_mj",
        "energy_ratio",
        "energy_ratio_low",
        "energy_ratio_high",
        "throughput_per_s",
        "perplexity",
        "floor_perplexity",
        "nats_difference",
        "nats_difference_low",
        "nats_difference_high",
        "logit_rounding_nats",
        "size_mb",
        "reason",
        "doubts",
        "missing",
    ]


def _flat(line: Line) -> dict[str, Any]:
    record = {name: getattr(line, name, None) for name in _flat_names()}
    record |= dataclasses.asdict(line.workload)
    record["outcome"] = str(line.outcome)
    for name, ratio in (("speedup", line.speedup), ("energy_ratio", line.energy_ratio)):
        record[name] = ratio and ratio.value
        record[f"{name}_low"] = ratio and ratio.low
        record[f"{name}_high"] = ratio and ratio.high
    difference = line.nats_difference
    record["nats_difference"] = difference and difference.mean
    record["nats_difference_low"] = difference and difference.low
    record["nats_difference_high"] = difference and difference.high
    return record


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity; None stands for it as for everything that is no number."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
