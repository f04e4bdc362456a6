"""The table of the page: which columns, and each cell as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import table
from jobs.report.figures.data import Record
from jobs.report.words import number

Text = Callable[[Record], str]


@dataclass(frozen=True)
class Column:
    """A column: what it sorts by, its heading, and the text of a cell.

    Attributes:
        key: The field of a record that decides the order.
        style: How the page shows it: a number, a text, a verdict, its reason.
    """

    key: str
    title: str
    text: Text
    style: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it stands to the right."""
        return self.style == "number"


def plain(key: str) -> Text:
    """The value itself; nothing where it is not known."""
    return lambda record: "" if record[key] is None else str(record[key])


def measured(key: str, digits: int = 3) -> Text:
    """A number with so many significant digits; a row that is not OK has an empty cell."""
    return lambda record: (
        number(record[key], digits=digits) if record["outcome"] == Outcome.OK else ""
    )


def with_interval(key: str, low: str, high: str) -> Text:
    """A number and its 95 % interval."""

    def text(record: Record) -> str:
        ends = [record[low], record[high]]
        if record["outcome"] != Outcome.OK or record[key] is None or None in ends:
            return measured(key)(record)
        return f"{number(record[key])} [{', '.join(number(end) for end in ends)}]"

    return text


def compared(key: str) -> Text:
    """A ratio with its interval and the mark of warnings, as the report in a terminal has it."""

    def text(record: Record) -> str:
        value, low, high = (record[name] for name in (key, f"{key}_low", f"{key}_high"))
        if value is None:
            return measured(key)(record)
        mark = table.MARK if record["ratio_doubtful"] and record["against"] else ""
        return table.ratio(
            Ratio(value, value if low is None else low, value if high is None else high), mark
        )

    return text


def outcome(record: Record) -> str:
    """The verdict, or how the attempt to measure it ended."""
    return str(record["verdict"] if record["outcome"] == Outcome.OK else record["outcome"])


ASKED = (
    Column("model", "model", plain("model")),
    Column("engine", "engine", plain("engine")),
    Column("batch", "batch", plain("batch"), "number"),
    Column("tokens", "tokens", plain("tokens"), "number"),
    Column("new_tokens", "new", plain("new_tokens"), "number"),
    Column("attention", "attention", plain("attention")),
    Column("precision", "precision", plain("precision")),
)
COLUMNS = (
    Column("run", "run", plain("run")),
    Column("gpu", "GPU", plain("gpu")),
    *ASKED,
    Column(
        "latency_ms",
        "latency, ms",
        with_interval("latency_ms", "latency_low_ms", "latency_high_ms"),
        "number",
    ),
    Column("speedup", "speedup", compared("speedup"), "number"),
    Column(
        "energy_mj",
        "energy, mJ",
        with_interval("energy_mj", "energy_low_mj", "energy_high_mj"),
        "number",
    ),
    Column("energy_ratio", "energy ratio", compared("energy_ratio"), "number"),
    Column("throughput_per_s", "prompts/s", measured("throughput_per_s"), "number"),
    Column("first_token_ms", "first token, ms", measured("first_token_ms"), "number"),
    Column("per_output_token_ms", "per token, ms", measured("per_output_token_ms"), "number"),
    Column("perplexity", "perplexity", measured("perplexity", 5), "number"),
    Column("nats", "nats above fp32", with_interval("nats", "nats_low", "nats_high"), "number"),
    Column("size_mb", "size, MB", measured("size_mb"), "number"),
    Column("verdict", "verdict", outcome, "judged"),
    Column("why", "why", plain("why"), "why"),
)
# What tells nothing where all rows have the same, and stands above the table instead.
_IDENTIFYING = ("run", "gpu", "model", "engine", "batch", "tokens", "new_tokens")


def columns(records: Sequence[Record]) -> list[Column]:
    """The columns in which these rows differ, or have numbers."""

    def shown(column: Column) -> bool:
        values = {record[column.key] for record in records}
        if column.key in (*_IDENTIFYING, "attention"):
            return len(values) > 1
        return values != {None}

    return [column for column in COLUMNS if shown(column)]


def common(records: Sequence[Record]) -> list[str]:
    """What all rows have in common, of what identifies them."""
    texts = []
    for name in _IDENTIFYING:
        values = {record[name] for record in records}
        if len(values) == 1 and (value := values.pop()) is not None:
            texts.append(
                str(value) if name in ("run", "gpu", "model", "engine") else f"{name} {value}"
            )
    return texts


def cells(records: Sequence[Record], shown: Sequence[Column]) -> list[list[str]]:
    """The cells of each row."""
    return [[column.text(record) for column in shown] for record in records]
