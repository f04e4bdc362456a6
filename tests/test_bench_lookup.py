"""bench.lookup: the shape of a model by a folder, a known name or the hub's cache."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from bench import lookup
from bench.decoders import SHAPES, of_config
from bench.errors import TensorgapError, Unsupported

LLAMA = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 500}


def folder_of(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(text)
    return path


def test_a_folder_a_name_or_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "gpt2-mine", json.dumps(LLAMA))
    for name in (str(folder), f"{folder}:random"):
        assert lookup.shape_of(name) == of_config(LLAMA)
    for name in ("gpt2", "gpt2:random", "openai-community/gpt2"):
        assert lookup.shape_of(name) == SHAPES["gpt2"]
    tiny = lookup.shape_of("tiny")
    assert tiny
    assert tiny.positions == 256
    assert lookup.shape_of("no/such-model") is None
    assert lookup.shape_of("no such name:") is None


def test_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--llama"
    folder_of(cached / "snapshots" / "abc", json.dumps(LLAMA))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert lookup.shape_of("some/llama") == of_config(LLAMA)
    assert lookup.shape_of("some/llama:random") == of_config(LLAMA)


def test_what_is_wrong_with_a_config_json_names_the_model(tmp_path: Path) -> None:
    for index, (text, kind, words) in enumerate(
        [
            ('{"model_type": "bert"}', Unsupported, 'model_type = "bert" must be one of'),
            ("[1]", Unsupported, "model_type = null"),
            ("{", TensorgapError, "config.json cannot be read"),
            ("[" * 100_000, TensorgapError, "config.json cannot be read"),
        ]
    ):
        folder = folder_of(tmp_path / str(index), text)
        with pytest.raises(kind) as refused:
            lookup.shape_of(str(folder))
        assert str(refused.value).startswith(f"model {folder}: ")
        assert words in str(refused.value)
    with pytest.raises(TensorgapError, match=r"config.json cannot be read: No such file"):
        lookup.shape_of(str(tmp_path))
