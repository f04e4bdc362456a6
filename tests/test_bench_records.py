"""bench.records: frozen, described, with units that agree with the names."""

from __future__ import annotations

import dataclasses
import typing

import examples
import pytest

from bench import records
from bench.asked import Cell, Workload
from bench.measured import Measurement, Outcome

# What a name ends with, or begins with before a statistic, and the unit that it promises.
UNIT_OF_SUFFIX = {
    "ms": "ms",
    "us": "us",
    "s": "s",
    "mj": "mJ",
    "j": "J",
    "w": "W",
    "bytes": "B",
    "c": "C",
    "mhz": "MHz",
    "tokens": "tokens",
    "nats": "nat",
}
STATISTICS = {"samples", "p50", "p90", "p95", "p99", "low", "high", "min", "iqr", "before", "after"}
# The same units that stand in metadata, where no name carries them.
UNNAMED = {
    "per_byte": "bit/B",
    "gb_per_s": "GB/s",
    "per_s": "1/s",
    "context": "tokens",
    "stride": "tokens",
    "tflops": "TFLOP/s",
    "flops": "FLOP",
    "bytes_moved": "B",
}

ALL_RECORDS = sorted(
    {kind for kind in vars(records).values() if dataclasses.is_dataclass(kind)},
    key=lambda kind: kind.__name__,
)
DESCRIBED = (*examples.ASKED, *examples.FOUND)
FIELDS = [
    pytest.param(kind, field, id=f"{kind.__name__}.{field.name}")
    for kind in (*DESCRIBED, Measurement)
    for field in dataclasses.fields(kind)
    if not (kind is Measurement and isinstance(field.default, type(None)) and not field.metadata)
    and field.name not in ("cell", "workload")
]


def unit_in_name(name: str) -> str | None:
    """The unit that a field's name promises; None where it promises none."""
    for ending, unit in UNNAMED.items():
        if name.endswith(ending):
            return unit
    words = name.split("_")
    while len(words) > 1 and words[-1] in STATISTICS:
        words.pop()
    if words == ["tokens"]:  # a count found is a number; `prompt_tokens` asked is a length
        return None
    return UNIT_OF_SUFFIX.get(words[-1]) if len(words) > 1 or words[-1] == "nats" else None


@pytest.mark.parametrize("kind", ALL_RECORDS, ids=lambda kind: kind.__name__)
def test_every_record_is_frozen(kind: type) -> None:
    assert typing.cast(typing.Any, kind).__dataclass_params__.frozen


def test_the_record_of_a_cell_is_a_key() -> None:
    assert {Cell("T4", "fp16"): 1}[Cell("T4", "fp16")] == 1
    assert {Workload("tiny"): 1}[Workload("tiny", "eager", 1, 128)] == 1


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_says_what_it_means(kind: type, field: dataclasses.Field[object]) -> None:
    assert len(field.metadata["description"]) >= 3
    assert not field.metadata["description"].endswith(".")


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_the_unit_in_a_name_is_the_unit_in_the_metadata(
    kind: type, field: dataclasses.Field[object]
) -> None:
    promised = unit_in_name(field.name)
    if promised is not None:
        assert field.metadata["unit"] == promised


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_field_with_a_unit_shows_it_in_its_name(
    kind: type, field: dataclasses.Field[object]
) -> None:
    unitless_names = {"bytes", "standard_error"}  # their unit is their meaning
    if field.metadata["unit"] and field.name not in unitless_names:
        assert unit_in_name(field.name) == field.metadata["unit"]


@pytest.mark.parametrize("kind", examples.FOUND, ids=lambda kind: kind.__name__)
def test_a_found_record_can_be_told_from_an_absent_one(kind: type) -> None:
    """All its columns are null where the record is absent, so one of them must never be None."""
    hints = typing.get_type_hints(kind)
    never_none = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
        and type(None) not in typing.get_args(hints[field.name])
    ]
    assert never_none


def test_what_was_found_may_be_absent() -> None:
    row = Measurement(Cell("T4", "fp16"), Workload("tiny"), "run", 0, Outcome.UNPLACED)
    for name, hint in typing.get_type_hints(Measurement).items():
        kinds = typing.get_args(hint)
        if any(kind in examples.FOUND for kind in kinds):
            assert getattr(row, name) is None


def test_the_key_of_a_row_is_what_was_asked() -> None:
    row = examples.measurement(replicate=3)
    assert row.key == (Cell("CPU", "fp32"), Workload("tiny"), 3)


def test_cells_and_workloads_are_named_in_words() -> None:
    assert str(Cell("A100", "bf16")) == "A100 bf16"
    assert str(Workload("gpt2", "eager", 8, 64)) == "gpt2 eager batch 8 x 64 tokens"


def test_an_outcome_is_written_as_its_name() -> None:
    assert [str(outcome) for outcome in Outcome] == [outcome.name for outcome in Outcome]
