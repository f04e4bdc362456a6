"""How much faster each precision is than fp32, on each GPU."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import CASES
from jobs.report.figures.figure import Chart, Figure, Source

_ENDS = ("speedup_low", "speedup_high")


def chart(data: Source) -> Chart:
    """A point with its interval for each GPU and precision, right or left of 1."""
    tooltip = style.told(
        *style.WHO,
        ("speedup", "speedup", ".4~g"),
        ("speedup_low", "95 % from", ".4~g"),
        ("speedup_high", "to", ".4~g"),
        ("latency_ms", "latency, ms", ".4~g"),
        *style.WARNED,
    )
    base = alt.Chart(data(CASES)).transform_calculate(**style.ends("speedup", *_ENDS))
    base = base.encode(y=style.rows("cell"), tooltip=tooltip)
    x = alt.X(
        "speedup:Q",
        title="speedup over fp32",
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=style.axis(),
    )
    one = style.line_at(data(CASES), 1)
    interval = style.interval(base, _ENDS, style.colour())
    point = style.points(base, "ratio_doubtful", x=x)
    label = base.mark_text(
        align="left", dx=9, dy=-8, fontSize=11, color=style.INK, opacity=0.75
    ).encode(x=x, text=alt.Text("speedup:Q", format=".2f"))
    return alt.layer(one, interval, point, label).properties(height=alt.Step(style.ROW_PX))


FIGURE = Figure(
    name="speedup",
    title="Speedup over fp32",
    about="Median latency of fp32 over that of each precision, on the same GPU and workload, with"
    " its 95 % interval (a point without a line has none); right of 1 is faster. The axis is"
    " logarithmic.",
    chart=chart,
    row="cell",
    panel="of_workload",
    needs=("speedup", "against"),
    sets=(CASES,),
    doubtful="ratio_doubtful",
    absent="Speedup: no precision stands beside fp32 on the same GPU and workload.",
)
