"""bench.text.embedded: a text whose entropy is known, and a tiny GPT-2 that comes near it."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench.asked import QualityPlan
from bench.lookup import TINY_FOLDER
from bench.model.load import load_model
from bench.perplexity.evaluate import measure_quality
from bench.text.embedded import corpus

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import train_tiny

TEST_SHA256 = "5f14187a80f026cfacad1466a5f32b2a51de0d48a98f71e2126c9b8c0abf4d96"

seeds = st.integers(min_value=0, max_value=2**32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in training. On a busy machine small matrices are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(train_tiny.THREADS)
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


def beginnings(option: str) -> set[str]:
    """Every token that an option can begin with, whatever was chosen before."""
    part = corpus.parts(option)[0]
    if not part.startswith(("[", " {", "{")):
        return {part}
    # Of "hero of {kind}" those for all kinds.
    name = part.strip(" [{}]").partition("{")[0]
    rules = [rule for rule in corpus.rules() if rule == name or rule.startswith(f"{name} of ")]
    rules += [rule for rule in corpus.rules() if name.endswith(" of ") and rule.startswith(name)]
    assert rules
    return set().union(*(beginnings(inner) for rule in rules for inner in corpus.rules()[rule]))


def test_the_options_of_a_rule_begin_with_different_tokens() -> None:
    for rule, options in corpus.rules().items():
        for one, other in itertools.combinations(map(beginnings, options), 2):
            assert not one & other, rule


def test_the_words_of_a_place_are_different() -> None:
    for place in (rule for rule in corpus.rules() if rule.startswith("thing of ")):
        nouns = [*corpus.rules()[place], *corpus.rules()[place.replace("thing", "things")]]
        assert len(set(nouns)) == len(nouns) == 24


# ------------------------------------------------------------------------------- the floor, proven


def log_probability(text: str) -> float:
    """Logarithm of the probability that the grammar's text begins with this one, in nats.

    Found by parsing, where `generate` sums what it chose. The text may end after any token; for
    whole stories this is the probability of the text itself. Raises ValueError where the grammar
    cannot have written the text.
    """
    tokens = tokens_of(text)
    if "".join(tokens) != text:
        raise ValueError("the grammar cannot have written this text: it is more than words and . ,")
    nats: list[float] = []

    def refused() -> ValueError:
        place = f"token {len(nats)}, {tokens[len(nats)]!r}"
        return ValueError(f"the grammar cannot have written this text: see {place}")

    def choose(options: corpus.Options, memory: Mapping[str, str]) -> int:
        for index, option in enumerate(options):
            if begins(option, tokens[len(nats)], memory):
                return index
        raise refused()

    while len(nats) < len(tokens):
        for token, cost in corpus.derive(choose):
            if token != tokens[len(nats)]:
                raise refused()
            nats.append(cost)
            if len(nats) == len(tokens):
                break
    return -math.fsum(nats)


def begins(option: str, token: str, memory: Mapping[str, str]) -> bool:
    """Whether the token can be the first one of the filled option."""
    part = corpus.parts(option)[0].format_map(memory)
    if part.startswith("["):
        return any(begins(inner, token, memory) for inner in corpus.rules()[part[1:-1]])
    return part == token


@cache
def entropy_nats_per_token() -> float:
    """Entropy rate of the endless text, from the grammar alone.

    Stories are independent, so it is E[nats per story] / E[tokens per story].
    """
    nats, tokens, _ = expect("[story]", frozenset())
    return nats / tokens


Facts = frozenset[tuple[str, str]]
# The facts that select a rule, such as the place in "[thing of {place}]".
CONDITIONS = frozenset(
    fact
    for options in corpus.rules().values()
    for option in options
    for fact in re.findall(r"\[[^\]]*\{(\w+)\}", option)
)


@cache
def expect(template: str, facts: Facts) -> tuple[float, float, Mapping[Facts, float]]:
    """Expected nats and tokens of a filled template, and the distribution of the facts after it.

    Args:
        template: An option of a rule.
        facts: The earlier choices on which the distribution of later ones depends.
    """
    nats, tokens = 0.0, 0.0
    states: dict[Facts, float] = {facts: 1.0}
    for part in corpus.parts(template):
        if not part.startswith("["):
            tokens += 1
            continue
        after: defaultdict[Facts, float] = defaultdict(float)
        for state, reached in states.items():
            name = part[1:-1].format_map(dict(state))
            options = corpus.rules()[name]
            for option, share in zip(options, corpus.probabilities(len(options)), strict=True):
                known = dict(state)
                if corpus.remembered_as(name) in CONDITIONS:
                    known[corpus.remembered_as(name)] = option.strip()
                inner_nats, inner_tokens, ends = expect(option, frozenset(known.items()))
                weight = reached * share
                nats += weight * (inner_nats - math.log(share))
                tokens += weight * inner_tokens
                for end, part_of_it in ends.items():
                    after[end] += weight * part_of_it
        states = after
    return nats, tokens, states


# ------------------------------------------------------------------------------- the text


def test_the_held_out_text_is_the_one_that_was_published(held_out: corpus.Corpus) -> None:
    assert hashlib.sha256(held_out.text.encode()).hexdigest() == TEST_SHA256
    assert corpus.generate(seed=2, paragraphs=280) == held_out
    assert 20_000 < held_out.tokens < 30_000


@given(seed=seeds, paragraphs=st.integers(min_value=1, max_value=4))
@settings(max_examples=40, deadline=None)
def test_a_text_reveals_its_derivation(seed: int, paragraphs: int) -> None:
    written = corpus.generate(seed, paragraphs)
    assert log_probability(written.text) == -written.nats
    assert len(tokens_of(written.text)) == written.tokens
    assert written.text.count("\n") == paragraphs


@given(seed=seeds, cut=st.integers(min_value=0, max_value=60))
@settings(max_examples=5, deadline=None)
def test_the_probabilities_of_the_next_token_sum_to_one(seed: int, cut: int) -> None:
    before = "".join(tokens_of(corpus.generate(seed, 1).text)[:cut])
    probability = math.exp(log_probability(before))
    total = 0.0
    for token in corpus.vocabulary():
        try:
            total += math.exp(log_probability(before + token))
        except ValueError:  # the grammar never writes this token here
            continue
    assert total == pytest.approx(probability, rel=1e-9)


def test_the_entropy_is_the_mean_of_many_stories() -> None:
    drawn = [corpus.generate(seed, 1) for seed in range(1000)]
    rate = entropy_nats_per_token()
    # Each excess has mean zero only if both the expected nats and the expected tokens are right.
    excess = [story.nats - rate * story.tokens for story in drawn]
    error = statistics.stdev(excess) / math.sqrt(len(excess))
    assert abs(statistics.fmean(excess)) < 4 * error
    assert error < 0.01 * statistics.fmean(story.nats for story in drawn)


def test_the_entropy_is_a_meaningful_perplexity(held_out: corpus.Corpus) -> None:
    assert 5 < math.exp(entropy_nats_per_token()) < 12
    assert held_out.perplexity == pytest.approx(math.exp(entropy_nats_per_token()), rel=0.01)


def test_a_story_fits_between_two_windows_of_the_protocol() -> None:
    longest = max(len(tokens_of(story)) for story in stories(seed=5, count=1000))
    assert longest <= train_tiny.STRIDE


def test_the_held_out_stories_are_new(held_out: corpus.Corpus) -> None:
    read = set(corpus.generate(seed=1, paragraphs=1500).text.splitlines())
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
        log_probability(other)


def test_a_name_that_was_not_introduced_is_refused() -> None:
    story = next(s for s in stories(seed=1, count=200) if s.rstrip().endswith("with Kim."))
    with pytest.raises(ValueError, match=r"see token \d+, ' Lee'"):
        log_probability(story.replace("with Kim.\n", "with Lee.\n"))


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
    made = train_tiny.build_tokenizer()
    assert made.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    shape, shipped = (
        {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        for model in (train_tiny.initial_model(), load_model("tiny", "fp32", "cpu").module)
    )
    assert shape == shipped


def test_the_checkpoint_comes_near_the_floor_and_not_below() -> None:
    found = measure_quality(load_model("tiny", "fp32", "cpu"), QualityPlan(context=256, stride=128))
    assert found.perplexity is not None
    assert found.lower_bound_perplexity is not None
    assert 1 < found.perplexity / found.lower_bound_perplexity < 1.04


def test_the_same_training_makes_the_same_bytes() -> None:
    stream = train_tiny.encode(
        train_tiny.build_tokenizer(), corpus.generate(seed=1, paragraphs=20).text
    )
    first, second = (train_tiny.train(stream, steps=3).state_dict() for _ in range(2))
    untrained = train_tiny.initial_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["transformer.wte.weight"], untrained["transformer.wte.weight"])


@pytest.mark.parametrize("steps", [1, train_tiny.WARM_UP, train_tiny.STEPS])
def test_the_learning_rate_stays_between_zero_and_its_peak(steps: int) -> None:
    rates = [train_tiny.pace(step, steps) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert steps <= train_tiny.WARM_UP or rates[-1] == 0
