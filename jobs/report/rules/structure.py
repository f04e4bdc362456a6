"""What a table's own structure shows: of batches, of GPUs and of engines beside each other."""

import functools
import math
from collections.abc import Iterator
from dataclasses import replace

from bench.asked import CPU, Workload
from bench.device import gpus
from bench.device.boards import Board
from bench.profile import work
from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import listed, number, with_article

_MOST_GROWTH = 1.6  # of the time, over the growth of the batch: caches and waves explain no more
_FALLS = 0.85  # of the time at the smaller batch
_OF_ONE = 0.8  # of the time of one prompt: a batch takes no less
_SHARED = (0.4, 2.5)  # of the time of a token, times the batch, over that at the smaller batch
_AHEAD = 1.2  # in peak and in bandwidth, to be the faster GPU
_SLOWER = 1.15
_AS_THE_BATCH = (0.8, 1.3)  # energy per token x batch, over that at the smaller batch
_ALIKE = 1.06  # the precisions after the first
_FIRST_PAYS = 1.2
_WARM = 2.5  # lower bounds: nearer to them, the arithmetic itself explains a gain
_SLOW_LAUNCH_MS = 0.1  # of one operation, on a slow and busy host
_SAME_MEMORY = 1.15
_HALF_MEMORY = (1.6, 2.4)
_PADDING_REMOVED = "eff-ft"  # computes less: not the same products


def at_smaller_batch(case: Case, group: Group) -> Case | None:
    """The case of the next smaller batch, all else alike; None: there is none."""
    found = [
        same
        for other in group.others
        if of_batch_1(other.cases[0].workload) == of_batch_1(case.workload)
        and (same := other.case(case.precision))
        and same.workload.batch_size < case.workload.batch_size
    ]
    return max(found, key=lambda one: one.workload.batch_size, default=None)


def most_launches_ms(workload: Workload) -> float:
    """What launching the kernels of PyTorch takes at most; 0 where it is not known of the model."""
    shape, steps = work.counted(workload.model), max(1, workload.new_tokens)
    return steps * _SLOW_LAUNCH_MS * (work.scaled(work.OPERATIONS[1], shape) if shape else 0)


@functools.lru_cache(20_000)
def of_batch_1(workload: Workload) -> Workload:
    """A workload with a batch of 1."""
    return replace(workload, batch_size=1)


@rule(
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    undermines="effects",
    cause="{precision}: {times:g}x the batch takes {growth:.3g}x the time. ",
    missing=["the batches between, measured again in another order"],
    do=["Measure both again; look for another kernel, for memory that ran out, for a wrong unit."],
)
def batch_does_not_scale(case: Case, group: Group) -> Hit | None:
    """In a table the time grows over 1.6 times as much as the batch, or falls as it grows.

    Inconclusive: it falls about as the batch grows, as a time of the same number of prompts does,
    and the time of one prompt of a batch.
    """
    base = at_smaller_batch(case, group) if case.foreign else None
    if base is None or not base.pace_ms or not case.pace_ms:
        return None
    times = case.workload.batch_size / base.workload.batch_size
    growth = case.pace_ms / base.pace_ms
    if _FALLS <= growth <= _MOST_GROWTH * times:
        return None
    if case.per_output_token_ms and _SHARED[0] <= growth * times <= _SHARED[1]:
        return None  # of a token of all prompts together
    why = "No limit of the hardware explains more than the batch: another kernel ran, or memory"
    why += " was short."
    if growth < _FALLS:
        why = "The larger batch takes less time: the smaller one paid a warm-up, or was disturbed."
    text = "{precision}: {before:ms} at batch {small}, {after:ms} at batch {batch_size}"
    values: dict[str, Value] = {"times": times, "growth": growth}
    notes = [note(text, before=base.pace_ms, after=case.pace_ms, small=base.workload.batch_size)]
    # A batch takes between the time of one prompt and that of one after the other.
    if case.latency_ms and _OF_ONE <= growth * times <= math.sqrt(times):
        why = "It falls about as the batch grows: probably each time is of the same number of"
        why += " prompts in all, or of one prompt of the batch, and not of one batch."
        return Hit(
            notes,
            values,
            verdict=Verdict.INCONCLUSIVE,
            cause=batch_does_not_scale.cause + why,
            missing=["of how many prompts each time is"],
            do=["Write the time of one batch, or prompts per second."],
        )
    return Hit(notes, values, cause=batch_does_not_scale.cause + why)


@rule(
    Verdict.INCONCLUSIVE,
    cause="{precision}: {ours} takes {times:x} the time of {theirs}, though its peak and its"
    " bandwidth are higher.",
    missing=["the same host and software for both, and a batch at which the GPU sets the time"],
    do=["Compare the two at a larger batch or as a CUDA graph: at this one hosts are compared."],
)
def gpu_slower_than_lesser(case: Case, group: Group) -> Hit | None:
    """In a table a GPU with higher peak and bandwidth is over 15 % slower than another."""
    if not case.foreign or not case.boards or not case.pace_ms:
        return None
    found: list[tuple[float, Case]] = []
    for other in group.elsewhere:
        same = other.case(case.precision)
        if same and same.boards and same.pace_ms and is_ahead(case, same):
            found.append((case.pace_ms / same.pace_ms, same))
    times, lesser = max(found, key=lambda pair: pair[0], default=(0.0, case))
    if times < _SLOWER:
        return None
    text = "{gpu}: {pace:ms}, {other}: {theirs:ms}"
    named = {"ours": with_article(case.gpu), "theirs": with_article(lesser.gpu)}
    notes = [note(text, pace=case.pace_ms, other=lesser.gpu, theirs=lesser.pace_ms)]
    return Hit(notes, {"times": times, **named})


def is_ahead(case: Case, other: Case) -> bool:
    """Whether every board of a case is ahead of every one of another in peak and bandwidth."""

    def of(board: Board) -> tuple[float, float]:
        peak = gpus.peak_tflops(board, case.precision) or board.fp32_tflops
        return peak, board.bandwidth_gb_per_s

    ours, theirs = map(of, case.boards), list(map(of, other.boards))
    return all(
        a >= _AHEAD * b
        for mine in ours
        for their in theirs
        for a, b in zip(mine, their, strict=True)
    )


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="Engine and precision change together: {told}. No ratio of them is of the precision.",
    missing=["each precision on each engine"],
    do=["Measure both precisions with the same engine, and both engines at one precision."],
)
def engine_and_precision_differ(case: Case, group: Group) -> Hit | None:
    """In a table no engine has two precisions, and no precision two engines."""
    if not case.foreign or case is not group.cases[0] or len(group.cases) > 1:
        return None
    beside = [o for o in group.others if o.cases[0].workload.batch_size == case.workload.batch_size]
    every = [group, *beside]
    if len(every) < 2 or any(len(one.cases) > 1 for one in every):
        return None
    pairs = {one.cases[0].workload.engine: one.cases[0].precision for one in every}
    if len(set(pairs.values())) < len(pairs) or "no precision" in pairs.values():
        return None
    told = listed(f"{engine} with {precision}" for engine, precision in sorted(pairs.items()))
    return Hit(values={"told": told})


@rule(
    Verdict.INCONCLUSIVE,
    undermines="effects",
    cause="Warm-up suspected: {first} stands first and is {times:x} slower than {others}, which"
    " agree within {spread:.1%}{far}. Half the bytes do not give that; the first to run pays for"
    " start, memory and clocks.",
    missing=["the order in which they ran, and in one process or several"],
    do=["Measure again with {first} last, or each in a fresh process with a warm-up of its own."],
)
def warm_up_suspected(case: Case, group: Group) -> Hit | None:
    """In a table the first of three or more precisions is slower, and all others alike.

    And it is far above its lower bound, so that launches set the time of all of them.
    """
    if not case.foreign or not case.is_baseline or not case.pace_ms or case.gpu_type == CPU:
        return None
    rest = [c for c in group.cases if c is not case and c.pace_ms and c.precision != "mixed"]
    paces = [one.pace_ms or 0.0 for one in rest]
    first = all((case.line or 0) < (one.line or 0) for one in rest)
    if len(rest) < 2 or not first or max(paces) > _ALIKE * min(paces):
        return None
    times = case.pace_ms / max(paces)
    if times < _FIRST_PAYS:
        return None
    boards = bounds.in_question(case)
    # bf16 beside fp16 at the same time: none of those that only emulate it.
    if not case.boards and any(one.precision == "bf16" for one in rest):
        boards = [b for b in boards if b.capability >= gpus.FIRST_BF16_AND_TF32]
    of = [b.ms for b in (bounds.of_board(x, case.precision, case.workload) for x in boards) if b]
    if not of or case.pace_ms < _WARM * max(of):
        return None
    if max(paces) > most_launches_ms(case.workload):
        return None
    steps = case.workload.new_tokens
    what = f"{case.pace_ms / steps:.3g} ms for each new token" if steps else "its time"
    reads = "what reading the weights takes" if steps else "the lower bound"
    bounds_of = number(case.pace_ms / max(of), digits=2)
    far = f"; {what} is {bounds_of} times {reads} or more, on any board that it can be: launches"
    far += " set it"
    values: dict[str, Value] = {
        "first": case.precision,
        "times": times,
        "others": listed(one.precision for one in rest),
        "spread": max(paces) / min(paces) - 1,
        "far": far,
    }
    return Hit(values=values, precisions=[one.precision for one in group.cases])


@rule(
    Verdict.ACCEPT,
    minor=True,
    cause="{precision}: the energy of a {what} falls to {ratio:x} at {times:g}x the batch: the"
    " power stays, and the weights are read once for all prompts.",
)
def energy_over_batch(case: Case, group: Group) -> Hit | None:
    """In a table the energy of a token, or of a prompt, falls as the batch grows."""
    base = at_smaller_batch(case, group) if case.foreign else None
    if base is None:
        return None
    ours = case.energy_per_token_mj or case.energy_mj
    theirs = base.energy_per_token_mj or base.energy_mj
    if not ours or not theirs:
        return None
    times, ratio = case.workload.batch_size / base.workload.batch_size, ours / theirs
    if not _AS_THE_BATCH[0] <= ratio * times <= _AS_THE_BATCH[1]:
        return None
    text = "{precision}: {theirs:mJ} at batch {small}, {ours:mJ} at batch {batch_size}"
    about = note(text, theirs=theirs, ours=ours, small=base.workload.batch_size)
    what = "token" if case.energy_per_token_mj else "prompt"
    return Hit([about], {"times": times, "ratio": ratio, "what": what})


@rule(
    Verdict.ACCEPT,
    Verdict.FIX,
    minor=True,
    cause="{precision} holds {ratio:.2f}x the memory of {base_precision} ({base_memory_mb} ->"
    " {memory_mb:MB}), as 2 bytes a weight beside 4 do.",
)
def memory_as_stored(case: Case, group: Group) -> Hit | None:
    """A table's memory of 16-bit weights is half of that of fp32; fix: it is the same."""
    base = group.base_of(case)
    if base is None or not case.memory_mb or not base.memory_mb or not case.foreign:
        return None
    if case.precision not in ("fp16", "bf16") or base.precision not in ("fp32", "tf32"):
        return None
    ratio = base.memory_mb / case.memory_mb
    values: dict[str, Value] = {"ratio": case.memory_mb / base.memory_mb}
    if _HALF_MEMORY[0] <= ratio <= _HALF_MEMORY[1]:
        return Hit(values=values)
    if 1 / _SAME_MEMORY <= ratio <= _SAME_MEMORY:
        cause = "{precision} holds {ratio:.2f}x the memory of {base_precision} ({base_memory_mb} ->"
        cause += " {memory_mb:MB}): were its weights stored in 16 bits?"
        do = ["Print the dtype of the parameters."]
        return Hit(values=values, verdict=Verdict.FIX, cause=cause, do=do)
    return None


def faster_engines(case: Case, group: Group) -> Iterator[tuple[float, Case]]:
    """Other programs at the same precision and batch, and how much faster they are."""
    for other in group.others:
        same = other.case(case.precision)
        if same is None or not same.pace_ms or not case.pace_ms:
            continue
        alike = replace(same.workload, engine="") == replace(case.workload, engine="")
        if alike and same.workload.engine != _PADDING_REMOVED:
            yield case.pace_ms / same.pace_ms, same


def engines_note(case: Case, group: Group) -> tuple[float, Note] | None:
    """The fastest other program beside this one, in words; None: there is none."""
    found = max(faster_engines(case, group), key=lambda pair: pair[0], default=None)
    if found is None:
        return None
    gain, other = found
    text = "{precision}: {engine} {pace:ms}, {other} {theirs:ms} for the same products: {gain:.2f}x"
    values: dict[str, Value] = {"engine": case.workload.engine, "other": other.workload.engine}
    return gain, note(text, pace=case.pace_ms, theirs=other.pace_ms, gain=gain, **values)
