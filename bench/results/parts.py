"""A file of rows: how a part is named, written and read, and what it means where that fails."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bench.errors import TensorgapError
from bench.files import limits, unpacking
from bench.files.limits import Allowance
from bench.files.storage import Storage, complaint
from bench.measured import Event, Measurement, Profile
from bench.results import columns
from bench.results.columns import Source

NAME = re.compile(r"(?!\.)[A-Za-z0-9.-]*-b-?[0-9]+-r-?[0-9]+-[0-9a-f]{12}(-profile)?\.parquet")
_PROFILE = "-profile.parquet"


@dataclass(frozen=True)
class CorruptFile:
    """A file of rows that cannot be read: cut short, damaged, or not tensorgap's."""

    path: str
    reason: str
    consequence: str | None = None  # where it is another than that of a part


def name_of(event: Event) -> str:
    """The file name that the identity of a row decides, readable at its start."""
    key = (event.cell, event.workload, event.replicate)
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
    words = f"{event.cell.gpu_type}-{event.cell.precision}-{event.workload.model}"
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")[:80]
    tail = _PROFILE if isinstance(event, Profile) else ".parquet"
    return f"{readable}-b{event.workload.batch_size}-r{event.replicate}-{digest}{tail}"


def is_name(name: str) -> bool:
    """Whether a part may have this name."""
    return NAME.fullmatch(name) is not None


def to_parquet(records: Iterable[Measurement | Profile], sources: Sequence[Source]) -> bytes:
    """Rows as the content of a file; its checksums tell when a disk or a network damaged it."""
    sink = pa.BufferOutputStream()
    content = columns.to_table(records, sources)
    pq.write_table(content, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def in_folder(folder: Storage) -> list[Storage]:
    """What may be a part, in order; that it is one shows when it is read."""
    selector = fs.FileSelector(folder.path, allow_not_found=True)
    paths = sorted(str(info.path) for info in folder.filesystem.get_file_info(selector))
    return [Storage(path, folder.filesystem, path) for path in paths if path.endswith(".parquet")]


def read(file: Storage, origin: str, allowance: Allowance) -> tuple[list[Any], tuple[Source, ...]]:
    """As `columns.from_table`, of a file; TensorgapError also where it is too large or corrupt."""
    try:
        content = file.read(lambda size_bytes: allowance.hold(size_bytes, origin))
        packed = unpacking.open_parquet(content, origin, allowance)
        # Before anything is unpacked: whether it is ours, and the types of its columns.
        kind, _ = columns.described(packed.schema_arrow, origin)
        names = columns.schema(kind).names
        found = unpacking.unpack(content, packed, names, origin, allowance)
        return columns.from_table(found, origin)
    except MemoryError:
        raise limits.TooLargeError(f"{origin}: there is not enough memory to read it") from None
    # ValueError: pyarrow decodes the names of a damaged file.
    except (pa.ArrowException, OSError, ValueError) as error:
        fault = f"not a readable Parquet file: {complaint(error)}"
        raise TensorgapError(f"{origin}: {fault}") from None


def read_all(
    files: Iterable[Storage], allowance: Allowance
) -> tuple[list[Measurement | Profile], list[CorruptFile]]:
    """The records of all files, and which of them are corrupt.

    Raises TensorgapError where one is of another version, or too large.
    """
    records: list[Measurement | Profile] = []
    corrupt: list[CorruptFile] = []
    for file in files:
        try:
            records += read(file, file.path, allowance)[0]
        except (columns.SchemaVersionError, limits.TooLargeError):
            raise  # it may be whole: a resumed sweep must not measure over it
        except TensorgapError as error:
            fault, consequence = str(error).removeprefix(f"{file.path}: "), None
            if file.path.endswith(_PROFILE):
                fault, consequence = f"corrupt profile: {fault}", "its row stands without a profile"
            corrupt.append(CorruptFile(file.path, fault, consequence))
    return records, corrupt
