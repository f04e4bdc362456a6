"""A results folder: NAME/UTC-TIMESTAMP/ with matrix.toml, parts/ and results.parquet.

Each row, and each profile, is appended at once to a stream in parts/, of which each process writes
its own: what a killed sweep left is what `--resume` finds. results.parquet has the rows of all
streams merged, and says how much of each is in it: only what came later is read from the streams.
The folder may be any URI that pyarrow knows; while it fails, streams wait on the local disk
(`bench.results.writing`). It may also be a stranger's: no name that stands in a file leads out of
it, no link in it is followed, no size in it is believed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import posixpath
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pyarrow import fs

from bench import matrix as matrices
from bench.asked import Matrix
from bench.device import software
from bench.errors import TensorgapError
from bench.files import limits
from bench.files.limits import Allowance
from bench.files.location import redacted
from bench.files.storage import Storage
from bench.measured import Measurement, Profile
from bench.results import kept, spool
from bench.results.columns import SchemaVersionError, Source
from bench.results.kept import CorruptFile, KeptFile, ParquetRows
from bench.results.rows import Rows
from bench.results.writing import Writer

MATRIX = "matrix.toml"
PARTS = "parts"
MERGED = "results.parquet"
DAMAGED = "results.damaged.parquet"  # what stood there and could not be read, when rows are merged
_SOURCE = "source.json"
# NAME/UTC-TIMESTAMP of `create`, and six digits; nothing that leads out of a folder.
_RUN = re.compile(
    r"(?!\.\.?/)[^/\\\x00-\x1f\x7f]{1,200}/[0-9]{8}T[0-9]{6}Z(-[0-9]{1,9})?-[0-9a-f]{6}"
)
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]{1,9})?")  # of a folder that `create` makes
_ANOTHER_PLACE = "; choose another place with --output"


class Results:
    """One results folder, open for writing; use `create` or `open`."""

    def __init__(self, place: Storage, source: Source, most_bytes: int = sys.maxsize) -> None:
        """Use `create` for a new folder and `open` for one that exists."""
        self._place = place
        self.location = place.location  # as a user would type it, which is not to be shown
        self.shown = place.shown
        self.source = source
        self._most_bytes = most_bytes  # by default all: what a sweep wrote itself it reads again
        self._told = False  # that the place fails
        self._damaged = False  # what was merged, when the rows were read last
        self._writer = Writer(place.within(PARTS), source)

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
        """Make OUTPUT/NAME/UTC-TIMESTAMP with a matrix of this name in it.

        The types that the cluster has are kept, so that a resumed sweep means the same by `auto`.
        Raises TensorgapError where the place cannot be written.
        """
        stamp = now.astimezone(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        base = Storage.at(output)
        with base.explained(_ANOTHER_PLACE):
            tail, number = f"{name}/{stamp}", 1
            while base.within(tail).exists:  # of a sweep that began in the same second
                number += 1
                tail = f"{name}/{stamp}-{number}"
            # Sweeps that began in the same second on two clusters must not be taken for one.
            run = f"{tail}-{secrets.token_hex(3)}"
            code = (software.version(), software.git_revision())
            source = Source(run, matrix_text, *code, tuple(sorted(gpu_types)), simulated)
            place = base.within(tail)
            place.within(PARTS).make_folder()
            place.within(MATRIX).write(matrix_text.encode())
            place.within(_SOURCE).write(source.to_json().encode())
        return cls(place, source)

    @classmethod
    def open(cls, location: str, most_bytes: int = limits.DEFAULT_BYTES) -> Results:
        """Open a folder that `create` made, of whose rows so many bytes are read.

        Raises TensorgapError where it is no results folder, or one that must not be believed.
        """
        place = Storage.at(location.rstrip("/") or location)
        with place.explained():
            described = place.within(_SOURCE)
            if described.type != fs.FileType.File:
                raise TensorgapError(
                    f"{place.shown}: not a results folder (it has no {_SOURCE}); give the"
                    " NAME/UTC-TIMESTAMP folder that the sweep printed"
                )
            content = described.read(limits.small(f"{place.shown}/{_SOURCE}"))
            if place.is_local and os.path.islink(place.within(PARTS).path):
                remedy = "which is not followed; put the folder itself there"
                raise TensorgapError(f"{place.shown}: {PARTS} is a link, {remedy}")
        with contextlib.suppress(ValueError):
            source = Source.from_json(content)
            if _RUN.fullmatch(source.run):
                return cls(place, source, most_bytes)
        raise TensorgapError(
            f"{place.shown}: {_SOURCE} is damaged, or another version of tensorgap wrote it; go on"
            " with that version, or start a new sweep"
        )

    def check_resumable(self) -> None:
        """Raise TensorgapError now where a resumed sweep would fail after a long start.

        That is where nothing can be written, or where the matrix was changed.
        """
        origin, place = f"{self.shown}/{MATRIX}", self._place.within(MATRIX)
        with self._place.explained():
            content = place.read(limits.small(origin)) if place.exists else None
        if content is not None:
            asked, found = self.matrix(), None
            with contextlib.suppress(TensorgapError):
                found = matrices.parse(content.decode(errors="replace"), origin, asked.name)
            if found is None or replace(found, text=asked.text) != asked:
                raise TensorgapError(
                    f"{origin}: was changed since the sweep began; start a new one with it:"
                    f" tensorgap sweep {origin}; or remove it and resume"
                )
        with self._place.explained("; copy it to a place that can be written, and resume there"):
            self._place.probe()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second sweep out; what a killed one has not finished writing is removed."""
        busy = "another sweep is writing here; wait for it or stop it"
        with self._place.locked(".lock", busy):
            if self._place.is_local:
                with self._place.explained():
                    self._place.remove_temporaries((MATRIX, MERGED, _SOURCE).__contains__)
                    if self._has(PARTS):
                        self._place.within(PARTS).remove_temporaries(spool.is_name)
            yield

    def matrix(self) -> Matrix:
        """What the sweep of this folder was asked."""
        name = self.source.run.partition("/")[0]
        return matrices.parse(self.source.matrix, f"{self.shown}/{MATRIX}", name)

    @property
    def trouble(self) -> str | None:
        """Why rows wait on the local disk, and where; None where the place takes them."""
        waiting = self._writer.spool
        if waiting.trouble is None:
            return None
        words = redacted(waiting.trouble, [self.location])
        return f"{self.shown}: {words}; rows wait in {waiting.location}"

    def new_trouble(self) -> str | None:
        """As `trouble`, once for each time that the place begins to fail."""
        before, self._told = self._told, self.trouble is not None
        return None if before else self.trouble

    def write(self, found: Measurement | Profile) -> None:
        """Keep a row or a profile, at once."""
        try:
            self._writer.write(found)
        except TensorgapError as error:
            raise TensorgapError(redacted(f"{self.shown}: {error}", [self.location])) from error

    def read(self) -> tuple[list[Measurement], list[CorruptFile]]:
        """As `rows`, all of them at once."""
        rows, corrupt = self.rows()
        return list(rows.records()), corrupt

    def rows(self) -> tuple[Rows, list[CorruptFile]]:
        """Every row once, with its profile, and every file that cannot be read.

        Raises TensorgapError where the place fails, holds rows of another version, or more than may
        be read.
        """
        with self._place.explained():
            streams = self._streams()
        files, corrupt = self.files()
        # What could not be opened is looked at again the next time: perhaps the read alone failed.
        unread = {one.path for one in corrupt} - {file.origin for file in files}
        known = {name: size for name, one, size in streams if one.path not in unread}
        merged = [file.origin for file in files] == [self._place.within(MERGED).shown]
        return Rows([files], None if merged else known), corrupt

    def files(self, allowance: Allowance | None = None) -> tuple[list[KeptFile], list[CorruptFile]]:
        """The files that hold the rows: what was merged, and what came later; see `rows`."""
        allowance = allowance or Allowance(self._most_bytes)
        waiting = self._writer.spool
        # First those that wait: what is brought meanwhile is found in its place.
        places = [Storage.at(str(path)) for path in waiting.waiting()]
        with self._place.explained():
            merged, unread = self._merged(allowance)
            covered = merged.covered if merged else {}
            new = [one for name, one, size in self._streams() if covered.get(name) != size]
            files, corrupt = kept.all_opened([*new, *filter(lambda p: p.exists, places)], allowance)
            corrupt += unread
            self._damaged = bool(unread)
        if waiting.ignored:
            reason = f"ignored: {waiting.ignored}"
            consequence = "rows that wait there are not read"
            corrupt.append(CorruptFile(str(waiting.usual), reason, consequence))
        return [merged, *files] if merged else files, corrupt

    def settle(self, patience_s: float) -> None:
        """Bring every row to its place, trying for so long; TensorgapError if it still fails."""
        self._writer.close()
        if self._writer.bring(patience_s):
            raise TensorgapError(f"{self.trouble}, for --resume {self.shown}")

    def finish(self, rows: Rows | None = None) -> str:
        """Merge the rows into results.parquet, unless they are there, and return where it is.

        `rows` are what `rows()` found; nothing was written since.
        """
        rows = rows or self.rows()[0]
        merged = self._place.within(MERGED)
        if rows.unmerged is not None:
            with self._place.explained():
                if self._damaged:
                    merged.filesystem.move(merged.path, self._place.within(DAMAGED).path)
                with merged.writing() as sink:
                    rows.write(sink, [self.source], rows.unmerged)
        return merged.location

    def restore(self) -> None:
        """Make parts/ again where only what was merged is left: resuming adds to it."""
        with self._place.explained():
            if self._has(MERGED) and not self._has(PARTS):
                self._merged(Allowance(self._most_bytes))  # raises where it is damaged
                self._place.within(PARTS).make_folder()

    @property
    def lost(self) -> bool:
        """Whether nothing is there any more that could hold a row."""
        with self._place.explained():
            return not self._has(PARTS) and not self._has(MERGED)

    def _has(self, name: str) -> bool:
        return self._place.within(name).exists

    def _streams(self) -> list[tuple[str, Storage, int]]:
        """Name, place and size of what may be a stream in parts/, in order; it shows when read."""
        folder = self._place.within(PARTS)
        selector = fs.FileSelector(folder.path, allow_not_found=True)
        found = folder.filesystem.get_file_info(selector)
        sizes = {str(info.path): info.size or 0 for info in found}
        return [
            (posixpath.basename(path), Storage(path, folder.filesystem, path), sizes[path])
            for path in sorted(sizes)
            if path.endswith((".arrows", ".parquet"))
        ]

    def _merged(self, allowance: Allowance) -> tuple[ParquetRows | None, list[CorruptFile]]:
        """What was merged; where it is damaged while parts/ is there, that it is."""
        place = self._place.within(MERGED)
        if not place.exists:
            return None, []
        try:
            found = kept.opened(place, place.shown, allowance)
        except (limits.TooLargeError, SchemaVersionError):
            raise
        except TensorgapError as error:
            if not self._has(PARTS):
                raise
            reason = str(error).removeprefix(f"{place.shown}: ")
            return None, [CorruptFile(place.shown, reason, f"its rows are looked for in {PARTS}/")]
        if isinstance(found, ParquetRows) and found.kind is Measurement:
            return found if self.source in found.sources or not self._has(PARTS) else None, []
        return None, []


def runs_within(location: str) -> list[str]:
    """The run folders in a folder of sweeps, or of one NAME, in order; none: it is no such folder.

    No link is followed.
    """
    place = Storage.at(location.rstrip("/") or location)
    with place.explained():
        if place.type != fs.FileType.Directory or place.within(_SOURCE).exists:
            return []
        found = []
        for name, folder in _folders(place):
            inside = [(name, folder)] if _STAMP.fullmatch(name) else _folders(folder)
            found += [run.location for stamp, run in inside if _STAMP.fullmatch(stamp)]
    return found


def _folders(place: Storage) -> list[tuple[str, Storage]]:
    """The folders in a folder, by name."""
    listed = place.filesystem.get_file_info(fs.FileSelector(place.path))
    names = (posixpath.basename(one.path) for one in listed if one.type == fs.FileType.Directory)
    inside = [(name, place.within(name)) for name in sorted(names)]
    return [(name, one) for name, one in inside if not (one.is_local and os.path.islink(one.path))]


def files_at(
    location: str, allowance: Allowance
) -> tuple[list[KeptFile], list[Source], list[CorruptFile]]:
    """The files that hold the rows of a Parquet file or of a folder, also of an unfinished sweep.

    With where the rows came from, and what cannot be read.
    """
    place = Storage.at(location)
    with place.explained():
        kind = place.type
        if kind == fs.FileType.NotFound:
            raise TensorgapError(f"{place.shown}: there is no such file or folder")
        if kind == fs.FileType.File:
            if place.is_local:  # the user's own link
                place = replace(place, path=os.path.realpath(place.path))
            file = kept.opened(place, place.shown, allowance)
            if file.kind is Profile:
                remedy = "give the folder of the sweep"
                raise TensorgapError(f"{place.shown}: a profile without its row; {remedy}")
            return [file], list(file.sources), []
    results = Results.open(location)
    files, corrupt = results.files(allowance)
    if not any(len(file.keys) for file in files) and results.lost:
        gone = f"its rows are gone: there is neither {PARTS}/ nor {MERGED}"
        raise TensorgapError(f"{place.shown}: {gone}; bring them back, or start a new sweep")
    return files, [results.source], corrupt


def read(
    location: str, allowance: Allowance | None = None
) -> tuple[list[Measurement], list[Source], list[CorruptFile]]:
    """All rows of a Parquet file or of a folder at once, as `files_at` finds them."""
    allowance = allowance or Allowance()
    files, sources, corrupt = files_at(location, allowance)
    return list(Rows([files]).records(allowance=allowance)), sources, corrupt


def prepare(output: str) -> None:
    """Raise TensorgapError now where `Results.create` would fail after a long start."""
    base = Storage.at(output)
    with base.explained(_ANOTHER_PLACE):
        base.make_folder()
        base.probe()


def exists(location: str) -> bool:
    """Whether there is anything at this place."""
    place = Storage.at(location)
    with place.explained():
        return place.exists


def write_merged(location: str, rows: Rows, sources: Sequence[Source]) -> None:
    """Write rows of several sweeps into one Parquet file."""
    place = Storage.at(location)
    with place.explained():
        if parent := posixpath.dirname(place.path):
            place.filesystem.create_dir(parent, recursive=True)
        with place.writing() as sink:
            rows.write(sink, sources)
