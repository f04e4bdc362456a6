"""The data of the page in as few bytes as do: columns of short numbers, packed and in base64.

In base64 nothing that a stranger wrote into a name can end the script that holds it.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.report.figures.data import Record

DIGITS = 6  # significant ones: what a tooltip or a sort can tell apart


def packed(sets: Mapping[str, Sequence[Record]]) -> str:
    """The data sets as the page's script unpacks them."""
    columns = {name: columnar(records) for name, records in sets.items()}
    text = json.dumps(columns, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def columnar(records: Sequence[Record]) -> dict[str, Any]:
    """A list for each field that has a value; a field with one value in all is written once.

    >>> columnar([{"a": 1.0, "b": None, "c": "x"}, {"a": 2.000001, "b": None, "c": "x"}])
    {'count': 2, 'same': {'b': None, 'c': 'x'}, 'columns': {'a': [1, 2]}}
    """
    same: dict[str, Any] = {}
    columns: dict[str, list[Any]] = {}
    for name in records[0] if records else ():
        values = [short(record[name]) for record in records]
        if all(value == values[0] for value in values):
            same[name] = values[0]
        else:
            columns[name] = values
    return {"count": len(records), "same": same, "columns": columns}


def short(value: Any) -> Any:
    """A value as JSON has it, numbers with few digits; no infinity, for which null stands.

    >>> short(0.12345678), short(2.0), short((1.5, float("inf"))), short(True)
    (0.123457, 2, [1.5, None], True)
    """
    if isinstance(value, list | tuple):
        return list(map(short, value))
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
