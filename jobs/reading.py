"""Reads rows of several places, and says which files cannot be read."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.location import shown
from bench.measured import Measurement
from bench.results import columns
from bench.results import store as results
from bench.results.columns import Source
from bench.results.parts import CorruptFile
from jobs import terminal

# The same place is found again for each folder, and at the start and at the end of a sweep.
_say_once = functools.cache(terminal.say)


def read(places: Iterable[str], most_bytes: int) -> tuple[list[Measurement], list[Source]]:
    """The rows of files and folders, double ones too, and each sweep that they come from.

    Args:
        places: files, folders or URIs.
        most_bytes: how much may be read of all of them together.
    """
    allowance = Allowance(most_bytes)
    rows: list[Measurement] = []
    sources: dict[Source, None] = {}
    for place in places:
        if place.lower().endswith(".csv"):
            raise TensorgapError(
                f"{shown(place)}: a CSV; `tensorgap explain {shown(place)}` reads tables of others"
            )
        found, origins, corrupt = results.read(place, allowance)
        tell_corrupt(corrupt, "its row is missing")
        rows.extend(found)
        sources.update(dict.fromkeys(origins))
    return rows, list(sources)


def merged(places: Iterable[str], most_bytes: int) -> list[Measurement]:
    """The rows of files and folders, each once."""
    return columns.merge(read(places, most_bytes)[0])


def tell_corrupt(corrupt: Iterable[CorruptFile], consequence: str) -> None:
    """Name each file that cannot be read, the fault and what follows, on standard error."""
    for part in corrupt:
        if part.consequence:
            _say_once(f"{part.path}: {part.reason}; {part.consequence}")
        else:
            terminal.say(f"corrupt result file {part.path}: {part.reason}; {consequence}")
