"""docs/analysis.ipynb: valid, kept without outputs, and run in a kernel on the shipped results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager

DOCS = Path(__file__).resolve().parent.parent / "docs"
PATH = DOCS / "analysis.ipynb"
EXAMPLES = sorted(path.name for path in (DOCS.parent / "jobs/examples").glob("*.parquet"))


@pytest.fixture
def short_path() -> Iterator[str]:
    """A folder for sockets, whose paths have at most 107 letters."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(PATH, as_version=4)


def test_the_notebook_is_valid_and_has_no_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


def test_the_notebook_has_one_place_for_figures(notebook: Any) -> None:
    tagged = [cell for cell in notebook.cells if "figures" in cell.metadata.get("tags", [])]
    assert [cell.cell_type for cell in tagged] == ["code"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_notebook_runs(
    example: str, notebook: Any, short_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "JUPYTER_PLATFORM_DIRS", "1"
    )  # else jupyter warns, and a warning is an error
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", short_path)
    monkeypatch.setenv("IPYTHONDIR", short_path)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source == 'RESULTS = "../jobs/examples/modelled.parquet"'
    first.source = first.source.replace("modelled.parquet", example)
    # Files in place of ports, which tests side by side would have to find free.
    manager = AsyncKernelManager(transport="ipc", ip=f"{short_path}/kernel")
    resources = {"metadata": {"path": str(DOCS)}}
    nbclient.NotebookClient(notebook, km=manager, resources=resources, timeout=120).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.get("name") == "stderr"]
    texts = "".join(output.get("text", "") for output in shown)
    assert ("Rows of this file are simulated" in texts) == (example == "modelled.parquet")
    assert sum("text/html" in output.get("data", {}) for output in shown) > 8
