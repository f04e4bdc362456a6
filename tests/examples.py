"""Example records, and hypothesis strategies that make any record from its type hints."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import types
import typing
from typing import Any

import hypothesis
import hypothesis.strategies as st

from bench import asked as records
from bench.asked import Cell, Workload
from bench.measured import (
    Conditions,
    Device,
    Energy,
    Measurement,
    Outcome,
    Placement,
    Profile,
    Quality,
    Sensor,
    Software,
    Timing,
    Weights,
)
from bench.measured.profiled import Roofline, Trace
from bench.warnings import RowWarning

# The same examples in every run: a test that fails does so for everyone, and a slow machine, on
# which a first call takes long, fails none.
hypothesis.settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fixed")

ASKED = (
    records.Cell,
    records.Workload,
    records.Sampling,
    records.QualityPlan,
    records.PlacementPlan,
)
FOUND = (
    Device,
    Software,
    Weights,
    Timing,
    Sensor,
    Energy,
    Quality,
    Conditions,
    Trace,
    Roofline,
    Placement,
)

WARNINGS = (
    RowWarning("host-busy", {"share": 0.07}),
    RowWarning("few-ticks", {"ticks": 3, "window": 2, "repeated": True}),
    RowWarning("throttled", {"causes": "", "seconds": None}),
    RowWarning("mig-slice"),
)
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)

_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),  # all that a column of int64 holds
    float: st.floats(allow_nan=False),  # not a number equals nothing, not even itself
    str: st.text(),
    datetime.datetime: st.datetimes(timezones=st.just(datetime.UTC)),
}


@functools.cache
def any_value(hint: Any) -> st.SearchStrategy[Any]:
    """Whatever the type hint of a record's field allows."""
    if isinstance(hint, types.UnionType):
        (kind,) = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return st.none() | any_value(kind)
    if typing.get_origin(hint) is tuple:
        return st.lists(any_value(typing.get_args(hint)[0]), max_size=4).map(tuple)
    if hint is RowWarning:
        return st.sampled_from(WARNINGS)
    if dataclasses.is_dataclass(hint):
        return any_record(typing.cast(type, hint))
    if isinstance(hint, type) and issubclass(hint, Outcome):
        return st.sampled_from(Outcome)
    return _LEAVES[hint]


@functools.cache
def any_record(kind: type) -> st.SearchStrategy[Any]:
    """Any record of this class."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return st.builds(kind, **{name: any_value(hints[name]) for name in names})


def any_measurement() -> st.SearchStrategy[Measurement]:
    return any_record(Measurement)


def measurement(**changes: Any) -> Measurement:
    """A row that is OK, with the given fields changed."""
    row = Measurement(
        cell=Cell("CPU", "fp32"),
        workload=Workload("tiny"),
        run="local/20261124T120000Z",
        replicate=0,
        outcome=Outcome.OK,
        started_at=NOON,
        finished_at=NOON + datetime.timedelta(seconds=30),
        timing=timing(),
        energy=Energy(method="none", reason="no meter"),
    )
    return dataclasses.replace(row, **changes)


def profile(**changes: Any) -> Profile:
    """The profile of the row that `measurement` makes, with the given fields changed."""
    found = Profile(
        run="local/20261124T120000Z",
        cell=Cell("CPU", "fp32"),
        workload=Workload("tiny"),
        replicate=0,
        trace=Trace("op", requests=3, count=7.0),
        roofline=Roofline(flops=10, bytes_moved=20),
        warnings=(RowWarning("attention-differs", {"asked": "flash", "ran": "math"}),),
        measured_at=NOON + datetime.timedelta(seconds=40),
    )
    return dataclasses.replace(found, **changes)


def timing() -> Timing:
    return Timing(
        latency_ms_samples=(2.0, 1.0, 3.0),
        latency_ms_p50=2.0,
        latency_ms_p50_low=1.0,
        latency_ms_p50_high=3.0,
        latency_ms_min=1.0,
        latency_ms_iqr=1.0,
        latency_count=3,
        converged=False,
        warmup_s=1.0,
        warmup_iterations=500,
    )
