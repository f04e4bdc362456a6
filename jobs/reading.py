"""Reads rows of several places, for every command that shows or merges them."""

from __future__ import annotations

from collections.abc import Iterable

from bench import results
from bench.records import Measurement, TensorgapError
from bench.table import Source
from jobs import torn_parts


def read(places: Iterable[str]) -> tuple[list[Measurement], list[Source]]:
    """The rows of files and folders, double ones too, and each sweep that they come from."""
    rows: list[Measurement] = []
    sources: dict[Source, None] = {}
    for place in places:
        if place.lower().endswith(".csv"):
            raise TensorgapError(
                f"{place}: a CSV; `tensorgap explain {place}` reads tables of others"
            )
        found, origins, torn = results.read(place)
        torn_parts.report(torn, "its row is missing")
        rows.extend(found)
        sources.update(dict.fromkeys(origins))
    return rows, list(sources)
