"""The results as sentences: each workload on each GPU, precision by precision, with footnotes."""

import dataclasses
from collections.abc import Iterator, Sequence

from bench.asked import Workload
from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import table
from jobs.report.facts import BASELINE, Case
from jobs.report.traced import Selection, code, literal, quoted
from jobs.report.words import number, times

LATENCY, ENERGY = "timing_latency_ms_p50", "energy_per_sample_mj"
MEANS = {
    LATENCY: "a latency of {} ms",
    ENERGY: "an energy of {} mJ per prompt",
    "timing_throughput_samples_per_s": "a throughput of {} prompts per second",
}
_OF = "filter (where precision = '{}')"


def paragraphs(measured: Selection, cases: Sequence[Case]) -> Iterator[str]:
    """A paragraph for each workload on each GPU."""
    ok = [case for case in cases if case.outcome == Outcome.OK]
    names = [field.name for field in dataclasses.fields(Workload)]
    by_group = measured.by("run", "gpu_type", *names)
    for title, members in table.tables(ok):
        head = members[0]
        of_group = by_group[head.run, head.gpu, *dataclasses.astuple(head.workload)]
        sentences = [one for case in members for one in of_case(of_group, case)]
        yield " ".join([f"**{quoted(' '.join(title.split()))}.**", *sentences])


def of_case(group: Selection, case: Case) -> Iterator[str]:
    """What was found of one precision, and how it compares with fp32."""
    mine = group.where(precision=case.precision)
    text = f"{case.precision} had {mine.means(MEANS)}"
    if case.perplexity is not None:
        told = number(case.perplexity, digits=5)
        made = "arg_min(quality_perplexity, replicate)"
        text += f", with a perplexity of {mine.cite(told, made)}"
    yield f"{text}."
    if case.is_baseline:
        return
    if case.speedup:
        log = f"avg(ln({LATENCY})) {_OF}"
        made = f"exp({log.format(BASELINE)} - {log.format(case.precision)})"
        value = group.cite(times(case.speedup.value), made)
        medians = (LATENCY, f"{LATENCY}_low", f"{LATENCY}_high")
        ends = interval(group, case, case.speedup, "ratio_of_medians", medians)
        yield f"Its speedup over {BASELINE} was {value}{ends}."
    if case.energy_ratio:
        mean = f"avg({ENERGY}) {_OF}"
        made = f"{mean.format(case.precision)} / {mean.format(BASELINE)}"
        value = group.cite(times(case.energy_ratio.value), made)
        energies = (ENERGY, "energy_uncertainty")
        ends = interval(group, case, case.energy_ratio, "energy_ratio", energies)
        yield f"It needed {value} the energy of {BASELINE}{ends}."
    if difference := case.nats_difference:
        sums = f"arg_min(list_sum(quality_window_nats), replicate) {_OF}"
        tokens = "arg_min(list_sum(quality_window_tokens), replicate)"
        made = f"({sums.format(case.precision)} - {sums.format(BASELINE)}) / {tokens}"
        value = group.cite(f"{difference.mean:+.2g}", made)
        text = f"Its cross-entropy differs from that of {BASELINE} by {value} nats per token"
        if difference.low is not None and difference.high is not None:
            windows = ("quality_window_nats", "quality_window_tokens")
            source = computed(group, case, "paired_difference", windows)
            told = f"{difference.low:+.2g} to {difference.high:+.2g}"
            text += f" (95 % CI {group.notes.cite(told, source)}"
            decided = difference.low > 0 or difference.high < 0
            text += ")" if decided else "; no significant difference)"
        yield f"{text}."


def interval(group: Selection, case: Case, found: Ratio, how: str, columns: Sequence[str]) -> str:
    """The interval of a ratio in brackets; empty where it has none."""
    if not found.has_interval:
        return ""
    told = quoted(f"{table.end_of(found.low)} to {table.end_of(found.high)}")
    cited = group.notes.cite(told, computed(group, case, how, columns))
    open_ = found.low <= 1 <= found.high
    return f" (95 % CI {cited}{'; no significant difference' if open_ else ''})"


def computed(group: Selection, case: Case, how: str, columns: Sequence[str]) -> str:
    """The source of an interval: the function that computes it, its columns and rows."""
    names = ", ".join(map(code, columns))
    pair = [code(f"precision = {literal(one)}") for one in (case.precision, BASELINE)]
    return f"interval by {code(how)} from {names}; {' and '.join(pair)}{group.condition}"
