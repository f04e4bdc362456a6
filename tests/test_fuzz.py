"""A short run of benchmarks/fuzz.py: nothing but one message comes of a stranger's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "fuzz.py"
INPUTS = {
    "source.json": 100,
    "matrix.toml": 500,
    "table.csv": 150,
    "table of anybody": 150,
    "rows.parquet": 80,
    "model": 20,
    "commands": 50,
}


@pytest.mark.parametrize("kind", INPUTS)
def test_nothing_but_one_message_comes_of_a_strangers_file(kind: str, tmp_path: Path) -> None:
    asked = ["--kind", kind, "--inputs", str(INPUTS[kind]), "--keep", str(tmp_path / "faults")]
    done = subprocess.run([sys.executable, SCRIPT, *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{INPUTS[kind]:,} inputs, 0 faults\n")


def test_a_fault_is_found_told_and_kept(tmp_path: Path) -> None:
    """A reader that fails, hangs, writes elsewhere, prints what a terminal obeys, or dies."""
    faults = (
        "raise KeyError('x')",
        "all(n == 0 for n in iter(int, 1))",
        "open('/x', 'w')",
        "print('\\x1b[31m')",
        "os._exit(7)",
    )
    script = tmp_path / "broken.py"
    lines = "".join(f"    if self.number == {n}: {code}\n" for n, code in enumerate(faults))
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\nimport fuzz\n"
        f"def read(self, rng):\n{lines}"
        "make = fuzz.MatrixToml.make\n"
        "def numbered(self, rng):\n    self.number += 1\n    make(self, rng)\n"
        "fuzz.MatrixToml.make, fuzz.MatrixToml.read, fuzz.MatrixToml.number = numbered, read, -1\n"
        "fuzz.CPU_S, fuzz.__file__ = 1, __file__\n"
        "sys.exit(fuzz.run(sys.argv[1:]))\n"
    )
    asked = ["--kind", "matrix.toml", "--inputs", "5", "--keep", str(tmp_path / "faults")]
    done = subprocess.run([sys.executable, script, *asked], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    for words in (
        "0: KeyError: 'x'",
        "1: Hang",
        "2: Escape: open /x",
        "3: printed",
        "4: the process ended with 7",
    ):
        assert words in done.stdout
    assert (tmp_path / "faults" / "matrix.toml-0" / "m.toml").exists()
