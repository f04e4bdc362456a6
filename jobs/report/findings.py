"""All rules over all groups, worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from jobs.report import comparison
from jobs.report.cases import Group
from jobs.report.finding import Finding, worst_first
from jobs.report.rules import (
    advice,
    conditions,
    energy,
    identity,
    launch,
    possible,
    quality,
    speed,
)
from jobs.report.study import Entry

Rule = Callable[[Group], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    possible.latency_below_floor,
    possible.power_above_limit,
    possible.power_below_idle,
    possible.throughput_contradicts_latency,
    possible.fp32_on_tensor_cores,
    possible.tensor_cores_unused,
    possible.simulated,
    quality.perplexity_below_floor,
    quality.perplexity_out_of_range,
    quality.perplexity_differs,
    quality.perplexity_too_coarse,
    conditions.gpu_held_down,
    conditions.gpu_shared,
    conditions.gpu_capped,
    conditions.confounded,
    conditions.attention_differs,
    conditions.warm_up_unsteady,
    conditions.latency_not_converged,
    conditions.noise_hides_effect,
    energy.energy_window_too_short,
    energy.energy_methods_differ,
    energy.energy_method_unknown,
    launch.launch_bound,
    speed.precision_emulated,
    speed.precision_storage_only,
    speed.gain_below_hardware,
    speed.mixed_slower,
    speed.effect,
    advice.mixed_options,
    identity.gpu_doubtful,
)


def find(groups: Sequence[Group], expected: Sequence[Entry] = ()) -> list[Finding]:
    """What the rows show, worst first.

    Args:
        groups: From `jobs.report.cases.of_rows` or `jobs.report.study.groups`.
        expected: What somebody expected, as lines of a table.
    """
    family = comparison.intervals(case.line for group in groups for case in group.cases)
    groups = [replace(group, family=family) for group in groups]
    found = [finding for group in groups for rule in RULES for finding in rule(group)]
    found.extend(advice.expectations(groups, expected))
    return worst_first(speed.weakened(found))
