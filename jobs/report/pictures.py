"""`report --html` and `report --figures`: the page and the figures as files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from bench.errors import TensorgapError
from bench.files.location import shown
from bench.files.storage import Storage
from bench.results.columns import Source
from bench.results.rows import Rows
from jobs.report import compare
from jobs.report.figures import data, samples
from jobs.report.figures.every import FIGURES
from jobs.report.page import report

FORMATS = ("svg", "pdf")
_ANOTHER_PLACE = "; give another place"


def write_page(location: str, rows: Rows, sources: Sequence[Source]) -> None:
    """Write the page of some rows to a path or URI; what stood there is replaced at once.

    Raises TensorgapError where it cannot be written, or its name is no page's: a slip would
    replace results.
    """
    write_html(location, "--html", report.page(rows, sources))


def write_html(location: str, option: str, content: str) -> None:
    """Write a page, as `write_page` does."""
    if not location.endswith((".html", ".htm")):
        raise TensorgapError(f"{option} {shown(location)}: must end in .html")
    place = Storage.at(location)
    with place.explained(_ANOTHER_PLACE), place.writing() as sink:
        sink.write(content.encode())


def write_figures(location: str, rows: Rows) -> Iterator[str]:
    """Write each figure that has data to a folder, in each of `FORMATS`; the places, as they come.

    Then one line for each figure that has none.
    """
    cases = compare.compared(rows.records(samples=False))
    found = data.of(cases, samples.of_rows(rows))
    folder = Storage.at(location)
    with folder.explained(_ANOTHER_PLACE):
        folder.make_folder()
    for figure in FIGURES:
        chart = figure.static(found)
        for form in FORMATS if chart is not None else ():
            content = io.BytesIO() if form == "pdf" else io.StringIO()
            chart.save(content, format=form)
            raw = content.getvalue()
            place = folder.within(f"{figure.name}.{form}")
            with place.explained(_ANOTHER_PLACE), place.writing() as sink:
                sink.write(raw if isinstance(raw, bytes) else raw.encode())
            yield place.shown
    yield from (figure.absent for figure in FIGURES if not figure.panels(found))
