"""jobs.plan: what has no memory or no positions is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sweeps import Run

from bench import matrix as matrices
from bench.asked import Cell
from bench.decoders import SHAPES
from bench.device.kinds import Card
from cluster import placement
from jobs import plan


def matrix_of(path: Path, workloads: str, gpu_types: str = '["T4", "CPU"]') -> Path:
    path.write_text(f'[cells]\ngpu_types = {gpu_types}\nprecisions = ["fp16"]\n{workloads}')
    return path


def test_plan_says_what_runs_out_of_memory(run: Run, tmp_path: Path) -> None:
    asked = '[[workloads]]\nmodel = "Qwen/Qwen2.5-0.5B:random"\n'
    large = matrix_of(tmp_path / "m.toml", asked + "batch_size = [1, 64]\nprompt_tokens = 4096\n")
    shown = run("plan", str(large), "--gpu-type", "T4")
    assert shown.returncode == 1
    (line,) = (line for line in shown.stdout.splitlines() if "OUT_OF_MEMORY" in line)
    # In fp16 a T4 has no fused attention of grouped heads: all scores of 64 prompts.
    assert line.startswith("  OUT_OF_MEMORY: T4 fp16: Qwen/Qwen2.5-0.5B:random eager batch 64 x ")
    needs = "needs about 120.32 GiB (activations 119.39, weights 0.92, workspace 0.01)"
    assert line.endswith(f"{needs}, and has at most 16.0 GiB")


def test_plan_says_which_models_it_knows_nothing_of(run: Run, tmp_path: Path) -> None:
    known = tmp_path / "llama"
    known.mkdir()
    (known / "config.json").write_text(
        json.dumps({"model_type": "llama", "max_position_embeddings": 100})
    )
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    named = f'model = ["some/model", "{other}", "{known}"]\n'
    asked = matrix_of(tmp_path / "m.toml", f"[[workloads]]\n{named}", '["CPU"]')
    shown = run("plan", str(asked))
    assert shown.returncode == 1
    assert "memory not predicted for some/model: it is no folder here" in shown.stdout
    assert f'UNSUPPORTED: model {other}: model_type = "bert" must be one of gpt2' in shown.stdout
    assert (
        f"UNSUPPORTED: {known} eager batch 1 x 128 tokens: the model has 100 positions"
        in shown.stdout
    )
    alone = matrix_of(tmp_path / "n.toml", '[[workloads]]\nmodel = "some/model"\n', '["CPU"]')
    assert run("plan", str(alone)).returncode == 0


def told(place: plan.Place, precision: str, batch: int, gpu_type: str = "T4") -> list[str]:
    text = f'[[workloads]]\nmodel = "pythia-1b"\nbatch_size = {batch}\nprompt_tokens = 2048\n'
    asked = matrices.parse(text, "m.toml", "m")
    return list(map(str, plan.misfits(asked, [Cell(gpu_type, precision)], place, SHAPES)))


def test_close_to_all_memory_is_a_warning_and_a_driver_counts_more_than_a_datasheet() -> None:
    nowhere = plan.Place((), {}, False, {})
    assert nowhere.memory_bytes("T4") == 16 * 2**30
    assert nowhere.memory_bytes("Z9") is None
    assert plan.Place((), {}, False, {}, host_bytes=5).memory_bytes("CPU") == 5
    assert told(nowhere, "fp16", 1) == []
    assert told(nowhere, "fp16", 66)[0].startswith("warning: may be out of memory: T4 fp16: pyth")
    assert told(nowhere, "fp16", 90)[0].startswith("OUT_OF_MEMORY: T4 fp16: pythia-1b eager batch")
    small = (Card("Tesla T4", "GPU-1", 2 * 2**30, "7.5"),)
    card = plan.Place((), {}, False, {}, small)
    assert told(card, "fp16", 1)[0].endswith("and has 2.0 GiB")


def test_a_file_that_may_be_of_16_bits_is_not_surely_out_of_a_host_s_memory() -> None:
    """pythia-1b at bf16: 2 GB, and while it is loaded as much again, or twice that of float32."""
    for held, words in ((5, "warning: may be out of memory: CPU bf16"), (1, "OUT_OF_MEMORY: CPU")):
        (line,) = told(plan.Place((), {}, False, {}, host_bytes=held * 2**30), "bf16", 1, "CPU")
        assert line.startswith(words)


def test_many_lines_are_shortened() -> None:
    assert plan.shortened(["a"] * 12) == ["a"] * 12
    assert plan.shortened(["a"] * 14)[-2:] == ["a", "... and 2 more"]


@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ("tinny", "; did you mean tiny?"),
        ("gpt2x", "; did you mean gpt2?"),
        ("Qwen/Qwen2.5-7b:random", "; did you mean Qwen2.5-7B?"),
        ("some/model", ""),
    ],
)
def test_a_name_that_is_nearly_a_known_one_is_asked_about(model: str, ending: str) -> None:
    assert plan.nearest(model) == ending


def test_a_precision_that_no_gpu_of_a_type_has_is_said_wherever_the_type_is() -> None:
    nowhere = plan.Place((), {}, False, {})
    words, can_run = plan.verdict(Cell("P100", "fp8"), nowhere, here=True)
    assert words.startswith("UNPLACED: no P100 here (nothing at all)") and not can_run
    assert "; besides, fp8 needs compute capability 8.9: " in words
    assert "besides" not in plan.verdict(Cell("H100", "fp8"), nowhere, here=True)[0]
    cluster = plan.Place((), {"P100": placement.Offer("P100", 1, 1, 1)}, True, {})
    words, can_run = plan.verdict(Cell("P100", "fp8"), cluster, here=False)
    assert words.startswith("UNSUPPORTED: fp8 needs compute capability 8.9: ") and not can_run
    assert plan.verdict(Cell("P100", "fp16"), cluster, here=False)[1]
    assert plan.lacking(Cell("Z9", "fp8")) is None
