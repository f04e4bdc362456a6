from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert
from examples import measurement
from hypothesis import given
from kept_rows import InMemory
from test_jobs_report import a_row

from bench.errors import TensorgapError
from bench.measured import Energy, Measurement, Outcome
from bench.measured.profiled import KERNEL_CLASSES, Trace
from bench.results import merging
from bench.results.rows import Rows
from bench.warnings import RowWarning
from jobs import reading
from jobs.report import compare
from jobs.report.facts import Case
from jobs.report.figures import data, samples, style
from jobs.report.figures.data import CASES, CLASSES, RAN, ROOFS, TRACES, Data
from jobs.report.figures.every import FIGURES, named

EXAMPLE = Path(__file__).parents[1] / "jobs" / "examples" / "modelled.parquet"
AXES_WITHOUT_UNIT = {"batch size (prompts)", "speedup over fp32"}


def data_of(*rows: Measurement) -> Data:
    """The data of rows that are held in memory."""
    every = Rows([[InMemory(rows, Measurement)]])
    return data.of(compare.compared(every.records(samples=False)), samples.of_rows(every))


@pytest.fixture(scope="module")
def example() -> tuple[Rows, list[Case], Data]:
    """Four modelled GPUs."""
    rows, _ = reading.read([str(EXAMPLE)], 10**9)
    cases = compare.compared(rows.records(samples=False))
    return rows, cases, data.of(cases, samples.of_rows(rows))


@pytest.fixture(scope="module")
def drawn(example: tuple[Rows, list[Case], Data]) -> dict[str, str]:
    """Each figure of them that has data, as SVG."""
    charts = {figure.name: figure.static(example[2], most_panels=1) for figure in FIGURES}
    return {
        name: vl_convert.vegalite_to_svg(json.dumps(chart.to_dict()))
        for name, chart in charts.items()
        if chart is not None
    }


def test_quantiles_are_of_all_samples_of_all_replicates(
    example: tuple[Rows, list[Case], Data],
) -> None:
    table = pq.read_table(EXAMPLE, columns=["gpu_type", "precision", "engine", "batch_size",
                                            "timing_latency_ms_samples"])  # fmt: skip
    found = {(r["gpu"], r["precision"], r["engine"], r["batch"]): r for r in example[2][CASES]}
    for row in table.to_pylist():
        key = tuple(row[name] for name in ("gpu_type", "precision", "engine", "batch_size"))
        expected = np.quantile(row["timing_latency_ms_samples"], samples.PROBABILITIES)
        assert found[key]["quantiles_ms"] == pytest.approx(expected)
    several = data_of(a_row("fp32", 10.0), a_row("fp32", 30.0, replicate=1))
    (record,) = several[CASES]
    assert record["quantiles_ms"][0] < 10.0 and record["quantiles_ms"][-1] > 30.0


def test_samples_that_are_no_numbers_are_left_out() -> None:
    row = a_row("fp32", 10.0)
    assert row.timing
    rows = Rows([[InMemory([row], Measurement)]])
    (table,) = rows.tables([samples.LATENCIES], 1)
    column = table[samples.LATENCIES].to_pylist()
    spoilt = pa.chunked_array([[[math.nan, *column[0], math.inf], None]])
    first, none = samples.pieces_of(spoilt)
    assert first.tolist() == column[0] and not none.size


@given(st.lists(st.floats(1, 1000), min_size=3, max_size=300), st.integers(2, 60))
def test_a_thinned_trace_keeps_its_mean(power: list[float], most: int) -> None:
    times = np.arange(len(power), dtype=float)
    trace = samples.trace_of(times, np.array(power), most)
    assert len(trace.power_w) <= max(most, len(power) if len(power) <= most else most)
    weights = np.diff([*np.linspace(0, len(power), most, endpoint=False).astype(int), len(power)])
    if len(power) > most:
        assert np.average(trace.power_w, weights=weights) == pytest.approx(np.mean(power))
        assert not trace.ticks_s
    else:
        assert list(trace.power_w) == power
        assert len(trace.ticks_s) == sum(a != b for a, b in itertools.pairwise(power))


def test_the_windows_of_a_trace_lie_between_its_pauses(
    example: tuple[Rows, list[Case], Data],
) -> None:
    for record in example[2][TRACES]:
        assert len(record["window_from_s"]) == 5  # the protocol standard has five windows
        bounds = list(
            itertools.chain(*zip(record["window_from_s"], record["window_to_s"], strict=True))
        )
        assert bounds == sorted(bounds)


def test_parts_add_up(example: tuple[Rows, list[Case], Data]) -> None:
    for record in example[2][CASES]:
        assert record["net_mj"] + record["idle_mj"] == pytest.approx(record["energy_mj"])
        whole = sum(record[f"{name}_ms"] for name in CLASSES)
        kernels = sum(record[f"{name}_ms"] for name in KERNEL_CLASSES)
        assert whole == pytest.approx(max(record["latency_ms"], kernels))
        assert record["latency_low_ms"] <= record["latency_ms"] <= record["latency_high_ms"]


def test_net_energy_is_that_of_the_rows(example: tuple[Rows, list[Case], Data]) -> None:
    table = pq.read_table(EXAMPLE).to_pylist()
    stored = {(r["gpu_type"], r["precision"], r["engine"], r["batch_size"]): r for r in table}
    for record in example[2][CASES]:
        key = tuple(record[name] for name in ("gpu", "precision", "engine", "batch"))
        assert record["net_mj"] == pytest.approx(stored[key]["energy_net_per_sample_mj"], rel=1e-6)


def test_a_roof_bends_where_memory_meets_arithmetic(
    example: tuple[Rows, list[Case], Data],
) -> None:
    roofs = example[2][ROOFS]
    for (cell, source), several in itertools.groupby(roofs, lambda r: (r["cell"], r["source"])):
        begin, knee, end = several
        assert begin["flop_per_byte"] < knee["flop_per_byte"] < end["flop_per_byte"], (cell, source)
        assert begin["tflops"] < knee["tflops"]
        assert knee["tflops"] == pytest.approx(end["peak_tflops"])
        assert end["tflops"] == end["peak_tflops"]
    of_t4 = [r for r in roofs if r["cell"] == "T4 fp16" and r["source"] == data.DATASHEET]
    assert {(r["peak_tflops"], r["gb_per_s"]) for r in of_t4} == {(65, 320)}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_each_figure_is_drawn_or_says_in_one_line_that_it_is_not(
    figure: Any, example: tuple[Rows, list[Case], Data], drawn: dict[str, str]
) -> None:
    if figure.name == "perplexity":  # a modelled GPU predicts nothing
        assert figure.name not in drawn
        assert "\n" not in figure.absent and figure.absent.endswith(".")
        return
    caption = figure.caption(example[2])
    assert "no number is a real one" in caption
    assert "simulated" in drawn[figure.name]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_each_axis_of_a_figure_has_a_unit(figure: Any) -> None:
    titles = set()

    def look(spec: Any) -> None:
        if isinstance(spec, dict):
            if spec.get("type") == "quantitative" and spec.get("title"):
                titles.add(spec["title"])
            for part in ("layer", "encoding", "x", "y"):
                look(spec.get(part))
        elif isinstance(spec, list):
            for part in spec:
                look(part)

    look(figure.chart(alt.NamedData).to_dict())
    assert titles
    units = ("(ms)", "(mJ)", "(W)", "(s)", "(min)", "(FLOP/B)", "TFLOP/s", "nats per token")
    assert all(t in AXES_WITHOUT_UNIT or any(unit in t for unit in units) for t in titles), titles


def test_the_front_has_just_what_nothing_dominates(
    example: tuple[Rows, list[Case], Data],
) -> None:
    figure = named("energy-latency")
    for panel in figure.panels(example[2]):
        best = {
            (r["latency_ms"], r["energy_mj"])
            for r in panel
            if not any(
                o["latency_ms"] <= r["latency_ms"] and o["energy_mj"] < r["energy_mj"]
                for o in panel
            )
        }
        spec = figure.of_one(panel, example[2]).to_dict()
        scene = vl_convert.vegalite_to_scenegraph(json.dumps(spec))
        (line,) = [m for m in marks(scene["scenegraph"]) if is_front(m)]
        assert len(line["items"]) == len(best)


def scene_of(name: str, found: Data) -> list[Any]:
    """The marks of the first panel of a figure."""
    figure = named(name)
    spec = figure.of_one(figure.panels(found)[0], found).to_dict()
    return marks(vl_convert.vegalite_to_scenegraph(json.dumps(spec))["scenegraph"])


def test_as_much_energy_in_more_time_is_not_on_the_front_and_a_gpu_is_named_once() -> None:
    rows = [a_row("fp32", 10.0), a_row("fp16", 5.0), a_row("mixed", 7.0, energy_mj=80.0)]
    found = scene_of("energy-latency", data_of(*rows))
    (line,) = [mark for mark in found if is_front(mark)]
    assert len(line["items"]) == 2
    names = [item["text"] for mark in found if mark["marktype"] == "text" for item in mark["items"]]
    assert names.count("T4") == 1


@pytest.mark.parametrize("uncertainty", [None, 0.5, 1.0, 40.0])
def test_no_energy_is_less_than_none(uncertainty: float | None) -> None:
    energy = Energy("power", per_sample_mj=100.0, uncertainty=uncertainty)
    found = data_of(a_row("fp32", 10.0, energy=energy))
    (record,) = found[CASES]
    assert record["energy_low_mj"] is None or 0 <= record["energy_low_mj"] < 100
    rules = [mark for mark in scene_of("energy-latency", found) if mark["marktype"] == "rule"]
    rules = [mark for mark in rules if mark["role"] == "mark"]  # no line of a grid
    assert rules
    ends = [item[end] for mark in rules for item in mark["items"] for end in ("y", "y2")
            if end in item]  # fmt: skip
    assert all(0 <= end <= style.HEIGHT_PX for end in ends)


def test_a_bar_says_where_the_latency_lies_in_what_was_traced() -> None:
    trace = Trace("op", traced_ms=30.0, matmul_ms=30.0)
    found = scene_of("where-time-goes", data_of(a_row("fp32", 10.0, trace=trace)))
    bar, tick = ([m for m in found if m["marktype"] == "rect" and m["items"]][at] for at in (0, -1))
    matmul = max(item["width"] for item in bar["items"])
    assert tick["items"][0]["x"] == pytest.approx(matmul / 3, rel=0.05)


def test_a_long_name_of_a_row_keeps_its_precision() -> None:
    long = "NVIDIA-H100-80GB-HBM3-with-a-very-long-name"
    rows = [replace(row, cell=replace(row.cell, gpu_type=long)) for row in
            (a_row("fp32", 10.0), a_row("fp16", 5.0))]  # fmt: skip
    chart = named("latency-distribution").static(data_of(*rows))
    svg = vl_convert.vegalite_to_svg(json.dumps(chart.to_dict()))
    assert "name fp16<" in svg and "name fp32<" in svg and "NVIDIA-H100" in svg


def marks(scene: Any) -> list[Any]:
    """All marks of a scene, also those within groups."""
    found = [scene] if scene.get("marktype") else []
    for item in scene.get("items", ()):
        if isinstance(item, dict):
            found += marks(item)
    return found


def is_front(mark: Any) -> bool:
    """Whether it is the dashed line of the Pareto front."""
    items = mark.get("items") or [{}]
    return mark["marktype"] == "line" and items[0].get("strokeDash") == [4, 3]


def test_no_interval_is_drawn_as_none_and_no_order_changes() -> None:
    rows = [a_row("fp32", 10.0), a_row("fp16", 5.0), a_row("mixed", 12.0)]
    found = data_of(*rows)
    assert [record["precision"] for record in found[CASES]] == ["fp32", "fp16", "mixed"]
    speedups = named("speedup").drawn(found)
    assert [record["precision"] for record in speedups] == ["fp16", "mixed"]
    assert speedups[0]["speedup_low"] <= speedups[0]["speedup"] <= speedups[0]["speedup_high"]


def test_titles_say_what_differs_and_nothing_else() -> None:
    same = data_of(a_row("fp32", 10.0), a_row("fp16", 5.0))
    assert {record["of_workload"] for record in same[CASES]} == {"gpt2"}
    row = a_row("fp32", 10.0)
    other = replace(row, workload=replace(row.workload, batch_size=8))
    found = data_of(row, other)
    assert [r["of_workload"] for r in found[CASES]] == ["batch 1", "batch 8"]
    assert [r["of_batches"] for r in found[CASES]] == ["T4", "T4"]
    assert len(named("latency-batch").panels(found)) == 1
    assert not named("latency-batch").panels(same)


def test_a_caption_names_the_doubtful_points() -> None:
    busy = (RowWarning("host-busy", {"share": 0.3}),)
    found = data_of(a_row("fp32", 10.0), a_row("fp16", 5.0, warnings=busy))
    caption = named("speedup").caption(found)
    assert "Hollow points have warnings: T4 fp16." in caption
    assert "Simulated" not in caption


def test_a_row_that_failed_is_in_the_schedule_and_in_no_other_figure() -> None:
    failed = measurement(outcome=Outcome.FAILED, reason="broke", timing=None, energy=None)
    found = data_of(failed)
    assert [record["outcome"] for record in found[RAN]] == ["FAILED"]
    assert [figure.name for figure in FIGURES if figure.panels(found)] == ["sweep"]
    assert all(figure.static(found) is None for figure in FIGURES if figure.name != "sweep")


def test_nothing_measured_is_no_figure() -> None:
    empty = data.of([])
    assert all(figure.static(empty) is None for figure in FIGURES)


def test_an_unknown_figure_is_told_with_the_known_ones() -> None:
    with pytest.raises(TensorgapError, match="speed: there is no such figure; there are speedup"):
        named("speed")


def test_the_keys_of_samples_are_those_of_cases(example: tuple[Rows, list[Case], Data]) -> None:
    rows, cases, _ = example
    found = samples.of_rows(rows)
    assert set(found.quantiles) == {data.key_of(case) for case in cases}
    assert len(found.ran) == len(rows)
    assert set(merging.IDENTITY) <= set(found.ran[0])


def test_a_trace_that_is_left_out_is_told(
    example: tuple[Rows, list[Case], Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, cases, _ = example
    monkeypatch.setattr(samples, "MOST_TRACES", 5)
    found = data.of(cases, samples.of_rows(rows))
    assert len(found[TRACES]) == 5
    assert "The power of 43 more is only in the rows." in named("power").caption(found)
