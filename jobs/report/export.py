"""Cases, comparisons and findings as data: CSV and JSON, with numbers in full."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.asked import Workload
from bench.measured import Outcome
from jobs.report import cost, cost_table, table
from jobs.report.answer import Row, Sentence
from jobs.report.cost import TokenCost
from jobs.report.facts import Case
from jobs.report.finding import Finding
from jobs.report.prices import Prices
from jobs.terminal import clean

NO_CASE = Case(gpu="", gpu_type=None, workload=Workload(""), precision="")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the last four are the wide ones


def flat(case: Case) -> dict[str, Any]:
    """A case as one record of plain values, in the order of the columns."""

    def fields(*names: str) -> dict[str, Any]:
        return {name: getattr(case, name) for name in names}

    def interval(name: str, mean: str = "value") -> dict[str, Any]:
        ends = {name: mean, f"{name}_low": "low", f"{name}_high": "high"}
        return {column: getattr(getattr(case, name), end, None) for column, end in ends.items()}

    return {
        "run": case.run,
        "gpu_type": case.gpu,
        **dataclasses.asdict(case.workload),
        "precision": case.precision,
        "outcome": str(case.outcome),
        "replicates": len(case.replicates),
        "latency_ms": case.latency_ms,
        **interval("speedup"),
        "energy_mj": case.energy_mj,
        **interval("energy_ratio"),
        **fields("throughput_per_s", "perplexity", "perplexity_lower_bound"),
        **interval("nats_difference", "mean"),
        **fields("logit_rounding_nats", "size_mb", "first_token_ms", "per_output_token_ms"),
        "device_name": case.device_name,
        "torch": case.shown("software_torch"),
        "driver": case.shown("software_driver"),
        # Of replicates that failed beside others the warnings tell.
        "reason": None if case.outcome == Outcome.OK else case.reason,
        "warnings": table.warnings(case),
        "missing": table.not_measured(case),
    }


def with_costs(
    cases: Sequence[Case], costs: Sequence[TokenCost], prices: Prices
) -> list[dict[str, Any]]:
    """The record of each case, with what a million tokens of it cost; None of those that failed."""
    by_case = {id(one.case): cost_table.flat(one, prices) for one in costs}
    nothing = dict.fromkeys(cost_table.flat(cost.cost_of(NO_CASE, prices), prices))
    return [flat(case) | by_case.get(id(case), nothing) for case in cases]


def to_csv(found: Sequence[Case | Mapping[str, Any]]) -> str:
    """One row per case, or per record of one: all have the same columns."""
    records = [flat(one) if isinstance(one, Case) else one for one in found]
    stream = io.StringIO()
    names = list(records[0] if records else flat(NO_CASE))
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for record in records:
        joined = {k: "; ".join(v) if isinstance(v, list) else v for k, v in record.items()}
        writer.writerow({k: cell(v) if isinstance(v, str) else v for k, v in joined.items()})
    return stream.getvalue().rstrip("\n")


def cell(text: str) -> str:
    """A text as a cell of a spreadsheet, which would compute what begins so, and run some of it.

    >>> cell("=1+1"), cell("gpt2")
    ("'=1+1", 'gpt2')
    """
    text = clean(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def to_json(value: Any) -> str:
    """JSON of cases, ratios, or lists and dictionaries of plain values.

    In ASCII without a control character: texts are whole in it, and escaped.
    """
    return json.dumps(plain(value), indent=2).replace("\x7f", "\\u007f")


def plain(value: Any) -> Any:
    """A value of JSON's own types; it has no infinity, for which null stands."""
    if isinstance(value, Case):
        return plain(flat(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return list(map(plain, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def against(found: Sequence[Case], chosen: str) -> str:
    """JSON of GPU types against a chosen one; a ratio has value, low, high and freedom."""
    return to_json(
        [
            {
                "run": one.run,
                "workload": one.workload,
                "precision": one.precision,
                "gpu_type": one.gpu,
                "chosen": chosen,
                "speedup": one.speedup,
                "energy_ratio": one.energy_ratio,
                "sensor_errors": bool(one.energy_systematic),
                "warnings": [each.text for each in one.disagreements],
            }
            for one in found
        ]
    )


def findings(
    found: Sequence[Finding],
    matrix: str | None,
    notes: Sequence[str],
    rows: Sequence[Row],
    sentences: Sequence[Sentence],
) -> str:
    """JSON of how it was read, rows, sentences, findings, and the matrix as TOML, or null."""
    return to_json(
        {
            "understood": notes,
            "rows": rows,
            "answer": sentences,
            "findings": [finding.as_json() for finding in found],
            "next_matrix": matrix,
        }
    )
