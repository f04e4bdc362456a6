"""What was found, as one row has it; `bench.asked` has what was asked.

None means "not measured", never 0; the reason stands in the record's own `reason`, or in the
`reason` of the Measurement. Standard library only.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from bench.asked import Cell, Workload, column
from bench.warnings import RowWarning

KERNEL_CLASSES = (
    "matmul",
    "attention",
    "normalisation",
    "activation",
    "cast",
    "copy",
    "embedding",
    "other",
)
UNRECOGNISED = "unrecognised"  # weights of which nobody has published the hash
WAITING = "waiting for its GPU"  # the stage before there is a process
TRIED_AGAIN = "tried again"  # after a fault of the cluster, which stands in the place of the host


class Outcome(enum.StrEnum):
    """How the attempt to measure one (cell, workload, replicate) ended."""

    OK = "OK"
    UNSUPPORTED = "UNSUPPORTED"  # this device or this torch build cannot run it
    UNPLACED = "UNPLACED"  # there is no such GPU here
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TIMED_OUT = "TIMED_OUT"
    LOST = "LOST"  # the node or the GPU went away
    FAILED = "FAILED"


@dataclass(frozen=True)
class Stage:
    """A step of a measurement that begins: what a progress display shows."""

    cell: Cell
    workload: Workload
    replicate: int
    name: str
    host: str


@dataclass(frozen=True)
class Device:
    """The processor that really measured."""

    name: str = column("name that the driver or the CPU gives")
    gpu_type: str = column("type derived from the name as Ray derives it, or CPU")
    hostname: str = column("host that measured")
    cpu: str = column("host CPU, which launches the kernels")
    threads: int = column("threads that torch computes with on the CPU")
    memory_bytes: int | None = column("memory of the device", "B", default=None)
    uuid: str | None = column("NVML UUID of the GPU or MIG slice", default=None)
    pci_bus_id: str | None = column("PCI bus id", default=None)
    compute_capability: str | None = column("CUDA compute capability", default=None)
    multiprocessors: int | None = column("streaming multiprocessors", default=None)
    l2_bytes: int | None = column("L2 cache", "B", default=None)
    mig: bool | None = column(
        "a MIG slice, whose energy and clocks are the whole GPU's", default=None
    )
    power_limit_w: float | None = column("enforced power limit", "W", default=None)
    default_power_limit_w: float | None = column("the vendor's power limit", "W", default=None)
    max_sm_mhz: float | None = column("highest SM clock", "MHz", default=None)
    vgpu: bool | None = column("a virtual GPU, which shares its board", default=None)
    ecc: bool | None = column("the memory corrects its errors", default=None)
    persistence: bool | None = column("the driver stays loaded while idle", default=None)
    module: bool | None = column(
        "a module with a CPU, as Grace Hopper: its energy counter counts both", default=None
    )
    serial: str | None = column("serial number of the board", default=None)
    vbios: str | None = column("version of the board's firmware", default=None)
    simulated: bool = column(
        "true: the GPU is a simulation; no number is a real one", default=False
    )


@dataclass(frozen=True)
class Software:
    """The versions that a result depends on."""

    python: str = column("Python")
    torch: str = column("torch, with its build")
    transformers: str = column("transformers")
    tensorgap: str = column("tensorgap: the code that measured")
    cuda: str | None = column("CUDA of the torch build", default=None)
    cudnn: str | None = column("cuDNN of the torch build", default=None)
    driver: str | None = column("NVIDIA driver", default=None)
    nvml: str | None = column("NVML library", default=None)
    ray: str | None = column("ray", default=None)
    os: str | None = column("operating system", default=None)


@dataclass(frozen=True)
class Weights:
    """The model that was really loaded."""

    parameters: int = column("parameters, a tied weight counted once")
    size_bytes: int = column("parameters and buffers at the precision's storage type", "B")
    dtype: str = column("storage type of the weights")
    sha256: str | None = column(
        "SHA-256 of the safetensors file; None for random weights", default=None
    )
    attention: str | None = column("attention implementation", default=None)
    published_as: str | None = column(
        "name under which weights with this hash are published, or unrecognised; None for random"
        " weights",
        default=None,
    )


@dataclass(frozen=True)
class Timing:
    """Latency of single requests in a closed loop, and throughput of a full queue.

    A request is one forward; with `new_tokens`, the prompt's forward and each new token's.
    """

    latency_ms_samples: tuple[float, ...] = column(
        "every latency: host clock around enqueue and synchronise", "ms"
    )
    latency_ms_p50: float = column("median latency", "ms")
    latency_ms_min: float = column("least latency", "ms")
    latency_ms_iqr: float = column("interquartile range of the latency", "ms")
    latency_count: int = column("latency samples")
    converged: bool = column("the median's interval became as narrow as the matrix asks")
    warmup_s: float = column("warm-up", "s")
    warmup_iterations: int = column("requests in the warm-up")
    latency_ms_p50_low: float | None = column(
        "lower end of the median's 95 % interval; needs 11 samples", "ms", default=None
    )
    latency_ms_p50_high: float | None = column(
        "upper end of the median's 95 % interval; needs 11 samples", "ms", default=None
    )
    latency_ms_p90: float | None = column("90th percentile; needs 64 samples", "ms", default=None)
    latency_ms_p95: float | None = column("95th percentile; needs 130 samples", "ms", default=None)
    latency_ms_p99: float | None = column("99th percentile; needs 662 samples", "ms", default=None)
    device_ms_samples: tuple[float, ...] | None = column(
        "CUDA events around the same requests; None on a CPU", "ms", default=None
    )
    device_ms_p50: float | None = column("median between the CUDA events", "ms", default=None)
    first_token_ms_samples: tuple[float, ...] | None = column(
        "every latency of the same request with one new token; None without new_tokens",
        "ms",
        default=None,
    )
    first_token_ms_p50: float | None = column("median time to first token", "ms", default=None)
    per_output_token_ms: float | None = column(
        "time per output token after the first: (median latency - median time to first token) /"
        " (new_tokens - 1); needs two new tokens",
        "ms",
        default=None,
    )
    throughput_samples_per_s: float | None = column("prompts per second", "1/s", default=None)
    throughput_tokens_per_s: float | None = column("prompt tokens per second", "1/s", default=None)
    throughput_output_tokens_per_s: float | None = column(
        "new tokens per second, with their prompts' forwards; None without new_tokens",
        "1/s",
        default=None,
    )
    throughput_iterations: int | None = column("requests in the full-queue run", default=None)
    throughput_s: float | None = column("length of the full-queue run", "s", default=None)
    peak_memory_bytes: int | None = column(
        "peak of torch's device memory up to the latency, with one workspace of cuBLAS; as a graph,"
        " new tokens have three: the prompt's graph, the new tokens' and the forwards before them;"
        " None on a CPU",
        "B",
        default=None,
    )


@dataclass(frozen=True)
class Sensor:
    """How the GPU's power sensor works, found by watching it under a load that was known."""

    counter: str = column(
        "the energy counter: integrating (sees all), sampled (adds up readings that do not),"
        " inconsistent (disagrees with the readings), unknown, or absent"
    )
    reason: str | None = column("why something is unknown, absent or inconsistent", default=None)
    reading: str | None = column("readings probed: instant or usage", default=None)
    reading_period_s: float | None = column("a reading is published this often", "s", default=None)
    reading_window_s: float | None = column("a reading is the mean of this long", "s", default=None)
    reading_lag_s: float | None = column(
        "time constant with which a reading follows the load; 0: at once", "s", default=None
    )
    reading_fit: float | None = column(
        "share of the readings' variance that this window and lag explain", default=None
    )
    counter_period_s: float | None = column("the counter moves this often", "s", default=None)
    counter_window_s: float | None = column(
        "a step of the counter tells of this long; sampled if less than its period",
        "s",
        default=None,
    )
    counter_lag_s: float | None = column(
        "time constant with which the counter follows the load; 0: at once", "s", default=None
    )
    counter_ratio: float | None = column(
        "power by the counter / by the readings under steady load", default=None
    )
    counter_ratio_idle: float | None = column("the same while idle", default=None)
    probe_s: float | None = column("time that the probe took", "s", default=None)


@dataclass(frozen=True)
class Energy:
    """Energy over windows of its own, and how it was read."""

    method: str = column("counter (NVML), power (NVML, integrated), rapl (CPU package) or none")
    reason: str | None = column("why there is no energy, or no idle power", default=None)
    protocol: str | None = column("quick, standard or certified", default=None)
    per_sample_mj: float | None = column(
        "gross energy per prompt, of all windows", "mJ", default=None
    )
    per_sample_mj_low: float | None = column(
        "lower end of its 95 % interval, without the sensor's systematic error", "mJ", default=None
    )
    per_sample_mj_high: float | None = column("upper end of that interval", "mJ", default=None)
    per_sample_mj_samples: tuple[float, ...] | None = column(
        "gross energy per prompt, window by window", "mJ", default=None
    )
    per_token_mj: float | None = column("gross energy per prompt token", "mJ", default=None)
    per_output_token_mj: float | None = column(
        "gross energy of a whole request per new token; None without new_tokens",
        "mJ",
        default=None,
    )
    net_per_sample_mj: float | None = column("energy above idle per prompt", "mJ", default=None)
    net_per_token_mj: float | None = column("energy above idle per token", "mJ", default=None)
    window_j: float | None = column("gross energy of all windows", "J", default=None)
    window_s: float | None = column("length of all windows", "s", default=None)
    iterations: float | None = column(
        "requests in all windows; a window begins and ends within one", default=None
    )
    mean_w: float | None = column("mean power in the windows", "W", default=None)
    idle_w: float | None = column("idle power beside the windows, context alive", "W", default=None)
    idle_w_before: float | None = column("idle power before them", "W", default=None)
    idle_w_after: float | None = column("idle power after them", "W", default=None)
    resolution_s: float | None = column(
        "longest gap between two changes of the meter", "s", default=None
    )
    ticks: int | None = column("changes of the meter in the windows", default=None)
    uncertainty: float | None = column(
        "relative: half the 95 % interval; of one window, a tick at either edge and how those that"
        " count scatter",
        default=None,
    )
    systematic: float | None = column(
        "relative: the sensor's own error, the same in each window", default=None
    )
    pause_share: float | None = column(
        "share of the windows in pauses that keep sensor and load out of step, with the first"
        " request after each; not part of the energy",
        default=None,
    )
    discrepancy: float | None = column(
        "star discrepancy of the readings' phases within a forward: near 0, the readings saw all"
        " of it alike; None where the counter sees all",
        default=None,
    )
    flags: tuple[RowWarning, ...] | None = column(
        "what weakens the energy or a window, also one that was measured again", default=None
    )
    trace_s: tuple[float, ...] | None = column(
        "times of the power trace from the first window on, at most 512", "s", default=None
    )
    trace_w: tuple[float, ...] | None = column(
        "power at those times: means, so that their sum is the trace's energy", "W", default=None
    )


@dataclass(frozen=True)
class Quality:
    """How well the model predicts a text at this precision."""

    text: str = column("text and split")
    reason: str | None = column("why there is no perplexity", default=None)
    nats: float | None = column("sum of -ln p over the tokens", "nat", default=None)
    tokens: int | None = column("tokens predicted, each once", default=None)
    words: int | None = column("words of the text, split at white space", default=None)
    bytes: int | None = column("bytes of the text in UTF-8", "B", default=None)
    perplexity: float | None = column("exp(nats / tokens)", default=None)
    word_perplexity: float | None = column(
        "exp(nats / words); None in mode hf-docs, which leaves tokens out", default=None
    )
    bits_per_byte: float | None = column(
        "nats / ln 2 / bytes; None in mode hf-docs", "bit/B", default=None
    )
    standard_error: float | None = column(
        "of nats / tokens, from the spread among the windows", "nat", default=None
    )
    floor_perplexity: float | None = column(
        "perplexity of the text's own generator; known for the embedded text only", default=None
    )
    mode: str | None = column("tensorgap, hf-docs or lm-eval", default=None)
    context: int | None = column("longest window", "tokens", default=None)
    stride: int | None = column("new tokens per window", "tokens", default=None)
    window_nats: tuple[float, ...] | None = column("nats of each window", "nat", default=None)
    window_tokens: tuple[int, ...] | None = column("tokens of each window", "tokens", default=None)
    logits_dtype: str | None = column(
        "type that the head stores logits in; the log-softmax is float32 at every precision",
        default=None,
    )
    logit_rounding_nats: float | None = column(
        "what storing logits in 16 bits adds to nats / tokens: against the same hidden states"
        " through a head that stores float32, on evenly spaced windows; None where the logits are"
        " float32",
        "nat",
        default=None,
    )
    logit_rounding_error_nats: float | None = column(
        "standard error of logit_rounding_nats, windows as pairs", "nat", default=None
    )
    batch_difference_nats: float | None = column(
        "greatest difference of nats / tokens between a window alone and in its batch, on a few"
        " windows; None where windows run alone",
        "nat",
        default=None,
    )
    text_sha256: str | None = column("SHA-256 of the text in UTF-8", default=None)
    tokens_sha256: str | None = column(
        "SHA-256 of the token ids as little-endian int32", default=None
    )
    elapsed_s: float | None = column("time that the evaluation took", "s", default=None)


@dataclass(frozen=True)
class Trace:
    """What one request makes the device do, traced after all timing; times and counts per request.

    The classes add up to `traced_ms` and `count`.
    """

    level: str = column("what is traced: kernel (CUDA), op (operations of torch on a CPU) or none")
    reason: str | None = column("why there is no trace, or a part of it is missing", default=None)
    requests: int | None = column("requests traced", default=None)
    traced_ms: float | None = column("sum of the times of all kernels or ops", "ms", default=None)
    count: float | None = column("kernels or ops", default=None)
    matmul_ms: float | None = column("time in matrix products", "ms", default=None)
    matmul_count: float | None = column("matrix products", default=None)
    attention_ms: float | None = column("time in fused attention", "ms", default=None)
    attention_count: float | None = column("fused attention", default=None)
    normalisation_ms: float | None = column("time in layer norms and softmax", "ms", default=None)
    normalisation_count: float | None = column("layer norms and softmax", default=None)
    activation_ms: float | None = column(
        "time in the activation function and other arithmetic element by element",
        "ms",
        default=None,
    )
    activation_count: float | None = column(
        "the activation function and other arithmetic element by element", default=None
    )
    cast_ms: float | None = column("time in changes of type", "ms", default=None)
    cast_count: float | None = column("changes of type", default=None)
    copy_ms: float | None = column(
        "time in copies and fills without a change of type", "ms", default=None
    )
    copy_count: float | None = column("copies and fills without a change of type", default=None)
    embedding_ms: float | None = column("time in embeddings", "ms", default=None)
    embedding_count: float | None = column("embeddings", default=None)
    other_ms: float | None = column("time in all else", "ms", default=None)
    other_count: float | None = column("all else", default=None)
    cast_bytes: int | None = column(
        "bytes that changes of type read and write; None where a compiler fused them, or the"
        " profiler tells no types",
        "B",
        default=None,
    )
    busy_share: float | None = column(
        "time in which a kernel ran / median latency without the profiler, at most 1; None on a"
        " CPU, which is host and device in one, and for a graph, whose kernels are traced launched"
        " one by one and run at another pace",
        default=None,
    )
    tensor_cores: str | None = column(
        "yes, no or unknown, by the names of the matrix products' kernels; None on a CPU",
        default=None,
    )
    attention: str | None = column(
        "what ran the attention, by the names of the kernels or ops: flash, efficient, cudnn, math,"
        " or several of them (prompt and new tokens)",
        default=None,
    )
    names: tuple[str, ...] | None = column(
        "the kernels or ops that take most of the time, longest first", default=None
    )
    names_ms: tuple[float, ...] | None = column("their times", "ms", default=None)


@dataclass(frozen=True)
class Roofline:
    """What this device can reach at most, measured on it, and the least time a request can take.

    Peaks belong to (device, precision); each is the best of several tries.
    """

    flops: int = column(
        "floating-point operations of a request, by formula; attention in full", "FLOP"
    )
    bytes_moved: int = column(
        "least bytes of a request: weights once per forward, logits, keys and values", "B"
    )
    reason: str | None = column("why there is no ceiling, or a floor is missing", default=None)
    matmul_tflops: float | None = column(
        "large square matrix product in the precision's arithmetic", "TFLOP/s", default=None
    )
    matmul_model_tflops: float | None = column(
        "the model's own matrix products, one after the other", "TFLOP/s", default=None
    )
    copy_gb_per_s: float | None = column(
        "memory read and written by a copy beyond every cache", "GB/s", default=None
    )
    read_gb_per_s: float | None = column(
        "memory read by a sum beyond every cache", "GB/s", default=None
    )
    cache_bytes: int | None = column("last-level cache of the device", "B", default=None)
    launch_us: float | None = column(
        "launch of an empty kernel in a full queue; None on a CPU", "us", default=None
    )
    lower_bound_compute_ms: float | None = column(
        "flops without what a causal mask spares / the higher matrix-product peak",
        "ms",
        default=None,
    )
    lower_bound_memory_ms: float | None = column(
        "bytes_moved beyond what the cache can keep / the higher of copy and read",
        "ms",
        default=None,
    )
    lower_bound_launch_ms: float | None = column(
        "kernels x launch_us; None for a graph and on a CPU", "ms", default=None
    )
    lower_bound_ms: float | None = column(
        "the largest floor: no latency can be below it", "ms", default=None
    )


@dataclass(frozen=True)
class Conditions:
    """What surrounded the latency and the throughput.

    "Before" is read when the warm-up ends and "after" when the throughput ends, while the clocks
    are still those of the load.
    """

    load_before: float = column("1-minute load average of the host before")
    load_after: float | None = column("1-minute load average of the host after", default=None)
    other_cpu_share: float | None = column(
        "share of the host's CPU time that other processes took meanwhile", default=None
    )
    sm_mhz_before: float | None = column("SM clock before", "MHz", default=None)
    sm_mhz_after: float | None = column("SM clock after", "MHz", default=None)
    memory_mhz_after: float | None = column("memory clock after", "MHz", default=None)
    temperature_c_before: float | None = column("GPU temperature before", "C", default=None)
    temperature_c_after: float | None = column("GPU temperature after", "C", default=None)
    memory_temperature_c_after: float | None = column("memory's temperature", "C", default=None)
    pcie_generation: int | None = column("generation of the PCIe link after", default=None)
    pcie_width: int | None = column("lanes of the PCIe link after", default=None)
    throttled_s: float | None = column(
        "time that power, heat or the board held the clocks down, each cause counted",
        "s",
        default=None,
    )
    clocks_event_reasons: int | None = column("NVML bit mask after", default=None)
    performance_state: int | None = column("P-state after; 0 is the fastest", default=None)
    other_processes: int | None = column(
        "foreign processes on the GPU: compute, graphics, MPS", default=None
    )


@dataclass(frozen=True)
class Placement:
    """Where the cluster put a measurement, and what it took."""

    node: str = column("Ray's id of the node")
    host: str = column("name of its host")
    attempt: int = column("which attempt this is, counted from 1")
    earlier: tuple[str, ...] = column("how the attempts before ended", default=())
    neighbours: tuple[str, ...] = column(
        "cells of the sweep that ran on the same host meanwhile", default=()
    )


@dataclass(frozen=True)
class Measurement:
    """One row: what was asked, what was found, and what may be believed of it."""

    cell: Cell
    workload: Workload
    run: str = column("sweep that the row belongs to: NAME/UTC-TIMESTAMP and six hex digits")
    replicate: int = column("fresh process, counted from 0")
    outcome: Outcome = column("OK, or what kept the cell from being measured")
    reason: str | None = column("why the outcome is not OK, and what to do", default=None)
    warnings: tuple[RowWarning, ...] = column(
        "what weakens this row: code, values as JSON, text", default=()
    )
    started_at: datetime.datetime | None = column(
        "start of the measurement, by the clock of its host, UTC", default=None
    )
    finished_at: datetime.datetime | None = column(
        "end of the measurement, by the clock of its host, UTC", default=None
    )
    received_at: datetime.datetime | None = column(
        "when the driver took the row, by its own clock, UTC: what decides which row is newer",
        default=None,
    )
    device: Device | None = None
    software: Software | None = None
    weights: Weights | None = None
    timing: Timing | None = None
    sensor: Sensor | None = None
    energy: Energy | None = None
    quality: Quality | None = None
    conditions: Conditions | None = None
    trace: Trace | None = None
    roofline: Roofline | None = None
    placement: Placement | None = None

    @property
    def key(self) -> tuple[Cell, Workload, int]:
        """What was asked: the identity of a row within its run."""
        return self.cell, self.workload, self.replicate


@dataclass(frozen=True)
class Profile:
    """Why one row is what it is, measured after all timing of its process: joined to its row later.

    Where nothing could be traced, the trace has level `none` and a reason.
    """

    run: str
    cell: Cell
    workload: Workload
    replicate: int
    trace: Trace
    roofline: Roofline | None = None
    warnings: tuple[RowWarning, ...] = ()
    measured_at: datetime.datetime | None = None  # by the clock of its host, UTC
    received_at: datetime.datetime | None = None  # by the driver's clock, UTC

    @property
    def key(self) -> tuple[Cell, Workload, int]:
        """Which row it belongs to, within its run."""
        return self.cell, self.workload, self.replicate


Event = Stage | Measurement | Profile  # what a measurement tells, each as soon as it is known
