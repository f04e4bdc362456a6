"""The NVIDIA driver's view of its GPUs, in SI units: the only module that imports pynvml.

A GPU is found by its UUID, never by its index, because CUDA and NVML count in different orders.
What it can tell is found out by asking it, not by its architecture: what it or its driver does not
offer is None, and the driver's own words stand in `Gpu.reasons`. Drivers from 470 on are asked in
the newest words that they know: a call that NVIDIA has deprecated is made only where the newer one
does not answer, or nvidia-ml-py is too old for it.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import pynvml

from bench.device import kinds, software
from bench.device.nvml_quantities import Fact, Live, Question
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
_SUCCESS = pynvml.NVML_SUCCESS
_VGPU = pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU
_NO_STATE = pynvml.NVML_PSTATE_UNKNOWN
_TRIES = 3
_PAUSE_S = 0.01

# Counters, in ns, of how long each cause has throttled the clocks (nvml.h): a field, and the policy
# that tells the same where a GPU has none of these fields; deprecated in CUDA 13. The numbers have
# no name in older pynvml, nor an answer from older drivers, which know the first three.
_THROTTLED = {
    "power cap": (pynvml.NVML_FI_DEV_PERF_POLICY_POWER, pynvml.NVML_PERF_POLICY_POWER),
    "heat": (pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL, pynvml.NVML_PERF_POLICY_THERMAL),
    "sync boost": (pynvml.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, pynvml.NVML_PERF_POLICY_SYNC_BOOST),
    "software thermal": (269, None),
    "hardware thermal": (270, None),
    "power brake": (271, None),
}
# Where nvmlFieldValue_t keeps each nvmlValueType_t.
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
# A function of the stand-in for the driver's library that the tests build.
_SIMULATION = "fakenvml_configure"

# The modules of a CPU and a GPU: GH200, GB200, GB300, GB10.
_WITH_CPU = re.compile(r"\bG[HB]\d")


@contextmanager
def driver() -> Iterator[Driver]:
    """Open the NVIDIA driver for as long as the block lasts; without one, a `Driver` says why."""
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

    def gpu(self, name: str) -> Gpu:
        """The GPU or MIG slice of this name: its index in NVML, as Ray tells it, or its UUID.

        A UUID is as NVML writes it or, as torch does, without its prefix.

        Raises:
            TensorgapError: There is no such GPU, or no driver.
            GpuLostError: It is lost.
        """
        if self.reason:
            raise TensorgapError(self.reason)
        find = pynvml.nvmlDeviceGetHandleByUUID
        keys: list[Any] = [name]
        if name.isdecimal():
            find, keys = pynvml.nvmlDeviceGetHandleByIndex, [int(name)]
        elif not name.startswith(("GPU-", "MIG-")):
            keys = [f"GPU-{name}", f"MIG-{name}"]
        for key in keys:
            try:
                return Gpu(_persist(find, key))
            except pynvml.NVMLError as error:
                why = error
        raise TensorgapError(f"NVML finds no GPU {name} ({why}); `nvidia-smi -L` lists the GPUs")


def thousandths(value: float) -> float:
    """W of mW, J of mJ."""
    return value / 1000


def call(name: str, *arguments: Any, convert: Question = lambda answer: answer) -> Question:
    """Of the function `nvmlDevice...`; AttributeError, when asked, where nvidia-ml-py lacks it."""
    return lambda handle: convert(getattr(pynvml, f"nvmlDevice{name}")(handle, *arguments))


def field(number: int, scope: int = 0, convert: Question = lambda answer: answer) -> Question:
    """Of one value of `nvmlDeviceGetFieldValues`."""
    fields = [(number, scope)]
    return lambda handle: convert(value_of(pynvml.nvmlDeviceGetFieldValues(handle, fields)[0]))


def value_of(field: Any) -> Any:
    """The value of an nvmlFieldValue_t; each has a status of its own."""
    if field.nvmlReturn != _SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    return getattr(field.value, _MEMBERS[field.valueType])


def throttled_by_fields(handle: Any) -> dict[str, float]:
    """Seconds for which each cause has throttled the clocks."""
    fields = pynvml.nvmlDeviceGetFieldValues(handle, [number for number, _ in _THROTTLED.values()])
    known = {
        cause: value_of(field) / 1e9
        for cause, field in zip(_THROTTLED, fields, strict=True)
        if field.nvmlReturn == _SUCCESS
    }
    if not known:
        raise pynvml.NVMLError(fields[0].nvmlReturn)
    if "software thermal" in known:
        known.pop("heat", None)  # The newer counters tell the two kinds apart.
    return known


def throttled_by_policies(handle: Any) -> dict[str, float]:
    """The same, of GPUs that have none of these fields."""
    return {
        cause: pynvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime / 1e9
        for cause, (_, policy) in _THROTTLED.items()
        if policy is not None
    }


class Gpu:
    """One GPU, or one MIG slice, whose power, clocks and temperature are those of the whole board.

    What it cannot tell is None, and `reasons`, by the name of the attribute or method, says why.
    Any of them raises GpuLostError once the GPU is lost.
    """

    pci_bus_id = Fact[str](call("GetPciInfo_v3", convert=attrgetter("busId")))
    compute_capability = Fact[str](call("GetCudaComputeCapability", convert="{0[0]}.{0[1]}".format))
    # Of the GPU or of the slice.
    memory_bytes = Fact[int](call("GetMemoryInfo", convert=attrgetter("total")), of_slice=True)
    # Whether it shares its board with other machines: not where it is passed through to one, whole.
    vgpu = Fact[bool](call("GetVirtualizationMode", convert=lambda mode: mode == _VGPU))
    # Whether the memory corrects its errors, which costs bandwidth on some GPUs.
    ecc = Fact[bool](call("GetEccMode", convert=lambda modes: bool(modes[0])))
    # Whether the driver stays loaded, and the clocks set, while no one uses the GPU.
    persistence = Fact[bool](call("GetPersistenceMode", convert=bool))
    serial = Fact[str](call("GetSerial"))  # consumer boards tell none
    vbios = Fact[str](call("GetVbiosVersion"))  # sets the clocks and the power limits
    power_limit_w = Fact[float](call("GetEnforcedPowerLimit", convert=thousandths))
    # That the vendor set.
    default_power_limit_w = Fact[float](call("GetPowerManagementDefaultLimit", convert=thousandths))
    max_sm_mhz = Fact[float](call("GetMaxClockInfo", pynvml.NVML_CLOCK_SM))

    pcie_generation = Live[int](call("GetCurrPcieLinkGeneration"))  # an idle GPU may lower it
    pcie_width = Live[int](call("GetCurrPcieLinkWidth"))  # lanes
    # The last reading that the sensor has published: averaged over 1 s on Ampere and newer but
    # GA100, else over the sensor's last 10 to 100 ms (nvml.h; Yang, Adamek, Armour, SC'24).
    power_w = Live[float](call("GetPowerUsage", convert=thousandths))
    # Over the sensor's last 10 to 100 ms on every GPU; drivers from 530.
    instant_power_w = Live[float](field(pynvml.NVML_FI_DEV_POWER_INSTANT, convert=thousandths))
    # Since the driver was loaded. Pascal has no such counter; Grace Hopper's counts the whole
    # module (zeus, PR 172).
    total_energy_j = Live[float](
        call("GetTotalEnergyConsumption", convert=thousandths),
        field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, convert=thousandths),
    )
    # How long each cause has throttled the clocks since the driver was loaded. Unlike the mask of
    # `clocks_event_reasons`, a difference of these misses nothing between two looks.
    throttled_s = Live[dict[str, float]](throttled_by_fields, throttled_by_policies)
    sm_mhz = Live[float](call("GetClockInfo", pynvml.NVML_CLOCK_SM))
    memory_mhz = Live[float](call("GetClockInfo", pynvml.NVML_CLOCK_MEM))
    # The second call is all that an older driver knows; NVIDIA removes it with CUDA 14.
    temperature_c = Live[float](
        call("GetTemperatureV", pynvml.NVML_TEMPERATURE_GPU),
        call("GetTemperature", pynvml.NVML_TEMPERATURE_GPU),
    )
    memory_temperature_c = Live[float](field(pynvml.NVML_FI_DEV_MEMORY_TEMP))  # HBM only
    # Why the clocks are what they are: a bit mask, of which `bench.device.conditions` names those
    # that slow. The second call is all that an older driver knows.
    clocks_event_reasons = Live[int](
        call("GetCurrentClocksEventReasons"), call("GetCurrentClocksThrottleReasons")
    )
    performance_state = Live[int](  # 0 is the fastest, 15 the slowest
        call("GetPerformanceState", convert=lambda state: None if state == _NO_STATE else state)
    )

    def __init__(self, handle: Any) -> None:
        """Wrap an NVML handle; it is valid only inside the block of `driver`."""
        self.reasons: dict[str, str] = {}
        self._answered: set[str] = set()
        self.name: str = _persist(pynvml.nvmlDeviceGetName, handle)
        self.uuid: str = _persist(pynvml.nvmlDeviceGetUUID, handle)
        self._handle = self._board = handle
        self._slice = bool(self.ask("mig", call("IsMigDeviceHandle")))
        if self._slice:
            self._board = _persist(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)

    def check(self) -> None:
        """Ask whether the GPU is lost, which GpuLostError says."""
        self.power_w()
        self.total_energy_j()

    @property
    def gpu_type(self) -> str:
        """The type, for all sizes of memory and MIG slices."""
        return kinds.gpu_type(self.name)

    @property
    def card(self) -> kinds.Card:
        """What tells which GPU it is; without the memory where slices share it."""
        memory_bytes = None if self.mig and not self._slice else self.memory_bytes
        return kinds.Card(self.name, self.uuid, memory_bytes, self.compute_capability)

    @property
    def mig(self) -> bool | None:
        """Whether this is a MIG slice or a GPU cut into slices; None where the GPU has no MIG."""
        mode = self.ask("mig", call("GetMigMode"))
        return self._slice or (None if mode is None else bool(mode[0]))

    @property
    def module(self) -> bool:
        """Whether it is one module with a CPU, as Grace Hopper, whose power NVML then tells too."""
        # By its name, too: a board may answer the question without being one. 0 W is no module's.
        power = field(pynvml.NVML_FI_DEV_POWER_INSTANT, _MODULE_SCOPE)
        return bool(_WITH_CPU.search(self.name) and self.ask("module", power))

    def foreign_processes(self, own: Collection[int]) -> tuple[int, ...] | None:
        """Process ids that use this GPU and are not among our `own`: compute, graphics, MPS.

        For a process that uses the GPU itself. In a container the driver may hide processes, or
        give the host's numbers, ours too (NVIDIA/nvidia-docker#1483): then none is among our `own`,
        and one of them is left out in our place.
        """
        found: set[int] = set()
        for kind in ("Graphics", "MPSCompute", "Compute"):
            name = "foreign_processes" if kind == "Compute" else f"{kind.lower()}_processes"
            calls = [call(f"Get{kind}RunningProcesses_{version}") for version in ("v3", "v2")]
            processes = self.ask(name, *calls, of_slice=True)
            if processes is None and kind == "Compute":
                return None
            found |= {process.pid for process in processes or ()}
        if own and found.isdisjoint(own):
            return tuple(sorted(found))[1:]
        return tuple(sorted(found.difference(own)))

    def reader(self, name: str) -> Callable[[], float | None]:
        """The method `total_energy_j`, `instant_power_w` or `power_w`, made to be polled.

        All but a plain answer is left to the method, which tries again and knows the reasons.
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

    def ask(self, name: str, *questions: Question, of_slice: bool = False) -> Any:
        """The answer to the first question that the driver knows, or None with its reason."""
        handle = self._handle if of_slice else self._board
        answered = name in self._answered
        passing = _TRANSIENT | {pynvml.NVML_ERROR_UNKNOWN} if answered else _TRANSIENT
        for question in questions:
            try:
                answer = _persist(question, handle, passing=passing)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_UNINITIALIZED:
                    raise  # A mistake of the caller, who has left the block of `driver`.
                # Some drivers say so of one thing and give all others (Quake4/MindMiner#627), or
                # for a moment (Azure/azhpc-diagnostics#77). What answered before, and then
                # stays so, broke.
                if error.value == pynvml.NVML_ERROR_UNKNOWN and answered:
                    raise GpuLostError(f"the driver failed, {name}: {error}") from error
                self.reasons[name] = str(error)
            except AttributeError as error:
                if error.obj is not pynvml:
                    raise
                version = software.installed("nvidia-ml-py") or ""
                self.reasons[name] = f"nvidia-ml-py {version} lacks {error.name}"
            else:
                self._answered.add(name)
                self.reasons.pop(name, None)
                if answer is None:
                    self.reasons[name] = "the driver does not know it"
                return answer
        return None


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
