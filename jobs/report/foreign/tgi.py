"""The tables of TGI's text-generation-benchmark: a line for each step and batch.

Its prefill is the time to the first token; a table of parameters stands above, and one of rates
below (huggingface/text-generation-inference, benchmark/src/table.rs).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from jobs.report.foreign import units
from jobs.report.foreign.grid import Grid, of_pairs

_STEPS = {"step", "batch size", "average", "lowest", "highest"}
_PARAMETER = {"parameter", "value"}


def of_tables(grids: Sequence[Grid]) -> list[Grid]:
    """Tables, of which those of TGI's benchmark are one with a line for each batch."""
    names_of = [{*grid.plain_names} for grid in grids]
    if not any(names >= _STEPS for names in names_of):
        return list(grids)
    found: list[Grid] = []
    about: dict[str, str] = {}
    for grid, names in zip(grids, names_of, strict=True):
        if names == _PARAMETER:
            told = {cells[0].lower(): cells[1] for _, cells in grid.lines}
            about = {
                "model": told.get("model", ""),
                "prompt_tokens": told.get("sequence length", ""),
                "new_tokens": told.get("decode length", ""),
            }
            if not any(about.values()):
                found.append(grid)
        elif not names >= _STEPS:
            found.append(grid)
        elif "p50" in names:  # the table without one repeats it as rates
            found.append(of_steps(grid, about))
    return found


def of_steps(grid: Grid, about: Mapping[str, str]) -> Grid:
    """The steps of each batch in one line: prefill, each token, all tokens."""
    step, batch, median = (grid.plain_names.index(name) for name in ("step", "batch size", "p50"))
    by_batch: dict[str, tuple[int, dict[str, str]]] = {}
    now = ""
    for number, cells in grid.lines:
        now = cells[step].lower() or now
        by_batch.setdefault(cells[batch], (number, {}))[1][now] = cells[median]
    lines = [
        (number, dict(steps_of(size, steps, about))) for size, (number, steps) in by_batch.items()
    ]
    what = "TGI's benchmark, of which a prefill makes the first token"
    return replace(of_pairs(lines, what, grid.left_out, grid.gpu), title=grid.title)


def steps_of(
    batch: str, steps: Mapping[str, str], about: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The cells of one batch: a prefill alone is a forward pass over its prompts."""
    yield from (("engine", "tgi"), ("batch_size", batch))
    decoded = "decode (token)" in steps or "decode (total)" in steps
    known = {**about, "new_tokens": about.get("new_tokens", "") if decoded else "0"}
    yield from ((name, value) for name, value in known.items() if value)
    prefill, each = steps.get("prefill", ""), steps.get("decode (token)", "")
    if not decoded:
        yield "latency", prefill
        return
    yield from (("ttft", prefill), ("tpot", each))
    parts = [units.number_of(cell) for cell in (prefill, steps.get("decode (total)", ""))]
    if all(parts) and len({one.rest for one in parts if one}) == 1:
        unit = next(one.rest for one in parts if one)
        yield "latency", f"{sum(one.value for one in parts if one):.6g} {unit}"
