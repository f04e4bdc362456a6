"""What processes of a node keep in memory for each other, from the template's side."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import shelf


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The template's end of the socket to this process."""
    mine, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(shelf, "_kept", {})
    monkeypatch.setattr(shelf, "_template", child)
    with mine, child:
        yield mine
    for descriptor in shelf._kept.values():
        os.close(descriptor)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def content_of(key: str) -> bytes | None:
    path = shelf.find(key)
    return Path(path).read_bytes() if path else None


def test_of_those_who_load_the_same_side_by_side_one_copy_is_kept(
    template: socket.socket,
) -> None:
    before = descriptors()
    for content in (b"first", b"second"):
        shelf.put("model", len(content), [content])
        assert shelf.keep(template)
    assert content_of("model") == b"second"
    assert descriptors() == before + 1


def test_the_oldest_goes_where_there_is_too_much(
    template: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "most_bytes", lambda: 10)
    for key in ("one", "two", "three"):
        shelf.put(key, 4, [key[:1].encode() * 4])
        assert shelf.keep(template)
    assert [content_of(key) for key in ("one", "two", "three")] == [None, b"tttt", b"tttt"]
    shelf.put("large", 11, [b"0" * 11])
    assert shelf.find("large") is None


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_its_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(shelf, "_CGROUP", tmp_path)
    whole = shelf.most_bytes()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("max\n")
    assert shelf.most_bytes() == whole
    (tmp_path / name).write_text("4000\n")
    assert shelf.most_bytes() == 1000


def test_what_cannot_be_put_here_is_no_error(template: socket.socket) -> None:
    before = descriptors()
    template.close()
    shelf.put("model", 4, [b"gone"])
    assert descriptors() == before - 1
