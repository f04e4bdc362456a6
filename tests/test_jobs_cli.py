"""The command line: what it teaches, what it imports, and one message for whatever goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import kept_rows
import pytest
from sweeps import Run

from bench import __version__
from bench import matrix as matrices
from bench.results import store as results
from jobs import plan, progress, sweep

COMMANDS = ("sweep", "plan", "report", "explain", "merge", "doctor")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python, which has imported nothing yet."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_help_names_every_command_and_the_exit_codes(run: Run) -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert all(f"\n  {name} " in shown.stdout for name in COMMANDS)
    assert "130 interrupted" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_teaches_by_example(run: Run, name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert f"tensorgap {name} " in shown.stdout or f"\n  tensorgap {name}" in shown.stdout


def test_help_imports_nothing_heavy_and_the_report_neither_ray_nor_torch() -> None:
    code = (
        "import sys\nfrom jobs.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 'numpy', 'rich'} & set(sys.modules)\n"
        "import jobs.explain, jobs.report.command, jobs.plan, jobs.sweep, cluster.driver\n"
        "heavy |= {'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", ["sweep {} --output {}", "plan {} --address auto"])
def test_without_ray_a_message_says_what_to_install(tmp_path: Path, arguments: str) -> None:
    matrix = tmp_path / "m.toml"
    matrix.write_text('[[workloads]]\nmodel = "tiny"\n')
    given = arguments.format(matrix, tmp_path).split()
    # Importing it then fails as it does where it is not installed.
    code = f"import sys; sys.modules['ray'] = None; from jobs.cli import main; main({given!r})"
    done = python(code)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tensorgap: Ray is not installed")
    assert last.endswith("pip install 'ray>=2.60'")


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"tensorgap, version {__version__}\n"


def test_doctor_of_a_machine_without_a_driver_or_a_hub(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = run("doctor")
    assert shown.returncode == 0
    for words in ("NVIDIA driver", "precisions  fp32", "energy", "torch 2", "HF_HUB_OFFLINE"):
        assert words in shown.stdout


def test_plan_says_what_runs_and_what_cannot_and_why(run: Run, tmp_path: Path) -> None:
    matrix = tmp_path / "m.toml"
    matrix.write_text(
        '[cells]\ngpu_types = ["CPU", "A100"]\nprecisions = ["fp32", "tf32"]\n'
        '[[workloads]]\nmodel = "tiny"\nbatch_size = [1, 8]\n'
    )
    shown = run("plan", str(matrix))
    assert shown.returncode == 1
    lines = [line.strip() for line in shown.stdout.splitlines()]
    assert "CPU fp32         runs" in lines
    assert any(line.startswith("CPU tf32         UNSUPPORTED: tf32 needs") for line in lines)
    (absent,) = [line for line in lines if "UNPLACED" in line]
    assert absent.startswith("A100 fp32, tf32  UNPLACED: no A100")
    assert "4 cells x 2 rows" in shown.stdout
    assert "plus loading, compiling and profiles, and the perplexity of each" in shown.stdout
    nowhere = run("plan", str(matrix), "--gpu-type", "A100")
    assert "none of its cells can be measured here" in nowhere.stdout
    assert "at most about" not in nowhere.stdout
    assert run("plan", str(matrix), "--gpu-type", "CPU", "--precision", "fp32").returncode == 0


def test_a_plan_of_a_machine_of_two_types_says_which_take_turns(
    run: Run, tmp_path: Path, fake_nvml: Callable[..., object]
) -> None:
    fake_nvml("gpu = p100", "gpu = t4", "gpu = t4")
    matrix = tmp_path / "m.toml"
    longest = []
    for exclusive in ("gpu", "host"):
        matrix.write_text(
            '[cells]\ngpu_types = ["P100", "T4", "CPU"]\nprecisions = ["fp32"]\n'
            '[[workloads]]\nmodel = "tiny"\n'
            f'[placement]\nexclusive = "{exclusive}"\n[sampling]\nreplicates = 2\n'
        )
        asked = matrices.load(matrix)
        place = plan.look(None, False, asked)
        cells = matrices.cells(asked, place.types)
        shown = run("plan", str(matrix)).stdout
        assert "this machine has 1 CPU, 1 P100, 2 T4" in shown
        assert ("the types of one host take turns" in shown) == (exclusive == "host")
        process_s = progress.longest_process_s(asked)
        longest.append(plan.longest_s(asked, cells, place) / process_s)
    # Two blocks of each type; a CPU cell is alone in any case. The T4s are two GPUs of one host.
    assert longest == [2 + 2, 2 + 2 + 2]


def test_a_shipped_matrix_is_found_by_its_bare_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("plan", "study").stdout.startswith("study: 12 cells")
    (tmp_path / "study").write_text('name = "mine"\n[[workloads]]\nmodel = "tiny"\n')
    assert run("plan", "study").stdout.startswith("mine: ")
    unknown = run("sweep", "stdy")
    assert unknown.returncode == 2
    assert "stdy: there is no such file" in unknown.stderr


def test_a_sweep_and_a_plan_name_a_matrix_alike() -> None:
    for command in (plan.command, sweep.command):
        (matrix,) = [option for option in command.params if option.name == "matrix"]
        found = matrix.process_value(click.Context(command), "generations")
        assert matrices.load(found).name == "generations"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m.toml", "--resume", "results/x"],
        ["--resume", "results/x", "--output", "y"],
        ["m.toml", "--retry-failed"],
        ["--resume", "results/x", "--precision", "fp32"],
        ["--resume", "results/x", "--simulated"],
    ],
    ids=" ".join,
)
def test_options_that_contradict_each_other_are_refused(run: Run, arguments: list[str]) -> None:
    refused = run("sweep", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Usage: tensorgap sweep")


def test_an_unforeseen_error_shows_its_traceback_only_with_debug(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(results, "files_at", broken)
    for debug in ([], ["--debug"]):
        done = run("merge", "x", "-o", "o.parquet", *debug)
        assert done.returncode == 3
        assert "RuntimeError: a fault" in done.stderr
        assert ("Traceback" in done.stderr) == bool(debug)


def test_output_can_be_piped_into_a_reader_that_stops() -> None:
    command = f"{sys.executable} -m jobs --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("Usage: tensorgap")
    assert done.stderr == ""


def test_too_little_memory_is_one_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def big(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(results, "files_at", big)
    done = run("merge", "x", "-o", "/nowhere/x.parquet")
    assert done.returncode == 2
    assert done.stderr == (
        "tensorgap: there is not enough memory; read less at once, and see --max-input\n"
    )


@pytest.fixture
def empty(tmp_path: Path) -> str:
    """A Parquet file without rows."""
    path = str(tmp_path / "empty.parquet")
    kept_rows.write(path, [], [])
    return path


def test_json_of_nothing_is_an_empty_list(run: Run, empty: str) -> None:
    shown = run("report", empty, "--format", "json")
    assert json.loads(shown.stdout) == []
    assert shown.returncode == 0


@pytest.mark.parametrize("arguments", [["report"], ["merge", "-o", "all.parquet"]], ids=str)
def test_a_table_of_somebody_else_is_shown_where_it_is_read(
    run: Run, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "Study.CSV"
    place.write_text("precision,latency_ms\nfp32,10\n")
    refused = run(*arguments, str(place))
    assert refused.returncode == 2
    assert f"{place}: a CSV; `tensorgap explain {place}` reads tables of others" in refused.stderr


def test_gpu_types_are_compared_as_a_table_or_as_json_only(run: Run, empty: str) -> None:
    refused = run("report", empty, "--against", "T4", "--format", "csv")
    assert refused.returncode == 2
    assert "--against: with --format csv; allowed: table, json" in refused.stderr
    absent = run("report", empty, "--against", "T4")
    assert "--against T4: no row of it is OK; there are none" in absent.stderr
