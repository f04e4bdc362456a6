"""The page as people see it: in a browser, narrow and wide, light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browsers
import kept_rows
import pytest
import two_runs
from browsers import Visit
from test_jobs_report import a_row

from bench.measured import Energy, Measurement, Quality
from bench.results.rows import Rows
from jobs import reading
from jobs.report.page import comparison, report

pytestmark = pytest.mark.skipif(not browsers.CHROMIUM, reason="there is no chromium here")
EXAMPLE = Path(__file__).parents[2] / "jobs" / "examples" / "modelled.parquet"
LONG = "NVIDIA-H100-80GB-HBM3-with-a-very-long-name"
FIGURES = ["speedup", "energy-latency", "latency-distribution", "latency-batch",
           "where-time-goes", "roofline", "energy", "power", "sweep"]  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all."""
    with browsers.browser() as found:
        yield found


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of four modelled GPUs."""
    place = tmp_path_factory.mktemp("page") / "report.html"
    place.write_text(report.page(*reading.read([str(EXAMPLE)], 10**9)), "utf-8")
    return place


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Opens pages, and leaves them."""
    open_ones = []

    def visit(place: Path, width: int = 1440, scheme: str = "light") -> Visit:
        open_ones.append(Visit(chromium, place, width, scheme))
        return open_ones[-1]

    yield visit
    for one in open_ones:
        one.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_is_whole_and_for_all(
    width: int, scheme: str, example: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(example, width, scheme)
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith(("file:", "blob:"))] == []
    for name in FIGURES:
        panels = seen.page.locator(f"#figure-{name} .panel").count()
        assert panels == seen.page.locator(f"#figure-{name} svg.marks").count() > 0, name
    assert seen.faults() == []
    assert [found for found in seen.axe() if found[0] in ("serious", "critical")] == []


def test_the_table_sorts_by_any_column(example: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(example)
    seen.page.get_by_role("button", name="Show all").click()
    for _ in range(2):
        seen.page.get_by_role("button", name="latency, ms").click()
        values = [float(cell.split()[0]) for cell in seen.column("latency, ms")]
        direction = seen.page.locator("th[aria-sort]").get_attribute("aria-sort")
        assert values == sorted(values, reverse=direction == "descending")
    assert len(values) == 48 and direction == "descending"


def test_filters_act_on_the_table_and_on_every_figure(
    example: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(example)
    assert seen.page.locator("#count").inner_text() == "25 of 48 rows"
    seen.page.get_by_role("checkbox", name="P100").uncheck()
    seen.page.get_by_role("checkbox", name="mixed").uncheck()
    seen.page.get_by_role("combobox", name="engine").select_option("graph")
    seen.drawn()
    assert seen.page.locator("#count").inner_text() == "12 of 48 rows"
    assert set(seen.column("GPU")) == {"A100", "T4", "V100"}
    assert set(seen.column("precision")) == {"fp32", "fp16"}
    assert set(seen.column("engine")) == {"graph"}
    for name in FIGURES:
        text = seen.page.locator(f"#figure-{name} .panels").inner_text()
        texts = seen.page.locator(f"#figure-{name} svg.marks text").all_text_contents()
        assert not re.search("P100|mixed|eager", text + " ".join(texts)), name
    assert seen.page.locator("#figure-speedup .panel").count() == 2


def test_what_is_filtered_away_is_told(example: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(example)
    for name in ("A100", "P100", "T4", "V100"):
        seen.page.get_by_role("checkbox", name=name).uncheck()
    seen.drawn()
    assert seen.page.locator("#count").inner_text() == "0 of 48 rows"
    assert "Nothing of what is chosen" in seen.page.locator("#figure-speedup").inner_text()
    assert seen.said == [] and seen.faults() == []


def test_figures_fit_when_the_window_changes(example: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(example)
    seen.page.set_viewport_size({"width": 400, "height": 900})
    seen.page.wait_for_timeout(300)
    assert seen.said == [] and seen.faults() == []
    assert [found for found in seen.axe() if found[0] in ("serious", "critical")] == []


def test_a_point_tells_its_numbers_and_their_interval(
    example: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(example)
    seen.page.locator("#figure-speedup svg.marks .mark-symbol path").first.hover()
    tooltip = seen.page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    text = tooltip.inner_text()
    for part in ("A100 fp16", "speedup", "95 % from", "latency, ms"):
        assert part in text


@pytest.mark.parametrize("width", [360, 1440])
def test_three_rows_look_as_good(width: int, tmp_path: Path, visit: Callable[..., Visit]) -> None:
    rows = [a_row("fp32", 11.7), a_row("fp16", 10.4), a_row("mixed", 13.5)]
    rows = [replace(row, cell=replace(row.cell, gpu_type=LONG)) for row in rows]
    place = tmp_path / "three.html"
    every = Rows([[kept_rows.InMemory(rows, Measurement)]])
    place.write_text(report.page(every, ()), "utf-8")
    seen = visit(place, width)
    assert seen.said == [] and seen.faults() == []
    assert seen.page.locator("#figure-speedup svg.marks").count() == 1
    assert not seen.page.locator("#all").is_visible()
    assert [found for found in seen.axe() if found[0] in ("serious", "critical")] == []


def without_much() -> list[Measurement]:
    """Rows that lack intervals, idle power, rounding or ticks, or whose energy is hardly known."""
    rows = []
    for number, precision in enumerate(("fp32", "fp16", "mixed")):
        for batch in (1, 8):
            row = a_row(precision, 10.0 + number)
            assert row.timing
            timing = replace(row.timing, latency_ms_p50_low=None, latency_ms_p50_high=None)
            energy = Energy(
                "power",
                per_sample_mj=100.0 + number,
                uncertainty=None if batch == 1 else 2.0,
                trace_s=(0.0, 1.0, 2.0),
                trace_w=(5.0, 5.0, 5.0),
            )
            nats = tuple(400.0 + number * at for at in range(4))
            quality = Quality("text", perplexity=29.0, window_nats=nats, window_tokens=(100,) * 4)
            workload = replace(row.workload, batch_size=batch)
            parts = {"timing": timing, "energy": energy, "quality": quality, "workload": workload}
            rows.append(replace(row, **parts))
    return rows


def test_what_is_not_known_breaks_no_figure(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    place = tmp_path / "without.html"
    every = Rows([[kept_rows.InMemory(without_much(), Measurement)]])
    place.write_text(report.page(every, ()), "utf-8")
    seen = visit(place)
    assert seen.said == [] and seen.faults() == []
    shown = {figure.get_attribute("id") for figure in seen.page.locator("figure").all()}
    assert {"figure-energy-latency", "figure-latency-batch", "figure-power"} <= shown
    assert "figure-perplexity" in shown


def test_figures_that_are_drawn_anew_let_the_old_ones_go(
    example: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(example)
    inspector = seen.page.context.new_cdp_session(seen.page)
    inspector.send("Performance.enable")

    def listeners() -> float:
        inspector.send("HeapProfiler.collectGarbage")
        metrics = inspector.send("Performance.getMetrics")["metrics"]
        return float({one["name"]: one["value"] for one in metrics}["JSEventListeners"])

    before = listeners()
    for _ in range(2):
        seen.page.get_by_role("checkbox", name="P100").click()
        seen.drawn()
    assert listeners() <= before * 1.2


def test_paper_has_no_controls(example: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(example, scheme="dark")
    seen.page.emulate_media(media="print")
    assert not seen.page.locator("#filters").is_visible()
    assert not seen.page.locator("#all").is_visible()
    assert seen.page.locator("#count").is_visible()  # of how many rows these are the first
    colour = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_of_a_comparison_is_whole_too(
    width: int, tmp_path: Path, visit: Callable[..., Visit]
) -> None:
    slower = two_runs.a_run(two_runs.NEW, seed=1, longer=1.1)
    place = tmp_path / "changes.html"
    found = two_runs.compare(two_runs.a_run(), slower)
    place.write_text(comparison.page(found), "utf-8")
    seen = visit(place, width)
    assert seen.said == [] and seen.faults() == []
    assert seen.page.locator("#figure-changes svg.marks").count() == 3
    legend = seen.page.locator("#figure-changes .legend li").all_inner_texts()
    assert set(legend) == {"worse", "no significant difference"}
    assert [found for found in seen.axe() if found[0] in ("serious", "critical")] == []
    seen.page.get_by_role("checkbox", name="latency").uncheck()
    seen.drawn()
    assert "latency" not in seen.column("metric")
    assert seen.page.locator("#figure-changes svg.marks").count() == 2
