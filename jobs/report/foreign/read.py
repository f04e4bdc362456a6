"""Reads a table or a result file of somebody else, and says how it was understood."""

import dataclasses
import errno
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.asked import FLOATING
from bench.errors import TensorgapError
from bench.files import limits
from jobs.report.facts import Case
from jobs.report.foreign import documents, grid, lines, shape, telling, title
from jobs.report.foreign import tables as tables_of
from jobs.report.foreign.understood import Notes, Told, Unreadable
from jobs.report.words import gathered, listed

STDIN = "-"
SUFFIXES = (".csv", ".tsv", ".md", ".markdown", ".txt", ".json", ".log", ".tab", ".psv", ".tex")
MOST_CASES = 10_000
_BESIDE_OTHERS = ("power_limit_w", "energy_window_s")
_AS_ROWS = 10  # bytes of memory for each byte of a table: its text, decoded, and its rows
_MOST_HINTS, _LONGEST_HINT = 8, 30
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
    tables = documents.grids(text, name, place) or tables_of.grids(text, name)
    known: dict[int, tuple[grid.Grid, list[Case]]] = {}
    sentences: list[str] = []
    used: set[str] = set()
    failures: list[str] = []
    for number, table in enumerate(map(grid.bounded, tables), start=1):
        which = f"table {number}" if len(tables) > 1 else ""
        if title.is_of_ratios(table.title):
            why = "the line above it says that these are ratios, which are worked out anew"
            failures.append(f"{which}: {why}".removeprefix(": "))
            continue
        said, notes = title.title_of(table.title), Notes()
        quantity = told.quantity or said.quantity
        named = title.with_quantity(table, quantity, of_any=bool(told.quantity))
        used |= {"quantity"} if named != table else set()
        shaped = shape.shaped(named)
        if problem := unusable(shaped, table):
            failures.append(f"{which}: {problem}".removeprefix(": "))
            continue
        try:
            cases = lines.cases(shaped, said.within(told), table.gpu, notes)
        except Unreadable as problem:
            raise TensorgapError(f"{name}: {problem}") from None
        if not cases:
            failures += [f"{which} {each}".strip() for each in no_case(notes, table)]
            continue
        if shaped.unknown or table.left_out:
            cases = [
                dataclasses.replace(case, may_be_another="model" in case.assumed) for case in cases
            ]
        known[number] = table, cases
        refuse_too_many(sum(len(cases) for _, cases in known.values()), name)
        shaped = dataclasses.replace(shaped, how=(*shaped.how, *said.sentences(notes.used)))
        told_of = telling.sentences(shaped, notes, table, cases)
        sentences += [f"{which}: {sentence}".removeprefix(": ") for sentence in told_of]
        used |= notes.used
    if not known:
        raise TensorgapError(f"{name}: {telling.in_one(failures)}")
    runs = runs_of(known) if len(tables) > 1 else dict.fromkeys(known, "")
    found = [
        dataclasses.replace(case, run=f"{runs[number]} {case.run}".strip())
        for number, (_, cases) in known.items()
        for case in cases
    ]
    sentences += [f"left out: {failure}" for failure in failures]
    return Understood(tuple(found), tuple(sentences), frozenset(used))


def refuse_too_many(count: int, name: str) -> None:
    """Raise TensorgapError for more different rows than are explained."""
    if count > MOST_CASES:
        raise TensorgapError(
            f"{name}: {count:,} different rows, which would take minutes; at most"
            f" {MOST_CASES:,} are explained; split the table"
        )


def runs_of(known: Mapping[int, tuple[grid.Grid, Sequence[Case]]]) -> dict[int, str]:
    """The run of each table of a text; those of one head and a precision each are one together."""
    runs = {number: f"table {number}" for number in known}
    for same in gathered(known, lambda number: known[number][0].names):
        precisions = [{case.precision for case in known[number][1]} for number in same]
        if len(same) > 1 and len(set().union(*precisions)) == sum(map(len, precisions)) == len(
            same
        ):
            together = "" if len(same) == len(known) else f"tables {listed(map(str, same))}"
            runs |= dict.fromkeys(same, together)
    return runs


def refuse_unused(told: Told, cases: Sequence[Case], used: frozenset[str]) -> None:
    """Raise TensorgapError for an option that no row needs, unless all rows say the same."""
    on_these = {case.gpu for case in cases}
    if not on_these.issuperset(map(lines.shown, told.gpus)) and all(c.gpu_type for c in cases):
        raise TensorgapError(f"--gpu {told.gpus[0]}: every row names its GPU; leave --gpu out")
    typed = {name: value for name, value in vars(told).items() if name != "gpus"}
    for name, value in typed.items():
        if value is None or name in used:
            continue
        holders = [case if hasattr(case, name) else case.workload for case in cases]
        if all(getattr(holder, name, None) == value for holder in holders):
            continue
        option = {"batch_size": "batch", "prompt_tokens": "tokens"}.get(name, name)
        option = option.replace("_", "-")
        raise TensorgapError(f"--{option} {value}: no row needs it; leave --{option} out")


def unusable(shaped: shape.Shaped, table: grid.Grid) -> str | None:
    """Why nothing can be said of a table; None: something can."""
    columns = ", ".join(one or "(without a name)" for one in table.names[:20])
    hints = [f"{name} ({near}?)" for name in shaped.unknown if (near := telling.nearest(name))]
    if any(h.is_quantity and h.field not in _BESIDE_OTHERS for h in shaped.headings):
        return None
    hint = f"; did you mean: {', '.join(hints[:_MOST_HINTS])}" if hints else ""
    bare = [table.names[i] for i in title.bare_columns(table, of_any=True)]
    bare = [name for name in bare if name in shaped.unknown and 0 < len(name) <= _LONGEST_HINT]
    if bare:
        hint += (
            f"; say what is in {', '.join(bare[:4])}: --quantity 'latency (ms)', 'tok/s' or such"
        )
    return (
        "there is no column of a latency, a throughput, an energy, a power or a perplexity"
        f"{hint}; its columns are {columns}; the first line must name them, such as {_EXAMPLE}"
    )


def no_case(notes: Notes, table: grid.Grid) -> list[str]:
    """Why no line of a table is a case."""
    if notes.problems:
        return notes.problems
    if notes.aside:
        known = ", ".join(FLOATING)
        return [f"all rows are set aside: {', '.join(notes.aside)}; known: {known}"]
    return ["it has no rows" if not table.lines else "no row has a number"]
