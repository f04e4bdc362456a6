"""What a GPU hour, electricity and its carbon cost: a TOML file of the user's; nothing is built in.

currency = "USD"
electricity_per_kwh = 0.20        # optional
grams_co2_per_kwh = 400           # optional
energy_overhead_factor = 1.0      # optional: all energy of server and cooling / the meter's

[per_gpu_hour]                    # optional: by GPU type as in the results, also CPU
T4 = 0.50
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import matrix
from bench.validation import misspelt, refuse, said, unknown_keys

RATES = "per_gpu_hour"
MOST = 1_000_000.0  # of a price: above it is a slip of the unit
LONGEST_CURRENCY = 12
_AMOUNTS = ("electricity_per_kwh", "grams_co2_per_kwh", "energy_overhead_factor")
_KEYS = ("currency", *_AMOUNTS, RATES)


@dataclass(frozen=True)
class Prices:
    """What the user pays; each price is taken as exact, and None is not given.

    Attributes:
        currency: Of all prices; empty where there is none.
        per_gpu_hour: Rent of one GPU for an hour, by GPU type.
        grams_co2_per_kwh: Carbon intensity of the electricity, in g CO2 equivalent.
        energy_overhead_factor: Energy of the server and its cooling, over what the meter saw.
    """

    currency: str = ""
    per_gpu_hour: Mapping[str, float] = field(default_factory=dict)
    electricity_per_kwh: float | None = None
    grams_co2_per_kwh: float | None = None
    energy_overhead_factor: float = 1.0


def load(path: Path) -> Prices:
    """Read prices from a TOML file; TensorgapError names what is wrong with it."""
    return parse(matrix.text_of(path, "a file of prices"), path.name)


def parse(text: str, source: str) -> Prices:
    """Prices of a TOML text; TensorgapError has a line for each mistake, with the remedy.

    >>> parse('currency = "USD"\\nper_gpu_hour.T4 = 1', "prices.toml").per_gpu_hour
    {'T4': 1.0}
    """
    document = matrix.document_of(text, source)
    refuse(mistakes(document), source)
    amounts = {key: float(document[key]) for key in _AMOUNTS if key in document}
    rates = {name: float(rate) for name, rate in document.get(RATES, {}).items()}
    return Prices(document.get("currency", ""), rates, **amounts)


def mistakes(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with each key and value."""
    yield from unknown_keys("", document, _KEYS)
    for key in _AMOUNTS:
        least = 1 if key == "energy_overhead_factor" else 0
        if key in document and (fault := not_an_amount(document[key], least)):
            yield said(key, document[key], fault)
    rates = document.get(RATES, {})
    if not isinstance(rates, dict):
        yield said(RATES, rates, f"must be a table, written [{RATES}], such as T4 = 0.50")
    else:
        for name, rate in rates.items():
            if fault := misspelt(name) or not_an_amount(rate):
                yield said(f"{RATES}.{name}", rate, fault)
    if "currency" in document:
        currency = document["currency"]
        if not isinstance(currency, str) or not 0 < len(currency.strip()) <= LONGEST_CURRENCY:
            form = f'must be a string of 1 to {LONGEST_CURRENCY} characters, such as "USD"'
            yield said("currency", currency, form)
    elif rates or "electricity_per_kwh" in document:
        yield 'currency: missing; name that of the prices, such as currency = "USD"'
    if not rates and not any(key in document for key in _AMOUNTS[:2]):
        yield f"no price: give at least one of {RATES}, {_AMOUNTS[0]} and {_AMOUNTS[1]}"


def not_an_amount(value: object, least: float = 0) -> str | None:
    """What is said of a value that is no amount; None where it is one.

    >>> not_an_amount(0.35), not_an_amount(-1), not_an_amount(True)
    (None, 'must be from 0 to 1e+06', 'must be a number')
    """
    if type(value) not in (int, float):  # not isinstance: True is an int
        return "must be a number"
    assert isinstance(value, int | float)
    return None if least <= value <= MOST else f"must be from {least:g} to {MOST:g}"
