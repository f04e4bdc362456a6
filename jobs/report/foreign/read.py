"""Reads a table or a result file of somebody else, and says how it was understood."""

import dataclasses
import errno
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.errors import TensorgapError
from bench.files import limits
from bench.measured import Outcome
from jobs.report.facts import NO_PRECISION, Case
from jobs.report.foreign import documents, grid, lines, names, shape, units
from jobs.report.foreign.headers import Heading, heading_of, split
from jobs.report.foreign.understood import Notes, Told
from jobs.report.foreign.vocabulary import KNOWN

STDIN = "-"
SUFFIXES = (".csv", ".tsv", ".md", ".markdown", ".txt", ".json", ".log", ".tab", ".psv")
MOST_CASES = 10_000
_AS_ROWS = 10  # bytes of memory for each byte of a table: its text, decoded, and its rows
_SHOWN = 8  # problems, renamed names
_EXAMPLE = "precision,latency_ms,energy_mj,throughput,perplexity"


@dataclass(frozen=True)
class Understood:
    """The cases of a table.

    Attributes:
        notes: How it was read, in words; each a sentence or a list.
        used: Options of the command line that some line needed.
    """

    cases: tuple[Case, ...]
    notes: tuple[str, ...]
    used: frozenset[str] = frozenset()


def is_table(place: str) -> bool:
    """Whether a place is a table of somebody else, by its name."""
    return place == STDIN or place.lower().endswith(SUFFIXES)


def load(place: str, told: Told, allowance: limits.Allowance, several: bool = False) -> Understood:
    """The cases of a file or of standard input.

    With `several` there are other tables, so that each is a run of its own.

    Raises TensorgapError where it cannot be read, is larger than allowed, or holds no table.
    """
    name = "standard input" if place == STDIN else place

    def take(size_bytes: int) -> None:
        shown = f"{name} ({limits.shown(size_bytes)}, and {_AS_ROWS} times that as rows)"
        allowance.take(_AS_ROWS * size_bytes, shown)

    try:
        if place != STDIN:
            content = limits.read_file(place, take)
        elif sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        else:
            content = sys.stdin.buffer.read(allowance.left_bytes // _AS_ROWS + 1)
            take(len(content))
    except OSError as error:
        remedy = "; a pipe is read from standard input: -" if error.errno == errno.EINVAL else ""
        raise TensorgapError(f"{name}: cannot be read: {error.strerror}{remedy}") from None
    found = understand(grid.decoded(content, name), name, told, place)
    if not several:
        return found
    runs = tuple(dataclasses.replace(one, run=f"{name} {one.run}".rstrip()) for one in found.cases)
    return dataclasses.replace(found, cases=runs)


def understand(text: str, name: str, told: Told | None = None, place: str = STDIN) -> Understood:
    """The cases of a text; TensorgapError where it holds no table that is understood."""
    told = told or Told()
    tables = documents.grids(text, name, place) or grid.grids(text, name)
    found: list[Case] = []
    sentences: list[str] = []
    used: set[str] = set()
    failures: list[str] = []
    for number, table in enumerate(tables, start=1):
        shaped, notes = shape.shaped(table), Notes()
        which = f"table {number}" if len(tables) > 1 else ""
        if problem := unusable(shaped, table, told):
            failures.append(f"{which}: {problem}".removeprefix(": "))
            continue
        cases = lines.cases(shaped, told, table.gpu, notes)
        if not cases:
            failures += [f"{which} {each}".strip() for each in no_case(notes, table)]
            continue
        found += [dataclasses.replace(c, run=f"{which} {c.run}".strip()) for c in cases]
        sentences += [
            f"{which}: {s}".removeprefix(": ") for s in told_of(shaped, notes, table, cases)
        ]
        used |= notes.used
    if not found:
        raise TensorgapError(f"{name}: {in_one(failures)}")
    sentences += [f"left out: {failure}" for failure in failures]
    if len(found) > MOST_CASES:
        raise TensorgapError(
            f"{name}: {len(found):,} different rows, which would take minutes; at most"
            f" {MOST_CASES:,} are explained; split the table"
        )
    return Understood(tuple(found), tuple(sentences), frozenset(used))


def in_one(problems: Sequence[str]) -> str:
    """All problems of a file in one message."""
    if len(problems) == 1:
        return problems[0]
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return f"{len(problems)} problems: {'; '.join([*problems[:_SHOWN], *more])}"


def unusable(shaped: shape.Shaped, table: grid.Grid, told: Told) -> str | None:
    """Why nothing can be said of a table; None: something can."""
    columns = ", ".join(one or "(without a name)" for one in table.names[:20])
    hints = [f"{name} ({near}?)" for name in shaped.unknown if (near := near_header(name))]
    if any(heading.is_quantity for heading in shaped.headings):
        return None
    hint = f"; did you mean: {', '.join(hints[:_SHOWN])}" if hints else ""
    bare = [name for name in shaped.unknown if heading_of(name).tags]
    if bare:
        hint += f"; say what is in {', '.join(bare[:4])}: `{bare[0]} latency_ms`, `{bare[0]} tok/s`"
    return (
        "there is no column of a latency, a throughput, an energy, a power or a perplexity"
        f"{hint}; its columns are {columns}; the first line must name them, such as {_EXAMPLE}"
    )


def near_header(name: str) -> str | None:
    """The name that a header may have been meant to be."""
    words = " ".join(split(units.plain(name)))
    near = names.nearest(words, KNOWN, 0.75)
    return None if near == words else near


def no_case(notes: Notes, table: grid.Grid) -> list[str]:
    """Why no line of a table is a case."""
    if notes.problems:
        return notes.problems
    if notes.aside:
        return [f"all rows are set aside: {', '.join(notes.aside)}; known: fp32, tf32, fp16, bf16,"
                " mixed"]  # fmt: skip
    return ["it has no rows" if not table.lines else "no row has a number"]


def told_of(
    shaped: shape.Shaped, notes: Notes, table: grid.Grid, cases: Sequence[Case]
) -> list[str]:
    """How a table was understood, in a few sentences."""
    read = [f"{units.plain(h.name)} -> {of_heading(h)}" for h in shaped.headings if renamed(h)]
    read += [f"{written} -> {ours}" for written, ours in notes.renamed.items()]
    shown = read[: 3 * _SHOWN] + ([f"and {len(read) - 3 * _SHOWN} more"] if len(read) > 24 else [])
    parts = list(shaped.how)
    parts += [table.separator] if table.separator not in _PLAIN else []
    parts += [f"GPU {table.gpu}, by the text above it"] if table.gpu else []
    parts += shown
    parts += [f"{count} row{'s' * (count > 1)} of {what}" for what, count in
              notes.aside.items()]  # fmt: skip
    failed = sum(case.outcome != Outcome.OK for case in cases)
    parts += [f"{failed} row{'s' * (failed > 1)} failed"] if failed else []
    parts += [f"each number is the median of up to {notes.runs} rows"] if notes.runs > 1 else []
    found = [f"Read: {'; '.join(parts)}."] if parts else []
    not_read = [f"{', '.join(columns)} ({why})" for why, columns in shaped.set_aside.items()]
    unknown = [f"{n} ({near}?)" if (near := near_header(n)) else n for n in shaped.unknown]
    if table.ragged:
        not_read.append(f"{table.ragged} rows with more cells than there are columns")
    not_read += [f"{table.left_out} lines of text around the table"] if table.left_out else []
    found += [f"Not read: {'; '.join(not_read)}."] if not_read else []
    found += [f"Not understood: {', '.join(unknown)}."] if unknown else []
    if notes.problems:
        found.append(f"Left out: {in_one(notes.problems)}")
    assumed = [f"{what} in {unit}" for what, unit in notes.assumed.items()]
    assumed += assumptions(cases)
    return found + (
        [f"Assumed, where the table does not say: {', '.join(assumed)}."] if assumed else []
    )


_PLAIN = ("commas", "bars")


def assumptions(cases: Iterable[Case]) -> list[str]:
    """What stands for what the cases do not say."""
    every = [case for case in cases if case.pace_ms or case.perplexity or case.energy_mj]
    missing = {name for case in every for name in case.assumed}
    of = {
        "model": "gpt2",
        "engine": "eager",
        "batch_size": "batch 1",
        "prompt_tokens": "128 tokens",
    }
    found = [what for name, what in of.items() if name in missing]
    if any(case.perplexity for case in every) and any(case.text_is_assumed for case in every):
        found.append("WikiText-2")
    if any(case.precision == NO_PRECISION for case in every):
        found.append("no precision")
    return found


def renamed(heading: Heading) -> bool:
    """Whether a header is not but our own name."""
    plain = "_".join(split(units.plain(heading.name)))
    return bool(heading.name) and plain not in (heading.field, f"timing_{heading.field}")


def of_heading(heading: Heading) -> str:
    """What a column holds, in words."""
    what = str(heading.field)
    if heading.dimension == "rate":
        what = f"{heading.per or 'prompt'}s per second".replace("samples", "prompts")
        what = what.replace("batchs", "batches")
    factor = (
        units.factor(heading.unit, heading.dimension)
        if heading.unit and heading.dimension in units.DIMENSIONS
        else 1
    )
    scale = (factor or 1) * heading.scale
    times = f" x {scale:g}" if scale != 1 and heading.dimension != "rate" else ""
    per = (
        f" of a {heading.per}"
        if heading.per in ("token", "batch") and heading.dimension != "rate"
        else ""
    )
    tags = " ".join(f"batch {v}" if k == "batch_size" else v for k, v in heading.tags.items())
    return f"{what}{times}{per}{f' of {tags}' if tags else ''}"
