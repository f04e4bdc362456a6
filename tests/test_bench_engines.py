from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from bench import engines


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
