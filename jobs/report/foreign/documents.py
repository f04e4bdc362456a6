"""JSON of other programs as grids: optimum-benchmark, lm-eval, and lists of flat records.

optimum-benchmark writes `benchmark.json` with config and report, or `benchmark_report.json` beside
`benchmark_config.json`; energies and latencies are of one call with a batch
(huggingface/optimum-benchmark, scenarios/inference/scenario.py). lm-eval's results have a
perplexity for each task, per word, per byte, or of the last word (lambada).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import TensorgapError
from bench.files import limits
from jobs.report.foreign.grid import Grid

_CONFIG = "benchmark_config.json"
_SECTIONS = ("forward", "generate", "call")
_STATISTICS = ("p50", "mean")
_MOST_RECORDS = 100_000
_DEEPEST, _LONGEST = 3, 500  # levels of nested records, characters of a value


def grids(text: str, name: str, place: str) -> list[Grid]:
    """The grids of a JSON document; none where it is no JSON.

    Raises TensorgapError where it is JSON that is not known.
    """
    begin = text.lstrip()[:1]
    if begin not in ("{", "["):
        return []
    try:
        told = [json.loads(text)]
    except (ValueError, RecursionError):
        told = lines_of(text)
        if not told:
            if place.lower().endswith(".json"):
                raise TensorgapError(f"{name}: not readable as JSON") from None
            return []
    document = told[0] if len(told) == 1 else told
    if isinstance(document, Mapping):
        if isinstance(report := document.get("report"), Mapping):
            return [of_optimum(document.get("config"), report, name)]
        if any(isinstance(document.get(section), Mapping) for section in (*_SECTIONS, "prefill")):
            return [of_optimum(config_beside(place), document, name)]
        results = document.get("results")
        if isinstance(results, Mapping) and is_lm_eval(document):
            return [of_lm_eval(document, name)]
        about = {k: v for k, v in document.items() if isinstance(v, str | int | float | bool)}
        records = next((v for v in document.values() if is_records(v)), None)
        records = records or by_name(results) or by_name(document)
        document = [{**about, **one} for one in records] if records else [document]
    if is_records(document):
        return [of_records(document)]
    raise TensorgapError(
        f"{name}: JSON that is not known; read are optimum-benchmark's reports, lm-eval's"
        " results, and"
        " lists of records with a name for each number"
    )


def lines_of(text: str) -> list[Any]:
    """The documents of JSON lines; none where a line is no JSON."""
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return []


def is_records(value: Any) -> bool:
    """Whether it is a list of flat records."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_RECORDS
        and all(isinstance(one, Mapping) and one for one in value)
    )


def by_name(document: Any) -> list[Mapping[str, Any]] | None:
    """The records of a document that has one under each name: `{"fp32": {...}, "fp16": {...}}`."""
    if not isinstance(document, Mapping):
        return None
    named = {name: one for name, one in document.items() if isinstance(one, Mapping) and one}
    if len(named) < 2 or len({frozenset(one) for one in named.values()}) == len(named):
        return None
    return [{"configuration": name, **one} for name, one in named.items()]


def of_records(records: list[Mapping[str, Any]]) -> Grid:
    """A line for each record, whose nested records are flattened with a dot."""
    flat = [dict(flattened(record)) for record in records]
    names = tuple(dict.fromkeys(name for record in flat for name in record))
    lines = tuple(
        (number, tuple(record.get(name, "") for name in names))
        for number, record in enumerate(flat, start=1)
    )
    return Grid(names, lines, "JSON records")


def flattened(
    record: Mapping[str, Any], before: str = "", depth: int = _DEEPEST
) -> Iterator[tuple[str, str]]:
    """The values of a record as texts, of nested records under a name with dots."""
    for name, value in record.items():
        if isinstance(value, Mapping) and depth:
            yield from flattened(value, f"{before}{name}.", depth - 1)
        else:
            yield f"{before}{name}", "" if value is None else str(value)[:_LONGEST]


def one_line(cells: Mapping[str, Any], what: str) -> Grid:
    """A grid of a single line."""
    known = {name: str(value) for name, value in cells.items() if value not in (None, "")}
    return Grid(tuple(known), ((1, tuple(known.values())),), what)


def at(document: Any, *path: str) -> Any:
    """What stands in nested mappings; None where there is nothing."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def config_beside(place: str) -> Any:
    """The configuration of an optimum-benchmark report, from the file beside it."""
    path = Path(place).with_name(_CONFIG)
    try:
        return json.loads(limits.read_file(str(path), limits.small(str(path))))
    except (OSError, ValueError, RecursionError):
        return None


def of_optimum(config: Any, report: Mapping[str, Any], name: str) -> Grid:
    """A report of optimum-benchmark: the call that it timed, with its energy and its memory."""
    section = next((s for s in _SECTIONS if isinstance(at(report, s, "latency"), Mapping)), None)
    if section is None:
        section = next((s for s in _SECTIONS if isinstance(report.get(s), Mapping)), "prefill")
    latency = at(report, section, "latency")
    median = next((v for s in _STATISTICS if (v := at(latency, s)) is not None), None)
    if section == "prefill" and at(report, "decode", "latency"):
        decode = at(report, "decode", "latency")
        more = next((v for s in _STATISTICS if (v := at(decode, s)) is not None), None)
        median = median + more if median is not None and more is not None else median
    energy, memory = at(report, section, "energy"), at(report, section, "memory")
    if at(config, "scenario", "name") not in (None, "inference"):
        energy = None  # of a whole data set
    dtype = at(config, "backend", "torch_dtype") or at(config, "backend", "dtype")
    if at(config, "backend", "autocast_enabled"):
        dtype = f"amp {at(config, 'backend', 'autocast_dtype') or ''}"
    quantized = at(config, "backend", "quantization_scheme")
    compiled = at(config, "backend", "torch_compile")
    device = at(config, "backend", "device")
    gpu = at(config, "environment", "gpu")
    gpus = gpu if isinstance(gpu, list) else [gpu] if gpu else []
    shapes = at(config, "scenario", "input_shapes") or at(config, "benchmark", "input_shapes")
    generating = section != "forward"
    new = at(config, "scenario", "generate_kwargs", "max_new_tokens") if generating else None
    named = str(gpus[0]) if len(gpus) == 1 else f"{len(gpus)}x{gpus[0]}" if gpus else None
    cells = {
        "model": at(config, "backend", "model"),
        "gpu": "CPU" if device == "cpu" else named,
        "engine": "compile" if compiled else at(config, "backend", "name"),
        "precision": quantized or dtype or ("float32" if config else None),
        "batch_size": at(shapes, "batch_size"),
        "prompt_tokens": at(shapes, "sequence_length"),
        "new_tokens": new,
        f"latency ({at(latency, 'unit') or 's'})": median,
        f"energy per batch ({at(energy, 'unit') or 'kWh'})": at(energy, "gpu"),
        "energy_method": "power, sampled by codecarbon" if at(energy, "gpu") else None,
        f"memory ({at(memory, 'unit') or 'MB'})": at(memory, "max_allocated"),
    }
    if median is None and at(energy, "gpu") is None:
        raise TensorgapError(
            f"{name}: a report of optimum-benchmark without a latency or an energy"
        )
    return one_line(cells, f"optimum-benchmark's {section}")


def is_lm_eval(document: Mapping[str, Any]) -> bool:
    """Whether a document with results is lm-eval's: its metrics have a filter behind a comma."""
    metrics = (m for m in document["results"].values() if isinstance(m, Mapping))
    commas = any("," in str(name) or str(name) in _METRICS for one in metrics for name in one)
    return commas or at(document, "config", "model_args") is not None


def of_lm_eval(document: Mapping[str, Any], name: str) -> Grid:
    """Results of lm-eval: a line for each task that has a perplexity."""
    arguments = str(at(document, "config", "model_args") or "")
    told = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    dtype = at(document, "config", "model_dtype") or told.get("dtype")
    about = {
        "model": document.get("model_name") or told.get("pretrained"),
        "precision": None if dtype in (None, "auto", "None") else dtype,
        "context": document.get("max_length"),
    }
    rows = []
    for task, metrics in at(document, "results").items():
        if not isinstance(metrics, Mapping):
            continue
        found = {str(metric).partition(",")[0]: value for metric, value in metrics.items()}
        kept = {
            ours: found[theirs]
            for theirs, ours in _METRICS.items()
            if isinstance(found.get(theirs), int | float)
        }
        if "perplexity per word" in kept:
            kept.pop("bits per byte", None)
        if kept:
            rows.append({**about, "text": task, **kept})
    if not rows:
        raise TensorgapError(
            f"{name}: results of lm-eval without a perplexity: run its wikitext task"
        )
    names = [
        n for n in dict.fromkeys(n for row in rows for n in row) if any(r.get(n) for r in rows)
    ]
    lines = tuple(
        (number, tuple(str(row.get(n) or "") for n in names)) for number, row in enumerate(rows, 1)
    )
    return Grid(tuple(names), lines, "lm-eval's results")


_METRICS = {
    "word_perplexity": "perplexity per word",
    "bits_per_byte": "bits per byte",
    "perplexity": "perplexity",
    "ppl": "perplexity",
}
