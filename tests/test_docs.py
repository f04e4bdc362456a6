"""What the pages promise is run: their commands, matrices and examples."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
from conftest import Run

from bench import matrix as matrices
from bench.results import columns as table
from jobs.cli import _COMMANDS, cli
from jobs.report.finding import Verdict
from jobs.report.foreign import read
from jobs.report.from_rows import MUST_AGREE

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md"))}
PARQUET = PAGES[ROOT / "docs" / "parquet.md"]
CLUSTER = PAGES[ROOT / "docs" / "cluster.md"]
TEXTS = (README, *PAGES.values())


def blocks(language: str) -> list[str]:
    """Every block of this language in the pages."""
    fenced = [re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S) for text in TEXTS]
    return [text for found in fenced for name, text in found if name == language]


def commands(name: str = "tensorgap", text: str = README) -> list[list[str]]:
    """Every line of a page that runs this program, without its comment."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.M | re.S)
    shell = "".join(lines for language, lines in fenced if not language)
    lines = re.findall(rf"^ *{name} (.*)$", shell, re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize(
    "arguments",
    [c for text in TEXTS for c in commands(text=text)],
    ids=" ".join,
)
def test_each_command_of_the_pages_is_understood(arguments: list[str]) -> None:
    command = cli.get_command(None, arguments[0])  # type: ignore[arg-type]
    assert command is not None
    command.make_context("tensorgap", list(arguments[1:]))


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.name
)
def test_each_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        if not name.startswith("https://"):
            target = path.parent / name if name else path
            text = target.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", text, re.M)
            anchors = [re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert not heading or heading in anchors, link


def test_each_page_is_named_in_the_readme() -> None:
    for path in PAGES:
        assert f"(docs/{path.name})" in README


def test_the_readme_shows_every_command() -> None:
    assert {arguments[0] for arguments in commands()} == set(_COMMANDS)


@pytest.mark.parametrize(
    "arguments", commands("ray") + commands("ray", text=CLUSTER), ids=lambda a: " ".join(a[:2])
)
def test_each_command_of_ray_is_one_and_its_files_exist(arguments: list[str]) -> None:
    from ray.scripts.scripts import cli as ray_cli

    group: Any = ray_cli
    while isinstance(group, click.Group):
        name, command, arguments = group.resolve_command(click.Context(group), arguments)
        group = command
    command.make_context(name, list(arguments))
    named = [word for word in arguments if word.startswith(("cluster/", "jobs/"))]
    assert all((ROOT / word).exists() for word in named)


def test_each_matrix_of_the_pages_loads() -> None:
    assert blocks("toml")
    for text in blocks("toml"):
        matrices.parse(text, "a page", "page")


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/matrices/*.toml")), ids=lambda p: p.name)
def test_each_shipped_matrix_loads_and_is_named_in_the_readme(path: Path) -> None:
    assert matrices.load(path).name == path.stem
    assert f"`{path.name}`" in README


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results.parquet of a real, short sweep."""
    folder = tmp_path_factory.mktemp("docs")
    matrix = folder / "docs.toml"
    matrix.write_text(
        '[cells]\ngpu_types = ["CPU"]\nprecisions = ["fp32"]\n'
        '[[workloads]]\nmodel = "tiny"\nprompt_tokens = 32\n'
        "[sampling]\nwarmup_min_s = 0\nwarmup_max_s = 0.1\nlatency_min_s = 0\n"
        "latency_max_s = 0.2\nmin_samples = 11\nthroughput_s = 0.05\n"
        "[quality]\ncontext = 256\nstride = 256\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "sweep", str(matrix), "--output", str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    Path(done.stdout.splitlines()[-1]).rename(folder / "results.parquet")
    return folder


def test_a_sweep_brings_its_profiles(results_folder: Path) -> None:
    (row,) = pq.read_table(results_folder / "results.parquet").to_pylist()
    assert row["trace_level"] == "op"
    assert row["roofline_lower_bound_ms"] < row["timing_latency_ms_min"]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split()[1])
def test_each_python_example_of_the_pages_runs(code: str, results_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=results_folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_columns_that_the_page_of_the_results_names_exist() -> None:
    page, _, _ = PARQUET.partition("**Metadata.**")
    named = set(re.findall(r"`([a-z0-9]+_[a-z0-9_]+)`", page))
    assert len(named) > 15
    assert named <= set(table.schema().names)


def test_the_columns_that_must_agree_are_listed() -> None:
    listed = re.search(r"<!-- must agree -->\n(.*?)\n\n", PARQUET, re.S)
    assert listed
    columns = [path.replace(".", "_") for path in MUST_AGREE]
    assert re.findall(r"`([a-z0-9_]+)`", listed[1]) == columns


def test_the_generated_tables_are_those_of_the_code() -> None:
    generated = runpy.run_path(str(ROOT / "docs/generate.py"))["GENERATED"]
    for name, (marker, documentation) in generated.items():
        _, found, written = PAGES[ROOT / "docs" / name].partition(marker)
        assert found
        assert written == documentation(), f"{name}: run python docs/generate.py"


def test_the_files_that_the_readme_names_exist() -> None:
    section = README.partition("## Architecture")[2].partition("\n## ")[0]
    named = set(re.findall(r"(?<![\w.])(?:bench|cluster|jobs)/[\w/]+(?:\.py|/)", section))
    assert len(named) > 5
    assert all((ROOT / name).exists() for name in named), named


def test_the_output_of_explain_in_the_readme_is_what_the_command_says(run: Run) -> None:
    (block,) = [text for text in blocks("") if "[perplexity-out-of-range]" in text]
    said = run("explain", str(ROOT / "jobs/examples/first_study.csv")).stdout
    shown = block.split("\n\n")
    assert [text.strip() for text in shown if text.strip() != "..."] == [
        text.strip() for text in said.split("\n\n") if text.strip() in block
    ]
    assert len(shown) > 5


def test_the_readme_is_short() -> None:
    assert "@@" not in README
    assert len(README.splitlines()) < 260


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for command in (
        "make sweep",
        "make test",
        "make test-browser",
        "make test-hosts",
        "make check",
    ):
        assert f"\n{command}" in ci
        assert f"\n{command}" in README + contributing


def test_the_page_of_the_findings_has_each_verdict_and_a_link() -> None:
    # Its tables are held by tests/test_report_findings.py.
    text = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[a-z0-9-]+` \| ([a-z, ]+) \|", text, flags=re.M)
    assert {verdict for verdicts in rows for verdict in verdicts.split(", ")} == {*Verdict}
    assert "(docs/findings.md)" in README


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/examples/*.csv")), ids=lambda p: p.name)
def test_each_shipped_table_is_read(path: Path) -> None:
    found = read.understand(path.read_text(encoding="utf-8"), path.name)
    assert found.cases and not any("Not understood" in note for note in found.notes)
    assert path.name in README
