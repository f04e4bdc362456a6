"""A results folder: NAME/UTC-TIMESTAMP/ with matrix.toml, parts/ and results.parquet.

Each measurement becomes a part at once, under a name that its identity decides: measuring again
replaces it, and what a killed sweep left is what `--resume` finds. On a local disk a part is
written beside its place and renamed, so that it is whole or absent; an object store shows an
object only once its upload is complete. The folder may be any URI that pyarrow's filesystems know;
while it fails, parts wait on the local disk (`bench.spool`).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import posixpath
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bench import matrix as matrices
from bench import software, table
from bench.records import Matrix, Measurement, Stage, TensorgapError
from bench.spool import Spool, write_atomically
from bench.table import Source

MATRIX = "matrix.toml"
PARTS = "parts"
MERGED = "results.parquet"
_SOURCE = "source.json"


@dataclass(frozen=True)
class Torn:
    """A part that cannot be read: cut short, damaged, or not tensorgap's."""

    path: str
    reason: str


class Results:
    """One results folder, open for writing; use `create` or `open`."""

    def __init__(self, filesystem: fs.FileSystem, root: str, location: str, source: Source) -> None:
        """Use `create` for a new folder and `open` for one that exists."""
        self._fs = filesystem
        self._root = root
        self.location = location  # as a user would type it
        self.source = source
        self._spool = Spool(source.run)

    @classmethod
    def create(
        cls,
        output: str,
        name: str,
        matrix_text: str,
        now: datetime.datetime,
        gpu_types: Iterable[str] = (),
        simulated: bool = False,
    ) -> Results:
        """Make OUTPUT/NAME/UTC-TIMESTAMP with the matrix in it.

        Args:
            output: a folder or a URI.
            name: of the matrix.
            matrix_text: TOML.
            now: start of the sweep.
            gpu_types: that the cluster has, so that a resumed sweep means the same by `auto`.
            simulated: GPU cells may compute on the CPU, also when the sweep is resumed.

        Raises:
            TensorgapError: the place cannot be written.
        """
        stamp = now.astimezone(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        filesystem, base = _filesystem(output)
        with _explained(output, "; choose another place with --output"):
            tail = _free_name(filesystem, base, f"{name}/{stamp}")
            # Sweeps that began in the same second on two clusters must not be taken for one.
            run = f"{tail}-{secrets.token_hex(3)}"
            source = Source(
                run,
                matrix_text,
                software.version(),
                software.git_revision(),
                tuple(sorted(gpu_types)),
                simulated,
            )
            results = cls(filesystem, f"{base}/{tail}", _within(output, tail), source)
            filesystem.create_dir(f"{results._root}/{PARTS}", recursive=True)
            results._write(MATRIX, matrix_text.encode())
            results._write(_SOURCE, json.dumps(vars(source), indent=1).encode())
        return results

    @classmethod
    def open(cls, location: str) -> Results:
        """Open a folder that `create` made, to resume its sweep."""
        filesystem, root = _filesystem(location)
        with _explained(location):
            path = f"{root}/{_SOURCE}"
            if filesystem.get_file_info(path).type != fs.FileType.File:
                raise TensorgapError(
                    f"{location}: not a results folder (it has no {_SOURCE});"
                    " give the NAME/UTC-TIMESTAMP folder that the sweep printed"
                )
            with filesystem.open_input_stream(path) as stream:
                content = stream.read()
        try:
            source = Source.from_json(json.loads(content))
        except (AttributeError, TypeError, ValueError):
            raise TensorgapError(
                f"{location}: {_SOURCE} is damaged, or another version of tensorgap wrote it;"
                " go on with that version, or start a new sweep"
            ) from None
        return cls(filesystem, root, location.rstrip("/"), source)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second sweep out of a local folder; the lock ends with the process, however."""
        if not isinstance(self._fs, fs.LocalFileSystem):
            yield
            return
        import fcntl  # not on Windows, where Ray drivers are rare

        with contextlib.ExitStack() as stack:
            with _explained(self.location):
                lock = stack.enter_context(open(f"{self._root}/.lock", "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TensorgapError(
                    f"{self.location}: another sweep is writing here; wait for it or stop it"
                ) from None
            except OSError as error:
                # Lustre without flock and some NFS know no locks.
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
            yield

    def matrix(self) -> Matrix:
        """What the sweep of this folder was asked."""
        name = self.source.run.partition("/")[0]
        return matrices.parse(self.source.matrix, f"{self.location}/{MATRIX}", name)

    @property
    def trouble(self) -> str | None:
        """Why parts wait on the local disk, and where; None while none does."""
        words = self._spool.trouble
        return words and f"{self.location}: {words}; rows wait in {self._spool.location}"

    def write(self, measurement: Measurement) -> None:
        """Keep one measurement, at once."""
        content = _parquet([measurement], [self.source]).to_pybytes()
        try:
            self._spool.put(part_name(measurement), content, self._write_part)
        except TensorgapError as error:
            raise TensorgapError(f"{self.location}: {error}") from error

    def read(self) -> tuple[list[Measurement], list[Torn]]:
        """Every measurement, once, and every part that cannot be read.

        Where the parts are gone it is what was merged of them.

        Raises:
            TensorgapError: the place fails, or holds rows of a version that is not read here.
        """
        with _explained(self.location):
            rows, torn = _read_parts(self._fs, f"{self._root}/{PARTS}")
            if not self._has(PARTS) and self._has(MERGED):
                rows = _read_file(self._fs, f"{self._root}/{MERGED}", self.location)[0]
        waiting, torn_too = _read_parts(fs.LocalFileSystem(), self._spool.location)
        # A row may have arrived, and its evidence wait.
        return table.merge(rows + waiting), torn + torn_too

    def settle(self, patience_s: float) -> None:
        """Bring every row to its place, trying again for so long where that fails.

        Raises:
            TensorgapError: it still fails.
        """
        if self._spool.settle(self._write_part, patience_s):
            raise TensorgapError(f"{self.trouble}, for --resume {self.location}")

    def finish(self) -> str:
        """Merge the parts into results.parquet and return where it is."""
        rows, _ = self.read()
        with _explained(self.location):
            self._write(MERGED, _parquet(rows, [self.source]))
        return _within(self.location, MERGED)

    def restore(self) -> None:
        """Make the parts again from what was merged, where they are gone: resuming adds to them."""
        with _explained(self.location):
            if self._has(PARTS):
                return
            rows, _ = self.read()
            self._fs.create_dir(f"{self._root}/{PARTS}", recursive=True)
        for one in rows:
            self.write(one)

    @property
    def lost(self) -> bool:
        """Whether nothing is there any more that could hold a row."""
        with _explained(self.location):
            return not self._has(PARTS) and not self._has(MERGED)

    def _has(self, name: str) -> bool:
        found = self._fs.get_file_info(f"{self._root}/{name}")
        return bool(found.type != fs.FileType.NotFound)

    def _write_part(self, name: str, content: bytes) -> None:
        self._write(f"{PARTS}/{name}", content)

    def _write(self, name: str, content: Any) -> None:
        write_atomically(self._fs, f"{self._root}/{name}", content)


def read(location: str) -> tuple[list[Measurement], list[Source], list[Torn]]:
    """Rows of a Parquet file or of a results folder (its parts, so also of an unfinished sweep)."""
    filesystem, root = _filesystem(location)
    with _explained(location):
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.NotFound:
            raise TensorgapError(f"{location}: there is no such file or folder")
        if info.type == fs.FileType.File:
            rows, sources = _read_file(filesystem, root, location)
            return rows, list(sources), []
    results = Results.open(location)
    rows, torn = results.read()
    if not rows and results.lost:
        raise TensorgapError(
            f"{location}: its rows are gone: there is neither {PARTS}/ nor {MERGED}; bring them"
            " back, or start a new sweep"
        )
    return rows, [results.source], torn


def prepare(output: str) -> None:
    """Raise TensorgapError now where `Results.create` would fail after a long start."""
    filesystem, base = _filesystem(output)
    with _explained(output, "; choose another place with --output"):
        filesystem.create_dir(base, recursive=True)


def exists(location: str) -> bool:
    """Whether there is anything at this place."""
    filesystem, path = _filesystem(location)
    with _explained(location):
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def write_merged(location: str, rows: Iterable[Measurement], sources: Sequence[Source]) -> None:
    """Write rows of several sweeps into one Parquet file."""
    filesystem, path = _filesystem(location)
    content = _parquet(list(rows), sources)
    with _explained(location):
        parent = posixpath.dirname(path)
        if parent:
            filesystem.create_dir(parent, recursive=True)
        write_atomically(filesystem, path, content)


def part_name(asked: Measurement | Stage) -> str:
    """The file name that the identity of a measurement decides, readable at its start."""
    key = (asked.cell, asked.workload, asked.replicate)
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
    words = f"{asked.cell.gpu_type}-{asked.cell.precision}-{asked.workload.model}"
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")[:80]
    return f"{readable}-b{asked.workload.batch_size}-r{asked.replicate}-{digest}.parquet"


def _parquet(rows: Sequence[Measurement], sources: Sequence[Source]) -> pa.Buffer:
    """Rows as the content of a file; its checksums tell when a disk or a network damaged it."""
    sink = pa.BufferOutputStream()
    content = table.to_table(rows, sources)
    pq.write_table(content, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _read_parts(filesystem: fs.FileSystem, root: str) -> tuple[list[Measurement], list[Torn]]:
    rows: list[Measurement] = []
    torn: list[Torn] = []
    selector = fs.FileSelector(root, allow_not_found=True)
    for info in sorted(filesystem.get_file_info(selector), key=lambda info: str(info.path)):
        if not info.path.endswith(".parquet"):
            continue
        try:
            found, _ = _read_file(filesystem, info.path, info.path)
        except table.SchemaVersionError:
            raise  # it is whole: a resumed sweep must not measure over it
        except TensorgapError as error:
            torn.append(Torn(info.path, str(error).removeprefix(f"{info.path}: ")))
        else:
            rows.extend(found)
    return rows, torn


def _read_file(
    filesystem: fs.FileSystem, path: str, origin: str
) -> tuple[list[Measurement], tuple[Source, ...]]:
    try:
        with filesystem.open_input_file(path) as file:
            content = pq.ParquetFile(file, page_checksum_verification=True).read()
    # ValueError: pyarrow decodes the names of a damaged file.
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise TensorgapError(f"{origin}: not a readable Parquet file: {first}") from None
    return table.from_table(content, origin)


def _filesystem(location: str) -> tuple[fs.FileSystem, str]:
    if "://" not in location:
        return fs.LocalFileSystem(), str(Path(location).absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (pa.ArrowException, OSError, ValueError) as error:
        known = "a folder, or a URI such as s3://BUCKET/PATH or gs://BUCKET/PATH"
        first = str(error).splitlines()[0]
        raise TensorgapError(f"{location}: cannot be used ({first}); give {known}") from None
    return filesystem, path.rstrip("/")


def _free_name(filesystem: fs.FileSystem, base: str, tail: str) -> str:
    """`tail`, or `tail-2` and so on where another sweep began in the same second."""
    candidate = tail
    number = 1
    while filesystem.get_file_info(f"{base}/{candidate}").type != fs.FileType.NotFound:
        number += 1
        candidate = f"{tail}-{number}"
    return candidate


def _within(location: str, tail: str) -> str:
    """A place within a folder or URI, whose query (?region=...) stays at the end."""
    path, mark, query = location.partition("?") if "://" in location else (location, "", "")
    return f"{path.rstrip('/')}/{tail}{mark}{query}"


@contextlib.contextmanager
def _explained(location: str, remedy: str = "") -> Iterator[None]:
    """Turn a filesystem's complaint into one message that names the place."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        text = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TensorgapError(f"{location}: {text}{remedy}") from error
