"""Powers and energies that cannot be."""

import math

from bench.device import gpu_names
from jobs.report import bounds, pace, slips
from jobs.report.facts import Case, Group
from jobs.report.finding import Value, Verdict
from jobs.report.rules.possible import is_below, of_whom
from jobs.report.rules.rule import Hit, rule
from jobs.report.words import with_article

_COUNTERS = ("counter", "total_energy", "total-energy", "totalenergy")  # in the name of a method
_HOW_READ = "how the energy was read, and over what interval"


@rule(
    Verdict.REJECT,
    undermines="effects",
    first=True,
    cause="A mean power of {mean_w:W} is above the power limit of {limit_w:W} ({whose})",
    missing=[_HOW_READ],
    do=["Check units (mJ or J), the batch size, and how many GPUs the meter sums."],
)
def power_above_limit(case: Case, group: Group) -> Hit | None:
    """The mean power is more than 10 % above the enforced limit, or the highest of that type.

    Where the GPU is not known, the highest of every known board.
    """
    boards = bounds.in_question(case)
    limit = case.power_limit_w or max((board.tdp_w for board in boards), default=math.inf)
    if case.mean_w is None or is_suspect(case) or case.mean_w <= bounds.MOST_POWER * limit:
        return None
    if gpu_names.is_several(case.gpu):  # whose power is read together, and whose limit is of each
        return None
    whose = "enforced" if case.power_limit_w else of_whom(case)
    clause, values = slips.as_clause(slips.of_power(case, boards), "W")
    cause = f"{power_above_limit.cause}{clause}."
    told: dict[str, Value] = {**values, "limit_w": limit, "whose": whose}
    return Hit(power_arithmetic(case), told, rejects=of_power(case), cause=cause)


@rule(
    Verdict.REJECT,
    undermines="effects",
    first=True,
    cause="A mean power of {mean_w:W} under load is below the idle power of {idle_w:W} ({whose})",
    missing=[_HOW_READ, "the name of the GPU"],
    do=[
        "Measure energy over whole seconds, from tick to tick of the sensor.",
        "Check that the meter reads the GPU that computes.",
    ],
)
def power_below_idle(case: Case, group: Group) -> Hit | None:
    """The mean power is over 10 % below the idle power beside it, or 20 % below its type's.

    Where the GPU is not known, below the least that any known board draws.
    """
    idle, share, whose = case.idle_w, bounds.LEAST_POWER, "measured beside the load"
    boards = bounds.in_question(case)
    if idle is None:
        share, idle = bounds.LEAST_POWER_OF_OTHERS, bounds.least_idle_w(boards)
        whose = "the least of any board"
        if case.boards:
            whose = f"of {with_article(case.boards[0].gpu_type)} in state P0"
    if case.mean_w is None or is_suspect(case) or case.mean_w >= share * idle:
        return None
    clause, values = slips.as_clause(slips.of_power(case, boards), "W")
    cause = f"{power_below_idle.cause}{clause}."
    told: dict[str, Value] = {**values, "idle_w": idle, "whose": whose}
    missing = [_HOW_READ] if case.boards else None
    arithmetic = power_arithmetic(case)
    return Hit(arithmetic, told, missing=missing, rejects=of_power(case), cause=cause)


def is_suspect(case: Case) -> bool:
    """Whether a table's power rests on a latency that is not that of its energy, or not right."""
    if not case.foreign or not case.energy_mj or not case.latency_ms:
        return False
    if pace.is_of_a_token(case):
        of_a_token = case.energy_mj * case.workload.batch_size / case.latency_ms
        return math.isclose(of_a_token, case.mean_w or 0.0)
    return is_below(case, bounds.of_case(case))


def of_power(case: Case) -> list[str]:
    """What cannot be right where a power cannot be."""
    return ["mean_w", "energy_mj"] if case.energy_mj is not None else ["mean_w"]


def power_arithmetic(case: Case) -> list[str]:
    """How a table's power comes about."""
    if not case.foreign or case.energy_mj is None or case.latency_ms is None:
        return []
    times = " x {batch_size}" if case.workload.batch_size > 1 else ""
    return [f"{{energy_mj:mJ}}{times} / {{latency_ms:ms}} = {{mean_w:W}}"]


@rule(
    Verdict.REJECT,
    undermines="energy",
    first=True,
    cause="{what}: NVML has no energy counter on {a_type}.",
    do=["Integrate the power over time: docs/energy.md has the method for GPUs before Volta."],
)
def energy_counter_absent(case: Case, group: Group) -> Hit | None:
    """An energy is said to be of NVML's counter, or is 0, on a GPU that has no such counter."""
    if not case.boards or any(board.energy_counter for board in case.boards):
        return None
    said = [m for m in case.energy_methods if any(word in m.lower() for word in _COUNTERS)]
    if case.energy_is_zero:
        return Hit(values={"what": "An energy of 0 was not measured"}, rejects=["energy_mj"])
    if not said or not case.foreign:
        return None
    return Hit(
        values={"what": f"The energy cannot be of {said[0]}"}, rejects=["energy_mj", "mean_w"]
    )


@rule(
    Verdict.REJECT,
    undermines="energy",
    cause="An energy of 0 was not measured: the meter did not move, or does not exist.",
    missing=["how the energy was read"],
    do=["Read over many seconds, and leave the cell empty where there is no meter."],
)
def energy_is_zero(case: Case, group: Group) -> Hit | None:
    """A table gives an energy of 0, on a GPU that may have a counter."""
    absent = bool(case.boards) and not any(board.energy_counter for board in case.boards)
    return Hit() if case.energy_is_zero and not absent else None
