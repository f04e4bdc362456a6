"""bench.perplexity: windows by their invariants, sums against models of known perplexity."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from planted import FixedTokenizer, as_model, planted, seeded
from transformers import AutoConfig, AutoModelForCausalLM, GPT2LMHeadModel

from bench.asked import QualityPlan
from bench.device import precision
from bench.errors import TensorgapError
from bench.measured import Quality, Weights
from bench.model.load import Model, load_model
from bench.perplexity import head
from bench.perplexity.evaluate import evaluate, measure_quality, warnings
from bench.perplexity.head import window_nats
from bench.perplexity.windows import TokenWindow, guide_windows, windows
from bench.text import published
from bench.text.embedded import corpus
from bench.text.load import Text
from bench.warnings import RowWarning

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = 97
POSITIONS = 320  # more than the rows that the head takes at once
BOS = 3


@pytest.fixture(scope="module")
def small() -> GPT2LMHeadModel:
    """A GPT-2 whose random weights are so large that every token and position matters."""
    return seeded(VOCABULARY, POSITIONS, width=32, spread=0.3, bos=BOS)


@pytest.fixture(scope="module")
def ids() -> list[int]:
    rng = random.Random(0)
    return [rng.randrange(VOCABULARY) for _ in range(400)]


def naive_nats(
    module: GPT2LMHeadModel, ids: Sequence[int], chosen: Sequence[TokenWindow]
) -> list[float]:
    """One token at a time, from the full logits of its window alone, all in double precision."""
    stream = torch.tensor([BOS, *ids])
    found = []
    for window in chosen:
        with torch.inference_mode():
            logits = module(input_ids=stream[None, window.start : window.end]).logits[0]
        found.append(
            math.fsum(
                -logits[position - 1 - window.start].log_softmax(0)[stream[position]]
                for position in range(window.first, window.end + 1)
            )
        )
    return found


# ------------------------------------------------------------------------------- windows

contexts = st.integers(1, 60)


@given(st.integers(0, 300), contexts, st.data())
def test_each_token_is_predicted_exactly_once_with_the_context_that_the_stride_leaves(
    tokens: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    found = list(windows(tokens, context, stride))
    scored = [range(window.first, window.end + 1) for window in found]
    assert [position for part in scored for position in part] == list(range(1, tokens + 1))
    for window, part in zip(found, scored, strict=True):
        assert window.scored == len(part) > 0
        assert window.length == min(context, tokens)
        assert 0 <= window.start < window.end <= tokens
        for position in part:
            before = position - window.start
            assert min(position, context - stride + 1) <= before <= context
    # No window scores more than its stride, but the first.
    assert [window.scored for window in found[:1]] == [min(context, tokens)] * bool(tokens)
    assert all(window.scored == stride for window in found[1:-1])
    assert all(window.scored <= stride for window in found[1:])


def test_a_stride_as_long_as_the_context_makes_windows_without_overlap_but_the_last() -> None:
    found = [(w.start, w.end, w.first) for w in windows(10, 4, 4)]
    assert found == [(0, 4, 1), (4, 8, 5), (6, 10, 9)]


def test_a_text_shorter_than_the_context_is_one_window() -> None:
    assert list(windows(3, 1024, 512)) == [TokenWindow(0, 3, 1)]


def test_no_tokens_are_no_windows() -> None:
    assert list(windows(0, 4, 2)) == []


@given(st.integers(0, 300), st.integers(2, 60), st.data())
def test_windows_of_the_guide_score_each_token_once_and_count_as_its_loop_does(
    tokens: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    scored: list[int] = []
    counted = previous = 0
    for begin in range(0, tokens, stride):  # docs/source/en/perplexity.md of transformers
        end = min(begin + context, tokens)
        counted += end - previous - 1
        previous = end
        if end == tokens:
            break
    found = list(guide_windows(tokens, context, stride))
    for window in found:
        scored.extend(range(window.first, window.end + 1))
        assert 0 < window.counted <= window.scored <= window.counted + 1
        assert 0 <= window.start < window.first <= window.end < tokens
        assert window.length < context
    assert sum(window.counted for window in found) == max(0, counted)
    assert scored == sorted(set(scored))
    assert len(scored) <= max(0, tokens - 1)


# ------------------------------------------------------------------------------- sums of nats

PLANS = [(POSITIONS, POSITIONS), (POSITIONS, 7), (64, 16), (5, 1), (1, 1)]


@pytest.mark.parametrize(("context", "stride"), PLANS)
def test_nats_are_those_of_a_naive_loop_over_full_logits(
    small: GPT2LMHeadModel, ids: list[int], context: int, stride: int
) -> None:
    chosen = list(windows(len(ids), context, stride))[:12]
    found = window_nats(as_model(small), [BOS, *ids], chosen)
    assert found == pytest.approx(naive_nats(small, ids, chosen), rel=1e-9)


def test_the_logits_of_the_reference_are_far_from_uniform(
    small: GPT2LMHeadModel, ids: list[int]
) -> None:
    """Else a wrong row or a wrong target would go unnoticed."""
    chosen = list(windows(len(ids), 64, 64))
    shifted = [*ids[1:], ids[0]]
    right, wrong = (sum(window_nats(as_model(small), [BOS, *t], chosen)) for t in (ids, shifted))
    assert abs(right - wrong) > 1e-3 * right
    assert abs(right - len(ids) * math.log(VOCABULARY)) > 0.1 * right


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_nats_do_not_depend_on_how_many_windows_run_at_once(
    small: GPT2LMHeadModel, ids: list[int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = list(windows(len(ids), 64, 16))
    usual = window_nats(as_model(small), [BOS, *ids], chosen)
    monkeypatch.setitem(head.TOKENS_AT_ONCE, "cpu", 64 * at_once)
    assert window_nats(as_model(small), [BOS, *ids], chosen) == pytest.approx(usual, rel=1e-9)


@pytest.mark.parametrize("rows", [1, 63, 64, 10_000])
def test_nats_do_not_depend_on_how_many_rows_the_head_takes_at_once(
    small: GPT2LMHeadModel, ids: list[int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = list(windows(len(ids), POSITIONS, 64))
    usual = window_nats(as_model(small), [BOS, *ids], chosen)
    monkeypatch.setattr(head, "HEAD_ROWS", rows)
    assert window_nats(as_model(small), [BOS, *ids], chosen) == pytest.approx(usual, rel=1e-9)


def test_windows_of_unequal_length_keep_their_order(small: GPT2LMHeadModel, ids: list[int]) -> None:
    chosen = [
        TokenWindow(0, 4, 1),
        TokenWindow(0, 4, 2),
        TokenWindow(2, 9, 5),
        TokenWindow(5, 9, 9),
        TokenWindow(4, 8, 8),
    ]
    found = window_nats(as_model(small), [BOS, *ids], chosen)
    assert found == pytest.approx(naive_nats(small, ids, chosen), rel=1e-9)


def test_single_precision_agrees_with_double(small: GPT2LMHeadModel, ids: list[int]) -> None:
    chosen = list(windows(len(ids), 64, 16))
    double = sum(window_nats(as_model(small), [BOS, *ids], chosen))
    try:
        single = sum(window_nats(as_model(small.float()), [BOS, *ids], chosen))
    finally:
        small.double()
    assert single == pytest.approx(double, rel=1e-5)


# ------------------------------------------------------------------------------- planted bigrams

STEPS = [0.5, 0.2, 0.1, 0.1, 0.06, 0.03, 0.01]  # probability of the next token minus this one


def random_walk(count: int) -> tuple[list[int], float]:
    """Tokens from 0, and the sum of -ln p of its steps."""
    steps = random.Random(1).choices(range(len(STEPS)), STEPS, k=count)
    tokens = list(np.cumsum(steps) % len(STEPS))
    return [int(token) for token in tokens], -math.fsum(math.log(STEPS[step]) for step in steps)


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 3), (2, 1), (1, 1)])
def test_planted_bigrams_cost_exactly_their_nats(context: int, stride: int) -> None:
    ids, nats = random_walk(500)
    chosen = list(windows(len(ids), context, stride))
    module = planted([math.log(p) for p in STEPS])
    found = sum(window_nats(as_model(module), [0, *ids], chosen))
    assert found == pytest.approx(nats, rel=1e-9)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A text of 4 words in 17 bytes."""
    path = tmp_path / "words.txt"
    path.write_text("der süße Å\n  ab\n", encoding="utf-8")
    return path


def measure(model: Model, text: Path, context: int = 16, stride: int = 8) -> Any:
    return measure_quality(model, QualityPlan(str(text), context=context, stride=stride))


def test_every_perplexity_derives_from_nats_and_counts(words: Path) -> None:
    ids, nats = random_walk(500)
    module = planted([math.log(p) for p in STEPS])
    found = measure(as_model(module, FixedTokenizer(ids)), words)
    content = words.read_bytes()
    assert (found.tokens, found.words, found.bytes) == (500, 4, len(content))
    assert found.nats == pytest.approx(nats, rel=1e-9)
    assert found.perplexity == pytest.approx(math.exp(nats / 500), rel=1e-9)
    assert found.word_perplexity == pytest.approx(math.exp(nats / 4), rel=1e-9)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / len(content), rel=1e-9)
    assert (found.context, found.stride) == (16, 8)
    assert found.reason is None
    assert found.lower_bound_perplexity is None
    assert found.elapsed_s > 0


def test_the_text_and_the_tokens_have_fingerprints(words: Path) -> None:
    ids = [1, 2, 3, 0x06]
    found = measure(as_model(planted([0.0] * 7), FixedTokenizer(ids)), words)
    assert found.text == "words.txt"
    assert found.text_sha256 == hashlib.sha256(words.read_bytes()).hexdigest()
    little_endian = b"".join(token.to_bytes(4, "little") for token in ids)
    assert found.tokens_sha256 == hashlib.sha256(little_endian).hexdigest()


def test_the_standard_error_is_that_of_windows_as_clusters(words: Path) -> None:
    ids, _ = random_walk(490)
    model = as_model(planted([math.log(p) for p in STEPS]), FixedTokenizer(ids))
    found = measure(model, words, context=16, stride=16)
    chosen = list(windows(490, 16, 16))
    nats = np.array(window_nats(model, [0, *ids], chosen))
    tokens = np.array([window.scored for window in chosen])
    residuals = nats - nats.sum() / tokens.sum() * tokens
    expected = math.sqrt(len(chosen) * residuals.var(ddof=1)) / tokens.sum()
    assert found.standard_error == pytest.approx(expected, rel=1e-3)
    # Steps are independent here, so that it is also the spread of one step over sqrt(n).
    mean = -sum(p * math.log(p) for p in STEPS)
    spread = math.sqrt(sum(p * (math.log(p) + mean) ** 2 for p in STEPS))
    assert found.standard_error == pytest.approx(spread / math.sqrt(490), rel=0.35)


def test_one_window_has_no_standard_error(words: Path) -> None:
    found = measure(as_model(planted([0.0] * 7), FixedTokenizer([1, 2, 3])), words)
    assert found.standard_error is None


def test_a_perplexity_beyond_every_number_is_none_beside_its_nats(words: Path) -> None:
    impossible = [1] * 5  # a step of 0, which the model holds for impossible
    module = planted([-2000.0, *[0.0] * 6])
    found = measure(as_model(module, FixedTokenizer(impossible)), words)
    assert found.nats == pytest.approx(4 * (2000 + math.log(6)) + math.log(6), rel=1e-6)
    assert found.perplexity is None


@pytest.mark.parametrize("overflow", [math.inf, math.nan])
def test_numbers_that_overflow_are_a_reason_and_no_perplexity(words: Path, overflow: float) -> None:
    module = planted([0.0] * 7)
    with torch.no_grad():
        module.lm_head.weight[2, 1] = overflow
    found = measure(as_model(module, FixedTokenizer([1, 2, 3])), words)
    assert "overflowed at this precision" in (found.reason or "")
    assert (found.nats, found.perplexity, found.tokens) == (None, None, None)


# ------------------------------------------------------------------------------- other protocols


def guide_loop(module: GPT2LMHeadModel, ids: list[int], context: int, stride: int) -> float:
    """The loop of transformers' guide, its loss by transformers itself."""
    total, count, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        target_length = end - previous
        inputs = torch.tensor([ids[begin:end]])
        targets = inputs.clone()
        targets[:, :-target_length] = -100
        if target_length > 1:
            with torch.inference_mode():
                loss = module(inputs, labels=targets).loss
            total += loss.item() * (target_length - 1)
        count += target_length - 1
        previous = end
        if end == len(ids):
            break
    return math.exp(total / count)


@pytest.mark.parametrize(("context", "stride"), [(64, 64), (64, 16), (POSITIONS, 150), (7, 6)])
def test_mode_hf_docs_is_the_loop_of_the_guide(
    small: GPT2LMHeadModel, ids: list[int], words: Path, context: int, stride: int
) -> None:
    plan = QualityPlan(str(words), mode="hf-docs", context=context, stride=stride)
    found = measure_quality(as_model(small, FixedTokenizer(ids)), plan)
    # transformers computes the loss in float32, whatever the model's type is.
    assert found.perplexity == pytest.approx(guide_loop(small, ids, context, stride), rel=1e-5)
    assert (found.mode, found.word_perplexity, found.bits_per_byte) == ("hf-docs", None, None)
    assert found.tokens is not None
    assert found.tokens < len(ids)


def test_each_window_is_kept(small: GPT2LMHeadModel, ids: list[int], words: Path) -> None:
    found = measure(as_model(small, FixedTokenizer(ids)), words, context=64, stride=32)
    chosen = list(windows(len(ids), 64, 32))
    assert found.window_nats == tuple(window_nats(as_model(small), [BOS, *ids], chosen))
    assert found.window_tokens == tuple(window.scored for window in chosen)
    assert math.fsum(found.window_nats) == found.nats
    assert sum(found.window_tokens) == found.tokens == len(ids)


def test_windows_alone_agree_with_those_in_a_batch(
    small: GPT2LMHeadModel, ids: list[int], words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = as_model(small, FixedTokenizer(ids))
    monkeypatch.setitem(head.TOKENS_AT_ONCE, "cpu", 4 * 64)
    assert measure(model, words, context=64, stride=32).batch_difference_nats < 1e-9
    monkeypatch.setitem(head.TOKENS_AT_ONCE, "cpu", 64)
    assert measure(model, words, context=64, stride=32).batch_difference_nats is None


def test_a_batch_that_changes_a_window_is_found(
    small: GPT2LMHeadModel, ids: list[int], words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = head.scored_states

    def mixed_up(model: Model, stream: torch.Tensor, batch: Sequence[TokenWindow]) -> torch.Tensor:
        states = real(model, stream, batch)
        return states if len(batch) == 1 else states.flip(0)

    monkeypatch.setattr(head, "scored_states", mixed_up)
    found = measure(as_model(small, FixedTokenizer(ids)), words, context=64, stride=32)
    assert found.batch_difference_nats > 1e-3
    assert [w.code for w in warnings_of(found)] == ["perplexity-depends-on-batch"]


def test_logits_stored_in_16_bits_cost_what_rounding_them_costs(
    small: GPT2LMHeadModel, ids: list[int], words: Path
) -> None:
    """The larger the logits, the more: bf16 keeps 8 bits, and GPT-2's are -35 to -79."""
    module = GPT2LMHeadModel(small.config).bfloat16()
    module.load_state_dict(small.state_dict())
    with torch.no_grad():
        module.transformer.ln_f.weight *= 8
    model = as_model(module, FixedTokenizer(ids))
    found = measure(model, words, context=64, stride=64)
    assert found.logits_dtype == "bfloat16"
    stream = torch.tensor([BOS, *ids])
    rounded, exact = [], []
    for window in windows(len(ids), 64, 64):
        states = head.scored_states(model, stream, [window])
        logits = states.double() @ module.lm_head.weight.double().T
        for kind, values in ((rounded, module.lm_head(states).double()), (exact, logits)):
            wanted = stream[window.first : window.end + 1, None]
            kind.append(-values.log_softmax(-1).gather(1, wanted).sum().item())
    expected = (sum(rounded) - sum(exact)) / len(ids)
    assert abs(expected) > 1e-4
    assert found.logit_rounding_nats == pytest.approx(expected, rel=1e-2)
    assert found.logit_rounding_error_nats > 0


def test_logits_in_float32_are_not_rounded(
    small: GPT2LMHeadModel, ids: list[int], words: Path
) -> None:
    try:
        found = measure(as_model(small.float(), FixedTokenizer(ids)), words)
    finally:
        small.double()
    assert (found.logits_dtype, found.logit_rounding_nats) == ("float32", None)


def test_under_autocast_the_head_stores_16_bits(
    small: GPT2LMHeadModel, ids: list[int], words: Path
) -> None:
    try:
        with precision.applied("mixed", "cpu"):
            found = measure(as_model(small.float(), FixedTokenizer(ids)), words, 64, 64)
    finally:
        small.double()
    assert found.logits_dtype == "bfloat16"
    assert found.logit_rounding_nats not in (None, 0)


# ------------------------------------------------------------------------------- other heads

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": BOS,
    "eos_token_id": BOS,
    "pad_token_id": None,
}
HEADS: dict[str, dict[str, Any]] = {
    "phi": {},  # with a bias
    "gemma2": {"head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 2.0},
    "granite": {"num_key_value_heads": 2, "logits_scaling": 3.0},
}


def other(family: str, **changes: Any) -> Any:
    """A small model of another family than GPT-2."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **{**_SMALL, **HEADS.get(family, {}), **changes})
        module = AutoModelForCausalLM.from_config(config)
        for parameter in module.parameters():
            if parameter.ndim == 1:  # transformers leaves biases zero and norms one
                torch.nn.init.normal_(parameter, 1.0, 0.5)
    return module.eval()


@pytest.mark.parametrize("precision_name", ["fp32", "fp16", "bf16", "mixed"])
@pytest.mark.parametrize("family", HEADS)
def test_a_head_makes_the_logits_that_its_model_makes(
    family: str, precision_name: str, ids: list[int]
) -> None:
    model = as_model(other(family).to(precision.storage(precision_name)))
    inputs = torch.tensor([ids[:50]])
    with precision.applied(precision_name, "cpu"), torch.inference_mode():
        own = model.module(input_ids=inputs, use_cache=False).logits[0].float()
        found = head.Head(model).logits(head.hidden_states(model, inputs)[0])
        head.check(model, ids)
    assert found.dtype == torch.float32
    # A sum in another order may end on the other side of a rounding.
    eps = torch.finfo(head.logits_dtype(model)).eps if precision_name != "mixed" else 2**-7
    assert torch.allclose(found, own, rtol=4 * eps, atol=4 * eps * float(own.abs().max()))


@pytest.mark.parametrize("family", HEADS)
def test_the_exact_head_rounds_no_logit(family: str, ids: list[int]) -> None:
    model = as_model(other(family).bfloat16())
    inputs = torch.tensor([ids[:50]])
    wide = copy.deepcopy(model.module).double()
    with torch.inference_mode():
        states = head.hidden_states(model, inputs)[0]
        exact = head.Head(model, exact=True).logits(states).double()
        rounded = head.Head(model).logits(states).double()
        expected = wide.get_output_embeddings()(states.double())
        if family == "granite":
            expected = expected / 3
        if family == "gemma2":
            expected = 2 * torch.tanh(expected / 2)
    assert torch.allclose(exact, expected, rtol=1e-5, atol=1e-5)
    assert (rounded - expected).abs().max() > 100 * (exact - expected).abs().max()


@pytest.mark.parametrize("precision_name", ["fp32", "bf16"])
def test_logits_that_are_more_than_the_head_s_are_refused(
    precision_name: str, ids: list[int], words: Path
) -> None:
    """Cohere multiplies them by logit_scale, which is none of the known."""
    module = other("cohere", logit_scale=0.5).to(precision.storage(precision_name))
    with pytest.raises(TensorgapError, match="logits of a cohere are not its head's products"):
        measure(as_model(module, FixedTokenizer(ids)), words)
    unscaled = other("cohere", logit_scale=1.0).to(precision.storage(precision_name))
    assert measure(as_model(unscaled, FixedTokenizer(ids)), words).perplexity is not None


# ------------------------------------------------------------------------------- before a text


class NamedTokenizer(FixedTokenizer):
    """Names a BOS and an EOS, or does not."""

    def __init__(self, ids: list[int], bos: int | None, eos: int | None) -> None:
        super().__init__(ids)
        self.bos_token_id, self.eos_token_id = bos, eos


@pytest.mark.parametrize(
    ("bos", "eos", "configured", "first", "prefix"),
    [
        (5, 6, 3, 5, "bos (id 5)"),
        (None, 6, 3, 6, "eos (id 6)"),
        (None, None, 3, 3, "bos (id 3)"),
        (0, 6, None, 0, "bos (id 0)"),
    ],
)
def test_a_text_begins_after_its_tokenizer_s_bos_or_else_its_eos(
    bos: int | None, eos: int | None, configured: int | None, first: int, prefix: str, words: Path
) -> None:
    ids, module = [1, 2, 4], planted([math.log(p) for p in STEPS])
    module.config.bos_token_id = configured
    found = measure(as_model(module, NamedTokenizer(ids, bos, eos)), words)
    steps = [(after - before) % len(STEPS) for before, after in itertools.pairwise([first, *ids])]
    assert found.nats == pytest.approx(-sum(math.log(STEPS[step]) for step in steps), rel=1e-6)
    assert found.prefix == prefix


@pytest.mark.parametrize(
    ("bos", "eos", "message"),
    [
        (None, None, "no token to stand before a text: its tokenizer names neither a BOS nor"),
        (7, None, "has the id 7, and the model's vocabulary has 7 tokens: the tokenizer does not"),
        (None, -1, "has the id -1, and the model's vocabulary has 7 tokens"),
    ],
)
def test_a_model_without_a_token_before_a_text_has_a_reason(
    bos: int | None, eos: int | None, message: str, words: Path
) -> None:
    module = planted([math.log(p) for p in STEPS])
    module.config.bos_token_id = None
    model = as_model(module, NamedTokenizer([1, 2, 4], bos, eos))
    with pytest.raises(TensorgapError, match=message):
        measure(model, words)
    guide = measure_quality(model, QualityPlan(str(words), mode="hf-docs", context=8, stride=8))
    assert guide.perplexity is not None  # which has no token before a text
    assert guide.prefix == "none"


def test_only_gpt2_s_own_tokenizer_is_held_against_its_published_tokens(ids: list[int]) -> None:
    """Another family may have another vocabulary of the same size."""
    text = Text("wikitext-2 test", ("a text",), "", 2, 6, is_wikitext2=True)
    size = {"vocab_size": published.GPT2_VOCABULARY, "hidden_size": 8, "intermediate_size": 8}
    other_family = as_model(other("granite", **size), FixedTokenizer(ids))
    assert evaluate(other_family, text, QualityPlan()).perplexity is not None
    of_gpt2 = as_model(
        seeded(published.GPT2_VOCABULARY, POSITIONS, 8, 0.3, bos=BOS), FixedTokenizer(ids)
    )
    with pytest.raises(TensorgapError, match="the model's tokenizer is not GPT-2's"):
        evaluate(of_gpt2, text, QualityPlan())


# ------------------------------------------------------------------------------- warnings

GPT2 = Weights(1, 1, "float32", sha256="1" * 64, published_as="gpt2")


def warnings_of(
    found: Quality, weights: Weights = GPT2, precision_name: str = "fp32"
) -> list[RowWarning]:
    return warnings(found, weights, "gpt2", precision_name)


def real_gpt2(perplexity: float, context: int, stride: int, mode: str = "hf-docs") -> Quality:
    return Quality(
        published.WIKITEXT2_TEST.name,
        perplexity=perplexity,
        mode=mode,
        context=context,
        stride=stride,
        text_sha256=published.WIKITEXT2_TEST.joined_sha256,
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (real_gpt2(59.71, 128, 128), None),
        (real_gpt2(60.5, 128, 128), "60.5 per token, but 59.69 ±0.5% is published for this"),
        (real_gpt2(217, 128, 128), "217 per token, but 59.69 ±0.5% is published"),
        (real_gpt2(30.0, 1024, 1024), None),
        (real_gpt2(28.0, 1024, 1024), "28 per token, but 29.94 ±0.5% is published"),
        (real_gpt2(61.0, 128, 128, "tensorgap"), None),
        (real_gpt2(25.1, 1024, 512, "tensorgap"), None),
        (real_gpt2(217, 128, 128, "tensorgap"), "217 is outside 41.2 to 65.7, the range of the"),
        (real_gpt2(217, 32, 32, "tensorgap"), None),  # nothing is published
        (replace(real_gpt2(217, 128, 128), text_sha256="0" * 64), None),  # another text
    ],
    ids=str,
)
def test_gpt2_far_from_what_is_published_is_a_warning(found: Quality, words: str | None) -> None:
    told = [warning.text for warning in warnings_of(found)]
    assert len(told) == (words is not None)
    assert words is None or words in told[0]
    # Another precision or other weights are not what was published.
    assert warnings_of(found, precision_name="bf16") == []
    assert warnings_of(found, replace(GPT2, published_as="tiny")) == []


@pytest.mark.parametrize(("word", "bits", "count"), [(37.4, 0.977, 0), (29.9, 0.9, 2)])
def test_the_units_of_lm_eval_are_held_against_its_published_numbers(
    word: float, bits: float, count: int
) -> None:
    found = real_gpt2(24.8, 1024, 1024, "lm-eval")
    assert len(warnings_of(replace(found, word_perplexity=word, bits_per_byte=bits))) == count


def test_weights_called_gpt2_that_are_others_are_a_warning() -> None:
    told = warnings_of(real_gpt2(217, 128, 128), replace(GPT2, published_as="unrecognised"))
    assert told == [RowWarning("weights-not-published", {"model": "gpt2"})]


@pytest.mark.parametrize(("precision_name", "count"), [("fp32", 1), ("bf16", 0)])
def test_a_batch_may_differ_by_as_much_as_its_precision(precision_name: str, count: int) -> None:
    found = Quality("a text", perplexity=5.0, batch_difference_nats=1e-4)
    assert len(warnings_of(found, precision_name=precision_name)) == count


# ------------------------------------------------------------------------------- the embedded model


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load_model("tiny", "fp32", "cpu")


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """A text in the words of the embedded model."""
    path = tmp_path / "story.txt"
    path.write_text(corpus.generate(seed=7, paragraphs=12).text, encoding="utf-8")
    return path


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tiny: Model, story: Path) -> None:
    uniform = GPT2LMHeadModel(tiny.module.config)
    with torch.no_grad():
        for parameter in uniform.parameters():
            parameter.zero_()
    found = measure(as_model(uniform, tiny.tokenizer), story, context=64, stride=32)
    assert found.perplexity == pytest.approx(tiny.vocabulary, rel=1e-6)
    assert found.standard_error == pytest.approx(0, abs=1e-6)


def test_a_story_is_cheap_for_the_model_that_learnt_stories(tiny: Model, story: Path) -> None:
    assert measure(tiny, story, context=256, stride=128).perplexity < tiny.vocabulary / 10


def test_the_context_is_cut_to_what_the_model_has(tiny: Model, story: Path) -> None:
    found = measure(tiny, story, context=1024, stride=512)
    assert (found.context, found.stride) == (256, 256)


def test_more_context_costs_less(tiny: Model, story: Path) -> None:
    short, long = (measure(tiny, story, context=n, stride=n // 2).nats for n in (8, 64))
    assert long < short


@pytest.mark.parametrize("name", ["bf16", "mixed"])
def test_other_precisions_are_within_one_percent(name: str, story: Path, tiny: Model) -> None:
    exact = measure(tiny, story, context=128, stride=64).perplexity
    with precision.applied(name, "cpu"):
        found = measure(load_model("tiny", name, "cpu"), story, context=128, stride=64).perplexity
    assert found == pytest.approx(exact, rel=0.01)
    assert found != exact


def test_the_embedded_text_has_the_floor_of_its_generator(tiny: Model) -> None:
    found = measure_quality(tiny, QualityPlan(context=256, stride=256))
    test = corpus.split("test")
    assert found.text == "embedded test"
    assert found.tokens == test.tokens
    assert found.lower_bound_perplexity == pytest.approx(test.perplexity)
    assert found.perplexity > 0.98 * test.perplexity


def test_a_text_with_unknown_words_is_refused(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_text("lorem ipsum dolor sit amet", encoding="utf-8")
    with pytest.raises(TensorgapError, match=r"vocabulary lacks words .*choose the text it was"):
        measure(tiny, path)


def test_a_text_of_which_the_tokenizer_makes_nothing_is_refused(words: Path) -> None:
    with pytest.raises(TensorgapError, match=r"words\.txt: the tokenizer makes no token of it"):
        measure(as_model(planted([0.0] * 7), FixedTokenizer([])), words)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the text is empty"), (b" \n\t", "the text is empty"), (b"\xff", "not UTF-8 text")],
)
def test_an_unusable_text_is_refused(
    tiny: Model, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(TensorgapError, match=message):
        measure(tiny, path)


def test_a_text_that_is_not_there_is_refused(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(TensorgapError, match=r"missing\.txt: there is no such file"):
        measure(tiny, tmp_path / "missing.txt")


def test_the_embedded_text_has_no_validation_split(tiny: Model) -> None:
    with pytest.raises(TensorgapError, match="the embedded text has train and test"):
        measure_quality(tiny, QualityPlan(split="validation"))


def test_random_weights_have_a_reason_and_no_perplexity(small: GPT2LMHeadModel) -> None:
    found = measure_quality(as_model(small), QualityPlan())
    assert found.reason == "randomly initialised weights"
    assert (found.perplexity, found.nats, found.tokens, found.words) == (None, None, None, None)
