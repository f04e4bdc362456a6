"""The energy counters of the CPU packages: Linux's powercap, for Intel (RAPL) and AMD."""

import re
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def reader(powercap: Path = POWERCAP) -> Callable[[], float | None] | str:
    """A function that gives the energy of all CPU packages since now, in J, or why there is none.

    The counters start again from 0 at their range, some 260 kJ or minutes at full load, so it must
    be called more often than that. It gives None where a counter cannot be read for once.
    """
    try:
        # Only intel-rapl:N that are packages: intel-rapl:N:M are parts of one, psys is the board.
        packages = [
            domain
            for domain in sorted(powercap.glob("intel-rapl:*"))
            if re.fullmatch(r"intel-rapl:\d+", domain.name)
            and (domain / "name").read_text().startswith("package")
        ]
        if not packages:
            return f"no CPU energy counter (RAPL) in {powercap}; virtual machines have none"
        counters = [package / "energy_uj" for package in packages]
        ranges_uj = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        last_uj = [int(counter.read_text()) for counter in counters]
    except PermissionError as error:
        file = error.filename
        return f"{file} may not be read; `sudo chmod a+r {file}` permits it until the next boot"
    except OSError as error:
        return f"the CPU energy counter (RAPL) does not answer: {error}"
    total_uj = 0

    def read_j() -> float | None:
        nonlocal last_uj, total_uj
        try:
            now_uj = [int(counter.read_text()) for counter in counters]
        except OSError:
            return None
        moved = zip(now_uj, last_uj, ranges_uj, strict=True)
        total_uj += sum((now - last) % range_uj for now, last, range_uj in moved)
        last_uj = now_uj
        return total_uj / 1e6

    return read_j
