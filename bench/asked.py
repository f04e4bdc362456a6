"""What a sweep asks for: cells, workloads, how long to measure, which text, where.

A field says its unit, its meaning and what is allowed: `bench.results.columns` makes the columns of
the Parquet file from these classes, `bench.validation` checks TOML by them. Standard library only.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
CPU = "CPU"
FLOATING = ("fp32", "tf32", "fp16", "bf16", "mixed")
QUANTISED = ("int8", "int8-dynamic", "int4", "fp8")  # by torchao
PRECISIONS = (*FLOATING, *QUANTISED)
RANDOM = ":random"  # ends the name of a model whose weights are random
LONGEST = 131_072  # tokens: what most decoders have at most; beyond is a slip, or takes hours
ENGINES = ("eager", "graph", "compile")
ATTENTIONS = ("flash", "efficient", "cudnn", "math")  # of torch's scaled_dot_product_attention
ENERGY_NOT_MEASURED = "none"
ENERGY_PROTOCOLS = ("quick", "standard", "certified")
OURS, HF_DOCS, LM_EVAL = QUALITY_MODES = ("tensorgap", "hf-docs", "lm-eval")


def doc(
    description: str,
    unit: str = "",
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    up_to: str = "",
    since: int = 1,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field that says what it is, and what a matrix may ask of it.

    Args:
        description: its meaning.
        unit: its unit, as in the name of the field.
        limits: least and greatest value; the upper one catches a slip of the unit (ms for s).
        choices: the allowed values.
        up_to: another field of the record, which it must not exceed.
        since: the version of the schema that first had its column.
        default: if it may be left out.
    """
    about = {"description": description, "unit": unit, "limits": limits, "choices": choices}
    return dataclasses.field(metadata={**about, "up_to": up_to, "since": since}, default=default)


maybe = functools.partial(doc, default=None)  # a field that is None where nothing was measured


@dataclass(frozen=True, order=True)
class Cell:
    """One GPU type at one precision: what one process measures."""

    gpu_type: str = doc("GPU type as Ray names it (P100, T4, V100, A100, ...) or CPU")
    precision: str = doc(
        "fp32 (TF32 off), tf32, fp16, bf16, mixed (autocast); by torchao int8 or int4 (weights"
        " alone), int8-dynamic or fp8 (also what they multiply)",
        choices=PRECISIONS,
    )

    def __str__(self) -> str:
        return f"{self.gpu_type} {self.precision}"


@dataclass(frozen=True, order=True)
class Workload:
    """One kind of request: a forward pass over prompts, or with `new_tokens` their continuation."""

    model: str = doc(
        "tiny, gpt2, another decoder of the hub (Qwen/Qwen2.5-0.5B) or a local folder; gpt2:random,"
        " or any NAME:random: its architecture with random weights"
    )
    engine: str = doc(
        "eager, graph (CUDA graph replay) or compile (torch.compile)",
        choices=ENGINES,
        default="eager",
    )
    batch_size: int = doc("prompts per request", limits=(1, 65_536), default=1)
    prompt_tokens: int = doc("tokens per prompt", "tokens", limits=(1, LONGEST), default=128)
    new_tokens: int = doc(
        "tokens generated greedily after each prompt", "tokens", limits=(0, LONGEST), default=0
    )
    attention: str = doc(
        "auto (torch chooses, by GPU, precision and mask), flash, efficient, cudnn or math",
        choices=(AUTO, *ATTENTIONS),
        default=AUTO,
    )

    def __str__(self) -> str:
        text = f"{self.model} {self.engine} batch {self.batch_size} x {self.prompt_tokens} tokens"
        if self.new_tokens:
            text += f" + {self.new_tokens} new"
        return text if self.attention == AUTO else f"{text}, {self.attention} attention"


def _seconds(description: str, default: float, least: float = 0, up_to: str = "timeout_s") -> Any:
    return doc(description, "s", limits=(least, 3600), up_to=up_to, default=default)


@dataclass(frozen=True)
class Sampling:
    """How long and how often to measure. The defaults are the protocol of a result to publish."""

    replicates: int = doc("fresh processes per cell", limits=(1, 1000), default=1)
    warmup_min_s: float = _seconds("shortest warm-up", 2.0, up_to="warmup_max_s")
    warmup_max_s: float = _seconds("longest warm-up", 30.0)
    latency_min_s: float = _seconds("shortest sampling of the latency", 10.0, up_to="latency_max_s")
    latency_max_s: float = _seconds("longest sampling of the latency", 60.0, 0.01)
    min_samples: int = doc(
        "fewest latencies; 662 allow a p99", limits=(5, 10**6), up_to="max_samples", default=662
    )
    max_samples: int = doc("most latency samples", limits=(5, 10**6), default=20_000)
    median_within: float = doc(
        "stop when the median's 95 % interval is +- this share", limits=(0.0001, 0.5), default=0.01
    )
    throughput_s: float = _seconds("length of the full-queue run", 10.0, 0.01)
    energy: str = doc(
        "quick: one window; standard: five that share energy_s, idle before and after; certified:"
        " five of at least 10 s and 50 ticks of the probed sensor, on a GPU warmed until steady;"
        " none, of a script and not of a matrix: no energy",
        choices=ENERGY_PROTOCOLS,
        default="standard",
    )
    energy_s: float = _seconds("length of all energy windows together", 30.0, 0.01)
    idle_s: float = _seconds("length of an idle baseline beside the energy windows", 5.0)
    profile: bool = doc(
        "after all timing, trace each forward pass and measure the device's peaks", default=True
    )
    timeout_s: float = doc(
        "a stage that takes longer is ended: TIMED_OUT", "s", limits=(1, 604_800), default=900.0
    )


@dataclass(frozen=True)
class QualityPlan:
    """Which text the perplexity is measured on, and through which windows."""

    text: str = doc(
        "embedded, wikitext-2, another data set of the hub, or a local file or folder of Parquet,"
        " JSON lines or text",
        default="embedded",
    )
    split: str = doc(
        "train, validation or test", choices=("train", "validation", "test"), default="test"
    )
    configuration: str = doc(
        "configuration of a data set; empty: its only one, or the usual one", default=""
    )
    column: str = doc("column of a data set that holds the text", default="text")
    mode: str = doc(
        "tensorgap: BOS, then each token once; hf-docs: the strided recipe of transformers' guide;"
        " lm-eval: its wikitext task, page by page, without overlap whatever the stride says",
        choices=QUALITY_MODES,
        default=OURS,
    )
    context: int = doc("longest window", "tokens", limits=(2, LONGEST), default=1024)
    stride: int = doc(
        "new tokens per window", "tokens", limits=(1, LONGEST), up_to="context", default=512
    )
    timeout_s: float = doc(
        "an evaluation that takes longer is given up", "s", limits=(1, 604_800), default=7200.0
    )
    enabled: bool = doc("false: no perplexity is measured", default=True)


@dataclass(frozen=True)
class PlacementPlan:
    """Which cells share a GPU and a host, and how often a fault of the cluster is tried again."""

    paired: bool = doc(
        "within a replicate, all precisions of a type are measured on the same GPU", default=True
    )
    exclusive: str = doc(
        "gpu: cells run on other GPUs of a host meanwhile; host: nothing else of the sweep does",
        choices=("gpu", "host"),
        default="gpu",
    )
    retries: int = doc(
        "new attempts, on another GPU if there is one, after a process, a GPU or a node is lost",
        limits=(0, 10),
        default=1,
    )


@dataclass(frozen=True)
class Matrix:
    """A whole sweep: every cell with every workload.

    The cells stay a rule until the cluster is known, because `auto` stands for the types that it
    has: `bench.matrix.cells` makes them.
    """

    name: str
    gpu_types: tuple[str, ...]
    precisions: tuple[str, ...]
    include: tuple[Cell, ...]
    exclude: tuple[Cell, ...]
    workloads: tuple[Workload, ...]
    sampling: Sampling
    quality: QualityPlan
    text: str  # the TOML that it was read from, kept with the results
    placement: PlacementPlan = PlacementPlan()
