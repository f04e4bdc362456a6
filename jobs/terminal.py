"""How much room there is for what is shown to a person."""

from __future__ import annotations

import shutil
import sys

ENDLESS = 1000


def width() -> int:
    """Columns of the terminal; more than any table needs where the output is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else ENDLESS
