"""Windows over a stream of tokens, by the rules of three protocols. Standard library only."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenWindow:
    """Read stream[start:end]; score the predictions of stream[first:end + 1].

    The token at position p of the stream is predicted from the tokens before it, so that a window
    that reads up to `end` also predicts the token at `end`.
    """

    start: int
    end: int
    first: int
    uncounted: int = 0  # tokens that are scored and not counted in the mean

    @property
    def length(self) -> int:
        """How many tokens this window reads."""
        return self.end - self.start

    @property
    def scored(self) -> int:
        """How many tokens this window scores."""
        return self.end + 1 - self.first

    @property
    def counted(self) -> int:
        """How many tokens its mean loss counts for."""
        return self.scored - self.uncounted


def windows(tokens: int, context: int, stride: int, offset: int = 0) -> Iterator[TokenWindow]:
    """Windows over BOS and `tokens` tokens, of which BOS stands at `offset` of the stream.

    Each token is scored in exactly one window, with at least one token and at most `context` tokens
    before it; no window is longer than `context`. The last window reaches back to a full context.
    With stride == context this is lm-eval's rule.

        context 4, stride 2, tokens 7:   B 1 2 3 4 5 6 7
            reads [0, 4)                 ~ ~ ~ ~          scores 1 2 3 4
            reads [2, 6)                     ~ ~ ~ ~      scores 5 6
            reads [3, 7)                       ~ ~ ~ ~    scores 7

    >>> [(w.start, w.end, w.first) for w in windows(7, 4, 2)]
    [(0, 4, 1), (2, 6, 5), (3, 7, 7)]
    """
    first, end = 1, min(context, tokens)
    while first <= tokens:
        yield TokenWindow(offset + max(0, end - context), offset + end, offset + first)
        first, end = end + 1, min(end + stride, tokens)


def guide_windows(tokens: int, context: int, stride: int) -> Iterator[TokenWindow]:
    """Windows of the strided recipe over `tokens` tokens without BOS.

    From docs/source/en/perplexity.md of transformers: labels of the overlap are masked, the model
    shifts the labels, and the mean loss of a window counts for one token less than it has labels.
    So the first token of the text, and of each window without overlap, is never scored; and a
    window that overlaps counts for one token less than it scores.

    >>> [(w.start, w.end, w.first, w.counted) for w in guide_windows(7, 4, 2)]
    [(0, 3, 1, 3), (2, 5, 4, 1)]
    """
    previous = 0
    for start in range(0, tokens, stride):
        end = min(start + context, tokens)
        if end - previous > 1:
            first = max(previous, start + 1)
            yield TokenWindow(start, end - 1, first, uncounted=int(previous > start))
        previous = end
        if end == tokens:
            return


def second_halves(tokens: int, length: int) -> list[TokenWindow]:
    """Windows of llama.cpp over `tokens` tokens: without overlap, the second half scored.

    tools/perplexity: BOS takes the place of each window's first token, and the tail is dropped.
    """
    starts = range(0, tokens - length + 1, length)
    return [TokenWindow(s, s + length - 1, s + length // 2 + 1) for s in starts]


def batches(chosen: Sequence[TokenWindow], tokens_at_once: int) -> Iterator[list[TokenWindow]]:
    """Neighbouring windows of equal length, a few at a time."""
    for length, alike in itertools.groupby(chosen, key=lambda window: window.length):
        at_once = max(1, tokens_at_once // length)
        while batch := list(itertools.islice(alike, at_once)):
            yield batch


def evenly(chosen: Sequence[TokenWindow], most: int) -> Sequence[TokenWindow]:
    """At most so many windows, from all over the text."""
    return chosen[:: max(1, -(-len(chosen) // most))]
