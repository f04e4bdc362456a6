"""What is shown of a place: the folder or the URI, without the credentials that a URI may carry.

`s3://KEY:SECRET@BUCKET/PATH` and `?sig=...` give access to whoever sees a message or a log.
Standard library only.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable

HIDDEN = "***"
_SHORTEST = 4  # letters of a secret that is looked for in other texts
# Of an argument such as --output=s3://..., too.
_URI = re.compile(r"(.*?[A-Za-z0-9+.-]:/+)(.*)", re.DOTALL)
_S3 = re.compile(r"s3:/+\Z", re.IGNORECASE)
# What pyarrow's file systems read from a query and that is no secret; any other value is hidden.
_OPEN = (
    "region",
    "scheme",
    "endpoint_override",
    "allow_bucket_creation",
    "allow_bucket_deletion",
    "background_writes",
    "retry_limit_seconds",
    "project_id",
    "enable_tls",
    "replication",
)


def within(location: str, tail: str) -> str:
    """A place within a folder or URI, whose query (?region=...) stays at the end."""
    path, mark, query = location.partition("?") if "://" in location else (location, "", "")
    return f"{path.rstrip('/')}/{tail}{mark}{query}"


def shown(location: str) -> str:
    """A place as it may be shown, with `***` for what gives access to it."""
    return "".join(part if part is not None else HIDDEN for part, _ in _parts(location))


def redacted(text: str, locations: Iterable[str]) -> str:
    """A text, such as an error of pyarrow, without the secrets of these places or arguments."""
    for location in locations:
        text = text.replace(location, shown(location))
        secrets = [secret for part, secret in _parts(location) if part is None]
        pieces = {piece for secret in secrets for piece in (secret, *secret.split(":", 1))}
        forms = pieces | {urllib.parse.unquote(piece) for piece in pieces}
        for form in sorted(forms, key=len, reverse=True):
            if len(form) >= _SHORTEST:
                text = text.replace(form, HIDDEN)
    return text


def _parts(location: str) -> list[tuple[str | None, str]]:
    """The pieces of a place, each as it may be shown (None: not at all) and as it is."""
    found = _URI.fullmatch(location)
    if not found:
        return [(location, location)]
    scheme, rest = found.groups()
    parts: list[tuple[str | None, str]] = [(scheme, scheme)]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    name, colon, _ = authority.partition(":")
    password = colon and "@" not in name and "@" in rest
    if password or ("@" in authority and _S3.search(scheme)):
        # The last @: people paste secrets that hold / and ? as they are.
        user, _, rest = rest.rpartition("@")
        parts += [(None, user), ("@", "@")]
    path, mark, query = rest.partition("?")
    parts.append((path + mark, path + mark))
    for piece in re.split("(&)", query):
        key, equals, value = piece.partition("=")
        if piece in ("", "&") or (key in _OPEN and "@" not in urllib.parse.unquote(value)):
            parts.append((piece, piece))
        else:
            parts += [(key + equals, key + equals), (None, value)] if equals else [(None, piece)]
    return parts
