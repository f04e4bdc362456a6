"""What runs on a node before anything is measured."""

from __future__ import annotations

from collections.abc import Callable

import fakenvml
import pytest

from bench.asked import Cell, QualityPlan, Sampling, Workload
from bench.errors import WrongDevice
from bench.outcomes import Request
from cluster.process import CellActor


def test_a_gpu_of_another_type_is_found_out_before_what_measures_is_imported(
    fake_nvml: Callable[..., fakenvml.FakeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml("gpu = t4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    cell, quality = Cell("A100", "fp16"), QualityPlan(enabled=False)
    request = Request("run", cell, 0, (Workload("tiny"),), Sampling(), quality)
    with pytest.raises(WrongDevice, match="asked for A100, found Tesla T4"):
        next(CellActor().run("no_such_module:measure", request))
