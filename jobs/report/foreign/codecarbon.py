"""The log that codecarbon prints, of which the lines of the GPUs are read.

`[codecarbon INFO @ 11:24:54] Energy consumed for all GPUs : 0.009037 kWh. Total GPU Power : 217 W`
has the energy of a run until then and the mean power since the line before, of all GPUs together.
Older releases print `GPU Power Consumption : Power(kW=0.39)`.
"""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.report.foreign.grid import Grid, gpu_above, of_pairs

WITHOUT = (
    "the log of codecarbon has no line of a GPU, such as `Energy consumed for all GPUs : 0.009 kWh."
    " Total GPU Power : 217.6 W`: codecarbon found none, and of its energies only that of a GPU is"
    " compared"
)
_LONGEST, _MOST_LINES = 400, 20_000
_LINE = re.compile(r"\[codecarbon [A-Z]{1,8} @ (?:\d{4}-\d\d-\d\d )?(\d\d):(\d\d):(\d\d)\]")
_POWER = re.compile(r"(?:Total GPU|All GPUs) Power ?: ?(\d[\d.e-]{0,24}) W", re.IGNORECASE)
_POWER_KW = re.compile(r"GPU Power Consumption ?: ?Power\(kW=(\d[\d.e-]{0,24})\)", re.IGNORECASE)
_ENERGY = re.compile(
    r"Energy consumed (?:for all GPUs|GPU) ?: ?(?:Energy\(kwh=)?(\d[\d.e-]{0,24})(?: kWh|\))",
    re.IGNORECASE,
)
_MODEL = re.compile(r"GPU model ?: ?(?:1 x )?(\S.{0,60})", re.IGNORECASE)
_DAY_S = 86_400
_LEAST_S = 10  # that the clock of the lines, in whole seconds, tells apart well enough
_J_OF_KWH = 3.6e6


@dataclass
class Run:
    """The lines of one tracker: its energy never falls."""

    line: int
    powers_w: list[float] = field(default_factory=list)
    energies_kwh: list[float] = field(default_factory=list)
    times_s: list[int] = field(default_factory=list)


def is_line(row: str) -> bool:
    """Whether codecarbon printed a line.

    >>> is_line("[codecarbon INFO @ 11:24:54] 0.03 kWh of electricity"), is_line("[codecarbon]")
    (True, False)
    """
    return "[codecarbon" in row[:_LONGEST] and bool(_LINE.search(row[:_LONGEST]))


def without(text: str) -> str:
    """A text with empty lines in the place of those that codecarbon printed."""
    if "[codecarbon" not in text:
        return text
    return "\n".join("" if is_line(row) else row for row in text.split("\n"))


def of_log(rows: Sequence[str]) -> Grid | None:
    """The powers of the GPUs in a log, for each of its runs; None: no line of it is of a GPU."""
    runs = runs_of(rows)
    lines = [
        (run.line, {**({"run": f"run {at}"} if len(runs) > 1 else {}), **cells})
        for at, run in enumerate(runs, start=1)
        for cells in cells_of(run)
    ]
    if not lines:
        return None
    models = [found[1].strip() for row in rows if is_line(row) and (found := _MODEL.search(row))]
    gpu = models[0] if len({*models}) == 1 else gpu_above(rows[: lines[0][0]])
    count = sum(len(run.energies_kwh) or len(run.powers_w) for run in runs)
    how = f"codecarbon's log, {count} line{'s' * (count != 1)} of the GPUs, all together"
    return of_pairs(lines, how, 0, gpu)


def runs_of(rows: Sequence[str]) -> list[Run]:
    """The runs that the lines of a log are of."""
    runs: list[Run] = []
    for number, row in enumerate(rows[:_MOST_LINES], start=1):
        told = row[:_LONGEST]
        if not is_line(told):
            continue
        energy = number_in(_ENERGY.search(told))
        power, power_kw = number_in(_POWER.search(told)), number_in(_POWER_KW.search(told))
        if energy is None and power is None and power_kw is None:
            continue
        known = runs[-1].energies_kwh if runs else []
        if not runs or (energy is not None and known and energy < known[-1]):
            runs.append(Run(number))
        if power is not None or power_kw is not None:
            runs[-1].powers_w.append(1e3 * power_kw if power_kw is not None else power or 0.0)
        if energy is not None and (clock := _LINE.search(told)):
            hours, minutes, seconds = map(int, clock.groups())
            runs[-1].energies_kwh.append(energy)
            runs[-1].times_s.append(3600 * hours + 60 * minutes + seconds)
    return runs


def number_in(found: re.Match[str] | None) -> float | None:
    """The number that was found; None: there is none."""
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def cells_of(run: Run) -> Iterator[dict[str, str]]:
    """The median power of a run, and its energy over the time from its first to its last line."""
    if run.powers_w:
        power = statistics.median(run.powers_w)
        yield {"configuration": "median of its GPU power", "power (W)": f"{power:.10g}"}
    steps = zip(run.times_s, run.times_s[1:], strict=False)
    time_s = sum((after - before) % _DAY_S for before, after in steps)  # over midnight too
    energy_j = (run.energies_kwh[-1] - run.energies_kwh[0]) * _J_OF_KWH if time_s else 0.0
    if time_s >= _LEAST_S and energy_j:
        yield {
            "configuration": f"GPU energy over {time_s} s",
            "test duration (s)": str(time_s),
            "energy (J)": f"{energy_j:.10g}",
        }
