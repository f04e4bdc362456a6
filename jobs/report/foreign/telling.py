"""How a table was understood, in a few sentences: each name, unit and assumption once."""

from collections.abc import Iterable, Iterator, Sequence

from bench.measured import Outcome
from jobs.report.facts import NO_PRECISION, Case
from jobs.report.foreign import names, units
from jobs.report.foreign.grid import Grid
from jobs.report.foreign.headers import Heading
from jobs.report.foreign.shape import Shaped
from jobs.report.foreign.understood import Notes
from jobs.report.foreign.unit_words import split
from jobs.report.foreign.vocabulary import KNOWN

_MOST_PROBLEMS, _MOST_NAMES = 8, 24
_USUAL_SEPARATORS = ("commas", "bars")  # that are not worth a word
_ASSUMED = {
    "model": "gpt2",
    "engine": "eager",
    "batch_size": "batch 1",
    "prompt_tokens": "128 tokens",
}


def sentences(shaped: Shaped, notes: Notes, table: Grid, cases: Sequence[Case]) -> list[str]:
    """What was read, what was not, what was not understood, left out and assumed."""
    not_read = [f"{', '.join(columns)} ({why})" for why, columns in shaped.set_aside.items()]
    if table.ragged:
        not_read.append(f"{table.ragged} rows with more cells than there are columns")
    if table.left_out:
        not_read.append(f"{table.left_out} line{'s' * (table.left_out != 1)} of text around it")
    unknown = [f"{name} ({near}?)" if (near := nearest(name)) else name for name in shaped.unknown]
    assumed = [f"{what} {how}" for what, how in notes.assumed.items()]
    told = {
        "Read: ": "; ".join(read(shaped, notes, table, cases)),
        "Not read: ": "; ".join(not_read),
        "Not understood: ": ", ".join(unknown),
        "Left out: ": in_one(notes.problems),
        "Assumed, where the table does not say: ": ", ".join([*assumed, *assumptions(cases)]),
    }
    return [f"{begin}{text.rstrip('.')}." for begin, text in told.items() if text]


def read(shaped: Shaped, notes: Notes, table: Grid, cases: Sequence[Case]) -> Iterator[str]:
    """How the table lies, what each column and name was taken for, and which rows count."""
    yield from shaped.how
    if table.separator not in _USUAL_SEPARATORS:
        yield table.separator
    if table.gpu:
        yield f"GPU {table.gpu}, by the text above it"
    renamed = [f"{units.plain(h.name)} -> {held(h)}" for h in shaped.headings if not is_ours(h)]
    renamed += [f"{written} -> {ours}" for written, ours in notes.renamed.items()]
    yield from renamed[:_MOST_NAMES]
    if len(renamed) > _MOST_NAMES:
        yield f"and {len(renamed) - _MOST_NAMES} more"
    for what, count in notes.aside.items():
        yield f"{rows(count)} of {what}"
    if failed := sum(case.outcome != Outcome.OK for case in cases):
        yield f"{rows(failed)} failed"
    if notes.runs > 1:
        yield f"each number is the median of up to {notes.runs} rows"


def rows(count: int) -> str:
    """A count of rows.

    >>> rows(1), rows(2)
    ('1 row', '2 rows')
    """
    return f"{count} row{'s' * (count != 1)}"


def in_one(problems: Sequence[str]) -> str:
    """All problems of a file in one message; empty where there is none."""
    if len(problems) < 2:
        return "".join(problems)
    more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    return f"{len(problems)} problems: {'; '.join([*problems[:_MOST_PROBLEMS], *more])}"


def nearest(name: str) -> str | None:
    """The name that a header may have been meant to be."""
    words = " ".join(split(units.plain(name)))
    near = names.nearest(words, KNOWN, 0.75)
    return None if near == words else near


def assumptions(cases: Iterable[Case]) -> Iterator[str]:
    """What stands for what the cases do not say."""
    every = [case for case in cases if case.pace_ms or case.perplexity or is_of_energy(case)]
    missing = {name for case in every for name in case.assumed}
    if all(case.workload.model != _ASSUMED["model"] for case in every):
        missing.discard("model")
    yield from (what for name, what in _ASSUMED.items() if name in missing)
    if any(case.perplexity and case.text_is_assumed for case in every):
        yield "WikiText-2"
    if any(case.precision == NO_PRECISION for case in every):
        yield NO_PRECISION


def is_of_energy(case: Case) -> bool:
    """Whether a case has an energy, of a prompt or of a token."""
    return case.energy_mj is not None or case.energy_per_token_mj is not None


def is_ours(heading: Heading) -> bool:
    """Whether a header is our own name of what its column holds, or has none."""
    plain = "_".join(split(units.plain(heading.name)))
    return not heading.name or plain in (heading.field, f"timing_{heading.field}")


def held(heading: Heading) -> str:
    """What a column holds, in words."""
    whom = [f"batch {v}" if axis == "batch_size" else v for axis, v in heading.tags.items()]
    of = f" of {' '.join(whom)}" if whom else ""
    if heading.dimension == "rate":
        counted = {"token": "tokens", "batch": "batches"}.get(heading.per or "", "prompts")
        return f"{counted} per second{of}"
    known = units.factor(heading.unit, heading.dimension) if heading.unit else None
    scale = (known or 1) * heading.scale
    times = f" x {scale:g}" if scale != 1 else ""
    per = f" of a {heading.per}" if heading.per in ("token", "batch") else ""
    return f"{heading.field}{times}{per}{of}"
