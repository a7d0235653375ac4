"""Relatives of target projection behind the same interface: DRTP, local classifier, DFA."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import NonFinite
from edge_train.estimators.layerwise.targets import Projections, repeated, rows_of, spread, view_of
from edge_train.losses import cross_entropy
from edge_train.protocols import Apply, BlockwiseRuntime, Estimate, Objective, Stage, Through
from edge_train.rng import Key


@dataclass(frozen=True)
class Drtp:
    """Direct random target projection: the error is P[label] itself, whatever the block says.

    It has no fixed point and stops only where the activation saturates. The error is a mean over
    rows here; the published code does not divide by the batch.

    Source: Frenkel et al. (arXiv:1909.01311).
    """

    projections: Projections
    classes: int

    def error(
        self, block: Stage, rows: Array, labels: NDArray[Any], parameters: Point, apply: Apply
    ) -> tuple[Array, Array]:
        """Return the linear loss whose gradient is the projected label, and that gradient."""
        units = rows.shape[1]
        matrix = self.projections.matrix(block.name, self.classes, units)
        error = matrix[labels]
        return np.einsum("ij,ij->i", rows, error), error


@dataclass(frozen=True)
class LocalClassifier:
    """A small trained head M on every block: cross entropy of logits M y.

    Costs classes * units weights per hidden block, named `<block>.local`.

    Source: local errors (arXiv:1901.06656), Mono-Forward (arXiv:2509.19063).
    """

    def error(
        self, block: Stage, rows: Array, labels: NDArray[Any], parameters: Point, apply: Apply
    ) -> tuple[Array, Array]:
        """Return the head's losses and errors; the head's own gradient is applied."""
        name = f"{block.name}.local"
        head = parameters[name]
        losses, error = cross_entropy(rows @ head.T, labels)
        passed = error @ head
        if np.isfinite(losses).all():  # else the caller stops the step
            apply(name, error.T @ rows * np.float32(1 / len(rows)))
        return losses, passed


@dataclass(frozen=True)
class DirectFeedback:
    """Direct feedback alignment: hidden errors are the output's error through a random P.

    A first pass finds the error of the output, a second one trains block by block; so it holds one
    block at a time too, for twice the forward passes.

    Source: Nøkland (arXiv:1609.01596).
    """

    projections: Projections
    view: str
    through: Through = "rows"

    def estimate(
        self, runtime: BlockwiseRuntime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Emit every block's gradient, first block first.

        Raises:
          NonFinite: the loss was not finite; nothing was applied.
        """
        labels = batch["labels"]
        values = batch["inputs"]
        for index in range(len(runtime.blocks)):
            values = runtime.run(index, values)[0]
        losses, top = cross_entropy(values, labels)
        if not np.isfinite(losses).all():
            raise NonFinite("a loss of the step is not finite")
        values = batch["inputs"]
        last = len(runtime.blocks) - 1
        for index, block in enumerate(runtime.blocks):
            outputs, tape = runtime.run(index, values)
            error, count = top, len(labels)
            if index < last:
                view = view_of(block, self.view)
                rows = rows_of(outputs, view)
                count = len(rows)
                matrix = self.projections.matrix(block.name, top.shape[1], rows.shape[1])
                error = spread(repeated(top, count) @ matrix, outputs.shape, view)
            else:
                error = top.copy()
            error *= np.float32(1 / count)
            runtime.backward_stage(index, tape, error, apply, self.through)
            del tape
            values = outputs
        mean = float(losses.mean(dtype=np.float64))
        return Estimate(mean, (), forwards=2 * len(labels))


def local_heads(blocks: Sequence[Stage], view: str, classes: int) -> dict[str, Array]:
    """Return a head of zeros for every hidden block, as `LocalClassifier` names them."""
    found = {}
    for block in blocks[:-1]:
        shape = block.output_shape
        units = math.prod(shape) if view_of(block, view) == "full" else shape[-1]
        found[f"{block.name}.local"] = np.zeros((classes, units), np.float32)
    return found
