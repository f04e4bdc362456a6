"""Which lines of a table are runs of one thing, and what tells the others apart."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.measured import Outcome
from bench.text.published import TOKEN
from jobs.report.facts import NO_PRECISION, Case
from jobs.report.foreign import names, units
from jobs.report.foreign.agreement import Pair
from jobs.report.foreign.headers import tags_in
from jobs.report.foreign.understood import Notes
from jobs.report.foreign.vocabulary import FILLER
from jobs.report.words import gathered

_OF_RUNS = (
    "latency_ms", "throughput_per_s", "tokens_per_s", "first_token_ms", "mean_w", "idle_w",
    "per_output_token_ms", "energy_mj", "energy_per_token_mj", "perplexity", "memory_mb",
)  # fmt: skip
_VERSION = re.compile(r"[\d.]+")
_MOST_OF_RUNS = 1.5  # times, between the least and the most of runs of one thing


@dataclass(frozen=True, slots=True)
class Line:
    """A case, and what else its line says.

    Attributes:
        others: Of columns that name a configuration, or are not understood.
        trial: Of its run.
        unsaid: Which columns leave their unit open.
        energy_of: The column of its energy, where that says neither of a prompt nor of a batch.
        token_of: The column of a time for each token, where the line says only how many tokens its
            prompts have; `prompt_tokens` are these.
    """

    case: Case
    others: tuple[str, ...]
    trial: str
    unsaid: Pair
    energy_of: str
    token_of: str = ""
    prompt_tokens: int = 0


def combined(
    found: Sequence[Line], columns: Sequence[str], labels: Mapping[str, str], notes: Notes
) -> list[Case]:
    """Each thing once, of which several lines are runs."""
    texts = len({line.case.text for line in found}) > 1
    # Without a precision the lines of a log are not runs of one thing.
    log = all(line.case.precision == NO_PRECISION for line in found)
    if texts or (log and any(line.trial for line in found)):
        found = [marked(line, line.case.text if texts else line.trial) for line in found]
    limits = {line.case.power_limit_w for line in found if line.case.power_limit_w}
    if len(limits) > 1:
        limit_of = [line.case.power_limit_w for line in found]
        marks = [f"{limit:g} W limit" if limit else "" for limit in limit_of]
        found = [marked(line, mark) for line, mark in zip(found, marks, strict=True)]
    for place, column in enumerate(columns):
        if labels.get(column) == "precision":
            found = of_conditions(found, place)
        elif column in labels:
            what = "" if labels[column] == "engine" else f"{units.plain(column)}="
            found = of_programs(found, place, what)
    return [
        median_of([line.case for line in same]) for same in apart(found, columns, labels, notes)
    ]


def of_programs(found: Sequence[Line], place: int, what: str) -> list[Line]:
    """The lines, marked where names of one program differ by more than version or precision.

    `TORCH` and `TORCH_FUSED` are not one program, nor are `WebGPU (ONNX)` and `ONNX Runtime`.
    """
    extra = [residue(line.others[place]) for line in found]
    by_engine: dict[str, set[str]] = {}
    for line, words in zip(found, extra, strict=True):
        by_engine.setdefault(line.case.workload.engine, set()).add(words)
    return [
        marked(line, f"{what}{line.others[place]}")
        if words and len(by_engine[line.case.workload.engine]) > 1
        else line
        for line, words in zip(found, extra, strict=True)
    ]


def of_conditions(found: Sequence[Line], place: int) -> list[Line]:
    """The lines, marked by what stands beside a precision where it tells lines of one apart.

    `fp32 eager attention` and `fp32 flash attention` are no runs of one thing.
    """
    extra = [residue(line.others[place]) for line in found]
    by_key: dict[object, set[str]] = {}
    for line, words in zip(found, extra, strict=True):
        by_key.setdefault(key_of(line), set()).add(words)
    if all(len(words) == 1 for words in by_key.values()):
        return list(found)
    return [marked(line, words) for line, words in zip(found, extra, strict=True)]


def residue(name: str) -> str:
    """What a name says besides precision, GPU, engine, batch size and length.

    >>> residue("TORCH_FUSED"), residue("PyTorch FP16"), residue("PyTorch 2.1 (bs=8)")
    ('fused', '', '')
    """
    _, rest = tags_in(list(names.words_of(name)))
    return " ".join(word for word in rest if word not in FILLER and not _VERSION.fullmatch(word))


def apart(
    found: Sequence[Line], columns: Sequence[str], labels: Mapping[str, str], notes: Notes
) -> list[list[Line]]:
    """The lines of each thing, told apart by names, and by columns that are not understood.

    A name always tells. Another column does where some lines share its values and it tells all
    lines of one thing apart, or where these differ by more than runs do: a date tells nothing.
    """
    by_key = gathered(found, key_of)
    for place, column in enumerate(columns):
        several = [same for same in by_key if len(same) > 1]
        if not several:
            break
        values = [len({line.others[place] for line in same}) for same in several]
        if max(values) == 1 or labels.get(column) == "precision":
            continue
        full = any(count == len(same) for count, same in zip(values, several, strict=True))
        distinct = len({line.others[place] for line in found})
        usual = full and distinct < len(found) and not any(c in notes.renamed for c in columns)
        if column in labels or usual or not all(map(is_alike, several)):
            name = units.plain(column)
            found = [marked(line, f"{name}={line.others[place]}") for line in found]
            by_key = gathered(found, key_of)
            notes.renamed[column] = "tells lines apart"
    notes.runs = max(map(len, by_key), default=1)
    return by_key


def is_alike(same: Sequence[Line]) -> bool:
    """Whether lines differ no more than runs of one thing do."""
    return all(max(values) <= _MOST_OF_RUNS * min(values) for values in numbers_of(same))


def numbers_of(same: Sequence[Line]) -> Iterator[list[float]]:
    """What several lines measured, by quantity."""
    for name in _OF_RUNS:
        values = [v for line in same if (v := getattr(line.case, name)) is not None]
        if values:
            yield values


def marked(line: Line, mark: str | None) -> Line:
    """A line whose run has a mark, which tells it apart from others."""
    run = f"{line.case.run} {mark or ''}".strip()
    return replace(line, case=replace(line.case, run=run))


def key_of(line: Line) -> object:
    """What two lines have in common that are runs of one thing."""
    case = line.case
    unit = case.perplexity_unit if case.perplexity else TOKEN
    return case.key, case.precision, unit


def median_of(runs: Sequence[Case]) -> Case:
    """One case of some runs of it: the median of each number; those that failed are left out."""
    okay = [case for case in runs if case.outcome == Outcome.OK] or list(runs[:1])
    first = okay[0]
    if len(okay) == 1:
        return first
    medians = {
        name: statistics.median(values)
        for name in _OF_RUNS
        if (values := [v for case in okay if (v := getattr(case, name)) is not None])
    }
    return replace(first, replicates=tuple(range(len(okay))), **medians)
