"""Where the time of a request goes: kernels by class, and the gaps between them."""

from typing import Any

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import CASES, CLASSES, GAPS
from jobs.report.figures.figure import Chart, Figure, Source


def chart(data: Source) -> Chart:
    """Stacked times, a bar for each engine and precision."""
    fields: list[Any] = [f"{name}_ms" for name in CLASSES]
    number = "indexof(" + str(fields) + ", datum.field)"
    base = alt.Chart(data(CASES)).encode(y=style.rows("bar"))
    stacked = (
        base.transform_fold(fields, as_=["field", "ms"])
        .transform_calculate(
            **{"class": "replace(datum.field, '_ms', '')", "at": number},
            share="datum.ms / datum.latency_ms",
        )
        .mark_bar(height=14)
        .encode(
            x=alt.X("ms:Q", title="time of a request (ms)", stack="zero", axis=style.axis()),
            color=style.class_colour(),
            order=alt.Order("at:Q"),
            tooltip=style.told(
                ("bar", "engine, precision"),
                ("class", "class"),
                ("ms", "time, ms", ".4~g"),
                ("share", "of the latency", ".1%"),
                ("latency_ms", "latency, ms", ".4~g"),
                *style.WARNED,
            ),
        )
    )
    latency = base.mark_tick(thickness=2, height=17, color=style.INK).encode(x="latency_ms:Q")
    return alt.layer(stacked, latency).properties(height=alt.Step(style.ROW_PX))


FIGURE = Figure(
    name="where-time-goes",
    title="Where the time goes",
    about="Kernels of a request by class, as traced after all timing, and as gaps the rest of the"
    " median latency, in which no kernel ran: with eager, mostly launches. Kernels of a graph are"
    " traced one by one, at another pace, so that its gaps are only an estimate. The tick is the"
    " median latency: what is traced beyond it was slower than what was timed.",
    chart=chart,
    panel="of_engines",
    row="bar",
    needs=("latency_ms", f"{GAPS}_ms"),
    sets=(CASES,),
    legend=style.squares(style.CLASS_COLOURS),
    told_by=tuple(f"{name}_ms" for name in CLASSES),
    absent="Where the time goes: no row has a profile.",
)
