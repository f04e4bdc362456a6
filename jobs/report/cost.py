"""What a million tokens cost: the rent of the GPU, energy, electricity and carbon, from cases.

The rent is that of a full queue, which is what a renter pays for: from the throughput, and from the
latency where there is none. A rent includes electricity, so the price of the electricity stands
beside it, for whoever owns the GPU, and is never added to it. Prices are exact; an interval is that
of the time or of the energy.
"""

import enum
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bench import stats
from bench.measured import Outcome
from bench.stats import Median, Ratio
from jobs.report import compare
from jobs.report.facts import Case
from jobs.report.prices import Prices
from jobs.report.words import gathered

THROUGHPUT, LATENCY = "throughput", "latency"
PROMPT, OUTPUT = "prompt", "output"  # which tokens are counted
MILLION = 1e6
_S_PER_HOUR = 3600
_MJ_PER_KWH = 3.6e9


class Standing(enum.StrEnum):
    """How a case compares with the least of those that do the same."""

    LEAST = "least"
    TIED = "tied"  # no significant difference to the least, or no interval that could decide
    MORE = "more"


@dataclass(frozen=True)
class Amount:
    """A value with its 95 % interval; None where what it is made of has none."""

    value: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> "Amount":
        """As much of it.

        >>> Amount(1.0, 0.5, 2.0).times(3)
        Amount(value=3.0, low=1.5, high=6.0)
        """
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Amount(self.value * factor, low, high)


@dataclass(frozen=True)
class TokenCost:
    """What a million tokens of a case cost; None: not measured, or no price for it was given.

    Attributes:
        tokens: Which are counted: `prompt`, or with new tokens `output`.
        basis: What the price follows from: `throughput`, or `latency` where there is none.
        price: Rent of the GPU, in the currency of the prices.
        energy_kwh: As the meter saw it: the GPU alone, or the package of a CPU.
        electricity: Price of that energy with the overhead factor; not part of `price`.
        co2_g: Of that energy with the overhead factor, in grams of CO2 equivalent.
        price_standing: Against the others of the same task; `energy_standing` by energy.
    """

    case: Case
    tokens: str
    basis: str | None
    price: Amount | None
    energy_kwh: Amount | None
    electricity: Amount | None
    co2_g: Amount | None
    price_standing: Standing | None = None
    energy_standing: Standing | None = None


def by_task(cases: Iterable[Case], prices: Prices) -> list[list[TokenCost]]:
    """The costs of all measured cases, those that do the same task together, cheapest first.

    A task is a model with a number of prompt tokens and of new ones; how it is done, on which GPU
    and in which precision, batch size and engine, is what the costs are compared over. Simulated
    cases have a standing only where there is no other.
    """

    def task(cost: TokenCost) -> object:
        asked = cost.case.workload
        return asked.model, asked.prompt_tokens, asked.new_tokens

    measured = [cost_of(case, prices) for case in cases if case.outcome == Outcome.OK]
    return [ranked(same, prices) for same in gathered(measured, task)]


def cost_of(case: Case, prices: Prices) -> TokenCost:
    """What a million tokens of one case cost, without its standing."""
    tokens = case.workload.new_tokens or case.workload.prompt_tokens
    basis, medians = paces(case)
    rate = prices.per_gpu_hour.get(case.gpu)
    price = None
    if medians and rate is not None:
        pace_s = 1 / case.throughput_per_s if case.throughput_per_s else latency_s(case)
        price = within(pace_s * rate / _S_PER_HOUR / tokens * MILLION, *reach(medians))
    energy = None
    if case.energy_mj is not None and case.energy_mj > 0:
        energy = energy_of(case).times(MILLION / tokens / _MJ_PER_KWH)
    whole = energy and energy.times(prices.energy_overhead_factor)
    per_kwh, grams = prices.electricity_per_kwh, prices.grams_co2_per_kwh
    return TokenCost(
        case=case,
        tokens=OUTPUT if case.workload.new_tokens else PROMPT,
        basis=basis if price else None,
        price=price,
        energy_kwh=energy,
        electricity=whole.times(per_kwh) if whole and per_kwh is not None else None,
        co2_g=whole.times(grams) if whole and grams is not None else None,
    )


def latency_s(case: Case) -> float:
    """Time of one prompt in a closed loop; 0 where there is none."""
    return (case.latency_ms or 0.0) / 1e3 / case.workload.batch_size


def paces(case: Case) -> tuple[str | None, list[Median]]:
    """What the time of a prompt follows from, and that time of each replicate in ms.

    A full queue is measured once in a process and has no interval there: that of the latencies
    beside it stands in its place, as a share.
    """
    latencies = case.latencies_ms
    if not case.throughput_per_s:
        size = case.workload.batch_size
        found = [scaled(one, 1 / size) for one in latencies] if case.latency_ms else []
        return (LATENCY, found) if found else (None, [])
    queued_ms = [1e3 / rate for rate in case.throughputs_per_s]
    if len(queued_ms) != len(latencies):
        return THROUGHPUT, [Median(pace) for pace in queued_ms]
    pairs = zip(queued_ms, latencies, strict=True)
    return THROUGHPUT, [scaled(beside, pace / beside.value) for pace, beside in pairs]


def scaled(median: Median, factor: float) -> Median:
    """A median with its interval, as much of it."""
    return Median(*(None if end is None else end * factor for end in median))  # type: ignore[arg-type]


def reach(medians: Sequence[Median]) -> tuple[float, float]:
    """How far the interval of replicates, or of the one there is, reaches, as logarithms."""
    if len(medians) == 1:
        return stats.log_reach(medians)
    half = stats.student_interval([math.log(one.value) for one in medians])
    return half, half


def within(value: float, down: float, up: float) -> Amount:
    """A value with an interval that reaches so far, as logarithms; infinite: it has none."""
    if not (math.isfinite(down) and math.isfinite(up)):
        return Amount(value)
    return Amount(value, value / math.exp(down), value * math.exp(up))


def energy_of(case: Case) -> Amount:
    """The energy of a prompt in mJ with its interval, the sensor's own error in it."""
    assert case.energy_mj is not None
    if case.energy_uncertainty is None and len(case.energies_mj) < 2:
        return Amount(case.energy_mj)
    half, _ = compare.energy_part(case)
    share = math.hypot(half, case.energy_systematic or 0.0)
    return Amount(
        case.energy_mj, case.energy_mj * max(0.0, 1 - share), case.energy_mj * (1 + share)
    )


def ranked(costs: Sequence[TokenCost], prices: Prices) -> list[TokenCost]:
    """The costs of one task in the order of price, then energy, with their standings."""
    real = [one for one in costs if not one.case.simulated] or costs

    def price_ratio(case: Case, least: Case) -> Ratio | None:
        (_, mine), (_, best) = paces(case), paces(least)
        rates = prices.per_gpu_hour[case.gpu], prices.per_gpu_hour[least.gpu]
        if not rates[1]:  # what costs nothing is less than anything
            return Ratio(math.inf, math.inf, math.inf) if rates[0] else None
        found = stats.ratio_of_medians(mine, best)
        factor = rates[0] / rates[1]
        ends = (found.value * factor, found.low * factor, found.high * factor)
        return Ratio(*ends, freedom=found.freedom)

    by_price = standings([(one.case, one.price) for one in real], price_ratio)
    by_energy = standings([(one.case, one.energy_kwh) for one in real], energy_ratio)
    told = [
        replace(
            one,
            price_standing=by_price.get(id(one.case)),
            energy_standing=by_energy.get(id(one.case)),
        )
        for one in costs
    ]
    return sorted(told, key=lambda one: (size_of(one.price), size_of(one.energy_kwh)))


def size_of(amount: Amount | None) -> float:
    """An amount to sort by; the unknown comes last."""
    return math.inf if amount is None else amount.value


def energy_ratio(case: Case, least: Case) -> Ratio | None:
    """Energy of a case over that of another; the sensor's own error cancels on one GPU type."""
    return compare.energy_ratio(case, least, between_types=case.gpu != least.gpu)


def standings(
    found: Sequence[tuple[Case, Amount | None]],
    ratio: Callable[[Case, Case], Ratio | None],
) -> dict[int, Standing]:
    """The standing of each case that has the amount, by the id of the case.

    As the least is chosen among all of them, an interval must be wider to decide against one.
    """
    known = [(case, amount) for case, amount in found if amount is not None]
    if not known:
        return {}
    least, best = min(known, key=lambda pair: pair[1].value)
    told = {id(least): Standing.LEAST}
    for case, amount in known:
        if case is not least:
            open_ended = None in (amount.low, best.low)
            more = None if open_ended else compare.decided(ratio(case, least), len(known) - 1)
            told[id(case)] = Standing.TIED if more is None else Standing.MORE
    return told
