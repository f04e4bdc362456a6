"""Rows of modelled GPUs: their profiles, the attention that ran and was asked for, their memory.

A process takes 7 s to import all. So what is `shared` is measured with all else that is shared of
its board in one process, at the first test that needs it. A fault has a process of its own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fakecuda
import pytest
from conftest import Run

ROWS = """
import dataclasses, json
from bench.asked import Cell, QualityPlan, Sampling, Workload
from bench.measure import measure
from bench.measured import Measurement, Profile
from bench.outcomes import Request

for number, asked in enumerate(json.loads({!r})):
    for precision in asked["precisions"].split():
        request = Request(
            run="r", cell=Cell(asked["gpu_type"], precision), replicate=0,
            workloads=tuple(Workload(**workload) for workload in asked["workloads"]),
            sampling=Sampling(**asked["sampling"]),
            quality=QualityPlan(enabled=asked["quality"]), simulated=True,
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
            print("ROW", json.dumps([number, dataclasses.asdict(row)], default=str))
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
Row = dict[str, Any]
Alone = Callable[..., list[Row]]
Shared = Callable[["Asked"], list[Row]]

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Asked:
    """Workloads on a board, each at some precisions."""

    gpu_type: str
    precisions: str
    workloads: list[dict[str, Any]]
    sampling: dict[str, Any]
    quality: bool


SHARED: dict[str, list[Asked]] = defaultdict(list)  # by board


def ask(
    gpu_type: str, precisions: str, *workloads: Row, quality: bool = False, **sampling: Any
) -> Asked:
    """What to measure: forwards of GPT-2, each with a profile."""
    each = [WORKLOAD | workload for workload in workloads or [{}]]
    return Asked(gpu_type, precisions, each, SAMPLING | sampling, quality)


def shared(*arguments: Any, **options: Any) -> Asked:
    """What to measure with all else that is shared of this board."""
    asked = ask(*arguments, **options)
    SHARED[asked.gpu_type].append(asked)
    return asked


def measured(run: Callable[[str], Any], asked: list[Asked]) -> list[list[Row]]:
    """The rows of each, measured in one process, which `run` starts."""
    done = run(ROWS.format(json.dumps([asdict(one) for one in asked])))
    found: list[list[Row]] = [[] for _ in asked]
    for line in done.stdout.splitlines():
        if line.startswith("ROW "):
            number, row = json.loads(line.removeprefix("ROW "))
            found[number].append(row)
    return found


@pytest.fixture
def alone(on_gpu: Run) -> Alone:
    """A function that measures in a process of its own; it takes the options of `on_gpu`."""

    def rows(asked: Asked, board: fakecuda.Board | None = None, **options: Any) -> list[Row]:
        return measured(lambda code: on_gpu(board or asked.gpu_type, code, **options), [asked])[0]

    return rows


@pytest.fixture(scope="module")
def rows(on_gpu: Run) -> Shared:
    """A function that gives the rows of what is shared."""
    found: dict[str, list[list[Row]]] = {}

    def rows(asked: Asked) -> list[Row]:
        board = asked.gpu_type
        if board not in found:
            found[board] = measured(lambda code: on_gpu(board, code, timeout_s=1100), SHARED[board])
        return found[board][SHARED[board].index(asked)]

    return rows


def ran(row: Row) -> str:
    """The attention of a row that is OK, else why it is not."""
    return str(row["trace"]["attention"] if row["outcome"] == "OK" else row["reason"])


# ------------------------------------------------------------------------------- profiles


def test_an_engine_that_breaks_costs_the_others_no_profile(alone: Alone, tmp_path: Path) -> None:
    engines = [{"engine": engine} for engine in ("eager", "graph", "compile")]
    # Nothing that was compiled before may help it.
    caches = {name: str(tmp_path) for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")}
    eager, graph, broken = alone(ask("H100", "fp16", *engines), CC="/bin/false", **caches)
    assert (broken["outcome"], broken["trace"]) == ("FAILED", None)
    for row in (eager, graph):
        assert (row["outcome"], row["trace"]["level"]) == ("OK", "kernel")
        assert row["roofline"]["lower_bound_ms"]


def test_a_context_that_broke_gives_the_rows_before_the_reason(alone: Alone) -> None:
    # Only the second workload replays a graph. How many kernels the first starts, a clock decides.
    asked = ask("H100", "fp16", {}, {"engine": "graph"})
    found = alone(asked, faults=["illegal_address_in_graph:500"])
    assert [row["outcome"] for row in found] == ["OK", "FAILED"]
    first, other = found
    assert first["timing"]["latency_ms_p50"] and first["roofline"] is None
    assert first["trace"]["reason"].startswith("the device failed before the profile")
    assert "illegal memory access" in first["trace"]["reason"]
    assert "illegal memory access" in other["reason"]


CASTS = shared("H100", "mixed", {"prompt_tokens": 128})


def test_the_bytes_of_casts_are_counted_on_this_torch(rows: Shared) -> None:
    (row,) = rows(CASTS)
    assert row["trace"]["cast_count"] == 146
    assert row["trace"]["cast_bytes"] == pytest.approx(813.06e6, rel=1e-4)


def test_a_graph_has_no_busy_share_and_no_row_more_than_all(alone: Alone) -> None:
    workload = {"batch_size": 64, "prompt_tokens": 128}
    eager, graph = alone(ask("T4", "fp32", workload, workload | {"engine": "graph"}))
    assert 0.9 < eager["trace"]["busy_share"] <= 1
    assert graph["trace"]["busy_share"] is None
    assert "no busy share" in graph["trace"]["reason"]


# ------------------------------------------------------------------------------- attention


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (shared("H100", "fp32 fp16 bf16 mixed"), ["efficient", "cudnn", "cudnn", "cudnn"]),
        (shared("A100", "fp32 fp16 mixed"), ["efficient", "flash", "flash"]),
        (shared("V100", "fp32 fp16"), ["efficient", "efficient"]),
        (shared("P100", "fp32 fp16"), ["efficient", "efficient"]),
    ],
    ids=["H100", "A100", "V100", "P100"],
)
def test_the_attention_that_torch_chose_is_told(
    rows: Shared, asked: Asked, expected: list[str]
) -> None:
    assert [ran(row) for row in rows(asked)] == expected


EACH_ENGINE = [
    {"engine": engine, "attention": attention}
    for engine in ("eager", "graph", "compile")
    for attention in ("flash", "efficient", "math")
]
PINNED = shared("H100", "fp16", *EACH_ENGINE)


def test_an_attention_asked_for_is_the_one_that_runs_in_each_engine(rows: Shared) -> None:
    assert [ran(row) for row in rows(PINNED)] == [one["attention"] for one in EACH_ENGINE]


def lacked(gpu_type: str, precision: str, attention: str, new_tokens: int = 0) -> Asked:
    """A workload whose attention this GPU lacks, and one that it has."""
    workload = {"attention": attention, "new_tokens": new_tokens}
    return shared(gpu_type, precision, workload, {}, profile=False)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (lacked("H100", "fp32", "flash"), "of dtype: {Half, BFloat16}"),
        (lacked("H100", "fp32", "cudnn"), "of dtype: {Half, BFloat16}"),
        (lacked("H100", "fp16", "flash", new_tokens=3), "non-null attn_mask"),
        (lacked("V100", "fp16", "flash"), "gpu architectures"),
    ],
    ids=["type of flash", "type of cudnn", "mask", "architecture"],
)
def test_an_attention_that_a_gpu_lacks_is_a_row_with_what_torch_says(
    rows: Shared, asked: Asked, why: str
) -> None:
    lacking, other = rows(asked)
    assert (lacking["outcome"], other["outcome"]) == ("UNSUPPORTED", "OK")
    assert why in lacking["reason"]


NEW_TOKENS = shared("A100", "fp16", {"new_tokens": 2}, {"new_tokens": 2, "attention": "math"})


def test_new_tokens_have_an_attention_with_a_mask(rows: Shared) -> None:
    auto, pinned = rows(NEW_TOKENS)
    assert (ran(auto), ran(pinned)) == ("flash + efficient", "math")


# ------------------------------------------------------------------------------- memory


DIFFERENT = [
    {"engine": engine, "batch_size": size} for size in (4, 5) for engine in ("eager", "graph")
]
MEMORY = shared("H100", "fp16", *DIFFERENT, profile=False)


def test_a_graph_needs_no_second_workspace_of_cublas(rows: Shared) -> None:
    peaks = [row["timing"]["peak_memory_bytes"] for row in rows(MEMORY)]
    # Two MB of inputs and of a graph's own copies of them; a workspace has 32 MiB.
    assert abs(peaks[1] - peaks[0]) < 2e6
    assert abs(peaks[3] - peaks[2]) < 2e6


# --------------------------------------------------------------------------------- energy


@pytest.mark.parametrize(("scale", "contradicts"), [("1.3", True), ("1.0", False)])
def test_a_wrong_counter_contradicts_the_readings_without_a_probe(
    alone: Alone, scale: str, contradicts: bool
) -> None:
    sampling = {"profile": False, "energy": "quick", "energy_s": 4, "idle_s": 0.5}
    asked = ask("V100", "fp16", {"engine": "graph", "prompt_tokens": 128}, **sampling)
    (row,) = alone(asked, nvml=[f"energy_scale = {scale}"])
    codes = [warning["code"] for warning in row["warnings"]]
    assert ("counter-disagrees" in codes) == contradicts, codes


# --------------------------------------------------------------------------------- faults


def test_memory_that_runs_out_costs_one_row(alone: Alone) -> None:
    small = fakecuda.with_memory("T4", 2)
    workloads = [{"batch_size": size, "prompt_tokens": 128} for size in (1, 256, 2)]
    found = alone(ask("T4", "fp16", *workloads, profile=False), board=small)
    assert [row["outcome"] for row in found] == ["OK", "OUT_OF_MEMORY", "OK"]
    assert found[1]["reason"].startswith("CUDA out of memory. Tried to allocate")


def test_a_gpu_that_falls_off_the_bus_is_lost(alone: Alone) -> None:
    engines = ({"engine": "eager"}, {"engine": "graph"})
    first, second = alone(ask("H100", "fp16", *engines), faults=["lost_in_graph:500"])
    assert (first["outcome"], second["outcome"]) == ("OK", "LOST")
    assert "GPU is lost" in second["reason"]
    assert first["timing"]["latency_ms_p50"]


def test_without_permission_to_profile_only_the_profile_is_missing(alone: Alone) -> None:
    (row,) = alone(ask("H100", "fp16"), faults=["cupti"])
    assert row["outcome"] == "OK"
    assert row["trace"]["level"] == "none"
    assert "CUPTI is not permitted here" in row["trace"]["reason"]
    assert row["roofline"]["matmul_tflops"]


def test_a_torch_without_kernels_for_the_gpu_names_the_one_that_has_them(alone: Alone) -> None:
    (row,) = alone(ask("P100", "fp32"), faults=["no_image"])
    assert row["outcome"] == "UNSUPPORTED"
    assert "has no kernels for Tesla P100-PCIE-16GB (sm_60" in row["reason"]
    assert "pip install 'torch<2.15' --index-url" in row["reason"]


TINY = shared("H100", "fp16", {"model": "tiny"}, profile=False, quality=True)


def test_a_row_without_perplexity_says_that_a_model_computes_nothing(rows: Shared) -> None:
    (row,) = rows(TINY)
    assert row["quality"]["reason"] == "a modelled GPU computes nothing"
    assert row["quality"]["perplexity"] is None
