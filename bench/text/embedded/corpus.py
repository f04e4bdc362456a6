"""English-like stories whose entropy is known exactly.

The perplexity of this text has a lower bound in closed form: no model can be below it, and a
good one comes close. So tensorgap can judge a perplexity without a hub or a published number.

The rules of `grammar.toml` write the stories by random choices. The next token of the text reveals
each choice, so text and derivation determine each other, and -ln p(text) is the sum of
-ln p(choice). The tests compute the bound in two other ways.
"""

import math
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"
# A word with its leading space, a full stop, a comma, or the end of a story.
TOKEN_PATTERN = r"\n|[.,]| ?[A-Za-z]+"
_PART = re.compile(r" ?(\[[^\]]+\])|( ?\{\w+\}|" + TOKEN_PATTERN + ")")
# Option r = 1, 2, ... of a rule weighs 1 / (r + shift), the law of Zipf and Mandelbrot. Rather
# flat, so that a tiny model meets the rare words often enough within minutes of training.
_ZIPF_SHIFT = 5
_SPLITS = {"train": (1, 30_000), "test": (2, 280)}  # seed and number of stories

Options = tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """A text, and what it costs a perfect model."""

    text: str  # stories, one per line
    nats: float  # -ln of the probability with which the grammar writes exactly this text
    tokens: int

    @property
    def perplexity(self) -> float:
        """Perplexity per token of a perfect model on this text: the lower bound of any model."""
        return math.exp(self.nats / self.tokens)


def generate(seed: int, paragraphs: int) -> Corpus:
    """Write this many stories; a seed gives the same text on every machine."""
    rng = random.Random(seed)

    def choose(options: Options, _: Mapping[str, str]) -> int:
        return rng.choices(range(len(options)), probabilities(len(options)))[0]

    steps = [step for _ in range(paragraphs) for step in derive(choose)]
    return Corpus(
        text="".join(token for token, _ in steps),
        nats=math.fsum(nats for _, nats in steps),
        tokens=len(steps),
    )


@cache
def split(name: str) -> Corpus:
    """`train` or `test`: the text that trained the embedded model, or the text held out from it."""
    return generate(*_SPLITS[name])


def derive(choose: Callable[[Options, Mapping[str, str]], int]) -> Iterator[tuple[str, float]]:
    """Derive one story: its tokens, each with the nats of the choices that it reveals.

    Given the options of a rule and the memory of earlier choices, `choose` tells the index of one.
    """
    memory: dict[str, str] = {}
    pending, nats = ["[story]"], 0.0
    while pending:
        part = pending.pop().format_map(memory)
        if not part.startswith("["):
            yield part, nats
            nats = 0.0
            continue
        name = part[1:-1]
        options = rules()[name]
        index = choose(options, memory)
        nats -= math.log(probabilities(len(options))[index])
        memory[remembered_as(name)] = options[index].strip()
        pending.extend(reversed(parts(options[index])))


@cache
def rules() -> Mapping[str, Options]:
    """The options of every rule by its name, from common to rare."""
    grammar = tomllib.loads((Path(__file__).parent / "grammar.toml").read_text("utf-8"))
    found = {name: tuple(options) for name, options in grammar["sentences"].items()}
    words = {**grammar["words"], "place": " ".join(grammar["things"])}
    for place, nouns in grammar["things"].items():
        words[f"thing of {place}"] = nouns
        words[f"things of {place}"] = " ".join(f"{noun}s" for noun in nouns.split())
    return found | {name: tuple(f" {w}" for w in line.split()) for name, line in words.items()}


@cache
def parts(template: str) -> Options:
    """The tokens and holes of an option, in order."""
    return tuple(hole or literal for hole, literal in _PART.findall(template))


@cache
def probabilities(options: int) -> tuple[float, ...]:
    """Probability of each of so many options of a rule, from common to rare."""
    weights = [1 / (rank + _ZIPF_SHIFT) for rank in range(1, options + 1)]
    return tuple(weight / math.fsum(weights) for weight in weights)


def remembered_as(rule: str) -> str:
    """Name under which a choice from the rule is remembered: "hero" for "hero of woman"."""
    return rule.partition(" of ")[0]


def vocabulary() -> Options:
    """All tokens; a token's position is its id. The end of text has id 0, the unknown token 1."""
    found = {part for options in rules().values() for option in options for part in parts(option)}
    return (END_OF_TEXT, UNKNOWN, *sorted(part for part in found if part[-1] not in "]}"))
