"""A rule: a function over one case that returns a Hit or None, and what is static about it.

`jobs.report.findings` runs the rules of all modules and makes findings of their hits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Value, Verdict


@dataclass(frozen=True)
class Hit:
    """What a rule found in a case, as templates and notes; what is None is as the rule says.

    Attributes:
        values: What templates name that is no fact of the case (`jobs.report.findings.Known`).
        precisions: Whose numbers it is about; empty: those of the case.
        rejects: Fields of the case that cannot be right, and so are no evidence for other findings.
        speed: Of an effect: it rests on the latency.
        energy: Of an effect: it rests on the energy.
    """

    evidence: Sequence[str | Note] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    expected: Sequence[str | Note] = ()
    verdict: Verdict | None = None
    cause: str | None = None
    missing: Sequence[str] | None = None
    do: Sequence[str] | None = None
    precisions: Sequence[str] = ()
    rejects: Sequence[str] = ()
    speed: bool = True
    energy: bool = False


Find = Callable[[Case, Group], Hit | None]


@dataclass(frozen=True)
class Rule:
    """One kind of finding, with its templates; the docstring of `find` says where it fires.

    Attributes:
        verdicts: The usual one, then those that a Hit may have instead.
        undermines: What does not stand beside it, unless it is accepted.
        first: It says which numbers cannot be right, before the others see them.
        minor: Left out of a short answer where there is more to say.
        effect: It says what a precision does, and so needs numbers that stand.
    """

    code: str
    verdicts: tuple[Verdict, ...]
    find: Find
    cause: str = ""
    missing: Sequence[str] = ()
    do: Sequence[str] = ()
    undermines: Literal["", "effects", "energy"] = ""
    effect: bool = False
    first: bool = False
    minor: bool = False


def rule(*verdicts: Verdict, **static: Any) -> Callable[[Find], Rule]:
    """A decorator that makes a rule of a function: gpu_capped finds `gpu-capped`.

    `static` are the other fields of `Rule`.
    """
    return lambda find: Rule(find.__name__.replace("_", "-"), verdicts, find, **static)


def note(template: str, **values: Value) -> Note:
    """A sentence with values of its own."""
    return Note(template, values)
