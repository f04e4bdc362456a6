"""Result files of other programs as grids: optimum-benchmark, and lm-eval."""

from jobs.report.foreign.grid import Grid


def grids(text: str, name: str, place: str) -> list[Grid]:
    """The grids of a JSON document that is known; none where it is no JSON."""
    return []
