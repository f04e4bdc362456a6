"""What do many rows cost the commands that read them?

    python benchmarks/scale.py [--rows N ...] [--samples N] [--driver] [--gpus N]

For each N a results folder of synthetic rows is made through the real store: N / 10 cells of four
GPU types and five precisions, ten replicates each, every row with its device, its energy, its
perplexity and 1,000 latencies, every tenth with a profile. Then, each in a process of its own:
pyarrow's own copy of the merged file (a row group read, and written with the same compression and
checksums), the merge of the streams that a sweep ends with, and of the finished folder `merge`,
`--resume` with nothing to do (all of it but Ray), `report` and `explain`. Processor seconds and the
most memory of each; the goals are times the copy, and 500 MB. Exits 1 where one is missed.

With --driver instead: N null measurements on 64 simulated GPUs of this machine, which the real
driver places, takes and keeps: rows per second, and the driver's memory as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow.parquet as pq

from bench import matrix as matrices
from bench import stats
from bench.measured import (
    Conditions,
    Device,
    Energy,
    Measurement,
    Outcome,
    Placement,
    Profile,
    Quality,
    Sensor,
    Software,
    Timing,
    Weights,
)
from bench.measured.profiled import Roofline, Trace
from bench.results import store as results

TYPES, PRECISIONS = ("A100", "L4", "T4", "V100"), ("fp32", "tf32", "fp16", "bf16", "mixed")
REPLICATES = 10
GOALS = {"merge": 2.0, "--resume": 2.0, "report": 3.0}  # times pyarrow's copy
MOST_MB = 500
WORKLOADS, GPUS_OF_A_NODE = 50, 8  # of a process, of a raylet
MOST_GROWN_MB = 30  # of the driver, in the second half of its rows
MATRIX = """
[cells]
gpu_types = [{types}]
precisions = [{precisions}]
[[workloads]]
model = "gpt2"
batch_size = [{batches}]
prompt_tokens = {tokens}
[sampling]
replicates = {replicates}
"""
NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, nargs="*", default=[1000, 10_000])
    arguments.add_argument("--samples", type=int, default=1000)
    arguments.add_argument("--driver", action="store_true")
    arguments.add_argument("--gpus", type=int, default=64)
    arguments.add_argument("--step", help=argparse.SUPPRESS)  # of a process of its own
    arguments.add_argument("--place", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.step:
        STEPS[asked.step](Path(asked.place), asked.rows[0], asked.samples)
        return 0
    if asked.driver:
        return max(driven(rows, asked.gpus) for rows in asked.rows)
    print(f"{'rows':>7}  {'what':<18} {'CPU s':>7} {'x copy':>7} {'ms/row':>7} {'MB':>6}  goal")
    missed = [miss for rows in asked.rows for miss in measured(rows, asked.samples)]
    print(f"\ngoals missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


def measured(rows: int, samples: int) -> Iterator[str]:
    """Print what everything costs with so many rows; what misses its goal."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        own = [sys.executable, __file__, "--rows", str(rows), "--samples", str(samples)]
        own += ["--place", made, "--step"]
        jobs = [sys.executable, "-m", "jobs"]
        show(rows, "rows kept", *used([*own, "fill"]), None)
        folder = next(place.glob("scale/*"))
        show(rows, "first merge", *used([*own, "resume"]), None)
        copy_s, copy_mb = used([*own, "copy"])
        show(rows, "pyarrow's copy", copy_s, copy_mb, copy_s)
        for what, command in (
            ("merge", [*jobs, "merge", folder, "-o", place / "merged.parquet"]),
            ("--resume", [*own, "resume"]),
            ("report", [*jobs, "report", folder]),
            ("explain", [*jobs, "explain", folder]),
        ):
            cpu_s, most_mb = used([*map(str, command)])
            show(rows, what, cpu_s, most_mb, copy_s)
            if what in GOALS and cpu_s > GOALS[what] * copy_s:
                yield f"{what} of {rows} rows {cpu_s / copy_s:.1f} x the copy"
            if what in GOALS and most_mb > MOST_MB:
                yield f"{what} of {rows} rows {most_mb:.0f} MB"


def show(rows: int, what: str, cpu_s: float, most_mb: float, copy_s: float | None) -> None:
    """One line of the table."""
    times = f"{cpu_s / copy_s:.1f}" if copy_s else "-"
    goal = f"{GOALS[what]:.0f} x, {MOST_MB} MB" if what in GOALS else "-"
    each = f"{1000 * cpu_s / rows:.2f}"
    line = f"{rows:>7}  {what:<18} {cpu_s:>7.1f} {times:>7} {each:>7} {most_mb:>6.0f}  {goal}"
    print(line, flush=True)


def used(command: list[str]) -> tuple[float, float]:
    """Processor seconds of a command, and the most memory that it had, in MB."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert process.stderr
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[-1]}: exit code {process.returncode}\n{told}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def driven(rows: int, gpus: int) -> int:
    """Have the driver take so many rows; 1 where its memory grows with them."""
    import fakenvml
    import raylets
    from sweeps import SCRIPTED, a_matrix

    from bench.asked import Workload
    from cluster import driver
    from cluster.session import session

    workloads = [Workload("tiny", batch_size=number + 1) for number in range(WORKLOADS)]
    replicates = rows // WORKLOADS
    asked = a_matrix(*workloads, gpu_types=("T4",), replicates=replicates)
    print(f"{rows} rows, {replicates} processes on {gpus} simulated GPUs\n")
    print(f"{'rows':>7} {'s':>6} {'rows/s':>7} {'CPU s':>6} {'MB':>5}")
    stdout, memory, count, lost = sys.stdout, [], 0, 0  # a session takes what is printed
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        nodes = stack.enter_context(raylets.started(fakenvml.build(Path(made))))
        for _ in range(0, gpus, GPUS_OF_A_NODE):
            nodes.add("T4", *[f"gpu = t4\n{raylets.VIRTUAL}"] * min(gpus, GPUS_OF_A_NODE))
        stack.enter_context(session(nodes.address))
        folder = results.Results.create(made, "scale", "", NOW, ["T4"], simulated=True)
        sweep = driver.sweep(folder.source.run, asked, (), simulated=True, measure=SCRIPTED)
        began = last = time.monotonic()
        with contextlib.closing(sweep) as events:
            for event in events:
                if not isinstance(event, Measurement):
                    continue
                folder.write(event)
                count, lost = count + 1, lost + (event.outcome != Outcome.OK)
                if count % max(1, rows // 10) == 0:
                    now = time.monotonic()
                    memory.append(rss_mb())
                    pace = rows / 10 / (now - last)
                    line = f"{count:>7} {now - began:>6.0f} {pace:>7.1f}"
                    line += f" {time.process_time():>6.0f} {memory[-1]:>5.0f}"
                    print(line, file=stdout, flush=True)
                    last = now
        took_s = time.monotonic() - began
    grown_mb = memory[-1] - memory[len(memory) // 2]
    print(
        f"\n{count} rows ({lost} not OK) at {count / took_s:.1f}/s; the driver's memory grew by"
        f" {grown_mb:.0f} MB in the second half (goal {MOST_GROWN_MB} MB)",
        file=stdout,
    )
    return int(grown_mb > MOST_GROWN_MB or count != rows)


def rss_mb() -> float:
    """The memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def fill(place: Path, count: int, samples: int) -> None:
    """Make a results folder of so many rows, which come as from a cluster: in no order."""
    each = len(TYPES) * len(PRECISIONS) * REPLICATES
    batches = max(1, count // each)
    text = MATRIX.format(
        types=", ".join(map('"{}"'.format, TYPES)),
        precisions=", ".join(map('"{}"'.format, PRECISIONS)),
        batches=", ".join(str(number + 1) for number in range(batches)),
        tokens=128,
        replicates=REPLICATES,
    )
    folder = results.Results.create(str(place), "scale", text, NOW, TYPES)
    matrix = matrices.parse(text, "scale", "scale")
    keys = [
        (cell, workload, replicate)
        for cell in matrices.cells(matrix, TYPES)
        for workload in matrix.workloads
        for replicate in range(REPLICATES)
    ]
    chance = random.Random(0)
    chance.shuffle(keys)
    qualities = {kind: quality(chance) for kind in PRECISIONS}
    for number, (cell, workload, replicate) in enumerate(keys):
        received = NOW + datetime.timedelta(seconds=number)
        asked = {"cell": cell, "workload": workload, "replicate": replicate}
        told = row(chance, samples, qualities[cell.precision], cell.gpu_type, replicate)
        folder.write(
            Measurement(
                run=folder.source.run,
                outcome=Outcome.OK,
                started_at=received,
                finished_at=received,
                received_at=received,
                **asked,
                **told,
            )
        )
        if number % 10 == 0:
            found = Profile(folder.source.run, **asked, **profile(chance), received_at=received)
            folder.write(found)


def row(
    chance: random.Random, samples: int, of_cell: Quality, gpu_type: str, replicate: int
) -> dict[str, object]:
    """What a GPU may have found; all precisions of a replicate were on the same one (paired)."""
    latencies = tuple(chance.gauss(10, 0.5) for _ in range(samples))
    median = float(sorted(latencies)[samples // 2])
    windows = tuple(chance.gauss(500, 5) for _ in range(10))
    seconds = tuple(number / 10 for number in range(100))
    return {
        "device": Device(
            *(f"NVIDIA {gpu_type}", gpu_type, f"host-{replicate}", "a CPU", 8),
            memory_bytes=80 * 10**9,
            uuid=f"GPU-{gpu_type}-{replicate}",
            compute_capability="8.0",
            power_limit_w=400.0,
            max_sm_mhz=1410.0,
        ),
        "software": Software("3.12", "2.13.0", "5.24.0", "0.1.0", "12.6", "9", "560", "12", "2.60"),
        "weights": Weights(124_439_808, 497_759_232, "float32", "a" * 64, "sdpa", "gpt2"),
        "timing": Timing(
            *(latencies, median, min(latencies), 0.6, samples, True, 3.0, 300),
            latency_ms_p50_low=median - 0.01,
            latency_ms_p50_high=median + 0.01,
            device_ms_p50=median - 0.1,
            throughput_samples_per_s=100.0,
            throughput_iterations=1000,
            throughput_s=10.0,
        ),
        "sensor": Sensor("integrating", reading="instant", reading_period_s=0.1, probe_s=8.0),
        "energy": Energy(
            "counter",
            protocol="standard",
            per_sample_mj=stats.summarise(windows).p50,
            per_sample_mj_samples=windows,
            window_s=10.0,
            mean_w=chance.gauss(200, 2),
            idle_w=50.0,
            ticks=100,
            uncertainty=0.01,
            systematic=0.05,
            trace_s=seconds,
            trace_w=tuple(chance.gauss(200, 2) for _ in seconds),
        ),
        "quality": of_cell,
        "conditions": Conditions(0.5, 0.6, 0.01, 1410.0, 1410.0, 1215.0, 40.0, 60.0),
        "placement": Placement("a" * 56, "host-1", 1),
    }


def quality(chance: random.Random) -> Quality:
    """A perplexity of 280 windows, as WikiText-2 has with a stride of 1,024 tokens."""
    nats = tuple(chance.gauss(3500, 100) for _ in range(280))
    return Quality(
        "wikitext-2 test",
        nats=sum(nats),
        tokens=280 * 1024,
        perplexity=29.0,
        mode="tensorgap",
        context=1024,
        stride=1024,
        window_nats=nats,
        window_tokens=(1024,) * 280,
    )


def profile(chance: random.Random) -> dict[str, object]:
    """What a profile may have found."""
    return {
        "trace": Trace("kernel", requests=3, traced_ms=9.0, count=200.0, names=("gemm", "copy")),
        "roofline": Roofline(10**9, 10**8, matmul_tflops=chance.gauss(100, 1)),
    }


def resume(place: Path, count: int, samples: int) -> None:
    """As `tensorgap sweep --resume`, but for Ray and what it measures, which is nothing."""
    import cluster
    from cluster import schedule
    from cluster.attempts import History
    from jobs import sweep
    from jobs.interrupts import Interrupts

    class Driver:
        """The part of `cluster.driver` that needs no cluster."""

        @staticmethod
        def sweep(run, matrix, types, *, done, simulated, **_):  # type: ignore[no-untyped-def]
            queues = schedule.plan(matrices.cells(matrix, types), matrix, {row.key for row in done})
            assert not any(queues.values())
            History(run, matrix, simulated, done)
            yield from ()

    cluster.driver = Driver  # type: ignore[attr-defined]
    folder = results.Results.open(str(next(place.glob("scale/*"))))
    with folder.locked(), Interrupts(sweep.end_at_once) as interrupts:
        finished = sweep.measure(folder, folder.matrix(), False, 600, True, interrupts)
        assert sweep.conclude(folder, finished) == 0


def copy(place: Path, count: int, samples: int) -> None:
    """What pyarrow needs to read the merged file and write it again."""
    file = pq.ParquetFile(next(place.glob("scale/*/results.parquet")))
    options = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(place / "copy.parquet", file.schema_arrow, **options) as writer:
        for number in range(file.num_row_groups):
            writer.write_table(file.read_row_group(number))


STEPS = {"fill": fill, "resume": resume, "copy": copy}


if __name__ == "__main__":
    raise SystemExit(main())
