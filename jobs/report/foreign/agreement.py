"""Units that a table does not say, by what its other columns say of all its lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.device.boards import GPUS
from jobs.report import bounds
from jobs.report.facts import Case
from jobs.report.foreign import units
from jobs.report.foreign.shape import Record
from jobs.report.foreign.understood import Notes
from jobs.report.foreign.unit_words import split

_AGREES = 1.25  # times: what a queue and a mean length change


@dataclass(frozen=True)
class Pair:
    """The columns of a latency and of a throughput; empty: it says its unit, or what it counts."""

    latency: str
    rate: str


def unsaid(record: Record) -> Pair:
    """Which of the two columns of a line leave their unit open."""
    cells = record.cells
    if "latency_ms" not in cells or "throughput_per_s" not in cells:
        return Pair("", "")
    (time, of_time), (_, of_rate) = cells["latency_ms"], cells["throughput_per_s"]
    number = units.number_of(time)
    in_cell = bool(number and number.rest)
    is_said = in_cell or any(word in units.UNIT for word in split(of_time.name))
    rate = "" if of_rate.per else units.plain(of_rate.name)
    return Pair("" if is_said or of_time.unit else units.plain(of_time.name), rate)


def in_seconds(cases: Sequence[tuple[Case, Pair]], notes: Notes) -> list[Case]:
    """The cases, with latencies in s, and rates in tokens, where only so all lines agree.

    A latency and a throughput together say how many batches were in flight: one.
    """
    asked = [(case, pair) for case, pair in cases if pair.latency and batches(case)]
    every = [case for case, _ in cases]
    if not asked or any(is_one(batches(case)) for case, _ in asked):
        return every
    by_prompts = all(is_one(batches(case) * 1e3) for case, _ in asked)
    by_tokens = not by_prompts and all(
        pair.rate and tokens and is_one(batches(case) * 1e3 / tokens)
        for case, pair in asked
        for tokens in [case.workload.new_tokens]
    )
    if not by_prompts and not by_tokens:
        return every
    notes.assumed |= {pair.latency: "in s, by the throughput beside it" for _, pair in asked}
    if by_tokens:
        notes.assumed |= {pair.rate: "in tokens, by the latency beside it" for _, pair in asked}
    return [agreeing(c, by_tokens) if pair.latency and batches(c) else c for c, pair in cases]


def batches(case: Case) -> float:
    """How many batches a latency and a throughput say were in flight; 0: one is not known."""
    rate, latency = case.throughput_per_s or 0.0, case.latency_ms or 0.0
    return rate * latency / 1e3 / case.workload.batch_size


def is_one(count: float) -> bool:
    """Whether a number of batches is one."""
    return 1 / _AGREES <= count <= _AGREES


def agreeing(case: Case, by_tokens: bool) -> Case:
    """A case with its latency in s, and its throughput in tokens."""
    derived = is_derived(case, of_prompt(case))
    power, step = case.mean_w, case.latency_step_ms
    case = replace(
        case,
        latency_ms=(case.latency_ms or 0.0) * 1e3,
        latency_step_ms=step and step * 1e3,
        mean_w=power / 1e3 if power and derived else power,
    )
    if not by_tokens:
        return case
    rate = case.throughput_per_s or 0.0
    return replace(case, throughput_per_s=rate / case.workload.new_tokens, tokens_per_s=rate)


def of_batches(cases: Sequence[tuple[Case, str]], notes: Notes) -> list[Case]:
    """The cases, each with the column of an energy that does not say of what it is, or none.

    Their energies are those of whole batches where they can only be such: as that of a prompt, one
    of them would be more power than any board in question may draw; as that of a batch, none is
    less than a board draws. An author means one of the two throughout.
    """
    asked = [(case, column) for case, column in cases if column and case.energy_mj]
    powers = [powers_of(case) for case, _ in asked]
    every = [case for case, _ in cases]
    if not any(prompt > most and batch >= least for prompt, batch, least, most in powers):
        return every
    if any(batch < least for _, batch, least, _ in powers):
        return every
    notes.assumed |= {column: "is that of the whole batch" for _, column in asked}
    return [of_a_batch(c) if column and c.energy_mj else c for c, column in cases]


def powers_of(case: Case) -> tuple[float, float, float, float]:
    """W of an energy as that of a prompt and of a batch; the least and most that a board draws."""
    boards = case.boards or GPUS
    most = bounds.MOST_POWER * max(board.tdp_w for board in boards)
    least = bounds.LEAST_POWER_OF_OTHERS * bounds.least_idle_w(boards)
    return of_prompt(case), of_prompt(case) / case.workload.batch_size, least, most


def of_prompt(case: Case) -> float:
    """W of an energy as that of a prompt."""
    return (case.energy_mj or 0.0) * case.workload.batch_size / (case.latency_ms or math.inf)


def is_derived(case: Case, power: float) -> bool:
    """Whether a mean power is no measured one, but that of an energy and a latency."""
    return case.mean_w is not None and math.isclose(case.mean_w, power)


def of_a_batch(case: Case) -> Case:
    """A case whose energy is that of its whole batch."""
    batch = case.workload.batch_size
    power = of_prompt(case) / batch if is_derived(case, of_prompt(case)) else case.mean_w
    return replace(case, energy_mj=(case.energy_mj or 0.0) / batch, mean_w=power)
