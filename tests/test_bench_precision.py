"""bench.device.precision sets switches and puts them back; support: who has which precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from bench.asked import PRECISIONS, QUANTISED
from bench.device import gpus, precision, support
from bench.errors import Unsupported

# Capabilities by the name under which people know the GPU: P100 and P40 have no Tensor Cores,
# V100 and T4 have them for fp16 only, the rest for all.
CAPABILITY = {
    "P100": (6, 0),
    "P40": (6, 1),
    "V100": (7, 0),
    "T4": (7, 5),
    "A100": (8, 0),
    "L4": (8, 9),
    "H100": (9, 0),
}
NATIVE, WEAK, UNSUPPORTED = "native", "weak", "unsupported"
VERDICTS = {
    #         fp32    tf32         fp16    bf16    mixed    int8    int8-dynamic int4       fp8
    "P100": (NATIVE, UNSUPPORTED, WEAK, WEAK, WEAK, WEAK, *[UNSUPPORTED] * 3),
    "P40": (NATIVE, UNSUPPORTED, WEAK, WEAK, WEAK, WEAK, *[UNSUPPORTED] * 3),
    "V100": (NATIVE, UNSUPPORTED, NATIVE, WEAK, NATIVE, NATIVE, *[UNSUPPORTED] * 3),
    "T4": (NATIVE, UNSUPPORTED, NATIVE, WEAK, NATIVE, NATIVE, NATIVE, *[UNSUPPORTED] * 2),
    "A100": (*[NATIVE] * 8, UNSUPPORTED),
    "L4": (NATIVE,) * 9,
    "H100": (NATIVE,) * 9,
}


# How cuBLAS may sum products of 16 bits: torch's own defaults.
SUMS = {
    "allow_fp16_reduced_precision_reduction": True,
    "allow_bf16_reduced_precision_reduction": True,
    "allow_fp16_accumulation": False,
}


class Switches(NamedTuple):
    """All that a precision sets in torch."""

    matmul: str
    cudnn_tf32: bool
    sums: dict[str, bool]
    autocast: bool
    autocast_type: torch.dtype


def switches() -> Switches:
    return Switches(
        matmul=torch.get_float32_matmul_precision(),
        cudnn_tf32=torch.backends.cudnn.allow_tf32,
        sums={name: getattr(torch.backends.cuda.matmul, name) for name in SUMS},
        autocast=torch.is_autocast_enabled("cpu"),
        autocast_type=torch.get_autocast_dtype("cpu"),
    )


@pytest.fixture(params=[("highest", False, True), ("high", True, False), ("medium", True, False)])
def before(request: pytest.FixtureRequest) -> Iterator[Switches]:
    """Switches as another program may have left them."""
    at_first = switches()
    matmul, cudnn_tf32, sums = request.param
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
    for name in SUMS:
        setattr(torch.backends.cuda.matmul, name, sums)
    yield switches()
    torch.set_float32_matmul_precision(at_first.matmul)
    torch.backends.cudnn.allow_tf32 = at_first.cudnn_tf32
    for name, allowed in at_first.sums.items():
        setattr(torch.backends.cuda.matmul, name, allowed)


# ------------------------------------------------------------------------------- switches


@pytest.mark.parametrize("name", PRECISIONS)
def test_tf32_is_on_at_tf32_and_off_otherwise(name: str, before: Switches) -> None:
    with precision.applied(name, "cpu"):
        inside = switches()
    assert inside.matmul == ("high" if name == "tf32" else "highest")
    assert inside.cudnn_tf32 == (name == "tf32")


@pytest.mark.parametrize("name", PRECISIONS)
def test_sums_of_16_bits_are_torch_s_own(name: str, before: Switches) -> None:
    with precision.applied(name, "cpu"):
        assert switches().sums == SUMS


@pytest.mark.parametrize("name", PRECISIONS)
def test_autocast_is_on_at_mixed_and_off_otherwise(name: str, before: Switches) -> None:
    with precision.applied(name, "cpu"):
        assert torch.is_autocast_enabled("cpu") == (name == "mixed")


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_switch_is_put_back(name: str, before: Switches) -> None:
    with precision.applied(name, "cpu"):
        pass
    assert switches() == before


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_switch_is_put_back_after_a_failure(name: str, before: Switches) -> None:
    with pytest.raises(ZeroDivisionError), precision.applied(name, "cpu"):
        raise ZeroDivisionError
    assert switches() == before


def test_an_autocast_of_the_caller_does_not_reach_inside() -> None:
    product = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), precision.applied("fp32", "cpu"):
        assert (product @ product).dtype == torch.float32


def test_mixed_on_a_cpu_multiplies_in_bf16_on_fp32_weights() -> None:
    weights = torch.ones(2, 2, dtype=precision.storage("mixed"))
    with precision.applied("mixed", "cpu"):
        product = weights @ weights
    assert (weights.dtype, product.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "device_type", "expected"),
    [
        ("mixed", "cuda", torch.float16),
        ("mixed", "cpu", torch.bfloat16),
        *[(name, kind, None) for name in PRECISIONS[:4] for kind in ("cuda", "cpu")],
    ],
)
def test_autocast_casts_to_the_type_of_the_device(
    name: str, device_type: str, expected: torch.dtype | None
) -> None:
    assert precision.autocast_type(name, device_type) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
        ("mixed", torch.float32),
    ],
)
def test_weights_are_stored_in_the_type_of_the_precision(name: str, expected: torch.dtype) -> None:
    assert precision.storage(name) == expected


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx512_bf16", torch.bfloat16), ("avx2", torch.float32)]
)
def test_what_is_not_quantised_is_bf16_where_the_cpu_multiplies_in_it(
    flags: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision.cpu, "flags", lambda: {flags})
    for name in QUANTISED:
        assert precision.storage(name, "cpu") == precision.arithmetic(name, "cpu") == expected


# ------------------------------------------------------------------------------- GPUs


def gpu_verdict(name: str, capability: tuple[int, int]) -> tuple[str, str]:
    try:
        warning = support.gpu_warning(name, capability)
    except Unsupported as error:
        return UNSUPPORTED, str(error)
    return (NATIVE, "") if warning is None else (WEAK, warning.text)


@pytest.mark.parametrize("gpu_type", VERDICTS)
def test_each_gpu_type_has_the_precisions_of_its_architecture(gpu_type: str) -> None:
    for name, expected in zip(PRECISIONS, VERDICTS[gpu_type], strict=True):
        verdict, words = gpu_verdict(name, CAPABILITY[gpu_type])
        assert verdict == expected
        if verdict != NATIVE:
            assert name in words
            assert "compute capability {}.{}".format(*CAPABILITY[gpu_type]) in words


def test_the_capabilities_of_this_test_are_the_known_ones() -> None:
    assert {name: gpus.COMPUTE_CAPABILITY[name] for name in CAPABILITY} == CAPABILITY


def test_pascal_is_told_that_only_the_bytes_are_halved() -> None:
    for name in ("fp16", "mixed"):
        warning = support.gpu_warning(name, (6, 0))
        assert warning and warning.code == "no-tensor-cores"
        assert "only the bytes are halved" in warning.text


def test_a_missing_tf32_would_have_been_another_precision() -> None:
    with pytest.raises(Unsupported, match=r"compute capability 8\.0; .* would run plain fp32"):
        support.gpu_warning("tf32", (7, 5))


def test_a_tf32_that_the_environment_switches_off_would_be_another_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(Unsupported, match="NVIDIA_TF32_OVERRIDE=0: it would run plain fp32"):
        support.gpu_warning("tf32", (8, 0))
    assert support.gpu_warning("fp32", (8, 0)) is None


# ------------------------------------------------------------------------------- CPUs


@pytest.mark.parametrize(
    ("name", "flags", "emulated"),
    [
        ("fp32", (), False),
        ("bf16", ("avx512_bf16",), False),
        ("bf16", ("amx_bf16", "avx2"), False),
        ("bf16", ("bf16",), False),  # as ARM names it
        ("bf16", ("avx512f", "avx512_fp16"), True),
        ("bf16", (), True),
        ("mixed", ("avx512_bf16",), False),
        ("mixed", ("avx2",), True),
        ("fp16", ("avx512_fp16",), False),
        ("fp16", ("amx_fp16",), False),
        ("fp16", ("f16c", "avx512_bf16"), True),  # f16c converts, it does not multiply
        ("int8", (), False),
        ("int8-dynamic", ("avx512_vnni",), False),
        ("int8-dynamic", ("avx2",), True),
        ("int4", ("avx512_bf16",), False),
    ],
)
def test_a_cpu_without_the_instructions_emulates(
    name: str, flags: tuple[str, ...], emulated: bool
) -> None:
    warning = support.cpu_warning(name, flags)
    assert (warning is not None) == emulated
    if warning is not None:
        assert warning.text.startswith(f"{name} is emulated: this CPU has none of ")


def test_a_cpu_has_no_fp8_and_int4_only_with_bf16() -> None:
    with pytest.raises(Unsupported, match=r"fp8 needs Tensor Cores .* a CPU has none"):
        support.cpu_warning("fp8", {"avx512_bf16", "amx_bf16"})
    with pytest.raises(Unsupported, match="int4 multiplies in bf16, and this CPU has none of amx_"):
        support.cpu_warning("int4", {"avx2"})


def test_without_torchao_a_quantised_precision_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(support, "installed", lambda _: None)
    support.check_installed("bf16")
    for name in QUANTISED:
        with pytest.raises(Unsupported, match=r"pip install 'tensorgap\[quantised\]'"):
            support.check_installed(name)


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(Unsupported, match=r"tf32 needs Tensor Cores .* a CPU has none"):
        support.cpu_warning("tf32", {"avx512_bf16", "amx_bf16"})
