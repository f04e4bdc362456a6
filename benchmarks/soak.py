"""Does every row arrive, whatever breaks?

    python benchmarks/soak.py [--sweeps N] [--kills N] [--seed N]

Two parts, both seeded. First, N small sweeps over raylets of this machine with simulated GPUs, in
each of which up to three things break at random moments: a measuring process is killed or stopped,
a node is lost, the sweep is interrupted and resumed. Then a sweep of this machine whose driver is
killed (SIGKILL) at N random moments and resumed each time. Exits 1 where a row is missing or
doubled, where a process or a placement is left behind, or where the table of the killed sweeps
differs from that of an undisturbed one in anything but what a clock or a sensor says.
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
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fakenvml
import raylets

from bench import matrix as matrices
from bench import results
from bench.records import Measurement, Outcome, Stage
from cluster import driver
from cluster.session import session

MATRIX = """
[cells]
gpu_types = ["{types}"]
precisions = ["fp32", "bf16"]
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
timeout_s = 30
[quality]
context = 256
stride = 256
"""
# A virtual GPU, whose energy nobody can measure: the rows come faster.
GPU = "gpu = {}\nvirtualization = 2\nenergy = 0"
FAULTS = ("process killed", "process stopped", "node lost", "interrupted")


class Soak:
    """The cluster of the first part, and what broke in it."""

    def __init__(self, nodes: raylets.Raylets, folder: Path) -> None:
        """Start the nodes."""
        self.nodes, self.folder = nodes, folder
        self.broke: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[str] = collections.Counter()
        for gpu_type in ("T4", "P100"):
            self.add(gpu_type)
            self.add(gpu_type)

    def add(self, gpu_type: str) -> None:
        """Start a node with one GPU."""
        self.nodes.add(gpu_type, GPU.format(gpu_type.lower()))

    def sweep(self, seed: int) -> list[str]:
        """One sweep; what was wrong with it."""
        chance = random.Random(seed)
        text = MATRIX.format(types='T4", "P100', replicates=1)
        asked = matrices.parse(text, "soak", f"soak-{seed}")
        now = datetime.datetime.now(datetime.UTC)
        kept = results.Results.create(str(self.folder), asked.name, text, now)
        faults = collections.deque(
            (chance.choice(FAULTS), chance.randint(1, 25)) for _ in range(chance.randint(0, 3))
        )
        stopped = True
        while stopped:
            stopped = self._run(kept, asked, faults)
        rows, torn = kept.read()
        self.outcomes.update(row.outcome for row in rows)
        types = ("T4", "P100")
        keys = [row.key for row in rows]
        wanted = {
            (cell, workload, 0)
            for cell in matrices.cells(asked, types)
            for workload in asked.workloads
        }
        return [
            *(f"missing: {key}" for key in wanted - set(keys)),
            *(f"doubled: {key}" for key, n in collections.Counter(keys).items() if n > 1),
            *(f"torn: {part.path}" for part in torn),
            *(
                f"{row.cell} {row.outcome}: {row.reason}"
                for row in rows
                if row.outcome == Outcome.UNPLACED
            ),
            *self._left(),
        ]

    def _run(self, kept: results.Results, asked: Any, faults: Any) -> bool:
        """Measure what is missing; whether it was interrupted."""
        done, _ = kept.read()
        flags = {"stop": False}
        written = collections.Counter(row.key for row in done)
        count = 0
        sweep = driver.sweep(
            kept.source.run, asked, (), done=done, simulated=True, stopping=lambda: flags["stop"]
        )
        with contextlib.closing(sweep) as events:
            for event in events:
                if isinstance(event, Measurement):
                    written[event.key] += 1
                    assert written[event.key] == 1, f"measured twice: {event.key}"
                    kept.write(event)
                    continue
                count += 1
                if faults and count >= faults[0][1]:
                    fault, _ = faults.popleft()
                    count = 0
                    if self._break(fault, event):
                        self.broke[fault] += 1
                    flags["stop"] |= fault == "interrupted"
        return flags["stop"]

    def _break(self, fault: str, event: Stage) -> bool:
        """Break something about the cell that has just spoken; whether there was something."""
        gpu_type = event.cell.gpu_type
        if fault == "interrupted":
            return True
        try:
            pid, node = self.nodes.measuring(gpu_type)
        except ValueError:  # between two processes
            return False
        if fault == "node lost":
            self.nodes.kill(node)
            self.add(gpu_type)
        else:
            number = signal.SIGKILL if fault == "process killed" else signal.SIGSTOP
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return True

    def _left(self) -> list[str]:
        """Processes and placements that a sweep left behind."""
        from ray.util import placement_group_table

        deadline = time.monotonic() + 20
        while (left := raylets.measuring_processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
        return [f"process left: {pid}" for pid in left] + [f"placement left: {g}" for g in groups]


def break_sweeps(count: int, seed: int) -> bool:
    """The first part; whether all was well."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        library = fakenvml.build(Path(folder))
        with raylets.started(library) as nodes, session(nodes.address):
            soak = Soak(nodes, Path(folder))
            for number in range(count):
                found = soak.sweep(seed + number)
                wrong += bool(found)
                for line in found or ["complete"]:
                    print(f"sweep {seed + number}: {line}", file=sys.stderr, flush=True)
    faults = ", ".join(f"{n} x {name}" for name, n in sorted(soak.broke.items())) or "none"
    outcomes = ", ".join(f"{n} {name}" for name, n in sorted(soak.outcomes.items()))
    print(f"faults: {faults}\nrows: {outcomes}")
    print(f"{count - wrong} of {count} sweeps complete, nothing doubled, nothing left")
    return wrong == 0


def kill_drivers(kills: int, seed: int) -> bool:
    """The second part; whether the killed sweeps ended with the undisturbed table."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        matrix = Path(folder) / "soak.toml"
        matrix.write_text(MATRIX.format(types="CPU", replicates=2))
        began = time.monotonic()
        _tensorgap("sweep", matrix, "--output", f"{folder}/whole").wait()
        whole_s = time.monotonic() - began
        wanted = _table(_folder(f"{folder}/whole"))
        done, same, sweeps = 0, True, 0
        while done < kills:
            sweeps += 1
            output = f"{folder}/{sweeps}"
            process = _tensorgap("sweep", matrix, "--output", output)
            while done < kills and _killed(process, chance.uniform(0, whole_s)):
                done += 1
                place = _folder(output)
                arguments = ["--resume", place] if place else [matrix, "--output", output]
                process = _tensorgap("sweep", *arguments)
            process.wait()
            found = _table(_folder(output))
            same &= found == wanted
            if found != wanted:
                print(f"sweep {sweeps} differs: {found ^ wanted}")
    left = raylets.measuring_processes()
    print(f"{done} drivers killed in {sweeps} sweeps: the tables {'equal' if same else 'DIFFER'}")
    return same and not left


def _tensorgap(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jobs", *map(str, arguments), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _killed(process: subprocess.Popen[bytes], after_s: float) -> bool:
    """Kill a process after a while; False if it ended before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
        return False
    process.kill()
    process.wait()
    return True


def _folder(output: str) -> Path | None:
    """The results folder below an output, once the sweep has made it."""
    return next((path.parent for path in Path(output).glob("*/*/source.json")), None)


def _table(folder: Path | None) -> set[tuple[object, ...]]:
    """What a table says apart from what a clock or a sensor does."""
    rows, _, _ = results.read(f"{folder}/results.parquet")
    assert len({row.key for row in rows}) == len(rows)
    return {
        (
            row.key,
            row.outcome,
            row.reason,
            row.weights,
            row.software,
            row.quality and (row.quality.nats, row.quality.tokens, row.quality.text_sha256),
            row.device and (row.device.name, row.device.gpu_type, row.device.threads),
        )
        for row in rows
    }


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    good = break_sweeps(given.sweeps, given.seed) if given.sweeps else True
    good &= kill_drivers(given.kills, given.seed) if given.kills else True
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
