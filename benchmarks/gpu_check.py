"""Does this GPU show what its architecture says? Needs a CUDA device, and no Ray and no hub.

    python benchmarks/gpu_check.py [--compile] [--output FILE.parquet]

GPT-2's 124M architecture with random weights, batch 1, 128 tokens, at fp32, tf32, fp16 and mixed,
each in a fresh process: eagerly, as a CUDA graph and, where asked for, compiled. Beside the table:

    tensor cores   fp16 matrix products use them from compute capability 7.0 on; fp32 ones never do
    casts          mixed launches 146 casts more than fp32 with fused attention, 158 without, and
                   moves 813 or 827 MB by them (counted with fake tensors, within 5 %)
    graph          the same logits as eager (at fp32 the same tokens), and at most 5 % slower
    classes        the times of the classes sum to the traced time
    floor          no latency is below its floor
    fidelity       tensorgap's latency is that of a plain loop (benchmarks/fidelity.py)

Exit codes: 0 all hold, 1 one does not, 2 there is no CUDA device here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from bench import results, software
from bench.measure import Request, measure
from bench.records import (
    KERNEL_CLASSES,
    Cell,
    Measurement,
    Outcome,
    QualityPlan,
    Sampling,
    Workload,
)
from bench.table import Source
from jobs.report import comparison, render

T = TypeVar("T")

RUN = "gpu-check"
PRECISIONS = ("fp32", "tf32", "fp16", "mixed")
MODEL, TOKENS = "gpt2:random", 128
CASTS = {"sdpa": (146, 813e6), "eager": (158, 827e6)}  # more than fp32's, and their bytes
SAMPLING = Sampling(
    warmup_min_s=1,
    warmup_max_s=5,
    latency_min_s=2,
    latency_max_s=6,
    min_samples=64,
    median_within=0.02,
    throughput_s=2,
    energy="quick",
    energy_s=5,
    idle_s=2,
)


@dataclass(frozen=True)
class Check:
    """One expectation; `holds` is None where it could not be tested."""

    name: str
    holds: bool | None
    found: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--output", default="gpu-check.parquet", help="where the rows go")
    arguments = parser.parse_args()
    gpu_type = alone(find_gpu)
    if gpu_type is None:
        print("gpu_check: torch sees no CUDA device here; nothing was checked", file=sys.stderr)
        return 2
    engines = ("eager", "graph", *(["compile"] if arguments.compile else []))
    rows = []
    for precision in PRECISIONS:
        print(f"measuring {gpu_type} {precision} ...", file=sys.stderr)
        rows += alone(measure_precision, gpu_type, precision, engines)
    source = Source(RUN, "", software.version(), software.git_revision(), (gpu_type,))
    results.write_merged(arguments.output, rows, [source])
    print(render.table(comparison.compare(rows)))
    found = [*checks(rows), *(alone(same_output, p) for p in PRECISIONS), fidelity()]
    print()
    for check in found:
        verdict = {True: "holds", False: "FAILS", None: "not tested"}[check.holds]
        print(f"{verdict:<10}  {check.name}: {check.found}")
    print(f"\n{arguments.output}")
    failed = sum(check.holds is False for check in found)
    print(f"checks that fail: {failed} of {len(found)}")
    return 1 if failed else 0


def alone(function: Callable[..., T], *arguments: object) -> T:
    """Call in a fresh process: profiling slows one for good, and a context holds a GPU's memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def find_gpu() -> str | None:
    import torch

    from bench import nvml

    return nvml.gpu_type(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def measure_precision(gpu_type: str, precision: str, engines: Iterable[str]) -> list[Measurement]:
    """The rows of one precision, each with its evidence."""
    request = Request(
        run=RUN,
        cell=Cell(gpu_type, precision),
        replicate=0,
        workloads=tuple(Workload(MODEL, engine, 1, TOKENS) for engine in engines),
        sampling=SAMPLING,
        quality=QualityPlan(enabled=False),
    )
    rows = [event for event in measure(request) if isinstance(event, Measurement)]
    return list({row.key: row for row in rows}.values())  # the later one has the evidence


def same_output(precision_name: str) -> Check:
    """Whether a replayed graph computes what eager mode does, forwards and generations."""
    import torch

    from bench import engines, precision
    from bench import model as models

    name = f"graph computes what eager does, {precision_name}"
    if precision_name == "tf32" and torch.cuda.get_device_capability() < (8, 0):
        return Check(name, None, "no TF32 here")
    model = models.load(MODEL, precision_name, "cuda")
    ids = torch.tensor(models.prompt_ids(model)[: 3 * TOKENS], device="cuda").reshape(3, 1, TOKENS)
    differences, tokens = [], []
    with precision.applied(precision_name, "cuda"), torch.inference_mode():
        forwards = [engines.forward(engine, model.module) for engine in ("eager", "graph")]
        generations = [engines.generation(e, model.module, 16) for e in ("eager", "graph")]
        for prompt in ids:
            eager, graph = (forward(prompt).float() for forward in forwards)
            differences.append(float((eager - graph).abs().max() / eager.abs().max()))
            eager, graph = (generate(prompt) for generate in generations)
            tokens.append(torch.equal(eager, graph))
    # cuBLAS may choose another kernel while a graph is captured: in half precision a tie may fall
    # the other way, in float32 hardly.
    holds = max(differences) < 0.01 and (all(tokens) or precision_name != "fp32")
    same = f"{sum(tokens)} of {len(tokens)} generations alike"
    return Check(name, holds, f"logits within {max(differences):.2g} of their range, {same}")


def checks(rows: list[Measurement]) -> Iterator[Check]:
    """What the rows themselves must show."""
    by_key = {(row.cell.precision, row.workload.engine): row for row in rows}
    for row in rows:
        if row.timing is None:
            cannot = row.outcome == Outcome.UNSUPPORTED
            yield Check(
                f"runs, {row.cell} {row.workload.engine}",
                None if cannot else False,
                str(row.reason),
            )
    for precision in ("fp32", "fp16"):
        row = by_key[precision, "eager"]
        if row.timing is not None:
            yield tensor_cores(row)
    yield casts(by_key["fp32", "eager"], by_key["mixed", "eager"])
    for precision in PRECISIONS:
        # A row that broke its process is the last one of its precision.
        both = [by_key.get((precision, engine)) for engine in ("eager", "graph")]
        eager, graph = (row and row.timing for row in both)
        if eager and graph:
            ratio = eager.latency_ms_p50 / graph.latency_ms_p50
            bound = "launch-bound" if ratio > 1.2 else "not launch-bound"
            yield Check(f"graph no slower, {precision}", ratio > 0.95, f"{ratio:.2f}x: {bound}")
    for row in rows:
        yield from sums_and_floors(row)


def tensor_cores(row: Measurement) -> Check:
    capability = row.device.compute_capability if row.device else None
    seen = row.kernels.tensor_cores if row.kernels else None
    expected = "no"
    if row.cell.precision == "fp16" and capability and float(capability) >= 7.0:
        expected = "yes"
    reason = row.kernels.reason if row.kernels and row.kernels.reason else ""
    return Check(
        f"Tensor Cores at {row.cell.precision}: {expected}",
        None if seen in (None, "unknown") else seen == expected,
        f"{seen or 'no trace'} at compute capability {capability} {reason}".rstrip(),
    )


def casts(fp32: Measurement, mixed: Measurement) -> Check:
    name = "casts of mixed beyond fp32's, as predicted"
    plain, seen, weights = fp32.kernels, mixed.kernels, mixed.weights
    if not (plain and seen and weights and weights.attention in CASTS):
        return Check(name, None, "not traced")
    if plain.cast_count is None or seen.cast_count is None:
        return Check(name, None, str(seen.reason or plain.reason))
    expected, expected_bytes = CASTS[weights.attention]
    more = seen.cast_count - plain.cast_count
    holds = more == expected
    found = f"{more:g} of {expected}, {seen.cast_ms:.3g} ms"
    if seen.cast_bytes is not None:
        holds &= abs(seen.cast_bytes / expected_bytes - 1) < 0.05
        found += f", {seen.cast_bytes / 1e6:.0f} of {expected_bytes / 1e6:.0f} MB"
    return Check(name, holds, found)


def sums_and_floors(row: Measurement) -> Iterator[Check]:
    name = f"{row.cell} {row.workload.engine}"
    traced, limits, timing = row.kernels, row.ceiling, row.timing
    if traced and traced.traced_ms is not None:
        total = sum(getattr(traced, f"{kind}_ms") for kind in KERNEL_CLASSES)
        busy = f", busy {traced.busy_share:.0%}" if traced.busy_share is not None else ""
        holds = abs(total - traced.traced_ms) <= 1e-6 * traced.traced_ms
        yield Check(
            f"classes sum, {name}", holds, f"{traced.count:g} kernels, {total:.3g} ms{busy}"
        )
    if limits and limits.floor_ms is not None and timing:
        found = f"{timing.latency_ms_min:.3g} ms over {limits.floor_ms:.3g} ms"
        yield Check(f"above the floor, {name}", timing.latency_ms_min >= limits.floor_ms, found)


def fidelity() -> Check:
    script = Path(__file__).with_name("fidelity.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    last = (done.stdout or done.stderr).strip().splitlines()[-1:]
    return Check("fidelity within 1 %", done.returncode == 0, last[0] if last else "no output")


if __name__ == "__main__":
    sys.exit(main())
