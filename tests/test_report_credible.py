"""Rows of a file that somebody changed: one message, and never a fault or an endless answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import kept_rows
import pytest
from conftest import Run

from bench.asked import Workload
from bench.errors import TensorgapError
from bench.measured import Measurement, Quality
from bench.results import store as results
from jobs.report import credible, from_rows

EXAMPLES = Path(__file__).resolve().parent.parent / "jobs/examples"
ROW = replace(
    results.read(str(EXAMPLES / "modelled.parquet"))[0][0], quality=Quality("wikitext-2 test")
)


def changed(path: str, value: Any) -> Measurement:
    record, name = path.split(".")
    return replace(ROW, **{record: replace(getattr(ROW, record), **{name: value})})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 5e-324, -1e300])
@pytest.mark.parametrize(
    "path", ["timing.latency_ms_p50_low", "energy.mean_w", "trace.busy_share", "roofline.launch_us"]
)
def test_no_number_of_a_row_is_beyond_what_is_computed_with(path: str, value: float) -> None:
    with pytest.raises(TensorgapError, match=f"{path.replace('.', '_')} = .*must be .* to 1e"):
        from_rows.cases([changed(path, value)])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("timing.latency_ms_p50", 0.0),
        ("timing.throughput_samples_per_s", -1.0),
        ("workload.batch_size", 0),
        ("workload.new_tokens", 2**63 - 1),
        ("device.compute_capability", "<script>"),
    ],
)
def test_what_no_measurement_gives_is_refused(
    path: str, value: object, tmp_path: Path, run: Run
) -> None:
    kept_rows.write(tmp_path / "r.parquet", [changed(path, value)])
    for command in ("report", "explain"):
        done = run(command, tmp_path / "r.parquet")
        assert done.returncode == 2
        assert f"{path.split('.')[1]} = {value}: must be" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("timing.latency_ms_iqr", 0.0),
        ("timing.per_output_token_ms", -0.1),
        ("energy.net_per_sample_mj", -3.0),
        ("quality.perplexity", math.inf),
        ("quality.nats", math.inf),
    ],
)
def test_what_a_measurement_may_give_is_not(path: str, value: float) -> None:
    credible.check(changed(path, value))


def test_rows_of_every_shipped_file_are_credible() -> None:
    for path in EXAMPLES.glob("*.parquet"):
        assert [bad for row in results.read(str(path))[0] for bad in credible.incredible(row)] == []


def test_an_asked_size_is_within_what_a_matrix_allows() -> None:
    most = replace(ROW, workload=Workload("gpt2", "eager", 65_536, 1024, 1023))
    assert list(credible.incredible(most)) == []


@pytest.mark.parametrize("field", ["perplexity", "nats", "bits_per_byte", "logit_rounding_nats"])
def test_a_perplexity_that_is_no_number_is_refused_and_an_infinite_one_is_not(field: str) -> None:
    row = ROW
    assert row.quality
    credible.check(replace(row, quality=replace(row.quality, **{field: math.inf})))
    with pytest.raises(TensorgapError, match=f"quality_{field} = nan: must be a number"):
        credible.check(replace(row, quality=replace(row.quality, **{field: math.nan})))


def test_windows_must_be_numbers_and_as_many_as_their_tokens() -> None:
    row = ROW
    assert row.quality
    for nats, told in (((1.0, math.nan), "numbers alone"), ((1.0,), "must be as many")):
        windows = replace(row.quality, window_nats=nats, window_tokens=(8, 8))
        with pytest.raises(TensorgapError, match=told):
            credible.check(replace(row, quality=windows))


def test_a_share_may_be_as_small_as_rounding_leaves_it() -> None:
    # Seen in a real sweep: the CPU time of a host less that of the process.
    for path in ("conditions.other_cpu_share", "energy.pause_share", "sensor.reading_lag_s"):
        credible.check(changed(path, 2.4e-13))
    credible.check(changed("timing.latency_ms_iqr", 1e-17))
