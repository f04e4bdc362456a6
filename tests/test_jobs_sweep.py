"""`tensorgap sweep` as a user runs it: its output, its exit code, what it keeps and resumes."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import raylets
from examples import NOON, measurement
from sweeps import MATRIX, ROWS, Run, command, rows_in, scripted

from bench import matrix as matrices
from bench.errors import TensorgapError
from bench.measured import Outcome
from bench.results.store import Results
from jobs import sweep

# Without the question who can write on the nodes, for which each starts a process.
QUICKLY = ("--trust-local-users",)
Scripted = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(MATRIX)
    return path


@pytest.fixture(scope="module")
def cluster(fakenvml_library: Path) -> Iterator[raylets.Raylets]:
    """A cluster that is a head with CPUs; this process is not connected to it."""
    with raylets.started(fakenvml_library, num_cpus=2) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def measures(cluster: raylets.Raylets) -> Scripted:
    """A function that runs a scripted sweep on the cluster in a process of its own."""

    def run(
        *arguments: object, before: str = "", **options: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            scripted("sweep", *arguments, *QUICKLY, "--address", cluster.address, before=before),
            stdout=subprocess.PIPE,
            **{"stderr": subprocess.PIPE, "text": True, "timeout": 600, **options},
            env=cluster.environment,
        )  # type: ignore[call-overload,no-any-return]

    return run


# ------------------------------------------------------------------------- from end to end


def test_a_sweep_ends_with_its_table_and_the_path_of_its_parquet(run: Run, tmp_path: Path) -> None:
    """A Ray of its own, a real model and its perplexity; test_docs.py has one with a profile."""
    matrix, home = tmp_path / "short.toml", tmp_path / "home"
    home.mkdir()
    matrix.write_text(MATRIX)
    given = command("sweep", matrix, "--output", tmp_path / "out", "--precision", "fp32")
    done = subprocess.run(
        given, capture_output=True, text=True, timeout=600, env=os.environ | {"HOME": str(home)}
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path == next(tmp_path.glob("out/short/*/results.parquet"))
    found = rows_in(path)
    assert len(found) == 2
    for row in found.values():
        # Here both clocks are the same one.
        assert row.finished_at and row.received_at
        assert row.finished_at <= row.received_at
        assert row.quality and row.quality.perplexity
        assert row.trace is None
    for word in ("latency", "speedup", "energy", "throughput", "perplexity", "size", "fp32"):
        assert word in done.stdout
    assert "[2/2]" in done.stderr
    assert "left" in done.stderr
    assert not list(home.iterdir())  # no token of Ray, above all
    # The table again, from the folder and from the file.
    folder, file = run("report", path.parent), run("report", path)
    assert folder.returncode == file.returncode == 0
    assert folder.stdout == file.stdout
    assert folder.stdout.strip() in done.stdout


# -------------------------------------------------------------- what is kept, and goes on


@pytest.fixture(scope="module")
def narrowed(measures: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a sweep of fp32 alone, whose progress nobody read."""
    output = tmp_path_factory.mktemp("narrowed") / "out put ✓"
    matrix = output.parent / "für jeden 漢字" / "mine.toml"
    matrix.parent.mkdir()
    matrix.write_text(MATRIX)
    reader, writer = os.pipe()
    os.close(reader)
    done = measures(matrix, "--output", output, "--precision", "fp32", stderr=writer)
    os.close(writer)
    assert done.returncode == 0
    path = Path(done.stdout.splitlines()[-1])
    assert path == next(output.glob("mine/*/results.parquet"))
    return path.parent


def test_a_sweep_goes_on_when_nobody_reads_its_progress_whatever_its_paths_are_called(
    narrowed: Path,
) -> None:
    found = rows_in(narrowed / "results.parquet")
    assert len(found) == ROWS / 2
    assert {m.outcome for m in found.values()} == {Outcome.OK}
    assert (narrowed / "matrix.toml").read_text() != MATRIX  # it is narrowed, too


def test_a_corrupt_row_of_a_moved_folder_is_measured_again_and_a_narrow_sweep_stays_so(
    measures: Scripted, run: Run, narrowed: Path, tmp_path: Path
) -> None:
    whole = rows_in(narrowed / "results.parquet")
    folder = Path(shutil.copytree(narrowed, tmp_path / "another place" / "copy"))
    before = sorted(narrowed.rglob("*"))
    (folder / "results.parquet").unlink()
    (part,) = (folder / "parts").glob("rows-*")
    part.write_bytes(part.read_bytes()[:-100])

    shown = run("report", folder)
    assert f"corrupt result file {part}" in shown.stderr
    resumed = measures("--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert f"corrupt result file {part}" in resumed.stderr
    assert "measured again" in resumed.stderr
    assert resumed.stdout.splitlines()[-1] == str(folder / "results.parquet")
    after = rows_in(folder / "results.parquet")
    assert after.keys() == whole.keys()
    changed = [key for key in after if after[key] != whole[key]]
    assert [key[1].batch_size for key in changed] == [2]  # type: ignore[index]
    assert sorted(narrowed.rglob("*")) == before


def test_no_other_sweep_writes_before_the_rows_are_merged(
    measures: Scripted, narrowed: Path
) -> None:
    contested = (
        "from bench.results import store\n"
        "finish = store.Results.finish\n"
        "def contested(folder, rows):\n"
        "    try:\n"
        "        with store.Results.open(folder.location).locked(): print('free')\n"
        "    except store.TensorgapError as error: print(error)\n"
        "    return finish(folder, rows)\n"
        "store.Results.finish = contested\n"
    )
    done = measures("--resume", narrowed, before=contested)
    assert done.returncode == 0, done.stderr
    assert f"{narrowed}: another sweep is writing here" in done.stdout
    with Results.open(str(narrowed)).locked():
        pass


def test_an_absent_gpu_type_is_unplaced_within_seconds(
    measures: Scripted, matrix: Path, tmp_path: Path
) -> None:
    matrix.write_text(MATRIX.replace('"CPU"', '"A100"'))
    start_s = time.monotonic()
    done = measures(matrix, "--output", tmp_path)
    assert time.monotonic() - start_s < 120  # of the 600 that it waits for an autoscaler
    assert done.returncode == 1
    found = rows_in(Path(done.stdout.splitlines()[-1]))
    assert {row.outcome for row in found.values()} == {Outcome.UNPLACED}
    assert len(found) == ROWS
    assert "no A100 here" in done.stdout


def test_resume_tries_again_what_had_no_place_but_not_what_failed(
    measures: Scripted, tmp_path: Path
) -> None:
    text = MATRIX.replace('"CPU"', '"CPU", "A100", "V100"').replace('"fp32", "bf16"', '"fp32"')
    folder = Results.create(str(tmp_path), "m", text, NOON, ["CPU"])
    asked = matrices.parse(text, "m", "m")
    outcomes = {"CPU": Outcome.FAILED, "A100": Outcome.UNPLACED, "V100": Outcome.LOST}
    for cell, workload in itertools.product(matrices.cells(asked, ["CPU"]), asked.workloads):
        outcome = outcomes[cell.gpu_type]
        folder.write(
            measurement(
                cell=cell, workload=workload, run=folder.source.run, outcome=outcome, timing=None
            )
        )
    before = rows_in(folder.location)
    resumed = measures("--resume", folder.location)
    assert resumed.returncode == 1, resumed.stderr
    after = rows_in(folder.location)
    assert after.keys() == before.keys()
    # What an attempt found of a V100 says more than that there is none now.
    changed = [row for key, row in after.items() if row != before[key]]
    assert [(row.cell.gpu_type, row.outcome) for row in changed] == [("A100", Outcome.UNPLACED)] * 2
    assert all("no A100 here" in str(row.reason) for row in changed)


def test_a_row_that_cannot_be_written_ends_the_sweep_but_nothing_more(
    measures: Scripted, matrix: Path, tmp_path: Path
) -> None:
    full = (
        "from bench.errors import TensorgapError\n"
        "from bench.results import store\n"
        "def full(self, measurement): raise TensorgapError('the disk is full')\n"
        "store.Results.write = full\n"
    )
    done = measures(matrix, "--output", tmp_path, "--precision", "fp32", before=full)
    assert done.returncode == 2
    folder = next(tmp_path.glob("short/*"))
    assert f"go on with: tensorgap sweep --resume {folder}" in done.stderr
    assert done.stderr.splitlines()[-1] == "tensorgap: the disk is full"
    assert "Ray instance" not in done.stderr
    assert "Exception ignored" not in done.stderr


def a_folder(tmp_path: Path) -> Results:
    """The results of a sweep of which one row is there."""
    folder = Results.create(str(tmp_path), "short", MATRIX, NOON, ["CPU"])
    folder.write(measurement(run=folder.source.run))
    return folder


def test_a_missing_row_is_not_a_complete_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_folder(tmp_path)
    assert sweep.conclude(folder, finished=True) == 1
    assert f"rows are missing; go on with: tensorgap sweep --resume {folder.location}" in (
        capsys.readouterr().err
    )


def test_a_table_that_nobody_would_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path)
    monkeypatch.setattr(sweep, "_MOST_SHOWN", 0)
    sweep.conclude(folder, finished=True)
    shown, *_, last = capsys.readouterr().out.splitlines()
    assert shown == f"1 rows: tensorgap report {folder.location} shows them"
    assert last == f"{folder.location}/results.parquet"


def test_a_full_disk_at_the_merge_hides_no_table_and_says_that_the_rows_are_safe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path)
    put = os.replace

    def full(source: str, target: str) -> None:
        if str(target).endswith("results.parquet"):
            raise OSError(28, "No space left on device")
        put(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TensorgapError) as caught:
        sweep.conclude(folder, finished=True)
    assert str(caught.value) == (
        f"{folder.location}: No space left on device; the rows are kept in parts/; make room,"
        f" then go on with: tensorgap sweep --resume {folder.location}"
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
        sweep.conclude(folder, finished=False)
    assert "2.00 ms" in capsys.readouterr().out


# ------------------------------------------------------------------- told before Ray starts


def test_an_edited_matrix_is_told_before_anything_starts(run: Run, tmp_path: Path) -> None:
    folder = Results.create(str(tmp_path), "short", MATRIX, NOON, ["CPU"])
    edited = Path(folder.location) / "matrix.toml"
    edited.write_text(MATRIX.replace("[1, 2]", "[1, 2, 4]"))
    resumed = run("sweep", "--resume", folder.location)
    assert resumed.returncode == 2
    assert resumed.stderr == (
        f"tensorgap: {edited}: was changed since the sweep began; start a new one with it:"
        f" tensorgap sweep {edited}; or remove it and resume\n"
    )


SECRETS = ("AKIAEXAMPLE", "wJalrXUtn%2FKEY", "wJalrXUtn/KEY")


@pytest.mark.parametrize("scheme", ["s3", "nonsense"])
def test_no_secret_of_a_place_is_ever_shown(
    run: Run, matrix: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    tail = "bucket/x?scheme=http&endpoint_override=127.0.0.1:1&session_token=wJalrXUtn%2FKEY"
    place = f"{scheme}://{SECRETS[0]}:{SECRETS[1]}@{tail}"
    for typed in (
        ["sweep", matrix, "--output", place],
        ["sweep", matrix, f"--output={place}"],
        ["sweep", "--resume", place],
        ["report", place],
        ["explain", place],
        ["explain", f"{place}.csv"],
        ["report", f"{place}.csv"],
        ["merge", place, "-o", "x.parquet"],
        ["merge", matrix, "-o", f"{place}.parquet"],
        ["plan", place],
        ["plan", matrix, place],
    ):
        done = run("--debug", *typed)
        assert done.returncode == 2, done.stderr
        assert "tensorgap: " in done.stderr or "Usage:" in done.stderr
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS), typed


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
        (["report", "{matrix}", "--max-input", "much"], "'much' is not a size; give one such as"),
        (["report", "nowhere"], "there is no such file or folder"),
        (["report", "{matrix}"], "not a readable Parquet file"),
        (["merge", "nowhere", "-o", "x.parquet"], "there is no such file or folder"),
        (["merge", "nowhere", "-o", "x.csv"], "must end in .parquet"),
        (["plan", "no.toml"], "there is no such file"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    run: Run, matrix: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(matrix.parent)
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


def test_nothing_that_a_sweep_loads_before_its_session_has_imported_ray() -> None:
    """Ray reads the token of a local cluster, and how it is to behave, when it is imported."""
    code = (
        "import sys, jobs.sweep, jobs.plan, jobs.doctor, cluster.session, cluster.placement\n"
        "sys.exit(', '.join({'ray', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
