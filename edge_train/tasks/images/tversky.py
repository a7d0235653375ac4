"""The Tversky projection layer: how alike features and prototypes are, over a learned bank."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

_START = (1.0, 0.5, 0.5)  # theta, alpha, beta


@dataclass(frozen=True)
class Tversky:
    """Similarity of inputs x to a prototype of each class, measured by a bank of features.

    With a_k = x . f_k and b_ck = p_c . f_k, both divided by sqrt(inputs), a feature belongs to a
    thing where its product is positive:

        y_c = (theta sum_k a_k b_ck [both > 0] - alpha f(A - B) - beta f(B - A)) / sqrt(bank)

    "ignorematch": f(A - B) = sum_k a_k [a_k > 0, b_ck <= 0]; four products of matrices are all.
    "subtractmatch": f(A - B) = sum_k (a_k - b_ck) [a_k > b_ck > 0], a class at a time.
    Indicators are hard; gradients go through the magnitudes.

    Parameters: `bank` (bank, inputs), `prototypes` (classes, inputs), `weights` (3,): theta, alpha
    and beta, which are free to change their sign.

    Source: Tversky projection layer (arXiv:2506.11035). We differ from its library: products are
    divided by the square roots of inputs and bank, so that nothing overflows nor grows with them;
    start values are uniform on both sides of zero, for features that are centered; its
    subtractmatch adds ignorematch and compares sums of a and b, ours is that of the paper.
    """

    name: str
    inputs: int
    outputs: int
    bank: int
    difference: str
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of the parameters."""
        return {
            "bank": (self.bank, self.inputs),
            "prototypes": (self.outputs, self.inputs),
            "weights": (3,),
        }

    def start(self, key: Key) -> dict[str, Array]:
        """Return uniform values in [-1, 1); see `_START` for the weights."""
        draw = key.generator("head", self.name)
        found = {
            name: (2 * draw.random(self.shapes()[name], np.float32) - 1).astype(np.float32)
            for name in ("bank", "prototypes")
        }
        return {**found, "weights": np.array(_START, np.float32)}

    def forward(self, read: Any, inputs: Array) -> tuple[Array, Any]:
        """Return (samples, classes) similarities."""
        bank, prototypes, weights = read["bank"], read["prototypes"], read["weights"]
        size = np.float32(1 / math.sqrt(self.inputs))
        a, b = size * (inputs @ bank.T), size * (prototypes @ bank.T)
        common = np.maximum(a, 0) @ np.maximum(b, 0).T
        more, less = self._differences(a, b)
        theta, alpha, beta = weights
        outputs = self._share * (theta * common - alpha * more - beta * less)
        measures = (common, more, less)
        return outputs, (inputs, bank, prototypes, weights, a, b, measures)

    def has(self, read: Any, inputs: Array) -> Array:
        """Return how much each input has of each feature of the bank, (samples, bank)."""
        found: Array = np.float32(1 / math.sqrt(self.inputs)) * (inputs @ read["bank"].T)
        return found

    @property
    def _share(self) -> np.float32:
        return np.float32(1 / math.sqrt(self.bank))

    def _differences(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Return f(A - B) and f(B - A), (samples, classes)."""
        if self.difference == "ignorematch":
            return np.maximum(a, 0) @ (b <= 0).T.astype(np.float32), (a <= 0).astype(
                np.float32
            ) @ np.maximum(b, 0).T
        more = np.empty((len(a), len(b)), np.float32)
        less = np.empty_like(more)
        for number, row in enumerate(b):  # (samples, bank) at a time
            apart = np.where((a > 0) & (row > 0), a - row, np.float32(0))
            more[:, number] = np.maximum(apart, 0).sum(axis=1)
            less[:, number] = np.maximum(-apart, 0).sum(axis=1)
        return more, less

    def backward(
        self, tape: Any, error: Array, needed: bool
    ) -> tuple[dict[str, Array], Array | None]:
        """Return gradients."""
        inputs, bank, prototypes, weights, a, b, measures = tape
        theta, alpha, beta = weights
        error = self._share * error
        signs = (1, -1, -1)
        of_weights = [sign * (error * m).sum() for sign, m in zip(signs, measures, strict=True)]
        at_a = theta * (error @ np.maximum(b, 0))
        at_b = theta * (error.T @ np.maximum(a, 0))
        if self.difference == "ignorematch":
            at_a -= alpha * (error @ (b <= 0).astype(np.float32))
            at_b -= beta * (error.T @ (a <= 0).astype(np.float32))
        else:
            for number, row in enumerate(b):
                both = (a > 0) & (row > 0)
                slope = np.where(a > row, alpha, -beta) * both * error[:, number : number + 1]
                at_a -= slope
                at_b[number] += slope.sum(axis=0)
        size = np.float32(1 / math.sqrt(self.inputs))
        at_a *= size * (a > 0)
        at_b *= size * (b > 0)
        gradients = {
            "bank": at_a.T @ inputs + at_b.T @ prototypes,
            "prototypes": at_b @ bank,
            "weights": np.array(of_weights, np.float32),
        }
        return gradients, (at_a @ bank if needed else None)
