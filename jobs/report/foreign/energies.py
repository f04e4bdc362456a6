"""Energies over a time, in the form of codecarbon's emissions.csv and of zeus's measurements.

codecarbon appends a line at each flush, with all that a run has taken until then, so that its last
line counts (codecarbon/output_methods/file.py). zeus's `Measurement` has seconds, and J by GPU
(zeus/monitor/energy.py).
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from jobs.report.foreign.grid import Grid, gpu_above, of_pairs, written_in

_EMISSIONS = {"emissions", "energy_consumed", "duration", "run_id"}
_MEASUREMENT = re.compile(
    r"Measurement\(time=([\d.e+-]{1,30}), (?:gpu_)?energy=\{([^{}]{1,2000})\}", re.IGNORECASE
)
_OF_GPU = re.compile(r"(\d{1,4}): ([\d.e+-]{1,30})")
_LONGEST = 4_000  # characters of a line that are looked at


def of_table(grid: Grid) -> Grid | None:
    """The emissions.csv of codecarbon with the last line of each run; None: it is no such table."""
    if not set(grid.names) >= _EMISSIONS:
        return None
    at = grid.names.index("run_id")
    last = {cells[at] or str(number): number for number, cells in grid.lines}
    kept = set(last.values())
    if len(kept) == len(grid.lines) or "task_name" in grid.names:  # that of each task is its own
        return grid
    return replace(grid, lines=tuple(line for line in grid.lines if line[0] in kept))


def of_log(rows: Sequence[str]) -> Grid | None:
    """The measurements of zeus in a log, one for each GPU of each; None: there are none."""
    found = []
    lines = 0
    for number, row in enumerate(rows, start=1):
        if "Measurement(" not in row or not (told := _MEASUREMENT.search(row[:_LONGEST])):
            continue
        lines += 1
        gpus = _OF_GPU.findall(told[2])
        for index, joules in gpus:
            apart = {"configuration": f"GPU index {index}"} if len(gpus) > 1 else {}
            time = {"test duration (s)": told[1], "energy (J)": joules}
            found.append((number, {**apart, **time}))
    if not found:
        return None
    left_out = written_in(rows) - lines
    gpu = gpu_above(rows[: found[0][0]])
    return of_pairs(found, "zeus's measurements: J over s are W", left_out, gpu)
