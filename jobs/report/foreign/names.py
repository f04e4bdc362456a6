"""Precisions, engines, models and texts under the names that people give them.

A name is looked for among the words of a text, so that `torch.float16`, `AMP_FP16`, `PyTorch FP16`
and `dynamo_fx2trt_fp16` all say what they say.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.asked import FLOATING

# What a precision is called; of several words the longest name counts.
PRECISION_NAMES = {
    "fp32": "fp32 float32 f32 float single full full-precision 32bit 32-bit 32 no-amp"
    " single-precision fp32-baseline",
    "tf32": "tf32 tensorfloat32 tensorfloat tensor-float-32 fp32-tf32 tf32-fp32 fp32-with-tf32",
    "fp16": "fp16 float16 f16 half 16bit 16-bit 16 half-precision",
    "bf16": "bf16 bfloat16 bfloat brain-float brain-float-16",
    "mixed": "mixed amp autocast mixed-precision amp-fp16 fp16-amp amp-float16 fp16-mixed"
    " mixed-fp16 autocast-fp16 fp16-autocast fp32-fp16 mixed-precision-fp16 amp-half"
    " torch-amp torch-autocast automatic-mixed-precision mixed-precision-amp",
}
PRECISION = {name: p for p, names in PRECISION_NAMES.items() for name in names.split()}
_ONLY_ALONE = {"float", "single", "full", "32", "16", "mixed"}  # a whole cell, and no word of it
# Precisions that tensorgap does not measure, and what others call int8, int4 and fp8: how their
# weights are quantised, and what multiplies them, is another library's. Such rows are set aside.
OTHER_PRECISION = re.compile(
    r"(u?int[248]|i8|[248]-?bits?|nf4|fp[468]|mxfp\d|nvfp4|e[45]m\d|fp64|float64|f64|double|w\da\d+"
    r"|gptq|awq|gguf|q\d(_\w+)*|bnb|qlora|smoothquant|ternary|sparse|amp-bf16|bf16-amp"
    r"|bf16-mixed|mixed-bf16|autocast-bf16|bf16-autocast|float8\w*|dynamic-quantization)"
)

# The engines that launch the kernels of PyTorch one by one, and what else people compare.
ENGINE_NAMES = {
    "eager": "eager pytorch py-torch torch huggingface hf transformers vanilla pytorch-eager"
    " torch-eager eager-mode hf-transformers pytorch-native",
    "torchscript": "torchscript torch-script jit torch-jit ts traced torchjit",
    "graph": "graph cudagraph cudagraphs cuda-graph cuda-graphs",
    "compile": "compile compiled inductor torch-compile torchinductor dynamo torchdynamo",
    "onnxruntime": "onnxruntime ort onnx onnx-runtime onnxrt",
    "tensorrt": "tensorrt trt trt-fp16 tensor-rt torch-tensorrt trtllm tensorrt-llm fx2trt"
    " dynamo-fx2trt torch2trt tftrt",
    "fastertransformer": "fastertransformer fastertransformers ft faster-transformer"
    " faster-transformers",
    "eff-ft": "eff-ft effective-fastertransformer effective-ft",
    "vllm": "vllm",
    "tgi": "tgi text-generation-inference",
    "ctranslate2": "ctranslate2 ct2",
    "deepspeed": "deepspeed ds deepspeed-inference",
    "llama.cpp": "llamacpp llama-cpp ggml",
    "openvino": "openvino ov",
    "jax": "jax flax",
    "tensorflow": "tensorflow tf keras xla tf-xla",
    "bettertransformer": "bettertransformer better-transformer fastpath",
    "kernl": "kernl",
    "fairseq": "fairseq",
    "lightseq": "lightseq",
    "turbotransformers": "turbotransformers",
    "megatron": "megatron megatron-lm",
    "sglang": "sglang",
    "mlc": "mlc tvm",
}
ENGINE = {name: engine for engine, names in ENGINE_NAMES.items() for name in names.split()}

MODEL_NAMES = {
    "gpt2": "gpt2 gpt-2 gpt2-small gpt-2-small gpt2lmheadmodel gpt2-124m gpt-2-124m gpt2-117m"
    " gpt-2-117m gpt2-base openai-gpt2 gpt2model gpt2-124 gpt2small gpt2doubleheadsmodel 117m",
    "gpt2-medium": "gpt2-medium gpt-2-medium gpt2-355m gpt-2-355m gpt2-345m gpt-2-345m gpt2-m"
    " gpt2medium 345m",
    "gpt2-large": "gpt2-large gpt-2-large gpt2-774m gpt-2-774m gpt2-762m gpt2-l gpt2large 762m",
    "gpt2-xl": "gpt2-xl gpt-2-xl gpt2-1.5b gpt-2-1.5b gpt2-1558m gpt-2-1558m gpt2xl 1542m",
    "distilgpt2": "distilgpt2 distil-gpt2 distilgpt-2 distil-gpt-2 distilgpt2-82m",
    "gpt2:random": "gpt2:random",
    "tiny": "tiny",
}
MODEL = {name: model for model, names in MODEL_NAMES.items() for name in names.split()}
_LONGEST = 300  # characters of a name that are looked at
_ORGANISATIONS = ("openai-community/", "openai/", "distilbert/", "huggingface/")
_SIZE_OR_TYPE = r"\d+(\.\d+)?[bm]|b?f\d\d|b?fp?\d\d|float\d\d|int\d|q\d\w*|\dbit"  # behind a name
_AS_IT_IS = r"baseline|original|base|pretrained|vanilla|reference"  # behind a name
_FAMILIES = re.compile(
    r"(bert|gpt|llama|qwen|opt-|mistral|bloom|falcon|t5|bart|pythia|phi|gemma|roberta|electra"
    r"|albert|mixtral|deepseek|smollm|vit|resnet|whisper|codegen|neox|mpt|stablelm|vicuna|yi-)"
)

WIKITEXT_2 = "wikitext-2"
TEXT_NAMES = {
    WIKITEXT_2: "wikitext-2 wikitext2 wikitext-2-raw-v1 wikitext-2-raw wikitext-2-v1 wt2 wikitext"
    " wiki2 wikitext-2-test wiki-text-2 wikitext2-raw wikitext-2-raw-test wiki.test.raw wiki",
    "wikitext-103": "wikitext-103 wikitext103 wt103 wikitext-103-raw-v1 wikitext-103-v1",
}
TEXT = {name: text for text, names in TEXT_NAMES.items() for name in names.split()}


@dataclass(frozen=True)
class Named:
    """What a text names of one kind, and the words of it that are left."""

    what: str | None
    rest: tuple[str, ...]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; `torch.float16` and `AMP_FP16` have two.

    >>> words_of("torch.float16"), words_of("TorchScript Latency"), words_of("eff-FT")
    (('torch', 'float16'), ('torchscript', 'latency'), ('eff', 'ft'))
    """
    told = unicodedata.normalize("NFKC", text[:_LONGEST]).lower().replace("μ", "u")
    return tuple(re.findall(r"[a-z]+[0-9a-z]*|\d+(?:\.\d+)?[a-z]*", told))


def longest(words: Sequence[str], names: Iterable[str]) -> tuple[str, int, int] | None:
    """The name of most words that some neighbouring words make, and where it begins and ends."""
    known = set(names)
    for count in range(min(4, len(words)), 0, -1):
        for begin in range(len(words) - count + 1):
            joined = "-".join(words[begin : begin + count])
            if joined in known:
                return joined, begin, begin + count
    return None


def precision_in(words: Sequence[str], alone: bool = False) -> Named:
    """A precision among words; with `alone` they are a whole cell of a column of precisions.

    What tensorgap does not measure is named as it stands there.

    >>> precision_in(("torch", "float16")).what, precision_in(("amp", "fp16")).what
    ('fp16', 'mixed')
    >>> precision_in(("int8",)).what, precision_in(("batch", "16")).what
    ('int8', None)
    """
    words = affirmed(words)
    for begin, word in enumerate(words):
        pair = "-".join(words[begin : begin + 2])
        for count, name in ((2, pair), (1, word)):
            if OTHER_PRECISION.fullmatch(name):
                return Named(name, words[:begin] + words[begin + count :])
    known = PRECISION.keys() if alone and len(words) <= 2 else PRECISION.keys() - _ONLY_ALONE
    if found := longest(words, known):
        name, begin, end = found
        return Named(PRECISION[name], words[:begin] + words[end:])
    return Named(None, words)


def affirmed(words: Sequence[str]) -> tuple[str, ...]:
    """Words without what they deny.

    >>> affirmed(("fp32", "tf32", "off")), affirmed(("fp16", "no", "amp")), affirmed(("no", "amp"))
    (('fp32',), ('fp16',), ('no', 'amp'))
    """
    found: list[str] = []
    denied = False
    for word in words:
        if word in _OFF and found:
            found.pop()
        elif denied:
            denied = False
        elif word in _NO and len(words) > 2:
            denied = True
        else:
            found.append(word)
    return tuple(found)


_OFF, _NO = {"off", "disabled", "false"}, {"no", "without", "not"}


def engine_in(words: Sequence[str]) -> Named:
    """An engine among words.

    >>> engine_in(("eff", "ft")).what, engine_in(("dynamo", "fx2trt", "fp16")).what
    ('eff-ft', 'tensorrt')
    """
    if found := longest(words, ENGINE):
        name, begin, end = found
        return Named(ENGINE[name], (*words[:begin], *words[end:]))
    return Named(None, tuple(words))


def model_of(text: str) -> str | None:
    """A model by its usual spellings; another one as it is written; None: it is no model's name.

    >>> model_of("GPT2LMHeadModel"), model_of("openai-community/gpt2"), model_of("GPT-2 Medium")
    ('gpt2', 'gpt2', 'gpt2-medium')
    >>> model_of("Qwen2.5-3B"), model_of("eager")
    ('Qwen2.5-3B', None)
    """
    name = re.sub(r"[()\[\],]", " ", text[:_LONGEST].lower())
    name = re.sub(r"[\s_]+", "-", name.strip())
    for organisation in _ORGANISATIONS:
        name = name.removeprefix(organisation)
    if name in MODEL:
        return MODEL[name]
    plain = re.sub(rf"(-({_SIZE_OR_TYPE}|{_AS_IT_IS}))+$", "", name)
    if plain in MODEL:
        return MODEL[plain]
    named = [MODEL[word] for word in re.split(r"[^a-z0-9.-]+|<br>", name) if word in MODEL]
    ends = [MODEL[known] for known in MODEL if name.endswith(f"-{known}") and known != "tiny"]
    if named or ends:
        return max([*named, *ends], key=len)
    return text.strip() if _FAMILIES.search(name) else None


def text_of(text: str) -> str:
    """A text by its usual spellings; another one as it is written.

    >>> text_of("WikiText2"), text_of("Penn Treebank")
    ('wikitext-2', 'Penn Treebank')
    """
    return TEXT.get(re.sub(r"[\s_]+", "-", text.strip().lower()), text.strip())


def nearest(name: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """The known name that is most like another; None: none is.

    >>> nearest("latncy", ["latency", "energy"])
    'latency'
    """
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), 1, cutoff)
    return by_lower[found[0]] if found else None


def is_measured(precision: str) -> bool:
    """Whether it is a precision that means the same in a table as in tensorgap."""
    return precision in FLOATING
