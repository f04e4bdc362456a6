"""Which device am I on, is it the one asked for, can this torch build run it, what disturbs it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import gpus, kinds, nvml, precision
from bench.records import (
    CPU,
    Cell,
    Conditions,
    Device,
    Sensor,
    TensorgapError,
    Unplaced,
    Unsupported,
)

# Other processes that take more of the host's CPU time than this slow what is measured there.
_QUIET_SHARE = 0.05
# What torch says where it has no kernel for a device or a type.
_NO_KERNEL = ("no kernel image", "invalid device function", "not implemented for", "not supported")
# What torch says where the driver is absent or older than its CUDA.
_NO_DRIVER = ("driver on your system is too old", "Found no NVIDIA driver")
# What cuBLAS says, of whatever torch build: bfloat16 on Pascal (pytorch/pytorch#57773).
_NO_PRODUCT = ("CUBLAS_STATUS_NOT_SUPPORTED", "CUBLAS_STATUS_ARCH_MISMATCH")
# A function of the stand-in for CUDA's libraries that the tests build.
_MODELLED_CUDA = "fakecuda_launches"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
REAL_GPU = "--simulated: this machine has a real GPU; leave the option out to measure it"
# Bits of nvmlClocksEventReasons that hold the clocks below what was set (nvml.h).
_SLOWDOWNS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


class WrongDevice(Unplaced):
    """The device is of another type than the cell asks for: nothing was measured."""

    def __init__(self, asked: str, given: kinds.Card, host: str) -> None:
        """Note what was asked for, and which GPU of which host it is."""
        super().__init__(asked, given, host)
        self.asked, self.given, self.host = asked, given, host

    def __str__(self) -> str:
        return f"asked for {self.asked}, found {self.given} on {self.host}: {self.given.uuid}"


@dataclass(frozen=True)
class Found:
    """The device that a cell runs on, with what it needs to be measured."""

    type: str  # torch's name: cuda or cpu
    device: Device
    gpu: nvml.Gpu | None
    doubts: tuple[str, ...]
    sensor: Sensor | None = None  # if it was probed


@dataclass(frozen=True)
class Observation:
    """The surroundings at one moment."""

    load: float
    host_busy_s: float | None
    own_busy_s: float
    host_s: float
    sm_mhz: float | None
    memory_mhz: float | None
    temperature_c: float | None
    memory_temperature_c: float | None
    pcie_generation: int | None
    pcie_width: int | None
    held_down_s: float | None
    clocks_event_reasons: int | None
    performance_state: int | None
    foreign_processes: tuple[int, ...] | None


def acquire(
    cell: Cell, driver: nvml.Driver, threads: int | None = None, simulated: bool = False
) -> Found:
    """The device that this process may use, checked against the cell and with one real kernel.

    Args:
        cell: what is to be measured.
        driver: NVML.
        threads: CPUs that torch may compute with; None leaves its own choice.
        simulated: a GPU cell may run on a stand-in: on the modelled GPU where torch finds that, or
            else on the CPU, as the GPU that the stand-in for the driver tells of.

    Raises:
        Unsupported: this device or this torch build cannot run the cell.
        WrongDevice: it is of another type than was asked for.
        TensorgapError: a simulation was asked for where there is a real GPU, or no stand-in.
        GpuLostError: the driver says that the GPU is lost.
    """
    if cell.gpu_type != CPU and _VISIBLE in os.environ:
        # Ray counts in NVML's order; CUDA, by default, the fastest first.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        # Before torch, whose import takes seconds; what NVML does not see, torch may.
        with contextlib.suppress(TensorgapError):
            card = _given(driver).card
            if card.memory_bytes:
                _check_type(cell, card)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if cell.gpu_type == CPU:
        found = _cpu(cell, driver)
    else:
        on_cpu = simulated and not _models_cuda()
        found = _simulated(cell, driver) if on_cpu else _cuda(cell, driver)
    _run_one_kernel(cell.precision, found)
    return found


def observe(gpu: nvml.Gpu | None) -> Observation:
    """Read the surroundings now."""
    times = os.times()
    held_down = gpu.held_down_s() if gpu else None
    return Observation(
        load=os.getloadavg()[0],
        host_busy_s=_host_busy_s(),
        own_busy_s=times.user + times.system,
        host_s=time.monotonic() * (os.cpu_count() or 1),
        sm_mhz=gpu.sm_mhz() if gpu else None,
        memory_mhz=gpu.memory_mhz() if gpu else None,
        temperature_c=gpu.temperature_c() if gpu else None,
        memory_temperature_c=gpu.memory_temperature_c() if gpu else None,
        pcie_generation=gpu.pcie_generation() if gpu else None,
        pcie_width=gpu.pcie_width() if gpu else None,
        held_down_s=None if held_down is None else sum(held_down.values()),
        clocks_event_reasons=gpu.clocks_event_reasons() if gpu else None,
        performance_state=gpu.performance_state() if gpu else None,
        foreign_processes=gpu.foreign_processes({os.getpid()}) if gpu else None,
    )


def conditions(before: Observation, after: Observation) -> Conditions:
    """What surrounded a measurement, from an observation on either side of it."""
    other = None
    if before.host_busy_s is not None and after.host_busy_s is not None:
        busy = after.host_busy_s - before.host_busy_s
        own = after.own_busy_s - before.own_busy_s
        total = after.host_s - before.host_s
        other = min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None
    held_down_s = None
    if before.held_down_s is not None and after.held_down_s is not None:
        held_down_s = after.held_down_s - before.held_down_s
    foreign = after.foreign_processes
    return Conditions(
        load_before=before.load,
        load_after=after.load,
        other_cpu_share=other,
        sm_mhz_before=before.sm_mhz,
        sm_mhz_after=after.sm_mhz,
        memory_mhz_after=after.memory_mhz,
        temperature_c_before=before.temperature_c,
        temperature_c_after=after.temperature_c,
        memory_temperature_c_after=after.memory_temperature_c,
        pcie_generation=after.pcie_generation,
        pcie_width=after.pcie_width,
        held_down_s=held_down_s,
        clocks_event_reasons=after.clocks_event_reasons,
        performance_state=after.performance_state,
        other_processes=None if foreign is None else len(foreign),
    )


def doubts(found: Conditions) -> list[str]:
    """What in the surroundings weakens a measurement."""
    doubts = []
    if found.other_cpu_share is not None and found.other_cpu_share > _QUIET_SHARE:
        doubts.append(f"others took {found.other_cpu_share:.0%} of the host's CPU time")
    if found.other_processes:
        doubts.append(f"{found.other_processes} other processes used the same GPU")
    slowed = [name for bit, name in _SLOWDOWNS.items() if (found.clocks_event_reasons or 0) & bit]
    if slowed:
        doubts.append(f"clocks held down: {', '.join(slowed)}")
    elif found.held_down_s is not None and found.held_down_s > nvml.HELD_DOWN_S:
        doubts.append(f"clocks held down for {found.held_down_s:.1f} s")
    return doubts


def cpu_name() -> str:
    """The host CPU's model name; on ARM, who made it and which, in the numbers that Linux gives."""
    found: dict[str, str] = {}
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "model name" in found:
        return found["model name"]
    machine = platform.processor() or platform.machine()
    if "CPU part" in found:
        return f"{machine} implementer {found.get('CPU implementer')} part {found['CPU part']}"
    return machine


def cpu_flags() -> frozenset[str]:
    """The host CPU's instruction sets, as Linux names them; empty where it does not tell."""
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpu(cell: Cell, driver: nvml.Driver) -> Found:
    import torch

    doubts = [precision.cpu_doubt(cell.precision, cpu_flags())]
    # A simulated GPU cannot compute; the CPU does in its place, so that the whole way is tried.
    gpu = next(iter(driver.gpus()), None) if driver.simulated else None
    if gpu:
        doubts.append(f"simulated: energy, clocks and temperature of a {gpu.name} that is not real")
    device = Device(
        name=cpu_name(),
        gpu_type=CPU,
        hostname=socket.gethostname(),
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        uuid=gpu.uuid if gpu else None,
        simulated=gpu is not None,
    )
    return Found("cpu", device, gpu, tuple(doubt for doubt in doubts if doubt))


def _simulated(cell: Cell, driver: nvml.Driver) -> Found:
    """The CPU in the place of a GPU that the stand-in for the driver says is there.

    Precisions are what the CPU has: `tf32` is unsupported, `mixed` casts to bf16.
    """
    import torch

    if torch.cuda.is_available() or (driver.gpus() and not driver.simulated):
        raise TensorgapError(REAL_GPU)
    try:
        gpu = _given(driver)
    except TensorgapError as error:
        raise TensorgapError(
            f"--simulated: {cell.gpu_type} has nothing to be simulated by: {error}"
        ) from None
    _check_type(cell, gpu.card)
    doubt = f"simulated: the CPU computed in the place of a {gpu.name}; no number is a GPU's"
    doubts = (doubt, precision.cpu_doubt(cell.precision, cpu_flags()))
    device = Device(
        name=gpu.name,
        gpu_type=gpu.gpu_type,
        hostname=socket.gethostname(),
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        **_of_the_driver(gpu),
        memory_bytes=gpu.memory_bytes,
        compute_capability=gpu.compute_capability,
        simulated=True,
    )
    return Found("cpu", device, gpu, tuple(doubt for doubt in doubts if doubt))


def _models_cuda() -> bool:
    """Whether torch's CUDA is a stand-in, whose kernels take their time and compute nothing."""
    return hasattr(ctypes.CDLL(None), _MODELLED_CUDA)


def _given(driver: nvml.Driver) -> nvml.Gpu:
    """The GPU that this process was given: by this variable Ray tells it, by index."""
    name = os.environ.get(_VISIBLE, "0").split(",")[0]
    return driver.gpu_at(int(name)) if name.isdecimal() else driver.gpu(name)


def _check_type(cell: Cell, card: kinds.Card) -> None:
    if not card.is_a(cell.gpu_type):
        raise WrongDevice(cell.gpu_type, card, socket.gethostname())


def _of_the_driver(gpu: nvml.Gpu | None) -> dict[str, Any]:
    """What of a Device only the driver knows."""
    names = (
        "uuid",
        "pci_bus_id",
        "mig",
        "power_limit_w",
        "default_power_limit_w",
        "max_sm_mhz",
        "vgpu",
        "ecc",
        "persistence",
        "module",
        "serial",
        "vbios",
    )
    return {name: getattr(gpu, name) for name in names} if gpu else {}


def _cuda(cell: Cell, driver: nvml.Driver) -> Found:
    import torch

    capability = gpus.capability_of(cell.gpu_type) or (9, 0)
    if torch.version.cuda is None:
        raise Unsupported(
            f"torch {torch.__version__} has no CUDA; try: {gpus.install_hint(capability)}"
        )
    try:
        torch.cuda.init()
    except Exception as error:
        if any(sign in str(error) for sign in _NO_DRIVER):
            raise Unsupported(
                f"torch {torch.__version__} for CUDA {torch.version.cuda} finds no driver that it"
                f" can use (driver: {driver.version or 'absent'}); update the driver, or try:"
                f" {gpus.old_driver_hint(capability)}"
            ) from error
        with contextlib.suppress(TensorgapError):
            _given(driver).check()
        raise
    properties = torch.cuda.get_device_properties(0)
    capability = (properties.major, properties.minor)
    doubts = [precision.gpu_doubt(cell.precision, capability)]
    try:
        gpu = driver.gpu(str(properties.uuid))
    except TensorgapError as error:
        gpu = None
        doubts.append(f"no clocks, temperature or energy: {error}")
    words = f"{capability[0]}.{capability[1]}"
    uuid = gpu.uuid if gpu else str(properties.uuid)
    card = kinds.Card(properties.name, uuid, properties.total_memory, words)
    _check_type(cell, card)
    if gpu and gpu.mig:
        doubts.append("a MIG slice: its neighbours share the memory system and the power")
    if gpu and gpu.vgpu:
        doubts.append("a virtual GPU: other machines share its board")
    modelled = _models_cuda()
    if modelled:
        doubts.insert(0, f"simulated: a model of a {properties.name}, whose kernels only take time")
    device = Device(
        name=properties.name,
        gpu_type=card.gpu_type,
        hostname=socket.gethostname(),
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        memory_bytes=properties.total_memory,
        **({"uuid": uuid} | _of_the_driver(gpu)),
        compute_capability=words,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=getattr(properties, "L2_cache_size", None),
        simulated=modelled or driver.simulated,
    )
    return Found("cuda", device, gpu, tuple(doubt for doubt in doubts if doubt))


def _run_one_kernel(precision_name: str, found: Found) -> None:
    """is_available() stays true on a GPU that this torch build has no kernels for."""
    import torch

    dtype = precision.autocast_type(precision_name, found.type) or precision.storage(precision_name)
    try:
        squares = torch.ones(2, 64, 64, dtype=dtype, device=found.type)
        # Plain and batched, as attention without a fused kernel: cuBLAS may have the one alone.
        (squares[0] @ squares[0] + squares @ squares).sum().item()
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        if any(sign in first for sign in _NO_PRODUCT):
            name = found.device.name
            raise Unsupported(f"cuBLAS has no {precision_name} on {name}: {first}") from error
        # Anything else, such as a busy GPU or an ECC error, is a fault of the moment.
        if not any(sign in first for sign in _NO_KERNEL):
            if found.gpu:
                found.gpu.check()
            raise
        if found.device.compute_capability is None:
            raise Unsupported(f"torch {torch.__version__}: {first}") from error
        major, minor = map(int, found.device.compute_capability.split("."))
        built = ", ".join(torch.cuda.get_arch_list()) or "none"
        raise Unsupported(
            f"torch {torch.__version__} has no kernels for {found.device.name} (sm_{major}{minor};"
            f" it has {built}); try: {gpus.install_hint((major, minor))}"
        ) from error


def _host_busy_s() -> float | None:
    """CPU time that all processes of the host have used, in s; None where Linux's /proc is not."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
