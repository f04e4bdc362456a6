"""bench.files.location: what gives access to a place is never shown."""

from __future__ import annotations

import string
import urllib.parse

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bench.files import location


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("results", "results"),
        ("/data/a:b@c", "/data/a:b@c"),
        ("s3://bucket/path?region=eu", "s3://bucket/path?region=eu"),
        ("s3://bucket/user@host/x", "s3://bucket/user@host/x"),
        ("s3://KEY:SECRET@bucket/path", "s3://***@bucket/path"),
        ("s3://KEY@bucket/path", "s3://***@bucket/path"),
        ("s3:/KEY:SECRET@bucket", "s3:/***@bucket"),
        ("S3://KEY:SECRET@bucket", "S3://***@bucket"),
        ("s3://KEY:SEC/RE?T@bucket/x?region=eu", "s3://***@bucket/x?region=eu"),
        ("s3://b/x?secret_key=S&region=eu", "s3://b/x?secret_key=***&region=eu"),
        ("s3://b/x?scheme=http&endpoint_override=127.0.0.1:9", None),
        ("s3://b/x?endpoint_override=http://k:s@h", "s3://b/x?endpoint_override=***"),
        ("abfs://container@account.dfs.core.windows.net/x", None),
        ("abfs://:PASSWORD@account.blob.net/x", "abfs://***@account.blob.net/x"),
        ("abfs://c@a/x?sv=2024&sig=S%2B", "abfs://c@a/x?sv=***&sig=***"),
        ("gs://anonymous@bucket/x?retry_limit_seconds=10", None),
        ("hdfs://user@host:9000/x", None),
        ("--output=s3://KEY:SECRET@bucket", "--output=s3://***@bucket"),
    ],
)
def test_a_place_is_shown_without_what_gives_access(place: str, shown: str | None) -> None:
    assert location.shown(place) == (shown or place)


# No text of the place itself, or of a message, has these.
_LETTERS = st.text(st.sampled_from(string.ascii_uppercase + string.digits), min_size=8, max_size=40)
_SECRETS = st.builds(
    lambda letters, odd, at: letters[: at % 8] + odd + letters[at % 8 :],
    _LETTERS,
    st.text(st.sampled_from("/+=?&#%@:~ é"), max_size=6),
    st.integers(0, 7),
)


@given(
    _LETTERS,
    _SECRETS,
    st.booleans(),
    st.sampled_from(["s3", "S3", "gs", "abfs", "abfss", "hdfs", "nonsense"]),
)
def test_no_secret_is_shown(key: str, secret: str, quoted: bool, scheme: str) -> None:
    typed = urllib.parse.quote(secret, safe="") if quoted else secret
    place = f"{scheme}://{key}:{typed}@bucket/path/x?region=eu"
    for text in (place, f"cannot parse '{place}'", f"{secret} of {key}", f"{typed!r}"):
        said = location.redacted(text, [place]) if text != place else location.shown(place)
        assert secret not in said
        assert typed not in said
        assert key not in said
    assert location.shown(place).endswith("@bucket/path/x?region=eu")


@given(
    _SECRETS,
    st.sampled_from(["secret_key", "access_key", "session_token", "sig", "SECRET", "x", "Region"]),
)
def test_no_value_of_a_query_is_shown_that_may_be_a_secret(secret: str, name: str) -> None:
    typed = urllib.parse.quote(secret, safe="")
    place = f"s3://bucket/x?region=eu&{name}={typed}&scheme=http"
    for said in (
        location.shown(place),
        location.redacted(f"{place}: {typed} and {secret}", [place]),
    ):
        assert secret not in said
        assert typed not in said
    assert location.shown(place) == f"s3://bucket/x?region=eu&{name}=***&scheme=http"


@given(st.text())
def test_a_plain_path_is_shown_as_it_is(path: str) -> None:
    if ":/" not in path:
        assert location.shown(path) == path


@given(st.text())
def test_any_text_is_a_place(text: str) -> None:
    assert isinstance(location.shown(text), str)
    assert isinstance(location.redacted(text, [text]), str)
