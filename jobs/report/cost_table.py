"""Costs of a million tokens as tables, with sentences that name the least, and as plain values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.report import words
from jobs.report.cost import LATENCY, Amount, Standing, TokenCost
from jobs.report.facts import Case, each
from jobs.report.prices import Prices
from jobs.report.table import MARK, Sheet, warnings
from jobs.report.words import NOTHING, listed, number

_NAMES = ("run", "GPU", "engine", "batch", "attention", "precision")
_VARYING = ("run", "attention")  # columns that stand only where there are several
_WH = 1e3  # in a kWh
MOST_FOLD = 100  # an end of an interval beyond so many times the value is only said to be beyond
_MOST_TIES = 3  # that a sentence names
Found = Sequence[Sequence[TokenCost]]  # those of each task


def sheets(found: Found, prices: Prices) -> Iterator[Sheet]:
    """A table for each task, cheapest first; its remarks name the cheapest and most frugal."""
    for costs in found:
        head = costs[0]
        asked = head.case.workload
        title = (
            f"Cost of 1 million {head.tokens} tokens: {asked.model}, {asked.prompt_tokens} tokens"
        )
        title += f" + {asked.new_tokens} new" if asked.new_tokens else ""
        named = [names_of(one.case) for one in costs]
        shown = [
            at
            for at, name in enumerate(_NAMES)
            if name not in _VARYING or len({names[at] for names in named}) > 1
        ]
        columns = {
            heading: column
            for heading, column in amounts_of(prices).items()
            if any(getattr(one, column[0]) is not None for one in costs)
        }
        rows = [
            [names[at] for at in shown] + [cell(one, *column) for column in columns.values()]
            for names, one in zip(named, costs, strict=True)
        ]
        headings = [*(_NAMES[at] for at in shown), *columns]
        yield Sheet(title, headings, rows, remarks(costs, prices), left=len(shown))


def amounts_of(prices: Prices) -> dict[str, tuple[str, float]]:
    """The columns of a table: the heading, its field, and the factor to the unit of the heading."""
    columns = {
        f"price ({prices.currency}) [95 %]": ("price", 1.0),
        "energy (Wh) [95 %]": ("energy_kwh", _WH),
        f"electricity ({prices.currency})": ("electricity", 1.0),
        "CO2 (g)": ("co2_g", 1.0),
    }
    given = {
        "price": bool(prices.per_gpu_hour),
        "energy_kwh": True,
        "electricity": prices.electricity_per_kwh is not None,
        "co2_g": prices.grams_co2_per_kwh is not None,
    }
    return {heading: column for heading, column in columns.items() if given[column[0]]}


def names_of(case: Case) -> tuple[str, ...]:
    """What tells a case from others of its task, in the order of the columns."""
    asked = case.workload
    return case.run, case.gpu, asked.engine, str(asked.batch_size), asked.attention, case.precision


def cell(cost: TokenCost, name: str, factor: float) -> str:
    """The cell of an amount; price and energy have their interval in it."""
    amount: Amount | None = getattr(cost, name)
    if amount is None:
        return NOTHING
    amount = amount.times(factor)
    text = number(amount.value)
    if name not in ("price", "energy_kwh"):
        return text
    text += MARK if warnings(cost.case) else ""
    if amount.low is not None and amount.high is not None:
        least, most = amount.value / MOST_FOLD, amount.value * MOST_FOLD
        low = f"<{number(least)}" if amount.low < least else number(amount.low)
        high = f">{number(most)}" if amount.high > most else number(amount.high)
        text += f" [{low}, {high}]"
    return text


def remarks(costs: Sequence[TokenCost], prices: Prices) -> list[str]:
    """Which is cheapest and which most frugal, and what the amounts rest on."""
    texts = [
        *least_of("cheapest", costs, "price", 1.0, f" {prices.currency}"),
        *least_of("most frugal", costs, "energy_kwh", _WH, " Wh"),
    ]
    if any(one.case.simulated for one in costs):
        whole = all(one.case.simulated for one in costs)
        some = "" if whole else "some rows are; they are not compared with the others; "
        texts.append(f"simulated: {some}no number of a modelled GPU is that of a real one")
    if any((one.price or one.energy_kwh) and warnings(one.case) for one in costs):
        texts.append(f"{MARK} the row has warnings, which stand below its table")
    if any(one.price for one in costs):
        text = "the price is that of the GPU's time with a full queue, from the throughput"
        by_latency = [subject(one.case) for one in costs if one.price and one.basis == LATENCY]
        if by_latency:
            every = len(by_latency) == sum(bool(c.price) for c in costs)
            which = "every row" if every else words.some_of(by_latency, _MOST_TIES)
            text += f"; from the latency where none was measured: {which}"
        texts.append(text)
    lacking = each(one.case.gpu for one in costs if one.case.gpu not in prices.per_gpu_hour)
    if lacking and prices.per_gpu_hour:
        texts.append(f"no price per hour was given for {listed(lacking)}")
    if any(one.energy_kwh for one in costs):
        texts.append(of_energy(prices))
    return texts


def of_energy(prices: Prices) -> str:
    """What the energy covers, and electricity and CO2."""
    text = "the energy is what the meter saw (NVML: the GPU alone; RAPL: the CPU package)"
    factor = prices.energy_overhead_factor
    rest = [
        name
        for name, price in (
            ("electricity", prices.electricity_per_kwh),
            ("CO2", prices.grams_co2_per_kwh),
        )
        if price is not None
    ]
    if not rest:
        return f"{text}, without the server and its cooling"
    if factor == 1:
        return f"{text}; {listed(rest)} are of it, without the server and its cooling"
    return f"{text}; {listed(rest)} are of {factor:g} times that, for the server and its cooling"


def least_of(
    what: str, costs: Sequence[TokenCost], name: str, factor: float, unit: str
) -> Iterator[str]:
    """A sentence that names the least by an amount, and which ones do not differ from it."""
    standing = "price_standing" if name == "price" else "energy_standing"
    compared = [one for one in costs if getattr(one, standing) is not None]
    if not compared:
        return
    compared.sort(key=lambda one: float(getattr(one, name).value))
    least = next(one for one in compared if getattr(one, standing) is Standing.LEAST)
    value = getattr(least, name).value * factor
    text = f"{what}: {subject(least.case)} at {number(value, unit)}"
    tied = [subject(one.case) for one in compared if getattr(one, standing) is Standing.TIED]
    others = [one for one in compared if one is not least]
    if tied:
        text += f"; no significant difference to {words.some_of(tied, _MOST_TIES)}"
    elif others:
        second = others[0]
        share = getattr(second, name).value / getattr(least, name).value
        text += f"; the next, {subject(second.case)}, is at {words.times(share)} that"
    else:
        text += ", the only one to compare"
    yield text


def subject(case: Case) -> str:
    """How a sentence names a case among those of its task."""
    asked = case.workload
    return f"{case.gpu} {case.precision} {asked.engine} batch {asked.batch_size}"


def flat(cost: TokenCost, prices: Prices) -> dict[str, Any]:
    """A cost as plain values, by column: each amount per million tokens, with its interval."""
    record: dict[str, Any] = {
        "cost_per_million": f"{cost.tokens} tokens",
        "price_from": cost.basis,
        "currency": prices.currency or None,
    }
    for name in ("price", "energy_kwh", "electricity", "co2_g"):
        amount: Amount | None = getattr(cost, name)
        for end in ("value", "low", "high"):
            column = f"{name}_per_million" + ("" if end == "value" else f"_{end}")
            record[column] = getattr(amount, end, None)
    standings: Mapping[str, Standing | None] = {
        "price_standing": cost.price_standing,
        "energy_standing": cost.energy_standing,
    }
    return record | {name: one and str(one) for name, one in standings.items()}
