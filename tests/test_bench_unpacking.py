"""bench.files.unpacking: what is small and unpacks to much is refused before it is unpacked."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import examples
import hypothesis.strategies as st
import kept_rows
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from bench.errors import TensorgapError
from bench.files import limits, unpacking
from bench.files.limits import Allowance
from bench.measured import Measurement
from bench.results import columns as table
from bench.results import store as results
from bench.results.columns import Source
from bench.results.rows import RECORD_BYTES

SOURCE = Source("local/20261124T120000Z-0a1b2c", '[[workloads]]\nmodel = "tiny"\n', "0.1.0", None)
MANY = 2**24  # values of 8 bytes: 134 MB
LIMIT = 4 * 10**7
# Reads files within LIMIT in a process of its own, and says how much memory arrow needed.
READER = f"""
import sys
import pyarrow as pa
from bench.files import limits, unpacking
from bench.results import store as results
for path in sys.argv[1:]:
    try:
        results.read(path, limits.Allowance({LIMIT}))
    except limits.TooLargeError as error:
        print(error)
    except Exception as error:
        print(type(error).__name__, error)
print(pa.default_memory_pool().max_memory())
"""


def packed(rows: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", **options)
    return bytes(sink.getvalue().to_pybytes())


def with_column(name: str, values: pa.Array) -> pa.Table:
    """As many rows of ours as there are values, one column of which holds them."""
    rows = kept_rows.to_table([examples.measurement()], [SOURCE]).take([0] * len(values))
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)


def list_bomb() -> bytes:
    """One row whose latency samples are the same number again and again: a few bytes."""
    samples = pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), pa.repeat(1.0, MANY))
    options = {"write_batch_size": MANY, "data_page_size": 2**30, "write_statistics": False}
    return packed(with_column("timing_latency_ms_samples", samples), **options)


def text_bomb() -> bytes:
    """A hundred rows that share one text of a megabyte."""
    rows = with_column("reason", pa.array(["x" * 2**20]).take([0] * 100))
    at = rows.column_names.index("replicate")
    return packed(rows.set_column(at, rows.schema.field(at), pa.array(range(100))))


def page_bomb() -> bytes:
    """Texts that differ, so that they lie in the page itself, and which zstd packs well."""
    texts = pa.array([f"{number}" + "x" * 2**20 for number in range(128)])
    options = {"use_dictionary": False, "data_page_size": 2**30, "write_statistics": False}
    return packed(with_column("reason", texts), **options)


def row_bomb() -> bytes:
    """Ten thousand rows of which only the replicate differs."""
    return packed(with_column("replicate", pa.array(range(10**4))))


def zigzag(number: int, length: int) -> bytes:
    """A whole number of Thrift's compact protocol, in so many bytes."""
    value = number * 2
    digits = [value >> 7 * place & 127 for place in range(length)]
    return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])


def lying(content: bytes, number: int) -> bytes:
    """The file with a number of its footer replaced by 1, wherever it stands."""
    end = len(content) - 8
    start = end - int.from_bytes(content[-8:-4], "little")
    length = -(-(number * 2).bit_length() // 7)
    truth = zigzag(number, length)
    assert truth in content[start:end]
    return content[:start] + content[start:end].replace(truth, zigzag(1, length)) + content[end:]


def footer(content: bytes) -> pq.FileMetaData:
    return pq.ParquetFile(pa.BufferReader(content)).metadata


def chunk_of(content: bytes, name: str) -> pq.ColumnChunkMetaData:
    group = footer(content).row_group(0)
    (found,) = (
        group.column(number)
        for number in range(group.num_columns)
        if group.column(number).path_in_schema.partition(".")[0] == name
    )
    return found


def lying_list_bomb() -> bytes:
    """Its footer says that there is one value."""
    return lying(list_bomb(), MANY)


def lying_page_bomb() -> bytes:
    """Its footer says that it unpacks to one byte."""
    content = page_bomb()
    return lying(content, chunk_of(content, "reason").total_uncompressed_size)


def footer_bomb() -> bytes:
    """A footer of nothing but columns: each takes three bytes there and 800 in memory."""
    schema = b"\x19\x2c\x48\x01a\x15\x02\x00\x15\x02\x25\x00\x18\x01b\x00"
    count = 150_000
    length = bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14])
    group = b"\x19\xfc" + length + b"\x26\x00\x00" * count + b"\x16\x00\x16\x00\x00"
    made = b"\x15\x02" + schema + b"\x16\x00\x19\x1c" + group + b"\x00"
    return b"PAR1" + made + len(made).to_bytes(4, "little") + b"PAR1"


BOMBS = (list_bomb, text_bomb, page_bomb, row_bomb, lying_list_bomb, lying_page_bomb, footer_bomb)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    paths = [tmp_path / f"{bomb.__name__}.parquet" for bomb in BOMBS]
    for bomb, path in zip(BOMBS, paths, strict=True):
        path.write_bytes(bomb())
        assert path.stat().st_size < 10**6
    done = subprocess.run(
        [sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=True
    )
    *messages, most_bytes = done.stdout.splitlines()
    for path, message in zip(paths, messages, strict=True):
        assert message.startswith(f"{path}: ")
        assert "at most 40 MB are read; raise it with --max-input" in message
    assert int(most_bytes) < LIMIT


def test_what_is_refused_is_read_with_a_higher_limit(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    path.write_bytes(text_bomb())
    with pytest.raises(limits.TooLargeError, match="at most 100 MB are read"):
        results.read(str(path), Allowance(10**8))
    rows, _, _ = results.read(str(path), Allowance(2 * 10**9))
    assert len(rows) == 100


def test_a_file_longer_than_the_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    path.touch()
    os.truncate(path, 2**40)  # a hole: it takes no room
    with pytest.raises(limits.TooLargeError, match="110 GB to read"):
        results.read(str(path))


def unpacked(content: bytes) -> list[Measurement]:
    allowance, file = Allowance(10**9), io.BytesIO(content)
    packed = unpacking.open_parquet(file, "x", allowance)
    groups = range(len(unpacking.counts_of(packed)))
    names = table.schema().names
    found = [unpacking.unpack(file, packed, n, names, "x", allowance) for n in groups]
    return [row for one in found for row in kept_rows.from_table(one, "x")[0]]


@settings(max_examples=20)
@given(st.lists(examples.any_measurement(), max_size=4), st.sampled_from(["1.0", "2.0"]), st.data())
def test_whatever_pyarrow_writes_of_rows_is_unpacked_equal(
    rows: list[Measurement], version: str, data: st.DataObject
) -> None:
    options = {
        "data_page_version": version,
        "use_dictionary": data.draw(st.booleans()),
        "write_page_checksum": data.draw(st.booleans()),
        "row_group_size": data.draw(st.integers(1, 4)),
        # pyarrow 26 cannot read what it writes of empty lists with pages of 1 byte.
        "data_page_size": data.draw(st.sampled_from([8, 2**20])),
        "write_statistics": data.draw(st.booleans()),
    }
    assert unpacked(packed(kept_rows.to_table(rows, [SOURCE]), **options)) == rows


def test_all_records_of_a_row_take_less_memory_than_is_counted() -> None:
    """What `RECORD_BYTES` says: a row with every field but no samples."""
    rows = kept_rows.to_table([examples.measurement()], [SOURCE]).take([0] * 500)
    tracemalloc.start()
    kept = kept_rows.from_table(rows, "x")
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most_bytes / len(kept[0]) < RECORD_BYTES


WHOLE = packed(kept_rows.to_table([examples.measurement()], [SOURCE]), write_page_checksum=False)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1))
def test_a_file_with_other_bytes_is_rows_or_one_message(changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for at, byte in changes:
        content[at] = byte
    read_or_refuse(bytes(content))


PAGES = WHOLE[: len(WHOLE) - 8 - int.from_bytes(WHOLE[-8:-4], "little")]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(4, len(PAGES) - 1), st.integers(0, 255)), min_size=1))
def test_pages_with_other_bytes_are_rows_or_one_message(changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for at, byte in changes:
        content[at] = byte
    read_or_refuse(bytes(content))


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_footer_is_one_message(footer: bytes) -> None:
    read_or_refuse(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def read_or_refuse(content: bytes) -> None:
    """Read it as a file, which ends with rows or with a message."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(content)
        file.flush()
        try:
            results.read(file.name)
        except TensorgapError as error:
            assert str(error).startswith(f"{file.name}: ")


def test_a_codec_that_there_is_not_is_one_message(tmp_path: Path) -> None:
    """Asked for it, pyarrow ends the process; so it is read in another one."""
    content = packed(
        kept_rows.to_table([examples.measurement()], [SOURCE]), write_page_checksum=False
    )
    zstd, none = b"\x15\x0c\x16", b"\x15\x4c\x16"  # codecs 6 and 38, then the next field's kind
    assert zstd in content
    path = tmp_path / "a.parquet"
    path.write_bytes(content.replace(zstd, none))
    read = f"from bench.results import store as results\nresults.read({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True)
    assert "a.parquet: not a readable Parquet file: Unsupported compression" in done.stderr


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_texts_are_counted_in_every_codec(codec: str) -> None:
    rows = with_column("reason", pa.array(["x" * 2**16]).take([0] * 1000))
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression=codec)
    content = bytes(sink.getvalue().to_pybytes())
    allowance = limits.Allowance(10**12)
    file = io.BytesIO(content)
    opened = unpacking.open_parquet(file, "x", allowance)
    unpacking.unpack(file, opened, 0, ["reason"], "x", allowance)
    taken = allowance.most_bytes - allowance.left_bytes
    assert 1000 * 2**16 < taken < 1.1 * 1000 * 2**16


def test_the_frames_of_hadoop_are_unpacked_too() -> None:
    text = (2**16).to_bytes(4, "little") + b"x" * 2**16
    block = bytes(pa.Codec("lz4_raw").compress(text, asbytes=True))
    framed = len(text).to_bytes(4, "big") + len(block).to_bytes(4, "big") + block
    assert text in list(unpacking.dictionaries(framed, len(text)))
    assert list(unpacking.dictionaries(framed[:-1], len(text))) == [framed[:-1]]
    assert list(unpacking.dictionaries(framed, 1)) == [framed, b""]  # no more than the page says
