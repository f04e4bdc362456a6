"""What no measurement on a board can pass, and which boards that leaves for a table."""

from __future__ import annotations

from typing import Any

import pytest
from foreign_tables import cases_of, found_in

from bench.asked import Workload
from bench.device import gpus
from bench.device.boards import GPUS
from bench.profile import work as gpt2
from jobs.report import bounds, facts, findings
from jobs.report.finding import Finding

WORKLOAD = Workload("gpt2")
STUDY = "precision,latency_ms,energy_mj\nfp32,11.7,580\nfp16,10.4,370\nmixed,13.5,630\n"


def not_specified(text: str, gpu: str | None = None) -> Finding | None:
    """The finding that lists the boards that a table can be from."""
    groups = facts.grouped(cases_of(text, *([gpu] if gpu else [])))
    (found, *_) = [f for f in findings.find(groups) if f.code == "gpu-not-specified"] or [None]
    return found


def possible(found: Finding) -> set[str]:
    """The boards that a finding leaves."""
    lists = [n.values["those"] for n in found.evidence if "those" in n.values]
    return {name for those in lists if isinstance(those, tuple) for name in those}


def case(board: str, **numbers: Any) -> facts.Case:
    """A line of a table."""
    table = f"precision,{','.join(numbers)}\nfp32,{','.join(map(str, numbers.values()))}\n"
    (found,) = cases_of(table, board)
    return found


def test_gpt2_by_formula_is_gpt2_as_it_is_known() -> None:
    shape = gpt2.SHAPES["gpt2"]
    assert shape.parameters == 124_439_808
    total = gpt2.work_of(shape, 1, 128).least_flops
    assert total == pytest.approx(32.2e9, rel=0.01)
    assert gpt2.cast_bytes(shape, 1, 128) == pytest.approx(827e6, rel=0.001)
    assert gpt2.scaled(158, gpt2.SHAPES["gpt2-medium"]) == 316
    assert gpt2.shape_of("openai-community/gpt2-xl") == gpt2.SHAPES["gpt2-xl"]
    assert gpt2.shape_of("tiny") is None


def test_a_lower_bound_is_arithmetic_or_memory_whichever_takes_longer() -> None:
    (p100,) = gpus.named("P100-PCIE")
    compute = bounds.of_board(p100, "fp32", WORKLOAD)
    # 21.9 GFLOP of the layers at 9.3 TFLOP/s.
    assert compute and compute.ms == pytest.approx(2.37, rel=0.005)
    assert "GFLOP at 9.3 TFLOP/s (P100-PCIE)" in compute.why
    (a100,) = gpus.named("A100-SXM-40GB")
    memory = bounds.of_board(a100, "fp16", WORKLOAD)
    # 170 MB of weights, of which 40 MB stay in the cache, at 1555 GB/s.
    assert memory and memory.ms == pytest.approx((12 * 12 * 768**2 * 2e-6 - 40) / 1555)
    assert "MB at 1555 GB/s (A100-SXM-40GB)" in memory.why
    assert bounds.of_board(p100, "fp32", Workload("tiny")) is None


def test_pytorch_has_a_higher_lower_bound_than_the_hardware() -> None:
    for board in GPUS:
        for precision in ("fp32", "fp16", "mixed"):
            least = bounds.of_board(board, precision, WORKLOAD)
            most = bounds.of_pytorch([board], precision, WORKLOAD)
            assert least and most and least.ms < most[0] == most[1]
    low, high = bounds.of_pytorch(gpus.named("P100"), "fp32", WORKLOAD) or (0, 0)
    assert (low, high) == pytest.approx((3.01, 3.43), rel=0.005)
    assert bounds.of_pytorch(GPUS, "tf32", WORKLOAD) is None  # a P100 has none
    assert bounds.of_pytorch([], "fp32", WORKLOAD) is None


def test_new_tokens_read_the_weights_once_each() -> None:
    (t4,) = gpus.named("T4")
    one, many = (bounds.of_board(t4, "fp32", Workload("gpt2", new_tokens=n)) for n in (0, 100))
    # 85 M weights of the layers in 4 bytes, less 4 MB of cache, at 320 GB/s.
    assert one and many and many.ms == pytest.approx(100 * (340 - 4) / 320, rel=0.01)
    by_pytorch = bounds.of_pytorch([t4], "fp16", Workload("gpt2", new_tokens=100))
    assert by_pytorch and by_pytorch[0] == pytest.approx(100 * (247 - 4) / 320, rel=0.01)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"latency_ms": 2.2}, None),
        ({"latency_ms": 2.0}, "2.00 ms (fp32) is below 90% of its lower bound of 2.37 ms"),
        ({"latency_ms": 10.0, "energy_mj": 2700}, None),
        (
            {"latency_ms": 10.0, "energy_mj": 2800},
            "280 W (fp32) is above 110% of its power limit of 250 W",
        ),
        ({"latency_ms": 10.0, "energy_mj": 190}, None),
        (
            {"latency_ms": 10.0, "energy_mj": 180},
            "18.0 W (fp32) is below 80% of its idle power of 23 to 33 W",
        ),
        # The bound that is missed by most.
        ({"latency_ms": 0.1, "energy_mj": 28}, "0.100 ms (fp32) is below 90% of its lower bound"),
    ],
)
def test_a_board_is_excluded_by_the_bound_that_a_number_is_farthest_beyond(
    numbers: dict[str, float], words: str | None
) -> None:
    (board,) = gpus.named("P100-PCIE")
    found = bounds.exclusion(board, [case("P100-PCIE", **numbers)])
    if words is None:
        assert found is None
    else:
        assert found and found.text.startswith(f"P100-PCIE: excluded: {words}")
        assert found.values["board"] == "P100-PCIE"


def test_a_table_without_a_gpu_lists_the_boards_that_remain_and_why_others_do_not() -> None:
    found = not_specified(STUDY)
    assert found
    assert (found.verdict, found.precisions) == ("inconclusive", ("fp32", "fp16", "mixed"))
    boards = possible(found)
    assert {"P100-PCIE", "T4", "V100-PCIE"} < boards
    excluded = [n.values["board"] for n in found.evidence if "excluded" in n.text]
    assert {"P40", "H100-SXM", "H200", "B200"} < {*excluded}
    assert {*boards, *excluded} == {board.name for board in GPUS}
    assert f"{len(boards)} of the {len(GPUS)} known boards" in found.text
    assert any("70 W T4; 72 W L4; 75 W P4" in note.text for note in found.missing)
    assert not_specified(STUDY, "T4") is None
    assert not_specified("precision,latency_ms,gpu\nfp32,11.7,Z9\n") is None


def test_without_energy_only_the_lower_bounds_exclude() -> None:
    found = not_specified("precision,latency_ms\nfp32,1.0\n")
    assert found
    assert {"T4", "P100-PCIE"} & possible(found) == set()
    assert all("lower bound" in note.text for note in found.evidence if "excluded" in note.text)
    none = not_specified("precision,latency_ms,model\nfp32,1.0,my-model\n")
    assert none and f"{len(GPUS)} of the {len(GPUS)}" in none.text
    assert possible(none) == {board.name for board in GPUS}


def test_a_number_of_no_known_board_is_rejected_and_no_evidence_of_the_gpu() -> None:
    assert not_specified("precision,latency_ms\nfp32,0.01\n") is None
    (found,) = found_in("precision,latency_ms\nfp32,0.01\n")
    assert (found.code, found.verdict) == ("latency-below-lower-bound", "reject")
    assert "on any known board" in found.text
