"""The example of four modelled generations: its table, and what `explain` makes of it.

What the model builds in is known: rates, bandwidth, power (tests/fakecuda). `tests/cuda` measures
the same matrix again, shorter and side by side.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import fakecuda
import pytest
from click.testing import CliRunner

from bench.measured import Measurement, Outcome
from bench.results import store as results
from jobs.cli import cli

ROOT = Path(__file__).resolve().parent.parent
TABLE = "jobs/examples/modelled.parquet"
PAGE = (ROOT / "docs/modelled.md").read_text(encoding="utf-8")
TYPES = ("P100", "T4", "V100", "A100")
WITH_TENSOR_CORES = TYPES[1:]


def tensorgap(*arguments: str) -> str:
    with contextlib.chdir(ROOT):
        done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def rows() -> list[Measurement]:
    return results.read(str(ROOT / TABLE))[0]


@pytest.fixture(scope="module")
def findings() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(tensorgap("explain", TABLE, "--format", "json"))[
        "findings"
    ]
    return found


def where(findings: list[dict[str, Any]], code: str, precision: str = "") -> set[str]:
    """The groups of rows, as `T4 eager 32`, about which a finding says something."""
    group = re.compile(r"(\w+) +gpt2:random (\w+) batch (\d+)")
    return {
        " ".join(found)
        for finding in findings
        if finding["code"] == code and (not precision or precision in finding["precisions"])
        for found in group.findall(finding["subject"])
    }


def test_each_row_was_measured_on_a_model_and_says_so(rows: list[Measurement]) -> None:
    assert len(rows) == len(TYPES) * 3 * 2 * 2
    for row in rows:
        assert row.outcome is Outcome.OK
        assert row.device
        assert row.device.simulated


def test_energies_are_those_of_the_model(rows: list[Measurement]) -> None:
    for row in rows:
        assert row.energy
        assert row.energy.per_sample_mj
        found = row.energy.per_sample_mj * row.workload.batch_size
        expected = fakecuda.expected_energy_mj(row)
        assert found == pytest.approx(expected, rel=0.005), (row.cell, row.workload)
        assert found == pytest.approx(expected, rel=row.energy.uncertainty)


def test_each_type_is_rejected_as_a_measurement_of_a_real_gpu(
    findings: list[dict[str, Any]],
) -> None:
    assert {place.split()[0] for place in where(findings, "simulated")} == set(TYPES)


def test_launches_set_the_latency_of_one_prompt(findings: list[dict[str, Any]]) -> None:
    bound = where(findings, "launch-bound")
    assert {f"{kind} eager 1" for kind in ("V100", "A100")} <= bound
    assert not any("graph" in place for place in bound)


def test_mixed_is_slower_by_its_casts(findings: list[dict[str, Any]]) -> None:
    (slower,) = (
        finding
        for finding in findings
        if finding["code"] == "mixed-slower"
        and "P100   gpt2:random graph batch 1 " in finding["subject"]
    )
    assert "the largest share is casts" in slower["cause"]
    (casts,) = (note["values"] for note in slower["evidence"] if "moved_mb" in note["values"])
    assert (casts["count"], casts["moved_mb"]) == (146, pytest.approx(813.06, abs=0.01))
    # Their bytes at the model's bandwidth, and the least time of a kernel.
    expected_ms = 813.06e6 / fakecuda.BOARDS["P100"].bandwidth_gb_per_s / 1e6 + 146 * 0.0015
    assert casts["ms"] == pytest.approx(expected_ms, rel=0.01)


def test_a_p100_has_no_tensor_cores_and_others_use_theirs(findings: list[dict[str, Any]]) -> None:
    stored = where(findings, "precision-storage-only")
    assert {place.split()[0] for place in stored} == {"P100"}
    assert not where(findings, "tensor-cores-unused")
    gains = {
        place: finding["values"]["speedup"]
        for finding in findings
        if finding["code"] == "effect" and finding["precisions"] == ["fp16"]
        for place in where([finding], "effect")
    }
    for kind in WITH_TENSOR_CORES:
        assert gains[f"{kind} graph 32"] > 2
    assert gains["P100 graph 32"] < 1.2


def test_the_page_shows_what_the_program_says() -> None:
    for command in ("report", "explain --details"):
        said = {line.rstrip() for line in tensorgap(*command.split(), TABLE).splitlines()}
        shown = re.search(rf"<!-- {command} -->\n```\n(.*?)```", PAGE, re.S)
        assert shown
        for line in shown[1].splitlines():
            assert line == "..." or line.rstrip() in said, line
