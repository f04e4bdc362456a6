"""Predicted device memory against what torch's own allocator says, on modelled GPUs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run

# As bench.measure has it: the peak of a model alone and of its requests, which run to the end.
PEAKS = """
import gc, json, sys
import torch
from decoders import config_of
from bench import memory
from bench.asked import QUANTISED, Workload
from bench.device import precision
from bench.model import requests
from bench.model.load import load_model

def sized(family):
    wide = {"gpt2": {"n_layer": 3, "n_embd": 512, "n_head": 8, "n_positions": 1024}}.get(family, {
        "num_hidden_layers": 3, "hidden_size": 512, "num_attention_heads": 8,
        "intermediate_size": 1408, "ffn_dim": 1408,
        "word_embed_proj_dim": 512, "head_dim": 64, "max_position_embeddings": 1024,
    })
    wide = {key: value for key, value in wide.items() if key in config_of(family).to_dict()}
    return config_of(family, **wide, vocab_size=12_000)

folder, precisions = sys.argv[1], sys.argv[2].split(",")
ways = [("eager", 0), ("eager", 8), ("graph", 0), ("graph", 8)]
for turn, family in enumerate(sys.argv[3:]):
    sized(family).save_pretrained(f"{folder}/{family}")
    for index, name in enumerate(precisions):
        engine, new = ways[(turn + index) % (2 if name in QUANTISED else 4)]
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        asked = Workload(f"{folder}/{family}:random", engine, 8, 256, new)
        with precision.applied(name, "cuda"), torch.inference_mode():
            model = load_model(asked.model, name, "cuda")
            queue = requests.forward_queue("cuda", model, asked)
            for _ in range(2):
                queue.enqueue()
            queue.synchronise()
        peak = torch.cuda.max_memory_allocated() - before
        capability = torch.cuda.get_device_capability()
        found = memory.on_gpu(model.shape, asked, name, capability)
        print("SEEN", json.dumps([family, name, engine, new, peak, found.total_bytes]))
        del model, queue
"""
QUANTISED = "int8,int8-dynamic,int4,fp8"
EIGHT = ("gpt2", "llama", "qwen2", "qwen3", "gpt_neox", "opt", "phi3", "gemma")


@pytest.mark.parametrize(
    ("board", "precisions", "families"),
    [
        ("H100", "fp32,fp16,mixed", EIGHT),
        ("T4", "fp16,mixed", ("gpt2", "qwen2")),
        ("H100", QUANTISED, ("gpt2", "llama", "gpt_neox", "opt")),
    ],
)
def test_predicted_memory_is_within_a_tenth(
    on_gpu: Run, tmp_path: Path, board: str, precisions: str, families: tuple[str, ...]
) -> None:
    if precisions == QUANTISED:
        pytest.importorskip("torchao")
    code = tmp_path / "peaks.py"
    code.write_text(PEAKS)
    done = on_gpu(board, [str(code), str(tmp_path), precisions, *families])
    lines = [json.loads(line[5:]) for line in done.stdout.splitlines() if line[:4] == "SEEN"]
    assert len(lines) == len(precisions.split(",")) * len(families)
    off = {tuple(line[:4]): line[5] / line[4] - 1 for line in lines}
    assert {case: share for case, share in off.items() if abs(share) > 0.1} == {}
    print(max(off.items(), key=lambda item: abs(item[1])))
