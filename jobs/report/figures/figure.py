"""What a figure is: a chart of one panel, what a panel is, and what stands below it.

The chart asks for its data sets by name, so that one definition serves all: the page puts the
panels side by side and gives each its records, `static` does the same for files and notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from jobs.report.figures import style
from jobs.report.figures.data import TRACES, Data, Record
from jobs.report.words import gathered, some_of

Chart = Any  # altair's charts of one layer or several have no common type but Any
Source = Callable[[str], Any]  # gives the data set of a name
MOST_PANELS = 6  # that are drawn at once: a page of more is not read
_MOST_NAMED = 6  # doubtful points in a caption
_WIDTH_PX, _COLUMNS = 420, 2  # of a panel in a file
_LETTERS = 28  # of the label of a row in a file
# A label without its middle: its end has the precision, or what else tells rows apart.
SHORTENED = (
    "length(datum.label) > LETTERS ? slice(datum.label, 0, floor((LETTERS - 1) / 2)) + '\u2026'"
    " + slice(datum.label, -ceil((LETTERS - 1) / 2)) : datum.label"
)


@dataclass(frozen=True)
class Figure:
    """A figure, without its data.

    Attributes:
        about: How to read it, as a sentence.
        panel: The field whose text the records of a panel have in common.
        needs: The fields without which a record is not drawn.
        sets: The data sets that it draws from; the panels are those of the first.
        varies: A field that must have several values in a panel.
        row: The field that has a labelled row for each value; None: the plot is a plane.
        doubtful: The field that says whether a point is drawn hollow; `marked`: with an asterisk.
        legend: What colours other than those of the precisions mean: text -> colour and shape.
        told_by: The field that has the text of the legend in each record, or for each of its texts
            the field that is above 0 where it is seen.
        absent: What is said where there is nothing to draw.
    """

    name: str
    title: str
    about: str
    chart: Callable[[Source], Chart]
    panel: str
    needs: tuple[str, ...]
    sets: tuple[str, ...]
    absent: str
    varies: str | None = None
    row: str | None = None
    doubtful: str | None = None
    marked: str | None = None
    legend: Mapping[str, tuple[str, str]] = field(default_factory=dict, hash=False)
    told_by: tuple[str, ...] = ()

    def drawn(self, data: Data) -> list[Record]:
        """The records that it draws, of its first data set."""
        return [record for panel in self.panels(data) for record in panel]

    def panels(self, data: Data) -> list[list[Record]]:
        """The records of each panel, in their order."""
        known = [r for r in data[self.sets[0]] if all(r[name] is not None for name in self.needs)]
        several = gathered(known, lambda record: record[self.panel])
        if self.varies is None:
            return several
        return [panel for panel in several if len({r[self.varies] for r in panel}) > 1]

    def caption(self, data: Data) -> str:
        """How to read it, which points are doubtful, and whether anything in it is simulated."""
        drawn = self.drawn(data)
        texts = [self.about]
        name, how = (
            (self.doubtful, "Hollow points") if self.doubtful else (self.marked, "Asterisks")
        )
        if name and (weak := dict.fromkeys(r["cell"] for r in drawn if r[name])):
            texts.append(f"{how} have warnings: {some_of(weak, _MOST_NAMED)}.")
        if self.sets[0] == TRACES and data.without_trace:
            texts.append(f"The power of {data.without_trace} more is only in the rows.")
        if any(record["simulated"] for record in drawn):
            every = all(record["simulated"] for record in drawn)
            texts.append(
                f"Simulated GPUs{'' if every else ' in part'}: "
                f"{'no number is' if every else 'not every number is'} a real one."
            )
        return " ".join(texts)

    def static(self, data: Data, most_panels: int = MOST_PANELS) -> Chart | None:
        """All panels as one chart with its data in it; None where there is nothing to draw."""
        panels = self.panels(data)
        if not panels:
            return None
        drawn = [self.of_one(panel, data) for panel in panels[:most_panels]]
        left = len(panels) - len(drawn)
        more = f" ({len(drawn)} of {len(panels)} panels)" if left else ""
        title = alt.TitleParams(f"{self.title}{more}", anchor="start", fontSize=16, offset=12)
        columns = min(_COLUMNS, len(drawn))
        return (
            alt.concat(*drawn, columns=columns, title=title)
            .configure_view(stroke=None)
            .configure_axis(gridColor="#e6e6e6", labelFontSize=11, titleFontWeight="normal")
            .configure_axisY(labelExpr=SHORTENED.replace("LETTERS", str(_LETTERS)), labelLimit=0)
            .configure_legend(labelFontSize=12)
        )

    def of_one(self, panel: Sequence[Record], data: Data) -> Chart:
        """The chart of one panel with its data in it."""
        sets = {name: [*self.of_panel(panel, data[name])] for name in self.sets[1:]}
        sets[self.sets[0]] = [*panel]
        title = alt.TitleParams(panel[0][self.panel], anchor="start", fontSize=12)
        there = {record["precision"] for record in self.drawn(data)}
        present = [precision for precision in style.COLOURS if precision in there]
        chart = self.chart(lambda name: alt.InlineData(values=sets[name]))
        chart = chart.add_params(alt.param(name=style.PRESENT, value=present))
        return chart.properties(title=title, width=_WIDTH_PX)

    def of_panel(self, panel: Sequence[Record], other: Iterable[Record]) -> Iterable[Record]:
        """The records of another data set that belong to a panel."""
        text = panel[0][self.panel]
        shown = {record["precision"] for record in panel}
        return (r for r in other if r[self.panel] == text and r["precision"] in shown)
