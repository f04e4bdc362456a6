"""The measured numbers of a line, in the units of `Case`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.asked import Workload
from jobs.report.foreign import units
from jobs.report.foreign.headers import Heading
from jobs.report.foreign.shape import Record
from jobs.report.foreign.understood import Notes, Told, Unreadable
from jobs.report.foreign.unit_words import split, unit_in
from jobs.report.foreign.vocabulary import USUAL_UNIT

# Without one of these a row says nothing.
_OF_A_ROW = {"latency_ms", "throughput_per_s", "tokens_per_s", "energy_mj", "energy_per_token_mj"}
_OF_A_ROW |= {"perplexity", "per_output_token_ms", "first_token_ms", "mean_w"}
LEAST, MOST = 1e-9, 1e15  # beyond them a number is a slip, and a ratio of two such is none


@dataclass(frozen=True)
class Numbers:
    """The measured numbers of a line.

    Attributes:
        facts: Field of `Case` -> its value.
        measured: Whether there is any.
        decoding: Whether the latency is that of a step, which makes one token of each prompt.
        failure: How the line says that it failed.
    """

    facts: Mapping[str, Any]
    measured: bool
    decoding: bool
    failure: str | None


def numbers_of(record: Record, asked: Workload, told: Told, notes: Notes) -> Numbers:
    """The numbers of a line; Unreadable where one cannot be read."""
    facts: dict[str, Any] = {}
    failure, empty = None, True
    below: list[str] = []
    bad: list[str] = []
    for name, (written, heading) in record.cells.items():
        if not heading.is_quantity:
            continue
        if (why := units.failure(written)) is not None:
            failure = failure or why
            continue
        if units.is_empty(written):
            continue
        empty = False
        number = units.number_of(written)
        odd = number is not None and number.attached and unit_behind(number) == (None, None)
        is_ratio = number is not None and number.rest[:1] in units.TIMES
        if number and heading.dimension == "rate" and number.rest == "m":
            number, odd = replace(number, value=number.value * 1e6, rest=""), False
        if number is None or is_ratio or (odd and number.rest[:1].isalpha()):
            what = f"{heading.name or name} = {units.plain(written)[:40]}"
            bad.append(f"{what}: must be a number, with a unit or without")
            continue
        if not math.isfinite(number.value) and name != "perplexity":
            failure = failure or units.plain(written)
            continue
        if number.value <= 0 and name not in ("energy_mj", "bits_per_byte"):
            odd_one = f"{units.plain(heading.name) or name} = {units.plain(written)}"
            failure, below = failure or odd_one, [*below, odd_one]
            continue
        facts |= fact(name, number, heading, asked, told, notes)
    if bad and not facts.keys() & _OF_A_ROW:
        raise Unreadable(bad[0])
    notes.problems += [f"line {record.line}, {one}" for one in bad]
    measured = not facts.keys() <= {"energy_window_s", "duration_s", "idle_w", "power_limit_w"}
    if measured:
        told_of = "must be greater than 0, and is not read"
        notes.problems += [f"line {record.line}, {one}: {told_of}" for one in below]
    decoding = "per_output_token_ms" in facts and "latency_ms" not in facts
    if decoding:
        steps = asked.new_tokens or 1
        first = facts.get("first_token_ms") if asked.new_tokens else None
        more = facts["per_output_token_ms"] * (steps - 1 if first else steps)
        facts["latency_ms"] = more + (first or 0.0)
    duration = facts.pop("duration_s", None)
    if duration and "energy_mj" in facts:
        facts["mean_w"] = facts.pop("energy_mj") / duration / 1e3
    net = "energy_mj" in record.cells and is_net(record.cells["energy_mj"][1])
    if {"latency_ms", "energy_mj"} <= facts.keys() and "mean_w" not in facts and not net:
        facts["mean_w"] = facts["energy_mj"] * asked.batch_size / facts["latency_ms"]
    for ratio in ("speedup", "energy_ratio"):
        ends = [units.number_of(record.text(f"{ratio}_{end}")) for end in ("low", "high")]
        if all(ends):
            facts[f"{ratio}_ends"] = tuple(end.value for end in ends if end)
    if empty and failure is None and any(h.is_quantity for _, h in record.cells.values()):
        failure = "no number"
    return Numbers(facts, measured, decoding and not asked.new_tokens, failure)


def is_net(heading: Heading) -> bool:
    """Whether an energy is that above idle, which says nothing of the mean power."""
    return not {"net", "dynamic"}.isdisjoint(split(heading.name))


def fact(
    name: str, number: units.Number, heading: Heading, asked: Workload, told: Told, notes: Notes
) -> dict[str, Any]:
    """What one number says."""
    value = number.value
    if name == "perplexity" and not math.isfinite(value):
        return {"perplexity_is_finite": False}
    if name == "energy_mj" and value == 0:
        return {"energy_is_zero": True}
    if not LEAST <= value <= MOST:
        raise Unreadable(f"{heading.name} = {value:g}: must be a number greater than 0")
    if heading.dimension == "rate":
        scale, per = rate_of(number, heading)
    else:
        scale, per = scale_of(number, heading, told, notes)
    value *= scale
    tokens = asked.new_tokens
    if per == "every token":
        per, tokens = "token", asked.new_tokens and asked.prompt_tokens + asked.new_tokens
    if name == "perplexity" and value < 1:
        raise Unreadable(f"{heading.name} = {value:g}: a perplexity is 1 or more")
    if name == "perplexity":
        return {name: value, "perplexity_unit": per or "token", "perplexity_step": number.step}
    if name == "bits_per_byte":
        return {"perplexity": 2**value, "perplexity_unit": "byte"} if value < 64 else {}
    if name in ("duration_s", "energy_window_s"):
        return {name: value / 1e3}
    if name in ("throughput_per_s", "energy_mj") and per == "token" and not tokens:
        return {_PER_TOKEN[name]: value}
    if name == "throughput_per_s" and per == "token":
        return {name: value / tokens, "tokens_per_s": value}
    if name == "throughput_per_s":
        return {name: value * (asked.batch_size if per == "batch" else 1)}
    if name == "energy_mj":
        return {name: value * {"token": tokens, "batch": 1 / asked.batch_size}.get(per or "", 1)}
    if name == "latency_ms":
        times = asked.batch_size if per == "sample" else 1
        step = number.step and number.step * scale * times
        unit = unit_behind(number)[0] or heading.unit
        return {name: value * times, "latency_step_ms": step, "latency_unit": unit}
    return {name: value}


_PER_TOKEN = {"throughput_per_s": "tokens_per_s", "energy_mj": "energy_per_token_mj"}


def rate_of(number: units.Number, heading: Heading) -> tuple[float, str | None]:
    """What a rate is multiplied by to be per second, and what it counts."""
    unit, per = unit_behind(number)
    over = units.TIME.get(unit or heading.unit or "s", 1e3)
    return 1e3 / over * heading.scale, per or heading.per


def scale_of(
    number: units.Number, heading: Heading, told: Told, notes: Notes
) -> tuple[float, str | None]:
    """What a number is multiplied by, by its own unit or its column's, and what it is of."""
    dimension = heading.dimension
    if not dimension:
        return heading.scale, heading.per
    unit, per = unit_behind(number)
    unit, per = unit or heading.unit, per or heading.per
    if unit is None and dimension == "energy" and told.energy_unit:
        unit = told.energy_unit
        notes.used.add("energy_unit")
    if unit is None:
        unit = USUAL_UNIT[dimension]
        notes.assumed.setdefault(units.plain(heading.name), f"in {units.SHOWN[dimension]}")
    factor = units.factor(unit, dimension)
    if factor is None:
        raise Unreadable(f"{heading.name} = {number.value:g} {unit}: no unit of {dimension}")
    return factor * heading.scale, per


def unit_behind(number: units.Number) -> tuple[str | None, str | None]:
    """The unit behind a number in its cell, and what it is of."""
    if not number.rest:
        return None, None
    rest = number.rest.partition("(")[0].strip()
    if unit := units.UNIT.get(units.spelled(rest)):
        return unit, None
    unit, per, _, _ = unit_in(split(rest))
    return unit, per
