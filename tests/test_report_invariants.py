"""What must hold for any table: units, order and spelling decide nothing, and no healthy row is
called impossible.
"""

from __future__ import annotations

import random

import pytest
from foreign_tables import found_in
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.asked import Workload
from bench.device.boards import GPUS, LEAST_IDLE_W, Board
from bench.text import published
from jobs.report import bounds

PRECISIONS = ("fp32", "fp16", "mixed")
SPELLINGS = {
    "fp32": ("fp32", "FP32", "float32", "torch.float32", "single", "full precision", "F32"),
    "fp16": ("fp16", "FP16", "half", "torch.float16", "float16", "Half Precision"),
    "mixed": ("mixed", "AMP", "amp_fp16", "autocast", "Mixed Precision", "AMP (FP16)"),
}
# Field: its headers, each with the factor of its unit.
HEADERS = {
    "precision": {"precision": 1, "dtype": 1, "Format": 1, "Data type": 1},
    "latency_ms": {
        "latency_ms": 1,
        "Latency (s)": 1e-3,
        "time [us]": 1e3,
        "Inference time (ms)": 1,
    },
    "energy_mj": {
        "energy_mj": 1,
        "Energy (J)": 1e-3,
        "energy [uJ]": 1e3,
        "energy (kWh)": 1 / 3.6e9,
    },
    "throughput": {"throughput": 1, "samples/s": 1, "prompts per minute": 60, "Sents/sec": 1},
    "batch_size": {"batch_size": 1, "bs": 1, "Batch Size": 1},
    "prompt_tokens": {"prompt_tokens": 1, "seq_len": 1, "Sequence Length": 1},
}
SEPARATORS = (",", ";", "\t", "|")


def healthy(rng: random.Random, board: Board, precision: str) -> dict[str, float | str]:
    """A row that this board could give: no faster than it can, at a power that it has."""
    batch, tokens = rng.choice((1, 2, 8, 32)), rng.choice((8, 64, 128, 512, 1024))
    least = bounds.of_board(board, precision, Workload("gpt2", "eager", batch, tokens))
    assert least
    latency = max(least.ms * rng.uniform(1.0, 3.0), rng.uniform(1.0, 12.0))
    low = board.idle_w[0] if board.idle_w else LEAST_IDLE_W
    watts = rng.uniform(low, board.tdp_w)
    context = rng.choice((128, 256, 512, 1024))
    allowed = published.allowed_perplexity("gpt2", context)
    assert allowed
    return {
        "gpu": board.name, "precision": precision, "batch": batch, "seq_len": tokens,
        "latency (ms)": latency, "energy (mJ)": watts * latency / batch,
        "throughput": 1e3 * batch / latency * rng.uniform(0.95, 1.3),
        "ppl": rng.uniform(*allowed), "context": context,
    }  # fmt: skip


def test_no_healthy_row_of_any_board_is_called_impossible() -> None:
    rng = random.Random(20261129)
    wrong = []
    for _ in range(10):
        rows = [healthy(rng, rng.choice(GPUS), rng.choice(PRECISIONS)) for _ in range(1000)]
        head = list(rows[0])
        lines = [",".join([*head, "run"])]
        lines += [",".join([*(str(row[k]) for k in head), f"r{i}"]) for i, row in enumerate(rows)]
        wrong += [(f.code, f.text) for f in found_in("\n".join(lines)) if f.verdict == "reject"]
    assert wrong == []


def table(rng: random.Random, board: Board) -> list[dict[str, float | str]]:
    """Three precisions of one healthy workload."""
    found = []
    least = bounds.of_board(board, "fp32", Workload("gpt2"))
    assert least
    latency = max(least.ms * rng.uniform(1.5, 3.0), rng.uniform(2.0, 12.0))
    for precision, factor in (("fp32", 1.0), ("fp16", 0.83), ("mixed", 1.2)):
        low = board.idle_w[1] if board.idle_w else 20.0
        watts = rng.uniform(low, 0.9 * board.tdp_w)
        found.append({
            "precision": precision, "latency_ms": latency * factor,
            "energy_mj": watts * latency * factor, "throughput": 1e3 / latency / factor,
            "batch_size": 1, "prompt_tokens": 128,
        })  # fmt: skip
    return found


def written(
    rows: list[dict[str, float | str]], headers: dict[str, str], separator: str,
    spelled: dict[str, str],
) -> str:  # fmt: skip
    """The rows under some headers, whose units they are in."""
    lines = [separator.join(headers.values())]
    for row in rows:
        cells = []
        for field, header in headers.items():
            value = row[field]
            if isinstance(value, str):
                cells.append(spelled[value])
            else:
                factor = HEADERS[field][header]
                cells.append(str(value) if factor == 1 else repr(float(value) * factor))
        lines.append(separator.join(cells))
    return "\n".join(lines) + "\n"


def judged(text: str, gpu: str) -> set[tuple[object, ...]]:
    return {(f.code, str(f.verdict), f.precisions, f.subject) for f in found_in(text, gpu)}


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_the_order_and_spelling_of_rows_and_columns_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    board = rng.choice(GPUS)
    rows = table(rng, board)
    plain = {field: field for field in HEADERS}
    exact = written(rows, plain, ",", {p: p for p in PRECISIONS})
    fields = list(HEADERS)
    rng.shuffle(fields)
    shuffled = rng.sample(rows, len(rows))
    headers = {field: rng.choice(list(HEADERS[field])) for field in fields}
    spelled = {precision: rng.choice(SPELLINGS[precision]) for precision in PRECISIONS}
    other = written(shuffled, headers, rng.choice(SEPARATORS), spelled)
    assert judged(other, board.name) == judged(exact, board.name), other


@settings(max_examples=40)
@given(
    st.sampled_from([b for b in GPUS if b.idle_w]),
    st.sampled_from(["latency_ms", "energy_mj"]),
    st.integers(0, 2**32),
)
def test_a_slip_of_a_unit_is_found_and_its_factor_named(
    board: Board, field: str, seed: int
) -> None:
    rows = table(random.Random(seed), board)
    if field == "latency_ms":  # so that nothing else is derived from it
        rows = [{**row, "energy_mj": 0.0, "throughput": 0.0} for row in rows]
    wrong = [{**row, field: float(row[field]) / 1000} for row in rows]
    plain = {name: name for name in HEADERS if rows[0][name]}
    text = written(wrong, plain, ",", {p: p for p in PRECISIONS})
    code = {"latency_ms": "latency-below-lower-bound", "energy_mj": "power-below-idle"}[field]
    found = [f for f in found_in(text, board.name) if f.code == code]
    assert "fp32" in {p for f in found for p in f.precisions}
    assert all("(a factor of 1000)" in f.text for f in found)
    right = written(rows, plain, ",", {p: p for p in PRECISIONS})
    assert "reject" not in {verdict for _, verdict, *_ in judged(right, board.name)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_at_its_bound_stands_and_one_far_below_does_not(precision: str) -> None:
    for board in GPUS:
        least = bounds.of_board(board, precision, Workload("gpt2"))
        assert least
        for share, told, verdicts in (
            (1.0, {"model": "gpt2"}, set()),
            (0.5, {"model": "gpt2"}, {"reject"}),
            (0.5, {}, set() if least.ms > 0.045 else {"reject"}),  # a smaller model is as fast
        ):
            text = f"precision,tokens,latency_ms\n{precision},128,{least.ms * share}\n"
            found = {str(f.verdict) for f in found_in(text, board.name, **told)}
            assert found & {"reject"} == verdicts, (board.name, share)
