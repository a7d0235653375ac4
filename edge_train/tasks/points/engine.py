"""The autoencoder of clouds as an engine: NumPy, gradients written by hand, some clouds at a time.

Every loss is of one cloud and its reconstruction, so parts of a batch give the same gradient.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Apply
from edge_train.rng import Key
from edge_train.tasks.points.distances import chamfer, sliced, steepest, uniform
from edge_train.tasks.points.network import Autoencoder, Shape
from edge_train.tasks.points.slicer import SHAPES, Slicer, heights, turn_of, turned

LOSSES = ("sliced", "chamfer", "max-sliced", "v-dsw")


class CloudEngine:
    """A `GradientRuntime` of clouds.

    Losses at points are the plain sliced distance whatever is trained by: zo trains it, and runs of
    all losses are evaluated by it, along directions that each cloud draws by a number of its own.

    Args:
      shape: of the network.
      parameters: of the network, and of the slicer for `v-dsw`.
      loss: what `backward` is the gradient of, one of `LOSSES`.
      slices: directions for each cloud.
      kappa: concentration of directions around the slicer's.
      micro_batch: clouds that are differentiated at once; None: all of a step.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(
        self,
        shape: Shape,
        parameters: Parameters,
        loss: str,
        slices: int,
        kappa: float,
        micro_batch: int | None = None,
    ) -> None:
        self.shape, self.parameters = shape, parameters
        self._loss, self._slices, self._kappa = loss, slices, kappa
        self._micro_batch = micro_batch
        self.batch_limit: int | None = None

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return sliced distances, squared, (points, clouds)."""
        losses = np.empty((len(points), len(batch["clouds"])), np.float32)
        for row, point in enumerate(points):
            network = Autoencoder(self.shape, point)
            for some in self._parts(batch):
                clouds, draws = batch["clouds"][some], batch["draws"][some]
                for number, (x, y) in enumerate(zip(clouds, network.forward(clouds), strict=True)):
                    directions = uniform(_draw(draws[number]), self._slices)
                    losses[row, some.start + number] = sliced(x, y, directions)[0].mean()
        return losses

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of the mean loss; return losses (clouds,).

        With `v-dsw` the slicer goes first: it climbs, its gradients are negative, and the network
        then goes down along directions of the new slicer. Until `apply` has seen them the losses
        are finite, or nothing is applied.
        """
        network, count = Autoencoder(self.shape, self.parameters), len(batch["clouds"])
        parts = self._parts(batch)
        taped: list[tuple[dict[str, Any], Array]] = []
        if self._loss == "v-dsw":
            climbed = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
            finite = True
            for some in parts:
                tape: dict[str, Any] | None = {} if len(parts) == 1 else None
                back = network.forward(batch["clouds"][some], tape)
                finite = self._climb(batch, some, back, climbed, count) and finite
                if tape is not None:
                    taped.append((tape, back))
            if not finite:
                return np.full(count, np.nan, np.float32)
            for name, gradient in climbed.items():
                apply(name, gradient)
        losses = np.empty(count, np.float32)
        total: dict[str, Array] = {}
        for some in parts:
            if taped:
                tape, back = taped.pop()
            else:
                tape = {}
                back = network.forward(batch["clouds"][some], tape)
            errors = np.empty_like(back)
            for number, (x, y) in enumerate(zip(batch["clouds"][some], back, strict=True)):
                draw = _draw(batch["draws"][some.start + number])
                losses[some.start + number], errors[number] = self._apart(x, y, draw)
            errors /= np.float32(count)
            for name, gradient in network.backward(tape, errors).items():
                total[name] = total[name] + gradient if name in total else gradient
        if np.isfinite(losses).all():
            for name in list(total):
                apply(name, total.pop(name))
        return losses

    def _climb(
        self, batch: Batch, some: slice, back: Array, climbed: dict[str, Array], count: int
    ) -> bool:
        """Add the slicer's gradients, negative ones; return whether the distances are finite."""
        slicer, finite = Slicer(self.parameters), True
        for number, (x, y) in enumerate(zip(batch["clouds"][some], back, strict=True)):
            unit, summed = slicer.direction(x, y)
            draws = self._draws(batch["draws"][some.start + number])
            values, _, turns = sliced(x, y, turned(draws, unit))
            finite = finite and bool(np.isfinite(values).all())
            turn = turn_of(draws, unit, turns / np.float32(len(draws) * count))
            for name, gradient in slicer.gradients(x, y, summed, turn).items():
                climbed[name] -= gradient
        return finite

    def _draws(self, number: Any) -> Array:
        return heights(_draw(number), self._slices, self._kappa)

    def _apart(self, x: Array, y: Array, draw: np.random.Generator) -> tuple[float, Array]:
        """Return the loss of a cloud and its reconstruction, and the gradient for the second."""
        if self._loss == "chamfer":
            return chamfer(x, y)
        if self._loss == "max-sliced":
            directions = steepest(x, y, uniform(draw, 1))
        elif self._loss == "v-dsw":
            unit, _ = Slicer(self.parameters).direction(x, y)
            directions = turned(heights(draw, self._slices, self._kappa), unit)
        else:
            directions = uniform(draw, self._slices)
        values, moves, _ = sliced(x, y, directions)
        return float(values.mean()), moves

    def _parts(self, batch: Batch) -> list[slice]:
        count = len(batch["clouds"])
        limits = (self._micro_batch, self.batch_limit, count)
        size = min(limit for limit in limits if limit)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Release nothing: arrays go when nobody holds them."""


def _draw(number: Any) -> np.random.Generator:
    """Return the generator of a cloud in a step, by the number that the batch has for it."""
    return Key(int(number), 0).generator("slices")


def of_network(parameters: Mapping[str, Array], shape: Shape) -> Iterator[tuple[str, Array]]:
    """Yield the parameters of the network alone."""
    for name in shape.shapes:
        yield name, parameters[name]
