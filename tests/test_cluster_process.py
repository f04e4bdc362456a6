"""What runs on a node before anything is measured."""

from __future__ import annotations

from collections.abc import Callable

import fakenvml
import pytest

from bench.asked import CPU, Cell, QualityPlan, Sampling, Workload
from bench.errors import WrongDevice
from bench.measured import Measurement, Outcome, Stage
from bench.outcomes import DEVICE, Request
from cluster.process import CellActor


def request_of(gpu_type: str, *workloads: Workload) -> Request:
    quality = QualityPlan(enabled=False)
    asked = workloads or (Workload("tiny"),)
    return Request("run", Cell(gpu_type, "fp32"), 0, asked, Sampling(), quality)


def test_a_gpu_of_another_type_is_found_out_before_what_measures_is_imported(
    fake_nvml: Callable[..., fakenvml.FakeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml("gpu = t4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(WrongDevice, match="asked for A100, found Tesla T4"):
        next(CellActor().run("no_such_module:measure", request_of("A100")))


def test_what_cannot_be_imported_is_a_row_of_each_workload() -> None:
    request = request_of(CPU, Workload("tiny"), Workload("tiny", batch_size=2))
    first, *rows = CellActor().run("no_such_module:measure", request)
    # Before the import, which may take longer than the limit of the stage "starting".
    assert isinstance(first, Stage)
    assert first.name == DEVICE
    failed = "ModuleNotFoundError: No module named 'no_such_module'"
    for row, workload in zip(rows, request.workloads, strict=True):
        assert isinstance(row, Measurement)
        assert (row.workload, row.outcome, row.reason) == (workload, Outcome.FAILED, failed)
