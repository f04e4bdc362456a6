"""Does every row arrive, whatever breaks?

    python benchmarks/soak.py [--sweeps N] [--kills N] [--seed N]

Two parts, both seeded. First, N small sweeps over raylets of this machine with simulated GPUs, in
each of which one to three things break at random moments, whatever the driver does just then: a
measuring process is killed or stopped, the template of its node is killed, a node is lost, the
sweep is interrupted or stopped at once and then resumed. Second, `tensorgap sweep` on such a
cluster, its process killed (SIGKILL) at N random moments and resumed each time.

Exits 1 where a row is missing or doubled, where more rows than faults are not OK, where a process,
a placement or a GPU is left behind, or where a killed sweep's table differs from an undisturbed one
in anything but what a clock or a sensor says.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fakenvml
import kept_rows
import raylets

from bench import matrix as matrices
from bench.asked import Matrix, QualityPlan
from bench.measured import Measurement, Outcome, Profile
from bench.results import store as results
from bench.text.load import load_text
from cluster import driver, faults
from cluster.session import session

MATRIX = """
[cells]
gpu_types = [{types}]
precisions = [{precisions}]
[[workloads]]
model = "tiny"
prompt_tokens = 32
batch_size = [1, 2]
[sampling]
replicates = {replicates}
warmup_min_s = 0
warmup_max_s = 0.05
latency_min_s = 0.1
latency_max_s = 0.2
min_samples = 11
throughput_s = 0.05
energy = "quick"
energy_s = 0.05
idle_s = 0
profile = {profile}
timeout_s = {timeout_s}
[quality]
text = "{text}"
context = 256
stride = 256
timeout_s = {timeout_s}
[placement]
paired = {paired}
"""
# Of the embedded text, whose perplexity takes longer than all the rest.
TEXT_LINES = 5
# A virtual GPU, whose energy no one can measure: the rows come faster.
GPU = "gpu = {}\nvirtualization = 2\nenergy = 0"
TYPES = ("T4", "P100")
FAULTS = (
    *("process killed", "process stopped", "template killed", "node lost"),
    *("interrupted", "stopped at once"),
)
# How long a stage may take, and so what a stopped process costs: no less than this, or than eight
# rows do on this machine, however busy it is; before its first word twice as long.
STAGE_LIMIT_S = 20
PATIENT_S = 120  # where no process is stopped
LEFT_LIMIT_S = 20  # for what was ended to be gone
MARK = "TENSORGAP_SOAK"  # in the environment of all that this process starts
# What a clock or a sensor says, and the run's own name.
UNSTEADY = ("timing_", "energy_", "conditions_", "warnings", "started_at", "finished_at", "run")
UNSTEADY_TOO = ("quality_elapsed_s", "received_at")

Table = dict[object, dict[str, object]]  # columns by the keys of the rows


@dataclass
class Sweep:
    """One sweep of the first part."""

    asked: Matrix
    kept: results.Results
    wanted: set[object]  # the keys of its rows
    told: dict[object, Measurement]  # by their keys
    profiles: dict[object, Profile]  # by the keys of their rows
    wrong: list[str]
    stopping: threading.Event  # as Ctrl-C: finish what runs
    leaving: threading.Event  # as Ctrl-C twice
    over: threading.Event
    broke: list[str]


class Soak:
    """The cluster of the first part, and what breaks in it."""

    def __init__(self, nodes: raylets.Raylets, folder: Path) -> None:
        """Start two nodes of each type."""
        self.nodes, self.folder = nodes, folder
        self.lost: list[str] = []  # types of nodes to be replaced
        for gpu_type in (*TYPES, *TYPES):
            self._add(gpu_type)

    def _add(self, gpu_type: str) -> None:
        self.nodes.add(gpu_type, GPU.format(gpu_type.lower()))

    def _replace_lost(self) -> None:
        """Start a node for each that was lost; Ray does it in the main thread only."""
        while self.lost:
            self._add(self.lost[0])
            self.lost.pop(0)

    def sweep(self, seed: int, row_s: float | None) -> tuple[Sweep, str]:
        """One sweep in which things break; what was asked, in words.

        Args:
            seed: of what is asked, of what breaks and when.
            row_s: how long a row usually takes; None: nothing breaks.
        """
        chance = random.Random(seed)
        count = 0 if row_s is None else chance.randint(1, 3)
        limit_s = PATIENT_S if row_s is None else max(STAGE_LIMIT_S, 8 * row_s)
        faults.START_LIMIT_S = 2 * limit_s
        profile = chance.choice(("true", "false", "false"))
        paired = chance.choice(("true", "false"))
        precisions = chance.choice(('"fp32"', '"bf16"', '"fp32", "bf16"'))
        text = MATRIX.format(
            types=", ".join(f'"{kind}"' for kind in TYPES),
            precisions=precisions,
            replicates=1,
            profile=profile,
            paired=paired,
            text=_text(self.folder),
            timeout_s=limit_s,
        )
        asked = matrices.parse(text, "soak", f"soak-{seed}")
        kept = results.Results.create(str(self.folder), asked.name, text, _now(), simulated=True)
        wanted: set[object] = {
            (cell, workload, 0)
            for cell in matrices.cells(asked, TYPES)
            for workload in asked.workloads
        }
        events = (threading.Event(), threading.Event(), threading.Event())
        one = Sweep(asked, kept, wanted, {}, {}, [], *events, [])
        within_s = len(wanted) * (row_s or 0)
        plan = [(chance.uniform(0, within_s), chance.choice(FAULTS)) for _ in range(count)]
        with ThreadPoolExecutor(1) as pool:
            breaking = pool.submit(self._break_all, one, sorted(plan), chance)
            try:
                while not self._run(one):
                    pass
            finally:
                one.over.set()
            breaking.result()
        self._replace_lost()
        one.wrong += self._check(one)
        words = f"{len(wanted)} rows{', profile' if profile == 'true' else ''}"
        return one, words + (", paired" if paired == "true" else "")

    def _run(self, one: Sweep) -> bool:
        """Measure what is missing; False where it was interrupted."""
        one.stopping.clear()
        one.leaving.clear()
        done, _ = one.kept.read()
        stream = driver.sweep(
            one.kept.source.run,
            one.asked,
            (),
            done=done,
            simulated=True,
            stopping=one.stopping.is_set,
        )
        with contextlib.closing(stream) as events:
            for event in events:
                if isinstance(event, Measurement):
                    if event.key in one.told:
                        one.wrong.append(f"measured twice: {event.cell} {event.workload}")
                    one.told[event.key] = event
                    one.kept.write(event)
                elif isinstance(event, Profile):
                    one.profiles[event.key] = event
                    one.kept.write(event)
                self._replace_lost()
                if one.leaving.is_set():
                    return False
        return not one.stopping.is_set()

    def _break_all(self, one: Sweep, plan: list[tuple[float, str]], chance: random.Random) -> None:
        began = time.monotonic()
        for at_s, fault in plan:
            if one.over.wait(max(0, began + at_s - time.monotonic())):
                return
            if self._break(one, fault, chance):
                one.broke.append(fault)

    def _break(self, one: Sweep, fault: str, chance: random.Random) -> bool:
        """Break something; whether it did."""
        if fault == "interrupted":
            one.stopping.set()
            return True
        if fault == "stopped at once":
            one.leaving.set()
            return True
        # Of each type one node stays, or its rows would rightly have no place.
        while self.lost or not (found := self.nodes.measurements()):
            if one.over.wait(0.1):
                return False
        pid, kind, node = chance.choice(found)
        if fault == "node lost":
            self.nodes.kill(node)
            self.lost.append(kind)
            return True
        number = signal.SIGSTOP if fault == "process stopped" else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(raylets.template_of(pid) if fault == "template killed" else pid, number)
            if number == signal.SIGSTOP and _is_over(pid):
                os.kill(pid, signal.SIGCONT)  # Ray has ended it, and would not do so again
                return False
            return True
        return False

    def _check(self, one: Sweep) -> Iterator[str]:
        """What is wrong with a sweep that has ended."""
        rows, corrupt = one.kept.read()
        one.kept.settle(0)
        merged, _, _ = results.read(one.kept.finish())
        for name, found in (("parts", rows), ("table", merged)):
            keys = collections.Counter(row.key for row in found)
            yield from (f"{name}: missing {key}" for key in one.wanted - set(keys))
            yield from (f"{name}: doubled {key}" for key, count in keys.items() if count > 1)
        yield from (f"corrupt: {part.path}" for part in corrupt)
        if {row.key: _alone(row) for row in merged} != {k: _alone(r) for k, r in one.told.items()}:
            yield "the table differs from what the driver said"
        traces = {row.key: row.trace for row in merged if row.trace}
        if traces != {key: profile.trace for key, profile in one.profiles.items()}:
            yield "the profiles differ from what the driver said"
        # What a fault costs: one row at most.
        failed = [row for row in merged if row.outcome != Outcome.OK]
        if len(failed) > len(one.broke):
            yield from (f"{row.cell} {row.outcome}: {row.reason}" for row in failed)
        yield from (f"{m.cell}: {m.reason}" for m in failed if m.outcome == Outcome.UNPLACED)
        yield from _left()


def break_sweeps(count: int, seed: int) -> tuple[bool, str]:
    """The first part: whether all was well, and the figure."""
    complete, broke, outcomes = 0, collections.Counter[str](), collections.Counter[str]()
    print(f"{'seed':>5} {'s':>4}  {'asked':<26} {'broke':<50} {'rows':<30} found")
    stdout = sys.stdout  # a session sends what is printed to standard error
    with _cluster() as (nodes, folder), session(nodes.address):
        soak = Soak(nodes, folder)
        row_s = None
        # The first one is undisturbed and only tells how long a row takes.
        for number in range(count + 1):
            began = time.monotonic()
            one, asked = soak.sweep(seed + number - 1, row_s)
            took_s = time.monotonic() - began
            row_s = row_s or took_s / len(one.wanted)
            complete += bool(number and not one.wrong)
            broke.update(one.broke)
            rows = collections.Counter(str(row.outcome) for row in one.told.values())
            outcomes.update(rows)
            what = ", ".join(one.broke) or "-"
            found = "; ".join(one.wrong) or "complete"
            label = seed + number - 1 if number else "-"
            line = f"{label:>5} {took_s:>4.0f}  {asked:<26} {what:<50} {_counted(rows):<30} {found}"
            print(line, file=stdout, flush=True)
    print(f"faults: {_counted(broke)}\nrows: {_counted(outcomes)}")
    words = f"{complete} of {count} sweeps with {broke.total()} faults complete"
    return complete == count, f"{words}, no row doubled, nothing left"


def kill_drivers(kills: int, seed: int) -> tuple[bool, str]:
    """The second part: whether the killed sweeps' tables equal the undisturbed one; the figure."""
    chance = random.Random(seed)
    done, same, sweeps = 0, 0, 0
    print(f"{'sweep':>5} {'killed after, in s':<60} found")
    with _cluster() as (nodes, folder):
        nodes.add("P100", GPU.format("p100"))
        matrix = folder / "soak.toml"
        matrix.write_text(
            MATRIX.format(
                types='"P100"',
                precisions='"fp32", "bf16"',
                replicates=2,
                # What ends before its profile has none, which is no fault of the times.
                profile="false",
                paired="true",
                text=_text(folder),
                timeout_s=PATIENT_S,
            )
        )
        start = _starter(nodes)
        began = time.monotonic()
        code = start(matrix, "--simulated", "--output", folder / "whole").wait()
        whole_s = time.monotonic() - began
        wanted = _steady(folder / "whole")
        if code or not all(row["quality_nats"] for row in wanted.values()):
            return False, f"the undisturbed sweep failed: exit code {code}"
        print(f"{'-':>5} {'-':<60} {len(wanted)} rows in {whole_s:.0f} s", flush=True)
        while done < kills:
            sweeps += 1
            output = folder / str(sweeps)
            process = start(matrix, "--simulated", "--output", output)
            after: list[float] = []
            while done < kills and _killed(process, moment := chance.uniform(0, whole_s)):
                done += 1
                after.append(moment)
                place = _results_folder(output)
                arguments = (
                    ("--resume", place) if place else (matrix, "--simulated", "--output", output)
                )
                process = start(*arguments)
            code = process.wait()
            wrong = [f"exit code {code}"] if code else []
            if (found := _steady(output)) != wanted:
                wrong.append(f"the table differs: {_difference(found, wanted)}")
            wrong += _left(placements=False)
            same += not wrong
            moments = " ".join(f"{moment:.1f}" for moment in after) or "-"
            print(f"{sweeps:>5} {moments:<60} {'; '.join(wrong) or 'equal'}", flush=True)
    return same == sweeps, f"{done} drivers killed in {sweeps} sweeps, {same} tables equal"


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[raylets.Raylets, Path]]:
    """A head alone, and a folder."""
    with tempfile.TemporaryDirectory() as folder:
        library = fakenvml.build(Path(folder))
        with raylets.started(library) as nodes:
            yield nodes, Path(folder)


def _starter(nodes: raylets.Raylets) -> Callable[..., subprocess.Popen[bytes]]:
    def start(*arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jobs", "sweep", *map(str, arguments), "--quiet"]
        return subprocess.Popen(
            [*command, "--address", nodes.address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=nodes.environment,
        )

    return start


def _is_over(pid: int) -> bool:
    """Whether the actor of a process is dead for Ray, though the process may take a moment more."""
    import ray

    actors = ray._private.state.actors().values()
    return any(actor["Pid"] == pid and actor["State"] == "DEAD" for actor in actors)


def _alone(row: Measurement) -> Measurement:
    """A row without what its profile adds."""
    return replace(row, trace=None, roofline=None, warnings=())


def _killed(process: subprocess.Popen[bytes], after_s: float) -> bool:
    """Kill a process after a while; False if it ended before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
        return False
    process.kill()
    process.wait()
    return True


def _results_folder(output: Path) -> Path | None:
    """The results folder below an output, once the sweep has made it."""
    return next((path.parent for path in output.glob("*/*/source.json")), None)


def _steady(output: Path) -> Table:
    """The merged rows by key, without what a clock or a sensor says."""
    place = _results_folder(output)
    rows, sources, _ = results.read(f"{place}/results.parquet")
    assert len({row.key for row in rows}) == len(rows), f"doubled: {place}"
    columns = kept_rows.to_table(rows, sources).to_pylist()
    return {
        row.key: {
            name: value
            for name, value in one.items()
            if not name.startswith(UNSTEADY) and name not in UNSTEADY_TOO
        }
        for row, one in zip(rows, columns, strict=True)
    }


def _difference(found: Table, wanted: Table) -> str:
    """The first row and its columns in which two tables differ."""
    if found.keys() != wanted.keys():
        return f"rows {found.keys() ^ wanted.keys()}"
    key = next(key for key, row in found.items() if row != wanted[key])
    names = [name for name, value in found[key].items() if value != wanted[key][name]]
    return ", ".join(f"{name} {found[key][name]!r}" for name in names)


def _left(placements: bool = True) -> list[str]:
    """Measuring processes, and on the connected cluster placements and GPUs, that are left."""
    deadline = time.monotonic() + LEFT_LIMIT_S
    while (left := _still_there(placements)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _still_there(placements: bool) -> list[str]:
    names = ("tensorgap-cell", "ray::Seat")
    left = [f"left: process {pid} {name}" for pid, name in _ours() if name.startswith(names)]
    if placements:
        import ray
        from ray.util import placement_group_table

        groups = placement_group_table().values()
        left += [f"left: placement {g['state']}" for g in groups if g["state"] != "REMOVED"]
        free, present = (
            resources().get("GPU", 0)
            for resources in (ray.available_resources, ray.cluster_resources)
        )
        left += [f"left: {present - free:g} GPUs"] if free != present else []
    return left


def _ours() -> Iterator[tuple[int, str]]:
    """Every process that this one started, or that those started, whoever is their parent now."""
    mark = f"{MARK}={os.getpid()}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            if mark in (place / "environ").read_bytes().split(b"\0"):
                command = (place / "comm").read_text().strip()
                ended = not (place / "cmdline").read_bytes()  # but not yet buried
                if not ended and int(place.name) != os.getpid():
                    yield int(place.name), command


def _text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text(load_text(QualityPlan()).first(TEXT_LINES).text)
    return path


def _counted(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ[MARK] = str(os.getpid())
    parts = []
    if given.sweeps:
        parts.append(break_sweeps(given.sweeps, given.seed))
    if given.kills:
        parts.append(kill_drivers(given.kills, given.seed))
    deadline = time.monotonic() + LEFT_LIMIT_S
    while (left := list(_ours())) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, name in left:
        print(f"left: process {pid} {name}")
    print("; ".join(figure for _, figure in parts) + f"; {len(left)} processes left")
    return 0 if all(good for good, _ in parts) and not left else 1


if __name__ == "__main__":
    sys.exit(main())
