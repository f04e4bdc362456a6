"""benchmarks/gpu_check.py without a GPU: its steps are stand-ins, its rows are made."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simulated
from gpucheck_rows import FACTS_OF_A_CARD, PRECISIONS, made

from bench.asked import Workload
from bench.measured import Measurement, Outcome
from bench.results import store as results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from gpucheck import plan, verdicts
from gpucheck.folder import FACTS, LOG, TABLE, Folder
from gpucheck.predictions import BATCH, PREDICTIONS, TOPICS, expected_attention
from gpucheck.runner import Ended, Step, run, run_all
from gpucheck.seen import RANDOM, TINY, Seen
from gpucheck.verdicts import Verdict, judge

ROOT = Path(__file__).resolve().parent.parent


# --------------------------------------------------------------------------------- the runner


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def ran(code: str, limit_s: float = 20) -> tuple[str | None, list[str]]:
    lines: list[str] = []
    return run(python(code), lines.append, limit_s), lines


def test_a_step_that_ends_well_has_no_reason_and_its_lines_are_told() -> None:
    assert ran("import sys; print('one'); print('two', file=sys.stderr)") == (None, ["one", "two"])


def test_a_line_is_told_before_its_step_ends() -> None:
    told_s: list[float] = []
    code = "import time; print(1, flush=True); time.sleep(1)"
    assert run(python(code), lambda _: told_s.append(time.monotonic()), 20) is None
    assert time.monotonic() - told_s[0] > 0.5


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_is_told_by_its_signal(name: str) -> None:
    code = f"import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.{name})"
    assert ran(code) == (f"it crashed: {name}", ["before"])


def test_an_exception_is_told_by_its_own_words() -> None:
    reason, lines = ran("raise RuntimeError('the coil is loose')")
    assert reason == "RuntimeError: the coil is loose"
    assert lines[0].startswith("Traceback")


def test_a_hang_ends_at_its_limit_with_its_stack_and_with_what_it_started() -> None:
    start_s = time.monotonic()
    reason, lines = ran(
        "import faulthandler, subprocess, sys, time; faulthandler.enable()\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(other.pid, flush=True)\n"
        "time.sleep(60)",
        limit_s=2,
    )
    assert reason == "not done after 2 s"
    assert time.monotonic() - start_s < 20
    assert any("line 4" in line for line in lines)
    assert is_gone(int(lines[0]))


def test_a_hang_that_hears_no_signal_ends_too() -> None:
    code = "import signal, time; signal.signal(signal.SIGABRT, signal.SIG_IGN); time.sleep(60)"
    assert ran(code, limit_s=1)[0] == "not done after 1 s"


def is_gone(pid: int, within_s: float = 10) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_what_cannot_end_before_the_deadline_does_not_begin_and_what_can_does() -> None:
    steps = [Step("long", 60, 90), Step("short", 5, 9)]
    ended = list(run_all(steps, lambda _: python(""), print, deadline_s=20, clock=lambda: 0.0))
    assert ended[0] == Ended("long", 0.0, "20 s are left, it takes about 60 s", ran=False)
    assert (ended[1].reason, ended[1].ran) == (None, True)


def test_no_step_lasts_beyond_the_deadline() -> None:
    step = Step("slow", 0, 60)
    deadline_s = time.monotonic() + 1
    code = python("import time; time.sleep(60)")
    (ended,) = run_all([step], lambda _: code, print, deadline_s=deadline_s)
    assert ended.reason == "not done after 1 s"


def test_the_time_of_all_steps_fits_eight_minutes_and_each_has_a_limit_beyond_its_time() -> None:
    steps = plan.steps()
    assert sum(step.takes_s for step in steps) <= 450
    assert all(step.takes_s < step.limit_s for step in steps)
    assert steps[0].name == plan.PREFLIGHT
    assert steps[-1].name == plan.FIDELITY


def test_each_precision_is_measured_at_both_batches_and_profiled_last() -> None:
    for precision in PRECISIONS:
        requests = plan.requests("run", "H100", precision, plan.QUICK)
        asked = [workload for request in requests for workload in request.workloads]
        wanted = {plan.EAGER, plan.GRAPH, plan.MANY, Workload(TINY, "eager", 1, 128)}
        assert set(asked) == wanted and len(asked) == len(wanted)
        assert [request.sampling.profile for request in requests[:-1]] == [False] * (
            len(requests) - 1
        )
        assert requests[-1].sampling.profile
        assert requests[0].quality.enabled


def test_a_window_is_long_enough_for_a_counter_that_moves_every_100_ms() -> None:
    assert plan.QUICK.energy_s >= 7.5


# ------------------------------------------------------------------------------- predictions


def all_rows() -> list[Measurement]:
    rows = [made("fp16", "compile")]
    for precision in PRECISIONS:
        rows += [
            made(precision, model=TINY),
            made(precision),
            made(precision, "graph"),
            made(precision, batch_size=BATCH),
        ]
    return rows


def as_predicted() -> Seen:
    return Seen(all_rows(), FACTS_OF_A_CARD)


def with_rows(change: Callable[[Measurement], Measurement | None]) -> Seen:
    changed = [change(row) for row in all_rows()]
    return Seen([row for row in changed if row is not None], FACTS_OF_A_CARD)


def with_part(part: str, where: dict[str, Any], **values: Any) -> Seen:
    """Rows of which some have a part with other values."""

    def change(row: Measurement) -> Measurement:
        did = {
            "precision": row.cell.precision,
            "engine": row.workload.engine,
            "model": row.workload.model,
            "batch_size": row.workload.batch_size,
        }
        if getattr(row, part) is None or any(did[key] != value for key, value in where.items()):
            return row
        return simulated.changed(row, part, **values)

    return with_rows(change)


def with_fact(name: str, value: Any) -> Seen:
    return Seen(all_rows(), FACTS_OF_A_CARD | {name: value})


def with_sensor(**values: Any) -> Seen:
    return with_fact("sensor", FACTS_OF_A_CARD["sensor"] | values)


def ms(value: float, precision: str, engine: str = "eager", batch_size: int = 1) -> Seen:
    where = {"precision": precision, "engine": engine, "batch_size": batch_size, "model": RANDOM}
    return with_part("timing", where, latency_ms_p50=value)


def failures() -> Iterator[tuple[str, Seen]]:
    """For each prediction by its name what it must not hold for."""
    eager = {"engine": "eager", "model": RANDOM}
    for name in PRECISIONS:
        at = eager | {"precision": name}
        other = "no" if name != "fp32" else "yes"
        chosen = FACTS_OF_A_CARD["attention"] | {name: "math"}
        drifted = {"difference": 0.1, "alike": 3, "tried": 3}
        yield f"attention chosen, {name}", with_fact("attention", chosen)
        yield f"attention that ran, {name}", with_part("trace", at, attention="math")
        yield f"kernels of a forward, {name}", with_part("trace", at, count=259.0)
        yield (
            f"Tensor Cores in matrix products, {name}",
            with_part("trace", at, tensor_cores=other),
        )
        yield (
            f"perplexity of tiny, {name}",
            with_part("quality", {"precision": name, "model": TINY}, perplexity=5.305),
        )
        yield f"a graph's output, {name}", with_fact(f"graph output {name}", drifted)
        yield (
            f"rows measured, {name}",
            with_rows(
                lambda row, name=name: (  # type: ignore[misc]
                    None if row.cell.precision == name and row.workload == plan.MANY else row
                )
            ),
        )
    yield "masked attention of one query, fp16", with_fact("decode_error", 0.5)
    yield "attention with heads of 16, fp16", with_fact("head16_error", 0.5)
    yield "period of the power reading", with_sensor(reading_period_s=0.02)
    yield "window of the power reading", with_sensor(reading_window_s=0.1)
    yield "counter / readings under load", with_sensor(counter_ratio=1.07)
    yield (
        "energy of each row that has one",
        with_part("energy", {"precision": "fp16", "engine": "graph"}, uncertainty=0.04),
    )
    yield (
        "casts that mixed adds to fp32",
        with_part("trace", {"precision": "mixed"}, cast_count=158.0),
    )
    yield (
        "bytes of these casts",
        with_part("trace", {"precision": "mixed"}, cast_bytes=742_000_000),
    )
    yield (
        "kernels of a compiled forward, fp16",
        with_part("trace", {"engine": "compile"}, count=211.0),
    )
    yield (
        "classes of kernels in each trace",
        with_part("trace", {"precision": "bf16"}, other_ms=0.5),
    )
    yield "eager / graph at batch 1, fp32", ms(4.0, "fp32", "graph")
    yield "eager / graph at batch 1, fp16", ms(1.0, "fp16", "graph")
    yield f"fp32 / fp16 at batch {BATCH}", ms(25.0, "fp16", batch_size=BATCH)
    yield "mixed / fp32 at batch 1", ms(4.0, "mixed")
    yield (
        "latency of each row with measured peaks",
        with_part("roofline", {"precision": "fp16", "engine": "graph"}, lower_bound_ms=0.4),
    )
    yield (
        "tensorgap's latency / a plain loop's",
        with_fact("fidelity", {"holds": False, "text": "1.0500 +-0.0020"}),
    )


FAILURES = dict(failures())


def test_each_prediction_has_a_name_of_its_own_and_an_example_that_it_does_not_hold_for() -> None:
    names = [prediction.name for prediction in PREDICTIONS]
    assert len(set(names)) == len(names)
    assert set(FAILURES) == set(names)


def test_a_prediction_holds_for_rows_as_predicted_and_for_no_others() -> None:
    for prediction in PREDICTIONS:
        held = judge(prediction, as_predicted())
        assert held.verdict == Verdict.HOLDS, held
        failed = judge(prediction, FAILURES[prediction.name])
        assert failed.verdict == Verdict.FAILS, failed


def test_what_is_not_there_is_not_tested_and_says_why() -> None:
    ended = {step.name: Ended(step.name, 3.0, "it crashed: SIGSEGV") for step in plan.steps()}
    for prediction in PREDICTIONS:
        line = judge(prediction, Seen([], {}, ended))
        assert line.verdict == Verdict.NOT_TESTED
        assert "SIGSEGV" in line.found or line.found == "no row tells it"


def test_a_step_left_out_is_told_with_its_reason() -> None:
    left_out = Ended("mixed", 0.0, "20 s are left, it takes about 54 s", ran=False)
    (casts,) = [one for one in PREDICTIONS if one.name == "bytes of these casts"]
    line = judge(casts, Seen([], {}, {"mixed": left_out}))
    assert line.found == "step mixed was left out: 20 s are left, it takes about 54 s"


def test_a_row_that_this_gpu_cannot_have_is_not_tested() -> None:
    def unsupported(row: Measurement) -> Measurement:
        if row.cell.precision != "tf32":
            return row
        return replace(row, outcome=Outcome.UNSUPPORTED, reason="tf32 needs 8.0", timing=None)

    seen = with_rows(unsupported)
    lines = [judge(one, seen) for one in PREDICTIONS if one.steps == ("tf32",)]
    tested = [line.prediction.name for line in lines if line.verdict != Verdict.NOT_TESTED]
    assert tested == ["a graph's output, tf32"]  # which is no row's


def test_what_only_a_card_can_tell_does_not_count_under_a_modelled_one() -> None:
    lines = [
        judge(
            one, replace(FAILURES[one.name], facts=FAILURES[one.name].facts | {"simulated": True})
        )
        for one in PREDICTIONS
    ]
    for line in lines:
        expected = Verdict.FAILED_SIMULATED if line.prediction.on_card else Verdict.FAILS
        assert line.verdict == expected
    on_card = [line for line in lines if line.prediction.on_card]
    assert verdicts.exit_code(on_card, []) == 0
    assert verdicts.exit_code(lines, []) == 1


def test_exit_codes() -> None:
    held = [judge(one, as_predicted()) for one in PREDICTIONS]
    nothing = [judge(one, Seen([], {})) for one in PREDICTIONS]
    assert verdicts.exit_code(held, []) == 0
    assert verdicts.exit_code(held, ["fp16"]) == 1
    assert verdicts.exit_code(nothing, ["fp16"]) == 2


def test_another_gpu_is_expected_to_choose_what_torch_chooses_there() -> None:
    assert expected_attention((9, 0), 91000, "fp16") == "flash"
    assert expected_attention((8, 0), 91900, "bf16") == "flash"
    assert expected_attention((7, 5), 91900, "fp16") == "efficient"
    assert expected_attention((7, 5), 91900, "bf16") == "math"


def test_the_documented_predictions_are_those_of_the_code() -> None:
    page = (ROOT / "docs/predictions.md").read_text(encoding="utf-8")
    _, heading, rest = page.partition("## ")
    assert heading + rest == verdicts.document(TOPICS) + "\n"


# --------------------------------------------------------------------------- the whole of it

# The script itself with stand-ins for what the steps do and for how long they may take.
WHOLE = """
import os, signal, sys, time, types
sys.path[:0] = [{benchmarks!r}, {root!r}, {tests!r}]
import gpu_check
import gpucheck_rows as rows
from gpucheck import plan
from gpucheck.runner import Step

gpu_check.__file__ = __file__  # what a step's process runs
plan.steps = lambda: tuple(Step(name, 0, 10 if name == {hangs!r} else 90) for name in {steps!r})

def do(folder, step, sampling):
    print("step", step, "works")
    folder.fact("pid " + step, os.getpid())
    if step == "preflight":
        for name, value in rows.FACTS_OF_A_CARD.items():
            folder.fact(name, value)
        return
    folder.keep(rows.of_run(folder, rows.made(step)))
    print("step", step, "kept a row")
    if step == {hangs!r}:
        time.sleep(60)
    if step == "fp16":
        os.kill(os.getpid(), signal.SIGSEGV)
    if step == "tf32":
        raise ValueError("tf32 is tired")
    folder.keep(rows.of_run(folder, rows.made(step, "graph")))

import gpucheck
gpucheck.work = sys.modules["gpucheck.work"] = types.SimpleNamespace(do=do)
sys.exit(gpu_check.main())
"""


def whole(folder: Path, steps: tuple[str, ...], hangs: str = "") -> list[str]:
    """The command of the script with those stand-ins."""
    script = folder / "whole.py"
    places = {
        "benchmarks": str(ROOT / "benchmarks"),
        "root": str(ROOT),
        "tests": str(ROOT / "tests"),
    }
    script.write_text(WHOLE.format(**places, steps=steps, hangs=hangs))
    return [sys.executable, str(script), "--output", str(folder / "out")]


def only(folder: Path) -> Path:
    (found,) = (folder / "out" / "gpu-check").iterdir()
    return found


def merged(folder: Path) -> set[tuple[str, str]]:
    rows, _, _ = results.read(f"{folder}/results.parquet")
    return {(row.cell.precision, row.workload.engine) for row in rows}


def test_a_crash_an_exception_and_a_hang_cost_their_steps_only(tmp_path: Path) -> None:
    command = whole(tmp_path, ("preflight", *PRECISIONS), hangs="mixed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    place = only(tmp_path)
    broken = {("fp16", "eager"), ("mixed", "eager"), ("tf32", "eager")}
    healthy = {(name, engine) for name in ("fp32", "bf16") for engine in ("eager", "graph")}
    assert merged(place) == broken | healthy
    log = (place / LOG).read_text()
    for name in PRECISIONS:
        assert f"step {name} kept a row\n" in log
    assert log == done.stdout
    table = (place / TABLE).read_text()
    assert table in log
    assert re.search(r"eager / graph at batch 1, fp16 .*not tested +step fp16: it crashed", table)
    assert re.search(r"eager / graph at batch 1, fp32 .*holds", table)
    assert "tf32: ValueError: tf32 is tired, " in log
    assert "mixed: not done after 10 s, " in log


def test_whoever_kills_the_check_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    command = whole(tmp_path, ("preflight", "fp32", "mixed"), hangs="mixed")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s:
        found = list((tmp_path / "out").glob("gpu-check/*/" + LOG))
        if found and "step mixed kept a row" in found[0].read_text():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    place = only(tmp_path)
    assert merged(place) == {("fp32", "eager"), ("fp32", "graph"), ("mixed", "eager")}
    assert is_gone(Folder.open(str(place)).facts()["pid mixed"])
    assert "kernels of a forward, fp32" in (place / TABLE).read_text()


def test_whoever_ends_the_check_politely_reads_what_was_found(tmp_path: Path) -> None:
    command = whole(tmp_path, ("preflight", "fp32", "mixed", "bf16"), hangs="mixed")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if line == "step mixed kept a row\n":
            process.terminate()
            break
    rest = process.stdout.read()
    assert process.wait() == 1
    assert "mixed: stopped by SIGTERM, " in rest
    assert "bf16: left out: stopped by SIGTERM" in rest
    assert re.search(r"kernels of a forward, fp32 +211 +holds +211", rest)


def test_a_line_that_a_kill_cut_short_costs_itself_only(tmp_path: Path) -> None:
    folder = Folder.create(str(tmp_path))
    folder.fact("one", 1)
    with (folder.path / FACTS).open("a") as file:
        file.write('{"name": "two", "va')
    folder.fact("three", 3)
    assert folder.facts() == {"one": 1, "three": 3}


# ------------------------------------------------------------------------- without installing


ALL = """
import contextlib, importlib.util, io, pathlib, runpy, sys
sys.meta_path = [f for f in sys.meta_path if '__editable__' not in repr(f)]
sys.path = before = [p for p in sys.path if p != {root!r}]
for path in sorted(pathlib.Path({root!r}, "benchmarks").glob("*.py")):
    for name in [m for m in sys.modules if m.partition(".")[0] in ("bench", "cluster", "jobs")]:
        del sys.modules[name]
    sys.path, sys.argv, told = [*before], [str(path), "--help"], io.StringIO()
    assert importlib.util.find_spec("bench") is None
    with contextlib.redirect_stdout(told):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            assert not end.code, path
    assert told.getvalue().startswith("usage: "), path
    print(path.stem)
"""


def test_each_benchmark_runs_from_anywhere_without_installing(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ALL.format(root=str(ROOT))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(path.stem for path in ROOT.glob("benchmarks/*.py"))


def test_where_there_is_no_gpu_one_message_says_what_to_do(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks/gpu_check.py")
    done = subprocess.run(
        [sys.executable, "-P", script],
        cwd=tmp_path,
        env=os.environ | {"OUT": str(tmp_path / "out"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stdout
    (message,) = done.stderr.splitlines()
    assert message.startswith("gpu_check: torch ") and "run this where there is" in message
    assert (only(tmp_path) / LOG).read_text() == done.stdout
