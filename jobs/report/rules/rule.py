"""A rule: a function over one case that returns a Hit or None, and what is static about it.

The loop over the cases, the subject, the weakening of effects and the tables in docs/findings.md
are made of the registry. Rules run, and equal verdicts are shown, in the order of registration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.stats import Ratio
from jobs.report.facts import BASELINE, Case, Group
from jobs.report.finding import Finding, Note, Value, Verdict


@dataclass(frozen=True)
class Hit:
    """What a rule found in a case. What is None is as the rule says.

    Templates find what they name among `values`, and else among the facts of the case (`facts_of`).

    Attributes:
        values: Numbers and names that are no facts of the case.
        evidence: Templates, or notes with values of their own: what supports it.
        expected: The same of what the facts about the hardware let one expect.
        precisions: Whose numbers it is about; empty: those of the case.
        energy: Of an effect: it rests on the energy too.
        energy_only: Of an effect: it rests on the energy alone.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    evidence: Sequence[str | Note] = ()
    expected: Sequence[str | Note] = ()
    verdict: Verdict | None = None
    cause: str | None = None
    missing: Sequence[str] | None = None
    do: Sequence[str] | None = None
    precisions: Sequence[str] = ()
    energy: bool = False
    energy_only: bool = False


Find = Callable[[Case, Group], Hit | None]


@dataclass(frozen=True)
class rule:  # it decorates
    """What is static about one kind of finding; its function's docstring says where it fires.

    Attributes:
        or_else: Verdicts that a Hit may have in place of `verdict`.
        cause: Template of one or two sentences.
        missing: Templates: evidence that would decide what is open.
        do: Templates: what to do.
        undermines_effects: Whether no effect stands beside it, unless it is accepted.
        undermines_energy: Whether what is said of the energy does not.
        effect: Whether it says what a precision does, and so needs numbers that stand.
    """

    code: str
    verdict: Verdict
    _: dataclasses.KW_ONLY
    or_else: tuple[Verdict, ...] = ()
    cause: str = ""
    missing: Sequence[str] = ()
    do: Sequence[str] = ()
    undermines_effects: bool = False
    undermines_energy: bool = False
    effect: bool = False
    find: Find = lambda case, group: None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict that it can give; an effect may be undermined."""
        undermined = (Verdict.INCONCLUSIVE,) if self.effect else ()
        return (self.verdict, *self.or_else, *undermined)

    def __call__(self, find: Find) -> Find:
        """Register a function as this rule's."""
        REGISTRY[self.code] = dataclasses.replace(self, find=find)
        return find

    def finding(
        self,
        hit: Hit,
        subject: str,
        precisions: Sequence[str],
        known: Mapping[str, Value],
        undermined_by: Sequence[str] = (),
        energy_undermined_by: Sequence[str] = (),
    ) -> Finding:
        """What is said of a hit; an effect stands only where nothing undermines it."""
        verdict = hit.verdict or self.verdict
        if undermined_by or (energy_undermined_by and hit.energy_only):
            verdict = Verdict.INCONCLUSIVE
        assert verdict in self.verdicts, (self.code, verdict)
        values = {**known, **hit.values}

        def notes(texts: Sequence[str | Note]) -> tuple[Note, ...]:
            return tuple(Note.of(one, values) for one in texts)

        return Finding(
            self.code,
            verdict,
            subject,
            tuple(hit.precisions or precisions),
            Note.of(hit.cause or self.cause, values),
            notes(hit.evidence),
            notes(hit.expected),
            notes(self.missing if hit.missing is None else hit.missing),
            notes(self.do if hit.do is None else hit.do),
            tuple(undermined_by),
            tuple(energy_undermined_by) if hit.energy or hit.energy_only else (),
        )

    def over(self, group: Group, others: Sequence[Finding] = ()) -> Iterator[Finding]:
        """What it finds in each case of a group; `others` may undermine it."""
        for case in group.cases:
            if (hit := self.find(case, group)) is None:
                continue
            about = {case.precision, BASELINE}
            weak = dict.fromkeys(
                f.code for f in others if f.verdict != Verdict.ACCEPT and about & {*f.precisions}
            )
            yield self.finding(
                hit,
                group.title,
                (case.precision,),
                facts_of(case, group),
                [code for code in weak if REGISTRY[code].undermines_effects],
                [code for code in weak if REGISTRY[code].undermines_energy],
            )


REGISTRY: dict[str, rule] = {}


def note(template: str, **values: Value) -> Note:
    """A sentence with values of its own."""
    return Note(template, values)


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


def apply(groups: Iterable[Group]) -> list[Finding]:
    """Every rule over every case; effects last, with what undermines the numbers below them."""
    found: list[Finding] = []
    for group in groups:
        plain = [f for one in REGISTRY.values() if not one.effect for f in one.over(group)]
        found += plain
        found += [f for one in REGISTRY.values() if one.effect for f in one.over(group, plain)]
    return found
