"""The device memory that a workload takes at its peak, predicted before a process is started.

What is alive at once was read off torch's own record of allocations, of each family in float32,
float16 and mixed, of four families at the quantised precisions (torch 2.11, transformers 5.24,
torchao 0.18; its allocator is the real one on a modelled GPU too). Tensors only: CUDA itself takes
some hundred MB beside them. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from bench.asked import AUTO, QUANTISED, Workload
from bench.decoders import Shape
from bench.device.boards import Capability
from bench.families import FAMILIES
from bench.profile.work import head_bytes, model_bytes, stored_bytes

WITHIN = 0.1  # of the peak: so far off was no prediction
# ATen/cuda/CUDABlas.cpp: what cuBLAS may use on each stream; and torch's default before Hopper.
_WORKSPACE_BYTES = {True: 32 * 2**20, False: 4096 * 2048 + 16 * 8192}
_FIRST_LARGE_WORKSPACE: Capability = (9, 0)
_FIRST_FLASH: Capability = (8, 0)
_PROCESS_BYTES = 500 * 2**20  # resident, of a process that has imported torch and transformers
_PROMPTS = 8  # that a queue takes in turn, of 8 bytes a token
# Made of several operations, of which autocast does two in float32 (transformers, activations.py).
_SCALED = ("gemma2", "granite")  # their logits are divided, into another tensor
# Of a number of the widest input that is rounded for its product: itself, its float32 copies, and
# what they are rounded to (torchao 0.18).
_ROUNDED = {"int8-dynamic": 10, "fp8": 15}
_COMPOSED = ("gelu_new", "gelu_fast", "gelu_accurate")


@dataclass(frozen=True)
class Memory:
    """Bytes of device memory at the peak, by what they are of."""

    weights: int
    cache: int  # keys and values
    logits: int  # 0 where the peak is within a layer
    activations: int
    workspace: int  # of cuBLAS

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        """The total in GiB, and what it is of, the largest first.

        >>> str(Memory(2**30, 0, 3 * 2**30, 2**20, 0))
        '4.00 GiB (logits 3.00, weights 1.00)'
        """
        named = {field.name: getattr(self, field.name) / 2**30 for field in fields(self)}
        largest = sorted(named.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {gib:.2f}" for name, gib in largest if gib >= 0.005)
        return f"{self.total_bytes / 2**30:.2f} GiB ({told})"


@dataclass(frozen=True)
class Widths:
    """Bytes of a number: of a weight and of what is passed from layer to layer, of a product."""

    stored: int
    product: int
    rounded: int = 0  # of a product's input; 0 where it is not

    @classmethod
    def of(cls, precision: str) -> Widths:
        """Those of a precision: autocast passes float32 on."""
        stored = max(2, int(stored_bytes(precision)))
        return cls(stored, 2 if precision == "mixed" else stored, _ROUNDED.get(precision, 0))


def on_gpu(
    shape: Shape,
    workload: Workload,
    precision: str,
    capability: Capability = _FIRST_LARGE_WORKSPACE,
) -> Memory:
    """The peak on a GPU, eager or as a graph; the fused kernels of `compile` take no more."""
    number, new = Widths.of(precision), workload.new_tokens
    batch, prompt = workload.batch_size, workload.prompt_tokens
    workspace = _WORKSPACE_BYTES[capability >= _FIRST_LARGE_WORKSPACE]
    # The cache's first request, eager, and each graph have a workspace of their own.
    graph = workload.engine == "graph" and new > 0
    math = is_math(shape, workload, precision, capability)
    stages = [
        (
            0,
            batch * prompt * in_layer(shape, number, prompt if math else 0),
            workspace * (1 + graph),
        ),
        (
            *head(shape, number, batch * prompt, batch if new else batch * prompt),
            workspace * (1 + graph),
        ),
    ]
    if graph:
        stages.append((*head(shape, number, batch, batch), 3 * workspace))
    logits, activations, workspaces = max(stages, key=sum)
    keys = rotated(shape, number)
    position = shape.layers * shape.kv_heads * shape.head_width * (keys + number.product)
    found = Memory(
        weights=int(model_bytes(shape, precision, on_gpu=True)),
        cache=batch * (prompt + new) * position if new else 0,
        logits=logits,
        activations=activations + _PROMPTS * 8 * batch * prompt,
        workspace=workspaces,
    )
    # torchao quantises matrices that are on the device.
    loading = Memory(shape.parameters * int(head_bytes(precision)), 0, 0, 0, 0)
    return max(found, loading, key=lambda memory: memory.total_bytes)


def on_cpu(shape: Shape, workload: Workload, precision: str) -> Memory:
    """About the most that a process has on a CPU, or may need.

    While a model is loaded its weights are held twice, as they were read and as they are before
    torchao quantises them (float32 on a CPU without bfloat16); then once, beside what a request
    takes. `workspace` is what Python and torch have.
    """
    found = replace(on_gpu(shape, workload, precision), workspace=_PROCESS_BYTES)
    each = 4 + (4 if precision in QUANTISED else int(head_bytes(precision)))
    loading = Memory(each * shape.parameters, 0, 0, 0, _PROCESS_BYTES)
    return max(loading, found, key=lambda memory: memory.total_bytes)


def head(shape: Shape, number: Widths, tokens: int, rows: int) -> tuple[int, int]:
    """Bytes of the logits of some rows, and of what they are made from."""
    hidden, logits = tokens * shape.width * number.stored, rows * shape.vocabulary * number.product
    cast = 0
    if number.product < number.stored:  # autocast casts its weights and its input, for the product
        cast = (shape.vocabulary + rows) * shape.width * number.product
    times = 2 if shape.family in _SCALED else 1
    return max((logits, hidden + cast), (times * logits, hidden), key=sum)


def in_layer(shape: Shape, number: Widths, scores: int) -> int:
    """Bytes for each token of a prompt where most is alive within a layer.

    Attention by products of its own also has a row of `scores` for each head, twice.
    """
    family, wide = FAMILIES[shape.family], shape.width * number.stored
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    projected = (queries + 2 * keys) * number.product
    turned = rotated(shape, number)
    # What came in, what is passed on, what is normed; then queries, keys and values.
    held = 3 * wide + (projected if family.fused or not turns(shape) else keys * number.product)
    if turns(shape):
        held += (queries + keys) * turned
    attention = held + 2 * queries * number.product
    if turned != number.product:
        attention += (queries + keys) * number.product
    inner = 2 + family.gated + (family.gated and family.fused)
    feed_forward = inner * number.product
    if shape.activation in _COMPOSED:
        feed_forward = 2 * (number.product + number.stored)
    feed_forward = max(feed_forward, number.rounded)
    alive = [attention, family.carried * wide + shape.feed_forward * feed_forward]
    if turns(shape):
        before = turned if family.query_norms else number.product
        alive.append(3 * wide + (queries + 2 * keys) * before + 3 * queries * turned)
    if family.query_norms:
        alive.append(3 * wide + queries * (number.product + 8))
    if scores:
        copies = 5 if shape.kv_heads < shape.heads else 3
        more = queries + 2 * keys if number.product < 4 else 0
        alive.append(held + 4 * (2 * shape.heads * scores + copies * queries + more))
    return max(alive)


def turns(shape: Shape) -> bool:
    """Whether its positions turn queries and keys, and are not learned."""
    return FAMILIES[shape.family].learned_positions is None


def rotated(shape: Shape, number: Widths) -> int:
    """Bytes of a number of a key: autocast leaves what was turned in float32."""
    return number.stored if turns(shape) else number.product


def is_math(shape: Shape, workload: Workload, precision: str, capability: Capability) -> bool:
    """Whether the attention of a prompt is two products with all scores between them.

    Of no mask transformers leaves grouped heads to torch, whose memory-efficient kernel has none
    (sdp_utils.cpp): only those of float16 and bfloat16 on Ampere and newer remain.
    """
    fused = Widths.of(precision).product == 2 and capability >= _FIRST_FLASH
    if workload.attention != AUTO:
        return workload.attention == "math"
    return not fused and (shape.kv_heads < shape.heads or precision == "bf16")
