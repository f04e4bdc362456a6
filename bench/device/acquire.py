"""Which device am I on, is it the one asked for, can this torch build run it, what disturbs it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from dataclasses import dataclass
from typing import Any

from bench.asked import CPU, Cell
from bench.device import cpu, gpus, kinds, nvml, precision
from bench.errors import REAL_GPU, TensorgapError, Unsupported, WrongDevice
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
_VISIBLE = "CUDA_VISIBLE_DEVICES"


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


def _cpu(cell: Cell, driver: nvml.Driver) -> Found:
    import torch

    warnings = [precision.cpu_warning(cell.precision, cpu.flags())]
    # A simulated GPU cannot compute; the CPU does in its place, so that the whole way is tried.
    gpu = next(iter(driver.gpus()), None) if driver.simulated else None
    if gpu:
        warnings.append(RowWarning("simulated-meter", {"gpu": gpu.name}))
    device = Device(
        name=cpu.name(),
        gpu_type=CPU,
        hostname=socket.gethostname(),
        cpu=cpu.name(),
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        uuid=gpu.uuid if gpu else None,
        simulated=gpu is not None,
    )
    return Found("cpu", device, gpu, tuple(w for w in warnings if w))


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
    simulated = RowWarning("simulated-gpu", {"gpu": gpu.name})
    warnings = (simulated, precision.cpu_warning(cell.precision, cpu.flags()))
    device = Device(
        name=gpu.name,
        gpu_type=gpu.gpu_type,
        hostname=socket.gethostname(),
        cpu=cpu.name(),
        threads=torch.get_num_threads(),
        **_of_the_driver(gpu),
        memory_bytes=gpu.memory_bytes,
        compute_capability=gpu.compute_capability,
        simulated=True,
    )
    return Found("cpu", device, gpu, tuple(w for w in warnings if w))


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
    warnings = [precision.gpu_warning(cell.precision, capability)]
    try:
        gpu = driver.gpu(str(properties.uuid))
    except TensorgapError as error:
        gpu = None
        warnings.append(RowWarning("gpu-unknown-to-driver", {"reason": str(error)}))
    words = f"{capability[0]}.{capability[1]}"
    uuid = gpu.uuid if gpu else str(properties.uuid)
    card = kinds.Card(properties.name, uuid, properties.total_memory, words)
    _check_type(cell, card)
    if gpu and gpu.mig:
        warnings.append(RowWarning("mig-slice"))
    if gpu and gpu.vgpu:
        warnings.append(RowWarning("virtual-gpu"))
    modelled = _models_cuda()
    if modelled:
        warnings.insert(0, RowWarning("modelled-gpu", {"gpu": properties.name}))
    device = Device(
        name=properties.name,
        gpu_type=card.gpu_type,
        hostname=socket.gethostname(),
        cpu=cpu.name(),
        threads=torch.get_num_threads(),
        memory_bytes=properties.total_memory,
        **({"uuid": uuid} | _of_the_driver(gpu)),
        compute_capability=words,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=getattr(properties, "L2_cache_size", None),
        simulated=modelled or driver.simulated,
    )
    return Found("cuda", device, gpu, tuple(w for w in warnings if w))


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
