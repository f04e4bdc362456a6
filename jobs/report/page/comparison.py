"""The page of `tensorgap compare --html`: runs side by side, and what is decided of each change."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measured import Outcome
from bench.warnings import SIMULATED
from jobs.report.changes import summary, table
from jobs.report.changes.records import Against, Change, Comparison, Decision, PairedRow
from jobs.report.figures import change
from jobs.report.figures.change import CHANGES
from jobs.report.figures.data import Data, Record, of_workload
from jobs.report.page import document, payload
from jobs.report.page.conditions import Facts
from jobs.report.page.report import FILTERS, WITHOUT_SCRIPT, Statement, captions, specs
from jobs.report.page.table import ASKED, Column, plain
from jobs.report.page.table import cells as table_cells
from jobs.report.words import listed

_COLUMNS = (
    Column("run", "run", plain("run")),
    Column("metric", "metric", plain("metric")),
    Column("gpu", "GPU", plain("gpu")),
    Column("board", "board", plain("board")),
    *ASKED,
    Column("old", "before", plain("old_text"), "number"),
    Column("new", "after", plain("new_text"), "number"),
    Column("ratio", "after / before", plain("ratio_text"), "number"),
    Column("change", "decision", plain("change"), "judged"),
)
# What names a row in the figure, of what differs among the rows.
_NAMING = {
    "gpu": "{}",
    "precision": "{}",
    "model": "{}",
    "engine": "{}",
    "batch": "batch {}",
    "tokens": "{} tokens",
    "new_tokens": "+ {} new",
    "attention": "{}",
}
_ALWAYS = ("metric", "precision", "old", "new", "ratio", "change")
_FILTERS = ({"field": "metric", "title": "metric", "many": True}, *FILTERS)


def page(found: Comparison) -> str:
    """The whole page."""
    records = list(records_of(found))
    shown = [
        column
        for column in _COLUMNS
        if column.key in _ALWAYS or len({record[column.key] for record in records}) > 1
    ]
    cells = table_cells(records, shown)
    records = [{**record, "cells": row} for record, row in zip(records, cells, strict=True)]
    data = Data({CHANGES: records})
    drawn = [figure for figure in (change.FIGURE,) if figure.panels(data)]
    first, *others = (found.first, *(one.run for one in found.others))
    return document.rendered(
        "report.html.jinja",
        title=f"{listed(run.label for run in others)} compared with {first.label}",
        lead=summary.headline(found),
        simulated=simulated(found),
        sentences=sentences(found),
        columns=shown,
        rows=cells[:WITHOUT_SCRIPT],
        caption="Each metric of each row that both runs have",
        count=f"{min(len(cells), WITHOUT_SCRIPT)} of {len(cells)} rows",
        notes=summary.notes(found),
        costs=[],
        figures=captions(drawn, data),
        absent=[] if drawn else [change.FIGURE.absent],
        how="What was compared",
        sections=list(sections(found)),
        specs=document.script_json(specs(CHANGES, drawn, shown, _FILTERS)),
        data=payload.packed(data.sets),
    )


def simulated(found: Comparison) -> str | None:
    """What is said where rows of either side are simulated."""
    rows = [row for one in found.others for row in one.rows]
    count = sum(is_simulated(row) for row in rows)
    if not count:
        return None
    which = f"{count} of {len(rows)} rows are of simulated GPUs"
    return f"{which}; none of their numbers is a real one."


def is_simulated(row: PairedRow) -> bool:
    """Whether a row of either run is of a GPU that is none."""
    return any(one.code in SIMULATED for seen in (row.old, row.new) for one in seen.warnings)


def sentences(found: Comparison) -> list[Statement]:
    """What became worse, worst first, then better; else what else the comparison comes to."""
    told = summary.findings(found)
    lines = [Statement(text, str(decision)) for decision, text in told[: summary.MOST_FINDINGS]]
    if left := len(told) - len(lines):
        lines.append(Statement(f"{left} more are in the table."))
    return lines or [Statement(summary.headline(found))]


def sections(found: Comparison) -> Iterator[Facts]:
    """The runs, and what differs between them beside what is compared."""
    runs = [run.partition(": ") for run in summary.runs(found)]
    yield Facts("Runs", [(label, text) for label, _, text in runs])
    for one in found.others:
        facts = [
            (condition.what, f"{condition.old} \u2192 {condition.new}{of(condition.where)}")
            for condition in one.conditions
        ]
        nothing = [("conditions", table.UNCHANGED)]
        yield Facts(f"Changed from {found.first.label} to {one.run.label}", facts or nothing)
        for label, only in ((found.first.label, one.only_old), (one.run.label, one.only_new)):
            if only:
                numbered = [(f"row {number}", text) for number, text in enumerate(only, 1)]
                yield Facts(f"Only in {label}", numbered)


def of(where: str) -> str:
    """In which rows, where it is not in all."""
    return f" ({where})" if where else ""


def records_of(found: Comparison) -> Iterator[Record]:
    """A record for each change, and for each row that is not OK in one of its runs."""
    several = len(found.others) > 1
    pairs = [(one, row, asked(one, row)) for one in found.others for row in one.rows]
    fields = [name for name in _NAMING if len({str(about[name]) for _, _, about in pairs}) > 1]
    for one, row, about in pairs:
        name = " ".join(_NAMING[field].format(about[field]) for field in fields if about[field])
        named = {**about, "row": name or row.place.text}
        for each in row.changes:
            yield {**named, **changed(each, one, several)}
        if not row.changes:
            yield {**named, **ended(row)}


def asked(one: Against, row: PairedRow) -> Record:
    """Whom a change is about."""
    place = row.place
    return {
        "run": one.run.label,
        "gpu": place.gpu,
        "board": place.board,
        "precision": place.precision,
        **of_workload(place.workload),
        "cell": place.text,
        "simulated": is_simulated(row),
        "outcome": str(Outcome.OK),
    }


def changed(change: Change, one: Against, several: bool) -> Record:
    """What is decided of a metric."""
    found = change.ratio
    ends: tuple[float | None, float | None] = (None, None)
    if found and found.low < found.high:  # beyond a hundredfold, as the texts have it
        ends = max(found.low, 0.01), min(found.high, 100.0)
    judged = change.decision in (Decision.WORSE, Decision.BETTER)
    return {
        "metric": str(change.metric),
        "of_metric": str(change.metric) + (f", {one.run.label}" if several else ""),
        "old": change.old,
        "new": change.new,
        "old_text": summary.value(change, change.old),
        "new_text": summary.value(change, change.new),
        # What is identical is no point of the figure.
        "ratio": found.value if found and change.decision != Decision.IDENTICAL else None,
        "ratio_low": ends[0],
        "ratio_high": ends[1],
        "ratio_text": table.ratio(change),
        "decision": str(change.decision),
        "change": summary.told(change),
        "verdict": str(change.decision) if judged else "undecided",
    }


def ended(row: PairedRow) -> Record:
    """How a row ended that has nothing to compare."""
    worse = row.old.is_ok and not row.new.is_ok
    return {
        **dict.fromkeys(("old", "new", "ratio", "ratio_low", "ratio_high")),
        "metric": "outcome",
        "of_metric": "outcome",
        "old_text": str(row.old.outcome),
        "new_text": str(row.new.outcome),
        "ratio_text": "",
        "decision": str(Decision.WORSE if worse else Decision.NOT_DECIDED),
        "change": "no longer OK" if worse else "not comparable",
        "verdict": "worse" if worse else "undecided",
    }
