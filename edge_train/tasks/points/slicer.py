"""The amortised slicer of v-DSW: from two clouds to the directions in which they differ.

Linear self-attention sums each cloud up to a vector; both are added and normalised, so the order of
points and of clouds means nothing. Directions are drawn around it from a von Mises-Fisher
distribution of concentration kappa > 0, which leaves every direction possible: the loss stays a
metric however wrong the vector is.

Source: v-DSW with self-attention amortisation (arXiv:2301.04791). Of attention that is linear in
the points we take the efficient one (softmax over features of queries, over points of keys). In
three dimensions the height of a von Mises-Fisher draw has a closed form, which is what Wood's
rejection sampler converges to: nothing is rejected, and as kappa is a setting, no gradient goes
through the height. The autoencoder takes directions for constants.
"""

from collections.abc import Mapping

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

WIDTH = 16  # of queries and keys
SHAPES = {"slicer.query": (WIDTH, 3), "slicer.key": (WIDTH, 3), "slicer.value": (3, 3)}
_TINY = np.float32(1e-12)


def start_of(seed: int) -> dict[str, Array]:
    """Return the slicer's matrices at the start."""
    return {
        name: Key(seed, 0).generator("start", name).standard_normal(shape, np.float32)
        for name, shape in SHAPES.items()
    }


def _softmax(values: Array, axis: int) -> Array:
    found: Array = np.exp(values - values.max(axis=axis, keepdims=True))
    found /= found.sum(axis=axis, keepdims=True)
    return found


class Slicer:
    """The slicer at its present matrices, (outputs, inputs) each."""

    def __init__(self, matrices: Mapping[str, Array]) -> None:
        self._query, self._key, self._value = (matrices[name] for name in SHAPES)

    def direction(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return the unit vector of two clouds, (3,), and the sum that it is made of."""
        total = self._summed(x)[0] + self._summed(y)[0]
        length = np.sqrt(np.square(total).sum())
        return total / np.maximum(length, _TINY), total

    def _summed(self, cloud: Array) -> tuple[Array, tuple[Array, Array, Array, Array, Array]]:
        """Return the mean of what attention makes of each point, and what its gradient needs."""
        queries = _softmax(cloud @ self._query.T, 1)  # (points, width)
        keys = _softmax(cloud @ self._key.T, 0)
        values = cloud @ self._value.T  # (points, 3)
        asked, table = queries.mean(axis=0), keys.T @ values  # (width,), (width, 3)
        return asked @ table, (queries, keys, values, asked, table)

    def gradients(self, x: Array, y: Array, total: Array, turn: Array) -> dict[str, Array]:
        """Return the gradients of the matrices for one of the unit vector.

        Args:
          total: the sum that `direction` normalised.
          turn: gradient for the unit vector, (3,).
        """
        length = np.maximum(np.sqrt(np.square(total).sum()), _TINY)
        unit = total / length
        error = (turn - unit * (unit @ turn)) / length
        found = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
        for cloud in (x, y):
            _, (queries, keys, values, asked, table) = self._summed(cloud)
            of_asked = (table @ error) / np.float32(len(cloud))
            of_table = np.outer(asked, error)
            of_keys, of_values = values @ of_table.T, keys @ of_table
            of_queries = queries * (of_asked - (queries @ of_asked)[:, None])
            of_keys = keys * (of_keys - (keys * of_keys).sum(axis=0))
            found["slicer.query"] += of_queries.T @ cloud
            found["slicer.key"] += of_keys.T @ cloud
            found["slicer.value"] += of_values.T @ cloud
        return found


def heights(draw: np.random.Generator, count: int, kappa: float) -> Array:
    """Return draws around the first axis, (count, 3): von Mises-Fisher in three dimensions.

    The cosine to the axis is 1 + log(u + (1 - u) exp(-2 kappa)) / kappa for a uniform u.
    """
    uniform = draw.random(count)
    cosine = 1 + np.log(uniform + (1 - uniform) * np.exp(-2 * kappa)) / kappa
    cosine = np.clip(cosine, -1, 1)
    angle, sine = 2 * np.pi * draw.random(count), np.sqrt(1 - cosine**2)
    found = np.stack([cosine, sine * np.cos(angle), sine * np.sin(angle)], axis=1)
    return found.astype(np.float32)


def turned(draws: Array, unit: Array) -> Array:
    """Return draws around the first axis as draws around `unit`, by a reflection."""
    mirror, length = _mirror(unit)
    return draws if length < _TINY else draws - 2 * np.outer(draws @ mirror, mirror)


def turn_of(draws: Array, unit: Array, errors: Array) -> Array:
    """Return the gradient for `unit` of a sum whose gradients for `turned` are `errors`."""
    mirror, length = _mirror(unit)
    if length < _TINY:
        return np.zeros(3, np.float32)
    first: Array = np.einsum("ni,i,nj->j", draws, mirror, errors)
    second: Array = np.einsum("ni,i,nj->j", errors, mirror, draws)
    of_mirror: Array = np.float32(-2) * (first + second)
    of_between: Array = of_mirror - mirror * (mirror @ of_mirror)
    return of_between * np.float32(-1 / length)


def _mirror(unit: Array) -> tuple[Array, np.float32]:
    """Return the normal of the mirror between the first axis and `unit`, and their distance."""
    between: Array = np.array([1, 0, 0], np.float32) - unit
    length = np.sqrt(np.square(between).sum())
    return between / np.maximum(length, _TINY), length
