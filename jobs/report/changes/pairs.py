"""The rows of a run by cell, workload and board, and which of two runs belong together."""

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome
from jobs.report import from_rows, words
from jobs.report.changes.records import RowPlace, Seen
from jobs.report.facts import Case, rank

MAKER = "NVIDIA "  # which drivers since 470 put before the name of a GPU


@dataclass(frozen=True)
class Measured:
    """The replicates of a cell and workload on one board in one run."""

    place: RowPlace
    case: Case
    rows: tuple[Measurement, ...]

    @property
    def seen(self) -> Seen:
        """How it ended, in plain values."""
        case = self.case
        reason = case.reason if case.failed else None
        warnings = (*case.warnings, *case.failed_warnings)
        return Seen(case.outcome, len(case.replicates), case.failed, reason, warnings)


Run = Mapping[RowPlace, Measured]
ELSEWHERE = "; the other run has it on "  # before the boards of a place that has no pair


def of_run(rows: Iterable[Measurement], origin: str) -> dict[RowPlace, Measured]:
    """What a run has at each place, in the order of the tables.

    Raises TensorgapError where a number is none, or where a place stands in several runs.
    """
    found: dict[RowPlace, list[Measurement]] = {}
    nameless: dict[RowPlace, list[Measurement]] = {}
    for row in rows:
        board = row.device.name.removeprefix(MAKER) if row.device else None
        measured = row.outcome == Outcome.OK and board is not None
        place = RowPlace(row.cell.gpu_type, row.workload, row.cell.precision)
        if measured:
            place = RowPlace(place.gpu, place.workload, place.precision, board)
        (found if measured else nameless).setdefault(place, []).append(row)
    of_cell = {RowPlace(p.gpu, p.workload, p.precision): p for p in reversed(found)}
    for place, failed in nameless.items():  # which no board is known of
        found.setdefault(of_cell.get(place, place), []).extend(failed)
    ordered = sorted(found, key=lambda p: (p.gpu, p.workload, rank(p.precision), p.board or ""))
    return {place: measured_at(place, found[place], origin) for place in ordered}


def measured_at(place: RowPlace, rows: Sequence[Measurement], origin: str) -> Measured:
    """The rows of one place, which must be of one run and have numbers."""
    if len(runs := sorted({row.run for row in rows})) > 1:
        raise TensorgapError(
            f"{origin}: {place.text} stands in {len(runs)} runs ({words.listed(runs[:4])}"
            f"{', ...' if len(runs) > 4 else ''}); compare one run at a time: give its"
            " NAME/UTC-TIMESTAMP folder, or the results.parquet in it"
        )
    for row in rows:
        for name, value in numbers_of(row):
            if not math.isfinite(value) or (value <= 0 and name.startswith("timing")):
                raise TensorgapError(
                    f"{origin}: {name} of {place.text}, replicate {row.replicate}, is {value:g};"
                    " a result is a finite number, a time or a rate one above 0: the file was"
                    " changed or is damaged; measure again, or take the sweep's own file"
                )
    ordered = sorted(rows, key=lambda row: row.replicate)
    return Measured(place, from_rows.case_of(ordered), tuple(ordered))


def numbers_of(row: Measurement) -> Iterator[tuple[str, float]]:
    """The numbers of a row that are compared, by their columns."""
    if row.timing:
        yield "timing_latency_ms_p50", row.timing.latency_ms_p50
        if row.timing.throughput_samples_per_s is not None:
            yield "timing_throughput_samples_per_s", row.timing.throughput_samples_per_s
    if row.energy and row.energy.per_sample_mj is not None:
        yield "energy_per_sample_mj", row.energy.per_sample_mj
        if row.energy.systematic is not None:
            yield "energy_systematic", row.energy.systematic
    if row.quality:
        if row.quality.perplexity is not None:
            yield "quality_perplexity", row.quality.perplexity
        yield from (("quality_window_nats", nats) for nats in row.quality.window_nats or ())


def paired(old: Run, new: Run) -> list[tuple[Measured, Measured]]:
    """What belongs together, in the order of the first run.

    A cell of which one run has no measured replicate, and so no board, is paired with the other's
    only board.
    """
    pairs = []
    mine_of, others_of = by_cell(old), by_cell(new)
    for place, mine in old.items():
        cell = cell_of(place)
        others = others_of.get(cell, [])
        alone = len(others) == len(mine_of[cell]) == 1
        if place in new:
            pairs.append((mine, new[place]))
        elif alone and None in (place.board, others[0].board):
            pairs.append((mine, new[others[0]]))
    return pairs


def cell_of(place: RowPlace) -> tuple[object, ...]:
    """A place but for its board."""
    return place.gpu, place.workload, place.precision


def by_cell(run: Run) -> dict[object, list[RowPlace]]:
    """The boards of each cell and workload."""
    return {cell_of(every[0]): every for every in words.gathered(run, cell_of)}


def unpaired(one: Run, other: Run, known: Container[RowPlace]) -> tuple[str, ...]:
    """The places of a run that are not `known` as paired, in words, with the other run's boards."""
    texts, others_of = [], by_cell(other)
    for place in one:
        if place not in known:
            boards = [p.board for p in others_of.get(cell_of(place), []) if p.board]
            beside = f" on {place.board}{ELSEWHERE}{words.listed(boards)}"
            texts.append(place.text + (beside if boards and place.board else ""))
    return tuple(texts)
