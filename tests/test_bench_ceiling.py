"""bench.profile.peaks: work by formula against torch's counter, floors by arithmetic."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from bench.asked import Workload
from bench.measured import Trace
from bench.model import engines
from bench.profile import peaks as ceiling
from bench.profile.peaks import Peaks

GPT2 = GPT2Config()
SMALL = GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=100, n_positions=64)
PEAKS = Peaks(
    matmul_tflops=10.0, copy_gb_per_s=500.0, read_gb_per_s=400.0, cache_bytes=4, launch_us=5.0
)


def counted(config: GPT2Config, workload: Workload) -> int:
    """torch's own count, on the meta device, which computes nothing."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(config).eval()
        ids = torch.zeros(workload.batch_size, workload.prompt_tokens, dtype=torch.long)
    run = engines.forward("eager", model)
    if workload.new_tokens:
        run = engines.generation("eager", model, workload.new_tokens)
    with torch.inference_mode():
        run(ids)  # the first generation also fills its cache once
        with FlopCounterMode(display=False) as counter:
            run(ids)
    return int(counter.get_total_flops())


def test_gpt2_at_128_tokens_is_32_gflop() -> None:
    found = ceiling.work(GPT2, Workload("gpt2"), 4, 4)
    assert found.flops == pytest.approx(32.2e9, rel=0.01)
    assert found.flops == counted(GPT2, Workload("gpt2"))


@pytest.mark.parametrize(("batch", "prompt", "new"), [(1, 16, 0), (3, 8, 0), (1, 16, 1), (2, 8, 5)])
def test_flops_are_those_of_torchs_counter(batch: int, prompt: int, new: int) -> None:
    workload = Workload("small", "eager", batch, prompt, new)
    assert ceiling.work(SMALL, workload, 4, 4).flops == counted(SMALL, workload)


def test_bytes_of_a_forward_are_weights_and_logits() -> None:
    workload = Workload("gpt2")
    fp32 = ceiling.work(GPT2, workload, 4, 4)
    logits = 128 * 50257
    # 494.6 MB of weights with biases, layer norms and positions, which are 0.9 MB.
    assert fp32.forward_bytes == (pytest.approx(494.6e6 + 4 * logits, rel=0.003),)
    (mixed,) = ceiling.work(GPT2, workload, 4, 2).forward_bytes
    assert fp32.forward_bytes[0] - mixed == 2 * logits


def test_each_new_token_reads_the_weights_again_and_one_more_key() -> None:
    found = ceiling.work(SMALL, Workload("small", "eager", 1, 8, 4), 4, 4)
    assert len(found.forward_bytes) == 4
    per_key = 2 * 2 * 32 * 4
    assert [b - a for a, b in zip(found.forward_bytes, found.forward_bytes[1:], strict=False)] == [
        per_key
    ] * 3


@given(st.integers(1, 8), st.integers(1, 200), st.integers(0, 50))
def test_what_cannot_be_spared_is_less_than_what_is_counted(
    batch: int, prompt: int, new: int
) -> None:
    found = ceiling.work(GPT2, Workload("gpt2", "eager", batch, prompt, new), 2, 2)
    assert 0 < found.least_flops <= found.flops
    assert len(found.forward_bytes) == max(1, new)
    assert sum(p.flops for p in found.products) <= found.least_flops


def test_floors_follow_from_work_and_peaks() -> None:
    found = ceiling.work(GPT2, Workload("gpt2"), 4, 4)
    limits = ceiling.ceiling(found, PEAKS, 20.0, "fp16")
    assert limits.flops == found.flops
    assert limits.lower_bound_compute_ms == pytest.approx(found.least_flops / 20e12 * 1e3)
    assert limits.lower_bound_memory_ms == pytest.approx((limits.bytes_moved - 4) / 500e9 * 1e3)
    assert limits.lower_bound_ms == limits.lower_bound_compute_ms
    assert (limits.lower_bound_launch_ms, limits.reason) == (None, None)


def test_attention_of_fp32_may_run_on_tensor_cores() -> None:
    found = ceiling.work(GPT2, Workload("gpt2"), 4, 4)
    limits = ceiling.ceiling(found, PEAKS, 20.0, "fp32")
    products = sum(product.flops for product in found.products)
    assert limits.lower_bound_compute_ms == pytest.approx(products / 20e12 * 1e3)


def test_what_a_cache_can_keep_costs_no_memory() -> None:
    found = ceiling.work(SMALL, Workload("small", "eager", 1, 8), 4, 4)
    large = dataclasses.replace(PEAKS, cache_bytes=2**20)
    assert ceiling.ceiling(found, large, 1.0, "fp16").lower_bound_memory_ms == 0


def test_a_cache_of_unknown_size_is_a_missing_floor_with_its_reason() -> None:
    found = ceiling.work(GPT2, Workload("gpt2"), 4, 4)
    limits = ceiling.ceiling(found, dataclasses.replace(PEAKS, cache_bytes=None), 1.0, "fp16")
    assert limits.lower_bound_memory_ms is None
    assert "last-level cache is unknown" in str(limits.reason)
    assert limits.lower_bound_ms == limits.lower_bound_compute_ms


def test_launches_are_a_floor_where_each_kernel_is_launched() -> None:
    found = ceiling.work(SMALL, Workload("small", "eager", 1, 8), 4, 4)
    limits = ceiling.ceiling(found, PEAKS, 1.0, "fp16")
    seen = Trace("kernel", count=300.0)
    eager = ceiling.with_launches(limits, "eager", seen)
    assert eager.lower_bound_launch_ms == eager.lower_bound_ms == pytest.approx(1.5)
    assert ceiling.with_launches(limits, "graph", seen) == limits
    assert ceiling.with_launches(limits, "eager", Trace("none")) == limits


@pytest.mark.usefixtures("small_peaks")
@pytest.mark.parametrize("name", ["fp32", "mixed"])
def test_peaks_are_measured_once_in_a_process(name: str) -> None:
    found = ceiling.peaks(name, "cpu", None)
    rates = (found.matmul_tflops, found.copy_gb_per_s, found.read_gb_per_s)
    assert all(0 < rate < math.inf for rate in rates)
    assert (found.cache_bytes, found.launch_us) == (2**14, None)
    assert ceiling.peaks(name, "cpu", None) is found
    small = ceiling.work(SMALL, Workload("small", "eager", 1, 8, 3), 4, 4)
    assert 0 < ceiling.model_tflops(small, name, "cpu") < math.inf


def test_the_last_level_caches_of_a_host_are_added_up(tmp_path: Path) -> None:
    for cpu, level, size, shared in [
        (0, 2, "512K", "0"),
        (0, 3, "32768K", "0-1"),
        (1, 3, "32768K", "0-1"),
        (2, 3, "32768K", "2-3"),
    ]:
        index = tmp_path / f"cpu{cpu}" / "cache" / f"index{level}"
        index.mkdir(parents=True)
        for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
            (index / name).write_text(f"{text}\n")
    assert ceiling.cpu_cache_bytes(tmp_path) == 2 * 32 * 2**20


def test_a_host_that_tells_no_cache_has_none(tmp_path: Path) -> None:
    (tmp_path / "cpu0" / "cache" / "index3").mkdir(parents=True)
    assert ceiling.cpu_cache_bytes(tmp_path) is None
