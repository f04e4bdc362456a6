"""The answer that findings give: a verdict for each row, and a few sentences, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.report import words
from jobs.report.facts import NO_PRECISION, Case, Group
from jobs.report.finding import Finding, Note, Value, Verdict, folded, numbers_in
from jobs.report.rules import REGISTRY
from jobs.report.words import gathered, listed, number

MOST_SENTENCES = 7
_WITHOUT_CAUSE = "effect-without-cause"  # which says the ratio itself
_EFFECTS = 2  # of the sentences, where there are more than can be said
_MOST_SUBJECTS = 2  # that a sentence names
_LONGEST_OF_SUBJECTS = 250  # characters
_MOST_NAMES = 6  # that a sentence lists
QUANTITIES = ("latency", "throughput", "energy", "power", "perplexity")
FAILED, NOTHING_AGAINST = "failed", "-"


@dataclass(frozen=True)
class Row:
    """One row of the table or of the results, and what is to be thought of it.

    Attributes:
        verdict: Of a `Verdict`, or failed, or - where no finding is about it.
        reason: The one that matters.
        code: Of the finding that gives it.
    """

    about: Mapping[str, str]
    verdict: str
    reason: str
    code: str | None = None


@dataclass(frozen=True)
class Sentence:
    """One finding over all rows that it is true of."""

    verdict: Verdict
    code: str
    text: str
    about: str


def rows(groups: Sequence[Group], failures: Sequence[Case], found: Sequence[Finding]) -> list[Row]:
    """A line for each case, in the order of the groups, then those that failed."""
    by_row: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        for precision in finding.precisions:
            by_row.setdefault((finding.subject, precision), []).append(finding)
    lines = [
        row_of(case, by_row.get((group.title, case.precision), []), len(group.cases) == 1)
        for group in groups
        for case in group.cases
    ]
    return lines + [Row(about(case), FAILED, case.reason or str(case.outcome)) for case in failures]


def row_of(case: Case, found: Sequence[Finding], alone: bool) -> Row:
    """The verdict on a case: what undermines its numbers, else what they show."""
    undermining = [f for f in found if weakens(f)]
    effects = [f for f in found if REGISTRY[f.code].effect and f.code != "mixed-options"]
    of_quality = [f for f in found if f.code.startswith("perplexity") and f.verdict != "accept"]
    severe = [f for f in undermining if f.verdict in (Verdict.REJECT, Verdict.FIX)]
    measured = case.pace_ms or case.energy_mj or case.energy_per_token_mj or case.mean_w
    if any(f.verdict == Verdict.INCONCLUSIVE for f in effects):
        effects = undermining or effects
    chosen = severe or effects or undermining or ([] if measured else of_quality)
    if not chosen:
        open_ones = [f for f in found if f.verdict != Verdict.ACCEPT and f not in of_quality]
        chosen = [] if case.is_baseline else open_ones
    if not chosen:
        what = "nothing speaks against it"
        if case.is_baseline and not alone:
            what += "; the others compare with it"
        rejected = [f for f in of_quality if f.verdict in (Verdict.REJECT, Verdict.FIX)]
        what = f"its perplexity: {rejected[0].verdict}" if rejected else what
        return Row(about(case), NOTHING_AGAINST, what)
    first = min(chosen, key=lambda f: list(Verdict).index(f.verdict))
    reason = first.text.partition(". ")[0].rstrip(".")
    beside = [f for f in of_quality if f is not first and f.verdict == Verdict.REJECT]
    told = about(case)
    if beside:
        told["perplexity"] += f" ({beside[0].verdict})"
    return Row(told, str(first.verdict), reason, first.code)


def nothing_found(rows: Sequence[Row]) -> str:
    """What is said where no rule finds anything: how many there are, and what they looked at."""
    known = [name for name in QUANTITIES if any(row.about[name] for row in rows)]
    lacking = [name for name in QUANTITIES if name not in known]
    text = f"Nothing to say: none of {len(REGISTRY)} rules finds anything"
    text += f" in {len(rows)} row{'' if len(rows) == 1 else 's'}."
    text += f" Checked: {listed(known)}." if known else ""
    return text + (f" Not in these rows: {listed(lacking)}." if lacking else "")


def weakens(finding: Finding) -> bool:
    """Whether a finding takes something away from the numbers of its rows."""
    return bool(REGISTRY[finding.code].undermines) and finding.verdict != Verdict.ACCEPT


def about(case: Case) -> dict[str, str]:
    """Whom a row is about and its numbers, as texts; empty: not known."""
    asked = case.workload
    tokens = str(asked.prompt_tokens) + (f"+{asked.new_tokens}" if asked.new_tokens else "")
    energy = case.energy_mj if case.energy_mj is not None else case.energy_per_token_mj
    per = "" if case.energy_mj is not None else "/token"
    return {
        "run": case.run,
        "GPU": case.gpu,
        "model": asked.model if case.has_workload else "",
        "engine": asked.engine if case.has_workload else "",
        "batch": str(asked.batch_size) if case.has_workload else "",
        "tokens": tokens if case.has_workload else "",
        "precision": case.precision,
        "latency": number(case.latency_ms, " ms") if case.latency_ms else "",
        "throughput": rate_of(case),
        "energy": words.energy(energy) + per if energy is not None else "",
        "power": number(case.mean_w, " W") if case.mean_w and energy is None else "",
        "perplexity": f"{case.perplexity:.5g}" if case.perplexity else "",
    }


def rate_of(case: Case) -> str:
    """A throughput, where there is no latency."""
    if case.latency_ms is not None:
        return ""
    if case.tokens_per_s:
        return number(case.tokens_per_s, " tok/s")
    return number(case.throughput_per_s, "/s") if case.throughput_per_s else ""


def sentences(found: Sequence[Finding], count: int) -> list[Sentence]:
    """What the findings say, each thing once over all rows, worst first, and the most that matter.

    `count` is how many subjects there are: where there is one, no sentence names it.
    """

    def cause(finding: Finding) -> tuple[object, ...]:
        of_one = finding.precisions if REGISTRY[finding.code].effect else ()
        return finding.code, finding.verdict, finding.cause.template, of_one

    by_cause = gathered((f for f in found if _WITHOUT_CAUSE not in f.undermined_by), cause)
    every = [sentence(same, count) for same in by_cause]
    if len(every) <= MOST_SENTENCES:
        return every
    main = [one for one in every if not REGISTRY[one.code].minor] or every
    if len(main) <= MOST_SENTENCES:
        return main
    effects = [one for one in main if REGISTRY[one.code].effect][:_EFFECTS]
    others = [one for one in main if one not in effects][: MOST_SENTENCES - len(effects)]
    return [one for one in main if one in others or one in effects]


def sentence(same: Sequence[Finding], count: int) -> Sentence:
    """Findings of one cause as one sentence, with the range of each number."""
    first = same[0]
    values = {name: together([f.cause.values[name] for f in same]) for name in first.cause.values}
    subjects = folded(f.subject for f in same)
    told = ""
    if count > 1:
        several = len({f.subject for f in same})
        told = " ".join("; ".join(subjects).split())
        if len(subjects) > _MOST_SUBJECTS or len(told) > _LONGEST_OF_SUBJECTS:
            told = f"{several} of {count}"
    named = dict.fromkeys(p for f in same for p in f.precisions if p != NO_PRECISION)
    precisions = listed(named)
    rows_of = {(f.subject, p) for f in same for p in f.precisions}
    if told and len(rows_of) < len({f.subject for f in same}) * len(named):
        precisions = f"{len(rows_of)} rows, {precisions}"  # not each precision of each subject
    whom = " ".join(filter(None, (precisions, f"({told})" if told else "")))
    return Sentence(first.verdict, first.code, Note(first.cause.template, values).text, whom)


def together(values: Sequence[Value]) -> Value:
    """Several values in the place of one: the range of numbers, a list of names.

    >>> together([1.5, 2.5]), together(["T4", "V100", "T4"]), together(["a"])
    ((1.5, 2.5), ('T4', 'V100'), 'a')
    """
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    if all(numbers_in(value) for value in distinct):
        return tuple(sorted({n for value in distinct for n in numbers_in(value)}))
    names = list(dict.fromkeys(str(one) for value in distinct for one in as_tuple(value) if one))
    if len(names) > _MOST_NAMES:
        names = [*names[:_MOST_NAMES], f"{len(names) - _MOST_NAMES} more"]
    return tuple(names)


def as_tuple(value: Value) -> tuple[object, ...]:
    """A value as several."""
    return value if isinstance(value, tuple) else (value,)
