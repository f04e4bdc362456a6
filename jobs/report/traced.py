"""Statements about rows, of which each number has a footnote: the query that gives it.

A footnote is SQL of DuckDB without its frame: `EXPRESSION` where `CONDITION`, over the results as
one table. Columns in which all rows agree are left out of the conditions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.report.facts import each, typical
from jobs.report.table import escaped
from jobs.report.words import listed, number
from jobs.terminal import clean

Record = Mapping[str, Any]  # a row: column -> value
NOT_RECORDED = "not recorded"
_MARK = re.compile(r"(?<!\\)\[\^(\d+)\]")  # of a footnote
MOST_NAMES = 6  # that a sentence lists


class Footnotes:
    """The sources of what was said, each once, in order."""

    def __init__(self) -> None:
        """There is none yet."""
        self._numbers: dict[str, int] = {}

    def cite(self, text: str, source: str) -> str:
        """A text with the mark of its footnote."""
        return f"{text}[^{self._numbers.setdefault(source, len(self._numbers) + 1)}]"

    def below(self, text: str) -> tuple[str, list[str]]:
        """A text with its footnotes in the order in which it names them, and their lines."""
        named = each(map(int, _MARK.findall(text)))
        sources = {at: source for source, at in self._numbers.items()}
        order = {at: place for place, at in enumerate(named, start=1)}
        told = _MARK.sub(lambda found: f"[^{order[int(found[1])]}]", text)
        return told, [f"[^{order[at]}]: {sources[at]}" for at in named]


def is_time(column: str) -> bool:
    """Whether a column has times or rates, whose mean is a geometric one."""
    return column.startswith("timing_")


class Selection:
    """Some rows, by the values that some of their columns have, and what can be said of them."""

    def __init__(
        self,
        rows: Sequence[Record],
        notes: Footnotes,
        conditions: Mapping[str, Any] | None = None,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        """All rows; `conditions` holds for them, and all results agree in the values `shared`."""
        self.rows, self.notes, self.conditions = rows, notes, conditions or {}
        self._shared = shared if shared is not None else agreeing(rows)

    def where(self, **values: Any) -> Selection:
        """Those of the rows that have these values."""
        chosen = [row for row in self.rows if all(row[name] == v for name, v in values.items())]
        return Selection(chosen, self.notes, {**self.conditions, **values}, self._shared)

    def by(self, *names: str) -> dict[tuple[Any, ...], Selection]:
        """The rows of each combination of the values of some columns."""
        found: dict[tuple[Any, ...], list[Record]] = {}
        for row in self.rows:
            found.setdefault(tuple(row[name] for name in names), []).append(row)
        return {
            values: Selection(
                rows,
                self.notes,
                {**self.conditions, **dict(zip(names, values, strict=True))},
                self._shared,
            )
            for values, rows in found.items()
        }

    def cite(self, text: str, expression: str) -> str:
        """A text whose source is an expression over these rows."""
        return self.notes.cite(text, code(expression) + self.condition)

    @property
    def condition(self) -> str:
        """Which rows these are, as a footnote says it; empty: all."""
        told = [
            f"{name} = {literal(value)}"
            for name, value in self.conditions.items()
            if name not in self._shared or self._shared[name] != value
        ]
        return f" where {code(' and '.join(told))}" if told else ""

    def values(self, column: str) -> list[Any]:
        """What is known of a column."""
        return [row[column] for row in self.rows if row[column] is not None]

    def count(self, noun: str = "row") -> str:
        """How many rows these are."""
        many = len(self.rows)
        return self.cite(f"{many:,} {noun}{'' if many == 1 else 's'}", "count(*)")

    def of(self, whole: Selection) -> str:
        """How many rows these are of others."""
        if len(self.rows) == len(whole.rows):
            return f"all {self.count()}"
        return f"{self.cite(f'{len(self.rows):,}', 'count(*)')} of {whole.count()}"

    def names(self, column: str, most: int = MOST_NAMES) -> str:
        """The values of a column, each once; where they are many, how many there are."""
        distinct = sorted(each(self.values(column)))
        if not distinct:
            return NOT_RECORDED
        if len(distinct) > most:
            return self.cite(f"{len(distinct):,} values", f"count(distinct {column})")
        told = listed(quoted(str(value)) for value in distinct)
        return self.cite(told, f"list(distinct {column})")

    def span(
        self, column: str, unit: str = "", of: Callable[[Any], float] = float, sql: str = "{}"
    ) -> str:
        """The range of a column's values, or of what `of` and its SQL make of each."""
        known = [of(value) for value in self.values(column)]
        if not known:
            return NOT_RECORDED
        ends = dict.fromkeys([readable(min(known)), readable(max(known))])
        made = sql.format(column)
        return self.cite(f"{' to '.join(ends)}{unit}", f"min({made}), max({made})")

    def means(self, columns: Mapping[str, str]) -> str:
        """The means of some columns, each in its words, such as `{} ms`, with one footnote.

        Of times and rates they are geometric, as `facts.typical`.
        """
        known = {column: self.values(column) for column in columns if self.has(column)}
        told = [
            columns[column].format(
                readable(typical(values) if is_time(column) else math.fsum(values) / len(values))
            )
            for column, values in known.items()
        ]
        made = (
            f"exp(avg(ln({column})))" if is_time(column) else f"avg({column})" for column in known
        )
        return self.cite(listed(told), ", ".join(made))

    def has(self, column: str) -> bool:
        """Whether anything is known of a column."""
        return any(row[column] is not None for row in self.rows)


def agreeing(rows: Sequence[Record]) -> dict[str, Any]:
    """The columns that have the same value in each row, and that value."""
    first = rows[0] if rows else {}
    return {name: value for name, value in first.items() if all(row[name] == value for row in rows)}


def readable(value: float) -> str:
    """A number with three digits at least; a whole one in full.

    >>> readable(0.01416), readable(287644.0), readable(554), readable(29.9412)
    ('0.0142', '287,644', '554', '29.9')
    """
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def literal(value: object) -> str:
    """A value as SQL.

    >>> literal("it's"), literal(8), literal(False)
    ("'it''s'", '8', 'false')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return (
        str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"
    )


def quoted(text: str) -> str:
    r"""A text of anybody within Markdown, which names no footnote.

    >>> quoted("T4[^1]") == r"T4\[^1]"
    True
    """
    return escaped(text).replace("[^", r"\[^")


def code(text: str) -> str:
    """A text as a code span of Markdown, whichever backticks are in it.

    >>> code("avg(x)"), code("a`b")
    ('`avg(x)`', '``a`b``')
    """
    text = clean(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    blank = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{blank}{text}{blank}{fence}"
