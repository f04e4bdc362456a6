"""Findings, and GPU types against a chosen one, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.report import table, words
from jobs.report.facts import Case
from jobs.report.finding import Topic, Verdict
from jobs.report.words import listed
from jobs.terminal import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {
    Verdict.REJECT: "red",
    Verdict.FIX: "yellow",
    Verdict.INCONCLUSIVE: "cyan",
    Verdict.ACCEPT: "green",
}
_WORTH_A_REFERENCE = 2  # texts that stand above already


def findings(
    found: Sequence[Topic],
    matrix: str | None,
    width: int = words.READABLE,
    color: bool = False,
) -> str:
    """How many of each verdict, then each finding, then the matrix to run."""
    from rich.constrain import Constrain
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    counts = [(verdict, sum(f.verdict == verdict for f in found)) for verdict in Verdict]
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
    parts: list[RenderableType] = [
        Text(summary or "Nothing to say: no rule finds anything in these numbers.")
    ]
    told: dict[tuple[str, str], int] = {}
    for number, topic in enumerate(clean(found), start=1):
        parts += [
            "",
            Text.assemble(
                (f"{number}. {topic.verdict.upper()}  ", f"bold {_STYLES[topic.verdict]}"),
                (f"{topic.code}  ({', '.join(topic.precisions)})", "bold"),
            ),
        ]
        for cause, subjects in topic.causes:
            parts.append(Padding(Text("; ".join(subjects), style="dim"), (0, 0, 0, 3)))
            parts.append(Padding(Text(cause), (0, 0, 0, 3)))
        reasons = Table.grid()
        reasons.add_column(width=9)
        reasons.add_column(width=2)
        reasons.add_column(overflow="fold")
        for name, texts in (
            ("because", topic.evidence),
            ("expected", topic.expected),
            ("missing", topic.missing),
            ("do", topic.do),
        ):
            for index, text in enumerate(not_told(number, name, texts, told)):
                reasons.add_row("" if index else name, "-", Text(text))
        parts.append(Padding(reasons, (0, 2, 0, 3)))
    text_width = max(words.NARROWEST, min(words.READABLE, width))
    parts = [Constrain(part, text_width) for part in parts]
    if matrix:
        parts += [Text("\nThe matrix to run next:\n", style="bold"), Text(matrix)]
    return words.page(parts, color)


def not_told(
    number: int, section: str, texts: Sequence[str], told: dict[tuple[str, str], int]
) -> list[str]:
    """The texts; where several stand in an earlier finding, that finding in their place.

    Args:
        number: Of the finding.
        section: As because or do.
        texts: What it says there.
        told: The finding that says each text of each section first; the new ones are added.
    """
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


def against(found: Sequence[Case], chosen: str) -> str:
    """GPU types with their ratios to a chosen one, as lines of text."""
    found = clean(found)
    texts = []
    runs = {one.run for one in found}
    for one in found:
        run = f"   ({one.run})" if len(runs) > 1 else ""
        known = "in it" if one.energy_systematic else "not known"
        mark = table.MARK if one.disagreements else ""
        texts.append(
            f"{one.gpu} against {chosen}   {one.workload}   {one.precision}{run}:"
            f" {table.ratio(one.speedup, mark)} as fast,"
            f" {table.ratio(one.energy_ratio, mark)} the energy"
            + (f" (the sensors' own errors are {known})" if one.energy_ratio else "")
        )
        texts.extend(f"  warning: {disagreement.text}" for disagreement in one.disagreements)
    if len(found) > 1:
        texts.append(table.by_chance(sum(bool(o.speedup) + bool(o.energy_ratio) for o in found)))
    return "\n".join(texts)
