"""A rule: a function over one case that returns a Hit or None, and what is static about it.

The loop over the cases, the subject, the weakening of effects and the table in docs/findings.md are
made of the registry. Rules run, and equal verdicts are shown, in the order of registration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Finding, Note, Value, Verdict


@dataclass(frozen=True)
class Hit:
    """What a rule found in a case. What is None is as the rule says.

    Attributes:
        values: Numbers and names for the templates of cause, missing and do.
        evidence: What supports it.
        expected: What the facts let one expect.
        precisions: Whose numbers it is about; empty: those of the case.
        energy_only: Of an effect: it rests on the energy alone.
        energy: Of an effect: it rests on the energy too.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    evidence: Sequence[Note] = ()
    expected: Sequence[Note] = ()
    verdict: Verdict | None = None
    cause: str | None = None
    missing: Sequence[str] | None = None
    do: Sequence[str] | None = None
    precisions: Sequence[str] = ()
    energy: bool = False
    energy_only: bool = False


Find = Callable[[Case, Group], Hit | None]


@dataclass(frozen=True)
class Rule:
    """One kind of finding.

    Attributes:
        verdicts: The first unless a Hit has another.
        when: Where it fires, for the documentation.
        cause: Template of one or two sentences.
        missing: Templates: evidence that would decide what is open.
        do: Templates: what to do.
        undermines_effects: Whether no effect stands beside it; False for a hit that is accepted.
        undermines_energy: Whether what is said of the energy does not.
        effect: Whether it says what a precision does, and so needs numbers that stand.
        section: Where the documentation has it.
    """

    code: str
    verdicts: tuple[Verdict, ...]
    when: str
    cause: str
    missing: tuple[str, ...]
    do: tuple[str, ...]
    undermines_effects: bool
    undermines_energy: bool
    effect: bool
    section: str
    find: Find

    def finding(
        self,
        hit: Hit,
        subject: str,
        precisions: Sequence[str],
        undermined_by: Sequence[str] = (),
        undermined_energy_by: Sequence[str] = (),
    ) -> Finding:
        """What is said of a hit; an effect stands only where nothing undermines it."""
        verdict = hit.verdict or self.verdicts[0]
        assert verdict in self.verdicts, (self.code, verdict)
        if undermined_by or (undermined_energy_by and hit.energy_only):
            verdict = Verdict.INCONCLUSIVE

        def notes(own: Sequence[str] | None, static: Sequence[str]) -> tuple[Note, ...]:
            return tuple(Note(text, hit.values) for text in (static if own is None else own))

        return Finding(
            self.code,
            verdict,
            subject,
            tuple(precisions),
            Note(hit.cause or self.cause, hit.values),
            tuple(hit.evidence),
            tuple(hit.expected),
            notes(hit.missing, self.missing),
            notes(hit.do, self.do),
            tuple(undermined_by),
            tuple(undermined_energy_by) if hit.energy or hit.energy_only else (),
        )


REGISTRY: dict[str, Rule] = {}


def rule(
    code: str,
    *verdicts: Verdict,
    when: str,
    cause: str = "",
    missing: Sequence[str] = (),
    do: Sequence[str] = (),
    undermines_effects: bool = False,
    undermines_energy: bool = False,
    effect: bool = False,
) -> Callable[[Find], Find]:
    """Register a function as the rule of a code; the arguments are as in `Rule`."""

    def register(find: Find) -> Find:
        REGISTRY[code] = Rule(
            code,
            verdicts,
            when,
            cause,
            tuple(missing),
            tuple(do),
            undermines_effects,
            undermines_energy,
            effect,
            find.__module__,
            find,
        )
        return find

    return register


def note(template: str, **values: Value) -> Note:
    """A sentence with its values."""
    return Note(template, values)


def apply(groups: Iterable[Group]) -> list[Finding]:
    """Every rule over every case; effects last, with what undermines the numbers below them."""
    found: list[Finding] = []
    for group in groups:
        plain = [f for rule in REGISTRY.values() if not rule.effect for f in _each(rule, group)]
        found += plain
        for rule in REGISTRY.values():
            if rule.effect:
                found += _each(rule, group, plain)
    return found


def _each(rule: Rule, group: Group, others: Sequence[Finding] = ()) -> Iterator[Finding]:
    for case in group.cases:
        hit = rule.find(case, group)
        if hit is None:
            continue
        about = {case.precision, BASELINE}
        weak = [
            REGISTRY[f.code]
            for f in others
            if f.verdict != Verdict.ACCEPT and about & {*f.precisions}
        ]
        yield rule.finding(
            hit,
            group.title,
            hit.precisions or (case.precision,),
            list(dict.fromkeys(r.code for r in weak if r.undermines_effects)),
            list(dict.fromkeys(r.code for r in weak if r.undermines_energy)),
        )
