"""A GPU that is not specified.

The answer is the boards that no bound excludes: see `jobs.report.bounds`.
"""

from __future__ import annotations

from bench.device.gpus import GPUS
from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import listed


@rule(
    Verdict.INCONCLUSIVE,
    cause="GPU not specified. {possible} of the {known} known boards can give these numbers:"
    " {boards}.",
    missing=[
        "the GPU's name, as the driver reports it",
        "mean power at full load (a large batch), against the power limits: {limits}",
        "how the energy was read: an exclusion by power assumes that it is that of the load alone",
    ],
    do=["nvidia-smi --query-gpu=name,compute_cap,power.limit --format=csv"],
)
def gpu_not_specified(case: Case, group: Group) -> Hit | None:
    """A table does not name its GPU: which known boards allow the numbers, what excludes others."""
    if case.gpu_type is not None or case is not group.cases[0]:
        return None
    excluded = {board.name: bounds.exclusion(board, group.cases) for board in GPUS}
    evidence: list[str | Note] = [why for why in excluded.values() if why]
    possible = [board for board in GPUS if not excluded[board.name]]
    least = [
        one.latency_ms / bound.ms
        for one in group.cases
        for board in possible
        if one.latency_ms and (bound := bounds.of_board(board, one.precision, one.workload))
    ]
    if least:
        text = "on the boards that remain each latency is {times:2} times the lower bound or more"
        evidence.append(note(text, times=min(least)))
    by_limit: dict[float, list[str]] = {}
    for board in sorted(possible, key=lambda board: board.tdp_w):
        by_limit.setdefault(board.tdp_w, []).append(board.name)
    none = "GPU not specified, and none of the {known} known boards can give these numbers."
    return Hit(
        evidence,
        {
            "known": len(GPUS),
            "possible": len(possible),
            "boards": tuple(board.name for board in possible),
            "limits": "; ".join(f"{w:g} W {listed(names)}" for w, names in by_limit.items()),
        },
        precisions=[one.precision for one in group.cases],
        cause=None if possible else none,
    )
