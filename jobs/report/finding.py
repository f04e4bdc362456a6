"""What a finding is: a code, a verdict, whom it is about, and numbers. Its words are templates.

A template is filled at the edge. Its fields name how a number reads: `{latency:ms}` is 11.7 ms,
`{gain:x}` 1.13x, `{gain:ratio}` 1.130, `{busy:.0%}` 82%, `{limit:g W}` 250 W, `{power:2 W}` has two
digits. Several numbers in the place of one are their range, several words a list.
"""

from __future__ import annotations

import enum
import functools
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.report.words import NOTHING, energy_scale, gathered, listed, number, times

PARTS = ("evidence", "expected", "missing", "do")
_OF_A_GPU = {"gpu", "gpu_type"}  # values that name in a sentence whom it is about
Value = float | int | str | None | tuple[float, ...] | tuple[str, ...]
Row = tuple[tuple[str, ...], ...]  # at each place the words of a subject


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
        >>> Template().format("{a:mJ}, {b:mJ}", a=580.0, b=(9000.0, 45000.0))
        '580 mJ, 9.00 to 45.0 J'
        >>> Template().format("{a} at {b:g W}, {c:.0%}, {d}", a=("p", "q"), b=70.0, c=0.5, d=())
        'p and q at 70 W, 50%, -'
        """
        if value is None or value == ():
            return NOTHING
        several = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, str) for one in several):
            return listed(several)
        if format_spec == "mJ":
            scale, format_spec = energy_scale(max(several))
            several = tuple(one / scale for one in several)
        found = re.fullmatch(r"(\d+|g)? ?(.*)", format_spec)
        assert found
        digits, unit = found[1], f" {found[2]}" if found[2] else ""
        write: Callable[[Any], str] | None = {"x": times, "ratio": three_decimals}.get(format_spec)
        if write:
            unit = ""
        elif format_spec.startswith((".", "+")):
            write, unit = f"{{:{format_spec}}}".format, ""
        elif digits == "g" or (not format_spec and all(isinstance(one, int) for one in several)):
            write = "{:g}".format
        else:
            write = functools.partial(number, digits=int(digits or 3))
        return " to ".join(dict.fromkeys([write(min(several)), write(max(several))])) + unit


@functools.lru_cache(maxsize=1024)
def names_in(template: str) -> tuple[str, ...]:
    """The names of the values in a template.

    >>> names_in("{a:ms} of {b}")
    ('a', 'b')
    """
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name)


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
        names = names_in(note.template)
        lacking = {name: known[name] for name in names if name not in note.values}
        return cls(note.template, {**lacking, **note.values})

    @property
    def text(self) -> str:
        """In words."""
        return Template().vformat(self.template, (), self.values)


@dataclass(frozen=True)
class Finding:
    """One thing that one group of rows shows.

    Attributes:
        subject: Which rows: GPU and workload.
        cause: What it is and why, with the numbers of the finding and what undermines it.
        undermined_by: Codes of the findings that take away what an effect rests on.
        expected: What the facts about this architecture let one expect.
        missing: Evidence that would decide what these rows leave open.
    """

    code: str
    verdict: Verdict
    subject: str
    precisions: tuple[str, ...]
    cause: Note
    undermined_by: tuple[str, ...] = ()
    evidence: tuple[Note, ...] = ()
    expected: tuple[Note, ...] = ()
    missing: tuple[Note, ...] = ()
    do: tuple[Note, ...] = ()

    @property
    def text(self) -> str:
        """The cause in words."""
        return self.cause.text

    def as_json(self) -> dict[str, Any]:
        """The finding as data: numbers in full beside each sentence."""
        return {
            "code": self.code,
            "verdict": str(self.verdict),
            "subject": self.subject,
            "precisions": self.precisions,
            "cause": self.text,
            "values": self.cause.values,
            "evidence": [{"text": note.text, "values": note.values} for note in self.evidence],
            "expected": [{"text": note.text, "values": note.values} for note in self.expected],
            "missing": [note.text for note in self.missing],
            "do": [note.text for note in self.do],
            "undermined_by": self.undermined_by,
        }


@dataclass(frozen=True)
class Telling:
    """What is said of some subjects alone: the cause, and texts by their part of a finding."""

    cause: str
    subjects: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Topic:
    """Findings that say the same of several precisions or groups of rows, as texts to read.

    Attributes:
        texts: What holds for all subjects, or names its GPU, by the part of a finding.
    """

    code: str
    verdict: Verdict
    precisions: tuple[str, ...]
    tellings: tuple[Telling, ...]
    texts: Mapping[str, tuple[str, ...]]


def topics(findings: Iterable[Finding]) -> list[Topic]:
    """Findings as a person reads them: each thing once, with whatever it is true of.

    Of one subject, what differs in numbers alone from one precision to the next is one sentence
    with the range of each number. From subject to subject nothing is merged but what is equal.
    """

    def shared(same: Sequence[Finding]) -> tuple[str, Verdict, tuple[str, ...], str]:
        precisions = tuple(dict.fromkeys(p for f in same for p in f.precisions))
        return same[0].code, same[0].verdict, precisions, same[0].cause.template

    by_subject = gathered(findings, lambda f: (f.code, f.verdict, f.subject, fixed_part(f.cause)))
    found = []
    for members in gathered(by_subject, shared):
        code, verdict, precisions, _ = shared(members[0])
        common: dict[str, tuple[str, ...]] = {}
        own: list[dict[str, tuple[str, ...]]] = [{} for _ in members]
        for part in PARTS:
            notes = [merged(n for f in same for n in getattr(f, part)) for same in members]
            every = [{note.text: note for note in of_one} for of_one in notes]
            common[part] = tuple(
                text
                for text, note in {k: v for of_one in every for k, v in of_one.items()}.items()
                if not _OF_A_GPU.isdisjoint(note.values) or all(text in one for one in every)
            )
            for mine, of_one in zip(own, every, strict=True):
                mine[part] = tuple(text for text in of_one if text not in common[part])
        subjects: dict[tuple[str, tuple[tuple[str, ...], ...]], list[str]] = {}
        for same, texts in zip(members, own, strict=True):
            (cause,) = merged(f.cause for f in same)
            subjects.setdefault((cause.text, tuple(texts.values())), []).append(same[0].subject)
        tellings = tuple(
            Telling(cause, folded(names), dict(zip(PARTS, texts, strict=True)))
            for (cause, texts), names in subjects.items()
        )
        found.append(Topic(code, verdict, precisions, tellings, common))
    return found


def folded(subjects: Iterable[str]) -> tuple[str, ...]:
    """Subjects that differ in one word alone as one, with a list of that word in each.

    What stands in brackets is one word.

    >>> folded(f"T4   gpt2 {engine} batch {size}" for engine in ("eager", "graph") for size in "18")
    ('T4   gpt2 eager and graph batch 1 and 8',)
    >>> folded(f"T4   gpt2   (temp (C)={celsius} x)" for celsius in (35, 37))
    ('T4   gpt2   (temp (C)=35 x and temp (C)=37 x)',)
    """
    found = []
    every: list[Row] = [tuple((word,) for word in words_of(s)) for s in dict.fromkeys(subjects)]
    for rows in gathered(every, len):
        for place in reversed(range(len(rows[0]))):
            by_rest: dict[Row, list[str]] = {}
            for row in rows:
                by_rest.setdefault(row[:place] + row[place + 1 :], []).extend(row[place])
            rows = [(*r[:place], tuple(here), *r[place:]) for r, here in by_rest.items()]
        found += [" ".join(map(listed_words, row)) for row in rows]
    return tuple(found)


def words_of(subject: str) -> list[str]:
    """The words of a subject: it is split at blanks, but for those in brackets.

    >>> words_of("BERT (B=1, L=512) eager   (GPU (C)=35 and)")
    ['BERT', '(B=1, L=512)', 'eager', '', '', '(GPU (C)=35 and)']
    """
    found, begin, depth = [], 0, 0
    for at, letter in enumerate(subject):
        depth = max(0, depth + (letter == "(") - (letter == ")"))
        if letter == " " and not depth:
            found.append(subject[begin:at])
            begin = at + 1
    return [*found, subject[begin:]]


def listed_words(words: Sequence[str]) -> str:
    """Words as a list; those in brackets within one pair of them, where none holds a list.

    >>> listed_words(["(table 1)", "(table 2)"]), listed_words(["(B=1, L=2)", "(B=8, L=2)"])
    ('(table 1 and table 2)', '(B=1, L=2) and (B=8, L=2)')
    """
    inside = [word[1:-1] for word in words if word[:1] == "(" and word[-1:] == ")"]
    if len(inside) < max(2, len(words)) or any("," in word for word in inside):
        return listed(words)
    return f"({listed(inside)})"


def merged(notes: Iterable[Note]) -> list[Note]:
    """Each note once; those that differ in numbers alone as one, with the range of each.

    >>> notes = [Note("{p}: {a:ms}", {"p": p, "a": a}) for p in "xy" for a in (1, 2)]
    >>> [note.text for note in merged(notes)]
    ['x: 1.00 to 2.00 ms', 'y: 1.00 to 2.00 ms']
    """
    found = []
    for same in gathered(notes, fixed_part):
        ranges: dict[str, Value] = {
            name: tuple(sorted({v for note in same for v in numbers_in(note.values[name])}))
            for name, value in same[0].values.items()
            if numbers_in(value)
        }
        found.append(replace(same[0], values={**same[0].values, **ranges}))
    return found


def fixed_part(note: Note) -> object:
    """What two notes must share to be one: all but the numbers."""
    fixed = ((name, "number" if numbers_in(v) else v) for name, v in note.values.items())
    return note.template, tuple(fixed)


def numbers_in(value: Value) -> tuple[float, ...]:
    """The numbers that stand in the place of a value."""
    several = value if isinstance(value, tuple) else (value,)
    return tuple(v for v in several if isinstance(v, int | float))


def three_decimals(value: float) -> str:
    """With three decimals, as long as these mean anything."""
    return f"{value:.3f}" if 0.01 <= value <= 100 else ">100" if value > 100 else "<0.01"
