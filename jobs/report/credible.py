"""Values that no measurement gives, but that a row of somebody's file may have.

Whoever compares and judges rows takes logarithms of such numbers and divides by them. A perplexity
may be infinite, since a model that overflows has none that is finite, and a finding says so; but
one that is no number at all is none of any model.
"""

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Iterator, Mapping

from bench.errors import TensorgapError
from bench.measured import Measurement, Quality, Timing

LEAST, MOST = 1e-12, 1e15  # beyond, a product of a few is more than a float holds, or less
CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
QUALITY = tuple(
    field.name for field in dataclasses.fields(Quality) if field.type in (float, float | None)
)
MAY_BE_ZERO = ("latency_ms_iqr", "per_output_token_ms")  # of Timing; a difference even below it


def check(row: Measurement) -> None:
    """Raise TensorgapError where a row has a value that no measurement gives."""
    for column, value, allowed in incredible(row):
        raise TensorgapError(
            f"{row.cell}, {row.workload}, replicate {row.replicate} of {row.run}:"
            f" {column} = {value}: must be {allowed}; the file was changed"
        )


def incredible(row: Measurement) -> Iterator[tuple[str, object, str]]:
    """Each such value, with its column and what is allowed."""
    capability = row.device.compute_capability if row.device else None
    if capability is not None and not CAPABILITY.fullmatch(capability):
        yield "device_compute_capability", capability, "two numbers, such as 7.0"
    for asked in dataclasses.fields(row.workload):
        if limits := asked.metadata["limits"]:
            value = getattr(row.workload, asked.name)
            if not limits[0] <= value <= limits[1]:
                yield asked.name, value, f"from {limits[0]:,} to {limits[1]:,}"
    if quality := row.quality:
        for name in QUALITY:
            if (value := getattr(quality, name)) is not None and math.isnan(value):
                yield f"quality_{name}", value, "a number"
        nats, tokens = quality.window_nats, quality.window_tokens
        if nats is not None and math.isnan(sum(nats)):
            yield "quality_window_nats", math.nan, "numbers alone"
        if nats is not None and tokens is not None and len(nats) != len(tokens):
            many = f"{len(nats)} numbers beside {len(tokens)} of quality_window_tokens"
            yield "quality_window_nats", many, "as many"
    for record, names in floats().items():
        found = getattr(row, record)
        for name, positive in names if found is not None else ():
            value = getattr(found, name)
            # What is not a number is within nothing.
            if value is None or LEAST <= value <= MOST:
                continue
            if positive or not (value == 0 or LEAST <= -value <= MOST):
                of_size = "from" if positive else "0, or of a size from"
                yield f"{record}_{name}", value, f"{of_size} {LEAST:g} to {MOST:g}"


@functools.cache
def floats() -> Mapping[str, list[tuple[str, bool]]]:
    """The fields of each record that hold one float, each with whether it must be above 0."""
    found: dict[str, list[tuple[str, bool]]] = {}
    for record, hint in typing.get_type_hints(Measurement).items():
        kind = next(iter(typing.get_args(hint)), hint)
        if not dataclasses.is_dataclass(kind) or kind is Quality:
            continue
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if hints[field.name] in (float, float | None):
                takes_time = kind is Timing and field.metadata["unit"] in ("ms", "1/s")
                positive = takes_time and field.name not in MAY_BE_ZERO
                found.setdefault(record, []).append((field.name, positive))
    return found
