"""How wide text may be that is shown to a person."""

from __future__ import annotations

import shutil
import sys

_PIPED = 100  # also the widest that is read with ease
_NARROWEST = 60


def width() -> int:
    """Columns of the terminal, from 60 to 100; 100 where the output goes into a file or a pipe."""
    if not sys.stdout.isatty():
        return _PIPED
    return max(_NARROWEST, min(_PIPED, shutil.get_terminal_size().columns))
