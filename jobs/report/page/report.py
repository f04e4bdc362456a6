"""The page of `tensorgap report --html`: what it shows, from rows to one file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from bench.measured import Outcome
from bench.results.columns import Source
from bench.results.rows import Rows
from jobs.report import answer, compare, cost, cost_table, facts, findings
from jobs.report import table as tables
from jobs.report.facts import Case
from jobs.report.figures import data as figure_data
from jobs.report.figures import samples
from jobs.report.figures.data import CASES, Data
from jobs.report.figures.every import FIGURES
from jobs.report.figures.figure import Figure
from jobs.report.page import conditions, document, payload, table
from jobs.report.prices import Prices
from jobs.report.words import listed, number, some_of

FEWEST_SENTENCES = 3
WITHOUT_SCRIPT = 100  # rows that stand in the page itself, for a reader that runs no script
_MOST_COSTS = 60  # lines of a table of costs; CSV has all
_MOST_NAMED = 4
FILTERS: tuple[dict[str, Any], ...] = (
    {"field": "gpu", "title": "GPU", "many": True},
    {"field": "precision", "title": "precision", "many": True},
    {"field": "model", "title": "model", "many": False},
    {"field": "engine", "title": "engine", "many": False},
    {"field": "batch", "title": "batch", "many": False},
    {"field": "tokens", "title": "tokens", "many": False},
    {"field": "new_tokens", "title": "new tokens", "many": False},
    {"field": "attention", "title": "attention", "many": False},
    {"field": "run", "title": "run", "many": False},
)


@dataclass(frozen=True)
class Statement:
    """A sentence of the answer; one without a verdict states what was measured."""

    text: str
    verdict: str | None = None
    about: str = ""
    code: str | None = None


def page(rows: Rows, sources: Sequence[Source], prices: Prices | None = None) -> str:
    """The whole page."""
    cases = compare.compared(rows.records(samples=False))
    groups = facts.grouped(cases)
    failures = [case for case in cases if case.outcome != Outcome.OK]
    found = findings.find(groups, failures=failures)
    judged = answer.rows(groups, failures, found)
    in_order = [case for group in groups for case in group.cases] + failures
    verdicts = {id(case): row for case, row in zip(in_order, judged, strict=True)}
    data = figure_data.of(cases, samples.of_rows(rows))
    records = [
        {**record, "verdict": verdicts[id(case)].verdict, "why": verdicts[id(case)].reason}
        for case, record in zip(cases, data[CASES], strict=True)
    ]
    shown = table.columns(records)
    cells = table.cells(records, shown)
    records = [{**record, "cells": row} for record, row in zip(records, cells, strict=True)]
    drawn = [figure for figure in FIGURES if figure.panels(data)]
    return document.rendered(
        "report.html.jinja",
        title=title(cases),
        lead=lead(cases),
        simulated=simulated(cases),
        sentences=sentences(found, cases),
        columns=shown,
        rows=cells[:WITHOUT_SCRIPT],
        caption=f"In all rows: {', '.join(table.common(records))}",
        count=f"{min(len(cells), WITHOUT_SCRIPT)} of {len(cells)} rows",
        notes=tables.notes(cases),
        costs=list(cost_table.sheets(cost.by_task(cases, prices), prices)) if prices else [],
        most_costs=_MOST_COSTS,
        figures=captions(drawn, data),
        absent=[figure.absent for figure in FIGURES if figure not in drawn],
        how="How it was measured",
        sections=conditions.sections(rows, sources, cases),
        specs=document.script_json(specs(CASES, drawn, shown, FILTERS)),
        data=payload.packed({**data.sets, CASES: records}),
    )


def title(cases: Sequence[Case]) -> str:
    """What the page is about: models on GPUs."""
    models = list(dict.fromkeys(case.workload.model for case in cases))
    gpus = some_of((case.gpu for case in cases), _MOST_NAMED)
    return f"{listed(models[:_MOST_NAMED]) or 'No rows'} on {gpus or 'no GPU'}"


def lead(cases: Sequence[Case]) -> str:
    """How much was measured."""
    ok = sum(case.outcome == Outcome.OK for case in cases)
    replicates = max((len(case.replicates) for case in cases), default=0)
    runs = list(dict.fromkeys(case.run for case in cases if case.run))
    text = f"{len(cases)} combinations of GPU, precision and workload, {ok} of them measured"
    text += f", in up to {replicates} processes each" if replicates > 1 else ", in one process each"
    return f"{text}. Run {listed(runs[:_MOST_NAMED])}." if runs else f"{text}."


def simulated(cases: Sequence[Case]) -> str | None:
    """What is said where a GPU is none."""
    count = sum(case.simulated for case in cases)
    if not count:
        return None
    which = "All rows are" if count == len(cases) else f"{count} of {len(cases)} rows are"
    return f"{which} of simulated GPUs; none of their numbers is a real one."


def sentences(found: Sequence[Any], cases: Sequence[Case]) -> list[Statement]:
    """Three to seven sentences, worst first; what was measured fills up where rules say little."""
    told = [
        Statement(one.text, str(one.verdict), one.about, one.code)
        for one in answer.sentences(found, len({finding.subject for finding in found}))
    ]
    measured = [case for case in cases if case.outcome == Outcome.OK]
    if not found and measured:
        told.append(Statement("No rule found anything that speaks against these numbers."))
    if len(told) < FEWEST_SENTENCES:
        told += bests(measured)
    if not measured:
        told.append(Statement("No row is OK, so that there is nothing to compare."))
    return told[: answer.MOST_SENTENCES]


def bests(cases: Sequence[Case]) -> list[Statement]:
    """Who is the fastest, who needs the least energy, who has the highest throughput."""

    def who(case: Case) -> str:
        return f"{case.gpu} {case.precision} ({case.workload})"

    texts = []
    if timed := [case for case in cases if case.latency_ms]:
        best = min(timed, key=lambda case: case.latency_ms or 0.0)
        texts.append(f"The shortest latency is {number(best.latency_ms, ' ms')}: {who(best)}.")
    if fed := [case for case in cases if case.throughput_per_s]:
        best = max(fed, key=lambda case: case.throughput_per_s or 0.0)
        texts.append(
            f"The highest throughput is {number(best.throughput_per_s)} prompts per second:"
            f" {who(best)}."
        )
    if known := [case for case in cases if case.energy_mj]:
        best = min(known, key=lambda case: case.energy_mj or 0.0)
        texts.append(
            f"The least energy per prompt is {number(best.energy_mj, ' mJ')}: {who(best)}."
        )
    return [Statement(text) for text in texts]


def captions(drawn: Sequence[Figure], data: Data) -> list[dict[str, str]]:
    """The words around each figure."""
    return [{"name": one.name, "title": one.title, "caption": one.caption(data)} for one in drawn]


def specs(
    main: str,
    drawn: Sequence[Figure],
    shown: Sequence[table.Column],
    filters: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the script needs beside the data; `main`: the data set of the table."""
    return {
        "main": main,
        "figures": [spec_of(figure) for figure in drawn],
        "columns": [{"key": one.key, "title": one.title, "style": one.style} for one in shown],
        "filters": filters,
    }


@functools.cache
def spec_of(figure: Figure) -> dict[str, Any]:
    """A figure as the script draws it: its chart without data, and what makes its panels."""
    names = ("name", "title", "panel", "needs", "sets", "varies", "row", "legend", "told_by")
    chart = bare(figure.chart(alt.NamedData).to_dict())
    return {**{name: getattr(figure, name) for name in names}, "spec": chart}


def bare(spec: Any) -> Any:
    """A chart without what the page sets itself: size, data, and one legend for all panels.

    >>> bare({"config": 1, "encoding": {"color": {"field": "a", "legend": {"title": None}}}})
    {'encoding': {'color': {'field': 'a', 'legend': None}}}
    """
    if isinstance(spec, list):
        return [bare(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        name: None if name == "legend" else bare(part)
        for name, part in spec.items()
        if name not in ("config", "datasets", "$schema")
    }
