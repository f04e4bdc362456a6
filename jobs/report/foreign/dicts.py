"""Lines of a log that print a dict of Python, as benchmark.py of onnxruntime does.

Its enums are `<Precision.FLOAT16: 'fp16'>`, so that no reader of Python or of JSON takes them.
"""

import re
from collections.abc import Sequence

from jobs.report.foreign.grid import SAMPLE_LINES, Grid, gpu_above, of_pairs, written_in
from jobs.report.foreign.headers import heading_of

_MOST_LINES, _LONGEST = 20_000, 4_000  # lines of a log, and characters of one
_FLAT = re.compile(r"\{[^{}]+\}")
_PAIR = re.compile(
    r"""(?:'([^']{1,60})'|"([^"]{1,60})")\s*:\s*"""
    r"""(?:'([^']{0,200})'|"([^"]{0,200})"|<[\w.]{1,60}:\s*'?([^'<>]{0,60})'?>|([^,'"{}<>]{1,60}))"""
)
_LEAST_KEYS = 2
_NOTHING = ("None", "nan")


def of_log(rows: Sequence[str]) -> Grid | None:
    """The dicts of a log as a table; None: too few lines print one with a measured number."""
    if len(rows) > _MOST_LINES:
        return None
    found = [(n, told) for n, row in enumerate(rows, start=1) if (told := of_line(row))]
    names = dict.fromkeys(name for _, told in found for name in told)
    if not any(heading_of(name).is_quantity for name in names):
        return None
    left_out = written_in(rows) - len(found)
    gpu = gpu_above(rows[: found[0][0]][-SAMPLE_LINES:])
    return of_pairs(found, "dicts of Python in the lines of a log", left_out, gpu)


def of_line(row: str) -> dict[str, str]:
    """The values of a flat dict in a line; empty: it has none.

    >>> of_line("INFO {'precision': <Precision.FLOAT16: 'fp16'>, 'batch_size': 1, 'QPS': '548.29'}")
    {'precision': 'fp16', 'batch_size': '1', 'QPS': '548.29'}
    """
    flat = _FLAT.search(row[:_LONGEST]) if "{" in row else None
    if not flat:
        return {}
    pairs = {}
    for found in _PAIR.finditer(flat[0]):
        first, second, *values = found.groups()
        value = next((one for one in values if one is not None), "").strip()
        pairs[first or second] = "" if value in _NOTHING else value
    return pairs if len(pairs) >= _LEAST_KEYS else {}
