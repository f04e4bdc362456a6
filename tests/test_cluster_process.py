"""The actor on a seat: it has each request measured in a fresh process, and can end that one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import scripted

from bench import fresh
from bench.asked import CPU, Cell, QualityPlan, Sampling, Workload
from bench.errors import ProcessDied
from bench.measured import Event, Measurement, Outcome, Stage
from bench.outcomes import DEVICE, Request
from cluster import folders
from cluster.process import SeatActor

WORKLOADS = (Workload("tiny"), Workload("tiny", batch_size=2))


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Iterator[SeatActor]:
    """As Ray makes one, on a machine that has a template."""
    monkeypatch.setenv(folders.TRUSTING, "1")  # a checkout may be writable by a group
    with fresh.own_template("scripted:measure"):
        yield SeatActor()


def events(actor: SeatActor, **sampling: float) -> Iterator[Event]:
    asked = Sampling(**{"latency_min_s": 0.0, "profile": False} | sampling)  # type: ignore[arg-type]
    request = Request("run", Cell(CPU, "fp32"), 0, WORKLOADS, asked, QualityPlan(enabled=False))
    return actor.run("scripted:measure", request)


def test_an_actor_measures_one_request_after_the_other(actor: SeatActor) -> None:
    for _ in range(2):
        first, *rest = events(actor)
        assert isinstance(first, Stage)
        assert first.name == DEVICE  # before the template, whose imports may take long
        rows = [event for event in rest if isinstance(event, Measurement)]
        assert [(row.workload, row.outcome) for row in rows] == [
            (workload, Outcome.OK) for workload in WORKLOADS
        ]
        assert rows[0].timing == scripted.TIMING


def test_an_actor_outlives_the_process_that_it_is_told_to_end(actor: SeatActor) -> None:
    actor.end()  # nothing has begun
    stream = events(actor, latency_min_s=60)
    assert any(isinstance(event, Stage) and event.name == "latency" for event in stream)
    actor.end()
    with pytest.raises(ProcessDied):
        next(stream)
    assert any(isinstance(event, Measurement) for event in events(actor))
    assert fresh.TEMPLATE in os.environ
