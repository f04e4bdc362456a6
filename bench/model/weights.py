"""Weights in the host's memory: read from their files, kept for other processes, or random."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
)

from bench import shelf
from bench.errors import Unsupported
from bench.measured import UNRECOGNISED
from bench.model import attention
from bench.model.folders import Files, unlike
from bench.text import published

_SEED = 0
_RANDOM_NUMBERS = 1_000_003  # a prime, so that no two rows of a matrix are alike
_SPREAD = 0.02  # initializer_range of transformers' configurations
# What older transformers saved: masks of each layer, and frequencies of rotary positions.
_OLD_BUFFERS = (
    *(f"{layer}.{name}" for layer in ("attn", "attention") for name in ("bias", "masked_bias")),
    "rotary_emb.inv_freq",
)
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # of safetensors
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Held:
    """Weights in the host's memory, of the type that they are stored in, and what is known."""

    config: PreTrainedConfig
    tensors: Mapping[str, torch.Tensor]
    sha256: str | None = None
    published_as: str | None = None


def kept(key: str) -> Held | None:
    """The weights that another process of this node has loaded before."""
    path = shelf.find(key)
    if path is None:
        return None
    with safe_open(path, "pt") as file:
        facts, names = json.loads(file.metadata()["facts"]), file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    told = facts.pop("config")
    config = CONFIG_MAPPING[told["model_type"]].from_dict(told, attn_implementation=attention.FUSED)
    return Held(config, tensors, **facts)


def put(key: str, held: Held) -> Held:
    """Keep the weights for the next processes of this node, as safetensors would write them."""
    facts = {
        "config": held.config.to_dict(),
        "sha256": held.sha256,
        "published_as": held.published_as,
    }
    header: dict[str, Any] = {"__metadata__": {"facts": json.dumps(facts)}}
    end = 0
    for name, tensor in held.tensors.items():
        start, end = end, end + tensor.nbytes
        offsets = [start, end]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    # numpy has no bfloat16.
    bits = (t.contiguous().view(torch.uint8).numpy() for t in held.tensors.values())
    contents = (memoryview(one).cast("B") for one in bits)
    head = len(written).to_bytes(8, "little") + written
    shelf.put(key, len(head) + end, itertools.chain([head], contents))
    return held


def config_of(folder: Path | None) -> PreTrainedConfig:
    """The configuration of a folder, which was checked; without one, GPT-2's of 124M."""
    # Named, so that a config.json cannot have kernels of its own fetched.
    how = {"attn_implementation": attention.FUSED}
    if folder is None:
        return GPT2Config(**how)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False, **how)


def at_random(config: PreTrainedConfig) -> Held:
    """Seeded random weights of an architecture: the same time, no knowledge.

    They are distributed as transformers initialises them, and of the type that the configuration
    names. What repeats after a million takes 0.1 s for GPT-2, where transformers takes 1.5 s.
    """
    named = getattr(torch, str(config.dtype).removeprefix("torch."), None)
    dtype = named if named in _NAMES else torch.float32
    with torch.device("meta"):
        shapes = dict(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).named_parameters())
    seeded = torch.Generator().manual_seed(_SEED)
    block = torch.empty(_RANDOM_NUMBERS).normal_(std=_SPREAD, generator=seeded).to(dtype)
    # Gemma's norms multiply by one more than their weight.
    scale = 0.0 if config.model_type.startswith("gemma") else 1.0
    tensors = {}
    for name, like in shapes.items():
        if like.dim() == 1:
            weight = scale if name.endswith("weight") else 0.0
            tensors[name] = torch.full(like.shape, weight, dtype=dtype)
        else:
            times = -(-like.numel() // len(block))
            tensors[name] = block.repeat(times)[: like.numel()].reshape(like.shape)
    return Held(config, tensors)


def read(name: str, files: Files, config: PreTrainedConfig) -> Held:
    """The weights of a model's files, of the type that they are stored in."""
    module, loading = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        files.folder,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=stored_type(name, files.weights),
        attn_implementation=attention.FUSED,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    # transformers would fill the gaps with random weights.
    mismatched = {key for key, *_shapes in loading["mismatched_keys"]}
    extra = {key for key in loading["unexpected_keys"] if not key.endswith(_OLD_BUFFERS)}
    if wrong := sorted({*loading["missing_keys"], *mismatched, *extra}):
        raise unlike(name, f"they differ in {len(wrong)} weights, such as {wrong[0]}")
    sha256 = digest(files.weights)
    known_as = published.WEIGHTS.get(sha256, UNRECOGNISED)
    tensors = {key: tensor.detach() for key, tensor in module.named_parameters()}
    return Held(module.config, tensors, sha256, known_as)


def stored_type(name: str, paths: Sequence[Path]) -> torch.dtype:
    """The type that holds each number of the files: float32 where they have several."""
    found = set()
    for path in paths:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  # it is no mapping
                stored = file.get_slice(key).get_dtype()
                if key.endswith(_OLD_BUFFERS):
                    continue
                if stored not in (*_DTYPES, "F64"):
                    raise Unsupported(
                        f"model {name}: {key} is stored as {stored}; must be one of"
                        f" {', '.join(_DTYPES)}: quantised weights are not supported"
                    )
                found.add(stored)
    return _DTYPES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of files one after the other: what `cat FILES | sha256sum` says."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                found.update(block)
    return found.hexdigest()


def placed(held: Held, device_type: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model in memory of its own on the device, wherever its weights come from."""
    with weightless():
        module = MODEL_FOR_CAUSAL_LM_MAPPING[type(held.config)]._from_config(
            held.config, dtype=dtype, attn_implementation=attention.FUSED
        )
    tensors = {
        name: tensor.to(device_type, dtype, copy=True) for name, tensor in held.tensors.items()
    }
    module.load_state_dict(tensors, strict=False, assign=True)
    module.tie_weights()
    # With one, each eager forward asks the device whether a prompt is padded; ours never is.
    module.config.pad_token_id = None
    # The buffers: what a configuration implies, such as the frequencies of rotary positions.
    return module.to(device_type).eval().requires_grad_(False)


@contextmanager
def weightless() -> Iterator[None]:
    """Modules that are made inside have shapes in place of weights, but whole buffers."""
    register = torch.nn.Module.register_parameter

    def as_shape(module: torch.nn.Module, name: str, weight: torch.nn.Parameter | None) -> None:
        register(module, name, None if weight is None else torch.nn.Parameter(weight.to("meta")))

    torch.nn.Module.register_parameter = as_shape
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register
