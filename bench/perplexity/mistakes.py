"""The catalogue of wrong perplexities, computed on the model and the text at hand.

Each variant makes one mistake that public code makes, all on the same weights and text; the one
that gives an observed number explains it. The right protocols stand among them, since most
"wrong" numbers are right ones of another protocol or in another unit.

A line is a row of the text that is not blank, with its line end, tokenised by itself. `SHORT` is
the length that lines are cut or padded to.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import TypeVar

import numpy as np
import torch

from bench.asked import HF_DOCS, LM_EVAL, QualityPlan
from bench.device import precision
from bench.errors import TensorgapError
from bench.model.load import RANDOM, Model, load_model, token_ids
from bench.perplexity.evaluate import evaluate, read
from bench.perplexity.head import Head, token_nats, window_nats
from bench.perplexity.variants import Variant, mean_of_perplexities, of_nats
from bench.perplexity.windows import TokenWindow, second_halves, windows
from bench.text.load import Text, load_text

T = TypeVar("T")
Rows = Sequence[Sequence[float]]

SHORT = 128  # tokens
FIRST = 100  # lines, as in the study whose 217 asked for this catalogue
FIRST_WINDOWS = 32
BATCHES = (8, 16)  # lines
_LETTERS = 50  # the study dropped lines of at most so many
_RARE = 3  # WikiText-2 has <unk> for words that occur less often in its training text
_LINES_AT_ONCE = 16


def compute(name: str, plan: QualityPlan, rows: int | None = None) -> Iterator[Variant]:
    """The catalogue for a model and a text by their names, in fp32, on a GPU where there is one.

    The name is that of `workloads.model` in a matrix; of the plan, text, split, configuration and
    column count; of the text, only the first `rows` where they are given. Raises TensorgapError
    where the model or the text cannot be had, or the model has random weights.
    """
    if name == RANDOM:
        raise TensorgapError(
            f"model {name}: its weights are randomly initialised; name a model that was trained"
        )
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    text = load_text(plan)
    if rows is not None:
        text = text.first(rows)
    model = load_model(name, "fp32", device_type)
    with precision.applied("fp32", device_type):
        yield from catalogue(model, text)


def catalogue(model: Model, text: Text) -> Iterator[Variant]:
    """Every variant, group by group as they are computed, within `bench.device.precision.applied`.

    A group that this model or text cannot have is one variant with the reason.
    """
    for name, group in {
        "windows over the whole text": whole_text,
        "the protocols of others": peers,
        "BOS before each window": bos_before_each_window,
        "lines by themselves": uncut_lines,
        "lines cut and padded": padded_lines,
        "other joins of the rows": joins,
        "rare words as <unk>": rare_words,
    }.items():
        try:
            yield from group(model, text)
        except TensorgapError as error:
            yield Variant(name, reason=str(error))


# ------------------------------------------------------------------------------- the whole text


def whole_text(model: Model, text: Text) -> Iterator[Variant]:
    """The right protocols, and mistakes that begin from their nats."""
    long, short = lengths(model)
    for context, stride in dict.fromkeys([(long, long // 2), (long, long), (short, short)]):
        found = read(model, text, QualityPlan(text.name, context=context, stride=stride))
        nats = window_nats(model, found.stream, found.windows)
        per_token = math.fsum(nats) / len(found.ids)
        name = f"context {context}, stride {stride}"
        yield of_nats(f"{name}, per token", per_token, right=True)
        yield of_nats(f"{name}, per word", math.fsum(nats) / text.words, right=True)
        yield of_nats(f"{name}, nats taken for bits (2 ** loss)", per_token * math.log(2))
        yield of_nats(f"{name}, bits taken for nats (exp of bits)", per_token / math.log(2))
        means = [n / t for n, t in zip(nats, found.counts, strict=True)]
        yield mean_of_perplexities(f"{name}, mean of the windows' perplexities", means)
        if len(nats) > FIRST_WINDOWS:
            part = math.fsum(nats[:FIRST_WINDOWS]) / sum(found.counts[:FIRST_WINDOWS])
            yield of_nats(f"{name}, only the first {FIRST_WINDOWS} windows", part)


def peers(model: Model, text: Text) -> Iterator[Variant]:
    """The protocols of transformers' guide, of lm-eval and of llama.cpp."""
    long, short = lengths(model)
    strided = [(HF_DOCS, long, long // 2), (HF_DOCS, long, long), (HF_DOCS, short, short)]
    for mode, context, stride in dict.fromkeys([*strided, (LM_EVAL, long, long)]):
        plan = QualityPlan(text.name, mode=mode, context=context, stride=stride)
        found = evaluate(model, text, plan)
        name = f"{mode}, context {context}"
        name += f", stride {stride}" if mode == HF_DOCS else ""
        yield Variant(f"{name}, per token", found.perplexity, right=True, reason=found.reason)
        if found.words is not None:
            yield Variant(f"{name}, per word", found.word_perplexity, right=True)
    ids = token_ids(model, text.text)
    length = min(512, long)
    if chosen := second_halves(len(ids), length):
        stream = list(ids)
        for window in chosen:
            stream[window.start] = model.bos
        scored = sum(window.scored for window in chosen)
        nats = math.fsum(window_nats(model, stream, chosen))
        yield of_nats(f"llama.cpp, context {length}", nats / scored, right=True)


def bos_before_each_window(model: Model, text: Text) -> Iterator[Variant]:
    """Windows without overlap, each a text of its own."""
    ids = token_ids(model, text.text)
    for context in dict.fromkeys(lengths(model)):
        nats = total(nats_of(model, list(parts(ids, context - 1)), bos=True))
        yield of_nats(f"BOS before each window of {context}", nats / len(ids))


# ------------------------------------------------------------------------------- line by line


def uncut_lines(model: Model, text: Text) -> Iterator[Variant]:
    """Each line a sample of its own, as long as the model reads."""
    lines = lines_of(text)
    words = sum(len(line.split()) for line in lines)
    for bos in (False, True):
        room = model.positions - bos
        ids = [token_ids(model, line)[:room] for line in lines]
        scored = [row for row in nats_of(model, ids, bos=bos) if row]
        name = f"each line alone, {'BOS before it' if bos else 'no BOS'}"
        evaluated = " (evaluate)" if bos else ""
        yield of_nats(f"{name}, token by token", mean(scored))
        yield of_nats(f"{name}, nats per word", total(scored) / words)
        yield from _of_means(name, scored, evaluated)


def padded_lines(model: Model, text: Text) -> Iterator[Variant]:
    """Lines cut and padded to one length, the end-of-text token as padding."""
    _, length = lengths(model)
    lines = lines_of(text)
    ids = [token_ids(model, line)[:length] for line in lines]
    sizes = list(map(len, ids))
    masked = padded_losses(model, ids, length, mask=True)
    cut = f"lines cut to {length}"
    padded = f"{cut} and padded"

    def real(shift: int) -> list[list[float]]:
        """The losses whose label is no padding."""
        pairs = zip(masked[shift], sizes, strict=True)
        return [row[: max(0, size - shift)] for row, size in pairs]

    rows = real(shift=1)
    words = sum(len(line.split()) for line in lines)
    yield of_nats(f"{cut}, token by token", mean(rows))
    yield of_nats(f"{cut}, nats per word of the uncut text", total(rows) / words)
    yield from _of_means(cut, [row for row in rows if row])
    for size in BATCHES:
        losses = [mean(batch) for batch in parts(rows, size) if any(batch)]
        name = f"{cut}, exp of the mean of the losses of batches of {size}"
        yield of_nats(name, fmean(losses))
    for first in (10, FIRST):
        if len(rows) >= first:
            yield of_nats(f"{cut}, only the first {first}", mean(rows[:first]))
    for shift, what in ((0, "labels not shifted"), (2, "labels shifted twice")):
        yield of_nats(f"{cut}, {what}", mean(real(shift)))
        yield of_nats(f"{padded}, {what}, padding counted", mean(masked[shift]))

    name = f"{padded}, padding counted"
    blank = len(text.rows) - len(lines) if len(text.rows) > 1 else 0
    for mask, how in ((True, "attention mask"), (False, "no attention mask")):
        every = masked[1] if mask else padded_losses(model, ids, length, mask=False)[1]
        yield of_nats(f"{name}, {how}", mean(every))
        weighted = math.fsum(fmean(row) * size for row, size in zip(every, sizes, strict=True))
        what = f"{name} within a line, lines weighted by their tokens, {how}"
        yield of_nats(what, weighted / sum(sizes))
        if blank > 0:
            # One blank row stands for all: each is nothing but padding.
            (alone,) = padded_losses(model, [[]], length, mask=mask)[1]
            nats = total(every) + blank * math.fsum(alone)
            count = (len(every) + blank) * len(alone)
            yield of_nats(f"{name}, blank rows too, {how}", nats / count)
    yield from _as_the_study_did(lines, masked[1], length)


def _of_means(name: str, rows: Rows, evaluated: str = "") -> Iterator[Variant]:
    """Each line weighs the same, however long: in the mean of losses, and of perplexities."""
    means = list(map(fmean, rows))
    yield of_nats(f"{name}, exp of the mean of the lines' losses", fmean(means))
    yield mean_of_perplexities(f"{name}, mean of the lines' perplexities{evaluated}", means)


def _as_the_study_did(lines: Sequence[str], every: Rows, length: int) -> Iterator[Variant]:
    """The recipe of the study that reported 217.

    github.com/krishkc5/energy_aware_quantization, notebooks gpt2_tokenized_dataset.ipynb and
    final_quantization_benchmark_GPT2.ipynb: lines of more than 50 letters, shuffled by `datasets`
    with seed 42, padded to 128 with the end-of-text token, the labels a copy of the ids with their
    padding; the mean of the first 100 losses.
    """
    long = [index for index, line in enumerate(lines) if len(line.strip()) > _LETTERS]
    order = np.random.default_rng(42).permutation(len(long))
    losses = [fmean(every[long[index]]) for index in order]
    name = f"lines of more than {_LETTERS} letters cut to {length}, padding counted, attention mask"
    if losses:
        yield of_nats(name, fmean(losses))
    if len(losses) >= FIRST:
        chosen = f"the {FIRST} that datasets' shuffle(seed=42) puts first"
        yield of_nats(f"{name}, {chosen}: the recipe of the first study", fmean(losses[:FIRST]))


def padded_losses(
    model: Model, ids: Sequence[Sequence[int]], length: int, *, mask: bool
) -> dict[int, list[list[float]]]:
    """-ln p of every label of padded lines, for labels not shifted, shifted once, and twice."""
    head, eos, device = Head(model), model.module.config.eos_token_id, model.module.device
    losses: dict[int, list[list[float]]] = {0: [], 1: [], 2: []}
    for batch in parts(ids, _LINES_AT_ONCE):
        padded = [[*row, *[eos] * (length - len(row))] for row in batch]
        inputs = torch.tensor(padded, device=device)
        sizes = torch.tensor(list(map(len, batch)), device=device)
        ones = (torch.arange(length, device=device) < sizes[:, None]).long()
        with torch.inference_mode():
            hidden = model.module.transformer(
                input_ids=inputs, attention_mask=ones if mask else None, use_cache=False
            ).last_hidden_state
            for shift, rows in losses.items():
                labels = inputs[:, shift:]
                states = hidden[:, : length - shift].flatten(0, 1)
                found = head.losses(states, labels.flatten())
                rows += found.double().reshape(labels.shape).tolist()
    return losses


def nats_of(model: Model, rows: Sequence[Sequence[int]], *, bos: bool) -> list[list[float]]:
    """-ln p of each token of each row by itself; without BOS a row's first token has none."""
    stream: list[int] = []
    chosen: dict[int, TokenWindow] = {}
    for number, ids in enumerate(rows):
        start = len(stream)
        stream += [model.bos, *ids] if bos else ids
        if len(stream) - start > 1:
            chosen[number] = TokenWindow(start, len(stream) - 1, start + 1)
    # Windows of equal length run together; each loss then goes back to its row.
    order = sorted(chosen, key=lambda number: chosen[number].length)
    found: list[list[float]] = [[] for _ in rows]
    losses = token_nats(model, stream, [chosen[number] for number in order])
    for number, (row,) in zip(order, losses, strict=True):
        found[number] = row.double().tolist()
    return found


# ------------------------------------------------------------------------------- other texts


def joins(model: Model, text: Text) -> Iterator[Variant]:
    """The rows joined otherwise than by an empty line."""
    if len(text.rows) < 2:
        return
    joined = {
        'rows joined by ""': "".join(text.rows),
        'rows joined by "\\n"': "\n".join(text.rows),
        'stripped rows joined by " "': " ".join(row.strip() for row in lines_of(text)),
        "the original file": text.original,
    }
    for name, other in joined.items():
        yield from _read_otherwise(model, name, other)


def rare_words(model: Model, text: Text) -> Iterator[Variant]:
    """What the version of WikiText with <unk> does, with this text's own rare words."""
    counts = collections.Counter(text.text.split())
    rows = (
        " ".join("<unk>" if 0 < counts[word] < _RARE else word for word in row.split(" "))
        for row in text.rows
    )
    name = f"words that occur fewer than {_RARE} times as <unk>"
    yield from _read_otherwise(model, name, text.join.join(rows))


def _read_otherwise(model: Model, name: str, other: str) -> Iterator[Variant]:
    ids = token_ids(model, other)
    for context in dict.fromkeys(lengths(model)):
        chosen = list(windows(len(ids), context, context))
        nats = math.fsum(window_nats(model, [model.bos, *ids], chosen))
        yield of_nats(f"{name}, context {context}", nats / len(ids))


# ------------------------------------------------------------------------------- parts and sums


def lengths(model: Model) -> tuple[int, int]:
    """The model's longest context and `SHORT`, or what is possible of it, in tokens."""
    return model.positions, min(SHORT, model.positions)


def lines_of(text: Text) -> list[str]:
    """The lines of a text that are not blank."""
    return [line for line in text.lines if line.strip()]


def total(rows: Iterable[Sequence[float]]) -> float:
    """Sum over all rows."""
    return math.fsum(itertools.chain.from_iterable(rows))


def mean(rows: Rows) -> float:
    """Mean over the values of all rows, each value weighing the same."""
    return total(rows) / sum(map(len, rows))


def parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """So many rows at a time."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
