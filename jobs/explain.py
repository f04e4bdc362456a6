"""`tensorgap explain`: what the rows show, why, and what to do about it."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import click
from click.core import ParameterSource

from bench.asked import CPU, QualityPlan
from bench.device import gpus
from bench.errors import TensorgapError
from bench.files import limits
from bench.files.limits import Allowance
from bench.measured import Measurement
from jobs import options, terminal
from jobs.report import cases, findings, perplexity, proposal, render, study
from jobs.report.cases import Group
from jobs.report.study import Entry

_STDIN = "-"
_AS_ROWS = 10  # bytes of memory for each byte of a CSV: its text, decoded, and its rows
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
    text: str | None,
    split: str,
    configuration: str,
    column: str,
    first_rows: int | None,
    most_bytes: int,
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
      reject       the numbers cannot be right
      fix          something can be mended, and the numbers would change
      cannot tell  evidence is missing; the matrix at the end would bring it
      accept       they stand, and the cause is known

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
    if observed is not None:
        if places:
            raise click.UsageError("--observed-perplexity stands instead of RESULTS")
        _refuse(_OF_RESULTS, "--observed-perplexity")
        if model is None:
            _refuse(_OF_PERPLEXITY, "--observed-perplexity without --model")
        plan = QualityPlan(
            text or ("embedded" if model == "tiny" else "wikitext-2"),
            split=split,
            configuration=configuration,
            column=column,
        )
        _explain_perplexity(observed, model, plan, first_rows)
        return
    if not places:
        raise click.UsageError("Missing argument '[RESULTS]...' or --observed-perplexity.")
    _refuse(_OF_PERPLEXITY, "RESULTS")
    _explain_results(places, gpu_types, expected, form, most_bytes)


def _refuse(names: Sequence[str], partner: str) -> None:
    """Raise UsageError for an option that was typed and that nobody would read."""
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if option.name in names and typed:
            raise click.UsageError(f"{option.opts[0]} does not go with {partner}")


def _explain_results(
    places: Sequence[str],
    gpu_types: tuple[str, ...],
    expected: str | None,
    form: str,
    most_bytes: int,
) -> None:
    for name in gpu_types:
        if not _known(name):
            known = ", ".join(gpus.COMPUTE_CAPABILITY)
            raise TensorgapError(f"--gpu {name}: unknown type; allowed: {known}, or their boards")
    gpu_types = tuple(dict.fromkeys(gpu_types))
    places = list(dict.fromkeys(places))
    allowance = Allowance(most_bytes)
    tables = [place for place in places if place == _STDIN or place.lower().endswith(".csv")]
    entries = [entry for place in tables for entry in read_csv(place, allowance, len(tables) > 1)]
    rows = _read_rows([place for place in places if place not in tables], allowance.left_bytes)
    unnamed = [entry for entry in entries if entry.gpu_type is None]
    if gpu_types and not unnamed and (entries or rows):
        raise TensorgapError(f"--gpu {gpu_types[0]}: every row names its GPU; leave --gpu out")
    groups = cases.of_rows(rows)
    groups += _of_entries(entries, gpu_types)
    if not groups:
        raise TensorgapError(_nothing(rows))
    if not any(group.baseline for group in groups):
        terminal.say("there is no fp32 to compare with")
    wished = read_csv(expected, allowance) if expected else []
    _warn_of_unknown([*entries, *wished])
    shown = findings.find(groups, wished)
    matrix = proposal.next_matrix(groups, shown)
    assumed = [f"where the table does not say: {_ASSUMED}"] if entries else []
    if form == "json":
        terminal.show(render.findings_json(shown, matrix, assumed))
        return
    for text in assumed:
        terminal.echo(f"Assumed {text}.")
    terminal.show(render.findings(shown, matrix, terminal.width(), terminal.coloured()))


def _nothing(rows: Sequence[Measurement]) -> str:
    if not rows:
        return "there is no row that is OK, and so nothing to explain"
    ends = Counter(str(row.outcome) for row in rows)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ends.items()))
    return f"there is no row that is OK ({told}); `tensorgap report` shows the reasons"


def _warn_of_unknown(entries: Sequence[Entry]) -> None:
    """A foreign GPU is compared, but nothing can be expected of it; it may be a slip."""
    foreign = {e.gpu_type: None for e in entries if e.gpu_type and not _known(e.gpu_type)}
    if foreign:
        terminal.say(
            f"nothing is known of the GPU {', '.join(foreign)}; known:"
            f" {', '.join(gpus.COMPUTE_CAPABILITY)}"
        )


def _known(gpu_type: str) -> bool:
    return gpu_type.upper() == CPU or bool(gpus.named(gpu_type))


def _explain_perplexity(
    observed: float, model: str | None, plan: QualityPlan, first_rows: int | None
) -> None:
    if model is None:
        terminal.show(perplexity.from_published(observed))
        return
    from bench.perplexity import mistakes

    variants = []
    for variant in mistakes.compute(model, plan, first_rows):
        if variant.perplexity is not None:
            terminal.say(f"{variant.perplexity:12.5g}  {variant.what}")
        variants.append(variant)
    terminal.show(perplexity.ranking(observed, f"{model} on {plan.text}", variants))


def _read_rows(places: Sequence[str], most_bytes: int) -> list[Measurement]:
    if not places:
        return []
    from bench.results import columns as table
    from jobs import reading

    rows, _ = reading.read(places, most_bytes)
    return table.merge(rows)


def _of_entries(entries: list[Entry], gpu_types: tuple[str, ...]) -> list[Group]:
    if len(gpu_types) <= 1:
        return study.groups(entries, *gpu_types)
    named = [entry for entry in entries if entry.gpu_type is not None]
    unnamed = [entry for entry in entries if entry.gpu_type is None]
    return study.groups(named) + [g for name in gpu_types for g in study.groups(unnamed, name)]


def read_csv(place: str, allowance: Allowance, several: bool = False) -> list[Entry]:
    """The entries of a table; of `several`, each table is a run of its own."""
    name = "standard input" if place == _STDIN else place
    try:
        if place == _STDIN:
            content = _standard_input(allowance)
        else:
            content = limits.read_file(place, lambda size: _take(size, place, allowance))
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TensorgapError(f"{name}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        remedy = "; a pipe is read from standard input: -" if error.errno == errno.EINVAL else ""
        raise TensorgapError(f"{name}: cannot be read: {error.strerror}{remedy}") from None
    entries, ignored = study.read(text, name)
    if several:
        entries = [
            replace(e, line=replace(e.line, run=f"{name} {e.line.run}".rstrip())) for e in entries
        ]
    if ignored:
        terminal.say(f"{name}: nobody reads the columns {', '.join(ignored)}")
    return entries


def _standard_input(allowance: Allowance) -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    content = sys.stdin.buffer.read(allowance.left_bytes // _AS_ROWS + 1)
    _take(len(content), "standard input", allowance)
    return content


def _take(size_bytes: int, name: str, allowance: Allowance) -> None:
    told = f"{name} ({limits.shown(size_bytes)}, and {_AS_ROWS} times that as rows)"
    allowance.take(_AS_ROWS * size_bytes, told)
