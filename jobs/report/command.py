"""`tensorgap report`: the table again, from a Parquet file or a results folder."""

from __future__ import annotations

import sys

import click

from bench import results, table
from jobs import torn_parts
from jobs.report import comparison, render


@click.command("report")
@click.argument("place", metavar="RESULTS", nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
)
def command(place: tuple[str, ...], form: str) -> None:
    """Show the table of RESULTS: a Parquet file or a NAME/UTC-TIMESTAMP folder, one or more.

    A folder is read part by part, so that a sweep in work can be looked at. Each precision is
    compared with fp32 on the same GPU type; the interval is the 95 % interval of that ratio.

    \b
    tensorgap report results/local/20261124T120000Z
    tensorgap report results.parquet --format markdown > table.md
    tensorgap report results.parquet --format json | jq '.[].speedup'
    """
    rows = []
    for location in place:
        found, _, torn = results.read(location)
        torn_parts.report(torn, "its row is missing")
        rows.extend(found)
    lines = comparison.compare(table.merge(rows))
    if not lines:
        click.echo("tensorgap: there are no rows yet", err=True)
    show = {
        "table": lambda: render.table(lines, color=sys.stdout.isatty()),
        "markdown": lambda: render.markdown(lines),
        "csv": lambda: render.to_csv(lines),
        "json": lambda: render.to_json(lines),
    }
    click.echo(show[form]())
