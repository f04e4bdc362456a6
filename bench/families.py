"""What the layers of each family of dense decoders are made of, as data.

What there is: transformers 5.24, models/*/modeling_*.py. What stands for a key that config.json
leaves out: models/*/configuration_*.py. Both are under test, for each family.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
)
_GPT2_KEYS = ("n_layer", "n_embd", "n_head", "", "n_inner", "vocab_size", "n_positions", KEYS[-1])
_OPT_KEYS = (*KEYS[:3], "", "ffn_dim", *KEYS[5:])


@dataclass(frozen=True)
class Family:
    """What the layers of one model_type are made of. A text in place of a bool is the key of it."""

    defaults: tuple[int | bool | None, ...]  # of the keys, where config.json leaves them out
    keys: tuple[str, ...] = KEYS  # "": it has none
    head_width: int | None = None  # where head_dim is left out; None: width / heads
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    inner_bias: bool | str = False
    head_bias: bool = False
    biased: bool = False  # what stands for a key of these that is left out
    gated: bool = True
    activation: str = "silu"  # where its key is left out
    transposed: bool = True  # nn.Linear keeps its weights so; GPT-2's Conv1D does not
    fused: bool = False  # one product for queries, keys, values; and one for gate and up
    carried: int = 4  # tensors as wide as the model beside those of the feed-forward
    norms: int = 2  # in a layer, each as wide as the model
    norm_numbers: int = 1  # per position of a norm: a scale; a layer norm also has a shift
    query_norms: str = ""  # of queries and keys: head (of one each), all (side by side)
    learned_positions: int | None = None  # rows beside max_position_embeddings
    softcap: float | None = None  # where attn_logit_softcapping is left out
    window: str = ""  # which layers have one: every, late (max_window_layers on), even
    default_window: int | None = 4096
    fixed: Mapping[str, Any] = field(default_factory=dict)  # what a key must be, by its default


_LAYER_NORM: dict[str, Any] = {"norm_numbers": 2, "gated": False}
_LLAMA: dict[str, Any] = {
    "qkv_bias": "attention_bias",
    "out_bias": "attention_bias",
    "inner_bias": "mlp_bias",
}
_GEMMA: dict[str, Any] = {
    "head_width": 256,
    "activation": "gelu_pytorch_tanh",
    "qkv_bias": "attention_bias",
    "out_bias": "attention_bias",
    "fixed": {"use_bidirectional_attention": None},
}
_BIASED: dict[str, Any] = {"qkv_bias": True, "out_bias": True, "inner_bias": True}
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        (12, 768, 12, None, None, 50_257, 1024, True),
        _GPT2_KEYS,
        activation="gelu_new",
        carried=5,
        transposed=False,
        fused=True,
        learned_positions=0,
        **_BIASED,
        **_LAYER_NORM,
    ),
    "llama": Family((32, 4096, 32, None, 11_008, 32_000, 2048, False), **_LLAMA),
    "mistral": Family((32, 4096, 32, 8, 14_336, 32_000, 131_072, False), window="every"),
    "qwen2": Family(
        (32, 4096, 32, 32, 22_016, 151_936, 32_768, False), qkv_bias=True, window="late"
    ),
    "qwen3": Family(
        (32, 4096, 32, 32, 22_016, 151_936, 32_768, False),
        head_width=128,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        query_norms="head",
        window="late",
    ),
    "gpt_neox": Family(
        (44, 6144, 64, None, 24_576, 50_432, 2048, False),
        (*KEYS[:3], "", *KEYS[4:]),
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        inner_bias=True,
        biased=True,
        activation="gelu",
        carried=3,
        fused=True,
        **_LAYER_NORM,
    ),
    "opt": Family(
        (12, 768, 12, None, 3072, 50_272, 2048, True),
        _OPT_KEYS,
        qkv_bias="enable_bias",
        out_bias="enable_bias",
        inner_bias="enable_bias",
        biased=True,
        activation="relu",
        learned_positions=2,
        fixed={
            "do_layer_norm_before": True,
            "_remove_final_layer_norm": False,
            "layer_norm_elementwise_affine": True,
        },
        **_LAYER_NORM,
    ),
    "phi": Family(
        (24, 2048, 32, None, 8192, 51_200, 2048, False),
        activation="gelu_new",
        head_bias=True,
        norms=1,
        fixed={"qk_layernorm": False},
        **_BIASED,
        **_LAYER_NORM,
    ),
    "phi3": Family(
        (32, 3072, 32, None, 8192, 32_064, 4096, False),
        fused=True,
        window="every",
        default_window=None,
    ),
    "gemma": Family((28, 3072, 16, 16, 24_576, 256_000, 8192, True), **_GEMMA),
    "gemma2": Family(
        (26, 2304, 8, 4, 9216, 256_000, 8192, True), norms=4, softcap=50.0, window="even", **_GEMMA
    ),
    "starcoder2": Family(
        (30, 3072, 24, 2, 12_288, 49_152, 4096, True),
        qkv_bias="use_bias",
        out_bias="use_bias",
        inner_bias="use_bias",
        biased=True,
        activation="gelu_pytorch_tanh",
        window="every",
        default_window=None,
        **_LAYER_NORM,
    ),
    "olmo2": Family(
        (32, 4096, 32, None, 11_008, 50_304, 2048, False),
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        carried=3,
        query_norms="all",
    ),
    "smollm3": Family(
        (36, 2048, 16, 4, 11_008, 128_256, 32_768, True),
        fixed={"use_sliding_window": False},
        **_LLAMA,
    ),
    "granite": Family((32, 4096, 32, None, 11_008, 32_000, 2048, False), **_LLAMA),
}
