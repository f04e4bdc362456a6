"""What a Parquet file would unpack to, found out before it is unpacked.

A page of a few bytes can say that it holds a value a billion times, and the footer, whose sizes
the reader believes, can say that it does not. So each page's own header is read: the reader
unpacks just as many bytes as that header says, or fails.
"""

import contextlib
import os
import struct
from collections.abc import Collection, Iterator
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bench.files.limits import Allowance

VALUE_BYTES = 8
# The footer becomes objects of up to so many times its size (seen of one of many tiny columns).
FOOTER_GROWS = 300
WRITER = "parquet-cpp-arrow"
MAGIC = b"PAR1"
CODECS = ("zstd", "snappy", "gzip", "brotli", "lz4_raw")
# Of a page's header, in Thrift's compact protocol: the kinds of a page, the field that tells more
# of one, and the fields of that which hold its encoding.
DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
ABOUT = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
ENCODING = {DATA: 2, DICTIONARY: 2, DATA_V2: 4}
ENCODINGS = (0, 2, 3, 8)  # PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY
BOOLEANS, WHOLE, BINARY, STRUCT = (1, 2), (4, 5, 6), 8, 12
DEEPEST = 3  # structs within structs


def open_parquet(file: IO[bytes], origin: str, allowance: Allowance) -> pq.ParquetFile:
    """A Parquet file whose footer is of a bearable size; nothing but that is unpacked.

    TensorgapError: it is more than may be read. ValueError, pa.ArrowException, OSError: the file is
    damaged. So it is with `unpack`.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes >= 12:
        file.seek(-8, os.SEEK_END)
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic == MAGIC:
            allowance.hold(length * FOOTER_GROWS, origin)
    return pq.ParquetFile(
        file,
        page_checksum_verification=True,
        thrift_string_size_limit=max(1, size_bytes),
        thrift_container_size_limit=max(1, size_bytes),
    )


def counts_of(packed: pq.ParquetFile) -> list[int]:
    """How many rows each row group has; ValueError where another than pyarrow wrote the file."""
    metadata = packed.metadata
    # Of files by some others the reader reads more than the footer tells, for a fault of theirs.
    if not str(metadata.created_by).startswith(WRITER):
        raise ValueError("not written by pyarrow")
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if min([metadata.num_rows, *groups]) < 0:
        raise ValueError("a number of rows is negative")
    if metadata.num_rows != sum(groups):
        raise ValueError("its numbers of rows do not agree")
    return groups


def unpack(
    file: IO[bytes],
    packed: pq.ParquetFile,
    number: int,
    names: Collection[str],
    origin: str,
    allowance: Allowance,
) -> pa.Table:
    """The columns of these names of a row group, if their pages hold no more than may be read.

    Their types must have been checked: values wider than 8 bytes are not counted as such.
    """
    group = packed.metadata.row_group(number)
    allowance.take(group.num_rows * VALUE_BYTES, origin)
    # Where the pages of a group without rows would be, the footer does not say.
    for index in range(group.num_columns if group.num_rows else 0):
        column = group.column(index)
        if column.path_in_schema.partition(".")[0] in names:
            take_column(file, column, origin, allowance)
    found = packed.read_row_group(number, columns=list(names), use_threads=False)
    if len(found) != group.num_rows:
        raise ValueError("a column has another number of rows")
    return found


def take_column(
    file: IO[bytes], column: pq.ColumnChunkMetaData, origin: str, allowance: Allowance
) -> None:
    """Set aside what the pages of a column unpack to."""
    values = longest_bytes = 0
    for page in pages_of(file, column):
        allowance.take(page.size_bytes + page.values * VALUE_BYTES, origin)
        if page.kind != DICTIONARY:
            values += page.values
        elif column.physical_type == "BYTE_ARRAY":
            allowance.hold(page.packed_bytes, origin)
            file.seek(page.begin)
            packed = file.read(page.packed_bytes)
            maybe = dictionaries(packed, page.size_bytes)
            longest = max(longest_of(dictionary, page.values) for dictionary in maybe)
            if longest < 0:
                raise ValueError("a dictionary is damaged")
            longest_bytes = max(longest_bytes, longest)
    # A text that stands once in a dictionary is unpacked for each row that has it.
    allowance.take(values * longest_bytes, origin)


def dictionaries(packed: bytes, size_bytes: int) -> Iterator[bytes]:
    """Whatever a dictionary may unpack to."""
    # The footer names the codec, but pyarrow ends the process when asked for one it does not know.
    yield packed
    for name in filter(pa.Codec.is_available, CODECS):
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            yield bytes(pa.Codec(name).decompress(packed, size_bytes, asbytes=True))
    with contextlib.suppress(OSError, ValueError, struct.error, pa.ArrowException):
        yield b"".join(unframed(packed, size_bytes))


def unframed(packed: bytes, size_bytes: int) -> Iterator[bytes]:
    """LZ4 as Hadoop wrote it, which the reader still reads: blocks, each behind its two sizes."""
    at, codec = 0, pa.Codec("lz4_raw")
    while at < len(packed) and size_bytes >= 0:
        unpacked_bytes, packed_bytes = struct.unpack_from(">II", packed, at)
        size_bytes -= unpacked_bytes
        block = packed[at + 8 : at + 8 + packed_bytes]
        if size_bytes >= 0:
            yield bytes(codec.decompress(block, unpacked_bytes, asbytes=True))
        at += 8 + packed_bytes


def longest_of(dictionary: bytes, count: int) -> int:
    """The longest of so many texts, each behind its length; -1 where they do not fit."""
    at = longest_bytes = 0
    for _ in range(count):
        length = int.from_bytes(dictionary[at : at + 4], "little")
        longest_bytes = max(longest_bytes, length)
        at += 4 + length
        if at > len(dictionary):
            return -1
    return longest_bytes


class Page(NamedTuple):
    """What a page's header says of it."""

    kind: int
    size_bytes: int  # unpacked
    packed_bytes: int
    values: int  # nulls too
    begin: int  # where it lies in the file, behind its header


def pages_of(stream: IO[bytes], column: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """The pages of a column, from where the reader begins to where it ends."""
    at = column.data_page_offset
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < at:
        at = column.dictionary_page_offset
    end = at + column.total_compressed_size
    if not 0 <= at <= end <= stream.seek(0, os.SEEK_END):
        raise ValueError("a column lies outside the file")
    try:
        while at < end:
            stream.seek(at)
            fields = fields_of(stream)
            kind, size_bytes, packed_bytes = (fields[number] for number in (1, 2, 3))
            about = {1: 0} if kind == INDEX else fields[ABOUT[kind]]
            if kind != INDEX and about[ENCODING[kind]] not in ENCODINGS:
                raise ValueError("an encoding that tensorgap does not write")
            page = Page(kind, size_bytes, packed_bytes, about[1], stream.tell())
            if min(size_bytes, packed_bytes, page.values) < 0:
                raise ValueError("a size in a page's header is negative")
            at = page.begin + page.packed_bytes
            yield page
    except (IndexError, KeyError, OverflowError, TypeError):
        raise ValueError("a page's header is damaged") from None


def fields_of(stream: IO[bytes], depth: int = 0) -> dict[int, Any]:
    """The fields of a struct in Thrift's compact protocol, by number: whole numbers and structs.

    Every writer writes its fields once and in order. Whatever else there is, one reader may take
    for this and another for that, so it is refused.
    """
    if depth > DEEPEST:
        raise ValueError("structs within structs")
    fields: dict[int, Any] = {}
    number = 0
    while begin := stream.read(1)[0]:
        step, kind = begin >> 4, begin & 15
        number += step
        if not step:
            raise ValueError("fields out of order")
        if kind in BOOLEANS:
            fields[number] = kind
        elif kind in WHOLE:
            value = number_at(stream)
            fields[number] = value >> 1 ^ -(value & 1)  # zigzag: 0, -1, 1, -2, ...
        elif kind == BINARY:
            stream.seek(number_at(stream), os.SEEK_CUR)
        elif kind == STRUCT:
            fields[number] = fields_of(stream, depth + 1)
        else:
            raise ValueError("a field of a type that no page has")
    return fields


def number_at(stream: IO[bytes]) -> int:
    """A number of 7 bits in each byte, of which the last has no highest bit."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number is too long")
