"""`tensorgap report`: the table again, from a Parquet file or a results folder."""

from collections.abc import Callable, Sequence

import click

from bench.errors import TensorgapError
from bench.files.limits import Allowance, TooLargeError
from bench.files.location import shown
from bench.results import store
from jobs import options, reading, terminal
from jobs.report import compare, export, from_rows, table, text
from jobs.report.changes import history, history_table, opened
from jobs.report.facts import Case

_FORMS: dict[str, Callable[[list[Case]], str]] = {
    "table": lambda cases: table.shown(cases, terminal.width(), terminal.coloured()),
    "markdown": table.markdown,
    "csv": export.to_csv,
    "json": export.to_json,
}
_HISTORIES: dict[str, Callable[[history.RunsOverTime], str]] = {
    "table": lambda found: history_table.shown(found, terminal.width(), terminal.coloured()),
    "markdown": history_table.markdown,
    "csv": history_table.to_csv,
    "json": history_table.to_json,
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
    table means. A folder of many runs is shown as a history: each cell in each run, in time order.

    \b
    tensorgap report results/local/20261124T120000Z
    tensorgap report results.parquet --format markdown > table.md
    tensorgap report results.parquet --format json | jq '.[].speedup'
    tensorgap report results.parquet --against T4
    tensorgap report results/
    """
    if runs := [run for place in places for run in store.runs_within(place)]:
        show_history(places, runs, form, against, most_bytes)
        return
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


def show_history(
    places: Sequence[str], runs: Sequence[str], form: str, against: str | None, most_bytes: int
) -> None:
    """Show the runs of folders of runs; those that cannot be read are named, and left out."""
    if against:
        raise TensorgapError(f"--against: {shown(places[0])} is a folder of runs; give one of them")
    if others := [place for place in places if not store.runs_within(place)]:
        raise TensorgapError(
            f"{shown(others[0])}: no folder of runs, beside one that is; give folders of runs alone"
        )
    allowance = Allowance(most_bytes)
    found = []
    for run in runs:
        try:
            found.append(opened.run_at(run, "", allowance))
        except TooLargeError:
            raise
        except TensorgapError as error:
            terminal.say(f"left out: {error}")
    if not found:
        raise TensorgapError(f"{shown(places[0])}: none of its {len(runs)} runs can be read")
    terminal.show(_HISTORIES[form](history.of_runs(found)))
