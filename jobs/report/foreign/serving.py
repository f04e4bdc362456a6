"""The report of vLLM's serving benchmark; SGLang's has its form.

A server forms its batches as requests come, so that its report has no batch size. Its place takes
how many requests were in flight on average: their rate times the mean time of one (Little's law).
"""

import re
from collections.abc import Mapping, Sequence

from jobs.report.foreign import units
from jobs.report.foreign.grid import Grid, gpu_above, of_pairs, written_in

_TITLE = re.compile(r"=\s*Serving Benchmark Result\s*=", re.IGNORECASE)
_FIRST = re.compile(r"^\W{0,9}Successful requests:")
_LINE = re.compile(r"\**\s*([A-Za-z][\w .()/,-]{2,60}?)\s*:\s*([\w.,+-]{1,40})[\s*]*")
_OPTION = re.compile(r"--(backend|model|dtype)[ =]['\"]?([\w./:-]{1,120})")
_MOST_LINES, _LONGEST = 20_000, 1_000  # lines of a text, and characters of one
_MOST_IN_FLIGHT = 1e6
_LEAST, _MOST = 1e-9, 1e15  # of a number that is no slip
_UNKNOWN_TYPES = {"auto"}


def of_report(rows: Sequence[str]) -> Grid | None:
    """The reports of a text, a line for each; None: there are none."""
    titles = (_TITLE, _FIRST)  # a report may be quoted without its title
    looked = [row[:_LONGEST] for row in rows[:_MOST_LINES]]
    found_by = ([at for at, row in enumerate(looked) if one.search(row)] for one in titles)
    begins = next(filter(None, found_by), [])
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
    left_out = written_in(rows[: begins[0]])
    what = "a serving benchmark's report"
    if any("batch_size" in cells for _, cells in found):
        what += ", whose batch is the mean number of requests in flight"
    return of_pairs(found, what, left_out) if found else None


def cells_of(about: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """What one report says, by names that a table would have."""
    number = {
        name: one.value
        for name, cell in told.items()
        if (one := units.number_of(cell)) and _LEAST < abs(one.value) < _MOST
    }
    requests = number.get("successful requests") or 0
    prompt, new = (
        round(number.get(name, 0) / requests) if requests else 0
        for name in ("total input tokens", "total generated tokens")
    )
    kind, whole = about.get("dtype", ""), time_of_one(number, new)
    cells = {
        "engine": told.get("backend") or about.get("backend") or "vllm",
        "model": about.get("model", ""),
        "precision": "" if kind in _UNKNOWN_TYPES else kind,
        "gpu": about.get("gpu", ""),
        "batch_size": in_flight(number, whole),
        "prompt_tokens": str(prompt or ""),
        "new_tokens": str(new or ""),
        "throughput (req/s)": told.get("request throughput (req/s)", ""),
    }
    for name in ("ttft (ms)", "tpot (ms)"):
        cells[name] = told.get(f"median {name}") or told.get(f"mean {name}", "")
    cells["latency (ms)"] = f"{whole:.6g}" if whole else ""
    return {name: cell for name, cell in cells.items() if cell}


def time_of_one(number: Mapping[str, float], new: int) -> float | None:
    """The mean time of a request in ms, or what its parts are together; None: it is not known.

    >>> time_of_one({"mean ttft (ms)": 170.0, "mean tpot (ms)": 10.0}, 64)
    800.0
    """
    for name in ("e2el (ms)", "e2e latency (ms)"):
        if whole := number.get(f"mean {name}") or number.get(f"median {name}"):
            return whole
    for statistic in ("mean", "median"):
        first, each = (number.get(f"{statistic} {name} (ms)") for name in ("ttft", "tpot"))
        if first is not None and each is not None and new:
            return first + each * (new - 1)
    return None


def in_flight(number: Mapping[str, float], whole: float | None) -> str:
    """How many requests a server worked on at a time, on average; empty: it is not known.

    >>> in_flight({"request throughput (req/s)": 8.1}, 4000.0)
    '32'
    """
    rate = number.get("request throughput (req/s)")
    if not whole or not rate or not 0 < (mean := whole / 1e3 * rate) < _MOST_IN_FLIGHT:
        return ""
    return str(max(1, round(mean)))
