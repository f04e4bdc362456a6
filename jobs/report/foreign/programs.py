"""Tables of programs whose columns have other meanings than their names say."""

import re
from dataclasses import replace

from jobs.report.foreign import energies, llama, optimum, units
from jobs.report.foreign.grid import Grid

# A time over a time: what its author meant are the units in the cells.
_TIME_OVER_TIME = re.compile(r"(ms|s|sec|us)/(ms|s|sec|second)", re.IGNORECASE)
_BENCHMARK = ("model", "batch_size", "sequence_length", "result")


def of_table(grid: Grid, name: str) -> Grid:
    """A table with plain names, where a program is known by its columns."""
    for reader in (optimum.of_table, llama.of_table, energies.of_table):
        if found := reader(grid):
            return found
    if grid.names == _BENCHMARK:
        return replace(grid, names=(*_BENCHMARK[:-1], result_of(grid, name)))
    names = tuple("latency" if _TIME_OVER_TIME.fullmatch(one) else one for one in grid.names)
    return replace(grid, names=names) if names != grid.names else grid


def result_of(grid: Grid, name: str) -> str:
    """What the results of transformers' benchmark are, each kind in a file of its own.

    Times are in s, with digits behind a point; memories are whole numbers of MB
    (transformers/benchmark/benchmark_utils.py, save_to_csv).
    """
    cells = [cells[-1] for _, cells in grid.lines if units.number_of(cells[-1])]
    whole = bool(cells) and not any("." in cell for cell in cells)
    return "memory (MB)" if "memory" in name.lower() or whole else "latency (s)"
