"""The table of the first study, with what it lacked: intervals, reasons and warnings.

For a terminal and as Markdown; both show the same cells, remarks and notes.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import facts, perplexity, words
from jobs.report.facts import BASELINE, Case
from jobs.report.words import NOTHING, number
from jobs.terminal import clean

HEADINGS = ["format", "latency", "speedup [95 %]", "energy", "energy ratio", "throughput"]
HEADINGS += ["perplexity", "size"]
MOST_PLACES = 4  # decimals of an end
MARK = "*"  # of a ratio, so that whoever copies a line keeps the warning
MARKED = f"{MARK} the row or its {BASELINE} baseline has warnings:"
RULE = "\u2500"
_MARKUP = re.compile(r"[\\`*~<&|]|\](?=[(\[])|^[\[#>]")


@dataclass(frozen=True)
class Sheet:
    """One table as texts, for any format.

    Attributes:
        rows: A cell for each heading.
        remarks: What a reader must know beside it.
        left: How many columns stand left-aligned, the others being numbers.
        failed: Which rows have no numbers.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str] = ()
    left: int = 1
    failed: Collection[int] = ()


def shown(
    cases: Sequence[Case],
    width: int = words.READABLE,
    color: bool = False,
    more: Sequence[Sheet] = (),
) -> str:
    """Text for a terminal: a table per GPU type and workload, what to know of it, then the notes.

    A table wider than `width` leaves out the columns in which nothing was measured. `more` tables
    stand before the notes.
    """
    parts: list[RenderableType] = []
    for sheet in itertools.chain(sheets(cases), more):
        parts.append(drawn(sheet, width))
        if told := [Padding(Text(clean(text)), (0, 0, 0, 2)) for text in sheet.remarks]:
            parts += [*words.narrowed(told, width), ""]
    parts += words.narrowed([Text(clean(note)) for note in notes(cases)], width)
    return words.page(parts, color)


def sheets(cases: Sequence[Case]) -> Iterator[Sheet]:
    """A table for each GPU type and workload."""
    for title, members in tables(cases):
        rows = [cells(case, members) for case in members]
        failed = [at for at, case in enumerate(members) if case.outcome != Outcome.OK]
        yield Sheet(title, HEADINGS, rows, remarks(members), failed=failed)


def drawn(sheet: Sheet, width: int) -> Text:
    """One table, with all columns where they fit.

    A table of rich does the same in six times the time, which counts where there are thousands.
    """
    rows = [[clean(cell) for cell in row] for row in sheet.rows]
    filled = [i for i, column in enumerate(zip(*rows, strict=True)) if set(column) != {NOTHING}]
    for columns in (range(len(sheet.headings)), filled):
        chosen = [[row[index] for index in columns] for row in (sheet.headings, *rows)]
        widths = [max(map(cell_len, column)) for column in zip(*chosen, strict=True)]
        across = sum(widths) + 3 * len(widths) + 1
        if across <= width:
            break
    # A title that is no Text would be read as markup, whose links a terminal follows.
    text = Text(no_wrap=True, overflow="ignore").append(clean(sheet.title), style="bold")
    text.append("\n\n")
    for at, row in enumerate(chosen):
        line = "".join(
            # A number is never cut, not even where the table is wider than the text.
            f"  {aligned(cell, wide, left=index < sheet.left)} "
            for index, cell, wide in zip(columns, row, widths, strict=True)
        )
        text.append(f"{line}\n", style="red" if at - 1 in sheet.failed else "" if at else "bold")
        if not at:
            text.append(f" {RULE * (across - 2)}\n")
    return text


def aligned(cell: str, width: int, left: bool) -> str:
    """A cell as wide as its column."""
    blanks = " " * (width - cell_len(cell))
    return cell + blanks if left else blanks + cell


def markdown(cases: Sequence[Case], more: Sequence[Sheet] = ()) -> str:
    """The same as Markdown."""
    parts = []
    for sheet in itertools.chain(sheets(cases), more):
        numbers = len(sheet.headings) - sheet.left
        rows = [sheet.headings, ["---"] * sheet.left + ["---:"] * numbers]
        rows += [[escaped(cell) for cell in row] for row in sheet.rows]
        parts += [f"**{escaped(sheet.title)}**", ""]
        parts += [*(f"| {' | '.join(row)} |" for row in rows), ""]
        parts += [*(f"- {escaped(remark)}" for remark in sheet.remarks), ""]
    parts += [f"- {escaped(note)}" for note in notes(cases)]
    return "\n".join(parts).rstrip()


def escaped(text: str) -> str:
    r"""Text within Markdown that makes no cell, HTML, code, emphasis or link of its own.

    >>> escaped("1.13x [1.12, 1.14]"), escaped("a|b"), escaped("[a](b)")
    ('1.13x [1.12, 1.14]', 'a\\|b', '\\[a\\](b)')
    """
    return _MARKUP.sub(r"\\\g<0>", clean(text).strip())


def tables(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """The cases of one GPU type and workload together, with a title."""
    several_runs = len({case.run for case in cases}) > 1
    for _, members in itertools.groupby(cases, key=lambda case: case.key):
        every = list(members)
        yield every[0].title(several_runs), every


def cells(case: Case, members: Sequence[Case]) -> list[str]:
    """The cells of a case; its ratios carry a mark where it or its baseline has warnings."""
    if case.outcome != Outcome.OK:
        return [case.precision, str(case.outcome), *[NOTHING] * (len(HEADINGS) - 2)]
    weak = any(warnings(one) for one in members if one is case or one.is_baseline)
    mark = MARK if weak and not case.is_baseline else ""
    return [
        case.precision,
        number(case.latency_ms, " ms"),
        ratio(case.speedup, mark),
        number(case.energy_mj, " mJ"),
        ratio(case.energy_ratio, mark),
        number(case.throughput_per_s, " /s"),
        # Whole numbers hide what precisions differ by: 217 against 218 is undecidable.
        number(case.perplexity, digits=5),
        number(case.size_mb, " MB"),
    ]


def ratio(value: Ratio | None, mark: str = "") -> str:
    """A ratio with its interval; of ends beyond 100-fold only that they are beyond.

    >>> ratio(Ratio(1.126, 1.1, 1.15)), ratio(Ratio(2.0, 1e-9, 4e8), "*"), ratio(None)
    ('1.13x [1.10, 1.15]', '2.00x* [<0.01, >100]', '-')
    >>> ratio(Ratio(0.996, 0.9948, 0.9977)), ratio(Ratio(1.0, 0.9, 1.1))
    ('1.00x [0.995, 0.998]', '1.00x [0.90, 1.10]')
    """
    if value is None:
        return NOTHING
    ends = (value.low, value.high)
    places = 2
    # An end that is not 1 is not shown as 1: on which side it lies decides.
    while places < MOST_PLACES and any(end != 1 == round(end, places) for end in ends):
        places += 1
    told = ", ".join(end_of(end, places) for end in ends)
    interval = "" if value.low == value.high else f" [{told}]"
    return f"{words.times(value.value)}{mark}{interval}"


def end_of(ratio: float, places: int = 2) -> str:
    """An end of a ratio's interval; beyond 100-fold, only that it is beyond."""
    return ">100" if ratio > 100 else "<0.01" if ratio < 0.01 else f"{ratio:.{places}f}"


def warnings(case: Case) -> list[str]:
    """What weakens the numbers of a case."""
    return words.alike((*case.warnings, *case.failed_warnings)) + beside(case)


def beside(case: Case) -> list[str]:
    """What weakens it beside the warnings of its rows: replicates that failed, or disagree."""
    texts = [one.text for one in case.disagreements]
    if case.failed and case.outcome == Outcome.OK:
        every = case.failed + len(case.replicates)
        texts.insert(0, f"{case.failed} of {every} replicates failed: {case.reason}")
    return texts


def remarks(members: Sequence[Case]) -> list[str]:
    """What a reader must know beside the rows of one table."""
    texts = []
    if any(MARK in cell for case in members for cell in cells(case, members)[2:5]):
        texts.append(MARKED)
    for case in members:
        texts += failure(case)
        if found := warnings(case):
            texts.append(f"{case.precision}: warning: {'; '.join(found)}")
    return texts + besides(members)


def failure(case: Case) -> list[str]:
    """How a case ended that was not measured."""
    return (
        [] if case.outcome == Outcome.OK else [f"{case.precision}: {case.outcome}: {case.reason}"]
    )


def besides(members: Sequence[Case]) -> list[str]:
    """What is known of one table beside its cells and warnings."""
    texts = []
    tokens = [
        f"{case.precision} {number(case.first_token_ms, ' ms')},"
        f" {number(case.per_output_token_ms, ' ms')}"
        for case in members
        if case.first_token_ms is not None
    ]
    if tokens:
        texts.append(f"first token, then each further one: {'; '.join(tokens)}")
    texts.extend(perplexity.compared(members))
    bounds = {case.perplexity_lower_bound for case in members}
    return texts + [
        f"perplexity: the lower bound is {number(bound, digits=5)}, of the text's own generator"
        for bound in sorted(filter(None, bounds))
    ]


def notes(cases: Sequence[Case]) -> list[str]:
    """What holds for the whole: what measured; what was not measured, and why."""
    devices: dict[str, dict[str, None]] = {}
    for case in cases:
        if case.device_name:
            versions = [(name, case.shown(f"software_{name}")) for name in ("torch", "driver")]
            told = [case.device_name, *(f"{name} {found}" for name, found in versions if found)]
            devices.setdefault(case.gpu, {})[", ".join(told)] = None
    texts = [f"{gpu}: {'; '.join(told)}" for gpu, told in devices.items()]
    texts += dict.fromkeys(itertools.chain.from_iterable(map(not_measured, cases)))
    if cases and all(len(case.replicates) <= 1 for case in cases):
        texts.append(
            "the intervals hold within one process per cell; sampling.replicates shows how"
            " processes differ"
        )
    return texts + by_chance(facts.intervals(cases))


def not_measured(case: Case) -> list[str]:
    """What has no value although the case was measured, and why."""
    of_model = f"perplexity not measured for {case.workload.model}"
    return [
        *(f"energy not measured: {reason}" for reason in case.energy_reasons),
        *(f"{of_model}: {reason}" for reason in case.perplexity_reasons),
    ]


def by_chance(count: int) -> list[str]:
    """How far so many intervals can be trusted together."""
    text = f"{count} ratios: about 1 in 20 of these 95 % intervals will miss the true value"
    return [text] if count > 1 else []
