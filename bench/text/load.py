"""The text that perplexity is measured on: the embedded corpus, a data set of the hub, a file.

A text is a list of rows. Joined by an empty line between each two they are the one text of the
perplexity guide of transformers, whose number for GPT-2 on WikiText-2 people compare with; cut at
the headings of articles they are the pages of lm-eval. A text that bears the name of WikiText-2, or
is nearly it, and has another hash is refused: files that pretend to be WikiText exist.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.asked import QualityPlan
from bench.errors import TensorgapError
from bench.files import limits, unpacking
from bench.files.storage import complaint
from bench.text import published
from bench.text.embedded import corpus

EMBEDDED = "embedded"
ROW_JOIN = "\n\n"
_HUB_WIKITEXT = "Salesforce/wikitext"
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_KINDS = (".parquet", *_JSON_LINES, ".txt", ".raw", ".tokens", ".text")
_SPLIT_NAMES = {
    "train": {"train"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test"},
}
# wikitext-2-v1 is the text with <unk>, which says so and is another one.
_CLAIMS_WIKITEXT2 = re.compile(r"wikitext-?_?2(?!-v1)(?!\d)|wiki\.(test|valid|train)\.raw")
# A text whose bytes and words both differ by less is the same text, damaged or edited.
_NEARLY = 0.005


@dataclass(frozen=True)
class Text:
    """One text to predict."""

    name: str  # with its split
    rows: tuple[str, ...]
    join: str
    words: int  # of the original, before rows were joined
    bytes: int  # of the original in UTF-8
    lower_bound_nats: float | None = None  # -ln p under the generator that wrote it
    is_wikitext2: bool = False  # whether it is `published.WIKITEXT2_TEST`

    @classmethod
    def of(
        cls,
        name: str,
        rows: Sequence[str],
        join: str = ROW_JOIN,
        lower_bound_nats: float | None = None,
    ) -> Text:
        """A text of its rows, counted; a published one is recognised. Raises where it is empty."""
        words = sum(len(row.split()) for row in rows)
        text = cls(
            name, tuple(rows), join, words, sum(len(r.encode()) for r in rows), lower_bound_nats
        )
        if not text.text.strip():
            raise TensorgapError(f"quality.text {name}: the text is empty")
        if not published.is_wikitext2_test(text.sha256):
            return text
        # The hub has "" for the blank lines of the file, and so fewer bytes: the file counts.
        real = published.WIKITEXT2_TEST
        if text.sha256 == real.sha256:
            lines = re.findall(r"[^\n]*\n", text.text)
            rows = [line if line.strip() else "" for line in lines]
        return cls(real.name, tuple(rows), ROW_JOIN, real.words, real.bytes, None, True)

    @functools.cached_property
    def text(self) -> str:
        """The rows joined."""
        return self.join.join(self.rows)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def original(self) -> str:
        """The file that the rows were taken from, whose blank lines are ""."""
        return "".join(row or " \n" for row in self.rows)

    @property
    def lines(self) -> list[str]:
        """Its rows; of a text that is one row, its lines with their ends."""
        return list(self.rows) if len(self.rows) > 1 else self.text.splitlines(keepends=True)

    def first(self, rows: int) -> Text:
        """Its first rows only; of a text that is one row, its first lines."""
        join = self.join if len(self.rows) > 1 else ""
        return Text.of(f"{self.name}, first {rows} rows", self.lines[:rows], join)

    def pages(self) -> list[str]:
        """The documents: WikiText's articles, or the rows of a text without their headings.

        The rule is that of the data set EleutherAI/wikitext_document_level, which lm-eval reads.
        """
        pages: list[list[str]] = [[]]
        for line in self.original.split("\n"):
            # An article's title is ` = Title = `; a heading within it has more signs.
            bare = line.replace("= = =", "===").replace("= =", "==").strip()
            if bare.startswith("= ") and bare.endswith(" ="):
                pages.append([])
            pages[-1].append(line)
        found = map("\n".join, pages) if len(pages) > 1 else self.rows
        return [page for page in found if page.strip()]


def load_text(plan: QualityPlan) -> Text:
    """The text that the plan names.

    Raises TensorgapError where it cannot be had, or is not what it is called; the message says
    what to do.
    """
    if plan.text == EMBEDDED:
        if plan.split == "validation":
            raise TensorgapError(
                'quality.split = "validation": the embedded text has train and test'
            )
        generated = corpus.split(plan.split)
        return Text.of(f"embedded {plan.split}", [generated.text], "", generated.nats)
    path = Path(os.path.expanduser(plan.text))
    source = _Source(plan)
    if os.path.isfile(path):
        text = source.file(path)
    elif os.path.isdir(path):
        text = source.folder(path)
    elif plan.text.startswith((".", "/", "~")):
        raise source.refused("there is no such file or folder")
    else:
        text = Text.of(f"{plan.text} {plan.split}", source.hub())
    if not text.is_wikitext2:
        called = path.name if os.path.exists(path) else plan.text
        _refuse_pretender(text, plan, f"{called} {plan.configuration}".lower())
    return text


def tokens_sha256(ids: Sequence[int]) -> str:
    """Hash of token ids as little-endian int32."""
    return hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes()).hexdigest()


def check_tokens(text: Text, ids: Sequence[int], vocabulary: int) -> None:
    """Refuse a GPT-2 vocabulary that makes other tokens of WikiText-2 than GPT-2 does."""
    if not text.is_wikitext2 or vocabulary != published.GPT2_VOCABULARY:
        return
    known, found = published.WIKITEXT2_TEST, tokens_sha256(ids)
    if found != known.gpt2_tokens_sha256:
        raise TensorgapError(
            f"{text.name}: the model's tokenizer is not GPT-2's: expected {known.gpt2_tokens:,}"
            f" tokens with sha256 {known.gpt2_tokens_sha256}, found {len(ids):,} with {found};"
            " give the model the vocab.json and merges.txt of gpt2"
        )


def _refuse_pretender(text: Text, plan: QualityPlan, called: str) -> None:
    """Refuse an unknown text that is called WikiText-2's test split, or nearly is it."""
    real = published.WIKITEXT2_TEST
    claims = _CLAIMS_WIKITEXT2.search(called) and not re.search(r"train|valid", called)
    claims = claims and plan.split == "test"
    ratios = text.bytes / real.bytes, text.words / real.words
    if not claims and not all(abs(ratio - 1) < _NEARLY for ratio in ratios):
        return
    unknown = text.text.count("<unk>")
    raise TensorgapError(
        f"quality.text = {plan.text}: this is {'called' if claims else 'nearly'} {real.name}"
        f" and is not: expected sha256 {real.sha256} of the file or {real.joined_sha256} of its"
        f" joined rows, {real.bytes:,} bytes, {real.words:,} words; found {text.sha256},"
        f" {text.bytes:,} bytes, {text.words:,} words"
        + (f", {unknown:,} of them <unk>: that is wikitext-2-v1" if unknown > 1000 else "")
        + " (take the test split of wikitext-2-raw-v1, or give another text another name)"
    )


@dataclass(frozen=True)
class _Source:
    """Where a text comes from: files, folders and data sets of the hub, as a plan names them."""

    plan: QualityPlan

    def file(self, path: Path) -> Text:
        """The text of one file: rows of Parquet or JSON lines, or a text that is one row."""
        origin, kind = f"quality.text = {path}", path.suffix.lower()
        check = limits.at_most(limits.DEFAULT_BYTES, origin)
        try:
            content = limits.read_file(path, check)
            if kind == ".parquet":
                file = unpacking.open_parquet(io.BytesIO(content), origin, limits.Allowance())
                self.check_column(file.schema_arrow.names, path)
                groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
                check(sum(group.total_byte_size for group in groups))
                column = file.read(columns=[self.plan.column])[self.plan.column]
                return Text.of(path.name, self.strings(column.to_pylist(), path))
            # Not read_text, which would change line ends: they are part of the text and its hash.
            text = content.decode("utf-8")
        # ValueError: also pyarrow decodes, the names of a damaged file.
        except (OSError, ValueError, pa.ArrowException) as error:
            what = "not UTF-8 text" if isinstance(error, ValueError) else "cannot be read"
            what = "not a Parquet file" if kind == ".parquet" else what
            first = complaint(error)
            raise self.refused(f"{what}: {first}", path) from None
        if kind in _JSON_LINES:
            return Text.of(path.name, self.json_rows(text, path))
        return Text.of(path.name, [text], "")

    def folder(self, folder: Path) -> Text:
        """The files of one split, such as a snapshot of the hub, in alphabetical order."""
        split, inner = self.plan.split, folder / self.plan.configuration
        files = sorted(
            path
            for path in (inner if inner.is_dir() else folder).iterdir()
            if path.suffix.lower() in _KINDS and path.is_file()
        )
        chosen = [
            path
            for path in files
            if _SPLIT_NAMES[split] & set(re.split(r"[^a-z]+", path.name.lower()))
        ]
        if not chosen and len(files) != 1:
            found = ", ".join(path.name for path in files[:5]) or "no Parquet, JSON lines or text"
            raise self.refused(
                f"no file of the split {split}, which its name would say, such as {split}.parquet;"
                f" found {found}"
            )
        texts = [self.file(path) for path in chosen or files]
        if len(texts) == 1:
            return texts[0]
        return Text.of(f"{folder.name} {split}", [row for text in texts for row in text.rows])

    def hub(self) -> list[str]:
        """The rows of a data set of the hub or of its cache."""
        name, configuration = self.plan.text, self.plan.configuration
        if short := re.fullmatch(r"(wikitext-2|wikitext-103)(-raw-v1)?", name):
            name, configuration = _HUB_WIKITEXT, configuration or f"{short[1]}-raw-v1"
        try:
            import datasets  # takes seconds, and few texts need it

            datasets.disable_progress_bars()
            found: Any = datasets.load_dataset(name, configuration or None, split=self.plan.split)
        except ModuleNotFoundError as error:
            raise self.refused(
                f"needs the package {error.name}: pip install {error.name}, or give a local file"
            ) from error
        # datasets raises many kinds, from its own, requests and huggingface_hub: each means this.
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            arguments = ", ".join(repr(value) for value in (name, configuration) if value)
            raise self.refused(
                f"cannot be had from the hub or its cache: {first} (where the hub can be reached,"
                f" fill the cache with datasets.load_dataset({arguments}); or give a local file or"
                " folder of Parquet, JSON lines or text)"
            ) from error
        self.check_column(found.column_names)
        return self.strings(found[self.plan.column])

    def json_rows(self, content: str, path: Path) -> list[str]:
        values = []
        for number, line in enumerate(content.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                problem = f"line {number} is not JSON: {error}; JSON lines are one object a line"
                raise self.refused(problem, path) from None
            self.check_column(record if isinstance(record, dict) else (), path)
            values.append(record[self.plan.column])
        return self.strings(values, path)

    def check_column(self, names: Collection[str], path: Path | None = None) -> None:
        if self.plan.column not in names:
            known = ", ".join(names) or "its columns"
            problem = f"no column {self.plan.column}; name one of {known} in quality.column"
            raise self.refused(problem, path)

    def strings(self, values: Iterable[Any], path: Path | None = None) -> list[str]:
        """The values of the column as rows of text; an empty one is ""."""
        rows = ["" if value is None else value for value in values]
        wrong = {type(row).__name__: None for row in rows if not isinstance(row, str)}
        if wrong:
            problem = f"the column {self.plan.column} holds {', '.join(wrong)}, not text"
            raise self.refused(f"{problem}; name another one in quality.column", path)
        return rows

    def refused(self, problem: str, path: Path | None = None) -> TensorgapError:
        return TensorgapError(f"quality.text = {path or self.plan.text}: {problem}")
