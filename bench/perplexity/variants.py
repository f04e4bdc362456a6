"""A perplexity as a number, and as one of many ways to compute it. Standard library only."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to a perplexity."""

    what: str  # the mistake in words; for a right protocol its name
    perplexity: float | None = None
    right: bool = False  # whether it is a right protocol in a unit that people use
    reason: str | None = None  # why there is no perplexity


def perplexity_of(nats_per_token: float) -> float | None:
    """exp, or None where the result exceeds what a float holds, or is not a number."""
    try:
        value = math.exp(nats_per_token)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def of_nats(what: str, nats_per_token: float, right: bool = False) -> Variant:
    """The variant of a mean loss, in nats."""
    value = perplexity_of(nats_per_token)
    reason = f"its loss is {nats_per_token:.4g}" if value is None else None
    return Variant(what, value, right, reason)
