"""What was expected beside what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.report import bounds
from jobs.report.facts import NOT_SPECIFIED, Case, Group
from jobs.report.finding import Finding, Note, Value, Verdict
from jobs.report.rules.architecture import reported
from jobs.report.rules.launch import idle_and_limit
from jobs.report.rules.rule import REGISTRY, Hit, note, rule
from jobs.report.words import listed

_CLOSE = 0.15  # of an expectation
_FAR = 1.5  # times what was published


@rule(
    "expectation",
    Verdict.ACCEPT,
    Verdict.INCONCLUSIVE,
    when="`--expected FILE`: each expected number beside what was found, or beside the facts of a"
    " type without rows",
    cause="What was expected was found.",
)
def expectation(case: Case, group: Group) -> Hit | None:
    """Nothing without lines of what was expected: `expectations` has them."""
    return None


def expectations(groups: Sequence[Group], expected: Sequence[Case]) -> Iterator[Finding]:
    """Each expected number beside what was found, or beside what the facts allow.

    Args:
        groups: What was found.
        expected: Lines of a table of the same columns, each for a GPU type or for any.
    """
    rule = REGISTRY["expectation"]
    by_type: dict[str | None, list[Case]] = {}
    for case in expected:
        by_type.setdefault(case.gpu_type, []).append(case)
    for kind, cases in by_type.items():
        found = [group for group in groups if kind is None or group.gpu_type == kind]
        met: list[Case] = []
        for group in found:
            pairs = [
                (case, measured)
                for case in cases
                if case.workload == group.workload and (measured := group.case(case.precision))
            ]
            met += [case for case, _ in pairs]
            hit = _beside_found(pairs)
            if hit.evidence:
                precisions = dict.fromkeys(case.precision for case, _ in pairs)
                yield rule.finding(hit, group.title, tuple(precisions))
        unmet = [case for case in cases if not any(case is one for one in met)]
        if unmet:
            name = "any GPU" if kind is None else unmet[0].gpu_type or NOT_SPECIFIED
            hit = _beside_facts(name, unmet, measured=bool(found))
            precisions = dict.fromkeys(case.precision for case in unmet)
            yield rule.finding(hit, name, tuple(precisions))


def _beside_found(pairs: Sequence[tuple[Case, Case]]) -> Hit:
    notes, met = [], True
    for wished, found in pairs:
        for what, unit, wanted, got in (
            ("latency", "ms", wished.latency_ms, found.latency_ms),
            ("energy", "mJ", wished.energy_mj, found.energy_mj),
            ("size", "MB", wished.size_mb, found.size_mb),
            ("perplexity", "", wished.perplexity, found.perplexity),
        ):
            if wanted is None or got is None:
                continue
            close = abs(got / wanted - 1) <= _CLOSE
            met = met and close
            text = f"{{precision}} {what}: expected {{wanted:{unit}}}, found {{got:{unit}}}: "
            text += "as expected" if close else "{ratio:x} of it"
            values = {"wanted": wanted, "got": got, "ratio": got / wanted}
            notes.append(note(text, precision=wished.precision, **values))
    if met:
        return Hit(evidence=notes)
    return Hit(
        evidence=notes,
        verdict=Verdict.INCONCLUSIVE,
        cause="Not all that was expected was found.",
        do=["Look for the cause among the findings above."],
    )


def _beside_facts(name: str, wished: Sequence[Case], measured: bool) -> Hit:
    """What is known of numbers that no row stands beside.

    Args:
        name: GPU type, or any.
        wished: What was expected of it.
        measured: Whether there are rows of that type at all.
    """
    by_workload: dict[str, list[str]] = {}
    for case in wished:
        by_workload.setdefault(str(case.workload), []).append(case.precision)
    absent = [f"{workload} ({listed(every)})" for workload, every in by_workload.items()]
    values: dict[str, Value] = {"gpu": name, "absent": tuple(absent)}
    cause = "{gpu}: no row of {absent}" if measured else "{gpu}: not among the rows"
    cause += ", so the expectation is compared with what is known of it."
    notes = [_allowed(case) for case in wished]
    for workload in dict.fromkeys(case.workload for case in wished):
        told = reported(workload).get(name)
        if told is None:
            continue
        text = "published for the same layers without the logits, eager, batch 1: {told}: {gain:x}"
        notes.append(note(text, told=told.text, gain=told.gain))
        ms = {case.precision: case.latency_ms for case in wished if case.workload == workload}
        slow, fast = ms.get("fp32"), ms.get("fp16")
        # The gain from TF32 is another one.
        if told.slow_in == "fp32" and slow and fast and slow / fast > _FAR * told.gain:
            values |= {"wanted": slow / fast, "gain": told.gain}
            cause = (
                "{gpu}: a gain of {wanted:.1f}x was expected; in eager mode at batch 1 {gain:x} was"
                " published: launches, not products, set that latency."
            )
    return Hit(
        values,
        notes,
        verdict=Verdict.INCONCLUSIVE,
        cause=cause,
        missing=[f"a row of {name}, {case.workload}, {case.precision}" for case in wished],
        do=["Run the matrix below there, with engine = graph and a larger batch."],
    )


def _allowed(case: Case) -> Note:
    """An expected latency and energy beside what the datasheet allows."""
    parts, values = [], dict[str, Value](precision=case.precision)
    if case.latency_ms:
        parts.append("{latency_ms:ms}")
        values["latency_ms"] = case.latency_ms
    if case.energy_mj:
        parts.append("{energy_mj:mJ}")
        values["energy_mj"] = case.energy_mj
    text = f"{{precision}}: expected {' and '.join(parts) or 'nothing'}"
    least = bounds.of_pytorch(case.boards, case.precision, case.workload)
    if least:
        text += "; no less than {bound_ms:ms} by the datasheet"
        values["bound_ms"] = least
    if case.mean_w and case.boards:
        text += "; that is {mean_w:W} on the {board}"
        values |= {"mean_w": case.mean_w, "board": idle_and_limit(case.boards[0])}
    return Note(text, values)
