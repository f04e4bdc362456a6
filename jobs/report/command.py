"""`tensorgap report`: the table again, from a Parquet file or a results folder."""

from collections.abc import Callable

import click

from bench.errors import TensorgapError
from jobs import options, reading, terminal
from jobs.report import compare, export, from_rows, table, text
from jobs.report.facts import Case

_FORMS: dict[str, Callable[[list[Case]], str]] = {
    "table": lambda cases: table.shown(cases, terminal.width(), terminal.coloured()),
    "markdown": table.markdown,
    "csv": export.to_csv,
    "json": export.to_json,
}


@click.command("report")
@click.argument("places", metavar="RESULTS...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice([*_FORMS]), default="table", show_default=True)
@click.option(
    "--against",
    metavar="TYPE",
    help="Compare each GPU type with this one instead, at each precision: as text or JSON.",
)
@options.max_input
def command(places: tuple[str, ...], form: str, against: str | None, most_bytes: int) -> None:
    """Show the table of RESULTS: a Parquet file or a NAME/UTC-TIMESTAMP folder, one or more.

    A folder is read part by part, so that a sweep in progress can be looked at. Each precision is
    compared with fp32 on the same GPU type; the interval is the 95 % interval of that ratio. A
    ratio with a `*` has warnings, which stand below its table. `tensorgap explain` says what the
    table means.

    \b
    tensorgap report results/local/20261124T120000Z
    tensorgap report results.parquet --format markdown > table.md
    tensorgap report results.parquet --format json | jq '.[].speedup'
    tensorgap report results.parquet --against T4
    """
    rows, _ = reading.read(places, most_bytes)
    if against:
        if form not in ("table", "json"):
            raise TensorgapError(f"--against: with --format {form}; allowed: table, json")
        shown = export.against if form == "json" else text.against
        cases = from_rows.cases(rows.records(samples=False))
        terminal.show(shown(compare.against(cases, against), against))
        return
    if not len(rows):
        terminal.say("there are no rows yet")
    terminal.show(_FORMS[form](compare.compared(rows.records(samples=False))))
