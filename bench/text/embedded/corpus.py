"""English-like stories whose entropy is known exactly.

The perplexity of this text has a floor in closed form: no model can honestly be below it, and a
good one comes close. So tensorgap can judge a perplexity without a hub, a download or a published
number.

The rules of `bench.text.embedded.grammar` write the stories by random choices. The next token of the
text reveals each choice, so text and derivation determine each other, and -ln p(text) is the sum of
-ln p(choice). `log_probability` and `entropy_nats_per_token` are the floor computed in two other
ways: the tests prove it with them.
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from bench.text.embedded.grammar import SENTENCES, THINGS, WORDS

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"

TOKEN_PATTERN = r"\n|[.,]| ?[A-Za-z]+"
"""A token: a word with its leading space, a full stop, a comma, or the end of a story."""

_PART = re.compile(r" ?(\[[^\]]+\])|( ?\{\w+\}|" + TOKEN_PATTERN + ")")
_CONDITION = re.compile(r"\[[^\]]*\{(\w+)\}")

_ZIPF_SHIFT = 5
"""Option r = 1, 2, ... of a rule weighs 1 / (r + shift), the law of Zipf and Mandelbrot. Rather
flat, so that a tiny model meets the rare words often enough within minutes of training."""

_SPLITS = {"train": (1, 30_000), "test": (2, 280)}
"""Seed and number of stories."""

_Options = tuple[str, ...]
_Facts = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Corpus:
    """A text, and what it costs a perfect model.

    Attributes:
        text: Stories, one per line.
        nats: -ln of the probability with which the grammar writes exactly this text.
        tokens: Number of tokens of the text.
    """

    text: str
    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Perplexity per token of a perfect model on this text: the floor of every other model."""
        return math.exp(self.nats / self.tokens)


def generate(seed: int, paragraphs: int) -> Corpus:
    """Write this many stories; a seed gives the same text on every machine."""
    rng = random.Random(seed)

    def choose(options: _Options, _: Mapping[str, str]) -> int:
        return rng.choices(range(len(options)), _probabilities(len(options)))[0]

    steps = [step for _ in range(paragraphs) for step in _derive(choose)]
    return Corpus(
        text="".join(token for token, _ in steps),
        nats=math.fsum(nats for _, nats in steps),
        tokens=len(steps),
    )


@cache
def split(name: Literal["train", "test"]) -> Corpus:
    """The text that trained the embedded model, or the text held out from it."""
    seed, paragraphs = _SPLITS[name]
    return generate(seed, paragraphs)


def log_probability(text: str) -> float:
    """Logarithm of the probability that the grammar's text begins with this one, in nats.

    The text may end after any token; for whole stories this is the probability of the text itself.

    Raises:
        ValueError: The grammar cannot have written the text.
    """
    tokens = re.findall(TOKEN_PATTERN, text)
    if "".join(tokens) != text:
        raise ValueError("the grammar cannot have written this text: it is more than words and . ,")
    nats: list[float] = []

    def refuse() -> ValueError:
        place = f"token {len(nats)}, {tokens[len(nats)]!r}"
        return ValueError(f"the grammar cannot have written this text: see {place}")

    def choose(options: _Options, memory: Mapping[str, str]) -> int:
        for index, option in enumerate(options):
            if _begins(option, tokens[len(nats)], memory):
                return index
        raise refuse()

    while len(nats) < len(tokens):
        for token, cost in _derive(choose):
            if token != tokens[len(nats)]:
                raise refuse()
            nats.append(cost)
            if len(nats) == len(tokens):
                break
    return -math.fsum(nats)


def entropy_nats_per_token() -> float:
    """Entropy rate of the endless text, from the grammar alone.

    Stories are independent, so it is E[nats per story] / E[tokens per story].
    """
    nats, tokens, _ = _expect("[story]", frozenset())
    return nats / tokens


def vocabulary() -> tuple[str, ...]:
    """All tokens; a token's position is its id. The end of text has id 0, the unknown token 1."""
    parts = {part for options in _rules().values() for option in options for part in _parts(option)}
    return (END_OF_TEXT, UNKNOWN, *sorted(part for part in parts if part[-1] not in "]}"))


def _derive(
    choose: Callable[[_Options, Mapping[str, str]], int],
) -> Iterator[tuple[str, float]]:
    """Derive one story: its tokens, each with the nats of the choices that it reveals.

    Args:
        choose: Given the options of a rule and the memory of earlier choices, the index of one.
    """
    memory: dict[str, str] = {}
    pending = ["[story]"]
    nats = 0.0
    while pending:
        part = pending.pop().format_map(memory)
        if not part.startswith("["):
            yield part, nats
            nats = 0.0
            continue
        name = part[1:-1]
        options = _rules()[name]
        index = choose(options, memory)
        nats -= math.log(_probabilities(len(options))[index])
        memory[_fact(name)] = options[index].strip()
        pending.extend(reversed(_parts(options[index])))


def _begins(option: str, token: str, memory: Mapping[str, str]) -> bool:
    """Whether the token can be the first one of the filled option."""
    part = _parts(option)[0].format_map(memory)
    if part.startswith("["):
        return any(_begins(inner, token, memory) for inner in _rules()[part[1:-1]])
    return part == token


@cache
def _expect(template: str, facts: _Facts) -> tuple[float, float, Mapping[_Facts, float]]:
    """Expected nats and tokens of a filled template, and the distribution of the facts after it.

    Args:
        template: An option of a rule.
        facts: The earlier choices on which the distribution of later ones depends.
    """
    nats, tokens = 0.0, 0.0
    states: dict[_Facts, float] = {facts: 1.0}
    for part in _parts(template):
        if not part.startswith("["):
            tokens += 1
            continue
        after: defaultdict[_Facts, float] = defaultdict(float)
        for state, reached in states.items():
            name = part[1:-1].format_map(dict(state))
            options = _rules()[name]
            for option, probability in zip(options, _probabilities(len(options)), strict=True):
                known = dict(state)
                if _fact(name) in _conditions():
                    known[_fact(name)] = option.strip()
                inner_nats, inner_tokens, ends = _expect(option, frozenset(known.items()))
                weight = reached * probability
                nats += weight * (inner_nats - math.log(probability))
                tokens += weight * inner_tokens
                for end, share in ends.items():
                    after[end] += weight * share
        states = after
    return nats, tokens, states


@cache
def _rules() -> Mapping[str, _Options]:
    """Every rule of the grammar by its name."""
    things = {f"thing of {place}": nouns for place, nouns in THINGS.items()}
    words = {**WORDS, **things, "place": " ".join(THINGS)}
    rules = {name: tuple(f" {word}" for word in line.split()) for name, line in words.items()}
    plurals = {
        name.replace("thing", "things"): tuple(f"{noun}s" for noun in rules[name])
        for name in things
    }
    return {**SENTENCES, **rules, **plurals}


@cache
def _conditions() -> frozenset[str]:
    """The facts that select a rule, such as the place in ``[thing of {place}]``."""
    options = (option for options in SENTENCES.values() for option in options)
    return frozenset(fact for option in options for fact in _CONDITION.findall(option))


@cache
def _parts(template: str) -> _Options:
    """The tokens and holes of a template, in order."""
    return tuple(hole or literal for hole, literal in _PART.findall(template))


@cache
def _probabilities(options: int) -> tuple[float, ...]:
    """Probability of each of so many options of a rule, from common to rare."""
    weights = [1 / (rank + _ZIPF_SHIFT) for rank in range(1, options + 1)]
    return tuple(weight / math.fsum(weights) for weight in weights)


def _fact(rule: str) -> str:
    """Name under which a choice from the rule is remembered: "hero" for "hero of woman"."""
    return rule.partition(" of ")[0]
