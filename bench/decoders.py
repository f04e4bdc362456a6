"""Dense decoders by formula: what their configuration says of their parameters and products.

One formula serves a model that is loaded, a folder that is only looked at, and a line of a table,
whose model is known by name. Imports neither torch nor transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.errors import Unsupported
from bench.families import FAMILIES, KEYS, Family

_LARGEST = 10**9  # of a number: the file may be anyone's
_MOST_SHOWN = 60  # characters of a value in a message
# Rotary positions that do not depend on how long a text is.
_ROPES = ("default", "linear", "llama3", "yarn")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ACTIVATIONS = ("hidden_activation", "activation_function", "hidden_act")
_LAYER_TYPES = ("full_attention", "sliding_attention")


class Linear(NamedTuple):
    """One product of a layer: (tokens, rows) by (rows, columns), and a bias to add or none.

    `transposed`: it lies in memory as (columns, rows), as nn.Linear has it.
    """

    rows: int
    columns: int
    bias: bool
    transposed: bool


@dataclass(frozen=True)
class Shape:
    """What the work and the memory of a forward depend on."""

    family: str  # model_type
    layers: int
    width: int
    heads: int
    kv_heads: int  # of keys and of values; each serves as many heads of queries
    head_width: int
    feed_forward: int
    vocabulary: int
    positions: int  # most tokens of a prompt and its continuation
    matrices: tuple[Linear, ...]  # of one layer, as they are multiplied by
    norms: int  # numbers in the norms of one layer
    outside: int  # parameters outside the layers
    head_bias: bool
    activation: str
    window: int | None = None  # tokens that some layers see at most
    windowed: int = 0  # how many layers

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.layers * sum(matrix.rows * matrix.columns for matrix in self.matrices)

    @property
    def parameters(self) -> int:
        """Parameters, a tied embedding counted once: 124,439,808 for GPT-2 small."""
        biases = sum(matrix.columns for matrix in self.matrices if matrix.bias)
        return self.outside + self.layer_weights + self.layers * (biases + self.norms)

    @property
    def longest(self) -> int:
        """The longest request, in tokens: within its window each attention is a causal one."""
        seen = self.window if self.windowed and self.window else self.positions
        return min(self.positions, seen)

    @property
    def limit(self) -> str:
        """What sets the longest request, as the end of a sentence about the model."""
        if self.longest < self.positions:
            return f"has layers that see {self.longest} tokens (sliding_window; within it only)"
        return f"has {self.positions} positions"


def of_config(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes.

    Raises Unsupported, with the reason, for what is not understood.
    """
    name, family = family_of(config)
    # Of GPT-2 and OPT transformers takes the usual name of a key as well.
    found = {
        usual: config.get(key, config.get(usual, default)) if key else None
        for key, usual, default in zip(family.keys, KEYS, family.defaults, strict=True)
    }
    for key in ("num_key_value_heads", "intermediate_size"):
        if found[key] is None:
            same = key == "num_key_value_heads"
            found[key] = found["num_attention_heads"] if same else 4 * number(found, "hidden_size")
    layers, width, heads, kv_heads, inner, vocabulary, positions = (
        number(found, key) for key in KEYS[:-1]
    )
    head_width = config.get("head_dim", family.head_width) if family.keys[3] else None
    if head_width is None:
        head_width = width // heads
        if width % heads:
            raise Unsupported(f"hidden_size = {width} must be a multiple of its {heads} heads")
    head_width = number({"head_dim": head_width}, "head_dim")
    if heads % kv_heads:
        raise Unsupported(f"num_attention_heads = {heads} must be a multiple of {kv_heads}")
    if config.get("word_embed_proj_dim") not in (None, width):
        told = shown(config["word_embed_proj_dim"])
        raise Unsupported(f"word_embed_proj_dim = {told} must be as hidden_size, {width}")
    learned = 0 if family.learned_positions is None else positions + family.learned_positions
    embeddings = vocabulary * (1 if truth(found, "tie_word_embeddings") else 2) + learned
    query_norms = {"": 0, "head": 2, "all": heads + kv_heads}[family.query_norms] * head_width
    named = (config[key] for key in _ACTIVATIONS if config.get(key) is not None)
    activation = next(named, family.activation)
    if not isinstance(activation, str):
        raise Unsupported(f"activation {shown(activation)} must be a name")
    window, windowed = windows(config, family, layers)
    return Shape(
        family=name,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        feed_forward=inner,
        vocabulary=vocabulary,
        positions=positions,
        matrices=matrices(config, family, width, inner, heads * head_width, kv_heads * head_width),
        norms=family.norms * family.norm_numbers * width + query_norms,
        outside=(embeddings + family.norm_numbers) * width + family.head_bias * vocabulary,
        head_bias=family.head_bias,
        activation=activation,
        window=window,
        windowed=windowed,
    )


def family_of(config: Mapping[str, Any]) -> tuple[str, Family]:
    """The model_type of a config.json; Unsupported where it is not one, or not a plain one."""
    name = config.get("model_type")
    if any(config.get(key) for key in _EXPERTS):
        raise Unsupported(f"a mixture of experts ({shown(name)}) is not supported: dense decoders")
    if not isinstance(name, str) or name not in FAMILIES:
        raise Unsupported(f"model_type = {shown(name)} must be one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    for key in ("is_encoder_decoder", "add_cross_attention", "quantization_config"):
        if config.get(key):
            raise Unsupported(f"{key} = {shown(config[key])} is not supported")
    if softcap := config.get("attn_logit_softcapping", family.softcap):
        raise Unsupported(f"attn_logit_softcapping = {shown(softcap)}: no fused attention has it")
    for key, wanted in family.fixed.items():
        found = config.get(key, wanted)
        if found is not wanted and (found or wanted):
            raise Unsupported(f"{key} = {shown(found)} is not supported of {name}")
    ropes = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = ropes.get("rope_type", ropes.get("type")) if isinstance(ropes, Mapping) else ropes
    if kind is not None and kind not in _ROPES:
        raise Unsupported(f"rope_type = {shown(kind)} must be one of {', '.join(_ROPES)}")
    return name, family


def matrices(
    config: Mapping[str, Any], family: Family, width: int, inner: int, heads: int, kv_heads: int
) -> tuple[Linear, ...]:
    """The products of a layer in their order; `heads` and `kv_heads` are as wide as all of each."""

    def biased(given: bool | str) -> bool:
        return given if isinstance(given, bool) else truth(config, given, family.biased)

    ways = 2 if family.gated else 1
    groups = (heads, kv_heads, kv_heads), (inner,) * ways
    into, up = ([sum(group)] if family.fused else group for group in groups)
    lies = family.transposed
    qkv, out, mlp = map(biased, (family.qkv_bias, family.out_bias, family.inner_bias))
    return (
        *(Linear(width, columns, qkv, lies) for columns in into),
        Linear(heads, width, out, lies),
        *(Linear(width, columns, mlp, lies) for columns in up),
        Linear(inner, width, mlp, lies),
    )


def windows(config: Mapping[str, Any], family: Family, layers: int) -> tuple[int | None, int]:
    """How many tokens the layers with a window see, and how many layers have one."""
    if not family.window or config.get("sliding_window", family.default_window) is None:
        return None, 0
    if family.window == "late" and not truth(config, "use_sliding_window", False):
        return None, 0
    window = number({"sliding_window": family.default_window, **config}, "sliding_window")
    if family.window == "every":
        return window, layers
    types = config.get("layer_types")
    if types is None:
        first = number({"max_window_layers": 28, **config}, "max_window_layers", least=0)
        return window, (layers + 1) // 2 if family.window == "even" else max(0, layers - first)
    if (
        not isinstance(types, list)
        or len(types) != layers
        or any(t not in _LAYER_TYPES for t in types)
    ):
        raise Unsupported(f"layer_types must be {layers} of {', '.join(_LAYER_TYPES)}")
    return window, types.count(_LAYER_TYPES[1])


def number(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    """A whole number of a configuration."""
    value = config.get(key)
    if type(value) is not int or not least <= value <= _LARGEST:
        raise Unsupported(f"{key} = {shown(value)} must be a number from {least} to {_LARGEST:,}")
    return value


def truth(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """A switch of a configuration."""
    value = config.get(key, default)
    if type(value) is not bool:
        raise Unsupported(f"{key} = {shown(value)} must be true or false")
    return value


def shown(value: object) -> str:
    """A value of a configuration in a message, where it is anyone's."""
    try:
        return json.dumps(value)[:_MOST_SHOWN]
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def of_row(family: str, *values: int | bool | None) -> Shape:
    """The shape of a line of the table below."""
    keys = zip(FAMILIES[family].keys, values, strict=True)
    return of_config({"model_type": family, **{key: value for key, value in keys if key}})


# As their config.json on the hub has it: layers, width, heads, heads of keys and values, width of
# the feed-forward, vocabulary, positions, and whether the embedding is the head. A name is exact:
# an instruct model's positions may be others. Compared with copies in public repositories:
# Lightning-AI/litgpt (litgpt/config.py: Qwen2.5, SmolLM2, Llama, pythia), huggingface/smollm
# (pre-training/smollm1/config_smollm1_135M.yaml; its larger two as SmolLM2's, but 2048 positions),
# facebookresearch/metaseq (metaseq/launcher/opt_job_constants.py) and transformers' OPTConfig.
_GPT2_REST = (None, None, 50_257, 1024, True)
SHAPES = {
    "gpt2": of_row("gpt2", 12, 768, 12, *_GPT2_REST),
    "gpt2-medium": of_row("gpt2", 24, 1024, 16, *_GPT2_REST),
    "gpt2-large": of_row("gpt2", 36, 1280, 20, *_GPT2_REST),
    "gpt2-xl": of_row("gpt2", 48, 1600, 25, *_GPT2_REST),
    "distilgpt2": of_row("gpt2", 6, 768, 12, *_GPT2_REST),
    "Qwen2.5-0.5B": of_row("qwen2", 24, 896, 14, 2, 4864, 151_936, 32_768, True),
    "Qwen2.5-1.5B": of_row("qwen2", 28, 1536, 12, 2, 8960, 151_936, 131_072, True),
    "Qwen2.5-7B": of_row("qwen2", 28, 3584, 28, 4, 18_944, 152_064, 131_072, False),
    "SmolLM-135M": of_row("llama", 30, 576, 9, 3, 1536, 49_152, 2048, True),
    "SmolLM-360M": of_row("llama", 32, 960, 15, 5, 2560, 49_152, 2048, True),
    "SmolLM-1.7B": of_row("llama", 24, 2048, 32, 32, 8192, 49_152, 2048, True),
    "SmolLM2-135M": of_row("llama", 30, 576, 9, 3, 1536, 49_152, 8192, True),
    "SmolLM2-360M": of_row("llama", 32, 960, 15, 5, 2560, 49_152, 8192, True),
    "SmolLM2-1.7B": of_row("llama", 24, 2048, 32, 32, 8192, 49_152, 8192, True),
    "Llama-3.2-1B": of_row("llama", 16, 2048, 32, 8, 8192, 128_256, 131_072, True),
    "Llama-3.2-3B": of_row("llama", 28, 3072, 24, 8, 8192, 128_256, 131_072, True),
    "Llama-3.1-8B": of_row("llama", 32, 4096, 32, 8, 14_336, 128_256, 131_072, False),
    "Mistral-7B-v0.1": of_row("mistral", 32, 4096, 32, 8, 14_336, 32_000, 32_768, False),
    "pythia-70m": of_row("gpt_neox", 6, 512, 8, None, 2048, 50_304, 2048, False),
    "pythia-160m": of_row("gpt_neox", 12, 768, 12, None, 3072, 50_304, 2048, False),
    "pythia-410m": of_row("gpt_neox", 24, 1024, 16, None, 4096, 50_304, 2048, False),
    "pythia-1b": of_row("gpt_neox", 16, 2048, 8, None, 8192, 50_304, 2048, False),
    "pythia-1.4b": of_row("gpt_neox", 24, 2048, 16, None, 8192, 50_304, 2048, False),
    "opt-125m": of_row("opt", 12, 768, 12, None, 3072, 50_272, 2048, True),
    "opt-1.3b": of_row("opt", 24, 2048, 32, None, 8192, 50_272, 2048, True),
}


def shape_of(model: str) -> Shape | None:
    """The shape of a model that is known by name, with or without its owner on the hub.

    With random weights it is the same.
    """
    return SHAPES.get(model.rpartition("/")[2].removesuffix(":random"))
