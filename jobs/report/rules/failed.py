"""Rows without a number."""

from collections.abc import Iterable, Iterator

from bench.measured import Outcome
from jobs.report.facts import NO_PRECISION, Case, Group
from jobs.report.finding import Verdict
from jobs.report.rules.rule import Hit, rule


@rule(
    Verdict.INCONCLUSIVE,
    cause="{precision} was not measured: {why}.",
    do=["Measure it again, or say beside the table why it failed."],
)
def not_measured(case: Case, group: Group) -> Hit | None:
    """A line of a table says that its run failed (OOM, failed, nan), or has no number."""
    return None  # `failures` tells of cases that no group has


def failures(cases: Iterable[Case]) -> Iterator[tuple[Hit, Case, Group]]:
    """Each line of a table that failed."""
    for case in cases:
        if not case.foreign or case.outcome == Outcome.OK:
            continue
        why = "the memory did not suffice" if case.outcome == Outcome.OUT_OF_MEMORY else case.reason
        do = ["Take a smaller batch or a GPU with more memory."]
        is_memory = case.outcome == Outcome.OUT_OF_MEMORY
        cause = "Not measured: {why}." if case.precision == NO_PRECISION else None
        yield (
            Hit(values={"why": why}, do=do if is_memory else None, cause=cause),
            case,
            Group(case.title(True), (case,)),
        )
