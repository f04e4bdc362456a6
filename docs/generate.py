"""Writes the tables of the pages that are made of the code: python docs/generate.py."""

from pathlib import Path

from bench.results import columns
from jobs.report import rules

FOLDER = Path(__file__).resolve().parent
# Of each page: the line below which all is generated, and what makes it.
GENERATED = {
    "findings.md": ("<!-- the rules -->\n", rules.documentation),
    "parquet.md": ("<!-- the columns -->\n", columns.documentation),
}

if __name__ == "__main__":
    for name, (marker, documentation) in GENERATED.items():
        page = FOLDER / name
        written, _, _ = page.read_text(encoding="utf-8").partition(marker)
        page.write_text(written + marker + documentation(), encoding="utf-8")
        print(page)
