"""Rows as they come: a file that one process appends to, a frame for each row.

A frame is FRAME (a mark, the length and the CRC-32 of what follows), then a message of an Arrow IPC
stream: in the first frame the schema, in each other one a record batch of one row. So a row that a
kill, a power loss or a disk has cut short or changed is noticed, the rows before and behind it are
read, and no length that stands in a file is believed before the bytes are there.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

from bench.files.limits import Allowance
from bench.files.storage import with_lock
from bench.measured import Measurement, Profile
from bench.results import columns

MARK = b"\x93row"
FRAME = struct.Struct("<4sII")
SYNC_S = 1.0  # rows of the last second may be lost with the power, not with the process
# The flatbuffer of a schema becomes objects of up to so many times its size.
SCHEMA_GROWS = 300
MOST_DAMAGES = 100  # that are looked behind, in one file
SEARCHED_BYTES = 2**20
# Of Arrow's flatbuffers: the kinds of a message, and the numbers of the fields that are looked at.
SCHEMA, RECORD_BATCH = 1, 3
HEADER_TYPE, HEADER = 1, 2
LENGTH, COMPRESSION = 0, 3


def frame(content: bytes) -> bytes:
    """The frame of a message."""
    return FRAME.pack(MARK, len(content), zlib.crc32(content)) + content


def begun(form: pa.Schema) -> bytes:
    """What stands before the rows of a stream."""
    return frame(form.serialize().to_pybytes())


def framed(record: Measurement | Profile, form: pa.Schema) -> bytes:
    """A record as it is appended."""
    return frame(columns.to_batch([record], form).serialize().to_pybytes())


class Appending:
    """A local stream that this process writes, and no other one touches."""

    def __init__(self, path: Path, form: pa.Schema, clock: Callable[[], float]) -> None:
        """Make the file, which must not exist; OSError where it cannot be."""
        self.path, self.form, self._clock = path, form, clock
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._number = os.open(path, flags, 0o666)
        self._end = 0
        self._synced = -SYNC_S
        try:
            with_lock(self._number)
            self._write(begun(form))
        except OSError:
            os.close(self._number)
            path.unlink(missing_ok=True)
            raise

    def append(self, content: bytes) -> None:
        """Add a frame; where that fails (OSError) nothing of it is left."""
        self._write(content)

    def close(self) -> None:
        """Nothing more is added."""
        try:
            os.fsync(self._number)
        finally:
            os.close(self._number)

    def _write(self, content: bytes) -> None:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._number, rest) :]
            if self._clock() - self._synced >= SYNC_S:
                os.fsync(self._number)
                self._synced = self._clock()
        except OSError:
            os.ftruncate(self._number, self._end)
            os.lseek(self._number, self._end, os.SEEK_SET)
            raise
        self._end += len(content)


class Frame(NamedTuple):
    """A frame that is whole."""

    begin: int
    content: bytes


class Frames:
    """The frames of a stream, found one after the other."""

    def __init__(self, file: IO[bytes], origin: str, allowance: Allowance) -> None:
        """Args: origin: names the file in messages; allowance: what a frame may hold."""
        self._file, self._origin, self._allowance = file, origin, allowance
        self.size_bytes = file.seek(0, os.SEEK_END)
        self.damaged: list[int] = []  # where a frame should be that is none

    def at(self, begin: int) -> bytes | None:
        """The content of the frame at a place; None where it is damaged or cut short."""
        self._file.seek(begin)
        header = self._file.read(FRAME.size)
        if len(header) < FRAME.size:
            return None
        mark, length, crc = FRAME.unpack(header)
        if mark != MARK or length > self.size_bytes - begin - FRAME.size:
            return None
        self._allowance.hold(length, self._origin)
        content = self._file.read(length)
        return content if len(content) == length and zlib.crc32(content) == crc else None

    def all(self) -> Iterator[Frame]:
        """Every frame that is whole."""
        begin = 0
        while begin < self.size_bytes and len(self.damaged) < MOST_DAMAGES:
            content = self.at(begin)
            if content is None:
                self.damaged.append(begin)
                begin = self._next_mark(begin + 1)
            else:
                yield Frame(begin, content)
                begin += FRAME.size + len(content)

    def _next_mark(self, begin: int) -> int:
        while begin < self.size_bytes:
            self._file.seek(begin)
            searched = self._file.read(SEARCHED_BYTES)
            if (at := searched.find(MARK)) >= 0:
                return begin + at
            begin += max(1, len(searched) - len(MARK) + 1)
        return self.size_bytes


def schema_of(content: bytes, origin: str, allowance: Allowance) -> pa.Schema:
    """The schema in the first frame; ValueError or pa.ArrowException where it holds none."""
    allowance.hold(len(content) * SCHEMA_GROWS, origin)
    return pa.ipc.read_schema(pa.py_buffer(content))


def parsed(rows: Sequence[bytes], form: pa.Schema, names: Sequence[str]) -> pa.Table:
    """Some columns of the rows of some frames.

    Raises ValueError or pa.ArrowException where one is no row of its form.

    They take no more memory than their frames: every column has one of our types, and none is
    packed.
    """
    batches = []
    for content in rows:
        check_plain(content)
        batch = pa.ipc.read_record_batch(pa.py_buffer(content), form)
        if batch.num_rows != 1:
            raise ValueError("a frame holds more than one row")
        batch.validate(full=True)
        batches.append(batch.select(names))
    return pa.Table.from_batches(batches).combine_chunks().replace_schema_metadata()


def check_plain(message: bytes) -> None:
    """Raise ValueError for a message that is no record batch of one row, or a compressed one.

    A compressed one says itself what it unpacks to, and Arrow would believe it.
    """
    try:
        begin = 8 if message[:4] == b"\xff\xff\xff\xff" else 4  # before the flatbuffer
        table = begin + struct.unpack_from("<I", message, begin)[0]
        kind = field_at(message, table, HEADER_TYPE)
        at = field_at(message, table, HEADER)
        if not kind or not at or message[kind] != RECORD_BATCH:
            raise ValueError("a frame holds no row")
        batch = at + struct.unpack_from("<I", message, at)[0]
        length = field_at(message, batch, LENGTH)
        if not length or struct.unpack_from("<q", message, length)[0] != 1:
            raise ValueError("a frame holds more than one row")
        if field_at(message, batch, COMPRESSION):
            raise ValueError("a frame is compressed, which tensorgap does not write")
    except (IndexError, struct.error):
        raise ValueError("a frame holds no row") from None


def field_at(message: bytes, table: int, number: int) -> int:
    """Where a field of a table of a flatbuffer lies; 0: it has none."""
    of_fields = table - struct.unpack_from("<i", message, table)[0]
    (size,) = struct.unpack_from("<H", message, of_fields)
    entry = 4 + 2 * number
    if of_fields < 0 or entry + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", message, of_fields + entry)
    return table + offset if offset else 0
