"""bench.profile.trace and classes: names that were seen, a real trace on this CPU, a seen CUDA."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType
from transformers import GPT2Config, GPT2LMHeadModel

from bench.device import precision
from bench.measured.profiled import KERNEL_CLASSES, Trace
from bench.model import engines
from bench.model.requests import CpuQueue
from bench.profile.classes import kernel_class, op_class, uses_tensor_cores
from bench.profile.trace import trace, union

# Names that profilers have shown, with Tensor Core use where it is a matrix product.
VOLTA = "volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_tn"
PASCAL_FP16 = "maxwell_fp16_sgemm_fp16_128x32_nn"
FFMA = (
    "sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize64x64x8_stage3_warpsize1x4x1_ffma_aligna4_"
    "alignc4_execute_kernel__5x_cublas"
)
NATIVE = "void at::native::"
MATMULS = {
    VOLTA: "yes",
    "turing_fp16_s1688gemm_fp16_256x128_ldg8_f2f_tn": "yes",
    "ampere_fp16_s16816gemm_fp16_64x64_ldg8_f2f_stages_64x5_tn": "yes",
    "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_nn": "yes",
    "cutlass_80_tensorop_f16_s16816gemm_f16_64x64_32x6_nn_align8": "yes",
    "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x16_stage4_cublas": "yes",
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1_cublas": "yes",
    "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT": "yes",
    "nvjet_tst_64x8_64x16_4x1_v_bz_TNN": "yes",
    FFMA: "no",
    PASCAL_FP16: "no",
    "volta_sgemm_128x64_nn": "no",
    "volta_sgemm_32x128_tn": "no",
    "ampere_sgemm_64x32_sliced1x4_tn": "no",
    "cutlass_80_simt_sgemm_64x64_8x5_tn_align1": "no",
    "void gemmSN_TN_kernel<float, 128, 16, 2, 4, 4, 4, true, cublasGemvTensorStridedBatched>": "no",
    "void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128, 16, 4, 4, false>": "no",
    "some_new_gemm_of_tomorrow": "unknown",
    "triton_tem_fused_addmm_1": "unknown",
}
OTHERS = {
    "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)": "attention",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>": "attention",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128": "attention",
    NATIVE + "(anonymous namespace)::vectorized_layer_norm_kernel<float, float>": "normalisation",
    "void (anonymous namespace)::softmax_warp_forward<float, float, float, 7, false>": (
        "normalisation"
    ),
    NATIVE + "(anonymous namespace)::cunn_SoftMaxForward<4, float, float, float>": "normalisation",
    NATIVE + "vectorized_elementwise_kernel<4, at::native::tanh_kernel_cuda(...)>": "activation",
    NATIVE + "vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>": "activation",
    NATIVE + "unrolled_elementwise_kernel<at::native::CUDAFunctor_add<float>, LoadWithCast<2>>": (
        "activation"
    ),
    NATIVE + "vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl(...)>": "activation",
    NATIVE + "vectorized_elementwise_kernel<4, at::native::float16_copy_kernel_cuda(...)>": "cast",
    NATIVE + "vectorized_elementwise_kernel<8, at::native::bfloat16_copy_kernel_cuda(...)>": "cast",
    NATIVE + "vectorized_elementwise_kernel<4, at::native::float16tofloat32_copy_kernel_cuda>": (
        "cast"
    ),
    NATIVE + "unrolled_elementwise_kernel<direct_copy_kernel_cuda(...), LoadWithCast, Store>": (
        "cast"
    ),
    NATIVE + "elementwise_kernel<128, 4, gpu_kernel_impl_nocast<direct_copy_kernel_cuda>>": "copy",
    NATIVE + "(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 4, 64, 64>": "copy",
    NATIVE + "vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>": "copy",
    "Memcpy DtoD (Device -> Device)": "copy",
    "Memset (Device)": "copy",
    NATIVE + "(anonymous namespace)::indexSelectSmallIndex<float, long, unsigned>": "embedding",
    NATIVE + "vectorized_gather_kernel<16, long>": "embedding",
    NATIVE + "reduce_kernel<512, 1, ReduceOp<float, at::native::ArgMaxOps<float>>>": "other",
    "triton_per_fused_add_native_layer_norm_3": "normalisation",
    "triton_poi_fused_add_mul_pow_tanh_5": "activation",
    "triton_poi_fused__to_copy_2": "cast",
}


def test_kernels_are_classified_by_name() -> None:
    for name, kind in {**dict.fromkeys(MATMULS, "matmul"), **OTHERS}.items():
        assert kernel_class(name) == kind, name


def test_tensor_cores_are_told_by_name() -> None:
    for name, uses in MATMULS.items():
        assert uses_tensor_cores([name, *OTHERS]) == uses, name


def test_one_kernel_on_tensor_cores_is_use_and_one_unknown_leaves_it_open() -> None:
    assert uses_tensor_cores([FFMA, VOLTA]) == "yes"
    assert uses_tensor_cores([FFMA, "some_new_gemm_of_tomorrow"]) == "unknown"
    assert uses_tensor_cores(OTHERS) == "unknown"


@given(st.text())
def test_any_name_has_a_class(name: str) -> None:
    assert kernel_class(name) in KERNEL_CLASSES
    assert op_class(name) in (None, *KERNEL_CLASSES)


# ------------------------------------------------------------------------------- this CPU


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    """GPT-2's twelve layers, and so the operations of its 124M, in a small width."""
    torch.manual_seed(0)
    config = GPT2Config(n_embd=24, vocab_size=100, n_positions=32, attn_implementation="sdpa")
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def traced(model: GPT2LMHeadModel, name: str, requests: int = 2) -> Trace:
    run = engines.forward("eager", model)
    ids = torch.zeros(1, 16, dtype=torch.long)
    with precision.applied(name, "cpu"), torch.inference_mode():
        return trace(CpuQueue(lambda: run(ids)), "cpu", requests, latency_ms=1.0)


@pytest.mark.parametrize("name", ["fp32", "bf16", "mixed"])
def test_classes_sum_to_the_traced_time_and_count(model: GPT2LMHeadModel, name: str) -> None:
    if name == "bf16":
        model = GPT2LMHeadModel(model.config).bfloat16().eval()
    found = traced(model, name)
    times = [getattr(found, f"{kind}_ms") for kind in KERNEL_CLASSES]
    counts = [getattr(found, f"{kind}_count") for kind in KERNEL_CLASSES]
    assert (found.level, found.reason, found.requests) == ("op", None, 2)
    assert sum(times) == pytest.approx(found.traced_ms)
    assert sum(counts) == found.count
    assert all(time >= 0 for time in times)
    assert (
        found.names
        and found.names_ms
        and list(found.names_ms) == sorted(found.names_ms, reverse=True)
    )
    assert (found.busy_share, found.tensor_cores) == (None, None)


def test_a_forward_has_the_products_and_attentions_of_its_layers(model: GPT2LMHeadModel) -> None:
    found = traced(model, "fp32")
    assert found.matmul_count == 12 * 4 + 1
    assert (found.attention_count, found.attention) == (12, "flash")
    assert found.normalisation_count == 12 * 2 + 1
    assert found.embedding_count == 2


def test_casts_are_those_of_the_profiler_and_their_bytes_those_of_the_tensors(
    model: GPT2LMHeadModel,
) -> None:
    plain, mixed = traced(model, "fp32"), traced(model, "mixed")
    # Python's numbers, which become a tensor's type on a CPU at any precision.
    assert plain.cast_count == 48
    run = engines.forward("eager", model)
    ids = torch.zeros(1, 16, dtype=torch.long)
    with (
        precision.applied("mixed", "cpu"),
        torch.inference_mode(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler,
    ):
        run(ids)
    seen = Counter(event.name for event in profiler.events())
    assert mixed.cast_count == seen["aten::_to_copy"] == 48 + 146
    # 97 weights and biases, and 49 activations (16 x 24): float32 to bfloat16 or back.
    cast = [p for n, p in model.named_parameters() if "ln_" not in n and "wpe" not in n]
    assert len(cast) == 97
    numbers = 48 * (8 + 4)
    tensors = 6 * (sum(p.numel() for p in cast) + 49 * 16 * 24)
    assert mixed.cast_bytes == pytest.approx(tensors + numbers, rel=0.001)


def test_a_profiler_that_cannot_run_is_a_reason(
    model: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("CUPTI_ERROR_NOT_INITIALIZED\nsecond line")

    monkeypatch.setattr(torch.profiler, "profile", broken)
    assert traced(model, "fp32") == Trace(
        "none", reason="the profiler cannot run: CUPTI_ERROR_NOT_INITIALIZED"
    )


def test_whatever_the_profiler_raises_costs_the_profile_alone(
    model: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (KeyError("x"), AttributeError("x"), AssertionError()):
        for where in ("__enter__", "__exit__", "events"):

            def broken(*_: Any, error: Exception = error) -> Any:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr(torch.profiler.profile, where, broken)
                found = traced(model, "fp32")
            assert found.level == "none"
            assert str(found.reason).startswith(f"the profiler cannot run: {type(error).__name__}")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_lack_of_memory_is_not_the_profilers_also_where_its_end_fails(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    calls = itertools.count()

    def run() -> None:
        if next(calls):
            raise error

    def failing(self: Any, *_: object) -> None:
        raise KeyError("a stream that it never saw")

    monkeypatch.setattr(torch.profiler.profile, "__exit__", failing)
    with pytest.raises(type(error)):
        trace(CpuQueue(run), "cpu", requests=1, latency_ms=1.0)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("device_type", ["cuda", "cpu"])
def test_a_fault_of_the_gpu_is_not_the_profilers(device_type: str) -> None:
    calls = itertools.count()

    def run() -> None:
        if next(calls):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def traced() -> Trace:
        return trace(CpuQueue(run), device_type, requests=1, latency_ms=1.0)

    if device_type == "cpu":
        assert "illegal memory access" in str(traced().reason)
    else:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            traced()


# ------------------------------------------------------------------------------- CUDA, as seen


def cuda_event(name: str, start: float, end: float) -> Any:
    return SimpleNamespace(
        name=name,
        device_type=DeviceType.CUDA,
        is_user_annotation=False,
        time_range=SimpleNamespace(start=start, end=end),
    )


def mark(start: float) -> Any:
    """What record_function leaves of the traced requests."""
    return SimpleNamespace(
        name="tensorgap: traced requests",
        device_type=DeviceType.CPU,
        is_user_annotation=True,
        time_range=SimpleNamespace(start=start, end=1e9),
    )


def copy_op(types: list[str], shape: list[int], start: float = 0) -> Any:
    """An event of the host; `recorded` is what Kineto keeps of it."""
    return SimpleNamespace(
        name="aten::copy_",
        device_type=DeviceType.CPU,
        is_user_annotation=False,
        time_range=SimpleNamespace(start=start, end=start + 1),
        types=types,
        shapes=[shape, shape],
    )


def recorded(event: Any) -> Any:
    return SimpleNamespace(
        name=lambda: event.name,
        start_ns=lambda: int(event.time_range.start * 1e3),
        dtypes=lambda: event.types,
        shapes=lambda: event.shapes,
    )


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets the profiler see these events, and counts in `runs` the requests."""

    def run() -> None:
        see.runs += 1  # type: ignore[attr-defined]

    def see(*events: Any) -> Trace:
        class Profile:
            def __init__(self, **_: Any) -> None:
                pass

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def events(self) -> list[Any]:
                return list(events)

            @property
            def profiler(self) -> Any:
                found = [recorded(event) for event in events]
                return SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: found))

        marked = any(event.name == mark(0).name for event in events)
        events = events if marked else (mark(0), *events)
        monkeypatch.setattr(torch.profiler, "profile", Profile)
        return trace(CpuQueue(run), "cuda", requests=2, latency_ms=0.01)

    see.runs = 0  # type: ignore[attr-defined]
    return see


def test_kernels_of_a_gpu_are_counted_and_timed_per_request(see: Any) -> None:
    cast = NATIVE + "vectorized_elementwise_kernel<4, at::native::float16_copy_kernel_cuda(...)>"
    found = see(
        copy_op(["c10::Half", "float"], [8, 4]),
        copy_op(["float", "float"], [8, 4]),
        cuda_event(VOLTA, 0, 8),
        cuda_event(cast, 8, 10),
        cuda_event(VOLTA, 20, 28),
        cuda_event(cast, 26, 30),  # beside the product, on another stream
    )
    assert (found.level, found.count, found.tensor_cores) == ("kernel", 2, "yes")
    assert (found.matmul_ms, found.cast_ms) == pytest.approx((0.008, 0.003))
    assert found.busy_share == pytest.approx((10 + 10) / 2 / 10)
    assert found.cast_bytes == 8 * 4 * (2 + 4) / 2


def test_kernels_that_a_session_may_lose_are_those_of_no_request(see: Any) -> None:
    """pytorch/pytorch#192021: of a request before the others some are seen, and none is counted."""
    annotation = cuda_event(mark(20).name, 22, 40)
    annotation.is_user_annotation = True
    found = see(
        copy_op(["c10::Half", "float"], [8, 4], start=1),
        cuda_event(VOLTA, 2, 9),
        mark(20),
        copy_op(["c10::Half", "float"], [8, 4], start=21),
        annotation,  # on the device as well
        cuda_event(VOLTA, 22, 30),
        cuda_event(VOLTA, 32, 40),
    )
    assert (found.count, found.matmul_ms) == (1, pytest.approx(0.008))
    assert found.cast_bytes == 8 * 4 * (2 + 4) / 2
    assert see.runs == 1 + 1 + 2  # before the session, first in it, and counted


def test_a_gpu_whose_kernels_nobody_may_see_is_a_reason(see: Any) -> None:
    found = see(copy_op(["float", "float"], [8]))
    assert found.level == "none"
    assert "the profiler saw no kernels" in found.reason


def test_bytes_of_unknown_types_are_not_guessed(see: Any) -> None:
    found = see(copy_op(["c10::Float4", "float"], [8]), cuda_event(VOLTA, 0, 1))
    assert (found.level, found.cast_bytes) == ("kernel", None)
    assert "the profiler does not tell their types" in str(found.reason)


def test_kernels_that_take_longer_than_the_latency_give_no_busy_share(see: Any) -> None:
    assert see(cuda_event(VOLTA, 0, 21)).busy_share == 1.0
    found = see(cuda_event(VOLTA, 0, 28))
    assert (found.busy_share, found.matmul_ms) == (None, pytest.approx(0.014))
    assert "1.40 times the latency" in str(found.reason)


EFFICIENT, FLASH, CUDNN = itertools.islice(OTHERS, 3)
SOFTMAX = "void (anonymous namespace)::softmax_warp_forward<float, float, float, 7, false>"


@pytest.mark.parametrize(
    ("names", "backend"),
    [
        ([EFFICIENT], "efficient"),
        ([FLASH], "flash"),
        (["void pytorch_flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64>>"], "flash"),
        ([CUDNN], "cudnn"),
        ([SOFTMAX], "math"),
        (["triton_per_fused__safe_softmax_3"], "math"),
        ([CUDNN, EFFICIENT], "efficient + cudnn"),  # a prompt, and new tokens with a mask
        ([], None),
    ],
)
def test_the_attention_that_ran_is_told_by_its_kernels(
    see: Any, names: list[str], backend: str | None
) -> None:
    ran = [cuda_event(name, i, i + 1) for i, name in enumerate([VOLTA, *names])]
    assert see(*ran).attention == backend


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=8))
def test_a_union_counts_each_moment_once(starts: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in starts]
    moments = {moment for start, end in intervals for moment in range(start, end)}
    assert union(intervals) == len(moments)
