"""How every figure looks: colours, shapes, and words on axes.

A precision has a colour and a shape everywhere. The colours are those of Okabe and Ito ("Color
Universal Design", 2008), which people with any colour vision tell apart, in tones that show on
white and on black; shapes and labels carry the same on paper without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from bench.asked import PRECISIONS
from jobs.report.figures.data import CLASSES

COLOURS = dict(
    zip(
        PRECISIONS,
        (
            *("#7f7f7f", "#e69f00", "#0081c8", "#009e73", "#d55e00"),
            *("#cc79a7", "#9467bd", "#8c6d31", "#17a2b8"),
        ),
        strict=True,
    )
)
SHAPES = dict(
    zip(
        PRECISIONS,
        (
            *("circle", "cross", "square", "diamond", "triangle-up"),
            *("triangle-down", "triangle-right", "triangle-left", "stroke"),
        ),
        strict=True,
    )
)
# Of the classes of kernels; what is no kernel at all is the palest.
CLASS_COLOURS = dict(
    zip(
        CLASSES,
        (
            *("#0072b2", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#e69f00", "#cc79a7"),
            *("#7f7f7f", "#d0d0d0"),
        ),
        strict=True,
    )
)
PRESENT = "present"  # the parameter of a chart that says which precisions it has
NEUTRAL = "#888888"  # of what is no measurement: a baseline, a bound; it shows on white and black
INK = "currentColor"  # of texts: black on paper, and in the page whatever text there has
ROW_PX = 21  # of a row of labelled marks
HEIGHT_PX = 240  # of a plane


def colour(title: str | None = "precision") -> alt.Color:
    """The precision as colour; with its legend above the plot, where a phone has room."""
    scale = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    return alt.Color("precision:N", scale=scale, legend=legend(title))


def shape(title: str | None = "precision") -> alt.Shape:
    """The precision as shape, in the same legend as its colour."""
    scale = alt.Scale(domain=list(SHAPES), range=list(SHAPES.values()))
    return alt.Shape("precision:N", scale=scale, legend=legend(title))


def legend(title: str | None) -> alt.Legend | None:
    """A legend in rows above the plot, of the precisions in it; None without a title."""
    if not title:
        return None
    shown = alt.ExprRef(PRESENT)
    return alt.Legend(title=None, orient="top", columns=5, symbolFillColor=None, values=shown)


def fill(doubtful: str) -> Any:
    """Filled marks; hollow where a row has warnings."""
    return alt.condition(f"datum.{doubtful}", alt.value("transparent"), colour(None))


def log() -> alt.Scale:
    """A logarithmic scale with room for marks and labels at its ends."""
    return alt.Scale(type="log", nice=False, padding=20)


def axis(ticks: int = 5) -> alt.Axis:
    """An axis of numbers with few labels, of four digits or with a prefix such as 120k."""
    form = "abs(datum.value) < 1e4 ? '.4~g' : abs(datum.value) < 1e15 ? '.4~s' : '.3~e'"
    return alt.Axis(
        format="~r",  # with it a logarithmic axis leaves most of its ticks without a label
        labelExpr=f"datum.label === '' ? '' : format(datum.value, {form})",
        tickCount=ticks,
        labelOverlap="greedy",
        labelSeparation=5,
        titlePadding=8,
    )


def asterisk(base: alt.Chart, field: str) -> Any:
    """The mark of a row with warnings beside its bar, as in the table.

    Other rows have an empty text: a layer without rows would have no extent.
    """
    marked = alt.condition("datum.doubtful", alt.value("*"), alt.value(""))
    text = base.mark_text(align="left", dx=5, dy=3, fontSize=15, color=INK, opacity=0.75)
    return text.encode(x=f"{field}:Q", text=marked)


def ends(value: str, *fields: str, linear: bool = False) -> dict[str, str]:
    """Expressions of ends as `FIELD_or`: the value itself where there is none, or none above 0.

    An axis of which all values are missing has no extent, and a logarithmic one has no 0; a linear
    one has.
    """
    known = "isValid(datum.{0})" if linear else "datum.{0} > 0"
    return {
        f"{field}_or": f"{known.format(field)} ? datum.{field} : datum.{value}" for field in fields
    }


def interval(base: alt.Chart, ends: Sequence[str], colour: alt.Color) -> Any:
    """A line across, from the lower to the upper of two fields that `ends` has made."""
    low, high = (f"{field}_or:Q" for field in ends)
    return base.mark_rule(strokeWidth=2).encode(x=alt.X(low), x2=high, color=colour)


def points(base: alt.Chart, doubtful: str, **where: Any) -> Any:
    """A mark for each record, by its precision, hollow where the field says that it is doubtful."""
    mark = base.mark_point(size=70, strokeWidth=1.8, opacity=1)
    return mark.encode(color=colour(), shape=shape(), fill=fill(doubtful), **where)


def rows(field: str) -> alt.Y:
    """A labelled row for each value of a field, in the order of the data."""
    return alt.Y(f"{field}:N", sort=None, axis=alt.Axis(title=None, ticks=False, domain=False))


def line_at(data: Any, place: float) -> Any:
    """A vertical line at what is no difference; it is drawn where there is any data."""
    chart = alt.Chart(data).transform_aggregate(count="count()")
    chart = chart.transform_calculate(place=f"{place:g}")
    return chart.mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(x="place:Q")


def class_colour() -> alt.Color:
    """The class of a kernel as colour."""
    scale = alt.Scale(domain=list(CLASS_COLOURS), range=list(CLASS_COLOURS.values()))
    legend = alt.Legend(title=None, orient="top", columns=3, symbolType="square")
    return alt.Color("class:N", scale=scale, legend=legend, sort=list(CLASSES))


def squares(colours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The entries of a legend of areas."""
    return {text: (colour, "square") for text, colour in colours.items()}


def told(*fields: tuple[str, ...]) -> list[alt.Tooltip]:
    """A tooltip: (field, title) of a text, (field, title, format) of a number."""
    return [
        alt.Tooltip(f"{name}:Q", title=title, format=form[0])
        if form
        else alt.Tooltip(f"{name}:N", title=title)
        for name, title, *form in fields
    ]


WHO = (("cell", "cell"), ("workload", "workload"))
WARNED = (("warnings", "warnings"),)
