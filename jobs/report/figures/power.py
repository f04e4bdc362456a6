"""Power over the time of the energy windows."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import TRACES
from jobs.report.figures.figure import Chart, Figure, Source

_HEIGHT_PX = 150
_LEVELS = {"idle_w": ("idle power, W", [2, 3]), "mean_w": ("mean power, W", [7, 3])}


def chart(data: Source) -> Chart:
    """The readings, with windows, idle and mean power, and the ticks of the meter."""
    x = alt.X("at_s:Q", title="time (s)", scale=alt.Scale(nice=False), axis=style.axis())
    y = alt.Y("w:Q", title="power (W)", scale=alt.Scale(zero=True), axis=style.axis(4))
    # What is not known is drawn nowhere, and yet has a place: all of a layer may lack it.
    somewhere = {f"{level}_or": f"datum.{level} === null ? 0 : datum.{level}" for level in _LEVELS}
    base = alt.Chart(data(TRACES)).transform_calculate(**somewhere)
    windows = (
        base.transform_flatten(["window_from_s", "window_to_s"])
        .mark_rect(color=style.NEUTRAL, opacity=0.13)
        .encode(x="window_from_s:Q", x2="window_to_s:Q")
    )
    readings = (
        base.transform_flatten(["time_s", "power_w"], as_=["at_s", "w"])
        .mark_line(interpolate="step-after", strokeWidth=1.3)
        .encode(
            x=x,
            y=y,
            color=style.colour(None),
            tooltip=style.told(("at_s", "time, s", ".3f"), ("w", "power, W", ".4~g")),
        )
    )
    ticks = (
        base.transform_calculate(no_tick="!length(datum.tick_s)")
        .transform_calculate(tick_s="datum.no_tick ? [datum.time_s[0]] : datum.tick_s")
        .transform_flatten(["tick_s"])
        .mark_tick(thickness=1, height=6, color=style.NEUTRAL, yOffset=-3)
        .encode(
            x="tick_s:Q",
            y=alt.value(_HEIGHT_PX),
            opacity=alt.condition("datum.no_tick", alt.value(0), alt.value(1)),
        )
    )
    levels = [
        base.mark_rule(strokeDash=dash, color=style.NEUTRAL).encode(
            y=f"{field}_or:Q",
            opacity=alt.condition(f"datum.{field} === null", alt.value(0), alt.value(1)),
            tooltip=style.told((field, what, ".4~g")),
        )
        for field, (what, dash) in _LEVELS.items()
    ]
    return alt.layer(windows, *levels, readings, ticks).properties(height=_HEIGHT_PX)


FIGURE = Figure(
    name="power",
    title="Power over time",
    about="Readings of the power sensor in the energy windows (shaded) of the first replicate. The"
    " dotted line is the idle power, the dashed one the mean power of all windows; marks at the"
    " bottom are ticks, at which the sensor gave another value.",
    chart=chart,
    panel="of_trace",
    needs=("time_s",),
    sets=(TRACES,),
    absent="Power over time: no power was read.",
)
