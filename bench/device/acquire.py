"""Which device am I on, is it the one asked for, can this torch build run it, what weakens it."""

import contextlib
import ctypes
import socket
from dataclasses import dataclass
from typing import Any

import torch

from bench.asked import CPU, Cell
from bench.device import cpu, gpus, kinds, nvml, precision, support, visible
from bench.device.boards import Capability
from bench.errors import REAL_GPU, TensorgapError, Unsupported
from bench.measured import Device, Sensor
from bench.warnings import RowWarning

# What torch says where it has no kernel for a device or a type.
_NO_KERNEL = ("no kernel image", "invalid device function", "not implemented for", "not supported")
# What torch says where the driver is absent or older than its CUDA.
_NO_DRIVER = ("driver on your system is too old", "Found no NVIDIA driver")
# What cuBLAS says, of whatever torch build: bfloat16 on Pascal (pytorch/pytorch#57773).
_NO_PRODUCT = ("CUBLAS_STATUS_NOT_SUPPORTED", "CUBLAS_STATUS_ARCH_MISMATCH")
# A function of the stand-in for CUDA's libraries that the tests build.
_MODELLED_CUDA = "fakecuda_launches"
# What of a Device only the driver knows.
_OF_THE_DRIVER = (
    "uuid", "pci_bus_id", "mig", "power_limit_w", "default_power_limit_w", "max_sm_mhz", "vgpu",
    "ecc", "persistence", "module", "serial", "vbios",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The device that a cell runs on, with what it needs to be measured."""

    type: str  # torch's name: cuda or cpu
    device: Device
    gpu: nvml.Gpu | None
    warnings: tuple[RowWarning, ...]
    sensor: Sensor | None = None  # if it was probed


def acquire(
    cell: Cell, driver: nvml.Driver, threads: int | None = None, simulated: bool = False
) -> Found:
    """The device that this process may use, checked against the cell and with one real kernel.

    With `simulated`, a GPU cell may run on a stand-in: on the modelled GPU where torch finds that,
    or else on the CPU, as the GPU that the stand-in for the driver tells of. `threads` are the CPUs
    that torch may compute with; None leaves its own choice.

    Raises:
        Unsupported: this device or this torch build cannot run the cell.
        WrongDevice: it is of another type than was asked for.
        TensorgapError: a simulation was asked for where there is a real GPU, or no stand-in.
        GpuLostError: the driver says that the GPU is lost.
    """
    visible.check(cell, driver)
    if threads is not None:
        torch.set_num_threads(threads)
    if cell.gpu_type == CPU:
        found = on_cpu(cell, driver)
    elif simulated and not models_cuda():
        found = in_place_of_gpu(cell, driver)
    else:
        found = on_gpu(cell, driver)
    run_one_kernel(cell.precision, found)
    return found


def device_of(gpu: nvml.Gpu | None, **known: Any) -> Device:
    """A device of this host, with what of it only the driver knows."""
    told = {name: getattr(gpu, name) for name in _OF_THE_DRIVER} if gpu else {}
    threads = torch.get_num_threads()
    host = {"hostname": socket.gethostname(), "cpu": cpu.name(), "threads": threads}
    return Device(**(known | told | host))


def on_cpu(cell: Cell, driver: nvml.Driver) -> Found:
    """The CPU, metered as the simulated GPU where there is one, so that the whole way is tried."""
    gpu = next(iter(driver.gpus()), None) if driver.simulated else None
    simulated = RowWarning("simulated-meter", {"gpu": gpu.name}) if gpu else None
    weakness = support.cpu_warning(cell.precision, cpu.flags())
    device = device_of(
        None,
        name=cpu.name(),
        gpu_type=CPU,
        memory_bytes=cpu.memory_bytes(),
        uuid=gpu and gpu.uuid,
        simulated=gpu is not None,
    )
    return Found("cpu", device, gpu, tuple(filter(None, (weakness, simulated))))


def in_place_of_gpu(cell: Cell, driver: nvml.Driver) -> Found:
    """The CPU in the place of a GPU that the stand-in for the driver says is there.

    Precisions are what the CPU has: `tf32` is unsupported, `mixed` casts to bf16.
    """
    if torch.cuda.is_available() or (driver.gpus() and not driver.simulated):
        raise TensorgapError(REAL_GPU)
    try:
        gpu = visible.given(driver)
    except TensorgapError as error:
        why = f"{cell.gpu_type} has nothing to be simulated by: {error}"
        raise TensorgapError(f"--simulated: {why}") from None
    visible.check_type(cell, gpu.card)
    simulated = RowWarning("simulated-gpu", {"gpu": gpu.name})
    weakness = support.cpu_warning(cell.precision, cpu.flags())
    device = device_of(
        gpu,
        name=gpu.name,
        gpu_type=gpu.gpu_type,
        memory_bytes=gpu.memory_bytes,
        compute_capability=gpu.compute_capability,
        simulated=True,
    )
    return Found("cpu", device, gpu, tuple(filter(None, (simulated, weakness))))


def models_cuda() -> bool:
    """Whether torch's CUDA is a stand-in, whose kernels take their time and compute nothing."""
    return hasattr(ctypes.CDLL(None), _MODELLED_CUDA)


def on_gpu(cell: Cell, driver: nvml.Driver) -> Found:
    """CUDA's first device."""
    start_cuda(gpus.capability_of(cell.gpu_type) or (9, 0), driver)
    properties = torch.cuda.get_device_properties(0)
    capability = (properties.major, properties.minor)
    modelled = models_cuda()
    warnings = [
        RowWarning("modelled-gpu", {"gpu": properties.name}) if modelled else None,
        support.gpu_warning(cell.precision, capability),
    ]
    gpu, uuid = None, str(properties.uuid)
    try:
        gpu = driver.gpu(uuid)
    except TensorgapError as error:
        warnings.append(RowWarning("gpu-unknown-to-driver", {"reason": str(error)}))
    if gpu:
        uuid = gpu.uuid
        if gpu.mig:
            warnings.append(RowWarning("mig-slice"))
        if gpu.vgpu:
            warnings.append(RowWarning("virtual-gpu"))
    words = "{}.{}".format(*capability)
    card = kinds.Card(properties.name, uuid, properties.total_memory, words)
    visible.check_type(cell, card)
    device = device_of(
        gpu,
        name=card.name,
        gpu_type=card.gpu_type,
        memory_bytes=card.memory_bytes,
        uuid=uuid,
        compute_capability=words,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=getattr(properties, "L2_cache_size", None),
        simulated=modelled or driver.simulated,
    )
    return Found("cuda", device, gpu, tuple(filter(None, warnings)))


def start_cuda(capability: Capability, driver: nvml.Driver) -> None:
    """Initialise CUDA; Unsupported, with what to install, where this build or driver cannot."""
    version, cuda = torch.__version__, torch.version.cuda
    if cuda is None:
        raise Unsupported(f"torch {version} has no CUDA; try: {gpus.install_hint(capability)}")
    try:
        torch.cuda.init()
    except Exception as error:
        if any(sign in str(error) for sign in _NO_DRIVER):
            raise Unsupported(
                f"torch {version} for CUDA {cuda} finds no driver that it can use (driver:"
                f" {driver.version or 'absent'}); update the driver, or try:"
                f" {gpus.install_hint(capability, old_driver=True)}"
            ) from error
        with contextlib.suppress(TensorgapError):
            visible.given(driver).check()
        raise


def run_one_kernel(precision_name: str, found: Found) -> None:
    """is_available() stays true on a GPU that this torch build has no kernels for."""
    dtype = precision.arithmetic(precision_name, found.type)
    name, version = found.device.name, torch.__version__
    try:
        squares = torch.ones(2, 64, 64, dtype=dtype, device=found.type)
        # Plain and batched, as attention without a fused kernel: cuBLAS may have the one alone.
        (squares[0] @ squares[0] + squares @ squares).sum().item()
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        if any(sign in first for sign in _NO_PRODUCT):
            raise Unsupported(f"cuBLAS has no {precision_name} on {name}: {first}") from error
        # Anything else, such as a busy GPU or an ECC error, is a fault of the moment.
        if not any(sign in first for sign in _NO_KERNEL):
            if found.gpu:
                found.gpu.check()
            raise
        capability = gpus.capability(found.device.compute_capability)
        if capability is None:
            raise Unsupported(f"torch {version}: {first}") from error
        built = ", ".join(torch.cuda.get_arch_list()) or "none"
        raise Unsupported(
            f"torch {version} has no kernels for {name} (sm_{capability[0]}{capability[1]}; it has"
            f" {built}); try: {gpus.install_hint(capability)}"
        ) from error
