"""All rules over all groups, worst first."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from bench.stats import Ratio
from jobs.report.facts import NO_PRECISION, Case, Group, linked
from jobs.report.finding import Finding, Note, Value, Verdict
from jobs.report.rules import REGISTRY, expectation, failed
from jobs.report.rules.rule import Hit, Rule
from jobs.report.words import with_article

_FACTS = frozenset([*(item.name for item in dataclasses.fields(Case)), "pace_ms"])
_PLAIN = (float, int, str)
_OF_BASE = "base_"
_OF = "{precision}: "  # at the beginning of a template: whom it is about


def find(
    groups: Sequence[Group], expected: Sequence[Case] = (), failures: Sequence[Case] = ()
) -> list[Finding]:
    """What the rows show, worst first, and what of lines that somebody expected or that failed.

    A number that cannot be right is no evidence for anything else: the rules that say so come
    first, and the others see the rows without it. Effects come last, and see all, so that they can
    name what undermines them. Equal verdicts are in the order of the rules.
    """
    first = [rule for rule in REGISTRY.values() if rule.first]
    others = [rule for rule in REGISTRY.values() if not rule.first and not rule.effect]
    effects = [rule for rule in REGISTRY.values() if rule.effect]
    rejected: dict[int, set[str]] = {}
    by_group: list[list[Finding]] = []
    for group in groups:
        by_group.append([])
        for rule, case, hit in hits(first, group):
            rejected.setdefault(id(case), set()).update(hit.rejects)
            by_group[-1].append(finding(rule, hit, case, group))
    seen = without(groups, rejected) if rejected else groups
    found = []
    for group, credible, of_group in zip(groups, seen, by_group, strict=True):
        of_group += [
            finding(rule, hit, case, credible) for rule, case, hit in hits(others, credible)
        ]
        for rule, case, hit in hits(effects, group):
            of_group.append(finding(rule, hit, case, group, of_group))
        found += of_group
    rule = REGISTRY["not-measured"]
    found += [finding(rule, *about) for about in failed.failures(failures)]
    rule = REGISTRY["expectation"]
    found += [finding(rule, *about) for about in expectation.expectations(groups, expected)]
    verdicts, codes = list(Verdict), list(REGISTRY)
    return sorted(found, key=lambda f: (verdicts.index(f.verdict), codes.index(f.code)))


def hits(rules: Sequence[Rule], group: Group) -> Iterator[tuple[Rule, Case, Hit]]:
    """What some rules find in the cases of a group."""
    for rule in rules:
        for case in group.cases:
            if hit := rule.find(case, group):
                yield rule, case, hit


def without(groups: Sequence[Group], rejected: Mapping[int, Set[str]]) -> list[Group]:
    """The groups without the numbers that cannot be right, and what follows from them."""

    def credible(case: Case, base: Case | None) -> Case:
        gone = rejected.get(id(case), set())
        of_base = rejected.get(id(base), set()) if base else set()
        facts: dict[str, Any] = dict.fromkeys(gone)
        if "latency_ms" in gone and case.foreign and case.energy_mj is not None:
            facts["mean_w"] = None  # which it is derived from
        if {"latency_ms", "throughput_per_s"} & (gone | of_base):
            facts["speedup"] = None
        if "energy_mj" in gone | of_base:
            facts["energy_ratio"] = None
        return dataclasses.replace(case, **facts) if facts else case

    return linked(
        [
            dataclasses.replace(
                group,
                cases=tuple(credible(case, group.base_of(case)) for case in group.cases),
            )
            for group in groups
        ]
    )


def finding(
    rule: Rule, hit: Hit, case: Case, group: Group, others: Sequence[Finding] = ()
) -> Finding:
    """What is said of a hit; an effect stands only where none of the others undermines it."""
    verdict, cause = hit.verdict or rule.verdicts[0], hit.cause or rule.cause
    values = Known(case, group, hit.values)
    undermined_by: tuple[str, ...] = ()
    if rule.effect:
        about = {case.precision, case.baseline}
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
    of_none = case.precision == NO_PRECISION
    parts = [
        tuple(Note.of(without_name(text) if of_none else text, values) for text in texts)
        for texts in (hit.evidence, hit.expected, missing, do)
    ]
    precisions = tuple(hit.precisions or (case.precision,))
    cause_note = Note.of(without_name(cause) if of_none else cause, values)
    return Finding(rule.code, verdict, group.title, precisions, cause_note, undermined_by, *parts)


def without_name(text: str | Note) -> str | Note:
    """A template without the name of a precision before it, for rows that have none.

    >>> without_name("{precision}: the energy falls"), without_name("{ms:ms} is short")
    ('The energy falls', '{ms:ms} is short')
    """
    template = text if isinstance(text, str) else text.template
    if not template.startswith(_OF):
        return text
    bare = template.removeprefix(_OF)
    bare = bare[0].upper() + bare[1:]
    return bare if isinstance(text, str) else dataclasses.replace(text, template=bare)


class Known(dict[str, Value]):
    """The numbers and names that a template can name; those of fp32 begin with `base_`.

    They are the fields of `Case`, with `speedup` and `energy_ratio` as numbers, and `batch_size`,
    `half`, the precision that mixed compares with, and `a_type`, the type with its article. Each is
    looked up when it is named: of sixty fields a finding names three.
    """

    def __init__(self, case: Case, group: Group, values: Mapping[str, Value]) -> None:
        """The values of a hit go before the facts of its case."""
        super().__init__(values)
        self._case, self._base = case, group.baseline

    def __missing__(self, name: str) -> Value:
        case = self._case
        if name == "half":
            return case.half_precision
        if name == "batch_size":
            return case.workload.batch_size
        if name == "a_type" and case.gpu_type:
            return with_article(case.gpu_type)
        one, field = case, name
        if name.startswith(_OF_BASE) and self._base:
            one, field = self._base, name.removeprefix(_OF_BASE)
        if field not in _FACTS:
            raise KeyError(name)
        value = getattr(one, field)
        value = value.value if isinstance(value, Ratio) else value
        if value is None or isinstance(value, _PLAIN):
            return value
        raise KeyError(name)
