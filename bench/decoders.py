"""Dense decoders by formula: what their configuration says of their parameters and products.

One formula serves a model that is loaded, a folder that is only looked at, and a line of a table,
whose model is known by name. Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import Unsupported


@dataclass(frozen=True)
class Shape:
    """What the work of a forward depends on."""

    layers: int
    width: int
    vocabulary: int = 50_257
    positions: int = 1024
    feed_forward: int = 0  # its width; 0: four times the model's

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """The matrices of one layer, as (rows, columns)."""
        width, inner = self.width, self.feed_forward or 4 * self.width
        return (width, 3 * width), (width, width), (width, inner), (inner, width)

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.layers * sum(rows * columns for rows, columns in self.products)

    @property
    def parameters(self) -> int:
        """Parameters, the tied embedding counted once: 124,439,808 for GPT-2 small."""
        biases = sum(columns for _, columns in self.products)
        norms = 2 * (2 * self.layers + 1) * self.width
        embeddings = (self.vocabulary + self.positions) * self.width
        return embeddings + self.layer_weights + self.layers * biases + norms


SHAPES = {
    "gpt2": Shape(12, 768),
    "gpt2:random": Shape(12, 768),
    "gpt2-medium": Shape(24, 1024),
    "gpt2-large": Shape(36, 1280),
    "gpt2-xl": Shape(48, 1600),
    "distilgpt2": Shape(6, 768),
}


def shape_of(model: str) -> Shape | None:
    """The shape of a model that is known by name, with or without its owner on the hub."""
    return SHAPES.get(model.rpartition("/")[2])


def of_config(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes.

    Raises Unsupported, with the reason, for what is not understood.
    """
    kind = config.get("model_type")
    if kind != "gpt2":
        raise Unsupported(f'model_type is "{kind}", must be "gpt2"')
    return Shape(
        config["n_layer"],
        config["n_embd"],
        config["vocab_size"],
        config["n_positions"],
        config.get("n_inner") or 0,
    )
