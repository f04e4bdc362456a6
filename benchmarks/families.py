"""Are other decoders than GPT-2 counted, scored and predicted rightly, and how long do they take?

    python benchmarks/families.py

A model of each of nine families, small and with random weights, saved as transformers saves it and
loaded from there, on a GPU if there is one. Beside it torch's counter of operations, lm-eval with
its own code, and torch's own record of memory. Exits 1 where a goal is missed:

    parameters   as many as the module has
    FLOPs        within 1 % of torch.utils.flop_counter, of a forward pass
    perplexity   within 1e-6 nats per token of lm-eval's wikitext task, on four short pages
    memory       within 10 % of torch's peak, weights and requests; on a GPU only
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from decoders import on_meta
from test_bench_lm_eval import ARTICLE, TOKENIZER_OF, by_lm_eval, saved
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig
from transformers.utils import logging as of_transformers

from bench import inventory, memory
from bench.asked import CPU, Cell, QualityPlan, Sampling, Workload
from bench.device import gpus
from bench.measure import measure
from bench.measured import Measurement
from bench.model import engines
from bench.model.load import load_model
from bench.outcomes import Request
from bench.perplexity.evaluate import evaluate
from bench.profile.work import work_of
from bench.text.load import Text

FLOPS_GOAL, NATS_GOAL = 0.01, 1e-6
BATCH, TOKENS = 4, 24  # within the windows of those that have one
SAMPLING = Sampling(
    warmup_min_s=0.2,
    warmup_max_s=1,
    latency_min_s=0.5,
    latency_max_s=2,
    min_samples=50,
    throughput_s=0.1,
    energy="none",
    profile=False,
)
PRECISIONS = ("fp32", "bf16")


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    of_transformers.disable_progress_bar()
    gpu_type = next((card.gpu_type for card in inventory.visible_gpus()), CPU)
    print(f"on {gpu_type}, torch {torch.__version__}, batch {BATCH} x {TOKENS} tokens")
    print(f"{'family':9} {'parameters':>10} {'FLOPs':>9} {'of torch':>9} {'nats off':>9}", end="")
    print("".join(f"{name + ' ms [95 %]':>22}" for name in PRECISIONS), f"{'memory':>9}")
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in TOKENIZER_OF:
            place = saved(family, Path(folder) / family)
            for what, off in compared(family, place, gpu_type).items():
                worst[what] = max(worst.get(what, 0.0), abs(off))
    goals = {"parameters": 0, "FLOPs": FLOPS_GOAL, "nats": NATS_GOAL, "memory": memory.WITHIN}
    told = ", ".join(f"{what} {off:.2g} (goal {goals[what]:g})" for what, off in worst.items())
    print(f"farthest off of {len(TOKENIZER_OF)} families: {told}")
    return int(any(off > goals[what] for what, off in worst.items()))


def compared(family: str, place: Path, gpu_type: str) -> dict[str, float]:
    """Print the line of a family; how far each number is from its peer's."""
    model = load_model(str(place), "fp32", "cpu")
    parameters, ours = model.module.num_parameters(), work_of(model.shape, BATCH, TOKENS).flops
    # Of a CPU's fused attention torch counts nothing.
    hollow = on_meta(AutoConfig.from_pretrained(place))
    hollow.config.pad_token_id = None
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        engines.forward("eager", hollow)(
            torch.zeros(BATCH, TOKENS, dtype=torch.long, device="meta")
        )
    flops = ours / counter.get_total_flops() - 1
    text = Text.of("a text", ARTICLE)
    found = evaluate(model, text, QualityPlan(mode="lm-eval", context=64))
    assert found.nats is not None
    assert found.context is not None
    assert found.tokens is not None
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):  # its progress
        theirs = by_lm_eval(place, text, found.context, batch=2)
    nats = (found.nats - theirs["nats"]) / found.tokens
    rows = [row_of(place, Cell(gpu_type, name)) for name in PRECISIONS]
    off = {"parameters": float(model.shape.parameters - parameters), "FLOPs": flops, "nats": nats}
    peak = rows[0].timing and rows[0].timing.peak_memory_bytes
    if peak and rows[0].device:
        capability = gpus.capability(rows[0].device.compute_capability) or (9, 0)
        asked = rows[0].workload
        off["memory"] = memory.on_gpu(model.shape, asked, "fp32", capability).total_bytes / peak - 1
    print(f"{family:9} {parameters:10,} {ours:9.3g} {1 + flops:9.4f} {nats:9.1e}", end="")
    print("".join(f"{latency(row):>22}" for row in rows), end="")
    print(f"{off['memory']:+9.1%}" if "memory" in off else f"{'-':>9}")
    return off


def row_of(place: Path, cell: Cell) -> Measurement:
    """A model's row on this machine."""
    asked = (Workload(str(place), "eager", BATCH, TOKENS),)
    events = measure(Request("run", cell, 0, asked, SAMPLING, QualityPlan(enabled=False)))
    (row,) = (event for event in events if isinstance(event, Measurement))
    return row


def latency(row: Measurement) -> str:
    """The median with its interval, or why there is none."""
    times = row.timing
    if times is None or times.latency_ms_p50_low is None or times.latency_ms_p50_high is None:
        return str(row.outcome)
    low, high = times.latency_ms_p50_low, times.latency_ms_p50_high
    return f"{times.latency_ms_p50:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
