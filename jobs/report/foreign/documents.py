"""JSON of other programs as grids: optimum-benchmark, lm-eval, and lists of flat records.

optimum-benchmark writes `benchmark.json` with config and report, or `benchmark_report.json` beside
`benchmark_config.json`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import TensorgapError
from bench.files import limits
from jobs.report.foreign import lm_eval, optimum, programs
from jobs.report.foreign.grid import Grid, of_pairs

_CONFIG = "benchmark_config.json"
_MOST_RECORDS = 100_000
_DEEPEST, _LONGEST = 3, 500  # levels of nested records, characters of a value


def grids(text: str, name: str, place: str) -> list[Grid]:
    """The grids of a JSON document; none where it is no JSON.

    Raises TensorgapError where it is JSON that is not known.
    """
    begin = text.lstrip()[:1]
    if begin not in ("{", "["):
        return []
    try:
        told = [json.loads(text)]
    except (ValueError, RecursionError):
        told = lines_of(text)
        if not told:
            if place.lower().endswith(".json"):
                raise TensorgapError(f"{name}: not readable as JSON") from None
            return []
    document = told[0] if len(told) == 1 else told
    if isinstance(document, Mapping):
        if isinstance(report := document.get("report"), Mapping):
            return [optimum.of_document(document.get("config"), report, name)]
        if optimum.is_report(document):
            return [optimum.of_document(config_beside(place), document, name)]
        results = document.get("results")
        if isinstance(results, Mapping) and lm_eval.is_document(document):
            return lm_eval.of_document(document, name)
        about = {k: v for k, v in document.items() if isinstance(v, str | int | float | bool)}
        records = next((v for v in document.values() if is_records(v)), None)
        records = records or by_name(results) or by_name(document)
        document = [{**about, **one} for one in records] if records else [document]
    if is_records(document):
        return [programs.of_table(of_records(document), name)]
    raise TensorgapError(
        f"{name}: JSON that is not known; read are optimum-benchmark's reports, lm-eval's"
        " results, and"
        " lists of records with a name for each number"
    )


def lines_of(text: str) -> list[Any]:
    """The documents of JSON lines; none where a line is no JSON."""
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return []


def is_records(value: Any) -> bool:
    """Whether it is a list of flat records."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_RECORDS
        and all(isinstance(one, Mapping) and one for one in value)
    )


def by_name(document: Any) -> list[Mapping[str, Any]] | None:
    """The records of a document that has one under each name: `{"fp32": {...}, "fp16": {...}}`."""
    if not isinstance(document, Mapping):
        return None
    named = {name: one for name, one in document.items() if isinstance(one, Mapping) and one}
    if len(named) < 2 or len({frozenset(one) for one in named.values()}) == len(named):
        return None
    return [{"configuration": name, **one} for name, one in named.items()]


def of_records(records: list[Mapping[str, Any]]) -> Grid:
    """A line for each record, whose nested records are flattened with a dot."""
    flat = (dict(flattened(record)) for record in records)
    return of_pairs(enumerate(flat, start=1), "JSON records")


def flattened(
    record: Mapping[str, Any], before: str = "", depth: int = _DEEPEST
) -> Iterator[tuple[str, str]]:
    """The values of a record as texts, of nested records under a name with dots."""
    for name, value in record.items():
        if isinstance(value, Mapping) and depth:
            yield from flattened(value, f"{before}{name}.", depth - 1)
        else:
            yield f"{before}{name}", "" if value is None else str(value)[:_LONGEST]


def config_beside(place: str) -> Any:
    """The configuration of an optimum-benchmark report, from the file beside it."""
    path = Path(place).with_name(_CONFIG)
    try:
        return json.loads(limits.read_file(str(path), limits.small(str(path))))
    except (OSError, ValueError, RecursionError):
        return None
