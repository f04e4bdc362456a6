"""What a run must not be worse by: `--fail-on "latency>5%"`, and whether it holds.

A limit is exceeded where a change for the worse is decided, and is greater than the limit as it was
estimated. It is not a test of whether the true change exceeds the limit: one that is exactly at it
exceeds it every other time.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.errors import TensorgapError
from jobs.report import words
from jobs.report.changes.decide import POWER, REPLICATES
from jobs.report.changes.records import Change, Comparison, Decision, Metric
from jobs.report.changes.summary import size

FORM = re.compile(r"\s*([a-z]+)\s*(>=?)\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*%\s*", re.IGNORECASE)
MOST_NAMED = 3
REMEDY = f"measure both runs with sampling.replicates = {REPLICATES} or more"


@dataclass(frozen=True)
class Limit:
    """What one metric of any row must not become worse by."""

    metric: Metric
    or_equal: bool
    share: float

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{self.metric}{'>=' if self.or_equal else '>'}{100 * self.share:g}%"

    def exceeded_by(self, change: Change) -> bool:
        """Whether a change is decided, for the worse, and greater than that."""
        found = change.decision == Decision.WORSE or (
            change.decision == Decision.NEGLIGIBLE and change.worsening > 0
        )
        beyond = change.worsening > self.share
        return found and (beyond or (self.or_equal and change.worsening == self.share))


@dataclass(frozen=True)
class Verdicts:
    """What is to be said of some limits.

    Attributes:
        exceeded: What fails.
        open: Limits of which nothing could be decided.
        notes: What else the reader of a passed check must know.
    """

    exceeded: tuple[str, ...]
    open: tuple[str, ...]
    notes: tuple[str, ...]


def parse(text: str) -> Limit:
    """A limit as it is typed; TensorgapError where it is none.

    >>> parse("latency>5%"), parse("Energy >= 2.5 %").text
    (Limit(metric=<Metric.LATENCY: 'latency'>, or_equal=False, share=0.05), 'energy>=2.5%')
    """
    found = FORM.fullmatch(text)
    if found and found[1].lower() in list(Metric):
        return Limit(Metric(found[1].lower()), found[2] == ">=", float(found[3]) / 100)
    raise TensorgapError(
        f"--fail-on {text!r}: must be METRIC>LIMIT% or METRIC>=LIMIT%, with {words.listed(Metric)}"
        ' as METRIC, such as "latency>5%": worse by more than 5 %'
    )


def judged(found: Comparison, limits: Sequence[Limit]) -> Verdicts:
    """What of a comparison exceeds the limits, and which of them it cannot tell of."""
    exceeded = list(no_longer_ok(found)) if limits else []
    undecidable: list[str] = []
    notes = list(not_checked(found)) if limits else []
    for limit in limits:
        rows = [
            (row.place.text, change)
            for one in found.others
            for row in one.rows
            for change in row.changes
            if change.metric == limit.metric
        ]
        decided = [(text, change) for text, change in rows if change.decided]
        beyond = [
            f"{text} {100 * (c.ratio.value - 1):+.1f}%"
            for text, c in decided
            if limit.exceeded_by(c) and c.ratio
        ]
        if beyond:
            exceeded.append(f"{limit.text}: {some(beyond)}")
        reasons = Counter(str(change.reason) for _, change in rows if not change.decided)
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        if not decided:
            if not rows or all("not measured" in str(change.reason) for _, change in rows):
                why = f"{limit.metric} is measured in no row that both runs have"
                undecidable.append(f"{limit.text}: nothing to check: {why}")
            else:
                undecidable.append(f"{limit.text}: nothing could be decided: {told}; {REMEDY}")
            continue
        if reasons:
            notes.append(f"{limit.text}: {sum(reasons.values())} rows are not decided: {told}")
        blind = [c.detectable for _, c in decided if c.detectable and c.detectable > limit.share]
        if blind:
            notes.append(
                f"{limit.text}: {len(blind)} of {len(decided)} rows scatter so much that such a"
                f" change may pass: only {size(max(blind))} is found with"
                f" {POWER:.0%} probability in each; more replicates would find smaller ones"
            )
    return Verdicts(tuple(exceeded), tuple(undecidable), tuple(notes))


def no_longer_ok(found: Comparison) -> Iterator[str]:
    """The rows that were measured in the first run, and could not be in another."""
    for one in found.others:
        lost = [
            f"{row.place.text} is {row.new.outcome}"
            for row in one.rows
            if row.old.is_ok and not row.new.is_ok
        ]
        if lost:
            yield f"no longer OK: {some(lost)}"


def not_checked(found: Comparison) -> Iterator[str]:
    """The rows of the first run that another lacks, of which no limit can tell."""
    for one in found.others:
        if one.only_old:
            place = f"not in {one.run.label}, and so not checked"
            yield f"--fail-on: {place}: {some(one.only_old)}"


def some(texts: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    count = f"{len(texts)} row{'' if len(texts) == 1 else 's'}"
    return f"{count}: {'; '.join(texts[:MOST_NAMED])}{more}"
