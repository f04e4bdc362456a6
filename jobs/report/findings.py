"""All rules over all groups, worst first."""

import dataclasses
from collections.abc import Sequence

from bench.stats import Ratio
from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Finding, Note, Value, Verdict
from jobs.report.rules import REGISTRY, expectation
from jobs.report.rules.rule import Hit, Rule


def find(groups: Sequence[Group], expected: Sequence[Case] = ()) -> list[Finding]:
    """What the rows show, worst first, and what of lines that somebody expected.

    Equal verdicts are in the order of the rules.
    """
    found = []
    effects_last = sorted(REGISTRY.values(), key=lambda rule: rule.effect)
    for group in groups:
        of_group: list[Finding] = []
        for rule in effects_last:
            hits = [(case, rule.find(case, group)) for case in group.cases]
            of_group += [finding(rule, hit, case, group, of_group) for case, hit in hits if hit]
        found += of_group
    rule = REGISTRY["expectation"]
    found += [finding(rule, *about) for about in expectation.expectations(groups, expected)]
    verdicts, codes = list(Verdict), list(REGISTRY)
    return sorted(found, key=lambda f: (verdicts.index(f.verdict), codes.index(f.code)))


def finding(
    rule: Rule, hit: Hit, case: Case, group: Group, others: Sequence[Finding] = ()
) -> Finding:
    """What is said of a hit; an effect stands only where none of the others undermines it."""
    verdict, cause = hit.verdict or rule.verdicts[0], hit.cause or rule.cause
    values = {**facts_of(case, group), **hit.values}
    undermined_by: tuple[str, ...] = ()
    if rule.effect:
        about = {case.precision, BASELINE}
        weak = dict.fromkeys(
            f.code for f in others if f.verdict != Verdict.ACCEPT and about & {*f.precisions}
        )
        speed = tuple(code for code in weak if REGISTRY[code].undermines == "effects")
        energy = tuple(
            code for code in weak if hit.energy and REGISTRY[code].undermines == "energy"
        )
        if speed or (energy and not hit.speed):
            verdict = Verdict.INCONCLUSIVE
        cause += " But see {speed_see}." if speed else ""
        cause += " For the energy, see {energy_see}." if energy else ""
        values |= {"speed_see": speed, "energy_see": energy}
        undermined_by = speed + energy
    assert verdict in rule.verdicts, (rule.code, verdict)
    missing = rule.missing if hit.missing is None else hit.missing
    do = rule.do if hit.do is None else hit.do
    parts = [
        tuple(Note.of(text, values) for text in texts)
        for texts in (hit.evidence, hit.expected, missing, do)
    ]
    precisions = tuple(hit.precisions or (case.precision,))
    cause_note = Note.of(cause, values)
    return Finding(rule.code, verdict, group.title, precisions, cause_note, undermined_by, *parts)


def facts_of(case: Case, group: Group) -> dict[str, Value]:
    """The numbers and names that a template can name; those of fp32 begin with `base_`.

    They are the fields of `Case`, with `speedup` and `energy_ratio` as numbers, and `batch_size`
    and `half`, the precision that mixed compares with.
    """
    known: dict[str, Value] = {"half": case.half_precision, "batch_size": case.workload.batch_size}
    for prefix, one in (("", case), ("base_", group.baseline)):
        for item in dataclasses.fields(one) if one else ():
            value = getattr(one, item.name)
            value = value.value if isinstance(value, Ratio) else value
            if value is None or isinstance(value, float | int | str):
                known[prefix + item.name] = value
    return known
