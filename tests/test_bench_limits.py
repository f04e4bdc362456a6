"""bench.files.limits: foreign files are read up to a size; a message says how to raise it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bench.errors import TensorgapError
from bench.files import limits


def test_what_is_within_the_limit_is_taken_together() -> None:
    allowance = limits.Allowance(1000)
    allowance.take(400, "a")
    allowance.take(600, "b")
    assert allowance.left_bytes == 0
    allowance.take(0, "c")


def test_more_is_refused_with_the_value_the_limit_and_the_option() -> None:
    with pytest.raises(TensorgapError) as caught:
        limits.Allowance().take(4_294_967_296, "x.parquet")
    assert str(caught.value) == (
        "x.parquet: 4.295 GB to read; at most 1 GB are read; raise it with --max-input, such as"
        " --max-input 5GB, if you trust where it comes from"
    )


def test_what_was_read_before_counts() -> None:
    allowance = limits.Allowance(2_000_000)
    allowance.take(1_500_000, "a")
    with pytest.raises(
        TensorgapError, match=r"1 MB to read, and 1\.5 MB were read before; at most"
    ):
        allowance.take(1_000_000, "b")
    allowance.take(500_000, "c")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("4GB", 4 * 10**9), ("1.5 gb", 1_500_000_000), ("500MB", 500_000_000), ("12", 12), ("7B", 7)],
)
def test_a_size_is_read(text: str, size_bytes: int) -> None:
    assert limits.parse(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "0GB", "1e9", "1GiB", "inf", "nan", "٣GB"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert limits.parse(text) is None


@given(st.integers(1, 10**13))
def test_the_size_that_a_refusal_names_is_enough(size_bytes: int) -> None:
    with pytest.raises(TensorgapError) as caught:
        limits.Allowance(0).take(size_bytes, "x")
    named = str(caught.value).split("such as --max-input ")[1].split(",")[0]
    assert (limits.parse(named) or 0) >= size_bytes


@given(st.integers(1, 10**14))
def test_a_size_that_is_shown_is_read_as_nearly_the_same(size_bytes: int) -> None:
    assert limits.parse(limits.shown(size_bytes)) == pytest.approx(size_bytes, rel=1e-3)
