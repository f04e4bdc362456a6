"""Under a modelled GPU, a process that a template forks makes the calls of a started one."""

from __future__ import annotations

import json

from conftest import Run

# The same request, here and in a process of a template that knows nothing of a GPU yet.
BOTH = """
import dataclasses, json, os
from bench import fresh
from bench.asked import Cell, QualityPlan, Sampling, Workload
from bench.measured import Measurement, Profile
from bench.outcomes import Request

request = Request(
    run="r", cell=Cell("T4", "fp16"), replicate=0,
    workloads=(Workload("gpt2:random", engine="eager", prompt_tokens=32),
               Workload("gpt2:random", engine="graph", prompt_tokens=32)),
    sampling=Sampling(warmup_min_s=0, warmup_max_s=0.01, latency_min_s=0, latency_max_s=0.01,
                      min_samples=5, max_samples=5, throughput_s=0.01, energy="none"),
    quality=QualityPlan(enabled=False), threads=1, simulated=True,
)

def seen(events):
    rows = [event for event in events if isinstance(event, Measurement)]
    profiles = [event for event in events if isinstance(event, Profile)]
    return {
        "outcomes": [row.outcome for row in rows],
        "memory": [row.timing and row.timing.peak_memory_bytes for row in rows],
        "device": [dataclasses.asdict(row.device) for row in rows],
        "software": [dataclasses.asdict(row.software) for row in rows],
        "weights": [dataclasses.asdict(row.weights) for row in rows],
        "kernels": [(p.trace.count, p.trace.attention, p.trace.level) for p in profiles],
    }

if __name__ == "__main__":
    with fresh.own_template("bench.measure:measure"):
        asked = (os.environ[fresh.TEMPLATE], "bench.measure:measure", request)
        for _ in range(2):
            print("SEEN", json.dumps(seen(list(fresh.Fresh(*asked).events())), default=str))
    from bench.measure import measure
    print("SEEN", json.dumps(seen(list(measure(request))), default=str))
"""


def test_a_forked_process_makes_the_calls_of_a_started_one(on_gpu: Run) -> None:
    done = on_gpu("T4", BOTH)
    lines = [line.removeprefix("SEEN ") for line in done.stdout.splitlines() if line[:4] == "SEEN"]
    first, second, started = map(json.loads, lines)
    assert started["outcomes"] == ["OK", "OK"]
    assert all(count for count, _, _ in started["kernels"])
    for forked in (first, second):  # the second finds its weights on the shelf
        for name, value in started.items():
            assert forked[name] == value, name
