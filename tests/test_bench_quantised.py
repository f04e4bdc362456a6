"""bench.model.quantise, bench.profile.quantised: what is stored in fewer bits, and what ran."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from bench.asked import Cell, QualityPlan, Sampling, Workload
from bench.decoders import SHAPES
from bench.device import gpus, precision
from bench.errors import Unsupported
from bench.measure import measure
from bench.measured import Measurement, Outcome, Profile
from bench.model import engines, quantise
from bench.model.load import load_model
from bench.model.requests import forward_queue
from bench.outcomes import Request
from bench.profile import peaks, quantised, work
from bench.profile.classes import kernel_class, op_class, reads_quantised
from bench.profile.trace import trace
from bench.profile.work import Product, work_of

pytest.importorskip("torchao")
pytestmark = pytest.mark.usefixtures("one_thread")

ON_A_CPU = ("int8", "int8-dynamic", "int4")
MATRICES = 3 * 12 * 64 * 64  # of the layers of tiny
ROWS = 3 * (3 * 64 + 64 + 4 * 64 + 64)  # outputs of its matrices, a scale for each
IDS = torch.arange(48).reshape(2, 24)
NEEDS_BF16 = pytest.mark.skipif(
    precision.storage("int8", "cpu") != torch.bfloat16, reason="a CPU without bf16"
)


def logits(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = module(IDS, use_cache=False).logits.float()
    return found


@pytest.mark.parametrize("name", ["tiny", "gpt2:random"])
def test_linears_in_the_place_of_conv1d_give_the_same_logits(name: str) -> None:
    module = load_model(name, "fp32", "cpu").module
    before = logits(module)
    replaced = [one for one in module.modules() if isinstance(one, Conv1D)]
    quantise.as_linear(module)
    kinds = {type(one).__name__ for one in module.modules()}
    assert "Conv1D" not in kinds
    assert {one.weight for one in replaced} == {None}  # not held beside the Linears
    assert torch.equal(logits(module), before)


@pytest.mark.parametrize("name", ["fp32", "bf16", "mixed"])
def test_what_is_not_quantised_is_as_large_as_transformers_says(name: str) -> None:
    model = load_model("tiny", name, "cpu")
    assert model.weights.size_bytes == model.module.get_memory_footprint()
    assert (model.weights.quantised_parameters, model.weights.quantised_by) == (None, None)
    arithmetic = str(precision.arithmetic(name, "cpu")).removeprefix("torch.")
    assert model.weights.arithmetic == arithmetic


@NEEDS_BF16
@pytest.mark.parametrize(
    ("name", "weights_bytes", "arithmetic", "within"),
    [
        # Each row: a float32 scale, and an int8 offset, which is 0.
        ("int8", MATRICES + 5 * ROWS, "bfloat16", 1.0),
        ("int8-dynamic", MATRICES + 5 * ROWS, "int8", 1.0),
        # Groups of 64, the largest that divides 64: a scale and an offset in bf16.
        ("int4", MATRICES // 2 + MATRICES // 64 * 4, "bfloat16", 6.0),
    ],
)
def test_weights_take_the_bytes_of_the_packed_tensors(
    name: str, weights_bytes: int, arithmetic: str, within: float
) -> None:
    plain, model = (load_model("tiny", precision, "cpu") for precision in ("bf16", name))
    found = model.weights
    assert found.parameters == plain.weights.parameters
    assert found.quantised_parameters == MATRICES
    assert found.size_bytes == plain.weights.size_bytes - 2 * MATRICES + weights_bytes
    assert (found.dtype, found.arithmetic) == (f"{name[:4]} + bfloat16", arithmetic)
    assert str(found.quantised_by).startswith("torchao 0.")
    assert model.module.lm_head.weight is model.module.transformer.wte.weight
    difference = (logits(model.module) - logits(plain.module)).abs().max()
    assert 0 < difference < within


def test_a_matrix_without_a_kernel_is_a_reason_and_no_silence() -> None:
    narrow = torch.nn.Linear(20, 8, dtype=torch.bfloat16)
    with pytest.raises(Unsupported, match="int4 takes groups of 32 weights"):
        quantise.quantise_linears([narrow], "int4", "cpu")


def test_torchao_s_refusal_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("only supported on CUDA>=8.9 and MI300+\nmore")

    monkeypatch.setattr(quantise, "config", refuse)
    with pytest.raises(Unsupported, match=r"cannot quantise to fp8: only supported on .*MI300\+$"):
        quantise.quantise_linears([torch.nn.Linear(32, 32)], "fp8", "cpu")


def test_what_torchao_leaves_as_it_is_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It logs that a size does not suit, and quantises nothing."""
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    monkeypatch.setattr(quantise, "config", lambda *_: PrototypeInt4WeightOnlyConfig(128))
    with pytest.raises(Unsupported, match="has no int4 kernel for a matrix of 64 x 8"):
        quantise.quantise_linears([torch.nn.Linear(64, 8)], "int4", "cpu")


def test_importing_torchao_tells_nothing() -> None:
    for name in ("torchao", "torch.utils._pytree"):
        assert not logging.getLogger(name).isEnabledFor(logging.WARNING)


@NEEDS_BF16
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of inductor's import
def test_a_compiled_int8_model_multiplies_int8_weights() -> None:
    model = load_model("tiny", "int8", "cpu")
    queue = forward_queue("cpu", model, Workload("tiny", engine="compile", prompt_tokens=16))
    with torch.inference_mode():
        found = trace(queue, "cpu", 1, None, fused=True)
    assert reads_quantised(found.products or ()) == ["aten::_weight_int8pack_mm"]


def test_a_graph_cannot_record_what_waits_for_the_device() -> None:
    engines.check("graph", "cuda", (9, 0), "int8")
    with pytest.raises(Unsupported, match=r"cannot record int8-dynamic.*use compile"):
        engines.check("graph", "cuda", (9, 0), "int8-dynamic")


# ------------------------------------------------------------------------------- which kernel ran


@NEEDS_BF16
@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("int8", None),
        ("int8-dynamic", "aten::_int_mm"),
        ("int4", "aten::_weight_int4pack_mm_for_cpu"),
    ],
)
@pytest.mark.usefixtures("small_peaks")
def test_a_row_says_what_is_stored_and_which_kernel_multiplied_it(
    name: str, kernel: str | None
) -> None:
    sampling = Sampling(
        warmup_min_s=0, warmup_max_s=0.01, latency_min_s=0, latency_max_s=0.01, min_samples=5,
        throughput_s=0.01, energy="none",
    )  # fmt: skip
    plan = QualityPlan(context=64, stride=64, enabled=False)
    request = Request(
        "run", Cell("CPU", name), 0, (Workload("tiny", prompt_tokens=16),), sampling, plan,
        threads=1,
    )  # fmt: skip
    events = list(measure(request))
    (row,) = (event for event in events if isinstance(event, Measurement))
    (profile,) = (event for event in events if isinstance(event, Profile))
    assert row.outcome == Outcome.OK
    assert profile.trace.products and profile.roofline
    assert reads_quantised(profile.trace.products) == [kernel] * (kernel is not None)
    assert [told.code for told in profile.warnings] == ["weights-dequantised"] * (kernel is None)
    assert profile.roofline.matmul_model_tflops
    least = work_of(load_model("tiny", name, "cpu").shape, 1, 16)
    moved = least.forward_bytes(work.stored_bytes(name), 2, 2)
    assert profile.roofline.bytes_moved == sum(moved)


def test_a_kernel_that_no_trace_tells_is_a_warning() -> None:
    workload = Workload("tiny")
    asked = ("int8", workload, "cpu")
    for products in (None, ()):
        told = quantised.warning(*asked, products)
        assert told and told.code == "quantised-kernel-unknown"
    assert quantised.warning("bf16", workload, "cpu", None) is None
    told = quantised.warning(*asked, ("aten::mm",))
    assert told and "(aten::mm): only what is stored is smaller" in told.text


def test_few_rows_of_int8_are_multiplied_as_float32_on_a_gpu() -> None:
    decode = Workload("tiny", batch_size=8, prompt_tokens=128, new_tokens=8)
    kernels = ("sm80_xmma_gemm_i8i32_i8i32_i32_tn",)
    told = quantised.warning("int8-dynamic", decode, "cuda", kernels)
    assert told and "products of at most 16 rows" in told.text
    prompt = Workload("tiny", batch_size=8, prompt_tokens=128)
    assert quantised.warning("int8-dynamic", prompt, "cuda", kernels) is None


@pytest.mark.parametrize(
    ("kernel", "reads"),
    [
        ("void at::native::tinygemm_m16n8k16_chunk_kernel<at::native::ALayout_RM<1>>", True),
        ("cutlass_80_tensorop_i16832gemm_s8_128x64_128x3_tn_align16", True),
        ("sm80_xmma_gemm_i8i32_i8i32_i32_tn_n_tilesize64x64x64_stage4", True),
        ("sm89_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x64", True),
        ("nvjet_sm90_qqtst_128x128_128x6_1x1_h_bz_TNT", True),
        ("triton_tem_fused__to_copy_mm_t_1", True),
        ("nvjet_sm90_tst_64x32_64x16_4x1_v_bz_splitK_TNN", False),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", False),
        ("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x3_tn", False),
        ("ampere_sgemm_128x64_tn", False),
    ],
)
def test_kernels_that_read_quantised_weights_are_known_by_name(kernel: str, reads: bool) -> None:
    assert kernel_class(kernel) == "matmul"
    assert bool(reads_quantised([kernel])) == reads


def test_operations_on_quantised_weights_are_products() -> None:
    for name in ("_int_mm", "_scaled_mm", "_weight_int8pack_mm", "_weight_int4pack_mm"):
        assert op_class(f"aten::{name}") == "matmul"
    assert op_class("torchao::quantize_affine") == "cast"


# ------------------------------------------------------------------------------- bounds


def test_the_head_keeps_its_own_bytes() -> None:
    shape = SHAPES["gpt2"]
    least = work_of(shape, 1, 128)
    read = shape.layer_weights * 1 + shape.vocabulary * shape.width * 2
    logits_bytes = 2 * 128 * shape.vocabulary
    assert sum(least.forward_bytes(1, 2, 2)) == read + logits_bytes
    assert least.forward_bytes(2, 2, 2) == least.forward_bytes(2, 2)


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", "mixed"])
def test_a_model_s_bytes_are_its_parameters_times_those_of_one(name: str) -> None:
    shape = SHAPES["gpt2"]
    assert work.model_bytes(shape, name) == shape.parameters * work.stored_bytes(name)


def test_int8_of_gpt2_takes_a_byte_for_each_weight_of_its_layers() -> None:
    assert work.model_bytes(SHAPES["gpt2"], "int8") == 84_934_656 + 2 * (124_439_808 - 84_934_656)


def test_int4_on_a_gpu_is_stored_in_rows_of_1024() -> None:
    gpt2, llama = SHAPES["gpt2"], SHAPES["Llama-3.1-8B"]
    assert work.stored_weights(gpt2, "int4", on_gpu=True) == 12 * 1024 * (
        2304 + 768 + 3072 + 3072 // 1024 * 768
    )
    assert work.stored_weights(gpt2, "int4") == work.stored_weights(gpt2, "int8", on_gpu=True)
    assert work.stored_weights(llama, "int4", on_gpu=True) == llama.layer_weights


@pytest.mark.usefixtures("small_peaks")
@pytest.mark.parametrize("name", ON_A_CPU)
def test_the_peak_is_no_lower_than_that_of_16_bits_or_of_the_kernel_itself(name: str) -> None:
    """A lower bound by a peak that is too low would be above what is possible."""
    if name == "int4" and precision.storage(name, "cpu") != torch.bfloat16:
        pytest.skip("a CPU without bf16")
    kernels = list(quantised.kernels(Product(64, 64, 64, 1), name, "cpu"))
    assert len(kernels) == (2 if name == "int8-dynamic" else 0)
    for kernel in kernels:
        assert kernel().dtype == torch.int32
    found = peaks.peaks(name, "cpu", None)
    assert found.matmul_tflops > 0
    layer = quantised.product(Product(8, 64, 128, 3), name, "cpu")
    assert layer().shape == (8, 128)


@pytest.mark.parametrize(
    ("board", "int8", "fp8"),
    [
        ("P100-PCIE", None, None),
        ("V100-SXM2", None, None),
        ("T4", 130, None),
        ("A100-SXM-80GB", 624, None),
        ("GeForce-RTX-3090", 284, None),
        ("GeForce-GTX-1650", None, None),
        ("L4", 250, 250),
        ("H100-SXM", 1978, 1978),
        ("GeForce-RTX-4090", 660.6, 660.6),
    ],
)
def test_peaks_of_8_bits_are_twice_those_of_16_bits(
    board: str, int8: float | None, fp8: float | None
) -> None:
    (found,) = gpus.named(board)
    assert gpus.peak_tflops(found, "int8-dynamic") == int8
    assert gpus.peak_tflops(found, "fp8") == fp8


def test_weights_alone_in_fewer_bits_are_multiplied_at_the_rate_of_16() -> None:
    for board, same in (("H100-SXM", "bf16"), ("T4", "fp16"), ("P100-PCIE", "fp16")):
        (found,) = gpus.named(board)
        assert gpus.peak_tflops(found, "int8") == gpus.peak_tflops(found, same)


def test_only_what_is_quantised_imports_torchao() -> None:
    """At its import it asks CUDA for the GPU, which a forked process could not use any more."""
    code = (
        "import importlib.util as found, sys, bench.measure; assert 'torchao' not in sys.modules;"
        " assert found.find_spec('torchao')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
