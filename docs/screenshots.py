"""Makes the two pictures of the page in the README: python docs/screenshots.py (needs chromium)."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path += [str(DOCS.parent / "tests" / "browser"), str(DOCS.parent)]

import browsers

from jobs import reading
from jobs.report.page import report

EXAMPLE = DOCS.parent / "jobs/examples/modelled.parquet"
WIDTH, HEIGHT = 1100, 1300
# Of each picture: the colours, and the element that stands at its top.
PICTURES = {"page-light.png": ("light", "header"), "page-dark.png": ("dark", "#figure-speedup")}


def main() -> None:
    """Write them beside this file."""
    page = DOCS / "page-of-the-pictures.html"
    page.write_text(report.page(*reading.read([str(EXAMPLE)], 10**9)), encoding="utf-8")
    try:
        with browsers.browser() as chromium:
            for name, (scheme, top) in PICTURES.items():
                visit = browsers.Visit(chromium, page, WIDTH, scheme)
                begin = visit.page.locator(top).bounding_box()["y"]
                clip = {"x": 0, "y": max(0, begin - 16), "width": WIDTH, "height": HEIGHT}
                visit.page.screenshot(path=DOCS / name, full_page=True, clip=clip)
                visit.close()
                print(DOCS / name)
    finally:
        page.unlink()


if __name__ == "__main__":
    main()
