"""Results of lm-eval: its JSON, and the tables of Markdown that it prints.

They have a perplexity for each task, per word, per byte, or of the last word (lambada). The line
above a printed table has the model: `hf (pretrained=gpt2,dtype=float16), gen_kwargs: (None), ...`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.errors import TensorgapError
from jobs.report.foreign import units
from jobs.report.foreign.grid import Grid, of_pairs
from jobs.report.foreign.optimum import at

METRICS = {
    "word_perplexity": "perplexity per word",
    "bits_per_byte": "bits per byte",
    "byte_perplexity": "perplexity per byte",
    "perplexity": "perplexity",
    "ppl": "perplexity",
}
_ONE_OF = ("perplexity per word", "bits per byte", "perplexity per byte")  # the first is read
_COLUMNS = {"tasks", "version", "metric", "value", "stderr"}
_ARGUMENT = re.compile(r"\b([a-z]\w{1,40})=([^,\s()]{1,200})")
_KIND = re.compile(r"([a-z][\w-]{0,30}) \((?=pretrained=|[a-z]\w*=)")
_UNKNOWN = ("", "None", "auto")
WITHOUT = "results of lm-eval without a perplexity: run its wikitext task"


def is_document(document: Mapping[str, Any]) -> bool:
    """Whether a document with results is lm-eval's: its metrics have a filter behind a comma."""
    metrics = (m for m in document["results"].values() if isinstance(m, Mapping))
    commas = any("," in str(name) or str(name) in METRICS for one in metrics for name in one)
    return commas or at(document, "config", "model_args") is not None


def of_document(document: Mapping[str, Any], name: str) -> list[Grid]:
    """Results of lm-eval's JSON: a line for each task that has a perplexity."""
    arguments = arguments_of(str(at(document, "config", "model_args") or ""))
    dtype = at(document, "config", "model_dtype") or arguments.get("dtype")
    about = about_of({**arguments, "dtype": str(dtype or "")}) | {
        "model": str(document.get("model_name") or arguments.get("pretrained") or ""),
        "context": str(document.get("max_length") or arguments.get("max_length") or ""),
    }
    tasks = [
        (str(task), {str(metric).partition(",")[0]: str(v) for metric, v in metrics.items()})
        for task, metrics in at(document, "results").items()
        if isinstance(metrics, Mapping)
    ]
    found = of_tasks(tasks, about)
    if not found:
        raise TensorgapError(f"{name}: {WITHOUT}")
    return found


def is_table(grid: Grid) -> bool:
    """Whether it is a table that lm-eval printed."""
    return {*grid.plain_names} >= _COLUMNS


def of_table(grid: Grid) -> list[Grid]:
    """A table that lm-eval printed: a line for each task that has a perplexity."""
    column = {name: index for index, name in enumerate(grid.plain_names)}
    tasks: list[tuple[str, dict[str, str]]] = []
    for _, cells in grid.lines:
        if cells[column["tasks"]] or not tasks:  # the further metrics of a task have no name
            tasks.append((cells[column["tasks"]].lstrip("- "), {}))
        tasks[-1][1].setdefault(cells[column["metric"]], cells[column["value"]])
    arguments = arguments_of(grid.title)
    kind = _KIND.search(grid.title[:500])
    about = {"engine": kind[1] if kind else "", **about_of(arguments)}
    found = of_tasks(tasks, about)
    lefts = [grid.left_out, *[0] * len(found)]
    return [replace(one, left_out=n, gpu=grid.gpu) for one, n in zip(found, lefts, strict=False)]


def arguments_of(told: str) -> dict[str, str]:
    """The arguments of a model in a line, as `--model_args` takes them.

    >>> arguments_of("hf (pretrained=gpt2,dtype=float16), limit: None")
    {'pretrained': 'gpt2', 'dtype': 'float16'}
    """
    return dict(_ARGUMENT.findall(told[:1000]))


def about_of(arguments: Mapping[str, str]) -> dict[str, str]:
    """Model, precision and context of the arguments of a model."""
    dtype = arguments.get("dtype", "")
    for option, name in (("load_in_8bit", "int8"), ("load_in_4bit", "int4")):
        dtype = name if arguments.get(option) == "True" else dtype
    return {
        "model": arguments.get("pretrained", ""),
        "precision": "" if dtype in _UNKNOWN else dtype,
        "context": arguments.get("max_length", ""),
    }


def of_tasks(
    tasks: Sequence[tuple[str, Mapping[str, str]]], about: Mapping[str, str]
) -> list[Grid]:
    """A line for each task that has a perplexity, in a table for each unit."""
    by_unit: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, (task, metrics) in enumerate(tasks, start=1):
        kept = {
            ours: metrics[theirs]
            for theirs, ours in METRICS.items()
            if theirs in metrics and units.number_of(metrics[theirs])
        }
        for other in others(kept):
            del kept[other]
        for unit, value in kept.items():
            known = {k: v for k, v in about.items() if v} | {"text": task, unit: value}
            by_unit.setdefault(unit, []).append((number, known))
    return [of_pairs(rows, "lm-eval's results") for rows in by_unit.values()]


def others(kept: Iterable[str]) -> list[str]:
    """The perplexities of a task that say what the first of them says.

    >>> others({"bits per byte": "0.9769", "perplexity per word": "37.37"})
    ['bits per byte']
    """
    return [name for name in _ONE_OF if name in kept][1:]
