"""Rows of modelled GPUs: their profiles, the attention that ran and was asked for, their memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import fakecuda
import pytest

ROWS = """
import dataclasses, json, sys
from bench.asked import Cell, QualityPlan, Sampling, Workload
from bench.measure import measure
from bench.measured import Measurement, Profile
from bench.outcomes import Request

asked = json.loads({!r})
sampling = Sampling(**asked["sampling"])
for precision in asked["precisions"]:
    request = Request(
        run="r", cell=Cell(asked["gpu_type"], precision), replicate=0,
        workloads=tuple(Workload(**workload) for workload in asked["workloads"]),
        sampling=sampling, quality=QualityPlan(enabled=asked["quality"]), simulated=True,
    )
    rows = {{}}
    for event in measure(request):
        if isinstance(event, Measurement):
            rows[event.workload] = event
        elif isinstance(event, Profile):
            row = rows[event.workload]
            rows[event.workload] = dataclasses.replace(
                row, trace=event.trace, roofline=event.roofline,
                warnings=row.warnings + event.warnings,
            )
    for row in rows.values():
        print("ROW", json.dumps(dataclasses.asdict(row), default=str))
"""
SAMPLING = {
    "warmup_min_s": 0,
    "warmup_max_s": 0.01,
    "latency_min_s": 0,
    "latency_max_s": 1,
    "min_samples": 5,
    "median_within": 0.5,
    "throughput_s": 0.01,
    "energy": "none",
}
WORKLOAD = {"model": "gpt2:random", "prompt_tokens": 32}
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def rows(on_gpu: Any) -> Rows:
    """A function that measures workloads of GPT-2 on a board; each row with its profile."""

    def measured(
        gpu_type: str,
        precisions: str,
        *workloads: dict[str, Any],
        profile: bool = True,
        faults: Iterable[str] = (),
        nvml: Iterable[str] = (),
        board: fakecuda.Board | None = None,
        sampling: Mapping[str, Any] | None = None,
        quality: bool = False,
        **variables: str,
    ) -> list[dict[str, Any]]:
        asked = {
            "gpu_type": gpu_type,
            "precisions": precisions.split(),
            "workloads": [WORKLOAD | workload for workload in workloads or [{}]],
            "sampling": SAMPLING | {"profile": profile} | dict(sampling or {}),
            "quality": quality,
        }
        done = on_gpu(
            board or gpu_type, ROWS.format(json.dumps(asked)), faults, nvml=nvml, **variables
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("ROW ")]
        return [json.loads(line.removeprefix("ROW ")) for line in lines]

    return measured


def ran(row: dict[str, Any]) -> str:
    """The attention of a row that is OK, else why it is not."""
    return str(row["trace"]["attention"] if row["outcome"] == "OK" else row["reason"])


# ------------------------------------------------------------------------------- profiles


def test_an_engine_that_breaks_costs_the_others_no_profile(rows: Rows, tmp_path: Path) -> None:
    engines = [{"engine": engine} for engine in ("eager", "graph", "compile")]
    # Nothing that was compiled before may help it.
    caches = {name: str(tmp_path) for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")}
    eager, graph, broken = rows("H100", "fp16", *engines, CC="/bin/false", **caches)
    assert (broken["outcome"], broken["trace"]) == ("FAILED", None)
    for row in (eager, graph):
        assert (row["outcome"], row["trace"]["level"]) == ("OK", "kernel")
        assert row["roofline"]["lower_bound_ms"]


def test_a_context_that_broke_gives_the_rows_before_the_reason(rows: Rows) -> None:
    # Within the second workload: a forward has some 210 kernels, one of its requests 50 forwards.
    found = rows("H100", "fp16", {}, {"new_tokens": 50}, faults=["illegal_address:14000"])
    assert [row["outcome"] for row in found] == ["OK", "FAILED"]
    first, other = found
    assert first["timing"]["latency_ms_p50"] and first["roofline"] is None
    assert first["trace"]["reason"].startswith("the device failed before the profile")
    assert "illegal memory access" in first["trace"]["reason"]
    assert "illegal memory access" in other["reason"]


def test_the_bytes_of_casts_are_counted_on_this_torch(rows: Rows) -> None:
    (row,) = rows("H100", "mixed", {"prompt_tokens": 128})
    assert row["trace"]["cast_count"] == 146
    assert row["trace"]["cast_bytes"] == pytest.approx(813.06e6, rel=1e-4)


def test_a_graph_has_no_busy_share_and_no_row_more_than_all(rows: Rows) -> None:
    workload = {"batch_size": 64, "prompt_tokens": 128}
    eager, graph = rows("T4", "fp32", workload, workload | {"engine": "graph"})
    assert 0.9 < eager["trace"]["busy_share"] <= 1
    assert graph["trace"]["busy_share"] is None
    assert "no busy share" in graph["trace"]["reason"]


# ------------------------------------------------------------------------------- attention


@pytest.mark.parametrize(
    ("gpu_type", "precisions", "expected"),
    [
        ("H100", "fp32 fp16 bf16 mixed", ["efficient", "cudnn", "cudnn", "cudnn"]),
        ("A100", "fp32 fp16 mixed", ["efficient", "flash", "flash"]),
        ("V100", "fp32 fp16", ["efficient", "efficient"]),
        ("P100", "fp32 fp16", ["efficient", "efficient"]),
    ],
)
def test_the_attention_that_torch_chose_is_told(
    rows: Rows, gpu_type: str, precisions: str, expected: list[str]
) -> None:
    assert [ran(row) for row in rows(gpu_type, precisions)] == expected


def test_an_attention_asked_for_is_the_one_that_runs_in_each_engine(rows: Rows) -> None:
    asked = [
        {"engine": engine, "attention": attention}
        for engine in ("eager", "graph", "compile")
        for attention in ("flash", "efficient", "math")
    ]
    found = rows("H100", "fp16", *asked)
    assert [ran(row) for row in found] == [workload["attention"] for workload in asked]


@pytest.mark.parametrize(
    ("gpu_type", "precision", "workload", "why"),
    [
        ("H100", "fp32", {"attention": "flash"}, "of dtype: {Half, BFloat16}"),
        ("H100", "fp32", {"attention": "cudnn"}, "of dtype: {Half, BFloat16}"),
        ("H100", "fp16", {"attention": "flash", "new_tokens": 3}, "non-null attn_mask"),
        ("V100", "fp16", {"attention": "flash"}, "gpu architectures"),
    ],
)
def test_an_attention_that_a_gpu_lacks_is_a_row_with_what_torch_says(
    rows: Rows, gpu_type: str, precision: str, workload: dict[str, Any], why: str
) -> None:
    lacked, other = rows(gpu_type, precision, workload, {}, profile=False)
    assert (lacked["outcome"], other["outcome"]) == ("UNSUPPORTED", "OK")
    assert why in lacked["reason"]


def test_new_tokens_have_an_attention_with_a_mask(rows: Rows) -> None:
    auto, pinned = rows("A100", "fp16", {"new_tokens": 2}, {"new_tokens": 2, "attention": "math"})
    assert (ran(auto), ran(pinned)) == ("flash + efficient", "math")


# ------------------------------------------------------------------------------- memory


def test_a_graph_needs_no_second_workspace_of_cublas(rows: Rows) -> None:
    different = [
        {"engine": engine, "batch_size": size} for size in (4, 5) for engine in ("eager", "graph")
    ]
    peaks = [
        row["timing"]["peak_memory_bytes"]
        for row in rows("H100", "fp16", *different, profile=False)
    ]
    # Two MB of inputs and of a graph's own copies of them; a workspace has 32 MiB.
    assert abs(peaks[1] - peaks[0]) < 2e6
    assert abs(peaks[3] - peaks[2]) < 2e6


# --------------------------------------------------------------------------------- energy


@pytest.mark.parametrize(("scale", "contradicts"), [("1.3", True), ("1.0", False)])
def test_a_wrong_counter_contradicts_the_readings_without_a_probe(
    rows: Rows, scale: str, contradicts: bool
) -> None:
    (row,) = rows(
        "V100",
        "fp16",
        {"engine": "graph", "prompt_tokens": 128},
        profile=False,
        nvml=[f"energy_scale = {scale}"],
        sampling={"energy": "quick", "energy_s": 4, "idle_s": 0.5},
    )
    codes = [warning["code"] for warning in row["warnings"]]
    assert ("counter-disagrees" in codes) == contradicts, codes


# --------------------------------------------------------------------------------- faults


def test_memory_that_runs_out_costs_one_row(rows: Rows) -> None:
    small = fakecuda.with_memory("T4", 2)
    workloads = [{"batch_size": size, "prompt_tokens": 128} for size in (1, 256, 2)]
    found = rows("T4", "fp16", *workloads, board=small, profile=False)
    assert [row["outcome"] for row in found] == ["OK", "OUT_OF_MEMORY", "OK"]
    assert found[1]["reason"].startswith("CUDA out of memory. Tried to allocate")


def test_a_gpu_that_falls_off_the_bus_is_lost(rows: Rows) -> None:
    engines = ({"engine": "eager"}, {"engine": "graph"})
    first, second = rows("H100", "fp16", *engines, faults=["lost_in_graph:500"])
    assert (first["outcome"], second["outcome"]) == ("OK", "LOST")
    assert "GPU is lost" in second["reason"]
    assert first["timing"]["latency_ms_p50"]


def test_without_permission_to_profile_only_the_profile_is_missing(rows: Rows) -> None:
    (row,) = rows("H100", "fp16", faults=["cupti"])
    assert row["outcome"] == "OK"
    assert row["trace"]["level"] == "none"
    assert "CUPTI is not permitted here" in row["trace"]["reason"]
    assert row["roofline"]["matmul_tflops"]


def test_a_torch_without_kernels_for_the_gpu_names_the_one_that_has_them(rows: Rows) -> None:
    (row,) = rows("P100", "fp32", faults=["no_image"])
    assert row["outcome"] == "UNSUPPORTED"
    assert "has no kernels for Tesla P100-PCIE-16GB (sm_60" in row["reason"]
    assert "pip install 'torch<2.15' --index-url" in row["reason"]


def test_a_row_without_perplexity_says_that_a_model_computes_nothing(rows: Rows) -> None:
    (row,) = rows("H100", "fp16", {"model": "tiny"}, profile=False, quality=True)
    assert row["quality"]["reason"] == "a modelled GPU computes nothing"
    assert row["quality"]["perplexity"] is None
