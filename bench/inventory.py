"""What one machine offers: its GPUs, its CPU, what meters energy there, and which software."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import errors
from bench.asked import CPU, PRECISIONS
from bench.device import cpu, gpus, kinds, nvml, precision, software
from bench.energy.meter import NoMeter, find_meter
from bench.errors import Unsupported
from bench.measured import Sensor
from bench.warnings import RowWarning

_PACKAGES = ("torch", "transformers", "datasets", "ray", "pyarrow", "nvidia-ml-py")


@dataclass(frozen=True)
class Processor:
    """One GPU, or the CPU."""

    gpu_type: str
    name: str
    detail: str  # memory, compute capability, power limit
    energy: str  # how it is metered, or why not
    precisions: tuple[tuple[str, str | None], ...]  # what weakens each; None: nothing
    unsupported: tuple[tuple[str, str], ...]
    sensor: Sensor | str | None = None  # how its power sensor works, why that is unknown, not asked


@dataclass(frozen=True)
class Inventory:
    """One machine."""

    hostname: str
    system: str
    processors: tuple[Processor, ...]
    driver: str | None
    no_driver: str | None
    packages: tuple[tuple[str, str | None], ...]
    simulated: bool = False  # the driver is a stand-in: no GPU is real
    lost: tuple[str, ...] = ()  # GPUs that the driver has but nobody can use, and why


def take(probe: bool = False) -> Inventory:
    """Look at this machine. Imports neither torch nor Ray and starts nothing.

    Args:
        probe: Find out how each GPU's power sensor works, too: half a minute of torch for each.
    """
    with nvml.driver() as driver:
        found, lost = [], []
        for index, gpu in driver.found():
            try:
                if isinstance(gpu, errors.GpuLostError):
                    raise gpu
                found.append(replace(_gpu(gpu), sensor=_sensor(gpu)) if probe else _gpu(gpu))
            except errors.GpuLostError as error:
                lost.append(f"GPU {index}: {error}")
        version, reason, simulated = driver.version, driver.reason, driver.simulated
    return Inventory(
        hostname=socket.gethostname(),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        processors=(*found, _cpu()),
        lost=tuple(lost),
        driver=version,
        no_driver=reason,
        packages=tuple((name, software.installed(name)) for name in _PACKAGES),
        simulated=simulated,
    )


def real_gpu() -> bool:
    """Whether this machine has an NVIDIA driver that is no stand-in, and a GPU."""
    with nvml.driver() as driver:
        return not driver.simulated and bool(driver.gpus())


def visible_gpus() -> tuple[kinds.Card, ...]:
    """This machine's GPUs that answer, without those that CUDA_VISIBLE_DEVICES leaves out.

    Nor those that are cut into slices, of which a program is given one.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if chosen is None else [name.strip() for name in chosen.split(",")]
    with nvml.driver() as driver:
        return tuple(
            gpu.card
            for index, gpu in driver.found()
            if isinstance(gpu, nvml.Gpu)
            and not gpu.mig
            and (
                names is None
                or str(index) in names
                or any(name and gpu.uuid.startswith(name) for name in names)
            )
        )


def weakness(gpu_type: str, precision_name: str) -> RowWarning | None:
    """What weakens a precision on a type, from the facts alone; None where nothing is known to.

    Raises Unsupported where the type lacks it.
    """
    if gpu_type == CPU:
        return precision.cpu_warning(precision_name, cpu.flags())
    capability = gpus.capability_of(gpu_type)
    return _gpu_warning(precision_name, capability) if capability else None


def _gpu_warning(precision_name: str, capability: gpus.Capability) -> RowWarning | None:
    """As `bench.device.precision.gpu_warning`, with the torch of this machine in mind."""
    torch = software.installed("torch") or "absent"
    # The CPU build says so in its version; of other builds only torch itself knows the kernels.
    if torch == "absent" or torch.endswith("+cpu"):
        raise Unsupported(f"torch {torch} has no CUDA; try: {gpus.install_hint(capability)}")
    return precision.gpu_warning(precision_name, capability)


def _gpu(gpu: nvml.Gpu) -> Processor:
    capability = gpu.compute_capability
    memory, limit = gpu.memory_bytes, gpu.power_limit_w
    detail = [
        f"{memory / 2**30:.0f} GiB" if memory else None,
        f"compute capability {capability}" if capability else None,
        f"limit {limit:.0f} W" if limit else None,
        "MIG" if gpu.mig else None,
    ]
    major, minor = map(int, capability.split(".")) if capability else (0, 0)
    able, unable = _precisions(lambda name: _gpu_warning(name, (major, minor)))
    return Processor(
        gpu_type=gpu.gpu_type,
        name=gpu.name,
        detail=", ".join(part for part in detail if part),
        energy=_energy(gpu),
        precisions=able,
        unsupported=unable,
    )


def _cpu() -> Processor:
    able, unable = _precisions(lambda name: precision.cpu_warning(name, cpu.flags()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Processor(
        gpu_type=CPU,
        name=cpu.name(),
        detail=f"{os.cpu_count()} CPUs, {memory / 2**30:.0f} GiB",
        energy=_energy(None),
        precisions=able,
        unsupported=unable,
    )


def _energy(gpu: nvml.Gpu | None) -> str:
    meter = find_meter(gpu)
    return f"none: {meter.reason}" if isinstance(meter, NoMeter) else meter.method


def _sensor(gpu: nvml.Gpu) -> Sensor | str:
    """How its power sensor works, or why that cannot be found out."""
    try:
        import torch

        from bench.energy import probe as sensor  # with torch, which not every machine has
    except ImportError as error:
        return f"no torch to load the GPU with: {error}"
    try:
        for index in range(torch.cuda.device_count()):
            if gpu.uuid.endswith(str(torch.cuda.get_device_properties(index).uuid)):
                return sensor.probe(gpu, sensor.matrix_products(f"cuda:{index}"))
    except RuntimeError as error:  # no kernels for it, no memory left, ...
        gpu.check()
        return str(error).splitlines()[0]
    return f"torch {torch.__version__} cannot load this GPU"


def _precisions(
    warning: Callable[[str], RowWarning | None],
) -> tuple[tuple[tuple[str, str | None], ...], tuple[tuple[str, str], ...]]:
    able: list[tuple[str, str | None]] = []
    unable: list[tuple[str, str]] = []
    for name in PRECISIONS:
        try:
            found = warning(name)
            able.append((name, found.text if found else None))
        except Unsupported as error:
            unable.append((name, str(error)))
    return tuple(able), tuple(unable)
