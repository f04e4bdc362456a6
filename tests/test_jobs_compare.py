"""`tensorgap compare`, and `report` of a folder of runs: what is read, said, and returned."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import kept_rows
import pytest
from conftest import Run
from two_runs import CELLS, MATRIX, NEW, OLD, a_run, each_changed, not_ok

from bench.measured import Measurement
from bench.results.columns import Source
from bench.results.store import Results, runs_within

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def old(tmp_path: Path) -> str:
    return written(tmp_path / "old.parquet", a_run(OLD))


@pytest.fixture
def slow(tmp_path: Path) -> str:
    return written(tmp_path / "slow.parquet", a_run(NEW, seed=1, longer=1.1))


def written(path: Path, rows: Sequence[Measurement]) -> str:
    """A file of these rows."""
    sources = [Source(run, MATRIX, "0.1.0", None) for run in {row.run for row in rows}]
    kept_rows.write(path, rows, sources)
    return str(path)


def a_folder(place: Path, name: str, day: int, rows: Sequence[Measurement]) -> Results:
    """The results folder of a sweep of that day."""
    now = datetime.datetime(2026, 11, day, 12, tzinfo=datetime.UTC)
    folder = Results.create(str(place), name, MATRIX, now)
    for row in rows:
        folder.write(replace(row, run=folder.source.run))
    folder.finish()
    return folder


# -------------------------------------------------------------------------------- compare


def test_a_run_with_itself_finds_nothing(run: Run, old: str) -> None:
    done = run("compare", old, old, "--fail-on", "latency>10%")
    assert done.returncode == 0
    assert "No significant difference in 9 comparisons" in done.stdout
    assert done.stderr == ""


def test_a_slower_cell_is_found_and_fails_the_limit(run: Run, old: str, slow: str) -> None:
    done = run("compare", old, slow)
    assert done.returncode == 0  # without a limit, what is found is no failure
    assert done.stdout.startswith("Of 9 comparisons, 3 became worse, none better.\n")
    failed = run("compare", old, slow, "--fail-on", "latency>5%", "--fail-on", "energy>50%")
    assert failed.returncode == 1
    assert failed.stdout == done.stdout
    (line,) = [text for text in failed.stderr.splitlines() if "--fail-on" in text]
    assert line.startswith("tensorgap: --fail-on: latency>5%: 1 row: T4 fp32 gpt2 eager")


def test_folders_are_compared_as_files_are(run: Run, tmp_path: Path, slow: str) -> None:
    folder = a_folder(tmp_path, "study", 1, a_run())
    done = run("compare", folder.location, slow)
    assert done.returncode == 0
    assert "3 became worse" in done.stdout


def test_three_runs_are_compared_with_the_first(
    run: Run, tmp_path: Path, old: str, slow: str
) -> None:
    third = written(tmp_path / "third.parquet", a_run("x/20261203T000000Z-dddddd", seed=2))
    done = run("compare", old, slow, third)
    assert done.returncode == 0
    assert "B / A" in done.stdout and "C / A" in done.stdout
    assert "\nA: " in done.stdout


def test_each_format_tells_the_same(run: Run, old: str, slow: str) -> None:
    markdown = run("compare", old, slow, "--format", "markdown").stdout
    assert markdown.startswith("**Of 9 comparisons, 3 became worse, none better.**\n")
    read = json.loads(run("compare", old, slow, "--format", "json").stdout)
    assert read["summary"] in markdown
    lines = run("compare", old, slow, "--format", "csv").stdout.splitlines()
    assert len(lines) == 1 + len(CELLS) * 4


def test_a_limit_of_which_nothing_can_be_decided_does_not_pass(run: Run, tmp_path: Path) -> None:
    single = written(tmp_path / "single.parquet", a_run(replicates=1))
    done = run("compare", single, single, "--fail-on", "latency>5%")
    assert done.returncode == 2
    assert done.stdout  # the comparison is shown all the same
    assert done.stderr == (
        "tensorgap: --fail-on latency>5%: nothing could be decided: one process each (3); measure"
        " both runs with sampling.replicates = 5 or more\n"
    )
    assert run("compare", single, single).returncode == 0


def test_a_row_that_is_no_longer_ok_fails_a_limit(run: Run, tmp_path: Path, old: str) -> None:
    rows = a_run(NEW)
    lost = written(tmp_path / "lost.parquet", [*rows[:10], *not_ok(rows[10:])])
    done = run("compare", old, lost, "--fail-on", "energy>50%")
    assert done.returncode == 1
    assert "no longer OK: 1 row: A100 fp32" in done.stderr
    # It goes before a limit of which nothing is decided.
    single = written(tmp_path / "single.parquet", [*a_run(NEW)[:1], *not_ok(rows[5:])])
    assert run("compare", old, single, "--fail-on", "latency>5%").returncode == 1


def test_a_wrong_limit_is_told_before_anything_is_read(run: Run) -> None:
    done = run("compare", "neither", "nor", "--fail-on", "speed>5%")
    assert done.returncode == 2
    assert "--fail-on 'speed>5%': must be METRIC>LIMIT%" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("alpha", ["0", "0.9", "many", "nan", "1e-300"])
def test_an_error_rate_that_is_none_is_refused(run: Run, old: str, alpha: str) -> None:
    assert run("compare", old, old, "--alpha", alpha).returncode == 2
    assert "at most 1%." in run("compare", old, old, "--alpha", "0.01").stdout


def test_fewer_metrics_are_fewer_comparisons(run: Run, old: str, slow: str) -> None:
    done = run("compare", old, slow, "--metric", "latency", "--metric", "perplexity")
    assert done.stdout.startswith("Of 3 comparisons, 1 became worse, none better.\n")
    assert "throughput" not in done.stdout
    refused = run("compare", old, slow, "--metric", "latency", "--fail-on", "energy>5%")
    assert refused.returncode == 2
    assert "--fail-on energy>5%: --metric leaves it out" in refused.stderr


def test_one_place_alone_is_refused(run: Run, old: str) -> None:
    done = run("compare", old)
    assert done.returncode == 2
    assert "give OLD and NEW" in done.stderr


def faulty(tmp_path: Path, kind: str, old: str) -> str:
    """A file that cannot be compared."""
    path = tmp_path / f"{kind}.parquet"
    content = Path(old).read_bytes()
    match kind:
        case "not-ours":
            path.write_bytes(b"PAR1 not a table PAR1")
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "no-rows":
            kept_rows.write(path, [])
        case "nan":
            written(path, each_changed(a_run(NEW), "timing", latency_ms_p50=math.nan))
        case "two-runs":
            written(path, [*a_run(OLD), *a_run(NEW)])
        case "other-cells":
            other = [replace(m, workload=replace(m.workload, batch_size=7)) for m in a_run()]
            written(path, other)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("not-ours", "not-ours.parquet"),
        ("truncated", "truncated.parquet"),
        ("empty", "empty.parquet"),
        ("no-rows", "has no rows yet; there is nothing to compare"),
        ("nan", "replicate 0, is nan; a result is a finite number"),
        ("two-runs", "stands in 2 runs"),
        ("other-cells", "no cell and workload in common"),
        ("missing", "there is no such file or folder"),
    ],
)
def test_what_cannot_be_compared_is_one_message(
    run: Run, tmp_path: Path, old: str, kind: str, message: str
) -> None:
    place = faulty(tmp_path, kind, old)
    for places in ((old, place), (place, old)):
        done = run("compare", *places)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert message in line
        assert "--debug" not in line


def test_a_csv_of_somebody_is_sent_to_explain(run: Run, old: str) -> None:
    done = run("compare", old, str(ROOT / "jobs/examples/first_study.csv"))
    assert done.returncode == 2
    assert "tensorgap explain" in done.stderr


def test_all_files_together_are_held_to_the_limit_of_input(run: Run, old: str) -> None:
    assert run("compare", old, old, "--max-input", "50KB").returncode == 2
    assert run("compare", old, old, "--max-input", "50MB").returncode == 0


def test_a_comparison_needs_neither_torch_nor_ray(old: str, slow: str) -> None:
    code = (
        "import sys\nfrom jobs.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", old, slow], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# -------------------------------------------------------------------------------- history


@pytest.fixture
def results(tmp_path: Path) -> Path:
    place = tmp_path / "results"
    a_folder(place, "study", 1, a_run())
    a_folder(place, "study", 2, a_run(seed=1, longer=1.1))
    a_folder(place, "night", 3, a_run(seed=2, longer=1.1))
    return place


def test_the_runs_of_a_folder_are_shown_as_a_history(run: Run, results: Path) -> None:
    done = run("report", str(results))
    assert done.returncode == 0
    runs, changes, *tables = done.stdout.split("\n\n")
    assert runs.startswith("runs\n  1:")
    runs = "".join(runs.split())  # long paths are broken
    assert runs.index("20261101T120000Z") < runs.index("20261102T120000Z") < runs.index("night/")
    assert changes.startswith("changes\n") and len(tables) == 5  # two, with their titles
    assert "  run 2: T4 fp32 gpt2 eager batch 1 x 128 tokens: latency slower +1" in changes
    of_one = run("report", str(results / "study"))
    assert "night" not in of_one.stdout and "run 2" in of_one.stdout
    # By URI as by path, but for where long lines end.
    by_uri = run("report", f"file://{results / 'study'}").stdout
    assert "".join(of_one.stdout.split()) == "".join(by_uri.replace("file://", "").split())


@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_a_history_has_every_format(run: Run, results: Path, form: str) -> None:
    done = run("report", str(results), "--format", form)
    assert done.returncode == 0
    assert "study/20261102T120000Z" in done.stdout
    if form == "json":
        assert len(json.loads(done.stdout)["runs"]) == 3


def test_a_run_that_cannot_be_read_is_left_out(run: Run, results: Path) -> None:
    (results / "study/20261109T120000Z").mkdir()
    done = run("report", str(results))
    assert done.returncode == 0
    assert "left out: " in done.stderr and "20261109T120000Z" in done.stderr
    only = results / "empty/20261109T120000Z"
    only.mkdir(parents=True)
    assert run("report", str(only.parent)).returncode == 2


def test_a_folder_of_runs_goes_with_nothing_else(run: Run, results: Path, old: str) -> None:
    beside = run("report", str(results), old)
    assert (beside.returncode, "no folder of runs" in beside.stderr) == (2, True)
    against = run("report", str(results), "--against", "T4")
    assert (against.returncode, "give one of them" in against.stderr) == (2, True)


def test_no_link_is_followed_to_a_run(results: Path, tmp_path: Path) -> None:
    secret = a_folder(tmp_path / "elsewhere", "secret", 5, a_run())
    (results / "study/20261105T120000Z").symlink_to(secret.location)
    (results / "linked").symlink_to(tmp_path / "elsewhere/secret")
    found = [Path(place).relative_to(results).as_posix() for place in runs_within(str(results))]
    assert found == ["night/20261103T120000Z", "study/20261101T120000Z", "study/20261102T120000Z"]
    assert runs_within(secret.location) == []
    assert runs_within(str(tmp_path / "nowhere")) == []


def test_what_does_not_go_together_is_refused(run: Run, old: str, tmp_path: Path) -> None:
    done = run("compare", old, old, "--html", tmp_path / "c.html", "--format", "json")
    assert done.returncode == 2 and "--html: with --format json" in done.stderr
    assert run("compare", old, old, "--html", "").returncode == 2


def test_a_metric_that_no_row_has_is_told_and_not_cured_by_replicates(
    run: Run, tmp_path: Path
) -> None:
    place = tmp_path / "no-energy.parquet"
    rows = [replace(row, energy=None) for row in a_run()]
    kept_rows.write(place, rows)
    done = run("compare", place, place, "--fail-on", "energy>5%")
    assert done.returncode == 2
    assert "energy>5%: nothing to check: energy is measured in no row" in done.stderr
    assert "replicates" not in done.stderr.splitlines()[-1]
