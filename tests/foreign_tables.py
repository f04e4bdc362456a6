"""Tables of others, in the tests: a text as cases and groups, as `tensorgap explain` makes them."""

from __future__ import annotations

from jobs.report import compare, facts, findings
from jobs.report.facts import Case, Group
from jobs.report.finding import Finding
from jobs.report.foreign import lines, read
from jobs.report.foreign.understood import Told


def cases_of(text: str, *gpus: str, **told: object) -> list[Case]:
    found = read.understand(text, "t.csv", Told(**told))  # type: ignore[arg-type]
    return compare.with_ratios(lines.on_each(found.cases, gpus))


def groups_of(text: str, *gpus: str, **told: object) -> list[Group]:
    return facts.grouped(cases_of(text, *gpus, **told))


def found_in(text: str, *gpus: str, **told: object) -> list[Finding]:
    cases = cases_of(text, *gpus, **told)
    failures = [case for case in cases if case.outcome != "OK"]
    return findings.find(facts.grouped(cases), failures=failures)


def verdicts_on(text: str, *gpus: str, **told: object) -> dict[str, str]:
    """Code -> the worst verdict that it gives."""
    found: dict[str, str] = {}
    for finding in found_in(text, *gpus, **told):
        found.setdefault(finding.code, str(finding.verdict))
    return found
