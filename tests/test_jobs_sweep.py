"""The program as a user runs it: a process of its own, its output, its exit code."""

from __future__ import annotations

import collections
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faults_record
import pytest
from examples import NOON, measurement

from bench import matrix as matrices
from bench.errors import TensorgapError
from bench.measured import Measurement, Outcome
from bench.results import store as results
from bench.results.store import Results
from jobs import sweep

MATRIX = """
[cells]
gpu_types = ["CPU"]
precisions = ["fp32", "bf16"]

[[workloads]]
model = "tiny"
batch_size = [1, 2]
prompt_tokens = 32

[sampling]
warmup_min_s = 0
warmup_max_s = 0.1
latency_min_s = 0.3
latency_max_s = 0.5
min_samples = 11
throughput_s = 0.05
profile = false

[quality]
context = 256
stride = 256
"""
ROWS = 4
REPLICATES = 4


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(MATRIX)
    return path


@pytest.fixture
def long_matrix(tmp_path: Path) -> Path:
    """Cells that cannot all be done between a first row and what a test does then."""
    path = tmp_path / "short.toml"
    text = MATRIX.replace("latency_min_s = 0.3", f"replicates = {REPLICATES}\nlatency_min_s = 2")
    path.write_text(text.replace("latency_max_s = 0.5", "latency_max_s = 3"))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "jobs", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)


def start(*arguments: object) -> subprocess.Popen[str]:
    """A sweep in a process group of its own, as a shell would start it."""
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_rows(output: Path, count: int) -> Path:
    """The results folder, once it holds so many rows."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for parts in output.glob("*/*/parts"):
            if len(list(parts.glob("*.parquet"))) >= count:
                return parts.parent
        time.sleep(0.05)
    raise AssertionError(f"{count} rows did not come")


def rows_in(place: Path | str) -> dict[object, Measurement]:
    rows, _, corrupt = results.read(str(place))
    assert corrupt == []
    found = {row.key: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_sweep_ends_with_its_table_and_the_path_of_its_parquet(
    matrix: Path, tmp_path: Path
) -> None:
    done = run("sweep", matrix, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path == next(tmp_path.glob("out/short/*/results.parquet"))
    found = rows_in(path)
    assert len(found) == ROWS
    # Here both clocks are the same one.
    assert all(row.finished_at <= row.received_at for row in found.values())  # type: ignore[operator]
    for word in ("latency", "speedup", "energy", "throughput", "perplexity", "size", "fp32"):
        assert word in done.stdout
    assert f"[{ROWS}/{ROWS}]" in done.stderr
    assert "left" in done.stderr
    assert (path.parent / "matrix.toml").read_text() == MATRIX
    # The table again, from the folder and from the file.
    folder, file = run("report", path.parent), run("report", path)
    assert folder.returncode == file.returncode == 0
    assert folder.stdout == file.stdout
    assert folder.stdout.strip() in done.stdout


def test_killed_and_resumed_no_row_is_lost_or_measured_twice(matrix: Path, tmp_path: Path) -> None:
    killed = start("sweep", matrix, "--output", tmp_path)
    folder = wait_for_rows(tmp_path, 1)
    second = run("sweep", "--resume", folder)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=400)
    assert second.returncode == 2
    assert "another sweep is writing here" in second.stderr
    before = rows_in(folder)
    assert 1 <= len(before) < ROWS

    resumed = run("sweep", "--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    after = rows_in(folder / "results.parquet")
    assert len(after) == ROWS
    assert all(row.outcome == Outcome.OK for row in after.values())
    for key, row in before.items():
        assert after[key] == row  # with its time: it was not measured again
    last = max(row.finished_at for row in before.values() if row.finished_at)
    new = [row for key, row in after.items() if key not in before]
    assert all(row.started_at is not None and row.started_at > last for row in new)


def test_interrupted_once_it_finishes_the_running_cell(long_matrix: Path, tmp_path: Path) -> None:
    process = start("sweep", long_matrix, "--output", tmp_path)
    folder = wait_for_rows(tmp_path, 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all in the foreground
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 130, errors
    assert "finishing the running cells; Ctrl-C again stops them now" in errors
    assert f"go on with: tensorgap sweep --resume {folder}" in errors
    assert "Traceback" not in errors
    found = rows_in(folder / "results.parquet")
    assert {m.outcome for m in found.values()} == {Outcome.OK}
    assert len(found) < ROWS * REPLICATES
    processes = collections.Counter((m.cell, m.replicate) for m in found.values())
    assert set(processes.values()) == {2}  # each that ran has measured both workloads
    assert output.splitlines()[-1] == str(folder / "results.parquet")
    faults_record.note("Ctrl-C", None, "the running cell is measured; exit code 130")


@pytest.mark.parametrize("numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_interrupted_twice_or_terminated_it_stops_and_keeps_its_rows(
    long_matrix: Path, tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    process = start("sweep", long_matrix, "--output", tmp_path)
    folder = wait_for_rows(tmp_path, 1)
    assert process.stderr is not None
    broke = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        if number != numbers[-1]:
            while "finishing" not in process.stderr.readline():
                pass
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 130, errors
    assert f"go on with: tensorgap sweep --resume {folder}" in errors
    assert "Traceback" not in errors
    assert 1 <= len(rows_in(folder / "results.parquet")) < ROWS * REPLICATES
    assert output.splitlines()[-1] == str(folder / "results.parquet")
    if len(numbers) == 2:
        took_s = time.monotonic() - broke
        faults_record.note("Ctrl-C twice", took_s, "what was measured before; exit code 130")


@pytest.fixture(scope="module")
def narrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a sweep of fp32 alone, whose progress nobody read."""
    output = tmp_path_factory.mktemp("narrowed")
    matrix = output / "short.toml"
    matrix.write_text(MATRIX)
    process = start("sweep", matrix, "--output", output, "--precision", "fp32")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=400) == 0
    return next(output.glob("short/*"))


def test_a_sweep_goes_on_when_nobody_reads_its_progress(narrowed: Path) -> None:
    found = rows_in(narrowed / "results.parquet")
    assert len(found) == ROWS / 2
    assert {m.outcome for m in found.values()} == {Outcome.OK}


def test_a_corrupt_part_is_measured_again_and_a_narrowed_sweep_stays_narrow(
    narrowed: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(narrowed, tmp_path / "short" / narrowed.name))
    whole = rows_in(folder)
    part = next((folder / "parts").glob("*-b2-*.parquet"))
    part.write_bytes(part.read_bytes()[:100])

    shown = run("report", folder)
    assert f"corrupt result file {part}" in shown.stderr
    resumed = run("sweep", "--resume", folder)
    assert resumed.returncode == 0
    assert f"corrupt result file {part}" in resumed.stderr
    assert "measured again" in resumed.stderr
    after = rows_in(folder / "results.parquet")
    assert after.keys() == whole.keys()
    changed = [key for key in after if after[key] != whole[key]]
    assert [key[1].batch_size for key in changed] == [2]  # type: ignore[index]


def test_blanks_and_letters_of_any_language_in_paths_and_a_folder_that_was_moved(
    tmp_path: Path,
) -> None:
    matrix = tmp_path / "für jeden 漢字" / "mine.toml"
    matrix.parent.mkdir()
    matrix.write_text(MATRIX)
    done = run("sweep", matrix, "--output", tmp_path / "out put ✓", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path == next(tmp_path.glob("out put ✓/mine/*/results.parquet"))
    whole = rows_in(path)
    copy = Path(shutil.copytree(path.parent, tmp_path / "another place" / "copy"))
    shutil.rmtree(path.parent)
    next((copy / "parts").glob("*-b2-*.parquet")).unlink()
    resumed = run("sweep", "--resume", copy)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1] == str(copy / "results.parquet")
    assert rows_in(copy).keys() == whole.keys()
    assert not path.parent.exists()


def test_an_absent_gpu_type_is_unplaced_within_seconds(matrix: Path, tmp_path: Path) -> None:
    matrix.write_text(MATRIX.replace('"CPU"', '"A100"'))
    start_s = time.monotonic()
    done = run("sweep", matrix, "--output", tmp_path)
    assert time.monotonic() - start_s < 120  # of the 600 that it waits for an autoscaler
    assert done.returncode == 1
    found = rows_in(Path(done.stdout.splitlines()[-1]))
    assert {row.outcome for row in found.values()} == {Outcome.UNPLACED}
    assert len(found) == ROWS
    assert "no A100 here" in done.stdout


def test_resume_tries_again_what_had_no_place_but_not_what_failed(tmp_path: Path) -> None:
    text = MATRIX.replace('"CPU"', '"CPU", "A100", "V100"').replace('"fp32", "bf16"', '"fp32"')
    folder = Results.create(str(tmp_path), "m", text, NOON, ["CPU"])
    matrix = matrices.parse(text, "m", "m")
    outcomes = {"CPU": Outcome.FAILED, "A100": Outcome.UNPLACED, "V100": Outcome.LOST}
    for cell, workload in itertools.product(matrices.cells(matrix, ["CPU"]), matrix.workloads):
        outcome = outcomes[cell.gpu_type]
        folder.write(
            measurement(
                cell=cell, workload=workload, run=folder.source.run, outcome=outcome, timing=None
            )
        )
    before = rows_in(folder.location)
    resumed = run("sweep", "--resume", folder.location)
    assert resumed.returncode == 1, resumed.stderr
    after = rows_in(folder.location)
    assert after.keys() == before.keys()
    # What an attempt found of a V100 says more than that there is none now.
    changed = [row for key, row in after.items() if row != before[key]]
    assert [(row.cell.gpu_type, row.outcome) for row in changed] == [("A100", Outcome.UNPLACED)] * 2
    assert all("no A100 here" in str(row.reason) for row in changed)


def test_a_row_that_cannot_be_written_ends_the_sweep_but_nothing_more(
    matrix: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from bench import records, results\n"
        "from jobs.cli import main\n"
        "def full(self, measurement): raise records.TensorgapError('the disk is full')\n"
        "results.Results.write = full\n"
        "main(sys.argv[1:])"
    )
    arguments = ["sweep", str(matrix), "--output", str(tmp_path), "--precision", "fp32"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2
    folder = next(tmp_path.glob("short/*"))
    assert f"go on with: tensorgap sweep --resume {folder}" in done.stderr
    assert done.stderr.splitlines()[-1] == "tensorgap: the disk is full"
    assert "Ray instance" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_missing_row_is_not_a_complete_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Results.create(str(tmp_path), "short", MATRIX, NOON, ["CPU"])
    folder.write(measurement(run=folder.source.run))
    assert sweep._conclude(folder, finished=True) == 1
    assert f"rows are missing; go on with: tensorgap sweep --resume {folder.location}" in (
        capsys.readouterr().err
    )


def test_a_full_disk_at_the_merge_hides_no_table_and_says_that_the_rows_are_safe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Results.create(str(tmp_path), "short", MATRIX, NOON, ["CPU"])
    folder.write(measurement(run=folder.source.run))
    put = os.replace

    def full(source: str, target: str) -> None:
        if str(target).endswith("results.parquet"):
            raise OSError(28, "No space left on device")
        put(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TensorgapError) as caught:
        sweep._conclude(folder, finished=True)
    assert str(caught.value) == (
        f"{folder.location}: No space left on device; the rows are kept in parts/; make room,"
        f" then: tensorgap sweep --resume {folder.location}"
    )
    assert "2.00 ms" in capsys.readouterr().out
    assert not list(Path(folder.location).glob("*.tmp"))


def test_a_place_that_fails_to_the_end_hides_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Results.create(str(tmp_path), "short", MATRIX, NOON, ["CPU"])
    shutil.rmtree(Path(folder.location) / "parts")
    folder.write(measurement(run=folder.source.run))
    with pytest.raises(TensorgapError, match=r"rows wait in .*, for --resume"):
        sweep._conclude(folder, finished=False)
    assert "2.00 ms" in capsys.readouterr().out


def test_no_other_sweep_writes_before_the_rows_are_merged(narrowed: Path) -> None:
    code = (
        "import sys\n"
        "from bench import results\n"
        "from jobs import sweep\n"
        "from jobs.cli import main\n"
        "finish = results.Results.finish\n"
        "def contested(folder):\n"
        "    try:\n"
        "        with results.Results.open(folder.location).locked(): print('free')\n"
        "    except results.TensorgapError as error: print(error)\n"
        "    return finish(folder)\n"
        "results.Results.finish = contested\n"
        "main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", "--resume", str(narrowed)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert f"{narrowed}: another sweep is writing here" in done.stdout
    with Results.open(str(narrowed)).locked():
        pass


def test_an_edited_matrix_is_told_before_anything_starts(tmp_path: Path) -> None:
    folder = Results.create(str(tmp_path), "short", MATRIX, NOON, ["CPU"])
    edited = Path(folder.location) / "matrix.toml"
    edited.write_text(MATRIX.replace("[1, 2]", "[1, 2, 4]"))
    resumed = run("sweep", "--resume", folder.location)
    assert resumed.returncode == 2
    assert resumed.stderr == (
        f"tensorgap: {edited}: was changed since the sweep began, and a sweep is resumed as it"
        f" began; start a new one with it: tensorgap sweep {edited}; or remove it and resume\n"
    )


SECRETS = ("AKIAEXAMPLE", "wJalrXUtn%2FKEY", "wJalrXUtn/KEY")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "{matrix}", "--output", "{place}"],
        ["sweep", "{matrix}", "--output={place}"],
        ["sweep", "--resume", "{place}"],
        ["report", "{place}"],
        ["explain", "{place}"],
        ["explain", "{place}.csv"],
        ["report", "{place}.csv"],
        ["merge", "{place}", "-o", "x.parquet"],
        ["merge", "{matrix}", "-o", "{place}.parquet"],
        ["plan", "{place}"],
        ["plan", "{matrix}", "{place}"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("scheme", ["s3", "nonsense"])
def test_no_secret_of_a_place_is_ever_shown(
    matrix: Path, arguments: list[str], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    tail = "bucket/x?scheme=http&endpoint_override=127.0.0.1:1&session_token=wJalrXUtn%2FKEY"
    place = f"{scheme}://{SECRETS[0]}:{SECRETS[1]}@{tail}"
    typed = [argument.format(matrix=matrix, place=place) for argument in arguments]
    done = run("--debug", *typed)
    assert done.returncode == 2, done.stderr
    assert "tensorgap: " in done.stderr or "Usage:" in done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep"], "give either a MATRIX or --resume FOLDER"),
        (["sweep", "no.toml"], "no.toml: there is no such file"),
        (["sweep", "--resume", "nowhere"], "not a results folder"),
        (["sweep", "{matrix}", "--resume", "nowhere"], "give either"),
        (["sweep", "{matrix}", "--retry-failed"], "--retry-failed needs --resume"),
        (["sweep", "{matrix}", "--precision", "fp23"], "did you mean fp32?"),
        (["sweep", "{matrix}", "--precision", "fp16"], "not in this matrix"),
        (["sweep", "{matrix}", "--model", "gpt3"], "not in this matrix"),
        (["sweep", "{matrix}", "--gpu-type", "T4"], "not in this matrix"),
        (["sweep", "{matrix}", "--output", "/proc/nowhere"], "/proc/nowhere"),
        (["sweep", "{matrix}", "--output", "nowhere://x"], "s3://BUCKET/PATH"),
        (["sweep", "{matrix}", "--address", "127.0.0.1:1"], "no Ray at 127.0.0.1:1"),
        (["sweep", "{matrix}", "--address", "ray://127.0.0.1:1"], "unset RAY_ADDRESS"),
        (["sweep", "{matrix}", "--address", "http://127.0.0.1:8265"], "--address auto"),
        (["sweep", "--resume", "x", "--output", "y"], "leave --output out"),
        (["sweep", "--resume", "x", "--simulated"], "leave --simulated"),
        (["plan", "{empty}"], "no cell is left to measure"),
        (["plan", "{lost}"], 'model = "../nowhere/gpt2": there is no such folder'),
        (["sweep", "{lost}"], 'model = "../nowhere/gpt2": there is no such folder'),
        (["report", "{matrix}", "--max-input", "much"], "'much' is no size; give one such as"),
        (["report", "nowhere"], "there is no such file or folder"),
        (["report", "{matrix}"], "not a readable Parquet file"),
        (["merge", "nowhere", "-o", "x.parquet"], "there is no such file or folder"),
        (["merge", "nowhere", "-o", "x.csv"], "must end in .parquet"),
        (["plan", "no.toml"], "there is no such file"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    matrix: Path, arguments: list[str], message: str
) -> None:
    empty = matrix.with_name("empty.toml")
    exclude = '[{ gpu_type = "CPU", precision = "fp32" }]'
    text = MATRIX.replace(', "bf16"', "").replace("[[", f"exclude = {exclude}\n[[", 1)
    empty.write_text(text)
    lost = matrix.with_name("lost.toml")
    lost.write_text(MATRIX.replace('"tiny"', '["tiny", "../nowhere/gpt2"]'))
    places = {"matrix": matrix, "empty": empty, "lost": lost}
    done = run(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_script_alone_says_what_it_lacks(tmp_path: Path) -> None:
    script = shutil.copy(sweep.__file__, tmp_path)
    # -S -E: as where nothing of ours is installed.
    done = subprocess.run(
        [sys.executable, "-S", "-E", script, "m.toml"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1  # ray submit knows no other
    assert done.stderr.startswith("tensorgap: the rest of tensorgap is not on this head")
    assert "Traceback" not in done.stderr
