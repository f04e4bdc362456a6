"""Every rule, in the order in which equal verdicts are shown: that of these modules."""

from __future__ import annotations

import inspect

# isort: off
from jobs.report.rules import conditions, possible, launch, precision, energy, perplexity
from jobs.report.rules import identity, gain, mixed, effect, expectation
from jobs.report.rules.rule import REGISTRY, apply

# isort: on

__all__ = ["MODULES", "REGISTRY", "apply", "documentation", "expectation"]

MODULES = (
    conditions, possible, launch, precision, energy, perplexity, identity, gain, mixed, effect,
    expectation,
)  # fmt: skip


def documentation() -> str:
    """The tables of docs/findings.md, a section for each module."""
    lines = []
    for module in MODULES:
        title = (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")
        head = ["| code | verdict | undermines | fires where |", "| --- | --- | --- | --- |"]
        lines += ["", f"## {title}", "", *head]
        for one in REGISTRY.values():
            if one.find.__module__ == module.__name__:
                what = {"effects": one.undermines_effects, "energy": one.undermines_energy}
                weakened = ", ".join(name for name, is_so in what.items() if is_so)
                when = " ".join((inspect.getdoc(one.find) or "").split())
                lines.append(f"| `{one.code}` | {', '.join(one.verdicts)} | {weakened} | {when} |")
    return "\n".join(lines).strip() + "\n"
