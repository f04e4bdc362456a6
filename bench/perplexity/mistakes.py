"""The catalogue of wrong perplexities, computed on the model and the text at hand.

Each variant makes one mistake that public code makes, all on the same weights and text; the one
that gives an observed number explains it. The right protocols stand among them, since most
"wrong" numbers are right ones of another protocol or in another unit.

A line is a row of the text that is not blank, with its line end, tokenised by itself.
"""

import collections
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.asked import HF_DOCS, LM_EVAL, RANDOM, QualityPlan
from bench.device import precision
from bench.errors import TensorgapError, Unsupported
from bench.model.load import Model, load_model
from bench.model.tokens import token_ids
from bench.perplexity.evaluate import evaluate, read
from bench.perplexity.head import Head, hidden_states, token_nats, window_nats
from bench.perplexity.variants import Variant, of_nats
from bench.perplexity.windows import TokenWindow, second_halves, windows
from bench.text.load import Text, load_text

T = TypeVar("T")
Array = NDArray[np.float64]

_LONG = 1024  # tokens of a window, as GPT-2 has them; others read texts of 131,072
_SHORT = 128  # tokens that lines are cut or padded to
_FIRST = 100  # lines, as in the study whose 217 asked for this catalogue
_FIRST_WINDOWS = 32
_BATCHES = (8, 16)  # lines
_LETTERS = 50  # the study dropped lines of at most so many
_RARE = 3  # WikiText-2 has <unk> for words that occur less often in its training text
_LINES_AT_ONCE = 16


def compute(name: str, plan: QualityPlan, rows: int | None = None) -> Iterator[Variant]:
    """The catalogue for a model and a text by their names, in fp32, on a GPU where there is one.

    The name is that of `workloads.model` in a matrix; of the plan, text, split, configuration and
    column count; of the text, only the first `rows` where they are given. Raises TensorgapError
    where the model or the text cannot be had, or the model has random weights.
    """
    if name.endswith(RANDOM):
        raise TensorgapError(
            f"model {name}: its weights are randomly initialised; name a model that was trained"
        )
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    text = load_text(plan)
    if rows is not None:
        text = text.first(rows)
    try:
        model = load_model(name, "fp32", device_type)
    except Unsupported as error:
        raise TensorgapError(str(error)) from None
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
        scored = [window.scored for window in found.windows]
        per_token = math.fsum(nats) / len(found.ids)
        name = f"context {context}, stride {stride}"
        yield of_nats(f"{name}, per token", per_token, right=True)
        yield of_nats(f"{name}, per word", math.fsum(nats) / text.words, right=True)
        yield of_nats(f"{name}, nats taken for bits (2 ** loss)", per_token * math.log(2))
        yield of_nats(f"{name}, bits taken for nats (exp of bits)", per_token / math.log(2))
        means = np.divide(nats, scored)
        yield of_nats(f"{name}, mean of the windows' perplexities", mean_perplexity(means))
        if len(nats) > _FIRST_WINDOWS:
            part = math.fsum(nats[:_FIRST_WINDOWS]) / sum(scored[:_FIRST_WINDOWS])
            yield of_nats(f"{name}, only the first {_FIRST_WINDOWS} windows", part)


def peers(model: Model, text: Text) -> Iterator[Variant]:
    """The protocols of transformers' guide, of lm-eval and of llama.cpp."""
    long, short = lengths(model)
    strided = [(HF_DOCS, long, long // 2), (HF_DOCS, long, long), (HF_DOCS, short, short)]
    for mode, context, stride in dict.fromkeys([*strided, (LM_EVAL, long, long)]):
        plan = QualityPlan(text.name, mode=mode, context=context, stride=stride)
        found = evaluate(model, text, plan)
        name = f"{mode}, context {context}" + (f", stride {stride}" if mode == HF_DOCS else "")
        yield Variant(f"{name}, per token", found.perplexity, right=True, reason=found.reason)
        if found.words is not None:
            yield Variant(f"{name}, per word", found.word_perplexity, right=True)
    stream, length = token_ids(model, text.text), min(512, long)
    if chosen := second_halves(len(stream), length):
        for window in chosen:
            stream[window.start] = model.bos
        nats = math.fsum(window_nats(model, stream, chosen))
        scored = sum(window.scored for window in chosen)
        yield of_nats(f"llama.cpp, context {length}", nats / scored, right=True)


def bos_before_each_window(model: Model, text: Text) -> Iterator[Variant]:
    """Windows without overlap, each a text of its own."""
    ids = token_ids(model, text.text)
    for context in dict.fromkeys(lengths(model)):
        nats = nats_of(model, list(parts(ids, context - 1)), bos=True)
        yield of_nats(f"BOS before each window of {context}", mean(nats))


# ------------------------------------------------------------------------------- line by line


def uncut_lines(model: Model, text: Text) -> Iterator[Variant]:
    """Each line a sample of its own, as long as the model reads."""
    lines = lines_of(text)
    words = sum(len(line.split()) for line in lines)
    for bos in (False, True):
        ids = [token_ids(model, line)[: model.positions - bos] for line in lines]
        scored = [row for row in nats_of(model, ids, bos=bos) if row.size]
        name = f"each line alone, {'BOS before it' if bos else 'no BOS'}"
        yield of_nats(f"{name}, token by token", mean(scored))
        yield of_nats(f"{name}, nats per word", np.concatenate(scored).sum() / words)
        yield from _of_means(name, scored, " (evaluate)" if bos else "")


def padded_lines(model: Model, text: Text) -> Iterator[Variant]:
    """Lines cut and padded to one length, the end-of-text token as padding."""
    _, length = lengths(model)
    lines = lines_of(text)
    ids = [token_ids(model, line)[:length] for line in lines]
    sizes = list(map(len, ids))
    masked = padded_losses(model, ids, length, mask=True)
    # By shift of the labels, the losses whose label is no padding.
    real = [
        [row[: max(0, size - shift)] for row, size in zip(losses, sizes, strict=True)]
        for shift, losses in enumerate(masked)
    ]
    rows = real[1]
    words = sum(len(line.split()) for line in lines)
    cut = f"lines cut to {length}"
    padded = f"{cut} and padded"
    yield of_nats(f"{cut}, token by token", mean(rows))
    yield of_nats(f"{cut}, nats per word of the uncut text", np.concatenate(rows).sum() / words)
    yield from _of_means(cut, [row for row in rows if row.size])
    for size in _BATCHES:
        losses = [mean(batch) for batch in parts(rows, size) if sum(map(len, batch))]
        name = f"{cut}, exp of the mean of the losses of batches of {size}"
        yield of_nats(name, float(np.mean(losses)))
    for first in (10, _FIRST):
        if len(rows) >= first:
            yield of_nats(f"{cut}, only the first {first}", mean(rows[:first]))
    for shift, what in ((0, "labels not shifted"), (2, "labels shifted twice")):
        yield of_nats(f"{cut}, {what}", mean(real[shift]))
        yield of_nats(f"{padded}, {what}, padding counted", masked[shift].mean())

    name = f"{padded}, padding counted"
    blank = len(text.rows) - len(lines) if len(text.rows) > 1 else 0
    for mask, how in ((True, "attention mask"), (False, "no attention mask")):
        every = masked[1] if mask else padded_losses(model, ids, length, mask=False)[1]
        yield of_nats(f"{name}, {how}", every.mean())
        what = f"{name} within a line, lines weighted by their tokens, {how}"
        yield of_nats(what, np.average(every.mean(axis=1), weights=sizes))
        if blank > 0:
            # One blank row stands for all: each is nothing but padding.
            alone = padded_losses(model, [[]], length, mask=mask)[1]
            nats = [*every, *np.repeat(alone, blank, axis=0)]
            yield of_nats(f"{name}, blank rows too, {how}", mean(nats))
    yield from _as_the_study_did(lines, masked[1], length)


def _of_means(name: str, rows: Sequence[Array], evaluated: str = "") -> Iterator[Variant]:
    """Each line weighs the same, however long: in the mean of losses, and of perplexities."""
    means = np.array([row.mean() for row in rows])
    yield of_nats(f"{name}, exp of the mean of the lines' losses", means.mean())
    yield of_nats(f"{name}, mean of the lines' perplexities{evaluated}", mean_perplexity(means))


def _as_the_study_did(lines: Sequence[str], every: Array, length: int) -> Iterator[Variant]:
    """The recipe of the study that reported 217.

    github.com/krishkc5/energy_aware_quantization, notebooks gpt2_tokenized_dataset.ipynb and
    final_quantization_benchmark_GPT2.ipynb: lines of more than 50 letters, shuffled by `datasets`
    with seed 42, padded to 128 with the end-of-text token, the labels a copy of the ids with their
    padding; the mean of the first 100 losses.
    """
    long = [index for index, line in enumerate(lines) if len(line.strip()) > _LETTERS]
    losses = every[np.random.default_rng(42).permutation(long)].mean(axis=1) if long else []
    name = f"lines of more than {_LETTERS} letters cut to {length}, padding counted, attention mask"
    if long:
        yield of_nats(name, float(np.mean(losses)))
    if len(long) >= _FIRST:
        chosen = f"the {_FIRST} that datasets' shuffle(seed=42) puts first"
        what = f"{name}, {chosen}: the recipe of the first study"
        yield of_nats(what, float(np.mean(losses[:_FIRST])))


def padded_losses(
    model: Model, ids: Sequence[Sequence[int]], length: int, *, mask: bool
) -> list[Array]:
    """-ln p of every label of padded lines (lines, labels), by the labels' shift: 0, 1 or 2."""
    head, device = Head(model), model.module.device
    # Of Llama's kind it is not BOS, and config.json may name several.
    eos = getattr(model.tokenizer, "eos_token_id", None)
    eos = model.bos if eos is None else eos
    losses: tuple[list[Array], ...] = ([], [], [])
    for batch in parts(ids, _LINES_AT_ONCE):
        padded = [[*row, *[eos] * (length - len(row))] for row in batch]
        inputs = torch.tensor(padded, device=device)
        sizes = torch.tensor(list(map(len, batch)), device=device)
        ones = (torch.arange(length, device=device) < sizes[:, None]).long()
        with torch.inference_mode():
            hidden = hidden_states(model, inputs, attention_mask=ones if mask else None)
            for shift, found in enumerate(losses):
                labels = inputs[:, shift:]
                states = hidden[:, : length - shift].flatten(0, 1)
                nats = head.losses(states, labels.flatten()).double().reshape(labels.shape)
                found.append(nats.cpu().numpy())
    return [np.concatenate(found) for found in losses]


def nats_of(model: Model, rows: Sequence[Sequence[int]], *, bos: bool) -> list[Array]:
    """-ln p of each token of each row by itself; without BOS a row's first token has none."""
    stream: list[int] = []
    row_of: dict[TokenWindow, int] = {}
    for number, ids in enumerate(rows):
        start = len(stream)
        stream += [model.bos, *ids] if bos else ids
        if len(stream) - start > 1:
            row_of[TokenWindow(start, len(stream) - 1, start + 1)] = number
    found = [np.empty(0) for _ in rows]
    # Windows of equal length run together; each loss then goes back to its row.
    order = sorted(row_of, key=lambda window: window.length)
    losses = token_nats(model, stream, order, [Head(model)])
    for window, (nats,) in zip(order, losses, strict=True):
        found[row_of[window]] = nats.double().cpu().numpy()
    return found


# ------------------------------------------------------------------------------- other texts


def joins(model: Model, text: Text) -> Iterator[Variant]:
    """The rows joined otherwise than by an empty line."""
    if len(text.rows) < 2:
        return
    for name, other in {
        'rows joined by ""': "".join(text.rows),
        'rows joined by "\\n"': "\n".join(text.rows),
        'stripped rows joined by " "': " ".join(row.strip() for row in lines_of(text)),
        "the original file": text.original,
    }.items():
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


# ------------------------------------------------------------------------------- parts and means


def lengths(model: Model) -> tuple[int, int]:
    """A long context and a short one, in tokens, of what the model has."""
    return min(_LONG, model.positions), min(_SHORT, model.positions)


def lines_of(text: Text) -> list[str]:
    """The lines of a text that are not blank."""
    return [line for line in text.lines if line.strip()]


def mean(rows: Sequence[Array]) -> float:
    """Mean over the values of all rows, each value weighing the same."""
    return float(np.concatenate(rows).mean())


def mean_perplexity(losses: Array) -> float:
    """The loss that the mean of these losses' perplexities belongs to, in nats."""
    return float(np.logaddexp.reduce(losses) - math.log(len(losses)))


def parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """So many rows at a time."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
