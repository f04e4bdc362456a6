"""What changed between runs: the ratio of each metric of each row, with its interval."""

import altair as alt

from jobs.report.changes.records import Decision
from jobs.report.figures import style
from jobs.report.figures.figure import Chart, Figure, Source

CHANGES = "changes"  # the data set
# Of each decision; no shape points anywhere, since worse is right of 1 for some metrics only.
MARKS: dict[str, tuple[str, str]] = {
    Decision.WORSE: ("#d55e00", "triangle-up"),
    Decision.BETTER: ("#009e73", "square"),
    Decision.NEGLIGIBLE: ("#56b4e9", "diamond"),
    Decision.SAME: ("#7f7f7f", "circle"),
    Decision.NOT_DECIDED: ("#b0b0b0", "cross"),
}
_ENDS = ("ratio_low", "ratio_high")


def chart(data: Source) -> Chart:
    """A point with its interval for each row, around the line of no change."""
    base = alt.Chart(data(CHANGES)).transform_calculate(**style.ends("ratio", *_ENDS))
    base = base.encode(
        y=style.rows("row"),
        tooltip=style.told(
            ("row", "row"),
            ("metric", "metric"),
            ("old_text", "before"),
            ("new_text", "after"),
            ("ratio", "ratio", ".4~g"),
            ("ratio_low", "from", ".4~g"),
            ("ratio_high", "to", ".4~g"),
            ("change", "decision"),
        ),
    )
    x = alt.X("ratio:Q", title="after / before", scale=style.log(), axis=style.axis())
    domain = list(MARKS)
    colours, shapes = zip(*MARKS.values(), strict=True)
    colour = alt.Color(
        "decision:N",
        scale=alt.Scale(domain=domain, range=list(colours)),
        legend=alt.Legend(title=None, orient="top"),
    )
    shape = alt.Shape("decision:N", scale=alt.Scale(domain=domain, range=list(shapes)))
    one = style.line_at(data(CHANGES), 1)
    interval = style.interval(base, _ENDS, colour)
    point = base.mark_point(size=70, filled=True, opacity=1).encode(x=x, color=colour, shape=shape)
    return alt.layer(one, interval, point).properties(height=alt.Step(style.ROW_PX))


FIGURE = Figure(
    name="changes",
    title="What changed",
    about="Each point is the ratio after / before of a row. Its interval is as wide as the error"
    " rate of all comparisons together asks: where it does not contain 1, the change is decided."
    " What is identical is left out. The axis is logarithmic.",
    chart=chart,
    row="row",
    panel="of_metric",
    needs=("ratio",),
    sets=(CHANGES,),
    legend=MARKS,
    told_by=("decision",),
    absent="No ratio is known: nothing is paired, or all of it is identical.",
)
