"""`tensorgap explain`: what the rows show, why, and what to do about it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bench import decoders
from bench.asked import CPU, QualityPlan
from bench.device import boards, gpu_names
from bench.errors import TensorgapError
from bench.files.limits import Allowance
from bench.files.location import shown
from bench.measured import Outcome
from bench.text import published
from jobs import options, terminal
from jobs.report import answer, compare, export, facts, findings, perplexity, proposal
from jobs.report import text as texts
from jobs.report.facts import Case
from jobs.report.finding import Finding, topics
from jobs.report.foreign import lines, names, read, units
from jobs.report.foreign.headers import heading_of
from jobs.report.foreign.understood import Told
from jobs.report.observed import Asked, from_published
from jobs.report.rules import REGISTRY

_ALL = "all"
_MOST_NAMES = 6
_TOLD = (
    "model", "precision", "engine", "batch_size", "prompt_tokens", "new_tokens", "context",
    "energy_unit", "quantity",
)  # fmt: skip
_OF_TABLES = (
    "gpu_types", "precision", "batch_size", "prompt_tokens", "new_tokens", "engine", "energy_unit",
    "quantity",
)  # fmt: skip
_OF_RESULTS = (*_OF_TABLES, "expected", "form", "most_bytes", "details", "matrix_file")
_OF_COMPUTING = ("text", "configuration", "column", "first_rows")
_OF_PERPLEXITY = (*_OF_COMPUTING, "split", "unit")


def unit_of_energy(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A unit of energy as typed."""
    if value is not None and units.factor(value, "energy") is None:
        raise click.BadParameter(f"{value}: no unit of energy; such as mJ, J, uJ, Wh or kWh")
    return value


def quantity_as_typed(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A quantity as typed, which a header could be."""
    if value is not None and not heading_of(value).is_quantity:
        raise click.BadParameter(f"{value}: no quantity; such as 'latency (ms)', 'tok/s', 'mJ'")
    return value


def precision_as_typed(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A precision under any of its names."""
    found = value and names.precision_in(names.words_of(value), alone=True).what
    if value is not None and (not found or not names.is_measured(found)):
        raise click.BadParameter(f"{value}: known: fp32, tf32, fp16, bf16, mixed")
    return found or None


@click.command("explain")
@click.argument("places", metavar="[RESULTS]...", nargs=-1)
@click.option(
    "--details",
    is_flag=False,
    flag_value=_ALL,
    metavar="[CODE]",
    help="All evidence: of every finding, or of one, such as launch-bound.",
)
@click.option(
    "--matrix", "matrix_file", metavar="FILE", help="Write the matrix that would settle the rest."
)
@click.option(
    "--gpu",
    "gpu_types",
    multiple=True,
    metavar="TYPE",
    help="GPU of a table that names none, as people call it: T4, 'RTX 4090', A100-80GB; repeat it"
    " to"
    " see the findings for each.",
)
@click.option("--model", help="Model of such a table, or of a perplexity: gpt2, gpt2-large, ...")
@click.option("--precision", callback=precision_as_typed, help="Precision of such a table.")
@click.option("--engine", help="Engine of such a table: eager, graph, onnxruntime, ...")
@click.option("--batch", "batch_size", type=click.IntRange(min=1), help="Prompts per request.")
@click.option(
    "--tokens", "--prompt-tokens", "prompt_tokens", type=click.IntRange(min=1), help="Per prompt."
)
@click.option("--new-tokens", type=click.IntRange(min=0), help="Tokens generated per prompt.")
@click.option(
    "--quantity", metavar="NAME", callback=quantity_as_typed,
    help="What bare numbers are, as a header says it: 'latency (ms)', 'tok/s'.",
)  # fmt: skip
@click.option("--context", type=click.IntRange(min=1), help="Window of the perplexity, in tokens.")
@click.option(
    "--energy-unit", callback=unit_of_energy, metavar="UNIT", help="Of energies without one."
)
@click.option(
    "--expected",
    metavar="FILE",
    help="Table of what you expected, with the same columns: set beside what was found.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option(
    "--observed-perplexity",
    "observed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Instead of RESULTS: what gives this perplexity.",
)
@click.option(
    "--unit",
    type=click.Choice(["token", "word", "byte"]),
    help="What the perplexity is per.  [default: token]",
)
@click.option("--text", help="Compute the mistakes on this text, as quality.text.")
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
    details: str | None,
    matrix_file: str | None,
    expected: str | None,
    form: str,
    observed: float | None,
    most_bytes: int,
    **typed: Any,
) -> None:
    """Say what RESULTS show: can I believe it, and why is it so?

    RESULTS are Parquet files, NAME/UTC-TIMESTAMP folders, or a table of somebody else, as its
    author wrote it: CSV with any separator, Markdown in a text, a log, optimum-benchmark's or
    lm-eval's JSON; `-` reads standard input. Columns are known by their usual names and units: it
    prints how it understood them. What the table does not say, options do: --gpu, --tokens, ...

    It prints a line for each row with its verdict, then a few sentences, worst first. --details has
    all evidence; docs/findings.md lists the findings.

    \b
    Verdicts:
      reject        the numbers cannot be right
      fix           something can be mended, and the numbers would change
      inconclusive  evidence is missing; --matrix FILE writes the matrix that would bring it
      accept        they stand, and the cause is known

    \b
    tensorgap explain results/local/20261124T120000Z
    tensorgap explain jobs/examples/first_study.csv
    tensorgap explain jobs/examples/first_study.csv --gpu P100 --gpu T4 --details
    tensorgap explain issue.md --gpu 'RTX 3090' --tokens 512 --matrix next.toml
    tensorgap explain study.csv --expected hoped.csv
    tensorgap explain results.parquet --format json | jq '.findings[] | .code + ": " + .cause'

    With --observed-perplexity it says which published number or which mistake gives that number:
    at once, or with --text on that text with the model, which takes about twenty times as long as
    one perplexity.

    \b
    tensorgap explain --observed-perplexity 217
    tensorgap explain --observed-perplexity 40.6 --context 1024 --model gpt2-large
    tensorgap explain --observed-perplexity 217 --model gpt2 --text wikitext-2
    """
    places, details = apart(places, details)
    if observed is not None:
        explain_observed(places, observed, typed)
        return
    if not places:
        raise click.UsageError("Missing argument '[RESULTS]...' or --observed-perplexity.")
    refuse(_OF_PERPLEXITY, "RESULTS")
    told = Told(gpus=typed["gpu_types"], **{name: typed[name] for name in _TOLD})
    given = Given(expected, form, details, matrix_file)
    explain_results(places, told, given, Allowance(most_bytes))


def apart(places: tuple[str, ...], details: str | None) -> tuple[tuple[str, ...], str | None]:
    """The places and the code of a finding: what follows a bare --details may be a place.

    Raises UsageError where it is neither.
    """
    if details is None or details == _ALL or details in REGISTRY:
        return places, details
    if Path(details).exists() or "://" in details or details == read.STDIN:
        return (*places, details), _ALL
    near = names.nearest(details, REGISTRY)
    hint = f"did you mean {near}?" if near else "docs/findings.md lists them"
    raise click.UsageError(f"--details {details}: no such finding; {hint}")


def explain_observed(places: Sequence[str], observed: float, typed: Mapping[str, Any]) -> None:
    """Print what gives a perplexity: by published numbers, or with a text by computing."""
    if places:
        raise click.UsageError("--observed-perplexity stands instead of RESULTS")
    refuse(_OF_RESULTS, "--observed-perplexity")
    model, text = typed["model"], typed["text"]
    known = names.model_of(model) if model and not Path(model).exists() else None
    if text is None and (model is None or known in (*published.models(), "distilgpt2")):
        refuse(_OF_COMPUTING, "--observed-perplexity without --text")
        if observed <= 1 and math.isfinite(observed):
            raise click.BadParameter(
                f"{observed:g}: a perplexity is above 1; as bits per byte it is"
                f" {2**observed:.4g} per byte: --observed-perplexity {2**observed:.4g} --unit byte",
                param_hint="--observed-perplexity",
            )
        asked = Asked(observed, known, typed["context"], typed["unit"], typed["split"])
        terminal.show(from_published(asked))
        return
    refuse(("context", "unit"), "--text")
    plan = QualityPlan(
        text=text or ("embedded" if model == "tiny" else "wikitext-2"),
        **{name: typed[name] for name in ("split", "configuration", "column")},
    )
    explain_perplexity(observed, model or published.GPT2, plan, typed["first_rows"])


@dataclass(frozen=True)
class Given:
    """What to compare with, and how to print it."""

    expected: str | None = None
    form: str = "text"
    details: str | None = None
    matrix_file: str | None = None


def refuse(names: Sequence[str], partner: str) -> None:
    """Raise UsageError for an option that was typed and would be ignored."""
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if option.name in names and typed:
            raise click.UsageError(f"{option.opts[0]} does not go with {partner}")


def explain_results(places: Sequence[str], told: Told, given: Given, allowance: Allowance) -> None:
    """Print what results folders, files and tables show."""
    if foreign := [name for name in told.gpus if not is_known(name)]:
        near = names.nearest(foreign[0], [board.gpu_type for board in boards.GPUS])
        hint = f"did you mean {near}?" if near else f"known: {known_gpus()}"
        raise TensorgapError(f"--gpu {foreign[0]}: unknown type; {hint}")
    places = list(dict.fromkeys(places))
    tables = [place for place in places if read.is_table(place)]
    understood = [read.load(place, told, allowance, len(tables) > 1) for place in tables]
    cases: list[Case] = []
    ends: Counter[str] = Counter()
    if files := [place for place in places if place not in tables]:
        from jobs import reading  # and with it pyarrow, which tables alone do not need

        rows, _ = reading.read(files, allowance.left_bytes)
        ends.update(rows.keys["outcome"].to_pylist())
        cases = compare.compared(rows.records(samples=False))
    foreign_cases = [case for one in understood for case in one.cases]
    read.refuse_unused(told, foreign_cases, frozenset().union(*(one.used for one in understood)))
    cases += compare.with_ratios(lines.on_each(foreign_cases, told.gpus))
    groups = facts.grouped(cases)
    failures = [case for case in cases if case.outcome != Outcome.OK]
    if not groups:
        told_of = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ends.items()))
        why = f" ({told_of}); `tensorgap report` shows the reasons" if told_of else ""
        reasons = dict.fromkeys(str(case.reason) for case in failures if case.foreign)
        why += f": each row failed ({'; '.join(list(reasons)[:3])})" if reasons and not why else ""
        raise TensorgapError(f"nothing to explain: no row is OK{why}")
    notes = [sentence for one in understood for sentence in one.notes]
    notes += notes_of(groups)
    wished = list(read.load(given.expected, told, allowance).cases) if given.expected else []
    named = {case.gpu: None for case in (*cases, *wished) if case.foreign and case.gpu_type}
    if unknown := [name for name in named if not is_known(name)]:
        others = [name for name in unknown if gpu_names.is_of_another_maker(name)]
        notes += [f"{', '.join(others)}: not an NVIDIA GPU."] if others else []
        notes.append(
            f"Nothing is known of the GPU {', '.join(unknown)}: only what holds for every known"
            " board is checked."
        )
    found = findings.find(groups, wished, failures)
    matrix = proposal.next_matrix(groups, found)
    if given.matrix_file:
        write_matrix(given.matrix_file, matrix)
    show(groups, failures, found, notes, matrix, given)


def show(
    groups: Sequence[facts.Group],
    failures: Sequence[Case],
    found: Sequence[Finding],
    notes: Sequence[str],
    matrix: str | None,
    given: Given,
) -> None:
    """Print the answer, or all evidence, as asked."""
    rows = answer.rows(groups, failures, found)
    sentences = answer.sentences(found, len({finding.subject for finding in found}))
    if given.form == "json":
        terminal.show(export.findings(found, matrix, notes, rows, sentences))
        return
    terminal.echo(*notes, *([""] if notes else []))
    width, colour = terminal.width(), terminal.coloured()
    if given.details is not None:
        of_one = [f for f in found if given.details in (_ALL, f.code)]
        if not of_one:
            absent = f"{given.details} is not among the findings of these rows."
            terminal.echo(answer.nothing_found(rows) if given.details == _ALL else absent)
            return
        shown_matrix = matrix if given.details == _ALL else None
        terminal.show(texts.findings(topics(of_one), shown_matrix, width, colour))
        return
    more = ["More: --details for all evidence, --details CODE for one finding."]
    if matrix and not given.matrix_file:
        more.append("Next: --matrix next.toml writes the matrix that would settle what is open.")
    terminal.show(texts.answer(rows, sentences, more, width, colour))


def notes_of(groups: Sequence[facts.Group]) -> list[str]:
    """What stands for a missing fp32, and which models are not known."""
    bases = dict.fromkeys(
        base.precision
        for group in groups
        if (base := group.baseline) and base.precision != facts.BASELINE and len(group.cases) > 1
    )
    cases = [case for group in groups for case in group.cases if case.has_workload]
    models = dict.fromkeys(c.workload.model for c in cases if c.foreign)
    unknown = [model for model in models if decoders.shape_of(model) is None]
    notes = []
    if bases:
        notes = [f"There is no fp32 beside some rows: they compare with {', '.join(bases)}."]
    elif cases and not any(group.baseline for group in groups):
        notes = ["There is no fp32 to compare with."]
    if unknown:
        listed = ", ".join(unknown[:_MOST_NAMES]) + (", ..." if len(unknown) > _MOST_NAMES else "")
        text = "only what holds for any transformer is checked"
        notes.append(f"Nothing is known of the model {listed}: {text}.")
    return notes


def write_matrix(place: str, matrix: str | None) -> None:
    """Write the matrix to run next to a new file."""
    if matrix is None:
        terminal.say(f"{place}: not written, since nothing is open")
        return
    try:
        with Path(place).open("x", encoding="utf-8") as file:
            file.write(matrix)
    except OSError as error:
        raise TensorgapError(
            f"--matrix {shown(place)}: cannot be written: {error.strerror}"
        ) from None
    terminal.say(f"wrote {shown(place)}; next: tensorgap sweep {shown(place)}")


def is_known(name: str) -> bool:
    """Whether anything is expected of a GPU; one that is not known may be a slip."""
    return lines.shown(name) == CPU or bool(gpu_names.boards(name))


def known_gpus() -> str:
    """The types that something is known of."""
    return ", ".join(dict.fromkeys(board.gpu_type for board in boards.GPUS))


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
