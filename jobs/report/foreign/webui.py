"""The line that text-generation-webui prints for each answer: its time, rate, tokens, context."""

import re
from collections.abc import Sequence

from jobs.report.foreign.grid import SAMPLE_LINES, Grid, gpu_above, of_pairs, written_in

_LONGEST = 400  # characters of a line
_ANSWER = re.compile(
    r"Output generated in (\d{1,9}\.?\d{0,9}) seconds \(\d{1,9}\.?\d{0,9} tokens/s,"
    r" (\d{1,9}) tokens, context (\d{1,9})"
)


def of_log(rows: Sequence[str]) -> Grid | None:
    """The answers of a log, a line for each; None: it has none."""
    found = []
    for number, row in enumerate(rows, start=1):
        if answer := _ANSWER.search(row[:_LONGEST]):
            seconds, new, context = answer.groups()
            cells = {"latency (s)": seconds, "new_tokens": new, "prompt_tokens": context}
            found.append((number, {"batch_size": "1", **cells}))
    if not found:
        return None
    left_out = written_in(rows) - len(found)
    gpu = gpu_above(rows[: found[0][0]][-SAMPLE_LINES:])
    return of_pairs(found, "answers of text-generation-webui", left_out, gpu)
