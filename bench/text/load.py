"""The text that perplexity is measured on: the embedded corpus, a data set of the hub, a file.

A text is a list of rows. Joined by an empty line between each two they are the one text of the
perplexity guide of transformers, whose number for GPT-2 on WikiText-2 people compare with; cut at
the headings of articles they are the pages of lm-eval. A text that bears a known name, or is
nearly a known text, and has another hash is refused: files that pretend to be WikiText exist.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.asked import QualityPlan
from bench.errors import TensorgapError
from bench.files import limits
from bench.text import published
from bench.text.embedded import corpus

EMBEDDED = "embedded"
# Short names for data sets of the hub: (data set, configuration).
KNOWN = {
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikitext-2-raw-v1": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikitext-103-raw-v1": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
}
ROW_JOIN = "\n\n"
_TABLES = (".parquet", ".jsonl", ".ndjson", ".json")
_TEXTS = (".txt", ".raw", ".tokens", ".text")
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
    floor_nats: float | None = None  # -ln p under the generator that wrote it
    known: published.Text | None = None  # the published text that it is

    @functools.cached_property
    def text(self) -> str:
        """The rows joined."""
        return self.join.join(self.rows)

    @property
    def sha256(self) -> str:
        """Hash of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def first(self, rows: int) -> Text:
        """Its first rows only; of a text that is one row, its first lines."""
        lines = self.rows if len(self.rows) > 1 else tuple(self.text.splitlines(keepends=True))
        join = self.join if len(self.rows) > 1 else ""
        return _text(f"{self.name}, first {rows} rows", lines[:rows], join)

    def pages(self) -> list[str]:
        """The documents: WikiText's articles, or the rows of a text without their headings.

        The rule is that of the data set EleutherAI/wikitext_document_level, which lm-eval reads.
        """
        lines = "".join(row or " \n" for row in self.rows).split("\n")
        if not any(map(_is_title, lines)):
            return [row for row in self.rows if row.strip()]
        pages: list[list[str]] = [[]]
        for line in lines:
            if _is_title(line):
                pages.append([])
            pages[-1].append(line)
        return [page for page in map("\n".join, pages) if page.strip()]


def load(plan: QualityPlan) -> Text:
    """The text that the plan names.

    Raises TensorgapError where it cannot be had, or is not what it is called; the message says
    what to do.
    """
    if plan.text == EMBEDDED:
        if plan.split == "validation":
            raise TensorgapError(
                'quality.split = "validation": the embedded text has train and test'
            )
        generated = corpus.split("train" if plan.split == "train" else "test")
        return _text(f"embedded {plan.split}", [generated.text], "", generated.nats)
    path = Path(os.path.expanduser(plan.text))
    if os.path.isfile(path):
        text = _file(path, plan)
    elif os.path.isdir(path):
        text = _folder(path, plan)
    elif plan.text.startswith((".", "/", "~")):
        raise TensorgapError(f"quality.text = {plan.text}: there is no such file or folder")
    else:
        text = _text(f"{plan.text} {plan.split}", _hub_rows(plan), ROW_JOIN)
    _refuse_pretender(text, plan, path)
    return text


def tokens_sha256(ids: Sequence[int]) -> str:
    """Hash of token ids as little-endian int32."""
    import numpy as np

    return hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes()).hexdigest()


def check_tokens(text: Text, ids: Sequence[int], vocabulary: int) -> None:
    """Refuse a GPT-2 vocabulary that makes other tokens of a known text than GPT-2 does."""
    known = text.known
    if known is None or vocabulary != published.GPT2_VOCABULARY or text.join != ROW_JOIN:
        return
    found = tokens_sha256(ids)
    if found != known.gpt2_tokens_sha256:
        raise TensorgapError(
            f"{text.name}: the model's tokenizer is not GPT-2's: expected {known.gpt2_tokens:,}"
            f" tokens with sha256 {known.gpt2_tokens_sha256}, found {len(ids):,} with {found};"
            " give the model the vocab.json and merges.txt of gpt2"
        )


def _text(name: str, rows: Sequence[str], join: str, floor_nats: float | None = None) -> Text:
    text = Text(
        name=name,
        rows=tuple(rows),
        join=join,
        words=sum(len(row.split()) for row in rows),
        bytes=sum(len(row.encode()) for row in rows),
        floor_nats=floor_nats,
    )
    if not text.text.strip():
        raise TensorgapError(f"quality.text {name}: the text is empty")
    known = published.text_of(text.sha256)
    if known is None:
        return text
    # The hub has "" for the blank lines of the file, and so fewer bytes: the file counts.
    hub_rows = _wikitext_rows(text.text) if text.sha256 == known.sha256 else text.rows
    return Text(known.name, hub_rows, ROW_JOIN, known.words, known.bytes, floor_nats, known)


def _wikitext_rows(original: str) -> tuple[str, ...]:
    """The rows that the hub makes of WikiText's file: its lines, and "" for a blank one."""
    return tuple(line if line.strip() else "" for line in re.findall(r"[^\n]*\n", original))


def _is_title(line: str) -> bool:
    """Whether a line is an article's title, ` = Title = `, and no heading within it."""
    bare = line.replace("= = =", "===").replace("= =", "==").strip()
    return bare.startswith("= ") and bare.endswith(" =")


def _refuse_pretender(text: Text, plan: QualityPlan, path: Path) -> None:
    """Refuse a text that is called WikiText-2's test split, or nearly is it, and is not."""
    (wikitext2,) = published.TEXTS
    if text.known is not None:
        return
    local = os.path.exists(path)
    called = f"{path.name if local else plan.text} {plan.configuration}".lower()
    claims = (
        _CLAIMS_WIKITEXT2.search(called) is not None
        and plan.split == "test"
        and not re.search(r"train|valid", called)
    )
    nearly = (
        abs(text.bytes / wikitext2.bytes - 1) < _NEARLY
        and abs(text.words / wikitext2.words - 1) < _NEARLY
    )
    if not claims and not nearly:
        return
    unknown = text.text.count("<unk>")
    raise TensorgapError(
        f"quality.text = {plan.text}: this is {'called' if claims else 'nearly'} {wikitext2.name}"
        f" and is not: expected sha256 {wikitext2.sha256} of the file or"
        f" {wikitext2.joined_sha256} of its joined rows, {wikitext2.bytes:,} bytes,"
        f" {wikitext2.words:,} words; found {text.sha256}, {text.bytes:,} bytes,"
        f" {text.words:,} words"
        + (f", {unknown:,} of them <unk>: that is wikitext-2-v1" if unknown > 1000 else "")
        + " (take the test split of wikitext-2-raw-v1, or give another text another name)"
    )


# ------------------------------------------------------------------------------- local files


def _file(path: Path, plan: QualityPlan) -> Text:
    if path.suffix.lower() in _TABLES:
        return _text(path.name, _rows(path, plan), ROW_JOIN)
    return _text(path.name, [_read(path)], "")


def _folder(folder: Path, plan: QualityPlan) -> Text:
    """The files of one split in a folder, such as a snapshot of the hub, in alphabetical order."""
    inner = folder / plan.configuration
    files = sorted(
        path
        for path in (inner if inner.is_dir() else folder).iterdir()
        if path.suffix.lower() in (*_TABLES, *_TEXTS) and path.is_file()
    )
    names = _SPLIT_NAMES[plan.split]
    chosen = [path for path in files if names & set(re.split(r"[^a-z]+", path.name.lower()))]
    if not chosen and len(files) == 1:
        chosen = files
    if not chosen:
        found = ", ".join(path.name for path in files[:5]) or "no Parquet, JSON lines or text"
        raise TensorgapError(
            f"quality.text = {folder}: no file of the split {plan.split}, which its name would"
            f" say, such as {plan.split}.parquet; found {found}"
        )
    parts = [_file(path, plan) for path in chosen]
    if len(parts) == 1:
        return parts[0]
    rows = [row for part in parts for row in part.rows]
    return _text(f"{folder.name} {plan.split}", rows, ROW_JOIN)


def _read(path: Path) -> str:
    try:
        # Not read_text, which would change line ends: they are part of the text and of its hash.
        check = limits.at_most(limits.DEFAULT_BYTES, f"quality.text = {path}")
        return limits.read_file(path, check).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TensorgapError(f"quality.text = {path}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise TensorgapError(f"quality.text = {path}: cannot be read: {error.strerror}") from None


def _rows(path: Path, plan: QualityPlan) -> list[str]:
    """The rows of a file of Parquet or JSON lines."""
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path, plan)
    return list(_json_rows(path, plan))


def _parquet_rows(path: Path, plan: QualityPlan) -> list[str]:
    import pyarrow as pa

    from bench.files import unpacking

    origin = f"quality.text = {path}"
    check = limits.at_most(limits.DEFAULT_BYTES, origin)
    try:
        content = limits.read_file(path, check)
        file = unpacking.open_parquet(content, origin, limits.Allowance())
        names = file.schema_arrow.names
        if plan.column not in names:
            raise _no_column(path, plan, names)
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        check(sum(group.total_byte_size for group in groups))
        values = file.read(columns=[plan.column])[plan.column].to_pylist()
    # ValueError: pyarrow decodes the names of a damaged file.
    except (OSError, ValueError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise TensorgapError(f"quality.text = {path}: no Parquet file: {first}") from None
    return [_checked_row(path, plan, value) for value in values]


def _json_rows(path: Path, plan: QualityPlan) -> Iterator[str]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TensorgapError(
                f"quality.text = {path}: line {number} is no JSON: {error}; JSON lines are one"
                " object a line"
            ) from None
        if not isinstance(record, dict) or plan.column not in record:
            raise _no_column(path, plan, list(record) if isinstance(record, dict) else [])
        yield _checked_row(path, plan, record[plan.column])


def _checked_row(place: Path | str, plan: QualityPlan, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TensorgapError(
            f"quality.text = {place}: the column {plan.column} holds {type(value).__name__}, not"
            " text; name another one in quality.column"
        )
    return value


def _no_column(place: Path | str, plan: QualityPlan, names: Sequence[str]) -> TensorgapError:
    return TensorgapError(
        f"quality.text = {place}: there is no column {plan.column}; name one of"
        f" {', '.join(names) or 'its columns'} in quality.column"
    )


# ------------------------------------------------------------------------------- the hub


def _hub_rows(plan: QualityPlan) -> list[str]:
    name, configuration = KNOWN.get(plan.text, (plan.text, None))
    configuration = plan.configuration or configuration
    try:
        import datasets
    except ModuleNotFoundError:
        raise TensorgapError(
            f"quality.text = {plan.text}: needs the package datasets; pip install datasets,"
            " or give a local file"
        ) from None
    try:
        datasets.disable_progress_bars()
        found: Any = datasets.load_dataset(name, configuration, split=plan.split)
    # datasets raises many kinds, from its own, requests and huggingface_hub: each means this.
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        arguments = ", ".join(repr(value) for value in (name, configuration) if value)
        raise TensorgapError(
            f"quality.text = {plan.text}: cannot be had from the hub or its cache: {first} (where"
            f" the hub can be reached, fill the cache with datasets.load_dataset({arguments}); or"
            " give a local file or folder of Parquet, JSON lines or text)"
        ) from error
    if plan.column not in found.column_names:
        raise _no_column(plan.text, plan, found.column_names)
    return [_checked_row(plan.text, plan, value) for value in found[plan.column]]
