"""A results folder: NAME/UTC-TIMESTAMP/ with matrix.toml, parts/ and results.parquet.

Each measurement becomes a part at once, under a name that its identity decides: measuring again
replaces it, and what a killed sweep left is what `--resume` finds. On a local disk a part is
written beside its place and renamed, so that it is whole or absent; an object store shows an
object only once its upload is complete. The folder may be any URI that pyarrow's filesystems know;
while it fails, parts wait on the local disk (`bench.results.spool`). It may also be a stranger's: no name
that stands in a file leads out of it, no link in it is followed, no size in it is believed.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import posixpath
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bench import matrix as matrices
from bench.asked import Matrix
from bench.device import software
from bench.errors import TensorgapError
from bench.files import atomic as files
from bench.files import limits, unpacking
from bench.files.limits import Allowance
from bench.files.location import redacted, shown, within
from bench.measured import Measurement, Stage
from bench.results import columns as table
from bench.results.columns import Source
from bench.results.spool import PART, Spool

MATRIX = "matrix.toml"
PARTS = "parts"
MERGED = "results.parquet"
_SOURCE = "source.json"
# NAME/UTC-TIMESTAMP of `create`, and six digits; nothing that leads out of a folder.
_RUN = re.compile(
    r"(?!\.\.?/)[^/\\\x00-\x1f\x7f]{1,200}/[0-9]{8}T[0-9]{6}Z(-[0-9]{1,9})?-[0-9a-f]{6}"
)
_PROBE = ".tensorgap-probe"
# How S3 words that it does not know who asks, or that he may not (pyarrow 26).
_NO_ACCESS = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|EXPIRED|TOKEN|CREDENTIALS"
    "|HTTP (response code|status) 40[013]",
    re.IGNORECASE,
)
_CREDENTIALS = (
    "the credentials may be missing, wrong or not suffice: set AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they are temporary), or AWS_PROFILE, or use"
    " the role of the instance; the bucket's policy must let them read, write and list"
)


@dataclass(frozen=True)
class Torn:
    """A part that cannot be read: cut short, damaged, or not tensorgap's."""

    path: str
    reason: str
    consequence: str | None = None  # where it is another than that of a part


class Results:
    """One results folder, open for writing; use `create` or `open`."""

    def __init__(
        self,
        filesystem: fs.FileSystem,
        root: str,
        location: str,
        source: Source,
        most_bytes: int = sys.maxsize,
    ) -> None:
        """Use `create` for a new folder and `open` for one that exists."""
        self._fs = filesystem
        self._root = root
        self.location = location  # as a user would type it, which is not to be shown
        self.shown = shown(location)
        self.source = source
        self._most_bytes = most_bytes  # by default all: what a sweep wrote itself it reads again
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
            results = cls(filesystem, f"{base}/{tail}", within(output, tail), source)
            filesystem.create_dir(f"{results._root}/{PARTS}", recursive=True)
            results._write(MATRIX, matrix_text.encode())
            results._write(_SOURCE, json.dumps(vars(source), indent=1).encode())
        return results

    @classmethod
    def open(cls, location: str, most_bytes: int = limits.DEFAULT_BYTES) -> Results:
        """Open a folder that `create` made, perhaps a stranger's.

        Args:
            location: a folder or a URI.
            most_bytes: that are read of its rows.

        Raises:
            TensorgapError: it is no results folder, or one that must not be believed.
        """
        filesystem, root = _filesystem(location)
        with _explained(location):
            path = f"{root}/{_SOURCE}"
            if filesystem.get_file_info(path).type != fs.FileType.File:
                raise TensorgapError(
                    f"{shown(location)}: not a results folder (it has no {_SOURCE});"
                    " give the NAME/UTC-TIMESTAMP folder that the sweep printed"
                )
            content = files.read(filesystem, path, limits.small(f"{shown(location)}/{_SOURCE}"))
            if _is_link(filesystem, f"{root}/{PARTS}"):
                raise TensorgapError(
                    f"{shown(location)}: {PARTS} is a link, which is not followed; put the folder"
                    " itself there"
                )
        try:
            source = Source.from_json(json.loads(content))
            if not _RUN.fullmatch(source.run):
                raise ValueError
        except (RecursionError, TypeError, ValueError):
            raise TensorgapError(
                f"{shown(location)}: {_SOURCE} is damaged, or another version of tensorgap wrote"
                " it; go on with that version, or start a new sweep"
            ) from None
        return cls(filesystem, root, location.rstrip("/"), source, most_bytes)

    def check_resumable(self) -> None:
        """Raise TensorgapError now where a resumed sweep would fail after a long start.

        That is where nothing can be written, or where the matrix was changed: a sweep is resumed
        as it began.
        """
        origin = f"{self.shown}/{MATRIX}"
        with _explained(self.location):
            if self._has(MATRIX):
                path = f"{self._root}/{MATRIX}"
                self._refuse_change(files.read(self._fs, path, limits.small(origin)), origin)
        remedy = "; copy it to a place that can be written, and resume there"
        with _explained(self.location, remedy):
            _probe(self._fs, self._root)

    def _refuse_change(self, content: bytes, origin: str) -> None:
        asked = self.matrix()
        try:
            found = matrices.parse(content.decode(errors="replace"), origin, asked.name)
        except TensorgapError:
            found = None
        if found is None or replace(found, text=asked.text) != asked:
            raise TensorgapError(
                f"{origin}: was changed since the sweep began, and a sweep is resumed as it began;"
                f" start a new one with it: tensorgap sweep {origin}; or remove it and resume"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second sweep out of a local folder; the lock ends with the process, however.

        What a killed one has not finished writing is removed.
        """
        if not isinstance(self._fs, fs.LocalFileSystem):
            yield
            return
        import fcntl  # not on Windows, where Ray drivers are rare

        with contextlib.ExitStack() as stack:
            with _explained(self.location):
                # Never through a link, whose target would be made or emptied.
                number = os.open(
                    f"{self._root}/.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                )
                lock = stack.enter_context(os.fdopen(number, "rb+", buffering=0))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TensorgapError(
                    f"{self.shown}: another sweep is writing here; wait for it or stop it"
                ) from None
            except OSError as error:
                # Lustre without flock and some NFS know no locks.
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
            with _explained(self.location):
                files.remove_temporaries(self._root, {MATRIX, MERGED, _SOURCE}.__contains__)
                if self._has(PARTS):
                    files.remove_temporaries(f"{self._root}/{PARTS}", _is_part)
            yield

    def matrix(self) -> Matrix:
        """What the sweep of this folder was asked."""
        name = self.source.run.partition("/")[0]
        return matrices.parse(self.source.matrix, f"{self.shown}/{MATRIX}", name)

    @property
    def trouble(self) -> str | None:
        """Why parts wait on the local disk, and where; None while none does."""
        words = self._spool.trouble
        if words is None:
            return None
        words = redacted(words, [self.location])
        return f"{self.shown}: {words}; rows wait in {self._spool.location}"

    def write(self, measurement: Measurement) -> None:
        """Keep one measurement, at once."""
        content = _parquet([measurement], [self.source]).to_pybytes()
        try:
            self._spool.put(part_name(measurement), content, self._write_part)
        except TensorgapError as error:
            raise TensorgapError(redacted(f"{self.shown}: {error}", [self.location])) from error

    def read(self, allowance: Allowance | None = None) -> tuple[list[Measurement], list[Torn]]:
        """Every measurement, once, and every part that cannot be read.

        Where the parts are gone it is what was merged of them.

        Args:
            allowance: how much may be read; else as much as the folder was opened with.

        Raises:
            TensorgapError: the place fails, holds rows of a version that is not read here, or
                more than may be read.
        """
        allowance = allowance or Allowance(self._most_bytes)
        with _explained(self.location):
            parts = _parts_in(self._fs, f"{self._root}/{PARTS}")
            rows, torn = _read_parts(self._fs, parts, allowance)
            if not self._has(PARTS) and self._has(MERGED):
                rows = _read_file(self._fs, f"{self._root}/{MERGED}", self.shown, allowance)[0]
        paths = [str(path) for path in self._spool.waiting()]
        waiting, torn_too = _read_parts(fs.LocalFileSystem(), paths, allowance)
        if self._spool.ignored:
            reason = f"is ignored: {self._spool.ignored}"
            torn_too.append(Torn(self._spool.usual, reason, "rows that wait there are not read"))
        # A row may have arrived, and its evidence wait.
        return table.merge(rows + waiting), torn + torn_too

    def settle(self, patience_s: float) -> None:
        """Bring every row to its place, trying again for so long where that fails.

        Raises:
            TensorgapError: it still fails.
        """
        if self._spool.settle(self._write_part, patience_s):
            raise TensorgapError(f"{self.trouble}, for --resume {self.shown}")

    def finish(self) -> str:
        """Merge the parts into results.parquet and return where it is."""
        rows, _ = self.read()
        with _explained(self.location):
            self._write(MERGED, _parquet(rows, [self.source]))
        return within(self.location, MERGED)

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
        files.write_atomically(self._fs, f"{self._root}/{name}", content)


def read(
    location: str, allowance: Allowance | None = None
) -> tuple[list[Measurement], list[Source], list[Torn]]:
    """Rows of a Parquet file or of a results folder (its parts, so also of an unfinished sweep)."""
    allowance = allowance or Allowance()
    filesystem, root = _filesystem(location)
    with _explained(location):
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.NotFound:
            raise TensorgapError(f"{shown(location)}: there is no such file or folder")
        if info.type == fs.FileType.File:
            if isinstance(filesystem, fs.LocalFileSystem):
                root = os.path.realpath(root)  # the user's own link
            rows, sources = _read_file(filesystem, root, shown(location), allowance)
            return rows, list(sources), []
    results = Results.open(location)
    rows, torn = results.read(allowance)
    if not rows and results.lost:
        raise TensorgapError(
            f"{shown(location)}: its rows are gone: there is neither {PARTS}/ nor {MERGED}; bring"
            " them back, or start a new sweep"
        )
    return rows, [results.source], torn


def prepare(output: str) -> None:
    """Raise TensorgapError now where `Results.create` would fail after a long start."""
    filesystem, base = _filesystem(output)
    with _explained(output, "; choose another place with --output"):
        filesystem.create_dir(base, recursive=True)
        _probe(filesystem, base)


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
        files.write_atomically(filesystem, path, content)


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


def _parts_in(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """What may be a part; that it is one shows when it is read."""
    selector = fs.FileSelector(folder, allow_not_found=True)
    found = [str(info.path) for info in filesystem.get_file_info(selector)]
    return sorted(path for path in found if path.endswith(".parquet"))


def _read_parts(
    filesystem: fs.FileSystem, paths: Iterable[str], allowance: Allowance
) -> tuple[list[Measurement], list[Torn]]:
    rows: list[Measurement] = []
    torn: list[Torn] = []
    for path in paths:
        try:
            found, _ = _read_file(filesystem, path, path, allowance)
        except (table.SchemaVersionError, limits.TooLargeError):
            raise  # it may be whole: a resumed sweep must not measure over it
        except TensorgapError as error:
            torn.append(Torn(path, str(error).removeprefix(f"{path}: ")))
        else:
            rows.extend(found)
    return rows, torn


def _read_file(
    filesystem: fs.FileSystem, path: str, origin: str, allowance: Allowance
) -> tuple[list[Measurement], tuple[Source, ...]]:
    def check(size_bytes: int) -> None:
        allowance.hold(size_bytes, origin)

    try:
        content = files.read(filesystem, path, check)
        file = unpacking.open_parquet(content, origin, allowance)
        # Before anything is unpacked: whether it is ours, and the types of its columns.
        table.from_table(file.schema_arrow.empty_table(), origin)
        found = unpacking.unpack(content, file, table.schema().names, origin, allowance)
        return table.from_table(found, origin)
    except MemoryError:
        raise limits.TooLargeError(f"{origin}: there is not enough memory to read it") from None
    # ValueError: pyarrow decodes the names of a damaged file.
    except (pa.ArrowException, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TensorgapError(
            f"{origin}: not a readable Parquet file: {text.splitlines()[0]}"
        ) from None


def _probe(filesystem: fs.FileSystem, folder: str) -> None:
    """Write a file of a few bytes, and remove it again."""
    path = f"{folder}/{_PROBE}"
    files.write_atomically(filesystem, path, b"tensorgap\n")
    # Whoever may write to a bucket may not always delete, which a sweep never does.
    with contextlib.suppress(OSError, pa.ArrowException):
        filesystem.delete_file(path)


def _is_part(name: str) -> bool:
    return PART.fullmatch(name) is not None


def _is_link(filesystem: fs.FileSystem, path: str) -> bool:
    return isinstance(filesystem, fs.LocalFileSystem) and os.path.islink(path)


def _filesystem(location: str) -> tuple[fs.FileSystem, str]:
    if "://" not in location:
        return fs.LocalFileSystem(), str(Path(location).absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (pa.ArrowException, OSError, ValueError) as error:
        known = "a folder, or a URI such as s3://BUCKET/PATH or gs://BUCKET/PATH"
        first = redacted(str(error).splitlines()[0], [location])
        raise TensorgapError(f"{shown(location)}: cannot be used ({first}); give {known}") from None
    return filesystem, path.rstrip("/")


def _free_name(filesystem: fs.FileSystem, base: str, tail: str) -> str:
    """`tail`, or `tail-2` and so on where another sweep began in the same second."""
    candidate = tail
    number = 1
    while filesystem.get_file_info(f"{base}/{candidate}").type != fs.FileType.NotFound:
        number += 1
        candidate = f"{tail}-{number}"
    return candidate


@contextlib.contextmanager
def _explained(location: str, remedy: str = "") -> Iterator[None]:
    """Turn a filesystem's complaint into one message that names the place."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        first = getattr(error, "strerror", None) or str(error) or type(error).__name__
        text = redacted(first.splitlines()[0], [location])
        if location.startswith("s3:") and _NO_ACCESS.search(text):
            remedy = f"; {_CREDENTIALS}"
        raise TensorgapError(f"{shown(location)}: {text}{remedy}") from error
