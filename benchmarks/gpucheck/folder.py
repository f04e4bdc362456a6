"""What a check leaves behind, written as soon as it is known.

    results.parquet    every row, merged again with each new one; parts/ holds them one by one
    facts.jsonl        what is no row: a line for each fact
    predictions.txt    each prediction beside what was found, written again after each step
    log.txt            all that was printed

Whoever is killed, parent or step, at whatever moment: what had been measured is there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.files.storage import Storage
from bench.measured import Measurement, Profile
from bench.results import store as results

NAME = "gpu-check"
FACTS, LOG, TABLE = "facts.jsonl", "log.txt", "predictions.txt"


@dataclass(frozen=True)
class Folder:
    """One run's results folder, of this process or of the one that started it."""

    results: results.Results

    @classmethod
    def create(cls, output: str) -> Folder:
        """Make OUTPUT/gpu-check/UTC-TIMESTAMP."""
        Path(output).mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC)
        return cls(results.Results.create(output, NAME, "", now))

    @classmethod
    def open(cls, location: str) -> Folder:
        """Open what another process made."""
        return cls(results.Results.open(location))

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.results.location)

    @property
    def run(self) -> str:
        """The name of the run, for its rows."""
        return self.results.source.run

    def keep(self, row: Measurement | Profile) -> None:
        """Write a row or its profile, and all rows merged."""
        self.results.write(row)
        self.results.finish()

    def rows(self) -> list[Measurement]:
        """Every row that can be read, once and with its profile."""
        return self.results.read()[0]

    def tell(self, line: str) -> None:
        """Print a line and log it."""
        with contextlib.suppress(BrokenPipeError):  # whoever read is gone, the log is not
            print(line, flush=True)
        _append(self.path / LOG, line)

    def fact(self, name: str, value: Any) -> None:
        """Write a fact; of two with a name the later one counts."""
        _append(self.path / FACTS, json.dumps({"name": name, "value": value}))

    def facts(self) -> dict[str, Any]:
        """Each fact by its name; a line that a kill cut short is none."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / FACTS).read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    one = json.loads(line)
                    found[one["name"]] = one["value"]
        return found

    def write_table(self, text: str) -> None:
        """Write the predictions as far as they are known."""
        Storage.at(str(self.path / TABLE)).write(f"{text}\n".encode())


def _append(path: Path, line: str) -> None:
    """Add a line, after the half of one that a kill may have left."""
    with path.open("a+b") as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            file.write(b"\n")
        file.write(f"{line}\n".encode())
