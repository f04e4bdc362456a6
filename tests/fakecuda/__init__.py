"""Build and configure the modelled GPU below a real CUDA build of torch; README.md tells more."""

from __future__ import annotations

import re
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import fakenvml

from bench.device import gpus
from bench.measured import Measurement

_HERE = Path(__file__).parent
LIBRARY = "libfakecuda.so"
_FOR_TRITON = "triton"
_SOURCES = ("device.c", "runtime.c", "kernels.c", "blas.c", "cudnn.c", "cupti.c", "driver.c")
# What torch looks up by name at run time, so that no library leaves it undefined.
_BY_NAME = {"cudaEventRecordWithFlags", "cudaHostGetDevicePointer", "cudaMallocHost"}
_RUNTIME = re.compile(
    r"(cuda[A-Z]|__cuda(Get|Launch|Pop|Push|Register|Unregister|Init)|cublas|cupti)"
)

# Shares of the datasheet that kernels reach: chosen and not measured, below what a board can.
PRODUCT_SHARE, BANDWIDTH_SHARE = 0.8, 0.85
LEAST_MS = 0.0015  # of a kernel or a copy, as in device.c
# A kernel draws so much of what lies between the idle power and the board's limit.
BUSY_SHARE = 0.8


@dataclass(frozen=True)
class Board:
    """What CUDA tells of a board beside `bench.device.gpus`; rates are what kernels reach.

    Multiprocessors, and the clock of `cudaDeviceProp`, in MHz: NVIDIA's white papers of Pascal,
    Volta, Turing, Ampere (GA100) and Hopper.
    """

    key: str  # of the preset of the fake NVML
    facts: gpus.Board
    driver_name: str
    multiprocessors: int
    clock_mhz: int
    pcie_gb_per_s: float

    @property
    def architecture(self) -> int:
        """Compute capability without its point: 80."""
        major, minor = self.facts.capability
        return 10 * major + minor

    @property
    def idle_w(self) -> float:
        """Power while nothing runs, in W."""
        return sum(self.facts.idle_w) / 2

    @property
    def busy_w(self) -> float:
        """Power while a kernel runs, in W."""
        return self.idle_w + BUSY_SHARE * (self.facts.tdp_w - self.idle_w)

    def product_tflops(self, precision: str) -> float:
        """The rate of matrix products at a precision, in TFLOP/s; 0 where the board has none."""
        return PRODUCT_SHARE * (gpus.peak_tflops(self.facts, precision) or 0.0)

    @property
    def bandwidth_gb_per_s(self) -> float:
        """What kernels move, in GB/s."""
        return BANDWIDTH_SHARE * self.facts.bandwidth_gb_per_s

    @property
    def memory_bytes(self) -> int:
        """Usable memory, in B: the driver keeps about 1 %."""
        return int(self.facts.memory_gb * 0.99 * 2**30)


def _board(
    key: str, name: str, driver_name: str, multiprocessors: int, clock_mhz: int, pcie: float
) -> Board:
    (facts,) = gpus.named(name)
    return Board(key, facts, driver_name, multiprocessors, clock_mhz, pcie)


BOARDS = {
    board.facts.gpu_type: board
    for board in (
        _board("p100", "P100-PCIE", "Tesla P100-PCIE-16GB", 56, 1328, 12),
        _board("v100", "V100-SXM2", "Tesla V100-SXM2-32GB", 80, 1530, 12),
        _board("t4", "T4", "Tesla T4", 40, 1590, 12),
        _board("a100", "A100-SXM-40GB", "NVIDIA A100-SXM4-40GB", 108, 1410, 25),
        _board("h100", "H100-SXM", "NVIDIA H100 80GB HBM3", 132, 1980, 50),
    )
}


def build(site_packages: Path, folder: Path) -> Path:
    """Compile the model against the torch that lies in `site_packages`, a CUDA build.

    Needs a C compiler, `nm`, and the CUDA headers that torch's own requirements bring.
    """
    include = next(site_packages.glob("nvidia/cu[0-9]*/include"))
    stubs = folder / "stubs.c"
    stubs.write_text(_stubs(site_packages, include))
    library = folder / LIBRARY
    # By its soname the loader takes it for the driver's library, too, and only where it is loaded.
    flags = "-O2 -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror -Wl,-soname,libcuda.so.1"
    includes = [f"-I{_HERE}", f"-I{_HERE / 'crt'}", "-isystem", str(include)]
    sources = [*(str(_HERE / name) for name in _SOURCES), str(stubs)]
    command = [str(fakenvml.compiler()), *flags.split(), *includes, "-o", str(library)]
    subprocess.run([*command, *sources, "-ldl", "-lm"], check=True)
    # Triton links its launcher against what lies here.
    (folder / _FOR_TRITON).mkdir()
    (folder / _FOR_TRITON / "libcuda.so.1").symlink_to(library)
    return library


def _stubs(site_packages: Path, include: Path) -> str:
    """A function for each call that torch names and the model has not: it tells only of faults.

    The runtime's calls are those that torch's libraries leave undefined, the driver's those of
    NVIDIA's header.
    """
    written = "".join((_HERE / name).read_text() for name in _SOURCES)
    have = set(re.findall(r"^API [^(]*?\**(\w+)\(", written, re.M))
    wanted = set(_BY_NAME)
    for library in site_packages.glob("torch/lib/lib*.so"):
        nm = ["nm", "-D", "--undefined-only", str(library)]
        listed = subprocess.run(nm, capture_output=True, text=True, check=True).stdout
        names = {line.split()[-1].split("@")[0] for line in listed.splitlines()}
        wanted |= {name for name in names if _RUNTIME.match(name)}
    header = (include / "cuda.h").read_text()
    wanted |= set(re.findall(r"CUresult CUDAAPI (cu\w+)\s*\(", header))
    wanted |= set(re.findall(r"#\s*define cu[A-Z]\w+\s+(cu\w+?_v\d+)\b", header))
    lines = [f"API int {name}(void) {{ return broken(); }}" for name in sorted(wanted - have)]
    return '#include "fakecuda.h"\n' + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Machine:
    """A machine whose GPUs are modelled: `folder` has both libraries."""

    folder: Path

    def environment(
        self, boards: Iterable[str | Board], faults: Iterable[str] = (), nvml: Iterable[str] = ()
    ) -> dict[str, str]:
        """The variables under which a new process finds these boards.

        Args:
            boards: in their order; a type of `BOARDS` or a board.
            faults: `NAME` or `NAME:NTH` (README.md).
            nvml: more lines of the fake NVML, for the last board.
        """
        cuda: list[str] = [f"fault = {fault}" for fault in faults]
        lines: list[str] = []
        for index, board in enumerate(boards):
            found = BOARDS[board] if isinstance(board, str) else board
            uuid = f"fa4ec0da-{found.architecture:04d}-4000-8000-{index:012d}"
            cuda += _of_cuda(found, uuid)
            lines += _of_nvml(found, uuid)
        text = "\n".join(cuda) + "\n"
        config = self.folder / f"{zlib.crc32(text.encode()):08x}.cuda"
        config.write_text(text)
        return fakenvml.environment(self.folder / "libnvidia-ml.so.1", *lines, *nvml) | {
            "LD_PRELOAD": str(self.folder / LIBRARY),
            "RAY_LD_PRELOAD_ON_WORKERS": "1",  # Ray takes it from its workers otherwise
            "FAKECUDA_CONFIG": str(config),
            "TRITON_LIBCUDA_PATH": str(self.folder / _FOR_TRITON),
        }


def machine(site_packages: Path, folder: Path) -> Machine:
    """Build both stand-ins into a folder."""
    build(site_packages, folder)
    fakenvml.build(folder)
    return Machine(folder)


def with_memory(gpu_type: str, gigabytes: float) -> Board:
    """A board of a type with another memory."""
    board = BOARDS[gpu_type]
    return replace(board, facts=replace(board.facts, memory_gb=gigabytes))


def _of_cuda(board: Board, uuid: str) -> list[str]:
    facts = board.facts
    return [
        f"gpu = {board.driver_name}",
        f"uuid = {uuid}",
        f"major = {facts.capability[0]}",
        f"minor = {facts.capability[1]}",
        f"multiprocessors = {board.multiprocessors}",
        f"clock_mhz = {board.clock_mhz}",
        f"memory_bytes = {board.memory_bytes}",
        f"l2_bytes = {int((facts.l2_mb or 0) * 2**20)}",
        *(
            f"{precision}_tflops = {board.product_tflops(precision)}"
            for precision in ("fp32", "tf32", "fp16", "bf16")
        ),
        f"bandwidth_gb_per_s = {board.bandwidth_gb_per_s}",
        f"pcie_gb_per_s = {board.pcie_gb_per_s}",
        f"idle_w = {board.idle_w}",
        f"busy_w = {board.busy_w}",
    ]


def _of_nvml(board: Board, uuid: str) -> list[str]:
    facts = board.facts
    return [
        f"gpu = {board.key}",
        f"name = {board.driver_name}",
        f"uuid = GPU-{uuid}",
        f"cc_major = {facts.capability[0]}",
        f"cc_minor = {facts.capability[1]}",
        f"mem_gib = {board.memory_bytes / 2**30}",
        f"idle_w = {board.idle_w}",
        f"limit_w = {facts.tdp_w}",
        f"sm_mhz = {board.clock_mhz}",
        # The model settles the power of a moment at the end of its slice.
        "publish_ms = 0.5",
        "heat_c_per_w = 0.02",
    ]


def site_packages() -> Path | None:
    """Where this Python's torch lies, if it is a CUDA build with its headers beside it."""
    import torch

    folder = Path(torch.__file__).parent.parent
    headers = next(folder.glob("nvidia/cu[0-9]*/include/cuda.h"), None)
    return folder if torch.version.cuda and headers else None


def expected_energy_mj(row: Measurement) -> float:
    """What the model drew for one request of a row, in mJ: idle all of its time, and busy."""
    board = BOARDS[row.cell.gpu_type]
    used, traced = row.energy, row.trace
    assert used
    assert used.window_s
    assert used.iterations
    assert traced
    assert traced.traced_ms
    # A graph copies its input, which is no part of the eager trace.
    busy_ms = traced.traced_ms + (LEAST_MS if row.workload.engine == "graph" else 0)
    request_ms = used.window_s / used.iterations * 1e3
    return board.idle_w * request_ms + (board.busy_w - board.idle_w) * busy_ms
