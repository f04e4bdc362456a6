"""A run as it is compared, from its place."""

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.location import shown
from jobs import reading
from jobs.report.changes import pairs
from jobs.report.changes.compared import Input
from jobs.report.changes.records import RunCompared


def run_at(place: str, label: str, allowance: Allowance) -> Input:
    """The rows of a file, a folder or a URI; `label` is what the comparison calls it.

    Raises TensorgapError where there are no rows, one has no number, or a cell stands in several
    runs.
    """
    rows, sources = reading.read_one(place, allowance)
    if not len(rows):
        raise TensorgapError(f"{shown(place)}: has no rows yet; there is nothing to compare")
    measured = pairs.of_run(rows.records(samples=False, allowance=allowance), shown(place))
    names = {row.run: None for one in measured.values() for row in one.rows}
    about = RunCompared(label, shown(place), tuple(names), len(rows))
    return Input(about, measured, tuple(sources))
