"""A short run of benchmarks/fuzz.py: nothing but one message comes of a stranger's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "fuzz.py"
INPUTS = {
    "source.json": 600,
    "matrix.toml": 1000,
    "table.csv": 1000,
    "rows.parquet": 200,
    "model": 60,
    "commands": 60,
}


@pytest.mark.parametrize("kind", INPUTS)
def test_nothing_but_one_message_comes_of_a_strangers_file(kind: str, tmp_path: Path) -> None:
    asked = ["--kind", kind, "--inputs", str(INPUTS[kind]), "--keep", str(tmp_path / "faults")]
    done = subprocess.run([sys.executable, SCRIPT, *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{INPUTS[kind]:,} inputs, 0 faults\n")


def test_a_fault_is_found_told_and_kept(tmp_path: Path) -> None:
    """A reader that fails, hangs, writes elsewhere, prints what a terminal obeys, or dies."""
    faults = {
        0: "raise KeyError('x')",
        1: "while True: pass",
        2: "open(ROOT / 'x', 'w')",
        3: "print('\\x1b[31m')",
        4: "os._exit(7)",
        5: "os.system('true')",
        6: "bytearray(10**11)",
    }
    broken = "import os, fuzz\nfrom pathlib import Path\nROOT = Path('/')\nfuzz.CPU_S = 1\n"
    broken += "def read(self, rng):\n    self.count = getattr(self, 'count', -2) + 1\n"
    broken += "".join(f"    if self.number == {n}: {code}\n" for n, code in faults.items())
    script = tmp_path / "broken.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(SCRIPT.parent)!r}]\n{broken}"
        "make = fuzz.MatrixToml.make\n"
        "def numbered(self, rng):\n    self.number = getattr(self, 'number', -1) + 1\n"
        "    make(self, rng)\n"
        "fuzz.MatrixToml.make, fuzz.MatrixToml.read, fuzz.MatrixToml.number = numbered, read, -1\n"
        "fuzz.__file__ = __file__\n"
        "fuzz.run(sys.argv[1:])\n"
    )
    asked = ["--kind", "matrix.toml", "--inputs", "5", "--keep", str(tmp_path / "faults")]
    done = subprocess.run([sys.executable, script, *asked], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    for words in ("0: KeyError: 'x'", "1: Hang", "2: Escape: open /x", "3: printed ['\\x1b']", "7"):
        assert words in done.stdout
    assert (tmp_path / "faults" / "matrix.toml-0" / "m.toml").exists()
