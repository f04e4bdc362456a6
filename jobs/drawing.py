"""What draws pages and figures, loaded when it is asked for: it needs an extra of the package."""

from types import ModuleType

from bench.errors import TensorgapError

EXTRA = "tensorgap[report]"


def pictures(option: str) -> ModuleType:
    """The module `jobs.report.pictures`; TensorgapError where what it needs is not installed."""
    try:
        from jobs.report import pictures
    except ModuleNotFoundError as error:
        missing = f"{option}: {error.name} is not installed"
        raise TensorgapError(f"{missing}; install it with pip install '{EXTRA}'") from None
    return pictures
