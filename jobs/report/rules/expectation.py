"""What was expected."""

from collections.abc import Iterator, Sequence

from bench.profile import work
from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.rules.architecture import reported
from jobs.report.rules.launch import idle_and_limit
from jobs.report.rules.rule import Hit, note, rule

_CLOSE = 0.15  # of an expectation
_FAR = 1.5  # times what was published
_UNITS = {"latency_ms": "ms", "energy_mj": "mJ", "size_mb": "MB", "perplexity": ""}


@rule(Verdict.ACCEPT, Verdict.INCONCLUSIVE, cause="What was expected was found.")
def expectation(case: Case, group: Group) -> Hit | None:
    """With `--expected FILE`: each expected number beside what was found, or beside the facts."""
    return None  # `expectations` compares with lines that no group has


def expectations(
    groups: Sequence[Group], expected: Sequence[Case]
) -> Iterator[tuple[Hit, Case, Group]]:
    """Each expected number beside what was found, or beside the facts of a type without rows."""
    for wished in expected:
        of_type = [g for g in groups if wished.gpu_type in (None, g.cases[0].gpu_type)]
        cases = [(case, g) for g in of_type if (case := g.case(wished.precision))]
        beside = [(case, g) for case, g in cases if case.workload == wished.workload]
        for case, group in beside:
            if (hit := beside_found(wished, case)).evidence:
                yield hit, case, group
        if not beside:
            same = [w for w in expected if (w.gpu, w.workload) == (wished.gpu, wished.workload)]
            group = Group(wished.gpu_type or "any GPU", tuple(same))
            yield beside_facts(wished, group, measured=bool(of_type)), wished, group


def beside_found(wished: Case, found: Case) -> Hit:
    """Each number that was expected and found."""
    notes, met = [], True
    for what, unit in _UNITS.items():
        wanted, got = getattr(wished, what), getattr(found, what)
        if wanted is None or got is None:
            continue
        close = abs(got / wanted - 1) <= _CLOSE
        met = met and close
        text = f"{{precision}} {what.partition('_')[0]}: expected {{wanted:{unit}}}, found"
        text += f" {{got:{unit}}}: " + ("as expected" if close else "{ratio:x} of it")
        notes.append(note(text, wanted=wanted, got=got, ratio=got / wanted))
    if met:
        return Hit(notes)
    return Hit(
        notes,
        verdict=Verdict.INCONCLUSIVE,
        cause="Not all that was expected was found.",
        do=["Look for the cause among the findings above."],
    )


def beside_facts(wished: Case, group: Group, measured: bool) -> Hit:
    """What is known of numbers that no row stands beside, in a group of all that was expected."""
    cause = "{name}: no row of {workload}" if measured else "{name}: not among the rows"
    cause += ", so the expectation is compared with what is known of it."
    values: dict[str, Value] = {"workload": str(wished.workload), "name": group.title}
    parts = ["{latency_ms:ms}"] if wished.latency_ms else []
    parts += ["{energy_mj:mJ}"] if wished.energy_mj else []
    text = f"{{precision}}: expected {' and '.join(parts) or 'nothing'}"
    if least := bounds.of_pytorch(wished.boards, wished.precision, wished.workload):
        text += "; no less than {bound:ms} by the datasheet"
        values["bound"] = least
    if wished.mean_w and wished.boards:
        text += "; that is {mean_w:W} on the {board}"
        values["board"] = idle_and_limit(wished.boards[0])
    evidence: list[str | Note] = [text]
    if known := reported(wished.workload).get(group.title):
        gain, told = known
        text = "published for the same layers without the logits, eager, batch 1: {told}: {gain:x}"
        evidence.append(note(text, told=told, gain=gain))
        ms = {case.precision: case.latency_ms for case in group.cases}
        slow, fast = ms.get("fp32"), ms.get("fp16")
        # The gain from TF32 is another one.
        in_fp32 = group.title != work.PUBLISHED_IN_TF32
        if in_fp32 and slow and fast and slow / fast > _FAR * gain:
            values |= {"wanted": slow / fast, "gain": gain}
            cause = (
                "{name}: a gain of {wanted:.1f}x was expected; in eager mode at batch 1 {gain:x}"
                " was published: launches, not products, set that latency."
            )
    return Hit(
        evidence,
        values,
        verdict=Verdict.INCONCLUSIVE,
        cause=cause,
        missing=["a row of {name}, {workload}, {precision}"],
        do=["Run the matrix below there, with engine = graph and a larger batch."],
    )
