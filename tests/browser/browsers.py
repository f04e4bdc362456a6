"""Debian's chromium, and what the tests of the pages ask of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
# What stands beyond the page's sides, or is drawn over what stands beside it.
FAULTS = """() => {
  const faults = [], wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > wide) faults.push("the page scrolls sideways");
  const name = (e) => `${e.tagName} ${(e.textContent || "").trim().slice(0, 40)}`;
  const boxes = (selector, within = document) => [...within.querySelectorAll(selector)]
    .map((e) => [e, e.getBoundingClientRect()]).filter(([, box]) => box.width && box.height);
  for (const [e, box] of boxes("h1, h2, h3, h4, p, li, figcaption, dt, dd, .chart, svg.marks"))
    if (!e.closest(".scroll") && (box.right > wide + 1 || box.left < -1))
      faults.push(`cut: ${name(e)}`);
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
  const apart = (list) => list.forEach(([a, one], at) => {
    for (const [b, other] of list.slice(at + 1))
      if (over(one, other)) faults.push(`${name(a)} over ${name(b)}`);
  });
  apart(boxes("figure h4, figure svg.marks, figcaption, .legend"));
  for (const svg of document.querySelectorAll("svg.marks")) {
    const frame = svg.getBoundingClientRect();
    for (const axis of svg.querySelectorAll(".role-axis-label"))
      apart(boxes("text:not([opacity='0'])", axis));
    for (const [text, box] of boxes("text", svg))
      if (box.left < frame.left - 1.5 || box.right > frame.right + 1.5 || box.top < frame.top - 1.5
          || box.bottom > frame.bottom + 1.5) faults.push(`cut in its figure: ${name(text)}`);
  }
  return faults;
}"""
AXE = """async () => {
  const found = await axe.run();
  return found.violations.map((v) => [v.impact, v.id, v.nodes[0].html.slice(0, 120)]);
}"""


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield chromium
        chromium.close()


class Visit:
    """A page that is open, with all that it said and asked for."""

    def __init__(self, chromium: Any, place: Path, width: int, scheme: str = "light") -> None:
        """Open a file, and wait until its figures are drawn."""
        self._context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page = self._context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(place.as_uri())
        self.drawn()

    def drawn(self) -> None:
        """Wait until all figures are drawn."""
        self.page.wait_for_selector("body[data-drawn=yes]", timeout=60_000)

    def faults(self) -> list[str]:
        """What is cut or overlaps."""
        found: list[str] = self.page.evaluate(FAULTS)
        return found

    def axe(self) -> list[list[str]]:
        """What axe-core finds that keeps people out: impact, rule and element."""
        script = resources.files("axe_playwright_python").joinpath("axe.min.js")
        self.page.evaluate(script.read_text("utf-8"))
        found: list[list[str]] = self.page.evaluate(AXE)
        return found

    def column(self, title: str) -> list[str]:
        """The cells of a column of the table, from the top."""
        heads = self.page.locator("#rows thead th").all_inner_texts()
        at = [head.strip("\u25b2\u25bc \n") for head in heads].index(title) + 1
        cells: list[str] = self.page.locator(f"#rows tbody td:nth-child({at})").all_inner_texts()
        return cells

    def close(self) -> None:
        """Leave."""
        self._context.close()
