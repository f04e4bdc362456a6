"""What could make a number right that cannot be: another unit, or another thing counted.

A latency in seconds under `latency_ms` is 1,000 times too small, an energy per token as many times
as there are tokens, and the time of 100 runs 100 times too large.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.asked import Workload
from bench.device.boards import Board
from bench.profile import work
from jobs.report import bounds
from jobs.report.facts import Case, Group

SLOWEST = 20.0  # times the lower bound and the launches: slower is no single forward pass
_LAUNCH_MS = 0.035  # of an operation of eager PyTorch on a slow host: fits of public tables
_LARGE = 10.0  # times the work of one prompt of 128 tokens
_DECODING = 5.0  # times what a forward pass takes on a slow host
_SLOW_STEP = 3.0  # of beam search, in which each step is of several prompts
_PROPORTIONAL = (0.75, 1.33)
_RUNS = (10, 50, 100, 200, 500, 1000, 10_000)


@dataclass(frozen=True)
class Slip:
    """Another reading of a number: by which factor it differs, and what it gives."""

    what: str
    factor: float
    value: float


def as_clause(found: Sequence[Slip], unit: str) -> tuple[str, dict[str, float]]:
    """The end of a sentence that names the slips, as a template, and its values.

    >>> as_clause([Slip("seconds under the name of ms", 1000, 11.7)], "ms")[0]
    '; with seconds under the name of ms (a factor of {slip0_factor:g}) it is {slip0:ms}'
    """
    clauses = [
        f"with {slip.what} (a factor of {{slip{i}_factor:g}}) it is {{slip{i}:{unit}}}"
        for i, slip in enumerate(found)
    ]
    values = {f"slip{i}": slip.value for i, slip in enumerate(found)}
    values |= {f"slip{i}_factor": slip.factor for i, slip in enumerate(found)}
    return (f"; {', or '.join(clauses)}" if found else ""), values


def plausible_ms(case: Case) -> tuple[float, float] | None:
    """The least and the most that a latency can be, on any board in question; None: not known."""
    boards = bounds.in_question(case)
    shape = work.counted(case.workload.model)
    least = [
        b.ms for board in boards if (b := bounds.of_board(board, case.precision, case.workload))
    ]
    if shape is None or not least:
        return None
    steps = max(1, case.workload.new_tokens)
    launches = work.scaled(work.OPERATIONS[1] + work.CASTS[1], shape) * _LAUNCH_MS * steps
    slowest = [
        bound.ms
        for board in boards
        if (bound := bounds.of_board(board, "fp32", case.workload, by_pytorch=True))
    ]
    return min(least), SLOWEST * (max(slowest, default=max(least)) + launches)


def is_far_above(case: Case) -> bool:
    """Whether a table's latency is beyond anything that one forward pass takes.

    Where the table says neither batch nor length, beyond what a large one takes.
    """
    limits = plausible_ms(case) if case.foreign and case.latency_ms else None
    unsaid = {"batch_size", "prompt_tokens"} & case.assumed
    return bool(limits and (case.latency_ms or 0.0) > limits[1] * (_LARGE if unsaid else 1))


def is_decode(case: Case, lengths: Iterable[Group]) -> bool:
    """Whether a time looks like that of tokens generated one by one: it grows as the length does.

    And it is far above what a forward pass takes, while that of each token is that of a step.
    """
    others = [same for other in lengths if (same := other.case(case.precision))]
    asked = case.workload
    if not case.foreign or not case.latency_ms or asked.new_tokens or not others:
        return False
    limits = plausible_ms(case)
    per_token = case.latency_ms / asked.prompt_tokens
    one = replace(case, latency_ms=per_token, workload=replace(asked, prompt_tokens=1))
    of_a_step = plausible_ms(one)
    if not limits or not of_a_step or case.latency_ms < _DECODING * limits[1] / SLOWEST:
        return False
    rates = [o.latency_ms / o.workload.prompt_tokens / per_token for o in others if o.latency_ms]
    is_step = of_a_step[0] <= per_token <= of_a_step[1] / SLOWEST * _SLOW_STEP
    low, high = _PROPORTIONAL
    return is_step and bool(rates) and all(low <= rate <= high for rate in rates)


def of_latency(case: Case) -> list[Slip]:
    """What would make a latency plausible, each with the latency that it gives."""
    found: list[Slip] = []
    limits = plausible_ms(case)
    if limits is None or not case.latency_ms:
        return found
    too_small = case.latency_ms < limits[0]
    factors = larger(case) if too_small else smaller(case)
    for factor, what in factors:
        ms = case.latency_ms * factor if too_small else case.latency_ms / factor
        if limits[0] <= ms <= limits[1]:
            found.append(Slip(what, factor, ms))
    if not too_small:
        usual = limits[1] / SLOWEST
        found.sort(key=lambda slip: abs(math.log(slip.value / usual)) - 2 * (slip.factor == 1000))
    return found[:1]


def larger(case: Case) -> Iterator[tuple[float, str]]:
    """Factors by which a time can have been written too small."""
    asked = case.workload
    if asked.new_tokens > 1:
        yield asked.new_tokens, "the time of one token"
    if case.latency_unit == "us":
        yield 1000, "ms under the name of us"
    else:
        yield 1000, "seconds under the name of ms"
    if asked.batch_size > 1:
        yield asked.batch_size, "the time of one prompt of the batch"
    yield 1e6, "seconds under the name of us"


def smaller(case: Case) -> Iterator[tuple[float, str]]:
    """Factors by which a time can have been written too large."""
    if case.latency_unit == "s":
        yield 1000, "ms under the name of s, or the sum of 1000 runs"
    elif case.latency_unit == "us":
        yield 1000, "ns under the name of us, or the sum of 1000 runs"
    else:
        yield 1000, "us under the name of ms, or the sum of 1000 runs"
    if case.workload.batch_size > 1:
        yield case.workload.batch_size, "the sum of one prompt after the other"
    for runs in _RUNS:
        if runs != 1000:
            yield runs, f"the sum of several runs, such as {runs}"


def of_power(case: Case, boards: Iterable[Board]) -> list[Slip]:
    """What would make a mean power plausible, each with the power that it gives."""
    known = list(boards)
    if case.mean_w is None or not known:
        return []
    least = bounds.LEAST_POWER_OF_OTHERS * bounds.least_idle_w(known)
    most = bounds.MOST_POWER * max(board.tdp_w for board in known)
    found = []
    if case.mean_w < least:
        for factor, what in too_little(case):
            if least <= case.mean_w * factor <= most:
                found.append(Slip(what, factor, case.mean_w * factor))
    else:
        for factor, what in too_much(case):
            if factor > 1 and least <= case.mean_w / factor <= most:
                found.append(Slip(what, factor, case.mean_w / factor))
    return found[:1]


def too_little(case: Case) -> Iterator[tuple[float, str]]:
    """Factors by which a power can have come out too small."""
    if case.energy_mj is None:
        if case.has_workload:
            yield 1000, "kW under the name of W"
        else:  # of a log of energies
            yield 1000, "mJ under the name of uJ"
            yield 1e6, "J under the name of uJ"
        return
    if is_far_above(case):
        yield 1000, "us under the name of ms in the latency"
    yield 1000, "J under the name of mJ"
    tokens = case.workload.new_tokens or case.workload.prompt_tokens
    if tokens > 1:
        yield tokens, "the energy of one of its tokens"
    if case.workload.batch_size > 1:
        yield case.workload.batch_size, "the energy of one prompt, not of the batch"
    yield 1e6, "kJ under the name of mJ"


def too_much(case: Case) -> Iterator[tuple[float, str]]:
    """Factors by which a power can have come out too large."""
    asked = case.workload
    if case.energy_mj is None:
        yield 1000, "mW under the name of W"
        return
    yield 1000, "uJ under the name of mJ, or the energy of 1000 runs"
    yield asked.batch_size, "the energy of the whole batch, not of a prompt"
    for runs in _RUNS:
        if runs != 1000:
            yield runs, f"the energy of several runs, such as {runs}"


def of_throughput(ratio: float, asked: Workload) -> str | None:
    """What makes a throughput so many times that of the latency; None: nothing known does."""
    tokens = {asked.prompt_tokens: "tokens", asked.new_tokens: "new tokens"}
    counted: list[tuple[float, str]] = [
        (count, f"{what} were counted for prompts, a factor of {count}")
        for count, what in tokens.items()
        if count > 1
    ]
    counted += [(asked.prompt_tokens + asked.new_tokens, "all tokens were counted for prompts")]
    counted += [
        (1 / asked.batch_size, f"batches were counted for prompts, a factor of {asked.batch_size}"),
        (60, "it is per minute, a factor of 60"),
        (1 / 1000, "the latency is in us or the throughput per ms, a factor of 1000"),
        (1000, "a factor of 1000 between the units of time"),
    ]
    near = [told for factor, told in counted if factor != 1 and 0.7 <= ratio / factor <= 1.45]
    return near[0] if near else None
