"""bench.model.attention: which attention runs, where not, and that a row runs what it asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bench.asked import ATTENTIONS, Cell, QualityPlan, Sampling, Workload
from bench.errors import Unsupported
from bench.measure import measure
from bench.measured import Measurement, Outcome, Profile
from bench.model import attention, engines
from bench.model.requests import CpuQueue
from bench.outcomes import Request
from bench.profile.trace import trace
from bench.warnings import having

TINY = Workload("tiny", prompt_tokens=16)
QUICK = Sampling(
    warmup_min_s=0,
    warmup_max_s=0.02,
    latency_min_s=0,
    min_samples=5,
    median_within=0.5,
    throughput_s=0.02,
    energy="none",
)


@pytest.fixture(autouse=True)
def quick(small_peaks: None, one_thread: None, frozen_heap: None) -> None:
    """Little work, on one thread."""


def measured(
    *workloads: Workload, precision: str = "fp32"
) -> list[tuple[Measurement, Profile | None]]:
    """The row of each workload, and its profile if it has one."""
    request = Request(
        run="r",
        cell=Cell("CPU", precision),
        replicate=0,
        workloads=workloads,
        sampling=QUICK,
        quality=QualityPlan(enabled=False),
    )
    events = list(measure(request))
    rows = {event.workload: event for event in events if isinstance(event, Measurement)}
    profiles = {event.workload: event for event in events if isinstance(event, Profile)}
    return [(rows[workload], profiles.get(workload)) for workload in workloads]


def flags() -> tuple[bool, ...]:
    cuda = torch.backends.cuda
    return (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
        cuda.math_sdp_enabled(),
    )


@pytest.mark.parametrize("name", ATTENTIONS)
def test_one_attention_is_switched_on_alone_and_all_are_put_back(name: str) -> None:
    before = flags()
    with attention.applied(name):
        assert flags() == tuple(other == name for other in ATTENTIONS)
    assert flags() == before
    with attention.applied("auto"):
        assert flags() == before


@pytest.mark.parametrize(("precision", "new_tokens"), [("fp32", 2), ("mixed", 0)])
def test_a_row_runs_the_attention_that_it_asks_for(precision: str, new_tokens: int) -> None:
    asked = replace(TINY, new_tokens=new_tokens)
    workloads = [replace(asked, attention=name) for name in ("auto", "flash", "math")]
    found = measured(*workloads, precision=precision)
    assert [row.outcome for row, _ in found] == [Outcome.OK] * 3
    ran = [profile.trace.attention if profile else None for _, profile in found]
    assert ran == ["flash", "flash", "math"]
    assert not any(having(p.warnings, "attention-differs") for _, p in found if p)
    assert flags() == (True,) * 4


def test_an_attention_that_a_device_lacks_costs_its_rows_alone() -> None:
    lacked = [replace(TINY, attention=name) for name in ("efficient", "cudnn")]
    *unsupported, (row, _) = measured(*lacked, TINY)
    for name, (found, _) in zip(("efficient", "cudnn"), unsupported, strict=True):
        assert (found.outcome, found.timing) == (Outcome.UNSUPPORTED, None)
        assert str(found.reason).startswith(f"attention {name} does not run on a CPU: No viable")
    assert row.outcome == Outcome.OK


# As torch 2.11 warns on an H100, from here on with the place in its source.
_SEEN = (
    "Memory efficient kernel not used because:",
    "Memory Efficient attention has been runtime disabled.",
    "Flash attention kernel not used because:",
    "Flash Attention does not support non-null attn_mask.",
    "cuDNN attention kernel not used because:",
    "cuDNN attention has been runtime disabled.",
)


def refusing(error: Exception) -> Callable[[], None]:
    def run() -> None:
        for text in _SEEN:
            warnings.warn(f"{text} (Triggered internally at sdp_utils.cpp:9.)", stacklevel=1)
        raise error

    return run


def test_what_torch_says_of_an_attention_is_the_reason() -> None:
    run = refusing(RuntimeError("No available kernel. Aborting execution."))
    with pytest.raises(Unsupported) as caught:
        attention.check("flash", "cuda", run)
    assert str(caught.value) == (
        "attention flash does not run on this GPU at this precision and length: Flash Attention"
        " does not support non-null attn_mask"
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert"), torch.OutOfMemoryError("no memory")]
)
def test_any_other_error_is_what_it_is(error: Any) -> None:
    with pytest.raises(type(error), match=str(error)):
        attention.check("flash", "cuda", refusing(error))


def test_a_label_names_the_attention_only_where_one_is_asked_for() -> None:
    assert str(TINY) == "tiny eager batch 1 x 16 tokens"
    pinned = replace(TINY, new_tokens=2, attention="math")
    assert str(pinned) == "tiny eager batch 1 x 16 tokens + 2 new, math attention"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # within inductor
def test_a_compiled_forward_gives_the_same_logits_by_the_attention_that_is_asked_for() -> None:
    """Also where the same forward was compiled with another attention before."""
    try:
        engines.check("compile", "cpu")
    except Unsupported as reason:
        pytest.skip(str(reason))
    config = GPT2Config(
        n_layer=1,
        n_embd=16,
        n_head=2,
        vocab_size=50,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention.FUSED,
    )
    torch.manual_seed(0)
    small = GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, 50, (1, 9), generator=torch.Generator().manual_seed(1))
    ran = []
    for name in ("flash", "math"):
        with attention.applied(name), torch.inference_mode():
            run = engines.forward("compile", small)
            torch.testing.assert_close(run(ids), small(ids).logits)
            found = trace(CpuQueue(partial(run, ids)), "cpu", 1, None, fused=True)
        ran.append(found.attention)
    # A softmax that inductor fused leaves no operation to be seen.
    assert ran == ["flash", None]
