"""Which GPU a table can be from that does not name one: the boards that no bound excludes."""

from __future__ import annotations

from collections.abc import Sequence

from bench.device.gpus import GPUS, Board
from jobs.report import bounds
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.words import listed


@rule(
    "gpu-not-specified",
    Verdict.INCONCLUSIVE,
    when="a table does not name its GPU: lists the known boards whose lower bound, idle power and"
    " power limit allow the numbers, and the arithmetic that excludes each of the others",
    cause="GPU not specified. {possible} of the {known} known boards can give these numbers:"
    " {boards}.",
    missing=(
        "the GPU's name, as the driver reports it",
        "mean power at full load (a large batch), against the power limits: {limits}",
        "how the energy was read: an exclusion by power assumes that it is that of the load alone",
    ),
    do=("nvidia-smi --query-gpu=name,compute_cap,power.limit --format=csv",),
)
def gpu_not_specified(case: Case, group: Group) -> Hit | None:
    """Once for a group: bounds of all its numbers together."""
    if case.gpu_type is not None or case is not group.cases[0]:
        return None
    excluded = {board.name: bounds.exclusion(board, group.cases) for board in GPUS}
    possible = [board for board in GPUS if not excluded[board.name]]
    return Hit(
        {
            "known": len(GPUS),
            "possible": len(possible),
            "boards": tuple(board.name for board in possible),
            "limits": limits(possible),
        },
        evidence=[*within(group.cases, possible), *filter(None, excluded.values())],
        precisions=[case.precision for case in group.cases],
        cause=None
        if possible
        else "GPU not specified, and none of the {known} known boards can give these numbers: one"
        " of the numbers is wrong, or it is another board.",
    )


def within(cases: Sequence[Case], boards: Sequence[Board]) -> list[Note]:
    """How far the numbers are within the bounds of the boards that remain."""
    found = []
    least = [
        (case.latency_ms, bound.ms)
        for case in cases
        for board in boards
        if case.latency_ms and (bound := bounds.of_board(board, case.precision, case.workload))
    ]
    if least:
        text = "these boards: each latency is {times:2} times the lower bound or more"
        found.append(note(text, times=min(latency / bound for latency, bound in least)))
    powers = tuple(case.mean_w for case in cases if case.mean_w is not None)
    if powers and boards:
        text = (
            "these boards: mean power {mean_w:W} is at least {least:.0%} of the idle power and at"
            " most {most:.0%} of the power limit"
        )
        tolerances = {"least": bounds.LEAST_POWER_OF_OTHERS, "most": bounds.MOST_POWER}
        found.append(note(text, mean_w=powers, **tolerances))
    return found


def limits(boards: Sequence[Board]) -> str:
    """The power limits of boards, each once, with the boards that have it."""
    by_limit: dict[float, list[str]] = {}
    for board in sorted(boards, key=lambda board: board.tdp_w):
        by_limit.setdefault(board.tdp_w, []).append(board.name)
    return "; ".join(f"{watts:g} W {listed(names)}" for watts, names in by_limit.items())
