"""The autoencoder: a PointNet encoder, and a decoder of a small network or of two foldings.

Encoder: the same layers for every point, then the largest of each feature over all points, which
is the code. Decoder `mlp`: three layers from the code to all points. Decoder `folding`: a grid of
points on a square, each beside the code, is folded into space by the same layers for every point,
twice.

Source: PointNet (arXiv:1612.00593) without its input transforms and norms; FoldingNet
(arXiv:1712.07262), the decoder alone, layers narrower.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

DECODERS = ("mlp", "folding")


@dataclass(frozen=True)
class Shape:
    """Sizes: points of a cloud, numbers of its code, width of the first layer, which decoder."""

    points: int
    code: int
    width: int
    decoder: str

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The sides of each stack of layers, inputs first."""
        wide, more = self.width, 2 * self.width
        encoder = {"encoder": (3, wide, more, self.code)}
        if self.decoder == "mlp":
            return {**encoder, "decoder": (self.code, more, 2 * more, 3 * self.points)}
        return {
            **encoder,
            "fold1": (self.code + 2, more, wide, 3),
            "fold2": (self.code + 3, more, wide, 3),
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by its name; matrices are (outputs, inputs)."""
        found: dict[str, tuple[int, ...]] = {}
        for stack, sides in self.layers.items():
            for number, (inputs, outputs) in enumerate(itertools.pairwise(sides)):
                found[f"{stack}.{number}.weight"] = (outputs, inputs)
                found[f"{stack}.{number}.bias"] = (outputs,)
        return found

    @property
    def activation_bytes(self) -> int:
        """Bytes of a cloud on its way through the network and back."""
        numbers = 0
        for stack, sides in self.layers.items():
            rows = 1 if stack == "decoder" else self.points
            numbers += rows * (2 * sum(sides) + max(sides))
        return 4 * numbers

    @property
    def operations(self) -> int:
        """Floating-point operations of one cloud, forward."""
        found = 0
        for stack, sides in self.layers.items():
            rows = 1 if stack == "decoder" else self.points
            found += 2 * rows * sum(a * b for a, b in itertools.pairwise(sides))
        return found


def start_of(shape: Shape, seed: int) -> dict[str, Array]:
    """Return parameters at the start: He's normal for matrices, zero for biases."""
    found = {}
    for name, sides in shape.shapes.items():
        found[name] = np.zeros(sides, np.float32)
        if len(sides) == 2:
            draw = Key(seed, 0).generator("start", name)
            found[name] = draw.standard_normal(sides, np.float32)
            found[name] *= np.float32(math.sqrt(2 / sides[1]))
    return found


def grid(points: int) -> Array:
    """Return points on a square of side 1 around zero, (points, 2), as even as they come."""
    rows = max(math.isqrt(points), 1)
    columns = -(-points // rows)
    places = np.arange(points)
    across, along = places % columns, places // columns
    found = np.stack([across / max(columns - 1, 1), along / max(rows - 1, 1)], axis=1)
    return (found - 0.5).astype(np.float32)


class Autoencoder:
    """The network at some parameters.

    Args:
      shape: its sizes.
      parameters: by the names of `shape.shapes`.
    """

    def __init__(self, shape: Shape, parameters: Mapping[str, Array]) -> None:
        self._shape = shape
        self._layers = {
            stack: [
                (parameters[f"{stack}.{number}.weight"], parameters[f"{stack}.{number}.bias"])
                for number in range(len(sides) - 1)
            ]
            for stack, sides in shape.layers.items()
        }
        self._grid = grid(shape.points) if shape.decoder == "folding" else None

    def encode(self, clouds: Array, tape: dict[str, Any] | None = None) -> Array:
        """Return codes (clouds, code) of clouds (clouds, points, 3), of any number of points."""
        count, points, _ = clouds.shape
        features = self._run("encoder", clouds.reshape(-1, 3), tape)
        table = features.reshape(count, points, -1)
        which = table.argmax(axis=1)
        if tape is not None:
            tape["which"] = which
        codes: Array = np.take_along_axis(table, which[:, None], 1)[:, 0]
        return codes

    def decode(self, codes: Array, tape: dict[str, Any] | None = None) -> Array:
        """Return clouds (clouds, points, 3) of codes."""
        points = self._shape.points
        if self._grid is None:
            return self._run("decoder", codes, tape).reshape(len(codes), points, 3)
        beside = np.repeat(codes, points, axis=0)
        first = np.concatenate([beside, np.tile(self._grid, (len(codes), 1))], axis=1)
        folded = self._run("fold1", first, tape)
        again = self._run("fold2", np.concatenate([beside, folded], axis=1), tape)
        return again.reshape(len(codes), points, 3)

    def forward(self, clouds: Array, tape: dict[str, Any] | None = None) -> Array:
        """Return clouds as they come back, (clouds, points, 3); the tape is for `backward`."""
        return self.decode(self.encode(clouds, tape), tape)

    def backward(self, tape: Mapping[str, Any], errors: Array) -> dict[str, Array]:
        """Return the gradient of every parameter for errors (clouds, points, 3) of `forward`."""
        found: dict[str, Array] = {}
        count, points, code = len(errors), self._shape.points, self._shape.code
        if self._grid is None:
            of_codes = self._back("decoder", tape, errors.reshape(count, -1), found)
        else:
            second = self._back("fold2", tape, errors.reshape(-1, 3), found)
            first = self._back("fold1", tape, np.ascontiguousarray(second[:, code:]), found)
            of_rows = first[:, :code] + second[:, :code]
            of_codes = of_rows.reshape(count, points, code).sum(axis=1)
        which = tape["which"]
        rows = len(tape["encoder"][0])
        of_features = np.zeros((count, rows // count, code), np.float32)
        np.put_along_axis(of_features, which[:, None], of_codes[:, None], 1)
        self._back("encoder", tape, of_features.reshape(-1, code), found)
        return found

    def _run(self, stack: str, inputs: Array, tape: dict[str, Any] | None) -> Array:
        kept, layers = [inputs], self._layers[stack]
        for number, (weight, bias) in enumerate(layers):
            inputs = inputs @ weight.T
            inputs += bias
            if number < len(layers) - 1:
                np.maximum(inputs, 0, out=inputs)
                kept.append(inputs)
        if tape is not None:
            tape[stack] = kept
        return inputs

    def _back(
        self, stack: str, tape: Mapping[str, Any], error: Array, found: dict[str, Array]
    ) -> Array:
        kept: Sequence[Array] = tape[stack]
        for number in reversed(range(len(kept))):
            weight, _ = self._layers[stack][number]
            found[f"{stack}.{number}.weight"] = error.T @ kept[number]
            found[f"{stack}.{number}.bias"] = error.sum(axis=0)
            error = error @ weight
            if number:
                error *= kept[number] > 0
        return error
