"""`tensorgap merge`: several results, also of several clusters, into one Parquet file."""

import click

from bench.errors import TensorgapError
from bench.files.location import shown
from bench.results import store as results
from jobs import options, reading, terminal


@click.command("merge")
@click.argument("places", metavar="RESULTS...", nargs=-1, required=True)
@click.option(
    "--output", "-o", required=True, metavar="FILE", help="Parquet file to write; a path or a URI."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.max_input
def command(places: tuple[str, ...], output: str, force: bool, most_bytes: int) -> None:
    """Make one Parquet file of RESULTS: files and NAME/UTC-TIMESTAMP folders.

    A row that stands in several of them is kept once: the one that is OK, else the one that the
    sweep received last. Where the rows came from, with each matrix, is in the metadata of the file.

    \b
    tensorgap merge results/study/20261124T120000Z gcp.parquet -o all.parquet
    """
    if not output.endswith(".parquet"):
        raise TensorgapError(f"--output {shown(output)}: must end in .parquet")
    if not force and results.exists(output):
        raise TensorgapError(f"--output {shown(output)}: exists; add --force to replace it")
    rows, sources = reading.read(places, most_bytes)
    results.write_merged(output, rows, sources)
    once = f", {rows.doubled} of them double and kept once" if rows.doubled else ""
    sweeps = f"{len(sources)} sweep{'' if len(sources) == 1 else 's'}"
    terminal.echo(f"{shown(output)}: {len(rows)} rows from {sweeps}{once}")
