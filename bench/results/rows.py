"""Rows of several files, each identity once, in a fixed order, with their profiles.

They stay in their files: what is held are the few columns that decide, and some rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.files.limits import Allowance
from bench.measured import Measurement, Outcome, Profile
from bench.results import columns, merging, records
from bench.results.columns import Source
from bench.results.kept import COVERED_KEY, KeptFile, gathered
from bench.results.merging import Numbers

AT_ONCE = 64  # rows with their samples
LIGHT_AT_ONCE = 1024  # rows without
# Of a row group: so many rows, unless they hold more.
GROUP_ROWS, GROUP_BYTES = 1024, 32 * 2**20
# A row becomes a record of 200 Python objects, and each of its samples an object.
RECORD_BYTES, OBJECTS_GROW = 16_384, 4


class Rows:
    """The rows of some files, one of each identity; their order is that of `merging.IDENTITY`."""

    def __init__(
        self, places: Sequence[Sequence[KeptFile]] = (), unmerged: Mapping[str, int] | None = None
    ) -> None:
        """Decide which rows are kept.

        Args:
            places: the files of each place, for `doubled`.
            unmerged: how many bytes each stream of a folder has; None: all of it is merged.
        """
        self.unmerged = unmerged
        every = [file for files in places for file in files]
        self._rows = [file for file in every if file.kind is Measurement]
        # What a message names: it is not known which file the row came from.
        self._origin = " or ".join(sorted({file.origin for file in every})[:3])
        self._profiles = [file for file in every if file.kind is Profile]
        keys = together(Measurement, self._rows)
        kept, self._profile_of, identities = merging.decide(keys, together(Profile, self._profiles))
        self._kept = kept
        self.keys = keys.take(records.indices(kept))  # of the rows that are kept
        place_of = {id(file): number for number, files in enumerate(places) for file in files}
        numbers = [np.full(len(file.keys), place_of[id(file)]) for file in self._rows]
        pairs = np.stack([identities, np.concatenate([np.empty(0, np.int64), *numbers])])
        # Rows of an identity that stand in several places.
        self.doubled = np.unique(pairs, axis=1).shape[1] - len(kept)

    def __len__(self) -> int:
        return len(self._kept)

    def _begins(self) -> list[int]:
        """The numbers of the rows with which another cell or workload begins."""
        keys = (self.keys[name].combine_chunks() for name in merging.IDENTITY[:-1])
        changes = [records.numbers(pc.not_equal(key[1:], key[:-1])) for key in keys]
        return [0, *(np.flatnonzero(np.any(changes, axis=0)) + 1).tolist()]

    def asked(self) -> Iterator[Measurement]:
        """Rows with what was asked, and the outcome: all else is None."""
        if not len(self):
            return
        begins = self._begins()
        keys = self.keys.select([*merging.IDENTITY, "outcome"])
        first = records.of_kind(
            Measurement, keys.take(records.indices(np.array(begins))), self._origin
        )
        replicates = keys["replicate"].to_pylist()
        outcomes = records.worded(keys["outcome"].combine_chunks(), Outcome)
        for one, begin, end in zip(first, begins, [*begins[1:], len(self)], strict=True):
            for number in range(begin, end):
                asked = one.cell, one.workload, one.run, replicates[number], outcomes[number]
                yield Measurement(*asked)

    def tables(
        self, names: Sequence[str], at_once: int, of: Numbers | None = None
    ) -> Iterator[pa.Table]:
        """Some columns of rows, so many at a time, with what their profiles found; `of`: which."""
        of_profile = [name for name in names if name in merging.OF_PROFILE or name == "warnings"]
        every = np.arange(len(self)) if of is None else of
        for begin in range(0, len(every), at_once):
            here = every[begin : begin + at_once]
            rows = taken(self._rows, self._kept[here], names)
            profile_of = self._profile_of[here]
            if of_profile and (profile_of >= 0).any():
                there = profile_of[profile_of >= 0]
                number = np.where(profile_of >= 0, np.cumsum(profile_of >= 0) - 1, -1)
                rows = merging.joined(rows, taken(self._profiles, there, of_profile), number)
            yield rows

    def records(
        self,
        samples: bool = True,
        names: Sequence[str] | None = None,
        of: Sequence[int] | None = None,
        allowance: Allowance | None = None,
    ) -> Iterator[Measurement]:
        """The rows as Measurements, all or those `of` some numbers.

        Of an `allowance` is taken what they need if all are kept. Without `samples`, or with some
        columns only, they are not whole: what was not read is None, and `latency_ms_samples` empty.
        """
        every = names or columns.schema().names
        read = [name for name in every if samples or name not in columns.SAMPLES]
        at_once = AT_ONCE if samples else LIGHT_AT_ONCE
        for table in self.tables(read, at_once, None if of is None else np.asarray(of, np.int64)):
            if allowance:
                size_bytes = len(table) * RECORD_BYTES + table.nbytes * OBJECTS_GROW
                allowance.take(size_bytes, self._origin)
            yield from records.of_kind(Measurement, table, self._origin)

    def write(
        self, sink: IO[bytes], sources: Sequence[Source], covered: Mapping[str, int] | None = None
    ) -> None:
        """Write a Parquet file, a row group at a time; its checksums tell when it was damaged.

        Args:
            sink: where to.
            sources: of the rows.
            covered: how many bytes of each stream of a folder are in it.
        """
        form = columns.with_sources(Measurement, sources)
        if covered is not None:
            form = form.with_metadata({**form.metadata, COVERED_KEY: json.dumps(covered)})
        options = {"compression": "zstd", "write_page_checksum": True}
        with pq.ParquetWriter(sink, form, **options) as writer:
            for group in in_groups(self.tables(form.names, AT_ONCE)):
                writer.write_table(group.replace_schema_metadata(form.metadata), len(group))


def together(kind: type, files: Sequence[KeptFile]) -> pa.Table:
    """The keys of some files."""
    return pa.concat_tables([merging.no_keys(kind), *(file.keys for file in files)])


def taken(files: Sequence[KeptFile], rows: Numbers, names: Sequence[str]) -> pa.Table:
    """Some columns of these rows, which are counted through all files, in this order."""
    begins = np.cumsum([0, *(len(file.keys) for file in files)])
    return gathered(
        begins,
        rows,
        lambda at, within: files[at].take(within, names).replace_schema_metadata(),
    )


def in_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables put together until they are as large as a row group."""
    some: list[pa.Table] = []
    count = size_bytes = 0
    for table in tables:
        some.append(table)
        count, size_bytes = count + len(table), size_bytes + table.nbytes
        if count >= GROUP_ROWS or size_bytes >= GROUP_BYTES:
            yield pa.concat_tables(some)
            some, count, size_bytes = [], 0, 0
    if some:
        yield pa.concat_tables(some)
