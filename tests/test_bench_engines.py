from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GPT2Config, GPT2LMHeadModel

from bench.device import precision
from bench.errors import Unsupported
from bench.lookup import TINY_FOLDER
from bench.model import attention, engines
from bench.model.load import Model, load_model
from bench.model.tokens import prompt_ids


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=100)).eval()


class Operations(TorchDispatchMode):  # type: ignore[misc]
    """Counts the operations that reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.found[str(function)] += 1
        return function(*args, **(kwargs or {}))


def profiled(run: engines.Forward, ids: torch.Tensor) -> Counter[str]:
    """How often each operation runs, those within another among them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run(ids)
    return Counter({event.key: event.count for event in seen.key_averages()})


@pytest.mark.parametrize("batch", [1, 3])
def test_eager_gives_the_logits_of_a_plain_call(model: GPT2LMHeadModel, batch: int) -> None:
    ids = torch.randint(0, 100, (batch, 17), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(engines.forward("eager", model)(ids), model(ids).logits)


@pytest.mark.parametrize("batch", [1, 3])
def test_eager_never_waits_for_the_device_and_copies_no_cache(
    model: GPT2LMHeadModel, batch: int
) -> None:
    run = engines.forward("eager", model)
    ids = torch.zeros(batch, 17, dtype=torch.long)
    with torch.inference_mode(), Operations() as ours:
        run(ids)
    waits = ("is_nonzero", "_local_scalar_dense", "item")
    assert not [name for name in ours.found if any(wait in name for wait in waits)]
    assert "aten.cat.default" not in ours.found
    # What is avoided is there in a plain call, so that the test can fail.
    with torch.inference_mode(), Operations() as plain:
        model(ids, use_cache=False)
    assert plain.found["aten.is_nonzero.default"] == 1


def test_eager_attends_to_what_stands_before_and_not_to_what_follows(
    model: GPT2LMHeadModel,
) -> None:
    run = engines.forward("eager", model)
    ids = torch.arange(17)[None]
    changed = ids.clone()
    changed[0, 10] = 99
    with torch.inference_mode():
        before, after = run(ids), run(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.equal(before[:, 10:], after[:, 10:])


# ------------------------------------------------------------------------------- generation


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load_model("tiny", "fp32", "cpu")


def prompts(tiny: Model, batch: int, tokens: int) -> torch.Tensor:
    return torch.tensor(prompt_ids(tiny)[: batch * tokens]).reshape(batch, tokens)


@pytest.mark.parametrize(("batch", "tokens", "new"), [(3, 20, 12), (1, 1, 5), (2, 9, 1)])
def test_a_generation_is_the_greedy_one_of_transformers(
    tiny: Model, batch: int, tokens: int, new: int
) -> None:
    ids = prompts(tiny, batch, tokens)
    theirs = tiny.module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
    )
    run = engines.generation("eager", tiny.module, new)
    with torch.inference_mode():
        assert torch.equal(run(ids), theirs[:, tokens:])


def test_a_prompt_begins_the_cache_anew(tiny: Model) -> None:
    run = engines.generation("eager", tiny.module, 8)
    first, second = prompts(tiny, 2, 16)[:1], prompts(tiny, 2, 16)[1:]
    with torch.inference_mode():
        before = run(first)
        other = run(second)
        assert torch.equal(run(first), before)
    assert not torch.equal(before, other)


def test_a_generation_never_waits_for_the_device(tiny: Model) -> None:
    run = engines.generation("eager", tiny.module, 4)
    ids = prompts(tiny, 2, 16)
    with torch.inference_mode(), Operations() as ours:
        run(ids)
        run(ids)
    waits = ("is_nonzero", "_local_scalar_dense", "item")
    assert not [name for name in ours.found if any(wait in name for wait in waits)]


@pytest.mark.parametrize("name", ["fp32", "bf16", "mixed"])
def test_the_mask_of_a_new_token_is_made_once(name: str) -> None:
    held = load_model("tiny", name, "cpu")
    ids = prompts(held, 2, 16)
    with precision.applied(name, "cpu"), torch.inference_mode():
        found = []
        for new in (1, 2):
            run = engines.generation("eager", held.module, new)
            run(ids)
            found.append(profiled(run, ids))
    assert found[1]["aten::where"] == 0
    assert found[1]["aten::masked_fill_"] == 1
    # A new token casts what a prompt does, the mask not among it.
    assert found[1]["aten::_to_copy"] == 2 * found[0]["aten::_to_copy"]


def test_the_mask_of_a_new_token_has_aligned_rows() -> None:
    mask = attention.causal_mask(
        batch_size=2,
        q_length=1,
        kv_length=17,
        q_offset=11,
        attention_mask=None,
        allow_is_causal_skip=False,
        dtype=torch.float32,
        device="cpu",
    )
    assert mask.shape == (2, 1, 1, 17)
    assert mask[0, 0, 0].tolist() == [0.0] * 12 + [float("-inf")] * 5
    assert (mask.stride(-2) % 8, mask.stride(-1)) == (0, 1)


def test_a_model_with_a_padding_token_does_not_look_for_it(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY_FOLDER, tmp_path / "padded"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 0}))
    held = load_model(str(folder), "fp32", "cpu")
    run = engines.forward("eager", held.module)
    with torch.inference_mode():
        assert profiled(run, prompts(held, 2, 16))["aten::_local_scalar_dense"] == 0


# ------------------------------------------------------------------------------- graphs


class Recorder(TorchDispatchMode):  # type: ignore[misc]
    """A CUDA graph of operations on a CPU: each is remembered with the memory that it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for function, args, kwargs, before in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(again), strict=True):
                # A view or a change in place has written to that memory already.
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """torch.cuda's graphs on a CPU; whether autocast's cache was on at each capture."""
    caches: list[bool] = []

    warm: list[Stream] = []

    class Stream:
        def wait_stream(self, other: Any) -> None:
            pass

    def current(stream: Stream) -> contextlib.nullcontext[None]:
        warm.append(stream)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def capture(graph: Recorder, stream: Stream) -> Iterator[None]:
        assert stream in warm  # where torch already keeps a workspace
        caches.append(torch.is_autocast_cache_enabled())
        with graph:
            yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return caches


def test_a_replayed_forward_reads_the_ids_that_it_is_given(
    model: GPT2LMHeadModel, recorded: list[bool]
) -> None:
    run, plain = engines.forward("graph", model), engines.forward("eager", model)
    batches = torch.randint(0, 100, (3, 2, 17), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for ids in batches:
            assert torch.equal(run(ids), plain(ids))
    assert recorded == [False]


def test_a_replayed_generation_is_the_eager_one(tiny: Model, recorded: list[bool]) -> None:
    run = engines.generation("graph", tiny.module, 6)
    plain = engines.generation("eager", tiny.module, 6)
    ids = prompts(tiny, 2, 16)
    with torch.inference_mode():
        for prompt in (ids[:1], ids[1:], ids[:1]):
            assert torch.equal(run(prompt), plain(prompt))
    assert recorded == [False, False]


# ------------------------------------------------------------------------------- refusals


def test_eager_runs_everywhere() -> None:
    engines.check("eager", "cpu")
    engines.check("eager", "cuda", (6, 0))
    engines.check("graph", "cuda", (6, 0))


def test_a_cpu_replays_no_graph() -> None:
    with pytest.raises(Unsupported, match="CUDA graphs, which a CPU does not have"):
        engines.check("graph", "cpu")


@pytest.mark.parametrize(("device_type", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_compile_needs_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device_type: str, variable: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(Unsupported, match=f"needs a compiler.*{variable}"):
        engines.check("compile", device_type)
    compiler = tmp_path / "mine"
    compiler.touch(mode=0o755)
    monkeypatch.setenv(variable, str(compiler))
    engines.check("compile", device_type)


def test_compile_needs_a_gpu_that_triton_knows() -> None:
    with pytest.raises(Unsupported, match=r"compute capability 7\.0; compute capability 6\.1"):
        engines.check("compile", "cuda", (6, 1))


def test_compile_would_run_bf16_eagerly_where_triton_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "mine"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(Unsupported, match=r"no bf16 before compute capability 8\.0: 7\.5 would"):
        engines.check("compile", "cuda", (7, 5), "bf16")
    engines.check("compile", "cuda", (7, 5), "fp16")
    engines.check("compile", "cuda", (8, 0), "bf16")
