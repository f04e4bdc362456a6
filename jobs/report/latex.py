r"""Tables as LaTeX for a paper, with booktabs: one for each model and number of tokens.

What stands below a table in the terminal is a note below it here. `tensorgap explain table.tex`
reads the tables back.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench import __version__
from bench.measured import Outcome
from bench.stats import Ratio
from jobs.report import table
from jobs.report.facts import BASELINE, Case
from jobs.report.finding import folded
from jobs.report.table import MARK, Sheet
from jobs.report.words import NOTHING, gathered, number
from jobs.terminal import clean

MOST_ROWS = 30  # of a table: more do not fit a page
_OF_GROUPS = ("GPU", "Engine", "Batch", "Precision")
_NUMBERS = (
    *("Latency (ms)", "Speedup [95 %]", "Energy (mJ)", "Energy ratio [95 %]"),
    *("Prompts/s", "Perplexity"),
)
_HEAD = rf"""% Written by tensorgap {__version__}: tensorgap report --format latex
% It needs \usepackage{{booktabs}} in the preamble."""
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "&": r"\&", "%": r"\%",
    "#": r"\#", "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}",
    # German babel makes a command of it.
    '"': "''", "\u00b5": r"\textmu{}", "\u00d7": r"$\times$", "\u00b1": r"$\pm$",
    "\u2026": r"\ldots{}", "\u2013": "--", "\u2014": "---", "\u2500": "-",
}  # fmt: skip
_LATIN = "\u0180"  # below it pdflatex has every printable character


def escaped(text: str) -> str:
    r"""A text of anybody as LaTeX that prints it, and that starts no command of its own.

    A letter that pdflatex lacks is shown by its code point, `U+4E2D`.

    >>> escaped("50 % of a_b & $x$") == r"50 \% of a\_b \& \$x\$"
    True
    >>> escaped("\\input{x}") == r"\textbackslash{}input\{x\}", escaped("*"), escaped("中")
    (True, '{}*', 'U+4E2D')
    """
    signs = (
        _SPECIAL.get(sign, sign if sign < _LATIN else f"U+{ord(sign):04X}")
        for sign in clean(text).strip()
    )
    # Two hyphens would be one dash.
    told = re.sub("-(?=-)", "-{}", "".join(signs)) if "--" in text else "".join(signs)
    # At the beginning of a line of a table these would belong to the end of the line before.
    return f"{{}}{told}" if told.startswith(("*", "[")) else told


def document(cases: Sequence[Case], more: Sequence[Sheet] = ()) -> str:
    """Every table, to be put into a paper with `input`; `more` tables stand after those of cases.

    A table of more than `MOST_ROWS` rows is cut between two workloads, but never within one.
    """
    parts = [_HEAD]
    for count, sheet in enumerate(sheets(cases), start=1):
        parts.append(drawn(sheet, f"tab:tensorgap-{count}", grouped=True))
    cut = itertools.chain.from_iterable(map(in_pages, more))
    for count, sheet in enumerate(cut, start=1):
        parts.append(drawn(sheet, f"tab:tensorgap-cost-{count}"))
    return "\n\n".join(parts)


def sheets(cases: Sequence[Case]) -> Iterator[Sheet]:
    """A table for each run, model and number of tokens, or several where it is long."""
    groups = [members for _, members in table.tables(cases)]
    several_runs = len({case.run for case in cases}) > 1

    def task(members: Sequence[Case]) -> tuple[object, ...]:
        asked = members[0].workload
        return members[0].run, asked.model, asked.prompt_tokens, asked.new_tokens, asked.attention

    for same in gathered(groups, task):
        head = same[0][0]
        asked = head.workload
        title = f"{asked.model}, {asked.prompt_tokens} prompt tokens"
        title += f", {asked.new_tokens} new tokens" if asked.new_tokens else ""
        title += "" if asked.attention == "auto" else f", {asked.attention} attention"
        title += f" ({head.run})" if several_runs else ""
        title = f"Simulated GPUs: {title}" if all_simulated(same) else title
        for at, part in enumerate(in_parts(same)):
            yield sheet_of(f"{title} (continued)" if at else title, part)


def all_simulated(groups: Sequence[Sequence[Case]]) -> bool:
    """Whether no measured case of these is real."""
    measured = [case for case in itertools.chain(*groups) if case.outcome == Outcome.OK]
    return bool(measured) and all(case.simulated for case in measured)


def in_parts(groups: Sequence[Sequence[Case]]) -> Iterator[list[Sequence[Case]]]:
    """Groups in parts of at most `MOST_ROWS` cases; a longer one is a part of its own."""
    part: list[Sequence[Case]] = []
    for members in groups:
        if part and sum(map(len, part)) + len(members) > MOST_ROWS:
            yield part
            part = []
        part.append(members)
    if part:
        yield part


def in_pages(sheet: Sheet) -> Iterator[Sheet]:
    """A table of single rows in parts of at most `MOST_ROWS`, its remarks below the first."""
    for begin in range(0, len(sheet.rows), MOST_ROWS):
        rows = sheet.rows[begin : begin + MOST_ROWS]
        title = f"{sheet.title} (continued)" if begin else sheet.title
        yield replace(sheet, title=title, rows=rows, remarks=() if begin else sheet.remarks)


def sheet_of(title: str, groups: Sequence[Sequence[Case]]) -> Sheet:
    """One table of several groups, without the columns in which nothing was measured."""
    rows = [[*names_of(case), *cells(case, group)] for group in groups for case in group]
    headings = [*_OF_GROUPS, *_NUMBERS]
    left = len(_OF_GROUPS)
    columns = [
        at
        for at, column in enumerate(zip(*rows, strict=True))
        if at <= left or {*column} != {NOTHING}
    ]
    chosen = [[row[at] for at in columns] for row in rows]
    return Sheet(title, [headings[at] for at in columns], chosen, remarks(groups), left)


def names_of(case: Case) -> list[str]:
    """What tells a case from the others of its table."""
    asked = case.workload
    return [case.gpu, asked.engine, str(asked.batch_size), case.precision]


def cells(case: Case, members: Sequence[Case]) -> list[str]:
    """The numbers of a case, whose units stand in the headings."""
    if case.outcome != Outcome.OK:
        return [str(case.outcome), *[NOTHING] * (len(_NUMBERS) - 1)]
    mark = MARK if any(MARK in cell for cell in table.cells(case, members)[1:]) else ""
    return [
        number(case.latency_ms),
        ratio(case.speedup, mark),
        number(case.energy_mj),
        ratio(case.energy_ratio, mark),
        number(case.throughput_per_s),
        number(case.perplexity, digits=5),
    ]


def ratio(value: Ratio | None, mark: str) -> str:
    """A ratio with its interval and without its unit.

    >>> ratio(Ratio(1.126, 1.1, 1.15), "*")
    '1.13* [1.10, 1.15]'
    """
    return table.ratio(value, mark).replace("x", "", 1)


def remarks(groups: Sequence[Sequence[Case]]) -> list[str]:
    """What stands below one table: each text once, with the rows of which it is true."""
    cases = [case for members in groups for case in members]
    texts = [
        f"Latency: median of one request. Speedup and energy ratio: against {BASELINE} on the same"
        " GPU, with 95 % intervals. Energy: gross, per prompt. Prompts/s: with a full queue."
    ]
    weak: dict[str, list[str]] = {}
    about: dict[str, list[str]] = {}
    for members in groups:
        gpu, engine, batch, _ = names_of(members[0])
        group = f"{gpu} {engine} batch {batch}"
        for case in members:
            for text in table.warnings(case):
                weak.setdefault(text, []).append(f"{group} {case.precision}")
            for text in table.failure(case):
                about.setdefault(text, []).append(group)
        for text in table.besides(members):
            about.setdefault(text, []).append(group)
    texts += [table.MARKED] if weak else []
    texts += [of_some(text, names, len(cases)) for text, names in weak.items()]
    return texts + [of_some(*told, len(groups)) for told in about.items()] + table.notes(cases)


def of_some(text: str, names: Sequence[str], count: int) -> str:
    """A text with the rows or workloads of which it is true, where these are not all."""
    return text if len(names) == count else f"{'; '.join(folded(names))}: {text}"


def drawn(sheet: Sheet, label: str, grouped: bool = False) -> str:
    """One table; `grouped`: with a rule wherever the names before the last one change."""
    numbers = len(sheet.headings) - sheet.left
    lines = [
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"  \caption{{{escaped(sheet.title)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{'l' * sheet.left}{'r' * numbers}}}",
        r"    \toprule",
        line_of(sheet.headings),
        r"    \midrule",
    ]
    before: Sequence[str] | None = None
    for row in sheet.rows:
        group = row[: sheet.left - 1]
        if grouped and before not in (None, group):
            lines.append(r"    \midrule")
        before = group
        lines.append(line_of(row))
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if sheet.remarks:
        lines.append(r"  \par\smallskip\begin{minipage}{\linewidth}\raggedright")
        lines += [rf"    {escaped(remark)}\par" for remark in sheet.remarks]
        lines.append(r"  \end{minipage}")
    return "\n".join([*lines, r"\end{table}"])


def line_of(cells: Sequence[str]) -> str:
    """One line of a table."""
    told = ("--" if cell == NOTHING else escaped(cell) for cell in cells)
    return rf"    {' & '.join(told)} \\"
