"""Whether a folder is this user's alone."""

import os
import tempfile
from pathlib import Path

import pytest

from bench.files import private


def test_a_new_private_folder_below_tmp_is_this_user_s_alone(tmp_path):
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    assert private.why_shared(own) is None


@pytest.mark.parametrize("mode", [0o710, 0o755, 0o777, 0o1777])
def test_a_folder_that_others_enter_is_not(tmp_path, mode):
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(mode)
    assert private.why_shared(own) == f"others can enter {own} (mode {mode:04o})"


def test_a_link_is_not_though_it_leads_to_one(tmp_path):
    (tmp_path / "own").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "own")
    assert private.why_shared(link) == f"{link} is no folder of its own"


def test_what_is_not_there_says_so(tmp_path):
    assert private.why_shared(tmp_path / "own") == f"{tmp_path / 'own'}: No such file or directory"


def test_a_folder_that_others_can_rename_is_not(tmp_path):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    own = open_to_all / "own"
    own.mkdir(mode=0o700)
    open_to_all.chmod(0o777)
    assert private.why_shared(own) == f"others can write {open_to_all} (mode 0777)"
    open_to_all.chmod(0o1777)  # as /tmp: each may rename only what is its own
    assert private.why_shared(own) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_another_user_s_folder_is_not(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    own = theirs / "own"
    own.mkdir(mode=0o700)
    os.chown(theirs, 4242, 4242)
    assert private.why_shared(theirs) == f"{theirs} belongs to another user"
    assert private.why_shared(own) == f"{theirs} belongs to another user"


def test_what_others_may_only_read_they_cannot_change():
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        code = Path(made) / "code"
        code.mkdir()
        assert private.why_writable(code) is None
        code.chmod(0o1777)
        assert private.why_writable(code) == f"others can write {code} (mode 1777)"
        code.chmod(0o755)
        Path(made).chmod(0o777)
        assert private.why_writable(code) == f"others can write {made} (mode 0777)"


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_outlasts_a_process_has_a_folder_of_this_user_alone(temporary):
    own = private.folder()
    assert own == private.folder() == private.usual() == temporary / f"tensorgap-{os.getuid()}"
    assert private.why_shared(own) is None


def test_where_another_has_taken_that_place_it_is_a_new_one(temporary):
    (temporary / "theirs").mkdir(mode=0o700)
    private.usual().symlink_to(temporary / "theirs")
    own = private.folder()
    assert own.name.startswith(f"tensorgap-{os.getuid()}-")
    assert private.why_shared(own) is None
    assert list((temporary / "theirs").iterdir()) == []


def test_what_is_open_to_all_is_sheltered_by_a_private_folder_above():
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are below a private one
        shelter, below = Path(made), Path(made) / "session"
        below.mkdir()
        below.chmod(0o777)
        assert private.is_sheltered(below)
        shelter.chmod(0o711)
        assert not private.is_sheltered(below)
