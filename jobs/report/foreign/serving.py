"""The report of vLLM's serving benchmark; SGLang's has its form.

A server forms its batches as requests come, so that its report has no batch size. Its place takes
how many requests were in flight on average: their rate times the mean time of one (Little's law).
"""

import re
from collections.abc import Mapping, Sequence

from jobs.report.foreign import units
from jobs.report.foreign.grid import Grid, gpu_above, of_pairs

_TITLE = re.compile(r"=\s*Serving Benchmark Result\s*=", re.IGNORECASE)
_LINE = re.compile(r"\**\s*([A-Za-z][\w .()/,-]{2,60}?)\s*:\s*([\w.+-]{1,40})[\s*]*")
_OPTION = re.compile(r"--(backend|model|dtype)[ =]['\"]?([\w./:-]{1,120})")
_MOST_LINES, _LONGEST = 20_000, 1_000  # lines of a text, and characters of one
_UNKNOWN_TYPES = {"auto"}


def of_report(rows: Sequence[str]) -> Grid | None:
    """The reports of a text, a line for each; None: there are none."""
    begins = [at for at, row in enumerate(rows[:_MOST_LINES]) if _TITLE.search(row[:_LONGEST])]
    if not begins:
        return None
    found = []
    last = 0
    about: dict[str, str] = {}
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        above = rows[last:begin]
        about |= {k: v for row in above for k, v in _OPTION.findall(row[:_LONGEST])}
        about["gpu"] = gpu_above(above) or about.get("gpu", "")
        told: dict[str, str] = {}
        for row in rows[begin:end]:
            if line := _LINE.fullmatch(row.strip()[:_LONGEST]):
                told.setdefault(line[1].lower(), line[2])
        found.append((begin + 1, cells_of(about, told)))
        last = begin
    found = [(number, cells) for number, cells in found if "throughput (req/s)" in cells]
    left_out = sum(bool(row.strip()) for row in rows[: begins[0]])
    what = "a serving benchmark's report, whose batch is the mean number of requests in flight"
    return of_pairs(found, what, left_out) if found else None


def cells_of(about: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """What one report says, by names that a table would have."""
    number = {name: one.value for name, cell in told.items() if (one := units.number_of(cell))}
    requests = number.get("successful requests") or 0
    prompt, new = (
        round(number.get(name, 0) / requests) if requests else 0
        for name in ("total input tokens", "total generated tokens")
    )
    kind = about.get("dtype", "")
    cells = {
        "engine": told.get("backend") or about.get("backend") or "vllm",
        "model": about.get("model", ""),
        "precision": "" if kind in _UNKNOWN_TYPES else kind,
        "gpu": about.get("gpu", ""),
        "batch_size": in_flight(number, new),
        "prompt_tokens": str(prompt or ""),
        "new_tokens": str(new or ""),
        "throughput (req/s)": told.get("request throughput (req/s)", ""),
    }
    for name in ("ttft (ms)", "tpot (ms)"):
        cells[name] = told.get(f"median {name}") or told.get(f"mean {name}", "")
    for name in ("e2el (ms)", "e2e latency (ms)"):
        cells["latency (ms)"] = told.get(f"mean {name}") or cells.get("latency (ms)", "")
    return {name: cell for name, cell in cells.items() if cell}


def in_flight(number: Mapping[str, float], new: int) -> str:
    """How many requests a server worked on at a time, on average; empty: it is not known.

    >>> in_flight({"mean e2el (ms)": 4000.0, "request throughput (req/s)": 8.1}, 128)
    '32'
    """
    whole = number.get("mean e2el (ms)") or number.get("mean e2e latency (ms)")
    first, each = number.get("mean ttft (ms)"), number.get("mean tpot (ms)")
    if whole is None and first is not None and each is not None and new:
        whole = first + each * (new - 1)
    rate = number.get("request throughput (req/s)")
    if not whole or not rate or not 0 < (mean := whole / 1e3 * rate) < 1e6:
        return ""
    return str(max(1, round(mean)))
