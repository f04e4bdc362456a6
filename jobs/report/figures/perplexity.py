"""What a precision costs in perplexity: the paired difference to fp32."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import CASES
from jobs.report.figures.figure import Chart, Figure, Source

_ENDS = ("nats_low", "nats_high")


def chart(data: Source) -> Chart:
    """A point with its interval for each GPU and precision, and what rounding explains."""
    ends = style.ends("nats", *_ENDS, linear=True)
    # What is not known is drawn nowhere, and yet has a place: all of a layer may lack it.
    ends["rounding_or"] = "datum.rounding_nats === null ? 0 : datum.rounding_nats"
    base = (
        alt.Chart(data(CASES))
        .transform_calculate(**ends)
        .encode(
            y=style.rows("cell"),
            tooltip=style.told(
                *style.WHO,
                ("perplexity", "perplexity", ".6~g"),
                ("nats", "nats per token above fp32", ".3~g"),
                ("nats_low", "95 % from", ".3~g"),
                ("nats_high", "to", ".3~g"),
                ("rounding_nats", "of it rounding of 16-bit logits", ".3~g"),
                *style.WARNED,
            ),
        )
    )
    x = alt.X(
        "nats:Q",
        title="nats per token above fp32",
        scale=alt.Scale(zero=True, padding=20),
        axis=style.axis(4),
    )
    zero = style.line_at(data(CASES), 0)
    interval = style.interval(base, _ENDS, style.colour())
    point = style.points(base, "ratio_doubtful", x=x)
    rounding = base.mark_tick(thickness=2, height=16, color=style.NEUTRAL).encode(
        x="rounding_or:Q",
        opacity=alt.condition("datum.rounding_nats === null", alt.value(0), alt.value(1)),
    )
    return alt.layer(zero, interval, rounding, point).properties(height=alt.Step(style.ROW_PX))


FIGURE = Figure(
    name="perplexity",
    title="Perplexity against fp32",
    about="Mean difference of the nats per token, windows as pairs, with its 95 % interval; right"
    " of 0 predicts worse. The grey tick is what storing logits in 16 bits explains. Each workload"
    " has a point of its own in the row of its GPU and precision.",
    chart=chart,
    row="cell",
    panel="of_model",
    needs=("nats",),
    sets=(CASES,),
    doubtful="ratio_doubtful",
    absent="Perplexity against fp32: no pair of perplexities was measured.",
)
