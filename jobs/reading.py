"""Reads rows of several places, and says which files cannot be read."""

import functools
from collections.abc import Iterable

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.location import shown
from bench.results import store as results
from bench.results.columns import Source
from bench.results.kept import CorruptFile, KeptFile
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
        files, origins = files_at(place, allowance)
        found.append(files)
        sources |= dict.fromkeys(origins)
    return Rows(found), list(sources)


def read_one(place: str, allowance: Allowance) -> tuple[Rows, list[Source]]:
    """As `read`, of one place, taken from what all places together may hold."""
    files, origins = files_at(place, allowance)
    return Rows([files]), list(dict.fromkeys(origins))


def files_at(place: str, allowance: Allowance) -> tuple[list[KeptFile], list[Source]]:
    """The files of a place that can be read, and the sweeps that they come from."""
    if place.lower().endswith(".csv"):
        hint = f"`tensorgap explain {shown(place)}` reads tables of others"
        raise TensorgapError(f"{shown(place)}: a CSV; {hint}")
    files, origins, corrupt = results.files_at(place, allowance)
    tell_corrupt(corrupt, "its row is missing")
    return files, origins


def tell_corrupt(corrupt: Iterable[CorruptFile], consequence: str) -> None:
    """Name each file that cannot be read, the fault and what follows, on standard error."""
    for part in corrupt:
        if part.consequence:
            _say_once(f"{part.path}: {part.reason}; {part.consequence}")
        else:
            terminal.say(f"corrupt result file {part.path}: {part.reason}; {consequence}")
