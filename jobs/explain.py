"""`tensorgap explain`: what the rows show, why, and what to do about it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from bench.asked import CPU, QualityPlan
from bench.device import gpus
from bench.errors import TensorgapError
from bench.files.limits import Allowance
from jobs import options, terminal
from jobs.report import compare, export, facts, findings, from_csv, perplexity, proposal
from jobs.report import text as texts
from jobs.report.facts import Case
from jobs.report.finding import topics

_ASSUMED = "gpt2, eager, batch 1, 128 tokens; WikiText-2"
_OF_RESULTS = ("gpu_types", "expected", "form", "most_bytes")
_OF_PERPLEXITY = ("model", "text", "split", "configuration", "column", "first_rows")


@click.command("explain")
@click.argument("places", metavar="[RESULTS]...", nargs=-1)
@click.option(
    "--gpu",
    "gpu_types",
    multiple=True,
    metavar="TYPE",
    help="GPU of a CSV that names none: P100, T4, or a board such as P100-PCIE; repeat it to see"
    " the findings for each.",
)
@click.option(
    "--expected",
    metavar="FILE",
    help="CSV of what you expected, with the same columns: set beside what was found.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option(
    "--observed-perplexity",
    "observed",
    type=click.FloatRange(min=1, min_open=True),
    metavar="NUMBER",
    help="Instead of RESULTS: rank the mistakes that could give this perplexity.",
)
@click.option("--model", help="As in a matrix: gpt2, tiny, a folder.  [default: published numbers]")
@click.option("--text", help="As quality.text.  [default: wikitext-2; embedded for tiny]")
@click.option("--split", default="test", show_default=True, help="As quality.split.")
@click.option("--configuration", default="", help="As quality.configuration.")
@click.option("--column", default="text", show_default=True, help="As quality.column.")
@click.option(
    "--rows",
    "first_rows",
    type=click.IntRange(min=1),
    help="Only the first rows of the text: a quick look.",
)
@options.max_input
def command(
    places: tuple[str, ...],
    gpu_types: tuple[str, ...],
    expected: str | None,
    form: str,
    observed: float | None,
    model: str | None,
    first_rows: int | None,
    most_bytes: int,
    **text: Any,
) -> None:
    """Say what RESULTS show, worst first: verdict, cause, numbers, what is missing, what to do.

    RESULTS are Parquet files, NAME/UTC-TIMESTAMP folders, or a CSV that somebody else made; `-`
    reads a CSV from standard input. A CSV needs the columns precision and latency_ms or energy_mj;
    throughput, perplexity, size_mb, gpu_type, model, engine, batch_size, prompt_tokens,
    new_tokens, attention, energy_method, energy_window_s, idle_w, text, context, run, and the ends
    of intervals (speedup_low, speedup_high, energy_ratio_low, energy_ratio_high) say more.
    docs/findings.md lists the findings.

    \b
    Verdicts:
      reject        the numbers cannot be right
      fix           something can be mended, and the numbers would change
      inconclusive  evidence is missing; the matrix at the end would bring it
      accept        they stand, and the cause is known

    \b
    tensorgap explain results/local/20261124T120000Z
    tensorgap explain jobs/examples/first_study.csv
    tensorgap explain jobs/examples/first_study.csv --gpu P100 --gpu T4
    tensorgap explain study.csv --expected hoped.csv
    tensorgap explain results.parquet --format json | jq '.findings[] | .code + ": " + .cause'

    With --observed-perplexity it ranks the mistakes that people make by how near they come to that
    number: from published numbers at once, or with --model on that model and text, which takes
    about twenty times as long as one perplexity.

    \b
    tensorgap explain --observed-perplexity 217
    tensorgap explain --observed-perplexity 217 --model gpt2 --text wikitext-2
    """
    if observed is None:
        if not places:
            raise click.UsageError("Missing argument '[RESULTS]...' or --observed-perplexity.")
        refuse(_OF_PERPLEXITY, "RESULTS")
        explain_results(places, gpu_types, expected, form, Allowance(most_bytes))
        return
    if places:
        raise click.UsageError("--observed-perplexity stands instead of RESULTS")
    refuse(_OF_RESULTS, "--observed-perplexity")
    if model is None:
        refuse(_OF_PERPLEXITY, "--observed-perplexity without --model")
        terminal.show(perplexity.from_published(observed))
    else:
        text["text"] = text["text"] or ("embedded" if model == "tiny" else "wikitext-2")
        explain_perplexity(observed, model, QualityPlan(**text), first_rows)


def refuse(names: Sequence[str], partner: str) -> None:
    """Raise UsageError for an option that was typed and would be ignored."""
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if option.name in names and typed:
            raise click.UsageError(f"{option.opts[0]} does not go with {partner}")


def explain_results(
    places: Sequence[str],
    gpu_types: Sequence[str],
    expected: str | None,
    form: str,
    allowance: Allowance,
) -> None:
    """Print the findings of results folders, files and tables."""
    known = ", ".join(gpus.COMPUTE_CAPABILITY)
    if foreign := [name for name in gpu_types if not is_known(name)]:
        raise TensorgapError(f"--gpu {foreign[0]}: unknown type; allowed: {known}, or their boards")
    places = list(dict.fromkeys(places))
    tables = [p for p in places if p == from_csv.STDIN or p.lower().endswith(".csv")]
    lines = [line for place in tables for line in from_csv.load(place, allowance, len(tables) > 1)]
    cases: list[Case] = []
    ends: Counter[str] = Counter()
    if files := [place for place in places if place not in tables]:
        from jobs import reading  # and with it pyarrow, which tables alone do not need

        rows, _ = reading.read(files, allowance.left_bytes)
        ends.update(rows.keys["outcome"].to_pylist())
        cases = compare.compared(rows.records(samples=False))
    if gpu_types and (lines or cases) and all(line.gpu_type for line in lines):
        raise TensorgapError(f"--gpu {gpu_types[0]}: every row names its GPU; leave --gpu out")
    cases += compare.with_ratios(from_csv.cases(lines, gpu_types))
    groups = facts.grouped(cases)
    if not groups:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ends.items()))
        why = f" ({told}); `tensorgap report` shows the reasons" if told else ""
        raise TensorgapError(f"nothing to explain: no row is OK{why}")
    if not any(group.baseline for group in groups):
        terminal.say("there is no fp32 to compare with")
    wished = from_csv.load(expected, allowance) if expected else []
    named = {case.gpu: None for case in (*cases, *wished) if case.foreign and case.gpu_type}
    if foreign := [name for name in named if not is_known(name)]:
        terminal.say(f"nothing is known of the GPU {', '.join(foreign)}; known: {known}")
    found = findings.find(groups, wished)
    matrix = proposal.next_matrix(groups, found)
    assumed = [f"where the table does not say: {_ASSUMED}"] if lines else []
    if form == "json":
        terminal.show(export.findings(found, matrix, assumed))
        return
    terminal.echo(*(f"Assumed {what}." for what in assumed))
    terminal.show(texts.findings(topics(found), matrix, terminal.width(), terminal.coloured()))


def is_known(gpu_type: str) -> bool:
    """Whether anything is expected of a GPU; one that is not known may be a slip."""
    return gpu_type.upper() == CPU or bool(gpus.named(gpu_type))


def explain_perplexity(
    observed: float, model: str, plan: QualityPlan, first_rows: int | None
) -> None:
    """Print which mistakes of a model on a text give an observed perplexity."""
    from bench.perplexity import mistakes

    variants = []
    for variant in mistakes.compute(model, plan, first_rows):
        if variant.perplexity is not None:
            terminal.say(f"{variant.perplexity:12.5g}  {variant.what}")
        variants.append(variant)
    terminal.show(perplexity.ranking(observed, f"{model} on {plan.text}", variants))
