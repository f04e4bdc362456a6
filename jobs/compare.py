"""`tensorgap compare`: what changed between runs, and whether it is more than chance."""

import math
from collections.abc import Callable

import click

from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.location import shown
from jobs import drawing, options, terminal
from jobs.report.changes import compared, decide, export, limits, opened, table
from jobs.report.changes.records import Comparison, Metric

EXCEEDED = 1  # exit code
TABLE = "table"
MOST = 26  # runs, each of which has a letter
_FORMS: dict[str, Callable[[Comparison], str]] = {
    TABLE: lambda found: table.shown(found, terminal.width(), terminal.coloured()),
    "markdown": table.markdown,
    "csv": export.to_csv,
    "json": export.to_json,
}


def finite(context: click.Context, option: click.Parameter, value: float) -> float:
    """A number that is one: no range keeps out what is not."""
    if math.isnan(value):
        raise click.BadParameter(f"{value} is not a number")
    return value


@click.command("compare")
@click.argument("places", metavar="OLD NEW [MORE...]", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice([*_FORMS]), default=TABLE, show_default=True)
@click.option(
    "--fail-on",
    "typed",
    multiple=True,
    metavar="LIMIT",
    help='End with exit code 1 where a metric became worse by more: "latency>5%", "throughput>5%",'
    ' "energy>5%" or "perplexity>0.5%"; also where a row is no longer OK. Repeatable.',
)
@click.option(
    "--metric",
    "chosen",
    type=click.Choice([metric.value for metric in Metric]),
    multiple=True,
    help="Compare by this metric only; repeatable. Fewer comparisons find smaller changes.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(1e-6, 0.5),
    callback=finite,
    default=decide.ALPHA,
    show_default=True,
    metavar="SHARE",
    help="How often a comparison of runs that are alike gives any false alarm, at most.",
)
@click.option(
    "--html",
    metavar="FILE",
    help="Instead of the table, write one page with both runs side by side and each change.",
)
@options.max_input
def command(
    places: tuple[str, ...],
    form: str,
    typed: tuple[str, ...],
    chosen: tuple[str, ...],
    alpha: float,
    html: str | None,
    most_bytes: int,
) -> int:
    """Say what changed between OLD and NEW: Parquet files or NAME/UTC-TIMESTAMP folders.

    Rows are paired by GPU type, precision, workload and board. Latency, throughput, energy and
    perplexity are compared, each with its ratio NEW / OLD and interval; all decisions hold
    together. What differs in software, device and matrix stands above the tables. Both runs need
    several replicates (sampling.replicates). With MORE runs, each is compared with the first.

    \b
    tensorgap compare results/study/20261101T120000Z results/study/20261201T120000Z
    tensorgap compare before.parquet after.parquet --fail-on "latency>5%"
    tensorgap compare before.parquet after.parquet --format markdown > comment.md
    tensorgap compare before.parquet after.parquet --html changes.html
    """
    if not 2 <= len(places) <= MOST:
        raise click.UsageError(
            f"{len(places)} place: give OLD and NEW, and at most {MOST - 2} more"
        )
    if html is not None and form != TABLE:
        raise TensorgapError(f"--html: with --format {form}; give one of them at a time")
    asked = [limits.parse(text) for text in typed]
    metrics = tuple(map(Metric, chosen)) or tuple(Metric)
    if left_out := [limit.text for limit in asked if limit.metric not in metrics]:
        raise TensorgapError(f"--fail-on {left_out[0]}: --metric leaves it out; add it there")
    labels = ("old", "new") if len(places) == 2 else tuple(chr(ord("A") + n) for n in range(MOST))
    allowance = Allowance(most_bytes)
    first, *others = [
        opened.run_at(place, label, allowance) for place, label in zip(places, labels, strict=False)
    ]
    found = compared.compare(first, others, alpha, metrics)
    if html is not None:
        drawing.pictures("--html").write_comparison(html, found)
        terminal.echo(shown(html))
    else:
        terminal.show(_FORMS[form](found))
    return exit_code(limits.judged(found, asked))


def exit_code(verdicts: limits.Verdicts) -> int:
    """What the limits come to, told on standard error; TensorgapError where one is open."""
    for note in verdicts.notes:
        terminal.say(note)
    for text in verdicts.exceeded:
        terminal.say(f"--fail-on: {text}")
    if verdicts.exceeded:
        return EXCEEDED
    if verdicts.open:
        raise TensorgapError(*(f"--fail-on {text}" for text in verdicts.open))
    return 0
