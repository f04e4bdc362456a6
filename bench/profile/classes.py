"""Which class a kernel of CUDA or an operation of torch belongs to, by its name.

Tensor Cores are told by name as well: the list that kineto's tensor_core.py has from NVIDIA's
PyProf, but for what only looks like them. A plain float32 kernel of an A100,
`sm80_xmma_gemm_f32f32_..._ffma_...`, contains `xmma_gemm` too.
"""

import re
from collections.abc import Iterable

from bench.asked import ATTENTIONS

# The first that matches decides. Triton's kernels carry the names of what was fused into them.
_KERNELS = (
    (r"^triton_(tem|mm|bmm)_", "matmul"),
    (r"^triton_.*(layer_norm|softmax)", "normalisation"),
    (r"^triton_.*embedding", "embedding"),
    (r"^triton_.*_(add|mul|pow|tanh|gelu|sub|div)_", "activation"),
    (r"^triton_.*_to_copy", "cast"),
    (r"fmha|flash_?(fwd|attn)|flash::|sdpa|mha_fwd", "attention"),
    (r"float\d+(tofloat\d+)?_copy_kernel_cuda", "cast"),
    (r"direct_copy_kernel_cuda.*LoadWithCast", "cast"),
    (r"copy_kernel|^mem(cpy|set)\b|CatArrayBatchedCopy|FillFunctor|index_copy", "copy"),
    (r"indexSelect|vectorized_gather|embedding", "embedding"),
    (r"layer_?norm|soft_?max|RowwiseMoments", "normalisation"),
    (r"gemm|gemv|cutlass|splitKreduce|nvjet|cublas|xmma|gmma|\bdot_kernel", "matmul"),
    (r"elementwise_kernel|gelu|tanh|pow_", "activation"),
)
_TENSOR_CORES = re.compile(
    r"[hsic]884|[hsic]1688|i8816|16816|m16n8k16|16832|hmma|gmma|tensorop|xmma_(implicit_)?gemm"
    r"|nvjet_(sm\d+[a-z]?_)?([htqo]|[a-z]+_tf32)",  # cuBLAS of CUDA 13 names the architecture
    re.IGNORECASE,
)
# What a product of several kernels adds or finishes: no product by itself.
_AFTER_PRODUCT = re.compile(r"splitKreduce|epilogue::impl")
# A product that reads quantised weights: torch's operations; its int4 kernel (tinygemm); cuBLAS's
# and CUTLASS's of int8 and fp8, as they name their operands; and what Triton fused a cast into.
_QUANTISED = re.compile(
    r"_int_mm|_weight_int[48]pack_mm|int4mm|_scaled_mm|tinygemm|i8816|i16832gemm|i8i\d|_s8_|imma"
    r"|e4m3|nvjet_(sm\d+[a-z]?_)?qq|triton_(tem|mm).*_to_copy",
    re.IGNORECASE,
)
_NO_TENSOR_CORES = re.compile(r"_ffma_|simt|[sd]gemm|_hgemm|gemv|gemmSN|gemmk1|dot_kernel", re.I)

_OPS = {
    "matmul": (
        "addmm mm bmm baddbmm matmul linear addmv mv dot _addmm_activation _int_mm _scaled_mm"
        " _weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu"
        " int4mm_packed_weight_cpu"
    ),
    "normalisation": "layer_norm native_layer_norm softmax _softmax log_softmax _log_softmax",
    "activation": "gelu tanh pow add add_ mul mul_ sub div neg rsqrt where masked_fill",
    "cast": "_to_copy choose_qparams_affine quantize_affine dequantize_affine",
    "copy": "copy_ clone contiguous cat fill_ zero_ zeros new_zeros index_copy_ masked_fill_",
    "embedding": "embedding index_select",
    # Views, allocations and questions of type: work of the host for the operation around them.
    None: (
        "_reshape_alias _unsafe_view alias as_strided detach dropout empty empty_like empty_strided"
        " expand expand_as flatten is_nonzero item lift_fresh narrow new_empty permute reshape"
        " resolve_conj resolve_neg resize_ result_type select slice split split_with_sizes squeeze"
        " t to transpose unflatten unsqueeze view view_as _local_scalar_dense"
    ),
}
_OP_CLASSES = {name: kind for kind, names in _OPS.items() for name in names.split()}
_FUSED_ATTENTION = ("scaled_dot_product", "_scaled_dot_product", "_flash_attention", "_efficient_")

# What runs scaled_dot_product_attention, by its kernels or on a CPU by its operations. The first
# that matches decides: cuDNN's kernels have flash in their names as well. From torch's
# aten/src/ATen/native/transformers: cudnn/MHA.cpp, cuda/mem_eff_attention, cuda/flash_attn, and
# attention.cpp for the softmax between two products. GPT-2 has no other softmax.
_ATTENTION = (
    (r"cudnn.*(sdpa|flash|fmha)|_cudnn_attention", "cudnn"),
    (r"fmha_cutlass|mem_?eff|_efficient_attention", "efficient"),
    (r"flash_?(fwd|attn)|flash::|_flash_attention", "flash"),
    (r"soft_?max|_attention_math", "math"),
)


def told(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """What a table of patterns says of a name; upper and lower case are alike."""
    return next((found for pattern, found in table if re.search(pattern, name, re.I)), None)


def kernel_class(name: str) -> str:
    """The class of a CUDA kernel, by its name.

    >>> kernel_class("volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_tn")
    'matmul'
    """
    return told(name, _KERNELS) or "other"


def op_class(name: str) -> str | None:
    """The class of an operation of torch, by its name; None where it moves and computes nothing.

    What has no namespace is no operation but a part of a trace, such as a compiled region.

    >>> op_class("aten::addmm"), op_class("aten::view"), op_class("aten::argmax")
    ('matmul', None, 'other')
    """
    namespace, _, bare = name.rpartition("::")
    if not namespace:
        return None
    return "attention" if bare.startswith(_FUSED_ATTENTION) else _OP_CLASSES.get(bare, "other")


def attention(names: Iterable[str]) -> str | None:
    """Which of torch's attentions these kernels or operations are; None where there is none.

    Several stand together, as of a prompt and of the tokens after it.

    >>> attention(["fmha_cutlassF_f32_aligned_64x64_rf_sm80(...)", "nvjet_sm90_hsh_64x32"])
    'efficient'
    >>> attention(["void pytorch_flash::flash_fwd_kernel<...>", "void softmax_warp_forward<...>"])
    'flash + math'
    """
    found = {told(name, _ATTENTION) for name in names}
    return " + ".join(name for name in ATTENTIONS if name in found) or None


def reads_quantised(products: Iterable[str]) -> list[str]:
    """Those of some matrix products that read quantised weights.

    None does where torchao makes a 16-bit copy of the weights first, and multiplies that.

    >>> reads_quantised(["aten::_int_mm", "aten::mm"]), reads_quantised(["aten::mm"])
    (['aten::_int_mm'], [])
    """
    return [name for name in products if _QUANTISED.search(name)]


def uses_tensor_cores(names: Iterable[str]) -> str:
    """Whether matrix products of these kernels use Tensor Cores: yes, no or unknown.

    >>> uses_tensor_cores(["sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize64x64x8_ffma_aligna4"])
    'no'
    >>> uses_tensor_cores(["nvjet_sm90_hsh_64x32_64x16_4x1_v_splitK_TNN", "gemvNSP_kernel<__half>"])
    'yes'
    >>> uses_tensor_cores(["volta_sgemm_128x64_nn", "cublasLt::epilogue::impl::globalKernel<8>"])
    'no'
    """
    products = [
        name for name in names if kernel_class(name) == "matmul" and not _AFTER_PRODUCT.search(name)
    ]
    plain = [name for name in products if _NO_TENSOR_CORES.search(name)]
    if any(_TENSOR_CORES.search(name) for name in products if name not in plain):
        return "yes"
    return "no" if products and len(plain) == len(products) else "unknown"
