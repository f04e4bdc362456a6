"""bench.decoders: the parameters of each family are the module's own; what is refused, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from architectures import SMALL, config_of, on_meta
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from bench import decoders
from bench.decoders import Shape
from bench.errors import Unsupported
from bench.families import FAMILIES

# The parameters of the loaded module. The hub's own count is of all tensors of a file, with the
# masks of GPT-2 and Pythia: 137,022,720 and, for pythia-160m, 212,654,688. Pythia: the table in
# each model's card. GPT-2, distilgpt2, opt-125m, Llama-3.2, Qwen2.5-1.5B: Nikolić, Baluta, Saxena,
# Model Provenance Testing, table 4 (Llama and Qwen as Instruct). The others: as public repositories
# print them of the loaded model or of its safetensors.
PUBLISHED = {
    "openai-community/gpt2": 124_439_808,
    "distilbert/distilgpt2": 81_912_576,
    "openai-community/gpt2-xl": 1_557_611_200,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "HuggingFaceTB/SmolLM-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "EleutherAI/pythia-70m": 70_426_624,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/pythia-410m": 405_334_016,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "facebook/opt-125m": 125_239_296,
    "facebook/opt-1.3b": 1_315_758_080,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in SMALL),
    *((family, {"tie_word_embeddings": tied}) for family in SMALL for tied in (True, False)),
    ("gpt2", {"n_inner": 96}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True, "num_key_value_heads": None}),
    ("qwen3", {"attention_bias": True}),
    ("gemma", {"attention_bias": True}),
    ("gpt_neox", {"attention_bias": False}),
    ("opt", {"enable_bias": False}),
    ("starcoder2", {"use_bias": False}),
]


def parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("family", "changes"), VARIANTS)
def test_parameters_are_the_modules_own(family: str, changes: dict[str, Any]) -> None:
    config = config_of(family, **changes)
    of_all = decoders.of_config(config.to_dict())
    assert of_all.parameters == parameters(on_meta(config))
    # As save_pretrained writes it, without what is usual.
    assert decoders.of_config(json.loads(config.to_json_string())) == of_all
    assert decoders.of_config({"model_type": family, **SMALL[family], **changes}) == of_all


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_out_is_what_transformers_takes(family: str) -> None:
    config = AutoConfig.for_model(family).to_dict()
    named = zip(FAMILIES[family].keys, FAMILIES[family].defaults, strict=True)
    for key, default in named:
        found = config[key] if key else None
        others = (config.get("num_attention_heads"),) if key == "num_key_value_heads" else ()
        assert found == default or (default is None and found in others)
    usual = {} if family != "gemma2" else {"attn_logit_softcapping": None}
    assert decoders.of_config({"model_type": family, **usual}) == decoders.of_config(
        {**config, **usual}
    )


def test_known_names_have_the_parameters_that_the_hub_publishes() -> None:
    for name, count in PUBLISHED.items():
        for model in (name, f"{name}:random", name.rpartition("/")[2]):
            shape = decoders.shape_of(model)
            assert shape is not None
            assert shape.parameters == count
    assert decoders.shape_of("tiny") is None


def test_gpt2_by_any_name_of_its_keys() -> None:
    usual = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12}
    gpt2 = decoders.of_config({"model_type": "gpt2", **usual})
    assert gpt2 == decoders.shape_of("gpt2")
    assert gpt2.parameters == 124_439_808


@pytest.mark.parametrize(
    ("family", "changes", "windowed"),
    [
        ("mistral", {}, 3),
        ("mistral", {"sliding_window": None}, 0),
        ("phi3", {}, 0),
        ("qwen2", {}, 0),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, 2),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 9}, 0),
        ("gemma2", {}, 2),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, 1),
    ],
)
def test_layers_with_a_window(family: str, changes: dict[str, Any], windowed: int) -> None:
    config = config_of(family, **changes).to_dict()
    types = config.get("layer_types") or ["sliding_attention"] * windowed
    found = decoders.of_config(config)
    assert found.windowed == windowed == types.count("sliding_attention")
    assert decoders.of_config({"model_type": family, **SMALL[family], **changes}) == found


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no type": ({}, "model_type = null must be one of gpt2, llama"),
    "another type": ({"model_type": "bert"}, 'model_type = "bert" must be'),
    "a type that is none": ({"model_type": ["gpt2"]}, 'model_type = ["gpt2"]'),
    "experts": ({"model_type": "mixtral", "num_local_experts": 8}, "mixture of experts"),
    "an encoder": ({"model_type": "gpt2", "is_encoder_decoder": True}, "is_encoder_decoder"),
    "cross attention": ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross"),
    "quantized": (
        {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}},
        'quantization_config = {"quant_method": "gptq"} is not supported',
    ),
    "soft caps": ({"model_type": "gemma2"}, "attn_logit_softcapping = 50.0"),
    "both ways": ({"model_type": "gemma", "use_bidirectional_attention": True}, "bidirect"),
    "longrope": (
        {"model_type": "phi3", "rope_scaling": {"type": "longrope", "long_factor": [1.0]}},
        'rope_type = "longrope" must be one of default, linear, llama3, yarn',
    ),
    "dynamic": ({"model_type": "llama", "rope_parameters": {"rope_type": "dynamic"}}, "dynamic"),
    "a rope of text": ({"model_type": "llama", "rope_scaling": "x"}, 'rope_type = "x"'),
    "post-norm": ({"model_type": "opt", "do_layer_norm_before": False}, "do_layer_norm_before"),
    "a projection": ({"model_type": "opt", "word_embed_proj_dim": 512}, "word_embed_proj_dim"),
    "norms of queries": ({"model_type": "phi", "qk_layernorm": True}, "qk_layernorm = true"),
    "no layers": ({"model_type": "llama", "num_hidden_layers": 0}, "num_hidden_layers = 0 must"),
    "fewer": ({"model_type": "gpt2", "n_embd": -768}, "hidden_size = -768 must be a number from 1"),
    "text": ({"model_type": "llama", "vocab_size": "many"}, 'vocab_size = "many" must'),
    "a switch": ({"model_type": "llama", "hidden_size": True}, "hidden_size = true must"),
    "huge": ({"model_type": "llama", "vocab_size": 10**5000}, "vocab_size = a int must"),
    "no switch": ({"model_type": "llama", "attention_bias": 1}, "attention_bias = 1 must be true"),
    "heads": ({"model_type": "llama", "num_key_value_heads": 5}, "32 must be a multiple of 5"),
    "width": ({"model_type": "gpt2", "n_head": 7}, "768 must be a multiple of its 7 heads"),
    "layer types": ({"model_type": "gemma2", "layer_types": ["mamba"]}, "layer_types must be 26"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_says_why(case: str) -> None:
    config, reason = REFUSED[case]
    if case == "layer types":
        config = {**config, "attn_logit_softcapping": None}
    with pytest.raises(Unsupported) as refused:
        decoders.of_config(config)
    assert reason in str(refused.value)


ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


KEYS = sorted(
    {key for family in FAMILIES for key in AutoConfig.for_model(family).to_dict()}
    | {"rope_scaling", "head_dim"}
)


@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_any_value_of_any_key_is_a_shape_or_a_reason(family: str, data: st.DataObject) -> None:
    changes = data.draw(st.dictionaries(st.sampled_from(KEYS), ANY, max_size=3))
    try:
        shape = decoders.of_config({**SMALL[family], **changes, "model_type": family})
    except Unsupported as error:
        assert str(error)
        return
    assert isinstance(shape, Shape)
    assert shape.parameters > shape.layer_weights > 0
    assert 0 <= shape.windowed <= shape.layers


def test_shapes_are_known_without_torch() -> None:
    code = (
        "import sys, bench.decoders\n"
        "sys.exit(bool({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
