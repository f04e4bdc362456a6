"""`tensorgap report`: the table again, from a Parquet file or a results folder."""

from __future__ import annotations

import click

from bench.errors import TensorgapError
from bench.results import columns as table
from jobs import options, reading, terminal
from jobs.report import comparison, render


@click.command("report")
@click.argument("places", metavar="RESULTS...", nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option(
    "--against",
    metavar="TYPE",
    help="Compare each GPU type with this one instead, at each precision: as text or JSON.",
)
@options.max_input
def command(places: tuple[str, ...], form: str, against: str | None, most_bytes: int) -> None:
    """Show the table of RESULTS: a Parquet file or a NAME/UTC-TIMESTAMP folder, one or more.

    A folder is read part by part, so that a sweep in work can be looked at. Each precision is
    compared with fp32 on the same GPU type; the interval is the 95 % interval of that ratio.
    `tensorgap explain` says what the table means.

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
        found_types = comparison.against(table.merge(rows), against)
        one = render.against_json if form == "json" else render.against
        terminal.show(one(found_types))
        return
    lines = comparison.compare(table.merge(rows))
    if not lines:
        terminal.say("there are no rows yet")
    show = {
        "table": lambda: render.table(lines, terminal.width(), terminal.coloured()),
        "markdown": lambda: render.markdown(lines),
        "csv": lambda: render.to_csv(lines),
        "json": lambda: render.to_json(lines),
    }
    terminal.show(show[form]())
