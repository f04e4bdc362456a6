"""bench.profile.peaks: lower bounds by arithmetic, peaks by measurement."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import pytest

from bench.decoders import SHAPES, of_config
from bench.measured.profiled import Roofline
from bench.profile import peaks
from bench.profile.peaks import Peaks
from bench.profile.work import Work, work_of

GPT2 = work_of(SHAPES["gpt2"], 1, 128)
TINY = of_config({"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 100})
SMALL = work_of(TINY, 1, 8)
PEAKS = Peaks(
    matmul_tflops=10.0, copy_gb_per_s=500.0, read_gb_per_s=400.0, cache_bytes=4, launch_us=5.0
)


def roofline(
    work: Work, peak: Peaks = PEAKS, rate: float = 1.0, precision: str = "fp16"
) -> Roofline:
    return peaks.roofline(work, work.forward_bytes(4, 4), peak, rate, precision)


def test_lower_bounds_follow_from_work_and_peaks() -> None:
    limits = roofline(GPT2, rate=20.0)
    assert limits.flops == GPT2.flops
    assert limits.bytes_moved == sum(GPT2.forward_bytes(4, 4))
    assert limits.lower_bound_compute_ms == pytest.approx(GPT2.least_flops / 20e12 * 1e3)
    assert limits.lower_bound_memory_ms == pytest.approx((limits.bytes_moved - 4) / 500e9 * 1e3)
    assert limits.lower_bound_ms == limits.lower_bound_compute_ms
    assert (limits.lower_bound_launch_ms, limits.reason) == (None, None)
    assert (limits.matmul_tflops, limits.matmul_model_tflops, limits.launch_us) == (10, 20, 5)


def test_attention_of_fp32_may_run_on_tensor_cores() -> None:
    limits = roofline(GPT2, rate=20.0, precision="fp32")
    products = sum(product.flops for product in GPT2.products)
    assert limits.lower_bound_compute_ms == pytest.approx(products / 20e12 * 1e3)


def test_what_a_cache_can_keep_costs_no_memory() -> None:
    large = dataclasses.replace(PEAKS, cache_bytes=2**20)
    assert roofline(SMALL, large).lower_bound_memory_ms == 0


def test_a_cache_of_unknown_size_is_a_missing_lower_bound_with_its_reason() -> None:
    limits = roofline(GPT2, dataclasses.replace(PEAKS, cache_bytes=None))
    assert limits.lower_bound_memory_ms is None
    assert "last-level cache is unknown" in str(limits.reason)
    assert limits.lower_bound_ms == limits.lower_bound_compute_ms


def test_launches_are_a_lower_bound_where_each_kernel_is_launched() -> None:
    limits = roofline(SMALL)
    eager = peaks.with_launches(limits, 300.0)
    assert eager.lower_bound_launch_ms == eager.lower_bound_ms == pytest.approx(1.5)
    assert peaks.with_launches(limits, None) == limits


@pytest.mark.usefixtures("small_peaks")
@pytest.mark.parametrize("name", ["fp32", "mixed"])
def test_peaks_are_measured_once_in_a_process(name: str) -> None:
    found = peaks.peaks(name, "cpu", None)
    rates = (found.matmul_tflops, found.copy_gb_per_s, found.read_gb_per_s)
    assert all(0 < rate < math.inf for rate in rates)
    assert (found.cache_bytes, found.launch_us) == (2**14, None)
    assert peaks.peaks(name, "cpu", None) is found
    generation = work_of(TINY, 1, 8, 3)
    assert 0 < peaks.model_tflops(generation, name, "cpu") < math.inf


def measured(latency_ms: float | None, name: str = "fp32") -> Roofline:
    return peaks.measured_roofline(SMALL, name, "cpu", None, latency_ms)


def test_peaks_that_contradict_the_latency_are_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Low ones make the lower bound too high; a latency that stays below it is impossible."""
    tries: list[float] = []

    @functools.cache
    def disturbed(*_: object) -> Peaks:
        tries.append(1e-9 if len(tries) % 3 < 1 else 1e3)
        return Peaks(tries[-1], 1e3, 1e3, 2**14, None)

    monkeypatch.setattr(peaks, "peaks", disturbed)
    monkeypatch.setattr(peaks, "model_tflops", lambda *_: 1e-9)
    assert measured(1.0).matmul_tflops == 1e3
    assert tries == [1e-9, 1e3]
    assert measured(1e-12).matmul_tflops == 1e-9
    assert len(tries) == 4  # those of before, and two more tries
    assert measured(None).lower_bound_ms


def test_no_memory_for_peaks_is_a_reason_beside_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> Peaks:
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(peaks, "peaks", exhausted)
    limits = measured(1.0, "fp16")
    assert limits.reason == "no memory is left to measure peaks in"
    assert (limits.flops, limits.matmul_tflops, limits.lower_bound_ms) == (SMALL.flops, None, None)
    assert limits.bytes_moved == sum(SMALL.forward_bytes(2, 2))


def test_a_quantised_product_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Peaks:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\nmore")

    monkeypatch.setattr(peaks, "peaks", refused)
    limits = measured(1.0, "int8")
    assert limits.reason == "no peak of the quantised product: CUBLAS_STATUS_NOT_SUPPORTED"
    with pytest.raises(RuntimeError, match="CUBLAS"):
        measured(1.0, "fp16")


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
    assert peaks.cpu_cache_bytes(tmp_path) == 2 * 32 * 2**20


def test_a_host_that_tells_no_cache_has_none(tmp_path: Path) -> None:
    (tmp_path / "cpu0" / "cache" / "index3").mkdir(parents=True)
    assert peaks.cpu_cache_bytes(tmp_path) is None
