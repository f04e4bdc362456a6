"""What a finding is: a code, a verdict, whom it is about, and numbers. Its words are templates.

A template is filled at the edge. Its fields name how a number reads: `{latency:ms}` is 11.7 ms,
`{gain:x}` 1.13x, `{gain:ratio}` 1.130, `{busy:.0%}` 82%, `{limit:g W}` 250 W, `{power:2 W}` has two
digits. Several numbers in the place of one are their range, several words a list.
"""

from __future__ import annotations

import enum
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.report.words import NOTHING, listed, span, times

PARTS = ("evidence", "expected", "missing", "do")
Value = float | int | str | None | tuple[float, ...] | tuple[str, ...]


class Verdict(enum.StrEnum):
    """What to do with the numbers that a finding is about, worst first."""

    REJECT = "reject"  # they cannot be right
    FIX = "fix"  # something can be mended, and the numbers would change
    INCONCLUSIVE = "inconclusive"  # evidence is missing
    ACCEPT = "accept"  # they stand, and the cause is known


class Template(string.Formatter):
    """Fills templates with values as a person reads them."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """One value.

        >>> Template().format("{a:ms}, {b:W}, {c:x}, {d}", a=11.7, b=(35.6, 49.6), c=0.8666, d=None)
        '11.7 ms, 35.6 to 49.6 W, 0.87x, -'
        >>> Template().format("{a} at {b:g W} and {c:.0%}", a=("fp16", "mixed"), b=70.0, c=0.5)
        'fp16 and mixed at 70 W and 50%'
        """
        if value is None:
            return NOTHING
        if isinstance(value, str):
            return value
        several = tuple(value) if isinstance(value, tuple | list) else (value,)
        if any(isinstance(one, str) for one in several):
            return listed(several)
        written = {"x": times, "ratio": three_decimals}.get(format_spec)
        if written or format_spec[:1] in (".", "+"):
            ends = (min(several), max(several))
            low, high = (written(v) if written else format(v, format_spec) for v in ends)
            return low if low == high else f"{low} to {high}"
        found = re.fullmatch(r"(\d+|g)? ?(.*)", format_spec)
        assert found
        digits, unit = found[1], f" {found[2]}" if found[2] else ""
        if digits == "g" or (not format_spec and all(isinstance(v, int) for v in several)):
            low, high = (f"{v:g}" for v in (min(several), max(several)))
            return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"
        return span(several, unit, int(digits or 3))


@dataclass(frozen=True)
class Note:
    """A sentence: its template, and the numbers and names in it."""

    template: str
    values: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str | Note, known: Mapping[str, Value]) -> Note:
        """A template, or a note, with those of the known values that it names and lacks.

        >>> Note.of("{a:ms} of {b:ms}", {"a": 1, "b": 2, "c": 3})
        Note(template='{a:ms} of {b:ms}', values={'a': 1, 'b': 2})
        """
        note = text if isinstance(text, Note) else cls(text)
        names = [name for _, name, _, _ in string.Formatter().parse(note.template) if name]
        lacking = {name: known[name] for name in names if name not in note.values}
        return cls(note.template, {**lacking, **note.values}) if lacking else note

    @property
    def text(self) -> str:
        """In words."""
        return Template().vformat(self.template, (), self.values)

    def as_json(self) -> dict[str, Any]:
        """The sentence beside its values."""
        return {"text": self.text, "values": self.values}


@dataclass(frozen=True)
class Finding:
    """One thing that one group of rows shows.

    Attributes:
        subject: Which rows: GPU and workload.
        precisions: Which of their precisions.
        cause: What it is and why, with the numbers of the finding.
        evidence: What supports it.
        expected: What the facts about this architecture let one expect.
        missing: Evidence that would decide what these rows leave open.
        do: What to do.
        undermined_by: Codes of the findings that take away what an effect rests on.
        energy_undermined_by: The same of what it says of the energy alone.
    """

    code: str
    verdict: Verdict
    subject: str
    precisions: tuple[str, ...]
    cause: Note
    evidence: tuple[Note, ...] = ()
    expected: tuple[Note, ...] = ()
    missing: tuple[Note, ...] = ()
    do: tuple[Note, ...] = ()
    undermined_by: tuple[str, ...] = ()
    energy_undermined_by: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The cause in words, with what undermines it."""
        text, energy = self.cause.text, self.energy_undermined_by
        if self.undermined_by:
            text += f" But see {listed(self.undermined_by)}."
        return f"{text} For the energy, see {listed(energy)}." if energy else text

    def as_json(self) -> dict[str, Any]:
        """The finding as data: numbers in full beside each sentence."""
        return {
            "code": self.code,
            "verdict": str(self.verdict),
            "subject": self.subject,
            "precisions": self.precisions,
            "cause": self.text,
            "values": self.cause.values,
            **{part: [note.as_json() for note in getattr(self, part)] for part in PARTS[:2]},
            **{part: [note.text for note in getattr(self, part)] for part in PARTS[2:]},
            "undermined_by": (*self.undermined_by, *self.energy_undermined_by),
        }


@dataclass(frozen=True)
class Topic:
    """Findings that say the same of several precisions or groups of rows, as texts to read.

    Attributes:
        causes: Each cause, with the subjects that it is true of.
    """

    code: str
    verdict: Verdict
    precisions: tuple[str, ...]
    causes: tuple[tuple[str, tuple[str, ...]], ...]
    evidence: tuple[str, ...]
    expected: tuple[str, ...]
    missing: tuple[str, ...]
    do: tuple[str, ...]


def topics(findings: Iterable[Finding]) -> list[Topic]:
    """Findings as a person reads them: each thing once, with whatever it is true of.

    What differs in numbers alone, from one precision or subject to the next, is one sentence with
    the range of each number; only the causes of several subjects stand one by one.
    """
    by_subject: dict[object, list[Finding]] = {}
    for f in findings:
        undermined = f.undermined_by, f.energy_undermined_by
        key = (f.code, f.verdict, f.subject, undermined, fixed_part(f.cause))
        by_subject.setdefault(key, []).append(f)
    of_all: dict[object, list[Finding]] = {}
    for every in by_subject.values():
        precisions = tuple(dict.fromkeys(p for f in every for p in f.precisions))
        (cause,) = merged(f.cause for f in every)
        parts: dict[str, Any] = {name: joined(every, name) for name in PARTS}
        one = replace(every[0], precisions=precisions, cause=cause, **parts)
        of_all.setdefault((one.code, one.verdict, precisions, cause.template), []).append(one)
    found = []
    for every in of_all.values():
        causes: dict[str, list[str]] = {}
        for f in every:
            causes.setdefault(f.text, []).append(f.subject)
        texts = {name: tuple(n.text for n in joined(every, name)) for name in PARTS}
        head = every[0]
        told = tuple((text, tuple(subjects)) for text, subjects in causes.items())
        found.append(Topic(head.code, head.verdict, head.precisions, told, **texts))
    return found


def merged(notes: Iterable[Note]) -> list[Note]:
    """Each note once; those that differ in numbers alone as one, with the range of each.

    >>> notes = [Note("{p}: {a:ms}", {"p": p, "a": a}) for p in "xy" for a in (1, 2)]
    >>> [note.text for note in merged(notes)]
    ['x: 1.00 to 2.00 ms', 'y: 1.00 to 2.00 ms']
    """
    alike: dict[object, list[Note]] = {}
    for note in notes:
        alike.setdefault(fixed_part(note), []).append(note)
    found = []
    for every in alike.values():
        first = every[0]
        ranges: dict[str, Value] = {
            name: tuple(sorted({v for note in every for v in numbers_in(note.values[name])}))
            for name, value in first.values.items()
            if numbers_in(value)
        }
        found.append(Note(first.template, {**first.values, **ranges}) if every[1:] else first)
    return found


def three_decimals(value: float) -> str:
    """With three decimals, as long as these mean anything."""
    if 0.01 <= value <= 100:
        return f"{value:.3f}"
    return ">100" if value > 100 else "<0.01"


def joined(findings: Iterable[Finding], part: str) -> tuple[Note, ...]:
    """The notes of a part of several findings, each once."""
    return tuple(merged(note for f in findings for note in getattr(f, part)))


def fixed_part(note: Note) -> object:
    """What two notes must share to be one: all but the numbers."""
    fixed = ((k, v) for k, v in note.values.items() if not numbers_in(v))
    return note.template, tuple(sorted(note.values)), tuple(fixed)


def numbers_in(value: Value) -> tuple[float, ...]:
    """The numbers that stand in the place of a value."""
    several = value if isinstance(value, tuple) else (value,)
    return tuple(v for v in several if isinstance(v, int | float))
