"""Lines of a log that have a series of numbers each, over one of lengths or of batch sizes.

`seq_len : 8 16 32`, `time : ms`, `pytorch: 21 23 23`, `FT: 6.2 6.4 6.7`.
"""

import re
from collections.abc import Mapping, Sequence

from jobs.report.foreign import units
from jobs.report.foreign.grid import Grid, gpu_above, of_pairs, written_in
from jobs.report.foreign.headers import heading_of

_MOST_LINES, _LONGEST, _MOST_NUMBERS = 1_000, 400, 64  # lines, characters of one, numbers in it
_SERIES = re.compile(r"([A-Za-z_][\w .()/%-]{0,60}?)\s{0,9}:\s{0,9}([\d.,\s]{3,300})")
_UNIT = re.compile(r"(time|latency|throughput)\s{0,9}[:=]\s{0,9}([A-Za-z/]{1,12})", re.IGNORECASE)
_PAIR = re.compile(r"(\w[\w ]{0,40}?)\s{0,9}=\s{0,9}(\d{1,9})\b")
_AXES = ("batch_size", "prompt_tokens", "new_tokens")


def of_log(rows: Sequence[str]) -> Grid | None:
    """The series as a line for each of their numbers; None: there are no such."""
    if len(rows) > _MOST_LINES:
        return None
    series: list[tuple[int, str, list[str]]] = []
    about: dict[str, str] = {}
    quantity = "latency"
    for number, row in enumerate(rows, start=1):
        told = row.strip()[:_LONGEST]
        found = _SERIES.fullmatch(told)
        if found and len(numbers := re.split(r"[,\s]+", found[2].strip(", "))) > 1:
            series.append((number, found[1].strip("_ "), numbers[: _MOST_NUMBERS + 1]))
        elif unit := _UNIT.fullmatch(told):
            quantity = f"{unit[1]} ({unit[2]})"
        else:
            pairs = ((name, value) for name, value in _PAIR.findall(told))
            about |= {name: value for name, value in pairs if heading_of(name).field in _AXES}
    axis = next((one for one in series if heading_of(one[1]).field in _AXES), None)
    if axis is None or len(axis[2]) > _MOST_NUMBERS:
        return None
    others = [one for one in series if one is not axis and len(one[2]) == len(axis[2])]
    lines = [
        (number, cells_of(axis, name, place, value, about, quantity))
        for number, name, values in others
        for place, value in enumerate(values)
    ]
    if not lines:
        return None
    left_out = written_in(rows) - len(others) - 1
    return of_pairs(lines, "series of a log", left_out, gpu_above(rows[: axis[0] - 1]))


def cells_of(
    axis: tuple[int, str, list[str]],
    name: str,
    place: int,
    value: str,
    about: Mapping[str, str],
    quantity: str,
) -> dict[str, str]:
    """One number of a series, with its place on the axis; its name may be a quantity itself."""
    measured = heading_of(name).is_quantity
    said = {} if measured else {"configuration": units.plain(name)}
    return {**about, **said, axis[1]: axis[2][place], name if measured else quantity: value}
