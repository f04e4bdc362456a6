"""bench.results.streams: any rows come back, whatever a kill or a stranger makes of the file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import examples
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings
from sweeps import frames_in

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.storage import Storage
from bench.measured import Measurement, Profile
from bench.results import columns, kept, streams
from bench.results.columns import Source
from bench.results.rows import Rows

SOURCE = Source("local/20261124T120000Z-0a1b2c", '[[workloads]]\nmodel = "tiny"\n', "0.1.0", None)
FORM = columns.with_sources(Measurement, [SOURCE])
BEGUN = streams.begun(FORM)
ROW = columns.to_batch([examples.measurement()], FORM).serialize().to_pybytes()


def stream_of(*rows: Measurement | Profile) -> bytes:
    """The content of a stream."""
    form = columns.with_sources(type(rows[0]), [SOURCE]) if rows else FORM
    return streams.begun(form) + b"".join(streams.framed(row, form) for row in rows)


def opened(content: bytes, allowance: Allowance | None = None) -> kept.KeptFile:
    """A stream as it is read from a file."""
    with tempfile.NamedTemporaryFile(suffix=".arrows") as file:
        file.write(content)
        file.flush()
        return kept.opened(Storage.at(file.name), "x.arrows", allowance or Allowance())


def rows_of(content: bytes) -> list[Measurement]:
    """The rows that a stream has, in order."""
    return list(Rows([[opened(content)]]).records())


@settings(max_examples=20)
@given(st.lists(examples.any_measurement(), max_size=4, unique_by=lambda row: (row.run, row.key)))
def test_any_rows_come_back_equal(rows: list[Measurement]) -> None:
    found = {(row.run, row.key): row for row in rows_of(stream_of(*rows))}
    assert found == {(row.run, row.key): row for row in rows}


def test_any_profile_comes_back_equal() -> None:
    @settings(max_examples=20)
    @given(examples.any_record(Profile))
    def check(profile: Profile) -> None:
        file = opened(stream_of(profile))
        assert (file.kind, len(file.keys)) == (Profile, 1)

    check()


THREE = stream_of(*(examples.measurement(replicate=number) for number in range(3)))
EACH = (len(THREE) - len(BEGUN)) // 3
ENDS = [len(BEGUN) + (number + 1) * EACH for number in range(3)]


@settings(max_examples=60)
@given(st.integers(len(BEGUN), len(THREE)), st.integers(0, 40_000))
def test_a_torn_tail_loses_one_row(length: int, zeros: int) -> None:
    content = THREE[:length] + bytes(zeros)
    # Zeros may stand where zeros stood before.
    whole = [number for number, end in enumerate(ENDS) if content[:end] == THREE[:end]]
    file = opened(content)
    assert file.keys["replicate"].to_pylist() == whole
    assert (file.corrupt is None) == (len(content) in (len(BEGUN), *ENDS[: len(whole)]))


@settings(max_examples=60)
@given(st.integers(0, 2), st.data())
def test_a_changed_byte_loses_one_row(number: int, data: st.DataObject) -> None:
    content = bytearray(THREE)
    at = ENDS[number] - EACH + data.draw(st.integers(0, EACH - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file = opened(bytes(content))
    assert file.keys["replicate"].to_pylist() == [n for n in range(3) if n != number]
    assert file.corrupt


# ------------------------------------------------------------------------------- from a stranger


def read_or_refuse(content: bytes) -> None:
    """Read it, which ends with rows or with a message."""
    try:
        rows_of(content)
    except TensorgapError as error:
        assert str(error).startswith("x.arrows: ")
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(ROW) - 1), st.integers(0, 255)), min_size=1))
def test_a_row_with_other_bytes_and_their_checksum_is_a_row_or_a_message(
    changes: list[tuple[int, int]],
) -> None:
    content = bytearray(ROW)
    for at, byte in changes:
        content[at] = byte
    read_or_refuse(BEGUN + streams.frame(bytes(content)))


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1), st.booleans())
def test_a_message_s_head_with_other_bytes_is_a_row_or_a_message(
    changes: list[tuple[int, int]], of_schema: bool
) -> None:
    schema = FORM.serialize().to_pybytes()
    content = bytearray(schema if of_schema else ROW)
    for at, byte in changes:
        content[at] = byte
    first = streams.frame(bytes(content)) if of_schema else BEGUN
    read_or_refuse(first + streams.frame(ROW if of_schema else bytes(content)))


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_frame_is_no_row(content: bytes) -> None:
    with pytest.raises(TensorgapError, match=r"x\.arrows: not a readable stream of rows: "):
        rows_of(BEGUN + streams.frame(content))


def test_a_length_is_not_believed_before_the_bytes_are_there() -> None:
    header = streams.FRAME.pack(streams.MARK, 2**32 - 1, 0)
    file = opened(BEGUN + header + b"x" * 100)
    assert file.corrupt == f"damaged or cut short at byte {len(BEGUN)}"


def test_a_frame_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(TensorgapError, match="at most 20 MB are read; raise it with --max-input"):
        opened(BEGUN + streams.frame(bytes(30_000_000)), Allowance(20_000_000))


def test_a_compressed_row_is_refused_since_it_says_itself_what_it_unpacks_to() -> None:
    sink = io.BytesIO()
    big = columns.to_batch([examples.measurement(reason="x" * 10**6)], FORM)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, FORM, options=options) as writer:
        writer.write_batch(big)
        begin = sink.tell()
        writer.write_batch(big)
        content = sink.getvalue()[begin:]
    assert len(content) < 10**5
    assert pa.ipc.read_record_batch(pa.py_buffer(content), FORM).num_rows == 1
    with pytest.raises(TensorgapError, match="a frame is compressed"):
        opened(BEGUN + streams.frame(content))


def test_a_frame_has_one_row_of_our_columns() -> None:
    two = columns.to_batch([examples.measurement()] * 2, FORM).serialize().to_pybytes()
    with pytest.raises(TensorgapError, match="a frame holds more than one row"):
        opened(BEGUN + streams.frame(two))
    more = FORM.append(pa.field("more", pa.null()))
    with pytest.raises(TensorgapError, match="its columns are not those of this tensorgap"):
        opened(streams.begun(more))
    schema = FORM.serialize().to_pybytes()
    with pytest.raises(TensorgapError, match="a frame holds no row"):
        opened(BEGUN + streams.frame(schema))


def test_a_schema_that_would_become_large_is_refused() -> None:
    wide = pa.schema([pa.field(str(number), pa.null()) for number in range(50_000)])
    with pytest.raises(TensorgapError, match="to read; at most 100 MB are read"):
        opened(streams.begun(wide), Allowance(10**8))


def test_frames_in_a_row_of_their_own_marks_end() -> None:
    """A mark everywhere: each could be the begin of a frame, and is looked at but so often."""
    header = streams.FRAME.pack(streams.MARK, 1000, 0)
    file = opened(BEGUN + header * 20_000)
    assert len(file.keys) == 0
    assert file.corrupt


def test_where_fields_lie_is_read_as_arrow_reads_it() -> None:
    streams.check_plain(ROW)
    for cut in range(0, 200):
        with pytest.raises(ValueError, match="a frame holds"):
            streams.check_plain(ROW[:cut] if cut < 8 else ROW[:8] + struct.pack("<I", 2**31 + cut))


def test_a_stream_of_a_million_bytes_needs_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows-0123456789ab.arrows"
    row = examples.measurement(reason="x" * 10**6)
    path.write_bytes(stream_of(*(examples.measurement(replicate=n) for n in range(50)), row))
    code = (
        "import sys, pyarrow as pa\n"
        "from bench.files.limits import Allowance\n"
        "from bench.files.storage import Storage\n"
        "from bench.results import kept\n"
        "kept.opened(Storage.at(sys.argv[1]), 'x.arrows', Allowance())\n"
        "print(pa.default_memory_pool().max_memory())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert int(done.stdout) < 2 * path.stat().st_size
    assert len(frames_in(path)) == 52
