r"""Where text leaves: whatever a person reads on standard output or error goes through here.

A name of a GPU, a reason or a column may come from a stranger's file, and a terminal obeys what
stands in it: it retitles its window, writes the clipboard (OSC 52), hides or reverses text. So what
does not print is shown as Python's `repr` shows it, `\x1b` or `\u202e`: control and format
characters, separators, blanks other than the plain one, private and unassigned code points, and
lone surrogates, which have no encoding. Line ends and colours are only ours.
"""

import contextlib
import dataclasses
import re
import shutil
import sys
import warnings
from collections.abc import Iterable
from typing import Any, TextIO, TypeVar

from bench.errors import TensorgapError

Value = TypeVar("Value")

ENDLESS = 1000
_LONGEST = 4000  # letters of a message, which may quote a value of a megabyte
_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")
_RULE = "\u2500"  # of tables; the one sign that we draw and ASCII lacks


def width() -> int:
    """Columns of the terminal; more than any table needs where the output is a file or a pipe."""
    return shutil.get_terminal_size().columns if coloured() else ENDLESS


def coloured() -> bool:
    """Whether standard output is a terminal, which colours and the width are for."""
    return sys.stdout is not None and sys.stdout.isatty()


def clean(value: Value) -> Value:
    r"""A text, or a record, tuple, list or dict of such values, so that a terminal only shows it.

    >>> clean("T4\x1b]52;c;AAAA\a\n"), clean(("\u202eexe", 3))
    ('T4\\x1b]52;c;AAAA\\x07\\n', ('\\u202eexe', 3))
    """
    cleaned: Any = value
    if isinstance(value, str):
        escaped = (sign if sign.isprintable() else ascii(sign)[1:-1] for sign in value)
        cleaned = value if value.isprintable() else "".join(escaped)
    elif isinstance(value, dict):
        cleaned = {clean(name): clean(of) for name, of in value.items()}
    elif isinstance(value, tuple | list):
        cleaned = type(value)(map(clean, value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        texts = {name: clean(getattr(value, name)) for name in names}
        cleaned = dataclasses.replace(value, **texts)
    return cleaned  # type: ignore[no-any-return]


def echo(*lines: str) -> None:
    r"""Print lines on standard output; a line end within one is foreign, and shown as `\n`."""
    _write(sys.stdout, map(clean, lines))


def show(text: str) -> None:
    """Print what a renderer made of cleaned values; so line ends and colours in it are ours."""
    kept = _COLOUR if coloured() else re.compile("(?!)")
    lines = (
        "".join(part if kept.fullmatch(part) else clean(part) for part in kept.split(line))
        for line in text.split("\n")
    )
    _write(sys.stdout, lines)


def say(text: str) -> None:
    """Print one line on standard error; the work goes on when no one listens any longer."""
    half = _LONGEST // 2
    shown = text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"
    complain(f"tensorgap: {shown}")


def complain(*lines: str) -> None:
    """Print lines on standard error, such as a traceback or how a command is used."""
    with contextlib.suppress(OSError, TensorgapError):
        _write(sys.stderr, map(clean, lines))


def warn(*warning: Any, **_: Any) -> None:
    """Stand in for `warnings.showwarning`: message, category, file name, line number and more."""
    complain(*warnings.formatwarning(*warning[:4]).splitlines())


def _write(stream: TextIO | None, lines: Iterable[str]) -> None:
    """Write lines at once; what the stream's encoding lacks is written as an escape, too."""
    if stream is None:  # closed before we were started
        return
    text = "".join(f"{line}\n" for line in lines)
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.replace(_RULE, "-")
        text = plain.encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "standard output" if stream is sys.stdout else "standard error"
        raise TensorgapError(f"{where}: cannot be written: {error.strerror}") from error
