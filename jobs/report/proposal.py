"""The matrix to run next: what would settle what the findings leave open."""

from collections.abc import Sequence
from dataclasses import replace

from bench import decoders
from bench.asked import ATTENTIONS, AUTO, CPU, ENGINES, PRECISIONS
from bench.matrix import positions_of, toml
from bench.text import published
from jobs.report.facts import Case, Group
from jobs.report.finding import Finding, Verdict

_LARGER = 8  # times the batch: a latency that grows up to there is not the host's
_MOST = 65_536  # of a matrix
# By these the numbers of a table are not those of the GPU that it names.
_NOT_THIS_GPU = ("latency-below-lower-bound", "power-above-limit", "power-below-idle")


def next_matrix(groups: Sequence[Group], findings: Sequence[Finding]) -> str | None:
    """A matrix as TOML, ready to save and run; None where nothing is open."""
    open_codes = {f.code for f in findings if f.verdict != Verdict.ACCEPT}
    if not groups or not open_codes:
        return None
    heads = [runnable(group.cases[0]) for group in groups if group.cases[0].has_workload]
    if not heads:
        return None
    on_gpu = [case for case in heads if case.gpu_type != CPU]
    types = list(dict.fromkeys(type_of(case) for case in heads))
    if any(case.foreign for case in on_gpu) and not open_codes.isdisjoint(_NOT_THIS_GPU):
        types = [AUTO, *([CPU] if CPU in types else [])]
    found = {case.precision for group in groups for case in group.cases} | {"fp32"}
    found |= {"fp16"} if on_gpu else set()
    lines = [
        "# What the findings leave open. Save as next.toml, then: tensorgap sweep next.toml",
        "[cells]",
        assignment("gpu_types", types, "whatever the GPU is, the rows will name it", AUTO in types),
        assignment("precisions", [precision for precision in PRECISIONS if precision in found]),
    ]
    found &= {*PRECISIONS}
    by_model: dict[tuple[str, int, int], list[Case]] = {}
    for case in heads:
        asked = case.workload
        by_model.setdefault((asked.model, asked.prompt_tokens, asked.new_tokens), []).append(case)
    for members in by_model.values():
        lines += workload(members, other_attention="attention-differs" in open_codes)
    lines += ["", "[sampling]"]
    lines.append(assignment("replicates", 5, "fresh processes: how they differ is the interval"))
    if on_gpu or any(case.energy_mj for group in groups for case in group.cases):
        how = "windows from tick to tick, idle power before and after"
        lines.append(assignment("energy", "certified", how))
    if any(model in published.GPT2_NAMES for model, _, _ in by_model):
        lines += ["", "[quality]", assignment("text", "wikitext-2"), assignment("context", 128)]
        lines.append(assignment("stride", 128, "59.69 is published for fp32 with these windows"))
    return "\n".join(lines) + "\n"


def runnable(case: Case) -> Case:
    """The case with what tensorgap can run in the place of what it cannot."""
    asked = case.workload
    known = positions_of(asked.model) is not None
    model = asked.model if known or not case.foreign else published.GPT2
    most = positions_of(model) or decoders.SHAPES[published.GPT2].positions
    tokens = min(asked.prompt_tokens, most)
    return replace(
        case,
        workload=replace(
            asked,
            model=model,
            engine=asked.engine if asked.engine in ENGINES else ENGINES[0],
            attention=asked.attention if asked.attention in ATTENTIONS else AUTO,
            batch_size=min(asked.batch_size, _MOST),
            prompt_tokens=tokens,
            new_tokens=min(asked.new_tokens, most - tokens),
        ),
    )


def type_of(case: Case) -> str:
    """A GPU as a matrix names it: a type that is known, else whatever there is."""
    known = not case.foreign or bool(case.boards) or case.gpu_type == CPU
    return case.gpu_type if case.gpu_type and known else AUTO


def workload(members: Sequence[Case], other_attention: bool) -> list[str]:
    """The lines of the workloads of one model and length, of one case of each."""
    workloads = [case.workload for case in members]
    launched = any(case.gpu_type != CPU for case in members)
    pinned = launched and other_attention
    batches = {asked.batch_size for asked in workloads}
    if launched and max(batches) < 2 * min(batches):
        batches.add(min(_LARGER * min(batches), _MOST))
    engines = {asked.engine for asked in workloads} | ({"eager", "graph"} if launched else set())
    attentions = {asked.attention for asked in workloads}
    attentions |= {AUTO, "efficient"} if pinned else set()
    asked = workloads[0]
    lines = ["", "[[workloads]]", assignment("model", asked.model)]
    for key, (default, *others), found, why, told in (
        ("engine", ENGINES, engines, "the same kernels with and without launches", launched),
        ("attention", (AUTO, *ATTENTIONS), attentions, "the same kernel in each precision", pinned),
    ):
        if not found.isdisjoint(others):
            kept = [value for value in (default, *others) if value in found]
            lines.append(assignment(key, kept, why, told))
    lines.append(assignment("batch_size", sorted(batches)))
    lines.append(assignment("prompt_tokens", asked.prompt_tokens))
    return lines + ([assignment("new_tokens", asked.new_tokens)] if asked.new_tokens else [])


def assignment(key: str, value: object, comment: str = "", told: bool = True) -> str:
    """One key of the matrix, on a line of its own with its reason, which tomli-w cannot write."""
    return toml({key: value}).rstrip() + (f" # {comment}" if comment and told else "")
