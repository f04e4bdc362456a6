"""What to do with mixed, and what was expected beside what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.asked import CPU
from bench.device import gpus
from bench.device.gpus import Board
from jobs.report.cases import Group
from jobs.report.comparison import NO_MATTER
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.rules import floors, launch, speed
from jobs.report.study import Entry
from jobs.report.words import NOTHING, listed, number, span, times

_CLOSE = 0.15  # of an expectation
_FAR = 1.5  # times what was published


def mixed_options(group: Group) -> Iterator[Finding]:
    """Leave mixed out, document it, or run on another GPU: what these rows recommend."""
    mixed, base, half = group.case("mixed"), group.baseline, group.case(group.half_precision)
    if mixed is None or base is None or not mixed.latency_ms or not base.latency_ms:
        return
    against_fp32 = group.decided(mixed.line.speedup)
    if against_fp32 is None:
        return
    worse_than_half = bool(
        half
        and half.latency_ms
        and mixed.latency_ms > (1 + NO_MATTER) * half.latency_ms
        and (
            half.line.energy_mj is None
            or mixed.line.energy_mj is None
            or half.line.energy_mj <= (1 + NO_MATTER) * mixed.line.energy_mj
        )
    )
    if against_fp32 >= 1 and not worse_than_half:
        return
    options = []
    if worse_than_half and half and half.latency_ms:
        energy = (
            f", {times(mixed.line.energy_mj / half.line.energy_mj)} the energy"
            if mixed.line.energy_mj and half.line.energy_mj
            else ""
        )
        options.append(
            f"leave mixed out: yes, for a study of inference. {half.precision} beats it here"
            f" (mixed takes {times(mixed.latency_ms / half.latency_ms)} the time{energy}). Say that"
            " it was measured and left out"
        )
    else:
        options.append(
            f"leave mixed out: not yet. {half.precision} does not beat it here"
            if half
            else f"leave mixed out: not yet. Measure {group.half_precision} first, or there is"
            " nothing in its place"
        )
    options.append(
        "document it: yes. Write: mixed is torch.autocast on fp32 weights; it casts them in every"
        " forward. Not: it is for training only. Gradients and loss scaling play no part in"
        " inference; the casts do"
    )
    options.append(_another_gpu(group))
    slower = against_fp32 < 1
    better = [
        name for name, loses in ((group.half_precision, worse_than_half), ("fp32", slower)) if loses
    ]
    yield Finding(
        Code.MIXED_OPTIONS,
        Verdict.FIX if slower else Verdict.ACCEPT,
        group.title,
        ("mixed",),
        f"mixed loses to {listed(better)}: what to do with it.",
        evidence=tuple(options),
        actions=(
            f"Compare fp32 with {group.half_precision}, and keep mixed in one line of the text.",
        )
        if worse_than_half
        else (f"Measure {group.half_precision} beside it.",),
    )


def _another_gpu(group: Group) -> str:
    if group.gpu_type == CPU:
        return (
            "run on a GPU: there mixed casts to fp16, and only rows from there tell what it gives"
        )
    texts = [
        f"{name} {known.text}"
        for name, known in speed.published(group.workload).items()
        if name != group.gpu_type
    ]
    has = group.boards and all(gpu.tensor_cores for gpu in group.boards)
    why = (
        "this one has Tensor Cores already, so another of that kind changes little"
        if has
        else "Tensor Cores alone do not make mixed win"
    )
    return (
        f"run on another GPU: {why} where launches set the latency."
        + (f" Published for such layers in eager mode: {'; '.join(texts)}." if texts else "")
        + " On such a GPU engine = graph and batch 8 show what the Tensor Cores give"
    )


def expectations(groups: Sequence[Group], expected: Sequence[Entry]) -> Iterator[Finding]:
    """Each expected number beside what was found, or beside what the facts allow.

    Args:
        groups: What was found.
        expected: Lines of a table of the same columns, each for a GPU type or for any.
    """
    by_type: dict[str | None, list[Entry]] = {}
    for entry in expected:
        by_type.setdefault(entry.gpu_type, []).append(entry)
    for name, entries in by_type.items():
        boards = gpus.named(name) if name else ()
        kind = boards[0].gpu_type if boards else name
        found = [g for g in groups if kind is None or g.gpu_type == kind]
        for group in found:
            yield from _beside_found(group, entries)
        unmatched = [
            entry
            for entry in entries
            if not any(
                g.workload == entry.line.workload and g.case(entry.line.precision) for g in found
            )
        ]
        if unmatched:
            yield _beside_facts(kind, boards, unmatched, measured=bool(found))


def _beside_found(group: Group, entries: Sequence[Entry]) -> Iterator[Finding]:
    texts, met = [], True
    precisions = []
    for entry in entries:
        case = group.case(entry.line.precision)
        if case is None or entry.line.workload != group.workload:
            continue
        precisions.append(case.precision)
        for what, unit, wanted, got in (
            ("latency", " ms", entry.line.latency_ms, case.latency_ms),
            ("energy", " mJ", entry.line.energy_mj, case.line.energy_mj),
            ("size", " MB", entry.line.size_mb, case.line.size_mb),
            ("perplexity", "", entry.line.perplexity, case.line.perplexity),
        ):
            if wanted is None or got is None:
                continue
            close = abs(got / wanted - 1) <= _CLOSE
            met = met and close
            verdict = "as expected" if close else f"{times(got / wanted)} of it"
            texts.append(
                f"{case.precision} {what}: expected {number(wanted, unit)}, found"
                f" {number(got, unit)}: {verdict}"
            )
    if texts:
        yield Finding(
            Code.EXPECTATION,
            Verdict.ACCEPT if met else Verdict.CANNOT_TELL,
            group.title,
            tuple(dict.fromkeys(precisions)),
            "What was expected was found." if met else "Not all that was expected was found.",
            evidence=tuple(texts),
            actions=() if met else ("Look for the cause among the findings above.",),
        )


def _beside_facts(
    kind: str | None, boards: Sequence[Board], entries: Sequence[Entry], measured: bool
) -> Finding:
    """What is known of numbers that no row stands beside.

    Args:
        kind: GPU type; None: any.
        boards: Its boards.
        entries: What was expected.
        measured: Whether there are rows of that type at all.
    """
    name = kind or "any GPU"
    texts = []
    for entry in entries:
        line, parts = entry.line, []
        for what, unit in ((line.latency_ms, " ms"), (line.energy_mj, " mJ")):
            parts += [number(what, unit)] if what else []
        parts = [f"expected {' and '.join(parts) or NOTHING}"]
        floor = floors.pytorch_floor_ms(boards, line.precision, line.workload)
        if floor:
            parts.append(f"no less than {span(floor, ' ms')} by the datasheet")
        if line.energy_mj and line.latency_ms and boards:
            power = line.energy_mj * line.workload.batch_size / line.latency_ms
            parts.append(f"that is {number(power, ' W')} on the {launch.idle_and_limit(boards[0])}")
        texts.append(f"{line.precision}: {'; '.join(parts)}")
    by_workload: dict[str, list[str]] = {}
    for entry in entries:
        by_workload.setdefault(str(entry.line.workload), []).append(entry.line.precision)
    absent = listed(f"{workload} ({listed(every)})" for workload, every in by_workload.items())
    cause = (
        f"{name}: no row of {absent}, so the expectation stands beside what is known of it."
        if measured
        else f"{name}: not among the rows, so the expectation stands beside what is known of it."
    )
    known = {e.line.workload: speed.published(e.line.workload).get(name) for e in entries}
    for workload, told in known.items():
        if told is None:
            continue
        gain = told.slow_ms / told.fast_ms
        texts.append(
            "published for the same layers without the logits, eager, batch 1:"
            f" {told.text}: {times(gain)}"
        )
        ms = {e.line.precision: e.line.latency_ms for e in entries if e.line.workload == workload}
        slow, fast = ms.get("fp32"), ms.get("fp16")
        # The gain from TF32 is another one.
        if told.slow_in == "fp32" and slow and fast and slow / fast > _FAR * gain:
            cause = (
                f"{name}: a gain of {slow / fast:.1f}x was expected; in eager mode at batch 1"
                f" {times(gain)} was published: launches, not products, set that latency."
            )
    return Finding(
        Code.EXPECTATION,
        Verdict.CANNOT_TELL,
        name,
        tuple(dict.fromkeys(entry.line.precision for entry in entries)),
        cause,
        evidence=tuple(texts),
        missing=tuple(f"a row of {name}, {e.line.workload}, {e.line.precision}" for e in entries),
        actions=("Run the matrix below there, with engine = graph and a larger batch.",),
    )
