"""What does a cell cost beside its own measurement, here and in optimum-benchmark?

    python benchmarks/cell_cost.py [--rounds N] [--peer FOLDER]

GPT-2's 124M architecture with random weights, batch 1 x 128 on the CPU, in turn by both: sweeps of
one cell and of several, from the command to the prompt. Cost is the wall time less what was spent
in warm-up, sampling and throughput: of the first cell that of a sweep of one. Of a further cell of
ours it is the time from the row before to its own, and of the peer's a third of what three more
add, since it does not say when each begins. Each cell is a process with a model of its own. A
replicate is a second process of the same cell; the peer has none, so it is compared with a further
cell of the peer's.

The peer runs as its documentation says (process launcher, spawn), in a virtual environment of its
own, which is made at FOLDER where there is none. It does not tell how long it warmed up; its one
warm-up counts as long as its median forward, and what is over as cost.

The goals: a further cell and a replicate at most 0.10 of the peer's further cell, the first at most
0.5 of its first. Exits 1 where one is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FURTHER_GOAL, FIRST_GOAL = 0.10, 0.5
THREE = ("fp32", "bf16", "mixed")  # fp16 takes a CPU seconds a forward
OF_PEER = ("backend.torch_dtype=float32,bfloat16", "scenario.input_shapes.sequence_length=128,127")
PEER = ("optimum-benchmark==0.6.0", "transformers<5", "datasets<4.5", "huggingface_hub<1.0")
PEER += ("accelerate<1.13",)
TORCH = "torch==2.13.0"
MEASURING = ("warm-up", "latency", "throughput", "energy")
MATRIX = """
[cells]
gpu_types = ["CPU"]
precisions = [{precisions}]

[[workloads]]
model = "gpt2:random"
batch_size = 1
prompt_tokens = 128

[sampling]
replicates = {replicates}
warmup_min_s = 0
warmup_max_s = 1
latency_min_s = 1
latency_max_s = 1
min_samples = 5
throughput_s = 0.5
energy = "quick"
energy_s = 0.1
idle_s = 0
profile = false

[quality]
enabled = false
"""
# What the sweep's own process adds: when each event came, on standard error.
WATCHED = """
import sys, time
from jobs import progress
from jobs.cli import program
def tell(progress, event):
    name = getattr(event, "name", "row")
    print(f"EVENT {time.time()} {name}", file=sys.stderr, flush=True)
progress.tell = tell
program()
"""
CONFIG = """
defaults:
  - benchmark
  - scenario: inference
  - launcher: process
  - backend: pytorch
  - _self_
name: cell
launcher:
  device_isolation: false
  start_method: spawn
backend:
  device: cpu
  model: {model}
  task: feature-extraction
  no_weights: false
  torch_dtype: float32
scenario:
  memory: false
  energy: false
  warmup_runs: 1
  iterations: 5
  duration: 1
  input_shapes:
    batch_size: 1
    sequence_length: 128
hydra:
  run:
    dir: {runs}/${{now:%H%M%S%f}}
  sweep:
    dir: {runs}/${{now:%H%M%S%f}}
    subdir: ${{hydra.job.num}}
  job:
    chdir: true
"""


@dataclass(frozen=True)
class Run:
    """One run of a command: how long it took, and how long of it was measuring."""

    wall_s: float
    measuring_s: float
    phases_s: Counter[str]
    further_s: float = 0.0  # cost of each cell but the first

    @property
    def cost_s(self) -> float:
        """What was not measuring."""
        return self.wall_s - self.measuring_s


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--peer", type=Path, default=ROOT / ".venv-peer", metavar="FOLDER")
    asked = arguments.parse_args()
    ours: dict[str, list[float]] = {"first": [], "further": [], "replicate": []}
    peers: dict[str, list[float]] = {"first": [], "further": []}
    splits: list[Counter[str]] = []
    with tempfile.TemporaryDirectory() as made:
        peer = the_peer(asked.peer, Path(made))
        print("cost in s         first  further  replicate")
        for _ in range(asked.rounds):
            one, three, thrice = (
                sweep(Path(made), *of) for of in ((THREE[:1], 1), (THREE, 1), (THREE[:1], 3))
            )
            ours["first"].append(one.cost_s)
            ours["further"].append(three.further_s)
            ours["replicate"].append(thrice.further_s)
            splits.append(three.phases_s)
            show("tensorgap", ours)
            single, several = peer(()), peer(("--multirun", *OF_PEER))
            peers["first"].append(single.cost_s)
            peers["further"].append((several.cost_s - single.cost_s) / 3)
            show("optimum-benchmark", peers)
    print("\na sweep of three cells, by phase, in s (the least of the rounds)")
    for phase in splits[0]:
        print(f"{min(split[phase] for split in splits):8.2f}  {phase}")
    return judge(ours, peers)


def sweep(folder: Path, precisions: Sequence[str], replicates: int) -> Run:
    """A sweep of ours, as a user types it."""
    matrix = folder / "cost.toml"
    quoted = ", ".join(f'"{name}"' for name in precisions)
    matrix.write_text(MATRIX.format(precisions=quoted, replicates=replicates), encoding="utf-8")
    command = [sys.executable, "-c", WATCHED, "sweep", str(matrix), "--output", str(folder)]
    start_s = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    end_s = time.time()
    if done.returncode:
        raise SystemExit(f"the sweep failed:\n{done.stderr}")
    lines = [line.split(maxsplit=2) for line in done.stderr.splitlines() if line[:6] == "EVENT "]
    seen = [(start_s, "start of Python, Ray and the template")]
    seen += [(float(at), name) for _, at, name in lines] + [(end_s, "")]
    phases: Counter[str] = Counter()
    costs = [0.0]  # of each cell, up to its row
    for (before_s, name), (after_s, _) in itertools.pairwise(seen):
        phases[name] += after_s - before_s
        costs += [0.0] if name == "row" else []
        costs[-1] += after_s - before_s if name not in MEASURING else 0.0
    last = seen[-2]
    phases["row"] -= end_s - last[0]
    phases["table, Parquet and end of Ray"] = end_s - last[0]
    further = costs[1:-1]  # the last is the end of the sweep
    further_s = statistics.fmean(further) if further else 0.0
    measuring_s = sum(phases[name] for name in MEASURING)
    return Run(end_s - start_s, measuring_s, phases, further_s)


def the_peer(environment: Path, folder: Path) -> Callable[[Sequence[str]], Run]:
    """A function that runs the peer with options; it is installed where it is not."""
    if not (environment / "bin" / "optimum-benchmark").exists():
        print(f"installing the peer into {environment} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, *PEER], check=True)
    model = folder / "gpt2"
    make_model(model)
    (folder / "cell.yaml").write_text(CONFIG.format(model=model, runs=folder / "runs"))
    program = [environment / "bin" / "optimum-benchmark", "--config-dir", folder]

    def run(options: Sequence[str]) -> Run:
        before = set(folder.glob("runs/**/benchmark_report.json"))
        start_s = time.time()
        done = subprocess.run(
            [*program, "--config-name", "cell", *options], capture_output=True, text=True
        )
        wall_s = time.time() - start_s
        reports = set(folder.glob("runs/**/benchmark_report.json")) - before
        if done.returncode or not reports:
            raise SystemExit(f"the peer failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        measuring_s = 0.0
        for report in reports:
            latency = json.loads(report.read_text())["forward"]["latency"]
            measuring_s += sum(latency["values"]) + latency["p50"]
        return Run(wall_s, measuring_s, Counter())

    return run


def make_model(folder: Path) -> None:
    """The same architecture with random weights, as a folder, in a process that ends."""
    code = "from transformers import GPT2Config, GPT2LMHeadModel; import sys\n"
    code += "GPT2LMHeadModel(GPT2Config()).save_pretrained(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True)


def show(name: str, costs: dict[str, list[float]]) -> None:
    """The last costs of one side."""
    print(f"{name:17}" + "".join(f"{found[-1]:8.2f}" for found in costs.values()), flush=True)


def judge(ours: dict[str, list[float]], peers: dict[str, list[float]]) -> int:
    """Print the figure; 0 where it meets the goals."""
    mine = {kind: statistics.median(found) for kind, found in ours.items()}
    theirs = {kind: statistics.median(found) for kind, found in peers.items()}
    first = mine["first"] / theirs["first"]
    further, replicate = (mine[kind] / theirs["further"] for kind in ("further", "replicate"))
    print(
        f"\ncost of tensorgap / optimum-benchmark: first cell {first:.2f} (at most {FIRST_GOAL}),"
        f" further cell {further:.3f}, replicate {replicate:.3f} (at most {FURTHER_GOAL})"
    )
    return 0 if first <= FIRST_GOAL and max(further, replicate) <= FURTHER_GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
