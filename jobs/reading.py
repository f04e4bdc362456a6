"""Reads rows of several places, and says which files cannot be read."""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.location import shown
from bench.measured import Measurement, Outcome
from bench.results import store as results
from bench.results.columns import Source
from bench.results.kept import CorruptFile, KeptFile
from bench.results.merging import IDENTITY
from bench.results.rows import Rows
from jobs import terminal

# The same place is found again for each folder, and at the start and at the end of a sweep.
_say_once = functools.cache(terminal.say)


def read(places: Iterable[str], most_bytes: int) -> tuple[Rows, list[Source]]:
    """The rows of files, folders and URIs, each once, and the sweeps that they come from.

    At most `most_bytes` are held, of all of them together.
    """
    allowance = Allowance(most_bytes)
    found: list[list[KeptFile]] = []
    sources: dict[Source, None] = {}
    for place in places:
        if place.lower().endswith(".csv"):
            hint = f"`tensorgap explain {shown(place)}` reads tables of others"
            raise TensorgapError(f"{shown(place)}: a CSV; {hint}")
        files, origins, corrupt = results.files_at(place, allowance)
        tell_corrupt(corrupt, "its row is missing")
        found.append(files)
        sources |= dict.fromkeys(origins)
    return Rows(found), list(sources)


def to_compare(rows: Rows) -> Iterator[Measurement]:
    """The rows with their samples where a ratio needs them: where a side has one replicate."""
    return rows.records(alone(rows))


def alone(rows: Rows) -> NDArray[np.bool_]:
    """Of each row, whether a precision was measured once in its run, on its GPU and workload."""
    if not len(rows):
        return np.empty(0, bool)
    groups, cases = rows.begins(IDENTITY[:-2]), rows.begins(IDENTITY[:-1])
    measured = np.array([text == Outcome.OK for text in rows.keys["outcome"].to_pylist()])
    once = np.repeat(np.add.reduceat(measured, cases) == 1, np.diff([*cases, len(rows)]))
    return np.repeat(np.logical_or.reduceat(once, groups), np.diff([*groups, len(rows)]))


def tell_corrupt(corrupt: Iterable[CorruptFile], consequence: str) -> None:
    """Name each file that cannot be read, the fault and what follows, on standard error."""
    for part in corrupt:
        if part.consequence:
            _say_once(f"{part.path}: {part.reason}; {part.consequence}")
        else:
            terminal.say(f"corrupt result file {part.path}: {part.reason}; {consequence}")
