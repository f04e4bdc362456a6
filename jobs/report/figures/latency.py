"""Latency: its distribution, and how it grows with the batch."""

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import CASES
from jobs.report.figures.figure import Chart, Figure, Source
from jobs.report.figures.samples import PROBABILITIES

_LAST = len(PROBABILITIES) - 1
_BANDS = range(_LAST // 2)  # of pairs of quantiles around the median, from the outermost


def distribution(data: Source) -> Chart:
    """Nested bands between pairs of quantiles, the darker the nearer to the median."""
    at = {f"q{number}": f"datum.quantiles_ms[{number}]" for number in range(_LAST + 1)}
    base = alt.Chart(data(CASES)).transform_calculate(**at).encode(
        y=style.rows("cell"),
        tooltip=style.told(
            *style.WHO,
            *((f"q{number}", name(number), ".4~g") for number in range(_LAST + 1)),
            *style.WARNED,
        ),
    )  # fmt: skip
    bands = [
        base.mark_bar(height=3 if not number else 13, opacity=0.9 if not number else 0.28).encode(
            x=alt.X(f"q{number}:Q", title="latency (ms)", scale=style.log(), axis=style.axis()),
            x2=f"q{_LAST - number}:Q",
            color=style.colour(),
        )
        for number in _BANDS
    ]
    median = base.mark_tick(thickness=2.5, height=17, opacity=1).encode(
        x=f"q{_LAST // 2}:Q", color=style.colour()
    )
    mark = style.asterisk(base, f"q{_LAST}")
    return alt.layer(*bands, median, mark).properties(height=alt.Step(style.ROW_PX))


def name(number: int) -> str:
    """What a quantile is called.

    >>> name(0), name(1), name(3), name(5)
    ('least, ms', 'p1, ms', 'p12.5, ms', 'median, ms')
    """
    special = {0: "least", _LAST // 2: "median", _LAST: "greatest"}
    return special.get(number, f"p{100 * PROBABILITIES[number]:g}") + ", ms"


def batches(data: Source) -> Chart:
    """Latency over the batch size, a line for each precision."""
    x = alt.X(
        "batch:Q",
        title="batch size (prompts)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=14),
        axis=style.axis(6),
    )
    y = alt.Y(
        "latency_ms:Q",
        title="latency (ms)",
        scale=style.log(),
        axis=style.axis(),
    )
    base = alt.Chart(data(CASES)).transform_calculate(
        **style.ends("latency_ms", "latency_low_ms", "latency_high_ms")
    )
    line = base.mark_line().encode(x=x, y=y, color=style.colour())
    ends = base.mark_rule().encode(
        x=x, y="latency_low_ms_or:Q", y2="latency_high_ms_or:Q", color=style.colour()
    )
    tooltip = style.told(
        *style.WHO,
        ("latency_ms", "latency, ms", ".4~g"),
        ("latency_low_ms", "95 % from", ".4~g"),
        ("latency_high_ms", "to", ".4~g"),
        ("throughput_per_s", "prompts per second", ".4~g"),
        *style.WARNED,
    )
    point = style.points(base, "doubtful", x=x, y=y, tooltip=tooltip)
    return alt.layer(line, ends, point).properties(height=style.HEIGHT_PX)


DISTRIBUTION = Figure(
    name="latency-distribution",
    title="Distribution of the latency",
    about="Every sample of every replicate: the thin line reaches from the least to the greatest,"
    " the bands hold the middle 98, 90, 75 and 50 %, the tick is the median. The axis is"
    " logarithmic.",
    chart=distribution,
    row="cell",
    panel="of_workload",
    needs=("quantiles_ms",),
    sets=(CASES,),
    marked="doubtful",
    absent="Distribution of the latency: no samples.",
)
BATCHES = Figure(
    name="latency-batch",
    title="Latency against batch size",
    about="Where a line is flat, a larger batch costs no time: launches or memory set the latency."
    " Both axes are logarithmic; bars are 95 % intervals.",
    chart=batches,
    panel="of_batches",
    needs=("latency_ms",),
    sets=(CASES,),
    varies="batch",
    doubtful="doubtful",
    absent="Latency against batch size: only one batch size was measured.",
)
