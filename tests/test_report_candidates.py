from __future__ import annotations

import numpy as np
import pytest

from bench.device import gpus
from bench.profile import work as gpt2
from jobs.report import candidates

SHAPE = gpt2.SHAPES["gpt2"]
STUDY_MS = {"fp32": 11.7, "fp16": 10.4, "mixed": 13.5}
STUDY_W = {"fp32": 49.6, "fp16": 35.6, "mixed": 46.7}


def test_the_stream_has_the_operations_and_casts_that_were_counted() -> None:
    (t4,) = gpus.named("T4")
    for precision, casts in (("fp32", 0), ("fp16", 0), ("mixed", 158)):
        launched, cast, seconds = candidates._stream(t4, precision, 5e12, SHAPE, 1, 128)
        assert (launched.sum(), cast.sum()) == (294, casts)
        assert (seconds > 0).all()


def test_gpt2_by_formula_is_gpt2_as_it_is_known() -> None:
    assert SHAPE.parameters == 124_439_808
    total = gpt2.block_flops(SHAPE, 1, 128) + gpt2.head_flops(SHAPE, 1, 128)
    assert total == pytest.approx(32.2e9, rel=0.01)
    assert gpt2.cast_bytes(SHAPE, 1, 128) == pytest.approx(827e6, rel=0.001)
    assert gpt2.scaled(158, gpt2.SHAPES["gpt2-medium"]) == 316
    assert gpt2.shape_of("openai-community/gpt2-xl") == gpt2.SHAPES["gpt2-xl"]
    assert gpt2.shape_of("tiny") is None


def test_a_forward_ends_with_the_slower_of_host_and_gpu() -> None:
    ones, none = np.ones(4), np.zeros(4)
    launch_s = candidates._LAUNCH_US * 1e-6
    slow_host = candidates._finish(ones, none, np.full(4, 1e-9))
    assert slow_host[:, 0] == pytest.approx(4 * launch_s + 1e-9)
    slow_gpu = candidates._finish(ones, none, np.full(4, 1.0))
    assert slow_gpu[:, 0] == pytest.approx(launch_s + 4.0)


def test_the_model_finds_the_board_that_made_the_numbers() -> None:
    (fit, *_) = candidates.rank(STUDY_MS, STUDY_W, SHAPE, 1, 128, gpus.named("T4"))
    made_ms = dict(fit.latencies_ms)
    made_w = {p: fit.power_w(p) or 0.0 for p in made_ms}
    ranked = candidates.rank(made_ms, made_w, SHAPE, 1, 128)
    assert ranked[0].gpu.name == "T4"
    assert ranked[0].error < 0.005
    assert ranked[0].launch_us == fit.launch_us
    assert next(f for f in ranked if f.gpu.gpu_type == "P100").verdict != "fits"


def test_latencies_alone_fit_almost_any_type() -> None:
    ranked = candidates.rank(STUDY_MS, {}, SHAPE, 1, 128)
    assert {fit.gpu.gpu_type for fit in ranked} == {gpu.gpu_type for gpu in gpus.GPUS}
    assert all(fit.verdict == "fits" for fit in ranked)
    assert all(fit.power_w("fp32") is None for fit in ranked)


def test_there_is_no_ranking_where_the_model_does_not_hold() -> None:
    assert candidates.rank({"fp32": 11.7}, {}, SHAPE, 1, 128) == []
    assert candidates.rank(STUDY_MS, {}, gpt2.SHAPES["gpt2-xl"], 1, 128) == []
    assert candidates.rank(STUDY_MS, {}, SHAPE, 8, 128) == []
