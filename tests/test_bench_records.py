"""bench.asked and bench.measured: frozen, described, with units that agree with the names."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator

import examples

from bench import asked, measured
from bench.asked import Cell, Workload
from bench.measured import Measurement, Outcome, Profile

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
UNITLESS_NAMES = {"bytes", "standard_error"}  # their unit is their meaning

ALL_RECORDS = [
    kind
    for module in (asked, measured)
    for kind in vars(module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
]


def described() -> Iterator[tuple[str, dataclasses.Field[typing.Any]]]:
    """Every field that becomes a column or a key of a matrix, with a name for messages."""
    for kind in (*examples.ASKED, *examples.FOUND, Measurement, Profile):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            kinds = (hints[field.name], *typing.get_args(hints[field.name]))
            if not any(dataclasses.is_dataclass(part) for part in kinds):
                yield f"{kind.__name__}.{field.name}", field


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


def test_every_record_is_frozen() -> None:
    assert len(ALL_RECORDS) > 15
    for kind in ALL_RECORDS:
        assert typing.cast(typing.Any, kind).__dataclass_params__.frozen, kind


def test_cells_and_workloads_are_keys_and_have_an_order() -> None:
    assert {Cell("T4", "fp16"): 1}[Cell("T4", "fp16")] == 1
    assert {Workload("tiny"): 1}[Workload("tiny", "eager", 1, 128)] == 1
    assert sorted([Cell("T4", "fp16"), Cell("A100", "fp32")])[0].gpu_type == "A100"


def test_every_field_says_what_it_means() -> None:
    assert len(list(described())) > 200
    for name, field in described():
        assert len(field.metadata["description"]) >= 3, name
        assert not field.metadata["description"].endswith("."), name


def test_the_unit_of_a_field_is_the_one_in_its_name() -> None:
    for name, field in described():
        unit, promised = field.metadata["unit"], unit_in_name(field.name)
        if field.name not in UNITLESS_NAMES:
            assert (promised or "") == unit, name


def test_a_found_record_can_be_told_from_an_absent_one() -> None:
    """All its columns are null where the record is absent, so one of them must never be None."""
    for kind in examples.FOUND:
        hints = typing.get_type_hints(kind)
        assert any(
            field.default is dataclasses.MISSING
            and type(None) not in typing.get_args(hints[field.name])
            for field in dataclasses.fields(kind)
        ), kind


def test_what_was_found_may_be_absent() -> None:
    row = Measurement(Cell("T4", "fp16"), Workload("tiny"), "run", 0, Outcome.UNPLACED)
    for name, hint in typing.get_type_hints(Measurement).items():
        if any(kind in examples.FOUND for kind in typing.get_args(hint)):
            assert getattr(row, name) is None


def test_the_key_of_a_row_is_what_was_asked() -> None:
    key = (Cell("CPU", "fp32"), Workload("tiny"), 3)
    assert examples.measurement(replicate=3).key == key
    assert examples.profile(replicate=3).key == key


def test_cells_and_workloads_are_named_in_words() -> None:
    assert str(Cell("A100", "bf16")) == "A100 bf16"
    assert str(Workload("gpt2", "eager", 8, 64)) == "gpt2 eager batch 8 x 64 tokens"


def test_an_outcome_is_written_as_its_name() -> None:
    assert [str(outcome) for outcome in Outcome] == [outcome.name for outcome in Outcome]
