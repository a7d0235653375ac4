"""The stages of heads in NumPy: outputs, and exact gradients of every parameter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key
from edge_train.tasks.images.heads import Shape
from edge_train.tasks.images.stage import HeadStage, Read
from edge_train.tasks.images.tversky import Tversky

_COSINE_SCALE = 16.0  # at the start, of logits between -1 and 1
_NORM_FLOOR = np.float32(1e-6)


@dataclass(frozen=True)
class Linear:
    """y = W x + b; with `rectified` its positive part."""

    name: str
    inputs: int
    outputs: int
    rectified: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """From zero on where rectified."""
        return (0.0 if self.rectified else -math.inf), math.inf

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of weight (outputs, inputs) and bias."""
        return {"weight": (self.outputs, self.inputs), "bias": (self.outputs,)}

    def start(self, key: Key) -> dict[str, Array]:
        """Return He's values before a rectifier, zeros for logits."""
        weight = np.zeros((self.outputs, self.inputs), np.float32)
        if self.rectified:
            draw = key.generator("head", self.name)
            weight = draw.standard_normal(weight.shape, np.float32)
            weight *= np.float32(math.sqrt(2 / self.inputs))
        return {"weight": weight, "bias": np.zeros(self.outputs, np.float32)}

    def forward(self, read: Read, inputs: Array) -> tuple[Array, Any]:
        """Return outputs."""
        weight = read["weight"]
        outputs = inputs @ weight.T
        outputs += read["bias"]
        if self.rectified:
            np.maximum(outputs, 0, out=outputs)
        return outputs, (inputs, weight, outputs)

    def backward(
        self, tape: Any, error: Array, needed: bool
    ) -> tuple[dict[str, Array], Array | None]:
        """Return gradients."""
        inputs, weight, outputs = tape
        if self.rectified:
            error = error * (outputs > 0)
        passed = error @ weight if needed else None
        return {"weight": error.T @ inputs, "bias": error.sum(axis=0)}, passed


@dataclass(frozen=True)
class Cosine:
    """y_c = s cos(x, w_c), with one trained scale s.

    Source: normalised softmax heads, as in Gidaris and Komodakis (arXiv:1804.09458).
    """

    name: str
    inputs: int
    outputs: int
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of prototypes (outputs, inputs) and scale."""
        return {"prototypes": (self.outputs, self.inputs), "scale": (1,)}

    def start(self, key: Key) -> dict[str, Array]:
        """Return random directions."""
        draw = key.generator("head", self.name)
        prototypes = draw.standard_normal((self.outputs, self.inputs), np.float32)
        prototypes *= np.float32(0.1)
        return {"prototypes": prototypes, "scale": np.array([_COSINE_SCALE], np.float32)}

    def forward(self, read: Read, inputs: Array) -> tuple[Array, Any]:
        """Return outputs."""
        scale = read["scale"]
        rows, row_norms = _unit(inputs)
        columns, column_norms = _unit(read["prototypes"])
        cosines = rows @ columns.T
        return scale * cosines, (rows, row_norms, columns, column_norms, cosines, scale)

    def backward(
        self, tape: Any, error: Array, needed: bool
    ) -> tuple[dict[str, Array], Array | None]:
        """Return gradients."""
        rows, row_norms, columns, column_norms, cosines, scale = tape
        scaled = scale * error
        along = (scaled * cosines).sum(axis=0)[:, None]
        prototypes = (scaled.T @ rows - along * columns) / column_norms
        gradients = {"prototypes": prototypes, "scale": (error * cosines).sum().reshape(1)}
        if not needed:
            return gradients, None
        back = (scaled * cosines).sum(axis=1)[:, None]
        return gradients, (scaled @ columns - back * rows) / row_norms


def _unit(rows: Array) -> tuple[Array, Array]:
    """Return rows of length one, and their lengths."""
    norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _NORM_FLOOR)
    return rows / norms, norms


def linear(shape: Shape) -> Sequence[HeadStage]:
    """Return the stages of a linear head."""
    return (Linear("linear", shape.width, shape.classes),)


def cosine(shape: Shape) -> Sequence[HeadStage]:
    """Return the stages of a cosine head."""
    return (Cosine("cosine", shape.width, shape.classes),)


def tversky(shape: Shape) -> Sequence[HeadStage]:
    """Return the stages of a Tversky head."""
    return (Tversky("tversky", shape.width, shape.classes, shape.size, shape.difference),)


def two_layer(shape: Shape) -> Sequence[HeadStage]:
    """Return the stages of a head with a hidden layer."""
    return (
        Linear("hidden", shape.width, shape.size, rectified=True),
        Linear("linear", shape.size, shape.classes),
    )
