"""The roofline: what a request reaches below the measured and the rated peaks."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import CASES, DATASHEET, MEASURED, ROOFS
from jobs.report.figures.figure import Chart, Figure, Source


def chart(data: Source) -> Chart:
    """Points of requests below the roofs of their GPU."""
    scale, axis = style.log(), style.axis()
    x = alt.X("flop_per_byte:Q", title="arithmetic intensity (FLOP/B)", scale=scale, axis=axis)
    y = alt.Y("tflops:Q", title="TFLOP/s", scale=scale, axis=axis)
    dashes = alt.Scale(domain=[MEASURED, DATASHEET], range=[[1, 0], [5, 4]])
    roof = (
        alt.Chart(data(ROOFS))
        .mark_line(strokeWidth=1.6, opacity=0.8)
        .encode(
            x=x,
            y=y,
            color=style.colour(),
            strokeDash=alt.StrokeDash(
                "source:N", scale=dashes, legend=alt.Legend(title=None, orient="top")
            ),
            detail="cell:N",
            tooltip=style.told(
                ("cell", "cell"),
                ("source", "roof"),
                ("peak_tflops", "peak, TFLOP/s", ".4~g"),
                ("gb_per_s", "memory, GB/s", ".4~g"),
            ),
        )
    )
    tooltip = style.told(
        *style.WHO,
        ("tflops", "TFLOP/s", ".4~g"),
        ("flop_per_byte", "FLOP/B", ".4~g"),
        ("latency_ms", "latency, ms", ".4~g"),
        ("lower_bound_ms", "lower bound, ms", ".4~g"),
        *style.WARNED,
    )
    point = style.points(alt.Chart(data(CASES)), "doubtful", x=x, y=y, tooltip=tooltip)
    return alt.layer(roof, point).properties(height=style.HEIGHT_PX)


FIGURE = Figure(
    name="roofline",
    title="Roofline",
    about="Each point is a request: its operations over its latency, against its operations over"
    " the least bytes that it must move. Solid roofs are peaks measured on this device, dashed ones"
    " the datasheet's. What lies far below its roof waits for something else, mostly launches.",
    chart=chart,
    panel="of_gpu",
    needs=("flop_per_byte", "tflops"),
    sets=(CASES, ROOFS),
    doubtful="doubtful",
    absent="Roofline: no row has a profile with measured peaks.",
)
