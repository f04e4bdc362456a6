"""Does this GPU show what was predicted of it? Needs a CUDA device, and no Ray and no network.

    python benchmarks/gpu_check.py [--deadline SECONDS] [--only STEP ...] [--output DIR]

Runs from anywhere, without installing tensorgap. Each step is a process of its own with a time
limit: a preflight, which refuses at once where nothing can be checked; the power sensor; GPT-2's
124M architecture with random weights at fp32, fp16, mixed, tf32 and bf16, with the embedded model's
perplexity before and a profile last; torch.compile; and tensorgap's latency beside a plain loop's.
What goes wrong in a step costs that step. Each row, each fact and each line printed is on disk at
once, in DIR/gpu-check/UTC-TIMESTAMP (gpucheck/folder.py says what). docs/predictions.md has the
predictions with their reasons; the last table has each beside what was found.

Exit codes: 0 all that was tested holds and each step was done or left out for the deadline; 1 a
prediction does not hold, or a step went wrong; 2 nothing could be checked.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpucheck import plan, verdicts
from gpucheck.folder import LOG, Folder
from gpucheck.predictions import PREDICTIONS, TOPICS, Prediction
from gpucheck.runner import Ended, Incomplete, Refused, Step, Stopped, run_all, stoppable
from gpucheck.seen import Seen
from gpucheck.verdicts import Line, counted, judge

from bench.errors import TensorgapError
from bench.results.store import MERGED
from jobs.report import compare, from_rows
from jobs.report import table as report

_PR_SET_PDEATHSIG = 1
_REFUSED = "refused"  # the fact that says why


def main() -> int:
    asked = _arguments()
    if asked.document:
        print(verdicts.document(TOPICS))
        return 0
    if asked.step:
        return _child(asked)
    steps = [step for step in plan.steps() if step.name in (plan.PREFLIGHT, *asked.only)]
    try:
        folder = Folder.create(asked.output)
    except TensorgapError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    return _check(folder, steps, asked)


def _arguments() -> argparse.Namespace:
    names = [step.name for step in plan.steps()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output",
        metavar="DIR",
        default=os.environ.get("OUT") or "results",
        help="where its results folder goes (default: $OUT, or results)",
    )
    parser.add_argument(
        "--deadline", metavar="SECONDS", type=float, help="begin no step that would end later"
    )
    parser.add_argument(
        "--only", metavar="STEP", nargs="+", choices=names, default=names, help=", ".join(names)
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="shorter samples, whose numbers mean little: to see that all steps run",
    )
    parser.add_argument(
        "--patience",
        metavar="FACTOR",
        type=float,
        default=1.0,
        help="multiply the time limit of each step, for a slow host",
    )
    parser.add_argument(
        "--document", action="store_true", help="print the predictions as Markdown, and end"
    )
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


# ------------------------------------------------------------------------------------- parent


def _check(folder: Folder, steps: Sequence[Step], asked: argparse.Namespace) -> int:
    """Run the steps; each one's predictions are told when it has ended, and all at the end."""
    start_s = time.monotonic()
    deadline_s = None if asked.deadline is None else start_s + asked.deadline
    folder.tell(_budget(steps, asked.deadline))
    folder.tell(f"results: {folder.path}")
    ended: dict[str, Ended] = {}
    told: set[str] = set()
    with contextlib.suppress(Stopped), stoppable():
        for one in run_all(steps, _command(folder, asked), folder.tell, deadline_s, asked.patience):
            ended[one.step] = one
            folder.tell(f"{_how(one)}   [{time.monotonic() - start_s:.0f} s in all]")
            if one.step == plan.PREFLIGHT and one.reason:
                return _refuse(folder, one)
            lines = _judged(folder, steps, ended)
            folder.write_table(verdicts.table(lines))
            new = [line for line in lines if _is_due(line.prediction, ended, told)]
            told.update(line.prediction.name for line in new)
            if new:
                folder.tell(verdicts.table(new))
    return _conclude(folder, steps, ended)


def _command(folder: Folder, asked: argparse.Namespace) -> Callable[[Step], list[str]]:
    script = [sys.executable, "-u", str(Path(__file__).resolve())]
    rehearse = ["--rehearse"] if asked.rehearse else []

    def command(step: Step) -> list[str]:
        folder.tell(f"\n--- {step.name}")
        return [*script, "--step", step.name, "--output", str(folder.path), *rehearse]

    return command


def _budget(steps: Sequence[Step], deadline_s: float | None) -> str:
    """How long each step takes, and all."""
    each = ", ".join(f"{step.name} {step.takes_s:.0f}" for step in steps)
    until = "" if deadline_s is None else f"; none begins that would end after {deadline_s:.0f} s"
    return f"about {sum(step.takes_s for step in steps):.0f} s on a quick host: {each}{until}"


def _how(one: Ended) -> str:
    if not one.ran:
        return f"{one.step}: left out: {one.reason}"
    return f"{one.step}: {one.reason or 'done'}, {one.seconds:.1f} s"


def _refuse(folder: Folder, one: Ended) -> int:
    """Nothing can be checked: one message."""
    why = folder.facts().get(_REFUSED) or f"the preflight failed: {one.reason}"
    print(f"gpu_check: {why}; nothing was checked ({folder.path / LOG})", file=sys.stderr)
    return 2


def _judged(folder: Folder, steps: Sequence[Step], ended: dict[str, Ended]) -> list[Line]:
    """The predictions that the steps asked for can tell."""
    seen = Seen(folder.rows(), folder.facts(), ended)
    asked = {step.name for step in steps}
    return [judge(one, seen) for one in PREDICTIONS if asked.intersection(one.steps)]


def _is_due(prediction: Prediction, ended: dict[str, Ended], told: set[str]) -> bool:
    return prediction.name not in told and ended.keys() >= set(prediction.steps)


def _conclude(folder: Folder, steps: Sequence[Step], ended: dict[str, Ended]) -> int:
    """The whole of it: the rows, how each step ended, and each prediction beside its outcome."""
    lines = _judged(folder, steps, ended)
    rows = folder.rows()
    if rows:
        folder.tell("\n" + report.shown(compare.with_ratios(from_rows.cases(rows)), width=120))
    folder.tell("\n" + "\n".join(map(_how, ended.values())))
    table = verdicts.table(lines)
    folder.write_table(table)
    folder.tell(f"\n{table}\n")
    folder.tell(", ".join(f"{verdict}: {count}" for verdict, count in counted(lines).items()))
    folder.tell(f"{len(rows)} rows in {folder.path / MERGED}" if rows else "no rows")
    wrong = [one.step for one in ended.values() if one.ran and one.reason]
    wrong += [step.name for step in steps if step.name not in ended]
    return verdicts.exit_code(lines, wrong)


# -------------------------------------------------------------------------------------- child


def _child(asked: argparse.Namespace) -> int:
    """One step, in the process that the parent started for it."""
    # Whoever kills the parent cannot tell this process, whose session is its own.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()
    os.environ["HF_HUB_OFFLINE"] = "1"  # no step needs a hub, and none waits for one
    folder = Folder.open(asked.output)
    from gpucheck import work  # torch and transformers, which the parent needs not

    try:
        work.do(folder, asked.step, asked.rehearse)
    except Refused as why:
        folder.fact(_REFUSED, str(why))
        print(why)
        return 1
    except Incomplete as why:
        print(why)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
