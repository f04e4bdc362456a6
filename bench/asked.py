"""What a sweep asks for: cells, workloads, how long to measure, which text, where.

A field's unit stands in its name and, with its meaning, in its metadata; `bench.results.columns`
derives the columns of the Parquet file from these classes. Standard library only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
CPU = "CPU"
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "mixed")
ENGINES = ("eager", "graph", "compile")
ATTENTIONS = ("flash", "efficient", "cudnn", "math")  # of torch's scaled_dot_product_attention
ENERGY_NOT_MEASURED = "none"
ENERGY_PROTOCOLS = ("quick", "standard", "certified")
OURS, HF_DOCS, LM_EVAL = QUALITY_MODES = ("tensorgap", "hf-docs", "lm-eval")
EXCLUSIVE = ("gpu", "host")


def column(description: str, unit: str = "", **kwargs: Any) -> Any:
    """A dataclass field that carries its unit and meaning into the Parquet schema."""
    return dataclasses.field(metadata={"description": description, "unit": unit}, **kwargs)


_column = column  # for a field of that name


@dataclass(frozen=True, order=True)
class Cell:
    """One GPU type at one precision: what one actor measures."""

    gpu_type: str = column("GPU type as Ray names it (P100, T4, V100, A100, ...) or CPU")
    precision: str = column("fp32 (TF32 off), tf32, fp16, bf16 or mixed (autocast)")

    def __str__(self) -> str:
        return f"{self.gpu_type} {self.precision}"


@dataclass(frozen=True, order=True)
class Workload:
    """One kind of request: a forward pass over prompts, or with `new_tokens` their continuation."""

    model: str = column("gpt2, gpt2:random, tiny, another model of the hub, or a local folder")
    engine: str = column(
        "how it is run: eager, graph (CUDA graph replay) or compile (torch.compile)",
        default="eager",
    )
    batch_size: int = column("prompts per request", default=1)
    prompt_tokens: int = column("tokens per prompt", "tokens", default=128)
    new_tokens: int = column(
        "tokens generated after each prompt, greedily; 0: one forward pass over the prompt",
        "tokens",
        default=0,
    )
    attention: str = column(
        "what runs the attention: auto (torch chooses, by GPU, precision and mask), flash,"
        " efficient, cudnn or math",
        default=AUTO,
    )

    def __str__(self) -> str:
        text = f"{self.model} {self.engine} batch {self.batch_size} x {self.prompt_tokens} tokens"
        if self.new_tokens:
            text += f" + {self.new_tokens} new"
        return text if self.attention == AUTO else f"{text}, {self.attention} attention"


@dataclass(frozen=True)
class Sampling:
    """How long and how often to measure. The defaults are the protocol of a result to publish."""

    replicates: int = column("fresh processes per cell", default=1)
    warmup_min_s: float = column("shortest warm-up", "s", default=2.0)
    warmup_max_s: float = column("longest warm-up", "s", default=30.0)
    latency_min_s: float = column("shortest sampling of the latency", "s", default=10.0)
    latency_max_s: float = column("longest sampling of the latency", "s", default=60.0)
    min_samples: int = column("fewest latency samples; 662 allow a p99", default=662)
    max_samples: int = column("most latency samples", default=20_000)
    median_within: float = column(
        "stop when the 95 % interval of the median is within +- this share of it", default=0.01
    )
    throughput_s: float = column("length of the full-queue run", "s", default=10.0)
    energy: str = column(
        "quick: one window; standard: five that share energy_s, idle before and after; certified:"
        " five of at least 10 s and 50 ticks of the probed sensor, on a GPU warmed until steady;"
        " none, of a script and not of a matrix: no energy",
        default="standard",
    )
    energy_s: float = column("length of all energy windows together", "s", default=30.0)
    idle_s: float = column("length of an idle baseline beside the energy windows", "s", default=5.0)
    profile: bool = column(
        "after all timing, trace what each forward does and measure the device's ceilings",
        default=True,
    )
    timeout_s: float = column(
        "a stage that takes longer (loading, latency, ...) is ended: TIMED_OUT", "s", default=900.0
    )


@dataclass(frozen=True)
class QualityPlan:
    """Which text the perplexity is measured on, and through which windows."""

    text: str = column(
        "embedded, wikitext-2, another data set of the hub, or a local file or folder of Parquet,"
        " JSON lines or text",
        default="embedded",
    )
    split: str = column("train, validation or test", default="test")
    configuration: str = column(
        "configuration of a data set; empty: its only one, or the usual one", default=""
    )
    mode: str = column(
        "tensorgap: BOS, then each token once; hf-docs: the strided recipe of transformers' guide;"
        " lm-eval: its wikitext task, page by page, without overlap whatever the stride says",
        default=OURS,
    )
    context: int = column("longest window", "tokens", default=1024)
    stride: int = column("new tokens per window", "tokens", default=512)
    timeout_s: float = column(
        "a perplexity that takes longer is given up, not the times", "s", default=7200.0
    )
    enabled: bool = column("false: no perplexity is measured", default=True)
    # The last one, since from here on the name means the field.
    column: str = _column("column of a data set that holds the text", default="text")


@dataclass(frozen=True)
class PlacementPlan:
    """Which cells share a GPU and a host, and how often a fault of the cluster is tried again."""

    paired: bool = column(
        "within a replicate, all precisions of a type are measured on the same GPU", default=True
    )
    exclusive: str = column(
        "gpu: cells run on other GPUs of a host meanwhile; host: nothing else of the sweep does",
        default="gpu",
    )
    retries: int = column(
        "new attempts, on another GPU if there is one, after a process, a GPU or a node is lost",
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
