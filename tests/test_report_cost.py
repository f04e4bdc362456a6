"""Prices as a user writes them, and what a million tokens cost by them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import kept_rows
import pytest
from examples import measurement, timing
from hypothesis import given
from sweeps import Run

from bench.asked import Cell, Workload
from bench.errors import TensorgapError
from bench.measured import Device, Energy, Measurement
from bench.stats import student_interval
from jobs.report import compare, cost, cost_table, prices
from jobs.report.cost import Amount, Standing, TokenCost
from jobs.report.prices import Prices

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "jobs/examples/prices.toml"
MODELLED = ROOT / "jobs/examples/modelled.parquet"
PAID = Prices("USD", {"T4": 0.36, "A100": 3.6}, 0.2, 400.0)
WORKLOAD = Workload("gpt2", "eager", 4, 100)


def a_row(
    gpu_type: str = "T4",
    precision: str = "fp32",
    per_s: float | None = 10.0,
    energy_mj: float | None = 900.0,
    *,
    latency_ms: float = 400.0,
    uncertainty: float = 0.01,
    simulated: bool = False,
    **changed: Any,
) -> Measurement:
    """A row whose median latency is known within +-2 %."""
    ends = {"low": 0.98, "high": 1.02}
    times = dataclasses.replace(
        timing(),
        latency_ms_p50=latency_ms,
        throughput_samples_per_s=per_s,
        **{f"latency_ms_p50_{end}": share * latency_ms for end, share in ends.items()},
    )
    energy = (
        Energy("none", reason="no meter")
        if energy_mj is None
        else Energy("counter", per_sample_mj=energy_mj, uncertainty=uncertainty, systematic=0.03)
    )
    device = Device(gpu_type, gpu_type, "host", "Xeon", 1, simulated=simulated)
    row = measurement(
        cell=Cell(gpu_type, precision),
        workload=WORKLOAD,
        device=device,
        timing=times,
        energy=energy,
    )
    return dataclasses.replace(row, **changed)


def costs_of(*rows: Measurement, paid: Prices = PAID) -> list[TokenCost]:
    """The costs of rows that do one task."""
    (costs,) = cost.by_task(compare.compared(rows), paid)
    return costs


def replicates(values: list[float], **same: Any) -> list[Measurement]:
    return [a_row(per_s=value, replicate=at, **same) for at, value in enumerate(values)]


def test_a_price_is_the_rent_of_the_time_with_a_full_queue() -> None:
    (found,) = costs_of(a_row(per_s=10.0))
    # 10 prompts of 100 tokens a second: a million tokens take 1000 s.
    assert found.price
    assert found.price.value == pytest.approx(0.36 * 1000 / 3600)
    assert (found.basis, found.tokens) == ("throughput", "prompt")


def test_without_a_throughput_the_price_follows_from_the_latency() -> None:
    (found,) = costs_of(a_row(per_s=None, latency_ms=800.0))
    assert found.price
    assert found.price.value == pytest.approx(0.36 / 3600 * 0.8 / 4 / 100 * 1e6)
    assert found.basis == "latency"
    (sheet,) = cost_table.sheets([[found]], PAID)
    assert any("from the latency where none was measured: every row" in r for r in sheet.remarks)


def test_with_new_tokens_it_is_those_that_are_counted() -> None:
    asked = dataclasses.replace(WORKLOAD, new_tokens=50)
    (found,) = costs_of(a_row(per_s=10.0, workload=asked))
    assert found.price
    assert found.tokens == "output"
    assert found.price.value == pytest.approx(0.36 * 2000 / 3600)


def test_energy_electricity_and_carbon_are_of_the_energy_per_token() -> None:
    paid = dataclasses.replace(PAID, energy_overhead_factor=1.5)
    (found,) = costs_of(a_row(energy_mj=900.0), paid=paid)
    assert found.energy_kwh and found.electricity and found.co2_g and found.price
    # 9 mJ per token are 9 kJ per million tokens.
    assert found.energy_kwh.value == pytest.approx(9000 / 3.6e6)
    assert found.electricity.value == pytest.approx(9000 / 3.6e6 * 1.5 * 0.2)
    assert found.co2_g.value == pytest.approx(9000 / 3.6e6 * 1.5 * 400)
    # A rent includes the electricity.
    assert found.price == costs_of(a_row(energy_mj=None))[0].price


def test_an_interval_is_that_of_the_time_and_of_the_energy() -> None:
    (found,) = costs_of(a_row())
    assert found.price and found.energy_kwh
    assert found.price.low == pytest.approx(0.98 * found.price.value)
    assert found.price.high == pytest.approx(1.02 * found.price.value)
    # The meter's 1 % and the sensor's own 3 %.
    share = math.hypot(0.01, 0.03)
    assert found.energy_kwh.low == pytest.approx((1 - share) * found.energy_kwh.value)
    assert found.energy_kwh.high == pytest.approx((1 + share) * found.energy_kwh.value)


def test_of_replicates_the_interval_covers_how_they_differ() -> None:
    rates = [9.0, 10.0, 11.0]
    (found,) = costs_of(*replicates(rates))
    half = student_interval([math.log(rate) for rate in rates])
    assert found.price and found.price.high
    assert found.price.high == pytest.approx(found.price.value * math.exp(half))


def test_what_is_not_measured_or_not_priced_is_none() -> None:
    by_type = {
        one.case.gpu: one
        for one in costs_of(a_row("V100"), a_row("T4", energy_mj=None), a_row("A100", energy_mj=-1))
    }
    assert by_type["V100"].price is None and by_type["V100"].basis is None
    assert by_type["V100"].energy_kwh
    assert by_type["T4"].energy_kwh is by_type["T4"].electricity is by_type["T4"].co2_g is None
    assert by_type["A100"].energy_kwh is None
    alone = Prices(grams_co2_per_kwh=400.0)
    (only_carbon,) = costs_of(a_row(), paid=alone)
    assert only_carbon.price is None and only_carbon.electricity is None and only_carbon.co2_g
    (sheet,) = cost_table.sheets([list(by_type.values())], PAID)
    assert "no price per hour was given for V100" in sheet.remarks


def test_rows_that_failed_have_no_cost() -> None:
    failed = kept_rows.merge([a_row()])[0]
    failed = dataclasses.replace(failed, outcome="FAILED", timing=None, energy=None)  # type: ignore[arg-type]
    assert cost.by_task(compare.compared([failed]), PAID) == []


def test_the_least_is_named_and_what_does_not_differ_from_it() -> None:
    costs = costs_of(
        a_row(precision="fp32", per_s=10.0, energy_mj=900.0),
        a_row(precision="fp16", per_s=20.0, energy_mj=300.0),
        a_row(precision="bf16", per_s=20.1, energy_mj=400.0),
    )
    standing = {one.case.precision: (one.price_standing, one.energy_standing) for one in costs}
    assert standing == {
        "bf16": (Standing.LEAST, Standing.MORE),
        "fp16": (Standing.TIED, Standing.LEAST),
        "fp32": (Standing.MORE, Standing.MORE),
    }
    assert [one.case.precision for one in costs] == ["bf16", "fp16", "fp32"]
    (sheet,) = cost_table.sheets([costs], PAID)
    assert sheet.title == "Cost of 1 million prompt tokens: gpt2, 100 tokens"
    assert sheet.remarks[0] == (
        "cheapest: T4 bf16 eager batch 4 at 0.0498 USD; no significant difference to"
        " T4 fp16 eager batch 4"
    )
    assert sheet.remarks[1] == (
        "most frugal: T4 fp16 eager batch 4 at 0.833 Wh; the next, T4 bf16 eager batch 4, is at"
        " 1.33x that"
    )


def test_between_gpu_types_the_sensors_own_errors_count() -> None:
    near = {"per_s": 10.0, "energy_mj": 900.0}
    more = {**near, "energy_mj": 930.0}
    alike = costs_of(a_row("T4", "fp32", **near), a_row("T4", "fp16", **more))
    apart = costs_of(a_row("T4", "fp32", **near), a_row("A100", "fp32", **more))
    assert {one.energy_standing for one in alike} == {Standing.LEAST, Standing.MORE}
    assert {one.energy_standing for one in apart} == {Standing.LEAST, Standing.TIED}


def test_the_rent_decides_between_types() -> None:
    slow, fast = a_row("T4", per_s=10.0), a_row("A100", per_s=50.0)
    standing = {one.case.gpu: one.price_standing for one in costs_of(slow, fast)}
    assert standing == {"T4": Standing.LEAST, "A100": Standing.MORE}
    free = dataclasses.replace(PAID, per_gpu_hour={"T4": 0.36, "A100": 0.0})
    standing = {one.case.gpu: one.price_standing for one in costs_of(slow, fast, paid=free)}
    assert standing == {"T4": Standing.MORE, "A100": Standing.LEAST}


def test_a_simulated_gpu_is_never_the_cheapest_of_real_ones() -> None:
    costs = costs_of(a_row("T4", per_s=10.0), a_row("A100", per_s=1e6, simulated=True))
    standing = {one.case.gpu: one.price_standing for one in costs}
    assert standing == {"T4": Standing.LEAST, "A100": None}
    (sheet,) = cost_table.sheets([costs], PAID)
    assert any(text.startswith("simulated: some rows are") for text in sheet.remarks)
    assert "cheapest: T4 fp32 eager batch 4 at 0.100 USD, the only one to compare" in sheet.remarks


def test_tasks_are_not_compared_with_each_other() -> None:
    longer = dataclasses.replace(WORKLOAD, prompt_tokens=200)
    found = cost.by_task(compare.compared([a_row(), a_row(workload=longer)]), PAID)
    assert [one.price_standing for costs in found for one in costs] == [Standing.LEAST] * 2


@given(
    st.floats(0.01, 100), st.floats(0.1, 1e4), st.integers(1, 1000), st.floats(1, 1e6),
    st.floats(1, 10),
)  # fmt: skip
def test_costs_scale_as_they_must(
    rate: float, per_s: float, tokens: int, energy_mj: float, factor: float
) -> None:
    asked = Workload("gpt2", prompt_tokens=tokens)
    paid = Prices("EUR", {"T4": rate}, 0.3, 100.0, factor)
    (found,) = costs_of(a_row(per_s=per_s, energy_mj=energy_mj, workload=asked), paid=paid)
    assert found.price and found.energy_kwh and found.electricity and found.co2_g
    assert found.price.value * per_s * tokens == pytest.approx(rate / 3600 * 1e6)
    assert found.energy_kwh.value * 3.6e9 * tokens == pytest.approx(energy_mj * 1e6)
    assert found.electricity.value == pytest.approx(found.energy_kwh.value * factor * 0.3)
    for amount in (found.price, found.energy_kwh, found.electricity, found.co2_g):
        assert amount.low is not None and amount.high is not None
        assert amount.low < amount.value < amount.high


def test_without_an_interval_nothing_is_decided() -> None:
    few = dataclasses.replace(
        timing(), latency_ms_p50_low=None, latency_ms_p50_high=None, throughput_samples_per_s=1.0
    )
    many = dataclasses.replace(few, throughput_samples_per_s=100.0)
    costs = costs_of(a_row("T4", "fp32", timing=few), a_row("T4", "fp16", timing=many))
    assert costs[0].price == Amount(costs[0].price.value if costs[0].price else 0)
    assert [one.price_standing for one in costs] == [Standing.LEAST, Standing.TIED]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no price: give at least one of per_gpu_hour, electricity_per_kwh"),
        (
            "per_gpu_hour.T4 = 1",
            'currency: missing; name that of the prices, such as currency = "U',
        ),
        ('currency = ""\nper_gpu_hour.T4 = 1', 'currency = "": must be a string of 1 to 12'),
        ('currency = "USD"\nper_gpu_hour = 1', "per_gpu_hour = 1: must be a table, written [per_g"),
        ('currency = "USD"\nper_gpu_hour.t4 = 1', "unknown type; did you mean T4?"),
        ('currency = "USD"\nper_gpu_hour.T4 = -1', "per_gpu_hour.T4 = -1: must be from 0 to 1e+06"),
        ('currency = "USD"\nper_gpu_hour.T4 = nan', "must be from 0 to 1e+06"),
        ('currency = "USD"\nper_gpu_hour.T4 = inf', "must be from 0 to 1e+06"),
        ('currency = "USD"\nper_gpu_hour.T4 = true', "per_gpu_hour.T4 = true: must be a number"),
        ('grams_co2_per_kwh = "400"', 'grams_co2_per_kwh = "400": must be a number'),
        ("grams_c02_per_kwh = 400", "unknown key; did you mean grams_co2_per_kwh?"),
        (
            "grams_co2_per_kwh = 1\nenergy_overhead_factor = 0.5",
            "energy_overhead_factor = 0.5: must be from 1",
        ),
        ("price = [", "not valid TOML"),
    ],
)
def test_a_mistake_in_the_prices_is_named(text: str, told: str) -> None:
    with pytest.raises(TensorgapError) as refused:
        prices.parse(text, "prices.toml")
    assert told in str(refused.value)
    assert all(line.startswith("prices.toml: ") for line in refused.value.args)


def test_the_example_says_that_its_numbers_are_placeholders() -> None:
    found = prices.load(EXAMPLE)
    assert found.per_gpu_hour["T4"] and found.electricity_per_kwh and found.grams_co2_per_kwh
    assert "EVERY NUMBER HERE IS A PLACEHOLDER" in EXAMPLE.read_text()


def test_every_form_has_the_costs(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "rows.parquet"
    failed = a_row("V100", outcome="TIMED_OUT", reason="slow", timing=None)
    kept_rows.write(place, [a_row(), a_row(precision="fp16", per_s=30.0), failed])
    given = tmp_path / "prices.toml"
    given.write_text('currency = "USD"\n[per_gpu_hour]\nT4 = 0.36\n')

    def said(form: str) -> str:
        done = run("report", place, "--prices", given, "--format", form)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    for form in ("table", "markdown"):
        assert "price (USD) [95 %]" in said(form)
        assert "cheapest: T4 fp16 eager batch 4 at 0.0333 USD; the next, T4 fp32" in said(form)
    records = json.loads(said("json"))
    in_csv = list(csv.DictReader(io.StringIO(said("csv"))))
    assert [record["price_per_million"] for record in records] == pytest.approx(
        [0.1, 0.1 / 3, None]
    )
    assert [record["price_standing"] for record in records] == ["more", "least", None]
    for record, line in zip(records, in_csv, strict=True):
        assert line["price_per_million"] == str(record["price_per_million"] or "")
        assert line["cost_per_million"] == (record["cost_per_million"] or "")
    assert {*records[0]} == {*in_csv[0]}
    # Without prices nothing is said of them.
    assert "price" not in run("report", place, "--format", "json").stdout


def test_bad_prices_end_with_code_2(run: Run, tmp_path: Path) -> None:
    given = tmp_path / "prices.toml"
    given.write_text("per_gpu_our.T4 = 1\n")
    done = run("report", MODELLED, "--prices", given)
    assert done.returncode == 2
    assert "prices.toml: per_gpu_our: unknown key; did you mean per_gpu_hour?" in done.stderr
    done = run("report", MODELLED, "--prices", tmp_path / "none.toml")
    assert done.returncode == 2
    assert "there is no such file; give the path of a file of prices" in done.stderr
    done = run("report", MODELLED, "--prices", EXAMPLE, "--against", "T4")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--against: with --prices; give one of them at a time" in done.stderr


def test_the_modelled_example_is_said_to_be_simulated(run: Run) -> None:
    done = run("report", MODELLED, "--prices", EXAMPLE)
    assert done.returncode == 0
    assert "simulated: no number of a modelled GPU is that of a real one" in done.stdout
    (cheapest,) = [line for line in done.stdout.splitlines() if "cheapest: " in line]
    (frugal,) = [line for line in done.stdout.splitlines() if "most frugal: " in line]
    assert "T4 fp16 graph batch 32" in cheapest
    assert "no significant difference" in frugal
