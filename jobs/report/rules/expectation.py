"""What was expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Finding, Note, Value, Verdict
from jobs.report.rules.architecture import reported
from jobs.report.rules.launch import idle_and_limit
from jobs.report.rules.rule import Hit, facts_of, note, rule

_CLOSE = 0.15  # of an expectation
_FAR = 1.5  # times what was published
EXPECTATION = rule(
    "expectation",
    Verdict.ACCEPT,
    or_else=(Verdict.INCONCLUSIVE,),
    cause="What was expected was found.",
)


def expectations(groups: Sequence[Group], expected: Sequence[Case]) -> Iterator[Finding]:
    """Each expected number beside what was found, or beside the facts of a type without rows."""
    for wished in expected:
        name, precision = wished.gpu_type or "any GPU", (wished.precision,)
        of_type = [g for g in groups if wished.gpu_type in (None, g.cases[0].gpu_type)]
        met = False
        for group in of_type:
            case = group.case(wished.precision)
            if case is not None and case.workload == wished.workload:
                met, hit = True, beside_found(wished, case)
                if hit.evidence:
                    yield EXPECTATION.finding(hit, group.title, precision, facts_of(case, group))
        if not met:
            beside = [w for w in expected if (w.gpu, w.workload) == (wished.gpu, wished.workload)]
            known = {**facts_of(wished, Group(name, tuple(beside))), "name": name}
            hit = beside_facts(wished, name, beside, measured=bool(of_type))
            yield EXPECTATION.finding(hit, name, precision, known)


def beside_found(wished: Case, found: Case) -> Hit:
    """Each number that was expected and found."""
    notes, met = [], True
    for what, unit in (
        ("latency_ms", "ms"),
        ("energy_mj", "mJ"),
        ("size_mb", "MB"),
        ("perplexity", ""),
    ):
        wanted, got = getattr(wished, what), getattr(found, what)
        if wanted is None or got is None:
            continue
        close = abs(got / wanted - 1) <= _CLOSE
        met = met and close
        name = what.partition("_")[0]
        text = f"{{precision}} {name}: expected {{wanted:{unit}}}, found {{got:{unit}}}: "
        text += "as expected" if close else "{ratio:x} of it"
        notes.append(note(text, wanted=wanted, got=got, ratio=got / wanted))
    if met:
        return Hit(evidence=notes)
    return Hit(
        evidence=notes,
        verdict=Verdict.INCONCLUSIVE,
        cause="Not all that was expected was found.",
        do=["Look for the cause among the findings above."],
    )


def beside_facts(wished: Case, name: str, beside: Sequence[Case], measured: bool) -> Hit:
    """What is known of numbers that no row stands beside.

    Args:
        wished: What was expected.
        name: Of its GPU type, or any.
        beside: All that was expected of the workload there.
        measured: Whether there are rows of that type at all.
    """
    values: dict[str, Value] = {"workload": str(wished.workload)}
    cause = "{name}: no row of {workload}" if measured else "{name}: not among the rows"
    cause += ", so the expectation is compared with what is known of it."
    evidence: list[str | Note] = [within_facts(wished)]
    told = reported(wished.workload).get(name)
    if told is not None:
        text = "published for the same layers without the logits, eager, batch 1: {told}: {gain:x}"
        evidence.append(note(text, told=told.text, gain=told.gain))
        ms = {case.precision: case.latency_ms for case in beside}
        slow, fast = ms.get("fp32"), ms.get("fp16")
        # The gain from TF32 is another one.
        if told.slow_in == "fp32" and slow and fast and slow / fast > _FAR * told.gain:
            values |= {"wanted": slow / fast, "gain": told.gain}
            cause = (
                "{name}: a gain of {wanted:.1f}x was expected; in eager mode at batch 1 {gain:x}"
                " was published: launches, not products, set that latency."
            )
    return Hit(
        values,
        evidence,
        verdict=Verdict.INCONCLUSIVE,
        cause=cause,
        missing=["a row of {name}, {workload}, {precision}"],
        do=["Run the matrix below there, with engine = graph and a larger batch."],
    )


def within_facts(wished: Case) -> Note:
    """An expected latency and energy beside what the datasheet allows."""
    parts = ["{latency_ms:ms}"] if wished.latency_ms else []
    parts += ["{energy_mj:mJ}"] if wished.energy_mj else []
    text, values = f"{{precision}}: expected {' and '.join(parts) or 'nothing'}", dict[str, Value]()
    least = bounds.of_pytorch(wished.boards, wished.precision, wished.workload)
    if least:
        text += "; no less than {bound:ms} by the datasheet"
        values["bound"] = least
    if wished.mean_w and wished.boards:
        text += "; that is {mean_w:W} on the {board}"
        values["board"] = idle_and_limit(wished.boards[0])
    return Note(text, values)


@EXPECTATION
def expectation(case: Case, group: Group) -> Hit | None:
    """With `--expected FILE`: each expected number beside what was found, or beside the facts."""
    return None  # `expectations` compares with lines that no group has
