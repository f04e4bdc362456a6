"""Decoders of several families: loaded, run and refused; held against transformers' own forward."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import decoders as small
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench import decoders, outcomes, shelf
from bench.asked import Workload
from bench.errors import TensorgapError, Unsupported
from bench.model import engines, weights
from bench.model.folders import INDEX, key_of
from bench.model.load import Model, load_model
from bench.model.requests import forward_queue
from bench.model.tokens import prompt_ids

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = list(small.CONFIGS)
PROMPT, NEW = 16, 8  # together as long as the window of those that have one
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A function that saves a family once."""
    found: dict[tuple[str, torch.dtype], Path] = {}

    def make(family: str, dtype: torch.dtype = torch.float32) -> Path:
        if (family, dtype) not in found:
            found[family, dtype] = small.saved(tmp_path_factory.mktemp(family), family, dtype)
        return found[family, dtype]

    return make


@pytest.fixture
def copied(folder: Folder, tmp_path: Path) -> Folder:
    """A function that copies one, to be changed."""
    return lambda family: shutil.copytree(folder(family), tmp_path / family)


def theirs(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    how = {"attn_implementation": "eager", "dtype": dtype}
    return AutoModelForCausalLM.from_pretrained(folder, **how).eval()


def some_ids(batch: int = 2, tokens: int = PROMPT) -> torch.Tensor:
    return torch.randint(0, 600, (batch, tokens), generator=torch.Generator().manual_seed(1))


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits_of(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return engines.forward("eager", model.module)(ids)


# ------------------------------------------------------------------------------- as transformers


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_logits_are_those_of_transformers_with_attention_in_single_steps(
    folder: Folder, family: str, name: str
) -> None:
    """Within a window, too, where ours is a plain causal one."""
    model, ids = load_model(str(folder(family)), name, "cpu"), some_ids(tokens=small.WINDOW)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    with torch.inference_mode():
        expected = theirs(folder(family), dtype)(ids).logits
    found = logits_of(model, ids)
    assert found.dtype == dtype
    # Twice the step of bfloat16 beside the largest logit; float32 sums in another order.
    close = 1e-5 if name == "fp32" else 2**-6 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * close)
    assert expected.abs().max() > 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generation_is_the_greedy_one_of_transformers(folder: Folder, family: str) -> None:
    model, ids = load_model(str(folder(family)), "fp32", "cpu"), some_ids(3)
    expected = theirs(folder(family), torch.float32).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
    )
    run = engines.generation("eager", model.module, NEW)
    with torch.inference_mode():
        assert torch.equal(run(ids), expected[:, PROMPT:])
        # A prompt begins the cache anew.
        assert torch.equal(run(ids[:, :PROMPT]), expected[:, PROMPT:])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_is_what_its_configuration_says(folder: Folder, family: str) -> None:
    model = load_model(str(folder(family)), "fp32", "cpu")
    assert model.weights.parameters == model.shape.parameters
    assert model.positions == (small.WINDOW if family in ("mistral", "gemma2") else 64)
    assert (model.vocabulary, model.bos) == (600, 0)
    content = (folder(family) / "model.safetensors").read_bytes()
    assert model.weights.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "opt"])
def test_a_compiled_decoder_is_one_graph_and_gives_the_same(
    folder: Folder, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph break would be an error; what inductor makes of a graph is not tested here."""
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)
    model, ids = load_model(str(folder(family)), "fp32", "cpu"), some_ids()
    with torch.inference_mode():
        plain = engines.generation("eager", model.module, 3)(ids)
        assert torch.equal(engines.generation("compile", model.module, 3)(ids), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_request_waits_for_the_device(folder: Folder, family: str) -> None:
    model, ids = load_model(str(folder(family)), "fp32", "cpu"), some_ids()
    runs = engines.forward("eager", model.module), engines.generation("eager", model.module, 3)
    with torch.inference_mode():
        for run in runs:
            run(ids)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                run(ids)
            ran = {event.key for event in seen.key_averages()}
            assert "aten::scaled_dot_product_attention" in ran
            assert not [n for n in ran if "is_nonzero" in n or "item" in n or "scalar_dense" in n]


# ------------------------------------------------------------------------------- files


def test_weights_in_several_files_are_those_of_one(copied: Folder, tmp_path: Path) -> None:
    one = copied("llama")
    several = small.saved(tmp_path / "several", "llama", max_shard_size="40KB")
    shards = sorted(several.glob("*.safetensors"))
    assert len(shards) > 1 and not (several / "model.safetensors").exists()
    found, expected = (load_model(str(path), "fp32", "cpu") for path in (several, one))
    assert torch.equal(logits_of(found, some_ids()), logits_of(expected, some_ids()))
    whole = b"".join(path.read_bytes() for path in shards)
    assert found.weights.sha256 == hashlib.sha256(whole).hexdigest()
    before = key_of(several)
    shards[0].write_bytes(shards[0].read_bytes())
    assert key_of(several) != before


@pytest.mark.parametrize("same", [True, False])
def test_a_head_beside_the_embedding_that_it_is_tied_to_must_be_the_same(
    copied: Folder, same: bool
) -> None:
    path = copied("llama")
    found = load_file(path / "model.safetensors")
    found["lm_head.weight"] = found["model.embed_tokens.weight"] + (0 if same else 1)
    save_file(found, path / "model.safetensors", metadata={"format": "pt"})
    if same:
        assert load_model(str(path), "fp32", "cpu").weights.parameters == 34_720
    else:
        with pytest.raises(Unsupported, match=r"53,920 parameters, and 34,720 by what"):
            load_model(str(path), "fp32", "cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_stay_as_they_are_stored_and_are_widened_exactly(
    folder: Folder, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weights.Held] = []
    real = weights.put
    monkeypatch.setattr(weights, "put", lambda key, found: held.append(found) or real(key, found))
    model = load_model(str(folder("llama", dtype)), "fp32", "cpu")
    assert {tensor.dtype for tensor in held[0].tensors.values()} == {dtype}
    stored = load_file(folder("llama", dtype) / "model.safetensors")
    loaded = model.module.state_dict()
    for name, tensor in stored.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.float()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_from_the_shelf_as_they_were_put_there(
    folder: Folder, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def put(key: str, size_bytes: int, content: Iterable[bytes | memoryview]) -> None:
        written = b"".join(content)
        assert len(written) == size_bytes
        (tmp_path / "shelf").write_bytes(written)

    monkeypatch.setattr("bench.shelf.put", put)
    name = str(folder("gpt_neox", dtype))
    first = load_model(name, "fp32", "cpu")
    monkeypatch.setattr("bench.shelf.find", lambda key: str(tmp_path / "shelf"))
    monkeypatch.setattr(weights, "read", None)
    again = load_model(name, "fp32", "cpu")
    assert (again.weights, again.shape) == (first.weights, first.shape)
    assert torch.equal(logits_of(again, some_ids()), logits_of(first, some_ids()))
    assert {t.dtype for t in load_file(tmp_path / "shelf").values()} == {dtype}


@pytest.mark.parametrize("how", [{}, {"max_shard_size": "40KB"}])
def test_a_model_of_the_cache_of_the_hub_needs_no_hub(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, str]
) -> None:
    """The layout of huggingface_hub: a snapshot of links, and a name for its commit."""
    commit, kept = "0" * 40, tmp_path / "models--somebody--small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    small.saved(kept / "snapshots" / commit, "qwen2", **how)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = load_model("somebody/small", "fp32", "cpu")
    local = load_model(str(folder("qwen2")), "fp32", "cpu")
    assert found.weights.parameters == local.weights.parameters
    assert torch.equal(logits_of(found, some_ids()), logits_of(local, some_ids()))
    assert load_model("somebody/small:random", "fp32", "cpu").weights.sha256 is None


# ------------------------------------------------------------------------------- random weights


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_need_a_configuration_alone(
    copied: Folder, family: str, tmp_path: Path
) -> None:
    path = copied(family)
    for other in path.iterdir():
        if other.name != "config.json":
            other.unlink()
    model = load_model(f"{path}:random", "bf16", "cpu")
    assert model.tokenizer is None and model.weights.sha256 is None
    assert model.weights.parameters == model.shape.parameters
    ids = torch.tensor(prompt_ids(model, 20))[None]
    assert ids.max() < model.vocabulary
    found = logits_of(model, ids)
    assert found.isfinite().all() and found.std() > 0


def test_prompts_of_a_small_vocabulary_lie_within_it(copied: Folder) -> None:
    path = copied("llama")
    configure(path, vocab_size=7)
    model = load_model(f"{path}:random", "fp32", "cpu")
    assert min(prompt_ids(model)) >= 0 and max(prompt_ids(model)) == 6


_HASH = """
import hashlib, sys, torch
from bench.model.load import load_model
found = hashlib.sha256()
for name, tensor in load_model(sys.argv[1], "fp32", "cpu").module.state_dict().items():
    found.update(name.encode() + tensor.numpy().tobytes())
print(found.hexdigest())
"""


def test_random_weights_are_the_same_in_each_process(folder: Folder) -> None:
    name = f"{folder('llama')}:random"
    there = subprocess.run(
        [sys.executable, "-c", _HASH, name],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256()
    for key, tensor in load_model(name, "fp32", "cpu").module.state_dict().items():
        here.update(key.encode() + tensor.numpy().tobytes())
    assert there.stdout == f"{here.hexdigest()}\n"


def test_random_weights_are_of_the_type_that_the_configuration_names(copied: Folder) -> None:
    path = copied("llama")
    configure(path, dtype="bfloat16")
    held = weights.at_random(weights.config_of(path))
    assert {tensor.dtype for tensor in held.tensors.values()} == {torch.bfloat16}


def test_random_weights_beyond_all_memory_are_unsupported(copied: Folder) -> None:
    path = copied("llama")
    configure(path, intermediate_size=10**9)
    with pytest.raises(Unsupported, match=r"of weights do not fit into .* of memory"):
        load_model(f"{path}:random", "fp32", "cpu")


def test_a_cpu_is_not_filled_with_weights_that_cannot_fit(
    copied: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied("llama")
    parameters = load_model(str(path), "fp32", "cpu").shape.parameters
    monkeypatch.setattr(shelf, "memory_bytes", lambda: 4 * parameters - 1)
    with pytest.raises(MemoryError, match=r"needs at least .* to be loaded as float32, and") as no:
        load_model(str(path), "fp32", "cpu")
    assert outcomes.classify(no.value)[0] == "OUT_OF_MEMORY"
    assert load_model(str(path), "bf16", "cpu").shape.parameters == parameters
    with pytest.raises(MemoryError, match="bfloat16"):
        load_model(f"{path}:random", "bf16", "cpu")


# ------------------------------------------------------------------------------- refused


def test_a_request_longer_than_the_window_is_unsupported(folder: Folder) -> None:
    model = load_model(str(folder("mistral")), "fp32", "cpu")
    fits = Workload("m", prompt_tokens=small.WINDOW - 4, new_tokens=4)
    forward_queue("cpu", model, fits)
    for beyond in (Workload("m", prompt_tokens=25), Workload("m", "eager", 1, 24, 1)):
        with pytest.raises(Unsupported, match=r"m has layers that see 24 tokens \(sliding_window"):
            forward_queue("cpu", model, beyond)


def piped(folder: Path) -> None:
    (folder / "shard.safetensors").unlink()
    os.mkfifo(folder / "shard.safetensors")


def indexed(shard: Any) -> Callable[[Path], None]:
    """Weights that an index names."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "shard.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))

    return change


def stored_as(dtype: torch.dtype) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = load_file(path)
        found["model.norm.weight"] = found["model.norm.weight"].to(dtype)
        save_file(found, path, metadata={"format": "pt"})

    return change


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled weights": (pickled_only, "pickled weights are not loaded"),
    "another type": (lambda f: configure(f, model_type="mamba"), 'model_type = "mamba" must be'),
    "experts": (lambda f: configure(f, model_type="mixtral"), 'model_type = "mixtral" must be'),
    "quantised": (
        lambda f: configure(f, quantization_config={"quant_method": "gptq"}),
        "its weights are quantised",
    ),
    "stored in 8 bits": (stored_as(torch.int8), "norm.weight is stored as I8; must be one of F32"),
    "stored in fp8": (stored_as(torch.float8_e4m3fn), "is stored as F8_E4M3; must be one of F32"),
    "no decoder": (lambda f: configure(f, is_causal=False), "each token sees all others"),
    "positions by length": (
        lambda f: configure(f, rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
        'rope_type = "dynamic" must be one of default, linear, llama3, yarn',
    ),
    "more weights": (
        lambda f: configure(f, num_hidden_layers=3),
        "they differ in 9 weights, such as model.layers.2",
    ),
    "fewer weights": (lambda f: configure(f, num_hidden_layers=1), "do not belong together"),
    "other heads": (lambda f: configure(f, num_key_value_heads=1), "do not belong together"),
    "a great width": (lambda f: configure(f, hidden_size=10**9), "do not fit into"),
    "many layers": (lambda f: configure(f, num_hidden_layers=10**9), "do not fit into"),
    "more digits": (lambda f: configure(f, hidden_size=10**30), "must be at most 1,000,000,000"),
    "a shard above": (indexed("../shard.safetensors"), "'../shard.safetensors' is no name of a"),
    "a shard elsewhere": (indexed("/etc/passwd"), "'/etc/passwd' is no name of a .safetensors"),
    "a pickled shard": (indexed("pytorch_model.bin"), "'pytorch_model.bin' is no name of a"),
    "a shard of no name": (indexed(7), "'7' is no name of a .safetensors file"),
    "a shard of lines": (indexed("a\n.safetensors"), "is no name of a .safetensors"),
    "a shard that is none": (indexed("other.safetensors"), "it has no other.safetensors, which"),
    "a shard that is a pipe": (
        lambda f: [indexed("shard.safetensors")(f), piped(f)],
        "it has no shard.safetensors, which",
    ),
    "an index of nothing": (
        lambda f: [indexed("x")(f), (f / INDEX).write_text('{"weight_map": []}')],
        "0 files; must be from 1 to 1,000",
    ),
    "an index cut short": (
        lambda f: [indexed("x")(f), (f / INDEX).write_text("{")],
        "model.safetensors.index.json cannot be read",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_dense_decoder_in_safetensors_is_one_message(
    copied: Folder, change: Callable[[Path], object], message: str
) -> None:
    path = copied("llama")
    change(path)
    with pytest.raises((TensorgapError, Unsupported)) as caught:
        load_model(str(path), "fp32", "cpu")
    words = str(caught.value)
    assert words.startswith(f"model {path}: ")
    assert message in words
    assert "\n" not in words
    assert len(words) < 700


@pytest.mark.parametrize("name", [":random", "./nowhere:random", "/nowhere:random"])
def test_random_weights_of_nothing_are_one_message(name: str) -> None:
    with pytest.raises(TensorgapError, match=f"^model {name}: "):
        load_model(name, "fp32", "cpu")


def test_a_configuration_that_names_no_quantisation_is_of_plain_weights(copied: Folder) -> None:
    path = copied("llama")
    configure(path, quantization_config=None)
    assert load_model(str(path), "fp32", "cpu").weights.parameters == 34_720


def test_soft_capped_attention_is_unsupported(copied: Folder) -> None:
    path = copied("gemma2")
    configure(path, attn_logit_softcapping=50.0)
    with pytest.raises(Unsupported, match=r"attn_logit_softcapping = 50\.0: no fused attention"):
        load_model(str(path), "fp32", "cpu")


def test_a_configuration_that_the_formula_misreads_is_unsupported(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decoders.Shape.parameters.fget
    assert real
    monkeypatch.setattr(decoders.Shape, "parameters", property(lambda shape: real(shape) - 1))
    with pytest.raises(Unsupported, match=r"34,720 parameters, and 34,719 by what"):
        load_model(str(folder("llama")), "fp32", "cpu")


def test_many_layers_of_nothing_are_refused_before_they_are_built(copied: Folder) -> None:
    path = copied("llama")
    configure(path, num_hidden_layers=2000)
    with pytest.raises(TensorgapError, match="2,000 layers: must be at most 1,000"):
        load_model(f"{path}:random", "fp32", "cpu")
