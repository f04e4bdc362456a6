"""bench.results.columns: what is written is what is read; a table of another program is refused."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import examples
import hypothesis.strategies as st
import kept_rows
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from bench.asked import Cell, Workload
from bench.errors import TensorgapError
from bench.measured import Energy, Measurement, Outcome, Profile, Timing
from bench.results import columns as table
from bench.results.columns import Source

SOURCE = Source(
    "local/20261124T120000Z", '[[workloads]]\nmodel = "tiny"\n', "0.1.0", None, ("A100", "T4")
)
VERSION = b"tensorgap.schema_version"
SOURCES = b"tensorgap.sources"
KIND = b"tensorgap.records"


def through_parquet(rows: list[Any]) -> list[Any]:
    """Written to a Parquet file and read from it again."""
    sink = pa.BufferOutputStream()
    pq.write_table(kept_rows.to_table(rows, [SOURCE]), sink, compression="zstd")
    content = pq.ParquetFile(pa.BufferReader(sink.getvalue())).read()
    found, sources = kept_rows.from_table(content, "results.parquet")
    assert sources == (SOURCE,)
    return found


def good_table() -> pa.Table:
    return kept_rows.to_table([examples.measurement()], [SOURCE])


def with_metadata(changes: Mapping[bytes, bytes | None]) -> pa.Table:
    """A good table with some of its file's metadata replaced, or removed where None."""
    kept = good_table()
    changed = {**kept.schema.metadata, **changes}
    return kept.replace_schema_metadata({k: v for k, v in changed.items() if v is not None})


# ------------------------------------------------------------------------------- round trip


@settings(max_examples=30)
@given(st.lists(examples.any_measurement(), max_size=3))
def test_any_rows_read_back_equal(rows: list[Measurement]) -> None:
    assert through_parquet(rows) == rows


@settings(max_examples=15)
@given(st.lists(examples.any_measurement(), max_size=3))
def test_any_rows_written_merged_and_read_back_are_the_merged_rows(rows: list[Measurement]) -> None:
    assert through_parquet(kept_rows.merge(rows)) == kept_rows.merge(through_parquet(rows))


def test_any_profile_reads_back_equal() -> None:
    @settings(max_examples=30)
    @given(st.lists(examples.any_record(Profile), max_size=3))
    def check(profiles: list[Profile]) -> None:
        assert through_parquet(profiles) == profiles

    check()


def test_an_absent_record_stays_absent() -> None:
    for name in (kind.__name__.lower() for kind in examples.FOUND):
        row = examples.measurement(**{name: None})
        assert getattr(through_parquet([row])[0], name) is None


def test_an_empty_list_is_not_an_absent_one() -> None:
    timing = dataclasses.replace(examples.timing(), device_ms_samples=())
    rows = [examples.measurement(timing=timing), examples.measurement()]
    found = [row.timing and row.timing.device_ms_samples for row in through_parquet(rows)]
    assert found == [(), None]


def test_zero_is_not_an_absent_value() -> None:
    row = examples.measurement(energy=Energy("counter", idle_w=0.0, window_j=0.0))
    assert through_parquet([row]) == [row]


def test_signs_of_every_script_survive() -> None:
    row = examples.measurement(reason="Å\n\t\0 🔥 日本語")
    assert through_parquet([row]) == [row]


def test_warnings_keep_code_and_values_and_are_worded_for_a_reader() -> None:
    row = examples.measurement(warnings=examples.WARNINGS)
    assert through_parquet([row])[0].warnings == examples.WARNINGS
    stored = kept_rows.to_table([row], [SOURCE])["warnings"][0].as_py()
    assert stored[0] == {
        "code": "host-busy",
        "values": '{"share": 0.07}',
        "text": examples.WARNINGS[0].text,
    }


def test_infinities_survive() -> None:
    timing = dataclasses.replace(examples.timing(), latency_ms_samples=(float("inf"), -0.0))
    (found,) = through_parquet([examples.measurement(timing=timing)])
    assert found.timing == timing


def test_every_outcome_survives_as_an_outcome() -> None:
    rows = [examples.measurement(outcome=outcome) for outcome in Outcome]
    found = through_parquet(rows)
    assert [type(row.outcome) for row in found] == [Outcome] * len(Outcome)
    assert found == rows


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    east = examples.NOON.astimezone(datetime.timezone(datetime.timedelta(hours=9)))
    (found,) = through_parquet([examples.measurement(started_at=east)])
    assert found.started_at == examples.NOON
    assert found.started_at.utcoffset() == datetime.timedelta(0)


def test_no_rows_are_a_table_too() -> None:
    assert through_parquet([]) == []


def test_the_sources_survive() -> None:
    sources = (SOURCE, Source("Ω/2", "name = 'Ω'", "0.2.0", "0" * 40 + "-dirty"))
    assert kept_rows.from_table(kept_rows.to_table([], sources), "results.parquet")[1] == sources


# ------------------------------------------------------------------------------- schema


def test_every_column_has_a_description_and_a_unit() -> None:
    for field in table.schema():
        assert set(field.metadata) - {table.SINCE} == {b"unit", b"description"}
        assert len(field.metadata[b"description"]) >= 3


def test_the_documentation_has_each_column_once_and_says_where_a_null_may_stand() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \| (no|together|yes) \| ([^|]+) \|$",
        table.documentation(),
        re.M,
    )
    assert [name for name, *_ in rows] == table.schema().names
    for name, kind, unit, null, meaning in rows:
        column = table.schema().field(name)
        assert (null == "no") == (not column.nullable)
        assert kind.startswith("list of ") == pa.types.is_list(column.type)
        assert (unit.strip(), meaning) == (
            column.metadata[b"unit"].decode(),
            column.metadata[b"description"].decode(),
        )
    nulls = {name: null for name, _, _, null, _ in rows}
    assert nulls["timing_latency_ms_p50"] == "together"
    assert nulls["timing_latency_ms_p90"] == nulls["reason"] == "yes"
    assert "Latency of single requests in a closed loop" in table.documentation()


def test_units_and_descriptions_are_those_of_the_records() -> None:
    (latency,) = (f for f in dataclasses.fields(Timing) if f.name == "latency_ms_p50")
    column = table.schema().field("timing_latency_ms_p50")
    assert column.metadata == {
        b"unit": latency.metadata["unit"].encode(),
        b"description": latency.metadata["description"].encode(),
    }


PROMISED = (
    ("gpu_type", pa.string(), ""),
    ("precision", pa.string(), ""),
    ("model", pa.string(), ""),
    ("batch_size", pa.int64(), ""),
    ("prompt_tokens", pa.int64(), "tokens"),
    ("outcome", pa.string(), ""),
    ("started_at", pa.timestamp("us", tz="UTC"), ""),
    ("trace_attention", pa.string(), ""),
    ("roofline_lower_bound_ms", pa.float64(), "ms"),
    ("timing_latency_ms_p50", pa.float64(), "ms"),
    ("timing_latency_ms_samples", pa.list_(pa.float64()), "ms"),
    ("timing_converged", pa.bool_(), ""),
    ("energy_per_sample_mj", pa.float64(), "mJ"),
    ("energy_idle_w", pa.float64(), "W"),
    ("device_compute_capability", pa.string(), ""),
    ("device_memory_bytes", pa.int64(), "B"),
    ("quality_perplexity", pa.float64(), ""),
    ("weights_size_bytes", pa.int64(), "B"),
    ("software_torch", pa.string(), ""),
    ("conditions_sm_mhz_before", pa.float64(), "MHz"),
)


def test_the_promised_columns_exist() -> None:
    for name, kind, unit in PROMISED:
        field = table.schema().field(name)
        assert field.type == kind
        assert field.metadata[b"unit"].decode() == unit


def test_every_field_of_every_record_is_one_column() -> None:
    nested = [f for kind in (Cell, Workload, *examples.FOUND) for f in dataclasses.fields(kind)]
    joined = {"cell", "workload", *(kind.__name__.lower() for kind in examples.FOUND)}
    own = [f for f in dataclasses.fields(Measurement) if f.name not in joined]
    names = table.schema().names
    assert len(names) == len(set(names)) == len(nested) + len(own)


def test_what_was_asked_is_never_null() -> None:
    asked = ["gpu_type", "precision", "model", "engine", "attention", "batch_size", "run"]
    for name in (*asked, "replicate", "outcome"):
        assert not table.schema().field(name).nullable


def test_what_was_found_may_be_null() -> None:
    for name in table.schema().names:
        if name.startswith(("timing_", "energy_", "device_", "quality_")):
            assert table.schema().field(name).nullable


# ------------------------------------------------------------------------------- refusals


def refusal(content: pa.Table) -> str:
    with pytest.raises(TensorgapError) as caught:
        kept_rows.from_table(content, "x.parquet")
    message = str(caught.value)
    assert message.startswith("x.parquet: ")
    assert "\n" not in message
    return message


def test_a_table_of_another_program_is_refused() -> None:
    message = refusal(pa.table({"gpu_type": ["T4"]}))
    assert "not written by tensorgap" in message


def test_a_table_that_pandas_wrote_is_refused() -> None:
    rewritten = pa.Table.from_pandas(good_table().to_pandas())
    assert "not written by tensorgap" in refusal(rewritten)


def test_another_schema_version_is_refused_with_the_remedy() -> None:
    for version in (b"0", b"3", b"5", b"999", b"1.0", b"", b"\xff"):
        message = refusal(with_metadata({VERSION: version}))
        assert message.endswith(
            "this tensorgap reads versions 1 to 2: measure again, or read it with the tensorgap"
            " that wrote it"
        )


def test_records_of_another_kind_are_refused() -> None:
    for kind in (None, b"", b"Sampling", b"\xff"):
        assert "tensorgap.records is damaged" in refusal(with_metadata({KIND: kind}))


DAMAGED = (
    *(None, b"", b"{", b"\xff\xfe", b"7", b"null", b'{"run": "x"}', b'["x"]', b'[{"run": "x"}]'),
    b"[" * 100_000,
)


def test_damaged_sources_are_refused() -> None:
    for damaged in DAMAGED:
        assert "tensorgap.sources is damaged" in refusal(with_metadata({SOURCES: damaged}))


@pytest.mark.parametrize(
    "name", ["gpu_type", "outcome", "timing_latency_ms_p50", "conditions_load_before"]
)
def test_a_missing_column_is_named(name: str) -> None:
    assert f"column {name} is missing" in refusal(good_table().drop_columns([name]))


NEWER = [at.name for at in table.schema() if table.SINCE in at.metadata]


@pytest.mark.parametrize("name", NEWER)
def test_a_column_that_an_older_version_did_not_have_is_null_in_its_files(name: str) -> None:
    older = with_metadata({VERSION: b"1"}).drop_columns([name])
    (row,) = kept_rows.from_table(older, "x.parquet")[0]
    whole = kept_rows.to_table([row], [SOURCE])
    assert whole[name].null_count == 1
    assert whole.drop_columns([name]).equals(good_table().drop_columns([name]))
    assert f"column {name} is missing" in refusal(good_table().drop_columns([name]))


def test_a_column_of_another_type_is_named_with_both_types() -> None:
    content = good_table()
    at = content.column_names.index("batch_size")
    content = content.set_column(at, "batch_size", pa.array(["one"]))
    assert "column batch_size is string, must be int64" in refusal(content)


def test_a_column_that_stands_there_twice_is_named() -> None:
    content = good_table()
    assert "column run stands there twice" in refusal(content.append_column("run", content["run"]))


def test_a_time_that_no_calendar_has_is_one_message() -> None:
    content = good_table()
    at = content.column_names.index("started_at")
    field = content.schema.field("started_at")
    for far in (2**62, -(2**62)):
        times = pa.array([far], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        assert "a row cannot be read" in refusal(content.set_column(at, field, times))


def test_an_unknown_outcome_is_refused() -> None:
    content = good_table()
    at = content.column_names.index("outcome")
    content = content.set_column(at, "outcome", pa.array(["SPLENDID"]))
    assert "SPLENDID" in refusal(content)


WRONG_WARNINGS = (
    {"code": "no-such-code", "values": "{}", "text": ""},
    {"code": "host-busy", "values": "{}", "text": ""},
    {"code": "host-busy", "values": '{"share": "x"}', "text": ""},
    {"code": "host-busy", "values": '{"share": [1]}', "text": ""},
    {"code": "latency-not-converged", "values": "{}", "text": ""},
    {"code": "throttled", "values": "7", "text": ""},
    {"code": "mig-slice", "values": "[" * 100_000, "text": ""},
    {"code": "mig-slice", "values": None, "text": ""},
    {"code": None, "values": "{}", "text": ""},
    None,
)


def test_a_warning_that_has_no_words_is_refused() -> None:
    content = good_table()
    at = content.column_names.index("warnings")
    for warning in WRONG_WARNINGS:
        changed = pa.array([[warning]], content.schema.field("warnings").type)
        assert "a row cannot be read" in refusal(
            content.set_column(at, content.schema.field("warnings"), changed)
        )


def test_a_record_that_lacks_what_each_has_is_refused() -> None:
    content = kept_rows.to_table([examples.measurement()], [])
    at = content.column_names.index("timing_latency_ms_p50")
    content = content.set_column(at, content.schema.field(at), pa.nulls(1, pa.float64()))
    assert "timing_latency_ms_p50 lacks a value" in refusal(content)


@pytest.mark.parametrize("name", ["gpu_type", "run", "replicate", "outcome", "warnings"])
def test_a_null_where_none_may_be_is_refused(name: str) -> None:
    content = good_table()
    at = content.column_names.index(name)
    nothing = pa.nulls(1, content.schema.field(name).type)
    assert name in refusal(content.set_column(at, name, nothing))


def test_a_column_more_is_ignored() -> None:
    content = good_table().append_column("note", pa.array(["mine"]))
    assert kept_rows.from_table(content, "x.parquet")[0] == [examples.measurement()]


def test_the_order_of_the_columns_does_not_matter() -> None:
    content = good_table()
    assert kept_rows.from_table(content.select(content.column_names[::-1]), "x.parquet")[0] == [
        examples.measurement()
    ]


# ------------------------------------------------------------------------------- merge


def later(row: Measurement, seconds: float, **changes: Any) -> Measurement:
    finished = examples.NOON + datetime.timedelta(seconds=seconds)
    return dataclasses.replace(row, finished_at=finished, **changes)


OF_A_WORKER = [o for o in Outcome if o not in (Outcome.OK, Outcome.UNPLACED)]


def row_of(outcome: Outcome, finished_s: float, received_s: float | None) -> Measurement:
    """A row by two clocks: of its host, and of the driver (None: it has not come to one)."""
    received = received_s and examples.NOON + datetime.timedelta(seconds=received_s)
    return later(examples.measurement(outcome=outcome), finished_s, received_at=received)


def merged(*rows: Measurement | Profile) -> Measurement:
    """The one that is kept, in whichever order they come."""
    kept = {one for order in itertools.permutations(rows) for one in kept_rows.merge(order)}
    assert len(kept) == 1
    return kept.pop()


def test_merge_keeps_a_measured_row_whose_host_has_a_slow_clock() -> None:
    """Its end is by the clock of its host, that of a LOST row by the driver's."""
    for outcome, received in itertools.product(set(Outcome) - {Outcome.OK}, (True, False)):
        before = row_of(outcome, 100, 100 if received else None)
        measured = row_of(Outcome.OK, -5000, 200 if received else None)
        assert merged(before, measured) == measured


def test_merge_keeps_a_measured_row_whatever_came_later() -> None:
    for outcome in set(Outcome) - {Outcome.OK}:
        measured = row_of(Outcome.OK, 0, 100)
        assert merged(measured, row_of(outcome, 50, 200)) == measured


def test_merge_keeps_what_an_attempt_found_rather_than_that_there_is_no_place() -> None:
    for outcome in OF_A_WORKER:
        found = row_of(outcome, 0, 100)
        assert merged(found, row_of(Outcome.UNPLACED, 50, 200)) == found


def test_merge_orders_equals_by_the_clock_of_the_driver() -> None:
    first, second = row_of(Outcome.FAILED, 500, 100), row_of(Outcome.LOST, -500, 200)
    assert merged(first, second) == second


def at(seconds: float) -> datetime.datetime:
    return examples.NOON + datetime.timedelta(seconds=seconds)


def test_merge_joins_a_profile_to_its_row() -> None:
    row = examples.measurement(warnings=examples.WARNINGS[:1], received_at=at(30))
    profile = examples.profile(received_at=at(40))
    joined = dataclasses.replace(
        row,
        trace=profile.trace,
        roofline=profile.roofline,
        warnings=(*row.warnings, *profile.warnings),
    )
    assert merged(row, profile) == joined
    # Again, as where a folder was merged and a profile still waits: nothing stands there twice.
    assert merged(joined, profile) == joined
    assert merged(row, joined) == joined
    # Of another replicate, run or workload it is not this row's.
    for other in ({"replicate": 1}, {"run": "x"}, {"workload": Workload("gpt2")}):
        assert merged(row, dataclasses.replace(profile, **other)) == row
    assert kept_rows.merge([profile]) == []


def test_merge_joins_no_profile_of_an_attempt_before() -> None:
    """Its row was lost, and the cell was measured again."""
    row = examples.measurement(received_at=at(100))
    before, after = examples.profile(received_at=at(50)), examples.profile(received_at=at(150))
    assert merged(row, before) == row
    assert merged(row, before, after).trace == after.trace


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_merge_keeps_what_finished_last_whatever_the_order(order: tuple[int, ...]) -> None:
    rows = [later(examples.measurement(), seconds, reason=f"{seconds}") for seconds in (1, 2, 3)]
    assert kept_rows.merge(rows[index] for index in order) == [rows[2]]


def test_merge_prefers_a_finished_row_to_one_without_a_time() -> None:
    unfinished = examples.measurement(finished_at=None, reason="never began")
    finished = examples.measurement()
    for rows in ([unfinished, finished], [finished, unfinished]):
        assert kept_rows.merge(rows) == [finished]


def test_merge_keeps_runs_replicates_cells_and_workloads_apart() -> None:
    rows = [
        examples.measurement(),
        examples.measurement(run="other/20261124T120000Z"),
        examples.measurement(replicate=1),
        examples.measurement(cell=Cell("CPU", "bf16")),
        examples.measurement(workload=Workload("tiny", batch_size=8)),
    ]
    assert set(kept_rows.merge(rows)) == set(rows)


def test_merge_orders_by_run_cell_workload_and_replicate() -> None:
    rows = [
        examples.measurement(run=run, cell=Cell(gpu, "fp32"), replicate=replicate)
        for run in ("a", "b")
        for gpu in ("A100", "T4")
        for replicate in (0, 1)
    ]
    assert kept_rows.merge(reversed(rows)) == rows


@settings(max_examples=20)
@given(st.lists(examples.any_measurement(), max_size=5), st.randoms(use_true_random=False))
def test_merging_again_changes_nothing(rows: list[Measurement], random: Any) -> None:
    merged = kept_rows.merge(rows)
    identities = [(row.run, row.key) for row in merged]
    assert len(set(identities)) == len(identities)
    assert set(identities) == {(row.run, row.key) for row in rows}
    shuffled = list(merged)
    random.shuffle(shuffled)
    assert kept_rows.merge([*shuffled, *merged]) == merged


def test_the_metadata_is_plain_json() -> None:
    metadata = good_table().schema.metadata
    assert metadata[VERSION] == str(table.SCHEMA_VERSION).encode()
    assert json.loads(metadata[SOURCES]) == [
        {
            "run": "local/20261124T120000Z",
            "matrix": '[[workloads]]\nmodel = "tiny"\n',
            "version": "0.1.0",
            "git_revision": None,
            "gpu_types": ["A100", "T4"],
            "simulated": False,
        }
    ]


# ------------------------------------------------------------------------------- sources


RECORD = dataclasses.asdict(SOURCE) | {"gpu_types": ["A100"]}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(sorted(RECORD)), ANYTHING)
def test_a_source_has_its_types_or_is_refused(name: str, value: Any) -> None:
    try:
        source = Source.from_json(json.dumps({**RECORD, name: value}).encode())
    except ValueError:
        return
    assert Source.from_json(source.to_json().encode()) == source
    assert all(isinstance(text, str) for text in (source.run, source.matrix, *source.gpu_types))
    hash(source)
    json.dumps(dataclasses.asdict(source), ensure_ascii=False).encode()


def test_what_is_no_source_is_refused() -> None:
    wrong = [None, [], "x", 7, {}, {"run": "x"}, {**RECORD, "more": 1}]
    wrong += [{**RECORD, name: value} for name in RECORD for value in (7, [7], {"a": "b"})]
    for record in wrong:
        with pytest.raises(ValueError):
            Source.from_json(json.dumps(record).encode())
