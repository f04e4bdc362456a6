"""Rows as files keep them, without a sweep: merged in memory, or written to one Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.measured import Measurement, Profile
from bench.results import columns, merging, records
from bench.results.columns import Source
from bench.results.kept import KeptFile
from bench.results.rows import Rows


class InMemory(KeptFile):
    """Records of one kind in the place of a file."""

    def __init__(self, found: Sequence[Any], kind: type) -> None:
        """No file is read."""
        self._table = columns.to_batch(found, columns.with_sources(kind, []))
        self.kind, self.origin = kind, "memory"
        self.keys = pa.Table.from_batches([self._table]).select(merging.KEYS[kind])
        self.keys = self.keys.replace_schema_metadata()

    def picked(self, rows: merging.Numbers, names: Sequence[str]) -> pa.Table:
        """As of a file."""
        return pa.Table.from_batches([self._table]).select(names).take(records.indices(rows))


def to_table(rows: Sequence[Measurement | Profile], sources: Sequence[Source]) -> pa.Table:
    """Records of one kind as the table of a file."""
    form = columns.with_sources(type(rows[0]) if rows else Measurement, sources)
    return pa.Table.from_batches([columns.to_batch(rows, form)])


def from_table(table: pa.Table, origin: str) -> tuple[list[Any], tuple[Source, ...]]:
    """The records of a table, and where they came from; TensorgapError where it is not ours."""
    kind, sources = columns.described(table.schema, origin)
    return records.of_kind(kind, table, origin), sources


def merge(found: Iterable[Measurement | Profile]) -> list[Measurement]:
    """Each identity once, with its profile: what `merge` and each reader make of rows."""
    every = list(found)
    files = [InMemory([r for r in every if type(r) is kind], kind) for kind in merging.KEYS]
    return list(Rows([files]).records())


def write(
    path: Path | str, rows: Sequence[Measurement | Profile], sources: Sequence[Source] = ()
) -> None:
    """A Parquet file of rows, as a sweep leaves it."""
    content = to_table(rows, sources)
    pq.write_table(content, path, compression="zstd", write_page_checksum=True)
