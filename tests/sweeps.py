"""What tests of sweeps share: matrices that take no time, commands, and their results."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.asked import CPU, Matrix, QualityPlan, Sampling, Workload
from bench.files.limits import Allowance
from bench.measured import Measurement
from bench.results import store as results
from bench.results.streams import Frame, Frames

SCRIPTED = "scripted:measure"
TESTS = str(Path(__file__).resolve().parent)
TINY = Workload("tiny", "eager", 1, 32)
TINY_8 = Workload("tiny", "eager", 8, 32)
SHORT = Sampling(
    warmup_min_s=0,
    warmup_max_s=0.1,
    latency_min_s=0,
    latency_max_s=5,
    min_samples=11,
    throughput_s=0.05,
    energy="quick",
    energy_s=0.05,
    idle_s=0,
    profile=False,
    timeout_s=300,
)
# Of a matrix, as TOML: of [sampling] whatever takes time.
SAMPLING = """\
warmup_min_s = 0
warmup_max_s = 0.1
latency_min_s = 0.3
latency_max_s = 5
min_samples = 11
throughput_s = 0.05
energy = "quick"
energy_s = 0.05
idle_s = 0
profile = false
"""
# Four rows of two cells.
MATRIX = f"""
[cells]
gpu_types = ["CPU"]
precisions = ["fp32", "bf16"]

[[workloads]]
model = "tiny"
batch_size = [1, 2]
prompt_tokens = 32

[sampling]
{SAMPLING}
[quality]
context = 256
stride = 256
"""
ROWS = 4


@dataclass(frozen=True)
class Done:
    """What the program printed, and its exit code."""

    returncode: object
    stdout: str
    stderr: str


Run = Callable[..., Done]  # the program within the process of the tests: a fixture


def a_matrix(
    *workloads: Workload,
    gpu_types: tuple[str, ...] = (CPU,),
    precisions: tuple[str, ...] = ("fp32",),
    **sampling: float,
) -> Matrix:
    """A matrix without perplexity."""
    return Matrix(
        name="test",
        gpu_types=gpu_types,
        precisions=precisions,
        include=(),
        exclude=(),
        workloads=workloads,
        sampling=replace(SHORT, **sampling),  # type: ignore[arg-type]
        quality=QualityPlan(enabled=False),
        text="",
    )


def command(*arguments: object) -> list[str]:
    """The program as a user runs it."""
    return [sys.executable, "-m", "jobs", *map(str, arguments)]


def scripted(*arguments: object, before: str = "") -> list[str]:
    """The program, whose processes run tests/scripted.py; `before` is run in it first."""
    code = f"import sys, cluster\ncluster.MEASURE = {SCRIPTED!r}\n{before}\n"
    code += "from jobs.cli import main\nmain(sys.argv[1:])"
    return [sys.executable, "-c", code, *map(str, arguments)]


def start(
    command: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell would start it."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )


def frames_in(stream: Path) -> list[Frame]:
    """The frames of a stream: its schema, and its rows or profiles as far as they are whole."""
    with stream.open("rb") as file:
        return list(Frames(file, str(stream), Allowance()).all())


def wait_for_rows(output: Path, count: int) -> Path:
    """The results folder, once it holds so many rows."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for parts in output.glob("*/*/parts"):
            if sum(max(0, len(frames_in(one)) - 1) for one in parts.glob("rows-*")) >= count:
                return parts.parent
        time.sleep(0.02)
    raise AssertionError(f"{count} rows did not come")


def rows_in(place: Path | str) -> dict[object, Measurement]:
    """The rows of a results folder or a Parquet file, by their keys."""
    rows, _, corrupt = results.read(str(place))
    assert corrupt == []
    found = {row.key: row for row in rows}
    assert len(found) == len(rows)
    return found
