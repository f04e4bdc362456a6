"""A decoder by formula: what a request must compute and move at least, and what PyTorch launches.

Counts are lower bounds wherever a kernel may spare work.

Operations and casts are GPT-2's alone. They were counted with torch 2.13 and transformers 5.23, on
fake CUDA tensors of GPT-2 small at batch 1, 128 tokens, without a cache of keys and values. They
are per layer and do not depend on batch or length, so that another depth only scales them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.asked import QUANTISED
from bench.decoders import SHAPES, Linear, Shape, shape_of

# Kernel-launching operations per forward: (with fused attention, with eager attention).
OPERATIONS = (218, 294)
CASTS = (146, 158)  # that autocast adds, each a kernel of its own
SHORTEST_KERNEL_S = 2.5e-6  # of a GPU's work on next to nothing: 2 to 3 us on all of them
# ms of fp32 and fp16 in eager PyTorch (TorchScript) at batch 1, 128 tokens, for the same 12 layers
# x 768 without the product that makes logits: NVIDIA FasterTransformer, docs/bert_guide.md.
PUBLISHED_MS = {"T4": (11.45, 10.51), "V100": (7.84, 6.99), "A100": (4.89, 4.47)}
PUBLISHED_IN_TF32 = "A100"  # whose first number is not fp32's


@dataclass(frozen=True)
class Product:
    """One matrix product, (rows, inner) by (inner, columns), and how often it is computed.

    `transposed` multiplies by what lies in memory as (columns, inner), as the head does by the
    embedding; what does not has a bias.
    """

    rows: int
    inner: int
    columns: int
    times: int
    transposed: bool = False
    bias: bool = True

    @property
    def flops(self) -> int:
        """Multiplications and additions of all times."""
        return 2 * self.rows * self.inner * self.columns * self.times


@dataclass(frozen=True)
class Work:
    """What a request computes and moves."""

    products: tuple[Product, ...]
    attention_flops: int  # over every pair of positions that a kernel may look at
    least_attention_flops: int  # over those that the causal mask leaves
    weights: int  # numbers, each read once in a forward
    head_weights: int  # of them those of the head
    results: tuple[int, ...]  # numbers that each forward writes or reads: logits, keys and values

    @property
    def flops(self) -> int:
        """As torch.utils.flop_counter counts: attention in full."""
        return sum(product.flops for product in self.products) + self.attention_flops

    @property
    def least_flops(self) -> int:
        """What no kernel can spare."""
        return self.flops - self.attention_flops + self.least_attention_flops

    def forward_bytes(
        self, weight_bytes: float, result_bytes: int, head_bytes: float | None = None
    ) -> tuple[int, ...]:
        """Least bytes of each forward, by the bytes of a stored weight and of a logit.

        `head_bytes` are those of a weight of the head, where they are others.
        """
        more = 0.0 if head_bytes is None else self.head_weights * (head_bytes - weight_bytes)
        read = int(self.weights * weight_bytes + more)
        return tuple(read + count * result_bytes for count in self.results)


@functools.lru_cache(maxsize=4096)
def work_of(shape: Shape, batch: int, prompt: int, new: int = 0, head: bool = True) -> Work:
    """The work of one request, whose logits are those of each position, or of each new token.

    Without the `head`, which makes the logits, it is the least that any use of the model computes.
    """
    vocabulary = head * shape.vocabulary
    last = Linear(shape.width, vocabulary, shape.head_bias, transposed=True)
    counts: Counter[tuple[int, Linear]] = Counter()
    # The forward of the prompt, and those of the new tokens after the first.
    for rows, logits, times in ((prompt, 1 if new else prompt, 1), (1, 1, new - 1)):
        if times > 0:
            for matrix in shape.matrices:
                counts[batch * rows, matrix] += shape.layers * times
            counts[batch * logits, last] += times
    # (rows with logits, first and last position, pairs) of each forward
    forwards = [(1 if new else prompt, 1, prompt, prompt * prompt)]
    forwards += [(1, kept, kept, prompt + new) for kept in range(prompt + 1, prompt + new)]
    per_pair = 4 * shape.heads * shape.head_width * batch  # query by key, and weight by value
    least = sum(seen(shape, first, last) for _, first, last, _ in forwards)
    per_position = 2 * shape.kv_heads * shape.head_width  # its keys and values in a layer
    return Work(
        products=tuple(
            Product(rows, matrix.rows, matrix.columns, times, matrix.transposed, matrix.bias)
            for (rows, matrix), times in counts.items()
        ),
        attention_flops=per_pair * shape.layers * sum(pairs for *_, pairs in forwards),
        least_attention_flops=per_pair * least,
        weights=shape.layer_weights + vocabulary * shape.width,
        head_weights=vocabulary * shape.width,
        results=tuple(
            batch * (logits * vocabulary + bool(new) * per_position * seen(shape, last, last))
            for logits, _, last, _ in forwards
        ),
    )


def seen(shape: Shape, first: int, last: int) -> int:
    """Positions that those from the first to the last look back at, over all layers.

    >>> seen(SHAPES["gpt2"], 1, 3) // 12, seen(SHAPES["Mistral-7B-v0.1"], 5000, 5000) // 32
    (6, 4096)
    """
    least = last if shape.window is None else shape.window
    within, every = max(0, min(last, least) - first + 1), last - first + 1
    nearer = (2 * first + within - 1) * within // 2 + (every - within) * least
    return (shape.layers - shape.windowed) * (first + last) * every // 2 + shape.windowed * nearer


def lower_bounds_ms(
    flops: float, forward_bytes: Sequence[float], tflops: float, gb_per_s: float, cache_bytes: float
) -> tuple[float, float]:
    """The least time of the arithmetic, and of the bytes of each forward that no cache can keep."""
    beyond = sum(max(0.0, moved - cache_bytes) for moved in forward_bytes)
    return flops / tflops / 1e9, beyond / gb_per_s / 1e6


def stored_bytes(precision: str) -> float:
    """Bytes of a stored weight of the layers; the least where the precision is not known.

    Of int4 with a scale and an offset of 16 bits for each group of 128, the largest that there is.
    """
    if precision in QUANTISED:
        return 0.5 + 4 / 128 if precision == "int4" else 1
    return 4 if precision in ("fp32", "tf32", "mixed") else 2


def head_bytes(precision: str) -> float:
    """Bytes of a stored weight of the head, of embeddings and norms, which are not quantised."""
    return max(stored_bytes(precision), 2)


def stored_weights(shape: Shape, precision: str, on_gpu: bool = False) -> int:
    """How many weights of the layers are stored.

    At int4 on a GPU with the zeros that torch's kernel has up to the next multiple of 1024 of a
    product's input (torchao 0.18, int4_tile_packed_to_4d_tensor.py): GPT-2's 768 are 1024.
    """
    if not on_gpu or precision != "int4":
        return shape.layer_weights
    return shape.layers * sum(-(-one.rows // 1024) * 1024 * one.columns for one in shape.matrices)


def model_bytes(shape: Shape, precision: str, on_gpu: bool = False) -> float:
    """Bytes of all parameters, without the scales of int8 and fp8."""
    stored = stored_weights(shape, precision, on_gpu) * stored_bytes(precision)
    return stored + (shape.parameters - shape.layer_weights) * head_bytes(precision)


def counted(model: str) -> Shape | None:
    """The shape of a model whose operations and casts were counted; None of any but a GPT-2."""
    shape = shape_of(model)
    return shape if shape and shape.family == "gpt2" else None


def cast_bytes(shape: Shape, batch_size: int, tokens: int) -> int:
    """Bytes that autocast's casts read and write in a forward: 827 MB for GPT-2 small at 1 x 128.

    Of a GPT-2 alone. Each weight is read in 4 bytes and written in 2, in every forward, as are the
    inputs of the products; the activation function and the softmax compute in float32.
    """
    positions = batch_size * tokens
    biases = shape.layers * 9 * shape.width
    weights = shape.layer_weights + biases + shape.vocabulary * shape.width
    # Layer norms' outputs, activation in and out; and the head's input.
    values = (shape.layers * (2 + 4 + 4) + 1) * shape.width * positions
    softmax = shape.layers * shape.heads * positions * tokens
    return 6 * (weights + values + softmax)


def scaled(count: int, shape: Shape) -> int:
    """A count of GPT-2 small's operations or casts, for another depth."""
    return round(count * shape.layers / SHAPES["gpt2"].layers)
