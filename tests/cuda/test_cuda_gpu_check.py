"""benchmarks/gpu_check.py on a modelled H100: all of its steps, and what ends one of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fakecuda
import pytest
from conftest import ROOT, Run

from bench.asked import FLOATING
from bench.measured import Measurement
from bench.results import store as results

SCRIPT = str(ROOT / "benchmarks/gpu_check.py")
# On modelled GPUs a host of two cores is the slow part.
REHEARSAL = ["--rehearse", "--patience", "4"]


def rows(output: Path) -> list[Measurement]:
    (place,) = (output / "gpu-check").iterdir()
    found, _, _ = results.read(f"{place}/results.parquet")
    return found


@pytest.mark.timeout(1800)
def test_the_whole_of_it_holds_on_a_modelled_h100(on_gpu: Run, tmp_path: Path) -> None:
    done = on_gpu("H100", [SCRIPT, *REHEARSAL, "--output", str(tmp_path)], timeout_s=1700)
    table = done.stdout.rpartition("\nprediction ")[2]
    for precision in FLOATING:
        count = 357 if precision == "mixed" else 211
        assert re.search(rf"kernels of a forward, {precision} +{count} +holds ", table), table
        assert re.search(rf"attention that ran, {precision} +\w+ +holds ", table), table
        cores = "no" if precision == "fp32" else "yes"
        assert re.search(rf"Tensor Cores .*, {precision} +{cores} +holds ", table), table
        assert re.search(rf"rows measured, {precision} +4 +holds ", table), table
    assert re.search(r"casts that mixed adds to fp32 +146 +holds +146\n", table), table
    assert re.search(r"bytes of these casts +813 MB .* holds +813 MB\n", table), table
    assert re.search(r"kernels of a compiled forward, fp16 +98 +holds +98\n", table), table
    assert "DOES NOT HOLD" not in done.stdout
    found = rows(tmp_path)
    assert len(found) == 4 * len(FLOATING) + 1
    assert all(row.device and row.device.simulated for row in found)


@pytest.mark.timeout(600)
def test_killed_at_a_moment_it_keeps_what_was_measured(
    machine: fakecuda.Machine, tmp_path: Path
) -> None:
    command = [sys.executable, SCRIPT, *REHEARSAL, "--only", "fp32", "--output", str(tmp_path)]
    process = subprocess.Popen(
        command,
        env=os.environ | machine.environment(["H100"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    seen = ""
    for line in process.stdout:
        seen += line
        if "gpt2:random eager batch 1 x 128 tokens: OK" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {(row.workload.model, row.workload.engine) for row in rows(tmp_path)}
    assert {("tiny", "eager"), ("gpt2:random", "eager")} <= kept, seen


@pytest.mark.timeout(600)
def test_a_gpu_that_is_lost_in_a_step_costs_what_follows_in_it(on_gpu: Run, tmp_path: Path) -> None:
    arguments = [SCRIPT, *REHEARSAL, "--only", "fp16", "--output", str(tmp_path)]
    # No call of the preflight comes as late.
    done = on_gpu("H100", arguments, ["illegal_address:20000"], check=False, timeout_s=500)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^fp16: .*illegal memory access.*, \d+\.\d s$", done.stdout, re.M)
    assert rows(tmp_path)


@pytest.mark.parametrize(
    ("nvml", "variables", "words"),
    [
        ((), {"LD_LIBRARY_PATH": ""}, "NVML does not tell of the GPU that CUDA uses"),
        (("uuid = GPU-00000000-1111-2222-3333-444444444444",), {}, "NVML finds no GPU"),
        (("mig = 1",), {}, "MIG is on"),
    ],
    ids=["no NVML", "another GPU", "MIG"],
)
def test_the_preflight_refuses_at_once(
    on_gpu: Run, tmp_path: Path, nvml: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    start_s = time.monotonic()
    arguments = [SCRIPT, "--output", str(tmp_path)]
    done = on_gpu("H100", arguments, nvml=nvml, check=False, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    (message,) = done.stderr.splitlines()
    assert words in message and message.startswith("gpu_check: ")
    assert time.monotonic() - start_s < 60
