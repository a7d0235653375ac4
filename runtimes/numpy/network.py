"""Runs a small network block by block with NumPy alone: neither torch nor an engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.formats.network import (
    Activation,
    Convolution,
    Dense,
    Layer,
    Network,
    Normalization,
    Pool,
    Recurrent,
)
from edge_train.losses import cross_entropy
from edge_train.protocols import Apply, Through
from edge_train.runtimes.numpy.layers import (
    Statistics,
    backward,
    channel_statistics,
    forward,
    rows_read,
)

_TRAINED = (Dense, Convolution, Recurrent, Normalization)
_OVERWRITABLE = (Dense, Convolution, Normalization, Pool)  # their backward needs no outputs


@dataclass(frozen=True)
class Tape:
    """What the gradient of one block needs of its forward pass; dropping it frees the memory."""

    saved: tuple[Any, ...]


class NumpyNetwork:
    """A network whose blocks are run and differentiated one at a time.

    Args:
      network: the chain of blocks.
      parameters: their trainable arrays; `networks.parameter_shapes` names them.
      calibration: samples whose statistics stand for all in batch normalization, outside of
        training. They are measured from the parameters whenever they are needed, so that no moving
        average belongs to the state of a run. None for a network without batch normalization.
      together: samples of a forward pass outside of training.
      micro_batch: samples that `backward` holds the activations of at once; gradients of the parts
        are added up. None takes the whole batch.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        calibration: Array | None = None,
        *,
        together: int = 100,
        micro_batch: int | None = None,
    ) -> None:
        self.network = network
        self.blocks = network.blocks
        self.parameters = parameters
        self._calibration = calibration
        self.batch_limit: int | None = None  # most samples in one call; see `backward`
        self._together = together
        self._micro_batch = micro_batch

    def run(self, index: int, inputs: Array) -> tuple[Array, Tape]:
        """Return the outputs of one block in training, and what its gradient needs."""
        saved = []
        for _, layer, read, reuse in self._layers(index, self.parameters):
            inputs, needs = forward(layer, read, inputs, reuse=reuse)
            saved.append(needs)
        return inputs, Tape(tuple(saved))

    def backward_stage(
        self, index: int, tape: Tape, error: Array, apply: Apply, through: Through
    ) -> Array | None:
        """Hand `apply` the gradients of one block for `error` at its outputs.

        Args:
          error: (samples, ...) gradient of the loss with respect to the outputs; it is overwritten.
          reach: "inputs" also returns the error at the block's inputs (there is none at those of
            the network); "rows" goes back through the rows of a sequence only, "row" not even that.
        """
        name = self.blocks[index].name
        layers = list(self._layers(index, self.parameters))
        trainable = min(i for i, (_, layer, *_) in enumerate(layers) if isinstance(layer, _TRAINED))
        wanted = through == "inputs" and index > 0
        passed: Array | None = error
        for position in reversed(range(len(layers))):
            _, layer, read, _ = layers[position]
            if position < trainable and not wanted:
                return None
            assert passed is not None
            passed = backward(
                layer,
                tape.saved[position],
                read,
                passed,
                lambda part, gradient: apply(f"{name}.{part}", gradient),
                propagate=through != "row",
                needed=wanted or position > trainable,
            )
        return passed if wanted else None

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the cross entropy of every sample at every point, shape (points, samples)."""
        labels = batch["labels"]
        targets = _targets(batch)
        losses = [
            cross_entropy(self.predict(batch["inputs"], point), labels, **targets)[0]
            for point in points
        ]
        return np.stack(losses)

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the exact gradient of the mean cross entropy; return losses (samples,).

        A `batch_limit` is a smaller micro-batch where that saves memory and changes no gradient:
        nowhere in dense networks, nor with batch normalization.
        """
        count = len(batch["labels"])
        size = self._micro_batch or count
        divisible = self._calibration is None and any(b.divisible for b in self.blocks)
        if self.batch_limit and divisible:
            size = min(size, self.batch_limit)
        if size >= count:
            return self._backward(batch, count, apply)
        total: dict[str, Array] = {}

        def add(name: str, gradient: Array) -> None:
            total[name] = np.add(total[name], gradient, out=gradient) if name in total else gradient

        losses = [
            self._backward(
                {name: values[start : start + size] for name, values in batch.items()}, count, add
            )
            for start in range(0, count, size)
        ]
        together = np.concatenate(losses)
        if np.isfinite(together).all():
            for name in list(total):
                apply(name, total.pop(name))
        return together

    def _backward(self, batch: Batch, count: int, apply: Apply) -> Array:
        inputs, tapes = batch["inputs"], []
        for index in range(len(self.blocks)):
            inputs, tape = self.run(index, inputs)
            tapes.append(tape)
        losses, error = cross_entropy(inputs, batch["labels"], **_targets(batch))
        del inputs, tape
        if not np.isfinite(losses).all():
            return losses  # the caller stops the step
        error /= np.float32(count)
        for index in reversed(range(len(self.blocks))):
            passed = self.backward_stage(index, tapes.pop(), error, apply, "inputs")
            if passed is not None:
                error = passed
        return losses

    def predict(self, inputs: Array, point: Point) -> Array:
        """Return (samples, classes) logits at a point, a few samples at a time."""
        statistics = self.calibrated(point)
        size = min(self._together, self.batch_limit or self._together)
        return np.concatenate(
            [
                self.outputs(inputs[start : start + size], point, statistics)
                for start in range(0, len(inputs), size)
            ]
        )

    def outputs(
        self,
        inputs: Array,
        point: Point,
        statistics: dict[str, Statistics],
        blocks: range | None = None,
    ) -> Array:
        """Return the outputs of the last of `blocks` (default: all) outside of training."""
        for index in blocks or range(len(self.blocks)):
            for place, layer, read, reuse in self._layers(index, point):
                inputs, _ = forward(
                    layer, read, inputs, statistics=statistics.get(place), reuse=reuse
                )
        return inputs

    def matrix_inputs(self, name: str, inputs: Array, point: Point) -> Iterator[Array]:
        """Yield what a matrix is multiplied with for samples, (rows, its inputs), in parts.

        The network has no batch normalization.
        """
        index = int(name.split(".")[0])
        if index:
            inputs = self.outputs(inputs, point, {}, range(index))
        for _, layer, read, _ in self._layers(index, point):
            outputs, saved = forward(layer, read, inputs)
            if isinstance(layer, (Dense, Convolution, Recurrent)):
                yield from rows_read(layer, name.split(".")[1], inputs, saved)
                return  # a block has one trainable layer, and what follows it has no matrix
            inputs = outputs

    def calibrated(self, point: Point) -> dict[str, Statistics]:
        """Return the statistics of every batch normalization at a point, by place.

        Memory: the outputs of one layer for all calibration samples, and what a layer needs beside
        them for those of one forward pass.
        """
        found: dict[str, Statistics] = {}
        samples = self._calibration
        if samples is None:
            return found
        size = self._together  # whatever the limit is, so that the bits stay
        parts = [samples[start : start + size] for start in range(0, len(samples), size)]
        for index in range(len(self.blocks)):
            for place, layer, read, reuse in self._layers(index, point):
                if layer == Normalization("batch"):
                    found[place] = channel_statistics(parts)
                known = found.get(place)
                for number, values in enumerate(parts):
                    parts[number], _ = forward(layer, read, values, statistics=known, reuse=reuse)
        return found

    def _layers(self, index: int, point: Point) -> Iterator[tuple[str, Layer, Any, bool]]:
        """Yield place, layer, reader of its parameters, and whether its inputs may be reused."""
        block = self.blocks[index]
        before: Layer | None = None
        for number, layer in enumerate(block.layers):
            read = partial(_read, point, block.name)
            reuse = isinstance(layer, Activation) and isinstance(before, _OVERWRITABLE)
            yield f"{block.name}.{number}", layer, read, reuse
            before = layer

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Release nothing: arrays go when nobody holds them."""


def _targets(batch: Batch) -> dict[str, Any]:
    """Return what a batch says of its targets beside the labels."""
    found: dict[str, Any] = {}
    if "smoothing" in batch:
        found["smoothing"] = float(batch["smoothing"][0])
    if "weights" in batch:
        found["weights"] = batch["weights"]
    return found


def _read(point: Point, block: str, part: str) -> Array:
    return point[f"{block}.{part}"]
