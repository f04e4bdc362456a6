"""What one machine offers: its GPUs, its CPU, what meters energy there, and which software."""

import os
import platform
import socket
from dataclasses import dataclass, replace

from bench.asked import CPU, PRECISIONS
from bench.device import cpu, gpus, kinds, nvml, software, support, visible
from bench.device.boards import Capability
from bench.energy.meter import NoMeter, find_meter
from bench.errors import GpuLostError, Unsupported
from bench.measured import Sensor
from bench.warnings import RowWarning

_PACKAGES = ("torch", "transformers", "torchao", "datasets", "ray", "pyarrow", "nvidia-ml-py")


@dataclass(frozen=True)
class Processor:
    """One GPU, or the CPU."""

    gpu_type: str
    name: str
    detail: str  # memory, compute capability, power limit
    energy: str  # how it is metered, or why not
    precisions: tuple[tuple[str, RowWarning | None], ...]  # what weakens each; None: nothing
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
    lost: tuple[str, ...] = ()  # GPUs that the driver has but no one can use, and why


def take(probe: bool = False) -> Inventory:
    """Look at this machine. Imports neither torch nor Ray and starts nothing.

    Args:
        probe: Find out how each GPU's power sensor works, too: half a minute of torch for each.
    """
    with nvml.driver() as driver:
        found, lost = [], []
        for index, gpu in driver.found():
            try:
                if isinstance(gpu, GpuLostError):
                    raise gpu
                described = processor_of(gpu)
                found.append(replace(described, sensor=probed(gpu)) if probe else described)
            except GpuLostError as error:
                lost.append(f"GPU {index}: {error}")
        return Inventory(
            hostname=socket.gethostname(),
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            processors=(*found, processor_of(None)),
            driver=driver.version,
            no_driver=driver.reason,
            packages=tuple((name, software.installed(name)) for name in _PACKAGES),
            simulated=driver.simulated,
            lost=tuple(lost),
        )


def real_gpu() -> bool:
    """Whether this machine has an NVIDIA driver that is no stand-in, and a GPU."""
    with nvml.driver() as driver:
        return not driver.simulated and bool(driver.gpus())


def visible_gpus() -> tuple[kinds.Card, ...]:
    """This machine's GPUs that this process may use and that answer, but for those in slices."""
    return tuple(card for card in numbered_gpus() if card)


def numbered_gpus() -> tuple[kinds.Card | None, ...]:
    """The GPUs of this process in the order in which Ray gives them away; None: not a visible one.

    That is the order of CUDA_VISIBLE_DEVICES or, where it is not set, NVML's.
    """
    with nvml.driver() as driver:
        found = {
            visible.position(index, gpu.uuid): gpu.card
            for index, gpu in driver.found()
            if isinstance(gpu, nvml.Gpu) and not gpu.mig
        }
    numbers = [number for number in found if number is not None]
    return tuple(found.get(number) for number in range(max(numbers, default=-1) + 1))


def weakness(
    gpu_type: str, precision: str, capability: Capability | None = None
) -> RowWarning | None:
    """What weakens a precision on a type, with this machine's CPU and torch; None where nothing.

    Raises Unsupported where the type lacks it, as far as that is known from the facts.
    """
    support.check_installed(precision)
    if gpu_type == CPU:
        return support.cpu_warning(precision, cpu.flags())
    capability = capability or gpus.capability_of(gpu_type)
    if capability is None:
        return None
    torch = software.installed("torch") or "absent"
    # The CPU build says so in its version; of other builds only torch itself knows the kernels.
    if torch == "absent" or torch.endswith("+cpu"):
        raise Unsupported(f"torch {torch} has no CUDA; try: {gpus.install_hint(capability)}")
    return support.gpu_warning(precision, capability)


def processor_of(gpu: nvml.Gpu | None) -> Processor:
    """A GPU, or the CPU where it is None."""
    gpu_type, name, capability = CPU, cpu.name(), None
    detail = [f"{os.cpu_count()} CPUs", f"{cpu.memory_bytes() / 2**30:.0f} GiB"]
    if gpu:
        gpu_type, name = gpu.gpu_type, gpu.name
        memory, limit = gpu.memory_bytes, gpu.power_limit_w
        capability = gpus.capability(gpu.compute_capability) or (0, 0)
        detail = [
            f"{memory / 2**30:.0f} GiB" if memory else "",
            f"compute capability {gpu.compute_capability}" if any(capability) else "",
            f"limit {limit:.0f} W" if limit else "",
            "MIG" if gpu.mig else "",
        ]
    able: list[tuple[str, RowWarning | None]] = []
    unable: list[tuple[str, str]] = []
    for precision in PRECISIONS:
        try:
            able.append((precision, weakness(gpu_type, precision, capability)))
        except Unsupported as error:
            unable.append((precision, str(error)))
    meter = find_meter(gpu)
    method = f"none: {meter.reason}" if isinstance(meter, NoMeter) else meter.method
    words = ", ".join(filter(None, detail))
    return Processor(gpu_type, name, words, method, tuple(able), tuple(unable))


def probed(gpu: nvml.Gpu) -> Sensor | str:
    """How a power sensor works, or why that cannot be found out."""
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
