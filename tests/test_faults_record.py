"""The table of docs/reliability.md against the tests that write it."""

from __future__ import annotations

from pathlib import Path

import faults_record
import pytest
from faults_record import HOSTS, ONE_HOST, Seen

PAGE = faults_record.PAGE.read_text(encoding="utf-8")
TESTS = Path(__file__).resolve().parent


def test_the_table_has_every_fault_that_a_test_makes_and_no_other() -> None:
    sources = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    named = {name for name in faults_record.FAULTS if any(f'"{name}"' in text for text in sources)}
    assert {fault for fault, _ in faults_record.table(PAGE)} == named == set(faults_record.FAULTS)


def test_what_was_seen_replaces_its_line_and_keeps_the_others() -> None:
    first = Seen("GPU lost", ONE_HOST, 1.25, "OK in attempt 2\n| in words")
    other = Seen("GPU lost", HOSTS, None, "nothing lost")
    page = faults_record.written(
        "before\n<!-- faults -->\n<!-- /faults -->\nafter\n", [first, other]
    )
    again = faults_record.written(page, [Seen("GPU lost", ONE_HOST, 2, "LOST")])
    assert list(faults_record.table(again).values()) == [
        "| GPU lost | hosts of their own | - | nothing lost |\n",
        "| GPU lost | nodes on one host | 2.0 s | LOST |\n",
    ]
    assert "| GPU lost | nodes on one host | 1.2 s | OK in attempt 2 / in words |\n" in page
    assert (again[:7], again[-6:]) == ("before\n", "after\n")


def test_a_fault_must_be_described() -> None:
    with pytest.raises(ValueError, match="add it to FAULTS"):
        Seen("a comet", ONE_HOST, 1, "LOST")
