"""What the tests of faults saw, one JSON line each, and the table of docs/reliability.md from them.

    TENSORGAP_FAULTS=faults.jsonl python -m pytest tests     # each test of a fault adds its line
    python tests/faults_record.py faults.jsonl               # writes them into the table

A line is the fields of `Seen`. Of several lines for one fault and place the last one counts; what a
record does not have keeps its line in the table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
ONE_HOST = "nodes on one host"
HOSTS = "hosts of their own"  # network namespaces

# Every fault that a test makes, in the order of the table.
FAULTS = {
    "process killed": "SIGKILL to the measuring process, as the kernel's memory killer sends it",
    "killed while it loads": "the same, between the fork of a process and its first sample",
    "template killed": "SIGKILL to the process of the node that forks what measures",
    "process hangs": "SIGSTOP, which looks like native code that never returns",
    "killed for memory": "Ray's memory monitor ends the process",
    "out of memory": "the device has less memory than the workload needs",
    "GPU lost": "the driver says that the GPU fell off the bus",
    "raylet killed": "SIGKILL to Ray's daemon on the node",
    "driver killed": "SIGKILL to `tensorgap sweep`, then `--resume`",
    "Ctrl-C": "once: the running cells are finished",
    "Ctrl-C twice": "what runs is stopped at once",
    "SIGTERM to all": "to each process of a sweep, Ray's too, as Slurm ends a job",
    "head lost": "the head's GCS process is killed",
    "disk full": "no row can be written",
    "bucket fails": "the object store answers with errors for a while",
    "host gone": "a host is switched off",
    "link cut for 5 s": "no packet passes between a host and the head",
    "link cut": "the same, for good",
    "host back": "a host that was gone joins again",
    "head restarted": "the head goes away and a new one comes",
}
_HEADER = "| fault | where | noticed after | what the rows say |\n| --- | --- | --- | --- |\n"
_WIDTH = 180  # of what the rows say
_BEGIN, _END = "<!-- faults -->\n", "<!-- /faults -->\n"


@dataclass(frozen=True)
class Seen:
    """One fault as a test saw it."""

    fault: str  # a key of FAULTS
    where: str
    noticed_s: float | None  # from the fault until the driver acted; None where nothing is lost
    rows: str  # outcome and reason, or what was kept

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"{self.fault}: add it to FAULTS")


def note(fault: str, noticed_s: float | None, rows: str, where: str = ONE_HOST) -> None:
    """Add a line to the record that TENSORGAP_FAULTS names; without it, only check the name."""
    line = json.dumps(dataclasses.asdict(Seen(fault, where, noticed_s, rows)))
    record = os.environ.get("TENSORGAP_FAULTS")
    if record:
        with Path(record).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def table(page: str) -> dict[tuple[str, str], str]:
    """The lines of the page's table, by fault and place."""
    inside = page.partition(_BEGIN)[2].partition(_END)[0].removeprefix(_HEADER)
    lines = inside.splitlines(keepends=True)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {(cell[1], cell[2]): line for cell, line in zip(cells, lines, strict=True)}


def written(page: str, seen: list[Seen]) -> str:
    """The page with a table that has what was seen."""
    lines = table(page)
    for one in seen:
        noticed = "-" if one.noticed_s is None else f"{one.noticed_s:.1f} s"
        rows = textwrap.shorten(one.rows, _WIDTH, placeholder=" ...").replace("|", "/")
        lines[one.fault, one.where] = f"| {one.fault} | {one.where} | {noticed} | {rows} |\n"
    order = list(FAULTS)
    kept = sorted((key for key in lines if key[0] in order), key=lambda k: (order.index(k[0]), k))
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}{_HEADER}{''.join(lines[key] for key in kept)}{_END}{after}"


if __name__ == "__main__":
    records = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    found = [Seen(**json.loads(line)) for line in records]
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
