"""Reports of optimum-benchmark: JSON with its configuration, or a CSV of many, such as llm-perf's.

Latencies and energies are of one call with a batch (huggingface/optimum-benchmark,
scenarios/inference/scenario.py). Its data frames, and the CSVs of the llm-perf leaderboard, have a
column for each value, under its path: `config.backend.torch_dtype`, `report.decode.latency.p50`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import TensorgapError
from jobs.report.foreign.grid import Grid, of_pairs

_SECTIONS = ("forward", "generate", "call")
_STATISTICS = ("p50", "mean")
_QUOTED = re.compile(r"'([^']*)'")
_NOTHING = ("", "nan", "NaN", "None", "[]", "{}")
_ROOTS = ("config", "report")


def at(document: Any, *path: str) -> Any:
    """What stands in nested mappings; None where there is nothing."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def is_report(document: Mapping[str, Any]) -> bool:
    """Whether a document without a configuration is such a report."""
    return any(isinstance(document.get(one), Mapping) for one in (*_SECTIONS, "prefill"))


def of_document(config: Any, report: Mapping[str, Any], name: str) -> Grid:
    """A grid of one report; TensorgapError where it has neither a latency nor an energy."""
    timed = sections(report)
    cells = cells_of(config, report, timed)
    if not any(key.startswith(("latency", "energy per")) for key in cells):
        raise TensorgapError(
            f"{name}: a report of optimum-benchmark without a latency or an energy"
        )
    what = f"optimum-benchmark's {' and '.join(timed)}"
    return Grid(tuple(cells), ((1, tuple(cells.values())),), what)


def of_table(table: Grid) -> Grid | None:
    """A grid with a line for each report of a data frame; None: it is no such table."""
    paths = {name: name.split(".") for name in table.names}
    roots = {path[0] for path in paths.values() if len(path) > 2}
    if not roots.issuperset(_ROOTS):
        return None
    found = []
    for number, cells in table.lines:
        whole = nested([(paths[n], c) for n, c in zip(table.names, cells, strict=True)])
        config, report = (whole.get(root) or {} for root in _ROOTS)
        one = cells_of(config, report, sections(report))
        if not any(key.startswith("latency") for key in one):
            told = str(at(report, "traceback"))
            one["latency (s)"] = "OOM" if "out of memory" in told else "failed"
        found.append((number, one))
    return of_pairs(found, "reports of optimum-benchmark", table.left_out, table.gpu)


def nested(cells: Sequence[tuple[Sequence[str], str]]) -> dict[str, Any]:
    """Mappings in mappings of values under their paths; what is empty is left out.

    >>> nested([(["config", "backend", "name"], "pytorch"), (["report", "error"], "nan")])
    {'config': {'backend': {'name': 'pytorch'}}}
    """
    whole: dict[str, Any] = {}
    for path, cell in cells:
        if cell.strip() in _NOTHING:
            continue
        inner = whole
        for name in path[:-1]:
            following = inner.setdefault(name, {})
            if not isinstance(following, dict):
                break
            inner = following
        else:
            inner.setdefault(path[-1], cell.strip())
    return whole


def sections(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a report is one call: its forward pass, or the two parts of generating."""
    for wanted in ("latency", "energy"):
        for section in _SECTIONS:
            if isinstance(at(report, section, wanted), Mapping):
                return (section,)
    return ("prefill", "decode") if at(report, "decode") else ("prefill",)


def cells_of(config: Any, report: Mapping[str, Any], timed: Sequence[str]) -> dict[str, str]:
    """What a report says, by names that a table would have."""
    latencies = [median_of(at(report, section, "latency")) for section in timed]
    energies = [number(at(report, section, "energy", "gpu")) for section in timed]
    memories = [number(at(report, section, "memory", "max_allocated")) for section in timed]
    latency_s, energy = in_all(latencies), in_all(energies)
    if at(config, "scenario", "name") not in (None, "inference"):
        energy = None  # of a whole data set
    dtype = at(config, "backend", "torch_dtype") or at(config, "backend", "dtype")
    if str(at(config, "backend", "autocast_enabled")) not in ("None", "False", "0"):
        dtype = f"amp {at(config, 'backend', 'autocast_dtype') or ''}"
    compiled = str(at(config, "backend", "torch_compile")) not in ("None", "False", "0")
    shapes = at(config, "scenario", "input_shapes") or at(config, "benchmark", "input_shapes")
    generating = timed[0] != "forward" and not (timed == ("prefill",) and "prefill" in report)
    units = {what: at(report, timed[0], what, "unit") for what in ("latency", "energy", "memory")}
    cells = {
        "model": at(config, "backend", "model"),
        "gpu": gpu_of(config),
        "engine": "compile" if compiled else at(config, "backend", "name"),
        "precision": at(config, "backend", "quantization_scheme")
        or dtype
        or ("float32" if config else None),
        "batch_size": at(shapes, "batch_size"),
        "prompt_tokens": at(shapes, "sequence_length"),
        "new_tokens": at(config, "scenario", "generate_kwargs", "max_new_tokens")
        if generating
        else None,
        f"latency ({units['latency'] or 's'})": latency_s,
        f"energy per batch ({units['energy'] or 'kWh'})": energy,
        "energy_methods": None if energy is None else "power, sampled by codecarbon",
        f"memory ({units['memory'] or 'MB'})": max(filter(None, memories), default=None),
    }
    return {name: str(value) for name, value in cells.items() if value not in (None, "")}


def median_of(latency: Any) -> float | None:
    """The median of a latency, else its mean."""
    return next((v for one in _STATISTICS if (v := number(at(latency, one))) is not None), None)


def number(value: Any) -> float | None:
    """A number out of JSON or a cell; None: there is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def in_all(parts: Sequence[float | None]) -> float | None:
    """The sum of the parts of a call; None: a part was not measured."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def gpu_of(config: Any) -> str | None:
    """The device of a configuration; several GPUs are told by their number."""
    if at(config, "backend", "device") == "cpu":
        return "CPU"
    gpu = at(config, "environment", "gpu")
    if isinstance(gpu, str):
        gpu = _QUOTED.findall(gpu) or [gpu]
    gpus = gpu if isinstance(gpu, list) else []
    if not gpus:
        return None
    return str(gpus[0]) if len(gpus) == 1 else f"{len(gpus)}x{gpus[0]}"
