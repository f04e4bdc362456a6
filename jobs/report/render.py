"""The table of the first study, with what it lacked: intervals, reasons, doubts, and findings."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import perplexity, words
from jobs.report.comparison import Against, Line, intervals
from jobs.report.finding import Finding, Verdict
from jobs.report.words import NOTHING, listed
from jobs.report.words import number as _number
from jobs.terminal import clean

if TYPE_CHECKING:
    from rich.table import Table

_VERDICT_STYLES = {
    Verdict.REJECT: "red",
    Verdict.FIX: "yellow",
    Verdict.CANNOT_TELL: "cyan",
    Verdict.ACCEPT: "green",
}
_MARKUP = re.compile(r"[\\`*~<&|]|\](?=[(\[])|^[\[#>]")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the last four are the wide ones
_WORTH_A_REFERENCE = 2  # texts that stand above already
_READABLE, _NARROWEST = 100, 60  # columns of text
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


def table(lines: Sequence[Line], width: int = _READABLE, color: bool = False) -> str:
    """Text for a terminal: a table per GPU type and workload with its doubts, then the notes.

    A table wider than `width` leaves out the columns in which nothing was measured.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    lines = clean(lines)
    stream = io.StringIO()
    console = Console(file=stream, width=_text(width), force_terminal=color, highlight=False)
    # A number is never cut, not even where the table is wider than the text.
    wide = Console(file=stream, width=1000, force_terminal=color, highlight=False)
    for title, group in _groups(lines):
        drawn = _drawn(title, group, range(len(HEADINGS)))
        if wide.measure(drawn).maximum > width:
            drawn = _drawn(title, group, _filled(group))
        wide.print(drawn)
        for remark in remarks(group):
            console.print(Padding(Text(remark), (0, 0, 0, 2)))
        console.print()
    for note in notes(lines):
        console.print(Text(note))
    return "\n".join(part.rstrip() for part in stream.getvalue().splitlines()).strip("\n")


def _text(width: int) -> int:
    """How wide text is where there are so many columns."""
    return max(_NARROWEST, min(_READABLE, width))


def _drawn(title: str, group: Sequence[Line], columns: Iterable[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = list(columns)
    # A title that is no Text would be read as markup, whose links a terminal follows.
    heading = Text(title, style="bold")
    drawn = Table(box=SIMPLE_HEAD, title=heading, title_justify="left", title_style="")
    for index in shown:
        justify: Literal["left", "right"] = "left" if index == 0 else "right"
        drawn.add_column(HEADINGS[index], justify=justify, no_wrap=True)
    for line in group:
        style, cells = "" if line.outcome == Outcome.OK else "red", _cells(line)
        drawn.add_row(*(Text(cells[index], style=style) for index in shown))
    return drawn


def _filled(group: Sequence[Line]) -> list[int]:
    """The columns in which any line has something."""
    columns = zip(*map(_cells, group), strict=True)
    return [index for index, cells in enumerate(columns) if set(cells) != {NOTHING}]


def markdown(lines: Sequence[Line]) -> str:
    """The same as Markdown."""
    lines = clean(lines)
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
    records = [_flat(line) for line in clean(lines)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=_flat_names(), lineterminator="\n")
    writer.writeheader()
    for record in records:
        joined = {k: "; ".join(v) if isinstance(v, tuple) else v for k, v in record.items()}
        writer.writerow({k: _no_formula(v) if isinstance(v, str) else v for k, v in joined.items()})
    return stream.getvalue().rstrip("\n")


def to_json(lines: Sequence[Line]) -> str:
    """A list of objects; numbers in full."""
    return _json([_finite(_flat(line)) for line in lines])


def findings(
    found: Sequence[Finding], matrix: str | None, width: int = _READABLE, color: bool = False
) -> str:
    """Text for a terminal: how many of each verdict, then each finding, then the matrix to run."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    found = clean(found)
    stream = io.StringIO()
    width = _text(width)
    console = Console(file=stream, width=width, force_terminal=color, highlight=False)
    counts = [(verdict, sum(f.verdict == verdict for f in found)) for verdict in Verdict]
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
    console.print(Text(summary or "Nothing to say: no rule finds anything in these numbers."))
    told: dict[tuple[str, str], int] = {}
    for number, finding in enumerate(found, start=1):
        style = _VERDICT_STYLES[finding.verdict]
        console.print()
        heading = Text(f"{number}. {finding.verdict.upper()}  ", style=f"bold {style}")
        heading.append(f"{finding.code}  ({', '.join(finding.precisions)})", style="bold")
        console.print(heading)
        console.print(Padding(Text(finding.subject, style="dim"), (0, 0, 0, 3)))
        console.print(Padding(Text(finding.cause), (0, 0, 0, 3)))
        for name, every in _sections(finding):
            texts = _not_told(number, name, every, told)
            for index, text in enumerate(texts):
                # Wrapped beside its word, so that the words stand in a column of their own.
                wrapped = Text(text).wrap(console, width - 16)
                for number_of_line, line in enumerate(wrapped):
                    word = name if index == number_of_line == 0 else ""
                    bullet = "-" if number_of_line == 0 else " "
                    console.print(Text(f"   {word:<9}{bullet} ") + line)
    if matrix:
        console.print(Text("\nThe matrix to run next:\n", style="bold"))
        console.print(Text(matrix, no_wrap=True, overflow="ignore"), soft_wrap=True)
    return "\n".join(part.rstrip() for part in stream.getvalue().splitlines()).strip("\n")


def _not_told(
    number: int, section: str, texts: Sequence[str], told: dict[tuple[str, str], int]
) -> list[str]:
    """The texts; where several stand in an earlier finding, that finding in their place."""
    again = [text for text in texts if (section, text) in told]
    for text in texts:
        told.setdefault((section, text), number)
    if len(again) < _WORTH_A_REFERENCE:
        return list(texts)
    where = sorted({told[section, text] for text in again})
    return [
        *(text for text in texts if text not in again),
        f"{'else ' if len(again) < len(texts) else ''}as in {listed(map(str, where))}",
    ]


def findings_json(found: Sequence[Finding], matrix: str | None, assumed: Sequence[str]) -> str:
    """An object with the findings, the matrix as TOML (or null), and what was assumed."""
    records = [dataclasses.asdict(finding) for finding in found]
    return _json({"findings": records, "next_matrix": matrix, "assumed": list(assumed)})


def against(found: Sequence[Against]) -> str:
    """GPU types against a chosen one, as lines of text."""
    found = clean(found)
    texts = []
    runs = {one.run for one in found}
    for one in found:
        run = f"   ({one.run})" if len(runs) > 1 else ""
        known = "in it" if one.sensor_errors else "not known"
        texts.append(
            f"{one.gpu_type} against {one.chosen}   {one.workload}   {one.precision}{run}:"
            f" {_ratio(one.speedup)} as fast, {_ratio(one.energy_ratio)} the energy"
            + (f" (the sensors' own errors are {known})" if one.energy_ratio else "")
        )
        texts.extend(f"  doubt: {doubt}" for doubt in one.doubts)
    if len(found) > 1:
        texts.append(_several(sum(bool(o.speedup) + bool(o.energy_ratio) for o in found)))
    return "\n".join(texts)


def against_json(found: Sequence[Against]) -> str:
    """The same as a list of objects; a ratio has value, low, high and freedom."""
    return _json([dataclasses.asdict(one) for one in found])


def _json(value: object) -> str:
    """JSON in ASCII without a control character: texts are whole in it, and escaped."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def _several(count: int) -> str:
    return (
        f"{count} ratios are compared, each with a 95 % interval of its own: one of twenty such"
        " intervals misses its truth by chance"
    )


def _sections(finding: Finding) -> list[tuple[str, Sequence[str]]]:
    return [
        ("because", finding.evidence),
        ("expected", finding.expected),
        ("missing", finding.missing),
        ("do", finding.actions),
    ]


def remarks(group: Sequence[Line]) -> list[str]:
    """What a reader must know beside the rows of one table."""
    texts = []
    for line in group:
        if line.outcome != Outcome.OK:
            texts.append(f"{line.precision}: {line.outcome}: {line.reason}")
        if line.doubts:
            texts.append(f"{line.precision}: doubt: {'; '.join(words.alike(line.doubts))}")
    tokens = [
        f"{line.precision} {_number(line.first_token_ms, ' ms')},"
        f" {_number(line.per_output_token_ms, ' ms')}"
        for line in group
        if line.first_token_ms is not None
    ]
    if tokens:
        texts.append(f"first token, then each further one: {'; '.join(tokens)}")
    texts.extend(perplexity.compared(group))
    floors = {line.floor_perplexity for line in group if line.floor_perplexity is not None}
    texts.extend(
        f"perplexity: the text's own generator reaches {_number(floor, digits=5)}, the floor"
        for floor in sorted(floors)
    )
    return texts


def notes(lines: Sequence[Line]) -> list[str]:
    """What holds for the whole: what measured; what was not measured, and why."""
    texts = _devices(lines)
    texts += dict.fromkeys(itertools.chain.from_iterable(line.missing for line in lines))
    if lines and all(line.replicates <= 1 for line in lines):
        texts.append(
            "the intervals hold within one process per cell; sampling.replicates shows how"
            " processes differ"
        )
    if (count := intervals(lines)) > 1:
        texts.append(_several(count))
    return texts


def _devices(lines: Sequence[Line]) -> list[str]:
    """Which GPU each type was, and what ran there."""
    by_type: dict[str, dict[str, None]] = {}
    for line in lines:
        named = ((line.torch, "torch "), (line.driver, "driver "))
        if line.device_name:
            told = [line.device_name, *(f"{name}{value}" for value, name in named if value)]
            by_type.setdefault(line.gpu_type, {})[", ".join(told)] = None
    return [f"{gpu_type}: {'; '.join(told)}" for gpu_type, told in by_type.items()]


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


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return NOTHING
    value = f"{ratio.value:.2f}x"
    if ratio.low == ratio.high:
        return value
    return f"{value} [{words.ratio(ratio.low)}, {words.ratio(ratio.high)}]"


def _perplexity(line: Line) -> str:
    # Whole numbers hide what precisions differ by: 217 against 218 is undecidable.
    return _number(line.perplexity, digits=5)


def _escaped(text: str) -> str:
    r"""Text within Markdown that makes no cell, HTML, code, emphasis or link of its own.

    >>> _escaped("1.13x [1.12, 1.14]"), _escaped("a|b"), _escaped("[a](b)")
    ('1.13x [1.12, 1.14]', 'a\\|b', '\\[a\\](b)')
    """
    return _MARKUP.sub(r"\\\g<0>", text.strip())


def _no_formula(text: str) -> str:
    """A text as a cell of a spreadsheet, which would compute what begins so, and run some of it.

    >>> _no_formula("=1+1"), _no_formula("gpt2")
    ("'=1+1", 'gpt2')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _flat_names() -> list[str]:
    return [
        "run",
        "gpu_type",
        "model",
        "engine",
        "batch_size",
        "prompt_tokens",
        "new_tokens",
        "attention",
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
        "first_token_ms",
        "per_output_token_ms",
        "device_name",
        "torch",
        "driver",
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
