"""Methods, results and limitations as text for a paper, from the rows alone.

Each number has a footnote with the query of the columns that gives it (`jobs.report.traced`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from bench import __version__, matrix
from bench.asked import Sampling
from bench.errors import TensorgapError
from bench.measured import Outcome
from bench.results.columns import Source
from bench.results.rows import LIGHT_AT_ONCE, Rows
from jobs.report import facts, methods_results, words
from jobs.report.facts import Case, each
from jobs.report.traced import Footnotes, Selection, code, literal, quoted
from jobs.report.words import listed

OK = str(Outcome.OK)
MOST_TEXTS = 4  # of a warning whose texts differ in more than numbers
NAMES = (
    *("run", "gpu_type", "precision", "model", "engine", "batch_size", "prompt_tokens"),
    *("new_tokens", "attention", "replicate", "outcome", "reason", "warnings"),
    *("device_name", "device_cpu", "device_simulated"),
    *("software_tensorgap", "software_python", "software_torch", "software_cuda"),
    *("software_transformers", "software_driver", "weights_parameters"),
    *("timing_latency_ms_p50", "timing_latency_count", "timing_converged", "timing_warmup_s"),
    *("timing_throughput_samples_per_s", "timing_throughput_s"),
    *("energy_method", "energy_reason", "energy_protocol", "energy_per_sample_mj"),
    *("energy_per_sample_mj_samples", "energy_window_s", "energy_idle_w", "energy_uncertainty"),
    *("energy_systematic", "quality_text", "quality_reason", "quality_mode", "quality_context"),
    *("quality_stride", "quality_tokens", "quality_perplexity"),
)
_SOFTWARE = {
    "software_python": "Python", "software_torch": "PyTorch", "software_cuda": "CUDA",
    "software_transformers": "transformers", "software_driver": "NVIDIA driver",
}  # fmt: skip
_METERS = {
    "counter": "from NVML's total energy counter",
    "power": "by integrating NVML's power readings",
    "rapl": "from the CPU package's energy counter (RAPL)",
}
_EXPLAINED = (
    "Each footnote is the query that gives the number before it, in DuckDB's SQL:"
    " `select EXPRESSION from 'results.parquet' where CONDITION`. A condition that is true of every"
    " row is left out."
)


def text(rows: Rows, cases: Sequence[Case], sources: Sequence[Source]) -> str:
    """Markdown with footnotes: methods, results and limitations of all rows.

    Args:
        rows: Of which each number is.
        cases: The same rows, compared.
        sources: The sweeps that they come from, with the matrix of each.
    """
    records = [row for part in rows.tables(NAMES, LIGHT_AT_ONCE) for row in part.to_pylist()]
    return written(records, cases, sources)


def written(
    records: Sequence[dict[str, Any]], cases: Sequence[Case], sources: Sequence[Source]
) -> str:
    """The same of rows as records of their columns."""
    if not records:
        return "There are no rows yet."
    notes = Footnotes()
    every = Selection(records, notes)
    measured = every.where(outcome=OK)
    parts = ["## Methods", *simulated(every)]
    if measured.rows:
        parts += [" ".join(sentences) for sentences in paragraphs(measured, sources) if sentences]
        parts += ["## Results", *methods_results.paragraphs(measured, cases)]
    else:
        parts.append(f"No row is OK: none of {every.count()} was measured.")
    limits = [f"- {sentence}" for sentence in limitations(every, measured, cases)]
    if limits:
        parts += ["## Limitations", "\n".join(limits)]
    told, footnotes = notes.below("\n\n".join(parts))
    return "\n\n".join([told, _EXPLAINED, "\n".join(footnotes)])


def simulated(every: Selection) -> Iterator[str]:
    """What must be read first where a GPU was a simulation."""
    modelled = every.where(device_simulated=True)
    if modelled.rows:
        which = "None of the rows" if len(modelled.rows) == len(every.rows) else "Not every row"
        yield (
            f"**{which} was measured on a real GPU:** {modelled.of(every)} are of a simulated GPU,"
            " and their numbers are those of its model."
        )


def paragraphs(measured: Selection, sources: Sequence[Source]) -> Iterator[list[str]]:
    """The methods, a paragraph at a time."""
    yield list(subject(measured))
    yield list(timing(measured, sources))
    yield list(energy(measured))
    yield list(quality(measured))


def subject(measured: Selection) -> Iterator[str]:
    """What was measured, on what, with which software."""
    models = []
    for model in sorted(each(measured.values("model"))):
        of_model = measured.where(model=model)
        size = of_model.span("weights_parameters", " parameters")
        models.append(f"{of_model.names('model')} ({size})")
    devices = []
    for gpu_type in sorted(each(measured.values("gpu_type"))):
        of_type = measured.where(gpu_type=gpu_type)
        devices.append(f"{of_type.names('gpu_type')} ({of_type.names('device_name')})")
    version = measured.names("software_tensorgap")
    yield f"tensorgap {version} measured the inference of {listed(models)} on {listed(devices)}."
    software = [
        f"{name} {measured.names(column)}"
        for column, name in _SOFTWARE.items()
        if measured.has(column)
    ]
    yield f"The host CPU was {measured.names('device_cpu')}; the software was {listed(software)}."
    asked = (
        f"The results have {measured.count()} of runs {measured.names('run')}:"
        f" precisions {measured.names('precision')}, engines {measured.names('engine')}, batch"
        f" sizes {measured.names('batch_size')} and prompts of"
        f" {measured.names('prompt_tokens')} tokens"
    )
    if any(measured.values("new_tokens")):
        asked += f", each continued by {measured.names('new_tokens')} new tokens"
    yield f"{asked}."
    replicates = measured.cite(
        f"{len(each(measured.values('replicate'))):,}", "count(distinct replicate)"
    )
    yield f"Replicates of a cell, each in a fresh process: at most {replicates}."


def timing(measured: Selection, sources: Sequence[Source]) -> Iterator[str]:
    """How the latency and the throughput were measured."""
    yield "The latency of a row is the median time of one request, each measured by itself from its"
    yield "launch to the end of synchronisation."
    yield f"Warm-up took {measured.span('timing_warmup_s', ' s')}."
    sampled = f"Then {measured.span('timing_latency_count')} latencies were sampled per row"
    if within := asked(sources, "median_within"):
        shares = dict.fromkeys(f"{100 * share:g}" for share in sorted(within))
        until = measured.notes.cite(
            f"{' to '.join([*shares][:: max(1, len(shares) - 1)])} %",
            f"100 x {code('sampling.median_within')} of the matrix, in the metadata"
            f" {code('tensorgap.sources')} of the results",
        )
        sampled += f", until the 95 % interval of their median was within ±{until} of it or their"
        sampled += " time had passed"
    converged = measured.where(timing_converged=True)
    yield f"{sampled}; {converged.of(measured)} converged."
    if measured.has("timing_throughput_s"):
        length = measured.span("timing_throughput_s", " s")
        yield f"The throughput is that of a full queue over {length}."
    if facts.BASELINE in (precisions := each(measured.values("precision"))) and precisions[1:]:
        yield f"A speedup is the latency of {facts.BASELINE} over that of the precision on the same"
        yield "GPU type and workload, with its 95 % interval."
    if len(each(measured.values("replicate"))) > 1:
        yield "Over replicates, times and rates are geometric means, speedups are their ratios, and"
        yield "energies are means."


def asked(sources: Sequence[Source], key: str) -> list[float]:
    """What the matrices say of a key of `sampling`, or leave to this version's default."""
    found = []
    for source in sources:
        try:
            sampling = matrix.document_of(source.matrix, source.run).get("sampling", {})
        except TensorgapError:
            continue
        value = sampling.get(key) if isinstance(sampling, dict) else None
        if value is None and source.version == __version__:
            value = getattr(Sampling(), key)
        if isinstance(value, int | float):
            found.append(float(value))
    return sorted({*found})


def energy(measured: Selection) -> Iterator[str]:
    """How the energy was measured, or why not."""
    told = []
    for method, how in _METERS.items():
        of_method = measured.where(energy_method=method)
        if of_method.has("energy_per_sample_mj"):
            told.append(f"{how} in {of_method.count()}")
    lacking = [row for row in measured.rows if row["energy_per_sample_mj"] is None]
    if not told:
        yield "Energy was not measured" + because(measured, "energy_reason") + "."
        return
    yield f"Energy, gross and per prompt, was read {listed(told)}."
    if measured.has("energy_protocol") and measured.has("energy_per_sample_mj_samples"):
        protocol = measured.names("energy_protocol")
        windows = measured.span("energy_per_sample_mj_samples", "", len, "len({})")
        length = measured.span("energy_window_s", " s")
        yield f"By the protocol {protocol} each row has {windows} windows, together {length} long."
    if measured.has("energy_idle_w"):
        yield f"The idle power beside the windows was {measured.span('energy_idle_w', ' W')}."
    for column, what in (
        ("energy_uncertainty", "Half the relative 95 % interval of a row's energy is"),
        ("energy_systematic", "The sensor's own relative error, which is not in it, is taken as"),
    ):
        if measured.has(column):
            share = measured.span(column, " %", lambda value: 100 * value, "100 * {}")
            yield f"{what} {share}."
    if lacking:
        count = measured.cite(f"{len(lacking):,}", "count(*) - count(energy_per_sample_mj)")
        yield f"Rows without energy: {count}{because(measured, 'energy_reason')}."


def quality(measured: Selection) -> Iterator[str]:
    """How the perplexity was measured, or why not."""
    if not measured.has("quality_perplexity"):
        yield "Perplexity was not measured" + because(measured, "quality_reason") + "."
        return
    lacking = len(measured.rows)
    for (_, mode), scored in measured.by("quality_text", "quality_mode").items():
        if mode is None:  # a row without a perplexity may still say of which text
            continue
        lacking -= len(scored.rows)
        yield (
            f"Perplexity was measured on {scored.names('quality_text')} in the mode"
            f" {scored.names('quality_mode')}, in windows of at most"
            f" {scored.names('quality_context')} tokens with a stride of"
            f" {scored.names('quality_stride')}, over {scored.span('quality_tokens')} predicted"
            " tokens."
        )
    if lacking:
        count = measured.cite(f"{lacking:,}", "count(*) - count(quality_mode)")
        yield f"Rows without perplexity: {count}{because(measured, 'quality_reason')}."


def because(measured: Selection, column: str) -> str:
    """The reasons that a column gives, as the end of a sentence."""
    return f" ({measured.names(column, most=2)})" if measured.has(column) else ""


def limitations(every: Selection, measured: Selection, cases: Sequence[Case]) -> Iterator[str]:
    """What weakens the results, a sentence at a time."""
    for outcome in Outcome:
        ended = every.where(outcome=str(outcome))
        if outcome is not Outcome.OK and ended.rows:
            why = because(ended, "reason")
            yield f"{ended.count()} ended as {outcome} and have no numbers{why}."
    if measured.rows and len(each(measured.values("replicate"))) == 1:
        yield "Each interval holds within one process per cell; how processes differ is unknown."
    yield from warned(measured, cases)
    for column in each(one.column for case in cases for one in case.disagreements):
        found = [d for case in cases for d in case.disagreements if d.column == column]
        told = measured.notes.cite(
            quoted(", ".join(each(value for one in found for value in one.values))),
            f"{code(f'list(distinct {column})')} of compared rows",
        )
        yield f"Rows that are compared differ in `{column}`: {told}."
    if facts.intervals(cases) > 1:
        yield "About one in twenty of the 95 % intervals will miss the true value."


def warned(measured: Selection, cases: Sequence[Case]) -> Iterator[str]:
    """Each kind of warning: how many rows have it, and what it says."""
    for name in {w.code: None for case in cases for w in case.warnings}:
        many = sum(name in {one["code"] for one in row["warnings"]} for row in measured.rows)
        count = measured.cite(
            f"{many:,} row{'' if many == 1 else 's'}",
            f"count(*) filter (where list_contains([w.code for w in warnings], {literal(name)}))",
        )
        texts = words.alike(each(w for case in cases for w in case.warnings if w.code == name))
        told = [*texts[:MOST_TEXTS], *(["and others"] if texts[MOST_TEXTS:] else [])]
        source = f"{code('w.text')} of the warnings w with {code(f'w.code = {literal(name)}')}"
        yield f"Warning `{name}`, {count}: {measured.notes.cite(quoted('; '.join(told)), source)}."
