"""Every rule, in the order in which equal verdicts are shown: that of these modules."""

from __future__ import annotations

import inspect
import itertools
import sys

# isort: off
from jobs.report.rules import possible as possible
from jobs.report.rules import conditions as conditions
from jobs.report.rules import launch as launch
from jobs.report.rules import precision as precision
from jobs.report.rules import energy as energy
from jobs.report.rules import perplexity as perplexity
from jobs.report.rules import identity as identity
from jobs.report.rules import gain as gain
from jobs.report.rules import mixed as mixed
from jobs.report.rules import effect as effect
from jobs.report.rules import expectation as expectation
from jobs.report.rules.rule import REGISTRY, apply

# isort: on

__all__ = ["REGISTRY", "apply", "documentation", "expectation"]


def documentation() -> str:
    """The tables of docs/findings.md, a section for each module."""
    lines = []
    for module, rules in itertools.groupby(REGISTRY.values(), key=lambda one: one.find.__module__):
        title = (inspect.getdoc(sys.modules[module]) or "").partition("\n")[0].rstrip(".")
        head = ["| code | verdict | undermines | fires where |", "| --- | --- | --- | --- |"]
        lines += ["", f"## {title}", "", *head]
        for one in rules:
            verdicts = ", ".join(one.verdicts)
            what = {"effects": one.undermines_effects, "energy": one.undermines_energy}
            weakened = "".join(name for name, is_so in what.items() if is_so)
            when = " ".join((inspect.getdoc(one.find) or "").split())
            lines.append(f"| `{one.code}` | {verdicts} | {weakened} | {when} |")
    return "\n".join(lines).strip() + "\n"
