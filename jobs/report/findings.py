"""All rules over all groups, worst first."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.report.facts import Case, Group
from jobs.report.finding import Finding, Verdict
from jobs.report.rules import REGISTRY, apply, expectation


def find(groups: Sequence[Group], expected: Sequence[Case] = ()) -> list[Finding]:
    """What the rows show, worst first; equal verdicts in the order of the rules.

    Args:
        groups: From `jobs.report.facts.grouped`.
        expected: What somebody expected, as lines of a table.
    """
    found = apply(groups)
    found.extend(expectation.expectations(groups, expected))
    verdicts, codes = list(Verdict), list(REGISTRY)
    return sorted(found, key=lambda f: (verdicts.index(f.verdict), codes.index(f.code)))
