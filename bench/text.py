"""The text that perplexity is measured on: the embedded corpus, a data set of the hub, a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.embedded import corpus
from bench.records import QualityPlan, TensorgapError

EMBEDDED = "embedded"
# Short names for data sets of the hub: (data set, configuration).
KNOWN = {
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
}
# How the rows of a data set become one text: as in the perplexity guide of transformers, whose
# number for GPT-2 on WikiText-2 is the one that people compare with.
_ROW_JOIN = "\n\n"


@dataclass(frozen=True)
class Text:
    """One text to predict."""

    name: str  # with its split
    text: str
    words: int  # of the original, before rows were joined
    bytes: int  # of the original in UTF-8
    floor_nats: float | None = None  # -ln p under the generator that wrote it

    @property
    def sha256(self) -> str:
        """Hash of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(plan: QualityPlan) -> Text:
    """The text that the plan names.

    Raises TensorgapError where it cannot be had; the text says what to do.
    """
    if plan.text == EMBEDDED:
        if plan.split == "validation":
            raise TensorgapError(
                'quality.split = "validation": the embedded text has train and test'
            )
        generated = corpus.split("train" if plan.split == "train" else "test")
        return _text(f"embedded {plan.split}", [generated.text], "", generated.nats)
    path = Path(plan.text)
    if path.is_file():
        return _text(path.name, [_read(path)], "")
    if plan.text.startswith((".", "/", "~")):
        raise TensorgapError(f"quality.text = {plan.text}: there is no such file")
    name, configuration = KNOWN.get(plan.text, (plan.text, None))
    rows = _hub_rows(plan.text, name, configuration, plan.split)
    return _text(f"{plan.text} {plan.split}", rows, _ROW_JOIN)


def tokens_sha256(ids: Sequence[int]) -> str:
    """Hash of token ids as little-endian int32."""
    import numpy as np

    return hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes()).hexdigest()


def _text(name: str, rows: Sequence[str], join: str, floor_nats: float | None = None) -> Text:
    text = join.join(rows)
    if not text.strip():
        raise TensorgapError(f"quality.text {name}: the text is empty")
    return Text(
        name=name,
        text=text,
        words=sum(len(row.split()) for row in rows),
        bytes=sum(len(row.encode()) for row in rows),
        floor_nats=floor_nats,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TensorgapError(f"quality.text = {path}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise TensorgapError(f"quality.text = {path}: cannot be read: {error.strerror}") from None


def _hub_rows(asked: str, name: str, configuration: str | None, split: str) -> Sequence[str]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise TensorgapError(
            f"quality.text = {asked}: needs the package datasets; pip install datasets,"
            " or give a local text file"
        ) from None
    try:
        datasets.disable_progress_bars()
        rows: Any = datasets.load_dataset(name, configuration, split=split)
        return list(rows["text"])
    # datasets raises many kinds, from its own, requests and huggingface_hub: each means this.
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TensorgapError(
            f"quality.text = {asked}: cannot be had from the hub or its cache: {first}"
            " (connect once to fill the cache, or give a local text file)"
        ) from error
