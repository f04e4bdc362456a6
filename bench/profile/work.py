"""GPT-2 by formula: what one forward pass must compute and move, and what PyTorch launches for it.

Operations and casts were counted with torch 2.13 and transformers 5.23, on fake CUDA tensors of
GPT-2 small at batch 1, 128 tokens, without a cache of keys and values. They are per layer and do
not depend on batch or length, so that another depth only scales them. What is computed and moved is
as `bench.profile.peaks` has it of a loaded model, which a table that somebody else made has not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What the work of a forward depends on."""

    layers: int
    width: int
    vocabulary: int = 50_257
    positions: int = 1024

    @property
    def parameters(self) -> int:
        """Parameters, the tied embedding counted once: 124,439,808 for GPT-2 small."""
        block = 12 * self.width**2 + 13 * self.width
        return (
            (self.vocabulary + self.positions) * self.width + self.layers * block + 2 * self.width
        )


SHAPES = {
    "gpt2": Shape(12, 768),
    "gpt2:random": Shape(12, 768),
    "gpt2-medium": Shape(24, 1024),
    "gpt2-large": Shape(36, 1280),
    "gpt2-xl": Shape(48, 1600),
}

# Kernel-launching operations per forward: (with fused attention, with eager attention).
OPERATIONS = (218, 294)
CASTS = (146, 158)  # that autocast adds, each a kernel of its own
SHORTEST_KERNEL_S = 2.5e-6  # of a GPU's work on next to nothing: 2 to 3 us on all of them


def shape_of(model: str) -> Shape | None:
    """The shape of a model that is known by name, with or without its owner on the hub."""
    return SHAPES.get(model.rpartition("/")[2])


def block_flops(shape: Shape, batch_size: int, tokens: int) -> float:
    """Operations of the layers alone: the least that any use of the model computes."""
    linear = 2 * batch_size * tokens * shape.layers * 12 * shape.width**2
    return linear + 2 * batch_size * shape.layers * shape.width * tokens * (tokens + 1)


def head_flops(shape: Shape, batch_size: int, tokens: int) -> float:
    """Operations of the product that makes the logits of every position."""
    return 2.0 * batch_size * tokens * shape.width * shape.vocabulary


def block_bytes(shape: Shape, precision: str) -> float:
    """Bytes of the layers' weights as stored, each read once in a forward."""
    return shape.layers * 12 * shape.width**2 * stored_bytes(precision)


def head_bytes(shape: Shape, precision: str) -> float:
    """Bytes of the embedding as stored, which the product for the logits reads once."""
    return shape.vocabulary * shape.width * stored_bytes(precision)


def stored_bytes(precision: str) -> int:
    """Bytes of a stored weight."""
    return 2 if precision in ("fp16", "bf16") else 4


def cast_bytes(shape: Shape, batch_size: int, tokens: int) -> float:
    """Bytes that autocast's casts read and write in a forward: 827 MB for GPT-2 small at 1 x 128.

    Each weight is read in 4 bytes and written in 2, in every forward, as are the inputs of the
    products; the activation function and the softmax compute in float32.
    """
    positions = batch_size * tokens
    weights = shape.layers * (12 * shape.width**2 + 9 * shape.width)
    weights += shape.vocabulary * shape.width
    per_layer = (2 + 4 + 4) * shape.width * positions  # layer norms' outputs, activation in and out
    softmax = shape.layers * positions * tokens * (shape.width // 64)
    inputs = shape.layers * per_layer + shape.width * positions + softmax
    return 6.0 * (weights + inputs)


def scaled(count: int, shape: Shape) -> int:
    """A count of GPT-2 small's operations or casts, for another depth."""
    return round(count * shape.layers / SHAPES["gpt2"].layers)
