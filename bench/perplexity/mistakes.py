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
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bench.asked import HF_DOCS, LM_EVAL, QualityPlan
from bench.device import precision
from bench.errors import TensorgapError
from bench.model import load as models
from bench.model.load import Model, token_ids
from bench.perplexity import evaluate as quality
from bench.text import load as texts

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SHORT = 128  # tokens
FIRST = 100  # lines, as in the study whose 217 asked for this catalogue
FIRST_WINDOWS = 32
BATCHES = (8, 16)  # lines
_LETTERS = 50  # the study dropped lines of at most so many
_RARE = 3  # WikiText-2 has <unk> for words that occur less often in its training text
_LINES_AT_ONCE = 16


@dataclass(frozen=True)
class Variant:
    """One way to a perplexity.

    Attributes:
        what: The mistake in words; for a right protocol its name.
        right: Whether it is a right protocol in a unit that people use.
        perplexity: None where there is none.
        reason: Why there is none.
    """

    what: str
    perplexity: float | None = None
    right: bool = False
    reason: str | None = None


def compute(name: str, plan: QualityPlan, rows: int | None = None) -> Iterator[Variant]:
    """The catalogue for a model and a text by their names, in fp32, on a GPU where there is one.

    Args:
        name: As `workloads.model` in a matrix.
        plan: Only its text, split, configuration and column.
        rows: Only so many rows of the text.

    Raises:
        TensorgapError: the model or the text cannot be had, or the model has random weights.
    """
    import torch

    if name == models.RANDOM:
        raise TensorgapError(f"model {name}: random weights have learnt nothing; name others")
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    text = texts.load(plan)
    if rows is not None:
        text = text.first(rows)
    model = models.load(name, "fp32", device_type)
    with precision.applied("fp32", device_type):
        yield from catalogue(model, text)


def catalogue(model: Model, text: texts.Text) -> Iterator[Variant]:
    """Every variant, group by group as they are computed, within `bench.device.precision.applied`.

    A group that this model or text cannot have is one variant with the reason.
    """
    groups: tuple[tuple[str, Callable[[Model, texts.Text], Iterator[Variant]]], ...] = (
        ("windows over the whole text", _whole),
        ("the protocols of others", _peers),
        ("BOS before each window", _bos_before_each_window),
        ("lines by themselves", _uncut),
        ("lines cut and padded", _padded),
        ("other joins of the rows", _joins),
        ("rare words as <unk>", _unknown_words),
    )
    for name, group in groups:
        try:
            yield from group(model, text)
        except TensorgapError as error:
            yield Variant(name, reason=str(error))


# ------------------------------------------------------------------------------- the whole text


def _whole(model: Model, text: texts.Text) -> Iterator[Variant]:
    """The right protocols, and mistakes that begin from their nats."""
    long, short = model.positions, min(SHORT, model.positions)
    plans = dict.fromkeys([(long, long // 2), (long, long), (short, short)])
    for context, stride in plans:
        plan = QualityPlan(text.name, context=context, stride=stride)
        reading = quality.read(model, text, plan)
        nats = quality.window_nats(model, reading.stream, reading.windows)
        tokens = reading.counts
        per_token = math.fsum(nats) / len(reading.ids)
        name = f"context {context}, stride {stride}"
        yield _variant(f"{name}, per token", per_token, right=True)
        yield _variant(f"{name}, per word", math.fsum(nats) / text.words, right=True)
        yield _variant(f"{name}, nats taken for bits (2 ** loss)", per_token * math.log(2))
        yield _variant(f"{name}, bits taken for nats (exp of bits)", per_token / math.log(2))
        means = [n / t for n, t in zip(nats, tokens, strict=True)]
        yield _mean_of_exp(f"{name}, mean of the windows' perplexities", means)
        if len(nats) > FIRST_WINDOWS:
            part = math.fsum(nats[:FIRST_WINDOWS]) / sum(tokens[:FIRST_WINDOWS])
            yield _variant(f"{name}, only the first {FIRST_WINDOWS} windows", part)


def _peers(model: Model, text: texts.Text) -> Iterator[Variant]:
    long, short = model.positions, min(SHORT, model.positions)
    for mode, context, stride in dict.fromkeys(
        (
            (HF_DOCS, long, long // 2),
            (HF_DOCS, long, long),
            (HF_DOCS, short, short),
            (LM_EVAL, long, long),
        )
    ):
        plan = QualityPlan(text.name, mode=mode, context=context, stride=stride)
        found = quality.evaluate(model, text, plan)
        name = f"{mode}, context {context}"
        name += f", stride {stride}" if mode == HF_DOCS else ""
        yield Variant(f"{name}, per token", found.perplexity, right=True, reason=found.reason)
        if found.words is not None:
            yield Variant(f"{name}, per word", found.word_perplexity, right=True)
    yield from _second_halves(model, text)


def _second_halves(model: Model, text: texts.Text) -> Iterator[Variant]:
    """The rule of llama.cpp: of windows without overlap only the second half is scored.

    tools/perplexity: BOS takes the place of each window's first token, and the tail is dropped.
    """
    length = min(512, model.positions)
    ids = token_ids(model, text.text)
    starts = range(0, len(ids) - length + 1, length)
    if not starts:
        return
    stream = [i for s in starts for i in (model.bos, *ids[s + 1 : s + length])]
    half = length // 2
    chosen = [quality.Window(s, s + length - 1, s + half + 1) for s in starts]
    nats = quality.window_nats(model, stream, chosen)
    scored = sum(window.scored for window in chosen)
    yield _variant(f"llama.cpp, context {length}", math.fsum(nats) / scored, right=True)


def _bos_before_each_window(model: Model, text: texts.Text) -> Iterator[Variant]:
    ids = token_ids(model, text.text)
    for context in dict.fromkeys([model.positions, min(SHORT, model.positions)]):
        pieces = [ids[s : s + context - 1] for s in range(0, len(ids), context - 1)]
        nats = math.fsum(itertools.chain.from_iterable(_nats_of(model, pieces, bos=True)))
        yield _variant(f"BOS before each window of {context}", nats / len(ids))


# ------------------------------------------------------------------------------- line by line


def _uncut(model: Model, text: texts.Text) -> Iterator[Variant]:
    """Each line a sample of its own, as long as the model reads."""
    lines = _lines(text)
    words = sum(len(line.split()) for line in lines)
    for bos in (False, True):
        room = model.positions - bos
        ids = [token_ids(model, line)[:room] for line in lines]
        scored = [row for row in _nats_of(model, ids, bos=bos) if row]
        name = f"each line alone, {'BOS before it' if bos else 'no BOS'}"
        total, tokens = _total(scored), sum(map(len, scored))
        yield _variant(f"{name}, token by token", total / tokens)
        yield _variant(f"{name}, nats per word", total / words)
        means = list(map(statistics.fmean, scored))
        yield _variant(f"{name}, exp of the mean of the lines' losses", statistics.fmean(means))
        yield _mean_of_exp(
            f"{name}, mean of the lines' perplexities{' (evaluate)' if bos else ''}", means
        )


def _padded(model: Model, text: texts.Text) -> Iterator[Variant]:
    """Lines cut and padded to one length, the end-of-text token as padding."""
    length = min(SHORT, model.positions)
    lines = _lines(text)
    words = sum(len(line.split()) for line in lines)
    ids = [token_ids(model, line)[:length] for line in lines]
    masked = _Padded(model, ids, length, mask=True)
    unmasked = _Padded(model, ids, length, mask=False)
    cut = f"lines cut to {length}"
    padded = f"{cut} and padded"

    real = masked.real(shift=1)
    total, tokens = _total(real), sum(map(len, real))
    means = [statistics.fmean(row) for row in real if row]
    yield _variant(f"{cut}, token by token", total / tokens)
    yield _variant(f"{cut}, nats per word of the uncut text", total / words)
    yield _variant(f"{cut}, exp of the mean of the lines' losses", statistics.fmean(means))
    yield _mean_of_exp(f"{cut}, mean of the lines' perplexities", means)
    for size in BATCHES:
        losses = [
            _total(batch) / sum(map(len, batch)) for batch in _parts(real, size) if any(batch)
        ]
        yield _variant(
            f"{cut}, exp of the mean of the losses of batches of {size}", statistics.fmean(losses)
        )
    for first in (10, FIRST):
        part = real[:first]
        if len(part) == first:
            yield _variant(f"{cut}, only the first {first}", _total(part) / sum(map(len, part)))
    for shift, what in ((0, "labels not shifted"), (2, "labels shifted twice")):
        wrong = masked.real(shift)
        yield _variant(f"{cut}, {what}", _total(wrong) / sum(map(len, wrong)))
        yield _variant(f"{padded}, {what}, padding counted", _mean(masked.losses[shift]))

    for rows, how in ((masked, "attention mask"), (unmasked, "no attention mask")):
        every = rows.losses[1]
        yield _variant(f"{padded}, padding counted, {how}", _mean(every))
        weights = [len(row) for row in ids]
        yield _variant(
            f"{padded}, padding counted within a line, lines weighted by their tokens, {how}",
            math.fsum(statistics.fmean(r) * w for r, w in zip(every, weights, strict=True))
            / sum(weights),
        )
    yield from _with_blank_rows(model, text, masked, unmasked, f"{padded}, padding counted")
    yield from _as_the_study_did(lines, masked)


def _with_blank_rows(
    model: Model, text: texts.Text, masked: _Padded, unmasked: _Padded, name: str
) -> Iterator[Variant]:
    blank = len(text.rows) - len(masked.ids) if len(text.rows) > 1 else 0
    if blank <= 0:
        return
    for rows, how in ((masked, "attention mask"), (unmasked, "no attention mask")):
        # One blank row stands for all: each is nothing but padding.
        alone = _Padded(model, [[]], rows.length, mask=rows.mask).losses[1][0]
        nats = _total(rows.losses[1]) + blank * math.fsum(alone)
        count = (len(rows.ids) + blank) * len(alone)
        yield _variant(f"{name}, blank rows too, {how}", nats / count)


def _as_the_study_did(lines: Sequence[str], masked: _Padded) -> Iterator[Variant]:
    """The recipe of the study that reported 217.

    github.com/krishkc5/energy_aware_quantization, notebooks gpt2_tokenized_dataset.ipynb and
    final_quantization_benchmark_GPT2.ipynb: lines of more than 50 letters, shuffled by `datasets`
    with seed 42, padded to 128 with the end-of-text token, the labels a copy of the ids with their
    padding; the mean of the first 100 losses.
    """
    import numpy as np

    long = [index for index, line in enumerate(lines) if len(line.strip()) > _LETTERS]
    order = np.random.default_rng(42).permutation(len(long))
    losses = [statistics.fmean(masked.losses[1][long[index]]) for index in order]
    name = f"lines of more than {_LETTERS} letters cut to {masked.length}, padding counted"
    if losses:
        yield _variant(f"{name}, attention mask", statistics.fmean(losses))
    if len(losses) >= FIRST:
        yield _variant(
            f"{name}, attention mask, the {FIRST} that datasets' shuffle(seed=42) puts first: the"
            " recipe of the first study",
            statistics.fmean(losses[:FIRST]),
        )


class _Padded:
    """-ln p of every label of padded lines, for labels not shifted, shifted once, and twice."""

    def __init__(
        self, model: Model, ids: Sequence[Sequence[int]], length: int, *, mask: bool
    ) -> None:
        self.ids, self.length, self.mask = ids, length, mask
        self.losses: dict[int, list[list[float]]] = {0: [], 1: [], 2: []}
        self._head = quality.Head(model)
        for batch in _parts(ids, _LINES_AT_ONCE):
            for shift, rows in self._of_batch(model, batch).items():
                self.losses[shift] += rows

    def real(self, shift: int) -> list[list[float]]:
        """The losses whose label is no padding."""
        pairs = zip(self.losses[shift], self.ids, strict=True)
        return [row[: max(0, len(ids) - shift)] for row, ids in pairs]

    def _of_batch(
        self, model: Model, batch: Sequence[Sequence[int]]
    ) -> dict[int, list[list[float]]]:
        import torch

        device = model.module.device
        eos = model.module.config.eos_token_id
        padded = [[*ids, *[eos] * (self.length - len(ids))] for ids in batch]
        inputs = torch.tensor(padded, device=device)
        mask = None
        if self.mask:
            ones = [[1] * len(ids) + [0] * (self.length - len(ids)) for ids in batch]
            mask = torch.tensor(ones, device=device)
        with torch.inference_mode():
            hidden = model.module.transformer(
                input_ids=inputs, attention_mask=mask, use_cache=False
            ).last_hidden_state
            return {
                shift: self._labelled(hidden[:, : self.length - shift], inputs[:, shift:])
                for shift in self.losses
            }

    def _labelled(self, hidden: torch.Tensor, labels: torch.Tensor) -> list[list[float]]:
        losses = self._head.losses(hidden.flatten(0, 1), labels.flatten())
        rows: list[list[float]] = losses.double().reshape(labels.shape).tolist()
        return rows


def _nats_of(model: Model, rows: Sequence[Sequence[int]], *, bos: bool) -> Iterator[list[float]]:
    """-ln p of each token of each row by itself; without BOS a row's first token has none."""
    stream: list[int] = []
    chosen: list[quality.Window] = []
    lengths = []
    for ids in rows:
        start = len(stream)
        stream += [model.bos, *ids] if bos else ids
        scored = len(stream) - start - 1
        lengths.append(max(0, scored))
        if scored > 0:
            chosen.append(quality.Window(start, len(stream) - 1, start + 1))
    # Windows of equal length run together; each loss then goes back to its row.
    order = sorted(range(len(chosen)), key=lambda index: chosen[index].length)
    found: list[list[float]] = [[] for _ in chosen]
    losses = quality.token_nats(model, stream, [chosen[index] for index in order])
    for index, (row,) in zip(order, losses, strict=True):
        found[index] = row.double().tolist()
    remaining = iter(found)
    for length in lengths:
        yield next(remaining) if length else []


# ------------------------------------------------------------------------------- other texts


def _joins(model: Model, text: texts.Text) -> Iterator[Variant]:
    if len(text.rows) < 2:
        return
    original = "".join(row or " \n" for row in text.rows)
    joined = {
        'rows joined by ""': "".join(text.rows),
        'rows joined by "\\n"': "\n".join(text.rows),
        'stripped rows joined by " "': " ".join(row.strip() for row in _lines(text)),
        "the original file": original,
    }
    for name, other in joined.items():
        yield from _read_otherwise(model, name, other)


def _unknown_words(model: Model, text: texts.Text) -> Iterator[Variant]:
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
    for context in dict.fromkeys([model.positions, min(SHORT, model.positions)]):
        chosen = list(quality.windows(len(ids), context, context))
        nats = math.fsum(quality.window_nats(model, [model.bos, *ids], chosen))
        yield _variant(f"{name}, context {context}", nats / len(ids))


# ------------------------------------------------------------------------------- sums


def _lines(text: texts.Text) -> list[str]:
    rows = text.rows if len(text.rows) > 1 else text.text.splitlines(keepends=True)
    return [row for row in rows if row.strip()]


def _variant(what: str, nats_per_token: float, right: bool = False) -> Variant:
    try:
        value = math.exp(nats_per_token)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return Variant(what, right=right, reason=f"its loss is {nats_per_token:.4g}")
    return Variant(what, value, right)


def _mean_of_exp(what: str, losses: Sequence[float]) -> Variant:
    try:
        return Variant(what, math.fsum(map(math.exp, losses)) / len(losses))
    except OverflowError:
        return Variant(what, reason=f"one of its losses is {max(losses):.4g}")


def _total(rows: Iterable[Sequence[float]]) -> float:
    return math.fsum(itertools.chain.from_iterable(rows))


def _mean(rows: Sequence[Sequence[float]]) -> float:
    return _total(rows) / sum(map(len, rows))


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
