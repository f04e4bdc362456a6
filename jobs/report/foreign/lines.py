"""Records of a table as cases, and how each name, unit and number was understood."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import decoders
from bench import matrix as matrices
from bench.asked import CPU, Workload
from bench.device import gpu_names
from bench.measured import Outcome
from jobs.report.facts import NO_PRECISION, NOT_SPECIFIED, WIKITEXT_2, Case
from jobs.report.foreign import agreement, names, runs, units
from jobs.report.foreign.columns import cell_unit
from jobs.report.foreign.grid import MOST_LINES
from jobs.report.foreign.headers import tags_in
from jobs.report.foreign.quantities import numbers_of
from jobs.report.foreign.runs import Line
from jobs.report.foreign.shape import Record, Shaped
from jobs.report.foreign.understood import Notes, Told, Unreadable
from jobs.report.foreign.unit_words import split
from jobs.report.words import gathered

UNKNOWN_MODEL = "unknown model"
_TEXTS = ("precision", "engine", "gpu", "model", "configuration")
_WHOLE = {
    "batch_size": (1, 1_048_576),
    "prompt_tokens": (1, 10_000_000),
    "new_tokens": (0, 10_000_000),
    "context": (1, 10_000_000),
    "gpu_count": (1, 1_000_000),
}
_OF_WORKLOAD = ("model", "engine", "batch_size", "prompt_tokens", "new_tokens", "attention")
_GROWTH, _FALL = 2.0, 0.6  # of the prompts, and of the time for each token over that
_OKAY = {"ok", "success", "succeeded", "passed", "pass", "done", "true", "yes", "completed", ""}
_FAILED = {str(one).upper() for one in Outcome if one != Outcome.OK} | {"INVALID", "ABORTED"}
_OUT_OF_MEMORY = ("oom", "out of memory")


def cases(shaped: Shaped, told: Told, gpu: str, notes: Notes) -> list[Case]:
    """The cases of the records, in their order; those that failed are cases too.

    Raises Unreadable where there are more than is read.
    """
    found: list[Line] = []
    names_of: tuple[str, ...] = ()
    for record in shaped.records():
        names_of = tuple(record.others)
        try:
            made = case_of(record, told, gpu, notes)
        except Unreadable as problem:
            notes.problems.append(f"line {record.line}, {problem}")
            continue
        if len(found) >= MOST_LINES:
            raise Unreadable(f"more than {MOST_LINES:,} measurements; split the table")
        if made is not None:
            others = tuple(map(units.plain, record.others.values()))
            tokens = tokens_beside(record, made, notes)
            column = record.cells["per_output_token_ms"][1].name if tokens else ""
            of = energy_of(record, made), units.plain(column), tokens
            found.append(Line(made, others, record.text("trial"), agreement.unsaid(record), *of))
    found = of_prompts(of_one_model(found), notes)
    found = with_cases(found, agreement.in_seconds([(x.case, x.unsaid) for x in found], notes))
    found = with_cases(found, agreement.of_batches([(x.case, x.energy_of) for x in found], notes))
    return runs.combined(found, names_of, shaped.labels, notes)


def case_of(record: Record, told: Told, gpu: str, notes: Notes) -> Case | None:
    """What a record says; None where its line is set aside."""
    tags = tags_of(record)
    precision = precision_of(record, tags, told, notes)
    workload, assumed = workload_of(record, tags, told, notes)
    facts: dict[str, Any] = {"precision": precision, "line": record.line, "assumed": assumed}
    name = gpu_of(record, tags, gpu, told, notes)
    facts |= {"text": WIKITEXT_2, "text_is_assumed": True, **of_gpu(name)}
    if written := record.text("text"):
        facts |= {"text": names.text_of(written), "text_is_assumed": False}
        notes.name(written, facts["text"])
    if written := record.text("energy_methods"):
        facts["energy_methods"] = (written,)
    context = whole(record, "context", tags, notes)
    facts |= {"context": context or told.context, "run": record.text("run")}
    notes.used |= {"context"} if context is None and told.context else set()
    numbers = numbers_of(record, workload, told, notes)
    failed, outcome = numbers.failure, record.text("outcome")
    said = units.failure(outcome) is not None or outcome.upper().replace(" ", "_") in _FAILED
    if outcome.lower() not in _OKAY:
        failed = f"{outcome}: {record.text('reason')}".rstrip(": ")
    if not names.is_measured(precision) and precision != NO_PRECISION:
        what = f"{precision} {'failed' if failed and not numbers.measured else 'set aside'}"
        notes.aside[what] = notes.aside.get(what, 0) + 1
        return None
    if failed is not None and (said or not numbers.measured):
        memory = any(word in failed.lower().replace("_", " ") for word in _OUT_OF_MEMORY)
        kind = Outcome.OUT_OF_MEMORY if memory else Outcome.FAILED
        facts |= {"outcome": kind, "reason": failed}
    facts |= numbers.facts
    if workload.new_tokens == 0 and numbers.decoding:
        if "prompt_tokens" in record.cells:  # which are no longer said by the workload
            facts["run"] = f"{facts['run']} {of_length(workload.prompt_tokens)}".strip()
        workload = replace(workload, prompt_tokens=1)
    return Case(workload=workload, foreign=True, **facts)


def of_one_model(found: Sequence[Line]) -> list[Line]:
    """The lines, whose model is no GPT-2 where a length of one of them is none of its."""
    if not any(line.case.workload.model == UNKNOWN_MODEL for line in found):
        return list(found)
    return [
        replace(
            line, case=replace(line.case, workload=replace(line.case.workload, model=UNKNOWN_MODEL))
        )
        if "model" in line.case.assumed
        else line
        for line in found
    ]


def with_cases(found: Sequence[Line], cases: Sequence[Case]) -> list[Line]:
    """The lines with other cases."""
    return [replace(line, case=case) for line, case in zip(found, cases, strict=True)]


def of_length(tokens: int) -> str:
    """How a run is called whose prompts have so many tokens."""
    return f"{tokens} tokens"


def tokens_beside(record: Record, case: Case, notes: Notes) -> int:
    """The tokens of the prompts beside a time for each token, of which nothing else is said."""
    if "per_output_token_ms" not in record.cells or case.workload.new_tokens:
        return 0
    if case.latency_ms != case.per_output_token_ms or "prompt_tokens" not in record.cells:
        return 0
    return whole(record, "prompt_tokens", {}, notes) or 0


def of_prompts(found: Sequence[Line], notes: Notes) -> list[Line]:
    """The lines, whose times for each token are of the prompts' where they fall with their length.

    A token that is generated takes no less time after a longer prompt; a forward pass of all
    tokens, divided by them, does.
    """
    asked = [line for line in found if line.token_of and line.case.per_output_token_ms]
    alike = gathered(asked, lambda one: (one.case.workload, one.case.precision, one.case.gpu))
    divided = {line.token_of for same in alike if is_divided(same) for line in same}
    notes.assumed |= dict.fromkeys(divided, "of the tokens of the prompts, as it falls with them")
    return [of_all_tokens(line) if line.token_of in divided else line for line in found]


def is_divided(same: Sequence[Line]) -> bool:
    """Whether a time for each token falls nearly as the prompts grow."""
    first, *_, last = sorted([*same, same[0]], key=lambda line: line.prompt_tokens)
    growth = last.prompt_tokens / first.prompt_tokens
    fall = (first.case.per_output_token_ms or 0) / (last.case.per_output_token_ms or math.inf)
    return growth >= _GROWTH and fall >= _FALL * growth


def of_all_tokens(line: Line) -> Line:
    """A line with the time of a forward pass of all its prompts."""
    case, tokens = line.case, line.prompt_tokens
    latency = (case.per_output_token_ms or 0) * tokens * case.workload.batch_size
    return replace(line, case=replace(
        case, latency_ms=latency, per_output_token_ms=None, latency_step_ms=None,
        run=case.run.removesuffix(of_length(tokens)).strip(),
        workload=replace(case.workload, prompt_tokens=tokens),
    ))  # fmt: skip


def energy_of(record: Record, case: Case) -> str:
    """The column of an energy that says neither of a prompt nor of a batch; empty: it does."""
    heading = record.cells["energy_mj"][1] if "energy_mj" in record.cells else None
    if heading is None or heading.per or case.workload.batch_size == 1 or not case.latency_ms:
        return ""
    ours = heading.name in ("energy_mj", "energy_per_sample_mj")  # of a prompt
    return "" if ours else units.plain(heading.name)


def tags_of(record: Record) -> dict[str, str]:
    """What the names in a line say besides what their columns are for: `PyTorch FP16`."""
    found: dict[str, str] = {}
    for label in _TEXTS:
        for axis, value in tags_of_text(record.text(label)):
            if axis not in record.cells:
                found.setdefault(axis, value)
    return found


@functools.lru_cache(10_000)
def tags_of_text(text: str) -> tuple[tuple[str, str], ...]:
    """What one name says."""
    return tuple(tags_in(split(units.plain(text)))[0].items()) if text else ()


def precision_of(record: Record, tags: Mapping[str, str], told: Told, notes: Notes) -> str:
    """The precision of a line, which may be one that tensorgap does not measure."""
    written = record.text("precision")
    if units.is_empty(written):
        if "precision" in tags:
            return tags["precision"]
        if told.precision:
            notes.used.add("precision")
            return told.precision
        return NO_PRECISION
    what = names.precision_in(names.words_of(units.plain(written)), alone=True).what
    if what:
        return notes.name(written, what)
    if near := near_precision(written):
        raise Unreadable(f"precision = {units.plain(written)}: did you mean {near}?")
    return units.plain(written)


@functools.lru_cache(10_000)
def near_precision(written: str) -> str | None:
    """The name of a precision that another was probably meant to be."""
    return names.nearest(written, [*names.PRECISION, "int8", "int4"])


def gpu_of(
    record: Record, tags: Mapping[str, str], above: str, told: Told, notes: Notes
) -> str | None:
    """The GPU of a line, as `on` takes it; None where nothing names it."""
    written = record.text("gpu") or tags.get("gpu", "") or above
    written = units.plain(written)
    if not written or units.is_empty(written) or gpu_names.is_unsaid(written):
        return None
    number = units.number_of(written)
    if cell_unit(written) or (number and number.rest in units.TIMES):  # of a ragged table
        return None
    count = whole(record, "gpu_count", tags, notes) or 1
    several = f"{count}x {written}" if count > 1 else ""
    return notes.name(written, several or shown(written))


@functools.lru_cache(10_000)
def shown(name: str) -> str:
    """A GPU as it is shown: its type, or its board where the name tells it.

    >>> shown("Tesla T4"), shown("NVIDIA A100-SXM4-40GB"), shown("MI250"), shown("Intel Xeon")
    ('T4', 'A100-SXM-40GB', 'MI250', 'CPU')
    """
    if name.upper() == CPU or gpu_names.is_cpu(name):
        return CPU
    if gpu_names.is_several(name):
        return name
    boards = gpu_names.boards(name)
    if not boards:
        return name
    kinds = {board.gpu_type for board in boards}
    if name.strip().upper() in {kind.upper() for kind in kinds} or len(boards) > 1:
        return gpu_names.finer_type(name, boards)
    (board,) = boards
    return board.name


def on(gpu: str, case: Case) -> Case:
    """The case on a GPU: a type (P100), a board (P100-PCIE), CPU, or a foreign name."""
    return replace(case, **of_gpu(gpu))


def of_gpu(gpu: str | None) -> dict[str, Any]:
    """The facts of a case that its GPU tells; None: it is not specified."""
    if gpu is None:
        return {"gpu": NOT_SPECIFIED, "gpu_type": None}
    boards = () if gpu_names.is_several(gpu) else gpu_names.boards(gpu)
    gpu_type, capability = (boards[0].gpu_type, boards[0].capability) if boards else (gpu, None)
    return {"gpu": gpu, "gpu_type": gpu_type, "boards": boards, "capability": capability}


def workload_of(
    record: Record, tags: Mapping[str, str], told: Told, notes: Notes
) -> tuple[Workload, frozenset[str]]:
    """The workload of a line, and which of its fields nothing says."""
    known: dict[str, Any] = {}
    if written := units.plain(record.text("model")):
        model = names.model_of(written) or without_tags(written)
        if not units.is_empty(written):
            known["model"] = notes.name(written, model)
    written = units.plain(record.text("engine"))
    if "engine" in record.cells and not units.is_empty(written):
        engine = names.engine_in(names.words_of(written)).what
        named = record.cells["engine"][1].name
        known["engine"] = (notes.name(written, engine) if named else engine) if engine else written
    elif "engine" in tags:
        known["engine"] = tags["engine"]
    if written := record.text("attention"):
        known["attention"] = written
    for name in ("batch_size", "prompt_tokens", "new_tokens"):
        if (value := whole(record, name, tags, notes)) is not None:
            known[name] = value
    for name in _OF_WORKLOAD:
        value = getattr(told, name, None)
        if value is not None and name not in known:
            known[name] = value
            notes.used.add(name)
    positions = matrices.positions_of(known.get("model", ""))
    length = known.get("prompt_tokens", 0) + known.get("new_tokens", 0)
    usual = "gpt2" if length <= decoders.SHAPES["gpt2"].positions else UNKNOWN_MODEL
    workload = Workload(**{"model": usual, **known})
    for name in ("prompt_tokens", "new_tokens"):
        if positions and name in known and known[name] > positions:
            raise Unreadable(f"{name} = {known[name]}: {workload.model} has {positions} positions")
    assumed = frozenset({"model", "engine", "batch_size", "prompt_tokens"} - known.keys())
    return workload, assumed


def without_tags(model: str) -> str:
    """The name of a model that is not known, without the precision and the batch beside it.

    >>> without_tags("Opset12, fp32, batch_size=32"), without_tags("Mistral-7B (8k)")
    ('Opset12', 'Mistral-7B (8k)')
    """
    parts = [part.strip() for part in model.split(",")]
    kept = [part for part in parts if tags_in(split(part))[1]]
    return ", ".join(kept) if kept else model


def whole(record: Record, name: str, tags: Mapping[str, str], notes: Notes) -> int | None:
    """A whole number of a line; None where there is none."""
    written = record.text(name) or tags.get(name, "")
    if units.is_empty(written):
        return None
    number = units.number_of(written)
    least, most = _WHOLE[name]
    column = record.cells[name][1].name if name in record.cells else name
    if number and name in ("prompt_tokens", "new_tokens") and 1 < number.value < most:
        if number.value % 1:
            notes.assumed[column] = "a mean length, in whole tokens"
        return round(number.value)
    if number is None or number.value != number.value or number.value % 1:
        raise Unreadable(f"{column} = {units.plain(written)[:40]}: must be a whole number")
    if not least <= number.value <= most:
        raise Unreadable(f"{column} = {number.value:g}: must be from {least} to {most:,}")
    return int(number.value)


def on_each(cases: Sequence[Case], gpus: Sequence[str]) -> list[Case]:
    """The cases; those of no GPU once on each of some, if there are any."""
    named = [case for case in cases if case.gpu_type]
    unnamed = [case for case in cases if not case.gpu_type]
    kinds = dict.fromkeys(shown(name) for name in gpus)
    return named + ([on(gpu, c) for gpu in kinds for c in unnamed] if kinds else unnamed)
