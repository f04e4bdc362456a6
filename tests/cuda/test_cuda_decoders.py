"""Decoders of other families on the modelled GPU: nothing within a request waits for it."""

from __future__ import annotations

import json
from pathlib import Path

import decoders
import pytest
from conftest import Run

CODE = """
import sys, torch
from bench.device import precision
from bench.model import engines
from bench.model.load import load_model

model = load_model(sys.argv[1], sys.argv[2], "cuda")
ids = torch.ones(2, 14, dtype=torch.long, device="cuda")
with torch.inference_mode(), precision.applied(sys.argv[2], "cuda"):
    for engine in ("eager", "graph"):
        for run in (
            engines.forward(engine, model.module), engines.generation(engine, model.module, 4)
        ):
            run(ids)
            torch.cuda.set_sync_debug_mode("error")
            run(ids)
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize()
            print(engine)
"""


@pytest.mark.parametrize(("family", "precision"), [("llama", "fp16"), ("opt", "mixed")])
def test_a_request_waits_for_nothing_and_a_graph_holds_all_of_it(
    on_gpu: Run, tmp_path: Path, family: str, precision: str
) -> None:
    config = {"model_type": family, **decoders.CONFIGS[family]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = on_gpu("H100", ["-c", CODE, f"{tmp_path}:random", precision])
    assert done.stdout.split() == ["eager", "eager", "graph", "graph"]
