"""Reads rows of several places, and says which parts of a folder cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

from bench import results
from bench.records import Measurement, TensorgapError
from bench.table import Source
from jobs import terminal


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
        tell_torn(torn, "its row is missing")
        rows.extend(found)
        sources.update(dict.fromkeys(origins))
    return rows, list(sources)


def tell_torn(torn: Iterable[results.Torn], consequence: str) -> None:
    """Name each torn part, the fault and what follows from it, on standard error."""
    for part in torn:
        terminal.say(f"torn part {part.path}: {part.reason}; {consequence}")
