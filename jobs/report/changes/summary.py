"""What a comparison comes to, in sentences: findings worst first, what changed, what is open."""

from collections import Counter
from collections.abc import Iterator, Sequence

from jobs.report import words
from jobs.report.changes.decide import POWER, REPLICATES
from jobs.report.changes.records import (
    Against,
    Change,
    Comparison,
    Decision,
    Metric,
    PairedRow,
    RunCompared,
)
from jobs.report.table import MARK
from jobs.report.words import number

DIGITS = {Metric.PERPLEXITY: 5}  # whole numbers hide what perplexities differ by
MOST_FINDINGS = 12
MOST_TOLD = 9.0  # beyond a tenfold change, how large one must be says nothing
MOST_LISTED = 8  # rows of one run only, and warnings
NO_SIGN = "~"  # of no significant difference, where several runs stand side by side
Finding = tuple[Decision, str]


def percent(change: Change) -> str:
    """The change of the value itself, with its sign."""
    share = change.ratio.value - 1 if change.ratio else 0.0
    if share >= 10:
        return f"{1 + share:.3g}-fold"
    return f"{100 * share:+.{2 if abs(share) < 0.01 else 1}f}%"


def told(change: Change) -> str:
    """A decision in words."""
    if change.decision == Decision.NOT_DECIDED:
        return f"{change.decision}: {change.reason}"
    if change.decision == Decision.NEGLIGIBLE:
        return f"{change.decision} {percent(change)}"
    if change.decision not in (Decision.WORSE, Decision.BETTER):
        return str(change.decision)
    higher = change.ratio is not None and change.ratio.value > 1
    return f"{change.metric.words[higher]} {percent(change)}"


def value(change: Change, of: float | None) -> str:
    """One of its two values with its unit."""
    return number(of, change.metric.unit, DIGITS.get(change.metric, 3))


def headline(found: Comparison) -> str:
    """The whole in a sentence or two."""
    counts = Counter(change.decision for change in found.changes)
    lost, regained = (len(list(ended(found, now_ok))) for now_ok in (False, True))
    same = [one.run.label for one in found.others if one.run.names == found.first.names]
    first = found.first.label
    sentences = [f"{first} and {label} are the same run." for label in same]
    for how_many, now in ((lost, "no longer OK"), (regained, "OK again")):
        if how_many:
            sentences.append(f"{how_many} {'row is' if how_many == 1 else 'rows are'} {now}.")
    worse, better = counts[Decision.WORSE], counts[Decision.BETTER]
    comparisons = f"{found.count} comparison{'' if found.count == 1 else 's'}"
    if worse or better:
        sentences.append(f"Of {comparisons}, {worse or 'none'} became worse, {better or 'none'}"
                         " better.")  # fmt: skip
    elif found.count:
        small = counts[Decision.NEGLIGIBLE]
        but = f", but for {small} that {'is' if small == 1 else 'are'} negligible" if small else ""
        sentences += [f"No significant difference in {comparisons}{but}.", power(found)]
    elif counts[Decision.IDENTICAL]:
        sentences.append(f"{counts[Decision.IDENTICAL]} perplexities are identical.")
    elif not found.changes and any(row.old.is_ok for one in found.others for row in one.rows):
        sentences.append("Nothing is compared: what was asked for is measured in no row of both.")
    if counts[Decision.NOT_DECIDED] and not found.count:
        sentences.append("Whether times and energies changed is not decided.")
    return clauses(sentences)


def clauses(sentences: Sequence[str]) -> str:
    """Sentences as a text.

    >>> clauses(["old and new are one.", ""])
    'Old and new are one.'
    """
    text = " ".join(filter(None, sentences))
    return text[:1].upper() + text[1:]


def power(found: Comparison) -> str:
    """What would have been found in any row, had it been there; empty: not known of any."""
    parts, blind = [], []
    for metric in Metric:
        shares = [c.detectable for c in found.changes if c.metric == metric and c.detectable]
        if shares and max(shares) > MOST_TOLD:
            blind.append(str(metric))
        elif shares:
            parts.append(f"{size(max(shares))} in any {metric}")
    change = f"A change of {words.listed(parts)} would have been found with {POWER:.0%} probability"
    texts = [f"{change}, by the scatter seen."] if parts else []
    if blind:
        texts.append(f"Some {words.listed(blind)} scatters too much to find even a tenfold change.")
    return " ".join(texts)


def size(share: float) -> str:
    """How large a change is.

    >>> size(0.0394), size(0.25), size(49.0)
    ('3.9%', '25%', '50-fold')
    """
    return f"{100 * share:.2g}%" if share < 1 else f"{1 + share:.2g}-fold"


def findings(found: Comparison) -> list[Finding]:
    """What became worse, worst first, then what became better; first what is no longer OK."""
    several = len(found.others) > 1
    lines: list[Finding] = []
    for now_ok, decision in ((False, Decision.WORSE), (True, Decision.BETTER)):
        for one, row in ended(found, now_ok):
            text = f"{row.place.text}: {row.old.outcome} -> {row.new.outcome}{because(row)}"
            lines.append((decision, named(one, several) + text))
        of_rows = [
            (changes, named(one, several) + row.place.text)
            for one in found.others
            for row in one.rows
            if (changes := [c for c in row.changes if c.decision == decision])
        ]
        of_rows.sort(key=lambda pair: -max(abs(change.worsening) for change in pair[0]))
        for changes, text in of_rows:
            told_of = (
                f"{c.metric} {told(c)} ({value(c, c.old)} -> {value(c, c.new)})" for c in changes
            )
            lines.append((decision, f"{text}: {', '.join(told_of)}"))
    return lines


def named(one: Against, several: bool) -> str:
    """Which run a line is about, where there are several."""
    return f"{one.run.label}: " if several else ""


def because(row: PairedRow) -> str:
    """Why a row is not OK."""
    return f" ({row.new.reason})" if row.new.reason and not row.new.is_ok else ""


def ended(found: Comparison, now_ok: bool) -> Iterator[tuple[Against, PairedRow]]:
    """The rows that are OK in one run only: in the first, or `now_ok`."""
    for one in found.others:
        for row in one.rows:
            if row.new.is_ok != row.old.is_ok and row.new.is_ok == now_ok:
                yield one, row


def what_changed(found: Comparison) -> list[str]:
    """Each condition in a line."""
    several = len(found.others) > 1
    return [
        f"{named(one, several)}{condition.text}"
        for one in found.others
        for condition in one.conditions
    ]


def runs(found: Comparison) -> list[str]:
    """What is compared."""
    return [run(one) for one in (found.first, *(other.run for other in found.others))]


def run(one: RunCompared) -> str:
    """A run in a line."""
    names = [n for n in one.names[:2] if n.rpartition("-")[0] not in one.location]
    more = f", {len(one.names) - 2} more" if len(one.names) > 2 else ""
    told_names = f" ({', '.join(names)}{more})" if names else ""
    return f"{one.label}: {one.location}{told_names}, {one.rows} row{'' if one.rows == 1 else 's'}"


def notes(found: Comparison) -> list[str]:
    """What a reader of the tables must know."""
    changes = found.changes
    lines = []
    if found.count:
        lines.append(
            f"{found.count} comparisons; a false alarm anywhere in them: at most"
            f" {100 * found.alpha:.3g}%. An interval contains 1 where nothing is decided."
        )
    if len(found.others) > 1:
        lines.append(f"{NO_SIGN}: {Decision.SAME}")
    if any(change.decision in (Decision.WORSE, Decision.BETTER) for change in changes):
        lines.append(power(found))
    identical = sum(change.decision == Decision.IDENTICAL for change in changes)
    if identical:
        lines.append(f"perplexity: identical to the last bit in {identical} cells, not counted")
    if any("one process" in (change.reason or "") for change in changes):
        lines.append(
            "Not decided: processes differ by more than the samples of one, so that a single one"
            f" on a side decides nothing; measure with sampling.replicates = {REPLICATES}."
        )
    for one in found.others:
        for label, only in ((found.first.label, one.only_old), (one.run.label, one.only_new)):
            beside = f" (against {one.run.label})" if len(found.others) > 1 else ""
            lines += [f"only in {label}{beside}: {text}" for text in shortened(only)]
        lines += shortened(
            [
                f"{row.place.text}: {row.old.outcome} -> {row.new.outcome}{because(row)}"
                for row in one.rows
                if not row.old.is_ok and not row.new.is_ok
            ]
        )
        lines += shortened(list(partly_failed(found.first, one)))
    return [*filter(None, lines), *warnings(found)]


def partly_failed(first: RunCompared, one: Against) -> Iterator[str]:
    """The rows of which some replicates failed."""
    for row in one.rows:
        for label, seen in ((first.label, row.old), (one.run.label, row.new)):
            if seen.is_ok and seen.failed:
                every = seen.failed + seen.replicates
                yield (
                    f"{row.place.text}: {seen.failed} of {every} replicates failed in {label}: "
                    + (seen.reason or "no reason")
                )


def warnings(found: Comparison) -> list[str]:
    """Each kind of warning once, with the runs and how many of their rows have it."""
    runs = [(found.first.label, [row.old for row in found.others[0].rows])]
    runs += [(one.run.label, [row.new for row in one.rows]) for one in found.others]
    where: dict[str, list[str]] = {}
    for label, rows in runs:
        for alike in words.gathered(
            ((at, one) for at, seen in enumerate(rows) for one in seen.warnings),
            lambda pair: pair[1].code,
        ):
            text = "; ".join(words.alike(one for _, one in alike))
            count = len({at for at, _ in alike})
            where.setdefault(text, []).append(f"{count} of {len(rows)} rows in {label}")
    return shortened([f"{MARK} {', '.join(rows)}: {text}" for text, rows in where.items()])


def shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - MOST_LISTED
    return [*lines[:MOST_LISTED], *([f"... and {more} more"] if more > 0 else [])]
