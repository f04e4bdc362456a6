"""Files of rows as they are kept, whose rows are read a few at a time, and their columns apart.

A stream of `bench.results.streams`, or a Parquet file; of a stranger, perhaps.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa

from bench.errors import TensorgapError
from bench.files import limits, unpacking
from bench.files.limits import Allowance
from bench.files.storage import Storage, complaint
from bench.results import columns, records, streams
from bench.results.columns import Source
from bench.results.merging import KEYS, Numbers, no_keys

COVERED_KEY = b"tensorgap.streams"  # in a merged file: how many bytes of each stream are in it
GROUPS_HELD = 2  # unpacked row groups of a file
FRAMES_AT_ONCE = 512
ON_DISK = 10  # times as much as may be held: of a file only some columns of some rows are held


@dataclass(frozen=True)
class CorruptFile:
    """A file of rows that cannot be read, or not all: cut short, damaged, or not tensorgap's."""

    path: str
    reason: str
    consequence: str | None = None  # where it is another than that of a row


class KeptFile(abc.ABC):
    """A file of records of one kind; use `opened`."""

    kind: type
    sources: tuple[Source, ...]
    keys: pa.Table  # the columns of KEYS, of all records
    corrupt: str | None = None  # what a part of it lacks

    def __init__(self, file: IO[bytes], origin: str, allowance: Allowance) -> None:
        """Read what `keys` need."""
        self.file, self.origin, self.allowance = file, origin, allowance

    def take(self, rows: Numbers, names: Sequence[str]) -> pa.Table:
        """These columns of these rows, in this order.

        TensorgapError: they are damaged, or more than may be read.
        """
        with readable(self.origin):
            return self.picked(rows, names)

    @abc.abstractmethod
    def picked(self, rows: Numbers, names: Sequence[str]) -> pa.Table:
        """As `take`, without a message."""


class ParquetRows(KeptFile):
    """The rows of a Parquet file, a row group at a time."""

    def __init__(self, file: IO[bytes], origin: str, allowance: Allowance) -> None:
        """Raises as `unpacking.open_parquet`."""
        super().__init__(file, origin, allowance)
        self._packed = unpacking.open_parquet(file, origin, allowance)
        self.form = self._packed.schema_arrow
        # Before anything is unpacked: whether it is ours, and the types of its columns.
        self.kind, self.sources = columns.described(self.form, origin)
        counts = unpacking.counts_of(self._packed)
        self._begins = np.cumsum([0, *counts])
        self._held: collections.OrderedDict[Any, pa.Table] = collections.OrderedDict()
        wanted = KEYS[self.kind]
        tables = [self._group(number, wanted) for number in range(len(counts))]
        self.keys = pa.concat_tables([no_keys(self.kind), *tables]).combine_chunks()
        self._held.clear()

    def _group(self, number: int, names: Sequence[str]) -> pa.Table:
        there = [name for name in names if name in self.form.names]
        found = unpacking.unpack(
            self.file, self._packed, number, there, self.origin, self.allowance.spare()
        )
        found.validate(full=True)  # also that texts are texts
        return columns.complete(found, self.kind, names)

    def picked(self, rows: Numbers, names: Sequence[str]) -> pa.Table:
        """Rows next to each other, as in a file that was merged, are not copied."""
        return gathered(
            self._begins,
            rows,
            lambda group, within: some_of(self._unpacked(group, tuple(names)), within),
        )

    def _unpacked(self, number: int, names: tuple[str, ...]) -> pa.Table:
        key = number, names
        if key not in self._held:
            while len(self._held) >= GROUPS_HELD:
                self._held.popitem(last=False)
            self._held[key] = self._group(number, names)
        self._held.move_to_end(key)
        return self._held[key]

    @property
    def covered(self) -> dict[str, int]:
        """How many bytes of each stream it was merged from, by the names of their files."""
        with contextlib.suppress(ValueError):
            found = json.loads((self.form.metadata or {}).get(COVERED_KEY, b"{}"))
            if isinstance(found, dict) and all(type(size) is int for size in found.values()):
                return found
        return {}


class StreamRows(KeptFile):
    """The rows of a stream, a frame each."""

    def __init__(self, file: IO[bytes], origin: str, allowance: Allowance) -> None:
        """Look at every frame."""
        super().__init__(file, origin, allowance)
        self._frames = streams.Frames(file, origin, allowance)
        frames = self._frames.all()
        first = next(frames, None)
        if first is None or first.begin:
            raise ValueError("its beginning is damaged or cut short")
        self._form = streams.schema_of(first.content, origin, allowance)
        self.kind, self.sources = columns.described(self._form, origin)
        ours = [at for at in columns.schema(self.kind) if at.name in self._form.names]
        if not self._form.equals(pa.schema(ours), check_metadata=False):
            raise ValueError("its columns are not those of this tensorgap")
        begins: list[int] = []
        tables = [no_keys(self.kind)]
        while some := list(itertools.islice(frames, FRAMES_AT_ONCE)):
            begins += [one.begin for one in some]
            contents = [one.content for one in some]
            tables.append(self._parsed(contents, KEYS[self.kind]))
        self.keys = pa.concat_tables(tables).combine_chunks()
        self._begins = begins
        if damaged := self._frames.damaged:
            where = ", ".join(map(str, damaged[:3])) + (", ..." if len(damaged) > 3 else "")
            self.corrupt = f"damaged or cut short at byte {where}"

    def picked(self, rows: Numbers, names: Sequence[str]) -> pa.Table:
        """Each frame is looked for by itself, in whatever order they came."""
        contents = [self._frames.at(self._begins[row]) for row in rows]
        if None in contents:
            raise ValueError("it was changed while it was read")
        return self._parsed([one for one in contents if one], names)

    def _parsed(self, contents: Sequence[bytes], names: Sequence[str]) -> pa.Table:
        there = [name for name in names if name in self._form.names]
        return columns.complete(streams.parsed(contents, self._form, there), self.kind, names)


def opened(place: Storage, origin: str, allowance: Allowance) -> KeptFile:
    """A file of records, of which the keys are read.

    Raises TensorgapError where it is too large, damaged, or not tensorgap's.
    """
    with readable(origin):
        file = place.open(lambda size_bytes: allowance.hold(size_bytes // ON_DISK, origin))
        try:
            is_stream = place.path.endswith(".arrows")
            found = (StreamRows if is_stream else ParquetRows)(file, origin, allowance)
            check_keys(found.keys)
            allowance.take(found.keys.nbytes, origin)
        except BaseException:
            file.close()
            raise
        return found


def check_keys(keys: pa.Table) -> None:
    """Raise ValueError where a key lacks what each row has."""
    if "outcome" in keys.column_names:
        records.worded(keys["outcome"].combine_chunks(), records.outcome_of)
    for field in keys.schema:
        if not field.nullable and keys[field.name].null_count:
            raise ValueError(f"a row cannot be read: {field.name} lacks a value")


@contextlib.contextmanager
def readable(origin: str) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file into one message."""
    try:
        yield
    except MemoryError:
        raise limits.TooLargeError(f"{origin}: there is not enough memory to read it") from None
    # ValueError: pyarrow decodes the names of a damaged file.
    except (pa.ArrowException, OSError, ValueError) as error:
        kind = "stream of rows" if origin.endswith(".arrows") else "Parquet file"
        raise TensorgapError(f"{origin}: not a readable {kind}: {complaint(error)}") from None


def gathered(begins: Numbers, rows: Numbers, take: Callable[[int, Numbers], pa.Table]) -> pa.Table:
    """Rows that are counted through several tables, in their order.

    Args:
        begins: the number of the first row of each table.
        rows: their numbers.
        take: some rows of a table, which are counted from its first one.
    """
    table_of = np.searchsorted(begins, rows, side="right") - 1
    found = [take(at, rows[table_of == at] - begins[at]) for at in np.unique(table_of).tolist()]
    if len(found) == 1:
        return found[0]
    back = np.argsort(np.argsort(table_of, kind="stable"), kind="stable")
    return some_of(pa.concat_tables(found), back)


def some_of(table: pa.Table, rows: Numbers) -> pa.Table:
    """Rows of a table, which are not copied where they stand next to each other."""
    if len(rows) and (np.diff(rows) == 1).all():
        return table.slice(int(rows[0]), len(rows))
    return table.take(records.indices(rows))


def all_opened(
    places: Collection[Storage], allowance: Allowance
) -> tuple[list[KeptFile], list[CorruptFile]]:
    """Streams, as far as they can be read, and what cannot be.

    Raises TensorgapError where one is of another version, or too large: it may be whole, and a
    resumed sweep must not measure over it.
    """
    files: list[KeptFile] = []
    corrupt: list[CorruptFile] = []
    for place in places:
        fault = None
        try:
            files.append(opened(place, place.path, allowance))
            fault = files[-1].corrupt
        except (columns.SchemaVersionError, limits.TooLargeError):
            raise
        except TensorgapError as error:
            fault = str(error).removeprefix(f"{place.path}: ")
        if fault:
            of_profile = is_of_profiles(place.path)
            consequence = "rows stand without a profile" if of_profile else None
            corrupt.append(CorruptFile(place.path, fault, consequence))
    return files, corrupt


def is_of_profiles(path: str) -> bool:
    """Whether a stream holds profiles, by its name."""
    return path.rpartition("/")[2].startswith("profiles-")
