"""Findings, and GPU types against a chosen one, as text for a terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobs.report import table, words
from jobs.report.answer import FAILED, NOTHING_AGAINST, Row, Sentence, nothing_found
from jobs.report.facts import Case
from jobs.report.finding import Topic, Verdict
from jobs.terminal import clean

_STYLES = dict(zip(Verdict, ("red", "yellow", "cyan", "green"), strict=True))
_PARTS = {"because": "evidence", "expected": "expected", "missing": "missing", "do": "do"}
_ROW_STYLES = {str(verdict): style for verdict, style in _STYLES.items()} | {FAILED: "red"}
_ORDER = (
    Verdict.REJECT,
    FAILED,
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    NOTHING_AGAINST,
    Verdict.ACCEPT,
)
_ALWAYS = ("precision", "latency", "throughput", "energy", "power", "perplexity")
_NUMBERS = ("batch", "tokens", "latency", "throughput", "energy", "power", "perplexity")
_MOST_ROWS, _NARROWEST_REASON = 60, 30
_WORTH_A_REFERENCE = 2  # texts that stand above already


def answer(
    rows: Sequence[Row],
    sentences: Sequence[Sentence],
    after: Sequence[str],
    width: int = words.READABLE,
    color: bool = False,
) -> str:
    """A line for each row with its verdict, the sentences, and how to see more."""
    rows, sentences = clean(rows), clean(sentences)
    told = (
        sorted(rows, key=lambda row: _ORDER.index(row.verdict)) if len(rows) > _MOST_ROWS else rows
    )
    shown = told[:_MOST_ROWS]
    varying = [
        name
        for name in (rows[0].about if rows else ())
        if name in _ALWAYS or len({row.about[name] for row in rows}) > 1
    ]
    columns = [name for name in varying if any(row.about[name] for row in shown)]
    common = [
        value if name in ("GPU", "model", "engine", "run") else f"{name} {value}"
        for name, value in (rows[0].about.items() if rows else ())
        if name not in varying and value
    ]
    parts: list[RenderableType] = [Text("   ".join(common), style="dim"), ""]
    table_of = [[name for name in columns] + ["verdict", "why"]]
    runs = names_of_runs(row.about["run"] for row in shown)
    table_of += [
        [*(runs.get(row.about[name], row.about[name]) for name in columns), row.verdict, row.reason]
        for row in shown
    ]
    parts.append(drawn_rows(table_of, shown, min(width, words.READABLE)))
    if len(rows) > len(shown):
        parts.append(Text(f"... and {len(rows) - len(shown)} more rows", style="dim"))
    for sentence in sentences:
        style = f"bold {_STYLES[sentence.verdict]}"
        head = Text.assemble((f"{sentence.verdict.upper()}  ", style))
        text = Text.assemble(head, sentence.text)
        if sentence.about:
            text.append(f"  {sentence.about}", style="dim")
        text.append(f"  [{sentence.code}]", style="dim")
        parts += ["", text]
    if not sentences:
        parts += ["", Text(nothing_found(rows))]
    parts += ["", *(Text(line, style="dim") for line in after)]
    return words.page(words.narrowed(parts, width), color)


def findings(
    found: Sequence[Topic],
    matrix: str | None,
    width: int = words.READABLE,
    color: bool = False,
) -> str:
    """How many of each verdict, then each finding, then the matrix to run."""
    counts = Counter(topic.verdict for topic in found)
    summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    parts: list[RenderableType] = [Text(summary)]
    told: dict[tuple[str, str], int] = {}
    for number, topic in enumerate(clean(found), start=1):
        verdict = (f"{number}. {topic.verdict.upper()}  ", f"bold {_STYLES[topic.verdict]}")
        about = (f"{topic.code}  ({', '.join(topic.precisions)})", "bold")
        parts += ["", Text.assemble(verdict, about)]
        for telling in topic.tellings:
            parts.append(Padding(Text("; ".join(telling.subjects), style="dim"), (0, 0, 0, 3)))
            parts.append(Padding(Text(telling.cause), (0, 0, 0, 3)))
            parts += reasons(telling.texts)
        several = len(topic.tellings) > 1 and any(any(t.texts.values()) for t in topic.tellings)
        common = {part: not_told(number, part, topic.texts[part], told) for part in topic.texts}
        if several and any(common.values()):
            parts.append(Padding(Text("All of these", style="dim"), (0, 0, 0, 3)))
        parts += reasons(common)
    parts = [*words.narrowed(parts, width)]
    if matrix:
        parts += [Text("\nThe matrix to run next:\n", style="bold"), Text(matrix)]
    return words.page(parts, color)


def names_of_runs(names: Iterable[str]) -> dict[str, str]:
    """Each name of a run as a column shows it: short, unless two would look alike."""
    short = {name: words.shortened(name) for name in names}
    return short if len({*short.values()}) == len(short) else {name: name for name in short}


def drawn_rows(cells: Sequence[Sequence[str]], rows: Sequence[Row], width: int) -> Text:
    """A line for each row below their heads; the last cell is cut where the line ends."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    drawn = Text(no_wrap=True, overflow="ignore")
    for index, line in enumerate(cells):
        style = "dim" if not index else _ROW_STYLES.get(rows[index - 1].verdict, "")
        for place, text in enumerate(line[:-1]):
            right = cells[0][place] in _NUMBERS
            padded = text.rjust(widths[place]) if right else text.ljust(widths[place])
            verdict = place == len(line) - 2
            drawn.append(padded, style if verdict or not index else "").append("  ")
        room = max(_NARROWEST_REASON, width - sum(widths[:-1]) - 2 * (len(line) - 1))
        last = line[-1] if len(line[-1]) <= room else line[-1][: room - 1].rstrip() + "\u2026"
        drawn.append(last, "dim" if not index else "").append("\n")
    return drawn[:-1]


def reasons(texts: Mapping[str, Sequence[str]]) -> list[RenderableType]:
    """Texts by their part of a finding, beside the name of each part."""
    if not any(texts.values()):
        return []
    drawn = Table.grid()
    drawn.add_column(width=9)
    drawn.add_column(width=2)
    drawn.add_column(overflow="fold")
    for name, part in _PARTS.items():
        for index, text in enumerate(texts[part]):
            drawn.add_row("" if index else name, "-", Text(text))
    return [Padding(drawn, (0, 2, 0, 3))]


def not_told(
    number: int, part: str, texts: Sequence[str], told: dict[tuple[str, str], int]
) -> Sequence[str]:
    """The texts of a part of a finding; for several that an earlier one has, its number.

    `told` has the finding that says each text of each part first; the new ones are added.
    """
    again = [text for text in texts if (part, text) in told]
    for text in texts:
        told.setdefault((part, text), number)
    if len(again) < _WORTH_A_REFERENCE:
        return texts
    where = words.listed(map(str, sorted({told[part, text] for text in again})))
    new = [text for text in texts if text not in again]
    return [*new, f"else as in {where}" if new else f"as in {where}"]


def against(found: Sequence[Case], chosen: str) -> str:
    """GPU types with their ratios to a chosen one, as lines of text."""
    found = clean(found)
    texts = []
    several_runs = len({one.run for one in found}) > 1
    for one in found:
        run = f"   ({one.run})" if several_runs else ""
        known = "in it" if one.energy_systematic else "not known"
        mark = table.MARK if one.disagreements else ""
        texts.append(
            f"{one.gpu} against {chosen}   {one.workload}   {one.precision}{run}:"
            f" {table.ratio(one.speedup, mark)} as fast,"
            f" {table.ratio(one.energy_ratio, mark)} the energy"
            + (f" (the sensors' own errors are {known})" if one.energy_ratio else "")
        )
        texts.extend(f"  warning: {disagreement.text}" for disagreement in one.disagreements)
    if len(found) > 1:
        texts += table.by_chance(sum(bool(o.speedup) + bool(o.energy_ratio) for o in found))
    return "\n".join(texts)
