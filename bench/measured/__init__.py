"""What was found, as one row has it; `bench.asked` has what was asked.

None means "not measured", never 0; the reason stands in the record's own `reason`, or in the
`reason` of the Measurement. Standard library only.
"""

import datetime
import enum
from dataclasses import dataclass

from bench.asked import Cell, Workload, doc, maybe
from bench.measured.profiled import Numbers, Roofline, Trace
from bench.warnings import RowWarning

UNRECOGNISED = "unrecognised"  # weights of which no one has published the hash
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

    name: str = doc("name that the driver or the CPU gives")
    gpu_type: str = doc("type derived from the name as Ray derives it, or CPU")
    hostname: str = doc("host that measured")
    cpu: str = doc("host CPU, which launches the kernels")
    threads: int = doc("threads that torch computes with on the CPU")
    memory_bytes: int | None = maybe("memory of the device", "B")
    uuid: str | None = maybe("NVML UUID of the GPU or MIG slice")
    pci_bus_id: str | None = maybe("PCI bus id")
    compute_capability: str | None = maybe("CUDA compute capability")
    multiprocessors: int | None = maybe("streaming multiprocessors")
    l2_bytes: int | None = maybe("L2 cache", "B")
    mig: bool | None = maybe("a MIG slice, whose energy and clocks are the whole GPU's")
    power_limit_w: float | None = maybe("enforced power limit", "W")
    default_power_limit_w: float | None = maybe("the vendor's power limit", "W")
    max_sm_mhz: float | None = maybe("highest SM clock", "MHz")
    vgpu: bool | None = maybe("a virtual GPU, which shares its board")
    ecc: bool | None = maybe("the memory corrects its errors")
    persistence: bool | None = maybe("the driver stays loaded while idle")
    module: bool | None = maybe("a module with a CPU (Grace Hopper): its energy counter has both")
    serial: str | None = maybe("serial number of the board")
    vbios: str | None = maybe("version of the board's firmware")
    simulated: bool = doc("true: the GPU is a simulation; no number is a real one", default=False)


@dataclass(frozen=True)
class Software:
    """The versions that a result depends on."""

    python: str = doc("Python")
    torch: str = doc("torch, with its build")
    transformers: str = doc("transformers")
    tensorgap: str = doc("tensorgap: the code that measured")
    cuda: str | None = maybe("CUDA of the torch build")
    cudnn: str | None = maybe("cuDNN of the torch build")
    driver: str | None = maybe("NVIDIA driver")
    nvml: str | None = maybe("NVML library")
    ray: str | None = maybe("ray")
    os: str | None = maybe("operating system")


@dataclass(frozen=True)
class Weights:
    """The model that was really loaded."""

    parameters: int = doc("parameters, a tied weight counted once")
    size_bytes: int = doc("parameters and buffers as they are stored, scales included", "B")
    dtype: str = doc("storage type of the weights; of quantised ones + that of all the others")
    sha256: str | None = maybe(
        "SHA-256 of the safetensors file, or of its shards in a row; None for random weights"
    )
    attention: str | None = maybe("attention implementation")
    published_as: str | None = maybe("name that this hash is published under, or unrecognised")
    arithmetic: str | None = maybe("type of the operands of the layers' matrix products", since=2)
    quantised_parameters: int | None = maybe("parameters quantised; None: none are", since=2)
    quantised_by: str | None = maybe("library that quantised them, with its version", since=2)


@dataclass(frozen=True)
class Timing:
    """Latency of single requests in a closed loop, and throughput of a full queue.

    A request is one forward pass; with `new_tokens`, the prompt's and each new token's.
    """

    latency_ms_samples: Numbers = doc("every latency: host clock around request and wait", "ms")
    latency_ms_p50: float = doc("median latency", "ms")
    latency_ms_min: float = doc("least latency", "ms")
    latency_ms_iqr: float = doc("interquartile range of the latency", "ms")
    latency_count: int = doc("latency samples")
    converged: bool = doc("the median's interval became as narrow as the matrix asks")
    warmup_s: float = doc("warm-up", "s")
    warmup_iterations: int = doc("requests in the warm-up")
    latency_ms_p50_low: float | None = maybe("lower end of its 95 % interval; n >= 11", "ms")
    latency_ms_p50_high: float | None = maybe("upper end of its 95 % interval; n >= 11", "ms")
    latency_ms_p90: float | None = maybe("90th percentile; needs 64 samples", "ms")
    latency_ms_p95: float | None = maybe("95th percentile; needs 130 samples", "ms")
    latency_ms_p99: float | None = maybe("99th percentile; needs 662 samples", "ms")
    device_ms_samples: Numbers | None = maybe("CUDA events around the same; None on a CPU", "ms")
    device_ms_p50: float | None = maybe("median between the CUDA events", "ms")
    first_token_ms_samples: Numbers | None = maybe("latencies with one new token only", "ms")
    first_token_ms_p50: float | None = maybe("median time to first token", "ms")
    per_output_token_ms: float | None = maybe(
        "(median latency - median time to first token) / (new_tokens - 1)", "ms"
    )
    throughput_samples_per_s: float | None = maybe("prompts per second", "1/s")
    throughput_tokens_per_s: float | None = maybe("prompt tokens per second", "1/s")
    throughput_output_tokens_per_s: float | None = maybe(
        "new tokens per second, with their prompts' forward passes", "1/s"
    )
    throughput_iterations: int | None = maybe("requests in the full-queue run")
    throughput_s: float | None = maybe("length of the full-queue run", "s")
    peak_memory_bytes: int | None = maybe(
        "peak of torch's device memory up to the latency, with a workspace of cuBLAS (graphs of new"
        " tokens: three); None on a CPU",
        "B",
    )


@dataclass(frozen=True)
class Sensor:
    """How the GPU's power sensor works, found by watching it under a load that was known."""

    counter: str = doc(
        "the energy counter: integrating (sees all), sampled (adds up readings that do not),"
        " inconsistent (disagrees with the readings), unknown, or absent"
    )
    reason: str | None = maybe("why something is unknown, absent or inconsistent")
    reading: str | None = maybe("readings probed: instant or usage")
    reading_period_s: float | None = maybe("a reading is published this often", "s")
    reading_window_s: float | None = maybe("a reading is the mean of this long", "s")
    reading_lag_s: float | None = maybe("time constant of a reading's lag; 0: none", "s")
    reading_fit: float | None = maybe("share of the readings' variance that this explains")
    counter_period_s: float | None = maybe("the counter moves this often", "s")
    counter_window_s: float | None = maybe("time in one step; sampled if below its period", "s")
    counter_lag_s: float | None = maybe("time constant of the counter's lag; 0: none", "s")
    counter_ratio: float | None = maybe("power by the counter / by the readings, steady load")
    counter_ratio_idle: float | None = maybe("the same while idle")
    probe_s: float | None = maybe("time that the probe took", "s")


@dataclass(frozen=True)
class Energy:
    """Energy over windows of its own, and how it was read."""

    method: str = doc("counter (NVML), power (NVML, integrated), rapl (CPU package) or none")
    reason: str | None = maybe("why there is no energy, or no idle power")
    protocol: str | None = maybe("quick, standard or certified")
    per_sample_mj: float | None = maybe("gross energy per prompt, of all windows", "mJ")
    per_sample_mj_low: float | None = maybe("lower end of its 95 % interval, random errors", "mJ")
    per_sample_mj_high: float | None = maybe("upper end of that interval", "mJ")
    per_sample_mj_samples: Numbers | None = maybe("gross energy per prompt by window", "mJ")
    per_token_mj: float | None = maybe("gross energy per prompt token", "mJ")
    per_output_token_mj: float | None = maybe("gross energy of a request per new token", "mJ")
    net_per_sample_mj: float | None = maybe("energy above idle per prompt", "mJ")
    net_per_token_mj: float | None = maybe("energy above idle per token", "mJ")
    window_j: float | None = maybe("gross energy of all windows", "J")
    window_s: float | None = maybe("length of all windows", "s")
    iterations: float | None = maybe("requests in all windows, also parts of them")
    mean_w: float | None = maybe("mean power in the windows", "W")
    idle_w: float | None = maybe("idle power beside the windows, context alive", "W")
    idle_w_before: float | None = maybe("idle power before them", "W")
    idle_w_after: float | None = maybe("idle power after them", "W")
    resolution_s: float | None = maybe("longest gap between two changes of the meter", "s")
    ticks: int | None = maybe("changes of the meter in the windows")
    uncertainty: float | None = maybe(
        "relative: half the 95 % interval; of one window, a tick at either edge and scatter"
    )
    systematic: float | None = maybe("relative: the sensor's own error, the same in each window")
    pause_share: float | None = maybe(
        "share of the windows in pauses that keep sensor and load out of step, with the first"
        " request after each; not part of the energy"
    )
    discrepancy: float | None = maybe(
        "star discrepancy of the readings' phases in a forward pass: near 0, all seen alike"
    )
    flags: tuple[RowWarning, ...] | None = maybe("what weakens windows, also repeated ones")
    trace_s: Numbers | None = maybe("times of the power trace of the windows, at most 512", "s")
    trace_w: Numbers | None = maybe("mean power at those times; adds up to its energy", "W")


@dataclass(frozen=True)
class Quality:
    """How well the model predicts a text at this precision."""

    text: str = doc("text and split")
    reason: str | None = maybe("why there is no perplexity")
    nats: float | None = maybe("sum of -ln p over the tokens", "nat")
    tokens: int | None = maybe("tokens predicted, each once")
    words: int | None = maybe("words of the text, split at white space")
    bytes: int | None = maybe("bytes of the text in UTF-8", "B")
    perplexity: float | None = maybe("exp(nats / tokens)")
    word_perplexity: float | None = maybe("exp(nats / words); None in mode hf-docs")
    bits_per_byte: float | None = maybe("nats / ln 2 / bytes; None in mode hf-docs", "bit/B")
    standard_error: float | None = maybe("of nats / tokens, from the spread among windows", "nat")
    lower_bound_perplexity: float | None = maybe(
        "of the generator of the embedded text; None of others"
    )
    mode: str | None = maybe("tensorgap, hf-docs or lm-eval")
    context: int | None = maybe("longest window", "tokens")
    stride: int | None = maybe("new tokens per window", "tokens")
    prefix: str | None = maybe(
        "token before a text: bos, or of a tokenizer without it eos; twice: lm-eval's, and then the"
        " tokenizer's own, which is scored; none in mode hf-docs",
        since=2,
    )
    window_nats: Numbers | None = maybe("nats of each window", "nat")
    window_tokens: tuple[int, ...] | None = maybe("tokens of each window", "tokens")
    logits_dtype: str | None = maybe("storage type of the logits; log-softmax is float32")
    logit_rounding_nats: float | None = maybe("what 16-bit logits add to nats / tokens", "nat")
    logit_rounding_error_nats: float | None = maybe("its standard error, windows as pairs", "nat")
    batch_difference_nats: float | None = maybe(
        "greatest difference of nats / tokens of a window alone and in its batch", "nat"
    )
    text_sha256: str | None = maybe("SHA-256 of the text in UTF-8")
    tokens_sha256: str | None = maybe("SHA-256 of the token ids as little-endian int32")
    elapsed_s: float | None = maybe("time that the evaluation took", "s")


@dataclass(frozen=True)
class Conditions:
    """What surrounded the latency and the throughput.

    "Before" is read when the warm-up ends and "after" when the throughput ends, while the clocks
    are still those of the load.
    """

    load_before: float = doc("1-minute load average of the host before")
    load_after: float | None = maybe("1-minute load average of the host after")
    other_cpu_share: float | None = maybe("share of host CPU time that other processes took")
    sm_mhz_before: float | None = maybe("SM clock before", "MHz")
    sm_mhz_after: float | None = maybe("SM clock after", "MHz")
    memory_mhz_after: float | None = maybe("memory clock after", "MHz")
    temperature_c_before: float | None = maybe("GPU temperature before", "C")
    temperature_c_after: float | None = maybe("GPU temperature after", "C")
    memory_temperature_c_after: float | None = maybe("memory's temperature", "C")
    pcie_generation: int | None = maybe("generation of the PCIe link after")
    pcie_width: int | None = maybe("lanes of the PCIe link after")
    throttled_s: float | None = maybe("time that clocks were throttled, each cause counted", "s")
    clocks_event_reasons: int | None = maybe("NVML bit mask after")
    performance_state: int | None = maybe("P-state after; 0 is the fastest")
    other_processes: int | None = maybe("foreign processes on the GPU: compute, graphics, MPS")


@dataclass(frozen=True)
class Placement:
    """Where the cluster put a measurement, and what it took."""

    node: str = doc("Ray's id of the node")
    host: str = doc("name of its host")
    attempt: int = doc("which attempt this is, counted from 1")
    earlier: tuple[str, ...] = doc("how the attempts before ended", default=())
    neighbours: tuple[str, ...] = doc("cells that ran on the same host meanwhile", default=())


_RUN = "sweep that it belongs to: NAME/UTC-TIMESTAMP and six hex digits"
_REPLICATE = "fresh process, counted from 0"
_WARNINGS = "what weakens this row: code, values as JSON, text"
_RECEIVED = "when the driver took it, by its own clock, UTC: what decides which is newer"


@dataclass(frozen=True)
class Measurement:
    """One row: what was asked, what was found, and what may be believed of it."""

    cell: Cell
    workload: Workload
    run: str = doc(_RUN)
    replicate: int = doc(_REPLICATE)
    outcome: Outcome = doc("OK, or what kept the cell from being measured")
    reason: str | None = maybe("why the outcome is not OK, and what to do")
    warnings: tuple[RowWarning, ...] = doc(_WARNINGS, default=())
    started_at: datetime.datetime | None = maybe("start, by the clock of its host, UTC")
    finished_at: datetime.datetime | None = maybe("end, by the clock of its host, UTC")
    received_at: datetime.datetime | None = maybe(_RECEIVED)
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

    run: str = doc(_RUN)
    cell: Cell = doc("as of its row")
    workload: Workload = doc("as of its row")
    replicate: int = doc(_REPLICATE)
    trace: Trace = doc("what one request makes the device do")
    roofline: Roofline | None = None
    warnings: tuple[RowWarning, ...] = doc(_WARNINGS, default=())
    measured_at: datetime.datetime | None = maybe("end, by the clock of its host, UTC")
    received_at: datetime.datetime | None = maybe(_RECEIVED)

    @property
    def key(self) -> tuple[Cell, Workload, int]:
        """Which row it belongs to, within its run."""
        return self.cell, self.workload, self.replicate


Event = Stage | Measurement | Profile  # what a measurement tells, each as soon as it is known
