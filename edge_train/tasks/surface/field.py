"""The network of unsigned distances, its slopes, and gradients of anything that is made of both.

Layers of ReLU with normalised weights; the points come in again in the middle; the distance is the
magnitude of what comes out. Between the kinks of ReLU the output is linear in the point, so the
slope does not change with the point, and a term u . slope is as linear in each matrix as the output
is: its gradient takes one more pass forward, of u, through the layers that are switched on. That is
all of the second derivatives, exactly what double backward of such a network computes, without a
graph.

Source: LevelSetUDF (code of arXiv:2308.13441): layers, place of the second entrance, start values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

_RADIUS = 0.5  # of the sphere whose distance the network begins with
_HALF = np.float32(1 / math.sqrt(2))
_TINY = np.float32(1e-12)


@dataclass(frozen=True)
class Shape:
    """Outputs of each hidden layer, and how many of those there are."""

    width: int
    layers: int

    @property
    def again(self) -> int:
        """The layer that the points come in again at."""
        return self.layers // 2

    @property
    def sides(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each layer."""
        found = []
        for number in range(self.layers + 1):
            inputs = 3 if number == 0 else self.width
            outputs = self.width - 3 if number + 1 == self.again else self.width
            found.append((1 if number == self.layers else outputs, inputs))
        return found

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by its name.

        A matrix is its rows' directions (outputs, inputs), of any length, and their lengths.
        """
        found: dict[str, tuple[int, ...]] = {}
        for number, (outputs, inputs) in enumerate(self.sides):
            found[f"{number}.direction"] = (outputs, inputs)
            found[f"{number}.length"] = (outputs,)
            found[f"{number}.bias"] = (outputs,)
        return found

    @property
    def operations(self) -> int:
        """Floating-point operations of one point, forward."""
        return 2 * sum(a * b for a, b in self.sides)

    @property
    def activation_bytes(self) -> int:
        """Bytes that a point holds from its way forward to the gradients."""
        return 4 * sum(2 * outputs + 2 * inputs for outputs, inputs in self.sides)


def start_of(shape: Shape, seed: int) -> dict[str, Array]:
    """Return parameters at the start: about the distance to a sphere."""
    found: dict[str, Array] = {}
    last = len(shape.sides) - 1
    for number, (outputs, inputs) in enumerate(shape.sides):
        draw = Key(seed, 0).generator("start", number)
        matrix = draw.standard_normal((outputs, inputs), np.float32)
        if number == last:
            matrix = np.float32(1e-4) * matrix + np.float32(math.sqrt(math.pi / inputs))
        else:
            matrix *= np.float32(math.sqrt(2 / outputs))
        found[f"{number}.direction"] = matrix
        found[f"{number}.length"] = np.sqrt(np.square(matrix).sum(axis=1))
        bias = -_RADIUS if number == last else 0.0
        found[f"{number}.bias"] = np.full(outputs, bias, np.float32)
    return found


@dataclass(frozen=True)
class Tape:
    """A pass of some points.

    Attributes:
      distance: (points,), not negative.
      slope: of the distance for the point, (points, 3).
      inputs: of every layer.
      errors: slope of the signed output for what each layer makes before its ReLU.
      sign: of the output, (points, 1).
    """

    distance: Array
    slope: Array
    inputs: tuple[Array, ...]
    errors: tuple[Array, ...]
    sign: Array


class Field:
    """The network at some parameters, by the names of `Shape.shapes`."""

    def __init__(self, shape: Shape, parameters: Mapping[str, Array]) -> None:
        self._shape, self._count = shape, len(shape.sides)
        self._directions = [parameters[f"{n}.direction"] for n in range(self._count)]
        self._lengths = [parameters[f"{n}.length"] for n in range(self._count)]
        self._biases = [parameters[f"{n}.bias"] for n in range(self._count)]
        self._norms = [
            np.maximum(np.sqrt(np.square(d).sum(axis=1)), _TINY) for d in self._directions
        ]
        self._matrices = [
            direction * (length / norm)[:, None]
            for direction, length, norm in zip(
                self._directions, self._lengths, self._norms, strict=True
            )
        ]

    def distance(self, points: Array) -> Array:
        """Return distances (points,) alone."""
        return np.abs(self._forward(points)[-1][:, 0])

    def at(self, points: Array) -> Tape:
        """Return distances and slopes of points (points, 3), and what gradients need."""
        *inputs, out = self._forward(points)
        sign = np.where(out < 0, np.float32(-1), np.float32(1))
        errors: list[Array] = [np.ones_like(out)]
        entered = np.zeros_like(points)
        for number in reversed(range(1, self._count)):
            error = errors[-1] @ self._matrices[number]
            if number == self._shape.again:
                error *= _HALF
                entered += error[:, -3:]
                error = error[:, :-3]
                on = inputs[number][:, :-3] > 0
            else:
                on = inputs[number] > 0
            errors.append(error * on)
        slope = (errors[-1] @ self._matrices[0] + entered) * sign
        return Tape(np.abs(out[:, 0]), slope, tuple(inputs), tuple(reversed(errors)), sign)

    def _forward(self, points: Array) -> list[Array]:
        """Return the inputs of every layer, and the output."""
        found, values = [points], points
        for number in range(self._count):
            values = values @ self._matrices[number].T
            values += self._biases[number]
            if number < self._count - 1:
                np.maximum(values, 0, out=values)
                if number + 1 == self._shape.again:
                    values = np.concatenate([values, points], axis=1)
                    values *= _HALF
            found.append(values)
        return found

    def add_gradients(
        self, tape: Tape, of_distance: Array, of_slope: Array | None, total: dict[str, Array]
    ) -> None:
        """Add gradients for the matrices and biases, by layer, to `total`.

        Args:
          of_distance: slope of the loss for each distance, (points,).
          of_slope: its slope for each slope, (points, 3); None: the loss reads none.
          total: "number.matrix" and "number.bias" -> their sums so far.
        """
        scale = of_distance[:, None] * tape.sign
        tangent = None if of_slope is None else of_slope * tape.sign
        start = tangent
        for number in range(self._count):
            read = tape.inputs[number] * scale
            if tangent is not None:
                if number == self._shape.again:
                    tangent = np.concatenate([tangent, start], axis=1) * _HALF
                read += tangent
            error = tape.errors[number]
            _add(total, f"{number}.matrix", error.T @ read)
            _add(total, f"{number}.bias", error.T @ scale[:, 0])
            if tangent is not None and number < self._count - 1:
                tangent = tangent @ self._matrices[number].T
                on = tape.inputs[number + 1]
                tangent *= (on[:, :-3] if number + 1 == self._shape.again else on) > 0

    def gradients(self, total: Mapping[str, Array]) -> dict[str, Array]:
        """Return gradients of the parameters for those of matrices and biases."""
        found: dict[str, Array] = {}
        for number in range(self._count):
            of_matrix, norm = total[f"{number}.matrix"], self._norms[number]
            unit = self._directions[number] / norm[:, None]
            of_length = (of_matrix * unit).sum(axis=1)
            scale = (self._lengths[number] / norm)[:, None]
            found[f"{number}.direction"] = scale * (of_matrix - of_length[:, None] * unit)
            found[f"{number}.length"] = of_length
            found[f"{number}.bias"] = total[f"{number}.bias"]
        return found


def _add(total: dict[str, Array], name: str, value: Array) -> None:
    total[name] = total[name] + value if name in total else value
