"""The modelled GPU itself: time, rates, memory, power and faults are what it was told."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import fakecuda
import pytest
from conftest import Run

# Rates as an outsider measures them: events around calls in a full queue. Then, what torch chose.
SEEN = """
import ctypes, json, os, torch

def seconds(run, calls=10):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    run()
    torch.cuda.synchronize()
    torch.cuda._sleep(60_000_000)  # what follows is launched meanwhile, on a busy host, too
    start.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / calls

found = {}
for name, dtype, high in [
    ("fp32", torch.float32, "highest"),
    ("tf32", torch.float32, "high"),
    ("fp16", torch.float16, "highest"),
    ("bf16", torch.bfloat16, "highest"),
]:
    torch.set_float32_matmul_precision(high)
    square = torch.zeros(8192, 8192, device="cuda", dtype=dtype)
    found[name] = 2 * 8192**3 / seconds(lambda: square @ square) / 1e12
    found[name + " with a bias"] = (
        2 * 8192**3 / seconds(lambda: torch.addmm(square[0], square, square)) / 1e12
    )
attention = torch.nn.functional.scaled_dot_product_attention
for name, dtype in [("fp16", torch.float16), ("bf16", torch.bfloat16)]:
    if name == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        continue  # torch has no fused attention of it there
    q = torch.zeros(4, 12, 4096, 64, device="cuda", dtype=dtype)
    found[name + " attention"] = 4 * 48 * 4096**2 * 64 / seconds(lambda: attention(q, q, q)) / 1e12
source = torch.zeros(2**27, device="cuda")
target = torch.empty_like(source)
found["copy"] = 8 * 2**27 / seconds(lambda: target.copy_(source)) / 1e9
found["sum"] = 4 * 2**27 / seconds(source.sum) / 1e9
found["add"] = 12 * 2**27 / seconds(lambda: torch.add(source, target, out=target)) / 1e9
found["half"] = 6 * 2**27 / seconds(source.half) / 1e9

library = ctypes.CDLL(os.environ["LD_PRELOAD"])
library.fakecuda_launch.restype = ctypes.c_char_p
kernels = []
for dtype in (torch.float32, torch.float16):
    q = torch.zeros(1, 12, 128, 64, device="cuda", dtype=dtype)
    library.fakecuda_clear()
    attention(q, q, q, is_causal=True)
    kernels.append(library.fakecuda_launch(library.fakecuda_launches() - 1).decode())
print(json.dumps([found, kernels]))
"""
Seen = Callable[[str], tuple[dict[str, float], list[str]]]


@pytest.fixture(scope="module")
def seen(on_gpu: Run) -> Seen:
    """The rates of a board, and its kernels of attention in float32 and float16: one process."""
    return functools.cache(lambda gpu_type: json.loads(on_gpu(gpu_type, SEEN).stdout))


@pytest.mark.parametrize("gpu_type", list(fakecuda.BOARDS))
def test_rates_are_those_of_the_board(seen: Seen, gpu_type: str) -> None:
    board = fakecuda.BOARDS[gpu_type]
    for name, rate in seen(gpu_type)[0].items():
        if name in ("copy", "sum", "add", "half"):
            assert rate == pytest.approx(board.bandwidth_gb_per_s, rel=0.02), name
            continue
        expected = board.product_tflops(name.split()[0]) or board.product_tflops("fp32")
        assert rate == pytest.approx(expected, rel=0.01), name


def test_several_boards_are_seen_and_chosen_as_cuda_chooses(on_gpu: Any) -> None:
    code = """
import torch
for device in range(torch.cuda.device_count()):
    seen = torch.cuda.get_device_properties(device)
    print(seen.name, seen.major, seen.minor, str(seen.uuid)[-1])
print(torch.zeros(2, device=f"cuda:{torch.cuda.device_count() - 1}").device)
"""
    boards = ["P100", "T4", "A100"]
    assert on_gpu(boards, code).stdout.splitlines() == [
        "Tesla P100-PCIE-16GB 6 0 0",
        "Tesla T4 7 5 1",
        "NVIDIA A100-SXM4-40GB 8 0 2",
        "cuda:2",
    ]
    chosen = on_gpu(boards, code, CUDA_VISIBLE_DEVICES="2,0").stdout.splitlines()
    assert [line.split()[-1] for line in chosen[:2]] == ["2", "0"]
    uuid = "GPU-fa4ec0da-0075-4000-8000-000000000001"
    assert on_gpu(boards, code, CUDA_VISIBLE_DEVICES=uuid).stdout.startswith("Tesla T4")
    code = "import torch; print(torch.cuda.is_available())"
    assert on_gpu(boards, code, CUDA_VISIBLE_DEVICES="").stdout == "False\n"
    assert on_gpu(boards, code, CUDA_VISIBLE_DEVICES="NoDevFiles").stdout == "False\n"


def test_a_board_waits_for_an_event_of_another(on_gpu: Any) -> None:
    code = """
import torch
x = torch.zeros(8, device="cuda:1")
torch.cuda._sleep(200_000_000)
event = torch.cuda.Event(); event.record()
stream = torch.cuda.current_stream(1)
stream.wait_event(event)
with torch.cuda.device(1):
    x + 1
stream.synchronize()
print(event.query())
"""
    assert on_gpu(["T4", "T4"], code).stdout == "True\n"


def test_waiting_takes_the_time_of_the_work(on_gpu: Any) -> None:
    code = """
import time, torch
square = torch.zeros(8192, 8192, device="cuda")
torch.mm(square, square); torch.cuda.synchronize()
start = time.perf_counter()
torch.mm(square, square)
launched = time.perf_counter()
done = torch.cuda.Event(); done.record()
early = done.query()
torch.cuda.synchronize()
print(launched - start, early, time.perf_counter() - start, done.query())
"""
    launched, early, waited, late = on_gpu("T4", code).stdout.split()
    expected_s = 2 * 8192**3 / 1e12 / fakecuda.BOARDS["T4"].product_tflops("fp32")
    assert (early, late) == ("False", "True")
    assert float(launched) < expected_s / 2
    assert expected_s <= float(waited) < 1.5 * expected_s


def test_a_queue_holds_so_many_launches(on_gpu: Any) -> None:
    code = """
import time, torch
torch.cuda._sleep(1); torch.cuda.synchronize()
start = time.perf_counter()
torch.cuda._sleep(int(1.59e9 / 2))  # half a second
for _ in range(900): torch.cuda._sleep(1)
print(time.perf_counter() - start)
for _ in range(200): torch.cuda._sleep(1)
print(time.perf_counter() - start)
"""
    before, after = map(float, on_gpu("T4", code).stdout.split())
    assert before < 0.4
    assert after > 0.49


def test_a_graph_takes_the_time_of_what_was_captured(on_gpu: Any) -> None:
    code = """
import ctypes, os, torch
library = ctypes.CDLL(os.environ["LD_PRELOAD"])
library.fakecuda_launch.restype = ctypes.c_char_p
x = torch.zeros(2048, 2048, device="cuda")
def run():
    return (x @ x + 1).relu()
run()
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    run()
torch.cuda.synchronize()
library.fakecuda_clear()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    run()
launched = [library.fakecuda_launch(i) for i in range(library.fakecuda_launches())]
captured = sum(b"gemm" in name for name in launched)
start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
def timed(call):
    torch.cuda._sleep(60_000_000)
    start.record(); call(); end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
print(captured, timed(run), timed(graph.replay), library.fakecuda_violations())
"""
    captured, eager, graph, violations = map(float, on_gpu("T4", code).stdout.split())
    assert captured == 0  # what is captured is not run
    assert graph == pytest.approx(eager, rel=0.01)
    assert violations == 0


def test_a_call_that_a_capture_forbids_ends_it(on_gpu: Any) -> None:
    code = """
import torch
x = torch.zeros(8, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    x.sum().item()
"""
    done = on_gpu("H100", code, check=False)
    assert done.returncode == 1
    assert "operation not permitted when stream is capturing" in done.stderr


TRIED = """
import torch
def tried(call):
    try:
        call()
        return "no error"
    except RuntimeError as error:
        return str(error).splitlines()[0]
"""


def test_a_capture_keeps_its_events_and_leaves_a_stream_that_works(on_gpu: Any) -> None:
    code = """
x = torch.zeros(8, device="cuda")
side, other = torch.cuda.Stream(), torch.cuda.Stream()
before, within, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
before.record()
def capture(call):
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=side):
        x + 1
        within.record()
        call()
for call in (before.query, lambda: side.wait_event(before), lambda: other.wait_event(within)):
    print(tried(lambda: capture(call)))
    with torch.cuda.stream(side):
        print(tried(lambda: x + 1), torch.cuda.is_current_stream_capturing())
print(tried(lambda: capture(lambda: None)))
end.record()
torch.cuda.synchronize()
print(tried(within.synchronize))
print(tried(lambda: within.elapsed_time(end)))
"""
    *failed, captured, waited, timed = on_gpu("H100", TRIED + code).stdout.splitlines()
    assert failed[1::2] == ["no error False"] * 3
    for line in failed[::2]:
        assert "operation failed due to a previous error during capture" in line
    assert captured == "no error"
    for line in (waited, timed):
        assert "operation not permitted on an event last recorded in a capturing stream" in line


def test_memory_is_as_much_as_the_board_has(on_gpu: Any) -> None:
    code = """
import torch
held = [torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(15)]
print(torch.cuda.mem_get_info()[0] // 2**20)
try:
    held.append(torch.empty(2**30, dtype=torch.uint8, device="cuda"))
except torch.OutOfMemoryError as error:
    print(str(error).split(".")[0])
del held[:]
torch.cuda.empty_cache()
torch.empty(8 * 2**30, dtype=torch.uint8, device="cuda")
"""
    free, error = on_gpu("T4", code).stdout.splitlines()
    assert int(free) == pytest.approx(0.84 * 1024, abs=30)
    assert error == "CUDA out of memory"


def test_the_fake_nvml_sees_the_power_of_the_busy_share(on_gpu: Any) -> None:
    code = """
import ctypes, os, time, torch
from bench.device import nvml
library = ctypes.CDLL(os.environ["LD_PRELOAD"])
library.fakecuda_busy_s.restype = ctypes.c_double
square = torch.zeros(4096, 4096, device="cuda", dtype=torch.half)
with nvml.driver() as driver:
    gpu = driver.gpu(str(torch.cuda.get_device_properties(0).uuid))
    truth = ctypes.CDLL("libnvidia-ml.so.1")
    truth.fakenvml_true_energy.restype = truth.fakenvml_now.restype = ctypes.c_double
    def joules(): return truth.fakenvml_true_energy(0, ctypes.c_double(truth.fakenvml_now()))
    start, before, busy = time.perf_counter(), joules(), library.fakecuda_busy_s(0)
    while time.perf_counter() - start < 1:
        for _ in range(4):
            torch.mm(square, square)
        torch.cuda.synchronize()
        time.sleep(0.002)
    time.sleep(0.01)
    seconds = time.perf_counter() - start
    print(joules() - before, library.fakecuda_busy_s(0) - busy, seconds, driver.simulated)
"""
    joules, busy_s, seconds, simulated = on_gpu("A100", code).stdout.split()
    board = fakecuda.BOARDS["A100"]
    expected = float(seconds) * board.idle_w + float(busy_s) * (board.busy_w - board.idle_w)
    assert float(joules) == pytest.approx(expected, rel=0.002)
    assert 0.1 < float(busy_s) / float(seconds) < 0.9
    assert simulated == "True"


def test_a_sticky_error_strikes_in_the_middle_of_a_graph_and_stays(on_gpu: Any) -> None:
    code = """
x = torch.zeros(64, 64, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    for _ in range(50):
        y = x + 1
for _ in range(12):
    print(tried(graph.replay))
print(tried(torch.cuda.synchronize))
print(tried(lambda: x + 1))
"""
    lines = on_gpu("H100", TRIED + code, ["illegal_address_in_graph:520"]).stdout.splitlines()
    assert lines[:10] == ["no error"] * 10
    for line in lines[11:]:
        assert "an illegal memory access was encountered" in line


def test_a_device_that_falls_off_the_bus_is_lost_for_nvml_too(on_gpu: Any) -> None:
    code = """
import torch
from bench import errors
from bench.device import nvml
with nvml.driver() as driver:
    gpu = driver.gpus()[0]
    x = torch.zeros(64, 64, device="cuda")
    try:
        for _ in range(100): x = x + 1
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
    try:
        gpu.check()
    except errors.GpuLostError as error:
        print("lost:", error)
"""
    first, second = on_gpu("H100", code, ["lost:50"]).stdout.splitlines()
    assert "unspecified launch failure" in first
    assert second.startswith("lost: ")


def test_an_allocation_may_fail_at_any_moment(on_gpu: Any) -> None:
    code = """
import torch
for number in range(3):
    try:
        torch.empty(2**26, device="cuda")
    except torch.OutOfMemoryError:
        print("failed at", number)
    torch.cuda.empty_cache()
"""
    # torch frees what it holds and asks again, so that two failures in a row are needed.
    assert on_gpu("H100", code, ["memory:2", "memory:3"]).stdout == "failed at 1\n"


def test_a_gpu_without_kernels_in_this_torch(on_gpu: Any) -> None:
    done = on_gpu("P100", "import torch; torch.zeros(2, device='cuda')", ["no_image"], check=False)
    assert "no kernel image is available for execution on the device" in done.stderr


@pytest.mark.parametrize(
    ("gpu_type", "single", "half"),
    [
        ("P100", "fmha_cutlassF_f32", "fmha_cutlassF_f16_aligned_64x64_rf_sm50"),
        ("V100", "fmha_cutlassF_f32", "fmha_cutlassF_f16_aligned_64x64_rf_sm70"),
        ("T4", "fmha_cutlassF_f32", "fmha_cutlassF_f16_aligned_64x64_rf_sm75"),
        ("A100", "fmha_cutlassF_f32_aligned_64x64_rf_sm80", "flash_fwd"),
        ("H100", "fmha_cutlassF_f32_aligned_64x64_rf_sm80", "native_sdpa_sm90_flash_fprop"),
    ],
)
def test_torch_chooses_attention_by_board_and_type(
    seen: Seen, gpu_type: str, single: str, half: str
) -> None:
    first, second = seen(gpu_type)[1]
    assert single in first
    assert half in second
