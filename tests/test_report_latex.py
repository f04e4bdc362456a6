"""Tables as LaTeX: what anybody wrote stands in it as text, and `explain` reads it back."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import hypothesis.strategies as st
import pytest
from examples import measurement
from hypothesis import example, given
from sweeps import Run
from test_report_cost import a_row

from bench.asked import Cell
from bench.files.limits import Allowance
from bench.measured import Outcome
from jobs.report import compare, cost, cost_table, latex, table
from jobs.report.facts import Case
from jobs.report.foreign import read
from jobs.report.foreign.understood import Told
from jobs.report.prices import Prices

ROOT = Path(__file__).resolve().parent.parent
MODELLED = ROOT / "jobs/examples/modelled.parquet"
PRICES = ROOT / "jobs/examples/prices.toml"
# Commands that `escaped` writes, each of which prints one sign.
WRITTEN = re.compile(
    r"\\(?:[{}_&%#$]|(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater"
    r"|textbar|textasciigrave|textmu|ldots)\{\})|\$\\(?:times|pm)\$|\{\}"
)


@given(st.text())
@example("\\\\[1ex] \\input{/etc/passwd} 50 % a_b $x$ ~ ^ # & --- ``x'' \"a \x1b[31m \u202e")
@example("*")
@example("[x]")
def test_a_text_starts_no_command_of_its_own(text: str) -> None:
    told = latex.escaped(text)
    assert not re.search(r"[\\{}$&#^_~%]", WRITTEN.sub("", told))
    assert told.isprintable()
    assert all(sign < "\u0180" for sign in told)
    assert not told.startswith(("*", "["))
    # Two hyphens, quotation marks or such would be printed as another sign.
    assert "--" not in told.replace("--", "", text.count("\u2013") + 2 * text.count("\u2014"))


@given(st.text("abcXYZ 019.,:;()+-/=<>*[]_%&#$", min_size=1))
def test_a_plain_text_keeps_its_words(text: str) -> None:
    printed = latex.escaped(text)
    for written, sign in ((r"\textless{}", "<"), (r"\textgreater{}", ">"), ("{}", "")):
        printed = printed.replace(written, sign)
    assert re.sub(r"\\(.)", r"\1", printed) == text.strip()


def cases() -> list[Case]:
    rows = [
        a_row("T4", "fp32", 10.0, 900.0, latency_ms=40.0),
        a_row("T4", "fp16", 20.0, 300.0, latency_ms=21.0),
        a_row("A100", "fp32", 90.0, None, latency_ms=5.0),
        measurement(
            cell=Cell("A100", "tf32"), workload=a_row().workload, outcome=Outcome.TIMED_OUT,
            reason="took > 5 s & 50 % more", timing=None, energy=None,
        ),
    ]  # fmt: skip
    return compare.compared(sorted(rows, key=lambda row: row.cell.gpu_type))


def test_a_table_has_a_rule_between_workloads_and_a_dash_for_what_is_missing() -> None:
    told = latex.document(cases())
    assert told.count(r"\begin{table}") == told.count(r"\toprule") == 1
    body = told.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    assert body.count(r"\midrule") == 1
    lines = [line.strip() for line in body.splitlines() if "&" in line]
    assert lines[0].startswith("A100 & eager & 4 & fp32 & 5.00 & 1.00 & -- & -- & 90.0")
    assert lines[1] == r"A100 & eager & 4 & tf32 & TIMED\_OUT & -- & -- & -- & -- \\"
    assert "A100 eager batch 4: tf32: TIMED\\_OUT: took \\textgreater{} 5 s \\& 50 \\% more" in told
    # No row has a perplexity.
    assert "Perplexity" not in told


def test_a_warning_stands_below_the_table_with_its_rows(run: Run) -> None:
    told = run("report", MODELLED, "--format", "latex").stdout
    assert r"\caption{Simulated GPUs: gpt2:random, 128 prompt tokens}" in told
    assert re.search(
        r"A100 eager and graph batch 1 and 32 fp16 and mixed: compared with fp32:"
        r" trace\\_attention should agree",
        told,
    )
    assert "1.21* [1.15, 1.26]" in told


def test_a_long_table_is_cut_between_workloads(run: Run) -> None:
    told = run("report", MODELLED, "--format", "latex").stdout
    tables = told.split(r"\begin{table}")[1:]
    counts = [len(re.findall(r"^ +(?:A100|P100|T4|V100) &", part, re.M)) for part in tables]
    assert sum(counts) == 48
    assert max(counts) <= latex.MOST_ROWS
    assert all(count % 3 == 0 for count in counts)
    assert len({*re.findall(r"\\label\{(.*)\}", told)}) == len(tables)


def test_explain_reads_back_what_was_written(tmp_path: Path) -> None:
    written = cases()
    place = tmp_path / "table.tex"
    place.write_text(latex.document(written))
    found = read.load(str(place), Told(), Allowance()).cases
    by_name = {(case.gpu_type, case.precision): case for case in found if case.latency_ms}
    measured = [case for case in written if case.outcome == Outcome.OK]
    assert len(by_name) == len(measured)
    for case in measured:
        again = by_name[case.gpu_type, case.precision]
        assert again.workload == case.workload
        for name in ("latency_ms", "energy_mj", "throughput_per_s"):
            value, told = getattr(case, name), getattr(again, name)
            assert told == (None if value is None else pytest.approx(value, rel=0.005))


def test_the_modelled_example_survives_the_way(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "table.tex"
    place.write_text(run("report", MODELLED, "--format", "latex").stdout)
    found = read.load(str(place), Told(), Allowance()).cases
    assert len(found) == 48
    assert {case.gpu_type for case in found} == {"A100", "P100", "T4", "V100"}
    assert {case.workload.batch_size for case in found} == {1, 32}
    assert {case.workload.engine for case in found} == {"eager", "graph"}


def test_costs_are_tables_too() -> None:
    paid = Prices("EUR_&", {"T4": 1.0})
    sheets = list(cost_table.sheets(cost.by_task(cases(), paid), paid))
    told = latex.document([], sheets)
    assert r"price (EUR\_\&) [95 \%]" in told
    assert r"\label{tab:tensorgap-cost-1}" in told
    many = table.Sheet("t", ["a", "b"], [["x", str(at)] for at in range(65)], ["once"])
    parts = latex.document([], [many]).split(r"\begin{table}")[1:]
    assert [part.count("x &") for part in parts] == [30, 30, 5]
    assert sum("once" in part for part in parts) == 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_sets_it(run: Run, tmp_path: Path) -> None:
    told = run("report", MODELLED, "--format", "latex", "--prices", PRICES).stdout
    strange = latex.escaped('\\input{x} % _ ^ ~ {} $ # & " ` | <> -- \u4e2d \u00e9 \u00b5')
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{told}\n\n{strange}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
