"""Every rule, in the order in which equal verdicts are shown: that of these modules."""

import inspect

# isort: off
from jobs.report.rules import conditions, possible, power, structure, launch, precision, energy
from jobs.report.rules import (
    decode,
    perplexity,
    gain,
    quantised,
    mixed,
    effect,
    failed,
    expectation,
)
from jobs.report.rules.rule import Rule

MODULES = (
    conditions, possible, power, structure, launch, precision, energy, decode, perplexity, gain,
    quantised, mixed, effect, failed, expectation,
)  # fmt: skip
BY_MODULE = {
    module: [one for one in vars(module).values() if isinstance(one, Rule)] for module in MODULES
}
REGISTRY = {one.code: one for rules in BY_MODULE.values() for one in rules}


def documentation() -> str:
    """The tables of docs/findings.md, a section for each module."""
    lines = []
    for module, rules in BY_MODULE.items():
        title = (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")
        head = ["| code | verdict | undermines | fires where |", "| --- | --- | --- | --- |"]
        lines += ["", f"## {title}", "", *head]
        for one in rules:
            when = " ".join((inspect.getdoc(one.find) or "").split())
            verdicts = ", ".join(one.verdicts)
            lines.append(f"| `{one.code}` | {verdicts} | {one.undermines} | {when} |")
    return "\n".join(lines).strip() + "\n"
