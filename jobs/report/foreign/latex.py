r"""The tables of a text in LaTeX: what stands between `\begin{tabular}` and `\end{tabular}`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.report.foreign.grid import Grid, fitted, gpu_above, written_in

_BEGIN = re.compile(r"\\begin\{(tabular[*x]?|tabulary|longtable|array)\}")
_COLUMNS = re.compile(r"(\s*(\[[^\]]*\]|\{(?:[^{}]|\{[^{}]*\})*\}))+")  # how they are set
_BALANCED = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
_CAPTION = re.compile(rf"\\caption(?:\[[^\]]*\])?\{{({_BALANCED})\}}")
_COMMENT = re.compile(r"(?<!\\)%.*")
_DRAWN = re.compile(
    r"\\(toprule|midrule|bottomrule|hline|endhead|endfirsthead|centering|addlinespace)\b"
    r"(\[[^\]]*\])?|\\(cline|cmidrule)(\([^)]*\))?\{[^}]*\}"
)
_SPANNING = re.compile(r"\\multicolumn\s*\{(\d{1,3})\}\s*\{[^}]*\}\s*\{(.*)\}", re.DOTALL)
_ROWS = re.compile(r"\\multirow\s*(?:\[[^\]]*\])?\{[^}]*\}\s*(?:\[[^\]]*\])?\{[^}]*\}")
_COMMAND = re.compile(r"\\[a-zA-Z]+\*?(?:(?=\{)| ?)")
_SIGNS = {
    r"\times": "x", r"\pm": "±", r"\sim": "~", r"\approx": "~", r"\mu": "u", r"\textmu": "u",
    r"\%": "%", r"\_": "_", r"\#": "#", r"\&": "&", r"\,": " ", r"\ ": " ", r"\;": " ", "~": " ",
    r"\uparrow": "", r"\downarrow": "", r"\checkmark": "yes",
}  # fmt: skip
_MOST_LINES_OF_ONE, _MOST_SPANNED, _LONGEST = 5_000, 64, 20_000
_ABOVE = 60  # lines above a table that may name its GPU
_NEAR = 5  # lines between a table and its caption


def of_latex(rows: Sequence[str]) -> Iterator[Grid]:
    """Each tabular of a text, with its caption."""
    begins = [at for at, row in enumerate(rows) if _BEGIN.search(row)]
    text = written_in(rows)
    for begin in begins:
        within = range(begin, min(begin + _MOST_LINES_OF_ONE, len(rows)))
        end = next((at for at in within if r"\end{" in rows[at] and at > begin), None)
        if end is None:
            return  # nor has a later one
        lines = list(lines_of(rows, begin, end))
        if len(lines) < 2:
            continue
        text -= end - begin + 1
        (_, names), *cells = lines
        near = " ".join([*rows[max(0, begin - _NEAR) : begin], *rows[end : end + _NEAR]])
        caption = plain(found[1]) if (found := _CAPTION.search(near)) else ""
        above = [*rows[max(0, begin - _ABOVE) : begin], caption]
        table = fitted(names, cells, "LaTeX", max(0, text), gpu_above(above))
        yield replace(table, title=caption)
        text = 0


def lines_of(rows: Sequence[str], begin: int, end: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    r"""The lines of one tabular, of which each ends with `\\`, with their numbers."""
    told = ""
    for at in range(begin, end):
        row = _COMMENT.sub("", rows[at][:_LONGEST])
        if opened := _BEGIN.search(row):
            row = row[opened.end() :]
            row = row[columns.end() :] if (columns := _COLUMNS.match(row)) else row
        parts = re.split(r"\\\\(?:\[[^\]]*\])?|\\tabularnewline\b", _DRAWN.sub("", row))
        for part in parts[:-1]:
            if "&" in (told := f"{told} {part}"):
                yield at + 1, tuple(cells_of(told))
            told = ""
        told = f"{told} {parts[-1]}"
    if "&" in told:
        yield end, tuple(cells_of(told))


def cells_of(row: str) -> Iterator[str]:
    r"""The cells of a line; one that spans columns is followed by empty ones.

    >>> list(cells_of(r"\textbf{FP16} & $10.4 \pm 0.2$ & \multicolumn{2}{c}{82\,\%}"))
    ['FP16', '10.4 ± 0.2', '82 %', '']
    """
    for cell in re.split(r"(?<!\\)&", row):
        count = 1
        if spanning := _SPANNING.search(cell):
            count, cell = min(int(spanning[1]), _MOST_SPANNED), spanning[2]
        yield plain(cell)
        yield from [""] * (count - 1)


def plain(cell: str) -> str:
    r"""A cell without commands.

    >>> plain(r"\multirow{2}{*}{GPT-2 (\emph{small})}")
    'GPT-2 (small)'
    """
    cell = _ROWS.sub("", cell)
    for sign, told in _SIGNS.items():
        cell = cell.replace(sign, told)
    cell = _COMMAND.sub("", cell).replace("{", "").replace("}", "").replace("$", "")
    return " ".join(cell.split())
