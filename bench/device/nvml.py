"""The NVIDIA driver's view of its GPUs, in SI units: the only module that imports pynvml.

A GPU is found by its UUID, never by its index, because CUDA and NVML count in different orders.
What a GPU can tell is found out by asking it, not by its architecture: a quantity that the GPU or
its driver does not offer is None, and the driver's own words stand in `Gpu.reasons`. A machine
without a driver is normal too: it has no GPUs, and `Driver.reason` says why.

Drivers from 470 on are asked in the newest words that they know: a call that NVIDIA has deprecated
is made only where the newer one does not answer. A call for which nvidia-ml-py itself is too old is
one that does not answer.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pynvml

from bench.device import kinds
from bench.errors import GpuLostError, TensorgapError

T = TypeVar("T")

_ABSENT = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver on this machine",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA driver is installed but not loaded; `nvidia-smi` and the kernel's log say why"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "this user may not talk to the NVIDIA driver; check the permissions of /dev/nvidia*"
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the NVIDIA library and kernel module differ in version, as after an update; reboot"
    ),
}
# Of nvml.h; without a name in nvidia-ml-py 11.
_NOT_READY = 27
_MODULE_SCOPE = 1
_LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED}
_TRANSIENT = {pynvml.NVML_ERROR_TIMEOUT, pynvml.NVML_ERROR_NO_DATA, _NOT_READY}
_SHAKEN = _TRANSIENT | {pynvml.NVML_ERROR_UNKNOWN}
_SUCCESS = pynvml.NVML_SUCCESS
_TRIES = 3
_PAUSE_S = 0.01

THROTTLED_S = 0.1  # Clocks held down for less hardly change what lasts for seconds.

# Counters, in ns, of how long each cause has held the clocks down (nvml.h). The numbers have no
# name in older pynvml, nor an answer from older drivers, which know the first three.
_THROTTLED = {
    "power cap": pynvml.NVML_FI_DEV_PERF_POLICY_POWER,
    "heat": pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
    "sync boost": pynvml.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST,
    "software thermal": 269,
    "hardware thermal": 270,
    "power brake": 271,
}
# What tells the same where a GPU has none of these fields; deprecated in CUDA 13.
_VIOLATIONS = {
    "power cap": pynvml.NVML_PERF_POLICY_POWER,
    "heat": pynvml.NVML_PERF_POLICY_THERMAL,
    "sync boost": pynvml.NVML_PERF_POLICY_SYNC_BOOST,
}
# Where nvmlFieldValue_t keeps each nvmlValueType_t.
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
# A function of the stand-in for the driver's library that the tests build.
_SIMULATION = "fakenvml_configure"

# The modules of a CPU and a GPU: GH200, GB200, GB300, GB10.
_WITH_CPU = re.compile(r"\bG[HB]\d")


@contextmanager
def driver() -> Iterator[Driver]:
    """Open the NVIDIA driver for as long as the block lasts.

    Where there is none, the block gets a `Driver` with no GPUs and the reason.
    """
    absent = None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = _ABSENT.get(error.value, f"the NVIDIA driver does not answer: {error}")
    if absent:
        yield Driver(reason=absent)
        return
    try:
        yield Driver(
            version=_persist(pynvml.nvmlSystemGetDriverVersion),
            nvml_version=_persist(pynvml.nvmlSystemGetNVMLVersion),
            simulated=hasattr(pynvml.nvmlLib, _SIMULATION),
        )
    finally:
        # A driver that fails while closing must not hide what went wrong inside the block.
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver of this machine, or the reason why there is none."""

    version: str | None = None
    nvml_version: str | None = None
    reason: str | None = None
    simulated: bool = False  # a stand-in for the driver: no GPU is real

    def gpus(self) -> tuple[Gpu, ...]:
        """Every whole GPU that answers and that this process may touch, in NVML's order."""
        return tuple(gpu for _, gpu in self.found() if isinstance(gpu, Gpu))

    def found(self) -> Iterator[tuple[int, Gpu | GpuLostError]]:
        """Every whole GPU that this process may touch, by its index; lost ones as their error."""
        for index in () if self.reason else range(_persist(pynvml.nvmlDeviceGetCount)):
            # NVML also counts the GPUs that a container or a batch system withholds.
            with suppress(pynvml.NVMLError):
                try:
                    yield index, Gpu(_persist(pynvml.nvmlDeviceGetHandleByIndex, index))
                except GpuLostError as error:
                    yield index, error

    def gpu_at(self, index: int) -> Gpu:
        """The GPU at this place in NVML's order.

        Raises:
            TensorgapError: There is no such GPU, or no driver.
            GpuLostError: It is lost.
        """
        if self.reason:
            raise TensorgapError(self.reason)
        try:
            return Gpu(_persist(pynvml.nvmlDeviceGetHandleByIndex, index))
        except pynvml.NVMLError as error:
            raise TensorgapError(f"NVML has no GPU {index} ({error})") from None

    def gpu(self, uuid: str) -> Gpu:
        """The GPU or MIG slice with this UUID, as NVML writes it or, as torch does, unprefixed.

        Raises:
            TensorgapError: There is no such GPU, or no driver.
            GpuLostError: It is lost.
        """
        if self.reason:
            raise TensorgapError(f"there is no GPU {uuid}: {self.reason}")
        why = ""
        for prefix in ("",) if uuid.startswith(("GPU-", "MIG-")) else ("GPU-", "MIG-"):
            try:
                return Gpu(_persist(pynvml.nvmlDeviceGetHandleByUUID, prefix + uuid))
            except pynvml.NVMLError as error:
                why = str(error)
        raise TensorgapError(f"NVML finds no GPU {uuid} ({why}); `nvidia-smi -L` lists the GPUs")


class Gpu:
    """One GPU, or one MIG slice of a GPU.

    Whatever the GPU or its driver cannot tell is None; `reasons[NAME]`, by the name of the property
    or method, then says why. Power, clocks and temperature are always those of the whole board.

    Any of them raises GpuLostError once the GPU is lost.
    """

    def __init__(self, handle: Any) -> None:
        """Wrap an NVML handle; it is valid only inside the block of `driver`."""
        self.reasons: dict[str, str] = {}
        self._answered: set[str] = set()
        self.name: str = _persist(pynvml.nvmlDeviceGetName, handle)
        self.uuid: str = _persist(pynvml.nvmlDeviceGetUUID, handle)
        self._handle = handle
        self._slice = bool(self._ask("mig", lambda: pynvml.nvmlDeviceIsMigDeviceHandle(handle)))
        self._board = (
            _persist(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
            if self._slice
            else handle
        )

    def check(self) -> None:
        """Ask whether the GPU is lost, which GpuLostError says."""
        self.power_w()
        self.total_energy_j()

    @property
    def gpu_type(self) -> str:
        """The type; 40 GB and 80 GB A100 and their MIG slices are all A100."""
        return kinds.gpu_type(self.name)

    @property
    def card(self) -> kinds.Card:
        """What tells which GPU it is; of one that is cut into slices, each has less memory."""
        shared = self.mig and not self._slice
        memory_bytes = None if shared else self.memory_bytes
        return kinds.Card(self.name, self.uuid, memory_bytes, self.compute_capability)

    @property
    def mig(self) -> bool | None:
        """Whether this is a MIG slice or a GPU cut into slices; None where the GPU has no MIG."""
        mode = self._ask("mig", lambda: pynvml.nvmlDeviceGetMigMode(self._board))
        return self._slice or (None if mode is None else bool(mode[0]))

    @property
    def pci_bus_id(self) -> str | None:
        """PCI bus id, as 00000000:01:00.0."""
        return self._ask("pci_bus_id", lambda: pynvml.nvmlDeviceGetPciInfo_v3(self._board).busId)

    @property
    def compute_capability(self) -> str | None:
        """CUDA compute capability, as 8.0."""
        version = self._ask(
            "compute_capability", lambda: pynvml.nvmlDeviceGetCudaComputeCapability(self._board)
        )
        return version and "{}.{}".format(*version)

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the GPU or of the slice, in B."""
        return self._ask("memory_bytes", lambda: pynvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    @property
    def vgpu(self) -> bool | None:
        """Whether this is a virtual GPU, which shares its board with other machines.

        A GPU that is passed through to a virtual machine is whole, and none.
        """
        mode = self._ask("vgpu", lambda: pynvml.nvmlDeviceGetVirtualizationMode(self._board))
        return None if mode is None else mode == pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU

    @property
    def ecc(self) -> bool | None:
        """Whether the memory corrects its errors, which costs bandwidth on some GPUs."""
        modes = self._ask("ecc", lambda: pynvml.nvmlDeviceGetEccMode(self._board))
        return None if modes is None else bool(modes[0])

    @property
    def persistence(self) -> bool | None:
        """Whether the driver stays loaded, and the clocks set, while nobody uses the GPU."""
        mode = self._ask("persistence", lambda: pynvml.nvmlDeviceGetPersistenceMode(self._board))
        return None if mode is None else bool(mode)

    @property
    def module(self) -> bool:
        """Whether it is one module with a CPU, as Grace Hopper, whose power NVML then tells too.

        Only of a GPU that has its name from one: a board may answer the question without being one.
        """
        if not _WITH_CPU.search(self.name):
            return False
        watts = self._ask(
            "module",
            lambda: self._field(pynvml.NVML_FI_DEV_POWER_INSTANT, _MODULE_SCOPE),
        )
        return bool(watts)  # 0 W is no module's.

    @property
    def serial(self) -> str | None:
        """Serial number of the board; consumer boards tell none."""
        return self._ask("serial", lambda: pynvml.nvmlDeviceGetSerial(self._board))

    @property
    def vbios(self) -> str | None:
        """Version of the board's firmware, which sets its clocks and its power limits."""
        return self._ask("vbios", lambda: pynvml.nvmlDeviceGetVbiosVersion(self._board))

    @property
    def power_limit_w(self) -> float | None:
        """Enforced power limit, in W."""
        return self._thousandth("power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit)

    @property
    def default_power_limit_w(self) -> float | None:
        """Power limit that the vendor set, in W."""
        return self._thousandth(
            "default_power_limit_w", pynvml.nvmlDeviceGetPowerManagementDefaultLimit
        )

    @property
    def max_sm_mhz(self) -> float | None:
        """Highest clock of the streaming multiprocessors, in MHz."""
        return self._ask(
            "max_sm_mhz",
            lambda: pynvml.nvmlDeviceGetMaxClockInfo(self._board, pynvml.NVML_CLOCK_SM),
        )

    def pcie_generation(self) -> int | None:
        """Generation of the PCIe link; an idle GPU may lower it."""
        return self._ask(
            "pcie_generation", lambda: pynvml.nvmlDeviceGetCurrPcieLinkGeneration(self._board)
        )

    def pcie_width(self) -> int | None:
        """Lanes of the PCIe link."""
        return self._ask("pcie_width", lambda: pynvml.nvmlDeviceGetCurrPcieLinkWidth(self._board))

    def power_w(self) -> float | None:
        """Power, in W: the last reading that the sensor has published.

        Averaged over 1 s on Ampere and newer but GA100, else over the sensor's last 10 to 100 ms
        (nvml.h; Yang, Adamek, Armour, SC'24).
        """
        return self._thousandth("power_w", pynvml.nvmlDeviceGetPowerUsage)

    def instant_power_w(self) -> float | None:
        """Power, in W, over the sensor's last 10 to 100 ms on every GPU; drivers from 530."""
        watts = self._ask("instant_power_w", lambda: self._field(pynvml.NVML_FI_DEV_POWER_INSTANT))
        return None if watts is None else watts / 1000

    def total_energy_j(self) -> float | None:
        """Energy since the driver was loaded, in J.

        Pascal has no such counter; Grace Hopper's counts the whole module (zeus, PR 172).
        """
        millijoules = self._ask(
            "total_energy_j",
            lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._board),
            lambda: self._field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION),
        )
        return None if millijoules is None else millijoules / 1000

    def reader(self, name: str) -> Callable[[], float | None]:
        """The method `total_energy_j`, `instant_power_w` or `power_w`, made to be polled.

        What stays the same from call to call is made once. All but a plain answer is left to the
        method, which tries again and knows the reasons.
        """
        method: Callable[[], float | None] = getattr(self, name)
        function_name, found = {
            "total_energy_j": ("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong()),
            "instant_power_w": (
                "nvmlDeviceGetFieldValues",
                pynvml.c_nvmlFieldValue_t(fieldId=pynvml.NVML_FI_DEV_POWER_INSTANT),
            ),
            "power_w": ("nvmlDeviceGetPowerUsage", ctypes.c_uint()),
        }[name]
        function = getattr(pynvml.nvmlLib, function_name, None)
        if function is None or method() is None:
            return method
        board, reference = self._board, ctypes.byref(found)

        def read() -> float | None:
            return found.value / 1000 if function(board, reference) == _SUCCESS else method()

        def read_field() -> float | None:
            if function(board, 1, reference) == found.nvmlReturn == _SUCCESS:
                watts: float = getattr(found.value, _MEMBERS[found.valueType]) / 1000
                return watts
            return method()

        return read_field if name == "instant_power_w" else read

    def throttled_s(self) -> dict[str, float] | None:
        """How long each cause has held the clocks down since the driver was loaded, in s.

        Unlike the mask of `clocks_event_reasons`, a difference of these misses nothing between two
        looks.
        """
        return self._ask("throttled_s", self._held_down_by_fields, self._held_down_by_violations)

    def sm_mhz(self) -> float | None:
        """Clock of the streaming multiprocessors, in MHz."""
        return self._clock_mhz("sm_mhz", pynvml.NVML_CLOCK_SM)

    def memory_mhz(self) -> float | None:
        """Clock of the memory, in MHz."""
        return self._clock_mhz("memory_mhz", pynvml.NVML_CLOCK_MEM)

    def temperature_c(self) -> float | None:
        """Temperature of the GPU, in C."""
        sensor = pynvml.NVML_TEMPERATURE_GPU
        return self._ask(
            "temperature_c",
            lambda: pynvml.nvmlDeviceGetTemperatureV(self._board, sensor),
            # All that an older driver knows; NVIDIA removes it with CUDA 14.
            lambda: pynvml.nvmlDeviceGetTemperature(self._board, sensor),
        )

    def memory_temperature_c(self) -> float | None:
        """Temperature of the memory, in C; HBM only."""
        return self._ask(
            "memory_temperature_c", lambda: self._field(pynvml.NVML_FI_DEV_MEMORY_TEMP)
        )

    def clocks_event_reasons(self) -> int | None:
        """Why the clocks are what they are: NVML's bit mask (nvmlClocksEventReason*)."""
        return self._ask(
            "clocks_event_reasons",
            lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._board),
            # All that an older driver knows.
            lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._board),
        )

    def performance_state(self) -> int | None:
        """P-state: 0 is the fastest, 15 the slowest."""
        state = self._ask(
            "performance_state", lambda: pynvml.nvmlDeviceGetPerformanceState(self._board)
        )
        if state == pynvml.NVML_PSTATE_UNKNOWN:
            self.reasons["performance_state"] = "the driver does not know it"
            return None
        return state

    def foreign_processes(self, own: Collection[int]) -> tuple[int, ...] | None:
        """Process ids that use this GPU and are not among our `own`: compute, graphics, MPS.

        For a process that uses the GPU itself. In a container the driver may hide processes, or
        give the host's numbers, ours too (NVIDIA/nvidia-docker#1483): then none is among our `own`,
        and one of them is left out in our place.
        """
        lists = [
            self._ask(
                "foreign_processes" if kind == "Compute" else f"{kind.lower()}_processes",
                *(partial(_processes, self._handle, kind, version) for version in ("v3", "v2")),
            )
            for kind in ("Graphics", "MPSCompute", "Compute")
        ]
        if lists[-1] is None:
            return None
        found = {pid for pids in lists for pid in pids or ()}
        if own and found.isdisjoint(own):
            return tuple(sorted(found))[1:]
        return tuple(sorted(found.difference(own)))

    def _field(self, field: int, scope: int = 0) -> Any:
        """One field value, in NVML's unit."""
        (asked,) = pynvml.nvmlDeviceGetFieldValues(self._board, [(field, scope)])
        return _value(asked)

    def _held_down_by_fields(self) -> dict[str, float]:
        fields = pynvml.nvmlDeviceGetFieldValues(self._board, list(_THROTTLED.values()))
        known = {
            cause: _value(field) / 1e9
            for cause, field in zip(_THROTTLED, fields, strict=True)
            if field.nvmlReturn == pynvml.NVML_SUCCESS
        }
        if not known:
            raise pynvml.NVMLError(fields[0].nvmlReturn)
        if "software thermal" in known:
            known.pop("heat", None)  # The newer counters tell the two kinds apart.
        return known

    def _held_down_by_violations(self) -> dict[str, float]:
        return {
            cause: pynvml.nvmlDeviceGetViolationStatus(self._board, policy).violationTime / 1e9
            for cause, policy in _VIOLATIONS.items()
        }

    def _clock_mhz(self, name: str, clock: int) -> float | None:
        return self._ask(name, lambda: pynvml.nvmlDeviceGetClockInfo(self._board, clock))

    def _thousandth(self, name: str, function: Callable[[Any], int]) -> float | None:
        """Ask for what NVML gives in mW or mJ."""
        thousandths = self._ask(name, lambda: function(self._board))
        return None if thousandths is None else thousandths / 1000

    def _ask(self, name: str, *questions: Callable[[], T]) -> T | None:
        """The answer to the first question that the driver knows, or None with its reason."""
        for question in questions:
            try:
                answer = _persist(
                    question, passing=_SHAKEN if name in self._answered else _TRANSIENT
                )
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_UNINITIALIZED:
                    raise  # A mistake of the caller, who has left the block of `driver`.
                # Some drivers say so of one thing and give all others (Quake4/MindMiner#627), or
                # for a moment (Azure/azhpc-diagnostics#77). What answered before, and then
                # stays so, broke.
                if error.value == pynvml.NVML_ERROR_UNKNOWN and name in self._answered:
                    raise GpuLostError(f"the driver failed, {name}: {error}") from error
                self.reasons[name] = str(error)
            except AttributeError as error:
                if error.obj is not pynvml:
                    raise
                self.reasons[name] = f"{_binding()} lacks {error.name}"
            else:
                self.reasons.pop(name, None)
                self._answered.add(name)
                return answer
        return None


def _binding() -> str:
    """Which nvidia-ml-py this is; a module of the same name may come from elsewhere."""
    try:
        return f"nvidia-ml-py {importlib.metadata.version('nvidia-ml-py')}"
    except importlib.metadata.PackageNotFoundError:
        return "pynvml"


def _value(field: Any) -> Any:
    """The value of an nvmlFieldValue_t; each has a status of its own."""
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    return getattr(field.value, _MEMBERS[field.valueType])


def _processes(handle: Any, kind: str, version: str) -> set[int]:
    """Process ids in one of NVML's lists."""
    function = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_{version}")
    return {process.pid for process in function(handle)}


def _persist(
    function: Callable[..., T], *arguments: Any, passing: Collection[int] = _TRANSIENT
) -> T:
    """Call NVML; try again what may pass.

    Raises:
        GpuLostError: The GPU is lost or must be reset.
        pynvml.NVMLError: Anything else, and what has not passed after three tries.
    """
    tries_left = _TRIES
    while True:
        tries_left -= 1
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            if error.value in _LOST:
                raise GpuLostError(str(error)) from error
            if error.value not in passing or not tries_left:
                raise
        time.sleep(_PAUSE_S)
