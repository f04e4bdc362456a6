"""The text for a paper: each number in it follows from the columns that its footnote names."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import hypothesis.strategies as st
import kept_rows
import pyarrow.parquet as pq
import pytest
from examples import measurement
from hypothesis import given
from sweeps import Run
from test_jobs_report import a_row

from bench import __version__, stats
from bench.asked import Cell, Sampling
from bench.measured import Measurement, Outcome, Quality
from bench.results.columns import Source
from bench.stats import Median
from bench.warnings import RowWarning
from jobs.report.table import escaped
from jobs.report.traced import code, literal

ROOT = Path(__file__).resolve().parent.parent
MODELLED = ROOT / "jobs/examples/modelled.parquet"
NUMBER = re.compile(r"[<>]?[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
PRECISIONS = r"\b(?:fp32|tf32|fp16|bf16|mixed)\b"
MATRIX = '[[workloads]]\nmodel = "gpt2"\n[sampling]\nmedian_within = 0.02\n'
SOURCE = Source("study/now", MATRIX, __version__, None)


class Text:
    """A text with the results that it is of."""

    def __init__(self, run: Run, place: Path) -> None:
        done = run("report", place, "--methods")
        assert (done.returncode, done.stderr) == (0, "")
        self.place, self.whole = place, done.stdout
        self.body, _, notes = self.whole.partition("\n\nEach footnote is the query")
        found = re.findall(r"^\[\^(\d+)\]: (.*)$", notes, re.M)
        self.sources = {int(at): source for at, source in found}
        self._rows = duckdb.connect()
        self._rows.execute(f"create table results as select * from {str(place)!r}")

    def query(
        self, expression: str, condition: str | None = None, of: str = "results"
    ) -> list[Any]:
        """What DuckDB gives, lists in one: without what is null."""
        where = f" where {condition}" if condition else ""
        (row,) = self._rows.execute(f"select {expression} from {of}{where}").fetchall()
        values = [one for value in row for one in (value if isinstance(value, list) else [value])]
        return [value for value in values if value is not None]

    def records(self, condition: str) -> list[dict[str, Any]]:
        """Rows as DuckDB gives them, in the order of the replicates."""
        found = self._rows.sql(f"select * from results where {condition} order by replicate")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    def claims(self) -> Iterator[tuple[str, str]]:
        """Each piece of the text with the source of what stands at its end."""
        for paragraph in re.split(r"\n+", self.body):
            pieces = re.split(r"(?<!\\)\[\^(\d+)\]", paragraph)
            for piece, at in zip(pieces[::2], pieces[1::2], strict=False):
                yield piece, self.sources[int(at)]
            yield pieces[-1], ""


def unquoted(text: str) -> str:
    """A text without what Markdown needs."""
    return re.sub(r"\\(.)", r"\1", text)


def agrees(told: str, value: float) -> bool:
    """Whether a number, as it was written, is this value, rounded."""
    if told[0] in "<>":
        return value < 0.01 if told[0] == "<" else value > 100
    written = Decimal(told.replace(",", ""))
    exponent = written.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(float(written) - value) <= 0.501 * 10.0**exponent


def interval(text: Text, source: str) -> list[float]:
    """The ends that a source names, from its columns alone."""
    how, mine, base, condition = re.fullmatch(
        r"interval by `(\w+)` from .*; `(.*?)` and `(.*?)`(?: where `(.*)`)?", source
    ).groups()  # type: ignore[union-attr]
    sides = [text.records(" and ".join(filter(None, (of, condition)))) for of in (mine, base)]
    if how == "ratio_of_medians":
        names = [f"timing_latency_ms_p50{end}" for end in ("", "_low", "_high")]
        medians = [[Median(*(row[name] for name in names)) for row in rows] for rows in sides]
        found = stats.ratio_of_medians(medians[1], medians[0])
        return [found.low, found.high]
    if how == "paired_difference":
        nats = [rows[0]["quality_window_nats"] for rows in sides]
        difference = stats.paired_difference(*nats, sides[0][0]["quality_window_tokens"])
        assert difference.low is not None and difference.high is not None
        return [difference.low, difference.high]
    assert how == "energy_ratio"
    values, halves = [], []
    for rows in sides:
        energies = [row["energy_per_sample_mj"] for row in rows]
        values.append(sum(energies) / len(energies))
        known = [row["energy_uncertainty"] for row in rows]
        scatter = stats.student_interval(energies) / values[-1] if len(energies) > 1 else 0.0
        halves.append(max(*known, scatter, 0.0))
    ratio = values[0] / values[1]
    return [ratio * (1 - math.hypot(*halves)), ratio * (1 + math.hypot(*halves))]


def values_of(text: Text, source: str) -> list[Any]:
    """What a source gives."""
    if source.startswith("100 x `sampling.median_within`"):
        (stored,) = json.loads(pq.read_schema(text.place).metadata[b"tensorgap.sources"])
        sampling = tomllib.loads(stored["matrix"]).get("sampling", {})
        return [100 * sampling.get("median_within", Sampling().median_within)]
    if source.startswith("interval by"):
        return interval(text, source)
    if found := re.fullmatch(r"`(list\(distinct \w+\))` of compared rows", source):
        return text.query(found[1])
    if found := re.fullmatch(r"`w.text` of the warnings w with `(.*)`", source):
        each = "(select unnest(warnings) as w from results)"
        return text.query("list(distinct w.text)", found[1], each)
    plain = re.fullmatch(r"`(.+?)`(?: where `(.*)`)?", source)
    assert plain, source
    return text.query(plain[1], plain[2])


def of_names(told: str, values: list[Any]) -> str:
    """What is left of a text without the values, each of which must stand in it."""
    for value in sorted(map(str, values), key=len, reverse=True):
        assert value in told, (told, values)
        told = told.replace(value, "")
    return told


def of_numbers(told: str, source: str, values: list[Any]) -> str:
    """What is left of a text without its last numbers, which must be the values."""
    told = re.sub(PRECISIONS, "", told)
    numbers = list(NUMBER.finditer(told))
    if source.startswith("`min(") and not re.search(rf"{NUMBER.pattern} to {NUMBER.pattern}", told):
        values = values[:1]  # the ends read alike
    last = numbers[-len(values) :]
    for found, value in zip(last, values, strict=True):
        assert agrees(found[0], value), (told, source, values)
    for found in reversed(last):
        told = told[: found.start()] + told[found.end() :]
    return told


def of_warnings(told: str, values: list[Any]) -> str:
    """Nothing: each number in the words of warnings must be of one of them."""
    known = {number for value in values for number in NUMBER.findall(value)}
    assert {*NUMBER.findall(told)} <= known, (told, known)
    return ""


def check(text: Text) -> int:
    """Check each claim, and that no number is without one; how many there are."""
    rest, count = [], 0
    for piece, source in text.claims():
        told = re.sub(r"\*\*.*\*\*|`[^`]*`", "", unquoted(piece))  # titles and codes
        if source:
            count += 1
            values = values_of(text, source)
            assert values, source
            if "w.text" in source:
                told = of_warnings(told, values)
            elif source.startswith("`list("):
                told = of_names(told, values)
            else:
                told = of_numbers(told, source, values)
        rest.append(told)
    left = re.sub(PRECISIONS + r"|95 %", "", " ".join(rest))
    assert not re.search(r"\d", left), left
    return count


def rows() -> list[Measurement]:
    """Two replicates of two precisions, with energy, perplexity and warnings, and one failure."""

    def nats(precision: str) -> Quality:
        windows = tuple(
            300.0 + at % 7 + (0.01 + at % 3 / 50) * (precision == "fp16") for at in range(30)
        )
        total = sum(windows)
        return Quality(
            "embedded test", nats=total, tokens=3000, perplexity=math.exp(total / 3000),
            mode="tensorgap", context=256, stride=128, text_sha256="t", tokens_sha256="i",
            window_nats=windows, window_tokens=(100,) * 30,
        )  # fmt: skip

    found = [
        a_row(precision, latency * (1 + replicate / 50), replicate=replicate,
              energy_mj=energy * (1 + replicate / 20), quality=nats(precision))
        for replicate in (0, 1)
        for precision, latency, energy in (("fp32", 11.7, 580.0), ("fp16", 10.4, 370.0))
    ]  # fmt: skip
    busy = [RowWarning("host-busy", {"share": share}) for share in (0.07, 0.31)]
    found[:2] = [
        dataclasses.replace(row, warnings=(one,)) for row, one in zip(found, busy, strict=False)
    ]
    failed = dataclasses.replace(
        measurement(cell=Cell("T4", "tf32"), workload=found[0].workload, run=found[0].run),
        outcome=Outcome.UNSUPPORTED,
        reason="tf32 needs compute capability 8.0 | [^1]",
        timing=None,
        energy=None,
    )
    return [*found, failed]


def text_of(run: Run, tmp_path: Path, kept: list[Measurement]) -> Text:
    place = tmp_path / "results.parquet"
    kept_rows.write(place, kept, [SOURCE])
    return Text(run, place)


def test_each_number_of_the_modelled_example_follows_from_its_columns(run: Run) -> None:
    text = Text(run, MODELLED)
    assert check(text) > 200
    first = text.body.split("\n\n")[1]
    assert first.startswith("**None of the rows was measured on a real GPU:** all 48 rows")
    assert "Perplexity was not measured." in text.body
    assert (
        "in 36 rows" in text.body and "by integrating NVML's power readings in 12 rows" in text.body
    )


def test_each_number_of_replicates_with_all_quantities_does_too(run: Run, tmp_path: Path) -> None:
    text = text_of(run, tmp_path, rows())
    assert check(text) > 30
    assert "at most 2[^" in text.body
    assert "geometric means, speedups are their ratios" in text.body
    assert "Its cross-entropy differs from that of fp32 by" in text.body
    assert "1 row[^" in text.body and "ended as UNSUPPORTED and have no numbers" in text.body
    # What somebody wrote is no footnote and no table of ours.
    assert escaped("tf32 needs compute capability 8.0 | ") in text.body
    assert r"\[^1]" in text.body
    assert "process per cell; how processes differ is unknown" not in text.body


def test_a_number_that_is_another_is_noticed(run: Run, tmp_path: Path) -> None:
    text = text_of(run, tmp_path, rows())
    whole = text.body
    numbers = [
        found for found in re.finditer(r"(\d)(?:x|\)? ?\w*)\[\^", whole) if found[1].isdigit()
    ]
    assert len(numbers) > 20
    for found in numbers:
        other = str((int(found[1]) + 3) % 10)
        text.body = whole[: found.start(1)] + other + whole[found.end(1) :]
        with pytest.raises(AssertionError):
            check(text)


def test_the_precision_that_the_matrix_asks_for_is_told(run: Run, tmp_path: Path) -> None:
    text = text_of(run, tmp_path, rows())
    assert "was within ±2 %[^" in text.body


def test_a_default_of_another_version_is_not_told(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "results.parquet"
    silent = '[[workloads]]\nmodel = "gpt2"\n'
    for version, told in ((__version__, True), ("0.0.1", False)):
        kept_rows.write(place, rows(), [Source("study/now", silent, version, None)])
        text = Text(run, place)
        assert ("was within ±1 %[^" in text.body) is told
        check(text)


def test_results_without_energy_say_why(run: Run, tmp_path: Path) -> None:
    text = text_of(
        run, tmp_path, [a_row("fp32", 12, energy_mj=None), a_row("fp16", 9, energy_mj=None)]
    )
    assert "Energy was not measured (no meter[^" in text.body
    assert "energy of" not in text.body
    assert "process per cell; how processes differ is unknown" in text.body
    check(text)


def test_one_row_has_no_comparison(run: Run, tmp_path: Path) -> None:
    text = text_of(run, tmp_path, [a_row("fp16", 9)])
    check(text)
    assert "speedup" not in text.body
    assert "interval" not in text.body.partition("## Results")[2].partition("## Limitations")[0]


def test_failures_only_have_reasons_and_no_numbers(run: Run, tmp_path: Path) -> None:
    text = text_of(run, tmp_path, rows()[-1:])
    assert "No row is OK: none of 1 row[^1] was measured." in text.body
    assert "## Results" not in text.body
    assert check(text) == 3


def test_no_rows_are_said_to_be_none(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "results.parquet"
    kept_rows.write(place, [], [SOURCE])
    done = run("report", place, "--methods")
    assert (done.returncode, done.stdout) == (0, "There are no rows yet.\n")


def test_a_row_that_is_simulated_among_real_ones_is_told(run: Run, tmp_path: Path) -> None:
    real = rows()[0]
    assert real.device
    other = dataclasses.replace(
        real, cell=Cell("T4", "bf16"), device=dataclasses.replace(real.device, simulated=True)
    )
    text = text_of(run, tmp_path, [real, other])
    check(text)
    assert "**Not every row was measured on a real GPU:** 1[^1] of 2 rows[^2] are" in text.body


@given(st.text("ab`\n\x1b[^1]|'", max_size=12))
def test_a_source_is_one_span_of_one_line_whatever_is_in_it(text: str) -> None:
    told = code(f"run = {literal(text)}")
    fence = "`" * (len(told) - len(told.lstrip("`")))
    assert told.isprintable()
    assert fence not in re.findall("`+", told.removeprefix(fence).removesuffix(fence))


def test_footnotes_are_numbered_as_they_come(run: Run) -> None:
    text = Text(run, MODELLED)
    marks = dict.fromkeys(map(int, re.findall(r"\[\^(\d+)\]", text.body)))
    assert [*marks] == [*text.sources] == list(range(1, len(marks) + 1))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--format", "csv"], "--methods: with --format csv; allowed: markdown"),
        (["--against", "T4"], "--methods: with --against; give one of them at a time"),
    ],
)
def test_what_does_not_go_together_is_refused(run: Run, options: list[str], told: str) -> None:
    done = run("report", MODELLED, "--methods", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_the_citation_names_this_version_and_no_one_else() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["type"]) == ("tensorgap", "software")
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The tensorgap authors"}]
    assert not {"doi", "url", "repository-code", "identifiers"} & {*citation}
