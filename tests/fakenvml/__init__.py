"""Build and steer the stand-in for the NVIDIA driver library; README.md beside this tells more."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).with_name("fakenvml.c")


def compiler() -> str | None:
    """This machine's C compiler."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """Compile the library into a folder; needs a `compiler()`."""
    library = folder / "libnvidia-ml.so.1"
    # Without a soname: with one, the loader would give a library that a test has loaded by its path
    # to whoever later asks for the driver by name in this process, such as Ray.
    command = f"{compiler()} -O2 -fPIC -shared -fvisibility=hidden"
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
        self.library.fakenvml_start.restype = ctypes.c_double
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

    def elapsed(self) -> float:
        """Time since it was configured, in s: that of faults and of the keys `..._s`."""
        return self.now() - float(self.library.fakenvml_start())

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


class VirtualClock:
    """The fake's virtual clock as a `bench.energy.poll.Clock`: polls when time passes."""

    def __init__(self, driver: FakeDriver, jitter: random.Random | None = None) -> None:
        """Follow a driver with `virtual = 1`.

        Args:
            driver: Whose clock it is.
            jitter: Makes a poll late as on a busy host: by up to a third, and one in 500 by 20 ms.
        """
        self._driver = driver
        self._jitter = jitter
        self._poll: Callable[[], None] | None = None
        self._every_s = self._due_s = 0.0

    def now(self) -> float:
        return self._driver.now()

    def sleep(self, seconds: float) -> None:
        end_s = self.now() + seconds
        while self._poll and self._due_s <= end_s:
            # A poll may let time pass itself, as a transient error does that is tried again.
            self._driver.advance(max(0.0, self._due_s - self.now()))
            self._poll()
            self._due_s += self._every_s + self._late_s()
        self._driver.advance(max(0.0, end_s - self.now()))

    @contextmanager
    def polling(self, poll: Callable[[], None], every_s: float) -> Iterator[None]:
        self._poll, self._every_s, self._due_s = poll, every_s, self.now() + every_s
        try:
            yield
        finally:
            self._poll = None

    def _late_s(self) -> float:
        if self._jitter is None:
            return 0.0
        hiccup_s = 0.02 if self._jitter.random() < 0.002 else 0.0
        return self._jitter.uniform(0, self._every_s / 3) + hiccup_s


class Load:
    """Work on the virtual clock whose power is known: what a forward would draw."""

    def __init__(
        self,
        driver: FakeDriver,
        clock: VirtualClock,
        *pieces: tuple[float, float],
        idle_w: float = 50.0,
        restart_s: float = 0.0,
    ) -> None:
        """Prepare a forward.

        Args:
            driver: The fake.
            clock: Its virtual clock.
            *pieces: Seconds and watts of each part of one forward.
            idle_w: What is drawn between forwards.
            restart_s: How long the GPU idles before a forward that was not enqueued in time: the
                first, and each after it was waited for.
        """
        self.driver, self.clock, self.pieces = driver, clock, pieces
        self.idle_w, self.restart_s = idle_w, restart_s
        self._waited = True

    @property
    def joules(self) -> float:
        """True energy of one forward."""
        return sum(seconds * watts for seconds, watts in self.pieces)

    @property
    def seconds(self) -> float:
        """Length of one forward."""
        return sum(seconds for seconds, _ in self.pieces)

    def enqueue(self) -> None:
        """One forward; the GPU idles after it until the next begins."""
        if self._waited:
            self.clock.sleep(self.restart_s)
            self._waited = False
        for seconds, watts in self.pieces:
            self.driver.set_power(watts)
            self.clock.sleep(seconds)
        self.driver.set_power(self.idle_w)

    def synchronise(self) -> None:
        """The forwards are done; the next will come too late to follow them."""
        self._waited = True

    def stretch(self) -> Callable[[], float]:
        """How long what is enqueued from now on takes; it is waited for."""
        start_s = self.clock.now()

        def took_s() -> float:
            self.synchronise()
            return self.clock.now() - start_s

        return took_s

    def busy(self, seconds: float) -> None:
        """Full power for so long."""
        self.driver.set_power(max(watts for _, watts in self.pieces))
        self.clock.sleep(seconds)
        self.driver.set_power(self.idle_w)
