"""Each record kept at once: appended to a stream in its place, or in the spool on the way there.

On a local disk it is in its place at once. An object store cannot append: there a stream gathers in
the spool and is brought a few seconds after its first row, or within a second of a lull. Wherever a
record is, the death of the process loses nothing of it.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import BinaryIO

from bench.errors import TensorgapError
from bench.files.storage import PIECE_BYTES, Storage
from bench.measured import Measurement, Profile
from bench.results import columns, streams
from bench.results.columns import Source
from bench.results.spool import Spool
from bench.results.streams import Appending

PREFIX = {Measurement: "rows", Profile: "profiles"}
GATHERING_S = 5.0  # of a stream for an object store
LULL_S = 0.75
LOOK_S = 0.25


class Writer:
    """The streams that this process writes for a run, one for each kind of record and place."""

    def __init__(self, place: Storage, source: Source) -> None:
        """Args: place: the folder of the streams; source: of the rows."""
        self._place = place
        self.spool = Spool(source.run)
        self._forms = {kind: columns.with_sources(kind, [source]) for kind in PREFIX}
        self._open: dict[tuple[type, bool], Appending] = {}  # by kind, and whether in the spool
        self._first_s = self._last_s = 0.0  # when a row came: of the open streams of the spool
        self._appending, self._bringing = threading.Lock(), threading.Lock()
        self._carrier: threading.Thread | None = None

    def write(self, record: Measurement | Profile) -> None:
        """Keep a record at once; TensorgapError where it can be nowhere."""
        content = streams.framed(record, self._forms[type(record)])
        if self._place.is_local and self.spool.may_try():
            try:
                with self._appending:
                    self._append(type(record), content, spooled=False)
            except OSError as error:
                self.spool.failed(error)
            else:
                self.spool.worked()
                if self.spool.waiting():
                    self.bring()
                return
        try:
            with self._appending:
                self._append(type(record), content, spooled=True)
                self._last_s = time.monotonic()
                self._first_s = self._first_s or self._last_s
        except OSError as error:
            why = f"the row cannot wait in {self.spool.location}: {error.strerror}"
            known = f"{self.spool.trouble}; and " if self.spool.trouble else ""
            raise TensorgapError(known + why) from error
        if not self._place.is_local:
            self._carry()

    def bring(self, limit_s: float = 0.0) -> int:
        """Bring what is in the spool to its place, for so long; how many streams still wait."""
        with self._bringing:
            with self._appending:
                self._close(spooled=True)
            return self.spool.settle(self._put, limit_s)

    def close(self) -> None:
        """Nothing more is written for now."""
        with self._appending:
            self._close(spooled=True)
            self._close(spooled=False)

    def _append(self, kind: type, content: bytes, spooled: bool) -> None:
        if (kind, spooled) not in self._open:
            folder = self.spool.folder() if spooled else Path(self._place.path)
            path = folder / f"{PREFIX[kind]}-{secrets.token_hex(6)}.arrows"
            self._open[kind, spooled] = Appending(path, self._forms[kind], time.monotonic)
        self._open[kind, spooled].append(content)

    def _close(self, spooled: bool) -> None:
        for key in [key for key in self._open if key[1] == spooled]:
            with contextlib.suppress(OSError):  # it is only that the disk may not have it yet
                self._open.pop(key).close()
        self._first_s = 0.0 if spooled else self._first_s

    def _put(self, name: str, file: BinaryIO) -> None:
        with self._place.within(name).writing() as place:
            shutil.copyfileobj(file, place, PIECE_BYTES)

    def _carry(self) -> None:
        """Have a thread bring what gathers; it ends when nothing is left."""
        if self._carrier is None or not self._carrier.is_alive():
            self._carrier = threading.Thread(target=self._carry_all, daemon=True)
            self._carrier.start()

    def _carry_all(self) -> None:
        while True:
            time.sleep(LOOK_S)
            now_s = time.monotonic()
            gathered = now_s - self._first_s >= GATHERING_S or now_s - self._last_s >= LULL_S
            if gathered and self.spool.may_try() and not self.bring():
                return
