"""Energy: against latency with the Pareto front, and gross against net."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import CASES
from jobs.report.figures.figure import Chart, Figure, Source

_NUMBERS = (
    ("latency_ms", "latency, ms", ".4~g"),
    ("latency_low_ms", "95 % from", ".4~g"),
    ("latency_high_ms", "to", ".4~g"),
    ("energy_mj", "energy per prompt, mJ", ".4~g"),
    ("energy_low_mj", "95 % from", ".4~g"),
    ("energy_high_mj", "to", ".4~g"),
    ("net_mj", "above idle, mJ", ".4~g"),
    ("mean_w", "mean power, W", ".4~g"),
)

_NET, _IDLE = "above idle", "idle power for as long"
PARTS = {_NET: "#0081c8", _IDLE: "#b8c4cc"}  # and their colours


def frontier(data: Source) -> Chart:
    """Latency and energy of each GPU and precision; the line joins those that none is better than.

    The front follows from what is shown: sorted by latency, a point is on it if none before needs
    less energy, or as little.
    """
    base = alt.Chart(data(CASES)).transform_calculate(
        **style.ends("latency_ms", "latency_low_ms", "latency_high_ms"),
        **style.ends("energy_mj", "energy_low_mj", "energy_high_mj"),
    )
    x = alt.X("latency_ms:Q", title="latency (ms)", scale=style.log(), axis=style.axis())
    y = alt.Y("energy_mj:Q", title="energy per prompt (mJ)", scale=style.log(), axis=style.axis())
    front = (
        base.transform_window(
            least="min(energy_mj)",
            frame=[None, 0],
            sort=[alt.SortField("latency_ms"), alt.SortField("energy_mj")],
        )
        .transform_window(
            as_little="row_number()", groupby=["energy_mj"], sort=[alt.SortField("latency_ms")]
        )
        .transform_filter("datum.energy_mj <= datum.least && datum.as_little === 1")
        .mark_line(interpolate="step-after", strokeDash=[4, 3], color=style.NEUTRAL)
        .encode(x=x, y=y, order=alt.Order("latency_ms:Q"))
    )
    of_gpu = base.mark_line(strokeWidth=0.8, opacity=0.6, color=style.NEUTRAL).encode(
        x=x, y=y, detail="gpu:N", order=alt.Order("energy_mj:Q")
    )
    across = base.mark_rule().encode(
        x="latency_low_ms_or:Q", x2="latency_high_ms_or:Q", y=y, color=style.colour()
    )
    along = base.mark_rule().encode(
        x=x, y="energy_low_mj_or:Q", y2="energy_high_mj_or:Q", color=style.colour()
    )
    tooltip = style.told(*style.WHO, *_NUMBERS, *style.WARNED)
    point = style.points(base, "doubtful", x=x, y=y, tooltip=tooltip)
    label = (
        base.transform_window(
            number="row_number()",
            groupby=["gpu"],
            sort=[
                alt.SortField("energy_mj", order="descending"),
                alt.SortField("latency_ms", order="descending"),
            ],
        )
        .transform_filter("datum.number === 1")
        .mark_text(
            align="right", dx=-8, dy=-8, limit=110, fontSize=11, color=style.INK, opacity=0.75
        )
        .encode(x=x, y=y, text="gpu:N")
    )
    layers = (of_gpu, front, across, along, point, label)
    return alt.layer(*layers).properties(height=style.HEIGHT_PX)


def gross(data: Source) -> Chart:
    """Energy of a prompt, of which the idle power takes a part."""
    tooltip = style.told(
        *style.WHO, *_NUMBERS, ("idle_mj", "of it idle power, mJ", ".4~g"), *style.WARNED
    )
    ends = style.ends("energy_mj", "energy_low_mj", "energy_high_mj", linear=True)
    base = alt.Chart(data(CASES)).transform_calculate(**ends)
    base = base.encode(y=style.rows("cell"), tooltip=tooltip)
    part = f"datum.field === 'net_mj' ? '{_NET}' : '{_IDLE}'"
    stacked = (
        base.transform_fold(["net_mj", "idle_mj"], as_=["field", "mj"])
        .transform_calculate(part=part, at="datum.field === 'net_mj' ? 0 : 1")
        .mark_bar(height=13)
        .encode(
            x=alt.X("mj:Q", title="energy per prompt (mJ)", stack="zero", axis=style.axis()),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())),
                legend=alt.Legend(title=None, orient="top"),
            ),
            order=alt.Order("at:Q"),
        )
    )
    interval = base.mark_rule(strokeWidth=2, color=style.NEUTRAL).encode(
        x="energy_low_mj_or:Q", x2="energy_high_mj_or:Q"
    )
    total = base.mark_tick(thickness=2, height=13, color=style.NEUTRAL).encode(x="energy_mj:Q")
    mark = style.asterisk(base, "energy_mj")
    return alt.layer(stacked, total, interval, mark).properties(height=alt.Step(style.ROW_PX))


FRONTIER = Figure(
    name="energy-latency",
    title="Energy against latency",
    about="Each point is a GPU at a precision, with its 95 % intervals; the dashed line is the"
    " Pareto front: nothing shown is both faster and more frugal. Thin lines join the precisions"
    " of a GPU. Both axes are logarithmic: an interval down to 0 has only its upper half.",
    chart=frontier,
    panel="of_workload",
    needs=("latency_ms", "energy_mj"),
    sets=(CASES,),
    doubtful="doubtful",
    absent="Energy against latency: no energy was measured.",
)
GROSS = Figure(
    name="energy",
    title="Energy per prompt, gross and net",
    about="The whole bar is the gross energy of a prompt, with its 95 % interval; its pale part is"
    " what the idle GPU would have drawn in the same time, the rest is net.",
    chart=gross,
    row="cell",
    panel="of_workload",
    needs=("energy_mj", "idle_mj"),
    sets=(CASES,),
    marked="doubtful",
    legend=style.squares(PARTS),
    told_by=("net_mj", "idle_mj"),
    absent="Gross and net energy: no energy with an idle power was measured.",
)
