"""A comparison as data: CSV and JSON, with numbers in full."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.report import export, words
from jobs.report.changes import summary
from jobs.report.changes.records import Against, Change, Comparison, Metric, PairedRow


def to_json(found: Comparison) -> str:
    """All records, and what they come to in words; null: not known, or infinite."""
    return export.to_json(
        {
            "summary": summary.headline(found),
            "findings": [text for _, text in summary.findings(found)],
            "alpha": found.alpha,
            "comparisons": found.count,
            "first": found.first,
            "others": [
                {
                    "run": one.run,
                    "conditions": one.conditions,
                    "rows": [row_of(row) for row in one.rows],
                    "only_first": one.only_old,
                    "only_this": one.only_new,
                }
                for one in found.others
            ],
        }
    )


def row_of(row: PairedRow) -> dict[str, Any]:
    """A row with its changes."""
    about = {"gpu_type": row.place.gpu, "board": row.place.board, "precision": row.place.precision}
    changes = [numbers(change) | {"text": summary.told(change)} for change in row.changes]
    workload = export.plain(row.place.workload)
    both = {
        name: export.plain(seen) | {"warnings": words.alike(seen.warnings)}
        for name, seen in (("old", row.old), ("new", row.new))
    }
    return {**about, **workload, **both, "changes": changes}


def numbers(change: Change) -> dict[str, Any]:
    """A change in plain values; `p` is its own, before Holm."""
    ratio, estimate = change.ratio, change.estimate
    return {
        "metric": str(change.metric),
        "old": change.old,
        "new": change.new,
        "ratio": ratio.value if ratio else None,
        "ratio_low": ratio.low if ratio and estimate else None,
        "ratio_high": ratio.high if ratio and estimate else None,
        "p": estimate.p if estimate else None,
        "freedom": estimate.freedom if estimate else None,
        "detectable": change.detectable,
        "decision": str(change.decision),
        "reason": change.reason,
    }


def to_csv(found: Comparison) -> str:
    """A line for each metric of each row; one without metrics has what it was and is."""
    return as_csv([line for one in found.others for row in one.rows for line in lines_of(one, row)])


def as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines of the same columns, at least one, whose texts no spreadsheet computes."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: export.cell(v) if isinstance(v, str) else v for k, v in line.items()})
    return stream.getvalue().rstrip("\n")


def lines_of(one: Against, row: PairedRow) -> Iterator[dict[str, Any]]:
    """The lines of a row."""
    about = {"run": one.run.location, "gpu_type": row.place.gpu, "board": row.place.board}
    about |= {"precision": row.place.precision, **export.plain(row.place.workload)}
    seen = {
        f"{name}_{what}": value
        for name, side in (("old", row.old), ("new", row.new))
        for what, value in (("outcome", str(side.outcome)), ("replicates", side.replicates))
    }
    for change in row.changes:
        yield {**about, **seen, **numbers(change)}
    if not row.changes:
        empty = dict.fromkeys(numbers(Change(Metric.LATENCY, None, None)))
        decision = "worse" if row.old.is_ok else "better" if row.new.is_ok else None
        yield {**about, **seen, **empty, "decision": decision, "reason": row.new.reason}
