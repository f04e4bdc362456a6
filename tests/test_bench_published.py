"""bench.text.published: what a measured number is held against."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest

from bench.text import published


def test_it_is_read_without_torch() -> None:
    code = "import bench.text.published, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_hash_is_one_and_every_fact_has_a_source() -> None:
    text = published.WIKITEXT2_TEST
    hashes = [*published.WEIGHTS, text.sha256, text.joined_sha256, text.gpt2_tokens_sha256]
    assert all(len(value) == 64 and int(value, 16) for value in hashes)
    assert len(set(hashes)) == len(hashes)
    assert all(len(fact.source) > 20 for fact in (text, *published.PUBLISHED))


def test_the_published_units_agree_with_each_other() -> None:
    """37.37 per word and 0.9769 bits per byte are the same nats: the counts must bear them out."""
    text = published.WIKITEXT2_TEST
    by_unit = {p.unit: p.value for p in published.PUBLISHED if p.mode == "lm-eval"}
    words_of_pages = text.words + 2 * 62  # lm-eval counts an empty word at each end of a page
    nats = math.log(by_unit[published.WORD]) * words_of_pages
    bits_per_byte = nats / math.log(2) / text.bytes
    assert bits_per_byte == pytest.approx(by_unit[published.BITS_PER_BYTE], rel=1e-3)


def test_the_expected_range_holds_what_is_published() -> None:
    for known in published.PUBLISHED:
        if known.unit == published.TOKEN:
            low, high = published.expected_perplexity(known.context) or (0.0, 0.0)
            assert low < known.value < high, known


def test_the_expected_range_falls_with_the_context_and_never_holds_217() -> None:
    ranges = [published.expected_perplexity(context) for context in range(128, 1025, 32)]
    assert None not in ranges
    for shorter, longer in itertools.pairwise(filter(None, ranges)):
        assert 20 < shorter[0] < shorter[1] < 70
        assert longer[0] <= shorter[0]
        assert longer[1] <= shorter[1]


def test_a_text_is_known_by_its_hash() -> None:
    text = published.WIKITEXT2_TEST
    assert published.is_wikitext2_test(text.sha256)
    assert published.is_wikitext2_test(text.joined_sha256)
    assert not published.is_wikitext2_test("0" * 64)
    assert not published.is_wikitext2_test(None)
