"""Which of several rows of an identity is kept, and which profile belongs to it.

Decided on the few columns of KEYS, of all rows at once. Of several rows it is the one that says
most. What was measured (OK) goes before what was not, whatever came later: only what is not OK is
measured again. What an attempt found goes before UNPLACED. Of equals it is the one that the driver
received last, since the clocks of hosts differ, or that has its profile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.asked import Cell, Workload
from bench.measured import Measurement, Outcome, Profile
from bench.results import records
from bench.results.columns import columns, schema

Numbers = NDArray[np.int64]

_TYPE, *_OF_CELL = (field.name for field in dataclasses.fields(Cell))
# The identity of a row in the order of the merged rows: what is compared stands together.
IDENTITY = (
    *("run", _TYPE, *(field.name for field in dataclasses.fields(Workload))),
    *(*_OF_CELL, "replicate"),
)
KEYS: Mapping[type, tuple[str, ...]] = {
    Measurement: (
        *(*IDENTITY, "outcome", "received_at", "finished_at"),
        *("trace_level", "roofline_flops"),
        # What spares others: a sweep that is resumed reads these rows, and no others.
        *("quality_nats", "device_uuid", "software_driver", "sensor_probe_s"),
    ),
    Profile: (*IDENTITY, "received_at", "measured_at"),
}
LONG_AGO = np.iinfo(np.int64).min + 1  # of what has no time
JOINED = ("trace", "roofline")  # the records that a row takes from its profile


def no_keys(kind: type) -> pa.Table:
    """The keys of no record."""
    form = pa.schema([schema(kind).field(name) for name in KEYS[kind]])
    return pa.Table.from_batches([], form)


def decide(rows: pa.Table, profiles: pa.Table) -> tuple[Numbers, Numbers, Numbers]:
    """The rows that are kept, in order; the profile of each; and the identity of every row.

    Args:
        rows: KEYS of Measurement, of all rows.
        profiles: KEYS of Profile.

    Returns:
        Numbers of rows; for each of them the number of its profile, or -1; for each given row a
        number that it shares with those of its identity.
    """
    count, every = len(rows), len(rows) + len(profiles)
    both = pa.concat_tables([rows.select(IDENTITY), profiles.select(IDENTITY)])
    codes = [ranked(both[name]) for name in IDENTITY]
    is_profile = np.arange(every) >= count
    outcome, none = np.array(rows["outcome"].to_pylist(), str), np.zeros(len(profiles), bool)
    measured = np.concatenate([outcome == Outcome.OK, none])
    placed = np.concatenate([outcome != Outcome.UNPLACED, none])
    traced = np.concatenate([records.valid(rows["trace_level"].combine_chunks()), none])
    received = np.concatenate([moments(rows, "finished_at"), moments(profiles, "measured_at")])
    # Stable, and the last one counts most: of equals it is the first.
    order = np.lexsort((~traced, -received, ~placed, ~measured, is_profile, *reversed(codes)))
    first = np.full(every, True)
    first[1:] = np.any([code[order][1:] != code[order][:-1] for code in codes], axis=0)
    identity = np.empty(every, np.int64)
    identity[order] = np.cumsum(first)
    starts = np.flatnonzero(first)
    of_profiles = starts + np.add.reduceat(~is_profile[order], starts) if every else starts
    ends = np.append(starts[1:], every)
    winners = order[starts]
    found = np.append(order, -1)[np.where(of_profiles < ends, of_profiles, every)]
    roofline = records.valid(rows["roofline_flops"].combine_chunks())
    bare = ~traced & ~np.concatenate([roofline, none])
    # One that came before its row is of an attempt before.
    fits = (found >= 0) & bare[winners] & (received[found] >= received[winners])
    kept = winners < count
    return winners[kept], np.where(fits, found - count, -1)[kept], identity[:count]


def ranked(column: pa.ChunkedArray) -> Numbers:
    """Numbers that are ordered as the values of a column, which has no nulls."""
    coded = column.combine_chunks().dictionary_encode()
    values = coded.dictionary.to_pylist()
    ranks = np.empty(len(values), np.int64)
    ranks[sorted(range(len(values)), key=values.__getitem__)] = np.arange(len(values))
    return np.asarray(ranks[records.numbers(coded.indices)])


def moments(keys: pa.Table, ended: str) -> Numbers:
    """When the driver took each; without that, when its host had it: microseconds of UTC."""
    if not len(keys):
        return np.empty(0, np.int64)
    received, own = (keys[name].combine_chunks() for name in ("received_at", ended))
    known = np.where(records.valid(own), records.numbers(own), LONG_AGO)
    known = np.where(records.valid(received), records.numbers(received), known)
    return np.maximum(known, LONG_AGO)


def joined(rows: pa.Table, profiles: pa.Table, profile_of: Numbers) -> pa.Table:
    """Rows with what their profiles found; `profile_of` has the number of each one's, or -1."""
    if not (profile_of >= 0).any():
        return rows
    has = pa.array((profile_of >= 0).tolist())
    of_each = [number if number >= 0 else None for number in profile_of.tolist()]
    beside = profiles.take(pa.array(of_each, pa.int64()))
    for index, field in enumerate(rows.schema):
        if field.name in OF_PROFILE:
            values = pc.if_else(has, beside[field.name], rows[field.name])
        elif field.name == "warnings":
            pairs = zip(rows["warnings"].to_pylist(), beside["warnings"].to_pylist(), strict=True)
            values = pa.array([mine + (theirs or []) for mine, theirs in pairs], field.type)
        else:
            continue
        rows = rows.set_column(index, field, values)
    return rows


def names_of(kind: Any, *records: str) -> tuple[str, ...]:
    """The columns of the nested records of these names."""
    return tuple(at.name for path, at in columns(kind).items() if path[0] in records)


OF_PROFILE = frozenset(names_of(Profile, *JOINED))
