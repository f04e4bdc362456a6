from __future__ import annotations

import base64
import gzip
import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import kept_rows
import pytest
import two_runs
from examples import measurement
from hypothesis import given
from sweeps import Run
from test_jobs_report import a_row

from bench.measured import Measurement, Outcome
from bench.results.columns import Source
from bench.results.rows import Rows
from jobs import reading
from jobs.report.changes.records import Comparison
from jobs.report.page import comparison as comparison_page
from jobs.report.page import document, payload, report

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "jobs" / "examples" / "modelled.parquet"
EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'
MATRIX = '[cells]\ngpu_types = ["CPU"]\n[[workloads]]\nmodel = "tiny"\n'


def page_of(*rows: Measurement, sources: tuple[Source, ...] = ()) -> str:
    """The page of rows that are held in memory."""
    return report.page(Rows([[kept_rows.InMemory(rows, Measurement)]]), sources)


@pytest.fixture(scope="module")
def example() -> str:
    """The page of four modelled GPUs."""
    return report.page(*reading.read([str(EXAMPLE)], 10**9))


class Seen(HTMLParser):
    """What a page has of each kind of element, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        """Read a page."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._within = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        """Whatever comes now is in no script."""
        self._within = ""

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if self._within not in ("script", "style"):
            self.text += data


def data_of(page: str) -> dict[str, list[dict[str, Any]]]:
    """What the page's script unpacks."""
    packed = re.search(r'<script type="text/plain" id="data">(.*?)</script>', page, re.S)
    assert packed
    return unpacked(packed[1])


def unpacked(text: str) -> dict[str, list[dict[str, Any]]]:
    """Records as `payload.packed` packs them."""
    sets = json.loads(gzip.decompress(base64.b64decode(text)))
    return {
        name: [
            {**one["same"], **{field: values[at] for field, values in one["columns"].items()}}
            for at in range(one["count"])
        ]
        for name, one in sets.items()
    }


def test_the_page_opens_with_three_to_seven_sentences_worst_first(example: str) -> None:
    answer = re.search(r'<ol class="answer">(.*?)</ol>', example, re.S)
    assert answer
    verdicts = re.findall(r'<span class="verdict (\w+)">', answer[1])
    order = ["reject", "fix", "inconclusive", "accept"]
    assert 3 <= answer[1].count("<li>") <= 7
    assert verdicts == sorted(verdicts, key=order.index) and verdicts
    assert example.index("The answer") < example.index("The numbers") < example.index("Figures")
    assert example.index(">Figures<") < example.index("How it was measured")


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_have_three_sentences_too(rows: int) -> None:
    precisions = ("fp32", "fp16", "mixed")[:rows]
    page = page_of(*(a_row(name, 10.0 + at) for at, name in enumerate(precisions)))
    answer = re.search(r'<ol class="answer">(.*?)</ol>', page, re.S)
    assert answer and 3 <= answer[1].count("<li>") <= 7


def test_the_page_loads_nothing(example: str) -> None:
    seen = Seen(example)
    assert not [tag for tag, _ in seen.elements if tag in ("link", "iframe", "img", "object")]
    assert not [about for _, about in seen.elements if "src" in about or "href" in about]
    (policy,) = [about["content"] for tag, about in seen.elements if about.get("http-equiv")]
    assert policy and policy.startswith("default-src 'none'") and "connect-src" not in policy
    assert "unsafe-eval" not in policy
    assert len(example) < 3_000_000


def test_each_row_is_in_the_data_and_in_the_table(example: str) -> None:
    records = data_of(example)["cases"]
    assert len(records) == 48
    assert all(record["simulated"] for record in records)
    table = re.search(r"<tbody>(.*?)</tbody>", example, re.S)
    assert table
    lines = re.findall(r"<tr>(.*?)</tr>", table[1], re.S)
    cells = [
        [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)] for line in lines
    ]
    assert cells == [record["cells"] for record in records]


def test_rows_that_differ_only_in_attention_or_new_tokens_are_told_apart() -> None:
    row = a_row("fp32", 10.0)
    rows = [
        replace(row, workload=replace(row.workload, attention=attention, new_tokens=new))
        for attention in ("flash", "math")
        for new in (0, 16)
    ]
    page = page_of(*rows)
    for cell in ("flash", "math"):
        assert page.count(f'<td class="">{cell}</td>') == 2
    fields = {one["field"] for one in report.FILTERS}
    assert {"attention", "new_tokens"} <= fields
    for records in data_of(page).values():
        assert all(fields <= set(record) for record in records)


def test_simulated_rows_say_so_at_the_top_and_in_each_caption(example: str) -> None:
    assert "All rows are of simulated GPUs; none of their numbers is a real one." in example
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", example, re.S)
    assert len(captions) == 9
    assert all("Simulated GPUs" in caption for caption in captions)
    assert "imulated" not in Seen(page_of(a_row("fp32", 10.0))).text


def test_how_it_was_measured_is_there_to_judge_and_to_repeat(example: str) -> None:
    text = Seen(example).text
    for fact in ("torch", "2.11.0+cu130", "NVIDIA driver", "580.65.06", "closed loop", "warm-up",
                 "NVIDIA A100-SXM4-40GB", "[[workloads]]", "gpu_types"):  # fmt: skip
        assert fact in text, fact


def test_a_name_with_markup_is_text() -> None:
    row = a_row("fp32", 10.0)
    assert row.device and row.software
    evil = replace(
        row,
        cell=replace(row.cell, gpu_type=EVIL),
        workload=replace(row.workload, model=f"{EVIL}{{{{ 7*7 }}}}"),
        device=replace(row.device, name=EVIL, gpu_type=EVIL),
        software=replace(row.software, torch=EVIL),
        run=f"{EVIL}/1",
    )
    failed = replace(evil, outcome=Outcome.FAILED, reason=EVIL, replicate=1)
    source = Source(f"{EVIL}/1", f"# {EVIL}\n{MATRIX}", EVIL, EVIL)
    page = page_of(evil, failed, sources=(source,))
    seen = Seen(page)
    assert sum(tag == "script" for tag, _ in seen.elements) == 5  # look, specs, data, Vega, ours
    assert not [tag for tag, _ in seen.elements if tag == "img"]
    assert not [about for _, about in seen.elements if "onerror" in about]
    assert EVIL in seen.text and "{{ 7*7 }}" in seen.text


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(st.fixed_dictionaries({"a": values, "b</script>": values}), max_size=6))
def test_what_is_packed_is_unpacked(records: list[dict[str, Any]]) -> None:
    packed = payload.packed({"cases": records})
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", packed)
    assert unpacked(packed)["cases"] == records


@given(st.floats())
def test_a_number_is_packed_to_six_digits_or_is_not_known(number: float) -> None:
    short = payload.short(number)
    if number - number != 0:
        assert short is None
    else:
        assert short == pytest.approx(number, rel=5e-6, abs=0)


@given(st.text())
def test_json_in_a_script_cannot_end_it(text: str) -> None:
    written = document.script_json({"a": f"{text}</script>{text}<!--"})
    assert "<" not in written
    assert json.loads(written) == {"a": f"{text}</script>{text}<!--"}


def test_rows_without_anything_measured_have_a_page() -> None:
    failed = measurement(outcome=Outcome.FAILED, reason="broke", timing=None, energy=None)
    text = Seen(page_of(failed)).text
    assert "No row is OK" in text and "broke" in text
    assert "No rows on no GPU" in page_of()


def test_the_command_writes_the_page_and_says_where(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    done = run("report", EXAMPLE, "--html", place)
    assert (done.returncode, done.stdout) == (0, f"{place}\n"), done
    assert place.read_text("utf-8").startswith("<!doctype html>")


def test_the_command_writes_each_figure_that_has_data(run: Run, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    kept_rows.write(few, [a_row("fp32", 11.7), a_row("fp16", 10.4)])
    done = run("report", few, "--figures", tmp_path / "figures")
    written = sorted((tmp_path / "figures").iterdir())
    names = {path.stem for path in written}
    assert names == {"speedup", "energy-latency", "latency-distribution"}
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == list(map(str, written))
    assert "Roofline: no row has a profile" in done.stderr
    for path in written:
        head = path.read_bytes()[:5]
        assert head == (b"%PDF-" if path.suffix == ".pdf" else b"<svg ")


@pytest.mark.parametrize("place", ["results.parquet", "page", ""])
def test_a_page_is_never_written_over_results(run: Run, tmp_path: Path, place: str) -> None:
    target = tmp_path / place if place else tmp_path
    if place:
        target.write_text("mine")
    done = run("report", EXAMPLE, "--html", target)
    assert done.returncode == 2 and "must end in .html" in done.stderr
    assert not place or target.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_message(run: Run, tmp_path: Path) -> None:
    done = run("report", EXAMPLE, "--html", tmp_path / "missing" / "report.html")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def test_without_the_extra_one_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['altair'] = None; from jobs.cli import main;"
        f"main(['report', {str(EXAMPLE)!r}, '--html', 'report.html'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        "tensorgap: --html: altair is not installed; install it with pip install"
        " 'tensorgap[report]'\n"
    )


def test_the_table_needs_neither_altair_nor_torch() -> None:
    code = (
        "import sys; from jobs.cli import main\n"
        f"try: main(['report', {str(EXAMPLE)!r}])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('altair', 'torch', 'ray', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_prices_are_a_table_of_the_page_with_the_cheapest_named(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    prices = ROOT / "jobs/examples/prices.toml"
    done = run("report", EXAMPLE, "--html", place, "--prices", prices)
    assert done.returncode == 0, done.stderr
    text = Seen(place.read_text("utf-8")).text
    assert "What it costs" in text and "Cheapest: " in text and "Most frugal: " in text
    told = run("report", EXAMPLE, "--prices", prices, "--format", "json").stdout
    dearest = max(one["price_per_million"] for one in json.loads(told))
    assert f"{dearest:.3g}" in text


def comparison(*newer: Measurement) -> Comparison:
    """A run against one in which a cell became slower."""
    return two_runs.compare(two_runs.a_run(), list(newer))


def test_the_page_of_a_comparison_has_each_change(tmp_path: Path) -> None:
    slower = two_runs.a_run(two_runs.NEW, seed=1, longer=1.1)
    page = comparison_page.page(comparison(*slower))
    seen, records = Seen(page), data_of(page)["changes"]
    assert len(records) == 4 * len(two_runs.CELLS)
    worse = [record for record in records if record["verdict"] == "worse"]
    assert {(r["cell"].split()[0], r["metric"]) for r in worse} == {
        ("T4", "latency"), ("T4", "throughput"), ("T4", "energy")
    }  # fmt: skip
    for record in worse:
        assert not record["ratio_low"] <= 1 <= record["ratio_high"]
        assert record["change"] in seen.text
    assert "3 became worse" in seen.text and "What was compared" in seen.text
    assert len(page) < 3_000_000


def test_what_is_identical_is_no_point_of_the_figure() -> None:
    page = comparison_page.page(comparison(*two_runs.a_run(two_runs.NEW, seed=1)))
    ratios = {record["metric"]: record["ratio"] for record in data_of(page)["changes"]}
    assert ratios["perplexity"] is None and ratios["latency"]


def test_a_row_that_is_no_longer_ok_is_the_worst_of_the_page() -> None:
    rows = two_runs.a_run(two_runs.NEW, seed=1)
    failed = two_runs.not_ok(rows[:5], EVIL) + rows[5:]
    page = comparison_page.page(comparison(*failed))
    (record,) = [r for r in data_of(page)["changes"] if r["metric"] == "outcome"]
    assert (record["verdict"], record["new_text"]) == ("worse", "FAILED")
    answer = re.search(r'<ol class="answer">(.*?)</ol>', page, re.S)
    assert answer and "FAILED" in answer[1].split("</li>")[0]
    assert EVIL in Seen(page).text and EVIL not in page


def test_the_command_writes_the_page_of_a_comparison(run: Run, tmp_path: Path) -> None:
    old, new, page = (tmp_path / name for name in ("old.parquet", "new.parquet", "changes.html"))
    kept_rows.write(old, two_runs.a_run(), [Source(two_runs.OLD, two_runs.MATRIX, "0.1.0", None)])
    slower = two_runs.a_run(two_runs.NEW, seed=1, longer=1.1)
    kept_rows.write(new, slower, [Source(two_runs.NEW, two_runs.MATRIX, "0.1.0", None)])
    done = run("compare", old, new, "--html", page, "--fail-on", "latency>5%")
    assert (done.returncode, done.stdout) == (1, f"{page}\n")
    assert "latency" in done.stderr and page.read_text("utf-8").startswith("<!doctype html>")
    assert run("compare", old, new, "--html", tmp_path / "new.parquet").returncode == 2


@pytest.mark.parametrize("option", ["--html", "--figures", "--against"])
def test_an_empty_name_is_no_missing_option(run: Run, option: str) -> None:
    done = run("report", EXAMPLE, option, "")
    assert done.returncode == 2 and done.stdout == ""


def test_how_it_was_measured_has_each_kind_of_warning_once_and_only_what_was_scored() -> None:
    page = report.page(*reading.read([str(EXAMPLE.with_name("local.parquet"))], 10**9))
    how = Seen(page[page.index('<h2 id="how">') : page.index("<pre")]).text
    assert how.count("other processes used") == 1 and "% of the host CPU time" in how
    assert "embedded test" in how and "embedded, embedded test" not in how
