"""One HTML file of a template, its style and its scripts; what a template is given is escaped."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import jinja2
import vl_convert

from bench import __version__
from bench.asked import PRECISIONS
from jobs.report.figures import style
from jobs.report.figures.figure import MOST_PANELS, SHORTENED


def rendered(template: str, **values: Any) -> str:
    """A template of this folder, filled; nothing in it is markup but what is marked `safe`."""
    folder = jinja2.FunctionLoader(text)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["capitalize_first"] = lambda words: words[:1].upper() + words[1:]
    filled = environment.get_template(template)
    marks = {name: [style.COLOURS[name], style.SHAPES[name]] for name in PRECISIONS}
    look = {"precisions": marks, "mostPanels": MOST_PANELS, "shortened": SHORTENED}
    common = {
        "version": __version__,
        "css": text("page.css"),
        "vega": vega(),
        "script": text("page.js"),
        "look": script_json(look),
    }
    return filled.render(**common, **values)


@functools.cache
def text(name: str) -> str:
    """A file of this folder."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script (BSD-3-Clause), which the package carries."""
    # Its stub asks for a snippet of one's own, which would take the place of the whole.
    script: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    if "</script" in script.lower():
        raise ValueError("the script of Vega would end its element")
    return script


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: it has no sign that could end one."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
