"""bench.text: where a text may come from, and what it is refused for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.asked import QualityPlan
from bench.decoders import SHAPES
from bench.errors import TensorgapError
from bench.measured import Weights
from bench.model.load import Model
from bench.perplexity.evaluate import read
from bench.text import published
from bench.text.load import Text, check_tokens, load_text

ROWS = ["", " = Title = \n", "", " A first line . \n", " Grüße \n"]


def plan(text: object, **changes: str) -> QualityPlan:
    return replace(QualityPlan(str(text)), **changes)


# ------------------------------------------------------------------------------- local files


def write_parquet(path: Path, column: str = "text") -> None:
    pq.write_table(pa.table({column: ROWS, "id": list(range(len(ROWS)))}), path)


def write_json_lines(path: Path, column: str = "text") -> None:
    lines = [json.dumps({column: row, "id": 1}, ensure_ascii=False) for row in ROWS]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS = {"parquet": write_parquet, "jsonl": write_json_lines}


@pytest.mark.parametrize("kind", WRITERS)
def test_rows_of_a_file_are_joined_as_the_guide_of_transformers_joins_them(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"some.{kind}"
    WRITERS[kind](path, "content")
    found = load_text(plan(path, column="content"))
    assert found.rows == tuple(ROWS)
    assert found.text == "\n\n".join(ROWS)
    assert (found.words, found.bytes) == (8, len("".join(ROWS).encode()))
    assert found.name == path.name


@pytest.mark.parametrize("kind", WRITERS)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"some.{kind}"
    WRITERS[kind](path, "content")
    with pytest.raises(TensorgapError, match=r"no column text; name one of content, id in quality"):
        load_text(plan(path))
    with pytest.raises(TensorgapError, match=r"column id holds int, not text"):
        load_text(plan(path, column="id"))


def test_a_text_file_keeps_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "dos.txt"
    path.write_bytes(b"one\r\ntwo\r\n")
    assert load_text(plan(path)).text == "one\r\ntwo\r\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR", "not a Parquet file"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "no column text"),
        ("a.txt", b"\xff", "not UTF-8 text"),
        ("a.jsonl", b'{"text": null}\n', "the text is empty"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TensorgapError, match=message):
        load_text(plan(path))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_text_of_gigabytes_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    os.truncate(path, 3_000_000_000)
    with pytest.raises(TensorgapError, match=r"quality\.text = .*: 3 GB; must be at most 1 GB"):
        load_text(plan(path))


def test_a_nest_of_json_that_no_parser_follows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(TensorgapError, match="line 1 is not JSON: maximum recursion depth"):
        load_text(plan(path))


def test_a_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    for name in ("train-00000.parquet", "test-00000.parquet", "test-00001.parquet"):
        write_parquet(tmp_path / name)
    (tmp_path / "README.md").write_text("no text of it")
    found = load_text(plan(tmp_path))
    assert found.rows == (*ROWS, *ROWS)
    assert found.name == f"{tmp_path.name} test"
    assert load_text(plan(tmp_path, split="train")).rows == tuple(ROWS)


def test_a_folder_of_configurations_gives_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    write_parquet(tmp_path / "second" / "validation-00000-of-00001.parquet")
    found = load_text(plan(tmp_path, split="validation", configuration="second"))
    assert found.rows == tuple(ROWS)


def test_the_only_file_of_a_folder_is_its_text(tmp_path: Path) -> None:
    write_parquet(tmp_path / "stories.parquet")
    assert load_text(plan(tmp_path)).rows == tuple(ROWS)


def test_a_folder_without_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TensorgapError, match=r"no file of the split test.*found no Parquet"):
        load_text(plan(tmp_path))
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(TensorgapError, match=r"split test.*found train\.txt, valid\.txt"):
        load_text(plan(tmp_path))
    assert load_text(plan(tmp_path, split="validation")).text == "x"


# ------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Stands in for the hub, below datasets.load_dataset; the list holds what was asked of it."""
    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, configuration: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, configuration, split))
        return datasets.Dataset.from_dict({"text": ROWS, "id": list(range(len(ROWS)))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_data_set_is_asked_for_by_name_configuration_and_split(hub: list[object]) -> None:
    load_text(plan("wikitext-103", split="validation"))
    load_text(plan("some/stories", configuration="short", split="train"))
    load_text(plan("some/stories"))
    assert hub == [
        ("Salesforce/wikitext", "wikitext-103-raw-v1", "validation"),
        ("some/stories", "short", "train"),
        ("some/stories", None, "test"),
    ]


@pytest.mark.parametrize("name", ["wikitext-2", "wikitext-2-raw-v1"])
def test_wikitext2_is_known_by_two_names_and_refused_if_it_is_another_text(
    hub: list[object], name: str
) -> None:
    with pytest.raises(TensorgapError, match="called wikitext-2 test and is not"):
        load_text(plan(name))
    assert hub == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test")]


def test_a_column_that_the_data_set_lacks_is_refused(hub: list[object]) -> None:
    with pytest.raises(TensorgapError, match="no column body; name one of text, id"):
        load_text(plan("some/stories", column="body"))


def test_without_hub_and_cache_one_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """datasets itself, told to stay offline, with an empty cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(TensorgapError) as caught:
        load_text(plan("wikitext-2"))
    message = str(caught.value)
    assert "quality.text = wikitext-2: cannot be had from the hub or its cache" in message
    assert "load_dataset('Salesforce/wikitext', 'wikitext-2-raw-v1')" in message
    assert "or give a local file or folder" in message
    assert "\n" not in message


# ------------------------------------------------------------------------------- pages


def test_pages_begin_at_titles_and_not_at_headings() -> None:
    rows = ("", " = One = \n", "", " = = Part = = \n", " a \n", " = Two = \n", " b \n")
    found = Text.of("x", rows).pages()
    assert found == [" = One = \n \n = = Part = = \n a ", " = Two = \n b \n"]


def test_rows_without_titles_are_pages_themselves() -> None:
    assert Text.of("x", ("a", " ", "b = c")).pages() == ["a", "b = c"]


# ------------------------------------------------------------------------------- real WikiText-2

# Beside the project or above it; not part of it.
BESIDE = [folder / "shared" / "data" for folder in Path(__file__).resolve().parents[2:]]
SHARED = next((folder for folder in BESIDE if folder.is_dir()), BESIDE[0])
WIKITEXT2 = SHARED / "wikitext-2" / "wiki.test.raw"
BPE = SHARED / "gpt2-bpe"
KNOWN = published.WIKITEXT2_TEST
real = pytest.mark.skipif(not WIKITEXT2.is_file(), reason="WikiText-2 is not here")


@real
def test_wikitext2_is_recognised_by_its_hash(tmp_path: Path) -> None:
    found = load_text(plan(WIKITEXT2))
    assert found.is_wikitext2
    assert (found.name, found.words, found.bytes) == ("wikitext-2 test", 241_211, 1_290_590)
    assert len(found.rows) == 4358
    pages = found.pages()
    assert len(pages) == 62
    # As many words as reproduce lm-eval's published numbers.
    assert sum(len(re.split(r"\s+", page)) for page in pages) == 241_335
    # The rows of the hub, under any name.
    pq.write_table(pa.table({"text": found.rows}), tmp_path / "any.parquet")
    assert load_text(plan(tmp_path / "any.parquet")) == found


@real
@pytest.mark.parametrize("name", ["wiki.test.raw", "any.txt"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"Boulter", b"Bouiter", 1),
        lambda data: data[:-1],
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
    ],
    ids=["one byte", "cut", "other line ends", "byte order mark"],
)
def test_wikitext2_with_a_changed_byte_is_refused(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / name
    path.write_bytes(damage(WIKITEXT2.read_bytes()))
    with pytest.raises(TensorgapError) as caught:
        load_text(plan(path))
    message = str(caught.value)
    assert KNOWN.sha256 in message
    assert "1,290,590 bytes, 241,211 words; found " in message


@real
def test_the_text_with_unk_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "wiki.test.raw"
    path.write_text(re.sub(r" (\w{9}) ", " <unk> ", WIKITEXT2.read_text(encoding="utf-8")))
    with pytest.raises(TensorgapError, match=r"of them <unk>: that is wikitext-2-v1"):
        load_text(plan(path))


@real
def test_gpt2_makes_287644_tokens_of_wikitext2_and_another_tokenizer_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    config = GPT2Config(n_layer=0, n_embd=2, n_head=1)
    model = Model(
        module=GPT2LMHeadModel(config),
        tokenizer=GPT2TokenizerFast.from_pretrained(BPE),
        weights=Weights(0, 0, "float32"),
        shape=SHAPES["gpt2"],
    )
    text = load_text(plan(WIKITEXT2))
    guide = replace(plan(WIKITEXT2, mode="hf-docs"), context=128, stride=128)
    reading = read(model, text, guide)
    assert len(reading.ids) == 287_644
    assert sum(window.counted for window in reading.windows) == 285_396  # as published with 59.69
    other = [*reading.ids[:-1], 7]
    with pytest.raises(
        TensorgapError, match=r"is not GPT-2's: expected 287,644 tokens with sha256"
    ):
        check_tokens(text, other, model.vocabulary)
    check_tokens(text, other, 32_000)
