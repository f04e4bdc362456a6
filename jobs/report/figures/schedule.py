"""What ran where and when: a Gantt chart of the sweep."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import RAN
from jobs.report.figures.figure import Chart, Figure, Source


def chart(data: Source) -> Chart:
    """A bar for each row on the lane of its GPU; what failed is outlined and marked."""
    base = alt.Chart(data(RAN)).encode(
        y=style.rows("lane"),
        tooltip=style.told(
            ("gpu", "GPU type"),
            ("precision", "precision"),
            ("what", "workload"),
            ("replicate", "replicate"),
            ("begin_min", "begin, min", ".2f"),
            ("end_min", "end, min", ".2f"),
            ("outcome", "outcome"),
            ("attempt", "attempt"),
            ("earlier", "attempts before"),
            ("reason", "reason"),
        ),
    )
    x = alt.X("begin_min:Q", title="time (min)")
    bar = base.mark_bar(height=13, x2Offset=-1).encode(
        x=x,
        x2="end_min:Q",
        color=style.colour(),
        opacity=alt.condition("datum.outcome === 'OK'", alt.value(0.85), alt.value(0.25)),
    )
    # Drawn for all and seen for some: an empty layer would have no extent.
    failed = base.mark_point(shape="cross", angle=45, size=60, filled=True, color="#d0312d").encode(
        x=x, opacity=alt.condition("datum.outcome === 'OK'", alt.value(0), alt.value(1))
    )
    again = base.mark_point(
        shape="triangle-right", size=45, filled=True, color=style.NEUTRAL
    ).encode(x=x, opacity=alt.condition("datum.attempt > 1", alt.value(1), alt.value(0)))
    return alt.layer(bar, failed, again).properties(height=alt.Step(style.ROW_PX))


FIGURE = Figure(
    name="sweep",
    title="What ran where and when",
    about="Each bar is a row on the GPU that measured it, from when the first began. A cross marks"
    " a row that is not OK, a grey triangle one that needed more than one attempt.",
    chart=chart,
    row="lane",
    panel="sweep",
    needs=("begin_min", "end_min"),
    sets=(RAN,),
    absent="What ran where and when: no row says when it began and ended.",
)
