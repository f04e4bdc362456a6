"""Tables of programs whose columns have other meanings than their names say."""

import re
from dataclasses import replace

from jobs.report.foreign import energies, llama, optimum, units
from jobs.report.foreign.grid import Grid

# A time over a time: what its author meant are the units in the cells.
_TIME_OVER_TIME = re.compile(r"(ms|s|sec|us)/(ms|s|sec|second)", re.IGNORECASE)
_MODEL_BATCH_TOKENS = re.compile(r"(\S{1,100})/(\d{1,6})/(\d{1,6})")
_BENCHMARK = ("model", "batch_size", "sequence_length", "result")


def of_table(grid: Grid, name: str) -> Grid:
    """A table with plain names, where a program is known by its columns."""
    for reader in (optimum.of_table, llama.of_table, energies.of_table):
        if found := reader(grid):
            return found
    if grid.names == _BENCHMARK:
        return replace(grid, names=(*_BENCHMARK[:-1], result_of(grid, name)))
    if grid.names[:1] == ("configuration",) and (found := of_benchmark_lines(grid)):
        return found
    names = tuple("latency" if _TIME_OVER_TIME.fullmatch(one) else one for one in grid.names)
    return replace(grid, names=names) if names != grid.names else grid


def of_benchmark_lines(grid: Grid) -> Grid | None:
    """The lines `bert-base-cased/8/128: 0.07s` of transformers' benchmark: model, batch, tokens."""
    parts = [_MODEL_BATCH_TOKENS.fullmatch(cells[0].strip()) for _, cells in grid.lines]
    found = [part for part in parts if part]
    if len(found) < len(parts) or not found:
        return None
    lines = tuple(
        (number, (*part.groups(), *cells[1:]))
        for part, (number, cells) in zip(found, grid.lines, strict=True)
    )
    return replace(grid, names=(*_BENCHMARK[:-1], *grid.names[1:]), lines=lines)


def result_of(grid: Grid, name: str) -> str:
    """What the results of transformers' benchmark are, each kind in a file of its own.

    Times are in s, with digits behind a point; memories are whole numbers of MB
    (transformers/benchmark/benchmark_utils.py, save_to_csv).
    """
    cells = [cells[-1] for _, cells in grid.lines if units.number_of(cells[-1])]
    whole = bool(cells) and not any("." in cell for cell in cells)
    return "memory (MB)" if "memory" in name.lower() or whole else "latency (s)"
