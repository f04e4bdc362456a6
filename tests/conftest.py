"""Fixtures that more than one test file uses."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import examples  # noqa: F401 - fixes what hypothesis draws
import fakenvml
import pynvml
import pytest
from sweeps import Done, Run

from bench.device import nvml
from jobs.cli import main

# Tests run side by side: threads of OpenMP that wait actively for one another, on cores that others
# use, made a forward of 2 ms take 170.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start Ray come first: a file of them begun last would be ended alone."""
    items.sort(key=lambda item: not item.path.name.startswith(("test_cluster", "test_jobs")))


@pytest.fixture(scope="session")
def fakenvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in for libnvidia-ml.so.1."""
    if not fakenvml.compiler():
        pytest.skip("no C compiler here (cc, gcc or clang) to build the fake NVIDIA driver with")
    return fakenvml.build(tmp_path_factory.mktemp("fakenvml"))


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without the fake sees no driver, also where the machine has one."""

    def load() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    if pynvml.nvmlLib is None:
        monkeypatch.setattr(pynvml, "_LoadNvmlLibrary", load)


@pytest.fixture
def fake_nvml(
    no_driver: None, fakenvml_library: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., fakenvml.FakeDriver]:
    """A function that puts a fake driver, configured by its lines, below pynvml."""

    def load(*lines: str) -> fakenvml.FakeDriver:
        driver = fakenvml.FakeDriver(fakenvml_library, *lines)
        monkeypatch.setattr(pynvml, "nvmlLib", driver.library)
        monkeypatch.setattr(pynvml, "_LoadNvmlLibrary", lambda: None)
        # pynvml keeps the functions of the library that it saw first.
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return driver

    return load


@pytest.fixture
def open_gpu(
    fake_nvml: Callable[..., fakenvml.FakeDriver],
) -> Iterator[Callable[..., tuple[fakenvml.FakeDriver, nvml.Gpu]]]:
    """A function that gives a fake driver with its first GPU, for as long as the test lasts."""
    with ExitStack() as stack:

        def open_gpu(*lines: str) -> tuple[fakenvml.FakeDriver, nvml.Gpu]:
            fake = fake_nvml(*lines)
            return fake, stack.enter_context(nvml.driver()).gpus()[0]

        yield open_gpu


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small are computed faster by one thread than by several that wait in turn."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def frozen_heap() -> Iterator[None]:
    """What is there already is not collected again before each timing: 0.3 s of CPU each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def small_peaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Peaks of little work: as quick as they are wrong."""
    from bench.profile import peaks

    monkeypatch.setattr(peaks, "SQUARES", {"cpu": (64,)})
    monkeypatch.setattr(peaks, "LEAST_COPY_BYTES", 2**16)
    monkeypatch.setattr(peaks, "cpu_cache_bytes", lambda: 2**14)
    peaks.peaks.cache_clear()
    yield
    peaks.peaks.cache_clear()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The program, in this process."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        return Done(ended.value.code, *capfd.readouterr())

    return run
