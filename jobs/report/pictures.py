"""`report --html` and `report --figures`: the page and the figures as files."""

from __future__ import annotations

import gc
import io
from collections.abc import Sequence

from bench.errors import TensorgapError
from bench.files.location import shown
from bench.files.storage import Storage
from bench.results.columns import Source
from bench.results.rows import Rows
from jobs.report import compare
from jobs.report.changes.records import Comparison
from jobs.report.figures import data, samples
from jobs.report.figures.every import FIGURES
from jobs.report.page import comparison, report
from jobs.report.prices import Prices

FORMATS = ("svg", "pdf")
_ANOTHER_PLACE = "; give another place"


def write_page(
    location: str, rows: Rows, sources: Sequence[Source], prices: Prices | None = None
) -> None:
    """Write the page of some rows to a path or URI; what stood there is replaced at once.

    Raises TensorgapError where it cannot be written, or its name is no page's: a slip would
    replace results.
    """
    check_name(location)
    # Of very many rows the collector takes an eighth of the time, and finds nothing.
    gc.disable()
    try:
        write_html(location, report.page(rows, sources, prices))
    finally:
        gc.enable()


def write_comparison(location: str, found: Comparison) -> None:
    """Write the page of a comparison, as `write_page` does."""
    check_name(location)
    write_html(location, comparison.page(found))


def check_name(location: str) -> None:
    """Raise TensorgapError for a name that is no page's, before a page is made."""
    if not location.endswith((".html", ".htm")):
        raise TensorgapError(f"--html {shown(location)}: must end in .html")


def write_html(location: str, content: str) -> None:
    """Write a page, as `write_page` does."""
    place = Storage.at(location)
    with place.explained(_ANOTHER_PLACE), place.writing() as sink:
        sink.write(content.encode())


def write_figures(location: str, rows: Rows) -> tuple[list[str], list[str]]:
    """Write each figure that has data to a folder, in each of `FORMATS`.

    Returns:
        Where they are, and a line for each figure that has no data.
    """
    if not location:
        raise TensorgapError("--figures: an empty name; give a folder")
    cases = compare.compared(rows.records(samples=False))
    found = data.of(cases, samples.of_rows(rows))
    folder = Storage.at(location)
    with folder.explained(_ANOTHER_PLACE):
        folder.make_folder()
    written = []
    for figure in FIGURES:
        if (chart := figure.static(found)) is None:
            continue
        for form in FORMATS:
            content = io.BytesIO() if form == "pdf" else io.StringIO()
            chart.save(content, format=form)
            raw = content.getvalue()
            place = folder.within(f"{figure.name}.{form}")
            with place.explained(_ANOTHER_PLACE), place.writing() as sink:
                sink.write(raw if isinstance(raw, bytes) else raw.encode())
            written.append(place.shown)
    return written, [figure.absent for figure in FIGURES if not figure.panels(found)]
