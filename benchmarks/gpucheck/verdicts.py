"""Predictions beside what was found, as text."""

from __future__ import annotations

import enum
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpucheck.predictions import Prediction, Topic
from gpucheck.seen import NotTested, Seen

_DOCUMENT_WIDTH = 120


class Verdict(enum.StrEnum):
    """How a prediction came out."""

    HOLDS = "holds"
    FAILS = "DOES NOT HOLD"
    NOT_TESTED = "not tested"
    HELD_SIMULATED = "simulated: holds"
    FAILED_SIMULATED = "simulated: does not hold"


@dataclass(frozen=True)
class Line:
    """A prediction with its outcome."""

    prediction: Prediction
    verdict: Verdict
    found: str


def judge(prediction: Prediction, seen: Seen) -> Line:
    """Compare one prediction with what was seen."""
    try:
        found = prediction.check(seen)
    except NotTested as why:
        return Line(prediction, Verdict.NOT_TESTED, str(why))
    if prediction.on_card and seen.simulated:
        verdict = Verdict.HELD_SIMULATED if found.holds else Verdict.FAILED_SIMULATED
    else:
        verdict = Verdict.HOLDS if found.holds else Verdict.FAILS
    return Line(prediction, verdict, found.text)


def table(lines: Sequence[Line]) -> str:
    """Prediction, what was expected and what was found, in columns."""
    cells = [("prediction", "expected", "verdict", "found")]
    for line in lines:
        cells.append((line.prediction.name, line.prediction.expected, line.verdict, line.found))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def counted(lines: Iterable[Line]) -> dict[Verdict, int]:
    """How many predictions came out how."""
    counts = Counter(line.verdict for line in lines)
    return {verdict: counts[verdict] for verdict in Verdict if counts[verdict]}


def exit_code(lines: Iterable[Line], wrong: Iterable[str]) -> int:
    """0: all that was tested holds; 1: something does not, or went wrong; 2: nothing was tested."""
    verdicts = {line.verdict for line in lines}
    if verdicts <= {Verdict.NOT_TESTED}:
        return 2
    return 1 if Verdict.FAILS in verdicts or any(wrong) else 0


def document(topics: Iterable[Topic]) -> str:
    """The predictions as Markdown."""
    parts = []
    for topic in topics:
        parts += [f"## {topic.title}\n", textwrap.fill(topic.because, _DOCUMENT_WIDTH), ""]
        parts += ["| prediction | expected | outcome |", "| --- | --- | --- |"]
        parts += [f"| {p.name} | {p.expected} | {p.outcome} |" for p in topic.predictions]
        parts += [""]
    return "\n".join(parts).rstrip()
