"""bench.model: GPT-2 from a folder, at random, embedded; strangers' models do nothing."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from processes import without_cache
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, masking_utils

from bench.asked import FLOATING
from bench.errors import TensorgapError, Unsupported
from bench.files import private
from bench.lookup import TINY_FOLDER
from bench.model import engines
from bench.model.folders import key_of
from bench.model.load import Model, load_model
from bench.model.tokens import prompt_ids, token_ids
from bench.text.embedded import corpus

pytestmark = pytest.mark.usefixtures("one_thread")

Change = Callable[[Path], object]
PARAMETERS_OF_GPT2 = 124_439_808
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
WORDS: dict[str, int] = json.loads((TINY_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))[
    "model"
]["vocab"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers as `save_pretrained` writes it, with the embedded tokenizer."""
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    path = tmp_path_factory.mktemp("saved")
    GPT2LMHeadModel(config).save_pretrained(path)
    for name in TOKENIZER_FILES:
        shutil.copy(TINY_FOLDER / name, path / name)
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load_model("tiny", "fp32", "cpu")


@pytest.fixture(scope="module")
def gpt2_random() -> Iterator[Model]:
    yield load_model("gpt2:random", "fp32", "cpu")
    gc.collect()


def load(folder: Path, precision: str = "fp32") -> Model:
    return load_model(str(folder), precision, "cpu")


def configure(folder: Path, file: str = "config.json", **changes: Any) -> None:
    path = folder / file
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **changes}), encoding="utf-8")


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


# ------------------------------------------------------------------------------- folders


def test_a_saved_model_is_loaded_as_it_was(folder: Path) -> None:
    found = load(folder)
    saved = load_file(folder / "model.safetensors")
    loaded = found.module.state_dict()
    assert saved
    for name, weight in saved.items():
        assert torch.equal(loaded[name], weight), name
    assert (found.positions, found.vocabulary, found.bos) == (32, len(WORDS), 0)


def test_the_token_before_a_text_is_the_tokenizer_s(folder: Path) -> None:
    configure(folder, bos_token_id=None, eos_token_id=None)
    assert load(folder).prefix == ("bos", 0)


def test_a_loaded_model_is_for_inference(folder: Path) -> None:
    found = load(folder)
    assert not found.module.training
    assert not any(parameter.requires_grad for parameter in found.module.parameters())


@pytest.mark.parametrize("precision", FLOATING)
def test_weights_are_described_at_the_type_of_the_precision(folder: Path, precision: str) -> None:
    found = load(folder, precision)
    width, layers, vocabulary, positions = 16, 2, len(WORDS), 32
    # Per layer: four matrices of 12 width^2 in all with 9 widths of biases, two LayerNorms.
    parameters = (vocabulary + positions) * width + 2 * width
    parameters += layers * (12 * width**2 + 9 * width + 4 * width)
    byte = {"fp16": 2, "bf16": 2}.get(precision, 4)
    assert found.weights.parameters == parameters
    assert found.weights.size_bytes == byte * parameters
    assert found.weights.dtype == {"fp16": "float16", "bf16": "bfloat16"}.get(precision, "float32")
    assert found.module.dtype == getattr(torch, found.weights.dtype)


def test_weights_have_the_fingerprint_of_their_file(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    assert load(folder).weights.sha256 == hashlib.sha256(content).hexdigest()


def test_a_model_in_half_precision_is_loaded_in_single(folder: Path) -> None:
    GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float16).save_pretrained(folder)
    assert load(folder).weights.dtype == "float32"


def test_weights_named_as_on_the_hub_are_loaded(folder: Path) -> None:
    """The hub's GPT-2 has names without `transformer.` and the masks of each layer."""

    def as_on_the_hub(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        for layer in range(2):
            weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()

    before = load(folder).module.state_dict()
    reweigh(folder, as_on_the_hub)
    after = load(folder).module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_torch_keeps_what_it_compiles_where_nobody_else_writes(tmp_path: Path) -> None:
    """Importing torch._dynamo is enough for torch to make its folder; transformers' GPT-2 does."""
    code = "import bench.model, os, torch._dynamo; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_cache() | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [path.name for path in tmp_path.iterdir()] == [f"tensorgap-{os.getuid()}"]
    assert private.why_shared(Path(done.stdout.strip()).parent) is None


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder)
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------- refused folders


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def truncated(length: Callable[[int], int]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[: length(len(content))])

    return change


def rewritten(folder: Path, start: bytes) -> None:
    """Put other bytes at the start of the weights."""
    path = folder / "model.safetensors"
    path.write_bytes(start + path.read_bytes()[len(start) :])


def piped(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def configured_by(name: str, value: int) -> Change:
    """Set what n_layer sets, by the name that transformers knows it by as well."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        del config["n_layer"]
        path.write_text(json.dumps({**config, name: value}), encoding="utf-8")

    return change


def without_a_layer(folder: Path) -> None:
    reweigh(folder, lambda weights: [weights.pop(n) for n in list(weights) if ".h.1." in n])


REFUSED: dict[str, tuple[Change, str]] = {
    "empty folder": (lambda f: [p.unlink() for p in f.iterdir()], "it has no config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), "it has no config.json"),
    "config is cut short": (
        lambda f: (f / "config.json").write_text('{"model_type": "gpt2"'),
        "config.json cannot be read",
    ),
    "config is not text": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\0"),
        "config.json cannot be read",
    ),
    "config is a list": (
        lambda f: (f / "config.json").write_text("[1]"),
        "model_type = null must be one of gpt2, llama,",
    ),
    "config of no type": (
        lambda f: (f / "config.json").write_text("{}"),
        "model_type = null must be one of gpt2, llama,",
    ),
    "another model": (
        lambda f: configure(f, model_type="bert"),
        'model_type = "bert" must be one of gpt2, llama,',
    ),
    "weights of another model": (lambda f: configure(f, model_type="llama"), "do not fit into"),
    "a width in words": (lambda f: configure(f, n_embd="big"), 'hidden_size = "big" must be a'),
    "no heads": (lambda f: configure(f, n_head=0), "num_attention_heads = 0 must be a number"),
    "heads that do not divide": (lambda f: configure(f, n_head=3), "a multiple of its 3 heads"),
    "experts": (lambda f: configure(f, num_local_experts=8), "a mixture of experts"),
    "an adapter": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        "it holds an adapter of another model",
    ),
    "an unknown activation": (lambda f: configure(f, activation_function="evil"), "evil"),
    "an unknown type": (lambda f: configure(f, torch_dtype="evil", dtype="evil"), "evil"),
    "a first token out of range": (
        lambda f: configure(f, bos_token_id=len(WORDS)),
        f"bos_token_id = {len(WORDS)} is none of the {len(WORDS)} tokens",
    ),
    "pickled weights only": (pickled_only, "pickled weights are not loaded"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "it has no model.safetensors"),
    "weights are a folder": (
        lambda f: [(f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()],
        "it has no model.safetensors",
    ),
    "empty weights": (truncated(lambda _: 0), "do not fit into 0 bytes"),
    "weights cut in the header": (truncated(lambda _: 100), "do not fit into 100 bytes"),
    "weights cut in the middle": (truncated(lambda n: n // 2), "cannot be loaded"),
    "weights cut by a byte": (truncated(lambda n: n - 1), "cannot be loaded"),
    "weights without a layer": (
        without_a_layer,
        "they differ in 12 weights, such as transformer.h.1",
    ),
    "weights of fewer layers": (lambda f: configure(f, n_layer=3), "do not belong together"),
    "weights of another width": (lambda f: configure(f, n_embd=32), "do not belong together"),
    "weights of another vocabulary": (
        lambda f: configure(f, vocab_size=len(WORDS) + 1),
        "they differ in 1 weights, such as transformer.wte.weight",
    ),
    "no tokenizer": (lambda f: [(f / n).unlink() for n in TOKENIZER_FILES], "it has no tokenizer"),
    "a tokenizer cut short": (
        lambda f: (f / "tokenizer.json").write_text("{"),
        "cannot be loaded",
    ),
    "a tokenizer of nothing": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "cannot be loaded",
    ),
    "more layers than its config": (lambda f: configure(f, n_layer=1), "do not belong together"),
    "quantised weights": (
        lambda f: configure(f, quantization_config={"quant_method": "fp8"}),
        "its weights are quantised",
    ),
    "a config within lists": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        "config.json cannot be read: maximum recursion depth",
    ),
    "a config of megabytes": (
        lambda f: configure(f, note="x" * 1_000_000),
        "config.json: 1.001 MB; must be at most 1 MB",
    ),
    "a config that is a pipe": (
        piped("config.json"),
        "config.json cannot be read: not a regular file",
    ),
    "a tokenizer that is a pipe": (piped("tokenizer.json"), "tokenizer.json: not a regular file"),
    "a tokenizer of gigabytes": (
        lambda f: os.truncate(f / "tokenizer.json", 3_000_000_000),
        "tokenizer.json: 3 GB; must be at most 50 MB",
    ),
    "a length of a tokenizer that is none": (
        lambda f: configure(f, "tokenizer_config.json", model_max_length={}),
        "cannot be loaded",
    ),
    # transformers would make a name for each.
    "a number of labels": (lambda f: configure(f, num_labels=10**6), "num_labels = 1,000,000:"),
    "a number of digits": (lambda f: configure(f, n_layer=10**4000), "n_layer = 10,000,000,000,"),
    "many layers": (lambda f: configure(f, n_layer=10**6), "do not fit into"),
    "layers by another name": (configured_by("num_hidden_layers", 10**6), "do not fit into"),
    "a great width": (lambda f: configure(f, n_embd=10**6), "do not fit into"),
    "a great width inside": (lambda f: configure(f, n_inner=10**6), "do not fit into"),
    "a great vocabulary": (lambda f: configure(f, vocab_size=10**6), "do not fit into"),
    "many positions": (lambda f: configure(f, n_positions=10**6), "do not fit into"),
    "layers less than none": (
        lambda f: configure(f, n_layer=-(10**6), vocab_size=10**6, n_embd=10**6),
        "num_hidden_layers = -1000000 must be a number from 1",
    ),
    "a header of petabytes": (
        lambda f: rewritten(f, (2**50).to_bytes(8, "little")),
        "header of model.safetensors: 1126 TB; must be at most 10 MB",
    ),
}


def test_an_attention_that_the_config_would_fetch_is_not_used(folder: Path) -> None:
    configure(folder, attn_implementation="stranger/evil")
    assert load_model(str(folder), "fp32", "cpu").weights.attention == "sdpa"


def test_a_plain_causal_mask_is_never_built(
    monkeypatch: pytest.MonkeyPatch, gpt2_random: Model, tiny: Model
) -> None:
    """As in a release of transformers that builds it while a graph is captured."""
    masks: list[torch.Tensor | None] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def seen(*tensors: torch.Tensor, attn_mask: torch.Tensor | None, **how: Any) -> torch.Tensor:
        masks.append(attn_mask)
        return real(*tensors, attn_mask=attn_mask, **how)

    monkeypatch.setattr(masking_utils, "_ignore_causal_mask_sdpa", lambda *_, **__: False)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    ids = torch.ones(2, 8, dtype=torch.long)
    for module in (tiny.module, gpt2_random.module):
        for run in (engines.forward("eager", module), engines.generation("eager", module, 1)):
            with torch.inference_mode():
                run(ids)
                # The first run also decodes, with a cache that is filled in part.
                masks.clear()
                run(ids)
            assert masks == [None] * module.config.n_layer


def test_padding_is_masked(tiny: Model) -> None:
    ids = torch.arange(2, 18)[None]
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = (torch.arange(20) >= 4).long()[None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        found = tiny.module(padded, attention_mask=mask, position_ids=positions).logits[:, 4:]
        torch.testing.assert_close(found, tiny.module(ids).logits)


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_folder_that_is_no_gpt2_in_safetensors_is_one_message(
    folder: Path, change: Change, message: str
) -> None:
    change(folder)
    with pytest.raises((TensorgapError, Unsupported)) as caught:
        load(folder)
    words = str(caught.value)
    assert words.startswith(f"model {folder}: ")
    assert message in words
    assert "\n" not in words
    assert len(words) < 700


def test_the_refusal_of_pickled_weights_says_why_and_what_to_do(folder: Path) -> None:
    pickled_only(folder)
    with pytest.raises(TensorgapError, match="because they can run code: save it with save_pre"):
        load(folder)


def test_a_folder_may_be_below_the_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model(f"~/{folder.name}", "fp32", "cpu").weights == load(folder).weights


@pytest.mark.parametrize(
    "name", ["/nowhere/at/all", "./nowhere", "~/nowhere", "~nobody/at-all", f"/{'x' * 5000}"]
)
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(TensorgapError, match=f"model {name}: there is no such folder"):
        load_model(name, "fp32", "cpu")


def test_a_lack_of_memory_is_not_blamed_on_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(GPT2LMHeadModel, "from_pretrained", exhausted)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load(folder)


# ------------------------------------------------------------------------------- strangers' code

EVIL = "from pathlib import Path\nPath({marker!r}).touch()\nclass Evil: pass\n"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "both"])
def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path, file: str) -> None:
    marker = tmp_path / "evil was here"
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)), encoding="utf-8")
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    if file != "tokenizer_config.json":
        configure(folder, auto_map={name: "evil.Evil" for name in classes})
    if file != "config.json":
        configure(
            folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        )
    found = load(folder)
    assert not marker.exists()
    assert type(found.module) is GPT2LMHeadModel


class Touch:
    """Unpickled, it touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("with_safetensors", [True, False])
def test_a_pickle_beside_the_weights_is_never_opened(
    folder: Path, tmp_path: Path, with_safetensors: bool
) -> None:
    marker = tmp_path / "evil was here"
    for name in ("pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Touch(marker)))
    if with_safetensors:
        load(folder)
    else:
        (folder / "model.safetensors").unlink()
        with pytest.raises(TensorgapError):
            load(folder)
    assert not marker.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert marker.exists()  # else the trap of this test had no spring


# ------------------------------------------------------------------------------- gpt2:random


def test_random_weights_have_the_true_size(gpt2_random: Model) -> None:
    assert gpt2_random.weights.parameters == PARAMETERS_OF_GPT2
    assert gpt2_random.weights.size_bytes == 4 * PARAMETERS_OF_GPT2
    assert gpt2_random.weights.sha256 is None
    assert (gpt2_random.positions, gpt2_random.vocabulary) == (1024, 50257)


def test_random_weights_know_no_words(gpt2_random: Model) -> None:
    assert gpt2_random.tokenizer is None


def test_random_weights_are_the_same_each_time_and_leave_the_dice_alone(
    gpt2_random: Model,
) -> None:
    torch.manual_seed(123)
    expected_next = torch.rand(3)
    torch.manual_seed(123)
    again = load_model("gpt2:random", "fp16", "cpu")
    assert torch.equal(torch.rand(3), expected_next)
    assert again.weights.size_bytes == 2 * PARAMETERS_OF_GPT2
    first, second = (m.module.state_dict() for m in (gpt2_random, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name].half(), second[name]) for name in first)


# ------------------------------------------------------------------------------- tiny, tokens


def test_the_embedded_model_is_small_and_whole(tiny: Model) -> None:
    size = sum(path.stat().st_size for path in TINY_FOLDER.iterdir())
    assert size < 4_000_000
    assert tiny.positions == 256
    assert tiny.vocabulary == len(WORDS)
    content = (TINY_FOLDER / "model.safetensors").read_bytes()
    assert tiny.weights.sha256 == hashlib.sha256(content).hexdigest()
    assert tiny.weights.published_as == "tiny"


def test_tokens_are_those_of_the_text_without_special_ones(folder: Path) -> None:
    story = corpus.generate(seed=3, paragraphs=2)
    ids = token_ids(load(folder), story.text)
    word_of = {token: word for word, token in WORDS.items()}
    assert len(ids) == story.tokens
    assert "".join(word_of[token] for token in ids) == story.text


def test_a_text_with_unknown_words_is_refused_with_their_count(folder: Path) -> None:
    story = corpus.generate(seed=3, paragraphs=1).text
    with pytest.raises(TensorgapError, match=r"lacks words of the text \(1 of \d+ tokens\)"):
        token_ids(load(folder), story.replace(".", " quux.", 1))


def test_a_tokenizer_of_more_words_than_the_model_has_is_refused(folder: Path) -> None:
    few, name = len(WORDS) // 2, "transformer.wte.weight"
    configure(folder, vocab_size=few)
    reweigh(folder, lambda weights: weights.update({name: weights[name][:few].clone()}))
    with pytest.raises(TensorgapError, match="the tokenizer does not belong to the model"):
        token_ids(load(folder), corpus.generate(seed=3, paragraphs=2).text)


def test_prompts_of_a_model_with_words_are_real_tokens(tiny: Model) -> None:
    assert prompt_ids(tiny) == token_ids(tiny, corpus.split("test").text)


def test_prompts_of_random_weights_are_real_tokens_too(gpt2_random: Model, tiny: Model) -> None:
    assert prompt_ids(gpt2_random) == prompt_ids(tiny)


@pytest.mark.parametrize("fewest", [1, 100, 1024, 20_000, 10**6])
def test_prompts_begin_alike_however_many_ids_they_need(tiny: Model, fewest: int) -> None:
    assert prompt_ids(tiny, fewest) == prompt_ids(tiny)[:fewest]


# ------------------------------------------------------------------------------- the hub


def test_a_model_of_the_hub_without_the_hub_is_one_message_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What HF_HUB_OFFLINE=1 sets when huggingface_hub is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TensorgapError) as caught:
        load_model("nobody/never-was", "fp32", "cpu")
    words = str(caught.value)
    assert words.startswith("model nobody/never-was: cannot be loaded: ")
    assert "\n" not in words
    assert "offline" in words
    assert "with the hub or its cache within reach; or gpt2:random" in words


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_whose_files_were_changed_is_another_one(folder: Path, name: str) -> None:
    before, times = key_of(folder), (folder / name).stat()
    assert key_of(folder) == before
    (folder / name).write_bytes((folder / name).read_bytes())
    os.utime(folder / name, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p` does
    assert key_of(folder) != before
