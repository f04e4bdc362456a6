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
from bench.measured.profiled import Roofline, Trace

LEAST, MOST = 1e-12, 1e15  # beyond, a product of a few is more than a float holds, or less
CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
QUALITY = tuple(
    field.name for field in dataclasses.fields(Quality) if field.type in (float, float | None)
)
DIVIDED = ("ms", "1/s", "mJ", "J", "W", "TFLOP/s", "GB/s")  # units of what is divided by
# Differences of such numbers, which may be as near to 0 as rounding lets them.
DIFFERENCES = (
    *("latency_ms_iqr", "per_output_token_ms"),
    *("net_per_sample_mj", "net_per_token_mj"),
)


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
        for name, of_size, positive in names if found is not None else ():
            value = getattr(found, name)
            # What is not a number is within nothing.
            if value is None or LEAST <= value <= MOST:
                continue
            if positive:
                yield f"{record}_{name}", value, f"from {LEAST:g} to {MOST:g}"
            elif of_size and not (value == 0 or LEAST <= -value <= MOST):
                yield f"{record}_{name}", value, f"0, or of a size from {LEAST:g} to {MOST:g}"
            elif not -MOST <= value <= MOST:
                yield f"{record}_{name}", value, f"from {-MOST:g} to {MOST:g}"


@functools.cache
def floats() -> Mapping[str, list[tuple[str, bool, bool]]]:
    """The fields of each record that hold one float.

    Of each, whether it is divided by, and so must be 0 or of some size, and whether it must be
    above 0. Any other may be as small as a difference of rounded numbers is.
    """
    found: dict[str, list[tuple[str, bool, bool]]] = {}
    for record, hint in typing.get_type_hints(Measurement).items():
        kind = next(iter(typing.get_args(hint)), hint)
        if not dataclasses.is_dataclass(kind) or kind is Quality:
            continue
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if hints[field.name] in (float, float | None):
                divided = kind in (Trace, Roofline) or field.metadata["unit"] in DIVIDED
                of_size = divided and field.name not in DIFFERENCES
                positive = of_size and kind is Timing
                found.setdefault(record, []).append((field.name, of_size, positive))
    return found
