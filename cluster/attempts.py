"""What the rows so far mean for those to come: nothing is measured twice, no attempt forgotten."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.asked import Cell, Matrix, Workload
from bench.measured import Measurement, Outcome, Placement, Quality, Sensor
from bench.outcomes import Request, failed
from bench.results import merging
from bench.results.merging import IDENTITY
from bench.results.rows import Rows
from cluster.schedule import Key, Task

_LEARNT = merging.names_of(Measurement, "quality", "sensor", "device", "software")


def known(rows: Rows) -> list[Measurement]:
    """The rows with no more than `History` needs: what was found of a cell or a GPU stands once."""
    asked, keys = list(rows.asked()), rows.keys
    first: dict[object, int] = {}
    for number, (row, nats) in enumerate(zip(asked, keys["quality_nats"].to_pylist(), strict=True)):
        if nats:
            first.setdefault((row.cell, row.workload.model), number)
    of_gpu = ("device_uuid", "software_driver", "sensor_probe_s")
    gpus = zip(*(keys[name].to_pylist() for name in of_gpu), strict=True)
    for number, (uuid, driver, probe_s) in enumerate(gpus):
        if uuid is not None and probe_s is not None:
            first.setdefault((uuid, driver), number)
    numbers = sorted(set(first.values()))
    names = (*IDENTITY, "outcome", *_LEARNT)
    found = dict(zip(numbers, rows.records(names=names, of=numbers), strict=True))
    return [found.get(number, row) for number, row in enumerate(asked)]


class History:
    """Perplexities and power sensors that are known, and the attempts that are tried again."""

    def __init__(
        self, run: str, matrix: Matrix, simulated: bool, done: Sequence[Measurement]
    ) -> None:
        """Args: as of `cluster.driver.sweep`."""
        self._run, self._matrix, self._simulated = run, matrix, simulated
        self._qualities: dict[tuple[Cell, str], Quality] = {}  # by cell and model
        # By the UUID of the GPU and the version of its driver.
        self._sensors: dict[tuple[str, str | None], Sensor] = {}
        self._earlier: dict[Key, list[Measurement]] = {}
        for row in done:
            # Only what was measured: why there was no perplexity may not hold any longer.
            self.learn(row if row.quality and row.quality.nats else replace(row, quality=None))

    def request(self, task: Task, threads: int | None = None) -> Request:
        """What a process is to measure, with what need not be measured again."""
        return Request(
            run=self._run,
            cell=task.cell,
            replicate=task.replicate,
            workloads=task.workloads,
            sampling=self._matrix.sampling,
            quality=self._matrix.quality,
            known_quality={m: q for (cell, m), q in self._qualities.items() if cell == task.cell},
            known_sensors=dict(self._sensors),
            threads=threads,
            simulated=self._simulated,
        )

    def learn(self, row: Measurement) -> None:
        """Keep what a row spares the next ones."""
        if row.quality is not None:
            self._qualities[row.cell, row.workload.model] = row.quality
        uuid = row.device.uuid if row.device else None
        # A probe that failed took no time, and the next one may succeed.
        if row.sensor and row.sensor.probe_s is not None and uuid and row.software:
            self._sensors[uuid, row.software.driver] = row.sensor

    def give_up_quality(self, cell: Cell, model: str, reason: str) -> None:
        """Measure this perplexity no more."""
        self._qualities[cell, model] = Quality(self._matrix.quality.text, reason=reason)

    def may_try(self, request: Request, left: Sequence[Workload]) -> bool:
        """Whether the first row that is left of a request may have one more attempt."""
        keys = [(request.cell, workload, request.replicate) for workload in left[:1]]
        retries = self._matrix.placement.retries
        return any(len(self._earlier.get(key, ())) < retries for key in keys)

    def placed(self, row: Measurement, node: str, host: str, beside: set[str]) -> Measurement:
        """The row with where it was measured, and how earlier attempts ended."""
        before = self._earlier.get(row.key, [])
        where = Placement(
            node=node,
            host=host,
            attempt=len(before) + 1,
            earlier=tuple(f"{m.outcome}: {m.reason}" for m in before),
            neighbours=tuple(sorted(beside)),
        )
        return replace(row, placement=where)

    def put_off(self, row: Measurement) -> None:
        """Keep a row as an earlier attempt of the one that is to come."""
        self._earlier.setdefault(row.key, []).append(row)

    def settle(self, row: Measurement) -> None:
        """A row is final."""
        self._earlier.pop(row.key, None)
        self.learn(row)

    def unplaced(self, task: Task, reason: str) -> Iterator[Measurement]:
        """The rows of a task that has no place; what an attempt found says more than that."""
        for workload in task.workloads:
            row = failed(self.request(task), workload, Outcome.UNPLACED, reason)
            if before := self._earlier.pop(row.key, None):
                words = f"{before[-1].reason}; no other attempt: {reason}"
                row = replace(before[-1], reason=words)
            yield row
