"""The modelled GPU, built once against the CUDA torch of this Python; processes that have it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import fakecuda
import fakenvml
import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def machine() -> Iterator[fakecuda.Machine]:
    """Both stand-ins, compiled."""
    packages = fakecuda.site_packages()
    if packages is None:
        pytest.fail("needs a CUDA build of torch: make test-cuda installs one")
    if not fakenvml.compiler():
        pytest.fail("no C compiler here (cc, gcc or clang) to build the modelled GPU with")
    # A short path: below it Ray makes sockets, and Triton kernels.
    with tempfile.TemporaryDirectory(prefix="cuda-") as folder:
        yield fakecuda.machine(packages, Path(folder))


@pytest.fixture(scope="session")
def on_gpu(machine: fakecuda.Machine) -> Run:
    """A function that runs Python under modelled boards."""

    def run(
        boards: str | fakecuda.Board | Iterable[str | fakecuda.Board],
        code: str | list[str],
        faults: Iterable[str] = (),
        *,
        nvml: Iterable[str] = (),
        check: bool = True,
        timeout_s: float = 300,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run code, or the arguments of a Python, in a process of its own.

        Args:
            boards: one board or several, by type or whole.
            code: Python source, or arguments such as `["-m", "jobs", "doctor"]`.
            faults: of the modelled GPU.
            nvml: more lines of the fake NVML.
            check: fail unless the process exits with 0.
            timeout_s: after which it is ended.
            **variables: of its environment.
        """
        several = [boards] if isinstance(boards, str | fakecuda.Board) else list(boards)
        arguments = ["-c", code] if isinstance(code, str) else code
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
            # Else torch.compile starts processes that import torch as well, for one small model.
            | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
            | machine.environment(several, faults, nvml)
            | variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done

    return run
