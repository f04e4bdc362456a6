"""bench.text.embedded: a text whose entropy is known, and a tiny GPT-2 that comes near it."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import statistics
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench.asked import QualityPlan
from bench.model.load import TINY_FOLDER, load
from bench.perplexity.evaluate import measure_quality
from bench.text.embedded import corpus, grammar, train

TEST_SHA256 = "5f14187a80f026cfacad1466a5f32b2a51de0d48a98f71e2126c9b8c0abf4d96"

seeds = st.integers(min_value=0, max_value=2**32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in training. On a busy machine small matrices are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(train.THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def held_out() -> corpus.Corpus:
    return corpus.split("test")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY_FOLDER)


def stories(seed: int, count: int) -> list[str]:
    return corpus.generate(seed, count).text.splitlines(keepends=True)


def tokens_of(text: str) -> list[str]:
    return re.findall(corpus.TOKEN_PATTERN, text)


# ------------------------------------------------------------------------------- the grammar


def words_of(rule: str) -> Sequence[str]:
    """Options of a rule of the grammar; of "hero of {kind}" those for all kinds."""
    if rule in grammar.SENTENCES:
        return grammar.SENTENCES[rule]
    things = [noun for line in grammar.THINGS.values() for noun in line.split()]
    known = {
        **{name: line.split() for name, line in grammar.WORDS.items()},
        "place": list(grammar.THINGS),
        "thing of any place": things,
        "things of any place": [f"{noun}s" for noun in things],
    }
    prefix = rule.partition("{")[0]
    return [f" {word}" for name in known if name.startswith(prefix) for word in known[name]]


def beginnings(option: str) -> set[str]:
    """Every token that an option can begin with, whatever was chosen before."""
    first = re.match(r" ?\[(.+?)\]| ?\{(\w+)\}|( ?\w+|\S)", option)
    assert first
    if literal := first[3]:
        return {literal}
    rule = first[1] or first[2]
    if first[2] and rule == "hero":
        rule = "hero of {kind}"
    return set().union(*(beginnings(inner) for inner in words_of(rule)))


@pytest.mark.parametrize("rule", [*grammar.SENTENCES, *grammar.WORDS])
def test_the_options_of_a_rule_begin_with_different_tokens(rule: str) -> None:
    options = [beginnings(option) for option in words_of(rule)]
    assert options
    for one, other in itertools.combinations(options, 2):
        assert not one & other


def test_the_words_of_a_place_are_different() -> None:
    for line in grammar.THINGS.values():
        nouns = [form for noun in line.split() for form in (noun, f"{noun}s")]
        assert len(set(nouns)) == len(nouns)


# ------------------------------------------------------------------------------- the text


def test_the_held_out_text_is_the_one_that_was_published(held_out: corpus.Corpus) -> None:
    assert hashlib.sha256(held_out.text.encode()).hexdigest() == TEST_SHA256
    assert corpus.generate(seed=2, paragraphs=280) == held_out
    assert 20_000 < held_out.tokens < 30_000


@given(seed=seeds, paragraphs=st.integers(min_value=1, max_value=4))
def test_a_text_reveals_its_derivation(seed: int, paragraphs: int) -> None:
    written = corpus.generate(seed, paragraphs)
    assert corpus.log_probability(written.text) == -written.nats
    assert len(tokens_of(written.text)) == written.tokens
    assert written.text.count("\n") == paragraphs


@given(seed=seeds, cut=st.integers(min_value=0, max_value=60))
@settings(max_examples=15, deadline=None)
def test_the_probabilities_of_the_next_token_sum_to_one(seed: int, cut: int) -> None:
    before = "".join(tokens_of(corpus.generate(seed, 1).text)[:cut])
    probability = math.exp(corpus.log_probability(before))
    total = 0.0
    for token in corpus.vocabulary():
        try:
            total += math.exp(corpus.log_probability(before + token))
        except ValueError:  # the grammar never writes this token here
            continue
    assert total == pytest.approx(probability, rel=1e-9)


def test_the_entropy_is_the_mean_of_many_stories() -> None:
    drawn = [corpus.generate(seed, 1) for seed in range(2000)]
    rate = corpus.entropy_nats_per_token()
    # Each excess has mean zero only if both the expected nats and the expected tokens are right.
    excess = [story.nats - rate * story.tokens for story in drawn]
    error = statistics.stdev(excess) / math.sqrt(len(excess))
    assert abs(statistics.fmean(excess)) < 4 * error
    assert error < 0.01 * statistics.fmean(story.nats for story in drawn)


def test_the_entropy_is_a_meaningful_perplexity(held_out: corpus.Corpus) -> None:
    assert 5 < math.exp(corpus.entropy_nats_per_token()) < 12
    assert held_out.perplexity == pytest.approx(math.exp(corpus.entropy_nats_per_token()), rel=0.01)


def test_a_story_fits_between_two_windows_of_the_protocol() -> None:
    longest = max(len(tokens_of(story)) for story in stories(seed=5, count=2000))
    assert longest <= train.STRIDE


def test_the_held_out_stories_are_new(held_out: corpus.Corpus) -> None:
    read = set(corpus.generate(seed=1, paragraphs=3000).text.splitlines())
    assert not read & set(held_out.text.splitlines())


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (r"named \w+", "named Zorro"),  # not a word of the grammar
        (r"\.", "!"),  # not a sign of the grammar
        (r"\. (She|He|\w+) was a", ". Nora was a"),  # not the hero
        ("a ", "a a "),
        (r"\.\n", "\n"),
        (r"^", " "),
    ],
)
def test_a_text_of_another_author_is_refused(written: str, instead: str) -> None:
    story = next(s for s in stories(seed=1, count=20) if "Nora" not in s)
    other = re.sub(written, instead, story, count=1)
    assert other != story
    with pytest.raises(ValueError, match="the grammar cannot have written this text"):
        corpus.log_probability(other)


def test_a_name_that_was_not_introduced_is_refused() -> None:
    story = next(s for s in stories(seed=1, count=200) if s.rstrip().endswith("with Kim."))
    with pytest.raises(ValueError, match=r"see token \d+, ' Lee'"):
        corpus.log_probability(story.replace("with Kim.\n", "with Lee.\n"))


# ------------------------------------------------------------------------------- the checkpoint


def test_the_tokenizer_knows_every_token_of_the_text(
    held_out: corpus.Corpus, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = tokenizer(held_out.text, verbose=False)["input_ids"]
    vocabulary = corpus.vocabulary()
    assert [vocabulary[token] for token in ids] == tokens_of(held_out.text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == held_out.text


def test_special_tokens_have_the_first_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    assert corpus.vocabulary()[:2] == (corpus.END_OF_TEXT, corpus.UNKNOWN)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 0, 1)
    assert tokenizer("quux")["input_ids"] == [1]
    assert len(tokenizer) == len(corpus.vocabulary())


def test_the_checkpoint_was_made_by_the_training_of_today(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    made = train.build_tokenizer()
    assert made.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    shape, shipped = (
        {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        for model in (train.initial_model(), load("tiny", "fp32", "cpu").module)
    )
    assert shape == shipped


def test_the_checkpoint_comes_near_the_floor_and_not_below() -> None:
    found = measure_quality(load("tiny", "fp32", "cpu"), QualityPlan(context=256, stride=128))
    assert found.perplexity is not None
    assert found.floor_perplexity is not None
    assert 1 < found.perplexity / found.floor_perplexity < 1.04


def test_the_same_training_makes_the_same_bytes() -> None:
    stream = train.encode(train.build_tokenizer(), corpus.generate(seed=1, paragraphs=20).text)
    first, second = (train.train(stream, steps=3).state_dict() for _ in range(2))
    untrained = train.initial_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["transformer.wte.weight"], untrained["transformer.wte.weight"])


@pytest.mark.parametrize("steps", [1, train.WARM_UP, train.STEPS])
def test_the_learning_rate_stays_between_zero_and_its_peak(steps: int) -> None:
    rates = [train.pace(step, steps) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert steps <= train.WARM_UP or rates[-1] == 0
