"""bench.perplexity.mistakes: each variant against its formula, on a model that is known.

The reference is written with lists and loops only; it shares no code with what it judges.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import datasets
import numpy as np
import pytest
import torch
from planted import LetterTokenizer, as_model, planted, seeded
from transformers import GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from bench.asked import QualityPlan
from bench.errors import TensorgapError
from bench.perplexity import mistakes
from bench.perplexity.head import window_nats
from bench.perplexity.variants import Variant
from bench.perplexity.windows import TokenWindow
from bench.text.load import Text

pytestmark = pytest.mark.usefixtures("one_thread")

ALPHABET = "\n abcd<unk>"
POSITIONS = 16
SIZE = 1 + len(ALPHABET)
_WEIGHTS = [1 / (step + 2) for step in range(SIZE)]
NATS = [-math.log(weight / sum(_WEIGHTS)) for weight in _WEIGHTS]  # of a step to a token


def some_rows() -> list[str]:
    """Rows as WikiText has them: a blank one is "", each other ends with a space and its line."""
    rng = random.Random(3)
    rows = []
    for number in range(150):
        if number % 6 == 5:
            rows.append("")
            continue
        words = ["".join(rng.choices("abcd", k=rng.randint(1, 4))) for _ in range(2 + number % 19)]
        rows.append(f" {' '.join(words)} \n")
    # Enough long lines for the recipe of the study, which drops the short ones.
    return rows + [f" {' '.join(rng.choices(['abcd', 'dab', 'ca'], k=17))} \n" for _ in range(90)]


ROWS = some_rows()
LINES = [row for row in ROWS if row]


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.of("planted", ROWS)


@pytest.fixture(scope="module")
def found(text: Text) -> dict[str, Variant]:
    module = planted([-nats for nats in NATS], POSITIONS)
    model = as_model(module, LetterTokenizer(ALPHABET))
    variants = list(mistakes.catalogue(model, text))
    assert len({variant.what for variant in variants}) == len(variants)
    return {variant.what: variant for variant in variants}


# ------------------------------------------------------------------------------- the reference


def ids(part: str) -> list[int]:
    return [1 + ALPHABET.index(letter) for letter in part]


def cost(before: int, after: int) -> float:
    return NATS[(after - before) % SIZE]


def chain(tokens: Sequence[int]) -> list[float]:
    """Cost of each token but the first."""
    return [cost(a, b) for a, b in itertools.pairwise(tokens)]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


def whole() -> dict[str, float]:
    costs = chain([0, *ids("\n\n".join(ROWS))])
    words = sum(len(row.split()) for row in ROWS)
    expected = {}
    for stride in (POSITIONS // 2, POSITIONS):
        scored = [costs[:POSITIONS]]
        scored += [costs[s : s + stride] for s in range(POSITIONS, len(costs), stride)]
        name = f"context {POSITIONS}, stride {stride}"
        expected |= {
            f"{name}, per token": mean(costs),
            f"{name}, per word": math.fsum(costs) / words,
            f"{name}, nats taken for bits (2 ** loss)": mean(costs) * math.log(2),
            f"{name}, bits taken for nats (exp of bits)": mean(costs) / math.log(2),
            f"{name}, mean of the windows' perplexities": math.log(
                mean([math.exp(mean(window)) for window in scored])
            ),
            f"{name}, only the first 32 windows": mean(flat(scored[:32])),
        }
    return expected


def guide(context: int, stride: int) -> float:
    """The loop of transformers' guide, its losses from the table."""
    tokens = ids("\n\n".join(ROWS))
    total, count, previous = 0.0, 0, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + context, len(tokens))
        target_length = end - previous
        labels = tokens[begin:end]
        masked = [None] * (len(labels) - target_length) + labels[len(labels) - target_length :]
        losses = [
            cost(labels[i], labels[i + 1])
            for i in range(len(labels) - 1)
            if masked[i + 1] is not None
        ]
        if target_length > 1:
            total += mean(losses) * (target_length - 1)
        count += target_length - 1
        previous = end
        if end == len(tokens):
            break
    return total / count


def peers() -> dict[str, float]:
    pages = [re.sub(" \n", "\n", row) for row in LINES]  # all that the de-tokenizer finds in them
    costs = flat([chain([0, *ids(page)]) for page in pages])
    words = sum(len(re.split(r"\s+", row)) for row in LINES)
    tokens = ids("\n\n".join(ROWS))
    half = POSITIONS // 2
    halves = []
    for start in range(0, len(tokens) - POSITIONS + 1, POSITIONS):
        window = [0, *tokens[start + 1 : start + POSITIONS]]
        halves += chain(window)[half:]
    pieces = [tokens[s : s + POSITIONS - 1] for s in range(0, len(tokens), POSITIONS - 1)]
    return {
        "hf-docs, context 16, stride 8, per token": guide(16, 8),
        "hf-docs, context 16, stride 16, per token": guide(16, 16),
        "lm-eval, context 16, per token": mean(costs),
        "lm-eval, context 16, per word": math.fsum(costs) / words,
        "llama.cpp, context 16": mean(halves),
        "BOS before each window of 16": mean(flat([chain([0, *piece]) for piece in pieces])),
    }


def uncut() -> dict[str, float]:
    words = sum(len(line.split()) for line in LINES)
    expected = {}
    for bos in (False, True):
        name = f"each line alone, {'BOS before it' if bos else 'no BOS'}"
        rows = [chain(([0] if bos else []) + ids(line)[: POSITIONS - bos]) for line in LINES]
        evaluate = " (evaluate)" if bos else ""
        expected |= {
            f"{name}, token by token": mean(flat(rows)),
            f"{name}, nats per word": math.fsum(flat(rows)) / words,
            f"{name}, exp of the mean of the lines' losses": mean([mean(row) for row in rows]),
            f"{name}, mean of the lines' perplexities{evaluate}": math.log(
                mean([math.exp(mean(row)) for row in rows])
            ),
        }
    return expected


def padded() -> dict[str, float]:
    cut = [ids(line)[:POSITIONS] for line in LINES]
    full = [tokens + [0] * (POSITIONS - len(tokens)) for tokens in cut]
    real, counted = [chain(tokens) for tokens in cut], [chain(tokens) for tokens in full]
    words = sum(len(line.split()) for line in LINES)
    blank = [[cost(0, 0)] * (POSITIONS - 1)] * ROWS.count("")
    long = [row for row, line in zip(counted, LINES, strict=True) if len(line.strip()) > 50]
    order = np.random.default_rng(42).permutation(len(long))[:100]
    name = "lines cut to 16"
    study = "lines of more than 50 letters cut to 16, padding counted, attention mask"
    twice = [[cost(t[i], t[i + 2]) for i in range(len(t) - 2)] for t in cut]
    twice_full = [[cost(t[i], t[i + 2]) for i in range(len(t) - 2)] for t in full]
    expected = {
        f"{name}, token by token": mean(flat(real)),
        f"{name}, nats per word of the uncut text": math.fsum(flat(real)) / words,
        f"{name}, exp of the mean of the lines' losses": mean([mean(row) for row in real]),
        f"{name}, mean of the lines' perplexities": math.log(
            mean([math.exp(mean(row)) for row in real])
        ),
        f"{name}, only the first 10": mean(flat(real[:10])),
        f"{name}, only the first 100": mean(flat(real[:100])),
        f"{name}, labels not shifted": cost(0, 0),
        f"{name} and padded, labels not shifted, padding counted": cost(0, 0),
        f"{name}, labels shifted twice": mean(flat(twice)),
        f"{name} and padded, labels shifted twice, padding counted": mean(flat(twice_full)),
        study: mean(flat(long)),
        f"{study}, the 100 that datasets' shuffle(seed=42) puts first: the recipe of the first"
        " study": mean(flat([long[index] for index in order])),
    }
    for size in (8, 16):
        batches = [flat(real[s : s + size]) for s in range(0, len(real), size)]
        losses = mean([mean(batch) for batch in batches])
        expected[f"{name}, exp of the mean of the losses of batches of {size}"] = losses
    for how in ("attention mask", "no attention mask"):
        start = f"{name} and padded, padding counted"
        expected |= {
            f"{start}, {how}": mean(flat(counted)),
            f"{start}, blank rows too, {how}": mean(flat([*counted, *blank])),
            f"{start} within a line, lines weighted by their tokens, {how}": math.fsum(
                mean(row) * len(tokens) for row, tokens in zip(counted, cut, strict=True)
            )
            / sum(map(len, cut)),
        }
    return expected


def others() -> dict[str, float]:
    counts = Counter("\n\n".join(ROWS).split())
    rare = [" ".join("<unk>" if 0 < counts[w] < 3 else w for w in row.split(" ")) for row in ROWS]
    joined = {
        'rows joined by ""': "".join(ROWS),
        'rows joined by "\\n"': "\n".join(ROWS),
        'stripped rows joined by " "': " ".join(line.strip() for line in LINES),
        "the original file": "".join(row or " \n" for row in ROWS),
        "words that occur fewer than 3 times as <unk>": "\n\n".join(rare),
    }
    assert "<unk>" in joined["words that occur fewer than 3 times as <unk>"]
    return {f"{k}, context 16": mean(chain([0, *ids(v)])) for k, v in joined.items()}


@pytest.mark.parametrize("group", [whole, peers, uncut, padded, others])
def test_each_variant_is_exactly_its_formula(
    found: dict[str, Variant], group: Callable[[], dict[str, float]]
) -> None:
    expected = group()
    values = {what: found[what].perplexity for what in expected}
    exact = {what: math.exp(nats) for what, nats in expected.items()}
    assert values == pytest.approx(exact, rel=1e-9)


def test_every_variant_has_a_formula(found: dict[str, Variant]) -> None:
    formulas = whole() | peers() | uncut() | padded() | others()
    assert set(found) == set(formulas)


def test_the_variants_differ(found: dict[str, Variant]) -> None:
    """Else the formulas could stand for each other."""
    values = {round(variant.perplexity or 0, 9) for variant in found.values()}
    assert len(values) > 0.6 * len(found)


# ------------------------------------------------------------------------------- padding


@pytest.fixture(scope="module")
def small() -> GPT2LMHeadModel:
    """A GPT-2 with attention, to which a mask and padding matter."""
    return seeded(SIZE, POSITIONS, width=16, spread=0.5)


@pytest.fixture(scope="module")
def of_padded(small: GPT2LMHeadModel, text: Text) -> dict[str, float | None]:
    model = as_model(small, LetterTokenizer(ALPHABET))
    return {variant.what: variant.perplexity for variant in mistakes.padded_lines(model, text)}


@pytest.mark.parametrize("mask", [True, False])
def test_padding_counts_as_in_the_loss_of_transformers(
    small: GPT2LMHeadModel, of_padded: dict[str, float | None], mask: bool
) -> None:
    """What people compute: model(ids, attention_mask, labels=ids).loss over padded lines."""
    cut = [ids(row)[:POSITIONS] for row in ROWS]
    inputs = torch.tensor([tokens + [0] * (POSITIONS - len(tokens)) for tokens in cut])
    ones = torch.tensor([[1] * len(t) + [0] * (POSITIONS - len(t)) for t in cut])
    blank = ones.sum(1) == 0
    how = "attention mask" if mask else "no attention mask"
    for rows, name in (
        (~blank, "padding counted"),
        (blank | ~blank, "padding counted, blank rows too"),
    ):
        attention = {"attention_mask": ones[rows]} if mask else {}
        with torch.inference_mode():
            loss = small(input_ids=inputs[rows], labels=inputs[rows], **attention).loss
        found = of_padded[f"lines cut to 16 and padded, {name}, {how}"]
        assert found == pytest.approx(math.exp(loss), rel=1e-6)


def test_the_study_s_lines_are_those_that_datasets_shuffles_first() -> None:
    shuffled = datasets.Dataset.from_dict({"row": list(range(1940))}).shuffle(seed=42)["row"]
    assert list(shuffled) == list(np.random.default_rng(42).permutation(1940))


# ------------------------------------------------------------------------------- the edges


def test_a_group_that_the_model_has_no_words_for_is_a_reason() -> None:
    class Poor(LetterTokenizer):
        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            if "<" in text:
                raise TensorgapError("no word for <unk>")
            return super().__call__(text)

    rows = ("ab cd ab ab \n", "", "d ab ab \n")
    model = as_model(planted([-nats for nats in NATS]), Poor(ALPHABET))
    variants = mistakes.catalogue(model, Text.of("poor", rows))
    without = [variant for variant in variants if variant.perplexity is None]
    assert [(v.what, v.reason) for v in without] == [("rare words as <unk>", "no word for <unk>")]


def test_a_loss_beyond_every_number_is_a_reason_beside_it(text: Text) -> None:
    impossible = planted([-2000.0, *[0.0] * (SIZE - 1)])
    few = mistakes.catalogue(as_model(impossible, LetterTokenizer(ALPHABET)), text.first(4))
    by_name = {variant.what: variant for variant in few}
    unshifted = by_name["lines cut to 16, labels not shifted"]
    assert unshifted.perplexity is None
    assert "its loss is 2002" in (unshifted.reason or "")


def test_a_llama_has_the_same_catalogue_and_windows_no_longer_than_gpt2_s() -> None:
    class Llama(LetterTokenizer):
        bos_token_id, eos_token_id = 0, 2  # padded with another token than BOS

    config = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=[2, 3],  # as Llama 3 has them
        pad_token_id=None,
    )
    model = as_model(LlamaForCausalLM(config), Llama(ALPHABET))
    rows = ROWS[:100]
    variants = {v.what: v for v in mistakes.catalogue(model, Text.of("planted", rows))}
    assert [what for what, variant in variants.items() if variant.perplexity is None] == []
    assert {f"context 1024, stride {n}, per token" for n in (512, 1024)} < set(variants)
    whole = ids("\n\n".join(rows))
    with torch.inference_mode():
        first = model.module(torch.tensor([[0, *whole[:1023]]]), labels=None).logits[0].double()
    nats = -first.log_softmax(-1)[range(1024), whole[:1024]].sum().item()
    assert window_nats(model, [0, *whole], [TokenWindow(0, 1024, 1)])[0] == pytest.approx(nats)
    padded = "lines cut to 128 and padded, padding counted, no attention mask"
    inputs = [(ids(row)[:128] + [2] * 128)[:128] for row in rows if row]
    with torch.inference_mode():
        loss = model.module(torch.tensor(inputs), labels=torch.tensor(inputs)).loss.item()
    assert variants[padded].perplexity == pytest.approx(math.exp(loss), rel=1e-5)


def test_random_weights_are_refused() -> None:
    with pytest.raises(TensorgapError, match="its weights are randomly initialised"):
        list(mistakes.compute("gpt2:random", QualityPlan()))


def test_the_first_rows_of_a_text_are_a_text(text: Text) -> None:
    part = text.first(3)
    assert part.rows == tuple(ROWS[:3])
    assert part.words == sum(len(row.split()) for row in ROWS[:3])
    assert (part.name, part.is_wikitext2) == ("planted, first 3 rows", False)
    one = dataclasses.replace(text, rows=("a b\nc\nd\n",), join="").first(2)
    assert one.text == "a b\nc\n"
