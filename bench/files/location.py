"""What is shown of a place: the folder or the URI, without the credentials that a URI may carry.

`s3://KEY:SECRET@BUCKET/PATH` and `?sig=...` give access to whoever sees a message or a log.
Standard library only.
"""

import re
import urllib.parse
from collections.abc import Iterable

HIDDEN = "***"
SHORTEST = 4  # letters of a secret that is looked for in other texts
URI = re.compile(r"(.*?[A-Za-z0-9+.-]:/+)(.*)", re.DOTALL)  # --output=s3://... is one, too
S3 = re.compile(r"s3:/+\Z", re.IGNORECASE)
# What pyarrow's file systems read from a query and that is no secret; any other value is hidden.
OPEN = re.compile(
    "region|scheme|endpoint_override|allow_bucket_(creation|deletion)|background_writes"
    "|retry_limit_seconds|project_id|enable_tls|replication"
)


def shown(location: str) -> str:
    """A place as it may be shown, with `***` for what gives access to it."""
    return "".join(HIDDEN if secret else part for part, secret in parts(location))


def redacted(text: str, locations: Iterable[str]) -> str:
    """A text, such as an error of pyarrow, without the secrets of these places or arguments."""
    for location in locations:
        text = text.replace(location, shown(location))
        secrets = [part for part, secret in parts(location) if secret]
        pieces = {piece for secret in secrets for piece in (secret, *secret.split(":", 1))}
        forms = pieces | {urllib.parse.unquote(piece) for piece in pieces}
        for form in sorted(forms, key=len, reverse=True):
            if len(form) >= SHORTEST:
                text = text.replace(form, HIDDEN)
    return text


def parts(location: str) -> list[tuple[str, bool]]:
    """The pieces of a place, and whether each is a secret."""
    found = URI.fullmatch(location)
    if not found:
        return [(location, False)]
    scheme, rest = found.groups()
    pieces = [(scheme, False)]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    name, colon, _ = authority.partition(":")
    password = colon and "@" not in name and "@" in rest
    if password or ("@" in authority and S3.search(scheme)):
        # The last @: people paste secrets that hold / and ? as they are.
        user, at, rest = rest.rpartition("@")
        pieces += [(user, True), (at, False)]
    path, mark, query = rest.partition("?")
    pieces.append((path + mark, False))
    for piece in re.split("(&)", query):
        key, equals, value = piece.partition("=")
        if piece in ("", "&") or (OPEN.fullmatch(key) and "@" not in urllib.parse.unquote(value)):
            pieces.append((piece, False))
        else:  # what has no key may be a secret as well
            pieces += [(key + equals, False), (value, True)] if equals else [(piece, True)]
    return pieces
