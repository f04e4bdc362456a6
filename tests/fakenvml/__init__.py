"""Build and steer the stand-in for the NVIDIA driver library; README.md beside this tells more."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import zlib
from pathlib import Path

_SOURCE = Path(__file__).with_name("fakenvml.c")


def compiler() -> str | None:
    """This machine's C compiler."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """Compile the library into a folder; needs a `compiler()`."""
    library = folder / "libnvidia-ml.so.1"
    command = f"{compiler()} -O2 -fPIC -shared -fvisibility=hidden -Wl,-soname,{library.name}"
    files = ["-o", str(library), str(_SOURCE), "-lm", "-lpthread"]
    subprocess.run([*command.split(), *files], check=True)
    return library


def environment(library: Path, *lines: str) -> dict[str, str]:
    """The variables under which a new process finds this library as its driver.

    Args:
        library: The compiled library; the configuration is written beside it.
        *lines: The configuration.
    """
    text = "\n".join(lines)
    config = library.with_name(f"{zlib.crc32(text.encode()):08x}.conf")
    config.write_text(text)
    return {"LD_LIBRARY_PATH": str(library.parent), "FAKENVML_CONFIG": str(config)}


class FakeDriver:
    """The library inside this process."""

    def __init__(self, library: Path, *lines: str) -> None:
        """Load it and begin anew with this configuration."""
        self.library = ctypes.CDLL(str(library))
        self.library.fakenvml_true_energy.restype = ctypes.c_double
        self.library.fakenvml_now.restype = ctypes.c_double
        self._do(self.library.fakenvml_configure("\n".join(lines).encode()))

    def set_power(self, watts: float, gpu: int = 0) -> None:
        """Let the GPU draw this power from now on, in W."""
        self._do(self.library.fakenvml_set_power(gpu, ctypes.c_double(watts)))

    def true_energy_j(self, time_s: float, gpu: int = 0) -> float:
        """What the GPU has drawn until a time of this clock, in J."""
        return float(self.library.fakenvml_true_energy(gpu, ctypes.c_double(time_s)))

    def now(self) -> float:
        """The clock, in s: that of `time.perf_counter` on Linux, unless it is virtual."""
        return float(self.library.fakenvml_now())

    def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._do(self.library.fakenvml_advance(ctypes.c_double(seconds)))

    def fault(self, text: str) -> None:
        """Add a fault, as the `fault` of the configuration."""
        self._do(self.library.fakenvml_fault(text.encode()))

    def set(self, key: str, value: float, gpu: int = 0) -> None:
        """Change one key of the configuration."""
        self._do(self.library.fakenvml_set(gpu, key.encode(), str(value).encode()))

    @staticmethod
    def _do(status: int) -> None:
        if status:
            raise ValueError(f"fakenvml refuses: error {status}")
