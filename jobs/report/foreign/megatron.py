"""Lines in which Megatron-LM prints a loss and its perplexity.

`validation loss at iteration 1000 | lm loss value: 1.34E+01 | lm loss PPL: 6.99E+05 |` is of a
validation set that the line does not name; `validation results on WIKITEXT103 | avg loss: ... |
ppl: ... | adjusted ppl: ... |` has the perplexity of a token and, adjusted, that of a word
(Megatron-LM, tasks/zeroshot_gpt/evaluate.py).
"""

import re
from collections.abc import Sequence

from jobs.report.foreign.grid import Grid, of_pairs, written_in

_PPL = re.compile(r"\|\s*(adjusted ppl|ppl|lm loss PPL)\s*:\s*([\d.eE+-]{1,30})\s*(?=\|)")
_ABOUT = re.compile(r"validation (?:loss|results) (on (\w{1,40})|at [^|]{1,60})[^|]{0,60}\|")
_LONGEST = 400  # characters of a line that are looked at


def of_log(rows: Sequence[str]) -> Grid | None:
    """The perplexities of a log; None: there are none."""
    told = []
    for number, row in enumerate(rows, start=1):
        about = _ABOUT.search(row[:_LONGEST]) if "|" in row else None
        values = dict(_PPL.findall(row[:_LONGEST])) if about else {}
        if about and values:
            told.append((number, about, values))
    by_word = all("adjusted ppl" in values for _, _, values in told)
    found = []
    for number, about, values in told:
        of_token = (value for name, value in values.items() if name != "adjusted ppl")
        cells = {
            "engine": "megatron",
            "text": about[2] or "validation set of the training",
            "configuration": "" if about[2] else about[1],
            "perplexity per word" if by_word else "perplexity": values["adjusted ppl"]
            if by_word
            else next(of_token, ""),
        }
        found.append((number, cells))
    left_out = written_in(rows) - len(found)
    return of_pairs(found, "Megatron-LM's perplexities", left_out) if found else None
