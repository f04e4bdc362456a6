"""`tensorgap explain`: which mistake gives an observed perplexity."""

from __future__ import annotations

import click

from bench.records import QualityPlan
from jobs import progress
from jobs.report import perplexity


@click.command("explain")
@click.option(
    "--observed-perplexity",
    "observed",
    type=click.FloatRange(min=1, min_open=True),
    required=True,
    help="The number to explain.",
)
@click.option("--model", help="As in a matrix: gpt2, tiny, a folder.  [default: published numbers]")
@click.option("--text", help="As quality.text.  [default: wikitext-2; embedded for tiny]")
@click.option("--split", default="test", show_default=True)
@click.option("--configuration", default="", help="As quality.configuration.")
@click.option("--column", default="text", show_default=True, help="As quality.column.")
@click.option(
    "--rows", type=click.IntRange(min=1), help="Only the first rows of the text: a quick look."
)
def command(
    observed: float,
    model: str | None,
    text: str | None,
    split: str,
    configuration: str,
    column: str,
    rows: int | None,
) -> int:
    """Rank the mistakes that people make with perplexity by how near they come to a number.

    With --model each is computed on that model and text: about twenty times the time of one
    perplexity, minutes on a GPU. Without, the answer comes from published numbers at once.

    \b
    tensorgap explain --observed-perplexity 217
    tensorgap explain --observed-perplexity 217 --model gpt2 --text wikitext-2
    """
    if model is None:
        if text is not None or rows is not None:
            raise click.UsageError("--text and --rows need --model")
        click.echo(perplexity.from_published(observed))
        return 0
    from bench.meters import mistakes

    name = text or ("embedded" if model == "tiny" else "wikitext-2")
    plan = QualityPlan(name, split=split, configuration=configuration, column=column)
    variants = []
    for variant in mistakes.compute(model, plan, rows):
        if variant.perplexity is not None:
            progress.say(f"{variant.perplexity:12.5g}  {variant.what}")
        variants.append(variant)
    click.echo(perplexity.ranking(observed, f"{model} on {name}", variants))
    return 0
