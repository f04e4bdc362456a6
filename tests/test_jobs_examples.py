"""The results files of jobs/examples: of this schema, and what every reader of them is told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run

from bench import matrix as matrices
from bench.asked import CPU
from bench.measured import Outcome
from bench.results import columns
from bench.results import store as results

EXAMPLES = Path(__file__).resolve().parent.parent / "jobs/examples"
MATRIX = {"local.parquet": "local-cpu.toml", "modelled.parquet": "modelled.toml"}


def test_each_results_file_is_known() -> None:
    assert {path.name for path in EXAMPLES.glob("*.parquet")} == set(MATRIX)


@pytest.mark.parametrize("name", MATRIX)
def test_each_results_file_is_of_this_schema_and_has_every_row_of_its_matrix(name: str) -> None:
    path = EXAMPLES / name
    stored = pq.read_schema(path)
    version = int(stored.metadata[columns.VERSION_KEY])
    ours = [at for at in columns.schema() if int(at.metadata.get(columns.SINCE, 1)) <= version]
    assert stored.equals(pa.schema(ours), check_metadata=False)
    assert path.stat().st_size < 600_000
    rows, (source,), corrupt = results.read(str(path))
    beside = EXAMPLES / MATRIX[name]
    assert source.matrix == beside.read_text(encoding="utf-8")
    asked = matrices.load(beside)
    cells = len(asked.gpu_types) * len(asked.precisions)
    assert len(rows) == cells * len(asked.workloads) * asked.sampling.replicates
    assert not corrupt
    assert {row.outcome for row in rows} == {Outcome.OK}


@pytest.mark.parametrize("name", MATRIX)
def test_each_row_says_whether_it_is_simulated(name: str) -> None:
    simulated = name == "modelled.parquet"
    rows, (source,), _ = results.read(str(EXAMPLES / name))
    assert {row.device and row.device.simulated for row in rows} == {simulated}
    assert all((row.cell.gpu_type == CPU) == (not simulated) for row in rows)
    assert simulated or not source.simulated


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize("command", ["report", "explain"])
def test_each_results_file_is_reported_and_explained(command: str, name: str, run: Run) -> None:
    done = run(command, EXAMPLES / name)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 20
