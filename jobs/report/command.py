"""`tensorgap report`: the table again, from a Parquet file or a results folder."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.errors import TensorgapError
from bench.files.limits import Allowance, TooLargeError
from bench.files.location import shown
from bench.results import store
from bench.results.columns import Source
from bench.results.rows import Rows
from jobs import drawing, options, reading, terminal
from jobs.report import compare, cost, cost_table, export, from_rows, latex, methods, prices, table
from jobs.report import text as texts
from jobs.report.changes import history, history_table, opened
from jobs.report.cost import TokenCost
from jobs.report.facts import Case
from jobs.report.prices import Prices
from jobs.report.table import Sheet

TABLE, JSON = "table", "json"


@dataclass(frozen=True)
class Wanted:
    """What is to be shown of the results, as it was typed."""

    form: str = TABLE
    against: str | None = None
    prices: Path | None = None
    methods: bool = False
    html: str | None = None
    figures: str | None = None


@dataclass(frozen=True)
class Content:
    """What a form shows: the cases, and by the user's prices their costs, task by task."""

    cases: Sequence[Case]
    costs: Sequence[Sequence[TokenCost]] = ()
    prices: Prices | None = None

    @property
    def sheets(self) -> list[Sheet]:
        """The tables of the costs."""
        return list(cost_table.sheets(self.costs, self.prices)) if self.prices else []

    @property
    def records(self) -> Sequence[Any]:
        """A record per case for CSV and JSON."""
        if self.prices is None:
            return self.cases
        return export.with_costs(self.cases, list(itertools.chain(*self.costs)), self.prices)


def for_terminal(content: Content) -> str:
    """Text as wide as the terminal, in its colours."""
    return table.shown(content.cases, terminal.width(), terminal.coloured(), content.sheets)


FORMS: dict[str, Callable[[Content], str]] = {
    TABLE: for_terminal,
    "markdown": lambda content: table.markdown(content.cases, content.sheets),
    "latex": lambda content: latex.document(content.cases, content.sheets),
    "csv": lambda content: export.to_csv(content.records),
    JSON: lambda content: export.to_json(content.records),
}
_HISTORIES: dict[str, Callable[[history.RunsOverTime], str]] = {
    "table": lambda found: history_table.shown(found, terminal.width(), terminal.coloured()),
    "markdown": history_table.markdown,
    "csv": history_table.to_csv,
    "json": history_table.to_json,
}


@click.command("report")
@click.argument("places", metavar="RESULTS...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice([*FORMS]), default=TABLE, show_default=True)
@click.option(
    "--against",
    metavar="TYPE",
    help="Compare each GPU type with this one instead, at each precision: as text or JSON.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also what a million tokens cost: a TOML file of prices per GPU hour, per kWh and of CO2.",
)
@click.option(
    "--methods", is_flag=True, help="Instead of tables, methods and results as text for a paper."
)
@click.option(
    "--html",
    metavar="FILE",
    help="Instead of tables, write one page with the answer, a table and figures. It needs no"
    " network, and opens from the file.",
)
@click.option(
    "--figures",
    metavar="FOLDER",
    help="Instead of tables, write each figure of the page there, as SVG and as PDF.",
)
@options.max_input
def command(places: tuple[str, ...], most_bytes: int, **typed: Any) -> None:
    """Show the table of RESULTS: a Parquet file or a NAME/UTC-TIMESTAMP folder, one or more.

    A folder is read part by part, so that a sweep in progress can be looked at. Each precision is
    compared with fp32 on the same GPU type; the interval is the 95 % interval of that ratio. A
    ratio with a `*` has warnings, which stand below its table. `tensorgap explain` says what the
    table means. A folder of many runs is shown as a history: each cell in each run, in time order.

    \b
    tensorgap report results/local/20261124T120000Z
    tensorgap report results.parquet --format markdown > table.md
    tensorgap report results.parquet --format latex > table.tex
    tensorgap report results.parquet --methods > methods.md
    tensorgap report results.parquet --html report.html
    tensorgap report results.parquet --figures figures/
    tensorgap report results.parquet --format json | jq '.[].speedup'
    tensorgap report results.parquet --prices prices.toml
    tensorgap report results.parquet --against T4
    tensorgap report results/
    """
    wanted = Wanted(**typed)
    refuse(wanted)
    if runs := [run for place in places for run in store.runs_within(place)]:
        show_history(places, runs, wanted, most_bytes)
        return
    paid = prices.load(wanted.prices) if wanted.prices else None
    rows, sources = reading.read(places, most_bytes)
    if wanted.against is not None:
        show_against(rows, wanted.against, wanted.form)
        return
    if not len(rows):
        terminal.say("there are no rows yet")
    if wanted.html is not None or wanted.figures is not None:
        draw(rows, sources, wanted, paid)
        return
    cases = compare.compared(rows.records(samples=False))
    if wanted.methods:
        terminal.show(methods.text(rows, cases, sources))
        return
    costs = cost.by_task(cases, paid) if paid else []
    terminal.show(FORMS[wanted.form](Content(cases, costs, paid)))


def draw(rows: Rows, sources: Sequence[Source], wanted: Wanted, paid: Prices | None) -> None:
    """Write the page and the figures that are wanted, and print where they are."""
    pictures = drawing.pictures("--figures" if wanted.html is None else "--html")
    if wanted.html is not None:
        pictures.write_page(wanted.html, rows, sources, paid)
        terminal.echo(shown(wanted.html))
    if wanted.figures is not None:
        written, absent = pictures.write_figures(wanted.figures, rows)
        terminal.echo(*written)
        for text in absent:
            terminal.say(text)


def refuse(wanted: Wanted) -> None:
    """Raise TensorgapError for options that do not go together."""
    if wanted.against and wanted.form not in (TABLE, JSON):
        raise TensorgapError(f"--against: with --format {wanted.form}; allowed: table, json")
    if wanted.methods and wanted.form not in (TABLE, "markdown"):
        raise TensorgapError(f"--methods: with --format {wanted.form}; allowed: markdown")
    drawn = [f"--{name}" for name in ("html", "figures") if getattr(wanted, name) is not None]
    if drawn and wanted.form != TABLE:
        raise TensorgapError(f"{drawn[0]}: with --format {wanted.form}; give one of them at a time")
    alone = (("--methods", wanted.methods), ("--against", wanted.against is not None))
    given = [name for name, value in alone if value] + drawn[:1]
    if wanted.prices and given not in ([], ["--html"]):
        given.append("--prices")
    if len(given) > 1:
        raise TensorgapError(f"{given[0]}: with {given[1]}; give one of them at a time")


def show_against(rows: Rows, chosen: str, form: str) -> None:
    """Print GPU types against a chosen one."""
    write = export.against if form == JSON else texts.against
    cases = from_rows.cases(rows.records(samples=False))
    terminal.show(write(compare.against(cases, chosen), chosen))


def show_history(
    places: Sequence[str], runs: Sequence[str], wanted: Wanted, most_bytes: int
) -> None:
    """Show the runs of folders of runs; those that cannot be read are named, and left out."""
    where = shown(places[0])
    options_of_one = ("against", "prices", "methods", "html", "figures")
    for name in options_of_one:
        if getattr(wanted, name):
            raise TensorgapError(f"--{name}: {where} is a folder of runs; give one of them")
    if wanted.form not in _HISTORIES:
        known = ", ".join(_HISTORIES)
        raise TensorgapError(
            f"--format {wanted.form}: {where} is a folder of runs; allowed: {known}"
        )
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
        raise TensorgapError(f"{where}: none of its {len(runs)} runs can be read")
    terminal.show(_HISTORIES[wanted.form](history.of_runs(found)))
