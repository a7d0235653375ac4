"""Target projection: every block learns from a fixed random projection of the label."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import NonFinite
from edge_train.estimators.layerwise.local_losses import MARGIN_LOSSES, local_error
from edge_train.estimators.layerwise.targets import Projections, repeated, rows_of, spread, view_of
from edge_train.losses import cross_entropy
from edge_train.protocols import Apply, BlockwiseRuntime, Estimate, Objective, Stage, Through
from edge_train.rng import Key

_FLOOR_MARGIN = 0.5  # above the lowest output, where there is no highest: where a sign begins


class Signal(Protocol):
    """What tells a hidden block how its outputs should change."""

    def error(
        self, block: Stage, rows: Array, labels: NDArray[Any], parameters: Point, apply: Apply
    ) -> tuple[Array, Array]:
        """Return the local loss of every row, and its gradient with respect to the row.

        Args:
          rows: (rows, units) what `rows_of` makes of the outputs.
          labels: (rows,).
          apply: consumes gradients of what the signal itself trains.
        """
        ...


@dataclass(frozen=True)
class TargetProjection:
    """The rule of tpSGD: pull the outputs of a block towards t = P[label], P random and fixed.

    With an elementwise loss the error is phi'(y - t); `softmax` reads the outputs through P instead
    (logits = P y / sqrt(units)) and takes the cross entropy, so that outputs are free in whatever
    does not tell classes apart.

    Source: tpSGD (arXiv:2208.08503). Its residual is what tells it from DRTP (arXiv:1909.01311): it
    has a fixed point. `softmax` is ours. Every loss is a mean over rows, so that a rate carries
    over between batch sizes, which the code of DRTP does not do.
    """

    loss: str
    projections: Projections
    classes: int

    def error(
        self, block: Stage, rows: Array, labels: NDArray[Any], parameters: Point, apply: Apply
    ) -> tuple[Array, Array]:
        """Return local losses and errors."""
        sizes = (block.name, self.classes, rows.shape[1])
        if self.loss in MARGIN_LOSSES:  # a class is the signs of its row, whatever the outputs
            return _margin_error(
                self.loss, rows, self.projections.matrix(*sizes)[labels], block.bounds
            )
        if self.loss != "softmax":
            targets = self.projections.targets(*sizes, block.bounds)
            return local_error(self.loss, rows, targets[labels])
        matrix = self.projections.matrix(*sizes) * np.float32(1 / math.sqrt(rows.shape[1]))
        losses, error = cross_entropy(rows @ matrix.T, labels)
        return losses, error @ matrix


def _margin_error(
    loss: str, rows: Array, targets: Array, bounds: tuple[float, float]
) -> tuple[Array, Array]:
    """Return what `local_error` does, for outputs that count from the middle of what is possible.

    A sign tells two classes apart only where outputs have either: the margin of a sigmoid is
    2 y - 1, that of a ReLU y - 1/2.
    """
    low, high = bounds
    middle, slope = np.float32(0), np.float32(1)
    if math.isfinite(low) and math.isfinite(high):
        middle, slope = np.float32((low + high) / 2), np.float32(2 / (high - low))
    elif math.isfinite(low):
        middle = np.float32(low + _FLOOR_MARGIN)
    losses, error = local_error(loss, (rows - middle) * slope, targets)
    return losses, error * slope


@dataclass(frozen=True)
class LocalRule:
    """How a block is trained on its own.

    Args:
      signal: what tells a hidden block how to change; the last one has its cross entropy.
      view: how pictures and sequences meet their targets; see `rows_of`.
      reach: "row" takes the state before each row of a sequence for a constant; "rows" is exact
        within a recurrent block, whose rows are in memory anyway. Other blocks are the same.
      micro_batch: samples whose inner activations exist at once, in blocks where that saves
        memory; None takes the whole batch. Gradients of the parts are added up.
    """

    signal: Signal
    view: str
    through: Through = "rows"
    micro_batch: int | None = None


@dataclass(frozen=True)
class LayerByLayer:
    """Trains all blocks in one forward pass, each on its own target: the `online` mode.

    A block hands on what it computed before its update. One tape exists at a time, so the peak is
    that of the largest block, whatever the depth.
    """

    rule: LocalRule

    def estimate(
        self, runtime: BlockwiseRuntime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Emit every block's local gradient, first block first.

        Raises:
          NonFinite: a local loss was not finite; blocks before it have been applied.
        """
        values, labels = batch["inputs"], batch["labels"]
        found = []
        for index in range(len(runtime.blocks)):
            values, loss = train_block(runtime, index, values, labels, self.rule, apply)
            found.append(loss)
        return Estimate(found[-1], (), forwards=len(labels), block_losses=tuple(found))


def train_block(
    runtime: BlockwiseRuntime,
    index: int,
    inputs: Array,
    labels: NDArray[Any],
    rule: LocalRule,
    apply: Apply,
) -> tuple[Array, float]:
    """Run one block, hand `apply` its local gradients and let go of all but its outputs.

    The last block learns from the cross entropy of its logits: the exact gradient of one layer.

    Raises:
      NonFinite: a local loss is not finite; nothing of this block was applied.
    """
    block, count = runtime.blocks[index], len(labels)
    size = rule.micro_batch or count
    if size >= count or not block.divisible:
        return _train(runtime, index, inputs, labels, rule, apply)
    outputs = np.empty((count, *block.output_shape), np.float32)
    total: dict[str, Array] = {}
    mean = 0.0
    for start in range(0, count, size):
        some = slice(start, min(start + size, count))
        share = (some.stop - some.start) / count

        def add(name: str, gradient: Array, share: float = share) -> None:
            gradient *= np.float32(share)
            total[name] = np.add(total[name], gradient, out=gradient) if name in total else gradient

        outputs[some], loss = _train(runtime, index, inputs[some], labels[some], rule, add)
        mean += share * loss
    for name in list(total):
        apply(name, total.pop(name))
    return outputs, mean


def _train(
    runtime: BlockwiseRuntime,
    index: int,
    inputs: Array,
    labels: NDArray[Any],
    rule: LocalRule,
    apply: Apply,
) -> tuple[Array, float]:
    block = runtime.blocks[index]
    outputs, tape = runtime.run(index, inputs)
    if index == len(runtime.blocks) - 1:
        losses, error = cross_entropy(outputs, labels)
        count = len(losses)
    else:
        view = view_of(block, rule.view)
        rows = rows_of(outputs, view)
        count = len(rows)
        repeats = repeated(labels, count)
        losses, error = rule.signal.error(block, rows, repeats, runtime.parameters, apply)
        del rows
        error = spread(error, outputs.shape, view)
    if not np.isfinite(losses).all():
        raise NonFinite(f"the local loss of block {block.name!r} is not finite")
    error *= np.float32(1 / count)
    runtime.backward_stage(index, tape, error, apply, rule.through)
    return outputs, float(losses.mean(dtype=np.float64))
