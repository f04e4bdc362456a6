"""All figures, in the order of the page: what a reader asks first stands first."""

from bench.errors import TensorgapError
from jobs.report.figures import (
    breakdown,
    energy,
    latency,
    perplexity,
    power,
    roofline,
    schedule,
    speedup,
)
from jobs.report.figures.figure import Figure

FIGURES: tuple[Figure, ...] = (
    speedup.FIGURE,
    energy.FRONTIER,
    latency.DISTRIBUTION,
    latency.BATCHES,
    breakdown.FIGURE,
    roofline.FIGURE,
    energy.GROSS,
    power.FIGURE,
    perplexity.FIGURE,
    schedule.FIGURE,
)


def named(name: str) -> Figure:
    """The figure of a name; TensorgapError where there is none."""
    found = next((figure for figure in FIGURES if figure.name == name), None)
    if found is None:
        known = ", ".join(figure.name for figure in FIGURES)
        raise TensorgapError(f"figure {name}: there is no such figure; there are {known}")
    return found
