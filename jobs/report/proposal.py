"""The matrix to run next: what would settle what the findings leave open."""

from __future__ import annotations

from collections.abc import Sequence

from bench.asked import ATTENTIONS, AUTO, CPU, ENGINES, PRECISIONS
from bench.matrix import toml
from bench.text import published
from jobs.report.cases import Group
from jobs.report.finding import Code, Finding, Verdict

_LARGER = 8  # times the batch: a latency that grows up to there is not the host's
_MOST = 65_536  # of a matrix


def next_matrix(groups: Sequence[Group], findings: Sequence[Finding]) -> str | None:
    """A matrix as TOML, ready to save and run; None where nothing is open."""
    open_codes = {f.code for f in findings if f.verdict != Verdict.ACCEPT}
    if not groups or not open_codes:
        return None
    types = list(dict.fromkeys(group.gpu_type or AUTO for group in groups))
    on_gpu = [group for group in groups if group.gpu_type != CPU]
    why_auto = ""
    if any(group.plain for group in on_gpu) and Code.GPU_DOUBTFUL in open_codes:
        types = [AUTO, *([CPU] if CPU in types else [])]
        why_auto = "whatever the GPU is, the rows will name it"
    found = {case.precision for group in groups for case in group.cases}
    found |= {"fp32", "fp16"} if on_gpu else {"fp32"}
    precisions = [precision for precision in PRECISIONS if precision in found]
    lines = [
        "# What the findings leave open. Save as next.toml, then: tensorgap sweep next.toml",
        "[cells]",
        _line("gpu_types", types, why_auto),
        _line("precisions", precisions),
    ]
    by_model: dict[tuple[str, int, int], list[Group]] = {}
    for group in groups:
        workload = group.workload
        key = (workload.model, workload.prompt_tokens, workload.new_tokens)
        by_model.setdefault(key, []).append(group)
    for (model, prompt_tokens, new_tokens), members in by_model.items():
        batches = sorted({group.workload.batch_size for group in members})
        launched = any(group.gpu_type != CPU for group in members)
        if launched and batches[-1] < 2 * batches[0]:
            batches.append(min(_LARGER * batches[0], _MOST))
        lines += ["", "[[workloads]]", _line("model", model)]
        engines = {group.workload.engine for group in members} & {*ENGINES}
        if launched:
            engines |= {"eager", "graph"}
        if engines - {"eager"}:
            told = "the same kernels with and without launches" if launched else ""
            lines.append(_line("engine", [e for e in ENGINES if e in engines], told))
        attentions = {group.workload.attention for group in members}
        told = ""
        if launched and Code.ATTENTION_DIFFERS in open_codes:
            attentions |= {AUTO, "efficient"}
            told = "the same kernel in each precision"
        if attentions - {AUTO}:
            kept = [a for a in (AUTO, *ATTENTIONS) if a in attentions]
            lines.append(_line("attention", kept, told))
        lines.append(_line("batch_size", sorted(set(batches))))
        lines.append(f"prompt_tokens = {prompt_tokens}")
        if new_tokens:
            lines.append(f"new_tokens = {new_tokens}")
    lines += [
        "",
        "[sampling]",
        "replicates = 5 # fresh processes: how they differ is the interval",
    ]
    if on_gpu or any(case.line.energy_mj for group in groups for case in group.cases):
        lines.append(
            'energy = "certified" # windows from tick to tick, idle power before and after'
        )
    if any(model in published.GPT2_NAMES for model, _, _ in by_model):
        lines += [
            "",
            "[quality]",
            'text = "wikitext-2"',
            "context = 128",
            "stride = 128 # 59.69 is published for fp32 with these windows",
        ]
    return "\n".join(lines) + "\n"


def _line(key: str, value: object, why: str = "") -> str:
    """A line of TOML, with a comment."""
    return toml({key: value}).rstrip() + (f" # {why}" if why else "")
